"""`edge-ran logs`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import DeviceOptions, OutputOptions
from edge_ran.cli.render import emit


@verb
def logs(
    device: Annotated[DeviceOptions, Only("device")],
    output: Annotated[OutputOptions, Only("json")],
    lines: Annotated[int, typer.Option("--lines", min=1, help="How many of the newest.")] = 50,
) -> None:
    """Show the events and messages of a deployed model on a board."""
    from edge_ran.cli.render import deploy as render
    from edge_ran.deploy import boards, fleet

    emit(output.json, fleet.log(boards.only(device.device), lines), render.log)
