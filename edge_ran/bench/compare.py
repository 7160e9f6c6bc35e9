"""Is one faster than the other? Ratios of times with intervals, from turns in one run or from two reports."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_ran.errors import GateError, InputError
from edge_ran.files import read_bytes
from edge_ran.latency import LatencyStats, percentile_interval

SAME_WITHIN = 0.02  # less is nothing that anybody would notice, nor that could be shown again tomorrow


@dataclass(frozen=True)
class Ratio:
    """Time of ``name`` divided by that of ``baseline``: 0.5 is twice as fast. ``low`` and ``high`` hold the true ratio
    with 95 % confidence; ``different`` is False where they hold 1, or nothing further than 2 % from it."""

    name: str
    baseline: str
    ratio: float
    low: float
    high: float
    different: bool
    cautions: tuple[str, ...] = ()

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

    Turns are short, so what disturbs one model disturbs the other, too. Where a load lies in memory makes it faster or
    slower as long as it lives, so only the ratios of sessions, each with loads of its own, are independent: the
    interval is theirs.

    Args:
        name, baseline: what they are called.
        times, baseline_times: milliseconds of every run, in a list for each session.
    """
    ratios = [float(np.median(mine) / np.median(other)) for mine, other in zip(times, baseline_times, strict=True)]
    low, high = percentile_interval(ratios, 50)
    low, high = (min(ratios), max(ratios)) if low is None or high is None else (low, high)
    return _ratio(name, baseline, float(np.median(ratios)), low, high, ())


def ratio_of_devices(name: str, now: LatencyStats, baseline: str, before: LatencyStats) -> Ratio:
    """Compare one model's times on two devices, each loaded several times there."""
    bounds = [(s.p50_low_ms or s.p50_ms, s.p50_high_ms or s.p50_ms) for s in (now, before)]
    low, high = bounds[0][0] / bounds[1][1], bounds[0][1] / bounds[1][0]
    return _ratio(name, baseline, now.p50_ms / before.p50_ms, low, high, ())


def compare_files(a: Path, b: Path) -> Ratio:
    """Compare two reports that ``benchmark --result-json`` wrote, ``b`` against ``a``.

    Raises:
        InputError: one of them is not such a report.
    """
    return regression(read_report(b), read_report(a), str(b), str(a))


def regression(now: dict[str, Any], before: dict[str, Any], name: str, baseline: str) -> Ratio:
    """Compare two reports of one model each. The interval is from runs and loads: it knows nothing of what changed
    on the machine between them, and ``cautions`` say what is known to have changed."""
    medians, bounds = [], []
    for record in (now, before):
        median = record["latency"]["median_ms"]
        low, high = record["latency"].get("median_interval_ms") or (None, None)
        medians.append(median)
        bounds.append((low if low is not None else median, high if high is not None else median))
    cautions = [
        f"{words} differ: {_at(now, *path)} and {_at(before, *path)}"
        for words, path in (
            ("the models", ("model", "sha256")),
            ("the processors", ("environment", "cpu")),
            ("the accelerators", ("accelerator", "actual")),
            ("the threads", ("runtime", "threads")),
            ("the runtimes", ("runtime", "version")),
        )
        if _at(now, *path) != _at(before, *path)
    ]
    cautions += [
        f"{which} is not to be quoted: {'; '.join(map(str, _at(record, 'validity', 'reasons') or ()))}"
        for which, record in ((name, now), (baseline, before))
        if _at(record, "validity", "quotable") is False
    ]
    low, high = bounds[0][0] / bounds[1][1], bounds[0][1] / bounds[1][0]
    return _ratio(name, baseline, medians[0] / medians[1], low, high, tuple(cautions))


def check_regression(ratio: Ratio, allowed: float) -> None:
    """Raise GateError when ``ratio`` is above 1 + ``allowed`` (0.05 = 5 %) and is a difference at all."""
    if ratio.different and ratio.ratio > 1 + allowed:
        raise GateError(
            f"{ratio.ratio - 1:.1%} slower than {ratio.baseline} "
            f"(95 %: {ratio.low - 1:+.1%} to {ratio.high - 1:+.1%}), {allowed:.1%} are allowed",
            "; ".join(ratio.cautions) or "measure again on a quiet machine, or accept it as the new baseline",
        )


def read_report(path: Path) -> dict[str, Any]:
    """Read a report of one model.

    Raises:
        InputError: it is not JSON, or has no median.
    """
    try:
        record = json.loads(read_bytes(path, "report"))
        median = record["latency"]["median_ms"]
        interval = record["latency"].get("median_interval_ms") or []
        if not all(
            isinstance(v, (int, float)) and math.isfinite(v) and v > 0 for v in (median, *filter(None, interval))
        ):
            raise ValueError("its median is not a time")
        if len(interval) not in (0, 2):
            raise ValueError("its interval is not a pair")
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a report of one model: {error}", "make it with edge-ran benchmark MODEL --result-json FILE"
        ) from error
    found: dict[str, Any] = record
    return found


def _ratio(name: str, baseline: str, ratio: float, low: float, high: float, cautions: tuple[str, ...]) -> Ratio:
    same = low <= 1 <= high or (low > 1 - SAME_WITHIN and high < 1 + SAME_WITHIN)
    return Ratio(name, baseline, ratio, low, high, not same, cautions)


def _at(record: Any, *keys: str) -> Any:
    for key in keys:
        record = record.get(key) if isinstance(record, dict) else None
    return record
