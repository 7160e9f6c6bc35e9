"""The demo on a network of three colours, small enough to convert in seconds."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from schemas import valid_record

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

from edge_ran import dataset
from edge_ran.architecture import Architecture, Stage
from edge_ran.bench import Plan
from edge_ran.card import Accuracy, InputSpec, ModelCard
from edge_ran.errors import InputError, OutputExists
from edge_ran.evaluate import evaluate
from edge_ran.graph import read_card
from edge_ran.host import networks
from edge_ran.host.demo import CLIP_FPS, CLIP_SIZE, DemoReport, demo, make_clip

LABELS = ("blue", "green", "red")


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an untrained network that has statistics to fold, for the converter deletes what is 0 and 1."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    run.mkdir()
    stages = (Stage(8, 4, 1, 1, 1), Stage(8, 4, 2, 1, 1), Stage(8, 4, 2, 1, 1))
    architecture = Architecture("tiny", 32, 3, 3, 8, 1, 2, stages, (), t=1, bottleneck_ratio=2, mask_pool=2)
    networks.tf_keras.utils.set_random_seed(0)  # the same network whatever ran before
    model = networks.build(architecture)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.endswith("_bn"):
            layer.set_weights([np.abs(random.normal(1, 0.1, w.shape)).astype(np.float32) for w in layer.get_weights()])
    last = model.get_layer("logits")
    image = random.uniform(-1, 1, (1, architecture.input_size, architecture.input_size, 3)).astype(np.float32)
    largest = np.abs(networks.tf_keras.Model(model.input, last.output)(image)).max()
    last.set_weights([w / largest for w in last.get_weights()])  # as soft answers as a trained network's
    networks.save(model, run / "model.keras")
    size = architecture.input_size
    card = ModelCard("tiny <3>", LABELS, InputSpec(size, size), network="edge50", accuracy=Accuracy(top1=0.5, images=6))
    (run / "card.json").write_text(card.to_json())
    return run


@pytest.fixture(scope="module")
def done(
    tiny_run: Path, make_pictures: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[DemoReport, list[str]]:
    said: list[str] = []
    folder = tmp_path_factory.mktemp("demo") / "new"
    data = make_pictures(folder.parent / "pictures", LABELS)
    plan = Plan(num_runs=5, warmup_runs=1, min_secs=0, max_secs=5)
    return demo(folder, run=tiny_run, data=data, plan=plan, note=said.append), said


def test_it_leaves_three_files_a_clip_and_a_page(done: tuple[DemoReport, list[str]]):
    report, said = done
    valid_record("demo", report)
    folder = Path(report.report).parent
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        ["clip.avi", "fp16.tflite", "fp32.tflite", "int8.tflite", "report.html"]
    )
    assert [read_card(Path(f.path)).precision for f in report.files] == ["fp32", "fp16", "int8"]
    assert [f.size_bytes for f in report.files] == [Path(f.path).stat().st_size for f in report.files]
    assert said[0] == "converting to fp32"


def test_the_reference_agrees_with_itself_and_fp16_nearly(done: tuple[DemoReport, list[str]]):
    fp32, fp16, int8 = done[0].files
    assert (fp32.agreement, fp32.difference) == (1.0, 0.0)
    assert fp16.difference < 0.01
    assert 0 < int8.difference < 0.5


def test_every_frame_of_the_clip_is_classified(done: tuple[DemoReport, list[str]]):
    assert done[0].clip_frames == 144


def test_the_page_stands_alone_and_holds_pictures_that_open(done: tuple[DemoReport, list[str]]):
    page = Path(done[0].report).read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    pictures = re.findall(r"data:image/webp;base64,([^\"]+)", page)
    assert len(pictures) > 30
    for picture in pictures:
        assert cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR).any()
    assert page.count("<svg") == 3
    assert "tiny &lt;3&gt;" in page
    assert "stage 3, module 1" in page


def test_labelled_pictures_give_top1_of_every_file(done: tuple[DemoReport, list[str]]):
    report, _ = done
    assert report.top1_images == 24
    labelled = dataset.load(Path(report.report).parents[1] / "pictures")
    for file in report.files:
        assert file.top1 == evaluate(Path(file.path), labelled).top1
    assert "24 labelled pictures" in Path(report.report).read_text()


def test_a_page_that_is_there_is_kept(done: tuple[DemoReport, list[str]], tiny_run: Path):
    with pytest.raises(OutputExists):
        demo(Path(done[0].report).parent, run=tiny_run)


def test_a_video_of_the_user_is_kept(tmp_path: Path, tiny_run: Path):
    (tmp_path / "clip.avi").write_bytes(b"mine")
    with pytest.raises(OutputExists):
        demo(tmp_path, run=tiny_run)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["clip.avi"]


def test_what_is_no_run_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(InputError):
        demo(tmp_path / "demo", run=tmp_path / "nothing")
    assert not (tmp_path / "demo").exists()


def test_the_clip_can_be_read_as_a_camera(tmp_path: Path):
    frames = [np.full((30, 90, 3), 255 * i // 3, np.uint8) for i in range(4)]
    make_clip(frames, tmp_path / "clip.avi")
    capture = cv2.VideoCapture(str(tmp_path / "clip.avi"))
    read = []
    while (frame := capture.read()[1]) is not None:
        read.append(frame)
    assert len(read) == 4 * 12
    assert read[0].shape == (CLIP_SIZE[1], CLIP_SIZE[0], 3)
    assert capture.get(cv2.CAP_PROP_FPS) == CLIP_FPS
    assert abs(float(read[-1].mean()) - 255) < 3


def test_the_record_is_json(done: tuple[DemoReport, list[str]]):
    import dataclasses

    record = json.loads(json.dumps(dataclasses.asdict(done[0])))
    assert [f["precision"] for f in record["files"]] == ["fp32", "fp16", "int8"]
