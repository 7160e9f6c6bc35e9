"""Exact rewrites of a trained graph into an equal one that quantises, converts and runs better.

Each pass is one function with its equation; ``rewrite`` runs them in order and measures, on a random image, how far the
logits moved: by float32 rounding alone, under 1e-4 of the largest. Nothing is left of BatchNormalization: what comes
out is what ``convert`` writes and what ``quantize`` trains, convolutions that end in a ReLU, as runtimes fuse them.

The result is again one flat functional graph; layers keep their names, and new ones are named after their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray
from tf_keras import layers

from edge_ran.errors import InputError
from edge_ran.host.networks import SpatialNormalization

Array = NDArray[Any]


@dataclass(frozen=True)
class PassReport:
    """The number of ``places`` in the graph that a pass changed."""

    name: str
    places: int


@dataclass(frozen=True)
class Rewritten:
    """The rewritten model, the passes that changed something in the order they ran, and what they did to the logits.

    ``difference`` is the largest change of a logit on a random image, as a share of the largest logit.
    """

    model: tf_keras.Model
    passes: tuple[PassReport, ...]
    difference: float


def rewrite(model: tf_keras.Model) -> Rewritten:
    """Rewrite a network into an equal one that deploys better; ``model`` itself is left as it is.

    Args:
        model: flat functional graph, one image input (H, W, 3), one output.

    Raises:
        InputError: the model is not a flat functional graph of one input and one output.
    """
    graph = LayerGraph.of(model)
    reports = tuple(PassReport(name, change(graph)) for name, change in PASSES)
    rewritten = graph.model(model.name)
    return Rewritten(rewritten, tuple(r for r in reports if r.places), difference(model, rewritten))


def for_floats(rewritten: Rewritten) -> Rewritten:
    """Rewrite once more, for files that compute in float32: no products with padding (``leave_out_padding``)."""
    graph = LayerGraph.of(rewritten.model)
    if not (places := leave_out_padding(graph)):
        return rewritten
    model = graph.model(rewritten.model.name)
    report = PassReport("convolution without its padding", places)
    moved = rewritten.difference + difference(rewritten.model, model)
    return Rewritten(model, (*rewritten.passes, report), moved)


def difference(model: tf_keras.Model, other: tf_keras.Model, seed: int = 0) -> float:
    """Return the largest difference of two models' logits on a random image, as a share of the largest logit."""
    image = np.random.default_rng(seed).uniform(-1, 1, (1, *model.input_shape[1:])).astype(np.float32)
    before, after = (_logits(m, image) for m in (model, other))
    return float(np.abs(after - before).max()) / max(float(np.abs(before).max()), float(np.finfo(np.float32).tiny))


def _logits(model: tf_keras.Model, image: Array) -> Array:
    """(1, H, W, 3) -> a model's output before a final softmax, which would hide differences."""
    last = model.output.node.layer
    hiding = isinstance(last, layers.Activation) and last.get_config()["activation"] == "softmax"
    return np.asarray(tf_keras.Model(model.input, last.input if hiding else model.output)(image, training=False))


# ------------------------------------------------------------------------------------------------ the passes


def merge_pointwise(graph: LayerGraph) -> int:
    """Two 1x1 convolutions with nothing between them are one (the mask's linear tail).

    ``(x A + a) B + b = x (A B) + (a B + b)``, done where it costs no more multiply-adds than before.
    """
    places = 0
    for second in graph.each(layers.Conv2D):
        first = graph.nodes[second.inputs[0]]
        if not (_is_pointwise(first) and _is_pointwise(second) and graph.only_reader(first, second)):
            continue
        a, b = (node.kernel[0, 0].astype(np.float64) for node in (first, second))
        if a.shape[0] * b.shape[1] > a.size + b.size:
            continue
        bias = second.bias
        if first.bias is not None:
            bias = first.bias @ b + (0.0 if bias is None else bias)
        graph.put(_weighted(second, (a @ b)[None, None], bias, inputs=first.inputs))
        graph.remove(first)
        places += 1
    return places


def commute_upsampling(graph: LayerGraph) -> int:
    """What works on each position alone goes before an upsampling, on a quarter of the positions.

    Bilinear: ``up(x) A + a = up(x A + a)``, as the interpolation's weights sum to 1. Nearest neighbour only repeats
    positions, so that normalisations and ReLUs commute as well: ``f(up(x)) = up(f(x))``.
    """
    places = 0
    while swap := _next_swap(graph):
        graph.swap(*swap)
        places += 1
    return places


def _next_swap(graph: LayerGraph) -> tuple[Node, Node] | None:
    for up in graph.each(layers.UpSampling2D):
        if len(readers := graph.readers(up)) != 1:
            continue
        (after,) = readers
        if up.config["interpolation"] == "nearest":
            if _is_pointwise(after) or after.kind in _POSITIONWISE:
                return up, after
        # A BatchNormalization or ReLU after the convolution would lose the operator that it is fused with.
        elif _is_pointwise(after) and not any(r.kind in _FUSED for r in graph.readers(after)):
            return up, after
    return None


def stride_before_pointwise(graph: LayerGraph) -> int:
    """A 1x1 convolution of stride 2 becomes a choice of every second position, then a 1x1 convolution of stride 1.

    ``y[i, j] = x[2i, 2j] A + a``. The choice is a 2x2 depthwise convolution of stride 2 whose kernel is 1 in its first
    corner and 0 elsewhere: exact in int8, one XNNPACK operator, no slower than the strided convolution (a 1x1 pooling
    or a strided slice leaves XNNPACK, a 2x2 convolution costs four times the multiply-adds). LiteRT's GPU delegate
    miscomputes the quantised 1x1 convolution of stride 2, silently.
    """
    places = 0
    for node in graph.each(layers.Conv2D):
        if not _is_pointwise(node, strides=(2, 2)):
            continue
        kernel = np.zeros((2, 2, graph.nodes[node.inputs[0]].shape[-1], 1))
        kernel[0, 0] = 1
        height, width, _ = node.shape
        choice = _depthwise(f"{node.name}_stride", kernel, node.inputs, (height, width, kernel.shape[2]), stride=2)
        graph.put(choice)
        graph.put(replace(node, config={**node.config, "strides": (1, 1)}, inputs=(choice.name,)))
        places += 1
    return places


def repeat_positions(graph: LayerGraph) -> int:
    """A nearest-neighbour upsampling becomes concatenations of its input with itself, read in another shape.

    ``[x, x]`` by channels, (h, w, 2c), is ``x`` with every column twice, (h, 2w, c); two copies of that side by side,
    (h, 4w, c), are it with every row twice, (2h, 2w, c): the numbers lie in memory in the same order. XNNPACK has no
    kernel for the resizing in any precision, so that each one would split the graph; these it has.
    """
    places = 0
    for up in graph.each(layers.UpSampling2D):
        if up.config["interpolation"] != "nearest" or min(up.config["size"]) == 1:
            continue
        (height, width, channels), (rows, columns) = up.shape, up.config["size"]
        low, narrow = height // rows, width // columns
        (before,) = up.inputs
        for name, layer, copies, shape in (
            (f"{up.name}_columns", layers.Concatenate(), columns, (low, narrow, columns * channels)),
            (f"{up.name}_wide", layers.Reshape((low, width, channels)), 1, (low, width, channels)),
            (f"{up.name}_rows", layers.Concatenate(2), rows, (low, rows * width, channels)),
            (up.name, layers.Reshape(up.shape), 1, up.shape),
        ):
            graph.put(Node(type(layer), {**layer.get_config(), "name": name}, (), (before,) * copies, shape))
            before = name
        places += 1
    return places


def fold_norms(graph: LayerGraph) -> int:
    """A BatchNormalization after a convolution or dense layer goes into its weights.

    ``s (x A + a) + t = x (A s) + (a s + t)`` with ``s = gamma / sqrt(variance + epsilon)``, ``t = beta - mean s``.
    """
    places = 0
    for norm in graph.each(layers.BatchNormalization):
        before = graph.nodes[norm.inputs[0]]
        if not _foldable(graph, before, norm):
            continue
        scale, shift = _affine(norm)
        by_channel = scale[:, None] if before.kind is layers.DepthwiseConv2D else scale
        bias = shift if before.bias is None else before.bias * scale + shift
        graph.put(_weighted(before, before.kernel * by_channel.astype(np.float32), bias))
        graph.bypass(norm)
        places += 1
    return places


def norms_to_depthwise(graph: LayerGraph) -> int:
    """A BatchNormalization that follows no convolution (the pre-activation) becomes a 1x1 depthwise convolution.

    ``s x + t`` for each channel is a 1x1 depthwise convolution of weight s and bias t, which runtimes fuse with the
    ReLU after it into one operator, and quantise with a scale for each channel.
    """
    places = 0
    for norm in graph.each(layers.BatchNormalization):
        scale, shift = _affine(norm)
        graph.put(_depthwise(norm.name, scale[None, None, :, None], norm.inputs, norm.shape, bias=shift))
        places += 1
    return places


def normalise_positions(graph: LayerGraph) -> int:
    """Spatial attention's GroupNormalization, a group for each channel, is written by its definition.

    ``d = x - mean(x)``, ``y = d / sqrt(mean(d d) + epsilon)``, means over the positions of a channel. Keras computes
    the same in five dimensions, which GPU delegates refuse, and with operators that have no int8 form (NEG, SQUARE),
    so that a calibrated file leaves int8 twice for each mask; of this only RSQRT, on a number for each channel, stays
    outside XNNPACK.
    """
    places = 0
    for norm in graph.each(layers.GroupNormalization):
        config, own_group = norm.config, len(norm.shape) == 3 and norm.config["groups"] == norm.shape[-1]
        if not own_group or config["axis"] not in (-1, 3) or config["scale"] or config["center"]:
            continue
        graph.put(replace(norm, kind=SpatialNormalization))
        places += 1
    return places


_POSITIONS = 7  # that XNNPACK computes at a time, at most
_LEAST_SAVED = 0.15  # of these turns
_LARGE_BYTES = 1 << 20  # of a float32 kernel; what a smaller one saves is less than the additions cost


def leave_out_padding(graph: LayerGraph) -> int:
    """A 3x3 convolution on few positions becomes three 3x1 ones, each on the columns that its part of the kernel meets.

    ``y[:, j] = x[:, j - 1] K1 + x[:, j] K2 + x[:, j + 1] K3``, where the outer terms end at the border. On 4x4
    positions 44 of the 144 products of a position and a kernel's place are with padding; 24 of them are left out.
    XNNPACK computes seven positions at a time and reads the kernel for each seven: 16 positions cost three turns, the
    outer terms' 12 only two. Not for int8, where each term would be rounded to 8 bits.
    """
    places = 0
    for node in graph.each(layers.Conv2D):
        config, (height, width, _) = node.config, node.shape
        plain = {"kernel_size": (3, 3), "strides": (1, 1), "dilation_rate": (1, 1), "padding": "same", "groups": 1}
        if any(config[key] != value for key, value in plain.items()) or config["activation"] != "linear" or width < 2:
            continue
        turns, fewer = (-(-height * columns // _POSITIONS) for columns in (width, width - 1))
        if 2 * (turns - fewer) < _LEAST_SAVED * 3 * turns or node.kernel.nbytes < _LARGE_BYTES:
            continue
        terms = [_column(node, 1, node.inputs, width, node.bias)]
        for column, lost in ((0, (0, 1)), (2, (1, 0))):  # the term of the column to the left reads all but the last
            cropped, padded = f"{node.name}_crop{column}", f"{node.name}_pad{column}"
            crop, pad = (layers.Cropping2D((0, lost), name=cropped), layers.ZeroPadding2D((0, lost[::-1]), name=padded))
            depth = graph.nodes[node.inputs[0]].shape[-1]
            graph.put(Node(layers.Cropping2D, crop.get_config(), (), node.inputs, (height, width - 1, depth)))
            terms.append(_column(node, column, (cropped,), width - 1, None))
            graph.put(Node(layers.ZeroPadding2D, pad.get_config(), (), (terms[-1].name,), node.shape))
        for term in terms:
            graph.put(term)
        inputs = (terms[0].name, *(f"{node.name}_pad{column}" for column in (0, 2)))
        graph.put(Node(layers.Add, layers.Add(name=node.name).get_config(), (), inputs, node.shape))
        places += 1
    return places


# In their order; each changes a graph and returns in how many places.
PASSES: tuple[tuple[str, Callable[[LayerGraph], int]], ...] = (
    ("merge pointwise convolutions", merge_pointwise),
    ("commute upsampling", commute_upsampling),
    ("stride before pointwise convolution", stride_before_pointwise),
    ("nearest upsampling as concatenation", repeat_positions),
    ("fold normalisation into convolution", fold_norms),
    ("normalisation as depthwise convolution", norms_to_depthwise),
    ("spatial normalisation in four dimensions", normalise_positions),
)

# Layers whose output at a position depends on that position alone, or (normalisation over all positions) only on how
# often each value occurs, which repeating every position equally leaves as it is. A sigmoid stays where it is: its int8
# output has a fixed scale, and what is made of copies of it another one, so that a QUANTIZE would come between.
_POSITIONWISE = (layers.BatchNormalization, layers.ReLU, layers.UnitNormalization, layers.GroupNormalization)
_FUSED = (layers.BatchNormalization, layers.ReLU)
_LINEAR = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def _foldable(graph: LayerGraph, before: Node, norm: Node) -> bool:
    """True when ``norm`` can go into ``before``, a convolution that nothing else reads."""
    return before.kind in _LINEAR and before.config["activation"] == "linear" and graph.only_reader(before, norm)


def _is_pointwise(node: Node, strides: tuple[int, int] = (1, 1)) -> bool:
    """True for an ungrouped 1x1 convolution of these strides without an activation of its own."""
    wanted = {"kernel_size": (1, 1), "strides": strides, "groups": 1, "activation": "linear"}
    return node.kind is layers.Conv2D and all(node.config[key] == value for key, value in wanted.items())


def _column(node: Node, column: int, inputs: tuple[str, ...], width: int, bias: Array | None) -> Node:
    """Return a convolution's part that one column of its kernel makes, of ``width`` positions a row."""
    kernel = node.kernel[:, column : column + 1]
    config = {**node.config, "name": f"{node.name}_column{column}", "kernel_size": kernel.shape[:2]}
    part = replace(node, config=config, inputs=inputs, shape=(node.shape[0], width, node.shape[-1]))
    return _weighted(part, kernel, bias)


def _affine(norm: Node) -> tuple[Array, Array]:
    """Scale and shift for each channel, float64, that a BatchNormalization applies at inference."""
    *learnt, mean, variance = (w.astype(np.float64) for w in norm.weights)
    gamma = learnt.pop(0) if norm.config["scale"] else 1.0
    beta = learnt.pop(0) if norm.config["center"] else 0.0
    scale = gamma / np.sqrt(variance + norm.config["epsilon"])
    return scale, beta - mean * scale


def _weighted(node: Node, kernel: Array, bias: Array | None, **changes: Any) -> Node:
    """Return a convolution or dense node with other weights."""
    weights = tuple(np.asarray(w, np.float32) for w in (kernel, bias) if w is not None)
    return replace(node, weights=weights, config={**node.config, "use_bias": bias is not None}, **changes)


def _depthwise(
    name: str,
    kernel: Array,
    inputs: tuple[str, ...],
    shape: tuple[int, ...],
    *,
    bias: Array | None = None,
    stride: int = 1,
) -> Node:
    """Return a depthwise convolution of a (height, width, channels, 1) kernel, not trainable."""
    layer = layers.DepthwiseConv2D(
        kernel.shape[:2], stride, padding="same", name=name, dtype="float32", trainable=False
    )
    return _weighted(Node(layers.DepthwiseConv2D, layer.get_config(), (), inputs, shape), kernel, bias)


# ---------------------------------------------------------------------------------------- the graph being changed


@dataclass(frozen=True)
class Node:
    """A layer as data: its class, configuration and weights, the names of the nodes that it reads, its output's shape.

    ``shape`` is (height, width, channels) or (features,); ``config`` holds the name, too.
    """

    kind: type[layers.Layer]
    config: dict[str, Any]
    weights: tuple[Array, ...]
    inputs: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.config["name"]

    @property
    def kernel(self) -> Array:
        """A convolution's or dense layer's kernel."""
        return self.weights[0]

    @property
    def bias(self) -> Array | None:
        """A convolution's or dense layer's bias, if it has one."""
        return self.weights[1] if len(self.weights) > 1 else None


class LayerGraph:
    """A network as nodes by name; passes change it in place."""

    def __init__(self, nodes: dict[str, Node], output: str) -> None:
        self.nodes = nodes
        self.output = output

    @classmethod
    def of(cls, model: tf_keras.Model) -> LayerGraph:
        """Read a functional model. Raises InputError when it is not flat, or not of one input and one output."""
        if not getattr(model, "_is_graph_network", False) or len(model.inputs) != 1 or len(model.outputs) != 1:
            raise InputError(f"{model.name} is not a functional network of one image input and one output")
        nodes: dict[str, Node] = {}
        for layer in model.layers:
            if isinstance(layer, tf_keras.Model) or len(layer.inbound_nodes) != 1:
                raise InputError(f"layer {layer.name} of {model.name} is a nested model or used twice")
            # In float32 whatever it was trained in; a kernel's costly random start would be overwritten anyway.
            config = {**layer.get_config(), "dtype": "float32"}
            config |= {key: "zeros" for key in config if key in ("kernel_initializer", "depthwise_initializer")}
            sources = tuple(source.layer.name for source in layer.inbound_nodes[0].parent_nodes)
            shape = tuple(int(d) for d in layer.output.shape[1:])
            nodes[layer.name] = Node(type(layer), config, tuple(layer.get_weights()), sources, shape)
        return cls(nodes, model.output.node.layer.name)

    def model(self, name: str) -> tf_keras.Model:
        """Draw the graph as a functional model."""
        tensors: dict[str, Any] = {}
        image: Any = None
        for node in self._sorted():
            layer = node.kind.from_config(node.config)
            if node.kind is layers.InputLayer:
                tensors[node.name] = image = layer.output
                continue
            inputs = [tensors[i] for i in node.inputs]
            tensors[node.name] = layer(inputs if len(inputs) > 1 else inputs[0])
            layer.set_weights(node.weights)
        return tf_keras.Model(image, tensors[self.output], name=name)

    def each(self, kind: type[layers.Layer]) -> Iterator[Node]:
        """Yield every node of a kind of layer, as it stands when its turn comes."""
        for name in list(self.nodes):
            node = self.nodes.get(name)
            if node is not None and node.kind is kind:
                yield node

    def readers(self, node: Node) -> list[Node]:
        """Return the nodes that read ``node``'s output."""
        return [other for other in self.nodes.values() if node.name in other.inputs]

    def only_reader(self, node: Node, reader: Node) -> bool:
        """True when nothing but ``reader`` uses ``node``'s output."""
        return node.name != self.output and [r.name for r in self.readers(node)] == [reader.name]

    def put(self, node: Node) -> None:
        """Add a node, or put it in the place of the one of the same name."""
        self.nodes[node.name] = node

    def remove(self, node: Node) -> None:
        """Take out a node that nothing reads any more."""
        del self.nodes[node.name]

    def bypass(self, node: Node) -> None:
        """Take out a node of one input; its readers read its input."""
        (source,) = node.inputs
        self._redirect(node.name, source)
        self.remove(node)

    def swap(self, first: Node, second: Node) -> None:
        """``second(first(x))`` -> ``first(second(x))``; ``first`` changes height and width, ``second`` the channels."""
        (source,) = first.inputs
        height, width, _ = self.nodes[source].shape
        self._redirect(second.name, first.name)
        self.put(replace(second, inputs=(source,), shape=(height, width, second.shape[-1])))
        self.put(replace(first, inputs=(second.name,), shape=second.shape))

    def _redirect(self, old: str, new: str) -> None:
        for node in [n for n in self.nodes.values() if old in n.inputs]:
            self.put(replace(node, inputs=tuple(new if i == old else i for i in node.inputs)))
        if self.output == old:
            self.output = new

    def _sorted(self) -> list[Node]:
        """Return the nodes so that each comes after those that it reads, otherwise in their order."""
        done: dict[str, Node] = {}
        waiting = list(self.nodes.values())
        while waiting:
            done.update((n.name, n) for n in waiting if all(i in done for i in n.inputs))
            waiting = [n for n in waiting if n.name not in done]
        return list(done.values())
