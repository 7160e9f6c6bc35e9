"""The rounding network: what the integer file computes, in float32, layer by layer, so that it can be trained.

Jacob et al., *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, CVPR 2018.

It is made of the rewritten graph (``deploy.rewrite``), where every BatchNormalization is folded into a convolution.
tensorflow-model-optimization wraps every layer of it, with exactly the roundings of the file:

* weights: symmetric int8, one scale for each output channel; biases: int32, of (input's scale) * (weight's scale);
* activations: int8, one scale and zero point for each tensor that the file stores. A tensor that a runtime never
  stores (a convolution before its fused ReLU) is not rounded; pooling and resizing keep their input's scale; sigmoid
  has the fixed scale 1/256; the image has that of its pixels (default normalisation: the int8 input is pixel - 128).

A quantised run folder holds plain things: ``model.keras``, a float network without any wrapper whose weights and biases
lie on the integer grid (``snap``), and ``ranges.json``, the range of every stored tensor. The rounding network of the
two gives XNNPACK's answers bit by bit, but for float32 noise that tips a value over a tie about once in 100,000; the
``exact`` one, which has no gradients, computes in integers and gives every number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray
from tensorflow_model_optimization.quantization.keras import QuantizeWrapperV2, quantizers
from tf_keras import layers

from edge_ran.card import InputSpec
from edge_ran.errors import InputError
from edge_ran.files import read_bytes, write_text
from edge_ran.host.drawing import connect
from edge_ran.host.integer_layers import IntegerLayer, file_scale, is_integer
from edge_ran.host.networks import SpatialNormalization
from edge_ran.host.quantizers import (
    LEVELS,
    WEIGHT_LIMIT,
    WEIGHTED,
    HalfAway,
    HalfUp,
    OfPixels,
    Range,
    Rounding,
    channel_axes,
    largest,
    step,
)  # fmt: skip

Ranges = Mapping[str, tuple[float, float]]

PROBABILITY = (0.0, 255 / 256)  # scale 1/256, zero point -128: what runtimes demand of sigmoid and softmax
_NARROWEST, _WIDEST = 1e-30, 1e30  # of a range
_LARGEST_FACTOR = 128.0  # of a layer's sums; XNNPACK takes less than 256
UNIT = (-1.0, 127 / 128)  # scale 1/128, zero point 0: what they demand of an L2 normalisation

_FUSES_RELU = (*WEIGHTED, layers.Add, layers.Multiply)
# Every output is one of the inputs, or 0, which every range holds: they keep their input's scale.
_KEEPING = (
    *(layers.MaxPooling2D, layers.GlobalMaxPooling2D, layers.Flatten, layers.Reshape, layers.ZeroPadding2D),
    layers.Cropping2D,
)
_AVERAGING = (layers.UpSampling2D, layers.AveragePooling2D)  # they keep their input's scale, and round
_KNOWN = (
    *(layers.InputLayer, layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, layers.ReLU, layers.Activation),
    *(layers.Add, layers.Multiply, layers.Concatenate, layers.GlobalAveragePooling2D, layers.LeakyReLU),
    *(*_KEEPING, *_AVERAGING, layers.GroupNormalization, layers.UnitNormalization, SpatialNormalization),
)
_ACTIVATIONS = {"sigmoid": PROBABILITY, "softmax": PROBABILITY, "tanh": UNIT}
# What helps where a layer has no integer arithmetic here.
_REMEDIES = {
    layers.BatchNormalization: "give it a Conv2D or DepthwiseConv2D before it",
    layers.LayerNormalization: "BatchNormalization folds into a convolution",
    layers.Conv2DTranspose: "UpSampling2D and Conv2D do the same work",
    layers.ELU: "ReLU or swish",
    layers.PReLU: "ReLU or LeakyReLU",
    layers.Activation: "ReLU, swish (x * sigmoid(x)) or relu6",
}
_ENDS = (None, 6.0)  # of a ReLU that operators have as their own; one that ends elsewhere has no integer operator


# ------------------------------------------------------------------------------------------ which tensor is rounded


def check(model: tf_keras.Model) -> None:
    """Raise InputError where a rewritten network holds a layer whose integer arithmetic is not known here."""
    unknown = [layer for layer in model.layers if not _is_known(layer)]
    if unknown:
        first, config = unknown[0], unknown[0].get_config()
        activation = f" with {config['activation']}" if config.get("activation") else ""
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        what = f"layer {first.name}, {type(first).__name__}{activation}{more}, cannot be trained in int8 arithmetic"
        help_ = _REMEDIES.get(type(first), "")
        raise InputError(what, f"{help_ and f'{help_}; or '}edge-ran convert --int8, which calibrates it as it is")
    if not _is_softmax(model.output.node.layer):
        raise InputError(
            f"{model.name} does not end in a softmax: it gives no probabilities", "add an Activation layer"
        )


def _is_known(layer: layers.Layer) -> bool:
    config = layer.get_config()
    activations = tuple(_ACTIVATIONS) if isinstance(layer, layers.Activation) else ("linear", None)
    plain = not config.get("negative_slope") and not config.get("threshold")
    return type(layer) in _KNOWN and config.get("activation") in activations and plain


def float_layers(model: tf_keras.Model, ranges: Ranges) -> tuple[str, ...]:
    """Return the names of the layers that stay in float between two roundings, for want of an integer operator."""
    return tuple(layer.name for layer in model.layers if _stays_float(layer, ranges))


def _stays_float(layer: layers.Layer, ranges: Ranges) -> bool:
    capped = _is_capped(layer) and not _ends_with(layer, ranges[scale_owner(layer).name])
    return capped or isinstance(layer, layers.GroupNormalization)


def _is_capped(layer: layers.Layer) -> bool:
    """True for a ReLU that ends where no operator does."""
    return isinstance(layer, layers.ReLU) and layer.max_value not in _ENDS


def _ends_with(relu: layers.ReLU, limits: tuple[float, float]) -> bool:
    """True where rounding to a capped ReLU's range cuts off what the ReLU would; one of a concatenation is wider."""
    return limits[1] <= relu.max_value


def stored(layer: layers.Layer) -> bool:
    """True when the integer file stores this layer's output as a tensor that is rounded anew."""
    if _keeps_values(layer) or _is_answer(layer):  # the file's output is rounded by ``as_deployed``
        return False
    readers = _readers(layer)
    fused = isinstance(layer, _FUSES_RELU) and len(readers) == 1 and isinstance(readers[0], layers.ReLU)
    return not fused


def _is_fused(layer: layers.Layer) -> bool:
    """True for a ReLU that the file computes within the operator before it."""
    return isinstance(layer, layers.ReLU) and not (stored(_sources(layer)[0]) or _keeps_values(_sources(layer)[0]))


def scale_owner(layer: layers.Layer) -> layers.Layer:
    """Return the layer whose range this layer's output has: itself, an earlier one, or one it is concatenated with.

    A concatenation takes and gives one scale: whatever goes into it has it from the start.
    """
    own = _scale_source(layer)
    if _is_fixed(own):
        return own
    group = {own.name: own}
    waiting = [own]
    while waiting:
        last = waiting.pop()
        for other in (*_concatenations_of(last), *([last] if isinstance(last, layers.Concatenate) else [])):
            for one in (other, *map(_scale_source, _sources(other))):
                if one.name not in group and not _is_fixed(one):
                    group[one.name] = one
                    waiting.append(one)
    return group[min(group)]


def _concatenations_of(layer: layers.Layer) -> list[layers.Layer]:
    """The concatenations that a layer's output goes into at its scale."""
    found, waiting = [], [layer]
    while waiting:
        for reader in _readers(waiting.pop()):
            if isinstance(reader, layers.Concatenate) and not _keeps_values(reader):
                found.append(reader)
            elif _scale_source(reader) is not reader:
                waiting.append(reader)
    return found


def _is_fixed(layer: layers.Layer) -> bool:
    """True for a scale that runtimes or the pixels demand."""
    kinds = (layers.InputLayer, layers.UnitNormalization)
    return isinstance(layer, kinds) or (isinstance(layer, layers.Activation) and not _is_answer(layer))


def _scale_source(layer: layers.Layer) -> layers.Layer:
    """The layer whose scale this layer's output keeps: itself, or an earlier one."""
    while _keeps_values(layer) or isinstance(layer, _AVERAGING) or _chooses(layer):
        layer = _sources(layer)[0]
    return layer


def _keeps_values(layer: layers.Layer) -> bool:
    """True where every output is one of the inputs, or 0: also a rewrite's concatenation of a tensor with itself."""
    repeats = isinstance(layer, layers.Concatenate) and len({source.name for source in _sources(layer)}) == 1
    return repeats or isinstance(layer, _KEEPING)


def _chooses(layer: layers.Layer) -> bool:
    """True for a rewrite's depthwise convolution of ones and zeros: every second position, or its input itself."""
    return isinstance(layer, layers.DepthwiseConv2D) and not layer.trainable and not layer.use_bias


def _readers(layer: layers.Layer) -> list[layers.Layer]:
    return [node.outbound_layer for node in layer.outbound_nodes]


def _sources(layer: layers.Layer) -> list[layers.Layer]:
    return [node.layer for node in layer.inbound_nodes[0].parent_nodes]


def _is_softmax(layer: layers.Layer) -> bool:
    return isinstance(layer, layers.Activation) and tf_keras.activations.serialize(layer.activation) == "softmax"


def _is_answer(layer: layers.Layer) -> bool:
    """True for the softmax that the network ends in: one inside it, a gate, is rounded as a sigmoid is."""
    return _is_softmax(layer) and not _readers(layer)


def _fixed_range(layer: layers.Layer, spec: InputSpec) -> tuple[float, float] | None:
    if isinstance(layer, layers.InputLayer):
        ends = [((p - m) / s) for p in (0, 255) for m, s in zip(spec.mean, spec.std, strict=True)]
        low, high = min(0.0, *ends), max(0.0, *ends)
        # Zero is a number of every range; where it lies between two, as with a mean of 127.5, all must take the same.
        scale = (high - low) / LEVELS
        zero = math.floor(-low / scale + 0.5 + 2**-10)
        return -zero * scale, (LEVELS - zero) * scale
    if isinstance(layer, layers.UnitNormalization):
        return UNIT
    if isinstance(layer, layers.Activation):
        return _ACTIVATIONS.get(tf_keras.activations.serialize(layer.activation))
    return None


# ------------------------------------------------------------------------------------------------------ ranges


def calibrate(model: tf_keras.Model, pixels: NDArray[np.uint8], spec: InputSpec, batch: int = 16) -> Ranges:
    """Measure the range of every stored tensor: the mean over small batches of each batch's extremes.

    Single outliers are so given up: small batches answer closer to the float network than large ones.

    Args:
        model: a rewritten float network (``deploy.rewrite``).
        pixels: (N, H, W, 3) uint8 of the training pictures.

    Returns:
        layer name -> (lowest, highest), zero included. Layers whose range is fixed are in it, too.
    """
    owners = [layer for layer in model.layers if stored(layer) and _scale_source(layer) is layer]
    ranges = {layer.name: fixed for layer in owners if (fixed := _fixed_range(layer, spec))}
    measured = [layer for layer in owners if layer.name not in ranges]
    probe = tf_keras.Model(model.input, [layer.output for layer in measured])
    mean, std = tf.constant(spec.mean, tf.float32), tf.constant(spec.std, tf.float32)

    @tf.function(reduce_retracing=True, autograph=False)
    def extremes(x: tf.Tensor) -> tf.Tensor:
        outputs = tf.nest.flatten(probe((tf.cast(x, tf.float32) - mean) / std, training=False))  # one is no list
        return tf.stack([[tf.reduce_min(o), tf.reduce_max(o)] for o in outputs])

    found = np.mean([extremes(pixels[i : i + batch]).numpy() for i in range(0, len(pixels), batch)], axis=0)
    for layer, (low, high) in zip(measured, found.astype(float), strict=True):
        owner = scale_owner(layer).name
        before = ranges.get(owner, (0.0, 1e-6))
        ranges[owner] = (min(low, before[0]), max(high, before[1]))
    for layer in measured:
        owner = scale_owner(layer)
        own = isinstance(layer, layers.ReLU) and layer.max_value is None and owner is layer
        if own and not _is_fused(layer):
            # Nothing is rounded where the scale stays as it is: the numbers below zero are cut off, no more.
            ranges[layer.name] = (0.0, LEVELS * step(ranges[scale_owner(_sources(layer)[0]).name]))
        low, high = ranges[owner.name]
        ranges[owner.name] = (low, max(high, low + LEVELS * _least_step(layer, ranges)))
    return ranges


def _least_step(layer: layers.Layer, ranges: Ranges) -> float:
    """The least step that a convolution or dense layer may write: XNNPACK multiplies its sums by less than 256.

    For a larger factor it would run no operator at all. A layer has one that is 0 on all calibration pictures.
    """
    summing = _sources(layer)[0] if _is_fused(layer) else layer
    if not isinstance(summing, WEIGHTED) or _chooses(summing):
        return 0.0
    (source,) = _sources(summing)
    return step(ranges[scale_owner(source).name]) * float(weight_scales(summing).max()) / _LARGEST_FACTOR


def save_ranges(ranges: Ranges, path: Path) -> None:
    """Write the ranges as JSON, atomically."""
    write_text(path, json.dumps({name: list(limits) for name, limits in ranges.items()}, indent=1))


def load_ranges(path: Path) -> Ranges:
    """Read ``ranges.json``. Raises InputError when it is damaged."""
    try:
        record = json.loads(read_bytes(path, "ranges"))
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in record.items()}
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}", "quantise the run again") from error
    if not all(low <= 0 <= high and low < high and math.isfinite(high - low) for low, high in ranges.values()):
        raise InputError(f"{path} holds a range that does not include zero", "quantise the run again")
    # The converter computes in float32; where a scale overflows or vanishes there, it ends the process.
    if not all(_NARROWEST < high - low < _WIDEST for low, high in ranges.values()):
        raise InputError(f"{path} holds a range that no float32 numbers have", "quantise the run again")
    return ranges


# ----------------------------------------------------------------------------------------- the rounding network


def fake_quantise(
    model: tf_keras.Model, ranges: Ranges, *, for_converter: bool = False, exact: bool = False
) -> tf_keras.Model:
    """Wrap every layer so that it computes what the integer file computes, in float32, and can be trained.

    Args:
        model: a rewritten float network; it is left as it is, and its weights are copied.
        ranges: of ``calibrate``.
        for_converter: leave the resized tensors' rounding to the converter, which knows that they keep their scale;
            the arithmetic that breaks ties as runtimes do would become operators of the file. Weights are rounded
            here and now: the converter finds their scales, but does not fold the arithmetic of large ones away. A
            ReLU's end is left to its range where that does the same: most ends have no operator.
        exact: compute integers (``integer_layers``), to compare with the file and not to be trained.

    Returns:
        (H, W, 3) float32 -> (classes,) float32 probabilities, not rounded, so that their logarithm can be learnt.

    Raises:
        InputError: a stored tensor has no range.
    """

    def limits_of(layer: layers.Layer) -> tuple[float, float]:
        owner = scale_owner(layer).name
        if owner not in ranges:
            raise InputError(f"layer {owner} has no range: the ranges are of another network", "quantise the run again")
        return ranges[owner]

    def range_of(layer: layers.Layer) -> quantizers.Quantizer:
        kinds = {layers.UpSampling2D: HalfUp, layers.AveragePooling2D: HalfAway}
        if not for_converter:
            kinds[layers.InputLayer] = OfPixels
        return kinds.get(type(layer), Range)(limits_of(layer))

    tensors: dict[str, Any] = {}
    for layer in model.layers:
        rounded = stored(layer) and not (for_converter and isinstance(layer, _AVERAGING))
        output = range_of(layer) if rounded else None
        ends = _is_capped(layer) and _ends_with(layer, limits_of(layer))
        if isinstance(layer, layers.InputLayer):
            x = layers.Input(layer.input_shape[0][1:], name=layer.name)
            image, inner = x, layers.Activation("linear", name=f"{layer.name}_pixels")
        else:
            sources = [tensors[source.name] for source in _sources(layer)]
            x = sources if len(sources) > 1 else sources[0]
            inner = type(layer).from_config(layer.get_config())
            if ends and for_converter:
                inner.max_value = None
            if layer.weights:
                inner.build(layer.input_shape)
                inner.set_weights(layer.get_weights())
        if exact and (ends or is_integer(layer)) and not (_chooses(layer) or _is_fused(layer)):
            written = layer if rounded else _readers(layer)[0]
            read = [file_scale(limits_of(source)) for source in _sources(layer)]
            whole = IntegerLayer(inner, read, file_scale(limits_of(written)), output)
            whole.compute_output_shape = lambda given, shape=layer.output.shape: shape
            tensors[layer.name] = connect(whole, x)
            continue
        if for_converter:
            _round_kernel(inner)
        rounding = Rounding(output, inner.weights, rounds_weights=not for_converter)
        wrapper = QuantizeWrapperV2(inner, rounding, name_prefix="")
        wrapper.call = tf.autograph.experimental.do_not_convert(wrapper.call)  # nothing to convert, and 20 ms a layer
        wrapper.compute_output_shape = lambda given, shape=layer.output.shape: shape
        tensors[layer.name] = connect(wrapper, x)
    return tf_keras.Model(image, tensors[model.output.node.layer.name], name=model.name)


def take_weights(model: tf_keras.Model, trained: tf_keras.Model) -> None:
    """Copy what a rounding network has learnt back into the rewritten float network that it was made of."""
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([v.numpy() for v in trained.get_layer(layer.name).quantize_config.variables])


def weight_scales(layer: layers.Layer) -> NDArray[np.float32]:
    """Return the scale of each output channel of a convolution or dense layer, (channels,)."""
    limits = largest(tf.convert_to_tensor(layer.get_weights()[0]), channel_axes(layer))
    return np.asarray(limits, np.float32).ravel() / np.float32(WEIGHT_LIMIT)


def snap(model: tf_keras.Model, ranges: Ranges) -> None:
    """Put every weight and bias of a rewritten float network on the grid of the integer file, in place.

    Weights are multiples of their channel's scale, biases of (input's scale) * (weight's scale), as the file's int32
    biases are. Afterwards the network's numbers are the file's numbers.
    """
    for layer in model.layers:
        if not isinstance(layer, WEIGHTED):
            continue
        scales = weight_scales(layer)
        kernel, *biases = layer.get_weights()
        by_channel = scales.reshape(kernel.shape[2:]) if isinstance(layer, layers.DepthwiseConv2D) else scales
        kernel = np.round(kernel / by_channel) * by_channel
        (source,) = _sources(layer)
        steps = step(ranges[scale_owner(source).name]) * scales.astype(np.float64)
        layer.set_weights([kernel, *((np.round(bias / steps) * steps).astype(np.float32) for bias in biases)])


def as_deployed(model: tf_keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return the function that the integer file computes: a fake-quantised network with its output rounded, too."""
    return lambda image: tf.quantization.fake_quant_with_min_max_args(model(image, training=False), *PROBABILITY)


def _round_kernel(layer: layers.Layer) -> None:
    """Put a layer's kernel on its int8 grid, in place."""
    if isinstance(layer, WEIGHTED) and layer.trainable:
        kernel, *bias = layer.get_weights()
        scale = largest(tf.convert_to_tensor(kernel), channel_axes(layer)).numpy() / np.float32(WEIGHT_LIMIT)
        layer.set_weights([np.round(kernel / scale) * scale, *bias])
