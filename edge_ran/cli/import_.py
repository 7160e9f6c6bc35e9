"""`edge-ran import`, and what lets other verbs take such a file directly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import app, host_packages
from edge_ran.cli.options import OutputOptions, expanded
from edge_ran.cli.render import emit
from edge_ran.errors import UsageError

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
    """Make a run folder from a network that another script trained, and compare both on pictures."""
    from edge_ran.files import check_output_folder
    from edge_ran.runs import RUNS

    if fit not in ("stretch", "crop"):
        raise UsageError(f"--fit {fit!r} is unknown", "--fit stretch or crop")
    output = output or Path(RUNS) / (model.name.split(".")[0] or "imported")
    check_output_folder(output)
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
    emit(out.json, report, lambda found: found.text())


app.command("import")(expanded(import_))


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise UsageError(f"{option} {text!r} is no number", f"{option} 127.5, or three with commas") from None
