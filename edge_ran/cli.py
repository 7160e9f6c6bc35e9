"""The command line: each verb parses, calls one function, prints. Heavy imports stay inside the verbs."""

from __future__ import annotations

import contextlib
import dataclasses
import json as jsonlib
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ran import __version__
from edge_ran.errors import EdgeRanError, EnvironmentMissing, InputError, UsageError

if TYPE_CHECKING:
    from edge_ran.runtime import RuntimeOptions

app = typer.Typer(
    name="edge-ran",
    help="Train, quantise, convert, run and benchmark residual attention networks on small devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an output that exists.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show runtime chatter, and tracebacks of errors.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]

# What every verb that runs a model takes; _runtime_options makes one RuntimeOptions of them.
AcceleratorName = Annotated[
    str, typer.Option("--accelerator", metavar="auto|gpu|cpu", help="auto: the faster one that agrees with the CPU.")
]
Cpu = Annotated[bool, typer.Option("--cpu", help="The same as --accelerator cpu.")]
Gpu = Annotated[bool, typer.Option("--gpu", help="The same as --accelerator gpu.")]
NoFallback = Annotated[
    bool, typer.Option("--no-fallback", help="Exit 1 where the accelerator cannot be had, instead of using the CPU.")
]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0 = every core.")]
Delegate = Annotated[
    Path | None, typer.Option("--delegate", metavar="LIBRARY", help="A TFLite external delegate, as vendors ship it.")
]
DelegateOption = Annotated[
    list[str] | None, typer.Option("--delegate-option", metavar="KEY=VALUE", help="For the delegate; may be repeated.")
]
GpuPrecision = Annotated[str, typer.Option("--gpu-precision", metavar="fp16|fp32", help="Arithmetic on the GPU.")]


# The options of a network, for `train` and `inspect`.
InputSize = Annotated[int | None, typer.Option(help="Side of the square input in pixels.", show_default="its own")]
Width = Annotated[float, typer.Option(help="Factor on every number of channels.")]
Attention = Annotated[str, typer.Option(help="mixed, channel or spatial.")]
Learning = Annotated[str, typer.Option(help="residual (1+M)T or naive MT.")]
Mask = Annotated[bool, typer.Option(help="Soft mask branches, or the trunk alone.")]
Upsampling = Annotated[str, typer.Option(help="bilinear or nearest.")]
MaskTail = Annotated[str | None, typer.Option(help="paper or linear.", show_default="its own")]
Shortcut = Annotated[str, typer.Option(help="identity or projection.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edge-ran {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. The only place where an EdgeRanError becomes lines on stderr and an exit code."""
    verbose = "-v" in sys.argv or "--verbose" in sys.argv
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = app(args=_spell_out_web(sys.argv[1:]), standalone_mode=False)  # Ctrl-C is typer's, and gives 130
    except EdgeRanError as error:
        if verbose:
            traceback.print_exc()
        _complain(str(error), error.remedy)
        code = error.exit_code
    except typer.Abort:
        code = 130
    except Exception as error:
        # Usage errors have no public name in typer, and live in click or inside typer, by its version.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        if message := error.format_message():  # none after the help of a bare `edge-ran`
            _complain(message, f"{context.command_path if context else 'edge-ran'} --help")
        code = UsageError.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _complain(what: str, remedy: str) -> None:
    print(f"edge-ran: {what}", file=sys.stderr)
    if remedy:
        print(f"  {remedy}", file=sys.stderr)


def _runtime_options(
    accelerator: str,
    cpu: bool,
    gpu: bool,
    no_fallback: bool,
    threads: int,
    delegate: Path | None,
    delegate_option: list[str] | None,
    gpu_precision: str,
    verbose: bool = False,
) -> RuntimeOptions:
    """Make one ``RuntimeOptions`` of the options that every verb running a model takes."""
    from edge_ran.runtime import RuntimeOptions

    if cpu and gpu:
        raise UsageError("--cpu and --gpu were both given", "choose one, or --accelerator auto")
    pairs = []
    for text in delegate_option or []:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"--delegate-option {text!r} is not KEY=VALUE", "for instance --delegate-option threads=2")
        pairs.append((key, value))
    return RuntimeOptions(
        accelerator="cpu" if cpu else "gpu" if gpu else accelerator,
        threads=threads,
        delegate=delegate,
        delegate_options=tuple(pairs),
        gpu_precision=gpu_precision,
        fallback=not no_fallback,
        verbose=verbose,
    )


def _print(json: bool, record: dict[str, Any], text: Callable[[], str]) -> None:
    """Print the record as JSON or the text for people."""
    typer.echo(jsonlib.dumps(record, indent=1, allow_nan=False) if json else text())


@contextlib.contextmanager
def _host_packages(verb: str) -> Iterator[None]:
    """Turn a missing TensorFlow into one line, for the verbs that need it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("tensorflow", "tf_keras", "tensorflow_model_optimization"):
            raise
        raise EnvironmentMissing(f"{verb} needs {error.name}", "pip install 'edge-ran[host]'") from error


# ------------------------------------------------------------------------------------------------------ train


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="Class folders with pictures or clips, a CSV manifest, or an .npz.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to write.", show_default="runs/DATA-NETWORK")
    ] = None,
    network: Annotated[str, typer.Option(help="Network, by name (edge-ran inspect lists them).")] = "edge50",
    input_size: InputSize = None,
    width: Width = 1.0,
    attention: Attention = "mixed",
    learning: Learning = "residual",
    mask: Mask = True,
    upsampling: Upsampling = "bilinear",
    mask_tail: MaskTail = None,
    shortcut: Shortcut = "identity",
    fit: Annotated[str, typer.Option(help="stretch the frame, or crop its centre.")] = "stretch",
    recipe: Annotated[str, typer.Option(help="one-cycle, cosine or paper.")] = "one-cycle",
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Decay of the kernels.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Share of the target given to all classes.")] = None,
    mixup: Annotated[float | None, typer.Option(help="Alpha of mixup, 0 = off.")] = None,
    flip: Annotated[bool | None, typer.Option(help="Mirror at random (not for signs and text).")] = None,
    brightness: Annotated[float | None, typer.Option(help="Largest relative change of brightness.")] = None,
    contrast: Annotated[float | None, typer.Option(help="Largest relative change of contrast.")] = None,
    balance: Annotated[bool, typer.Option(help="Weigh classes by the inverse of their counts.")] = False,
    validation_fraction: Annotated[float, typer.Option(help="Share held out to choose the best epoch.")] = 0.1,
    precision: Annotated[str, typer.Option(help="float32, bfloat16, or auto: measure both.")] = "float32",
    seed: Annotated[int, typer.Option(help="Decides order, augmentation and initial weights.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output after it was stopped.")
    ] = False,
    checkpoint_secs: Annotated[float, typer.Option(help="Seconds between checkpoints within an epoch.")] = 120.0,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable pictures out.")] = False,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network on labelled pictures or clips."""
    with _host_packages("train"):
        from edge_ran.host import networks
        from edge_ran.host.train import recipe as preset
        from edge_ran.host.train import train as fit_network
    architecture = networks.configure(
        network,
        input_size=input_size,
        width=width,
        attention=attention,
        learning=learning,
        mask=mask,
        upsampling=upsampling,
        mask_tail=mask_tail,
        shortcut=shortcut,
    )
    how = preset(
        recipe,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        mixup=mixup,
        flip=flip,
        brightness=brightness,
        contrast=contrast,
    )
    run = output or Path("runs") / f"{data.resolve().stem}-{architecture.name}"
    with _training_progress(quiet) as (on_load, on_step, on_epoch), _resumable(run):
        report = fit_network(
            data,
            run,
            architecture,
            how,
            fit_to=fit,
            validation_fraction=validation_fraction,
            balance=balance,
            precision=precision,
            seed=seed,
            resume=resume,
            force=force,
            skip_bad=skip_bad,
            checkpoint_s=checkpoint_secs,
            on_load=on_load,
            on_step=on_step,
            on_epoch=on_epoch,
        )
    _print(json, dataclasses.asdict(report), lambda: _train_text(report))
    if report.warning:
        print(f"warning: {report.warning}", file=sys.stderr)


def _train_text(report: Any) -> str:
    lines = [f"{report.network}: {report.parameters:,} parameters, {report.epochs} epochs in {report.seconds:.0f} s"]
    for name, top1, images in (
        ("validation", report.validation_top1, report.validation_images),
        ("test", report.test_top1, report.test_images),
    ):
        if top1 is not None:
            lines.append(f"{name}: top-1 {top1:.2%} of {images:,} pictures")
    lines.append(f"next: edge-ran convert --int8 {report.run}")
    return "\n".join(lines)


@contextlib.contextmanager
def _resumable(run: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if (run / "checkpoint.npz").exists():
            print(f"stopped; the last checkpoint is in {run}: continue with --resume", file=sys.stderr)
        raise


@contextlib.contextmanager
def _training_progress(quiet: bool) -> Iterator[tuple[Callable[..., None], Callable[..., None], Callable[..., None]]]:
    """Yield the callbacks on_load, on_step and on_epoch: a bar on a terminal, a line an epoch elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, quiet=quiet)
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=not console.is_terminal) as bar:
        loading = bar.add_task("reading pictures", note="", visible=False)
        training = bar.add_task("training", note="", visible=False)

        def on_load(done: int, total: int) -> None:
            bar.update(loading, completed=done, total=total, visible=done < total)

        def on_step(p: Any) -> None:
            note = f"epoch {p.epoch + 1}/{p.epochs}  loss {p.loss:.3f}  {p.images_per_s:.0f} images/s"
            bar.update(training, completed=p.step, total=p.steps, note=note, visible=True)

        def on_epoch(history: list[dict[str, float]]) -> None:
            last = history[-1]
            text = f"epoch {last['epoch']}: loss {last['loss']:.4f} top-1 {last['top1']:.2%}"
            if "validation_top1" in last:
                text += f", validation loss {last['validation_loss']:.4f} top-1 {last['validation_top1']:.2%}"
            console.print(f"{text}, {last['images_per_s']:.0f} images/s", highlight=False, soft_wrap=True)

        yield on_load, on_step, on_epoch


# ---------------------------------------------------------------------------------------------------- dataset

LabelColumn = Annotated[str, typer.Option(help="The manifest's column of labels.")]
GroupColumn = Annotated[str, typer.Option(help="The manifest's column of what must stay together: clip, place.")]
ClassNames = Annotated[str, typer.Option("--classes", metavar="A,B,…", help="Use these classes only.")]
ClipStep = Annotated[float, typer.Option(help="Seconds between the frames taken from a clip.")]


@contextlib.contextmanager
def _bar(title: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback (done, total) that draws a bar on a terminal; None where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
    with _bar("reading pictures", quiet) as progress:
        record = summarise(found, progress=progress)
    _print(json, record, lambda: _dataset_text(record))


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


# ---------------------------------------------------------------------------------------------------- quantize


@app.command()
def quantize(
    run: Annotated[Path | None, typer.Argument(help="Run folder.", show_default="newest run, else shipped")] = None,
    data: Annotated[
        Path | None, typer.Argument(help="The pictures it was trained on.", show_default="where they were then")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to write.", show_default="RUN-qat")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the data.", show_default="3")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures a step.", show_default="128")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate.", show_default="0.002")] = None,
    distillation: Annotated[
        float | None, typer.Option(help="Share of the float network's answers in the loss.", show_default="0.9")
    ] = None,
    flip: Annotated[bool | None, typer.Option(help="Mirror at random, as in training.")] = None,
    seed: Annotated[int, typer.Option(help="Decides order and augmentation.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --output after it was stopped.")
    ] = False,
    checkpoint_secs: Annotated[float, typer.Option(help="Seconds between checkpoints within an epoch.")] = 120.0,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Fine-tune a run's network in int8 arithmetic, so that convert --int8 loses next to nothing."""
    from edge_ran.runs import RUNS, RunFolder, default_run

    if run is None:
        run = default_run(Path.cwd())
        if not quiet:
            _say(f"quantising {run}")
    if output is None:
        output = Path(RUNS) / "shipped-qat" if RunFolder(run).is_shipped else run.with_name(f"{run.resolve().name}-qat")
    with _host_packages("quantize"):
        from edge_ran.host.quantize import quantize as quantize_run
        from edge_ran.host.quantize import recipe
    how = recipe(
        run,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        distillation=distillation,
        flip=flip,
    )
    with _training_progress(quiet) as (on_load, on_step, on_epoch), _resumable(output):
        report = quantize_run(
            run,
            output,
            data,
            how,
            seed=seed,
            resume=resume,
            force=force,
            checkpoint_s=checkpoint_secs,
            on_load=on_load,
            on_step=on_step,
            on_epoch=on_epoch,
        )
    _print(json, dataclasses.asdict(report), report.text)


# ----------------------------------------------------------------------------------------------------- convert


@app.command()
def convert(
    run: Annotated[Path | None, typer.Argument(help="Run folder.", show_default="newest run, else shipped")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="int8 throughout (what no flag means).")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="float16 weights.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="float32 throughout.")] = False,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="int8 weights, float activations.")] = False,
    int16x8: Annotated[bool, typer.Option("--int16x8", help="int8 weights, int16 activations.")] = False,
    precision: Annotated[str | None, typer.Option(help="The same by name, as in converters/.")] = None,
    converter: Annotated[str | None, typer.Option(metavar="FILE", help="A converter of your own, a TOML file.")] = None,
    calibration_data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Pictures of what the camera sees.", show_default="shipped")
    ] = None,
    io: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="uint8, int8 or float32 input and output.", show_default="its own"),
    ] = None,
    rewrite: Annotated[bool, typer.Option(help="Rewrite the graph into the equal one that runs best.")] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file.", show_default="RUN/PRECISION.tflite")
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn a trained network into one .tflite that explains itself."""
    from edge_ran import catalogue
    from edge_ran.files import refuse_existing
    from edge_ran.runs import default_run, tflite_path

    flags = {"int8": int8, "fp16": fp16, "fp32": fp32, "dynamic": dynamic, "int16x8": int16x8}
    named = [name for name, given in flags.items() if given] + [name for name in (precision, converter) if name]
    if len(set(named)) > 1:
        raise UsageError(f"one precision at a time, not {' and '.join(named)}", "run edge-ran convert once for each")
    how = catalogue.converter(named[0] if named else "int8")
    if run is None:
        run = default_run(Path.cwd())
        if not quiet:
            _say(f"converting {run}")
    output = output or tflite_path(run, how.name, Path.cwd())
    refuse_existing(output, force)  # before TensorFlow's slow import
    with _host_packages("convert"):
        from edge_ran.host.convert import convert as convert_run
    made = convert_run(
        run, how, output, calibration=calibration_data, io=io, rewrite=rewrite, force=force, verbose=verbose
    )
    _print(json, made.record(), made.text)


# ----------------------------------------------------------------------------------------------------- compare


@app.command()
def compare(
    run: Annotated[Path, typer.Argument(help="A float run folder.")],
    data: Annotated[Path, typer.Argument(help="Class folders with pictures or clips, a CSV manifest, or an .npz.")],
    quantised: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="What quantize made of it.", show_default="RUN-qat")
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, val, test, all; auto: the first there is of test, val, all.")
    ] = "auto",
    calibration_data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For plain int8.", show_default="shipped pictures")
    ] = None,
    threads: Threads = 1,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Exit 1 when int8 (after quantize, if it was) loses more than that."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw accuracy against latency (.png, .svg, .pdf).")
    ] = None,
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Convert again, and replace the picture.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare a run's precisions: size, accuracy, agreement with fp32, latency."""
    from edge_ran import plots
    from edge_ran.dataset import load
    from edge_ran.files import refuse_existing

    if plot:
        refuse_existing(plot, force)
        plots.check_target(plot)
    with _host_packages("compare"):
        from edge_ran.host.compare import compare as compare_precisions
    found = compare_precisions(
        run,
        load(data),
        Path.cwd(),
        quantised=quantised,
        split=split,
        calibration=calibration_data,
        threads=threads,
        again=force,
        note=_note(quiet),
    )
    if plot:
        found.draw(plot)
    _print(json, found.record(), found.text)
    if max_drop is not None:
        found.check(max_drop)


# ----------------------------------------------------------------------------------------------------- evaluate


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
    options = _runtime_options(
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
    model = _tflite(model)
    with _bar("classifying", quiet) as progress:
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
    _print(json, report.to_dict(), lambda: _evaluate_text(report))
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
    lines.append(f"balanced {report.balanced:.2%}, calibration error {report.calibration_error:.3f}")
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


# -------------------------------------------------------------------------------------------------------- run


def _seconds(text: str) -> float:
    """Read ``30``, ``30s``, ``500ms``, ``5m``, ``2h`` or ``forever``, in seconds."""
    if text == "forever":
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a time", "write 30s, 500ms, 5m, 2h or forever")
    return float(match[1]) * {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


Camera = Annotated[
    str,
    typer.Option("--camera", metavar="SOURCE", help="0, /dev/video0, csi://0, rtsp://…, http://…, a video, a folder."),
]


@app.command()
def run(
    model: Annotated[
        Path | None, typer.Argument(help="A .tflite or a run folder.", show_default="newest run, else the shipped one")
    ] = None,
    camera: Camera = "0",
    width: Annotated[int, typer.Option(min=0, help="Camera mode, pixels; 0 = the camera's own.")] = 0,
    height: Annotated[int, typer.Option(min=0, help="Camera mode, pixels; 0 = the camera's own.")] = 0,
    fps: Annotated[float, typer.Option(min=0, help="Rate of the camera, or to play at; 0 = its own.")] = 0.0,
    realtime: Annotated[bool, typer.Option(help="Play files at their own pace, or as fast as possible.")] = True,
    top_k: Annotated[int, typer.Option(min=1, help="Predictions of a frame.")] = 3,
    threshold: Annotated[float, typer.Option(help='Below this score the answer is "unknown".')] = 0.0,
    smoothing: Annotated[float, typer.Option(help="Share of the past in each answer, 0 to 1; steadies it.")] = 0.0,
    max_frames: Annotated[int, typer.Option(min=0, help="Stop after so many results; 0 = go on.")] = 0,
    duration: Annotated[str, typer.Option(metavar="TIME", help="Stop after so long: 30s, 5m, 2h.")] = "forever",
    reconnect: Annotated[str, typer.Option(metavar="TIME", help="Try so long to get a lost camera back.")] = "30s",
    stall: Annotated[str, typer.Option(metavar="TIME", help="A live source silent for so long has stalled.")] = "5s",
    frozen: Annotated[
        str, typer.Option(metavar="TIME", help="The same live picture for so long is frozen; 0 = it may stand still.")
    ] = "10s",
    show: Annotated[bool, typer.Option("--show/--headless", help="Open a window; q or Esc ends.")] = False,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Record the annotated video (.mp4, .avi).")] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep frames as pictures that train reads.")
    ] = None,
    label: Annotated[str, typer.Option(help="Class of what is recorded.", show_default="the answer")] = "",
    keep: Annotated[str, typer.Option(metavar="all|changes|uncertain", help="Which frames to record.")] = "all",
    on_change: Annotated[
        str, typer.Option(metavar="COMMAND", help="Run it, without a shell, when the answer changes; {label} {score}.")
    ] = "",
    web: Annotated[
        str, typer.Option(metavar="[HOST:PORT]", help="Serve a live page, on 127.0.0.1:8080 unless told otherwise.")
    ] = "",
    summary: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the summary as JSON.")] = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="The model's classes, one a line.")] = None,
    mean: Annotated[str, typer.Option(metavar="R,G,B", help="Takes the place of the card's, 0..255.")] = "",
    std: Annotated[str, typer.Option(metavar="R,G,B", help="Takes the place of the card's, 0..255.")] = "",
    accelerator: AcceleratorName = "auto",
    cpu: Cpu = False,
    gpu: Gpu = False,
    no_fallback: NoFallback = False,
    threads: Threads = 0,
    delegate: Delegate = None,
    delegate_option: DelegateOption = None,
    gpu_precision: GpuPrecision = "fp16",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line for each frame.")] = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Classify what a camera, stream, video or folder shows, frame by frame."""
    if not verbose:
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    options = _runtime_options(
        accelerator, cpu, gpu, no_fallback, threads, delegate, delegate_option, gpu_precision, verbose
    )
    from edge_ran.camera import Limits, open_source
    from edge_ran.classifier import Classifier, read_labels
    from edge_ran.files import refuse_existing, write_text
    from edge_ran.stream import Decider, Stream, Wishes, watch

    limits = Limits(_seconds(stall), _seconds(frozen), _seconds(reconnect))
    decide = Decider(smoothing, threshold)
    wishes = Wishes(
        save=save, force=force, show=show, record=record, label=label, keep=keep, on_change=on_change, web=web,
        uncertain_below=threshold or Wishes.uncertain_below,
    )  # fmt: skip
    if summary:
        refuse_existing(summary, force)
    with (
        Classifier(
            _tflite(model),
            options,
            labels=read_labels(labels) if labels else None,
            mean=_triple("--mean", mean),
            std=_triple("--std", std),
        ) as classifier,
        _stop_on_signals() as (stop, signals),
    ):
        got = classifier.runtime.accelerator
        _announce(got, quiet)
        # A little more patience in the driver than in the watchdog, so that a hung read ends by itself as well.
        stream = Stream(
            classifier,
            lambda: open_source(camera, width, height, fps, timeout_s=limits.stall_s + 1),
            decide=decide,
            top_k=top_k,
            realtime=realtime,
            limits=limits,
            max_frames=max_frames,
            duration_s=_seconds(duration),
            notify=lambda notice: _say(notice.text),
            stop=stop,
        )
        column = max(len(text) for text in (*classifier.labels, "unknown"))

        def on_result(result: Any) -> None:
            line = jsonlib.dumps(result.to_dict(got), allow_nan=False) if json else _result_text(result, column, got)
            try:
                print(line, flush=True)
            except BrokenPipeError:  # whoever read our lines has read enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                stop.set()

        try:
            watch(stream, got, wishes, stop=stop, on_result=on_result, complain=_say)
        finally:
            report = stream.summary()
            if summary:
                write_text(summary, jsonlib.dumps(report.to_dict(), indent=1) + "\n")
            if report.captured and not quiet:
                print(_summary_text(report), file=sys.stderr)
    if signals:
        raise typer.Exit(130)


def _spell_out_web(words: list[str]) -> list[str]:
    """Give a bare ``--web`` its default address: typer has no options whose value may be left out."""
    address = re.compile(r"\d+|localhost|\[[0-9a-fA-F:.]+\](:\d+)?|[\w.-]*:\d+|\d+(\.\d+){3}")
    spelt = []
    for word, following in zip(words, [*words[1:], ""], strict=False):
        bare = word == "--web" and not address.fullmatch(following)
        spelt.append("--web=127.0.0.1:8080" if bare else word)
    return spelt


def _tflite(model: Path | None) -> Path:
    """The file to run: the one named, the newest of the run folder named, or the default, which stderr is told."""
    from edge_ran.runs import RunFolder, default_tflite

    if model is not None and model.is_dir():
        found = RunFolder(model).tflites()
        if not found:
            raise InputError(f"{model} holds no .tflite", f"edge-ran convert --int8 {model}")
        return found[0]
    if model is not None:
        return model
    chosen = default_tflite(Path.cwd())
    _say(f"using {chosen}")
    return chosen


def _announce(accelerator: Any, quiet: bool) -> None:
    """Tell on stderr what serves, where it is not plainly what was asked for; a fallback even when quiet."""
    if reason := accelerator.fallback_reason or ("" if quiet else accelerator.auto_reason):
        _say(f"running on {accelerator}: {reason}")


def _say(text: str) -> None:
    print(f"edge-ran: {text}", file=sys.stderr, flush=True)


def _triple(option: str, text: str) -> tuple[float, float, float] | None:
    if not text:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3:
        raise UsageError(f"{option} {text!r} is not one number or three", f"for instance {option} 128,128,128")
    return numbers[0], numbers[1], numbers[2]


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """Yield an event that SIGINT and SIGTERM set, and the signals that came; a second one ends the program at once."""
    stop, came = threading.Event(), list[int]()
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        came.append(number)
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handle)
    try:
        yield stop, came
    finally:
        restore()


def _result_text(result: Any, column: int, accelerator: Any) -> str:
    others = "  ".join(f"{p.label} {p.score:.0%}" for p in result.predictions if p.label != result.label)
    return (
        f"{result.frame.index:>6}  {result.label:<{column}} {result.score:>4.0%}  "
        f"{result.stages_ms['end_to_end']:7.1f} ms  {accelerator}  {others}"
    ).rstrip()


def _summary_text(report: Any) -> str:
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items())
    lines = [
        f"{report.source}: {report.captured:,} frames captured = {report.classified:,} classified + "
        f"{sum(report.dropped.values()):,} dropped" + (f" ({dropped})" if dropped else ""),
        f"{report.fps:.1f} frames/s over {report.seconds:.1f} s, capture included, on {report.accelerator}",
    ]
    if report.latency:
        times = ", ".join(f"p{p} {getattr(report.latency, f'p{p}_ms'):.1f}" for p in (50, 90, 99))
        stages = ", ".join(f"{k} {v:.2f}" for k, v in report.stages_ms.items() if k != "end_to_end")
        lines.append(f"capture to result {times} ms; medians: {stages} ms")
    lines += [f"gap: {gap.kind} for {gap.seconds:.1f} s" for gap in report.gaps]
    return "\n".join(lines)


# --------------------------------------------------------------------------------------------------- benchmark


def _percent(option: str, text: str) -> float:
    """Read ``5%`` or ``5`` as 0.05."""
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a percentage", f"for instance {option} 5%") from None


@app.command()
def benchmark(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="A .tflite or a run folder; several are measured in turns, against the first.",
            show_default="newest run, else the shipped one",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures to feed.", show_default="those that came with edge-ran"),
    ] = None,
    num_runs: Annotated[int, typer.Option(help="Runs, at least.")] = 50,
    warmup_runs: Annotated[int, typer.Option(help="Runs before, at least; goes on until steady.")] = 5,
    min_secs: Annotated[float, typer.Option(help="Seconds of runs, at least.")] = 1.0,
    max_secs: Annotated[float, typer.Option(help="Seconds of runs, at most.")] = 150.0,
    until: Annotated[str, typer.Option(metavar="PERCENT", help="Go on until the median is known to ± so much.")] = "0%",
    mlperf: Annotated[
        bool, typer.Option("--mlperf", help="MLPerf single stream: at least 1,024 runs and 60 s; look at the p90.")
    ] = False,
    accelerator: AcceleratorName = "auto",
    cpu: Cpu = False,
    gpu: Gpu = False,
    no_fallback: NoFallback = False,
    threads: Threads = 0,
    delegate: Delegate = None,
    delegate_option: DelegateOption = None,
    gpu_precision: GpuPrecision = "fp16",
    result_json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV line for each model.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the distribution of run times (.png, .svg, .pdf).")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one self-contained page with plots.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An earlier --result-json to hold it to.")
    ] = None,
    max_regression: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Exit 1 when more than that slower than --baseline.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Measure nothing; compare two --result-json, B to A."),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=A,B…", help="Every combination of threads=, precision=, accelerator=."),
    ] = None,
    accuracy_on: Annotated[
        Path | None, typer.Option(metavar="DATA", help="With --sweep: labelled images, for accuracy against latency.")
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Where the time goes: each operator alone, on one thread unless --threads."),
    ] = False,
    sustained: Annotated[
        str | None, typer.Option(metavar="TIME", help="Run for so long (10m) and tell what becomes of the speed.")
    ] = None,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure how fast a .tflite is on this device, and whether the number may be quoted."""
    options = _runtime_options(
        accelerator, cpu, gpu, no_fallback, threads, delegate, delegate_option, gpu_precision, verbose
    )
    allowed = _percent("--max-regression", max_regression) if max_regression is not None else None
    if allowed is not None and baseline is None and compare is None:
        raise UsageError("--max-regression needs something to hold it to", "add --baseline FILE")
    from edge_ran import bench, plots, report
    from edge_ran.dataset import load
    from edge_ran.evaluate import evaluate as evaluate_on
    from edge_ran.files import refuse_existing, write_text

    if compare is not None:
        found = bench.compare_files(*compare)
        _print(json, dataclasses.asdict(found), lambda: "\n".join([str(found), *(f"! {c}" for c in found.cautions)]))
        if allowed is not None:
            bench.check_regression(found, allowed)
        return
    for target in filter(None, (result_json, csv, plot, html)):
        refuse_existing(target, force)
    if plot:
        plots.check_target(plot)
    if html:
        report.check()
    before = bench.read_report(baseline) if baseline else None
    terms = [*(sweep or []), *(str(m) for m in models or [] if bench.is_term(str(m)))]
    models = [m for m in models or [] if not bench.is_term(str(m))]
    paths = [_tflite(model) for model in models] or [_tflite(None)]
    if len(paths) > 1 and (before or profile or sustained or terms):
        raise UsageError("--baseline, --profile, --sustained and --sweep are for one model", "name one")
    plan = (
        bench.Plan.mlperf()
        if mlperf
        else bench.Plan(num_runs, warmup_runs, min_secs, max_secs, _percent("--until", until))
    )
    pictures = bench.pictures_in(images) if images else None
    if profile:
        with _bar("timing operators", quiet) as progress:
            parts = bench.profile(paths[0], threads or 1, progress=progress)
        record, text = parts.to_dict(), _profile_text(parts)
        if html:
            report.write(bench.profile_page(paths[0].name, parts), html)
        if plot:
            plots.shares(parts.by(lambda o: o.place), plot, f"{paths[0].name}: where {parts.whole_ms:.3g} ms go")
    elif sustained:
        with _bar("running", quiet) as progress:
            course = bench.sustain(bench.Subject(paths[0], options), _seconds(sustained), pictures, progress)
        record, text = course.to_dict(), str(course)
        if html:
            report.write(bench.sustained_page(paths[0].name, course), html)
        if plot:
            bench.draw_sustained(course, plot, f"{paths[0].name}: {course}")
    elif terms:
        if options.accelerator == "auto":  # a sweep names its accelerators: accelerator=cpu,gpu
            options = dataclasses.replace(options, accelerator="cpu")
        grid = bench.combinations(paths[0], terms, options)
        measured = bench.benchmark([s.subject for s in grid], plan, pictures=pictures, note=_note(quiet))
        accuracy = {}
        if accuracy_on:
            labelled = load(accuracy_on)
            _note(quiet)(f"classifying {len(labelled.samples)} images with each file")
            accuracy = bench.accuracies(grid, lambda s: evaluate_on(s.path, labelled, options=s.options).top1)
        rows = bench.overview(grid, measured, accuracy)
        record, text = {**measured.to_dict(), "table": rows}, _sweep_text(rows)
        if html:
            report.write(bench.bench_page(measured, rows), html)
        if plot and accuracy:
            plots.accuracy_against_latency([(r["name"], r["median_ms"], r["top1"]) for r in rows], plot)
        elif plot:
            plots.latency_histogram({r.name: r.samples_ms for r in measured.reports}, plot)
        if csv:
            write_text(csv, bench.csv_lines(measured.reports))
    else:
        measured = bench.benchmark(
            [bench.Subject(p, options) for p in paths], plan, pictures=pictures, note=_note(quiet)
        )
        for one in measured.reports:
            _announce(one.accelerator, quiet)
        record, text = measured.to_dict(), _bench_text(measured)
        if before:
            ratio = bench.regression(record, before, measured.reports[0].name, str(baseline))
            record["regression"] = dataclasses.asdict(ratio)
            text = "\n".join([text, str(ratio), *(f"! {caution}" for caution in ratio.cautions)])
        if html:
            report.write(bench.bench_page(measured), html)
        if plot:
            plots.latency_histogram({r.name: r.samples_ms for r in measured.reports}, plot)
        if csv:
            write_text(csv, bench.csv_lines(measured.reports))
    if result_json:
        write_text(result_json, jsonlib.dumps(record, indent=1, allow_nan=False))
    _print(json, record, lambda: text)
    if before and allowed is not None:
        bench.check_regression(ratio, allowed)


def _profile_text(parts: Any) -> str:
    def table(title: str, sums: dict[str, float]) -> Iterator[str]:
        width = max(len(name) for name in (*sums, title))
        whole = sum(sums.values())
        yield f"{title:<{width}}        ms   share"
        for name, ms in sorted(sums.items(), key=lambda item: -item[1]):
            yield f"{name:<{width}}  {ms:8.4f}  {ms / whole:6.1%}"

    costly = sorted(parts.operators, key=lambda o: -o.ms)[:10]
    return "\n".join(
        [
            f"{parts.whole_ms:.4g} ms on {_many(parts.threads, 'thread')}; the operators, each alone, add up to "
            f"{parts.accounted:.0%} of it",
            "",
            *table("operator", parts.by(lambda o: o.name)),
            "",
            *table("place", parts.by(lambda o: o.place)),
            "",
            "the ten slowest",
            *(
                f"{o.ms:8.4f} ms  {o.multiply_adds / o.ms / 1e6:7.1f} GMAC/s  {o.name} {o.place} {o.shape}"
                for o in costly
            ),
            *(f"! does not run alone: {line}" for line in parts.failed),
        ]
    )


def _sweep_text(rows: list[dict[str, Any]]) -> str:
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'':<{width}}  median ms    p90 ms  ratio       MB   top-1"]
    for row in rows:
        top1 = "-" if row["top1"] is None else f"{row['top1']:.1%}"
        lines.append(
            f"{row['name']:<{width}}  {row['median_ms']:9.4g} {row['p90_ms']:9.4g} {row['ratio']:6.2f} "
            f"{row['size_mb']:8.2f} {top1:>7}"
        )
    return "\n".join(lines)


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _note(quiet: bool) -> Callable[[str], None]:
    """Return what tells people on a terminal what takes so long; a moving bar would disturb the measurement."""
    return (lambda text: None) if quiet or not sys.stderr.isatty() else _say


def _bench_text(measured: Any) -> str:
    blocks = ["\n".join(_bench_lines(report)) for report in measured.reports]
    if measured.ratios:
        blocks.append("\n".join(map(str, measured.ratios)))
    return "\n\n".join(blocks)


def _bench_lines(report: Any) -> Iterator[str]:
    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"

    stats, model, memory, speed = report.latency, report.model, report.memory, report.throughput
    yield (
        f"{report.name}: {model['precision']}, {_size(model['size_bytes']).strip()}, "
        f"{model['multiply_adds'] / 1e6:.4g} M multiply-adds"
    )
    pieces = report.delegation
    yield (
        f"on        {report.accelerator}, {report.runtime['name']} {report.runtime['version']}, "
        f"{_many(report.runtime['threads'], 'thread')}; {pieces['engine']} runs {pieces['delegated']} of "
        f"{pieces['operators']} operators in {_many(pieces['partitions'], 'piece')}"
    )
    interval = f"  (95 %: {ms(stats.p50_low_ms)} to {ms(stats.p50_high_ms)})" if stats.p50_low_ms is not None else ""
    yield f"median    {ms(stats.p50_ms)}{interval}"
    yield (
        f"spread    p5 {ms(stats.p5_ms)}, p90 {ms(stats.p90_ms)}, p95 {ms(stats.p95_ms)}, p99 {ms(stats.p99_ms)}, "
        f"mean {ms(stats.mean_ms)} ± {ms(stats.std_ms)}"
    )
    yield f"runs      {stats.runs:,} after {report.warmup['runs']} to warm up; {stats.outliers:,} outliers, all kept"
    cold = report.cold_start
    yield f"cold      load {ms(cold['load_ms'])}, first run {ms(cold['first_run_ms'])}"
    if report.stages_ms:
        whole = report.stages_ms["end_to_end"]
        parts = ", ".join(f"{name} {ms(value)}" for name, value in report.stages_ms.items() if name != "end_to_end")
        yield f"frame     {ms(whole)} ({parts}), {report.input}"
    if memory["peak_mb"] is not None:
        own = memory["peak_mb"] - memory["before_mb"]
        yield f"memory    {own:.1f} MB for the model, {memory['peak_mb']:.0f} MB in all"
    if speed["percent_of_limit"] is not None:
        yield f"speed     {speed['gmacs_per_s']:.3g} GMAC/s, {speed['percent_of_limit']:.0f} % of this machine's limit"
    machine = report.environment
    yield f"machine   {machine['board'] or machine['cpu']}, {machine['cores']} cores, {machine['os']}"
    validity = report.validity()
    yield "to quote  " + ("yes" if validity["quotable"] else f"no: {'; '.join(validity['reasons'])}")
    for note in validity["notes"]:
        yield f"note      {note}"


# ----------------------------------------------------------------------------------------------------- devices


@app.command()
def devices(
    name: Annotated[str | None, typer.Argument(help="One device, by name or by its TOML file.")] = None,
    json: Json = False,
) -> None:
    """List the devices of the catalogue: where each is and what suits it."""
    from edge_ran import catalogue

    found = [catalogue.device(name)] if name else catalogue.devices()
    record = {"schema_version": 1, "devices": [dataclasses.asdict(spec) for spec in found]}
    _print(json, record, lambda: _devices_text(found))


def _devices_text(found: list[Any]) -> str:
    rows = [
        ("NAME", "ACCELERATOR", "CONVERTER", "THREADS", "TARGET", ""),
        *((d.name, d.accelerator, d.converter, str(d.threads or "all"), d.target, d.summary) for d in found),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join([*(f"{c:<{w}}" for c, w in zip(row, widths, strict=False)), row[5]]).rstrip() for row in rows
    )


# ----------------------------------------------------------------------------------------------------- verify


@app.command()
def verify(
    model: Annotated[Path | None, typer.Argument(help="A .tflite or run folder.", show_default="the default")] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="DIR", help="Pictures to compare on; else calibration_data/.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures at most.")] = 32,
    network: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Hold the file against the network of this run instead, layer by layer."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --network: draw the layers (.png, .svg, .pdf).")
    ] = None,
    threads: Threads = 0,
    delegate: Delegate = None,
    delegate_option: DelegateOption = None,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Hold every accelerator of this device against the CPU; name the operators that one gets wrong."""
    if network is not None:
        _verify_network(network, _tflite(model), images, count, plot, json, force)
        return
    options = _runtime_options("cpu", False, False, False, threads, delegate, delegate_option, "fp16", verbose)
    from edge_ran.verify import gate
    from edge_ran.verify import verify as compare

    with _bar("searching operators", quiet) as progress:
        found = compare(_tflite(model), options, images, count, progress)
    _print(json, found.to_dict(), lambda: str(found))
    gate(found)


def _verify_network(
    run: Path, model: Path, images: Path | None, count: int, plot: Path | None, json: bool, force: bool
) -> None:
    from edge_ran import catalogue, plots
    from edge_ran.files import refuse_existing

    if plot:
        refuse_existing(plot, force)
        plots.check_target(plot)
    with _host_packages("verify --network"):
        from edge_ran.host.proof import prove, some_frames
    proof = prove(run, model, some_frames(images or catalogue.folder("calibration_data"), count))
    if plot:
        proof.draw(plot)
    _print(json, proof.record(), proof.text)
    proof.check()


# ----------------------------------------------------------------------------------------------------- doctor


@app.command()
def doctor(json: Json = False, verbose: Verbose = False) -> None:
    """Tell what this machine has and lacks: runtimes, GPUs, delegates, cameras, disk, heat; and what mends it."""
    from edge_ran.doctor import examine

    found = examine()
    _print(json, found.to_dict(), lambda: str(found))
    if not found.is_healthy:
        raise typer.Exit(EnvironmentMissing.exit_code)


# ---------------------------------------------------------------------------------------------------- inspect


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A network's name, a run folder or a .tflite file.")],
    classes: Annotated[int | None, typer.Option(help="Outputs of a network.", show_default="its own")] = None,
    input_size: InputSize = None,
    width: Width = 1.0,
    attention: Attention = "mixed",
    learning: Learning = "residual",
    mask: Mask = True,
    upsampling: Upsampling = "bilinear",
    mask_tail: MaskTail = None,
    shortcut: Shortcut = "identity",
    json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="List every operator of a .tflite.")] = False,
) -> None:
    """Tell what a network, a run or a model file is made of, and which accelerators will not take it."""
    path = Path(model)
    if path.is_dir():
        from edge_ran.runs import describe_run, open_run

        record = describe_run(open_run(path))
        _print(json, record, lambda: _run_folder_text(record))
    elif path.suffix == ".tflite" or path.exists():
        from edge_ran.graph import describe

        record = describe(path, every_operator=verbose)
        _print(json, record, lambda: _tflite_text(record))
    else:
        with _host_packages("inspect NETWORK"):
            from edge_ran.host import networks
        summary = networks.summarise(
            networks.configure(
                model,
                input_size=input_size,
                classes=classes,
                width=width,
                attention=attention,
                learning=learning,
                mask=mask,
                upsampling=upsampling,
                mask_tail=mask_tail,
                shortcut=shortcut,
            )
        )
        _print(json, dataclasses.asdict(summary), lambda: _network_text(summary))


def _network_text(network: Any) -> str:
    from rich.table import Table

    table = Table("place", "output", "parameters", "multiply-adds", "share", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for part in network.parts:
        output = "x".join(map(str, part.output))
        share = f"{part.multiply_adds / network.multiply_adds:.1%}"
        table.add_row(part.place, output, f"{part.parameters:,}", f"{part.multiply_adds:,}", share)
    table.add_row("all", "", f"{network.parameters:,}", f"{network.multiply_adds:,}", "")
    size = network.input_size
    head = f"{network.network}: {size}x{size}x3 -> {network.classes} classes, {network.layers} layers"
    return f"{head}, {network.trainable_parameters:,} parameters to train\n\n{_rendered(table)}"


def _rendered(table: Any) -> str:
    """A rich table as plain lines."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(row.rstrip() for row in captured.get().splitlines())


def _run_folder_text(record: dict[str, Any]) -> str:
    files = [record["model"], *record["tflite"]]
    lines = [f"{_size(file['size_bytes'])}  {file['file']}" for file in files]
    return "\n".join([record["run"], *_card_lines(record["card"]), "", *lines])


def _tflite_text(record: dict[str, Any]) -> str:
    from rich.table import Table

    total, multiply_adds = sum(record["operators"].values()), record["multiply_adds"]
    table = Table("operator", "count", "share", "multiply-adds", "share", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, count in record["operators"].items():
        spent = record["multiply_adds_by_operator"].get(name, 0)
        cost = (f"{spent:,}", f"{spent / multiply_adds:.1%}") if spent else ("", "")
        table.add_row(name, str(count), f"{count / total:.1%}", *cost)
    table.add_row("all", str(total), "", f"{multiply_adds:,}", "")

    left_out = record["xnnpack"]["not_delegated"]
    lines = [f"{record['file']}: {record['precision']}, {_size(record['size_bytes']).strip()}, {record['sha256'][:12]}"]
    lines += [f"  {end:<7} {_tensor_text(t)}" for end in ("inputs", "outputs") for t in record[end]]
    lines += _card_lines(record["card"]) if record["card"] else ["  it says nothing of itself: it carries no card"]
    lines += ["", "{table}", ""]
    lines.append(
        f"float operators: {record['float_operators']}; conversions between operators: "
        f"{record['quantize_between_operators']}; weights: {_size(record['parameters_bytes']).strip()}"
    )
    lines.append(f"XNNPACK on the CPU takes {total - len(left_out)} of {total} operators")
    lines += _findings_text(left_out)
    lines += ["GPU delegates:", *_findings_text(record["gpu_warnings"])] if record["gpu_warnings"] else []
    lines += [
        f"{op['index']:>4} {op['operator']}  {', '.join(map(_tensor_text, op['outputs']))}"
        for op in record.get("operator_list", [])
    ]
    return "\n".join(lines).replace("{table}", _rendered(table), 1)


def _card_lines(card: dict[str, Any]) -> list[str]:
    spec, labels, accuracy = card["input"], card["labels"], card["accuracy"]
    shown = ", ".join(labels[:10]) + (f", … ({len(labels)})" if len(labels) > 10 else "")
    mean, std = (" ".join(f"{number:g}" for number in spec[key]) for key in ("mean", "std"))
    lines = [
        f"  name    {card['name']}" + (f", {card['network']}" if card["network"] else ""),
        f"  labels  {shown or 'none'}",
        f"  takes   {spec['height']}x{spec['width']} {spec['color']}, {spec['fit']}, (pixel - {mean}) / {std}",
    ]
    if isinstance(accuracy.get("top1"), (int, float)):
        lines.append(f"  top-1   {accuracy['top1']:.2%} of {accuracy.get('images', '?')} images")
    if card["license"]:
        lines.append(f"  licence {card['license']}")
    return lines


def _tensor_text(t: dict[str, Any]) -> str:
    quantised = f", scale {t['scale']:.6g}, zero point {t['zero_point']}" if "scale" in t else ""
    return f"{t['name']} {'x'.join(map(str, t['shape']))} {t['dtype']}{quantised}{'' if t['fixed'] else ', resizable'}"


def _findings_text(found: list[dict[str, Any]]) -> list[str]:
    """One line for each kind of finding, with how many of which operators it is about."""
    kinds: dict[tuple[str, str], dict[str, int]] = {}
    for one in found:
        counts = kinds.setdefault((one["what"], one["remedy"]), {})
        if one["operator"]:
            counts[one["operator"]] = counts.get(one["operator"], 0) + 1
    return [
        f"  ! {', '.join(f'{count} {name}' for name, count in counts.items())}{': ' if counts else ''}{what}; {remedy}"
        for (what, remedy), counts in kinds.items()
    ]


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:8.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:8.1f} kB"


# ------------------------------------------------------------------------------------------------------- demo


@app.command()
def demo(
    run: Annotated[Path | None, typer.Argument(help="A run folder.", show_default="the network that ships")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("edge-ran-demo"),
    data: Annotated[Path | None, typer.Option(help="Labelled pictures of the network's classes, for top-1.")] = None,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Do it all once: convert, compare, classify a clip, benchmark; leave one HTML page."""
    with _host_packages("demo"):
        from edge_ran.host.demo import demo as show

    def note(text: str) -> None:
        if not quiet:
            _say(text)

    report = show(output, run=run, data=data, force=force, note=note)
    _print(json, dataclasses.asdict(report), lambda: _demo_text(report))


def _demo_text(report: Any) -> str:
    lines = [
        f"{'file':<12}{'size':>9}{'median':>11}{'answers as fp32':>18}" + ("   top-1" if report.top1_images else "")
    ]
    for file in report.files:
        size, top1 = file.size_bytes / 1e6, "" if file.top1 is None else f"{file.top1:8.1%}"
        name = Path(file.path).name
        lines.append(f"{name:<12}{size:6.2f} MB{file.median_ms:8.2f} ms{file.agreement:18.1%}{top1}")
    lines.append(f"clip: {report.clip_frames} frames at {report.clip_fps:.0f} frames/s")
    if not all(file.quotable for file in report.files):
        lines.append("the times are not to be quoted: the page tells why")
    lines.append(f"page: {report.report}  ({report.seconds:.0f} s)")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
