"""Networks whose numbers outgrow float32. The converter's quantiser ends the whole process for them."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran.card import InputSpec
from edge_ran.errors import InputError
from edge_ran.preprocess import normalise

LARGEST = 1e30  # of what a layer computes; a scale and its sums must still be float32 numbers


def check_activations(model: tf_keras.Model, pixels: NDArray[np.uint8], spec: InputSpec) -> None:
    """Raise InputError where a layer's output for one of a few pictures, (n, H, W, 3) uint8, is no sensible number."""
    layers = [layer for layer in model.layers if not isinstance(layer, tf_keras.layers.InputLayer)]
    probe = tf_keras.Model(model.input, [layer.output for layer in layers])
    for picture in pixels[:: max(1, len(pixels) // 2)][:2]:
        for layer, output in zip(layers, probe(normalise(picture[None], spec), training=False), strict=True):
            largest = float(tf.reduce_max(tf.abs(output)))
            if not largest < LARGEST:  # nor where it is NaN
                what = f"layer {layer.name} computes {largest:.2g}: such numbers cannot be quantised"
                raise InputError(what, "its training diverged: train again with a lower learning rate")
