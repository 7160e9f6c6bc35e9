"""How a network ends: a classifier of one label ends in a softmax; what can become one does, what cannot is refused."""

from __future__ import annotations

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


def end_in_softmax(graph: LayerGraph, loss: str, path: Path) -> list[str]:
    """Let a translated graph end in a softmax over its classes; return what was done, to be told.

    Args:
        loss: what the network was trained with, where its file says so.

    Raises:
        InputError: it is no classifier of one label for a picture.
    """
    last = graph.nodes[graph.output]
    is_softmax = last.kind is layers.Activation and last.config["activation"] == "softmax"
    if loss in _REGRESSION and not is_softmax:  # a softmax gives probabilities, whatever they were trained with
        raise InputError(f"{path} was trained with {loss}: it gives numbers, not classes", "give a classifier")
    if len(last.shape) == 3 and last.shape[:2] == (1, 1):
        last = _flatten(graph, last)
    if len(last.shape) != 1:
        sides = "x".join(map(str, last.shape))
        what = f"{path} gives an output of {sides} for a picture, as segmentation and detection do"
        raise InputError(what, "give a classifier, whose output is one score for each class")
    activation = last.config["activation"] if last.kind is layers.Activation else "linear"
    if activation == "softmax" and last.shape[0] > 1:
        odd = f"it was trained with {loss}, a loss of numbers; its softmax gives probabilities all the same"
        return [odd] if loss in _REGRESSION else []
    if activation == "sigmoid" and last.shape == (1,):
        return _two_classes(graph, last)
    if activation == "sigmoid":
        what = (
            f"{path} ends in {last.shape[0]} sigmoids: each class is judged for itself, and several may be true at once"
        )
        raise InputError(what, "train it with a softmax, one class for each picture")
    if last.shape[0] < 2:
        raise InputError(f"{path} gives a single number, as regression does, not classes", "give a classifier")
    name = graph.fresh("probabilities")
    softmax = layers.Activation("softmax", name=name)
    graph.put(Node(layers.Activation, softmax.get_config(), (), (last.name,), last.shape))
    graph.output = name
    return [
        f"it ends in {last.shape[0]} scores without a softmax (layer {last.name}): one was added, as its loss had it"
    ]


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


def _two_classes(graph: LayerGraph, sigmoid: Node) -> list[str]:
    """``[1 - sigmoid(z), sigmoid(z)] = softmax([0, z])``: the dense layer gets a second output that is always 0."""
    dense = graph.nodes[sigmoid.inputs[0]]
    if dense.kind is not layers.Dense or not graph.only_reader(dense, sigmoid):
        raise InputError(f"layer {sigmoid.name} is one sigmoid that does not follow a Dense layer", "end in Dense(2)")
    kernel = np.concatenate([np.zeros_like(dense.kernel), dense.kernel], axis=1)
    bias = None if dense.bias is None else np.concatenate([np.zeros_like(dense.bias), dense.bias])
    wide = weighted(dense, kernel, bias, shape=(2,))
    graph.put(replace(wide, config={**wide.config, "units": 2}))
    softmax = layers.Activation("softmax", name=sigmoid.name)
    graph.put(Node(layers.Activation, softmax.get_config(), (), sigmoid.inputs, (2,)))
    return ["its one sigmoid became a softmax of two classes, softmax([0, z]): the second is what the sigmoid told"]
