"""The options of `edge-ran export` and `edge-ran serve`: what a page in a browser needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edge_ran.cli.model_options import MetadataOptions
from edge_ran.cli.models import tflite_or_default

if TYPE_CHECKING:
    from edge_ran.phone.site import SiteOptions

Models = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[MODEL]...",
        help="A .tflite or a run folder; several of one network: int8 for the CPU, fp16 for the GPU.",
        show_default="newest run, else shipped",
    ),
]


@dataclass(frozen=True)
class PageOptions:
    """How the page answers, and the runtime that it brings."""

    PANEL: ClassVar[str] = "Page"

    threshold: Annotated[
        float, typer.Option("--threshold", min=0, max=1, help='Below this score the answer is "unknown".')
    ] = 0.0
    smoothing: Annotated[
        float, typer.Option("--smoothing", min=0, max=0.99, help="Weight of earlier frames; 0 = each frame for itself.")
    ] = 0.8
    web_runtime: Annotated[
        Path | None,
        typer.Option(
            "--web-runtime",
            metavar="FOLDER",
            help="Where `npm pack` left the tarballs of LiteRT.js; needed once.",
            show_default="the user's cache",
        ),
    ] = None

    def site(self, metadata: MetadataOptions) -> SiteOptions:
        """Return how the page answers. Raises UsageError or InputError."""
        from edge_ran.phone.site import SiteOptions

        return SiteOptions(self.smoothing, self.threshold, metadata.overrides())


def tflites(models: Sequence[Path] | None) -> list[Path]:
    """Return the files to serve: those named, or the default."""
    return [tflite_or_default(model) for model in models or []] or [tflite_or_default(None)]
