"""Text of a sustained run: what became of the speed."""

from __future__ import annotations

from collections.abc import Sequence

from edge_ran.bench import Sustained
from edge_ran.bench.report import battery_words


def sustained(course: Sustained) -> str:
    """Median and p90 of all runs, clock and temperature, and the speed from the first quarter to the last."""
    around = [window.conditions for window in course.windows]
    runs = sum(window.runs for window in course.windows)
    lines = [
        f"{course.model.name or course.model.path} on {course.accelerator}, threads: {course.runtime.threads}",
        f"runs         {runs:,} in {_time(course.seconds)}",
        f"median       {course.median_ms:.3g} ms, p90 {course.p90_ms:.3g} ms",
        f"speed        {course.summary}",
        f"clock        {_course([c.clock_mhz_after for c in around], 'MHz')}",
        f"temperature  {_course([c.temperature_c_after for c in around], '°C')}",
    ]
    if (battery := battery_words(course.battery)) is not None:
        lines.append(f"battery      {battery}")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{seconds / 60:.3g} minutes" if seconds >= 60 else f"{seconds:.3g} s"


def _course(values: Sequence[float | None], unit: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "not known: this device does not report it"
    return f"{known[0]:.0f} {unit} at first, {known[-1]:.0f} at the end; {min(known):.0f} to {max(known):.0f} overall"
