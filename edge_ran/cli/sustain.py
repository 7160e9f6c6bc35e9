"""`edge-ran sustain`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_ran.cli.app import announce, parse_seconds, talk
from edge_ran.cli.bench_options import FeedOptions, ReportFiles
from edge_ran.cli.benchmark import HERE
from edge_ran.cli.command import given
from edge_ran.cli.model_options import MetadataOptions
from edge_ran.cli.models import Model, tflite_or_default
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import AcceleratorOptions, OutputOptions, PageDeviceOptions
from edge_ran.cli.progress import progress_bar
from edge_ran.cli.render import emit


@verb
def sustain(
    context: typer.Context,
    model: Model = None,
    *,
    duration: Annotated[str, typer.Option(metavar="TIME", help="How long: 30s, 10m, 1h.")] = "5m",
    feed: FeedOptions,
    files: Annotated[ReportFiles, Only("result_json", "plot", "html")],
    accelerator: AcceleratorOptions,
    metadata: MetadataOptions,
    device: PageDeviceOptions,
    output: OutputOptions,
) -> None:
    """Run a .tflite for minutes without a pause: does the device keep its speed, clock and temperature?"""
    from edge_ran import bench, records, targets
    from edge_ran.cli.render import sustain as render
    from edge_ran.targets import measurements

    spec, path, seconds = targets.resolve(device.device), tflite_or_default(model), parse_seconds(duration)
    files.check(output.force)
    with progress_bar("running", output.quiet) as progress:
        request = measurements.Request(
            models=(path,),
            runtime=accelerator.runtime(output.verbose),
            overrides=metadata.overrides(),
            images=feed.images,
            typed=given(context, *HERE),
            install=device.install,
            progress=progress,
            talk=talk(output.quiet),
        )
        found = measurements.sustain(spec, request, seconds)
    announce(found.accelerator, output.quiet)
    emit(output.json, found, render.sustained)
    files.write(
        records.document(found),
        page=lambda: bench.sustained_page(path.name, found),
        draw=lambda target: bench.draw_sustained(found, target, f"{path.name}: {found.summary}"),
    )
