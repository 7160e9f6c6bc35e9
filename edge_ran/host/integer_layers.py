"""Layers that compute the very integers of an int8 file, where ``quantizers`` round float32 numbers.

Float32 noise tips about one number in 100,000 over a tie. A trained network hardly notices; one whose answers are near
each other, or of random weights, takes it up and answers otherwise. Here the numbers are integers: float32 adds them
exactly while the sum is below 2**24 (a larger one is rounded), and XNNPACK's way of scaling them is known. These layers
are not for training: nothing of them has a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tf_keras import layers

from edge_ran.host.quantizers import LEVELS, WEIGHT_LIMIT, WEIGHTED, Range, channel_axes, largest

_ADD_BITS = 20  # of the larger factor of a sum in XNNPACK


def is_integer(layer: layers.Layer) -> bool:
    """True for a layer whose integers are computed here; the others only move numbers or read a table of 256."""
    if isinstance(layer, (layers.Add, layers.Multiply)):
        return len(layer.input) == 2
    if isinstance(layer, layers.ReLU):
        return layer.max_value is None
    return isinstance(layer, (*WEIGHTED, layers.GlobalAveragePooling2D, layers.LeakyReLU))


@dataclass(frozen=True)
class FileScale:
    """Scale and zero point of an int8 tensor: the number ``zero`` stands for 0, and each step up for ``step`` more."""

    step: np.float32
    zero: int


def file_scale(limits: tuple[float, float]) -> FileScale:
    """Return what the converter writes for a range, which it takes as float32."""
    low, high = np.float32(limits[0]), np.float32(limits[1])
    step = (float(high) - float(low)) / LEVELS
    return FileScale(np.float32(step), math.floor(-float(low) / step + 0.5) - (LEVELS // 2 + 1))


class IntegerLayer(layers.Layer):
    """A convolution, dense layer, sum, product, mean or leaky ReLU, on real numbers that are multiples of their scales.

    Args:
        inner: the layer, with its weights.
        inputs: of each tensor that it reads.
        output: of what it writes, or of the ReLU that it is fused with.
        ends: range of its own output, which clips it; None where a ReLU does.
    """

    def __init__(self, inner: layers.Layer, inputs: Sequence[FileScale], output: FileScale, ends: Range | None) -> None:
        super().__init__(name=inner.name, trainable=False)
        self.inner, self.inputs, self.written, self.ends = inner, tuple(inputs), output, ends
        self.scales = _to_integers(inner, inputs[0].step) if isinstance(inner, WEIGHTED) else np.float32(1)

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert, and it takes 5 ms a layer
    def call(self, inputs: Any, training: object = None) -> Any:  # Keras takes what is decorated to want ``training``
        tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        numbers = [tf.round(x / scale.step) for x, scale in zip(tensors, self.inputs, strict=True)]
        found = self._compute(numbers) * self.written.step
        return found if self.ends is None else self.ends(found, training=False, weights={})

    def _compute(self, numbers: list[Any]) -> Any:
        """Integers, counted from the zero points -> integers, not clipped."""
        steps, output = tuple(scale.step for scale in self.inputs), self.written.step
        if isinstance(self.inner, layers.Add):
            return _sum(numbers, steps, output)
        if isinstance(self.inner, layers.Multiply):
            return tf.round(numbers[0] * numbers[1] * (steps[0] * steps[1] / output))
        if isinstance(self.inner, layers.LeakyReLU):
            return _leak(numbers[0], float(self.inner.alpha), steps[0] / output)
        if isinstance(self.inner, layers.ReLU):  # a QUANTIZE; the output's ends do the rest
            return _leak(numbers[0], 1.0, steps[0] / output)
        if isinstance(self.inner, layers.GlobalAveragePooling2D):
            return _mean(numbers[0], self.inputs[0], self.written, self.inner.keepdims)
        return tf.round(self.inner(numbers[0]) * (steps[0] * self.scales / output))

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError  # it is never saved


def _to_integers(layer: layers.Layer, step: np.float32) -> NDArray[np.float32]:
    """Put a layer's integer weights in the place of real ones; return the kernel's scales, one for each channel."""
    kernel, *bias = layer.get_weights()
    scales = np.asarray(largest(tf.convert_to_tensor(kernel), channel_axes(layer)), np.float32) / np.float32(
        WEIGHT_LIMIT
    )
    flat = scales.ravel()
    layer.set_weights([np.round(kernel / scales), *(np.round(b / (np.float64(step) * flat)) for b in bias)])
    return flat


def _sum(numbers: list[Any], steps: tuple[np.float32, ...], output: np.float32) -> Any:
    """``(a A + b B) / 2**shift``, half upwards, with integer factors A and B of 21 bits at most."""
    ratios = [np.float32(s / output) for s in steps]
    shift = _ADD_BITS - (math.frexp(max(ratios))[1] - 1)
    factors = [round(math.ldexp(float(ratio), shift)) for ratio in ratios]
    total = sum(tf.cast(n, tf.int32) * f for n, f in zip(numbers, factors, strict=True)) + (1 << (shift - 1))
    return tf.cast(tf.bitwise.right_shift(total, shift), tf.float32)


def _mean(numbers: Any, source: FileScale, output: FileScale, keepdims: bool) -> Any:
    """Sum of the stored numbers, zero points included, scaled and moved in float32 as XNNPACK's `reduce-nd.c` does.

    The zero points are part of one float32 number, which is added last: its rounding makes ties, and breaks them, where
    the mean itself has none. Near -100 a float32 number is exact to 7.6e-6 of a step.
    """
    positions = int(numbers.shape[1] * numbers.shape[2])
    factor = (source.step / output.step) * (np.float32(1) / np.float32(positions))
    zero = np.float32(output.zero) - np.float32(positions * source.zero) * factor
    stored = tf.reduce_sum(numbers, (1, 2), keepdims=keepdims) + np.float32(positions * source.zero)
    return tf.round(stored * factor + zero) - np.float32(output.zero)


def _leak(number: Any, slope: float, ratio: np.float32) -> Any:
    """``x M / 256``, half upwards, with an integer factor for each sign: XNNPACK's is coarse."""
    factors = (round(float(ratio) * 256), round(float(ratio * np.float32(slope)) * 256))
    return tf.floor((number * tf.where(number >= 0, *map(float, factors)) + 128) / 256)
