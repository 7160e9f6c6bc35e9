"""Operator layers, arithmetic on Keras tensors in a script (``x * 2 + 1``, ``tf.nn.relu(x)``), as the plain layers that
compute the same. Keras 2 writes them as TFOpLambda with TensorFlow's names, Keras 3 as operations with its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ran.errors import InputError
from edge_ran.host.importing.lambdas import Affine, OverChannels, OverPicture
from edge_ran.host.importing.source import Source, shown
from edge_ran.host.rewrites import LayerGraph


class Tensor(str):
    """The name of a node, as opposed to a text among a call's arguments."""


class Builder(Protocol):
    """What adds layers to the graph that is read."""

    source: Source
    graph: LayerGraph

    def add(
        self, kind: str, settings: dict[str, Any], inputs: list[str], name: str,
        weights: list[NDArray[Any]] | None = None,
    ) -> str:  # fmt: skip
        """Add a layer; return its name."""

    def affine(self, found: Affine, source: str, name: str) -> str:
        """Add ``scale * x + offset``."""

    def activation(self, activation: Any, source: str, name: str) -> str:
        """Add an activation."""


# TensorFlow's and Keras 3's names -> one name.
_NAMES = {
    "sub": "subtract", "mul": "multiply", "truediv": "divide", "true_divide": "divide", "div": "divide",
    "realdiv": "divide", "neg": "negative", "reduce_mean": "mean", "reduce_max": "max", "amax": "max",
    "concat": "concatenate", "silu": "swish", "hard_silu": "hard_swish", "clip_by_value": "clip",
    "addv2": "add", "hardsigmoid": "hard_sigmoid", "re_lu": "relu",
}  # fmt: skip
_ACTIVATIONS = frozenset(
    [
        "relu",
        "relu6",
        "sigmoid",
        "tanh",
        "elu",
        "selu",
        "softplus",
        "swish",
        "hard_sigmoid",
        "hard_swish",
        "gelu",
        "leaky_relu",
        "softmax",
    ]
)
_SAME = frozenset(("identity", "stop_gradient", "cast", "convert_to_tensor"))
_MERGES = {"add": "Add", "subtract": "Subtract", "multiply": "Multiply", "maximum": "Maximum", "minimum": "Minimum"}
_OPERANDS = ("x", "y", "x1", "x2", "a", "b", "input", "inputs", "features", "logits", "tensor", "t", "value", "values")


def operator_layers(
    builder: Builder, name: str, record: dict[str, Any], args: list[Any], kwargs: dict[str, Any]
) -> str:
    """Add the layers that an operator layer stands for; return the name of the last.

    Raises:
        InputError: the operator is not known here.
        ValueError: its arguments are not what it takes.
    """
    operator = _operator(record)
    operands = _operands(args, kwargs)
    settings = {key: value for key, value in kwargs.items() if key not in _OPERANDS and value is not None}
    config = record.get("config")
    if isinstance(config, dict):  # Keras 3 keeps an operation's settings there
        own = {key: value for key, value in config.items() if key not in ("name", "function", "dtype", "trainable")}
        settings = {**{key: value for key, value in own.items() if value is not None}, **settings}
    found = _unary(builder, name, operator, operands, settings) or _binary(builder, name, operator, operands)
    if found is None:
        raise InputError(
            f"{builder.source.path}: layer {shown(name)} is the operator {shown(operator)}, which is not known here",
            "replace it in the script by a layer of Keras, and save the network again",
        )
    return found


def _operator(record: dict[str, Any]) -> str:
    if record.get("class_name") == "SlicingOpLambda":
        return "getitem"
    config = record.get("config")
    function = config.get("function") if isinstance(config, dict) else None
    if isinstance(function, str):
        word = function.rsplit(".", 1)[-1]
    else:
        word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", str(record.get("class_name")))
    word = word.lower()
    return _NAMES.get(word, word)


def _operands(args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The values that it works on: positional ones, then those by name."""
    first = list(args)
    if len(first) == 1 and isinstance(first[0], list) and not any(isinstance(one, Tensor) for one in first[0]):
        first = first[0]
    return first + [kwargs[key] for key in _OPERANDS if kwargs.get(key) is not None]


def _unary(
    builder: Builder, name: str, operator: str, operands: list[Any], settings: dict[str, Any]
) -> str | None:  # what works on one tensor
    x, *rest = operands or [None]
    if operator == "concatenate" and isinstance(x, list) and all(isinstance(one, Tensor) for one in x):
        rank = len(builder.graph.nodes[x[0]].shape) + 1
        axis = settings.get("axis", rest[0] if rest else -1)
        return builder.add("Concatenate", {"axis": _axis(axis, rank)}, x, name)
    if not isinstance(x, Tensor):
        return None
    shape = builder.graph.nodes[x].shape
    if operator in _ACTIVATIONS:
        return _activation(builder, name, operator, x, settings)
    if operator in _SAME:
        return builder.add("Activation", {"activation": "linear"}, [x], name)
    if operator == "negative":
        return builder.affine(Affine(-1.0, 0.0), x, name)
    if operator == "square":
        return builder.add("Multiply", {}, [x, x], name)
    if operator in ("mean", "max"):
        axes = settings.get("axis", rest[0] if rest else None)
        places = sorted(_axis(one, len(shape) + 1) for one in (axes if isinstance(axes, list) else [axes]))
        if places == [3] and settings.get("keepdims"):
            return over_channels(builder, OverChannels(operator), x, name)
        if places != [1, 2] or len(shape) != 3:
            what = "only height and width, or the channels with keepdims, are known here"
            raise ValueError(f"it reduces {shown(axes)}; {what}")
        return over_picture(builder, OverPicture(operator, bool(settings.get("keepdims", False))), x, name)
    if operator == "flatten":
        return builder.add("Flatten", {}, [x], name)
    if operator == "reshape":
        wanted = next((settings[key] for key in ("shape", "newshape") if key in settings), rest[0] if rest else None)
        if not isinstance(wanted, list) or not all(type(one) is int for one in wanted):
            raise ValueError("its shape is computed, not written")
        return builder.add("Reshape", {"target_shape": wanted[1:]}, [x], name)
    if operator == "clip":
        ends = [settings.get(key) for key in ("clip_value_min", "clip_value_max", "x_min", "x_max")]
        low, high = ([float(one) for one in ends if one is not None] + [float(one) for one in rest])[:2]
        if not 0 < high - low < math.inf:
            raise ValueError("its limits are no range")
        shifted = x if low == 0 else builder.affine(Affine(1.0, -low), x, f"{name}_from")
        clipped = builder.add("ReLU", {"max_value": high - low}, [shifted], name if low == 0 else f"{name}_clip")
        return clipped if low == 0 else builder.affine(Affine(1.0, low), clipped, name)
    return None


def over_picture(builder: Builder, found: OverPicture, x: str, name: str) -> str:
    """Add the mean or the largest of each channel, (H, W, C) -> (C,), as the layer that computes it."""
    if len(builder.graph.nodes[x].shape) != 3:
        raise ValueError("it reduces height and width of something that is no map")
    kind = "GlobalAveragePooling2D" if found.function == "mean" else "GlobalMaxPooling2D"
    return builder.add(kind, {"keepdims": found.keepdims}, [x], name)


def over_channels(builder: Builder, found: OverChannels, x: str, name: str) -> str:
    """Add the mean or the largest of each position's channels, (H, W, C) -> (H, W, 1), as plain layers.

    The mean is a 1x1 convolution of weights 1 / C. The largest is a max pooling of C numbers, which lie in a row for
    it: (H, W, C) -> (H W, C, 1) -> (H W, 1, 1) -> (H, W, 1). Both keep an int8 file in integers.
    """
    shape = builder.graph.nodes[x].shape
    if len(shape) != 3:
        raise ValueError("it reduces the channels of something that is no map")
    height, width, channels = shape
    if found.function == "mean":
        settings = {"filters": 1, "kernel_size": [1, 1], "use_bias": False}
        return builder.add("Conv2D", settings, [x], name, [np.full((1, 1, channels, 1), 1 / channels, np.float32)])
    rows = builder.add("Reshape", {"target_shape": [height * width, channels, 1]}, [x], f"{name}_rows")
    settings = {"pool_size": [1, channels], "strides": [1, channels], "padding": "valid"}
    largest = builder.add("MaxPooling2D", settings, [rows], f"{name}_largest")
    return builder.add("Reshape", {"target_shape": [height, width, 1]}, [largest], name)


def _activation(builder: Builder, name: str, operator: str, x: str, settings: dict[str, Any]) -> str:
    """Add an activation. Raises ValueError for a setting whose effect is not known here."""
    own = {key: value for key, value in settings.items() if key != "name"}
    kind, layer, beta, is_approximate = "", dict[str, Any](), 1.0, False
    if operator == "leaky_relu":
        kind, layer = "LeakyReLU", {"alpha": own.pop("alpha", own.pop("negative_slope", 0.2))}
    elif operator == "relu":
        layer = {key: own.pop(key) for key in ("max_value", "negative_slope", "threshold") if key in own}
        kind = "ReLU" if layer else ""
    elif operator == "elu":
        layer = {"alpha": own.pop("alpha", 1.0)}
        kind = "ELU" if layer["alpha"] != 1 else ""
    elif operator == "swish":
        beta = float(own.pop("beta", 1.0))
    elif operator == "gelu":
        is_approximate = bool(own.pop("approximate", builder.source.keras == 3))
    elif operator == "softmax" and own.pop("axis", -1) not in (-1, len(builder.graph.nodes[x].shape)):
        raise ValueError("it works along another axis than the last")
    if unknown := [key for key, value in own.items() if value is not False]:
        raise ValueError(f"its setting {shown(unknown[0])} is not known here")
    if kind:
        return builder.add(kind, layer, [x], name)
    if is_approximate:
        return _approximate_gelu(builder, x, name)
    if beta != 1:  # x sigmoid(b x) = swish(b x) / b
        if beta == 0:
            raise ValueError("its beta is 0")
        steeper = builder.affine(Affine(beta, 0.0), x, f"{name}_steeper")
        return builder.affine(Affine(1 / beta, 0.0), builder.activation("swish", steeper, f"{name}_swish"), name)
    return builder.activation(operator, x, name)


def _approximate_gelu(builder: Builder, x: str, name: str) -> str:
    """Add ``x (1 + tanh(a x + 0.044715 a x^3)) / 2``, ``a = sqrt(2 / pi)`` (Hendrycks and Gimpel 2016, section 2)."""
    a = math.sqrt(2 / math.pi)
    squared = builder.add("Multiply", {}, [x, x], f"{name}_squared")
    factor = builder.affine(Affine(0.044715 * a, a), squared, f"{name}_factor")
    inner = builder.add("Multiply", {}, [x, factor], f"{name}_inner")
    tanh = builder.add("Activation", {"activation": "tanh"}, [inner], f"{name}_tanh")
    return builder.add("Multiply", {}, [x, builder.affine(Affine(0.5, 0.5), tanh, f"{name}_share")], name)


def _binary(builder: Builder, name: str, operator: str, operands: list[Any]) -> str | None:
    if len(operands) != 2:
        return None
    left, right = operands
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return builder.add(_MERGES[operator], {}, [left, right], name) if operator in _MERGES else None
    is_left = isinstance(left, Tensor)
    if not is_left and not isinstance(right, Tensor):
        return None
    x, number = (left, right) if is_left else (right, left)
    if type(number) not in (int, float):
        raise ValueError("it computes with a constant that is no single number")
    c = float(number)
    table: dict[str, Callable[[], Affine | None]] = {
        "add": lambda: Affine(1.0, c),
        "subtract": lambda: Affine(1.0, -c) if is_left else Affine(-1.0, c),
        "multiply": lambda: Affine(c, 0.0),
        "divide": lambda: Affine(1 / c, 0.0) if is_left and c else None,
    }
    found = table[operator]() if operator in table else None
    return None if found is None else builder.affine(found, x, name)


def _axis(axis: Any, rank: int) -> int:
    if type(axis) is not int or not -rank <= axis < rank:
        raise ValueError(f"axis {shown(axis)} is not known here")
    return axis % rank
