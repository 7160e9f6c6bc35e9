"""`edge-ran dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from edge_ran.cli.app import (
    ClassNames,
    ClipStep,
    Force,
    GroupColumn,
    Json,
    LabelColumn,
    Quiet,
    app,
    emit,
    progress_bar,
)

if TYPE_CHECKING:
    from edge_ran.collect import Collection


class _CheckUnlessBuild(typer.core.TyperGroup):
    """`edge-ran dataset DATA` is `edge-ran dataset check DATA`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["check", *args]
        return super().parse_args(ctx, args)


dataset = typer.Typer(
    cls=_CheckUnlessBuild,
    no_args_is_help=True,
    help="Check labelled pictures (edge-ran dataset DATA), or build a data set from clips and photos.",
)
app.add_typer(dataset, name="dataset")


@dataset.command()
def check(
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


@dataset.command()
def build(
    sources: Annotated[
        list[Path], typer.Argument(help="Folders of class folders with clips and photos; sub-folders are visits.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write: pictures, manifest, contact sheet.")],
    step: Annotated[float, typer.Option(metavar="SECONDS", help="At most one frame of a clip in so many.")] = 1.0,
    sharpness: Annotated[float, typer.Option(help="Least variance of the Laplacian; 0 takes all.")] = 12.0,
    difference: Annotated[int, typer.Option(help="Least differing bits, of 64, between two pictures' hashes.")] = 8,
    side: Annotated[int, typer.Option(metavar="PIXELS", help="Longest side of the pictures written.")] = 640,
    test_fraction: Annotated[
        float, typer.Option(help="Share held out for testing, in whole clips or visits; 0 = none.")
    ] = 0.2,
    page: Annotated[bool, typer.Option(help="Write the contact sheet.")] = True,
    seed: Annotated[int, typer.Option(help="Decides which clips or visits are held out.")] = 0,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Take sharp, different frames from clips and photos, with a manifest for `train` and a contact sheet."""
    from edge_ran import records
    from edge_ran.collect import Choice, build

    choice = Choice(step_s=step, sharpness=sharpness, difference=difference, side=side, test_fraction=test_fraction)
    with progress_bar("reading clips", quiet) as progress:
        made = build(sources, output, choice, page=page, force=force, seed=seed, progress=progress)
    emit(json, records.document(made), lambda: _built_text(made))


def _built_text(made: Collection) -> str:
    width = max(len(one.label) for one in made.classes)
    lines = [f"{'class':<{width}}    taken  of these test  groups  left out"]
    for one in made.classes:
        left = ", ".join(f"{count} {reason}" for reason, count in one.left_out.items()) or "nothing"
        lines.append(f"{one.label:<{width}}  {one.taken:>7,}  {one.test:>13,}  {one.groups:>6}  {left}")
    lines += [f"! {problem}" for problem in made.problems]
    lines.append(f"{made.images:,} pictures in {made.folder}" + (f"; look at {made.page}" if made.page else ""))
    lines.append(f"next: edge-ran train {made.manifest}")
    return "\n".join(lines)


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
