"""`edge-ran benchmark`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ran.cli.app import announce, complain, progress_note, talk, tflite_or_default
from edge_ran.cli.bench_options import PlanOptions, ReportFiles, percent
from edge_ran.cli.command import given
from edge_ran.cli.options import AcceleratorOptions, DeviceOptions, MetadataOptions, Only, OutputOptions, verb
from edge_ran.cli.render import emit
from edge_ran.errors import EnvironmentMissing, UsageError

if TYPE_CHECKING:
    from edge_ran.bench import Bench, BenchReport

# Options that are not sent to another device: what a record becomes is made here, wherever it was measured.
HERE = ("models", "model", "device", "install", "json", "force", "quiet", "result_json", "csv", "plot", "html")


@dataclass(frozen=True)
class MovedOptions:
    """Options that are verbs of their own now; each is refused with the new command."""

    sweep: Annotated[list[str] | None, typer.Option("--sweep", help="Moved.", hidden=True)] = None
    accuracy_on: Annotated[str | None, typer.Option("--accuracy-on", help="Moved.", hidden=True)] = None
    profile: Annotated[bool, typer.Option("--profile", help="Moved.", hidden=True)] = False
    sustained: Annotated[str | None, typer.Option("--sustained", help="Moved.", hidden=True)] = None
    compare: Annotated[tuple[str, str] | None, typer.Option("--compare", help="Moved.", hidden=True)] = None

    def refuse(self) -> None:
        """Raise UsageError where one was given."""
        moved = {
            "--sweep": (self.sweep, "edge-ran sweep MODEL --precision int8,fp16 --threads 1,2"),
            "--accuracy-on": (self.accuracy_on, "edge-ran sweep MODEL --precision int8,fp16 --accuracy-on DATA"),
            "--profile": (self.profile, "edge-ran profile MODEL"),
            "--sustained": (self.sustained, f"edge-ran sustain MODEL --duration {self.sustained or '10m'}"),
            "--compare": (self.compare, "edge-ran compare A.json B.json"),
        }
        for option, (value, command) in moved.items():
            if value:
                raise UsageError(f"benchmark {option} is a command of its own now", command)


@verb
def benchmark(
    context: typer.Context,
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="A .tflite or a run folder; several are measured in turns.",
            show_default="newest run, else the shipped one",
        ),
    ] = None,
    *,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="ssh://user@host[:port], adb:SERIAL, NAME or FILE.toml; may be repeated.",
            show_default="local",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Pictures to feed.", show_default="those of edge-ran")
    ] = None,
    mlperf: Annotated[
        bool,
        typer.Option("--mlperf", help="MLPerf single stream: 1,024 runs, 60 s at least; see the p90."),
    ] = False,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with an earlier --result-json.")
    ] = None,
    max_regression: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Exit 1 if slower than --baseline by more; 4 if not reliable.")
    ] = None,
    plan: PlanOptions,
    files: ReportFiles,
    accelerator: AcceleratorOptions,
    metadata: MetadataOptions,
    board: Annotated[DeviceOptions, Only("install")],
    output: OutputOptions,
    moved: MovedOptions,
) -> None:
    """Measure how fast a .tflite is, here or on a device, and whether the figures are reliable."""
    moved.refuse()
    typed = given(context, *HERE, "baseline", "max_regression")
    allowed = percent("--max-regression", max_regression) if max_regression is not None else None
    from edge_ran import bench, targets
    from edge_ran.cli.render import benchmark as render
    from edge_ran.targets import measurements

    specs = [targets.resolve(name) for name in device or ["local"]]
    paths = tuple(map(tflite_or_default, models)) if models else (tflite_or_default(None),)
    _check(files, output, [spec.target for spec in specs], len(paths), baseline)
    request = measurements.Request(
        models=paths,
        runtime=accelerator.runtime(output.verbose),
        overrides=metadata.overrides(),
        images=images,
        typed=typed,
        install=board.install,
        note=progress_note(output.quiet),
        talk=talk(output.quiet),
    )
    before = bench.read_report(baseline) if baseline else None
    found = measurements.benchmark(
        specs,
        request,
        bench.Plan.mlperf() if mlperf else plan.plan(),
        lambda error: complain(str(error), error.remedy),
    )
    for one in found.reports:
        announce(one.accelerator, output.quiet)
    if before is not None:
        found = _compared(found, before, str(baseline))
    emit(output.json, found.result, lambda _: render.benchmark(found))
    _write(files, found)
    if allowed is not None and (ratio := found.reports[0].regression):
        bench.check_regression(ratio, allowed)
    if found.failed:
        raise typer.Exit(EnvironmentMissing.exit_code)


def _check(files: ReportFiles, output: OutputOptions, places: list[str], models: int, baseline: Path | None) -> None:
    """Refuse before the long work what could not be done after it."""
    if baseline is not None and (models > 1 or len(places) > 1):
        raise UsageError("--baseline is for one model on one device", "leave the others out")
    if files.plot and any(place.startswith("adb:") for place in places):
        raise UsageError("--plot draws the time of each run, which phones do not report", "use --html or --csv")
    files.check(output.force)


def _compared(found: Bench, before: BenchReport, baseline: str) -> Bench:
    """The one report with its comparison in it."""
    from edge_ran import bench

    (now,) = found.reports
    ratio = bench.regression(now, before, now.name, baseline)
    return dataclasses.replace(found, reports=(dataclasses.replace(now, regression=ratio),))


def _write(files: ReportFiles, found: Bench) -> None:
    from edge_ran import bench, plots, records

    files.write(
        records.document(found.result),
        page=lambda: bench.bench_page(found),
        draw=lambda target: plots.latency_histogram({r.name: r.samples_ms for r in found.reports}, target),
        csv=lambda: bench.csv_lines(found.reports),
    )
