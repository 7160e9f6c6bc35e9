"""Passes over layers that merge several tensors into one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tf_keras import layers

from edge_ran.host.rewrites.layer_graph import LayerGraph, Node


def merge_two_by_two(graph: LayerGraph) -> int:
    """A sum or product of three tensors or more becomes a chain of layers of two each.

    ``a + b + c = (a + b) + c``: Keras itself computes them in this order, so that no number changes. The operators of
    runtimes take two tensors. Within one layer the numbers between two of them are never rounded to int8: of a network
    that `quantize` trained, the converter would leave the whole layer in float32. As the outputs of layers they have
    ranges, like all others.
    """
    places = 0
    for node in graph.each(layers.Add, layers.Multiply):
        if len(node.inputs) < 3:
            continue
        before, *others = node.inputs
        shape = graph.nodes[before].shape
        for source in others[:-1]:
            shape = np.broadcast_shapes(shape, graph.nodes[source].shape)
            name = graph.fresh(f"{node.name}_part")
            graph.put(Node(node.kind, {**node.config, "name": name}, (), (before, source), shape))
            before = name
        graph.put(replace(node, inputs=(before, others[-1])))
        places += 1
    return places
