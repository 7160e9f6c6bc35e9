"""How a network ends: a classifier of one label ends in a softmax; what can become one does, what cannot is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from tf_keras import layers

from edge_ran.errors import InputError
from edge_ran.host.rewrites import LayerGraph, Node
from edge_ran.host.rewrites.layer_graph import weighted

_REGRESSION: tuple[str, ...] = (
    "mse",
    "mae",
    "mape",
    "msle",
    "mean_squared_error",
    "mean_absolute_error",
    "MeanSquaredError",
)
_REGRESSION += ("MeanAbsoluteError", "huber", "Huber", "huber_loss", "logcosh", "log_cosh")
_LOGIT_OF_TWO = ("BinaryCrossentropy of logits", "BinaryFocalCrossentropy of logits")
_ONE_LOGIT = "give a classifier; one of two classes ends in Dense(1, activation='sigmoid')"
_SHAPES = (layers.Flatten, layers.Reshape)
_AVERAGES = (layers.Average, layers.GlobalAveragePooling2D, layers.AveragePooling2D)
_OTHER_MIXES = (
    layers.Add,
    layers.Maximum,
    layers.Minimum,
    layers.GlobalMaxPooling2D,
    layers.MaxPooling2D,
    layers.BatchNormalization,  # a factor
)


def end_in_softmax(graph: LayerGraph, loss: str, path: Path) -> list[str]:
    """Let a translated graph end in a softmax over its classes; return what was done, to be told.

    Args:
        loss: what the network was trained with, where its file says so.

    Raises:
        InputError: it is no classifier of one label for a picture.
    """
    _move_softmax_behind_shapes(graph)
    last, behind = graph.nodes[graph.output], _behind_softmaxes(graph)
    if (
        loss in _REGRESSION and not behind and not _is_softmax(last)
    ):  # a softmax gives probabilities, whatever they were trained with
        raise InputError(f"{path} was trained with {loss}: it gives numbers, not classes", "give a classifier")
    if len(last.shape) == 3 and last.shape[:2] == (1, 1):
        last = _flatten(graph, last)
    if len(last.shape) != 1:
        sides = "x".join(map(str, last.shape))
        what = f"{path} gives an output of {sides} for a picture, as segmentation and detection do"
        raise InputError(what, "give a classifier, whose output is one score for each class")
    if behind:
        return _probabilities_as_they_are(graph, behind, path)
    activation = last.config["activation"] if last.kind is layers.Activation else "linear"
    if activation == "softmax" and last.shape[0] > 1:
        odd = f"it was trained with {loss}, a loss of numbers; its softmax gives probabilities all the same"
        return [odd] if loss in _REGRESSION else []
    if activation == "sigmoid" and last.shape == (1,):
        return _two_classes(graph, graph.nodes[last.inputs[0]], last)
    if activation == "linear" and last.shape == (1,) and loss in _LOGIT_OF_TWO:
        return _two_classes(graph, last)
    if activation == "sigmoid":
        what = (
            f"{path} ends in {last.shape[0]} sigmoids: each class is judged for itself, and several may be true at once"
        )
        raise InputError(what, "train it with a softmax, one class for each picture")
    if last.shape[0] < 2:
        raise InputError(f"{path} gives a single number, as regression does, not classes", _ONE_LOGIT)
    name = graph.fresh("probabilities")
    softmax = layers.Activation("softmax", name=name)
    graph.put(Node(layers.Activation, softmax.get_config(), (), (last.name,), last.shape))
    graph.output = name
    return [
        f"it ends in {last.shape[0]} scores without a softmax (layer {last.name}): one was added, as its loss had it"
    ]


def _is_softmax(node: Node) -> bool:
    return node.kind is layers.Activation and bool(node.config["activation"] == "softmax")


def _move_softmax_behind_shapes(graph: LayerGraph) -> None:
    """``reshape(softmax(x)) = softmax(reshape(x))`` where the scores of one position only get another shape.

    As the first MobileNets of keras_applications end.
    """
    last = first = graph.nodes[graph.output]
    while first.kind in _SHAPES and graph.nodes[first.inputs[0]].kind in _SHAPES:
        first = graph.nodes[first.inputs[0]]
    softmax = graph.nodes[first.inputs[0]] if first.kind in _SHAPES else first
    if (
        softmax is last
        or not _is_softmax(softmax)
        or not softmax.shape[-1] == math.prod(softmax.shape) == last.shape[-1]
    ):
        return
    graph.put(replace(first, inputs=softmax.inputs))
    if not graph.readers(softmax):
        graph.remove(softmax)
    name = graph.fresh(softmax.name)
    graph.put(replace(softmax, config={**softmax.config, "name": name}, inputs=(last.name,), shape=last.shape))
    graph.output = name


def _behind_softmaxes(graph: LayerGraph) -> list[Node]:
    """The nodes that make the output of softmaxes alone; none where it is made of anything else."""
    found, waiting = dict[str, Node](), [graph.output]
    while waiting:
        node = graph.nodes[waiting.pop()]
        if _is_softmax(node) or node.name in found:
            continue
        if node.kind not in (*_SHAPES, *_AVERAGES, *_OTHER_MIXES):
            return []
        found[node.name] = node
        waiting += node.inputs
    return list(found.values())


def _probabilities_as_they_are(graph: LayerGraph, behind: list[Node], path: Path) -> list[str]:
    """Accept averages of softmaxes, which are probabilities; a softmax on top would make them all alike."""
    last, sources = graph.nodes[graph.output], {name for node in behind for name in node.inputs}
    widths = {graph.nodes[name].shape[-1] for name in sources if _is_softmax(graph.nodes[name])}
    mixes = [node for node in behind if node.kind in _OTHER_MIXES]
    if mixes or last.shape != (max(widths),):
        layer = (mixes or behind)[0]
        what = f"{path}: layer {layer.name}, {layer.kind.__name__}, mixes the outputs of softmaxes into what is none"
        raise InputError(what, "end in one softmax, or in the average of several")
    return [f"its output is an average of softmaxes (layer {last.name}): no softmax was added"]


def _flatten(graph: LayerGraph, last: Node) -> Node:
    """A map of one position as a vector, before a final softmax."""
    softmax = last.kind is layers.Activation
    source = last.inputs[0] if softmax else last.name
    flat = layers.Flatten(name=graph.fresh(f"{source}_flat"))
    node = Node(layers.Flatten, flat.get_config(), (), (source,), last.shape[-1:])
    graph.put(node)
    if softmax:
        node = replace(last, inputs=(node.name,), shape=last.shape[-1:])
        graph.put(node)
    graph.output = node.name
    return node


def _two_classes(graph: LayerGraph, dense: Node, sigmoid: Node | None = None) -> list[str]:
    """``[1 - sigmoid(z), sigmoid(z)] = softmax([0, z])``: the dense layer gets a second output that is always 0.

    Without ``sigmoid`` the network ends in ``z``, and its loss had the sigmoid.
    """
    if dense.kind is not layers.Dense or (sigmoid is not None and not graph.only_reader(dense, sigmoid)):
        what = f"layer {graph.output} gives one number that is not of a Dense layer, or its sigmoid"
        raise InputError(what, "end in Dense(2)")
    kernel = np.concatenate([np.zeros_like(dense.kernel), dense.kernel], axis=1)
    bias = None if dense.bias is None else np.concatenate([np.zeros_like(dense.bias), dense.bias])
    wide = weighted(dense, kernel, bias, shape=(2,))
    graph.put(replace(wide, config={**wide.config, "units": 2}))
    softmax = layers.Activation("softmax", name=sigmoid.name if sigmoid else graph.fresh("probabilities"))
    graph.put(Node(layers.Activation, softmax.get_config(), (), (dense.name,), (2,)))
    graph.output = softmax.name
    end = "sigmoid" if sigmoid else "logit"
    return [f"its one {end} became a softmax of two classes, softmax([0, z]): the second is what the {end} told"]
