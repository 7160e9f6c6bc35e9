"""`edge-ran fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import DeviceOptions, OutputOptions
from edge_ran.cli.progress import progress_bar
from edge_ran.cli.render import emit


@verb
def fetch(
    folder: Annotated[Path, typer.Argument(help="Where the pictures come to, in a folder for each class.")],
    device: Annotated[DeviceOptions, Only("device")],
    output: Annotated[OutputOptions, Only("json", "quiet")],
    keep: Annotated[bool, typer.Option("--keep", help="Leave the pictures on the board as well.")] = False,
) -> None:
    """Copy the pictures that a board recorded to this machine, for training, and remove them from the board."""
    from edge_ran.cli.render import deploy as render
    from edge_ran.deploy import boards
    from edge_ran.deploy.fetch import fetch as bring

    board = boards.only(device.device)
    with progress_bar("fetching pictures", output.quiet) as progress:
        found = bring(board, folder, keep, progress)
    emit(output.json, found, render.fetched)
