"""`edge-ran demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import host_packages, say
from edge_ran.cli.interrupted import command, on_interrupt
from edge_ran.cli.option_groups import verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit


@verb
def demo(
    run: Annotated[Path | None, typer.Argument(help="A run folder.", show_default="the network that ships")] = None,
    *,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("edge-ran-demo"),
    data: Annotated[Path | None, typer.Option(help="Labelled pictures of the network's classes, for top-1.")] = None,
    output: OutputOptions,
) -> None:
    """Convert, compare precisions, classify a clip and benchmark, and write one HTML page."""
    from edge_ran.cli.render import convert as render
    from edge_ran.files import check_output_folder

    def note(text: str) -> None:
        if not output.quiet:
            say(text)

    check_output_folder(folder)
    with on_interrupt(lambda: (f"no page was written to {folder}; to start again:", command())):
        with host_packages("demo", output.quiet):
            from edge_ran.host.demo import demo as show
        result = show(folder, run=run, data=data, force=output.force, note=note)
    emit(output.json, result, render.demonstrated)
