"""From a run folder to one file: every precision, what the file says of itself, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from schemas import valid

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tensorflow as tf
import tf_keras
from test_rewrites import SMALL, randomised

from edge_ran import __version__, catalogue, cli, files, records
from edge_ran.architecture import Stage, configure
from edge_ran.card import Accuracy, Calibration, InputSpec, ModelCard
from edge_ran.cli.render.convert import converted
from edge_ran.errors import EnvironmentMissing, InputError, OutputExists, UsageError
from edge_ran.graph import TensorSpec, add_masks, parse_graph, read_card, read_graph
from edge_ran.host import networks
from edge_ran.host.calibration import of_folder
from edge_ran.host.convert import ConvertResult, convert
from edge_ran.host.flatbuffer import flatbuffer
from edge_ran.host.read_run import read_run
from edge_ran.picture import read_picture
from edge_ran.preprocess import Preprocessor, fit_pixels, normalise
from edge_ran.runtime import open_runtime

SPEC = InputSpec(16, 16)
LABELS = ("chelsea", "china", "coffee")  # a cat, a palace and a cup among the calibration pictures
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a small network that knows three things."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    tf_keras.utils.set_random_seed(0)
    wide = {
        "stages": (Stage(32, 16, 1, 1, 2),),
        "tail": ((16, 32, 2),),
        "r": 0,
    }  # converters leave tiny weights float
    model = randomised(networks.build(dataclasses.replace(SMALL, input_size=16, classes=3, mask_tail="linear", **wide)))
    model.compile(tf_keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    pixels, classes = photos()
    model.fit(normalise(pixels, SPEC), classes, batch_size=18, epochs=40, verbose=0)
    networks.save(model, folder / "model.keras")
    card = ModelCard("small", LABELS, SPEC, network="small", accuracy=Accuracy(top1=0.5, images=10))
    files.write_text(folder / "card.json", card.to_json())
    return folder


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory):
    """A function: converter's name and settings -> the conversion, made once."""
    folder, done = tmp_path_factory.mktemp("made"), {}

    def make(precision: str, **settings: object) -> ConvertResult:
        key = (precision, *settings.items())
        if key not in done:
            output = folder / f"{len(done)}.tflite"
            done[key] = convert(run, catalogue.converter(precision), output, **settings)  # type: ignore[arg-type]
        return done[key]

    return make


def photos(size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """(54, size, size, 3) uint8 RGB calibration pictures of the three classes, and their classes."""
    paths = [(p, i) for i, label in enumerate(LABELS) for p in catalogue.folder("calibration_data").glob(f"{label}-*")]
    pixels = np.stack([fit_pixels(read_picture(path), InputSpec(size, size)) for path, _ in sorted(paths)])
    return pixels, np.array([i for _, i in sorted(paths)])


def answers(path: Path, pixels: np.ndarray, accelerator: str = "cpu") -> np.ndarray:
    """(n, classes) float probabilities that a file gives, whatever the type of its input and output."""
    with open_runtime(path, accelerator=accelerator) as runtime:
        given, got = runtime.input, runtime.outputs[0]
        kinds = {
            "uint8": pixels,
            "int8": (pixels.astype(int) - 128).astype(np.int8),
            "float32": normalise(pixels, SPEC),
        }
        out = np.array([runtime.run(picture[None])[0][0].copy() for picture in kinds[given.dtype]], np.float32)
    return (out - got.zero_point) * got.scale if got.scale else out


@pytest.mark.parametrize(
    ("precision", "weights", "tolerance"),
    [
        ("fp32", "float32", 1e-5),
        ("fp16", "float16", 0.01),
        ("dynamic", "int8", 0.05),
        ("int8", "int8", 0.15),
        ("int16x8", "int8", 0.05),
    ],
)
def test_every_precision_answers_like_the_network(
    made, run: Path, precision: str, weights: str, tolerance: float
) -> None:
    pixels, classes = photos()
    wanted = tf_keras.models.load_model(run / "model.keras", compile=False)(normalise(pixels, SPEC)).numpy()
    assert np.mean(wanted.argmax(1) == classes) > 0.9
    got = answers(made(precision).path, pixels)
    assert np.abs(got - wanted).max() < tolerance
    assert np.mean(got.argmax(1) == wanted.argmax(1)) > 0.98
    graph = read_graph(made(precision).path)
    stored = {
        tensor.dtype for op in graph.operators for tensor in op.inputs if tensor.constant and tensor.elements > 2000
    }
    assert stored == {weights}
    assert graph.inputs[0].shape == (1, 16, 16, 3)  # a batch of 1, fixed


def test_int8_is_integer_throughout_and_its_input_is_the_pixel_exactly(made) -> None:
    for io, zero_point in (("int8", 0), ("uint8", 128)):
        graph = read_graph(made("int8", io=io).path)
        assert (graph.inputs[0].dtype, graph.outputs[0].dtype) == (io, io)
        assert (graph.inputs[0].scale, graph.inputs[0].zero_point) == (1 / 128, zero_point)
        assert graph.float_operators == []
    assert "QUANTIZE" not in read_graph(made("int8", io="int8").path).operator_counts
    signed, unsigned = (answers(made("int8", io=io).path, photos()[0]) for io in ("int8", "uint8"))
    assert (signed == unsigned).all()


def test_the_file_says_what_was_done(made) -> None:
    conversion = made("int8")
    card = read_card(conversion.path)
    assert card is not None
    assert (card.labels, card.input, card.precision) == (LABELS, SPEC, "int8")
    assert card.calibration == Calibration("calibration_data", 120, "shipped")
    assert card.accuracy.of == "the network before conversion"
    assert card.versions.edge_ran == __version__
    assert card.versions.tensorflow == tf.__version__
    assert card.rewrites == tuple(f"{p.name} ({p.places})" for p in conversion.passes)
    assert len(card.rewrites) == 5
    text = converted(conversion)
    assert str(conversion.path) in text
    assert "120 pictures of calibration_data" in text
    assert "1 x stride before pointwise convolution" in text
    assert records.document(conversion)["operators"]["CONV_2D"] == conversion.operators["CONV_2D"]


def test_no_rewrite_leaves_the_graph_and_shows_the_difference(made) -> None:
    plain, rewritten = made("int8", rewrite=False), made("int8")
    assert plain.passes == ()
    assert plain.operators["CONV_2D"] == rewritten.operators["CONV_2D"] + 1  # the two of the mask's tail are not merged
    assert plain.operators["MUL"] > rewritten.operators["MUL"]
    assert _strided_pointwise(plain.path) == 1
    assert _strided_pointwise(rewritten.path) == 0


def test_the_gpu_is_right_about_the_rewritten_file_and_wrong_about_the_plain_one(
    made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason for one of the rewrites: LiteRT's GPU miscomputes an int8 1x1 convolution of stride 2, silently."""
    if not SWIFTSHADER.is_file():
        pytest.skip(f"no software GPU: {SWIFTSHADER} is absent (apt install chromium chromium-common libvulkan1)")
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("VK_DRIVER_FILES", str(SWIFTSHADER))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)  # shows every channel of the shortcut

    def off(rewrite: bool) -> float:
        path = made("int8", io="int8", rewrite=rewrite).path
        with open_runtime(path, accelerator="gpu") as gpu:
            assert gpu.accelerator.actual == "gpu"
        return float(np.abs(answers(path, pixels, accelerator="gpu") - answers(path, pixels)).max())

    assert off(rewrite=True) < 0.02  # five steps of 1/256
    assert off(rewrite=False) > 0.05


def test_conversion_is_silent_unless_asked(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert(run, catalogue.converter("fp32"), tmp_path / "a.tflite")
    assert capfd.readouterr() == ("", "")


def test_a_converter_of_ones_own(run: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(
        'summary = "few pictures"\nweights = "int8"\nactivations = "int8"\nio = "float32"\n'
        "calibration = 4\nmax_drop = 2.0\n"
    )
    conversion = convert(run, catalogue.converter(str(own)), tmp_path / "m.tflite")
    assert conversion.calibration.pictures == 4
    assert "are few" in conversion.notes[0]
    assert read_card(conversion.path).precision == "mine"  # type: ignore[union-attr]
    graph = read_graph(conversion.path)
    assert (graph.inputs[0].dtype, graph.outputs[0].dtype) == ("float32", "float32")


def test_masks_that_int8_would_spoil_are_noted(run: Path, made, tmp_path: Path) -> None:
    assert made("int8").notes == ()
    model = networks.load(run / "model.keras")
    for sigmoid in (layer for layer in model.layers if layer.name.endswith("sigmoid")):
        before = sigmoid.inbound_nodes[0].parent_nodes[0].layer
        before.set_weights([300 * weight for weight in before.get_weights()])
    wild = tmp_path / "wild"
    shutil.copytree(run, wild)
    networks.save(model, wild / "model.keras")
    (note,) = convert(wild, catalogue.converter("int8"), tmp_path / "wild.tflite").notes
    assert "1 of the soft masks" in note
    assert "edge-ran quantize" in note
    assert convert(wild, catalogue.converter("fp16"), tmp_path / "wild16.tflite").notes == ()


@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_an_input_that_does_not_take_pixels_is_noted(run: Path, tmp_path: Path, io: str) -> None:
    imported = tmp_path / "imported"
    shutil.copytree(run, imported)
    spec = InputSpec(16, 16, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    card = ModelCard("small", LABELS, spec, network="small", accuracy=Accuracy(top1=0.5, images=10))
    files.write_text(imported / "card.json", card.to_json())
    conversion = convert(imported, catalogue.converter("int8"), tmp_path / "m.tflite", io=io)
    (note,) = (note for note in conversion.notes if "from the pixel" in note)
    tensor = read_graph(conversion.path).inputs[0]
    black_and_white = np.repeat(np.array([0, 255], np.uint8)[:, None], 3, axis=1)
    wanted = np.round(normalise(black_and_white, spec) / tensor.scale) + tensor.zero_point  # as docs/apps.md says
    limits = np.iinfo(io)
    fed = np.clip(wanted, limits.min, limits.max) - limits.min
    levels = int(np.abs(fed - black_and_white).max())
    assert levels > 5
    assert f"the {io} input is up to {levels} of 255 from the pixel" in note


def test_an_output_that_exists_is_kept(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.tflite"
    output.write_bytes(b"precious")
    with pytest.raises(OutputExists):
        convert(run, catalogue.converter("fp32"), output)
    assert output.read_bytes() == b"precious"


def test_a_full_disk_leaves_the_old_file(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "m.tflite"
    output.write_bytes(b"precious")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentMissing, match="no space left"):
        convert(run, catalogue.converter("fp32"), output, force=True)
    assert output.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [output]


def _pictures(folder: Path, *pictures: np.ndarray) -> Path:
    folder.mkdir()
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(folder / f"{i}.png"), picture)
    return folder


def test_calibration_pictures_that_cannot_stand_for_anything(tmp_path: Path) -> None:
    black, photo = np.zeros((32, 32, 3), np.uint8), photos()[0][0]
    refused = {
        "one picture": _pictures(tmp_path / "one", photo),
        "of one colour": _pictures(tmp_path / "black", black, black, black + 1),
        "times the same picture": _pictures(tmp_path / "same", photo, photo),
        "too small": _pictures(tmp_path / "tiny", photo, photo[:2, :3]),
        "no pictures": _pictures(tmp_path / "none"),
        "not a folder": tmp_path / "missing",
    }
    for words, folder in refused.items():
        with pytest.raises(InputError, match=words) as error:
            of_folder(folder, SPEC, 10)
        assert "--calibration-data" in error.value.remedy
    torn = _pictures(tmp_path / "torn", photo, photo)
    (torn / "1.png").write_bytes((torn / "0.png").read_bytes()[:100])
    with pytest.raises(InputError, match=r"1\.png"):
        of_folder(torn, SPEC, 10)


def test_calibration_pictures_are_spread_over_the_folder_and_its_subfolders(tmp_path: Path) -> None:
    pictures, _ = photos()
    folder = _pictures(tmp_path / "a", *pictures[:3])
    shutil.copytree(_pictures(tmp_path / "b", *pictures[3:6]), folder / "b")
    pixels, record = of_folder(folder, InputSpec(16, 16, color="bgr"), 2)
    assert record == Calibration("a", 2, "folder")
    assert (pixels == pictures[[0, 5]]).all()


def test_the_shipped_pictures_are_enough_for_every_size() -> None:
    for size in (32, 224, 320):
        assert of_folder(None, InputSpec(size, size), 200)[0].shape == (120, size, size, 3)


def test_runs_that_are_none(run: Path, tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "m.tflite", "converted already"),
        (Path("indoor56"), "is a network, not a run"),
        (tmp_path / "nothing", "no run folder"),
    ):
        with pytest.raises(InputError, match=words):
            read_run(path)
    for change, words in (
        ({"labels": ("a", "b")}, "2 labels for a network of 3 outputs"),
        ({"input": InputSpec(16, 32)}, "the card says 16x32"),
    ):
        folder = tmp_path / words.split()[0]
        shutil.copytree(run, folder)
        card = ModelCard.from_json((run / "card.json").read_text())
        (folder / "card.json").write_text(dataclasses.replace(card, **change).to_json())
        with pytest.raises(InputError, match=words):
            read_run(folder)


def test_weights_that_are_not_numbers(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "diverged"
    shutil.copytree(run, folder)
    model = networks.load(run / "model.keras")
    norm = model.get_layer("stage1_unit_pre_bn")
    norm.set_weights([np.full_like(w, np.nan) for w in norm.get_weights()])
    networks.save(model, folder / "model.keras")
    with pytest.raises(InputError, match="layer stage1_unit_pre_bn has weights that are NaN"):
        convert(folder, catalogue.converter("fp32"), tmp_path / "m.tflite")


def test_a_run_quantised_in_training_brings_its_own_ranges(run: Path, made, tmp_path: Path) -> None:
    from edge_ran.host import fake_quant, rewrites

    folder = tmp_path / "quantised"
    shutil.copytree(run, folder)
    model = rewrites.rewrite(networks.load(run / "model.keras")).model
    ranges = fake_quant.calibrate(model, photos()[0], SPEC)
    fake_quant.snap(model, ranges)
    networks.save(model, folder / "model.keras")
    fake_quant.save_ranges(ranges, folder / "ranges.json")
    conversion = convert(folder, catalogue.converter("int8"), tmp_path / "m.tflite", io="int8")
    assert conversion.calibration.kind == "quantisation-aware training"
    assert conversion.operators == made("int8", io="int8").operators
    assert (read_graph(conversion.path).inputs[0].scale, conversion.float_operators) == (1 / 128, ())
    masked = convert(folder, catalogue.converter("int8"), tmp_path / "a.tflite", io="int8", attention=True)
    assert (outputs(masked.path, photos()[0])[0] == outputs(conversion.path, photos()[0])[0]).all()
    wanted = fake_quant.as_deployed(fake_quant.fake_quantise(model, ranges))(normalise(photos()[0], SPEC))
    assert np.abs(answers(conversion.path, photos()[0]) - wanted).max() < 0.02
    for late in ({"rewrite": False}, {"calibration": tmp_path}):
        with pytest.raises(UsageError):
            convert(folder, catalogue.converter("int8"), tmp_path / "n.tflite", **late)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------- masks


def keras_masks(model: tf_keras.Model, pixels: np.ndarray) -> list[np.ndarray]:
    """(n, h, w) float32 each: every module's soft mask, its mean over the channels, as Keras computes it."""
    gates = [layer for layer in model.layers if layer.name.endswith("_gate")]
    values = tf_keras.Model(model.input, [gate.input[0] for gate in gates])(normalise(pixels, SPEC))
    return [np.asarray(one).mean(-1) for one in (values if len(gates) > 1 else [values])]


def outputs(path: Path, pixels: np.ndarray) -> list[np.ndarray]:
    """What a file gives for pictures, as its own numbers: scores (n, classes), then masks (n, h, w, 1)."""
    with open_runtime(path) as runtime:
        prepare = Preprocessor(SPEC, runtime.input)
        given = [runtime.run(prepare(picture[:, :, ::-1])) for picture in pixels]
    return [np.concatenate(one) for one in zip(*given, strict=True)]


def real(values: np.ndarray, tensor: TensorSpec) -> np.ndarray:
    return (values.astype(np.float64) - tensor.zero_point) * tensor.scale if tensor.scale else values


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 0.005), ("dynamic", 0.02), ("int8", 0.1), ("int16x8", 0.03)]
)
def test_masks_as_outputs_leave_the_scores_as_they_are(made, run: Path, precision: str, tolerance: float) -> None:
    plain, masked = made(precision), made(precision, attention=True)
    pixels, _ = photos()
    (scores,), (same, *masks) = outputs(plain.path, pixels), outputs(masked.path, pixels)
    assert (scores == same).all()
    before, after = read_graph(plain.path), read_graph(masked.path)
    wanted = keras_masks(networks.load(run / "model.keras"), pixels)
    for mask, tensor, right in zip(masks, after.outputs[1:], wanted, strict=True):
        off = np.abs(real(mask, tensor)[..., 0] - right)
        assert off.max() < tolerance
        assert off.mean() < min(tolerance, 0.2 * right.std())
    assert masked.masks == read_card(masked.path).masks == ("stage1_module1",)  # type: ignore[union-attr]
    assert "soft masks as outputs" in converted(masked)
    border = {"int8": {"QUANTIZE": 1}, "int16x8": {"DEQUANTIZE": 1}}.get(precision, {})  # as the scores have it
    assert Counter(after.operator_counts) - Counter(before.operator_counts) == {"MEAN": 1, **border}
    if precision.startswith("int"):
        assert (after.float_operators, after.inner_quantize) == ([], [])
    assert after.outputs[1].dtype == after.outputs[0].dtype


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "channel", "upsampling": "nearest"},
        {"attention": "spatial", "upsampling": "bilinear", "mask_tail": "linear", "learning": "naive"},
        {"attention": "mixed", "upsampling": "nearest"},
    ],
    ids=lambda options: " ".join(options.values()),
)
def test_every_kind_of_mask_can_be_an_output(options: dict[str, str], tmp_path: Path) -> None:
    from edge_ran.host import fake_quant, rewrites

    model = randomised(networks.build(dataclasses.replace(SMALL, input_size=16, r=0, **options)))
    rewritten, (pixels, _) = rewrites.rewrite(model).model, photos()
    ranges = fake_quant.calibrate(rewritten, pixels, SPEC)
    rounded = fake_quant.as_deployed(fake_quant.fake_quantise(rewritten, ranges, for_converter=True))
    wanted = keras_masks(model, pixels)
    for name, network, calibration in (
        ("fp32", rewritten, None),
        ("int8", rewritten, pixels),
        ("int8", rounded, None),  # as of a run quantised in training
    ):
        data = flatbuffer(network, catalogue.converter(name), SPEC, calibration)
        masked, modules = add_masks(data)
        assert modules == ("stage1_module1",)
        (tmp_path / "a.tflite").write_bytes(data)
        (tmp_path / "b.tflite").write_bytes(masked)
        before, after = read_graph(tmp_path / "a.tflite"), read_graph(tmp_path / "b.tflite")
        (scores,), (same, *masks) = outputs(before.path, pixels[::6]), outputs(after.path, pixels[::6])
        assert (scores == same).all()
        assert len(after.float_operators) - len(before.float_operators) == (name == "fp32")
        assert len(after.inner_quantize) == len(before.inner_quantize)
        for mask, tensor, right in zip(masks, after.outputs[1:], wanted, strict=True):
            assert (tensor.dtype, tensor.shape[1:]) == ("float32" if name == "fp32" else "uint8", (16, 16, 1))
            off = np.abs(real(mask, tensor)[..., 0] - right[::6])
            assert off.max() < 1e-5 if name == "fp32" else off.mean() < max(0.35 * right.std(), tensor.scale)


@pytest.mark.parametrize("name", ["indoor56", "cifar_attention92", "attention92", "attention_next56"])
def test_every_network_has_a_mask_for_each_module(name: str) -> None:
    a = configure(name, width=0.125, input_size=64 if "cifar" not in name and name != "indoor56" else None)
    spec = InputSpec(a.input_size, a.input_size)
    masked, modules = add_masks(flatbuffer(networks.build(a), catalogue.converter("fp32"), spec))
    assert modules == tuple(f"stage{i}_module{j}" for i, s in enumerate(a.stages, 1) for j in range(1, s.modules + 1))
    assert len(parse_graph(masked).outputs) == 1 + len(modules)


def test_a_network_without_masks_has_none_to_give(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(run, folder)
    networks.save(
        networks.build(dataclasses.replace(SMALL, input_size=16, classes=3, mask=False)), folder / "model.keras"
    )
    with pytest.raises(InputError, match="no attention masks: it was trained with --no-mask"):
        convert(folder, catalogue.converter("fp32"), tmp_path / "m.tflite", attention=True)
    assert not (tmp_path / "m.tflite").exists()


def test_settings_that_contradict_each_other(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "m.tflite"
    with pytest.raises(UsageError, match="needs no calibration"):
        convert(run, catalogue.converter("fp16"), output, calibration=tmp_path)
    with pytest.raises(UsageError, match="cannot be uint8"):
        convert(run, catalogue.converter("fp32"), output, io="uint8")
    with pytest.raises(UsageError, match="'int9' is unknown") as error:
        convert(run, catalogue.converter("int8"), output, io="int9")
    assert "int8" in error.value.remedy
    half = dataclasses.replace(catalogue.converter("int8"), weights="float16")
    with pytest.raises(InputError, match="no runtime has kernels"):
        convert(run, half, output)
    blind = dataclasses.replace(catalogue.converter("int8"), calibration=0)
    with pytest.raises(InputError, match="calibration = 0"):
        convert(run, blind, output)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--precision", "int88"], "did you mean 'int8'?"),
        (["--int8", "--fp16"], "one precision at a time"),
        (["--int8", "--calibration-data", "nowhere"], "nowhere is not a folder"),
        (["nothing"], "no run folder nothing"),
    ],
)
def test_the_command_says_what_is_wrong(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    named = [] if "nothing" in words else [str(run)]
    monkeypatch.setattr(sys, "argv", ["edge-ran", "convert", *named, *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def _strided_pointwise(path: Path) -> int:
    return sum(
        op.name == "CONV_2D" and op.weights.shape[1:3] == (1, 1) and op.options["stride_h"] == 2  # type: ignore[union-attr]
        for op in read_graph(path).operators
    )


def test_a_devices_description_chooses_the_converter(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    board = tmp_path / "board.toml"
    board.write_text('summary = "a board"\naccelerator = "gpu"\nconverter = "fp16"\n')
    words = ["edge-ran", "convert", str(run), "--device", str(board)]
    monkeypatch.setattr(sys, "argv", [*words, "-o", str(tmp_path / "m.tflite"), "--json", "-q"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    result = records.read_document(ConvertResult, valid("convert", capsys.readouterr().out), "convert")
    assert (result.precision, result.path) == ("fp16", tmp_path / "m.tflite")
    monkeypatch.setattr(sys, "argv", [*words, "--int8"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "one precision at a time, not int8 and fp16" in capsys.readouterr().err
