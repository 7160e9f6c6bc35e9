"""Small ``.tflite`` files that no converter makes, written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers
import numpy as np
import tflite

from edge_ran.graph.patch import numbers, table, vector

FLOAT32, RESOURCE = tflite.TensorType.FLOAT32, tflite.TensorType.RESOURCE


def model(
    tensors: Sequence[tuple[str, tuple[int, ...], int]],
    operators: Sequence[tuple[int, Sequence[int], Sequence[int]]],
    inputs: Sequence[int],
    outputs: Sequence[int],
    repeated: int = 1,
) -> bytes:
    """The file of these tensors (name, shape, type) and operators (builtin code, what it reads, what it writes).

    The list of tensors names the last one ``repeated`` times.
    """
    b = flatbuffers.Builder(1024)
    codes = [table(b, {}, {0: min(code, 127)}, {2: 1, 3: code}) for code, _, _ in operators]
    reads = [(numbers(b, before, np.int32), numbers(b, after, np.int32)) for _, before, after in operators]
    calls = [table(b, {1: ends[0], 2: ends[1]}, None, {0: place}) for place, ends in enumerate(reads)]
    held = [
        table(b, {0: numbers(b, shape, np.int32), 3: b.CreateString(name)}, {1: kind}) for name, shape, kind in tensors
    ]
    ends = {1: numbers(b, inputs, np.int32), 2: numbers(b, outputs, np.int32)}
    subgraph = table(b, {0: vector(b, [*held, *held[-1:] * (repeated - 1)]), **ends, 3: vector(b, calls)})
    buffers = vector(b, [table(b, {})])
    root = table(b, {1: vector(b, codes), 2: vector(b, [subgraph]), 4: buffers}, None, {0: 3})
    b.Finish(root, b"TFL3")
    return bytes(b.Output())


def stateful() -> bytes:
    """y = 2 x, by way of a variable: one operator has no inputs, and another one no outputs."""
    tensors = [("x", (1, 4), FLOAT32), ("handle", (1,), RESOURCE), ("value", (1, 4), FLOAT32), ("y", (1, 4), FLOAT32)]
    code = tflite.BuiltinOperator
    operators = [
        (code.VAR_HANDLE, [], [1]),
        (code.ASSIGN_VARIABLE, [1, 0], []),
        (code.READ_VARIABLE, [1], [2]),
        (code.ADD, [2, 0], [3]),
    ]
    return model(tensors, operators, inputs=[0], outputs=[3])
