"""`edge-ran devices`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ran.cli.app import (
    Json,
    app,
    emit,
)

if TYPE_CHECKING:
    pass


@app.command()
def devices(
    name: Annotated[str | None, typer.Argument(help="One device, by name or by its TOML file.")] = None,
    json: Json = False,
) -> None:
    """List the devices of the catalogue: where each is and what suits it."""
    from edge_ran import catalogue

    found = [catalogue.device(name)] if name else catalogue.devices()
    record = {"schema_version": 1, "devices": [dataclasses.asdict(spec) for spec in found]}
    emit(json, record, lambda: _devices_text(found))


def _devices_text(found: list[Any]) -> str:
    rows = [
        ("NAME", "ACCELERATOR", "CONVERTER", "THREADS", "TARGET", ""),
        *((d.name, d.accelerator, d.converter, str(d.threads or "all"), d.target, d.summary) for d in found),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join([*(f"{c:<{w}}" for c, w in zip(row, widths, strict=False)), row[5]]).rstrip() for row in rows
    )
