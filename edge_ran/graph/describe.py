"""What ``edge-ran inspect`` says of a ``.tflite``, as one record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ran.card import ModelCard
from edge_ran.files import sha256
from edge_ran.graph.accelerators import Finding, gpu_warnings, xnnpack_unsupported
from edge_ran.graph.metadata import read_card
from edge_ran.graph.structure import Graph, Operator, TensorSpec, read_graph


@dataclass(frozen=True)
class TensorInfo:
    """An input or output. ``fixed`` is False where its size can change; ``scale`` is None where it is not quantised."""

    name: str
    shape: tuple[int, ...]
    fixed: bool
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class OperandInfo(TensorInfo):
    """An operator's input; a ``constant`` is stored in the file, with a scale for each channel if ``per_channel``."""

    constant: bool
    per_channel: bool


@dataclass(frozen=True)
class OperatorInfo:
    """One operator; ``index`` is its place in the order of execution, ``options`` are the schema's."""

    index: int
    operator: str
    multiply_adds: int
    inputs: tuple[OperandInfo, ...]
    outputs: tuple[TensorInfo, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class OperatorPlace:
    """Where an operator is: its index, its name, and the name of its first output."""

    index: int
    operator: str
    output: str


@dataclass(frozen=True)
class FindingInfo:
    """Something about an operator that an accelerator does not take; without an operator it is about the graph."""

    index: int | None
    operator: str | None
    output: str
    what: str
    remedy: str


@dataclass(frozen=True)
class GpuWarning(FindingInfo):
    """``wrong`` tells wrong numbers from work that stays on the CPU."""

    wrong: bool


@dataclass(frozen=True)
class XnnpackInfo:
    """How many operators XNNPACK takes, and which it does not."""

    delegated: int
    not_delegated: tuple[FindingInfo, ...]


@dataclass(frozen=True)
class ModelDescription:
    """Everything known of a ``.tflite``; ``operator_list`` is None unless every operator was asked for.

    ``operators`` and ``multiply_adds_by_operator`` count by the operator's name, ``multiply_adds`` are of one picture,
    0 where the file leaves its size open.
    """

    file: str
    size_bytes: int
    sha256: str
    precision: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: dict[str, int]
    operator_list: tuple[OperatorInfo, ...] | None
    float_operators: int
    float_operator_list: tuple[OperatorPlace, ...]
    quantize_between_operators: int
    quantize_at_border: int
    multiply_adds: int
    multiply_adds_by_operator: dict[str, int]
    parameters_bytes: int
    xnnpack: XnnpackInfo
    gpu_warnings: tuple[GpuWarning, ...]
    card: ModelCard | None


def describe(path: Path, every_operator: bool = False) -> ModelDescription:
    """Return everything known of a ``.tflite``; ``every_operator`` adds them one by one.

    Raises:
        InputError: the file or its card is missing, cut short or damaged.
    """
    graph, card = read_graph(path), read_card(path)
    left_out = xnnpack_unsupported(graph)
    return ModelDescription(
        file=str(path),
        size_bytes=graph.size_bytes,
        sha256=sha256(path),
        precision=graph.precision,
        inputs=tuple(map(_tensor, graph.inputs)),
        outputs=tuple(map(_tensor, graph.outputs)),
        operators=graph.operator_counts,
        operator_list=tuple(map(_operator, graph.operators)) if every_operator else None,
        float_operators=len(graph.float_operators),
        float_operator_list=tuple(map(_place, graph.float_operators)),
        quantize_between_operators=len(graph.inner_quantize),
        quantize_at_border=len(graph.border_quantize),
        multiply_adds=graph.multiply_adds,
        multiply_adds_by_operator=_multiply_adds_by_operator(graph),
        parameters_bytes=graph.parameters_bytes,
        xnnpack=XnnpackInfo(len(graph.operators) - len(left_out), tuple(map(_finding, left_out))),
        gpu_warnings=tuple(map(_gpu_warning, gpu_warnings(graph))),
        card=card,
    )


def _multiply_adds_by_operator(graph: Graph) -> dict[str, int]:
    if graph.has_open_size:
        return {}
    counts = {name: 0 for name in graph.operator_counts}
    for op in graph.operators:
        counts[op.name] += op.multiply_adds
    return {name: count for name, count in counts.items() if count}


def _tensor(t: TensorSpec) -> TensorInfo:
    return TensorInfo(t.name, t.shape, t.fixed, t.dtype, t.scale or None, t.zero_point if t.scale else None)


def _operand(t: TensorSpec) -> OperandInfo:
    plain = _tensor(t)
    return OperandInfo(
        plain.name, plain.shape, plain.fixed, plain.dtype, plain.scale, plain.zero_point, t.constant, t.per_channel
    )


def _place(op: Operator) -> OperatorPlace:
    return OperatorPlace(op.index, op.name, op.outputs[0].name if op.outputs else "")


def _operator(op: Operator) -> OperatorInfo:
    operands, outputs = tuple(map(_operand, op.inputs)), tuple(map(_tensor, op.outputs))
    return OperatorInfo(op.index, op.name, op.multiply_adds, operands, outputs, op.options)


def _finding(found: Finding) -> FindingInfo:
    if found.operator is None:
        return FindingInfo(None, None, "", found.what, found.remedy)
    place = _place(found.operator)
    return FindingInfo(place.index, place.operator, place.output, found.what, found.remedy)


def _gpu_warning(found: Finding) -> GpuWarning:
    info = _finding(found)
    return GpuWarning(info.index, info.operator, info.output, info.what, info.remedy, found.wrong)
