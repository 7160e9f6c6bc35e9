"""`edge-ran precisions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import (
    Json,
    Quiet,
    Threads,
    Verbose,
    app,
    emit,
    host_packages,
    progress_note,
)


@app.command()
def precisions(
    run: Annotated[Path, typer.Argument(help="A float run folder.")],
    data: Annotated[Path, typer.Argument(help="Class folders with pictures or clips, a CSV manifest, or an .npz.")],
    quantised: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="What quantize made of it.", show_default="RUN-qat")
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, val, test, all; auto: the first there is of test, val, all.")
    ] = "auto",
    calibration_data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For plain int8.", show_default="shipped pictures")
    ] = None,
    threads: Threads = 1,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS", min=0, help="Exit 1 when int8 (after quantize, if it was) loses more than that."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw accuracy against latency (.png, .svg, .pdf).")
    ] = None,
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Convert again, and replace the picture.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare a run's precisions: size, accuracy, agreement with fp32, latency."""
    from edge_ran import plots
    from edge_ran.dataset import load
    from edge_ran.files import refuse_existing

    if plot:
        refuse_existing(plot, force)
        plots.check_target(plot)
    with host_packages("precisions"):
        from edge_ran.host.compare import compare as compare_precisions
    found = compare_precisions(
        run,
        load(data),
        Path.cwd(),
        quantised=quantised,
        split=split,
        calibration=calibration_data,
        threads=threads,
        again=force,
        note=progress_note(quiet),
    )
    if plot:
        found.draw(plot)
    emit(json, found.record(), found.text)
    if max_drop is not None:
        found.check(max_drop)
