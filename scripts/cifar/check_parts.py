"""Compare the processor's parts with PyTorch's own operators: python scripts/cifar/check_parts.py

Each part computes an output and its gradients three times: PyTorch in float32, PyTorch in bfloat16, and parts_cpu. The
two columns are the largest relative error (2-norm of the difference over that of the value) of the last two against the
first, over all inputs and weights: both round to bfloat16, so they should be alike.
"""

from __future__ import annotations

from collections.abc import Callable

import parts_cpu
import torch
import train_twin
import twin
from torch import Tensor

Part = Callable[[list[Tensor], list[Tensor]], Tensor]
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def error(value: Tensor, right: Tensor) -> float:
    return float((value.float() - right).norm() / right.norm().clamp_min(1e-12))


def values_of(part: Part, inputs: list[Tensor], weights: list[Tensor], kind: torch.dtype) -> list[Tensor]:
    """The output and the gradients of its sum with random factors."""
    given = [x.to(kind).to(memory_format=torch.channels_last).requires_grad_() for x in inputs]
    own = [w.clone().requires_grad_() for w in weights]
    output = part(given, own)
    factors = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    return [v.detach().float() for v in (output, *torch.autograd.grad((output.float() * factors).sum(), given + own))]


def compare(name: str, theirs: Part, ours: Part, inputs: list[Tensor], weights: list[Tensor]) -> None:
    right = values_of(theirs, inputs, weights, torch.float32)
    found = [values_of(part, inputs, weights, torch.bfloat16) for part in (theirs, ours)]
    worst = [max(error(a, b) for a, b in zip(values, right, strict=True)) for values in found]
    print(f"{name:<34} {worst[0]:.4f}  {worst[1]:.4f}")


def picture(channels: int, side: int, scale: float = 1.0) -> Tensor:
    return (torch.randn(16, channels, side, side) * scale).bfloat16().float()


def norm_weights(channels: int) -> list[Tensor]:
    return [torch.rand(channels) + 0.5, torch.randn(channels) * 0.3]


def norm(weights: list[Tensor]) -> twin.Norm:
    channels = len(weights[0])
    return weights[0], weights[1], torch.zeros(channels), torch.ones(channels)


def unit_of(parts: dict[str, Callable[..., Tensor]], stride: int) -> Part:
    def part(x: list[Tensor], w: list[Tensor]) -> Tensor:
        return parts["unit"](x[0], (norm(w[0:2]), norm(w[2:4]), norm(w[4:6])), tuple(w[6:]), stride, True)

    return part


def gate_of(parts: dict[str, Callable[..., Tensor]], beyond: Callable[[Tensor], Tensor]) -> Part:
    def part(x: list[Tensor], w: list[Tensor]) -> Tensor:
        mask = x[1] * 1
        return parts["gate"](x[0], mask).float() + 100 * beyond(mask)

    return part


def main() -> None:
    torch.manual_seed(0)
    pairs = twin.PARTS, parts_cpu.PARTS
    print(f"{'part':<34} PyTorch's bfloat16, parts_cpu")
    for channels, inner, out, stride in ((64, 16, 64, 1), (16, 16, 64, 1), (64, 32, 128, 2), (256, 64, 256, 1)):
        shapes = [(inner, channels, 1, 1), (inner, inner, 3, 3), (out, inner, 1, 1)]
        if channels != out or stride != 1:
            shapes.append((out, channels, 1, 1))
        weights = [w for size in (channels, inner, inner) for w in norm_weights(size)]
        weights += [torch.randn(shape) * (shape[1] * shape[2] * shape[3]) ** -0.5 for shape in shapes]
        theirs, ours = (unit_of(parts, stride) for parts in pairs)
        compare(f"unit {channels} to {out}, stride {stride}", theirs, ours, [picture(channels, 8)], weights)
    normed: list[Part] = [lambda x, w, p=p: p["norm_relu"](x[0], norm(w), True) for p in pairs]  # type: ignore[misc]
    compare("normalisation and ReLU", normed[0], normed[1], [picture(64, 8)], norm_weights(64))
    convs: list[Part] = [lambda x, w, p=p: p["norm_conv"](x[0], norm(w), w[2], True) for p in pairs]  # type: ignore[misc]
    compare(
        "and a 1x1 convolution",
        convs[0],
        convs[1],
        [picture(64, 8)],
        [*norm_weights(64), torch.randn(64, 64, 1, 1) / 8],
    )
    pools: list[Part] = [lambda x, w, p=p: p["pool"](x[0], 3) for p in pairs]  # type: ignore[misc]
    compare("maximum pooling", pools[0], pools[1], [picture(64, 8)], [])
    theirs, ours = gate_of(pairs[0], train_twin.beyond), gate_of(pairs[1], parts_cpu.beyond)
    compare("gate, with the masks' penalty", theirs, ours, [picture(64, 8), picture(64, 8, 4.0)], [])


if __name__ == "__main__":
    main()
