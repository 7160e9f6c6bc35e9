"""The soft masks of a residual attention network as outputs of its ``.tflite``, beside the class scores.

Each attention module multiplies its trunk by a soft mask M (section 3.1 of the paper). The file has it already, between
two operators; ``add_masks`` adds one MEAN over the channels behind each, and names its result as an output. No other
operator, weight or scale is touched, so the class scores are those of the file without masks, bit by bit.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import tflite

from edge_ran.errors import InputError
from edge_ran.graph import prefix
from edge_ran.graph.prefix import Prefix, numbers, table, vector
from edge_ran.graph.slices import computing, cut
from edge_ran.graph.structure import CONVERSIONS, Graph, Operator, TensorSpec, parse_graph

_GATE = re.compile(r"(?:^|/)(stage\d+_module\d+)_gate(?:/|;|$)")  # the product M * T, as ``host.networks`` names it
_MEAN_VERSIONS = {"float32": 1, "int8": 2, "int16": 3}  # of the operator, by what it reads
_TYPES = {name: getattr(tflite.TensorType, name.upper()) for name in ("float32", "int8", "uint8", "int16")}


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
        named = _GATE.search(op.outputs[0].name) if op.name == "MUL" and op.outputs else None
        if named is None:
            continue
        for tensor in op.inputs:
            whole = len(tensor.shape) == 4 and tensor.shape[0] == 1 and tensor.fixed and min(tensor.shape) > 0
            if f"{named[1]}_mask_" in tensor.name and whole and tensor.dtype in _MEAN_VERSIONS:
                found.setdefault(named[1], Mask(named[1], tensor, op))
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
    front = Prefix(model)
    b, old = front.builder, front.old
    main = old.Subgraphs(0)
    axis = main.TensorsLength()
    codes, means = _mean_codes(front, masks)

    def tensor(name: str, shape: tuple[int, ...], kind: int, buffer: int = 0, scale: float = 0.0, zero: int = 0) -> int:
        offsets = {0: numbers(b, shape, np.int32), 3: b.CreateString(name)}
        if scale:
            offsets[4] = table(b, {2: numbers(b, [scale], np.float32), 3: numbers(b, [zero], np.int64)})
        return table(b, offsets, bytes_={1: kind}, uint32s={2: buffer})

    def operator(code: int, reads: list[int], writes: int, options: int = 0) -> int:
        kind = {3: tflite.BuiltinOptions.ReducerOptions} if options else {}
        offsets = {1: numbers(b, reads, np.int32), 2: numbers(b, [writes], np.int32), 4: options}
        return table(b, offsets, bytes_=kind, uint32s={0: code})

    tensors = [front.kept(main.Tensors(i)) for i in range(axis)]
    tensors.append(tensor("mask_axis", (1,), tflite.TensorType.INT32, buffer=old.BuffersLength()))
    before: dict[int, int] = {}  # the new operators, each by the place of the product that it is put before
    scores = graph.outputs[0]
    last = next((op for op in graph.operators if scores.index in {t.index for t in op.outputs}), None)
    converting = last if last and last.name in CONVERSIONS and scores.dtype in ("uint8", "float32") else None
    borders, ends = [], []
    for place, mask in enumerate(masks, 1):
        shape, dtype, (scale, zero) = (*mask.tensor.shape[:3], 1), mask.tensor.dtype, _quantisation(mask.tensor)
        mean = len(tensors)
        tensors.append(tensor(f"mask_{place}{'_mean' if converting else ''}", shape, _TYPES[dtype], 0, scale, zero))
        options = table(b, {}, bytes_={0: 1})  # keep_dims
        before[mask.gate.index] = operator(means[dtype], [mask.tensor.index, axis], mean, options)
        if converting:
            quantised = (scale, zero + 128) if scores.dtype == "uint8" else ()
            tensors.append(tensor(f"mask_{place}", shape, _TYPES[scores.dtype], 0, *quantised))
            borders.append(operator(main.Operators(converting.index).OpcodeIndex(), [mean], mean + 1))
        ends.append(len(tensors) - 1)
    operators = []
    for i in range(main.OperatorsLength()):
        operators += [before[i]] if i in before else []
        operators.append(front.kept(main.Operators(i)))
    operators += borders
    outputs = [graph.outputs[0].index, *ends]
    subgraph = table(
        b,
        {
            0: vector(b, tensors),
            1: front.field(main, 1),
            2: numbers(b, outputs, np.int32),
            3: vector(b, operators),
            4: front.field(main, 4),
        },
    )
    rest = [front.kept(old.Subgraphs(i)) for i in range(1, old.SubgraphsLength())]
    buffers = [front.kept(old.Buffers(i)) for i in range(old.BuffersLength())]
    buffers.append(front.buffer(np.int32(3).tobytes()))
    changed = {
        prefix.CODES: vector(b, codes),
        prefix.SUBGRAPHS: vector(b, [subgraph, *rest]),
        prefix.BUFFERS: vector(b, buffers),
        prefix.SIGNATURES: 0,  # they name the old ends
    }
    return front.finish(changed), tuple(mask.module for mask in masks)


def drop_masks(model: bytes) -> bytes:
    """Return the file with its first output alone, and the operators that it needs; undoes ``add_masks``."""
    graph = parse_graph(model)
    needed, kept = {graph.outputs[0].index}, []
    for op in reversed(computing(graph)):
        if needed & {t.index for t in op.outputs}:
            needed |= {t.index for t in op.inputs}
            kept.append(op)
    return cut(model, graph, kept, graph.outputs[:1])


def _mean_codes(front: Prefix, masks: tuple[Mask, ...]) -> tuple[list[int], dict[str, int]]:
    """The operator codes with MEAN's behind them, and the place of that for each type of mask."""
    codes = [front.kept(front.old.OperatorCodes(i)) for i in range(front.old.OperatorCodesLength())]
    places: dict[str, int] = {}
    for dtype in dict.fromkeys(mask.tensor.dtype for mask in masks):
        places[dtype] = len(codes)
        number, version = tflite.BuiltinOperator.MEAN, _MEAN_VERSIONS[dtype]
        codes.append(table(front.builder, {}, bytes_={0: number}, uint32s={2: version, 3: number}))
    return codes, places


def _quantisation(mask: TensorSpec) -> tuple[float, int]:
    """Scale and zero point of a mask's mean. A vector of length 1 has a mean of at most 1 / sqrt(channels)."""
    if mask.dtype != "int8" or mask.zero_point == -128:  # int16 is fine enough; no value is negative
        return mask.scale, mask.zero_point
    return 1 / (127 * math.sqrt(mask.shape[3])), 0
