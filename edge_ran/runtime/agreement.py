"""Whether an accelerator's answers are those of the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran.errors import InputError
from edge_ran.graph import TensorSpec
from edge_ran.printable import many

# Measured on networks of 17 to 370 operators, GPU against XNNPACK. Rounding: float 1e-6 of the answers' spread, int8
# (which a GPU computes in float) 0.003 to 0.03, with single scores off by 0.05. A wrong kernel: 0.8, scores off by 0.9.
LARGEST_ERROR = 0.10
# In float a wrong border alone, a fault of LiteRT's, is 0.1; half precision rounds to 1e-3 of each number.
LARGEST_FLOAT_ERROR = {"fp32": 0.002, "fp16": 0.03}
LARGEST_DIFFERENCE = 0.25  # of the answers' range
_NOT_FINITE = 1e9  # its square is finite, too
FEWEST_LEVELS = 32  # a quantised mask's range is taken to have: in a mean, rounding of a step or five is no fault


Outputs = Sequence[NDArray[Any]]  # of one input


@dataclass(frozen=True)
class Agreement:
    """How far one accelerator's answers are from the CPU's.

    Attributes:
        pictures: inputs compared.
        top1: share of pictures, 0..1, with the CPU's top-1. Rounding may turn a near tie.
        largest_difference: of any score, in the output's real units.
        relative_error: root mean square of the differences over that of the CPU's answers about their mean: 0 = the
            same, 1 = no better than always answering the mean.
        answers_range: largest minus smallest of the CPU's answers.
        masks_difference: largest difference in any further output, such as an attention mask, as a share of its range.
        allowed_error: the relative error up to which it is rounding.
    """

    pictures: int
    top1: float
    largest_difference: float
    relative_error: float
    answers_range: float
    masks_difference: float = 0.0
    allowed_error: float = LARGEST_ERROR

    @property
    def is_right(self) -> bool:
        """Whether the differences are no more than rounding."""
        small = self.largest_difference <= LARGEST_DIFFERENCE * self.answers_range or self.largest_difference == 0
        return small and self.relative_error <= self.allowed_error and self.masks_difference <= LARGEST_DIFFERENCE

    def __str__(self) -> str:
        masks = f", masks off by {self.masks_difference:.1%} of their range" if self.masks_difference else ""
        return (
            f"top-1 agrees on {self.top1:.1%} of {many(self.pictures, 'picture')}, "
            f"largest difference {self.largest_difference:.3g}, relative error {self.relative_error:.1%}{masks}"
        )


def check_finite(answers: Iterable[Outputs], path: Path) -> None:
    """Raise InputError when a model's answers on the CPU hold NaN or infinity: nothing can be held against them."""
    if not all(np.isfinite(np.asarray(output, np.float64)).all() for outputs in answers for output in outputs):
        raise InputError(f"{path} gives answers that are not finite numbers", "train or convert it again")


def allowed(model_precision: str, arithmetic: str) -> float:
    """Return the relative error that rounding alone may make.

    Args:
        model_precision: ``graph.Graph.precision``; only files in float throughout are held to less.
        arithmetic: of the accelerator, ``fp32`` or ``fp16``.
    """
    return LARGEST_FLOAT_ERROR.get(arithmetic, LARGEST_ERROR) if model_precision in ("fp32", "fp16") else LARGEST_ERROR


def compare_all(
    reference: Sequence[Outputs],
    answers: Sequence[Outputs],
    tensors: Sequence[TensorSpec],
    allowed_error: float = LARGEST_ERROR,
    scores: int = 0,
) -> Agreement:
    """Compare every output: the class scores by ``compare``, and the others as masks.

    Args:
        reference: the CPU's outputs for each input, in the order of ``tensors``.
        answers: the accelerator's.
        tensors: the model's outputs.
        allowed_error: of ``allowed``.
        scores: the place of the class scores among ``tensors``.
    """
    found = [
        compare([outputs[place] for outputs in reference], [outputs[place] for outputs in answers], tensor)
        for place, tensor in enumerate(tensors)
    ]
    off = [
        mask.largest_difference / max(mask.answers_range, FEWEST_LEVELS * tensor.scale, 1e-12)
        for place, (mask, tensor) in enumerate(zip(found, tensors, strict=True))
        if place != scores
    ]
    return dataclasses.replace(found[scores], masks_difference=max(off, default=0.0), allowed_error=allowed_error)


def compare(reference: Sequence[NDArray[Any]], answers: Sequence[NDArray[Any]], tensor: TensorSpec) -> Agreement:
    """Compare the answers to the same inputs.

    Args:
        reference: the CPU's outputs, one array of the tensor's shape and dtype for each input.
        answers: the accelerator's.
        tensor: the output; its scale makes quantised numbers real.
    """
    scale = tensor.scale if tensor.scale > 0 else 1.0
    right = np.stack([a.reshape(-1) for a in reference]).astype(np.float64) * scale
    other = finite(np.stack([a.reshape(-1) for a in answers]).astype(np.float64) * scale)
    return Agreement(
        pictures=len(right),
        # A class that the CPU holds equal to its first is as good an answer.
        top1=float(np.mean(np.take_along_axis(right, other.argmax(1)[:, None], 1)[:, 0] == right.max(1))),
        largest_difference=float(np.abs(other - right).max()),
        relative_error=relative_error(right, other, tensor.scale),
        answers_range=float(np.ptp(right)),
    )


def finite(answers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an accelerator's answers, NaN and infinities as numbers that JSON can hold and no gate lets pass."""
    return np.nan_to_num(answers, nan=_NOT_FINITE, posinf=_NOT_FINITE, neginf=-_NOT_FINITE)


def relative_error(right: NDArray[Any], other: NDArray[Any], scale: float) -> float:
    """Root mean square of the difference over that of ``right`` about its mean.

    Half a quantisation step, or a float's rounding, is the least spread that ``right`` is taken to have.
    """
    least = max(scale / 2, 1e-6 * float(np.abs(right).max(initial=0)), 1e-12)
    spread = float(np.sqrt(np.mean((right - right.mean()) ** 2)))
    return float(np.sqrt(np.mean((other - right) ** 2))) / max(spread, least)
