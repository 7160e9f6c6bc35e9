"""What the rounding network does to a layer's weights and output: quantizers of tensorflow-model-optimization."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_model_optimization.quantization.keras import QuantizeConfig, quantizers
from tf_keras import layers

from edge_ran.preprocess import NEARLY_TIED

LEVELS = 255  # steps between the ends of an int8 range
WEIGHT_LIMIT = 127  # symmetric: -128 is not used
WEIGHTED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)


def step(limits: tuple[float, float]) -> float:
    """Return the scale of an int8 tensor of that range."""
    low, high = limits
    return (high - low) / LEVELS


def channel_axes(layer: layers.Layer) -> tuple[int, ...]:
    """Return the axes of a kernel that tell its output channels apart."""
    return (2, 3) if isinstance(layer, layers.DepthwiseConv2D) else (-1,)


def largest(kernel: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    kept = {axis % kernel.shape.rank for axis in axes}
    others = [i for i in range(kernel.shape.rank) if i not in kept]
    return tf.maximum(tf.reduce_max(tf.abs(kernel), others, keepdims=True), 1e-12)


class Weights(quantizers.Quantizer):
    """Symmetric int8 with a scale for each output channel, from the weights as they are at this step."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def build(self, tensor_shape: Any, name: str, layer: layers.Layer) -> dict[str, Any]:
        return {}

    def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        scale = tf.stop_gradient(largest(inputs, self.axes) / WEIGHT_LIMIT)
        # No value lies outside the range, so the gradient passes straight through. Plain arithmetic instead of a
        # fake-quantisation operator: the converter folds it into a constant and finds the same scales, for dense
        # layers as well, where it fails on an operator with a scale for each channel.
        return inputs + tf.stop_gradient(tf.round(inputs / scale) * scale - inputs)

    def get_config(self) -> dict[str, Any]:
        return {"axes": self.axes}


class Range(quantizers.Quantizer):
    """int8 between two ends, measured before training; what lies outside is clipped and has no gradient."""

    def __init__(self, limits: tuple[float, float]) -> None:
        self.limits = limits

    def build(self, tensor_shape: Any, name: str, layer: layers.Layer) -> dict[str, Any]:
        return {}

    def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        return tf.quantization.fake_quant_with_min_max_args(inputs, *self.limits)

    def get_config(self) -> dict[str, Any]:
        return {"limits": self.limits}


class HalfUp(Range):
    """A resized or averaged tensor's rounding: its input's range, ties upwards as XNNPACK's interpolation has them.

    Bilinear doubling mixes steps in sixteenths, so that a sixteenth of the values are ties, which float32 noise would
    break at random; the next values lie a sixteenth of a step away.
    """

    def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        return super().__call__(inputs + step(self.limits) / 64, training, weights)


class OfPixels(Range):
    """A picture's rounding, as ``preprocess.quantise`` has it: with the mean 127.5 each pixel is a tie and goes up."""

    def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        return super().__call__(inputs + step(self.limits) * NEARLY_TIED, training, weights)


class HalfAway(Range):
    """An average's rounding in integers: ties away from the number 0 of the tensor, which is not the value 0."""

    def __call__(self, inputs: tf.Tensor, training: bool, weights: dict[str, Any], **kwargs: Any) -> tf.Tensor:
        scale = step(self.limits)
        number_zero = (LEVELS // 2 + 1 - round(-self.limits[0] / scale)) * scale
        away = tf.where(inputs >= number_zero, np.float32(scale / 64), np.float32(-scale / 64))
        return super().__call__(inputs + away, training, weights)


class Rounding(QuantizeConfig):
    """What one layer rounds: its weights, if it has any, and its output, if the file stores it."""

    def __init__(
        self, output: quantizers.Quantizer | None, variables: list[tf.Variable], rounds_weights: bool = True
    ) -> None:
        self.output = output
        self.rounds_weights = rounds_weights
        self.variables = list(variables)  # the wrapper puts tensors in their place

    def get_weights_and_quantizers(self, layer: layers.Layer) -> list[tuple[Any, quantizers.Quantizer]]:
        if not (
            self.rounds_weights and isinstance(layer, WEIGHTED) and layer.trainable
        ):  # the ones and zeros of a choice are exact
            return []
        return [(getattr(layer, self._kernel(layer)), Weights(channel_axes(layer)))]

    def get_activations_and_quantizers(self, layer: layers.Layer) -> list[Any]:
        return []

    def set_quantize_weights(self, layer: layers.Layer, quantize_weights: list[Any]) -> None:
        for kernel in quantize_weights:
            setattr(layer, self._kernel(layer), kernel)

    def set_quantize_activations(self, layer: layers.Layer, quantize_activations: list[Any]) -> None:
        pass

    def get_output_quantizers(self, layer: layers.Layer) -> list[quantizers.Quantizer]:
        return [self.output] if self.output else []

    def get_config(self) -> dict[str, Any]:
        return {}

    @staticmethod
    def _kernel(layer: layers.Layer) -> str:
        return "depthwise_kernel" if isinstance(layer, layers.DepthwiseConv2D) else "kernel"
