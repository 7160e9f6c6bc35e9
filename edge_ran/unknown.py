"""What a threshold on the score is worth: how well known pictures and those of no class are told apart by it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

KEPT = 0.95  # share of the known pictures that the reported threshold keeps
DIGITS = 4  # of a threshold: what is printed is what was measured


@dataclass(frozen=True)
class UnknownReport:
    """Pictures of no class against those of the model's classes, by the highest score of each.

    ``auroc`` is the chance that a known picture has a higher score than an unknown one, 0.5 where the score says
    nothing. ``threshold`` keeps ``kept`` of the known pictures (``run --threshold`` takes it); ``false_alarms`` is the
    share of unknown pictures that it lets through, with its 95 % interval. ``kept_top1`` is the accuracy on the known
    pictures that are kept. All but ``images`` are 0..1.
    """

    source: str
    images: int
    auroc: float
    kept: float
    threshold: float
    false_alarms: float
    false_alarms_interval: tuple[float, float]
    kept_top1: float


def auroc(known: ArrayLike, unknown: ArrayLike) -> float:
    """Return the area under the ROC curve (Mann and Whitney 1947), ties counted half; (N,) and (M,) scores."""
    high, low = np.asarray(known, np.float64), np.sort(np.asarray(unknown, np.float64))
    below, not_above = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return float((below + not_above).mean() / (2 * len(low)))


def threshold_keeping(known: ArrayLike, kept: float = KEPT) -> float:
    """Return the highest threshold of ``DIGITS`` digits that at least ``kept`` of the (N,) scores reach."""
    scores = np.sort(np.asarray(known, np.float64))[::-1]
    least = scores[max(0, int(np.ceil(kept * len(scores) - 1e-9)) - 1)]
    return float(np.floor(least * 10**DIGITS) / 10**DIGITS)  # rounded to nearest, it could be above them all


def false_alarms(unknown: ArrayLike, threshold: float) -> NDArray[np.bool_]:
    """Return which of the (M,) scores of unknown pictures reach the threshold."""
    return np.asarray(unknown, np.float64) >= threshold
