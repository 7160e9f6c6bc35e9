"""`edge-ran quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ran import records
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
    from edge_ran.host.quantize import QuantizeResult


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
    batch_size: Annotated[int | None, typer.Option(help="Pictures in a step (batch size).", show_default="128")] = None,
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
    from edge_ran.run_output import RunOutput
    from edge_ran.runs import RUNS, RunFolder, default_run

    if run is None:
        run = default_run(Path.cwd())
        if not quiet:
            say(f"quantising {run}")
    run = run_of(run, quiet)
    if output is None:
        output = Path(RUNS) / "shipped-qat" if RunFolder(run).is_shipped else run.with_name(f"{run.resolve().name}-qat")
    RunOutput(output, resume, force)  # refuses what is there before TensorFlow, which takes seconds, is loaded
    with host_packages("quantize", quiet):
        from edge_ran.host.quantize import quantize as quantize_run
        from edge_ran.host.quantize import recipe
    how = recipe(run).changed(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        distillation=distillation,
        flip=flip,
    )
    with training_progress(quiet) as callbacks, resumable(output):
        result = quantize_run(
            run,
            output,
            data,
            how,
            seed=seed,
            resume=resume,
            force=force,
            checkpoint_s=checkpoint_secs,
            callbacks=callbacks,
        )
    emit(json, records.document(result), lambda: _quantize_text(result))


def _quantize_text(result: QuantizeResult) -> str:
    lines = [f"{result.network}: {result.int8_tensors} tensors in int8, {result.seconds:.0f} s"]
    if result.float_layers:
        lines.append(f"still in float: {', '.join(result.float_layers)}")
    if result.top1 is not None:
        lines.append(
            f"{result.split}: float {result.float_top1:.2%}, int8 calibrated only {result.calibrated_top1:.2%}, "
            f"int8 {result.top1:.2%} of {result.images:,} pictures; kept the {result.kept} weights"
        )
    if result.test_top1 is not None:
        lines.append(
            f"test: float {result.float_test_top1:.2%}, int8 {result.test_top1:.2%} of {result.test_images:,} pictures"
        )
    lines.append(f"next: edge-ran convert --int8 {result.run}")
    return "\n".join(lines)
