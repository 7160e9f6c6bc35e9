"""`edge-ran evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import progress_bar, write_each
from edge_ran.cli.models import tflite_or_default
from edge_ran.cli.options import ON_CPU, AcceleratorOptions, ManifestOptions, MetadataOptions, OutputOptions, verb
from edge_ran.cli.render import emit
from edge_ran.cli.render import evaluate as render


@verb
def evaluate(
    model: Annotated[Path, typer.Argument(help="A .tflite or a run folder.")],
    data: Annotated[Path, typer.Argument(help="Class folders with pictures or clips, a CSV manifest, or an .npz.")],
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
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the confusion matrix (.png, .svg, .pdf).")
    ] = None,
    predictions: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a CSV line for each image.")] = None,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page: classes, groups, errors, calibration."),
    ] = None,
    unknown: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Pictures of none of the classes: what is a threshold worth?")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    manifest: ManifestOptions,
    metadata: MetadataOptions,
    accelerator: AcceleratorOptions = ON_CPU,
    output: OutputOptions,
) -> None:
    """Measure the accuracy of a .tflite on labelled pictures; needs no TensorFlow."""
    from edge_ran import evaluation_page, plots
    from edge_ran import report as page
    from edge_ran.evaluate import check_drop, write_predictions
    from edge_ran.evaluate import evaluate as measure
    from edge_ran.files import check_output

    options, overrides = accelerator.runtime(output.verbose), metadata.overrides()
    for target, suffixes in ((plot, ()), (predictions, ()), (html, (".html", ".htm"))):
        if target:
            check_output(target, output.force, suffixes)
    if plot:
        plots.check_target(plot)
    if html:
        page.check()
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
    jobs: list[Callable[[], None]] = []
    if plot:
        title = f"{model.name}: top-1 {report.top1:.1%}"
        jobs.append(lambda: plots.confusion(report.confusion, report.labels, plot, title))
    if predictions:
        jobs.append(lambda: write_predictions(report, predictions))
    if html:
        jobs.append(lambda: evaluation_page.write(report, html))
    write_each(jobs)
    if max_drop is not None:
        check_drop(report, max_drop)
