"""The soft masks of a residual attention network as outputs of its ``.tflite``, beside the class scores.

Each attention module multiplies its trunk by a soft mask M (section 3.1 of the paper). The file has it already, between
two operators; ``add_masks`` adds one MEAN over the channels behind each, and names its result as an output. No other
operator, weight or scale is touched, so the class scores are those of the file without masks, bit by bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import tflite

from edge_ran import layer_names
from edge_ran.errors import InputError
from edge_ran.graph import patch
from edge_ran.graph.patch import Patch, numbers, table, vector
from edge_ran.graph.structure import CONVERSIONS, Graph, Operator, TensorSpec, parse_graph
from edge_ran.graph.subgraph import computing, cut

_MEAN_VERSIONS = {"float32": 1, "int8": 2, "int16": 3}  # of the operator, by what it reads


@dataclass(frozen=True)
class Mask:
    """A soft mask inside a graph: ``module`` (``stage1_module1``), M itself (1, h, w, c), and the product it is for."""

    module: str
    tensor: TensorSpec
    gate: Operator


def find_masks(graph: Graph) -> tuple[Mask, ...]:
    """Return the soft masks of a file that `edge-ran convert` made, in the order of the network; none elsewhere."""
    found: dict[str, Mask] = {}
    for op in graph.operators:
        module = layer_names.module_of_gate(op.outputs[0].name) if op.name == "MUL" and op.outputs else ""
        if not module:
            continue
        for tensor in op.inputs:
            whole = len(tensor.shape) == 4 and tensor.shape[0] == 1 and tensor.fixed and min(tensor.shape) > 0
            if layer_names.is_of_mask(tensor.name, module) and whole and tensor.dtype in _MEAN_VERSIONS:
                found.setdefault(module, Mask(module, tensor, op))
    return tuple(found.values())


def add_masks(model: bytes, path: object = "the model") -> tuple[bytes, tuple[str, ...]]:
    """Return the file with each mask's mean over the channels as a further output, and the modules' names.

    The outputs, (1, h, w, 1) each, are called ``mask_1``, ``mask_2``, …. In int8 the mean has the mask's scale, or,
    where values may be negative (channel attention), one that the mean of a unit vector just fits in. Where the file
    converts its scores at the end, to uint8 or float32, so it does the masks: readers expect one type.

    Args:
        model: the bytes of a ``.tflite`` of one output.
        path: names it in errors.

    Raises:
        InputError: the file is damaged, has several outputs, or no masks.
    """
    graph = parse_graph(model, str(path))
    masks = find_masks(graph)
    if not masks or len(graph.outputs) != 1:
        what = f"{path} has no attention masks" if not masks else f"{path} has {len(graph.outputs)} outputs already"
        raise InputError(what, "convert a residual attention network with its masks: edge-ran convert --attention RUN")
    scores = graph.outputs[0]
    last = next((op for op in graph.operators if scores.index in {t.index for t in op.outputs}), None)
    converting = last if last and last.name in CONVERSIONS and scores.dtype in ("uint8", "float32") else None
    wider = _Wider(model)
    axis = wider.tensor("mask_axis", (1,), "int32", data=np.int32(3).tobytes())
    before: dict[int, list[int]] = {}  # the means, each by the place of the product that it is put before
    borders, ends = [], [scores.index]
    for place, mask in enumerate(masks, 1):
        shape, dtype, (scale, zero) = (*mask.tensor.shape[:3], 1), mask.tensor.dtype, _quantisation(mask.tensor)
        ends.append(wider.tensor(f"mask_{place}{'_mean' if converting else ''}", shape, dtype, scale, zero))
        before[mask.gate.index] = [wider.mean(dtype, mask.tensor.index, axis, ends[-1])]
        if converting:
            mean, quantised = ends.pop(), (scale, zero + 128) if scores.dtype == "uint8" else ()
            ends.append(wider.tensor(f"mask_{place}", shape, scores.dtype, *quantised))
            borders.append(wider.operator(wider.main.Operators(converting.index).OpcodeIndex(), [mean], ends[-1]))
    operators = []
    for i in range(len(graph.operators)):
        operators += [*before.get(i, []), wider.kept(wider.main.Operators(i))]
    return wider.whole([*operators, *borders], ends), tuple(mask.module for mask in masks)


class _Wider(Patch):
    """A file that gets more tensors, operators and outputs; ``main`` is the old main subgraph."""

    def __init__(self, model: bytes) -> None:
        super().__init__(model)
        old, self.main = self.old, self.old.Subgraphs(0)
        self._tensors = [self.kept(self.main.Tensors(i)) for i in range(self.main.TensorsLength())]
        self._codes = [self.kept(old.OperatorCodes(i)) for i in range(old.OperatorCodesLength())]
        self._buffers = [self.kept(old.Buffers(i)) for i in range(old.BuffersLength())]
        self._means: dict[str, int] = {}

    def tensor(
        self, name: str, shape: tuple[int, ...], dtype: str, scale: float = 0.0, zero: int = 0, data: bytes = b""
    ) -> int:
        """Add a tensor, a constant one where it has data; return its place."""
        b = self.builder
        if data:
            self._buffers.append(self.buffer(data))
        offsets = {0: numbers(b, shape, np.int32), 3: b.CreateString(name)}
        if scale:
            offsets[4] = table(b, {2: numbers(b, [scale], np.float32), 3: numbers(b, [zero], np.int64)})
        kind, buffer = getattr(tflite.TensorType, dtype.upper()), len(self._buffers) - 1 if data else 0
        self._tensors.append(table(b, offsets, bytes_={1: kind}, uint32s={2: buffer}))
        return len(self._tensors) - 1

    def mean(self, dtype: str, values: int, axis: int, writes: int) -> int:
        """Write a MEAN that keeps its dimensions; return its offset."""
        if dtype not in self._means:
            number, version = tflite.BuiltinOperator.MEAN, _MEAN_VERSIONS[dtype]
            self._means[dtype] = len(self._codes)
            self._codes.append(table(self.builder, {}, bytes_={0: number}, uint32s={2: version, 3: number}))
        return self.operator(self._means[dtype], [values, axis], writes, table(self.builder, {}, bytes_={0: 1}))

    def operator(self, code: int, reads: list[int], writes: int, reducing: int = 0) -> int:
        """Write an operator, one with ReducerOptions or none; return its offset."""
        ends = {1: numbers(self.builder, reads, np.int32), 2: numbers(self.builder, [writes], np.int32)}
        kind = {3: tflite.BuiltinOptions.ReducerOptions} if reducing else {}
        return table(self.builder, {**ends, 4: reducing}, bytes_=kind, uint32s={0: code})

    def whole(self, operators: list[int], outputs: list[int]) -> bytes:
        """Return the file with these operators, by offset, and outputs, by tensor."""
        b, old, main = self.builder, self.old, self.main
        lists = {0: vector(b, self._tensors), 2: numbers(b, outputs, np.int32), 3: vector(b, operators)}
        subgraph = table(b, {**lists, 1: self.field(main, 1), 4: self.field(main, 4)})
        others = [self.kept(old.Subgraphs(i)) for i in range(1, old.SubgraphsLength())]
        changed = {
            patch.CODES: vector(b, self._codes),
            patch.SUBGRAPHS: vector(b, [subgraph, *others]),
            patch.BUFFERS: vector(b, self._buffers),
            patch.SIGNATURES: 0,  # they name the old ends
        }
        return self.finish(changed)


def drop_masks(model: bytes) -> bytes:
    """Return the file with its first output alone, and the operators that it needs; undoes ``add_masks``."""
    graph = parse_graph(model)
    needed, kept = {graph.outputs[0].index}, []
    for op in reversed(computing(graph)):
        if needed & {t.index for t in op.outputs}:
            needed |= {t.index for t in op.inputs}
            kept.append(op)
    return cut(model, graph, kept, graph.outputs[:1])


def _quantisation(mask: TensorSpec) -> tuple[float, int]:
    """Scale and zero point of a mask's mean. A vector of length 1 has a mean of at most 1 / sqrt(channels)."""
    if mask.dtype != "int8" or mask.zero_point == -128:  # int16 is fine enough; no value is negative
        return mask.scale, mask.zero_point
    return 1 / (127 * math.sqrt(mask.shape[3])), 0
