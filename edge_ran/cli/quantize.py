"""`edge-ran quantize`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ran.cli.app import (
    Force,
    Json,
    Quiet,
    Verbose,
    app,
    emit,
    host_packages,
    resumable,
    say,
    training_progress,
)
from edge_ran.cli.import_ import run_of

if TYPE_CHECKING:
    pass


@app.command()
def quantize(
    run: Annotated[Path | None, typer.Argument(help="Run folder.", show_default="newest run, else shipped")] = None,
    data: Annotated[
        Path | None, typer.Argument(help="The pictures it was trained on.", show_default="where they were then")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to write.", show_default="RUN-qat")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="3")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step.", show_default="128")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", show_default="0.002")] = None,
    distillation: Annotated[
        float | None, typer.Option(help="Share of the float network's answers in the loss.", show_default="0.9")
    ] = None,
    flip: Annotated[bool | None, typer.Option(help="Mirror at random, as in training.")] = None,
    seed: Annotated[int, typer.Option(help="Decides order and augmentation.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output after it was stopped.")
    ] = False,
    checkpoint_secs: Annotated[float, typer.Option(help="Seconds between checkpoints within an epoch.")] = 120.0,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune a run's network in int8 arithmetic, so that convert --int8 loses next to nothing."""
    from edge_ran.runs import RUNS, RunFolder, default_run

    if run is None:
        run = default_run(Path.cwd())
        if not quiet:
            say(f"quantising {run}")
    run = run_of(run, quiet)
    if output is None:
        output = Path(RUNS) / "shipped-qat" if RunFolder(run).is_shipped else run.with_name(f"{run.resolve().name}-qat")
    with host_packages("quantize"):
        from edge_ran.host.quantize import quantize as quantize_run
        from edge_ran.host.quantize import recipe
    how = recipe(
        run,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        distillation=distillation,
        flip=flip,
    )
    with training_progress(quiet) as (on_load, on_step, on_epoch), resumable(output):
        report = quantize_run(
            run,
            output,
            data,
            how,
            seed=seed,
            resume=resume,
            force=force,
            checkpoint_s=checkpoint_secs,
            on_load=on_load,
            on_step=on_step,
            on_epoch=on_epoch,
        )
    emit(json, dataclasses.asdict(report), report.text)
