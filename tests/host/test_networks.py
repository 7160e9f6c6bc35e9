"""The networks are the paper's: counts, places, options, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
import json
import zipfile

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

from edge_ran.architecture import Architecture, configure, named
from edge_ran.errors import InputError, UsageError
from edge_ran.host import networks, rewrites


def shallow(**options: object) -> Architecture:
    """edge50 as far as its first stage."""
    whole = configure("edge50", width=0.25, **options)  # type: ignore[arg-type]
    return dataclasses.replace(whole, stages=whole.stages[:1])


BUILD = networks.build


@functools.lru_cache(maxsize=1)  # whoever wants the same one comes next
def built(architecture: Architecture) -> networks.tf_keras.Model:
    return BUILD(architecture, "zeros")


def counted(name: str, **options: object) -> networks.Summary:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "build", lambda architecture, kernels: built(architecture))
        return networks.summarise(configure(name, **options))  # type: ignore[arg-type]


def test_indoor56_is_the_reference_code() -> None:
    indoor = counted("indoor56", classes=76, shortcut="projection")
    assert indoor.parameters == 35_229_260
    assert indoor.trainable_parameters == 35_194_060
    assert indoor.multiply_adds == pytest.approx(649e6, rel=0.01)
    layers = [layer.name for layer in built(configure("indoor56", classes=76, shortcut="projection")).layers]
    assert sum("conv" in n or "shortcut" in n for n in layers if not n.endswith(("bn", "relu"))) == 115
    assert sum(n.endswith("bn") for n in layers) == 82


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [("attention56", 31.81e6, 6.27e9), ("attention92", 52.47e6, 10.53e9), ("attention_next56", 31.32e6, 6.42e9)],
)
def test_imagenet_networks_have_the_published_counts(name: str, parameters: float, multiply_adds: float) -> None:
    network = counted(name)
    assert network.parameters == pytest.approx(parameters, rel=0.005)
    assert network.trainable_parameters == pytest.approx(parameters, rel=0.005)
    assert network.multiply_adds == pytest.approx(multiply_adds, rel=0.005)


@pytest.mark.parametrize(("depth", "modules"), [(56, 1), (92, 2), (128, 3), (164, 4), (236, 6)])
def test_cifar_depth_names_the_modules(depth: int, modules: int) -> None:
    """depth = 36 m + 20 (section 4.1); but for the modules of each stage, every depth is the same network."""
    deep, first = named(f"cifar_attention{depth}"), named("cifar_attention56")
    assert depth == 36 * modules + 20
    assert [stage.modules for stage in deep.stages] == [modules] * 3
    stages = tuple(dataclasses.replace(stage, modules=1) for stage in deep.stages)
    assert dataclasses.replace(deep, name=first.name, stages=stages) == first


@pytest.mark.parametrize(("depth", "modules"), [(56, 1), (92, 2)])
def test_cifar_depth_counts_trunk_layers(depth: int, modules: int) -> None:
    """36 more for another module in each stage: what carries weights on the trunk (section 4.1)."""
    names = [layer.name for layer in built(configure(f"cifar_attention{depth}")).layers]
    trunk = [n for n in names if "_mask_" not in n and (n[:-1].endswith("_conv") or n in ("stem_conv", "logits"))]
    assert len(trunk) == depth == 36 * modules + 20


def test_cifar_452_has_the_papers_hyperparameters() -> None:
    a = named("cifar_attention452")
    assert (a.p, a.t, a.r, a.stages[0].modules) == (2, 4, 3, 6)


def test_cifar_92_is_near_the_papers_count() -> None:
    assert counted("cifar_attention92").trainable_parameters == pytest.approx(1.9e6, rel=0.04)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention": "channel"},
        {"attention": "spatial"},
        {"learning": "naive"},
        {"mask": False},
        {"upsampling": "nearest", "mask_tail": "linear"},
        {"shortcut": "projection", "input_size": 48, "classes": 3},
    ],
)
def test_every_option_gives_probabilities(options: dict) -> None:
    a = shallow(**options)
    model = networks.build(a)
    x = np.random.default_rng(0).normal(size=(2, a.input_size, a.input_size, 3)).astype(np.float32)
    y = model(x).numpy()
    assert y.shape == (2, a.classes)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-5)
    assert not any(type(layer).__name__ == "Lambda" for layer in model.layers)
    assert all("/" not in layer.name for layer in model.layers)


def test_mask_multiplies_the_trunk() -> None:
    """H = (1 + M) * T: with every mask's last convolution at zero, M is one half everywhere."""
    model = networks.build(shallow())
    for layer in model.layers:
        if layer.name.endswith("tail2_conv"):
            layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    names = ("stage1_module1_trunk_unit2_add", "stage1_module1_residual")
    probe = networks.tf_keras.Model(model.input, [model.get_layer(n).output for n in names])
    trunk, gated = probe(np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32))
    np.testing.assert_allclose(gated, 1.5 * trunk, rtol=1e-5)


def test_width_scales_every_layer() -> None:
    full, half = counted("edge50"), counted("edge50", width=0.5)
    assert 3 < full.multiply_adds / half.multiply_adds < 5


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("indor56", {}, "indoor56"),
        ("edge50", {"input_size": 50}, "multiple of 16"),
        ("edge50", {"width": 0.0}, "width"),
        ("edge50", {"classes": 1}, "2 classes"),
        ("edge50", {"attention": "chanel"}, "channel"),
    ],
)
def test_what_is_refused(name: str, options: dict, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        configure(name, **options)
    assert words in f"{caught.value} {caught.value.remedy}"


def test_dashes_are_underscores() -> None:
    assert named("attention-next56").name == "attention_next56"


def test_saved_network_gives_the_same_answers(tmp_path) -> None:
    model = networks.build(shallow())
    networks.save(model, tmp_path / "model.keras")
    x = np.ones((1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(networks.load(tmp_path / "model.keras")(x), model(x))


def test_a_rewritten_network_of_spatial_attention_is_saved_and_read(tmp_path) -> None:
    """Its normalisation is a layer of ours, which a quantised run holds: the one that is no plain Keras layer."""
    model = rewrites.rewrite(networks.build(shallow(attention="spatial"))).model
    networks.save(model, tmp_path / "model.keras")
    found = networks.load(tmp_path / "model.keras")
    assert any(isinstance(layer, networks.SpatialNormalization) for layer in found.layers)
    x = np.ones((1, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(found(x), model(x))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not an archive", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_damaged_network_is_one_line(tmp_path, content: bytes) -> None:
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(InputError):
        networks.load(tmp_path / "model.keras")


def test_a_network_that_carries_code_is_refused(tmp_path) -> None:
    """Keras runs a Lambda of the HDF5 format whatever its safe_mode says, and imports what an archive names."""
    tf_keras, path, proof = networks.tf_keras, tmp_path / "model.keras", tmp_path / "it_ran"
    source = f"lambda x: (open({str(proof)!r}, 'w'), x)[1]"
    hostile = tf_keras.Sequential([tf_keras.layers.Input((8, 8, 3)), tf_keras.layers.Lambda(eval(source))])
    for form in ("h5", "keras"):
        hostile.save(path, save_format=form)
        proof.unlink(missing_ok=True)  # drawing the layer ran it
        with pytest.raises(InputError):
            networks.load(path)
        assert not proof.exists()

    networks.save(networks.build(shallow(mask=False)), path)
    config = json.loads(zipfile.ZipFile(path).read("config.json"))
    layer = next(item for item in config["config"]["layers"] if item["class_name"] == "ReLU")
    layer |= {"module": "subprocess", "class_name": "Popen"}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    with pytest.raises(InputError, match="Popen of subprocess"):
        networks.load(path)


def test_an_archive_that_unpacks_without_end_is_refused(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (2**26 + 1))
    with pytest.raises(InputError, match="unpacks to more than"):
        networks.load(tmp_path / "model.keras")
