"""`edge-ran doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit
from edge_ran.errors import EnvironmentMissing


@verb
def doctor(output: Annotated[OutputOptions, Only("json", "verbose")]) -> None:
    """Tell what this machine has and what it lacks (runtimes, GPUs, delegates, cameras, disk, heat), and the remedy."""
    from edge_ran.cli.render import doctor as render
    from edge_ran.doctor import examine

    found = examine()
    emit(output.json, found, render.diagnosis)
    if not found.is_healthy:
        raise typer.Exit(EnvironmentMissing.exit_code)
