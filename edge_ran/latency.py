"""Times and what may be said of them: percentiles, intervals, steadiness, a stopwatch for stages."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
FEWEST_FOR_INTERVAL = 6  # below, even minimum and maximum hold the median less than 95 % of the time


@dataclass(frozen=True)
class LatencyStats:
    """Times of ``runs`` runs in milliseconds. ``cold_ms`` is the very first run, which is in none of the others.

    ``p50_low_ms`` and ``p50_high_ms`` hold the true median with 95 % confidence, ``p90_low_ms`` and ``p90_high_ms`` the
    true 90th percentile; None where there are too few runs to say.
    ``outliers`` counts the runs above the upper quartile by more than three times the quartiles' distance; they are
    kept in every figure. A program that tells no single times leaves ``p90_ms``, ``p99_ms`` and ``outliers`` None.
    """

    runs: int
    cold_ms: float | None
    mean_ms: float
    std_ms: float
    min_ms: float
    max_ms: float
    p5_ms: float
    p50_ms: float
    p90_ms: float | None
    p95_ms: float
    p99_ms: float | None
    p50_low_ms: float | None = None
    p50_high_ms: float | None = None
    p90_low_ms: float | None = None
    p90_high_ms: float | None = None
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
        p50_low, p50_high = interval(samples, sessions, 50)
        p90_low, p90_high = interval(samples, sessions, 90)
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
            p50_low_ms=p50_low,
            p50_high_ms=p50_high,
            p90_low_ms=p90_low,
            p90_high_ms=p90_high,
            outliers=int((values > q3 + 3 * (q3 - q1)).sum()),
        )

    @property
    def relative_interval(self) -> float | None:
        """Half the width of the median's interval, as a part of the median: 0.02 reads "known to 2 %"."""
        if self.p50_low_ms is None or self.p50_high_ms is None or self.p50_ms <= 0:
            return None
        return (self.p50_high_ms - self.p50_low_ms) / 2 / self.p50_ms

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the fields as a record for JSON."""
        return dataclasses.asdict(self)


def interval(
    samples: Sequence[float], sessions: Sequence[Sequence[float]], percent: float
) -> tuple[float | None, float | None]:
    """Return what holds the true percentile of a model's times with 95 % confidence, whatever it is loaded for next.

    Runs of one load are alike in what that load got, such as its place in memory, so however many they are, they tell
    nothing of the next load: only loads are independent of each other. The interval is the wider of the one from the
    runs and the one from the percentiles of each session; fewer than six sessions give their extremes, which may hold
    it less often.

    Args:
        samples: all times, in milliseconds.
        sessions: the same times, in a list for each load.
        percent: which percentile.
    """
    low, high = percentile_interval(samples, percent)
    if low is None or high is None or not sessions:
        return low, high
    of_loads = [float(np.percentile(times, percent)) for times in sessions]
    first, last = percentile_interval(of_loads, 50)
    return min(low, min(of_loads) if first is None else first), max(high, max(of_loads) if last is None else last)


def percentile_interval(samples: Sequence[float], percent: float) -> tuple[float | None, float | None]:
    """Return the sample values that hold the true percentile with 95 % confidence, whatever the distribution.

    The number of samples below the true percentile is binomial, so two order statistics bracket it (Hahn and Meeker,
    Statistical Intervals, 5.2). (None, None) when even the extremes do not.
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    count, p = ordered.size, percent / 100
    if count < FEWEST_FOR_INTERVAL:
        return None, None
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])  # log k!
    k = np.arange(count + 1)
    below = np.cumsum(np.exp(logs[-1] - logs - logs[::-1] + k * math.log(p) + (count - k) * math.log1p(-p)))
    tail = (1 - CONFIDENCE) / 2
    low = int(np.searchsorted(below, tail, side="right")) - 1  # P(samples below <= low) <= tail
    high = int(np.searchsorted(below, 1 - tail, side="left"))  # P(samples below <= high) >= 1 - tail
    if low < 0 or high >= count:
        return None, None
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
