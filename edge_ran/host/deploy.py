"""Exact rewrites of a trained graph into an equal one that quantises, converts and runs better.

Each pass is one function with its equation; ``rewrite`` runs them in order and measures, on a random image, how far the
outputs moved (float32 rounding only: under 1e-4 of the largest logit). Two readings of the same graph:

* ``for_training=False``: nothing is left of BatchNormalization; what ``convert`` wants.
* ``for_training=True``: BatchNormalization stays trainable, each one behind a convolution, the only form that
  tensorflow-model-optimization folds; what quantisation-aware training wants.

The result is again one flat functional graph; layers keep their names, and new ones are named after their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray
from tf_keras import layers

from edge_ran.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class PassReport:
    """What one pass did: ``places`` it changed, and the largest relative difference of the logits that it caused."""

    name: str
    places: int
    difference: float


@dataclass(frozen=True)
class Rewritten:
    """The rewritten model and the passes that changed something, in the order they ran."""

    model: tf_keras.Model
    passes: tuple[PassReport, ...]

    @property
    def largest_difference(self) -> float:
        """Largest relative difference of the logits that any pass caused (0 when nothing was changed)."""
        return max((p.difference for p in self.passes), default=0.0)


def rewrite(model: tf_keras.Model, *, for_training: bool = False) -> Rewritten:
    """Rewrite a network into an equal one that deploys better; ``model`` itself is left as it is.

    Args:
        model: flat functional graph, one image input (H, W, 3), one output.
        for_training: keep BatchNormalization trainable, in the form that quantisation-aware training folds.

    Raises:
        InputError: the model is not a flat functional graph of one input and one output.
    """
    graph = Graph.of(model)
    image = np.random.default_rng(0).uniform(-1, 1, (1, *model.input_shape[1:])).astype(np.float32)
    reference = graph.logits(image)
    reports = []
    for name, change in TRAINING_PASSES if for_training else INFERENCE_PASSES:
        places = change(graph)
        if places:
            now = graph.logits(image)
            scale = max(float(np.abs(reference).max()), np.finfo(np.float32).tiny)
            reports.append(PassReport(name, places, float(np.abs(now - reference).max()) / scale))
            reference = now
    return Rewritten(graph.model(model.name), tuple(reports))


# ------------------------------------------------------------------------------------------------ the passes


def merge_pointwise(graph: Graph) -> int:
    """Two 1x1 convolutions with nothing between them are one (the mask's linear tail).

    ``(x A + a) B + b = x (A B) + (a B + b)``, done where it costs no more multiply-adds than before.
    """
    places = 0
    for second in graph.each(layers.Conv2D):
        first = graph.nodes[second.inputs[0]]
        if not (_is_pointwise(first.layer) and _is_pointwise(second.layer) and graph.only_reader(first, second)):
            continue
        (a, a_bias), (b, bias) = _weights(first.layer), _weights(second.layer)
        kernel = a[0, 0] @ b[0, 0]
        if kernel.size > a.size + b.size:
            continue
        if a_bias is not None:
            bias = a_bias @ b[0, 0] + (0.0 if bias is None else bias)
        graph.replace(second, _with_weights(second.layer, kernel[None, None], bias), first.inputs)
        graph.remove(first)
        places += 1
    return places


def commute_upsampling(graph: Graph) -> int:
    """What works on each position alone goes before an upsampling, on a quarter of the positions.

    Bilinear: ``up(x) A + a = up(x A + a)``, as the interpolation's weights sum to 1. Nearest neighbour only repeats
    positions, so that normalisations and activations commute as well: ``f(up(x)) = up(f(x))``.
    """
    places = 0
    while swap := _next_swap(graph):
        graph.swap(*swap)
        places += 1
    return places


def _next_swap(graph: Graph) -> tuple[Node, Node] | None:
    for up in graph.each(layers.UpSampling2D):
        if len(readers := graph.readers(up)) != 1:
            continue
        (after,) = readers
        if up.layer.interpolation == "nearest":
            if _is_pointwise(after.layer) or isinstance(after.layer, _POSITIONWISE):
                return up, after
        # A BatchNormalization or ReLU after the convolution would lose the operator that it is fused with.
        elif _is_pointwise(after.layer) and not any(isinstance(r.layer, _FUSED) for r in graph.readers(after)):
            return up, after
    return None


def stride_before_pointwise(graph: Graph) -> int:
    """A 1x1 convolution of stride 2 becomes a choice of every second position, then a 1x1 convolution of stride 1.

    ``y[i, j] = x[2i, 2j] A + a``. The choice is a 2x2 depthwise convolution of stride 2 whose kernel is 1 in its first
    corner and 0 elsewhere. LiteRT's GPU delegate miscomputes the quantised 1x1 convolution of stride 2, silently.
    """
    places = 0
    for node in graph.each(layers.Conv2D):
        if not _is_pointwise(node.layer, strides=(2, 2)):
            continue
        kernel = np.zeros((2, 2, graph.nodes[node.inputs[0]].shape[-1], 1))
        kernel[0, 0] = 1
        choice = _depthwise(f"{node.name}_stride", kernel, None, stride=2)
        choice.trainable = False
        graph.insert(choice, node.inputs)
        graph.replace(node, _with_weights(node.layer, *_weights(node.layer), strides=(1, 1)), (choice.name,))
        places += 1
    return places


def fold_norms(graph: Graph) -> int:
    """A BatchNormalization after a convolution or dense layer goes into its weights.

    ``s (x A + a) + t = x (A s) + (a s + t)`` with ``s = gamma / sqrt(variance + epsilon)``, ``t = beta - mean s``.
    """
    places = 0
    for norm in graph.each(layers.BatchNormalization):
        before = graph.nodes[norm.inputs[0]]
        if not _foldable(graph, before, norm):
            continue
        scale, shift = _affine(norm.layer)
        kernel, bias = _weights(before.layer)
        by_channel = scale[:, None] if isinstance(before.layer, layers.DepthwiseConv2D) else scale
        bias = shift if bias is None else bias * scale + shift
        graph.replace(before, _with_weights(before.layer, kernel * by_channel, bias), before.inputs)
        graph.bypass(norm)
        places += 1
    return places


def norms_to_depthwise(graph: Graph) -> int:
    """A BatchNormalization that follows no convolution (the pre-activation) becomes a 1x1 depthwise convolution.

    ``s x + t`` for each channel is a 1x1 depthwise convolution of weight s and bias t, which runtimes fuse with the
    ReLU after it into one operator, and quantise with a scale for each channel.
    """
    places = 0
    for norm in graph.each(layers.BatchNormalization):
        scale, shift = _affine(norm.layer)
        graph.replace(norm, _depthwise(norm.name, scale[None, None, :, None], shift), norm.inputs)
        places += 1
    return places


def lead_norms_with_ones(graph: Graph) -> int:
    """A BatchNormalization that follows no convolution gets a 1x1 depthwise convolution of ones before it.

    ``bn(x) = bn(1 x)``: the pattern convolution - BatchNormalization - ReLU is the one that quantisation-aware training
    folds. The ones are not trainable; folded, each channel's weight is gamma / sqrt(variance + epsilon).
    """
    places = 0
    for norm in graph.each(layers.BatchNormalization):
        before = graph.nodes[norm.inputs[0]]
        if _foldable(graph, before, norm):
            continue
        ones = _depthwise(f"{norm.name}_ones", np.ones((1, 1, before.shape[-1], 1)), None)
        ones.trainable = False
        graph.insert(ones, norm.inputs)
        graph.replace(norm, norm.layer, (ones.name,))
        places += 1
    return places


def _foldable(graph: Graph, before: Node, norm: Node) -> bool:
    linear = isinstance(before.layer, (layers.Conv2D, layers.Dense)) and _activation(before.layer) == "linear"
    return linear and graph.only_reader(before, norm)


Pass = tuple[str, Callable[["Graph"], int]]

_SHARED: tuple[Pass, ...] = (
    ("merge pointwise convolutions", merge_pointwise),
    ("commute upsampling", commute_upsampling),
    ("stride before pointwise convolution", stride_before_pointwise),
)
INFERENCE_PASSES: tuple[Pass, ...] = (
    *_SHARED,
    ("fold normalisation into convolution", fold_norms),
    ("normalisation as depthwise convolution", norms_to_depthwise),
)
TRAINING_PASSES: tuple[Pass, ...] = (*_SHARED, ("ones before normalisation", lead_norms_with_ones))

# Layers whose output at a position depends on that position alone, or (normalisation over all positions) only on how
# often each value occurs, which repeating every position equally leaves as it is.
_POSITIONWISE = (
    layers.BatchNormalization,
    layers.ReLU,
    layers.Activation,
    layers.UnitNormalization,
    layers.GroupNormalization,
)
_FUSED = (layers.BatchNormalization, layers.ReLU)


# ---------------------------------------------------------------------------------------- the graph being changed


@dataclass(frozen=True)
class Node:
    """One layer, the names of the nodes it reads, and its output's (height, width, channels) or (features,)."""

    layer: layers.Layer
    inputs: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.layer.name


class Graph:
    """A network as an ordered dictionary of nodes; passes change it in place, and the layers are its own copies."""

    def __init__(self, nodes: dict[str, Node], output: str) -> None:
        self.nodes = nodes
        self.output = output

    @classmethod
    def of(cls, model: tf_keras.Model) -> Graph:
        """Copy a functional model's layers and weights, in float32 whatever it was trained in."""
        if not getattr(model, "_is_graph_network", False) or len(model.inputs) != 1 or len(model.outputs) != 1:
            raise InputError(f"{model.name} is not a functional network of one image input and one output")
        nodes: dict[str, Node] = {}
        for layer in model.layers:
            if isinstance(layer, tf_keras.Model) or len(layer.inbound_nodes) != 1:
                raise InputError(f"layer {layer.name} of {model.name} is a nested model or used twice")
            sources = layer.inbound_nodes[0].parent_nodes
            shape = tuple(int(d) for d in layer.output.shape[1:])
            nodes[layer.name] = Node(_copy(layer), tuple(s.layer.name for s in sources), shape)
        return cls(nodes, model.output.node.layer.name)

    def model(self, name: str) -> tf_keras.Model:
        """Draw the graph as a functional model; afterwards this Graph is used up."""
        tensors: dict[str, Any] = {}
        for node in self._sorted():
            if isinstance(node.layer, layers.InputLayer):
                tensors[node.name] = node.layer.output
            else:
                inputs = [tensors[i] for i in node.inputs]
                tensors[node.name] = node.layer(inputs if len(inputs) > 1 else inputs[0])
        image = next(t for n, t in tensors.items() if isinstance(self.nodes[n].layer, layers.InputLayer))
        return tf_keras.Model(image, tensors[self.output], name=name)

    def logits(self, image: Array) -> Array:
        """(1, H, W, 3) -> the graph's output before a final softmax, which would hide differences."""
        last = self.nodes[self.output]
        hiding = isinstance(last.layer, layers.Activation) and _activation(last.layer) == "softmax"
        values: dict[str, Any] = {}
        for node in self._sorted():
            inputs = [values[i] for i in node.inputs]
            is_input = isinstance(node.layer, layers.InputLayer)
            values[node.name] = image if is_input else node.layer(inputs if len(inputs) > 1 else inputs[0])
        return np.asarray(values[last.inputs[0] if hiding else self.output])

    def each(self, kind: type[layers.Layer]) -> Iterator[Node]:
        """Yield every node of a kind of layer, as it stands when its turn comes."""
        for name in list(self.nodes):
            node = self.nodes.get(name)
            if node is not None and isinstance(node.layer, kind):
                yield node

    def readers(self, node: Node) -> list[Node]:
        return [other for other in self.nodes.values() if node.name in other.inputs]

    def only_reader(self, node: Node, reader: Node) -> bool:
        """True when nothing but ``reader`` uses ``node``'s output."""
        return node.name != self.output and [r.name for r in self.readers(node)] == [reader.name]

    def replace(self, node: Node, layer: layers.Layer, inputs: tuple[str, ...]) -> None:
        """Put ``layer``, of the same name and output shape, in ``node``'s place."""
        self.nodes[node.name] = Node(layer, inputs, node.shape)

    def insert(self, layer: layers.Layer, inputs: tuple[str, ...]) -> None:
        """Add a layer of one input; the caller makes another node read it."""
        shape = layer.compute_output_shape((None, *self.nodes[inputs[0]].shape))
        self.nodes[layer.name] = Node(layer, inputs, tuple(shape)[1:])

    def remove(self, node: Node) -> None:
        del self.nodes[node.name]

    def bypass(self, node: Node) -> None:
        """Take a node of one input out; its readers read its input."""
        (source,) = node.inputs
        self._redirect(node.name, source)
        self.remove(node)

    def swap(self, first: Node, second: Node) -> None:
        """``second(first(x))`` -> ``first(second(x))``; ``first`` changes height and width, ``second`` the channels."""
        (source,) = first.inputs
        height, width, _ = self.nodes[source].shape
        self._redirect(second.name, first.name)
        self.nodes[second.name] = Node(second.layer, (source,), (height, width, second.shape[-1]))
        self.nodes[first.name] = Node(first.layer, (second.name,), second.shape)

    def _redirect(self, old: str, new: str) -> None:
        for name, node in self.nodes.items():
            if old in node.inputs:
                inputs = tuple(new if i == old else i for i in node.inputs)
                self.nodes[name] = Node(node.layer, inputs, node.shape)
        if self.output == old:
            self.output = new

    def _sorted(self) -> list[Node]:
        done: dict[str, Node] = {}
        waiting = list(self.nodes.values())
        while waiting:
            ready = [n for n in waiting if all(i in done for i in n.inputs)]
            done.update((n.name, n) for n in ready)
            waiting = [n for n in waiting if n.name not in done]
        return list(done.values())


def _copy(layer: layers.Layer) -> layers.Layer:
    """Copy a layer with its weights, in float32."""
    if isinstance(layer, layers.InputLayer):
        return layers.InputLayer(tuple(layer.input_shape[0][1:]), name=layer.name)
    copied = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
    copied.build(layer.input_shape)
    copied.set_weights(layer.get_weights())
    return copied


def _with_weights(layer: layers.Layer, kernel: Array, bias: Array | None, **changes: Any) -> layers.Layer:
    """Copy a convolution or dense layer with other weights and ``changes`` to its configuration."""
    copied = type(layer).from_config({**layer.get_config(), **changes, "use_bias": bias is not None})
    inputs = kernel.shape[-2] * (layer.groups if isinstance(layer, layers.Conv2D) else 1)
    copied.build((None,) * (kernel.ndim - 1) + (inputs,))
    copied.set_weights([w.astype(np.float32) for w in (kernel, bias) if w is not None])
    return copied


def _depthwise(name: str, kernel: Array, bias: Array | None, stride: int = 1) -> layers.DepthwiseConv2D:
    """Depthwise convolution of a (height, width, channels, 1) kernel."""
    layer = layers.DepthwiseConv2D(kernel.shape[:2], stride, padding="same", name=name, dtype="float32")
    return _with_weights(layer, kernel, bias)


def _is_pointwise(layer: layers.Layer, strides: tuple[int, int] = (1, 1)) -> bool:
    """True for an ungrouped 1x1 convolution of these strides without an activation of its own."""
    return (
        isinstance(layer, layers.Conv2D)
        and not isinstance(layer, layers.DepthwiseConv2D)
        and layer.kernel_size == (1, 1)
        and layer.strides == strides
        and layer.groups == 1
        and _activation(layer) == "linear"
    )


def _activation(layer: layers.Layer) -> str:
    return tf_keras.activations.serialize(layer.activation)


def _weights(layer: layers.Layer) -> tuple[Array, Array | None]:
    """Kernel and bias in float64, so that a product of both rounds once."""
    kernel, *bias = (w.astype(np.float64) for w in layer.get_weights())
    return kernel, bias[0] if bias else None


def _affine(norm: layers.BatchNormalization) -> tuple[Array, Array]:
    """Scale and shift for each channel that a BatchNormalization applies at inference."""
    mean = norm.moving_mean.numpy().astype(np.float64)
    deviation = np.sqrt(norm.moving_variance.numpy().astype(np.float64) + norm.epsilon)
    scale = (norm.gamma.numpy() if norm.scale else 1.0) / deviation
    return scale, (norm.beta.numpy() if norm.center else 0.0) - mean * scale
