"""`edge-ran verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ran.cli.app import (
    Delegate,
    DelegateOption,
    Force,
    Json,
    Quiet,
    Threads,
    Verbose,
    app,
    emit,
    host_packages,
    progress_bar,
    runtime_options,
    tflite_or_default,
)

if TYPE_CHECKING:
    pass


@app.command()
def verify(
    model: Annotated[Path | None, typer.Argument(help="A .tflite or run folder.", show_default="the default")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Pictures to compare on; else calibration_data/.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures at most.")] = 32,
    network: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Hold the file against the network of this run instead, layer by layer."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --network: draw the layers (.png, .svg, .pdf).")
    ] = None,
    threads: Threads = 0,
    delegate: Delegate = None,
    delegate_option: DelegateOption = None,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Hold every accelerator of this device against the CPU; name the operators that one gets wrong."""
    if network is not None:
        _verify_network(network, tflite_or_default(model), images, count, plot, json, force)
        return
    options = runtime_options("cpu", False, False, False, threads, delegate, delegate_option, "fp16", verbose)
    from edge_ran.verify import gate
    from edge_ran.verify import verify as compare

    with progress_bar("searching operators", quiet) as progress:
        found = compare(tflite_or_default(model), options, images, count, progress)
    emit(json, found.to_dict(), lambda: str(found))
    gate(found)


def _verify_network(
    run: Path, model: Path, images: Path | None, count: int, plot: Path | None, json: bool, force: bool
) -> None:
    from edge_ran import catalogue, plots
    from edge_ran.files import refuse_existing

    if plot:
        refuse_existing(plot, force)
        plots.check_target(plot)
    with host_packages("verify --network"):
        from edge_ran.host.proof import prove, some_frames
    proof = prove(run, model, some_frames(images or catalogue.folder("calibration_data"), count))
    if plot:
        proof.draw(plot)
    emit(json, proof.record(), proof.text)
    proof.check()
