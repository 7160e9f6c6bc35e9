"""Passes over normalisations: after training each is a scale and a shift for every channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tf_keras import layers

from edge_ran.host.networks import SpatialNormalization
from edge_ran.host.rewrites.layer_graph import LINEAR, Array, LayerGraph, Node, depthwise, weighted


def fold_norms(graph: LayerGraph) -> int:
    """A BatchNormalization after a convolution or dense layer goes into its weights.

    ``s (x A + a) + t = x (A s) + (a s + t)`` with ``s = gamma / sqrt(variance + epsilon)``, ``t = beta - mean s``.
    """
    places = 0
    for norm in graph.each(layers.BatchNormalization):
        before = graph.nodes[norm.inputs[0]]
        if not _foldable(graph, before, norm):
            continue
        scale, shift = affine(norm)
        depthwise = before.kind is layers.DepthwiseConv2D  # (height, width, channels, multiplier)
        by_channel = scale.reshape(before.kernel.shape[2:]) if depthwise else scale
        bias = shift if before.bias is None else before.bias * scale + shift
        graph.put(weighted(before, before.kernel * by_channel.astype(np.float32), bias))
        graph.bypass(norm)
        places += 1
    return places


def fold_norms_forward(graph: LayerGraph) -> int:
    """A BatchNormalization of a vector goes into the dense layer that alone reads it.

    ``(s x + t) A + a = x (diag(s) A) + (t A + a)``.
    """
    places = 0
    for norm in graph.each(layers.BatchNormalization):
        readers = graph.readers(norm)
        if (
            len(norm.shape) != 1
            or len(readers) != 1
            or readers[0].kind is not layers.Dense
            or norm.name == graph.output
        ):
            continue
        (dense,) = readers
        scale, shift = affine(norm)
        kernel = dense.kernel.astype(np.float64)
        bias = shift @ kernel + (0.0 if dense.bias is None else dense.bias)
        graph.put(weighted(dense, scale[:, None] * kernel, bias, inputs=norm.inputs))
        graph.remove(norm)
        places += 1
    return places


def norms_to_depthwise(graph: LayerGraph) -> int:
    """A BatchNormalization that follows no convolution (the pre-activation) becomes a 1x1 depthwise convolution.

    ``s x + t`` for each channel is a 1x1 depthwise convolution of weight s and bias t, which runtimes fuse with the
    ReLU after it into one operator, and quantise with a scale for each channel. A vector is one position of a map.
    """
    places = 0
    for norm in graph.each(layers.BatchNormalization):
        scale, shift = affine(norm)
        if len(norm.shape) == 3:
            graph.put(depthwise(norm.name, scale[None, None, :, None], norm.inputs, norm.shape, bias=shift))
        elif len(norm.shape) == 1:
            shape = (1, 1, norm.shape[0])
            names = graph.fresh(f"{norm.name}_map"), graph.fresh(f"{norm.name}_scale")
            reshape, flatten = layers.Reshape(shape, name=names[0]), layers.Flatten(name=norm.name)
            graph.put(Node(layers.Reshape, reshape.get_config(), (), norm.inputs, shape))
            graph.put(depthwise(names[1], scale[None, None, :, None], names[:1], shape, bias=shift))
            graph.put(Node(layers.Flatten, flatten.get_config(), (), names[1:], norm.shape))
        else:
            continue
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


def _foldable(graph: LayerGraph, before: Node, norm: Node) -> bool:
    """True when ``norm`` can go into ``before``, a convolution that nothing else reads."""
    return before.kind in LINEAR and before.config["activation"] == "linear" and graph.only_reader(before, norm)


def affine(norm: Node) -> tuple[Array, Array]:
    """Scale and shift for each channel, float64, that a BatchNormalization applies at inference."""
    *learnt, mean, variance = (w.astype(np.float64) for w in norm.weights)
    gamma = learnt.pop(0) if norm.config["scale"] else 1.0
    beta = learnt.pop(0) if norm.config["center"] else 0.0
    scale = gamma / np.sqrt(variance + norm.config["epsilon"])
    return scale, beta - mean * scale
