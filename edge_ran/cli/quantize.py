"""`edge-ran quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import host_packages, say
from edge_ran.cli.interrupted import resumable
from edge_ran.cli.models import run_of
from edge_ran.cli.option_groups import verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.progress import training_progress
from edge_ran.cli.render import emit


@verb
def quantize(
    run: Annotated[Path | None, typer.Argument(help="Run folder.", show_default="newest run, else shipped")] = None,
    data: Annotated[
        Path | None, typer.Argument(help="The pictures it was trained on.", show_default="where they were then")
    ] = None,
    *,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to write.", show_default="RUN-qat")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="3")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures in a step.", show_default="128")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", show_default="0.002")] = None,
    distillation: Annotated[
        float | None, typer.Option(help="Share of the teacher's answers in the loss.", show_default="0.9")
    ] = None,
    teacher: Annotated[
        str,
        typer.Option(
            metavar="RUN|FILE", help="Classifier of the same classes to learn from.", show_default="the float network"
        ),
    ] = "",
    flip: Annotated[bool | None, typer.Option(help="Mirror at random, as in training.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Decides order and augmentation.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output after it stopped.")] = False,
    checkpoint_secs: Annotated[float, typer.Option(help="Seconds between checkpoints in an epoch.")] = 120.0,
    output: OutputOptions,
) -> None:
    """Fine-tune a run with quantisation-aware training, so that convert --int8 loses little accuracy."""
    from edge_ran.cli.render import train as render
    from edge_ran.run_output import check
    from edge_ran.runs import RUNS, RunFolder, default_run

    if run is None:
        run = default_run(Path.cwd())
        if not output.quiet:
            say(f"quantising {run}")
    run = run_of(run, output.quiet, data)
    if target is None:
        target = Path(RUNS) / "shipped-qat" if RunFolder(run).is_shipped else RunFolder(run).quantised_path
    check(target, resume, output.force)  # refuses what is there before TensorFlow, which takes seconds, is loaded
    with resumable(target, force=output.force):
        with host_packages("quantize", output.quiet):
            from edge_ran.host import quantize as host
        how = host.recipe(run).changed(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, distillation=distillation, flip=flip
        )
        with training_progress(output.quiet) as callbacks:
            result = host.quantize(
                run,
                target,
                data,
                how,
                teacher=teacher,
                seed=seed,
                resume=resume,
                force=output.force,
                checkpoint_s=checkpoint_secs,
                callbacks=callbacks,
            )
    emit(output.json, result, render.quantised)
