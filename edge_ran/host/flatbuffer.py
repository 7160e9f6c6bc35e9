"""A network in memory -> the bytes of a ``.tflite``, through TensorFlow's converter.

The graph is traced once at batch 1, frozen, and handed to the converter as it is: ``TFLiteConverter.from_keras_model``
traces it and saves a SavedModel that nobody needs, and takes several times longer (``benchmarks/conversion.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edge_ran import catalogue, graph
from edge_ran.card import InputSpec
from edge_ran.catalogue import Converter
from edge_ran.errors import InputError, UsageError, nearest
from edge_ran.host.calibration import representative

Network = Callable[[tf.Tensor], tf.Tensor]

# (weights, activations) that runtimes have kernels for.
_KINDS = (
    ("float32", "float32"),
    ("float16", "float32"),
    ("int8", "float32"),
    ("int8", "int8"),
    ("int8", "int16"),
)


def flatbuffer(
    network: Network, how: Converter, spec: InputSpec, pixels: NDArray[np.uint8] | None = None, *, io: str | None = None
) -> bytes:
    """Convert a network in memory as it stands, and return the ``.tflite`` file's bytes, without a card.

    Args:
        network: (1, H, W, 3) float32 -> (1, classes) float32; a Keras model, or any function TensorFlow can trace.
        pixels: (n, H, W, 3) uint8 calibration pictures; None where activations stay float, or where the network
            holds fake-quantisation operators.

    Raises:
        UsageError: the settings contradict each other.
        InputError: the converter refuses the network.
    """
    io = io or how.io
    check_settings(how, io)
    image = tf.TensorSpec((1, spec.height, spec.width, 3), tf.float32, name="image")  # browsers refuse a batch of -1
    traced = tf.function(lambda image: network(image), autograph=False).get_concrete_function(image)
    if how.activations == "float32" or pixels is not None:
        output = traced.graph.outputs[0].op.name
        converter = tf.compat.v1.lite.TFLiteConverter(
            _frozen(traced), None, None, input_arrays_with_shape=[(image.name, image.shape)], output_arrays=[output]
        )
    else:  # the interface above does not carry integer inputs through fake quantisation
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    if (how.weights, how.activations) != ("float32", "float32"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if how.weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if how.activations != "float32":
        sets = tf.lite.OpsSet
        integer = {
            "int8": sets.TFLITE_BUILTINS_INT8,
            "int16": sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        }
        # The float operators are for the normalisations of channel and spatial attention, which have no integer form.
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io)
        if pixels is not None:
            converter.target_spec.supported_ops = [integer[how.activations], sets.TFLITE_BUILTINS]
            converter.representative_dataset = lambda: representative(pixels, spec)
    try:
        made = converter.convert()
    except Exception as error:  # ConverterError, ValueError or RuntimeError, by the stage that failed
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"the converter refuses {how.name}: {reason}", "-v shows its whole log") from error
    return graph.relus_as_quantize(made) if how.activations == "int8" else made


def _frozen(traced: Any) -> tf.compat.v1.GraphDef:
    """Return a concrete function's graph with its variables as constants.

    The converter's own way from a concrete function to this graph imports and prunes it several times, and takes as
    long as the conversion itself.
    """
    variables = {id(variable.handle): variable for variable in traced.graph.variables}
    values = {
        inner.op.name: variables[id(outer)].numpy() if inner.dtype == tf.resource else outer.numpy()
        for outer, inner in traced.graph.captures
    }
    handles = {inner.op.name for _, inner in traced.graph.captures if inner.dtype == tf.resource}
    drawn = traced.graph.as_graph_def()
    frozen = tf.compat.v1.GraphDef(versions=drawn.versions, library=drawn.library)
    for node in drawn.node:
        source = node.input[0] if node.op == "ReadVariableOp" else node.name
        if node.name in handles:
            continue
        if source not in values:
            frozen.node.add().CopyFrom(node)
            continue
        constant = frozen.node.add(name=node.name, op="Const")
        constant.attr["dtype"].CopyFrom(node.attr["dtype"])
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values[source]))
    return frozen


def check_settings(how: Converter, io: str) -> None:
    """Raise UsageError or InputError where a converter and the type of input and output do not go together."""
    if (how.weights, how.activations) not in _KINDS:
        known = ", ".join(f"{weights}/{activations}" for weights, activations in _KINDS)
        what = f"converter {how.name}: no runtime has kernels for {how.weights} weights, {how.activations} activations"
        raise InputError(what, f"choose one of: {known}")
    if (how.activations == "float32") != (how.calibration == 0):
        what = f"converter {how.name}: {how.activations} activations with calibration = {how.calibration}"
        raise InputError(what, "quantised activations need calibration pictures, float ones none")
    if io not in catalogue.IO_TYPES:
        raise UsageError(f"--io {io!r} is unknown", nearest(io, catalogue.IO_TYPES))
    if how.activations != "int8" and io != "float32":
        raise UsageError(f"{how.name} computes in {how.activations}: its input cannot be {io}", "--io float32")
