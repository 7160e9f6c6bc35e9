"""`edge-ran benchmark`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ran.cli.app import announce, complain, progress_note, talk
from edge_ran.cli.bench_options import DevicesOptions, FeedOptions, GateOptions, PlanOptions, ReportFiles
from edge_ran.cli.command import given
from edge_ran.cli.model_options import MetadataOptions
from edge_ran.cli.models import tflite_or_default
from edge_ran.cli.option_groups import verb
from edge_ran.cli.options import AcceleratorOptions, OutputOptions
from edge_ran.cli.render import emit
from edge_ran.errors import EnvironmentMissing, GateError, UsageError

if TYPE_CHECKING:
    from edge_ran.bench import Bench

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
            show_default="newest run, else shipped",
        ),
    ] = None,
    *,
    feed: FeedOptions,
    plan: PlanOptions,
    gate: GateOptions,
    files: ReportFiles,
    accelerator: AcceleratorOptions,
    metadata: MetadataOptions,
    devices: DevicesOptions,
    output: OutputOptions,
    moved: MovedOptions,
) -> None:
    """Measure how fast a .tflite is, here or on a device, and whether the figures are reliable."""
    moved.refuse()
    from edge_ran import bench, targets
    from edge_ran.cli.render import benchmark as render
    from edge_ran.targets import measurements

    allowed, specs = gate.allowed(), [targets.resolve(name) for name in devices.device or ["local"]]
    devices.check_phones([spec.target for spec in specs], gate.baseline is not None)
    paths = tuple(map(tflite_or_default, models)) if models else (tflite_or_default(None),)
    _check(files, output, [spec.target for spec in specs], len(paths), gate.baseline)
    before = bench.read_report(gate.baseline) if gate.baseline else None
    request = measurements.Request(
        models=paths,
        runtime=accelerator.runtime(output.verbose),
        overrides=metadata.overrides(),
        images=feed.images,
        typed=given(context, *HERE, "baseline", "max_regression", *(("phones",) if devices.phones == 1 else ())),
        install=devices.install,
        note=progress_note(output.quiet),
        talk=talk(output.quiet),
    )
    found = measurements.benchmark(specs, request, plan.plan(), lambda error: complain(str(error), error.remedy))
    for one in found.reports:
        announce(one.accelerator, output.quiet)
    found = gate.compared(found, before)
    emit(output.json, found.result, lambda _: render.benchmark(found))
    _write(files, found)
    if allowed is not None and (ratio := found.reports[0].regression):
        bench.check_regression(ratio, allowed, found.reports[0].in_browser)
    if found.failed:
        is_gate = any(one.is_gate for one in found.failed)
        raise typer.Exit(GateError.exit_code if is_gate else EnvironmentMissing.exit_code)


def _check(files: ReportFiles, output: OutputOptions, places: list[str], models: int, baseline: Path | None) -> None:
    """Refuse before the long work what could not be done after it."""
    if baseline is not None and (models > 1 or len(places) > 1):
        raise UsageError("--baseline is for one model on one device", "leave the others out")
    if files.plot and any(place.startswith("adb:") for place in places):
        raise UsageError("--plot draws the time of each run, which phones do not report", "use --html or --csv")
    files.check(output.force)


def _write(files: ReportFiles, found: Bench) -> None:
    from edge_ran import bench, plots, records

    files.write(
        records.document(found.result),
        page=lambda: bench.bench_page(found),
        draw=lambda target: plots.latency_histogram({r.name: r.samples_ms for r in found.reports}, target),
        csv=lambda: bench.csv_lines(found.reports),
    )
