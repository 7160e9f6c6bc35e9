"""The residual attention networks, by name.

Wang et al., *Residual Attention Network for Image Classification*, CVPR 2017, arXiv 1704.06904.
An attention module computes ``H(x) = (1 + M(x)) * T(x)`` (section 3): ``T`` is the trunk branch, ``M`` the soft mask.
Every network is one flat functional graph of plain Keras layers. Each layer is named by its place in the paper
(``stage1_module1_trunk_unit1_conv2``), because quantisation, rewriting and debugging hang on these names.

Shapes in trailing comments are (height, width, channels); the batch axis is left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras import layers

from edge_ran.catalogue import nearest
from edge_ran.errors import UsageError
from edge_ran.files import atomic_path, read_bytes
from edge_ran.host import keras_archive

ATTENTION_TYPES = ("mixed", "channel", "spatial")
LEARNING = ("residual", "naive")
UPSAMPLING = ("bilinear", "nearest")
MASK_TAILS = ("paper", "linear")
SHORTCUTS = ("identity", "projection")


@dataclass(frozen=True)
class Stage:
    """One residual unit that sets width and scale, then ``modules`` attention modules.

    ``channels`` and ``bottleneck`` are the widths of the unit's output and of its 3x3 convolution; ``stride`` is the
    unit's; ``pools`` counts the max-poolings of each module's soft mask (the mask has ``pools - 1`` skip connections).
    """

    channels: int
    bottleneck: int
    stride: int
    modules: int
    pools: int


@dataclass(frozen=True)
class Architecture:
    """Everything that decides a network's graph.

    ``p``, ``t``, ``r`` are the paper's hyper-parameters (section 3.3): units before and after the branches, units in
    the trunk, units between two poolings of the mask. ``tail`` holds (bottleneck, channels, stride) of the units after
    the last stage. ``bottleneck_ratio`` divides a module's channels to give the width of its 3x3 convolutions.
    """

    name: str
    input_size: int
    classes: int
    stem_kernel: int
    stem_channels: int
    stem_stride: int
    stem_pool: int  # window of the max-pooling (stride 2) after the stem; 0 = none
    stages: tuple[Stage, ...]
    tail: tuple[tuple[int, int, int], ...]
    p: int = 1
    t: int = 2
    r: int = 1
    groups: int = 1
    bottleneck_ratio: int = 4
    mask_pool: int = 3  # window of the max-poolings (stride 2) in the mask
    bias: bool = False
    final_norm: bool = True
    attention: str = "mixed"
    learning: str = "residual"
    mask: bool = True
    upsampling: str = "bilinear"
    mask_tail: str = "paper"
    shortcut: str = "identity"

    @property
    def total_stride(self) -> int:
        """Input sizes must be a multiple of this, so that every pooling in every mask divides evenly."""
        stride = self.stem_stride * (2 if self.stem_pool else 1)
        deepest = stride
        for stage in self.stages:
            stride *= stage.stride
            deepest = max(deepest, stride * (2**stage.pools if self.mask else 1))
        for _, _, tail_stride in self.tail:
            stride *= tail_stride
        return max(deepest, stride)


def _imagenet(name: str, modules: tuple[int, int, int], groups: int = 1) -> Architecture:
    ratio = 4 if groups == 1 else 2  # AttentionNeXt doubles the 3x3 width and splits it into 32 groups (table 5)
    widths = (256, 512, 1024)
    stages = tuple(
        Stage(width, width // ratio, stride=1 if i == 0 else 2, modules=modules[i], pools=3 - i)
        for i, width in enumerate(widths)
    )
    tail = tuple((2048 // ratio, 2048, 2 if i == 0 else 1) for i in range(3))
    return Architecture(name, 224, 1000, 7, 64, 2, 3, stages, tail, groups=groups, bottleneck_ratio=ratio)


def _cifar(depth: int) -> Architecture:
    """The CIFAR family (section 4.1): 1 + 3 * 3 + 36 m + 3 * 3 + 1 layers on the trunk, m modules in each stage.

    The paper leaves the widths open and prints 1.9 M parameters for 92, 5.1 M for 236, 8.6 M for 452. With these,
    ImageNet's divided by four, it is 1.96, 5.20 and 10.30 M. No reading that keeps the depth (tails of other widths,
    other poolings, squeezes, projections, biases) gives all three; the last is nearer with r = 2, 8.86 M, than with
    the paper's r = 3.
    """
    p, t, r, modules = (2, 4, 3, 6) if depth == 452 else (1, 2, 1, (depth - 20) // 36)
    stages = tuple(
        Stage(width, width // 4, stride=1 if i == 0 else 2, modules=modules, pools=3 - i)
        for i, width in enumerate((64, 128, 256))
    )
    tail = tuple((64, 256, 1) for _ in range(3))
    return Architecture(f"cifar_attention{depth}", 32, 10, 3, 16, 1, 0, stages, tail, p=p, t=t, r=r)


def _indoor56() -> Architecture:
    stages = (Stage(128, 32, 1, 1, 2), Stage(256, 128, 2, 1, 1), Stage(512, 256, 2, 1, 1))
    tail = ((512, 1024, 1), (1024, 1024, 1), (1024, 1024, 1))
    return Architecture(
        "indoor56", 32, 76, 5, 32, 1, 2, stages, tail, mask_pool=2, bias=True, final_norm=False, mask_tail="linear"
    )  # fmt: skip


def _edge50() -> Architecture:
    """The small network that ships: indoor56's scales, half its units' squeeze; 3x3 work spread evenly over the stages.

    Depth as the paper counts it (trunk layers): 1 + 3 * 3 + 3 * 12 + 3 + 1 = 50.
    """
    stages = (Stage(64, 32, 1, 1, 2), Stage(128, 64, 2, 1, 1), Stage(192, 96, 2, 1, 1))
    return Architecture("edge50", 32, 10, 3, 32, 1, 2, stages, ((96, 192, 1),), bottleneck_ratio=2, mask_pool=2)


def _places38() -> Architecture:
    """The network for photos of 64 to 128 pixels: an early stride, the attention where the picture is small.

    A first stage of a single unit, without attention, costs a third of the time of one with a module at that scale.
    Depth as the paper counts it (trunk layers): 1 + 3 * 3 + 2 * 12 + 3 + 1 = 38.
    """
    stages = (Stage(64, 32, 1, 0, 0), Stage(128, 64, 2, 1, 2), Stage(256, 128, 2, 1, 1))
    return Architecture(
        "places38", 96, 100, 3, 32, 2, 2, stages, ((128, 512, 1),), bottleneck_ratio=2, mask_pool=2, mask_tail="linear"
    )  # fmt: skip


NETWORKS: dict[str, Architecture] = {
    a.name: a
    for a in (
        _edge50(),
        _places38(),
        _indoor56(),
        *(_cifar(depth) for depth in (56, 92, 128, 164, 236, 452)),
        _imagenet("attention56", (1, 1, 1)),
        _imagenet("attention92", (1, 2, 3)),
        _imagenet("attention_next56", (1, 1, 1), groups=32),
    )
}


def architecture(name: str) -> Architecture:
    """Return the architecture called ``name`` (``-`` and ``_`` are the same).

    Raises:
        UsageError: no network has that name; the nearest name is suggested.
    """
    key = name.replace("-", "_")
    if key not in NETWORKS:
        raise UsageError(f"{name!r} is no network, run folder or .tflite file", nearest(key, NETWORKS))
    return NETWORKS[key]


def configure(
    name: str,
    *,
    input_size: int | None = None,
    classes: int | None = None,
    width: float = 1.0,
    attention: str = "mixed",
    learning: str = "residual",
    mask: bool = True,
    upsampling: str = "bilinear",
    mask_tail: str | None = None,
    shortcut: str = "identity",
) -> Architecture:
    """Return the named architecture with the paper's options set; ``build`` turns it into a graph.

    Args:
        name: a key of ``NETWORKS``.
        input_size: side of the square RGB input in pixels, a multiple of ``Architecture.total_stride``.
        classes: number of outputs, at least 2.
        width: factor on every number of channels (rounded to a multiple of 8, or of the groups), 0 < width <= 4.
        attention: ``mixed`` f1, ``channel`` f2 or ``spatial`` f3 (section 3.2, equations 3 to 5).
        learning: ``residual`` (1 + M) * T or ``naive`` M * T (section 4.1, attention residual learning).
        mask: False leaves the trunk alone: the plain residual network to compare with.
        upsampling: ``bilinear`` (the paper) or ``nearest``.
        mask_tail: ``paper`` puts BN-ReLU before each of the mask's last two 1x1 convolutions, ``linear`` nothing;
            None keeps the network's own.
        shortcut: ``identity`` projects only where shapes differ, from the pre-activated tensor (the paper);
            ``projection`` projects the raw input in every unit (the indoor reference).

    Raises:
        UsageError: an option is out of range.
    """
    base = architecture(name)
    mask_tail = base.mask_tail if mask_tail is None else mask_tail
    for option, value, allowed in (
        ("attention", attention, ATTENTION_TYPES),
        ("learning", learning, LEARNING),
        ("upsampling", upsampling, UPSAMPLING),
        ("mask-tail", mask_tail, MASK_TAILS),
        ("shortcut", shortcut, SHORTCUTS),
    ):
        if value not in allowed:
            raise UsageError(f"--{option} {value!r} is not one of {', '.join(allowed)}", nearest(value, allowed))
    if not 0 < width <= 4:
        raise UsageError(f"--width {width} is outside (0, 4]", "--width 1 is the paper's")
    if classes is not None and classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes, not {classes}", "--classes 10")
    chosen = replace(
        base,
        input_size=input_size or base.input_size,
        classes=classes or base.classes,
        attention=attention,
        learning=learning,
        mask=mask,
        upsampling=upsampling,
        mask_tail=mask_tail,
        shortcut=shortcut,
    )
    if width != 1.0:
        chosen = _widen(chosen, width)
    step = chosen.total_stride
    if chosen.input_size <= 0 or chosen.input_size % step:
        below = max(step, chosen.input_size // step * step)
        raise UsageError(
            f"{name} needs an input size that is a multiple of {step}, not {chosen.input_size}", f"--input-size {below}"
        )
    return chosen


def _widen(a: Architecture, width: float) -> Architecture:
    def scaled(channels: int, multiple: int = 8) -> int:
        return max(multiple, round(channels * width / multiple) * multiple)

    inner = 8 if a.groups == 1 else a.groups
    return replace(
        a,
        stem_channels=scaled(a.stem_channels),
        stages=tuple(replace(s, channels=scaled(s.channels), bottleneck=scaled(s.bottleneck, inner)) for s in a.stages),
        tail=tuple((scaled(b, inner), scaled(c), stride) for b, c, stride in a.tail),
    )


def build(a: Architecture) -> tf_keras.Model:
    """Build the graph: (input_size, input_size, 3) float32, normalised -> (classes,) softmax probabilities."""
    return _Builder(a).network()


@tf_keras.saving.register_keras_serializable("edge_ran")
class SpatialNormalization(layers.GroupNormalization):
    """Spatial attention's normalisation as ``deploy`` writes it, the only layer here that Keras does not have.

    ``(x - mean) / sqrt(variance + epsilon)`` of each channel over its positions, (h, w, c) -> (h, w, c): what
    GroupNormalization computes with a group for each channel, in tensors of four dimensions and operators of int8.
    """

    def call(self, inputs: Any) -> Any:
        centred = inputs - tf.reduce_mean(inputs, (1, 2), keepdims=True)
        variance = tf.reduce_mean(centred * centred, (1, 2), keepdims=True)
        return centred * tf.math.rsqrt(variance + self.epsilon)


class _Builder:
    """Holds the architecture while the graph is drawn; every method takes and gives a Keras tensor."""

    def __init__(self, a: Architecture) -> None:
        self.a = a

    def conv(self, x: Any, name: str, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> Any:
        return layers.Conv2D(
            channels,
            kernel,
            stride,
            padding="same",
            groups=groups,
            use_bias=self.a.bias,
            kernel_initializer="he_normal",
            name=name,
        )(x)

    def norm_relu(self, x: Any, name: str) -> Any:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

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
        return layers.Add(name=f"{name}_add")([raw, x])

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
        return layers.MaxPooling2D(self.a.mask_pool, 2, padding="same", name=name)(x)

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
            x = layers.UpSampling2D(2, interpolation=a.upsampling, name=f"{name}_up{depth}_resize")(x)
            if skips:
                x = layers.Add(name=f"{name}_up{depth}_add")([x, skips.pop()])
        for i in (1, 2):
            if a.mask_tail == "paper":
                x = self.norm_relu(x, f"{name}_tail{i}")
            x = self.conv(x, f"{name}_tail{i}_conv", channels)
        return self.attention(x, name)

    def attention(self, x: Any, name: str) -> Any:
        """The last activation of the mask (section 3.2): f1 mixed, f2 channel, f3 spatial attention."""
        if self.a.attention == "channel":
            return layers.UnitNormalization(axis=-1, name=f"{name}_l2norm")(x)
        if self.a.attention == "spatial":
            # One group for each channel: mean and deviation over the positions of one feature map.
            x = layers.GroupNormalization(x.shape[-1], center=False, scale=False, name=f"{name}_spatialnorm")(x)
        return layers.Activation("sigmoid", name=f"{name}_sigmoid")(x)

    def module(self, x: Any, name: str, pools: int) -> Any:
        """Attention module: p units, H = (1 + M) * T written as T + M * T, p units."""
        a = self.a
        x = self.units(x, f"{name}_before", a.p)
        trunk = self.units(x, f"{name}_trunk", a.t)
        if a.mask:
            mask = self.soft_mask(x, f"{name}_mask", pools)
            gated = layers.Multiply(name=f"{name}_gate")([mask, trunk])
            residual = a.learning == "residual"
            trunk = layers.Add(name=f"{name}_residual")([trunk, gated]) if residual else gated
        return self.units(trunk, f"{name}_after", a.p)

    def network(self) -> tf_keras.Model:
        a = self.a
        image = layers.Input((a.input_size, a.input_size, 3), name="image")
        x = self.conv(image, "stem_conv", a.stem_channels, a.stem_kernel, a.stem_stride)
        x = self.norm_relu(x, "stem")
        if a.stem_pool:
            x = layers.MaxPooling2D(a.stem_pool, 2, padding="same", name="stem_pool")(x)
        for i, stage in enumerate(a.stages, 1):
            x = self.unit(x, f"stage{i}_unit", stage.bottleneck, stage.channels, stage.stride)
            for j in range(1, stage.modules + 1):
                x = self.module(x, f"stage{i}_module{j}", stage.pools)
        for i, (bottleneck, channels, stride) in enumerate(a.tail, 1):
            x = self.unit(x, f"tail_unit{i}", bottleneck, channels, stride)
        if a.final_norm:
            x = self.norm_relu(x, "tail")
        x = layers.GlobalAveragePooling2D(name="pool")(x)  # (c,)
        x = layers.Dense(a.classes, name="logits")(x)
        probabilities = layers.Activation("softmax", dtype="float32", name="probabilities")(x)
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
    model = build(a)
    work = multiply_adds(model)
    parts: dict[str, Part] = {}
    for layer in model.layers:
        place = _place(layer.name)
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


def _place(layer: str) -> str:
    """stage1_module2_trunk_unit1_conv1 -> stage1 module2 trunk; the name says where in the paper a layer stands."""
    words = layer.split("_")
    if words[0] in ("stem", "image"):
        return "stem"
    if words[0] in ("pool", "logits", "probabilities"):
        return "classifier"
    if words[0] == "tail":
        return "tail"
    if words[1].startswith("module"):
        branch = {"gate": "gate", "residual": "gate"}.get(words[2], words[2])
        return f"{words[0]} {words[1]} {branch}"
    return f"{words[0]} {words[1]}"


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
