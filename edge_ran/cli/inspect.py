"""`edge-ran inspect`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import host_packages
from edge_ran.cli.command import given
from edge_ran.cli.model_options import NetworkOptions
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit
from edge_ran.cli.rules import spelt
from edge_ran.errors import InputError, UsageError


@verb
def inspect(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A .tflite file, a run folder or a network's name (edge50).")],
    *,
    classes: Annotated[int | None, typer.Option(help="Outputs of a network.", show_default="its own")] = None,
    network: NetworkOptions,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List every operator of a .tflite; show tracebacks of errors.")
    ] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Print the classes alone, one a line.")] = False,
    output: Annotated[OutputOptions, Only("json")],
) -> None:
    """Show the operators, cost and metadata of a network, run or model file, and which accelerators do not run it."""
    from edge_ran.cli.render import importing
    from edge_ran.cli.render import inspect as render
    from edge_ran.runs import is_network_file

    path = Path(model)
    options = [name for name in given(context, "model", "json", "verbose", "labels") if path.exists()]
    if options:
        raise UsageError(f"{spelt(options[0])} has no effect: {model} is a file", f"leave out {spelt(options[0])}")
    if labels:
        print("\n".join(_labels(path)))
    elif path.is_dir():
        from edge_ran.runs import describe_run, open_run

        emit(output.json, describe_run(open_run(path)), render.run_folder)
    elif is_network_file(path) and path.exists():
        with host_packages("inspect MODEL"):
            from edge_ran.host.importing.importer import inspect_network
        emit(output.json, inspect_network(path), importing.network_file)
    elif path.suffix == ".tflite" or path.exists():
        from edge_ran.graph import describe

        emit(output.json, describe(path, every_operator=verbose), render.tflite)
    else:
        from edge_ran.architecture import configure

        architecture = configure(model, classes=classes, **dataclasses.asdict(network))
        with host_packages("inspect NETWORK"):
            from edge_ran.host import networks
        emit(output.json, networks.summarise(architecture), render.network)


def _labels(path: Path) -> tuple[str, ...]:
    """The classes of a .tflite or a run. Raises InputError where it names none."""
    from edge_ran.graph import describe
    from edge_ran.runs import named, open_run

    path = named(path)
    card = open_run(path).card() if path.is_dir() else describe(path).card
    if card is None or not card.labels:
        raise InputError(f"{path} names no classes", "give them where it is used: --labels FILE, one a line")
    return card.labels
