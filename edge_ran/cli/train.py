"""`edge-ran train`."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from edge_ran.cli.app import host_packages, training_progress
from edge_ran.cli.interrupted import resumable
from edge_ran.cli.options import ManifestOptions, NetworkOptions, OutputOptions, verb
from edge_ran.cli.render import emit


@dataclass(frozen=True)
class RecipeOptions:
    """Changes of the recipe, for ``recipe.Recipe.changed``."""

    PANEL: ClassVar[str] = "Recipe"

    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="the recipe's")] = None
    batch_size: Annotated[int | None, typer.Option(help="Pictures in a step.", show_default="the recipe's")] = None
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", show_default="the recipe's")] = (
        None
    )
    weight_decay: Annotated[float | None, typer.Option(help="Decay of the kernels.")] = None
    label_smoothing: Annotated[float | None, typer.Option(help="Share of the target given to all classes.")] = None
    mixup: Annotated[float | None, typer.Option(help="Alpha of mixup, 0 = off.")] = None
    flip: Annotated[bool | None, typer.Option(help="Mirror at random (not for signs and text).")] = None
    brightness: Annotated[float | None, typer.Option(help="Largest relative change of brightness.")] = None
    contrast: Annotated[float | None, typer.Option(help="Largest relative change of contrast.")] = None


@verb
def train(
    data: Annotated[Path, typer.Argument(help="Class folders with pictures or clips, a CSV manifest, or an .npz.")],
    *,
    run: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to write.", show_default="runs/DATA-NETWORK")
    ] = None,
    network: Annotated[str, typer.Option(help="A network's name, see edge-ran inspect.")] = "edge50",
    fit: Annotated[str, typer.Option(help="stretch the frame, or crop its centre.")] = "stretch",
    recipe: Annotated[str, typer.Option(help="one-cycle, cosine or paper.")] = "one-cycle",
    balance: Annotated[bool, typer.Option(help="Weigh classes by the inverse of their counts.")] = False,
    validation_fraction: Annotated[float, typer.Option(help="Share held out to choose the best epoch.")] = 0.1,
    precision: Annotated[str, typer.Option(help="float32, bfloat16, or auto: measure both.")] = "float32",
    seed: Annotated[int, typer.Option(help="Decides order, augmentation and initial weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output after it stopped.")] = False,
    checkpoint_secs: Annotated[float, typer.Option(help="Seconds between checkpoints in an epoch.")] = 120.0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    changes: RecipeOptions,
    manifest: ManifestOptions,
    architecture: NetworkOptions,
    output: OutputOptions,
) -> None:
    """Train a network on labelled pictures or clips."""
    from edge_ran.architecture import configure
    from edge_ran.cli.render import train as render
    from edge_ran.recipe import TrainOptions, preset
    from edge_ran.run_output import RunOutput

    manifest.check(data)
    chosen = configure(network, **dataclasses.asdict(architecture))
    how = preset(recipe).changed(**dataclasses.asdict(changes))
    options = TrainOptions(fit, validation_fraction, balance, precision, seed, skip_bad, checkpoint_secs)
    options.check()
    run = run or Path("runs") / f"{data.resolve().stem}-{chosen.name}"
    RunOutput(run, resume, output.force)  # refuses what is there before TensorFlow, which takes seconds, is loaded
    with resumable(run):
        with host_packages("train", output.quiet):
            from edge_ran.host.train import train as fit_network
        with training_progress(output.quiet) as callbacks:
            result = fit_network(
                data,
                run,
                chosen,
                how,
                options,
                reading=manifest.reading(),
                resume=resume,
                force=output.force,
                callbacks=callbacks,
            )
    emit(output.json, result, render.trained)
    if result.warning:
        print(f"warning: {result.warning}", file=sys.stderr)
