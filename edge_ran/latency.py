"""Statistics of times: percentiles, confidence intervals, steadiness; and a stopwatch for stages."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_ran import records

CONFIDENCE = 0.95
FEWEST_FOR_INTERVAL = 6  # below, even minimum and maximum hold the median less than 95 % of the time


@dataclass(frozen=True)
class LatencyStats:
    """Times of ``runs`` runs in milliseconds. ``cold_ms`` is the very first run, which is in none of the others.

    ``p50_interval_ms`` holds the true median with 95 % confidence, ``p90_interval_ms`` the true 90th percentile; None
    where there are too few runs to say. ``outliers`` counts the runs above the upper quartile by more than three times
    the distance between the quartiles; they stay in every figure. A program that reports no single times leaves
    ``p90_ms``, ``p99_ms`` and ``outliers`` None. In JSON the fields have the names of LiteRT's benchmark.
    """

    runs: int = field(metadata=records.key("num_runs"))
    cold_ms: float | None = field(metadata=records.key("first_run_ms"))
    mean_ms: float = field(metadata=records.key("avg_ms"))
    std_ms: float
    min_ms: float
    max_ms: float
    p5_ms: float
    p50_ms: float = field(metadata=records.key("median_ms"))
    p90_ms: float | None
    p95_ms: float
    p99_ms: float | None
    p50_interval_ms: tuple[float, float] | None = field(default=None, metadata=records.key("median_interval_ms"))
    p90_interval_ms: tuple[float, float] | None = None
    outliers: int | None = 0

    @classmethod
    def from_ms(
        cls, samples: Sequence[float], cold_ms: float | None = None, sessions: Sequence[Sequence[float]] = ()
    ) -> LatencyStats:
        """Summarise times in milliseconds; ``sessions`` are the same times by load (``interval``).

        Raises:
            ValueError: there are none.
        """
        values = np.asarray(samples, np.float64)
        if values.ndim != 1 or not values.size:
            raise ValueError(f"times must be (N,) with N > 0, not {values.shape}")
        p5, q1, p50, q3, p90, p95, p99 = (float(v) for v in np.percentile(values, [5, 25, 50, 75, 90, 95, 99]))
        return cls(
            runs=values.size,
            cold_ms=cold_ms,
            mean_ms=float(values.mean()),
            std_ms=float(values.std(ddof=1)) if values.size > 1 else 0.0,
            min_ms=float(values.min()),
            max_ms=float(values.max()),
            p5_ms=p5,
            p50_ms=p50,
            p90_ms=p90,
            p95_ms=p95,
            p99_ms=p99,
            p50_interval_ms=interval(samples, sessions, 50),
            p90_interval_ms=interval(samples, sessions, 90),
            outliers=int((values > q3 + 3 * (q3 - q1)).sum()),
        )

    @property
    def relative_interval(self) -> float | None:
        """Half the width of the median's interval divided by the median: 0.02 means "known to within 2 %"."""
        if self.p50_interval_ms is None or self.p50_ms <= 0:
            return None
        low, high = self.p50_interval_ms
        return (high - low) / 2 / self.p50_ms


def interval(
    samples: Sequence[float], sessions: Sequence[Sequence[float]], percent: float
) -> tuple[float, float] | None:
    """Return what holds the true percentile of a model's times with 95 % confidence, for any later load, too.

    Runs of one load share what that load got, such as its place in memory, so however many there are, they say nothing
    about the next load: only loads are independent of each other. The interval is the wider of the one from the
    runs and the one from the percentiles of each session; fewer than six sessions give their extremes, which may hold
    it less often.

    Args:
        samples: all times, in milliseconds.
        sessions: the same times, in a list for each load.
        percent: which percentile, 0..100.
    """
    of_runs = percentile_interval(samples, percent)
    if of_runs is None or not sessions:
        return of_runs
    medians = [float(np.percentile(times, percent)) for times in sessions]
    of_loads = percentile_interval(medians, 50) or (min(medians), max(medians))
    return min(of_runs[0], of_loads[0]), max(of_runs[1], of_loads[1])


def percentile_interval(samples: Sequence[float], percent: float) -> tuple[float, float] | None:
    """Return the sample values that hold the true percentile with 95 % confidence, whatever the distribution.

    The number of samples below the true percentile is binomial, so two order statistics bracket it (Hahn and Meeker,
    Statistical Intervals, 5.2). None when even the extremes do not.
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    count, p = ordered.size, percent / 100
    if count < FEWEST_FOR_INTERVAL:
        return None
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])  # log k!
    k = np.arange(count + 1)
    below = np.cumsum(np.exp(logs[-1] - logs - logs[::-1] + k * math.log(p) + (count - k) * math.log1p(-p)))
    tail = (1 - CONFIDENCE) / 2
    low = int(np.searchsorted(below, tail, side="right")) - 1  # P(samples below <= low) <= tail
    high = int(np.searchsorted(below, 1 - tail, side="left"))  # P(samples below <= high) >= 1 - tail
    if low < 0 or high >= count:
        return None
    return float(ordered[low]), float(ordered[high])


def steady(samples: Sequence[float], window: int = 5, tolerance: float = 0.05) -> bool:
    """Return True when the last ``window`` times and those before them have medians within ``tolerance``."""
    if len(samples) < 2 * window:
        return False
    before, last = np.median(samples[-2 * window : -window]), np.median(samples[-window:])
    return bool(abs(last - before) <= tolerance * before)


def drift(samples: Sequence[float]) -> float:
    """Return how much slower the last third ran than the first, as a part of the first (medians); 0.1 = 10 %."""
    third = len(samples) // 3
    if not third:
        return 0.0
    first, last = float(np.median(samples[:third])), float(np.median(samples[-third:]))
    return last / first - 1 if first > 0 else 0.0


class Stopwatch:
    """Times the stages of one frame: ``lap(name)`` ends a stage that began where the one before ended."""

    def __init__(self) -> None:
        self.stages_ms: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def lap(self, stage: str) -> float:
        """End a stage; return its milliseconds."""
        now = time.perf_counter()
        took = (now - self._last) * 1e3
        self._last = now
        self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + took
        return took

    @property
    def total_ms(self) -> float:
        """Milliseconds from the start to the end of the last stage."""
        return (self._last - self._start) * 1e3
