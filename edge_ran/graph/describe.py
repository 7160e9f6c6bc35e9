"""What ``edge-ran inspect`` says of a ``.tflite``, as one record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edge_ran.files import sha256
from edge_ran.graph.accelerators import Finding, gpu_warnings, xnnpack_unsupported
from edge_ran.graph.metadata import read_card
from edge_ran.graph.structure import Graph, Operator, TensorSpec, read_graph


def describe(path: Path, every_operator: bool = False) -> dict[str, Any]:
    """Return everything known of a ``.tflite``, ready for JSON; ``every_operator`` adds them one by one.

    Raises:
        InputError: the file or its card is missing, cut short or damaged.
    """
    graph, card = read_graph(path), read_card(path)
    left_out = xnnpack_unsupported(graph)
    return {
        "schema_version": 1,
        "file": str(path),
        "size_bytes": graph.size_bytes,
        "sha256": sha256(path),
        "precision": graph.precision,
        "inputs": [_tensor(t) for t in graph.inputs],
        "outputs": [_tensor(t) for t in graph.outputs],
        "operators": graph.operator_counts,
        **({"operator_list": [_operator(op) for op in graph.operators]} if every_operator else {}),
        "float_operators": len(graph.float_operators),
        "float_operator_list": [_place(op) for op in graph.float_operators],
        "quantize_between_operators": len(graph.inner_quantize),
        "quantize_at_border": len(graph.border_quantize),
        "multiply_adds": graph.multiply_adds,
        "multiply_adds_by_operator": _multiply_adds_by_operator(graph),
        "parameters_bytes": graph.parameters_bytes,
        "xnnpack": {
            "delegated": len(graph.operators) - len(left_out),
            "not_delegated": [_finding(found) for found in left_out],
        },
        "gpu_warnings": [{**_finding(found), "wrong": found.wrong} for found in gpu_warnings(graph)],
        "card": dataclasses.asdict(card) if card else None,
    }


def _multiply_adds_by_operator(graph: Graph) -> dict[str, int]:
    counts = {name: 0 for name in graph.operator_counts}
    for op in graph.operators:
        counts[op.name] += op.multiply_adds
    return {name: count for name, count in counts.items() if count}


def _tensor(t: TensorSpec) -> dict[str, Any]:
    quantised = {"scale": t.scale, "zero_point": t.zero_point} if t.scale else {}
    return {"name": t.name, "shape": list(t.shape), "fixed": t.fixed, "dtype": t.dtype, **quantised}


def _place(op: Operator) -> dict[str, Any]:
    return {"index": op.index, "operator": op.name, "output": op.outputs[0].name if op.outputs else ""}


def _operator(op: Operator) -> dict[str, Any]:
    inputs = [{**_tensor(t), "constant": t.constant, "per_channel": t.per_channel} for t in op.inputs]
    outputs = [_tensor(t) for t in op.outputs]
    made_of = {"inputs": inputs, "outputs": outputs, "options": op.options}
    return {"index": op.index, "operator": op.name, "multiply_adds": op.multiply_adds, **made_of}


def _finding(found: Finding) -> dict[str, Any]:
    place = _place(found.operator) if found.operator else {"index": None, "operator": None, "output": ""}
    return {**place, "what": found.what, "remedy": found.remedy}
