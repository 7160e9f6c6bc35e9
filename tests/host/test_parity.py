"""The network that ships, on real pictures: its file is its network, and its graph one that a GPU gets right, too."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer.main
from numpy.typing import NDArray

pytest.importorskip("tensorflow_model_optimization")

import tf_keras

from edge_ran import catalogue, cli, graph
from edge_ran.architecture import configure
from edge_ran.card import InputSpec, ModelCard
from edge_ran.errors import GateError
from edge_ran.host import fake_quant, networks, parity, rewrites
from edge_ran.host.calibration import of_folder
from edge_ran.host.flatbuffer import flatbuffer
from edge_ran.preprocess import fit_pixels
from edge_ran.runs import SHIPPED, SHIPPED_TFLITE, RunFolder
from edge_ran.runtime import agreement, open_runtime

EDGE50 = SHIPPED / "edge50"


SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


def test_the_shipped_file_is_its_network_on_a_thousand_pictures(shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "cifar10.zip") as archive:
        names = sorted(n for n in archive.namelist() if "/test/" in n and n.endswith(".webp"))[::5]
        frames = [cv2.imdecode(np.frombuffer(archive.read(n), np.uint8), cv2.IMREAD_COLOR) for n in names]
    found = parity.check_parity(EDGE50, EDGE50 / SHIPPED_TFLITE, frames, layers=False)  # type: ignore[arg-type]
    assert (found.reference, found.pictures) == (parity.FAKE_QUANTISED, 1000)
    assert found.agreement >= 0.995


@pytest.mark.parametrize(
    ("precision", "is_quantised", "reference", "remedy"),
    [
        ("int8", True, parity.FLOAT, "edge-ran quantize runs/mine"),
        ("int8", True, parity.FAKE_QUANTISED, "edge-ran convert --force --precision int8 runs/mine -o m.tflite"),
        ("fp16", False, parity.FLOAT, "edge-ran convert --force --precision fp16 runs/mine -o m.tflite --no-rewrite"),
    ],
)
def test_a_file_that_disagrees_gets_the_command_that_helps(
    precision: str, is_quantised: bool, reference: str, remedy: str
) -> None:
    layer = parity.LayerDifference(3, "CONV_2D", "stem_conv", 9.0, 2.0, 0.5)
    found = parity.ParityReport(
        "m.tflite", "runs/mine", precision, is_quantised, reference, 32, 0.9, 0.1, 40.0, (layer,), layer
    )
    with pytest.raises(GateError, match="first differing layer: stem_conv") as caught:
        parity.check(found)
    assert caught.value.remedy == remedy
    verbs = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    words = remedy.split()
    options = {name for one in verbs[words[1]].params for name in (*one.opts, *one.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= options
    parity.check(replace(found, agreement=0.995))


def test_a_layer_of_several_operators_is_held_against_the_last_of_them(tmp_path: Path) -> None:
    """Spatial normalisation is six operators, of which two more write a tensor of the layer's shape and name."""
    architecture = configure("edge50", width=0.25, attention="spatial")
    model, spec = rewrites.rewrite(networks.build(architecture)).model, InputSpec(32, 32)
    path = tmp_path / "m.tflite"
    path.write_bytes(flatbuffer(model, catalogue.converter("fp32"), spec, io="float32"))
    frames = list(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8))
    pixels = np.stack([fit_pixels(frame, spec) for frame in frames])
    found = [d for d in parity._layers(model, graph.read_graph(path), frames, pixels, spec) if "spatialnorm" in d.layer]
    assert [d.operator for d in found] == ["MUL"] * 3
    assert max(d.max_steps for d in found) < 0.1


def test_the_shipped_network_is_right_on_a_gpu_and_wrong_without_the_rewrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same network with its strided shortcuts as they were trained: only its top-1 on a GPU changes."""
    if not SWIFTSHADER.is_file():
        pytest.skip(f"no software GPU: {SWIFTSHADER} is absent (apt install chromium chromium-common libvulkan1)")
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("VK_DRIVER_FILES", str(SWIFTSHADER))
    run = RunFolder(EDGE50)
    spec = ModelCard.from_json(run.card_path.read_text()).input
    pictures, _ = of_folder(None, spec, 120)

    model = networks.load(run.model_path)
    drawn = rewrites.LayerGraph.of(model)
    for choice in [node for node in drawn.nodes.values() if node.name.endswith("_stride")]:
        (shortcut,) = drawn.readers(choice)
        drawn.put(replace(shortcut, config={**shortcut.config, "strides": (2, 2)}))
        drawn.bypass(choice)
    unwritten = drawn.model("unwritten")
    assert len(model.layers) - len(unwritten.layers) == 2
    assert rewrites.difference(model, unwritten) < 1e-4
    ranges = fake_quant.load_ranges(run.ranges_path)

    def converted(network: tf_keras.Model, path: Path) -> Path:
        function = fake_quant.as_deployed(fake_quant.fake_quantise(network, ranges, for_converter=True))
        path.write_bytes(flatbuffer(function, catalogue.converter("int8"), spec, io="uint8"))
        return path

    plain, now = converted(unwritten, tmp_path / "plain.tflite"), converted(model, tmp_path / "now.tflite")

    def answers(path: Path, accelerator: str, count: int) -> list[NDArray[np.uint8]]:
        with open_runtime(path, accelerator=accelerator) as runtime:
            assert runtime.accelerator.actual == accelerator
            return [runtime.run(picture[None])[0].copy() for picture in pictures[:count]]

    shipped = EDGE50 / SHIPPED_TFLITE
    with open_runtime(shipped) as runtime:
        tensor = runtime.outputs[0]
    rewritten = agreement.compare(answers(shipped, "cpu", 120), answers(shipped, "gpu", 120), tensor)
    assert rewritten.top1 >= 0.99
    assert rewritten.is_right
    right = answers(plain, "cpu", 40)
    assert np.array_equal(right, answers(now, "cpu", 40))  # the CPU gets both right
    strided = agreement.compare(right[:20], answers(plain, "gpu", 20), tensor)
    assert strided.top1 < 0.9
    assert not strided.is_right
