"""`edge-ran export`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.model_options import MetadataOptions
from edge_ran.cli.option_groups import verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.phone_options import Models, PageOptions, tflites
from edge_ran.cli.render import emit
from edge_ran.cli.render import export as render
from edge_ran.errors import UsageError


@verb
def export(
    models: Models = None,
    *,
    web: Annotated[bool, typer.Option("--web", help="A site for browsers: phones, tablets, computers.")] = False,
    folder: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to make.")] = Path(
        "site"
    ),
    page: PageOptions,
    metadata: MetadataOptions,
    output: OutputOptions,
) -> None:
    """Make a web app from a .tflite: a folder of static files that classifies in a browser, also offline."""
    if not web:
        given = [shlex.quote(str(path)) for path in models or ()]
        raise UsageError("nothing says what to export to", " ".join(["edge-ran export --web", *given]))
    from edge_ran.files import check_output_folder
    from edge_ran.phone.site import export_site

    check_output_folder(folder)
    files = tflites(models)
    metadata.say_notes(*files)
    made = export_site(files, folder, page.site(metadata), web_runtime=page.web_runtime, force=output.force)
    emit(output.json, made, render.text)
