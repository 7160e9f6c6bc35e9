"""The text of `edge-ran export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_ran.printable import many

if TYPE_CHECKING:
    from edge_ran.phone.site import Site


def text(site: Site) -> str:
    models = ", ".join(site.models)
    return (
        f"{site.folder}  {site.size_bytes / 1e6:.1f} MB, {many(len(site.files), 'file')}, {models}\n"
        "  put it on any https host; a phone that opens it once can use it offline\n"
        "  to try it from this machine: edge-ran serve"
    )
