"""`edge-ran undeploy`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_ran.cli.app import talk
from edge_ran.cli.fleet_options import FleetOptions
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit


@verb
def undeploy(fleet: FleetOptions, output: Annotated[OutputOptions, Only("json", "quiet")]) -> None:
    """Stop the service on boards and remove everything that was deployed, recorded pictures as well."""
    from edge_ran.cli.render import deploy as render
    from edge_ran.deploy import fleet as boards

    found = boards.undeploy(fleet.chosen(only_named=True), talk(output.quiet))
    emit(output.json, found, render.undeployed)
    if found.exit_code:
        raise typer.Exit(found.exit_code)
