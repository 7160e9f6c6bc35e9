"""Reads a ``.keras`` archive without believing it: no code, no other file, and no more memory than the file has bytes.

Keras's ``safe_mode`` refuses Python lambdas, yet imports whatever module an archive names, calls what it finds there,
and opens what its layers or its HDF5 weights point at: a file named by a vocabulary or by HDF5's external storage, soft
or external links and virtual datasets ends up among the weights. A graph whose nodes wait for each other is built for
ever. So an archive is checked first, and what Keras then reads is a copy of what was checked, nothing else.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import tensorflow as tf
import tf_keras

from edge_ran import zip_archive
from edge_ran.errors import InputError
from edge_ran.files import TemporaryFolder

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
_LEAST_LIMIT_BYTES = 1 << 26  # a small archive may unpack to so much
_UNPACKED_PER_BYTE = 4  # Keras packs nothing; who packs its weights again gains a tenth
_MOST_CONFIG_BYTES = 1 << 25
_MOST_LAYERS = 10_000  # the deepest network here has 4,104
_MOST_ELEMENTS = 1 << 27  # of one layer's output for one picture: 512 MB
_SPARE_WEIGHTS = 1 << 16  # that a network may have without storing them, such as the states of random numbers

# Layers that compute on what they are given. Others read files (StringLookup), hold code (Lambda, TFSMLayer) or belong
# to another framework.
# fmt: off
_LAYERS = frozenset((
    "InputLayer", "Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "ThresholdedReLU",
    "Dense", "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose",
    "DepthwiseConv1D", "DepthwiseConv2D",
    "SeparableConv1D", "SeparableConv2D", "MultiHeadAttention", "Attention", "AdditiveAttention", "EinsumDense",
    "BatchNormalization", "SyncBatchNormalization", "LayerNormalization", "GroupNormalization", "UnitNormalization",
    "Normalization",
    "SpectralNormalization", "Rescaling", "Resizing", "CenterCrop",
    "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Dot",
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D",
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D",
    "UpSampling1D", "UpSampling2D", "UpSampling3D", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", "Cropping1D",
    "Cropping2D", "Cropping3D",
    "Flatten", "Reshape", "Permute", "RepeatVector",
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout", "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization", "RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation", "RandomCrop",
    "RandomContrast",
    "RandomBrightness", "RandomHeight", "RandomWidth",
))
# fmt: on
_PARTS = frozenset(f"keras.{kind}" for kind in ("initializers", "regularizers", "constraints", "mixed_precision"))
_GRAPHS = frozenset({("Functional", "tf_keras.src.engine.functional"), ("Sequential", "keras")})
_OURS = frozenset({("SpatialNormalization", "edge_ran.host.networks")})


def load(path: Path) -> tf_keras.Model:
    """Return the network of a Keras v3 archive, not compiled.

    Raises:
        InputError: the file is missing, damaged, no such archive, or holds what ``_check_graph`` and
            ``check_weights`` refuse.
    """
    try:
        limit = max(_LEAST_LIMIT_BYTES, _UNPACKED_PER_BYTE * path.stat().st_size)
        parts = zip_archive.unpack(str(path), (CONFIG, WEIGHTS), limit, path)
        if CONFIG not in parts:
            raise InputError(f"{path} is no Keras network: it has no {CONFIG}", "give a .keras file of Keras 2")
        _check_graph(parts[CONFIG], path)
        if WEIGHTS not in parts:
            raise InputError(f"{path} has no {WEIGHTS}", "give a .keras file of Keras 2")
        stored = check_weights(io.BytesIO(parts[WEIGHTS]), len(parts[WEIGHTS]), path)
        with TemporaryFolder() as folder:
            # What load_model does, but for reading the weights from within an archive, which takes as long as the rest.
            copy = Path(folder) / WEIGHTS
            copy.write_bytes(parts[WEIGHTS])
            config = {**json.loads(parts[CONFIG]), "compile_config": None}
            del parts
            with _no_more_weights_than(stored + _SPARE_WEIGHTS, path):
                model = tf_keras.saving.deserialize_keras_object(config, safe_mode=True)
                model.load_weights(copy)
    except InputError:
        raise
    except Exception as error:  # Keras, h5py and zipfile each raise their own kinds for a damaged archive
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} is not a Keras network: {reason}", "train it again, or give another run") from error
    _check_outputs(model, path)
    return model


def check_weights(file: IO[bytes], size_bytes: int, path: object) -> int:
    """Look through an HDF5 file before Keras opens it; return how many numbers its datasets hold.

    Args:
        file: the HDF5 file.
        size_bytes: its size.
        path: what to call it.

    Raises:
        InputError: it leads to another file or place (an external, soft or user-defined link, external storage, a
            virtual dataset), holds anything but plain numbers, or claims more of them than it has bytes.
    """
    found, claimed_bytes, seen = 0, 0, set[int]()

    def refuse(name: bytes, what: str) -> InputError:
        shown = name.decode(errors="replace")
        return InputError(f"{path}: its weights {shown!r} {what}", "save the network again, with Keras itself")

    with h5py.File(file, "r") as opened:
        waiting = [opened.id]
        while waiting:
            group = waiting.pop()
            for name in group:
                if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                    raise refuse(name, "lead elsewhere by a link")
                item = h5py.h5o.open(group, name)
                address = h5py.h5o.get_info(item).addr
                if address in seen:
                    continue
                seen.add(address)
                if isinstance(item, h5py.h5g.GroupID):
                    waiting.append(item)
                    continue
                if not isinstance(item, h5py.h5d.DatasetID):
                    raise refuse(name, "are no dataset")
                how = item.get_create_plist()
                inside = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
                if how.get_layout() not in inside or how.get_external_count():
                    raise refuse(name, "are kept in another file")
                if how.get_nfilters():
                    raise refuse(name, "are packed")
                kind = item.get_type()
                if not isinstance(kind, (h5py.h5t.TypeIntegerID, h5py.h5t.TypeFloatID)):
                    raise refuse(name, "are no plain numbers")
                count = item.get_space().get_simple_extent_npoints()
                claimed_bytes += count * kind.get_size()
                if claimed_bytes > size_bytes or item.get_storage_size() < count * kind.get_size():
                    raise refuse(name, "are missing: it claims more numbers than it holds")
                found += count
    return found


def _check_graph(text: bytes, path: Path) -> None:
    """Raise InputError unless a configuration is of known layers, and its graph can be built in one pass."""
    if len(text) > _MOST_CONFIG_BYTES:
        raise InputError(f"{path}: its {CONFIG} has {len(text):,} bytes", "train it again, or give another run")
    graph = json.loads(text)
    if not isinstance(graph, dict):
        raise ValueError(f"its {CONFIG} is no record")
    graph.pop("compile_config", None)  # which is not loaded
    waiting: list[tuple[Any, int]] = [(graph, 1)]
    count = 0
    while waiting:
        item, times = waiting.pop()
        if isinstance(item, dict):
            if "class_name" in item or "registered_name" in item:
                _check_kind(item, path)
                calls = item.get("inbound_nodes")
                times *= max(1, len(calls) if isinstance(calls, list) else 1)  # with all that is inside, if a model
                count += times if item.get("module") not in _PARTS else 0
                if count > _MOST_LAYERS:
                    what = f"{path} calls more than {_MOST_LAYERS:,} layers, with those of models inside it"
                    raise InputError(what, "give another run")
            if item.get("class_name") == "Functional" and isinstance(item.get("config"), dict):
                _check_order(item["config"], path)
            waiting += [(value, times) for value in item.values()]
        elif isinstance(item, list):
            waiting += [(value, times) for value in item]
        elif isinstance(item, int) and abs(item) > 1 << 40:
            raise InputError(f"{path}: its {CONFIG} holds a number that no layer can mean: {item:.3g}")


def _check_kind(item: dict[str, Any], path: Path) -> None:
    name, module, registered = (item.get(key) for key in ("class_name", "module", "registered_name"))
    ours = (name, module) in _OURS
    plain = (module == "keras.layers" and name in _LAYERS) or module in _PARTS or (name, module) in _GRAPHS
    if not (plain or ours) or registered not in ((f"edge_ran>{name}",) if ours else (None, name)):
        what = f"{path} holds {name} of {module or 'nowhere'}, which is no plain Keras layer"
        raise InputError(what, "build the network of keras.layers alone")


def _check_order(config: dict[str, Any], path: Path) -> None:
    """Raise InputError unless every node of a functional graph can be built.

    Keras puts a node whose inputs are not there yet back into its queue, and takes it out again, without end.
    """
    layers = config.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("its layers are no list of records")
    nodes: dict[tuple[str, int], list[tuple[str, int]]] = {}  # what each call of a layer waits for
    for layer in layers:
        name, calls = layer.get("name"), layer.get("inbound_nodes")
        if not isinstance(name, str) or not isinstance(calls, list):
            raise ValueError("a layer has no name or no inbound nodes")
        if layer.get("class_name") == "InputLayer":
            nodes[name, 0] = []
            continue
        skipped = 1 if layer.get("class_name") in ("Functional", "Sequential") else 0  # their own inputs' node
        for number, call in enumerate(calls, skipped):
            if (name, number) in nodes:
                raise ValueError(f"two layers are called {name!r}")
            nodes[name, number] = list(_references(call))
            if number > skipped:  # calls of a layer are built in their order
                nodes[name, number].append((name, number - 1))
    built: set[tuple[str, int]] = set()
    readers: dict[tuple[str, int], list[tuple[str, int]]] = {}
    missing = {}
    for node, sources in nodes.items():
        if unknown := [source for source in sources if source not in nodes]:
            raise InputError(
                f"{path}: layer {node[0]!r} waits for {unknown[0][0]!r}, which is not there", "get it again"
            )
        missing[node] = len(set(sources))
        for source in set(sources):
            readers.setdefault(source, []).append(node)
    ready = [node for node, count in missing.items() if not count]
    while ready:
        node = ready.pop()
        built.add(node)
        for reader in readers.get(node, ()):
            missing[reader] -= 1
            if not missing[reader]:
                ready.append(reader)
    if len(built) < len(nodes):
        waits = next(name for name, number in nodes if (name, number) not in built)
        raise InputError(f"{path}: layer {waits!r} waits for itself", "get the file again")


def _references(call: Any) -> Iterator[tuple[str, int]]:
    """Yield the (layer, call) that a node reads: ``[name, call, output, {…}]``, at any depth, also in arguments."""
    waiting = [call]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list) and len(item) in (3, 4) and isinstance(item[0], str):
            if item[0] == "_CONSTANT_VALUE":
                continue
            if not all(isinstance(number, int) and not isinstance(number, bool) for number in item[1:3]):
                raise ValueError(f"a layer reads {item[0]!r} by no number")
            yield item[0], item[1]
            waiting += item[3:]
        elif isinstance(item, list):
            waiting += item


@contextlib.contextmanager
def _no_more_weights_than(most: int, path: Path) -> Iterator[None]:
    """While a network is built: refuse it before it takes memory for more weights than its file holds."""
    made, refused = 0, False

    def create(next_creator: Callable[..., tf.Variable], **settings: Any) -> tf.Variable:
        nonlocal made, refused
        shape = settings.get("shape")
        if shape is not None and (shape := tf.TensorShape(shape)).is_fully_defined():
            made += math.prod(shape.as_list())
        if made > most:
            refused = True
            raise ValueError("too many weights")
        return next_creator(**settings)

    try:
        with tf.variable_creator_scope(create):
            yield
    except Exception as error:
        if refused:
            raise InputError(
                f"{path} lacks weights: its layers have more than the file holds", "get it again"
            ) from error
        raise


def _check_outputs(model: tf_keras.Model, path: Path) -> None:
    for layer in model.layers:
        for node in layer.inbound_nodes:
            for tensor in tf.nest.flatten(node.outputs):
                if math.prod(side or 1 for side in tensor.shape[1:]) > _MOST_ELEMENTS:
                    shape = tuple(tensor.shape[1:])
                    raise InputError(f"{path}: layer {layer.name!r} gives {shape}, too much for memory", "use another")
