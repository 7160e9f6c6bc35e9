"""The residual attention networks, by name.

Wang et al., *Residual Attention Network for Image Classification*, CVPR 2017, arXiv 1704.06904.
An attention module computes ``H(x) = (1 + M(x)) * T(x)`` (section 3): ``T`` is the trunk branch, ``M`` the soft mask.
Every network is one flat functional graph of plain Keras layers. Each layer is named by its place in the paper
(``stage1_module1_trunk_unit1_conv2``), because quantisation, rewriting and debugging hang on these names.

Shapes in trailing comments are (height, width, channels); the batch axis is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras import layers

from edge_ran import layer_names
from edge_ran.architecture import Architecture
from edge_ran.files import atomic_path, read_bytes
from edge_ran.host import keras_archive
from edge_ran.host.drawing import connect


def build(a: Architecture, kernels: str = "he_normal") -> tf_keras.Model:
    """Build the graph: (input_size, input_size, 3) float32, normalised -> (classes,) softmax probabilities.

    ``kernels`` are the convolutions' first weights: drawing random ones takes up to half of the time, and ``zeros``
    none.
    """
    return _Builder(a, kernels).network()


@tf_keras.saving.register_keras_serializable("edge_ran")
class SpatialNormalization(layers.GroupNormalization):
    """Spatial attention's normalisation as ``rewrites`` writes it, the only layer here that Keras does not have.

    ``(x - mean) / sqrt(variance + epsilon)`` of each channel over its positions, (h, w, c) -> (h, w, c): what
    GroupNormalization computes with a group for each channel, in tensors of four dimensions and operators of int8.
    """

    def call(self, inputs: Any) -> Any:
        centred = inputs - tf.reduce_mean(inputs, (1, 2), keepdims=True)
        variance = tf.reduce_mean(centred * centred, (1, 2), keepdims=True)
        return centred * tf.math.rsqrt(variance + self.epsilon)


class _Builder:
    """Holds the architecture while the graph is drawn; every method takes and gives a Keras tensor."""

    def __init__(self, a: Architecture, kernels: str) -> None:
        self.a, self.kernels = a, kernels

    def conv(self, x: Any, name: str, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Any:
        conv = layers.Conv2D(
            channels,
            kernel,
            stride,
            padding="same",
            groups=groups,
            use_bias=self.a.bias,
            kernel_initializer=self.kernels,
            name=name,
        )
        return connect(conv, x)

    def norm_relu(self, x: Any, name: str) -> Any:
        x = connect(layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn"), x)
        return connect(layers.ReLU(name=f"{name}_relu"), x)

    def unit(self, x: Any, name: str, bottleneck: int, channels: int, stride: int = 1) -> Any:
        """Full pre-activation bottleneck residual unit (He et al. 2016; section 3 of the paper)."""
        raw = x
        pre = self.norm_relu(x, f"{name}_pre")
        x = self.conv(pre, f"{name}_conv1", bottleneck)
        x = self.norm_relu(x, f"{name}_conv1")
        x = self.conv(x, f"{name}_conv2", bottleneck, 3, stride, self.a.groups)
        x = self.norm_relu(x, f"{name}_conv2")
        x = self.conv(x, f"{name}_conv3", channels)
        if self.a.shortcut == "projection":
            raw = self.conv(raw, f"{name}_shortcut", channels, stride=stride)
        elif stride != 1 or raw.shape[-1] != channels:
            raw = self.conv(pre, f"{name}_shortcut", channels, stride=stride)
        return connect(layers.Add(name=f"{name}_add"), [raw, x])

    def units(self, x: Any, name: str, count: int) -> Any:
        """``count`` units that keep shape: (h, w, c) -> (h, w, c)."""
        channels = x.shape[-1]
        inner = self.bottleneck(channels)
        for i in range(1, count + 1):
            x = self.unit(x, f"{name}_unit{i}", inner, channels)
        return x

    def bottleneck(self, channels: int) -> int:
        multiple = 8 if self.a.groups == 1 else self.a.groups
        return max(multiple, channels // self.a.bottleneck_ratio // multiple * multiple)

    def pool(self, x: Any, name: str) -> Any:
        return connect(layers.MaxPooling2D(self.a.mask_pool, 2, padding="same", name=name), x)

    def soft_mask(self, x: Any, name: str, pools: int) -> Any:
        """Bottom-up top-down soft mask branch (section 3.1, figure 2): (h, w, c) -> (h, w, c)."""
        a, channels = self.a, x.shape[-1]
        skips = []
        for depth in range(1, pools + 1):
            x = self.pool(x, f"{name}_down{depth}_pool")  # (h / 2^depth, w / 2^depth, c)
            x = self.units(x, f"{name}_down{depth}", a.r)
            if depth < pools:
                skips.append(self.unit(x, f"{name}_skip{depth}", self.bottleneck(channels), channels))
        for depth in range(pools, 0, -1):
            x = self.units(x, f"{name}_up{depth}", a.r)
            x = connect(layers.UpSampling2D(2, interpolation=a.upsampling, name=f"{name}_up{depth}_resize"), x)
            if skips:
                x = connect(layers.Add(name=f"{name}_up{depth}_add"), [x, skips.pop()])
        for i in (1, 2):
            if a.mask_tail == "paper":
                x = self.norm_relu(x, f"{name}_tail{i}")
            x = self.conv(x, f"{name}_tail{i}_conv", channels)
        return self.attention(x, name)

    def attention(self, x: Any, name: str) -> Any:
        """The last activation of the mask (section 3.2): f1 mixed, f2 channel, f3 spatial attention."""
        if self.a.attention == "channel":
            return connect(layers.UnitNormalization(axis=-1, name=f"{name}_l2norm"), x)
        if self.a.attention == "spatial":
            # One group for each channel: mean and deviation over the positions of one feature map.
            x = connect(
                layers.GroupNormalization(x.shape[-1], center=False, scale=False, name=f"{name}_spatialnorm"), x
            )
        return connect(layers.Activation("sigmoid", name=f"{name}_sigmoid"), x)

    def module(self, x: Any, name: str, pools: int) -> Any:
        """Attention module: p units, H = (1 + M) * T written as T + M * T, p units."""
        a = self.a
        x = self.units(x, f"{name}_before", a.p)
        trunk = self.units(x, f"{name}_trunk", a.t)
        if a.mask:
            mask = self.soft_mask(x, f"{name}_mask", pools)
            gated = connect(layers.Multiply(name=layer_names.gate(name)), [mask, trunk])
            residual = a.learning == "residual"
            trunk = connect(layers.Add(name=f"{name}_residual"), [trunk, gated]) if residual else gated
        return self.units(trunk, f"{name}_after", a.p)

    def network(self) -> tf_keras.Model:
        a = self.a
        image = layers.Input((a.input_size, a.input_size, 3), name="image")
        x = self.conv(image, "stem_conv", a.stem_channels, a.stem_kernel, a.stem_stride)
        x = self.norm_relu(x, "stem")
        if a.stem_pool:
            x = connect(layers.MaxPooling2D(a.stem_pool, 2, padding="same", name="stem_pool"), x)
        for i, stage in enumerate(a.stages, 1):
            x = self.unit(x, f"stage{i}_unit", stage.bottleneck, stage.channels, stage.stride)
            for j in range(1, stage.modules + 1):
                x = self.module(x, f"stage{i}_module{j}", stage.pools)
        for i, (bottleneck, channels, stride) in enumerate(a.tail, 1):
            x = self.unit(x, f"tail_unit{i}", bottleneck, channels, stride)
        if a.final_norm:
            x = self.norm_relu(x, "tail")
        x = connect(layers.GlobalAveragePooling2D(name="pool"), x)  # (c,)
        x = connect(layers.Dense(a.classes, name="logits"), x)
        probabilities = connect(layers.Activation("softmax", dtype="float32", name="probabilities"), x)
        return tf_keras.Model(image, probabilities, name=a.name)


def save(model: tf_keras.Model, path: Path) -> None:
    """Write the network as a Keras v3 archive, atomically. Raises EnvironmentMissing when the disk is full."""
    with atomic_path(path) as temporary:
        model.save(temporary, save_format="keras")


def load(path: Path) -> tf_keras.Model:
    """Read a Keras v3 archive (``.keras``) without running code or reading files that it may carry or name.

    Raises:
        InputError: the file is missing, damaged, not a Keras network, or of what is no plain Keras layer.
    """
    if not path.is_file():
        read_bytes(path, "network")  # says why not
    return keras_archive.load(path)


@dataclass(frozen=True)
class Part:
    """One place of the paper in a network: parameters, and multiply-adds of one picture."""

    place: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """What a network is made of; ``parameters`` counts the statistics of BatchNorm, too."""

    network: str
    input_size: int
    classes: int
    layers: int
    parameters: int
    trainable_parameters: int
    multiply_adds: int
    parts: tuple[Part, ...]


def summarise(a: Architecture) -> Summary:
    """Build the network and count it, by its places in the paper."""
    model = build(a, "zeros")
    work = multiply_adds(model)
    parts: dict[str, Part] = {}
    for layer in model.layers:
        place = layer_names.place(layer.name)
        before = parts.get(place, Part(place, (), 0, 0))
        parts[place] = Part(
            place,
            tuple(layer.output_shape[1:]) if isinstance(layer.output_shape, tuple) else before.output,
            before.parameters + layer.count_params(),
            before.multiply_adds + work.get(layer.name, 0),
        )
    return Summary(
        network=a.name,
        input_size=a.input_size,
        classes=a.classes,
        layers=len(model.layers),
        parameters=model.count_params(),
        trainable_parameters=sum(int(w.shape.num_elements()) for w in model.trainable_weights),
        multiply_adds=sum(work.values()),
        parts=tuple(parts.values()),
    )


def multiply_adds(model: tf_keras.Model) -> dict[str, int]:
    """Multiply-adds of one forward pass at batch 1, for each convolution and dense layer by name."""
    counts: dict[str, int] = {}
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            _, height, width, _ = layer.output_shape
            counts[layer.name] = height * width * int(layer.weights[0].shape.num_elements())
        elif isinstance(layer, layers.Dense):
            counts[layer.name] = int(layer.weights[0].shape.num_elements())
    return counts
