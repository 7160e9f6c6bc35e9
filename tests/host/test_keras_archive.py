"""Hostile ``.keras`` archives: no file that was not named is read, and no more memory taken than the file has bytes."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from edge_ran.errors import InputError
from edge_ran.host import networks
from edge_ran.host.keras_archive import check_weights, load

tf_keras = networks.tf_keras

Config = dict[str, dict[str, list[dict[str, object]]]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network of two inputs' sum, as Keras writes it."""
    image = tf_keras.Input((8, 8, 3), name="image")
    x = tf_keras.layers.Conv2D(4, 3, name="conv")(image)
    x = tf_keras.layers.Add(name="add")([x, tf_keras.layers.ReLU(name="relu")(x)])
    x = tf_keras.layers.Flatten(name="flat")(x)
    x = tf_keras.layers.Activation("softmax", name="probabilities")(tf_keras.layers.Dense(3, name="dense")(x))
    path = tmp_path_factory.mktemp("plain") / "model.keras"
    networks.save(tf_keras.Model(image, x), path)
    return path


@pytest.fixture
def changed(plain: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function: the network with its configuration, its weights or its archive changed by functions."""

    def change(
        config: Callable[[dict], object] = lambda config: None,
        weights: Callable[[h5py.File], object] = lambda weights: None,
        method: int = zipfile.ZIP_STORED,
    ) -> Path:
        with zipfile.ZipFile(plain) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        record = json.loads(parts["config.json"])
        config(record)
        file = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(file, "r+") as opened:
            weights(opened)
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("metadata.json", parts["metadata.json"])
            archive.writestr("config.json", json.dumps(record))
            archive.writestr("model.weights.h5", file.getvalue())
        return path

    return change


def layer(config: dict, name: str) -> dict:
    return next(item for item in config["config"]["layers"] if item["name"] == name)


def kernel(weights: h5py.File) -> tuple[h5py.Group, str]:
    """The dense layer's bias: its group and its name there."""
    found: list[str] = []
    weights.visititems(lambda name, item: found.append(name) if getattr(item, "shape", None) == (3,) else None)
    group, _, name = found[0].rpartition("/")
    return weights[group], name


def test_a_plain_network_is_read_as_it_was_saved(plain: Path, changed: Callable[..., Path]) -> None:
    x = np.ones((1, 8, 8, 3), np.float32)
    expected = tf_keras.models.load_model(plain)(x)
    np.testing.assert_array_equal(load(plain)(x), expected)
    np.testing.assert_array_equal(load(changed(method=zipfile.ZIP_DEFLATED))(x), expected)


def test_weights_in_another_file_are_not_read(changed: Callable[..., Path], tmp_path: Path) -> None:
    """HDF5 can take a dataset from any file: by external storage, a link of two kinds, or a virtual dataset."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"the secrets!")  # three float32
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.frombuffer(secret.read_bytes(), np.float32)

    def external_storage(weights: h5py.File) -> None:
        group, name = kernel(weights)
        del group[name]
        group.create_dataset(name, (3,), np.float32, external=[(str(secret), 0, 12)])

    def external_link(weights: h5py.File) -> None:
        group, name = kernel(weights)
        del group[name]
        group[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/secret")

    def soft_link(weights: h5py.File) -> None:
        group, name = kernel(weights)
        del group[name]
        group[name] = h5py.SoftLink("/elsewhere")

    def virtual(weights: h5py.File) -> None:
        group, name = kernel(weights)
        del group[name]
        layout = h5py.VirtualLayout((3,), np.float32)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (3,))
        group.create_virtual_dataset(name, layout)

    path = changed(weights=external_storage)
    bias = tf_keras.models.load_model(path).get_layer("dense").bias  # what Keras itself does
    assert bias.numpy().tobytes() == secret.read_bytes()
    for change in (external_storage, external_link, soft_link, virtual):
        with pytest.raises(InputError, match=r"kept in another file|lead elsewhere by a link"):
            load(changed(weights=change))


def test_weights_that_are_no_plain_numbers_or_not_there_are_refused(changed: Callable[..., Path]) -> None:
    def replaced(**dataset: object) -> Callable[[h5py.File], None]:
        def change(weights: h5py.File) -> None:
            group, name = kernel(weights)
            del group[name]
            group.create_dataset(name, **dataset)

        return change

    for change, words in (
        (replaced(data="text"), "no plain numbers"),
        (replaced(data=np.zeros(3, np.float32), compression="gzip"), "packed"),
        (replaced(shape=(10**12,), dtype=np.float32), "more numbers than it holds"),  # nothing of it is stored
        (replaced(shape=(10**6, 10**6), dtype=np.float32, chunks=(8, 8)), "more numbers than it holds"),
    ):
        with pytest.raises(InputError, match=words):
            load(changed(weights=change))


def test_groups_that_hold_themselves_end() -> None:
    file = io.BytesIO()
    with h5py.File(file, "w") as weights:
        weights["a/b"] = np.zeros(5, np.float32)
        weights["a/again"] = weights["a"]
        weights["a/root"] = weights["/"]
    assert check_weights(file, len(file.getvalue()), "it") == 5


def test_layers_that_read_files_or_hold_code_are_refused(changed: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a\nb\n")
    lookup = {"vocabulary": str(tmp_path / "secret"), "name": "relu"}
    for kind in (
        {"class_name": "StringLookup", "config": lookup},
        {"class_name": "TFSMLayer"},
        {"class_name": "Lambda"},
        {"class_name": "TorchModuleWrapper"},
        {"registered_name": "other>Thing"},
        {"module": "os"},
    ):
        with pytest.raises(InputError, match="no plain Keras layer"):
            load(changed(lambda config, kind=kind: layer(config, "relu").update(kind)))


def test_a_graph_that_cannot_be_built_ends(changed: Callable[..., Path]) -> None:
    """Keras waits for ever for a node that never comes."""

    def reading(name: str, number: object, count: int = 1) -> Callable[[dict], None]:
        def change(config: dict) -> None:
            layer(config, "relu")["inbound_nodes"] = [[[name, number, 0, {}]]] * count

        return change

    for change in (
        reading("add", 0),  # which waits for it
        reading("relu", 0),
        reading("conv", 1),
        reading("conv", None),
        reading("conv", "\ud800"),
        reading("nobody", 0),
    ):
        with pytest.raises(InputError):
            load(changed(change))
    assert load(changed(reading("conv", 0, 2))).get_layer("relu")  # called twice


def test_a_network_takes_no_more_memory_than_its_file_has_bytes(changed: Callable[..., Path]) -> None:
    for words, change in (
        ("lacks weights", lambda config: layer(config, "dense")["config"].update(units=100_000_000)),
        ("lacks weights", lambda config: layer(config, "conv")["config"].update(filters=100_000_000)),
        ("no layer can mean", lambda config: layer(config, "conv")["config"].update(filters=10**20)),
    ):
        with pytest.raises(InputError, match=words):
            load(changed(change))
    image = tf_keras.Input((8, 8, 3))
    x = tf_keras.layers.UpSampling2D(1 << 14)(image)
    path = changed()
    networks.save(tf_keras.Model(image, tf_keras.layers.GlobalAveragePooling2D()(x)), path)
    with pytest.raises(InputError, match="too much for memory"):
        load(path)


def test_an_archive_that_lies_of_its_size_is_refused(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("config.json", b"{}")
        with pytest.raises(InputError, match="packed by method"):
            load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b"{}")
        archive.writestr("model.weights.h5", bytes(1 << 27))
    with pytest.raises(InputError, match="unpacks to more"):
        load(path)
    data = path.read_bytes()  # its header says one byte
    path.write_bytes(data.replace((1 << 27).to_bytes(4, "little"), (1).to_bytes(4, "little")))
    with pytest.raises(InputError):
        load(path)


def test_models_inside_models_are_counted_by_their_calls(changed: Callable[..., Path]) -> None:
    """Eight models, each of which calls the next 30 times, would be built for ever."""
    image = {"class_name": "InputLayer", "module": "keras.layers", "registered_name": None, "name": "i"}
    image |= {"config": {"batch_input_shape": [None, 8, 8, 3], "name": "i"}, "inbound_nodes": []}

    def nested(depth: int, times: int) -> dict:
        graph = {"name": f"m{depth}", "layers": [image], "input_layers": [["i", 0, 0]], "output_layers": [["i", 0, 0]]}
        if depth:
            inner = nested(depth - 1, times)
            inner["inbound_nodes"] = [[["i", 0, 0, {}]], *([[inner["name"], n, 0, {}]] for n in range(1, times))]
            graph |= {"layers": [image, inner], "output_layers": [[inner["name"], times, 0]]}
        kind = {"class_name": "Functional", "module": "tf_keras.src.engine.functional", "registered_name": "Functional"}
        return {**kind, "name": graph["name"], "config": graph}

    with pytest.raises(InputError, match="more than 10,000 layers"):
        load(changed(lambda config: config.update(nested(8, 30))))
    x = np.ones((1, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(load(changed(lambda config: config.update(nested(3, 2))))(x), x)
