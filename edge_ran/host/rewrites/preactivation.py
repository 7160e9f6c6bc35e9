"""Passes that take away the operator of a pre-activation: what is left of BatchNormalization and ReLU is a ReLU.

As a 1x1 depthwise convolution (``norms_to_depthwise``) it costs int8 much: XNNPACK's smallest int8 kernel has room for
nine products of a channel, of which one is used. A ReLU of its own is a copy, one beside a convolution is free.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from tf_keras import layers

from edge_ran.host.rewrites.layer_graph import LINEAR, Array, LayerGraph, Node, weighted
from edge_ran.host.rewrites.normalisation import affine

# A sum's range in int8, with the shift against without it; each doubling costs a bit of every channel.
_MOST_WIDENING = 1.25
_DEVIATIONS = 4.0  # that a channel's numbers lie from their mean, about

# ``s f(x) = f(s x)`` for s > 0, channel by channel; the first two have ``f(x + c) = f(x) + c`` as well.
_SHIFTED = (layers.MaxPooling2D, layers.UpSampling2D)
_SCALED = (*_SHIFTED, layers.AveragePooling2D, layers.GlobalAveragePooling2D)


def norms_between_relus(graph: LayerGraph) -> int:
    """A BatchNormalization between two ReLUs, the first after a convolution, goes into what is around them.

    For s >= 0: ``relu(s relu(z) + t) = relu(s z + min(t, 0)) + max(t, 0)``. s and the negative shifts go into the
    convolution that makes z, the positive ones into the biases of those that read the result. Max-pooling may lie
    between, as it keeps the order of numbers: the networks' first unit.
    """
    places = 0
    for norm in graph.each(layers.BatchNormalization):
        first, convolution = _relu_before(graph, norm)
        after = _relu_after(graph, norm)
        if first is None or convolution is None or after is None:
            continue
        scale, shift = affine(norm)
        change = _Change(graph)
        if (scale < 0).any() or not change.take_off([after.name], -np.maximum(shift, 0)):
            continue
        bias = np.minimum(shift, 0) + (0.0 if convolution.bias is None else convolution.bias * scale)
        depthwise = convolution.kind is layers.DepthwiseConv2D
        by_channel = scale.reshape(convolution.kernel.shape[2:]) if depthwise else scale
        change.put(weighted(convolution, convolution.kernel * by_channel, bias))
        change.commit()
        graph.bypass(graph.nodes[after.name])
        graph.bypass(graph.nodes[norm.name])
        places += 1
    return places


def _relu_before(graph: LayerGraph, norm: Node) -> tuple[Node | None, Node | None]:
    """The ReLU, and the convolution it follows, whose numbers only ``norm`` reads, at most through max-pooling."""
    reader, node = norm, graph.nodes[norm.inputs[0]]
    while node.kind is layers.MaxPooling2D and graph.only_reader(node, reader):
        reader, node = node, graph.nodes[node.inputs[0]]
    if not (_is_relu(node) and graph.only_reader(node, reader)):
        return None, None
    convolution = graph.nodes[node.inputs[0]]
    linear = convolution.kind in LINEAR and convolution.config["activation"] == "linear"
    return (node, convolution) if linear and graph.only_reader(convolution, node) else (None, None)


def _relu_after(graph: LayerGraph, norm: Node) -> Node | None:
    """The ReLU that alone reads ``norm``."""
    readers = graph.readers(norm)
    alone = len(readers) == 1 and _is_relu(readers[0]) and norm.name != graph.output
    return readers[0] if alone and readers[0].name != graph.output else None


def _is_relu(node: Node) -> bool:
    config = node.config
    return node.kind is layers.ReLU and not (config["negative_slope"] or config["threshold"] or config["max_value"])


def carry_shifts(graph: LayerGraph) -> int:
    """A BatchNormalization and a ReLU after an addition become a ReLU alone; the sum carries the shift.

    For s > 0: ``relu(s x + t) = s relu(x + t / s)``. s goes into the kernels of the convolutions that read the ReLU.
    t / s goes into the bias of the convolution whose output is added last, and what else reads the sum takes it off
    again: the next unit in the bias of its own last convolution. It passes max-pooling and upsampling, whose weights
    sum to 1. A unit stays as it is where a scale is not positive, where the sum is multiplied (the trunk before its
    mask), where another unit reads the same sum (the larger one goes first), and where the shift would make the sum's
    range in int8 much wider.
    """
    places = 0
    norms = [norm for norm in graph.each(layers.BatchNormalization) if len(norm.shape) == 3]
    for name in [norm.name for norm in sorted(norms, key=lambda norm: -np.prod(norm.shape))]:
        norm = graph.nodes[name]  # as the shifts before have left it
        relu = _relu_after(graph, norm)
        scale, shift = affine(norm)
        if relu is None or not (scale > 0).all() or _widening(norm) > _MOST_WIDENING:
            continue
        change = _Change(graph)
        if change.add_to_input(norm, shift / scale) and change.scale_readers(relu, scale):
            change.commit()
            graph.bypass(graph.nodes[name])
            places += 1
    return places


def _widening(norm: Node) -> float:
    """How much wider the shift t / s makes the range of the tensor that ``norm`` normalises, by its statistics."""
    *_, mean, variance = (w.astype(np.float64) for w in norm.weights)
    scale, shift = affine(norm)
    spread = _DEVIATIONS * np.sqrt(variance)
    before, after = (np.max(np.abs(centre) + spread) for centre in (mean, mean + shift / scale))
    return float(after / max(before, np.finfo(np.float64).tiny))


class _Change:
    """New nodes of a graph that all become part of it, or none."""

    def __init__(self, graph: LayerGraph) -> None:
        self.graph = graph
        self.nodes: dict[str, Node] = {}

    def put(self, node: Node) -> None:
        self.nodes[node.name] = node

    def commit(self) -> None:
        for node in self.nodes.values():
            self.graph.put(node)

    def add_to_input(self, norm: Node, shift: Array) -> bool:
        """Add ``shift`` to what ``norm`` reads, and to its result, but to nothing else. False: it cannot be done."""
        graph, path = self.graph, [norm.inputs[0]]
        while (node := graph.nodes[path[-1]]).kind is not layers.Conv2D:
            if node.kind not in (*_SHIFTED, layers.Add):
                return False
            sources = [graph.nodes[name] for name in node.inputs]
            # Of an addition the convolution that it alone reads, else what may come of one.
            free = [one for one in sources if self._is_addend(one, node)]
            others = [one for one in sources if one.kind in (*_SHIFTED, layers.Add)]
            path.append((free + others + sources)[0].name)
        self._add_bias(node.name, shift)
        return self.take_off(path, shift, but=norm.name)

    def take_off(self, raised: Iterable[str], shift: Array, but: str = "") -> bool:
        """Let everything that reads the tensors ``raised``, by ``shift``, give what it gave, except the node ``but``.

        False: it cannot be done.
        """
        if not shift.any():
            return True
        graph, raised = self.graph, list(raised)
        sums = []
        for name in raised:  # which grows
            readers = [reader for reader in graph.readers(graph.nodes[name]) if reader.name != but]
            sums += [reader for reader in readers if reader.kind is layers.Add]
            for reader in readers:
                if reader.name in raised or self._takes_off(reader, name, shift):
                    continue
                if not (reader.kind in (*_SHIFTED, layers.Add) or _chooses(reader)):
                    return False
                raised.append(reader.name)
        once = all(sum(source in raised for source in node.inputs) == 1 for node in sums)
        return once and graph.output not in raised

    def _takes_off(self, reader: Node, name: str, shift: Array) -> bool:
        """Let ``reader`` take ``shift`` off the tensor ``name``; False where it passes it on, or cannot."""
        node = self._node(reader.name)
        if node.kind is layers.BatchNormalization:
            *learnt, mean, variance = node.weights
            self.put(replace(node, weights=(*learnt, (mean + shift).astype(np.float32), variance)))
        elif node.kind is layers.Conv2D and (node.config["padding"] == "valid" or node.kernel.shape[:2] == (1, 1)):
            self._add_bias(node.name, -(node.kernel * _by_input(node, shift)).sum((0, 1, 2)))
        elif node.kind is layers.Add:
            others = [self.graph.nodes[source] for source in node.inputs if source != name]
            addends = [other for other in others if self._is_addend(other, node)]
            if not addends:
                return False
            self._add_bias(addends[0].name, -shift)
        else:
            return False
        return True

    def scale_readers(self, source: Node, scale: Array) -> bool:
        """Multiply what is read of ``source`` by ``scale``, in the kernels that read it. False: it cannot be done."""
        readers = self.graph.readers(source)
        if not readers or source.name == self.graph.output:
            return False
        for reader in readers:
            node = self._node(reader.name)
            if node.kind is layers.Conv2D:
                kernel = node.kernel * _by_input(node, scale)
            elif node.kind in (layers.Dense, layers.DepthwiseConv2D) and not _chooses(node):
                kernel = node.kernel * scale[:, None]
            elif (node.kind in _SCALED or _chooses(node)) and self.scale_readers(reader, scale):
                continue
            else:
                return False
            self.put(weighted(node, kernel, node.bias))
        return True

    def _node(self, name: str) -> Node:
        return self.nodes.get(name, self.graph.nodes[name])

    def _is_addend(self, node: Node, addition: Node) -> bool:
        """True for a convolution that only ``addition`` reads."""
        linear = node.kind is layers.Conv2D and node.config["activation"] == "linear"
        return linear and self.graph.only_reader(node, addition)

    def _add_bias(self, name: str, shift: Array) -> None:
        node = self._node(name)
        self.put(weighted(node, node.kernel, shift + (0.0 if node.bias is None else node.bias)))


def _by_input(node: Node, values: Array) -> Array:
    """Values for each input channel of a convolution, (inputs / groups, outputs) as its kernel has them."""
    groups, outputs = node.config["groups"], node.kernel.shape[3]
    return np.repeat(values.reshape(groups, -1), outputs // groups, axis=0).T


def _chooses(node: Node) -> bool:
    """True for a depthwise convolution that gives some positions as they are (``stride_before_pointwise``)."""
    if node.kind is not layers.DepthwiseConv2D or node.bias is not None or node.kernel.shape[3] != 1:
        return False
    strides, size = tuple(node.config["strides"]), node.kernel.shape[:2]
    return size == strides and bool((node.kernel[0, 0] == 1).all() and np.count_nonzero(node.kernel) == node.shape[2])
