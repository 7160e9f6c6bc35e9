"""`edge-ran devices`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_ran.cli.app import Json, Quiet, app, emit, say


@app.command()
def devices(
    name: Annotated[
        str | None, typer.Argument(help="One device: a name, a TOML file, ssh://user@host[:port] or adb:SERIAL.")
    ] = None,
    probe: Annotated[bool, typer.Option(help="Ask each of them whether it answers, and what it is.")] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 5.0,
    clean: Annotated[bool, typer.Option("--clean", help="Remove what edge-ran keeps on the device named.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the known devices: where each is, which accelerator and converter suit it, and whether it answers."""
    from edge_ran import records, targets
    from edge_ran.cli.render import devices as render

    if clean:
        cleaned = targets.clean(name)
        emit(json, records.document(cleaned), lambda: render.cleaned(cleaned))
        return
    found = targets.list_devices(name, timeout if probe else None, (lambda text: None) if quiet else say)
    emit(json, records.document(found), lambda: render.device_list(found))
