"""The layers that are read from other people's files: which settings decide their numbers, which weights they have.

A setting that is not listed here and is not known to be without effect is refused, for it may change the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tf_keras import layers

Shape = tuple[int, ...]
Settings = Mapping[str, Any]

MOST_SIDE = 1 << 16  # of a kernel, a number of channels, a padding
_CONV = ("kernel_size", "strides", "padding", "dilation_rate", "use_bias")
_POOL = ("pool_size", "strides", "padding")

# Class -> settings that decide what it computes; ``activation`` is handled apart.
SETTINGS: dict[str, tuple[str, ...]] = {
    "Conv2D": ("filters", "groups", *_CONV),
    "DepthwiseConv2D": ("depth_multiplier", *_CONV),
    "SeparableConv2D": ("filters", "depth_multiplier", *_CONV),
    "Conv2DTranspose": ("filters", "output_padding", *_CONV),
    "Dense": ("units", "use_bias"),
    "BatchNormalization": ("axis", "epsilon", "center", "scale"),
    "LayerNormalization": ("axis", "epsilon", "center", "scale"),
    "GroupNormalization": ("groups", "axis", "epsilon", "center", "scale"),
    "UnitNormalization": ("axis",),
    "Normalization": ("axis", "mean", "variance", "invert"),
    "Rescaling": ("scale", "offset"),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "LeakyReLU": ("alpha", "negative_slope"),
    "ELU": ("alpha",),
    "PReLU": ("shared_axes",),
    "Softmax": ("axis",),
    "Activation": (),
    "Add": (),
    "Subtract": (),
    "Multiply": (),
    "Average": (),
    "Maximum": (),
    "Minimum": (),
    "Concatenate": ("axis",),
    "MaxPooling2D": _POOL,
    "AveragePooling2D": _POOL,
    "GlobalAveragePooling2D": ("keepdims",),
    "GlobalMaxPooling2D": ("keepdims",),
    "UpSampling2D": ("size", "interpolation"),
    "ZeroPadding2D": ("padding",),
    "Cropping2D": ("cropping",),
    "Flatten": (),
    "Reshape": ("target_shape",),
    "Permute": ("dims",),
    "Resizing": ("height", "width", "interpolation", "crop_to_aspect_ratio"),
    "CenterCrop": ("height", "width"),
}
# They give their input at inference: what they do belongs to training.
TRAINING_ONLY = frozenset(
    [
        "Dropout",
        "SpatialDropout2D",
        "AlphaDropout",
        "GaussianDropout",
        "GaussianNoise",
        "ActivityRegularization",
        "Identity",
        "RandomFlip",
        "RandomRotation",
        "RandomZoom",
        "RandomTranslation",
        "RandomContrast",
        "RandomBrightness",
        "RandomHeight",
        "RandomWidth",
        "RandomShear",
        "RandomHue",
        "RandomSaturation",
        "RandomSharpness",
        "RandomGrayscale",
        "RandomColorJitter",
        "RandomInvert",
        "RandomErasing",
        "RandomGaussianBlur",
        "RandomPerspective",
        "RandomPosterization",
        "RandomColorDegeneration",
        "RandomElasticTransform",
    ]
)
# Keras 3 calls them with training=True, which either changes nothing or is for training alone.
CALLED_AS_IN_TRAINING = {"Resizing", "CenterCrop"}.union(name for name in TRAINING_ONLY if name.startswith("Random"))
MERGING = frozenset(("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"))
ALIASES = {
    "MaxPool2D": "MaxPooling2D",
    "AvgPool2D": "AveragePooling2D",
    "GlobalAvgPool2D": "GlobalAveragePooling2D",
    "GlobalMaxPool2D": "GlobalMaxPooling2D",
    "Convolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
}
# They say how a layer was trained, started or stored.
_WITHOUT_EFFECT = frozenset(
    [
        "name",
        "trainable",
        "dtype",
        "autocast",
        "seed",
        "momentum",
        "renorm",
        "renorm_clipping",
        "renorm_momentum",
        "synchronized",
        "virtual_batch_size",
        "fused",
        "input_dtype",
        "batch_input_shape",
        "batch_shape",
        "input_shape",
        "input_dim",
        "implementation",
        "kernel_initializer",
        "bias_initializer",
        "depthwise_initializer",
        "pointwise_initializer",
        "gamma_initializer",
        "beta_initializer",
        "alpha_initializer",
        "moving_mean_initializer",
        "moving_variance_initializer",
        "kernel_regularizer",
        "bias_regularizer",
        "depthwise_regularizer",
        "pointwise_regularizer",
        "gamma_regularizer",
        "beta_regularizer",
        "alpha_regularizer",
        "activity_regularizer",
        "kernel_constraint",
        "bias_constraint",
        "depthwise_constraint",
        "pointwise_constraint",
        "gamma_constraint",
        "beta_constraint",
        "alpha_constraint",
        "supports_masking",
        "quantization_config",
        "rng_type",
        "lora_rank",
        "lora_alpha",
        "input_spec",
    ]
)
_DEPTHWISE_LEFTOVERS = ("filters", "groups")  # that DepthwiseConv2D and SeparableConv2D write, too, by version


def unknown_setting(kind: str, config: Settings) -> str | None:
    """Return a setting that is on and whose effect is not known here; None where all are known."""
    known = {*SETTINGS.get(kind, ()), "activation", "data_format"}
    if kind == "Resizing" and not config.get("pad_to_aspect_ratio"):
        known |= {"fill_mode", "fill_value"}  # of the padding
    for key, value in config.items():
        if key in known or key in _WITHOUT_EFFECT or value in (None, False, [], {}):
            continue
        leftover = key in _DEPTHWISE_LEFTOVERS and kind in ("DepthwiseConv2D", "SeparableConv2D") and value in (1, None)
        if not leftover:
            return key
    return None


def layer_class(kind: str) -> type[layers.Layer]:
    """Return Keras's class of that name, which is a key of ``SETTINGS``."""
    found: type[layers.Layer] = getattr(layers, kind)
    return found


def weight_shapes(kind: str, config: Settings, shape: Shape) -> list[Shape]:
    """Return the shapes of a layer's weights in Keras's order.

    Args:
        kind: a key of ``SETTINGS``.
        config: the layer's whole configuration.
        shape: of its (first) input, without the batch.
    """
    depth = shape[-1] if shape else 0
    bias = config.get("use_bias", False)
    if kind == "Conv2D":
        groups, filters = config["groups"], config["filters"]
        if depth % groups or filters % groups:
            raise ValueError(f"{depth} channels do not divide into {groups} groups")
        return [(*config["kernel_size"], depth // groups, filters), *([(filters,)] * bias)]
    if kind == "Conv2DTranspose":
        return [(*config["kernel_size"], config["filters"], depth), *([(config["filters"],)] * bias)]
    if kind in ("DepthwiseConv2D", "SeparableConv2D"):
        wide = depth * config["depth_multiplier"]
        kernel = (*config["kernel_size"], depth, config["depth_multiplier"])
        if kind == "DepthwiseConv2D":
            return [kernel, *([(wide,)] * bias)]
        return [kernel, (1, 1, wide, config["filters"]), *([(config["filters"],)] * bias)]
    if kind == "Dense":
        return [(depth, config["units"]), *([(config["units"],)] * bias)]
    if kind == "BatchNormalization":
        return [(depth,)] * (config["scale"] + config["center"] + 2)
    if kind in ("LayerNormalization", "GroupNormalization"):
        return [(depth,)] * (config["scale"] + config["center"])
    if kind == "Normalization":
        return [] if config.get("mean") is not None else [(depth,), (depth,), ()]
    if kind == "PReLU":
        shared = config.get("shared_axes") or ()
        return [tuple(1 if axis + 1 in shared else side for axis, side in enumerate(shape))]
    return []


def check_numbers(value: Any) -> None:
    """Raise ValueError where a setting holds a number that no layer can mean."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (list, tuple)):
            waiting += one
        elif isinstance(one, dict):
            raise ValueError("a setting is a record")
        elif isinstance(one, (int, float)) and not (math.isfinite(one) and abs(one) <= MOST_SIDE):
            raise ValueError(f"{one:.3g} is no number for a layer")


# ------------------------------------------------------------------------------------------------- activations

# Those that Keras 2, which draws the network here, has itself.
ACTIVATIONS = frozenset(
    [
        "linear",
        "relu",
        "sigmoid",
        "tanh",
        "softmax",
        "elu",
        "selu",
        "softplus",
        "softsign",
        "gelu",
        "mish",
        "exponential",
        "swish",
    ]
)


def activation_name(activation: Any) -> str:
    """The name of an activation: text, or a record of a function."""
    if isinstance(activation, dict):
        inner = activation.get("config")
        activation = inner if isinstance(inner, str) else activation.get("class_name")
    return str(activation) if activation is not None else "linear"


def activation_parts(name: str, keras: int) -> list[tuple[str, dict[str, Any]]] | None:
    """Return an activation as layers one after another, (class, settings); None where it is unknown.

    ``("Multiply", {})`` at the end stands for the product with the input, ``x f(x)``. Keras 2 and 3 mean different
    functions by ``hard_sigmoid``: ``clip(x / 5 + 1 / 2, 0, 1)`` and ``relu6(x + 3) / 6``.
    """
    sixth = [("ReLU", {"max_value": 6.0}), ("Rescaling", {"scale": 1 / 6, "offset": 0.0})]
    hard = [("Rescaling", {"scale": 1.0, "offset": 3.0}), *sixth]
    known: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "relu": [("ReLU", {})],
        "relu6": [("ReLU", {"max_value": 6.0})],
        "hard_sigmoid": hard if keras == 3 else [("Rescaling", {"scale": 1.2, "offset": 3.0}), *sixth],
        "hard_silu": [*hard, ("Multiply", {})],
        "swish": [("Activation", {"activation": "sigmoid"}), ("Multiply", {})],
        "leaky_relu": [("LeakyReLU", {"alpha": 0.2})],
    }
    known |= {"silu": known["swish"], "hard_swish": known["hard_silu"]}
    if name in known:
        return known[name]
    return [("Activation", {"activation": name})] if name in ACTIVATIONS else None


# Layers that other packages put around or in the place of Keras's own, and how a network without them is had.
_QUANTIZED = "save the float network, as it was before tfmot's quantize_model, and import that: edge-ran import FILE"
_PRUNED = "tfmot.sparsity.keras.strip_pruning(model).save('model.keras') where it was trained"
_AS_TFLITE = (
    "it is a graph, not layers of Keras: save tf.lite.TFLiteConverter.from_keras_model(model).convert() as a .tflite, "
    "which edge-ran run, verify and benchmark take"
)
_INSTEAD = {
    **dict.fromkeys(("QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2", "QuantizeAnnotate"), _QUANTIZED),
    "PruneLowMagnitude": _PRUNED,
    **dict.fromkeys(("ClusterWeights",), "tfmot.clustering.keras.strip_clustering(model).save('model.keras')"),
    **dict.fromkeys(("KerasLayer", "TFSMLayer"), _AS_TFLITE),
}


def instead_of(kind: str) -> str:
    """What to do about a layer that is not known here."""
    plain = f"replace {kind} in the script by other layers of Keras, and save the network again"
    return _INSTEAD.get(kind.rpartition(">")[2], plain)
