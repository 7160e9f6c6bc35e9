"""A network as data that passes change: layers by name, each with its configuration, weights and what it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray
from tf_keras import layers

from edge_ran.errors import InputError
from edge_ran.host.drawing import connect

Array = NDArray[Any]
LINEAR = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


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
        """Read a functional or sequential model.

        Raises:
            InputError: it is not flat, not of one input of a known size and one output, or a layer would not be drawn
                again as it is.
        """
        if not getattr(model, "_is_graph_network", False) or len(model.inputs) != 1 or len(model.outputs) != 1:
            raise InputError(f"{model.name} is not a functional network of one image input and one output")
        if None in model.input_shape[1:]:
            raise InputError(
                f"{model.name} takes pictures of any size", "choose one: edge-ran import MODEL --input-size 224"
            )
        nodes: dict[str, Node] = {}
        # A sequential model's list of layers lacks its input.
        flat = tf_keras.Model(model.inputs, model.outputs) if isinstance(model, tf_keras.Sequential) else model
        for layer in flat.layers:
            if isinstance(layer, tf_keras.Model) or len(layer.inbound_nodes) != 1:
                raise InputError(
                    f"layer {layer.name} of {model.name} is a nested model or used twice",
                    "edge-ran import MODEL -o RUN",
                )
            # In float32 whatever it was trained in; a kernel's costly random start would be overwritten anyway.
            config = {**layer.get_config(), "dtype": "float32"}
            config |= {key: "zeros" for key in config if key in ("kernel_initializer", "depthwise_initializer")}
            sources = tuple(source.layer.name for source in layer.inbound_nodes[0].parent_nodes)
            shape = tuple(int(d) for d in layer.output.shape[1:])
            _refuse_what_changes(layer, config)
            nodes[layer.name] = Node(type(layer), config, tuple(layer.get_weights()), sources, shape)
        return cls(nodes, model.output.node.layer.name)

    def model(self, name: str, *, is_foreign: bool = False) -> tf_keras.Model:
        """Draw the graph as a functional model; a foreign one is checked for layers that do not fit."""
        tensors: dict[str, Any] = {}
        image: Any = None
        for node in self.in_order():
            layer = node.kind.from_config(node.config)
            if node.kind is layers.InputLayer:
                tensors[node.name] = image = layer.output
                continue
            inputs = [tensors[i] for i in node.inputs]
            given = inputs if len(inputs) > 1 else inputs[0]
            tensors[node.name] = layer(given) if is_foreign else connect(layer, given)
            layer.set_weights(node.weights)
        return tf_keras.Model(image, tensors[self.output], name=name)

    def each(self, *kinds: type[layers.Layer]) -> Iterator[Node]:
        """Yield every node of these kinds of layer, as it stands when its turn comes."""
        for name in list(self.nodes):
            node = self.nodes.get(name)
            if node is not None and node.kind in kinds:
                yield node

    def readers(self, node: Node) -> list[Node]:
        """Return the nodes that read ``node``'s output."""
        return [other for other in self.nodes.values() if node.name in other.inputs]

    def only_reader(self, node: Node, reader: Node) -> bool:
        """True when nothing but ``reader`` uses ``node``'s output."""
        return node.name != self.output and [r.name for r in self.readers(node)] == [reader.name]

    def fresh(self, name: str) -> str:
        """Return ``name``, or the first of ``name_2``, … that no node has."""
        taken, number = name, 1
        while taken in self.nodes:
            number += 1
            taken = f"{name}_{number}"
        return taken

    def put(self, node: Node) -> None:
        """Add a node, or put it in the place of the one of the same name."""
        self.nodes[node.name] = node

    def remove(self, node: Node) -> None:
        """Take out a node that nothing reads any more."""
        del self.nodes[node.name]

    def append(self, node: Node, after: Node) -> None:
        """Put ``after``, which reads ``node``, between it and its readers."""
        self.redirect(node.name, after.name)
        self.put(after)

    def bypass(self, node: Node) -> None:
        """Take out a node of one input; its readers read its input."""
        (source,) = node.inputs
        self.redirect(node.name, source)
        self.remove(node)

    def swap(self, first: Node, second: Node) -> None:
        """``second(first(x))`` -> ``first(second(x))``; ``first`` changes height and width, ``second`` the channels."""
        (source,) = first.inputs
        height, width, _ = self.nodes[source].shape
        self.redirect(second.name, first.name)
        self.put(replace(second, inputs=(source,), shape=(height, width, second.shape[-1])))
        self.put(replace(first, inputs=(second.name,), shape=second.shape))

    def redirect(self, old: str, new: str) -> None:
        """Let whatever reads ``old`` read ``new``."""
        for node in [n for n in self.nodes.values() if old in n.inputs]:
            self.put(replace(node, inputs=tuple(new if i == old else i for i in node.inputs)))
        if self.output == old:
            self.output = new

    def in_order(self) -> list[Node]:
        """Return the nodes so that each comes after those that it reads, otherwise in their order."""
        done: dict[str, Node] = {}
        waiting = list(self.nodes.values())
        while waiting:
            before = len(done)
            for node in waiting:
                if all(source in done for source in node.inputs):
                    done[node.name] = node
            if len(done) == before:
                raise InputError(f"layer {waiting[0].name} reads what is not there, or waits for itself")
            waiting = [n for n in waiting if n.name not in done]
        return list(done.values())


def _refuse_what_changes(layer: layers.Layer, config: dict[str, Any]) -> None:
    """Raise InputError for a layer whose call its configuration does not tell, or that passes take for another."""
    node = layer.inbound_nodes[0]
    kwargs = {key: value for key, value in node.call_kwargs.items() if value is not None}
    if kwargs.pop("training", False):
        raise InputError(
            f"layer {layer.name} is called with training=True", "call it without, and save the network again"
        )
    if kwargs or len(node.call_args) > 1 or type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
        what = f"layer {layer.name}, {type(layer).__name__}, is an operator with arguments, no plain layer"
        raise InputError(what, "make plain layers of those that are known: edge-ran import MODEL -o RUN")
    if config.get("data_format") == "channels_first":
        raise InputError(f"layer {layer.name} has its channels first", "build the network with channels last")
    axes = config.get("axis") if isinstance(layer, layers.BatchNormalization) else None
    if axes is not None and [axis % len(layer.output.shape) for axis in np.ravel(axes)] != [
        len(layer.output.shape) - 1
    ]:
        raise InputError(f"layer {layer.name} normalises axis {axes}, not the channels", "BatchNormalization(axis=-1)")


def is_pointwise(node: Node, strides: tuple[int, int] = (1, 1)) -> bool:
    """True for an ungrouped 1x1 convolution of these strides without an activation of its own."""
    wanted = {"kernel_size": (1, 1), "strides": strides, "groups": 1, "activation": "linear"}
    return node.kind is layers.Conv2D and all(node.config[key] == value for key, value in wanted.items())


def weighted(node: Node, kernel: Array, bias: Array | None, **changes: Any) -> Node:
    """Return a convolution or dense node with other weights."""
    weights = tuple(np.asarray(w, np.float32) for w in (kernel, bias) if w is not None)
    return replace(node, weights=weights, config={**node.config, "use_bias": bias is not None}, **changes)


def depthwise(
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
    return weighted(Node(layers.DepthwiseConv2D, layer.get_config(), (), inputs, shape), kernel, bias)
