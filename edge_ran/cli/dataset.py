"""`edge-ran dataset`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from edge_ran.cli.app import app
from edge_ran.cli.data_options import LabelledData, ManifestOptions
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.progress import progress_bar
from edge_ran.cli.render import dataset as render
from edge_ran.cli.render import emit


class _CheckUnlessBuild(typer.core.TyperGroup):
    """`edge-ran dataset DATA` is `edge-ran dataset check DATA`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["check", *args]
        return super().parse_args(ctx, args)


dataset = typer.Typer(
    cls=_CheckUnlessBuild,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Check labelled pictures (edge-ran dataset DATA), or build a data set from clips and photos.",
)
app.add_typer(dataset, name="dataset")
_verb = functools.partial(verb, group=dataset)


@_verb
def check(
    data: LabelledData,
    *,
    manifest: ManifestOptions,
    output: Annotated[OutputOptions, Only("json", "quiet")],
) -> None:
    """Count labelled pictures and find problems: unreadable files, near-duplicates, clips cut by a split."""
    from edge_ran.dataset import summarise

    found = manifest.load(data)
    with progress_bar("reading pictures", output.quiet) as progress:
        summary = summarise(found, progress=progress)
    emit(output.json, summary, render.text)


@_verb
def build(
    sources: Annotated[
        list[Path], typer.Argument(help="Folders of class folders with clips and photos; sub-folders are visits.")
    ],
    target: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write pictures, manifest, contact sheet.")
    ],
    *,
    step: Annotated[float, typer.Option(metavar="SECONDS", help="Least time between two frames of a clip.")] = 1.0,
    sharpness: Annotated[float, typer.Option(help="Least variance of the Laplacian; 0 = no limit.")] = 12.0,
    difference: Annotated[int, typer.Option(help="Least number of different bits, of 64, in two picture hashes.")] = 8,
    side: Annotated[int, typer.Option(metavar="PIXELS", help="Longest side of the pictures written.")] = 640,
    test_fraction: Annotated[
        float, typer.Option(help="Share held out for testing, in whole clips or visits; 0 = none.")
    ] = 0.2,
    page: Annotated[bool, typer.Option(help="Write the contact sheet.")] = True,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Decides which clips or visits are held out.")] = 0,
    output: Annotated[OutputOptions, Only("json", "force", "quiet")],
) -> None:
    """Take sharp, different frames from clips and photos, with a manifest for `train` and a contact sheet."""
    from edge_ran.collect import Choice
    from edge_ran.collect import build as build_dataset

    choice = Choice(step_s=step, sharpness=sharpness, difference=difference, side=side, test_fraction=test_fraction)
    with progress_bar("reading clips", output.quiet) as progress:
        made = build_dataset(sources, target, choice, page=page, force=output.force, seed=seed, progress=progress)
    emit(output.json, made, render.built)
