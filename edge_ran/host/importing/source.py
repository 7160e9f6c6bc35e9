"""A network's file as other scripts write it: what it is, its configuration, its weights. Nothing of it is run.

Read are HDF5 files (``.h5``: whole models or weights alone) and ``.keras`` archives, of Keras 2 and 3. Every other kind
of file is recognised by its bytes and refused with what to use instead.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from edge_ran import hdf5, other_models, zip_archive
from edge_ran.errors import InputError
from edge_ran.files import read_bytes
from edge_ran.host import keras_archive

Array = NDArray[Any]
_HDF5, _ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
GRAPHS = ("Functional", "Model", "Sequential")  # classes of models inside models
_KERAS_3 = (b'"__keras_tensor__"', b'"batch_shape"', b'"DTypePolicy"')  # only its configurations have them
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies", "_layers")  # of the newer layout, by version


def shown(value: object, most: int = 60) -> str:
    """A name of an untrusted file for a message: one line, nothing that steers a terminal, not long."""
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= most else f"{text[: most - 1]}…"


class Weights(Protocol):
    """Where a model's weights lie."""

    def open(self, layers: Sequence[tuple[str, str]]) -> Mapping[str, LayerWeights]:
        """Return the weights of each of a model's layers by name.

        Args:
            layers: (name, class name) of each, in their order; empty gives whatever there is, by its own names.
        """


class LayerWeights(Protocol):
    """The weights of one layer, or, where that is a model, of its layers."""

    def arrays(self) -> list[Array]:
        """Read the layer's own weights, in Keras's order, as they are stored."""

    def inside(self) -> Weights:
        """Return the weights of the layers inside."""


@dataclass(frozen=True)
class Source:
    """An opened file.

    ``config`` is the graph's configuration as JSON gives it, None where the file holds weights alone; ``keras`` is the
    major version that wrote it, 2 or 3; ``loss`` names what it was trained with, ``… of logits`` where it took these;
    empty where that is not stored.
    """

    path: Path
    config: dict[str, Any] | None
    keras: int
    weights: Weights
    keras_version: str = ""
    loss: str = ""

    @property
    def is_container(self) -> bool:
        """Whether the weights lie in the newer layout, whose groups are numbered as the model's list of layers is."""
        return isinstance(self.weights, _Container)


@contextlib.contextmanager
def open_source(path: Path, architecture: Path | None = None) -> Iterator[Source]:
    """Open a network's file.

    Args:
        architecture: the JSON that ``model.to_json()`` gave, for a file of weights alone.

    Raises:
        InputError: it is damaged, hostile, or of a kind that is not read here; says what to use.
    """
    path = Path(path)
    head = _head(path)
    try:
        if head.startswith(_HDF5):
            with open(path, "rb") as file:
                keras_archive.check_weights(file, path.stat().st_size, path)
                hdf5.check(path)
                with h5py.File(file, "r") as opened:
                    yield _with_architecture(_of_hdf5(path, opened), architecture)
        elif head.startswith(_ZIP):
            config, metadata, weights = _archive(path)
            hdf5.check(path, keras_archive.WEIGHTS)
            with h5py.File(io.BytesIO(weights), "r") as opened:
                version = str(metadata.get("keras_version", ""))
                loss = _loss(config.get("compile_config"))
                stored = _Container(opened)
                yield Source(path, config, _major(version, config), stored, shown(version, 20), loss)
        else:
            raise _refusal(path, head)
    except InputError:
        raise
    except Exception as error:  # json, h5py, zipfile and Keras's layers raise many kinds for what is damaged
        reason = shown(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, 120)
        raise InputError(
            f"{path} cannot be read: {reason}", "save the network again: model.save('model.h5')"
        ) from error


def is_keras_file(path: Path) -> bool:
    """Whether a path is a file that looks like a Keras network: HDF5, or an archive of Keras."""
    if path.is_dir():
        return (path / "saved_model.pb").is_file()
    if not path.is_file() or path.suffix == ".tflite":
        return False
    with open(path, "rb") as file:
        head = file.read(64)
    return head.startswith((_HDF5, b"version https://git-lfs")) or path.suffix in (".keras", ".h5", ".hdf5")


def _head(path: Path) -> bytes:
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            what = f"{path} is a SavedModel, a program that would have to be run to be read"
            raise InputError(
                what, "where it was trained: model.save('model.keras') instead of export or save_format='tf'"
            )
        what, remedy = other_models.in_folder(path) or ("is a folder", "give the .h5 or .keras file")
        raise InputError(f"{path} {what}", remedy)
    if not path.exists():
        raise InputError(f"there is no file {path}", "give a .h5 or .keras file")
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if head := file.read(4096):
            return head
    read_bytes(path, "network")  # says why not
    return b""


def _refusal(path: Path, head: bytes) -> InputError:
    text = head.lstrip()
    if head.startswith(b"version https://git-lfs"):
        return InputError(f"{path} is a Git LFS pointer, not the file itself", "git lfs pull")
    if head[4:8] == b"TFL3":
        return InputError(f"{path} is converted already", f"edge-ran inspect {shlex.quote(str(path))}")
    if found := other_models.refusal(path, head):
        return InputError(f"{path} {found[0]}", found[1])
    if text.startswith(b"{"):
        return InputError(f"{path} is a description without weights", f"edge-ran import WEIGHTS --architecture {path}")
    if text.lower().startswith((b"<!doctype", b"<html")):
        return InputError(f"{path} is a web page, not a network", "download the file itself")
    return InputError(
        f"{path} is no Keras network: neither HDF5 (.h5) nor a .keras archive", "model.save('model.keras')"
    )


def _archive(path: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    limit = max(1 << 26, 4 * path.stat().st_size)
    with contextlib.suppress(*zip_archive.DAMAGE), zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if "config.json" not in names and any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
            what, remedy = other_models.PYTORCH
            raise InputError(f"{path} {what}", remedy)
    parts = zip_archive.unpack(str(path), ("config.json", "metadata.json", "model.weights.h5"), limit, path)
    for name in ("config.json", "model.weights.h5"):
        if name not in parts:
            raise InputError(
                f"{path} is no Keras archive: it has no {name}", "model.save('model.keras') where it was trained"
            )
    weights = parts["model.weights.h5"]
    keras_archive.check_weights(io.BytesIO(weights), len(weights), path)
    return _json(parts["config.json"], path), _json(parts.get("metadata.json", b"{}"), path), weights


def _json(text: bytes | str, path: Path) -> dict[str, Any]:
    if len(text) > hdf5.MOST_BYTES:
        raise InputError(f"{path}: its configuration has {len(text):,} bytes", "save the network again")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("its configuration is no record")
    return found


def _major(version: str, config: Mapping[str, Any]) -> int:
    if match := re.match(r"(\d+)\.", version):
        return 3 if int(match[1]) >= 3 else 2
    return 3 if "keras_tensor" in json.dumps(config) else 2


def _loss(compiled: Any) -> str:
    """The name of the loss that a network was trained with, where it is one name."""
    loss = compiled.get("loss") if isinstance(compiled, dict) else None
    if isinstance(loss, dict):
        inner, kind = loss.get("config"), loss.get("class_name")
        inner = inner if isinstance(inner, dict) else {}
        loss = f"{kind} of logits" if inner.get("from_logits") is True else inner.get("name", kind)
    return shown(loss, 40) if isinstance(loss, str) else ""


def _with_architecture(source: Source, path: Path | None) -> Source:
    if path is None:
        return source
    if source.config is not None:
        raise InputError(f"{source.path} holds its architecture itself", "leave --architecture away")
    text = read_bytes(path, "architecture")
    try:
        config = _json(text, path)
    except ValueError as error:
        raise InputError(
            f"{path} is no JSON of a network", "write it with: open('model.json', 'w').write(model.to_json())"
        ) from error
    version = str(config.get("keras_version", ""))  # which Keras 3 does not write
    keras = 3 if not version and any(mark in text for mark in _KERAS_3) else _major(version, config)
    return Source(source.path, config, keras, source.weights, source.keras_version, source.loss)


# ------------------------------------------------------------------------------------------------------------- HDF5


def _of_hdf5(path: Path, file: h5py.File) -> Source:
    config, version = hdf5.attribute(file, "model_config"), hdf5.text(hdf5.attribute(file, "keras_version"))
    training = hdf5.attribute(file, "training_config")
    loss = ""
    if training is not None:
        with contextlib.suppress(ValueError):
            loss = _loss(_json(hdf5.text(training), path))
    where = file.get("model_weights", file)
    version = version or hdf5.text(hdf5.attribute(where, "keras_version"))
    names = hdf5.names(where, "layer_names")
    graph = None if config is None else _json(hdf5.text(config), path)
    if names:
        stored: Weights = _Legacy({name: _weights_of(where[name]) for name in names if name in where})
    elif any(name in file for name in _CONTAINERS) or "vars" in file:
        stored = _Container(file)
    elif "optimizer_weights" in file or "optimizer" in file:
        raise InputError(f"{path} holds the state of an optimiser and no network", "model.save('model.h5') saves both")
    elif graph is not None:
        stored = _Legacy({})
    else:
        raise InputError(f"{path} is an HDF5 file, but not of Keras", "model.save('model.h5') where it was trained")
    return Source(path, graph, _major(version, graph or {}), stored, shown(version, 20), loss)


def _weights_of(group: Any) -> list[tuple[str, Any]]:
    """The (name, dataset) of each weight of a layer's group, in order."""
    found = []
    for name in hdf5.names(group, "weight_names"):
        dataset = group.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise ValueError(f"its weights {shown(name)!r} are not there")
        found.append((name, dataset))
    return found


def _read(dataset: Any) -> Array:
    return np.asarray(dataset[()])


class _Legacy:
    """The older layout: a group for each layer by its name; a model inside is one group with all its weights."""

    def __init__(self, by_layer: Mapping[str, list[tuple[str, Any]]]) -> None:
        self.by_layer = by_layer

    def open(self, layers: Sequence[tuple[str, str]]) -> Mapping[str, LayerWeights]:
        names = [name for name, _ in layers] or list(self.by_layer)
        return {name: _LegacyLayer(self.by_layer.get(name, [])) for name in names}


class _LegacyLayer:
    def __init__(self, weights: list[tuple[str, Any]]) -> None:
        self.weights = weights

    def arrays(self) -> list[Array]:
        return [_read(dataset) for _, dataset in self.weights]

    def inside(self) -> Weights:
        return _LegacyInside(self.weights)


class _LegacyInside:
    """The weights of a model inside a model: which layer each is of stands in its name, ``model/layer/kernel:0``.

    Sequential models leave their own names out, ``layer/kernel:0``: what no layer here owns goes to the models deeper
    inside, each of which takes what its layers own (Teachable Machine's files are three deep).
    """

    def __init__(self, weights: list[tuple[str, Any]]) -> None:
        self.weights = weights

    def open(self, layers: Sequence[tuple[str, str]]) -> Mapping[str, LayerWeights]:
        names = {name for name, _ in layers}
        deeper = [name for name, kind in layers if kind in GRAPHS]
        found: dict[str, list[tuple[str, Any]]] = {name: [] for name in names}
        for name, dataset in self.weights:
            parts = name.split("/")[:-1]
            owner = _owner(parts, names)
            owners = [owner] if owner is not None else deeper
            for one in owners:
                found[one].append((name, dataset))
        return {name: _LegacyLayer(found[name]) for name in names}


def _owner(parts: list[str], names: set[str]) -> str | None:
    """The layer that a weight's name begins with, the longest where several do: ``Conv/BatchNorm`` and not ``Conv``.

    Names of models outside may stand before it.
    """
    count = len(parts)
    runs = ("/".join(parts[start:end]) for start in range(count) for end in range(count, start, -1))
    return next((run for run in runs if run in names), None)


class _Container:
    """The newer layout: ``layers/conv2d_1/vars/0``, by class and number; new versions add the layer's name."""

    def __init__(self, group: Any) -> None:
        self.group = group

    def open(self, layers: Sequence[tuple[str, str]]) -> Mapping[str, LayerWeights]:
        place = next((self.group[name] for name in _CONTAINERS if name in self.group), None)
        if place is None:
            return {name: _ContainerLayer(None) for name, _ in layers}
        named = {}
        for key in place:
            if "vars" in place[key] and (own := hdf5.text(hdf5.attribute(place[key]["vars"], "name"))):
                named[own] = key
        counts: dict[str, int] = {}
        found: dict[str, LayerWeights] = {}
        if not layers:
            return {key: _ContainerLayer(place[key]) for key in place}
        for name, kind in layers:
            key = _snake_case(kind)
            number = counts[key] = counts.get(key, -1) + 1
            key = named.get(name, f"{key}_{number}" if number else key)
            found[name] = _ContainerLayer(place.get(key))
        return found


class _ContainerLayer:
    def __init__(self, group: Any) -> None:
        self.group = group

    def arrays(self) -> list[Array]:
        values = self.group["vars"] if self.group is not None and "vars" in self.group else {}
        return [_read(values[key]) for key in sorted((key for key in values if key.isdigit()), key=int)]

    def inside(self) -> Weights:
        return _Container(self.group if self.group is not None else {})


def _snake_case(name: str) -> str:
    """As Keras names the groups of the newer layout: ``Conv2D`` -> ``conv2d``, ``ReLU`` -> ``re_lu``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
