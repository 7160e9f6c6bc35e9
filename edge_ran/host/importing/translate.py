"""A graph as another script drew it -> the plain layers that are rewritten, quantised and trained here.

Each pass is exact, has its equation, and returns in how many places it changed the graph; ``translate`` runs them in
order. What a pass leaves is again one flat graph, so that ``original.model()`` and ``translated.model()`` can be
compared on the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tf_keras import layers

from edge_ran import layer_names
from edge_ran.host.importing.kinds import activation_parts
from edge_ran.host.rewrites import LayerGraph, Node, PassReport, separate_activations
from edge_ran.host.rewrites.layer_graph import weighted

Array = NDArray[Any]
_EPSILON = 1e-3  # of the BatchNormalization that stands for a constant scale and shift


@dataclass(frozen=True)
class Scaling:
    """What the graph does to its picture first, ``scale * x + shift`` for each of three channels."""

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def is_there(self) -> bool:
        """Whether it does anything."""
        return self != Scaling()


@dataclass(frozen=True)
class Translated:
    """The translated graph, the passes that changed something, and the scaling that was taken out of its start."""

    graph: LayerGraph
    passes: tuple[PassReport, ...]
    scaling: Scaling


def translate(original: LayerGraph) -> Translated:
    """Translate a graph; ``original`` itself is left as it is."""
    graph = LayerGraph(dict(original.nodes), original.output)
    reports = [PassReport(name, change(graph)) for name, change in BEFORE]
    scaling, places = take_scaling(graph)
    reports.append(PassReport("scaling of the picture into the preprocessing", places))
    reports += [PassReport(name, change(graph)) for name, change in AFTER]
    return Translated(graph, tuple(report for report in reports if report.places), scaling)


# ------------------------------------------------------------------------------------------------------ passes


def drop_training_only(graph: LayerGraph) -> int:
    """A layer that gives its input at inference (dropout, noise, augmentation) is left out: ``f(x) = x``."""
    places = 0
    for node in graph.each(layers.Activation):
        if node.config["activation"] == "linear":
            if node.name == graph.output and graph.nodes[node.inputs[0]].kind is layers.InputLayer:
                continue
            graph.bypass(node)
            places += 1
    return places


def split_separable(graph: LayerGraph) -> int:
    """A separable convolution is two: ``(x * D) P + a``, D a kernel for each channel, P of 1x1."""
    places = 0
    for node in graph.each(layers.SeparableConv2D):
        config = node.config
        narrow, wide, *bias = node.weights
        shared = {key: config[key] for key in ("kernel_size", "strides", "padding", "dilation_rate")}
        first = layers.DepthwiseConv2D(
            **shared,
            depth_multiplier=config["depth_multiplier"],
            use_bias=False,
            name=graph.fresh(f"{node.name}_depthwise"),
        )
        second = layers.Conv2D(config["filters"], 1, name=node.name, activation=config["activation"])
        shape = (*node.shape[:2], narrow.shape[2] * narrow.shape[3])
        depthwise = Node(layers.DepthwiseConv2D, first.get_config(), (), node.inputs, shape)
        graph.put(weighted(depthwise, narrow, None))
        pointwise = Node(layers.Conv2D, second.get_config(), (), (first.name,), node.shape)
        graph.put(weighted(pointwise, wide, bias[0] if bias else None))
        places += 1
    return places


def split_activations(graph: LayerGraph) -> int:
    """An activation inside a layer becomes its own: a ReLU, a sigmoid, or parts; ``swish(x) = x sigmoid(x)``."""
    places = separate_activations(graph)
    for node in graph.each(layers.Activation):
        name = node.config["activation"]
        parts = activation_parts(name, keras=2) or []
        if len(parts) < 2:
            continue
        source, last = node.inputs[0], node.inputs[0]
        for number, (kind, settings) in enumerate(parts, 1):
            own = node.name if number == len(parts) else graph.fresh(f"{node.name}_part{number}")
            layer = getattr(layers, kind)(**settings, name=own)
            inputs = (source, last) if kind == "Multiply" else (last,)
            graph.put(Node(type(layer), layer.get_config(), (), inputs, node.shape))
            last = own
        places += 1
    for node in graph.each(layers.Softmax):
        config = layers.Activation("softmax", name=node.name).get_config()
        graph.put(replace(node, kind=layers.Activation, config=config))
        places += 1
    return places


def merge_activations(graph: LayerGraph) -> int:
    """The same activation of the same tensor is computed once: the convolution before it then gives it directly."""
    first: dict[tuple[Any, ...], str] = {}
    places = 0
    for node in graph.each(layers.ReLU, layers.LeakyReLU, layers.Activation):
        settings = {key: value for key, value in node.config.items() if key not in ("name", "trainable")}
        same = first.setdefault((node.kind, node.inputs, repr(sorted(settings.items()))), node.name)
        if same == node.name or node.name == graph.output:
            continue
        graph.redirect(node.name, same)
        graph.remove(node)
        places += 1
    return places


def take_scaling(graph: LayerGraph) -> tuple[Scaling, int]:
    """Rescaling and Normalization of the picture, before anything else, belong to the preprocessing: ``s x + t``."""
    scale, shift, places = np.ones(3), np.zeros(3), 0
    while True:
        image = next(node for node in graph.nodes.values() if node.kind is layers.InputLayer)
        readers = graph.readers(image)
        if len(readers) != 1 or readers[0].kind not in (layers.Rescaling, layers.Normalization):
            break
        own, offset = constants(readers[0])
        if not (own > 0).all() or readers[0].name == graph.output:
            break  # the card's preprocessing divides by a number above 0
        scale, shift = scale * own, shift * own + offset
        graph.bypass(readers[0])
        places += 1
    return Scaling(_three(scale), _three(shift)), places


def write_gates(graph: LayerGraph) -> int:
    """The attention's ``(1 + M) T`` is written ``T + M T``: two products of 8-bit numbers, and no constant."""
    places = 0
    for add in graph.each(layers.Rescaling):
        scale, offset = constants(add)
        readers = graph.readers(add)
        product = readers[0] if len(readers) == 1 and readers[0].kind is layers.Multiply else None
        if product is None or len(product.inputs) != 2 or not ((scale == 1).all() and (offset == 1).all()):
            continue
        (mask,), (trunk,) = add.inputs, [i for i in product.inputs if i != add.name] or [""]
        if not trunk or graph.nodes[trunk].shape != product.shape:
            continue
        gate = layers.Multiply(name=graph.fresh(layer_names.gate(product.name)))
        total = layers.Add(name=product.name)
        graph.remove(add)
        graph.put(Node(layers.Multiply, gate.get_config(), (), (mask, trunk), product.shape))
        graph.put(Node(layers.Add, total.get_config(), (), (trunk, gate.name), product.shape))
        places += 1
    return places


def constants_as_normalisation(graph: LayerGraph) -> int:
    """A constant scale and shift is a BatchNormalization, ``g (x - m) / sqrt(v + e) + b``, which rewrites fold.

    With ``m = 0``, ``v + e = 1``: ``g x + b``.
    """
    places = 0
    for node in graph.each(layers.Rescaling):  # one after another are one
        before = graph.nodes[node.inputs[0]]
        if before.kind is layers.Rescaling and graph.only_reader(before, node):
            (scale, offset), (first, start) = constants(node), constants(before)
            both = {"scale": (scale * first).tolist(), "offset": (scale * start + offset).tolist()}
            graph.put(replace(node, config={**node.config, **both}, inputs=before.inputs))
            graph.remove(before)
    for kind in (layers.Rescaling, layers.Normalization):
        for node in graph.each(kind):
            if len(node.shape) not in (1, 3):
                continue
            depth = node.shape[-1]
            scale, offset = (np.broadcast_to(one, (depth,)) for one in constants(node))
            norm = layers.BatchNormalization(epsilon=_EPSILON, name=node.name, trainable=False)
            weights = (scale, offset, np.zeros(depth), np.full(depth, 1 - _EPSILON))
            config = {**norm.get_config(), "dtype": "float32"}
            numbers = tuple(np.asarray(one, np.float32) for one in weights)
            graph.put(Node(layers.BatchNormalization, config, numbers, node.inputs, node.shape))
            places += 1
    return places


def pool_globally(graph: LayerGraph) -> int:
    """Average pooling over a whole map is global average pooling, and a Flatten of its one position part of it."""
    places = 0
    for node in graph.each(layers.AveragePooling2D):
        source = graph.nodes[node.inputs[0]]
        whole = tuple(node.config["pool_size"]) == source.shape[:2] and node.shape[:2] == (1, 1)
        if whole:
            pool = layers.GlobalAveragePooling2D(keepdims=True, name=node.name)
            graph.put(replace(node, kind=layers.GlobalAveragePooling2D, config=pool.get_config()))
            places += 1
    for node in graph.each(layers.GlobalAveragePooling2D):
        readers = graph.readers(node)
        if len(readers) != 1 or node.name == graph.output or readers[0].kind not in (layers.Flatten, layers.Reshape):
            continue
        (after,) = readers
        for keepdims, shape in ((False, node.shape[-1:]), (True, (1, 1, node.shape[-1]))):
            if after.shape == shape and node.shape != shape:
                config = {**node.config, "keepdims": keepdims}
                graph.put(replace(node, config=config, shape=shape))
                graph.bypass(after)
                places += 1
                break
    return places


def name_gates(graph: LayerGraph) -> int:
    """Attention gates, a sigmoid's output times the trunk at each position, get names that --attention looks for."""
    gates = [node for node in graph.each(layers.Multiply) if _gate(graph, node)]
    stage, module, size = 0, 0, None
    order = [node.name for node in graph.in_order()]
    for node in sorted(gates, key=lambda gate: order.index(gate.name)):
        mask, trunk = _gate(graph, node) or ("", "")
        if node.shape != size:
            stage, module, size = stage + 1, 0, node.shape
        module += 1
        place = f"stage{stage}_module{module}"
        if layer_names.gate(place) in graph.nodes:
            continue  # named so already
        total = [r for r in graph.readers(node) if r.kind is layers.Add and trunk in r.inputs]
        for old, new in ((node.name, "gate"), (mask, "mask_sigmoid"), *((r.name, "residual") for r in total[:1])):
            rename(graph, old, graph.fresh(f"{place}_{new}"))
    return len(gates)


def _gate(graph: LayerGraph, node: Node) -> tuple[str, str] | None:
    """(mask, trunk) of an attention gate; None for another product, such as swish or squeeze and excitation."""
    if len(node.inputs) != 2 or len(node.shape) != 3:
        return None
    for mask, trunk in (node.inputs, node.inputs[::-1]):
        sigmoid = graph.nodes[mask]
        is_map = sigmoid.kind is layers.Activation and sigmoid.config["activation"] == "sigmoid"
        sized = sigmoid.shape[:2] == node.shape[:2] != (1, 1) and graph.nodes[trunk].shape == node.shape
        if is_map and sized and trunk not in sigmoid.inputs and trunk != mask:
            return mask, trunk
    return None


BEFORE: tuple[tuple[str, Callable[[LayerGraph], int]], ...] = (
    ("layers of training left out", drop_training_only),
    ("separable convolution as two", split_separable),
    ("activation as a layer of its own", split_activations),
    ("equal activations of a tensor merged", merge_activations),
)
AFTER: tuple[tuple[str, Callable[[LayerGraph], int]], ...] = (
    ("attention (1 + M) T as T + M T", write_gates),
    ("constant arithmetic as normalisation", constants_as_normalisation),
    ("pooling of a whole map as global pooling", pool_globally),
    ("attention gates named", name_gates),
)


# ---------------------------------------------------------------------------------------- what the passes share


def constants(node: Node) -> tuple[Array, Array]:
    """Scale and shift, float64, of a Rescaling or Normalization layer: one number, or one for each channel."""
    config = node.config
    if node.kind is layers.Rescaling:
        scale, offset = (np.asarray(config[key], np.float64).reshape(-1) for key in ("scale", "offset"))
        return scale, offset
    mean, variance = node.weights[:2] if node.weights else (config["mean"], config["variance"])
    mean, variance = (np.asarray(one, np.float64).reshape(-1) for one in (mean, variance))
    deviation = np.maximum(np.sqrt(np.maximum(variance, 0)), 1e-7)  # Keras's epsilon
    if config.get("invert"):
        return deviation, mean
    return 1 / deviation, -mean / deviation


def rename(graph: LayerGraph, old: str, new: str) -> None:
    """Give a node another name, everywhere."""
    node = graph.nodes.pop(old)
    graph.put(replace(node, config={**node.config, "name": new}))
    for other in [n for n in graph.nodes.values() if old in n.inputs]:
        graph.put(replace(other, inputs=tuple(new if one == old else one for one in other.inputs)))
    if graph.output == old:
        graph.output = new


def _three(values: Array) -> tuple[float, float, float]:
    first, second, third = (float(one) for one in np.broadcast_to(values, (3,)))
    return first, second, third
