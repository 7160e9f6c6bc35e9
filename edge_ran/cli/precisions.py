"""`edge-ran precisions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import host_packages, progress_note
from edge_ran.cli.data_options import LabelledData, ManifestOptions
from edge_ran.cli.interrupted import command, on_interrupt
from edge_ran.cli.models import run_of
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import AcceleratorOptions, OutputOptions
from edge_ran.cli.render import emit

ONE_THREAD = AcceleratorOptions(threads=1)


@verb
def precisions(
    run: Annotated[Path, typer.Argument(help="A float run folder.")],
    data: LabelledData,
    *,
    quantised: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The run that quantize made of it.", show_default="RUN-qat")
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, val, test, all; auto: the first found of test, val, all.")
    ] = "auto",
    calibration_data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures for plain int8.", show_default="the run's, or shipped"),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", min=0, help="Exit 1 if int8 (after quantize, if it was) loses more."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw accuracy against latency (.png, .svg, .pdf).")
    ] = None,
    manifest: ManifestOptions,
    accelerator: Annotated[AcceleratorOptions, Only("threads")] = ONE_THREAD,
    output: OutputOptions,
) -> None:
    """Compare a run's precisions: size, accuracy, agreement with fp32 and latency; --force converts them again."""
    from edge_ran import plots
    from edge_ran.cli.render import convert as render
    from edge_ran.files import check_output

    if plot:
        check_output(plot, output.force)
        plots.check_target(plot)
    saved = "files that were converted are kept; to continue:", command(leave_out=("--force", "-f"))
    with on_interrupt(lambda: saved):
        with host_packages("precisions", output.quiet):
            from edge_ran.host import precisions as host
        found = host.compare(
            run_of(run, output.quiet, data),
            manifest.load(data),
            Path.cwd(),
            quantised=quantised,
            split=split,
            calibration=calibration_data,
            threads=accelerator.threads,
            again=output.force,
            note=progress_note(output.quiet),
        )
    emit(output.json, found, render.compared)
    if plot:
        host.draw(found, plot)
    if max_drop is not None:
        host.check(found, max_drop)
