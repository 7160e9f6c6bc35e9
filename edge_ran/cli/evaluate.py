"""`edge-ran evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ran.cli.app import (
    AcceleratorName,
    ClassNames,
    ClipStep,
    Cpu,
    Delegate,
    DelegateOption,
    Force,
    Gpu,
    GpuPrecision,
    GroupColumn,
    Json,
    LabelColumn,
    NoFallback,
    Quiet,
    Threads,
    Verbose,
    app,
    emit,
    progress_bar,
    runtime_options,
    tflite_or_default,
)

if TYPE_CHECKING:
    pass


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A .tflite or a run folder.")],
    data: Annotated[Path, typer.Argument(help="Class folders with pictures or clips, a CSV manifest, or an .npz.")],
    split: Annotated[
        str, typer.Option(help="train, val, test, all; auto: the first there is of test, val, all.")
    ] = "auto",
    reference: Annotated[Path | None, typer.Option(help="Another .tflite to compare with, on the CPU.")] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            min=0,
            help="Exit 1 when more percentage points are lost against --reference, else against the card.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the confusion matrix (.png, .svg, .pdf).")
    ] = None,
    predictions: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a CSV line for each image.")] = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="The model's classes, one a line.")] = None,
    label_column: LabelColumn = "label",
    group_column: GroupColumn = "group",
    classes: ClassNames = "",
    clip_step: ClipStep = 1.0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    accelerator: AcceleratorName = "cpu",
    cpu: Cpu = False,
    gpu: Gpu = False,
    no_fallback: NoFallback = False,
    threads: Threads = 0,
    delegate: Delegate = None,
    delegate_option: DelegateOption = None,
    gpu_precision: GpuPrecision = "fp16",
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure how right a .tflite is on labelled pictures; needs no TensorFlow."""
    options = runtime_options(
        accelerator, cpu, gpu, no_fallback, threads, delegate, delegate_option, gpu_precision, verbose
    )
    from edge_ran import plots
    from edge_ran.classifier import read_labels
    from edge_ran.dataset import load
    from edge_ran.evaluate import check_drop, write_predictions
    from edge_ran.evaluate import evaluate as measure
    from edge_ran.files import refuse_existing

    for target in filter(None, (plot, predictions)):
        refuse_existing(target, force)
    if plot:
        plots.check_target(plot)
    names = [name.strip() for name in classes.split(",") if name.strip()]
    images = load(data, label_column=label_column, group_column=group_column, labels=names, clip_step_s=clip_step)
    model = tflite_or_default(model)
    with progress_bar("classifying", quiet) as progress:
        report = measure(
            model,
            images,
            split=split,
            options=options,
            labels=read_labels(labels) if labels else None,
            reference=reference,
            max_drop=max_drop,
            skip_bad=skip_bad,
            progress=progress,
        )
    if plot:
        plots.confusion(report.confusion, report.labels, plot, f"{model.name}: top-1 {report.top1:.1%}")
    if predictions:
        write_predictions(report, predictions)
    for line in report.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    emit(json, report.to_dict(), lambda: _evaluate_text(report))
    if max_drop is not None:
        check_drop(report, max_drop)


def _evaluate_text(report: Any) -> str:
    low, high = report.top1_interval
    lines = [
        f"{report.images:,} images ({report.split}), {report.ms_per_image:.2f} ms each on "
        f"{report.accelerator['actual']} ({report.runtime})",
        f"top-1  {report.top1:.2%}  (95 %: {low:.2%} to {high:.2%}, {report.interval})",
    ]
    if report.top5 is not None:
        lines.append(f"top-5  {report.top5:.2%}")
    calibration = f"calibration error {report.calibration_error:.3f} at temperature {report.temperature:.2f}"
    lines.append(f"balanced {report.balanced:.2%}, {calibration}")
    if report.agreement is not None:
        lines.append(
            f"agrees with {report.reference} on {report.agreement:.2%}; that one has {report.reference_top1:.2%}"
        )
    if report.drop_points is not None:
        interval = "" if report.drop_interval is None else " (95 %: {:+.2f} to {:+.2f})".format(*report.drop_interval)
        lines.append(f"drop   {report.drop_points:+.2f} points against {report.reference or 'its card'}{interval}")
    width = max(len(label) for label in report.per_class)
    lines.append(f"{'class':<{width}}  images  recall  precision")
    for label, one in report.per_class.items():
        recall, precision = ("-" if v is None else f"{v:.1%}" for v in (one.recall, one.precision))
        lines.append(f"{label:<{width}}  {one.images:>6,}  {recall:>6}  {precision:>9}")
    return "\n".join([*lines, *(f"! {warning}" for warning in report.warnings)])
