"""`edge-ran serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from edge_ran.cli.app import say
from edge_ran.cli.model_options import MetadataOptions
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.phone_options import Models, PageOptions, tflites
from edge_ran.cli.render import emit
from edge_ran.cli.render import serve as render
from edge_ran.cli.signals import stop_on_signals


@verb
def serve(
    models: Models = None,
    *,
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to listen; 127.0.0.1:8080 is for this machine, plain HTTP.")
    ] = "0.0.0.0:8443",
    adb: Annotated[
        str, typer.Option("--adb", metavar="adb:SERIAL", help="A phone on USB opens the page, without a certificate.")
    ] = "",
    page: PageOptions,
    metadata: MetadataOptions,
    output: Annotated[OutputOptions, Only("json", "quiet", "verbose")],
) -> None:
    """Show a QR code that opens the classifier on a phone; answer POST /classify for programs."""
    from edge_ran.phone.serve import qr_code, serving
    from edge_ran.targets import phone

    place, files = phone.place(address, adb), tflites(models)
    metadata.say_notes(*files)
    with (
        stop_on_signals() as (stop, _),
        serving(files, place, page.site(metadata), web_runtime=page.web_runtime) as served,
        phone.reached(served, adb) as where,
    ):
        code = "" if output.json or output.quiet or adb else qr_code(where.url)
        emit(output.json, where, lambda found: render.text(found, code))
        stop.wait()
        say("stopped")
