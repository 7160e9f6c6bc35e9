"""Make the tiny networks that the tests of the device side run: ``python tests/models/make.py`` (needs the host extra).

``python tests/models/make.py NAME …`` makes some of them only.

They are kept in the repository, so that those tests need no TensorFlow and their golden answers stay put. Each tells
red, green and blue pictures of 16x16 pixels apart, with one of every operator that matters: a residual unit with
stride, an attention mask with pooling, bilinear upsampling and a sigmoid.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import colours
import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

HERE = Path(__file__).parent


def network(strided: bool, softmax: bool = True) -> tf_keras.Model:
    """``strided``: the residual unit's shortcut is one 1x1 convolution of stride 2, which GPUs get wrong in int8."""
    pixels = layers.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(pixels)
    kept = x if strided else layers.MaxPool2D(1, 2)(x)
    shortcut = layers.Conv2D(16, 1, strides=2 if strided else 1, name="shortcut")(kept)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    # Faint and fixed, so that the answers hang on the shortcut.
    faint = layers.Conv2D(16, 1, kernel_initializer=tf_keras.initializers.RandomNormal(0, 0.02), trainable=False)
    x = layers.Add()([faint(x), shortcut])
    mask = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPool2D(2)(x))
    mask = layers.UpSampling2D(2, interpolation="bilinear")(mask)
    mask = layers.Conv2D(16, 1, activation="sigmoid")(mask)
    trunk = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.Add()([trunk, layers.Multiply()([mask, trunk])])
    x = layers.GlobalAveragePooling2D()(x)
    return tf_keras.Model(pixels, layers.Dense(3, activation="softmax" if softmax else None)(x))


def attentive() -> tf_keras.Model:
    """Two attention modules, of 16x16 and 8x8 cells, with the layers named as ``edge_ran.host.networks`` names them."""
    pixels = layers.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(pixels)
    for stage in (1, 2):
        name = f"stage{stage}_module1"
        mask = layers.Conv2D(8, 3, padding="same", activation="relu", name=f"{name}_mask_up1")(layers.MaxPool2D(2)(x))
        mask = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_mask_up1_resize")(mask)
        mask = layers.Conv2D(8, 1, name=f"{name}_mask_tail1_conv")(mask)
        mask = layers.Activation("sigmoid", name=f"{name}_mask_sigmoid")(mask)
        trunk = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        x = layers.Add(name=f"{name}_residual")([trunk, layers.Multiply(name=f"{name}_gate")([mask, trunk])])
        if stage == 1:
            x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    return tf_keras.Model(pixels, layers.Dense(3, activation="softmax")(x))


def pictures(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noise with one colour channel brighter -> (count, 16, 16, 3) float32 in [-1, 1), (count,) classes."""
    classes = rng.integers(0, 3, count)
    pixels = rng.uniform(0, 160, (count, 16, 16, 3))
    pixels[np.arange(count), :, :, classes] += 90
    return ((pixels - 128) / 128).astype(np.float32), classes


def convert(model: tf_keras.Model, quantised: bool, io: type = tf.float32, weights: type = tf.float32) -> bytes:
    signature = tf.TensorSpec((1, 16, 16, 3), tf.float32, name="image")
    function = tf.function(lambda x: model(x, training=False), input_signature=[signature])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    if quantised:
        # Corners of the range make the input's scale 1/128: its int8 values are pixel - 128.
        corners = np.where(np.arange(3) > 0, -1, 127 / 128) * np.ones((1, 16, 16, 3))
        calibration = [*pictures(50, np.random.default_rng(2))[0][:, None], corners.astype(np.float32)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture] for picture in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = io
    if weights == tf.float16:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def trained(build: Callable[[], tf_keras.Model]) -> tf_keras.Model:
    tf_keras.utils.set_random_seed(0)
    model = build()
    # Smoothed labels keep the answers away from 0 and 1, where differences between runtimes would not show.
    loss = tf_keras.losses.CategoricalCrossentropy(label_smoothing=0.4)
    model.compile(tf_keras.optimizers.Adam(3e-3), loss)
    x, y = pictures(600, np.random.default_rng(1))
    model.fit(x, np.eye(3)[y], epochs=4, verbose=0)
    return model


def golden(model: tf_keras.Model) -> dict[str, list]:
    """What Keras itself answers to the three pictures of ``colours.py``, to hold every runtime against."""
    frames = np.stack([colours.frame(label)[:, :, ::-1] for label in colours.LABELS])
    answers = np.asarray(model((frames.astype(np.float32) - 128) / 128, training=False), np.float64).round(6)
    return {label: answer.tolist() for label, answer in zip(colours.LABELS, answers, strict=True)}


def golden_masks(model: tf_keras.Model) -> dict[str, dict[str, list]]:
    """The masks' means over their channels, by module, for the same pictures."""
    gates = [layer for layer in model.layers if layer.name.endswith("_gate")]
    means = {gate.name.removesuffix("_gate"): tf.reduce_mean(gate.input[0], -1) for gate in gates}
    return {module: golden(tf_keras.Model(model.input, mean)) for module, mean in means.items()}


def two_inputs() -> bytes:
    a, b = layers.Input((4,), batch_size=1), layers.Input((4,), batch_size=1)
    converter = tf.lite.TFLiteConverter.from_keras_model(tf_keras.Model([a, b], layers.Add()([a, b])))
    return converter.convert()


def self_product() -> bytes:
    """A classifier with the product of a tensor and itself, on which LiteRT 2.3's GPU delegate ends the process."""
    signature = tf.TensorSpec((1, 16, 16, 3), tf.float32, name="image")
    weights = np.random.default_rng(0).normal(0, 0.1, (256, 3)).astype(np.float32)

    def function(image: tf.Tensor) -> tf.Tensor:
        x = tf.reduce_mean(image, -1)
        return tf.nn.softmax(tf.reshape(tf.matmul(x, x), (1, 256)) @ weights)

    concrete = tf.function(function).get_concrete_function(signature)
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()


def mean_colour(image: tf.Tensor) -> tf.Tensor:
    """(1, H, W, 3) float32 in [-1, 1] -> (1, 3) logits, the largest for the brightest channel; of any size."""
    return 6.0 * tf.reduce_mean(image, [1, 2]) - 1.0


def written(
    function: Callable[[tf.Tensor], tf.Tensor],
    shape: tuple[int | None, ...] = (1, 16, 16, 3),
    dtype: tf.DType = tf.float32,
    calibration: np.ndarray | None = None,
) -> bytes:
    """Convert a function of one picture; with ``calibration``, (N, 16, 16, 3), to uint8."""
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(shape, dtype, name="image"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([picture[None]] for picture in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    return converter.convert()


def foreign() -> dict[str, Callable[[], bytes]]:
    """Classifiers of the mean colour in forms that other converters and people write."""
    softmax = tf.nn.softmax
    ends = np.stack([np.full((16, 16, 3), value, np.float32) for value in (-1, 1)])
    whole = np.concatenate([pictures(40, np.random.default_rng(3))[0], ends])

    def without_background(image: tf.Tensor) -> tf.Tensor:
        return softmax(tf.concat([tf.zeros((1, 1)), mean_colour(image)], 1))[:, 1:]

    return {
        "raw_uint8.tflite": lambda: written(
            lambda x: softmax(mean_colour(tf.cast(x, tf.float32) / 127.5 - 1)), dtype=tf.uint8
        ),
        "raw_int32.tflite": lambda: written(
            lambda x: softmax(mean_colour(tf.cast(x, tf.float32) / 127.5 - 1)), dtype=tf.int32
        ),
        "float16_io.tflite": lambda: written(
            lambda x: tf.cast(softmax(mean_colour(tf.cast(x, tf.float32))), tf.float16), dtype=tf.float16
        ),
        "any_size.tflite": lambda: written(lambda x: softmax(mean_colour(x)), (None, None, None, 3)),
        "any_size_map.tflite": lambda: written(lambda x: softmax(6.0 * x), (None, None, None, 3)),
        "ensemble.tflite": lambda: written(lambda x: (softmax(mean_colour(x)) + softmax(mean_colour(0.9 * x))) / 2),
        "without_background.tflite": lambda: written(without_background),
        "overflowing.tflite": lambda: written(
            lambda x: softmax(mean_colour(x) * 1e38 * 1e38 - 1e38 * mean_colour(x) * 1e38)
        ),
        "channels_first.tflite": lambda: written(
            lambda x: softmax(mean_colour(tf.transpose(x, (0, 2, 3, 1)))), (1, 3, 16, 16)
        ),
        "grey_of_two.tflite": lambda: written(
            lambda x: tf.sigmoid(8 * tf.reshape(tf.reduce_mean(x), (1, 1))), (1, 16, 16)
        ),
        "two_heads.tflite": lambda: written(
            lambda x: (softmax(mean_colour(x)), softmax(8 * tf.reduce_mean(x, [1, 2]) @ np.float32([[0, 1]] * 3)))
        ),
        "uint8_0_to_1.tflite": lambda: written(lambda x: softmax(mean_colour(2 * x - 1)), calibration=(whole + 1) / 2),
        "uint8_-1_to_1.tflite": lambda: written(lambda x: softmax(mean_colour(x)), calibration=whole),
    }


def main(chosen: list[str]) -> None:
    good, strided, attention = (
        trained(build) for build in (partial(network, False), partial(network, True), attentive)
    )
    logits = network(strided=False, softmax=False)
    logits.set_weights(good.get_weights())
    made: dict[str, Callable[[], bytes]] = {
        "float32.tflite": lambda: convert(good, quantised=False),
        "float16.tflite": lambda: convert(good, quantised=False, weights=tf.float16),
        "int8.tflite": lambda: convert(good, quantised=True, io=tf.int8),
        "uint8.tflite": lambda: convert(good, quantised=True, io=tf.uint8),
        "int8_float_io.tflite": lambda: convert(good, quantised=True),
        "int8_strided.tflite": lambda: convert(strided, quantised=True, io=tf.int8),
        "int8_strided_float_io.tflite": lambda: convert(strided, quantised=True),
        "logits.tflite": lambda: convert(logits, quantised=False),
        "any_batch.tflite": lambda: tf.lite.TFLiteConverter.from_keras_model(good).convert(),
        "two_inputs.tflite": two_inputs,
        "self_product.tflite": self_product,
        "attention.tflite": lambda: convert(attention, quantised=True, io=tf.uint8),
        "attention_float32.tflite": lambda: convert(attention, quantised=False),
        **foreign(),
        "golden.json": lambda: as_json(golden(good)),
        "golden_attention.json": lambda: as_json({"scores": golden(attention), "masks": golden_masks(attention)}),
    }
    for name in chosen or made:
        (HERE / name).write_bytes(data := made[name]())
        print(f"{name} {len(data)} bytes")


def as_json(record: dict) -> bytes:
    return (json.dumps(record) + "\n").encode()


if __name__ == "__main__":
    main(sys.argv[1:])
