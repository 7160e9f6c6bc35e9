"""What a runtime's native code takes for granted of a graph. Files that break it crash it, or take all memory.

``open_model`` has checked that every table lies inside the file; this is about what the tables mean.
"""

from __future__ import annotations

import math

import tflite

from edge_ran.errors import InputError
from edge_ran.graph.structure import Graph, TensorSpec
from edge_ran.printable import many

MOST_TENSOR_BYTES = 1 << 28
REMEDY = "get the file again, or convert it again"
_BYTES = {
    "float64": 8, "int64": 8, "uint64": 8, "complex64": 8, "complex128": 16, "float32": 4, "int32": 4, "uint32": 4,
    "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2,
}  # fmt: skip
_BUILTIN = frozenset(tflite.BUILTIN_OPCODE2NAME.values())
_WITHOUT_INPUTS = ("VAR_HANDLE", "CALL_ONCE", "HASHTABLE", "WHILE", "CUSTOM")
_WITHOUT_OUTPUTS = ("ASSIGN_VARIABLE", "CALL_ONCE", "HASHTABLE_IMPORT", "WHILE", "IF", "CUSTOM")
# How many inputs the kernels read without asking whether they are there; of any other operator, one.
_INPUTS = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "FLOOR_DIV", "FLOOR_MOD"), 2),
    **dict.fromkeys(("SQUARED_DIFFERENCE", "EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"), 2),
    **dict.fromkeys(("LOGICAL_AND", "LOGICAL_OR", "PRELU", "BATCH_MATMUL", "FILL", "TILE", "BROADCAST_TO", "SPLIT"), 2),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "FULLY_CONNECTED", "GATHER", "GATHER_ND"), 2),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "REDUCE_ANY", "REDUCE_ALL"), 2),
    **dict.fromkeys(
        ("ARG_MAX", "ARG_MIN", "TOPK_V2", "EXPAND_DIMS", "TRANSPOSE", "PAD", "MIRROR_PAD", "REVERSE_V2"), 2
    ),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "EMBEDDING_LOOKUP", "CUMSUM", "REVERSE_V2"), 2),
    **dict.fromkeys(("SLICE", "PADV2", "TRANSPOSE_CONV", "SPLIT_V", "SELECT", "SELECT_V2", "RANGE", "SCATTER_ND"), 3),
    **dict.fromkeys(("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "ONE_HOT"), 3),
    "STRIDED_SLICE": 4,
}


def check_runnable(graph: Graph) -> None:
    """Raise InputError, saying why, where a runtime must not be given the graph."""
    if not graph.inputs or not graph.outputs:
        what = f"{many(len(graph.inputs), 'input')} and {many(len(graph.outputs), 'output')}"
        raise InputError(f"{graph.path} has {what}, nothing that could be run", REMEDY)
    written: set[int] = set()
    for op in graph.operators:
        known = op.name in _BUILTIN
        least = 0 if op.name in _WITHOUT_INPUTS or not known else _INPUTS.get(op.name, 1)
        if len(op.inputs) < least or (known and not op.outputs and op.name not in _WITHOUT_OUTPUTS):
            sides = f"{many(len(op.inputs), 'input')} and {many(len(op.outputs), 'output')}"
            what = f"operator {op.index} {op.name} has {sides}"
            raise InputError(f"{graph.path} is damaged: {what}", REMEDY)
        read = {tensor.index for tensor in op.inputs}
        for tensor in op.outputs:
            if tensor.constant or tensor.index in written or tensor.index in read:
                what = f"operator {op.index} {op.name} writes what is there already"
                raise InputError(f"{graph.path} is damaged: {what}", REMEDY)
            written.add(tensor.index)
        for tensor in op.activations:
            _check_size(graph, tensor)
    for tensor in graph.inputs:
        if tensor.constant or tensor.index in written:
            raise InputError(f"{graph.path} is damaged: its input {tensor.index} is computed or constant", REMEDY)
        _check_size(graph, tensor)
    for tensor in graph.outputs:
        if tensor.constant:
            raise InputError(f"{graph.path} is damaged: its output {tensor.index} is constant", REMEDY)


def _check_size(graph: Graph, tensor: TensorSpec) -> None:
    if math.prod(tensor.shape) * _BYTES.get(tensor.dtype, 1) > MOST_TENSOR_BYTES:
        raise InputError(
            f"{graph.path}: tensor {tensor.index} of {tensor.shape} takes more than {MOST_TENSOR_BYTES >> 20} MB",
            REMEDY,
        )
