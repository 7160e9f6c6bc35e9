"""Options of the verbs that measure: how long, and into which files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from edge_ran.cli.app import write_each
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.bench import Bench, BenchReport, Plan
    from edge_ran.report import Report


def percent(option: str, text: str) -> float:
    """Read ``5%`` or ``5`` as 0.05."""
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:  # nothing is slower than "nan": the gate would let all through
        raise UsageError(f"{option} {text!r} is not a percentage", f"for instance {option} 5%")
    return number / 100


@dataclass(frozen=True)
class PlanOptions:
    """How long to measure."""

    PANEL: ClassVar[str] = "How long"

    num_runs: Annotated[int, typer.Option(help="Least number of runs.")] = 50
    warmup_runs: Annotated[
        int, typer.Option(help="Least number of warm-up runs; they go on until the times are steady.")
    ] = 5
    min_secs: Annotated[float, typer.Option(help="Least duration of the runs, in seconds.")] = 1.0
    max_secs: Annotated[float, typer.Option(help="Longest duration of the runs, in seconds.")] = 150.0
    until: Annotated[
        str, typer.Option(metavar="PERCENT", help="Go on until the median is known to within ±PERCENT.")
    ] = "0%"
    mlperf: Annotated[
        bool,
        typer.Option("--mlperf", help="MLPerf single stream: at least 1,024 runs and 60 s; its figure is the p90."),
    ] = False

    def plan(self) -> Plan:
        """Return the plan. Raises UsageError where the numbers exclude each other."""
        from edge_ran.bench import Plan

        if self.mlperf:
            return Plan.mlperf()
        return Plan(self.num_runs, self.warmup_runs, self.min_secs, self.max_secs, percent("--until", self.until))


@dataclass(frozen=True)
class FeedOptions:
    """What a model is fed with."""

    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Pictures to feed.", show_default="those of edge-ran")
    ] = None


@dataclass(frozen=True)
class GateOptions:
    """An earlier record to compare with."""

    PANEL: ClassVar[str] = "Comparison"

    baseline: Annotated[Path | None, typer.Option(metavar="FILE", help="Compare with an earlier --result-json.")] = None
    max_regression: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Exit 1 if slower than --baseline by more; 4 if not reliable.")
    ] = None

    def allowed(self) -> float | None:
        """How much slower than the baseline is allowed: 0.05 = 5 %. Raises UsageError where it is no percentage."""
        return None if self.max_regression is None else percent("--max-regression", self.max_regression)

    def compared(self, found: Bench, before: BenchReport | None) -> Bench:
        """Return the measurement with its comparison in its one report; as it is where there is no baseline."""
        from edge_ran.bench import regression

        if before is None:
            return found
        (now,) = found.reports
        report = dataclasses.replace(now, regression=regression(now, before, now.name, str(self.baseline)))
        return dataclasses.replace(found, reports=(report,))


@dataclass(frozen=True)
class DevicesOptions:
    """Where to measure: one device or several."""

    PANEL: ClassVar[str] = "Device"

    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="ssh://user@host[:port], adb:SERIAL, phone, browser, NAME or FILE.toml; several give one table.",
            show_default="local",
        ),
    ] = None
    phones: Annotated[
        int, typer.Option("--phones", min=1, max=16, help="With --device phone: so many at once, in one table.")
    ] = 1
    install: Annotated[
        bool, typer.Option("--install", help="Let pip install missing packages there, in a folder of its own.")
    ] = False

    def check_phones(self, places: Sequence[str], has_baseline: bool) -> None:
        """Raise UsageError where several phones are asked for and cannot be."""
        from edge_ran.targets.address import is_browser

        if self.phones == 1:
            return
        if len(places) > 1 or not is_browser(places[0]):
            raise UsageError(
                "--phones is for phones that scan one code", "edge-ran benchmark --device phone --phones 2"
            )
        if has_baseline:
            raise UsageError("--baseline is for one model on one device", "leave --phones out")


@dataclass(frozen=True)
class ReportFiles:
    """The files that a measurement is written to, besides what is printed."""

    PANEL: ClassVar[str] = "Files"

    result_json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the record as JSON.")] = None
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV line for each model.")] = None
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the times (.png, .svg, .pdf).")] = None
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one page with plots, self-contained.")] = None

    def check(self, force: bool) -> None:
        """Raise before the long work where a file could not be written after it."""
        from edge_ran import plots, report
        from edge_ran.files import check_output

        wanted = {self.result_json: (".json",), self.csv: (".csv",), self.html: (".html", ".htm"), self.plot: ()}
        given = [path for path in (self.result_json, self.csv, self.plot, self.html) if path]
        if len({path.absolute() for path in given}) < len(given):
            raise UsageError("two outputs have the same name", "give each its own")
        if self.plot:
            plots.check_target(self.plot)
        if self.html:
            report.check()
        for path in given:
            check_output(path, force, wanted[path])

    def write(
        self,
        record: Mapping[str, Any],
        *,
        page: Callable[[], Report] | None = None,
        draw: Callable[[Path], None] | None = None,
        csv: Callable[[], str] | None = None,
    ) -> None:
        """Write every file that was asked for. Where one fails, the others are written before its error is raised."""
        from edge_ran import report
        from edge_ran.files import write_text

        jobs: list[Callable[[], None]] = []
        if path := self.result_json:
            jobs.append(lambda: write_text(path, json.dumps(record, indent=1, allow_nan=False)))
        if (table := self.csv) and csv:
            jobs.append(lambda: write_text(table, csv()))
        if (picture := self.plot) and draw:
            jobs.append(lambda: draw(picture))
        if (html := self.html) and page:
            jobs.append(lambda: report.write(page(), html))
        write_each(jobs)
