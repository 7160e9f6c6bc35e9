"""`edge-ran dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ran.cli.app import (
    ClassNames,
    ClipStep,
    GroupColumn,
    Json,
    LabelColumn,
    Quiet,
    app,
    emit,
    progress_bar,
)

if TYPE_CHECKING:
    pass


@app.command()
def dataset(
    data: Annotated[Path, typer.Argument(help="Class folders with pictures or clips, a CSV manifest, or an .npz.")],
    label_column: LabelColumn = "label",
    group_column: GroupColumn = "group",
    classes: ClassNames = "",
    clip_step: ClipStep = 1.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count labelled pictures and look for trouble: unreadable files, twins across splits, frames of one clip."""
    from edge_ran.dataset import load, summarise

    names = [name.strip() for name in classes.split(",") if name.strip()]
    found = load(data, label_column=label_column, group_column=group_column, labels=names, clip_step_s=clip_step)
    with progress_bar("reading pictures", quiet) as progress:
        record = summarise(found, progress=progress)
    emit(json, record, lambda: _dataset_text(record))


def _dataset_text(record: dict[str, Any]) -> str:
    splits = record["splits"]
    width = max(len(label) for label in (*record["classes"], "class"))
    lines = ["  ".join([f"{'class':<{width}}", *(f"{name:>7}" for name in splits)])]
    for label in (*record["classes"], ""):
        counts = [splits[name][label] if label else sum(splits[name].values()) for name in splits]
        lines.append("  ".join([f"{label or 'sum':<{width}}", *(f"{count:>7,}" for count in counts)]))
    if record["sizes"]:
        least, middle, most = ("x".join(map(str, record["sizes"][name][::-1])) for name in ("min", "median", "max"))
        lines.append(
            f"pictures of {middle} pixels, {least} to {most}" if least != most else f"pictures of {most} pixels"
        )
    if record["groups"]:
        lines.append(f"{record['groups']} groups that a split keeps whole")
    return "\n".join([*lines, *(f"! {problem}" for problem in record["problems"])])
