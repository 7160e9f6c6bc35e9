"""`edge-ran import`, and what lets other verbs take such a file directly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_ran import records
from edge_ran.cli.app import app, emit, host_packages, say
from edge_ran.cli.options import OutputOptions, expanded
from edge_ran.errors import InputError, UsageError

OUTPUT = OutputOptions()


def import_(
    model: Annotated[Path, typer.Argument(help="A .h5 or .keras file of Keras 2 or 3; nothing of it is run.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to write.", show_default="runs/NAME")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="The classes, one a line; or the word numbers.")
    ] = None,
    preprocessing: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="tf, torch, caffe (as keras.applications), unit 0..1, raw 0..255."),
    ] = None,
    mean: Annotated[str, typer.Option(metavar="M[,M,M]", help="Instead: (pixel - mean) / std, pixels 0..255.")] = "",
    std: Annotated[str, typer.Option(metavar="S[,S,S]", help="See --mean.")] = "",
    scale: Annotated[float | None, typer.Option(help="Instead of --std: 1 / std.")] = None,
    color: Annotated[str | None, typer.Option(metavar="rgb|bgr", help="Order of the colours.")] = None,
    fit: Annotated[str, typer.Option(metavar="stretch|crop", help="How a frame is fitted to the input.")] = "stretch",
    check_on: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Labelled pictures: try the ways to scale pixels on them.")
    ] = None,
    expect: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Recorded inputs and outputs that it must reproduce.")
    ] = None,
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the picture, for a network that takes any.")
    ] = None,
    architecture: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="For weights alone: what model.to_json() gave.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="For weights alone of one of edge-ran's networks: indoor56, …")
    ] = None,
    upsampling: Annotated[str, typer.Option(help="With --network: nearest or bilinear.")] = "nearest",
    lambda_: Annotated[
        list[str] | None,
        typer.Option("--lambda", metavar="LAYER=EXPRESSION", help="What a Lambda layer computes, such as '1 + x'."),
    ] = None,
    out: OutputOptions = OUTPUT,
) -> None:
    """Make a run folder of a network that another script trained, proved equal on pictures."""
    from edge_ran.runs import RUNS

    if fit not in ("stretch", "crop"):
        raise UsageError(f"--fit {fit!r} is unknown", "--fit stretch or crop")
    output = output or Path(RUNS) / (model.name.split(".")[0] or "imported")
    with host_packages("import"):
        from edge_ran.host.importing.importer import Answers, import_network
        from edge_ran.host.importing.lambdas import parse
    lambdas = {}
    for text in lambda_ or []:
        layer, equals, expression = text.partition("=")
        if not (layer and equals):
            raise UsageError(f"--lambda {text!r} is not LAYER=EXPRESSION", "for instance --lambda 'lambda_1=1 + x'")
        lambdas[layer.strip()] = parse(expression)
    answers = Answers(
        labels=labels,
        preprocessing=preprocessing,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        scale=scale,
        color=color,
        fit=fit,
        input_size=input_size,
        architecture=architecture,
        network=network,
        upsampling=upsampling,
        lambdas=lambdas,
    )
    report = import_network(model, output, answers, check_on=check_on, expect=expect, force=out.force)
    emit(out.json, records.document(report), report.text)


app.command("import")(expanded(import_))


def run_of(model: Path, quiet: bool = False) -> Path:
    """Return a run folder for what a verb was given: itself, or, for another script's file, what `import` makes of it.

    The run is ``runs/NAME``; one that is there already, of the same file, is taken as it is.

    Raises:
        InputError: the file leaves something open: its error names the `edge-ran import` that answers it.
    """
    from edge_ran.runs import RUNS, RunFolder, is_network_file

    if not is_network_file(model):
        return model
    if not model.exists():
        raise InputError(f"there is no file {model}", "check the path")
    run = RunFolder(Path(RUNS) / (model.name.split(".")[0] or "imported"))
    if run.is_finished and _imported_from(run.path, model):
        return run.path
    with host_packages("import"):
        from edge_ran.host.importing.importer import NUMBERS, Answers, import_network
    report = None
    try:
        report = import_network(model, run.path, Answers(labels=NUMBERS))
    except UsageError as error:
        if not error.remedy.startswith("--"):
            raise
        remedy = f"edge-ran import {model} -o {run.path} --check-on FOLDER (of labelled pictures)"
        raise InputError(str(error), f"{remedy}, or with --labels FILE --preprocessing tf") from error
    if not quiet:
        say(f"imported {model} to {run.path}, its {report.classes} classes by number: edge-ran import names them")
    return run.path


def tflite_of(model: Path) -> Path:
    """Return the float file of another script's network: imported and converted to fp32 unless that was done before."""
    from edge_ran import catalogue
    from edge_ran.runs import RunFolder

    run = RunFolder(run_of(model))
    target = run.path / "fp32.tflite"
    if not target.is_file() or target.stat().st_mtime_ns < run.model_path.stat().st_mtime_ns:
        with host_packages("convert"):
            from edge_ran.host.convert import convert
        convert(run.path, catalogue.converter("fp32"), target, force=True)
        say(f"converted it to {target}; edge-ran convert --int8 {run.path} makes the integer file")
    return target


def _imported_from(run: Path, model: Path) -> bool:
    from edge_ran.files import sha256
    from edge_ran.runs import RunFolder

    imported = RunFolder(run).card().training.imported
    return imported is not None and model.is_file() and imported.sha256 == sha256(model)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise UsageError(f"{option} {text!r} is no number", f"{option} 127.5, or three with commas") from None
