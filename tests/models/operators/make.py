"""Make files of one operator each, for the tests of ``edge_ran.graph``: ``python tests/models/operators/make.py``.

Named ``<operator>.<precision>.tflite``; needs the host extra. Kept in the repository, so that the tests need no
TensorFlow: what XNNPACK and GPUs take is measured on them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
RANDOM = np.random.default_rng(0)


def weights(*shape: int) -> tf.Tensor:
    return tf.constant(RANDOM.normal(0, 0.3, shape).astype(np.float32))


def conv(kernel: int, inputs: int, outputs: int, stride: int = 1) -> Callable:
    return lambda x: tf.nn.conv2d(x, weights(kernel, kernel, inputs, outputs), stride, "SAME") + weights(outputs)


def depthwise(kernel: int, stride: int) -> Callable:
    return lambda x: tf.nn.depthwise_conv2d(x, weights(kernel, kernel, 8, 1), [1, stride, stride, 1], "SAME")


OPERATORS: dict[str, Callable] = {
    "conv": conv(3, 8, 8),
    "conv_1x1_stride2": conv(1, 8, 8, 2),
    "conv_3x3_stride2": conv(3, 8, 8, 2),
    "conv_groups_of_4": conv(3, 4, 8),
    "conv_groups_of_2": conv(3, 2, 8),
    "depthwise": depthwise(3, 1),
    "depthwise_1x1_stride2": depthwise(1, 2),
    "transpose_conv": lambda x: tf.nn.conv2d_transpose(x, weights(3, 3, 4, 8), [1, 16, 16, 4], 2),
    "dense": lambda x: tf.matmul(tf.reshape(x, (1, 512)), weights(512, 5)) + weights(5),
    "matmul": lambda x: tf.matmul(x, tf.nn.relu6(x), transpose_b=True),
    "add": lambda x: x + tf.sigmoid(x),
    "add_far_scales": lambda x: x + tf.constant(np.full(8, 1e-4, np.float32)),
    "mul": lambda x: x * tf.sigmoid(x),
    "relu": tf.nn.relu,
    "hard_swish": lambda x: x * tf.nn.relu6(x + 3) / 6,
    "tanh": tf.tanh,
    "softmax": tf.nn.softmax,
    "log_softmax": tf.nn.log_softmax,
    "l2_norm": lambda x: tf.nn.l2_normalize(x, -1),
    "max_pool": lambda x: tf.nn.max_pool2d(x, 2, 2, "VALID"),
    "max_pool_1x1_stride2": lambda x: tf.nn.max_pool2d(x, 1, 2, "VALID"),
    "average_pool": lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID"),
    "mean": lambda x: tf.reduce_mean(x, [1, 2]),
    "resize_bilinear": lambda x: tf.image.resize(x, (16, 16)),
    "resize_nearest": lambda x: tf.image.resize(x, (16, 16), "nearest"),
    "slice": lambda x: x[:, 1:5, 1:5],
    "slice_stride2": lambda x: x[:, ::2, ::2],
    "reshape_5d": lambda x: tf.reshape(x, (1, 8, 8, 2, 4)) * 2.0,
    "arg_max": lambda x: tf.argmax(x, -1, tf.int32),
}


def convert(function: Callable, precision: str, batch: int | None = 1, channels: int = 8) -> bytes:
    signature = tf.TensorSpec((batch, 8, 8, channels), tf.float32, name="x")
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [tf.function(function).get_concrete_function(signature)]
    )
    if precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    ops = tf.lite.OpsSet
    if precision.startswith("int"):
        calibration = np.random.default_rng(1).uniform(-1, 1, (10, 1, 8, 8, channels)).astype(np.float32)
        converter.representative_dataset = lambda: ([x] for x in calibration)
        quantised = ops.TFLITE_BUILTINS_INT8
        if precision == "int16x8":
            quantised = ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [quantised, ops.TFLITE_BUILTINS]
    return converter.convert()


def main() -> None:
    files = {f"{name}.{kind}": convert(f, kind) for name, f in OPERATORS.items() for kind in ("fp32", "int8")}
    files["conv.int16x8"] = convert(OPERATORS["conv"], "int16x8")
    files["conv.any_batch"] = convert(OPERATORS["conv"], "fp32", batch=None)
    # The converter leaves kernels of less than 1,024 numbers in float.
    files["conv.fp16"] = convert(conv(3, 16, 16), "fp16", channels=16)
    files["conv.dynamic"] = convert(conv(3, 16, 16), "dynamic", channels=16)
    files["conv_1x1_stride2.dynamic"] = convert(conv(1, 32, 32, 2), "dynamic", channels=32)
    for name, data in files.items():
        (HERE / f"{name}.tflite").write_bytes(data)


if __name__ == "__main__":
    main()
