"""`edge-ran rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_ran.cli.app import talk
from edge_ran.cli.fleet_options import FleetOptions
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit


@verb
def rollback(
    fleet: FleetOptions,
    output: Annotated[OutputOptions, Only("json", "quiet")],
    wait: Annotated[float, typer.Option(min=1, metavar="S", help="Longest time until it classifies frames.")] = 60.0,
) -> None:
    """Return to the previous release on boards."""
    from edge_ran.cli.render import deploy as render
    from edge_ran.deploy import fleet as boards

    found = boards.roll_back(fleet.chosen(only_named=True), talk(output.quiet), wait)
    emit(output.json, found, render.rolled_back)
    if found.exit_code:
        raise typer.Exit(found.exit_code)
