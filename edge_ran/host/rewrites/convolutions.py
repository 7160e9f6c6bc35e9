"""Passes over convolutions and what stands beside them: activations, padding, strides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tf_keras import layers

from edge_ran.host.rewrites.layer_graph import LINEAR, Array, LayerGraph, Node, depthwise, is_pointwise, weighted


def separate_activations(graph: LayerGraph) -> int:
    """An activation inside a layer becomes a layer of its own: ``f(x A + a)`` in two steps; a ReLU is a ReLU layer."""
    places = 0
    for node in graph.each(*LINEAR, layers.Conv2DTranspose, layers.Activation):
        activation = node.config["activation"]
        alone = node.kind is layers.Activation
        if activation == "linear" or (alone and activation != "relu"):
            continue
        if alone:
            graph.put(replace(node, kind=layers.ReLU, config=layers.ReLU(name=node.name).get_config()))
        else:
            graph.put(replace(node, config={**node.config, "activation": "linear"}))
            graph.append(node, _activation(graph.fresh(f"{node.name}_{activation}"), activation, node))
        places += 1
    return places


def _activation(name: str, activation: str, source: Node) -> Node:
    """Return an activation's node behind ``source``."""
    relu = activation == "relu"
    layer = layers.ReLU(name=name) if relu else layers.Activation(activation, name=name)
    return Node(type(layer), {**layer.get_config(), "dtype": "float32"}, (), (source.name,), source.shape)


def pad_in_convolution(graph: LayerGraph) -> int:
    """Zeros around a picture go into the convolution that reads them, where "same" padding puts just those.

    Of an output of n positions, stride s and a kernel of k, "same" pads ``(n - 1) s + k - height`` rows, the smaller
    half before. A padded tensor is one more operator that splits XNNPACK's graph and that int8 stores twice.
    """
    places = 0
    for pad in graph.each(layers.ZeroPadding2D):
        if pad.name == graph.output:
            continue
        before = graph.nodes[pad.inputs[0]]
        readers = graph.readers(pad)
        if not readers or not all(_pads_the_same(pad, before, reader) for reader in readers):
            continue
        for reader in readers:
            graph.put(replace(reader, config={**reader.config, "padding": "same"}, inputs=pad.inputs))
        graph.remove(pad)
        places += 1
    return places


def _pads_the_same(pad: Node, before: Node, reader: Node) -> bool:
    """True for a convolution without padding whose "same" padding is what ``pad`` adds."""
    if reader.kind not in (layers.Conv2D, layers.DepthwiseConv2D) or reader.config["padding"] != "valid":
        return False
    for side, ends in enumerate(pad.config["padding"]):
        size, stride = before.shape[side], reader.config["strides"][side]
        kernel = (reader.config["kernel_size"][side] - 1) * reader.config["dilation_rate"][side] + 1
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + kernel - size, 0)
        if tuple(ends) != (total // 2, total - total // 2) or reader.shape[side] != outputs:
            return False
    return True


def merge_pointwise(graph: LayerGraph) -> int:
    """Two 1x1 convolutions with nothing between them are one (the mask's linear tail).

    ``(x A + a) B + b = x (A B) + (a B + b)``, done where it costs no more multiply-adds than before.
    """
    places = 0
    for second in graph.each(layers.Conv2D):
        first = graph.nodes[second.inputs[0]]
        if not (is_pointwise(first) and is_pointwise(second) and graph.only_reader(first, second)):
            continue
        a, b = (node.kernel[0, 0].astype(np.float64) for node in (first, second))
        if a.shape[0] * b.shape[1] > a.size + b.size:
            continue
        bias = second.bias
        if first.bias is not None:
            bias = first.bias @ b + (0.0 if bias is None else bias)
        graph.put(weighted(second, (a @ b)[None, None], bias, inputs=first.inputs))
        graph.remove(first)
        places += 1
    return places


def stride_before_pointwise(graph: LayerGraph) -> int:
    """A 1x1 convolution of stride 2 becomes a choice of every second position, then a 1x1 convolution of stride 1.

    ``y[i, j] = x[2i, 2j] A + a``. The choice is a 2x2 depthwise convolution of stride 2 whose kernel is 1 in its first
    corner and 0 elsewhere: exact in int8, one XNNPACK operator, no slower than the strided convolution (a 1x1 pooling
    or a strided slice leaves XNNPACK, a 2x2 convolution costs four times the multiply-adds). LiteRT's GPU delegate
    miscomputes the quantised 1x1 convolution of stride 2, silently.
    """
    places = 0
    for node in graph.each(layers.Conv2D):
        if not is_pointwise(node, strides=(2, 2)):
            continue
        kernel = np.zeros((2, 2, graph.nodes[node.inputs[0]].shape[-1], 1))
        kernel[0, 0] = 1
        height, width, _ = node.shape
        choice = depthwise(f"{node.name}_stride", kernel, node.inputs, (height, width, kernel.shape[2]), stride=2)
        graph.put(choice)
        graph.put(replace(node, config={**node.config, "strides": (1, 1)}, inputs=(choice.name,)))
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


def _column(node: Node, column: int, inputs: tuple[str, ...], width: int, bias: Array | None) -> Node:
    """Return a convolution's part that one column of its kernel makes, of ``width`` positions a row."""
    kernel = node.kernel[:, column : column + 1]
    config = {**node.config, "name": f"{node.name}_column{column}", "kernel_size": kernel.shape[:2]}
    part = replace(node, config=config, inputs=inputs, shape=(node.shape[0], width, node.shape[-1]))
    return weighted(part, kernel, bias)
