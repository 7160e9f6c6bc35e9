"""Layers that compute the very integers of an int8 file, where ``quantizers`` round float32 numbers.

Float32 noise tips about one number in 100,000 over a tie. A trained network hardly notices; one whose answers are near
each other, or of random weights, takes it up and answers otherwise. Here the numbers are integers: float32 adds them
exactly while the sum is below 2**24 (a larger one is rounded), and XNNPACK's way of scaling them is known. These layers
are not for training: nothing of them has a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def file_step(limits: tuple[float, float]) -> np.float32:
    """Return the scale that the converter writes for a range, which it takes as float32."""
    low, high = np.float32(limits[0]), np.float32(limits[1])
    return np.float32((float(high) - float(low)) / LEVELS)


class IntegerLayer(layers.Layer):
    """A convolution, dense layer, sum, product, mean or leaky ReLU, on real numbers that are multiples of their scales.

    Args:
        inner: the layer, with its weights.
        inputs: scale of each tensor that it reads.
        output: scale of what it writes, or of the ReLU that it is fused with.
        ends: range of its own output, which clips it; None where a ReLU does.
    """

    def __init__(
        self, inner: layers.Layer, inputs: Sequence[np.float32], output: np.float32, ends: Range | None
    ) -> None:
        super().__init__(name=inner.name, trainable=False)
        self.inner, self.input_steps, self.output_step, self.ends = inner, tuple(inputs), output, ends
        self.scales = _to_integers(inner, inputs[0]) if isinstance(inner, WEIGHTED) else np.float32(1)

    def call(self, inputs: Any) -> Any:
        tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        numbers = [tf.round(x / s) for x, s in zip(tensors, self.input_steps, strict=True)]
        found = self._compute(numbers) * self.output_step
        return found if self.ends is None else self.ends(found, training=False, weights={})

    def _compute(self, numbers: list[Any]) -> Any:
        """Integers, counted from the zero points -> integers, not clipped."""
        steps, output = self.input_steps, self.output_step
        if isinstance(self.inner, layers.Add):
            return _sum(numbers, steps, output)
        if isinstance(self.inner, layers.Multiply):
            return tf.round(numbers[0] * numbers[1] * (steps[0] * steps[1] / output))
        if isinstance(self.inner, layers.LeakyReLU):
            return _leak(numbers[0], float(self.inner.alpha), steps[0] / output)
        if isinstance(self.inner, layers.ReLU):  # a QUANTIZE; the output's ends do the rest
            return _leak(numbers[0], 1.0, steps[0] / output)
        if isinstance(self.inner, layers.GlobalAveragePooling2D):
            positions = np.float32(numbers[0].shape[1] * numbers[0].shape[2])
            total = tf.reduce_sum(numbers[0], (1, 2), keepdims=self.inner.keepdims)
            return tf.round(total * (steps[0] / (positions * output)))
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


def _leak(number: Any, slope: float, ratio: np.float32) -> Any:
    """``x M / 256``, half upwards, with an integer factor for each sign: XNNPACK's is coarse."""
    factors = (round(float(ratio) * 256), round(float(ratio * np.float32(slope)) * 256))
    return tf.floor((number * tf.where(number >= 0, *map(float, factors)) + 128) / 256)
