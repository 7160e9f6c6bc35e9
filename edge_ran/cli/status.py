"""`edge-ran status`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_ran.cli.fleet_options import FleetOptions
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit


@verb
def status(
    fleet: FleetOptions,
    output: Annotated[OutputOptions, Only("json")],
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 10.0,
    page: Annotated[bool, typer.Option("--page", help="Show the live page's address with its token.")] = False,
) -> None:
    """Show what runs on each board and its state; without --device, on all boards that this machine has deployed to."""
    from edge_ran.cli.render import deploy as render
    from edge_ran.deploy import fleet as boards

    found = boards.status(fleet.chosen(), timeout, page)
    emit(output.json, found, render.fleet)
    if found.exit_code:
        raise typer.Exit(found.exit_code)
