"""Passes over what changes height and width: upsampling, padding, pooling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tf_keras import layers

from edge_ran.host.rewrites.layer_graph import LayerGraph, Node, depthwise, is_pointwise

# Layers whose output at a position depends on that position alone, or (normalisation over all positions) only on how
# often each value occurs, which repeating every position equally leaves as it is. A sigmoid stays where it is: its int8
# output has a fixed scale, and what is made of copies of it another one, so that a QUANTIZE would come between.
_POSITIONWISE = (layers.BatchNormalization, layers.ReLU, layers.UnitNormalization, layers.GroupNormalization)
_FUSED = (layers.BatchNormalization, layers.ReLU)


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
            if is_pointwise(after) or after.kind in _POSITIONWISE:
                return up, after
        # A BatchNormalization or ReLU after the convolution would lose the operator that it is fused with.
        elif is_pointwise(after) and not any(r.kind in _FUSED for r in graph.readers(after)):
            return up, after
    return None


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


def part_padding_from_pooling(graph: LayerGraph) -> int:
    """Between zero padding and max-pooling of numbers that may be negative comes a 1x1 depthwise convolution of ones.

    LiteRT's GPU delegate merges the two into a pooling whose padding is minus infinity, not 0, silently: a border of
    negative numbers keeps them, where 0 is the largest. ``1 x`` changes no number, and is exact in int8.
    """
    places = 0
    for pad in graph.each(layers.ZeroPadding2D):
        for pool in graph.readers(pad):
            if pool.kind is not layers.MaxPooling2D or _not_negative(graph, pad):
                continue
            same = depthwise(
                graph.fresh(f"{pool.name}_padded"), np.ones((1, 1, pad.shape[2], 1)), (pad.name,), pad.shape
            )
            graph.put(same)
            graph.put(replace(pool, inputs=(same.name,)))
            places += 1
    return places


def _not_negative(graph: LayerGraph, node: Node) -> bool:
    """True where a tensor surely holds no negative number."""
    if node.kind is layers.ReLU:
        return not node.config.get("negative_slope")
    if node.kind is layers.Activation:
        return node.config["activation"] in ("sigmoid", "softmax", "relu")
    if node.kind in (
        layers.ZeroPadding2D,
        layers.MaxPooling2D,
        layers.AveragePooling2D,
        layers.Concatenate,
        layers.Add,
    ):
        return all(_not_negative(graph, graph.nodes[source]) for source in node.inputs)
    return False
