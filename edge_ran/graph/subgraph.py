"""A few operators of a ``.tflite`` as a model of their own, to run them apart from the rest."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import tflite

from edge_ran.graph.structure import Graph, Operator, TensorSpec

# Field numbers of the schema.
_SUBGRAPH_INPUTS, _SUBGRAPH_OUTPUTS, _SUBGRAPH_OPERATORS = 1, 2, 3
_MODEL_SIGNATURES = 7


def computing(graph: Graph) -> list[Operator]:
    """The operators whose result depends on the input, in order; unpacking of stored weights is left out."""
    unpacking = _unpacking(graph)
    return [op for op in graph.operators if op.index not in unpacking]


def borders(graph: Graph, operators: Iterable[Operator]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """What those operators read from others or from the model's input, and what they give to others or the output."""
    chosen, unpacking = {op.index for op in operators}, _unpacking(graph)
    unpacked = {t.index for op in graph.operators if op.index in unpacking for t in op.outputs}
    inside = [op for op in graph.operators if op.index in chosen]
    made = {t.index: t for op in inside for t in op.outputs}
    read = {t.index: t for op in inside for t in op.inputs if not t.constant and t.index not in unpacked}
    wanted = {t.index for op in graph.operators if op.index not in chosen for t in op.inputs}
    wanted |= {t.index for t in graph.outputs}
    return (
        tuple(t for index, t in read.items() if index not in made),
        tuple(t for index, t in made.items() if index in wanted),
    )


def cut(
    model: bytes, graph: Graph, operators: Iterable[Operator], outputs: tuple[TensorSpec, ...] | None = None
) -> bytes:
    """Return the file with only those operators (and the unpacking of their weights); ``borders`` are its ends.

    Args:
        model: the file's bytes.
        graph: of the same file.
        operators: some of ``computing(graph)``.
        outputs: take the place of those of ``borders``.
    """
    operators = list(operators)
    inputs, ends = borders(graph, operators)
    outputs = ends if outputs is None else outputs
    kept = sorted({op.index for op in operators} | _unpacking(graph))
    data = bytearray(model + bytes(-len(model) % 4))
    table = tflite.Model.GetRootAs(model).Subgraphs(0)._tab

    # The operators' offsets move up inside their vector, each made relative to its new place.
    vector = table.Vector(table.Offset(4 + 2 * _SUBGRAPH_OPERATORS))
    for place, index in enumerate(kept):
        old, new = vector + 4 * index, vector + 4 * place
        struct.pack_into("<I", data, new, old + struct.unpack_from("<I", model, old)[0] - new)
    struct.pack_into("<I", data, vector - 4, len(kept))

    # Offsets point forward: new vectors of the model's ends may stand at the end of the file.
    for slot, tensors in ((_SUBGRAPH_INPUTS, inputs), (_SUBGRAPH_OUTPUTS, outputs)):
        field = table.Pos + table.Offset(4 + 2 * slot)
        struct.pack_into("<I", data, field, len(data) - field)
        data += struct.pack(f"<I{len(tensors)}i", len(tensors), *(t.index for t in tensors))

    # Signatures name the old ends.
    root = tflite.Model.GetRootAs(model)._tab
    if signatures := root.Offset(4 + 2 * _MODEL_SIGNATURES):
        struct.pack_into("<I", data, root.Vector(signatures) - 4, 0)
    return bytes(data)


def _unpacking(graph: Graph) -> set[int]:
    """Operators that compute from constants alone, as those that unpack float16 weights."""
    known = {t.index for op in graph.operators for t in op.inputs if t.constant}
    found = set()
    for op in graph.operators:
        if op.inputs and all(t.index in known for t in op.inputs):
            found.add(op.index)
            known |= {t.index for t in op.outputs}
    return found
