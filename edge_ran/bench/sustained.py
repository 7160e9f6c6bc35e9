"""Minutes of work without a pause: does the device stay as fast as it began?"""

from __future__ import annotations

import dataclasses
import itertools
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edge_ran import machine, plots, records
from edge_ran.bench.figures import ModelFacts, RuntimeFacts
from edge_ran.bench.measure import BenchModel, loaded, model_facts
from edge_ran.bench.plan import Plan
from edge_ran.errors import InputError, UsageError
from edge_ran.runtime import Accelerator

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
    """A run without a pause. ``median_ms`` and ``p90_ms`` are of all its runs, ``windows`` its parts in order."""

    SCHEMA_VERSION: ClassVar[int] = 2

    model: ModelFacts
    accelerator: Accelerator
    runtime: RuntimeFacts
    environment: machine.Machine
    median_ms: float
    p90_ms: float
    windows: tuple[Window, ...]

    @records.derived
    def seconds(self) -> float:
        """How long it ran."""
        return self.windows[-1].at_s

    @records.derived
    def slowdown(self) -> float:
        """How much slower the last quarter was than the first, by their medians: 0.1 = 10 % slower."""
        first, last = self._quarters()
        before, after = (float(np.median([w.median_ms for w in part])) for part in (first, last))
        return after / before - 1

    @records.derived
    def throttled(self) -> bool | None:
        """Whether the processor was throttled at any time; None where that is not known."""
        known = [w.conditions.throttled for w in self.windows if w.conditions.throttled is not None]
        return any(known) if known else None

    @records.derived
    def reasons(self) -> tuple[str, ...]:
        """What changed from the first quarter to the last."""
        first, last = self._quarters()
        found = ["the processor was throttled"] if self.throttled else []
        for words, get in (
            ("the clock went from {:.0f} to {:.0f} MHz", lambda w: w.conditions.clock_mhz_after),
            ("the temperature went from {:.0f} to {:.0f} °C", lambda w: w.conditions.temperature_c_after),
            ("other processes' load went from {:.1f} to {:.1f} cores", lambda w: w.conditions.others_busy),
        ):
            before, after = ([v for v in map(get, part) if v is not None] for part in (first, last))
            if before and after and abs(np.mean(after) - np.mean(before)) > NOTICEABLE * max(1.0, np.mean(before)):
                found.append(words.format(np.mean(before), np.mean(after)))
        return tuple(found)

    @property
    def summary(self) -> str:
        """What became of the speed, in one line."""
        minutes = f"{self.seconds / 60:.3g} minutes" if self.seconds >= 60 else f"{self.seconds:.3g} s"
        if abs(self.slowdown) <= NOTICEABLE:
            return f"steady for {minutes}: {self.slowdown:+.1%} from the first quarter to the last"
        word = "slower" if self.slowdown > 0 else "faster"
        why = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return f"{abs(self.slowdown):.0%} {word} in the last quarter of {minutes} than in the first{why}"

    @property
    def battery(self) -> machine.Conditions:
        """The conditions of the whole run, as far as the battery goes."""
        first, last = self.windows[0].conditions, self.windows[-1].conditions
        charged = [one.conditions.charging for one in self.windows if one.conditions.charging is not None]
        charging = any(charged) if charged else None
        return dataclasses.replace(last, battery_before=first.battery_before, charging=charging)

    def _quarters(self) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
        quarter = max(1, len(self.windows) // 4)
        return self.windows[:quarter], self.windows[-quarter:]


def read_sustained(value: Any) -> Sustained:
    """Return the run that another machine's ``records.document`` describes. Raises InputError where it is none."""
    found = records.read_document(Sustained, value, "sustained")
    if not found.windows or not all(w.median_ms > 0 for w in found.windows):
        raise InputError("sustained.windows holds no times")
    return found


def sustain(
    subject: BenchModel,
    seconds: float,
    pictures: Sequence[Path] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sustained:
    """Run a model without a pause, in 60 windows, and record clock, temperature and the load from others in each.

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
        raise UsageError("a sustained run needs a time above 0", "for instance --duration 10m")
    count = max(4, min(WINDOWS, int(seconds / SHORTEST_WINDOW_S)))
    windows, every = [], array("d")
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
            every.extend(times)
            if progress is not None:
                progress(number, count)
        median, p90 = np.percentile(every, [50, 90])
        return Sustained(
            model=model_facts(one.graph),
            accelerator=one.accelerator,
            runtime=RuntimeFacts(one.runtime.name, one.runtime.version, one.runtime.threads),
            environment=machine.identity(),
            median_ms=float(median),
            p90_ms=float(p90),
            windows=tuple(windows),
        )


def draw_sustained(course: Sustained, target: Path, title: str = "") -> None:
    """Draw median and p90 of each window over time, clock and temperature below, where they are known."""
    around = [w.conditions for w in course.windows]
    plots.sustained(
        [w.at_s / 60 for w in course.windows],
        [w.median_ms for w in course.windows],
        [w.p90_ms for w in course.windows],
        target,
        [c.clock_mhz_after for c in around],
        [c.temperature_c_after for c in around],
        title,
    )
