"""Minutes of work without a pause: does the device stay as fast as it began?"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_ran import machine, plots, records
from edge_ran.bench.measure import BenchModel, Plan, loaded
from edge_ran.errors import InputError, UsageError

WINDOWS = 60
SHORTEST_WINDOW_S = 0.2
NOTICEABLE = 0.05


@dataclass(frozen=True)
class Window:
    """A stretch of time: when it ended, how many runs it held, their median and p90, and how the device was then."""

    at_s: float
    runs: int
    median_ms: float
    p90_ms: float
    conditions: machine.Conditions


@dataclass(frozen=True)
class Sustained:
    """What became of the speed. ``slowdown`` is the last quarter's median against the first's, 0.1 = 10 % slower;
    ``reasons`` are what was seen to change with it."""

    seconds: float
    windows: tuple[Window, ...]
    slowdown: float
    throttled: bool | None
    reasons: tuple[str, ...]

    @classmethod
    def from_dict(cls, record: Any) -> Sustained:
        """Make it of the record that ``to_dict`` gave. Raises InputError where it is none."""
        course: Sustained = records.read(cls, record, "sustained")
        if not course.windows:
            raise InputError("sustained.windows is empty")
        return course

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        if abs(self.slowdown) <= NOTICEABLE:
            return f"steady for {self.seconds:.0f} s: {self.slowdown:+.1%} from the first quarter to the last"
        word = "slower" if self.slowdown > 0 else "faster"
        why = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return f"{abs(self.slowdown):.0%} {word} in the last quarter of {self.seconds:.0f} s than in the first{why}"


def sustain(
    subject: BenchModel,
    seconds: float,
    pictures: Sequence[Path] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sustained:
    """Run a model without a pause, in 60 windows, and look at clock, temperature and neighbours in each.

    Args:
        subject: the model.
        seconds: how long.
        pictures: as for ``benchmark``.
        progress: called with (windows done, windows) after each window.

    Raises:
        UsageError: the time is not above 0.
        InputError, EnvironmentMissing: as ``benchmark``.
    """
    if not 0 < seconds < float("inf"):
        raise UsageError("a sustained run needs a time above 0", "for instance --sustained 10m")
    count = max(4, min(WINDOWS, int(seconds / SHORTEST_WINDOW_S)))
    windows = []
    with loaded([subject], pictures) as (one,):
        one.warm_up(Plan())
        feed, start = itertools.cycle(one.inputs), time.perf_counter()
        for number in range(1, count + 1):
            watch = machine.ConditionsMonitor()
            times: list[float] = []
            end = start + seconds * number / count
            while not times or time.perf_counter() < end:
                begun = time.perf_counter()
                one.runtime.run(next(feed))
                times.append(1e3 * (time.perf_counter() - begun))
            median, p90 = np.percentile(times, [50, 90])
            at = time.perf_counter() - start
            windows.append(Window(round(at, 3), len(times), float(median), float(p90), watch.stop()))
            if progress is not None:
                progress(number, count)
    return judge(windows)


def draw_sustained(course: Sustained, target: Path, title: str = "") -> None:
    """Draw the windows: run times, and clock and temperature where they are known."""
    around = [w.conditions for w in course.windows]
    plots.sustained(
        [w.at_s for w in course.windows],
        [w.median_ms for w in course.windows],
        [w.p90_ms for w in course.windows],
        target,
        [c.clock_mhz_after for c in around],
        [c.temperature_c_after for c in around],
        title,
    )


def judge(windows: Sequence[Window]) -> Sustained:
    """Say what became of the speed over at least four windows, and what else changed."""
    quarter = max(1, len(windows) // 4)
    first, last = windows[:quarter], windows[-quarter:]
    slowdown = float(np.median([w.median_ms for w in last]) / np.median([w.median_ms for w in first])) - 1
    throttled = [w.conditions.throttled for w in windows if w.conditions.throttled is not None]
    reasons = ["the processor was throttled"] if any(throttled) else []
    for words, get in (
        ("the clock went from {:.0f} to {:.0f} MHz", lambda w: w.conditions.clock_mhz_after),
        ("the temperature went from {:.0f} to {:.0f} °C", lambda w: w.conditions.temperature_c_after),
        ("other processes' load went from {:.1f} to {:.1f} cores", lambda w: w.conditions.others_busy),
    ):
        before, after = ([v for v in map(get, part) if v is not None] for part in (first, last))
        if before and after and abs(np.mean(after) - np.mean(before)) > NOTICEABLE * max(1.0, np.mean(before)):
            reasons.append(words.format(np.mean(before), np.mean(after)))
    return Sustained(windows[-1].at_s, tuple(windows), slowdown, any(throttled) if throttled else None, tuple(reasons))
