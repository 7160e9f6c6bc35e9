"""`edge-ran train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ran import records
from edge_ran.cli.app import (
    Attention,
    Force,
    InputSize,
    Json,
    Learning,
    Mask,
    MaskTail,
    Quiet,
    Shortcut,
    Upsampling,
    Verbose,
    Width,
    app,
    emit,
    host_packages,
    resumable,
    training_progress,
)

if TYPE_CHECKING:
    from edge_ran.host.train import TrainResult


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="Class folders with pictures or clips, a CSV manifest, or an .npz.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to write.", show_default="runs/DATA-NETWORK")
    ] = None,
    network: Annotated[str, typer.Option(help="Network, by name (edge-ran inspect lists them).")] = "edge50",
    input_size: InputSize = None,
    width: Width = 1.0,
    attention: Attention = "mixed",
    learning: Learning = "residual",
    mask: Mask = True,
    upsampling: Upsampling = "bilinear",
    mask_tail: MaskTail = None,
    shortcut: Shortcut = "identity",
    fit: Annotated[str, typer.Option(help="stretch the frame, or crop its centre.")] = "stretch",
    recipe: Annotated[str, typer.Option(help="one-cycle, cosine or paper.")] = "one-cycle",
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures in a step (batch size).")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decay of the kernels.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of the target given to all classes.")] = None,
    mixup: Annotated[float | None, typer.Option(help="Alpha of mixup, 0 = off.")] = None,
    flip: Annotated[bool | None, typer.Option(help="Mirror at random (not for signs and text).")] = None,
    brightness: Annotated[float | None, typer.Option(help="Largest relative change of brightness.")] = None,
    contrast: Annotated[float | None, typer.Option(help="Largest relative change of contrast.")] = None,
    balance: Annotated[bool, typer.Option(help="Weigh classes by the inverse of their counts.")] = False,
    validation_fraction: Annotated[float, typer.Option(help="Share held out to choose the best epoch.")] = 0.1,
    precision: Annotated[str, typer.Option(help="float32, bfloat16, or auto: measure both.")] = "float32",
    seed: Annotated[int, typer.Option(help="Decides order, augmentation and initial weights.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output after it was stopped.")
    ] = False,
    checkpoint_secs: Annotated[float, typer.Option(help="Seconds between checkpoints within an epoch.")] = 120.0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network on labelled pictures or clips."""
    from edge_ran import architecture
    from edge_ran.recipe import TrainOptions, preset
    from edge_ran.run_output import RunOutput

    chosen = architecture.configure(
        network,
        input_size=input_size,
        width=width,
        attention=attention,
        learning=learning,
        mask=mask,
        upsampling=upsampling,
        mask_tail=mask_tail,
        shortcut=shortcut,
    )
    how = preset(recipe).changed(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        mixup=mixup,
        flip=flip,
        brightness=brightness,
        contrast=contrast,
    )
    options = TrainOptions(fit, validation_fraction, balance, precision, seed, skip_bad, checkpoint_secs)
    options.check()
    run = output or Path("runs") / f"{data.resolve().stem}-{chosen.name}"
    RunOutput(run, resume, force)  # refuses what is there before TensorFlow, which takes seconds, is loaded
    with host_packages("train", quiet):
        from edge_ran.host.train import train as fit_network
    with training_progress(quiet) as callbacks, resumable(run):
        result = fit_network(data, run, chosen, how, options, resume=resume, force=force, callbacks=callbacks)
    emit(json, records.document(result), lambda: _train_text(result))
    if result.warning:
        print(f"warning: {result.warning}", file=sys.stderr)


def _train_text(result: TrainResult) -> str:
    lines = [f"{result.network}: {result.parameters:,} parameters, {result.epochs} epochs in {result.seconds:.0f} s"]
    for name, top1, images in (
        ("validation", result.validation_top1, result.validation_images),
        ("test", result.test_top1, result.test_images),
    ):
        if top1 is not None:
            lines.append(f"{name}: top-1 {top1:.2%} of {images:,} pictures")
    lines.append(f"next: edge-ran convert --int8 {result.run}")
    return "\n".join(lines)
