"""The twin's parts for training on a processor with AVX-512 BF16: the same numbers, fewer passes over memory.

`cpu/parts.cpp` computes normalisation and ReLU where a 1x1 convolution reads, and again for the gradients, and takes
the sums that the next normalisation asks for where a unit's result is written: ``sums`` is left with the tensor.
Attention-56 on two cores of a Xeon (Sapphire Rapids), a process and batch 64 each: 504 pictures/s; PyTorch's own
operators, bfloat16 as well: 160. On two cores of an EPYC (Zen 5), which has no AMX: 500.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import twin
from torch import Tensor
from torch.nn import functional as F
from torch.utils.cpp_extension import load
from twin import EPSILON, MASK_LIMIT, MOMENTUM, Norm

if "avx512_bf16" not in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""):
    raise SystemExit("training needs an NVIDIA GPU, or a processor with AVX-512 BF16, which this one lacks")
native = load(
    "parts_cpu",
    [str(Path(__file__).parent / "cpu/parts.cpp")],
    extra_cflags=["-O3", "-march=native", "-fno-math-errno"],
)


def last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def line_of(x: Tensor, sums: Tensor, norm: Norm) -> Tensor:
    line: Tensor = native.line_of(sums, x.numel() // x.shape[1], *norm, MOMENTUM, EPSILON)
    return line


def forward(x: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Normalised and cut off; and what the gradient needs."""
    line = line_of(x, native.sums_of(x), norm)
    return native.norm_relu(x, line), line


def backward(d: Tensor, x: Tensor, line: Tensor, sums: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, gamma and beta."""
    sums = native.gradient_sums(d, x, line) if sums is None else sums
    slope, dgamma, dbeta = native.finish(sums, x.numel() // x.shape[1], line)
    return native.norm_relu_apply(d, x, line, slope), dgamma, dbeta


def shrink(x: Tensor, stride: int) -> Tensor:
    return x if stride == 1 else last(x[:, :, ::stride, ::stride])


def conv3x3_gradients(d: Tensor, x: Tensor, kernel: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    pad = 1 if stride == 1 else 0
    fast = stride == 1 and x.shape[2] * x.shape[3] >= 32
    into, own, _ = torch.ops.aten.convolution_backward(
        d, x, kernel, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, [True, not fast, False]
    )
    return into, native.conv3x3_kernel(d, x) if fast else own.float()


class NormRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *norm: Tensor) -> Tensor:
        y, line = forward(x, norm)
        ctx.save_for_backward(x, line)
        return y

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        return (*backward(last(d), *ctx.saved_tensors), None, None)


class Unit(torch.autograd.Function):
    """`twin.unit`, and the sums that the next unit's normalisation asks for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sums: Tensor | None, stride: int, *given: Tensor) -> tuple[Tensor, Tensor]:
        norms, kernels = [given[0:4], given[4:8], given[8:12]], [k.to(x.dtype) for k in given[12:]]
        flat = [k.flatten(1) for k in kernels]
        line0 = line_of(x, native.sums_of(x) if sums is None else sums, norms[0])
        first, sums = native.conv_forward(x, line0, flat[0], None)
        line1 = line_of(first, sums, norms[1])
        inner = native.norm_relu(first, line1)
        if stride == 2:
            inner = last(F.pad(inner, (0, 1, 0, 1)))  # TensorFlow's SAME pads below and on the right alone
        second = F.conv2d(inner, kernels[1], stride=stride, padding=2 - stride)
        line2 = line_of(second, native.sums_of(second), norms[2])
        shortcut = native.conv_forward(shrink(x, stride), line0, flat[3], None)[0] if len(flat) == 4 else x
        out, sums = native.conv_forward(second, line2, flat[2], shortcut)
        ctx.stride = stride
        ctx.save_for_backward(x, first, inner, second, line0, line1, line2, *kernels)
        ctx.mark_non_differentiable(sums)
        return out, sums

    @staticmethod
    def backward(ctx: Any, d: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, first, inner, second, line0, line1, line2, *kernels = ctx.saved_tensors
        d, stride, flat = last(d), ctx.stride, [k.flatten(1) for k in kernels]
        own2, sums, back = native.conv_backward(d, second, line2, flat[2], True)
        back, *norm2 = backward(back, second, line2, sums)
        back, own1 = conv3x3_gradients(back, inner, kernels[1], stride)
        if stride == 2:
            back = last(back[:, :, :-1, :-1])
        back, *norm1 = backward(back, first, line1)
        own0, sums, _ = native.conv_backward(back, x, line0, flat[0], False)
        gradients = [own0[:, :, None, None], own1, own2[:, :, None, None]]
        more: Tensor | None = d
        if len(flat) == 4:
            small = shrink(x, stride)
            own3, others, more = native.conv_backward(d, small, line0, flat[3], True)
            gradients.append(own3[:, :, None, None])
            sums = sums + others
            more = native.norm_relu_apply(more, small, line0, torch.zeros(2, x.shape[1]))
        slope, *norm0 = native.finish(sums, x.numel() // x.shape[1], line0)
        back = native.conv_apply(back, x, line0, flat[0], slope, more if stride == 1 else None)
        if stride == 2:
            back[:, :, ::2, ::2] += more
        return (back, None, None, *norm0, None, None, *norm1, None, None, *norm2, None, None, *gradients)


class NormConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, sums: Tensor | None, given: Tensor, *norm: Tensor) -> tuple[Tensor, Tensor]:
        kernel = given.to(x.dtype).flatten(1)
        line = line_of(x, native.sums_of(x) if sums is None else sums, norm)
        out, sums = native.conv_forward(x, line, kernel, None)
        ctx.save_for_backward(x, line, kernel)
        ctx.mark_non_differentiable(sums)
        return out, sums

    @staticmethod
    def backward(ctx: Any, d: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        d, (x, line, kernel) = last(d), ctx.saved_tensors
        own, sums, _ = native.conv_backward(d, x, line, kernel, False)
        slope, *norm = native.finish(sums, x.numel() // x.shape[1], line)
        return (native.conv_apply(d, x, line, kernel, slope, None), None, own[:, :, None, None], *norm, None, None)


class Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trunk: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(trunk, mask)
        out, mean = native.gate_forward(trunk, mask, MASK_LIMIT)
        return out, torch.tensor(mean)

    @staticmethod
    def backward(ctx: Any, d: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = native.gate_backward(last(d), *ctx.saved_tensors, MASK_LIMIT, factor.item())
        return result


class Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out, which = native.pool_forward(x)
        ctx.save_for_backward(which)
        return out

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:
        result: Tensor = native.pool_backward(last(d), *ctx.saved_tensors)
        return result


def norm_relu(x: Tensor, norm: Norm, training: bool) -> Tensor:
    return NormRelu.apply(last(x), *norm) if training else twin.norm_relu(x, norm, training)


def norm_conv(x: Tensor, norm: Norm, kernel: Tensor, training: bool) -> Tensor:
    if not training:
        return twin.norm_conv(x, norm, kernel, training)
    out, out.sums = NormConv.apply(last(x), getattr(x, "sums", None), kernel, *norm)
    return out


def unit(x: Tensor, norms: tuple[Norm, Norm, Norm], kernels: tuple[Tensor, ...], stride: int, training: bool) -> Tensor:
    if not training:
        return twin.unit(x, norms, kernels, stride, training)
    given = (*norms[0], *norms[1], *norms[2], *kernels)
    out, out.sums = Unit.apply(last(x), getattr(x, "sums", None), stride, *given)
    return out


def gate(trunk: Tensor, mask: Tensor) -> Tensor:
    """Also leaves with ``mask`` how far its logits are beyond the limit: one pass reads them for both."""
    out, mask.beyond = Gate.apply(last(trunk), last(mask))
    return out


def pool(x: Tensor, side: int) -> Tensor:
    return Pool.apply(last(x)) if side == 3 and x.requires_grad else twin.pool(x, side)


def beyond(mask: Tensor) -> Tensor:
    return mask.beyond


PARTS: dict[str, Callable[..., Tensor]] = {f.__name__: f for f in (norm_relu, norm_conv, unit, gate, pool)}
PARTS["up"] = twin.up
