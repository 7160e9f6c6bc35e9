"""The networks in PyTorch, to train on a GPU: the graph, the names and the numbers of `edge_ran.host.networks`.

Tensors are (N, C, H, W) in channels-last memory. Weights are float32 and lie in one dictionary under the names of the
Keras layers (`stage1_unit_conv1/kernel`, …), kernels as (out, in, height, width). What PyTorch does differently is
written out here: with a stride of 2, TensorFlow's SAME padding adds one row less above than below. Sizes are even.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from edge_ran.architecture import Architecture

Norm = tuple[Tensor, Tensor, Tensor, Tensor]  # gamma, beta, moving mean, moving variance
EPSILON = 1e-5
MASK_LIMIT = 6.0  # training keeps the masks' logits within this
MOMENTUM = 0.1  # of PyTorch: the share of the new statistics; Keras calls it 0.9


def norm_relu(x: Tensor, norm: Norm, training: bool) -> Tensor:
    gamma, beta, mean, variance = norm
    return F.relu(F.batch_norm(x, mean, variance, gamma, beta, training, MOMENTUM, EPSILON))


def conv(x: Tensor, kernel: Tensor, stride: int = 1) -> Tensor:
    side = kernel.shape[-1]
    if stride == 2 and side > 1:
        before = (side - 2) // 2
        x = F.pad(x, (before, side - 2 - before) * 2)
        return F.conv2d(x, kernel.to(x.dtype), stride=2)
    return F.conv2d(x, kernel.to(x.dtype), stride=stride, padding=side // 2)


def unit(x: Tensor, norms: tuple[Norm, Norm, Norm], kernels: tuple[Tensor, ...], stride: int, training: bool) -> Tensor:
    """Full pre-activation bottleneck residual unit; a fourth kernel is the shortcut's."""
    before = norm_relu(x, norms[0], training)
    inner = norm_relu(conv(before, kernels[0]), norms[1], training)
    inner = norm_relu(conv(inner, kernels[1], stride), norms[2], training)
    shortcut = conv(before, kernels[3], stride) if len(kernels) == 4 else x
    return shortcut + conv(inner, kernels[2])


def norm_conv(x: Tensor, norm: Norm, kernel: Tensor, training: bool) -> Tensor:
    return conv(norm_relu(x, norm, training), kernel)


def gate(trunk: Tensor, mask: Tensor) -> Tensor:
    return trunk + torch.sigmoid(mask) * trunk


def up(x: Tensor, skip: Tensor | None) -> Tensor:
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    return x if skip is None else x + skip


def pool(x: Tensor, side: int) -> Tensor:
    return F.max_pool2d(x, side, 2, ceil_mode=True)  # SAME padding adds on the right and below alone


PARTS: dict[str, Callable[..., Tensor]] = {f.__name__: f for f in (norm_relu, norm_conv, unit, gate, pool, up)}


@dataclass
class Twin:
    """One network: its weights and statistics by name, and ``parts``, how its parts are run."""

    a: Architecture
    device: str = "cpu"
    seed: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        a = self.a
        if a.bias or a.groups != 1 or not a.final_norm or a.attention != "mixed" or a.shortcut != "identity":
            raise SystemExit(f"{a.name} has options that are not written here")
        self.parts = dict(PARTS)
        self.training = False
        self.mask_logits: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            self(torch.zeros(2, 3, a.input_size, a.input_size))  # draws the weights, each when it is first named
        for values in (self.weights, self.statistics):
            for name in values:
                values[name] = values[name].to(self.device)
        for value in self.weights.values():
            value.requires_grad_()

    def compile(self) -> None:
        torch._dynamo.config.recompile_limit = 512
        torch._dynamo.config.accumulated_recompile_limit = 4096
        self.parts = {name: torch.compile(part, dynamic=False) for name, part in PARTS.items()}

    def kernel(self, name: str, out: int, into: int, side: int = 1) -> Tensor:
        key = f"{name}/kernel"
        if key not in self.weights:  # He et al.'s normal, truncated at two deviations, as Keras draws it
            deviation = (2 / (into * side * side)) ** 0.5 / 0.87962566103423978
            values = torch.empty(out, into, side, side)
            torch.nn.init.trunc_normal_(values, 0, deviation, -2 * deviation, 2 * deviation, generator=self.generator)
            self.weights[key] = values
        return self.weights[key]

    def norm(self, name: str, channels: int) -> Norm:
        for values, key, start in (
            (self.weights, "gamma", 1.0),
            (self.weights, "beta", 0.0),
            (self.statistics, "moving_mean", 0.0),
            (self.statistics, "moving_variance", 1.0),
        ):
            values.setdefault(f"{name}_bn/{key}", torch.full((channels,), start))
        return (
            self.weights[f"{name}_bn/gamma"],
            self.weights[f"{name}_bn/beta"],
            self.statistics[f"{name}_bn/moving_mean"],
            self.statistics[f"{name}_bn/moving_variance"],
        )

    def unit(self, x: Tensor, name: str, inner: int, channels: int, stride: int = 1) -> Tensor:
        into = x.shape[1]
        norms = (
            self.norm(f"{name}_pre", into),
            self.norm(f"{name}_conv1", inner),
            self.norm(f"{name}_conv2", inner),
        )
        kernels = [
            self.kernel(f"{name}_conv1", inner, into),
            self.kernel(f"{name}_conv2", inner, inner, 3),
            self.kernel(f"{name}_conv3", channels, inner),
        ]
        if stride != 1 or into != channels:
            kernels.append(self.kernel(f"{name}_shortcut", channels, into))
        return self.parts["unit"](x, norms, tuple(kernels), stride, self.training)

    def units(self, x: Tensor, name: str, count: int) -> Tensor:
        channels = x.shape[1]
        for i in range(1, count + 1):
            x = self.unit(x, f"{name}_unit{i}", self.bottleneck(channels), channels)
        return x

    def bottleneck(self, channels: int) -> int:
        return max(8, channels // self.a.bottleneck_ratio // 8 * 8)

    def soft_mask(self, x: Tensor, name: str, pools: int) -> Tensor:
        """The logits of the mask."""
        a, channels = self.a, x.shape[1]
        skips: list[Tensor] = []
        for depth in range(1, pools + 1):
            x = self.parts["pool"](x, a.mask_pool)
            x = self.units(x, f"{name}_down{depth}", a.r)
            if depth < pools:
                skips.append(self.unit(x, f"{name}_skip{depth}", self.bottleneck(channels), channels))
        for depth in range(pools, 0, -1):
            x = self.units(x, f"{name}_up{depth}", a.r)
            x = self.parts["up"](x, skips.pop() if skips else None)
        for i in (1, 2):
            key = f"{name}_tail{i}"
            kernel = self.kernel(f"{key}_conv", channels, channels)
            if a.mask_tail == "paper":
                x = self.parts["norm_conv"](x, self.norm(key, channels), kernel, self.training)
            else:
                x = conv(x, kernel)
        self.mask_logits.append(x)
        return x

    def module(self, x: Tensor, name: str, pools: int) -> Tensor:
        a = self.a
        x = self.units(x, f"{name}_before", a.p)
        trunk = self.units(x, f"{name}_trunk", a.t)
        x = self.parts["gate"](trunk, self.soft_mask(x, f"{name}_mask", pools))
        return self.units(x, f"{name}_after", a.p)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, 3, H, W), normalised -> (N, classes) logits, float32."""
        a = self.a
        self.mask_logits = []
        x = conv(x, self.kernel("stem_conv", a.stem_channels, 3, a.stem_kernel), a.stem_stride)
        x = self.parts["norm_relu"](x, self.norm("stem", a.stem_channels), self.training)
        if a.stem_pool:
            x = self.parts["pool"](x, a.stem_pool)
        for i, stage in enumerate(a.stages, 1):
            x = self.unit(x, f"stage{i}_unit", stage.bottleneck, stage.channels, stage.stride)
            for j in range(1, stage.modules + 1):
                x = self.module(x, f"stage{i}_module{j}", stage.pools)
        for i, (inner, channels, stride) in enumerate(a.tail, 1):
            x = self.unit(x, f"tail_unit{i}", inner, channels, stride)
        x = self.parts["norm_relu"](x, self.norm("tail", x.shape[1]), self.training)
        pooled = x.float().mean((2, 3))
        if "logits/kernel" not in self.weights:
            limit = (6 / (pooled.shape[1] + a.classes)) ** 0.5
            drawn = torch.rand(a.classes, pooled.shape[1], generator=self.generator)
            self.weights |= {"logits/kernel": (drawn * 2 - 1) * limit, "logits/bias": torch.zeros(a.classes)}
        return F.linear(pooled, self.weights["logits/kernel"], self.weights["logits/bias"])
