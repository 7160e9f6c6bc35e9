"""Weights without an architecture, for a network that is known by name: the reference script's, or one trained here.

A script's layers have numbers for names (``conv2d_17``), given as they were created, or, in the newer file layout, as
they stand in the model's list. Both orders follow from the drawing, so that each stored layer finds its place.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray
from tf_keras import layers

from edge_ran import layer_names
from edge_ran.architecture import Architecture, configure, named
from edge_ran.errors import InputError
from edge_ran.host import networks
from edge_ran.host.importing.source import Source, shown
from edge_ran.host.rewrites import LayerGraph
from edge_ran.printable import many

Array = NDArray[Any]
BY_NAME = "weights placed by the names of their layers"
_KERAS_EPSILON = 1e-3  # of a BatchNormalization that a script leaves as it is
_NUMBERED = re.compile(r"(conv2d|batch_normalization|dense)(?:_(\d+))?$")
_CLASSES = {layers.Conv2D: "Conv2D", layers.BatchNormalization: "BatchNormalization", layers.Dense: "Dense"}
# The reference script's form first: a projection in every unit, nothing in the mask's tail.
_FORMS = (("projection", "linear"), ("identity", "paper"), ("identity", "linear"), ("projection", "paper"))


@dataclasses.dataclass(frozen=True)
class Named:
    """The network with the file's weights in it, and how they found their places, to be told."""

    graph: LayerGraph
    architecture: Architecture
    notes: tuple[str, ...]


def read_named(source: Source, name: str, input_size: int | None, upsampling: str) -> Named:
    """Put a file's weights into one of edge-ran's networks.

    Args:
        name: a key of ``architecture.NETWORKS``.
        input_size: side of the picture; None = the network's own.
        upsampling: of the masks, which weights do not tell: ``nearest`` (the reference script) or ``bilinear``.

    Raises:
        InputError: the weights are of another network; names the first layer that differs.
    """
    base = named(name)
    stored = source.weights.open([])
    loose = {key: layer.arrays() for key, layer in stored.items()}
    loose = {key: arrays for key, arrays in loose.items() if arrays}
    kernels = [arrays[0] for arrays in loose.values() if arrays[0].ndim == 2]
    stems = [arrays[0] for arrays in loose.values() if arrays[0].ndim == 4 and arrays[0].shape[2] == 3]
    if len(kernels) != 1 or not stems:
        what = f"{source.path} holds no weights of {name}: it has {len(kernels)} dense layers, the network one"
        raise InputError(what, "--architecture model.json of the script says what it is")
    classes, width = kernels[0].shape[1], stems[0].shape[3] / base.stem_channels
    problems = []
    for shortcut, tail in _FORMS:
        try:
            a = configure(
                name, input_size=input_size, classes=classes, width=width, shortcut=shortcut, mask_tail=tail,
                upsampling=upsampling,
            )  # fmt: skip
        except InputError:
            raise
        a = dataclasses.replace(a, bias=any(len(v) == 2 for v in loose.values() if v[0].ndim == 4))
        graph, drawn = _drawn(a)
        weighted = [node for node in graph.nodes.values() if node.weights]
        if len(weighted) != len(loose):
            problems.append(f"{many(len(weighted), 'layer')} with weights, the file has {len(loose)}")
            continue
        places, how = _places(graph, drawn, loose, source)
        if how != BY_NAME:
            how += f", normalised with Keras's epsilon of {_KERAS_EPSILON:g}, which weights do not tell"
            _set_epsilon(graph)
        problem = _fill(graph, places, loose)
        if problem is None:
            notes = (f"{how}; its masks were taken to upsample by {upsampling} neighbour" * (upsampling == "nearest"),)
            return Named(graph, a, notes if notes[0] else (how,))
        problems.append(problem)
    what = f"{source.path} does not fit {name}: {problems[0]}"
    raise InputError(
        what, "the weights are of another architecture: --architecture model.json of the script says which"
    )


def _set_epsilon(graph: LayerGraph) -> None:
    for node in list(graph.each(layers.BatchNormalization)):
        graph.put(dataclasses.replace(node, config={**node.config, "epsilon": _KERAS_EPSILON}))


def _fill(graph: LayerGraph, places: dict[str, str], loose: dict[str, list[Array]]) -> str | None:
    """Put the weights into the graph; return what does not fit, None where all does."""
    for node in list(graph.nodes.values()):
        if not node.weights:
            continue
        stored = loose[places[node.name]]
        wanted, found = [w.shape for w in node.weights], [w.shape for w in stored]
        if wanted != found:
            shapes = ["x".join(map(str, s[0])) if s else "none" for s in (wanted, found)]
            return f"layer {node.name} needs {shapes[0]}, {shown(places[node.name])} has {shapes[1]}"
        if not all(np.isfinite(w).all() for w in stored):
            return f"{shown(places[node.name])} has weights that are NaN or infinite"
        graph.put(dataclasses.replace(node, weights=tuple(np.asarray(w, np.float32) for w in stored)))
    return None


def _places(
    graph: LayerGraph, drawn: Sequence[str], loose: dict[str, list[Array]], source: Source
) -> tuple[dict[str, str], str]:
    """Return for each layer of ours the stored one, and in which order they were found."""
    ours = [name for name in drawn if graph.nodes[name].weights]
    if set(ours) == set(loose):
        return {name: name for name in ours}, BY_NAME
    numbered = {key: match for key in loose if (match := _NUMBERED.match(key))}
    if len(numbered) == len(loose) and not source.is_container:
        order, how = ours, "weights placed by the numbers of their layers, which count as the script created them"
        stored = sorted(loose, key=lambda key: int(numbered[key][2] or 0))
    else:
        order, how = script_order(graph), "weights placed in the order of the script's list of layers"
        stored = (
            sorted(loose, key=lambda key: int(numbered[key][2] or 0)) if len(numbered) == len(loose) else list(loose)
        )
    places: dict[str, str] = {}
    for rank in (4, 1, 2):  # convolutions, normalisations, dense layers
        keys = [key for key in stored if loose[key][0].ndim == rank]
        known = [graph.nodes[name] for name in order if name in graph.nodes]
        names = [node.name for node in known if node.weights and node.weights[0].ndim == rank]
        places |= dict(zip(names, [*keys, *keys[-1:] * len(names)], strict=False))
    return places, how


class _Recorder(networks._Builder):
    """Draws a network and notes in which order its layers are created."""

    def __init__(self, a: Architecture) -> None:
        super().__init__(a, "zeros")  # stored ones take their place
        self.created: list[str] = []

    def conv(self, x: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        self.created.append(name)
        return super().conv(x, name, *args, **kwargs)

    def norm_relu(self, x: Any, name: str) -> Any:
        self.created.append(f"{name}_bn")
        return super().norm_relu(x, name)


def _drawn(a: Architecture) -> tuple[LayerGraph, list[str]]:
    recorder = _Recorder(a)
    graph = LayerGraph.of(recorder.network())
    return graph, [*recorder.created, "logits"]


def script_order(graph: LayerGraph) -> list[str]:
    """Return the names of a network's layers in the order of ``model.layers`` of the script that draws the same.

    Keras sorts them by their distance from the output, and at the same distance as it meets them. The script writes
    ``Multiply([1 + M, T])`` where ours has ``T + M T``, and gives the branch first to each sum.
    """
    tensors: dict[str, Any] = {}
    image: Any = None
    for node in graph.in_order():
        if node.kind is layers.InputLayer:
            tensors[node.name] = image = layers.Input((1,), name=node.name)
            continue
        inputs = [tensors[source] for source in node.inputs]
        if node.name.endswith("_residual"):  # T + M T: the gate alone is the script's product
            tensors[node.name] = tensors[node.inputs[1]]
            continue
        if layer_names.is_gate(node.name):
            inputs[0] = layers.Activation("linear", name=f"{node.name}_one")(inputs[0])
        elif node.kind is layers.Add and not node.name.endswith(tuple(f"up{i}_add" for i in range(1, 9))):
            inputs = inputs[::-1]  # a unit's convolutions before its shortcut
        kind = layers.Add if len(inputs) > 1 else layers.Activation
        made = kind(name=node.name) if kind is layers.Add else kind("linear", name=node.name)
        tensors[node.name] = made(inputs if len(inputs) > 1 else inputs[0])
    return [layer.name for layer in tf_keras.Model(image, tensors[graph.output]).layers]
