"""A ``.tflite`` of one convolution, and how fast the runtime computes it: what this machine's kernels can do."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import tflite

from edge_ran.graph.flatbuffer import MODEL_IDENTIFIER
from edge_ran.runtime import huge_pages, interpreter, output_capture

SECONDS, MOST_SECONDS = 0.15, 3.0  # of processor time for each convolution, and of wall-clock time
INPUT_SCALE, FILTER_SCALE = 0.05, 0.01


@dataclass(frozen=True)
class Convolution:
    """Stride 1, padding SAME, batch 1; ``side`` x ``side`` x ``channels`` in and out, filters of side ``kernel``."""

    side: int
    channels: int
    kernel: int

    @property
    def multiply_adds(self) -> int:
        return self.side**2 * self.channels**2 * self.kernel**2

    def __str__(self) -> str:
        return f"{self.kernel}x{self.kernel} convolution of {self.channels} channels"


# Large enough that loops are long, small enough that they lie in the caches; which one is the fastest differs.
CANDIDATES = (Convolution(16, 512, 1), Convolution(28, 256, 1), Convolution(64, 64, 1), Convolution(28, 64, 3))


def fastest(is_int8: bool) -> tuple[float, str] | None:
    """Measure the candidates on one thread of the preferred runtime.

    Returns:
        10^9 multiply-adds a second of the fastest one, and what it is called; None where the runtime refuses them.
    """
    package = interpreter.package()
    module = interpreter.load(package)
    found = []
    for one in CANDIDATES:
        try:
            seconds = _best_seconds(module, build(one, is_int8))
        except (RuntimeError, ValueError):
            continue
        found.append((one.multiply_adds / seconds / 1e9, f"{package.name}'s {one}"))
    return max(found, default=None)


def build(one: Convolution, is_int8: bool) -> bytes:
    """Return the file of a convolution with random weights; int8 has a scale for each output channel."""
    b = flatbuffers.Builder(1024)
    random, channels = np.random.default_rng(0), one.channels
    shape = (channels, one.kernel, one.kernel, channels)
    if is_int8:
        weights = random.integers(-127, 128, shape).astype(np.int8)
        bias = np.zeros(channels, np.int32)
        kinds = (tflite.TensorType.INT8, tflite.TensorType.INT8, tflite.TensorType.INT32, tflite.TensorType.INT8)
        scales: tuple[list[float], ...] = (
            [INPUT_SCALE], [FILTER_SCALE] * channels, [INPUT_SCALE * FILTER_SCALE] * channels, [1.0]
        )  # fmt: skip
    else:
        weights, bias = random.standard_normal(shape).astype(np.float32), np.zeros(channels, np.float32)
        kinds = (tflite.TensorType.FLOAT32,) * 4
        scales = ([],) * 4
    buffers = _vector(b, [_buffer(b, b""), _buffer(b, weights.tobytes()), _buffer(b, bias.tobytes())])
    picture = (1, one.side, one.side, channels)
    shapes, places = (picture, shape, (channels,), picture), (0, 1, 2, 0)
    tensors = _vector(b, [_tensor(b, *of) for of in zip(shapes, kinds, places, scales, strict=True)])
    tflite.Conv2DOptionsStart(b)
    tflite.Conv2DOptionsAddStrideW(b, 1)
    tflite.Conv2DOptionsAddStrideH(b, 1)
    options = tflite.Conv2DOptionsEnd(b)
    inputs, outputs = _int32s(b, (0, 1, 2)), _int32s(b, (3,))
    tflite.OperatorStart(b)
    tflite.OperatorAddOpcodeIndex(b, 0)
    tflite.OperatorAddInputs(b, inputs)
    tflite.OperatorAddOutputs(b, outputs)
    tflite.OperatorAddBuiltinOptionsType(b, tflite.BuiltinOptions.Conv2DOptions)
    tflite.OperatorAddBuiltinOptions(b, options)
    operators = _vector(b, [tflite.OperatorEnd(b)])
    inputs, outputs = _int32s(b, (0,)), _int32s(b, (3,))
    tflite.SubGraphStart(b)
    tflite.SubGraphAddTensors(b, tensors)
    tflite.SubGraphAddInputs(b, inputs)
    tflite.SubGraphAddOutputs(b, outputs)
    tflite.SubGraphAddOperators(b, operators)
    graphs = _vector(b, [tflite.SubGraphEnd(b)])
    tflite.OperatorCodeStart(b)
    tflite.OperatorCodeAddDeprecatedBuiltinCode(b, tflite.BuiltinOperator.CONV_2D)
    tflite.OperatorCodeAddBuiltinCode(b, tflite.BuiltinOperator.CONV_2D)
    tflite.OperatorCodeAddVersion(b, 3 if is_int8 else 1)
    codes = _vector(b, [tflite.OperatorCodeEnd(b)])
    tflite.ModelStart(b)
    tflite.ModelAddVersion(b, 3)
    tflite.ModelAddOperatorCodes(b, codes)
    tflite.ModelAddSubgraphs(b, graphs)
    tflite.ModelAddBuffers(b, buffers)
    b.Finish(tflite.ModelEnd(b), MODEL_IDENTIFIER)
    return bytes(b.Output())


def _best_seconds(module: Any, model: bytes) -> float:
    """The shortest run: what disturbs one makes it longer, never shorter."""
    with output_capture.captured(), huge_pages.gathered():
        runner = module.Interpreter(model_content=model, num_threads=1)
        runner.allocate_tensors()
    begun, end, best = time.process_time(), time.perf_counter() + MOST_SECONDS, float("inf")
    while time.process_time() - begun < SECONDS and time.perf_counter() < end:
        start = time.perf_counter()
        runner.invoke()
        best = min(best, time.perf_counter() - start)
    return best


def _tensor(b: Any, shape: tuple[int, ...], kind: int, buffer: int, scales: list[float]) -> int:
    dimensions, quantisation = _int32s(b, shape), 0
    if scales:
        values = b.CreateNumpyVector(np.array(scales, np.float32))
        zeros = b.CreateNumpyVector(np.zeros(len(scales), np.int64))
        tflite.QuantizationParametersStart(b)
        tflite.QuantizationParametersAddScale(b, values)
        tflite.QuantizationParametersAddZeroPoint(b, zeros)
        quantisation = tflite.QuantizationParametersEnd(b)
    tflite.TensorStart(b)
    tflite.TensorAddShape(b, dimensions)
    tflite.TensorAddType(b, kind)
    tflite.TensorAddBuffer(b, buffer)
    if quantisation:
        tflite.TensorAddQuantization(b, quantisation)
    return int(tflite.TensorEnd(b))


def _buffer(b: Any, data: bytes) -> int:
    content = 0
    if data:
        b.StartVector(1, len(data), 16)
        b.head -= len(data)
        b.Bytes[b.head : b.head + len(data)] = data
        content = b.EndVector()
    tflite.BufferStart(b)
    if data:
        tflite.BufferAddData(b, content)
    return int(tflite.BufferEnd(b))


def _vector(b: Any, offsets: list[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def _int32s(b: Any, values: Iterable[int]) -> int:
    return int(b.CreateNumpyVector(np.array(list(values), np.int32)))
