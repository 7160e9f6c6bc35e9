"""How long a benchmark measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_ran.errors import UsageError
from edge_ran.latency import percentile_interval


@dataclass(frozen=True)
class Plan:
    """At least ``num_runs`` runs and ``min_secs`` seconds, at most ``max_secs`` seconds.

    ``until`` > 0 goes on, with more runs and more loads, until the median is known to within that part of itself
    (0.02 = ±2 %) with 95 % confidence. Each load begins with ``warmup_runs`` runs and as many more as it takes until
    the times are steady, at most 10 s of them.
    """

    num_runs: int = 50
    warmup_runs: int = 5
    min_secs: float = 1.0
    max_secs: float = 150.0
    until: float = 0.0

    def __post_init__(self) -> None:
        if self.num_runs < 1:
            raise UsageError(f"--num-runs {self.num_runs} is not above 0", "for instance --num-runs 50")
        if self.warmup_runs < 0:
            raise UsageError(f"--warmup-runs {self.warmup_runs} is negative", "for instance --warmup-runs 5")
        if not self.min_secs >= 0:
            raise UsageError(f"--min-secs {self.min_secs:g} is negative", "for instance --min-secs 1")
        if not max(self.min_secs, 1e-9) <= self.max_secs < math.inf:
            raise UsageError(
                f"--max-secs {self.max_secs:g} is below --min-secs {self.min_secs:g}, not above 0, or without an end",
                "for instance --min-secs 1 --max-secs 150",
            )
        if not 0 <= self.until < 1:
            raise UsageError("--until must be between 0 % and 100 %", "for instance --until 2%")

    @classmethod
    def mlperf(cls) -> Plan:
        """The single-stream scenario of MLPerf Mobile: at least 1,024 samples and 60 s; its figure is the p90."""
        return cls(num_runs=1024, warmup_runs=5, min_secs=60, max_secs=600)

    def done(self, samples_ms: Sequence[float], seconds: float) -> bool:
        """Whether so many runs in so many seconds are enough."""
        if seconds >= self.max_secs:
            return True
        if len(samples_ms) < self.num_runs or seconds < self.min_secs:
            return False
        if not self.until:
            return True
        found = percentile_interval(samples_ms, 50)
        return found is not None and (found[1] - found[0]) / 2 <= self.until * float(np.median(samples_ms))
