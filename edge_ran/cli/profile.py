"""`edge-ran profile`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_ran.cli.app import talk
from edge_ran.cli.bench_options import ReportFiles
from edge_ran.cli.benchmark import HERE
from edge_ran.cli.command import given
from edge_ran.cli.models import Model, tflite_or_default
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import AcceleratorOptions, DeviceOptions, OutputOptions
from edge_ran.cli.progress import progress_bar
from edge_ran.cli.render import emit

ONE_THREAD = AcceleratorOptions(accelerator="cpu", threads=1)


@verb
def profile(
    context: typer.Context,
    model: Model = None,
    *,
    accelerator: Annotated[AcceleratorOptions, Only("threads")] = ONE_THREAD,
    files: Annotated[ReportFiles, Only("result_json", "plot", "html")],
    device: DeviceOptions,
    output: OutputOptions,
) -> None:
    """Show where the time of a .tflite goes: each operator timed alone, on the CPU."""
    from edge_ran import bench, plots, records, targets
    from edge_ran.cli.render import profile as render
    from edge_ran.targets import measurements

    spec, path = targets.resolve(device.device), tflite_or_default(model)
    files.check(output.force)
    with progress_bar("timing operators", output.quiet) as progress:
        request = measurements.Request(
            models=(path,),
            runtime=accelerator.runtime(output.verbose),
            typed=given(context, *HERE),
            install=device.install,
            progress=progress,
            talk=talk(output.quiet),
        )
        found = measurements.profile(spec, request)
    emit(output.json, found, render.profile)
    title = f"{path.name}: where {found.whole_ms:.3g} ms go"
    files.write(
        records.document(found),
        page=lambda: bench.profile_page(path.name, found),
        draw=lambda target: plots.shares(found.by_place, target, title),
    )
