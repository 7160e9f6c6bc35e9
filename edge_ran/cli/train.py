"""`edge-ran train`."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from edge_ran.cli.app import host_packages, parse_seconds, say, training_progress
from edge_ran.cli.interrupted import resumable
from edge_ran.cli.options import ManifestOptions, NetworkOptions, OutputOptions, verb
from edge_ran.cli.render import emit
from edge_ran.errors import UsageError


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
    network: Annotated[str, typer.Option(help="A network's name, see edge-ran inspect.")] = "places38",
    fit: Annotated[str, typer.Option(help="stretch the frame, or crop its centre.")] = "stretch",
    start: Annotated[
        str, typer.Option("--from", metavar="NAME|RUN", help="First weights: auto, none, a shipped network, a run.")
    ] = "auto",
    teacher: Annotated[
        str, typer.Option(metavar="RUN|FILE", help="Learn from this run or .tflite of the same classes, too.")
    ] = "",
    recipe: Annotated[
        str | None, typer.Option(help="transfer, one-cycle, cosine, paper.", show_default="transfer or one-cycle")
    ] = None,
    balance: Annotated[
        bool | None, typer.Option(help="Weigh rare classes more.", show_default="where they are uneven")
    ] = None,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="Train the largest network that is so fast in int8, say 10ms.")
    ] = "",
    device: Annotated[
        str, typer.Option("--device", "-d", metavar="DEVICE", help="Where --budget is measured; has a default budget.")
    ] = "",
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
    from edge_ran.start import NONE, first_weights

    manifest.check(data)
    if limit_ms := _budget_ms(budget, device):
        network, size, width = _within(limit_ms, device or "local", manifest, data, output.quiet)
        architecture = dataclasses.replace(architecture, input_size=size, width=width)
    chosen = configure(network, **dataclasses.asdict(architecture))
    begun = first_weights(start, chosen)
    how = preset(recipe or ("one-cycle" if begun == NONE else "transfer")).changed(**dataclasses.asdict(changes))
    options = TrainOptions(
        fit, validation_fraction, balance, precision, seed, skip_bad, checkpoint_secs, start=begun, teacher=teacher
    )
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
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _budget_ms(budget: str, device: str) -> float | None:
    """What ``--budget`` says, else the budget in the device's description."""
    if budget:
        return 1e3 * parse_seconds(budget)
    if not device:
        return None
    from edge_ran.targets import resolve

    known = resolve(device).latency_budget_ms
    if not known:
        raise UsageError(f"{device} has no latency_budget_ms", "give --budget 10ms, or leave --device away")
    return known


def _within(limit_ms: float, device: str, manifest: ManifestOptions, data: Path, quiet: bool) -> tuple[str, int, float]:
    """Measure the candidates and show the table; return network, input size and width of the one to train."""
    from edge_ran.cli.render.train import candidates

    classes = len(manifest.load(data).labels)
    with host_packages("train --budget", quiet):
        from edge_ran.host import latency_budget
    found = latency_budget.choose(limit_ms, device, classes, on_stage=(lambda text: None) if quiet else say)
    print(candidates(found), file=sys.stderr)
    return found.chosen.network, found.chosen.input_size, found.chosen.width
