"""`edge-ran evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edge_ran.cli.app import write_each
from edge_ran.cli.data_options import LabelledData, ManifestOptions
from edge_ran.cli.model_options import MetadataOptions
from edge_ran.cli.models import tflite_or_default
from edge_ran.cli.option_groups import verb
from edge_ran.cli.options import ON_CPU, AcceleratorOptions, OutputOptions
from edge_ran.cli.progress import progress_bar
from edge_ran.cli.render import emit
from edge_ran.cli.render import evaluate as render

if TYPE_CHECKING:
    from edge_ran.evaluate import EvalReport


@dataclass(frozen=True)
class PageFiles:
    """Files that the result is written to, besides what is printed."""

    PANEL: ClassVar[str] = "Files"

    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the confusion matrix (.png, .svg, .pdf).")] = (
        None
    )
    predictions: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a CSV line for each image.")] = None
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page: classes, groups, errors, calibration."),
    ] = None

    def check(self, force: bool) -> None:
        """Raise before the long work where a file could not be written after it."""
        from edge_ran import plots, report
        from edge_ran.files import check_output

        for target, suffixes in ((self.plot, ()), (self.predictions, ()), (self.html, (".html", ".htm"))):
            if target:
                check_output(target, force, suffixes)
        if self.plot:
            plots.check_target(self.plot)
        if self.html:
            report.check()

    def write(self, found: EvalReport, name: str) -> None:
        """Write every file that was asked for, even where one of them fails; ``name`` is the model's."""
        from edge_ran import evaluation_page, plots
        from edge_ran.evaluate import write_predictions

        jobs: list[Callable[[], None]] = []
        if plot := self.plot:
            title = f"{name}: top-1 {found.top1:.1%}"
            jobs.append(lambda: plots.confusion(found.confusion, found.labels, plot, title))
        if predictions := self.predictions:
            jobs.append(lambda: write_predictions(found, predictions))
        if html := self.html:
            jobs.append(lambda: evaluation_page.write(found, html))
        write_each(jobs)


@verb
def evaluate(
    model: Annotated[Path, typer.Argument(help="A .tflite or a run folder.")],
    data: LabelledData,
    *,
    split: Annotated[str, typer.Option(help="train, val, test or all; auto: the first found of test, val, all.")] = (
        "auto"
    ),
    reference: Annotated[Path | None, typer.Option(help="Another .tflite to compare with, on the CPU.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS", min=0, help="Exit 1 if more percentage points are lost against --reference or the card."
        ),
    ] = None,
    unknown: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures of none of the classes: does a threshold separate them?"),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    files: PageFiles,
    manifest: ManifestOptions,
    metadata: MetadataOptions,
    accelerator: AcceleratorOptions = ON_CPU,
    output: OutputOptions,
) -> None:
    """Measure the accuracy of a .tflite on labelled pictures; needs no TensorFlow."""
    from edge_ran.evaluate import check_drop
    from edge_ran.evaluate import evaluate as measure

    options, overrides = accelerator.runtime(output.verbose), metadata.overrides()
    files.check(output.force)
    images = manifest.load(data)
    model = tflite_or_default(model, data)
    with progress_bar("classifying", output.quiet) as progress:
        report = measure(
            model,
            images,
            split=split,
            options=options,
            overrides=overrides,
            reference=reference,
            max_drop=max_drop,
            skip_bad=skip_bad,
            unknown=unknown,
            progress=progress,
        )
    for line in report.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    emit(output.json, report, render.text)
    files.write(report, model.name)
    if max_drop is not None:
        check_drop(report, max_drop)
