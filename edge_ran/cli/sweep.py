"""`edge-ran sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ran.cli.app import progress_note, talk
from edge_ran.cli.bench_options import FeedOptions, PlanOptions, ReportFiles
from edge_ran.cli.benchmark import HERE
from edge_ran.cli.command import given
from edge_ran.cli.model_options import MetadataOptions
from edge_ran.cli.models import Model, tflite_or_default
from edge_ran.cli.option_groups import verb
from edge_ran.cli.options import DeviceOptions, OutputOptions
from edge_ran.cli.render import emit

if TYPE_CHECKING:
    from edge_ran.bench import Sweep


@verb
def sweep(
    context: typer.Context,
    model: Model = None,
    *,
    threads: Annotated[str, typer.Option(metavar="A,B,…", help="Numbers of CPU threads: 1,2,4; 0 = all cores.")] = "",
    precision: Annotated[
        str, typer.Option(metavar="A,B,…", help="Converters: int8,fp16; the files lie beside MODEL as NAME.tflite.")
    ] = "",
    accelerator: Annotated[str, typer.Option(metavar="A,B,…", help="cpu,gpu,auto; without it, auto.")] = "",
    gpu_precision: Annotated[str, typer.Option(metavar="fp16|fp32", help="Arithmetic on the GPU.")] = "fp16",
    accuracy_on: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Class folders, CSV or .npz: measure each file's accuracy, too.")
    ] = None,
    feed: FeedOptions,
    plan: PlanOptions,
    files: ReportFiles,
    metadata: MetadataOptions,
    device: DeviceOptions,
    output: OutputOptions,
) -> None:
    """Measure a network with every combination of settings in turns, and recommend one for the device."""
    from edge_ran import records, targets
    from edge_ran.bench import Axes, csv_lines, sweep_page
    from edge_ran.cli.render import sweep as render
    from edge_ran.runtime import RuntimeOptions
    from edge_ran.targets import measurements

    axes = Axes.parse(precision, accelerator, threads)
    spec, path = targets.resolve(device.device), tflite_or_default(model)
    files.check(output.force)
    request = measurements.Request(
        models=(path,),
        runtime=RuntimeOptions("auto", gpu_precision=gpu_precision, verbose=output.verbose),
        overrides=metadata.overrides(),
        images=feed.images,
        typed=given(context, *HERE),
        install=device.install,
        note=progress_note(output.quiet),
        talk=talk(output.quiet),
    )
    found = measurements.sweep(spec, request, plan.plan(), axes, accuracy_on)
    emit(output.json, found, render.sweep)
    files.write(
        records.document(found),
        page=lambda: sweep_page(found),
        draw=lambda target: _draw(found, target),
        csv=lambda: csv_lines(found.reports),
    )


def _draw(found: Sweep, target: Path) -> None:
    """Accuracy against latency where every accuracy is known, else the times."""
    from edge_ran import plots

    points = [
        (row.name, row.median_ms, row.top1, row.top1_interval)
        for row in found.rows
        if row.top1 is not None and row.top1_interval is not None
    ]
    if len(points) == len(found.rows):
        plots.accuracy_against_latency(points, target)
    else:
        plots.latency_histogram({report.name: report.samples_ms for report in found.reports}, target)
