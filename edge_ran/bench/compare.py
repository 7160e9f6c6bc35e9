"""Is one faster than the other? Ratios of times with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_ran import records
from edge_ran.latency import LatencyStats, percentile_interval

SAME_WITHIN = 0.02  # a smaller difference is of no use, and another day's measurement would not show it again


@dataclass(frozen=True)
class Ratio:
    """Time of ``name`` divided by that of ``baseline``: 0.5 is twice as fast.

    ``low`` and ``high`` hold the true ratio with 95 % confidence; ``different`` is False where 1 lies between them, or
    nothing further than 2 % from it. ``cautions`` say what else differed between the two. ``reliable`` is False where
    the figures of one of them are not reliable, or were measured on different processors or boards; ``doubts``
    say why.
    """

    name: str
    baseline: str
    ratio: float
    low: float
    high: float
    different: bool
    cautions: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @records.derived
    def reliable(self) -> bool:
        """Whether a gate may judge by it."""
        return not self.doubts

    def __str__(self) -> str:
        interval = f"(95 %: {self.low:.3f} to {self.high:.3f})"
        if not self.different:
            return f"{self.name}: no difference from {self.baseline} shown, ratio {self.ratio:.3f} {interval}"
        speed = f"{1 / self.ratio:.2f} times faster" if self.ratio < 1 else f"{self.ratio:.2f} times slower"
        return f"{self.name}: {speed} than {self.baseline}, ratio {self.ratio:.3f} {interval}"


def ratio_of_sessions(
    name: str, baseline: str, times: Sequence[Sequence[float]], baseline_times: Sequence[Sequence[float]]
) -> Ratio:
    """Compare two models that took turns.

    Turns are short, so what disturbs one model disturbs the other, too. The place of a load in memory makes it faster
    or slower until it is loaded again, so only the ratios of sessions, each with its own loads, are independent: the
    interval is theirs.

    Args:
        name, baseline: what they are called.
        times, baseline_times: milliseconds of every run, in a list for each session.
    """
    ratios = [float(np.median(mine) / np.median(other)) for mine, other in zip(times, baseline_times, strict=True)]
    low, high = percentile_interval(ratios, 50) or (min(ratios), max(ratios))
    return make_ratio(name, baseline, float(np.median(ratios)), low, high)


def ratio_of_reports(
    name: str,
    now: LatencyStats,
    baseline: str,
    before: LatencyStats,
    cautions: Sequence[str] = (),
    doubts: Sequence[str] = (),
) -> Ratio:
    """Compare times that were measured one after the other, each loaded several times: on two devices, or on two days.

    The interval is from runs and loads: it knows nothing of what else changed in between.
    """
    mine, other = (stats.p50_interval_ms or (stats.p50_ms, stats.p50_ms) for stats in (now, before))
    ratio = now.p50_ms / before.p50_ms
    return make_ratio(name, baseline, ratio, mine[0] / other[1], mine[1] / other[0], tuple(cautions), tuple(doubts))


def make_ratio(
    name: str,
    baseline: str,
    ratio: float,
    low: float,
    high: float,
    cautions: tuple[str, ...] = (),
    doubts: tuple[str, ...] = (),
) -> Ratio:
    """Return a ratio and whether its interval shows a difference."""
    same = low <= 1 <= high or (low > 1 - SAME_WITHIN and high < 1 + SAME_WITHIN)
    return Ratio(name, baseline, ratio, low, high, not same, cautions, doubts)
