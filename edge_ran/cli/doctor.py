"""`edge-ran doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edge_ran.cli.app import (
    Json,
    Verbose,
    app,
    emit,
)
from edge_ran.errors import EnvironmentMissing

if TYPE_CHECKING:
    pass


@app.command()
def doctor(json: Json = False, verbose: Verbose = False) -> None:
    """Tell what this machine has and lacks: runtimes, GPUs, delegates, cameras, disk, heat; and what mends it."""
    from edge_ran.doctor import examine

    found = examine()
    emit(json, found.to_dict(), lambda: str(found))
    if not found.is_healthy:
        raise typer.Exit(EnvironmentMissing.exit_code)
