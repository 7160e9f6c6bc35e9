"""`edge-ran devices`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_ran.cli.app import say
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit


@verb
def devices(
    output: Annotated[OutputOptions, Only("json", "quiet")],
    name: Annotated[
        str | None, typer.Argument(help="One device: a name, a TOML file, ssh://user@host[:port] or adb:SERIAL.")
    ] = None,
    probe: Annotated[bool, typer.Option(help="Ask each of them whether it answers, and what it is.")] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 5.0,
    clean: Annotated[bool, typer.Option("--clean", help="Remove what edge-ran keeps on the device named.")] = False,
) -> None:
    """List the known devices: where each is, which accelerator and converter suit it, and whether it answers."""
    from edge_ran import targets
    from edge_ran.cli.render import devices as render

    if clean:
        emit(output.json, targets.clean(name), render.cleaned)
        return
    found = targets.list_devices(name, timeout if probe else None, (lambda text: None) if output.quiet else say)
    emit(output.json, found, render.device_list)
