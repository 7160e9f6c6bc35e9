"""The architectures of the residual attention networks, by name: what decides a graph, without TensorFlow.

Wang et al., *Residual Attention Network for Image Classification*, CVPR 2017, arXiv 1704.06904.
``edge_ran.host.networks`` builds the graphs; cards carry the architecture of their network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_ran.errors import UsageError, nearest

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


def named(name: str) -> Architecture:
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
    base = named(name)
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
