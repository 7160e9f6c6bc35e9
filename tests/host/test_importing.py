"""Networks of other scripts: read without running them, translated exactly, refused in one line where they must be."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from schemas import valid

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tf_keras
from tf_keras import layers
from typer.testing import CliRunner

from edge_ran import catalogue
from edge_ran.card import ModelCard
from edge_ran.cli import app
from edge_ran.cli.models import tflite_of
from edge_ran.errors import EdgeRanError, GateError, InputError, UsageError
from edge_ran.host import networks, rewrites
from edge_ran.host.convert import convert
from edge_ran.host.importing import importer, lambdas, limits, translate
from edge_ran.host.importing.configuration import read_graph
from edge_ran.host.importing.importer import Answers, import_network
from edge_ran.host.importing.source import open_source
from edge_ran.host.rewrites import LayerGraph
from edge_ran.runs import RunFolder

KNOWN = Answers(labels="numbers", preprocessing="tf")
X = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)

# As these Pythons compile and marshal them: lambda x: x + 1, (x * 2 - 1) / 4 and abs(x);
# K.mean(x, axis=3, keepdims=True), tf.reduce_max(x, axis=-1, keepdims=True), twice that mean, the mean of axis 1,
# K.max(x, axis=-1), tf.math.reduce_mean(x, -1, True) and K.mean(x, -1, keepdims=True); K.mean(x, axis=[1, 2]),
# tf.reduce_max(x, axis=(1, 2), keepdims=True), K.mean(x, [1, 2]), K.mean(x, axis=[1, 3]) and
# tf.reduce_mean(x, (2, 1), False).
BYTECODE = json.loads((Path(__file__).parent / "lambda_bytecode.json").read_text())


def drawn(keras: Any, plus_one: bool = True) -> Any:
    """A network with what scripts have that ours have not, in either Keras; random statistics."""
    kl = keras.layers
    image = kl.Input((16, 16, 3))
    x = kl.RandomFlip()(image)
    x = kl.Rescaling(1 / 127.5, offset=-1)(x)
    x = kl.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = kl.Conv2D(8, 3, 2, activation="relu")(x)
    x = kl.BatchNormalization()(x)
    x = trunk = kl.Activation("swish")(x)
    mask = kl.Activation("sigmoid")(kl.Conv2D(8, 1)(x))
    mask = kl.Lambda(lambda x: x + 1)(mask) if plus_one else mask + 1.0
    x = kl.Multiply()([mask, trunk])
    x = 2.0 * x - 1.0
    x = kl.SeparableConv2D(6, 3, activation="relu")(x)
    inner = keras.Sequential(
        [kl.Input((6, 6, 6)), kl.Conv2D(6, 1), kl.BatchNormalization(), kl.ReLU(6.0)], name="in_it"
    )
    x = kl.Dropout(0.2)(inner(x))
    x = kl.Flatten()(kl.AveragePooling2D(6)(x))
    model = keras.Model(image, kl.Dense(3, activation="softmax")(x))
    random = np.random.default_rng(1)
    for weight in model.weights:
        low, high = (0.3, 2) if "variance" in weight.name else (-0.6, 0.6)
        if "seed" not in weight.path if hasattr(weight, "path") else "state" not in weight.name:
            weight.assign(random.uniform(low, high, weight.shape))
    return model


@pytest.fixture(scope="module")
def keras3() -> Any:
    return pytest.importorskip("keras", minversion="3")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, keras3: Any) -> dict[str, tuple[Path, Any]]:
    """The network as each Keras saves it, with the model that it is of."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for name, keras in (("2", tf_keras), ("3", keras3)):
        for plus_one in (True, False):
            model = drawn(keras, plus_one)
            for suffix in ("h5", "keras", "weights.h5"):
                path = folder / f"keras{name}{'lambda' if plus_one else ''}.{suffix}"
                (model.save_weights if "weights" in suffix else model.save)(path)
                found[path.name] = path, model
            (folder / f"keras{name}{'lambda' if plus_one else ''}.json").write_text(model.to_json())
    return found


def read(path: Path, **answers: Any) -> LayerGraph:
    with open_source(path, answers.pop("architecture", None)) as source:
        return read_graph(source, answers).graph


def test_models_three_deep_as_teachable_machine_saves_them(tmp_path: Path) -> None:
    kl = tf_keras.layers
    base = tf_keras.Sequential(
        [kl.Input((16, 16, 3)), kl.Conv2D(4, 3, 2), kl.BatchNormalization(), kl.DepthwiseConv2D(3), kl.ReLU(6.0)]
    )
    features = tf_keras.Sequential([base, kl.GlobalAveragePooling2D()])
    head = tf_keras.Sequential([kl.Dense(8, "relu", input_shape=(4,)), kl.Dense(3, "softmax", use_bias=False)])
    model = tf_keras.Sequential([features, head])
    model(X)
    random = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(random.uniform(0.3, 2, weight.shape))
    model.save(tmp_path / "keras_model.h5")
    with h5py.File(tmp_path / "keras_model.h5", "r+") as file:  # its Keras writes what Keras 3 refuses
        config = file.attrs["model_config"]
        assert '"depth_multiplier"' in config
        file.attrs["model_config"] = config.replace('"depth_multiplier"', '"groups": 1, "depth_multiplier"')
    found = read(tmp_path / "keras_model.h5")
    np.testing.assert_allclose(found.model("o")(X), model(X, training=False), atol=2e-6)


def with_random_weights(model: Any) -> Any:
    random = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(random.uniform(0.3, 2, weight.shape))
    return model


@pytest.mark.parametrize("is_sequential", [True, False])
def test_names_with_slashes_in_a_model_inside_as_mobilenet_v3_has_them(tmp_path: Path, is_sequential: bool) -> None:
    kl = tf_keras.layers
    image = kl.Input((16, 16, 3))
    x = kl.BatchNormalization(name="Conv/BatchNorm")(kl.Conv2D(4, 3, name="Conv")(image))
    x = kl.Conv2D(4, 1, name="block/squeeze/Conv")(kl.DepthwiseConv2D(3, name="block")(x))
    base = tf_keras.Model(image, kl.BatchNormalization(name="block/squeeze/Conv/BatchNorm")(x), name="base")
    head = kl.Conv2D(3, 1, name="squeeze")  # a part of the names inside
    if is_sequential:
        model = tf_keras.Sequential([base, head])
    else:
        outer = kl.Input((16, 16, 3))
        model = tf_keras.Model(outer, head(base(outer)))
    with_random_weights(model).save(tmp_path / "m.h5")
    np.testing.assert_allclose(read(tmp_path / "m.h5").model("o")(X), model(X, training=False), rtol=1e-5, atol=2e-6)


def test_weights_of_a_layer_that_is_read_as_another_class(tmp_path: Path) -> None:
    """An archive numbers its groups by the class that was written."""
    image = layers.Input((16, 16, 3))
    x = layers.BatchNormalization()(layers.experimental.SyncBatchNormalization()(image))
    model = tf_keras.Model(image, layers.experimental.SyncBatchNormalization()(x))
    with_random_weights(model).save(tmp_path / "m.keras")
    np.testing.assert_allclose(read(tmp_path / "m.keras").model("o")(X), model(X, training=False), rtol=1e-5, atol=2e-6)


FILES = [f"keras{k}{form}.{s}" for k in "23" for form in ("", "lambda") for s in ("h5", "keras", "weights.h5")]


@pytest.mark.parametrize("name", FILES)
def test_every_form_of_file_gives_the_writers_numbers(files: dict[str, tuple[Path, Any]], name: str) -> None:
    path, model = files[name]
    architecture = path.with_name(f"{path.name.split('.')[0]}.json") if "weights" in name else None
    pixels = 127.5 * (X + 1)
    original = read(path, architecture=architecture)
    translated = translate.translate(original)
    expected = np.asarray(model(pixels, training=False))
    np.testing.assert_allclose(original.model("o")(pixels), expected, atol=2e-6)
    ours = translated.graph.model("t")
    np.testing.assert_allclose(ours(X), expected, atol=2e-6)
    assert rewrites.rewrite(ours).difference < 1e-5
    places = {one.name: one.places for one in translated.passes}
    assert places["attention (1 + M) T as T + M T"] == places["attention gates named"] == 1
    assert {"stage1_module1_gate", "stage1_module1_residual"} <= translated.graph.nodes.keys()
    assert not {layers.SeparableConv2D, layers.Rescaling, layers.Dropout} & {
        n.kind for n in translated.graph.nodes.values()
    }
    np.testing.assert_allclose(translated.scaling.scale, [1 / 127.5] * 3)


def test_a_run_folder_is_made_and_says_what_it_is_of(
    files: dict[str, tuple[Path, Any]], tmp_path: Path, printed: Callable[..., str]
) -> None:
    path, model = files["keras3lambda.keras"]
    expect = tmp_path / "outputs.npz"
    pixels = 127.5 * (X + 1)
    np.savez(expect, inputs=pixels, outputs=np.asarray(model(pixels, training=False)))
    words = ("import", path, "-o", tmp_path / "run", "--labels", "numbers", "--expect", expect)
    report = valid("import", printed(*words, "--json"))
    assert report["difference"] < 1e-5
    assert report["expected_difference"] < 1e-5
    assert report["network"]["gates"] == 1
    text = printed(*words, "--force")
    assert "1 attention gate found" in text
    assert "next: edge-ran convert" in text
    there = valid("inspect-file", printed("inspect", path, "--json"))
    assert there["network"]["parameters"] == report["network"]["parameters"]
    assert "next: edge-ran import" in printed("inspect", path)
    run = RunFolder(tmp_path / "run")
    card = run.card()
    assert card.labels == ("0", "1", "2")
    assert card.input.mean == pytest.approx((127.5,) * 3)
    assert isinstance(card, ModelCard)
    assert networks.load(run.model_path).output_shape == (None, 3)
    with pytest.raises(EdgeRanError, match="exists"):
        import_network(path, tmp_path / "run", Answers(labels="numbers"))
    np.savez(expect, inputs=pixels, outputs=np.asarray(model(pixels, training=False))[:, ::-1])
    with pytest.raises(GateError, match="differ"):
        import_network(path, tmp_path / "other", Answers(labels="numbers"), expect=expect)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
         "--mean 123.675,116.28,103.53 --std 58.395,57.12,57.375"),
        ({"mean": (0.5,)}, "--mean 127.5 --std 255"),
        ({"std": (0.5,)}, "--std 127.5"),
        ({"scale": 255.0}, "--scale 0.00392157"),
    ],
)  # fmt: skip
def test_numbers_for_pixels_from_0_to_1_are_refused(given: dict[str, Any], remedy: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 to 255") as caught:
        import_network(tmp_path / "not looked at.h5", tmp_path / "run", Answers(**given))
    assert caught.value.remedy == remedy


@pytest.mark.parametrize("version", BYTECODE)
def test_an_affine_lambda_is_read_from_the_bytecode_of_every_python(version: str) -> None:
    plus_one, other, not_affine, *_ = BYTECODE[version]
    assert lambdas.decode(plus_one) == lambdas.Affine(1.0, 1.0)
    assert lambdas.decode(other) == lambdas.Affine(0.5, -0.25)
    assert lambdas.decode(not_affine) is None


@pytest.mark.parametrize("version", BYTECODE)
def test_a_reduction_of_the_channels_is_read_from_the_bytecode_of_every_python(version: str) -> None:
    """As CBAM's spatial attention is written (Woo et al. 2018, arXiv 1807.06521)."""
    mean, largest, doubled, height, flat, by_place, mixed = (lambdas.decode(code) for code in BYTECODE[version][3:10])
    assert mean == by_place == mixed == lambdas.OverChannels("mean")
    assert largest == lambdas.OverChannels("max")
    assert doubled is height is flat is None


@pytest.mark.parametrize("version", BYTECODE)
def test_a_reduction_of_the_picture_is_read_from_the_bytecode_of_every_python(version: str) -> None:
    mean, largest, by_place, height_and_channels, kept = (lambdas.decode(code) for code in BYTECODE[version][10:])
    assert mean == by_place == kept == lambdas.OverPicture("mean") == lambdas.parse("global_mean(x)")
    assert largest == lambdas.OverPicture("max", keepdims=True)
    assert height_and_channels is None


def test_damaged_bytecode_is_nothing() -> None:
    random = np.random.default_rng(0)
    for turn in range(500):
        changed = bytearray(base64.b64decode(BYTECODE["3.11"][(0, 3, 10)[turn % 3]]))
        for _ in range(3):
            changed[random.integers(len(changed))] = random.integers(256)
        lambdas.decode(base64.b64encode(bytes(changed)).decode())  # gives something or None, and ends
    assert lambdas.decode("no base64 !") is None


@pytest.mark.parametrize("text", ["x * x", "y", "abs(x)", "__import__('os')", "1 +", "1", "x / 0", "9" * 300])
def test_the_language_of_lambdas_is_tiny(text: str) -> None:
    with pytest.raises(EdgeRanError, match="--lambda"):
        lambdas.parse(text)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_the_slope_of_a_leaky_relu_of_keras_3(tmp_path: Path, keras3: Any, suffix: str) -> None:
    kl = keras3.layers
    image = kl.Input((16, 16, 3))
    x = kl.LeakyReLU(0.25)(kl.Conv2D(4, 3)(image))
    model = keras3.Model(image, kl.Dense(3)(kl.GlobalAveragePooling2D()(x)))
    model.save(tmp_path / f"m.{suffix}")
    np.testing.assert_allclose(read(tmp_path / f"m.{suffix}").model("o")(X), model(X), atol=2e-6)


@pytest.mark.parametrize("version", [2, 3])
def test_an_architecture_beside_weights_tells_its_version(tmp_path: Path, keras3: Any, version: int) -> None:
    """Keras 2 and 3 mean different functions by ``hard_sigmoid``; a Sequential of Keras 3 names no tensors."""
    keras = tf_keras if version == 2 else keras3
    kl = keras.layers
    model = keras.Sequential([kl.Input((16, 16, 3)), kl.Conv2D(4, 3, activation="hard_sigmoid"), kl.Flatten()])
    model.save_weights(tmp_path / "m.weights.h5")
    (tmp_path / "m.json").write_text(model.to_json())
    found = read(tmp_path / "m.weights.h5", architecture=tmp_path / "m.json")
    np.testing.assert_allclose(found.model("o")(X), model(X), atol=2e-6)


def test_resizing_of_keras_3_writes_how_it_would_pad(tmp_path: Path, keras3: Any) -> None:
    kl = keras3.layers
    image = kl.Input((16, 16, 3))
    sizes = [kl.Resizing(9, 12), kl.Resizing(9, 12, crop_to_aspect_ratio=True), kl.Resizing(9, 12, fill_value=0.5)]
    sizes.append(kl.CenterCrop(9, 12))
    model = keras3.Model(image, kl.Concatenate()([resize(image) for resize in sizes]))
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(read(tmp_path / "m.keras").model("o")(X), model(X), atol=2e-6)
    keras3.Model(image, kl.Resizing(9, 12, pad_to_aspect_ratio=True)(image)).save(tmp_path / "m.keras")
    with pytest.raises(InputError, match="pad_to_aspect_ratio"):
        read(tmp_path / "m.keras")


def test_a_lambda_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    image = layers.Input((8, 8, 3))
    x = layers.Lambda(lambda t: t * t, name="square")(image)
    tf_keras.Model(image, layers.Dense(3)(layers.Flatten()(x))).save(tmp_path / "m.h5")
    with pytest.raises(InputError, match="square is a Lambda") as caught:
        import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN)
    assert "--lambda 'square=1 + x'" in caught.value.remedy
    report = import_network(
        tmp_path / "m.h5", tmp_path / "run", Answers("numbers", "tf", lambdas={"square": lambdas.Affine(2.0, 0.0)})
    )
    assert any("softmax" in note for note in report.network.notes)


def hostile_lambda(path: Path, proof: Path) -> None:
    source = f"lambda x: (open({str(proof)!r}, 'w').close(), x)[1]"
    model = tf_keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Lambda(eval(source)), layers.Flatten(), layers.Dense(2)]
    )
    proof.unlink(missing_ok=True)  # drawing the layer ran it
    model.save(path)


def test_the_code_of_a_file_is_never_run(tmp_path: Path) -> None:
    hostile_lambda(tmp_path / "m.h5", tmp_path / "it_ran")
    with pytest.raises(InputError, match="Lambda"):
        import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN)
    assert not (tmp_path / "it_ran").exists()


K = tf_keras.backend
CLASSIFIERS: dict[str, Callable[[Any], Any]] = {
    "one sigmoid": lambda x: layers.Dense(1, activation="sigmoid")(layers.Flatten()(x)),
    "logits": lambda x: layers.Dense(3)(layers.Flatten()(x)),
    "hard swish": lambda x: layers.Dense(3)(layers.Flatten()(networks.tf.nn.relu6(x + 3.0) * x / 6.0)),
    "squeeze and excitation": lambda x: layers.Dense(3)(
        layers.Flatten()(
            layers.Multiply()(
                [x, layers.Conv2D(3, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))]
            )
        )
    ),
    "map of one position": lambda x: layers.Activation("softmax")(layers.Conv2D(4, 16)(x)),
    "shared layer": lambda x: layers.Dense(3)(layers.Flatten()((lambda c: c(c(x)))(layers.Conv2D(3, 1)))),
    "two relus of a tensor": lambda x: layers.Dense(3)(
        layers.Flatten()((lambda c: layers.Add()([layers.ReLU()(c), layers.Conv2D(3, 1)(layers.ReLU()(c))]))(x))
    ),
    "channels of a position": lambda x: layers.Dense(3)(
        layers.Flatten()(
            layers.Concatenate()(
                [
                    layers.Lambda(lambda x: K.mean(x, axis=3, keepdims=True), name="mean")(x),
                    networks.tf.reduce_max(x, axis=-1, keepdims=True),
                ]
            )
        )
    ),
    "leaky": lambda x: layers.Dense(3)(layers.Flatten()(layers.LeakyReLU(0.1)(x))),
    "mean of the picture": lambda x: layers.Dense(3)(layers.Lambda(lambda x: K.mean(x, axis=[1, 2]), name="m")(x)),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_other_ends_and_forms_are_the_same_network(tmp_path: Path, name: str) -> None:
    image = layers.Input((16, 16, 3))
    model = tf_keras.Model(image, CLASSIFIERS[name](image))
    model.save(tmp_path / "m.h5")
    report = import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN)
    assert report.difference < 1e-5
    assert report.rewritten_difference < 1e-5
    ours = networks.load(tmp_path / "run" / "model.keras")
    if name == "one sigmoid":
        np.testing.assert_allclose(np.asarray(ours(X))[:, 1:], model(X), atol=1e-6)
    elif "softmax" not in str(model.layers[-1].get_config().get("activation")):
        np.testing.assert_allclose(ours(X), networks.tf.nn.softmax(model(X)), atol=1e-6)


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "regression": (lambda x: layers.Dense(1)(layers.Flatten()(x)), "single number"),
    "several labels": (lambda x: layers.Dense(3, activation="sigmoid")(layers.Flatten()(x)), "sigmoids"),
    "segmentation": (lambda x: layers.Conv2D(3, 1, activation="softmax")(x), "segmentation"),
    "two outputs": (lambda x: [layers.Dense(3)(layers.Flatten()(x)), layers.Conv2D(2, 1)(x)], "2 outputs"),
    "other axis": (lambda x: layers.Dense(3)(layers.Flatten()(layers.BatchNormalization(axis=1)(x))), "axis"),
    "training": (
        lambda x: layers.Dense(3)(layers.Flatten()(layers.BatchNormalization(name="bn")(x, training=True))),
        "training=True",
    ),
    "operator": (lambda x: layers.Dense(3)(layers.Flatten()(networks.tf.math.erf(x))), "operator erf"),
    "layer": (lambda x: layers.Dense(3)(layers.GRU(4)(layers.Reshape((16, 48))(x))), "GRU"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_such_classifier_is_one_line(tmp_path: Path, name: str) -> None:
    draw, words = REFUSED[name]
    image = layers.Input((16, 16, 3))
    tf_keras.Model(image, draw(image)).save(tmp_path / "m.h5")
    with pytest.raises(InputError, match=words) as caught:
        import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN)
    assert "\n" not in f"{caught.value}{caught.value.remedy}"
    assert caught.value.remedy
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.keras", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("m.onnx", b"\x08\x07\x12\x07pytorch", "onnx2tf"),
        ("m.pth", b"\x80\x02ctorch", "litert-torch"),
        ("m.h5", b"\x1c\x00\x00\x00TFL3", "converted already"),
        ("m.h5", b"<!DOCTYPE html>", "web page"),
        ("m.json", b'{"class_name": 1}', "--architecture"),
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "cannot be read"),
        ("m.keras", b"PK\x03\x04" + bytes(64), "damaged"),
    ],
)
def test_other_kinds_of_files_are_told_what_to_use(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        import_network(tmp_path / name, tmp_path / "run", KNOWN)
    assert words in f"{caught.value} {caught.value.remedy}"


def test_pytorchs_zip_saved_models_and_optimisers(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"1")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_group("optimizer_weights")
    for name, words in (("m.keras", "PyTorch"), ("saved", "SavedModel"), ("m.h5", "optimiser"), ("none.h5", "no file")):
        with pytest.raises(InputError, match=words):
            import_network(tmp_path / name, tmp_path / "run", KNOWN)


def test_weights_of_another_architecture_name_the_first_layer_that_differs(tmp_path: Path) -> None:
    def model(width: int) -> Any:
        image = layers.Input((8, 8, 3))
        x = layers.Conv2D(4, 3, name="first")(image)
        return tf_keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.Conv2D(width, 1, name="second")(x))))

    model(4).save_weights(tmp_path / "w.h5")
    (tmp_path / "m.json").write_text(model(5).to_json())
    with pytest.raises(InputError, match="layer second needs weights 1x1x4x5, 5, the file has 1x1x4x4, 4"):
        read(tmp_path / "w.h5", architecture=tmp_path / "m.json")
    with pytest.raises(InputError, match="no architecture"):
        read(tmp_path / "w.h5")


def test_split_lists_of_names_are_joined(files: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    path, model = files["keras2.h5"]
    (tmp_path / "m.h5").write_bytes(path.read_bytes())
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        group = file["model_weights"]
        names = group.attrs["layer_names"]
        del group.attrs["layer_names"]
        group.attrs["layer_names0"], group.attrs["layer_names1"] = names[:5], names[5:]
    pixels = 127.5 * (X + 1)
    np.testing.assert_allclose(read(tmp_path / "m.h5").model("o")(pixels), model(pixels, training=False), atol=2e-6)


def test_a_configuration_cannot_ask_for_more_than_the_file_holds(tmp_path: Path) -> None:
    model = tf_keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for old, new in (
        ('"filters": 4', '"filters": 60000'),
        ('"units": 2', '"units": 65000'),
        ("8, 8, 3", "4000, 4000, 3"),
    ):
        with zipfile.ZipFile(tmp_path / "big.keras", "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data.replace(old.encode(), new.encode()))
        with pytest.raises(InputError):
            read(tmp_path / "big.keras")


def test_models_inside_models_that_call_each_other_many_times_end(tmp_path: Path) -> None:
    """30 calls in each of 8 models would be 656 thousand million."""
    image = {"class_name": "InputLayer", "name": "i", "config": {"batch_input_shape": [None, 8, 8, 3]}}
    record: dict[str, Any] = {
        "name": "m0",
        "layers": [image],
        "input_layers": ["i", 0, 0],
        "output_layers": ["i", 0, 0],
    }
    for depth in range(1, 9):
        inner = f"m{depth - 1}"
        calls = [[["i", 0, 0, {}]], *([[inner, number, 0, {}]] for number in range(1, 30))]
        inside = {"class_name": "Functional", "name": inner, "config": record, "inbound_nodes": calls}
        record = {**record, "name": f"m{depth}", "layers": [image, inside], "output_layers": [inner, 30, 0]}
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": record})
    with pytest.raises(InputError, match="with those of models inside it"):
        read(tmp_path / "m.h5")


def test_layers_that_are_called_many_times_take_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, shared = layers.Input((8, 8, 3)), layers.Dense(50)
    x = layers.Dense(50)(layers.GlobalAveragePooling2D()(image))
    for _ in range(60):
        x = shared(x)
    tf_keras.Model(image, x).save(tmp_path / "m.h5")
    assert len(read(tmp_path / "m.h5").nodes) == 63
    for name, words in (
        ("_LEAST_WEIGHTS", "weights: it uses those it has many times"),
        ("_MOST_OUTPUT_ELEMENTS", "more than 1,000 numbers together"),
    ):
        with monkeypatch.context() as less:
            less.setattr(limits, name, 1000)
            with pytest.raises(InputError, match=words):
                read(tmp_path / "m.h5")


def tells_colours(path: Path) -> Any:
    """Save a network that answers the largest colour after caffe's scaling, BGR; return it."""
    image = layers.Input((8, 8, 3))
    dense = layers.Dense(3, activation="softmax")
    model = tf_keras.Model(image, dense(layers.GlobalAveragePooling2D()(image)))
    means = np.array([[178.0, 20, 30], [-73, 73, -73], [-63, -76, 76]])  # of the three folders' colours, about
    dense.set_weights([means.T / 100, -(means**2).sum(1) / 200])
    model.save(path)
    return model


def test_the_way_to_scale_pixels_is_found_on_labelled_pictures(pictures: Path, tmp_path: Path) -> None:
    """Under another scaling than caffe's it is wrong, or as unsure."""
    tells_colours(tmp_path / "m.h5")
    report = import_network(tmp_path / "m.h5", tmp_path / "run", Answers(), check_on=pictures)
    assert report.preprocessing.startswith(report.trials[0].name)
    assert report.trials[0].top1 == 1
    assert RunFolder(tmp_path / "run").card().labels == ("blue", "green", "red")
    with pytest.raises(InputError, match="does not say how its pixels"):
        import_network(tmp_path / "m.h5", tmp_path / "no", Answers(labels="numbers"))
    with pytest.raises(InputError, match="does not name its 3 classes"):
        import_network(tmp_path / "m.h5", tmp_path / "no", Answers(preprocessing="tf"))


def test_the_original_is_not_compared_behind_its_softmax(
    files: dict[str, tuple[Path, Any]], monkeypatch: Any, tmp_path: Path
) -> None:
    real = importer.translate

    def wrong(original: LayerGraph) -> translate.Translated:
        found = real(original)
        dense = next(n for n in found.graph.nodes.values() if n.kind is layers.Dense)
        kernel, bias = dense.weights
        found.graph.put(rewrites.Node(dense.kind, dense.config, (kernel, bias + 1), dense.inputs, dense.shape))
        return found

    monkeypatch.setattr(importer, "translate", wrong)
    with pytest.raises(InputError, match="logits differ"):
        import_network(files["keras2.h5"][0], tmp_path / "run", Answers(labels="numbers"))


def test_a_network_of_grey_pictures_mixes_the_colours_first(tmp_path: Path) -> None:
    image = layers.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(image))
    model = tf_keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))
    model.save(tmp_path / "m.h5")
    grey = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1)).astype(np.float32)
    np.savez(tmp_path / "x.npz", inputs=grey, outputs=np.asarray(model(grey)))
    report = import_network(tmp_path / "m.h5", tmp_path / "run", Answers("numbers", "raw"), expect=tmp_path / "x.npz")
    assert report.expected_difference is not None
    assert report.expected_difference < 1e-5
    assert any("grey" in note for note in report.network.notes)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_recorded_outputs_of_half_precision_may_differ_by_its_rounding(tmp_path: Path, half: str) -> None:
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", dtype=f"mixed_{half}")(image)
    model = tf_keras.Model(image, layers.Dense(3, dtype=f"mixed_{half}")(layers.Flatten()(x)))
    model.save(tmp_path / "m.h5")
    outputs = np.asarray(model(X[:, :8, :8])).astype(np.float32)
    np.savez(tmp_path / "x.npz", inputs=X[:, :8, :8], outputs=outputs)
    report = import_network(tmp_path / "m.h5", tmp_path / "run", Answers("numbers", "raw"), expect=tmp_path / "x.npz")
    assert report.expected_difference is not None
    assert report.expected_difference > 1e-5
    assert any(f"computed in {half}" in note for note in report.network.notes)
    np.savez(tmp_path / "x.npz", inputs=X[:, :8, :8], outputs=outputs[:, ::-1])
    with pytest.raises(GateError, match="differ"):
        import_network(tmp_path / "m.h5", tmp_path / "o", Answers("numbers", "raw"), expect=tmp_path / "x.npz")


@pytest.mark.parametrize(("shape", "words"), [("(1000000000000,)", "unpacks to 4000.0 GB"), ("oops", "damaged")])
def test_recorded_outputs_that_claim_more_than_they_hold_are_refused(
    files: dict[str, tuple[Path, Any]], tmp_path: Path, shape: str, words: str
) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name in ("inputs.npy", "outputs.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    path, _ = files["keras2.h5"]
    with pytest.raises(InputError, match=words) as caught:
        import_network(path, tmp_path / "run", Answers(labels="numbers"), expect=tmp_path / "x.npz")
    assert "model.predict(x)" in caught.value.remedy
    np.savez(tmp_path / "x.npz", inputs=["a"], outputs=["b"])
    with pytest.raises(InputError, match="no arrays of numbers"):
        import_network(path, tmp_path / "run", Answers(labels="numbers"), expect=tmp_path / "x.npz")


def test_a_grey_picture_may_have_no_dimension_of_channels(tmp_path: Path) -> None:
    """The first network of most tutorials: ``Flatten(input_shape=(28, 28))`` and dense layers."""
    model = tf_keras.Sequential([layers.Flatten(input_shape=(8, 8)), layers.Dense(4, "relu"), layers.Dense(3)])
    model.save(tmp_path / "m.h5")
    grey = np.random.default_rng(0).uniform(0, 1, (2, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", inputs=grey, outputs=np.asarray(model(grey)))
    report = import_network(tmp_path / "m.h5", tmp_path / "run", Answers("numbers", "unit"), expect=tmp_path / "x.npz")
    assert report.expected_difference is not None
    assert report.expected_difference < 1e-5
    assert networks.load(tmp_path / "run" / "model.keras").input_shape == (None, 8, 8, 3)


def test_of_several_outputs_one_is_taken_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = layers.Input((16, 16, 3))
    x = layers.Flatten()(image)
    outputs = [layers.Dense(3, activation="softmax", name=name)(x) for name in ("kind", "colour")]
    model = tf_keras.Model(image, [*outputs, layers.Conv2D(2, 1, name="map")(image)])
    model.save(tmp_path / "m.h5")
    with pytest.raises(InputError, match="3 outputs: kind, colour, map") as caught:
        import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN)
    assert "--head kind" in caught.value.remedy
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="3 outputs") as caught:  # convert has no such option
        tflite_of(Path("m.h5"))
    assert caught.value.remedy == "edge-ran import m.h5 -o runs/m --head kind --labels numbers"
    import_network(tmp_path / "m.h5", tmp_path / "run", dataclasses.replace(KNOWN, head="colour"))
    np.testing.assert_allclose(networks.load(tmp_path / "run" / "model.keras")(X), model(X)[1], atol=1e-6)
    tf_keras.Model(image, outputs[0]).save(tmp_path / "one.h5")
    with pytest.raises(InputError, match="one output"):
        import_network(tmp_path / "one.h5", tmp_path / "run2", dataclasses.replace(KNOWN, head="kind"))


def test_what_counts_in_training_alone_changes_nothing(tmp_path: Path) -> None:
    """Batch renormalisation's statistics, and a loss of numbers before a softmax."""
    from tf_keras.src.layers.normalization.batch_normalization_v1 import BatchNormalization

    image = layers.Input((16, 16, 3))
    x = BatchNormalization(renorm=True, renorm_clipping={"rmax": 3.0}, name="bn")(layers.Conv2D(4, 3)(image))
    model = tf_keras.Model(image, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))
    random = np.random.default_rng(0)
    model.get_layer("bn").set_weights([random.uniform(0.5, 2, w.shape) for w in model.get_layer("bn").get_weights()])
    model.compile("sgd", "mse")
    model.save(tmp_path / "m.h5")
    report = import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN)
    np.testing.assert_allclose(networks.load(tmp_path / "run" / "model.keras")(X), model(X), atol=1e-6)
    assert any("trained with mse" in note for note in report.network.notes)


def test_a_layer_that_calibration_finds_to_be_zero_is_named(tmp_path: Path) -> None:
    """XNNPACK would not run the file, and say no more than that."""
    image = layers.Input((16, 16, 3))
    low = tf_keras.initializers.Constant(-90.0)
    x = layers.Conv2D(2, 3, activation="relu", bias_initializer=low, name="dead")(image)
    tf_keras.Model(image, layers.Dense(3)(layers.Flatten()(x))).save(tmp_path / "m.h5")
    import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN)
    with pytest.raises(InputError, match="layer dead is 0") as caught:
        convert(tmp_path / "run", catalogue.converter("int8"), tmp_path / "m.tflite")
    assert "edge-ran quantize" in caught.value.remedy
    assert not (tmp_path / "m.tflite").exists()


def edge_ran(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_ran", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)


def test_other_verbs_take_such_a_file_when_it_leaves_nothing_open(
    files: dict[str, tuple[Path, Any]], tmp_path: Path, printed: Callable[..., str]
) -> None:
    path, _ = files["keras3lambda.keras"]
    done = edge_ran(tmp_path, "convert", "--fp32", "--attention", path)
    assert done.returncode == 0, done.stderr
    assert "imported" in done.stderr
    assert (tmp_path / "runs" / "keras3lambda" / "fp32-attention.tflite").is_file()
    image = layers.Input((8, 8, 3))
    tf_keras.Model(image, layers.Dense(3)(layers.Flatten()(image))).save(tmp_path / "open.h5")
    done = edge_ran(tmp_path, "evaluate", "open.h5", tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 2
    assert "import asks for --preprocessing" in printed("inspect", tmp_path / "open.h5")


def test_labelled_pictures_name_the_classes_of_such_a_file(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quantize, evaluate and precisions get them anyway; the way to scale pixels is found on them, too."""
    model = tells_colours(tmp_path / "m.h5")
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["quantize", "m.h5", str(pictures), "--epochs", "1", "--batch-size", "4"])
    assert made.exception is None, made.stderr
    assert RunFolder(tmp_path / "runs" / "m").card().labels == ("blue", "green", "red")
    assert RunFolder(tmp_path / "runs" / "m-qat").ranges_path.is_file()
    judged = CliRunner().invoke(app, ["evaluate", "m.h5", str(pictures), "--json"])
    assert json.loads(judged.stdout)["top1"] == 1, judged.stderr
    model.save(tmp_path / "numbers.h5")
    import_network(tmp_path / "numbers.h5", tmp_path / "runs" / "numbers", Answers("numbers", "caffe"))
    refused = CliRunner().invoke(app, ["precisions", "numbers.h5", str(pictures)])
    assert isinstance(refused.exception, InputError)
    assert "--check-on" in refused.exception.remedy


def test_a_subclassed_model_and_a_layer_of_its_author_are_named(tmp_path: Path) -> None:
    """Their graph is Python code; what is refused says what to write in the script."""

    @tf_keras.saving.register_keras_serializable("mine")
    class Squash(layers.Layer):
        def call(self, x: Any) -> Any:
            return x / (1 + abs(x))

    image = layers.Input((8, 8, 3))
    model = tf_keras.Model(image, layers.Dense(3)(layers.Flatten()(Squash(name="squash")(image))))
    model.save(tmp_path / "own.keras")
    model.save(tmp_path / "own.h5")

    @tf_keras.saving.register_keras_serializable("mine")
    class Net(tf_keras.Model):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.dense = layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(layers.Flatten()(x))

    net = Net()
    net(np.zeros((1, 8, 8, 3)))
    net.save(tmp_path / "net.keras")
    net.save_weights(tmp_path / "net.weights.h5")
    for name, words in (
        ("own.keras", "layer squash is a Squash, a class of its author"),
        ("own.h5", "layer squash is a .*Squash"),
        ("net.keras", "subclassed model"),
        ("net.weights.h5", "no architecture"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            import_network(tmp_path / name, tmp_path / "run", KNOWN)
        assert "\n" not in f"{caught.value}{caught.value.remedy}"
        assert caught.value.remedy


def test_a_file_that_hdf5_reads_without_end_is_refused(tmp_path: Path) -> None:
    """The heap of its texts has an object of no size, so that the next one is the same again."""
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs.create("layer_names", ["conv", "dense"], dtype=h5py.string_dtype())
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, data.index(b"GCOL") + 24, 0)
    path.write_bytes(data)
    with pytest.raises(InputError, match="reads it without end"):
        import_network(path, tmp_path / "run", Answers("numbers", "raw"))
