"""`edge-ran doctor`."""

from __future__ import annotations

import typer

from edge_ran.cli.app import Json, Verbose, app, emit
from edge_ran.errors import EnvironmentMissing


@app.command()
def doctor(json: Json = False, verbose: Verbose = False) -> None:
    """Tell what this machine has and what it lacks (runtimes, GPUs, delegates, cameras, disk, heat), and the remedy."""
    from edge_ran import records
    from edge_ran.cli.render import doctor as render
    from edge_ran.doctor import examine

    found = examine()
    emit(json, records.document(found), lambda: render.diagnosis(found))
    if not found.is_healthy:
        raise typer.Exit(EnvironmentMissing.exit_code)
