"""The application, the options that several verbs share, and how results and errors are printed."""

from __future__ import annotations

import contextlib
import json as jsonlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from edge_ran.cli.render import discard_stdout
from edge_ran.errors import RELAY, EnvironmentMissing, InputError, UsageError
from edge_ran.printable import one_line, unguarded

if TYPE_CHECKING:
    from edge_ran.catalogue import DeviceSpec
    from edge_ran.host.checkpoint import EpochRecord
    from edge_ran.host.training_loop import Callbacks
    from edge_ran.host.training_loop import Progress as TrainingProgress
    from edge_ran.runtime import RuntimeOptions


class _Application(TyperGroup):
    """A reader of stdout that has read enough (`--help | head -1`) is no failure; typer would exit with 1."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _reader_may_leave():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _reader_may_leave():
            return super().invoke(ctx)


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        discard_stdout()
        raise typer.Exit from None


app = typer.Typer(
    name="edge-ran",
    cls=_Application,
    help="Train, quantise, convert, run and benchmark residual attention networks on small devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: `command.VerbCommand` has a line for each option
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an output that exists.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show runtime chatter, and tracebacks of errors.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
# What every verb that runs a model takes; runtime_options makes one RuntimeOptions of them.
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
# Where it runs.
Device = Annotated[
    str, typer.Option("--device", "-d", metavar="DEVICE", help="ssh://user@host[:port], adb:SERIAL, a name, a .toml.")
]
Install = Annotated[
    bool, typer.Option("--install", help="Let pip install there, into a folder of its own, what the device lacks.")
]
# The options of a network, for `train` and `inspect`.
InputSize = Annotated[int | None, typer.Option(help="Side of the square input in pixels.", show_default="its own")]
Width = Annotated[float, typer.Option(help="Factor on every number of channels.")]
Attention = Annotated[str, typer.Option(help="mixed, channel or spatial.")]
Learning = Annotated[str, typer.Option(help="residual (1+M)T or naive MT.")]
Mask = Annotated[bool, typer.Option(help="Soft mask branches, or the trunk alone.")]
Upsampling = Annotated[str, typer.Option(help="bilinear or nearest.")]
MaskTail = Annotated[str | None, typer.Option(help="paper or linear.", show_default="its own")]
Shortcut = Annotated[str, typer.Option(help="identity or projection.")]


def complain(what: str, remedy: str) -> None:
    if os.environ.get(RELAY):
        print(f"{RELAY}:{jsonlib.dumps({'what': what, 'remedy': remedy})}", file=sys.stderr)
        return
    print(f"edge-ran: {one_line(what)}", file=sys.stderr)
    if remedy:
        print(f"  {one_line(remedy)}", file=sys.stderr)


def runtime_options(
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


def suited(spec: DeviceSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the device's description says of accelerator and threads, where the options leave it open."""
    from edge_ran.targets import measurements

    return measurements.suited(spec, options)


def believing(spec: DeviceSpec) -> contextlib.AbstractContextManager[None]:
    """While a device's answer is read: what cannot be one is the device's fault, not the user's."""
    from edge_ran.targets import measurements

    return measurements.believing(spec)


def emit(json: bool, record: dict[str, Any], text: Callable[[], str]) -> None:
    """Print the record as JSON or the text for people."""
    typer.echo(jsonlib.dumps(record, indent=1, allow_nan=False) if json else text())


@contextlib.contextmanager
def host_packages(verb: str, quiet: bool = True) -> Iterator[None]:
    """Turn a missing TensorFlow into one line, for the verbs that need it.

    Args:
        verb: what needs it.
        quiet: do not tell that TensorFlow, which takes seconds, is being loaded.
    """
    if not quiet:
        say("loading TensorFlow")
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("tensorflow", "tf_keras", "tensorflow_model_optimization"):
            raise
        raise EnvironmentMissing(f"{verb} needs {error.name}", "pip install 'edge-ran[host]'") from error


@contextlib.contextmanager
def training_progress(quiet: bool) -> Iterator[Callbacks]:
    """Yield the callbacks of a training: a bar on a terminal, a line for each epoch elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from edge_ran.host.training_loop import Callbacks

    console = Console(file=unguarded(sys.stderr), quiet=quiet)
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=not console.is_terminal) as bar:
        loading = bar.add_task("reading pictures", note="", visible=False)
        training = bar.add_task("training", note="", visible=False)

        def on_load(done: int, total: int) -> None:
            bar.update(loading, completed=done, total=total, visible=done < total)

        def on_stage(text: str) -> None:
            console.print(f"edge-ran: {text}", highlight=False, markup=False, soft_wrap=True)

        def on_step(p: TrainingProgress) -> None:
            note = f"epoch {p.epoch + 1}/{p.epochs}  loss {p.loss:.3f}  {p.images_per_s:.0f} images/s"
            bar.update(training, completed=p.step, total=p.steps, note=note, visible=True)

        def on_epoch(history: Sequence[EpochRecord]) -> None:
            last = history[-1]
            text = f"epoch {last.epoch}: loss {last.loss:.4f} top-1 {last.top1:.2%}"
            if last.validation_top1 is not None:
                text += f", validation loss {last.validation_loss:.4f} top-1 {last.validation_top1:.2%}"
            console.print(f"{text}, {last.images_per_s:.0f} images/s", highlight=False, soft_wrap=True)

        yield Callbacks(on_load, on_stage, on_step, on_epoch)


LabelColumn = Annotated[str, typer.Option(help="The manifest's column of labels.")]
GroupColumn = Annotated[str, typer.Option(help="The manifest's column of what must stay together: clip, place.")]
ClassNames = Annotated[str, typer.Option("--classes", metavar="A,B,…", help="Use these classes only.")]
ClipStep = Annotated[float, typer.Option(help="Seconds between the frames taken from a clip.")]


@contextlib.contextmanager
def progress_bar(title: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a callback (done, total) that draws a bar on a terminal; None where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=unguarded(sys.stderr)), transient=True) as bar:
        task = bar.add_task(title)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def parse_seconds(text: str) -> float:
    """Read ``30``, ``30s``, ``500ms``, ``5m``, ``2h`` or ``forever``, in seconds."""
    if text == "forever":
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a time", "write 30s, 500ms, 5m, 2h or forever")
    return float(match[1]) * {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


# Options of `run` whose value may be left out: what it then is, and what a value looks like.
_BARE = {
    "--web": ("127.0.0.1:8080", r"\d+|localhost|\[[0-9a-fA-F:.]+\](:\d+)?|[\w.-]*:\d+|\d+(\.\d+){3}"),
    "--attention": ("mean", r"mean|\d+"),
}


def spell_out(words: list[str]) -> list[str]:
    """Give a bare ``--web`` or ``--attention`` of `run` its default: typer knows no values that may be left out."""
    if words[:1] not in (["run"], ["deploy"]):
        return words
    spelt = []
    for word, following in zip(words, [*words[1:], ""], strict=False):
        default, value = _BARE.get(word, ("", ""))
        spelt.append(f"{word}={default}" if default and not re.fullmatch(value, following) else word)
    return spelt


def tflite_or_default(model: Path | None) -> Path:
    """The file to run: the one named, the newest of the run folder named, or the default, which stderr is told."""
    from edge_ran.runs import RunFolder, default_tflite, is_network_file

    if model is not None and is_network_file(model):  # of another script
        from edge_ran.cli.import_ import tflite_of

        return tflite_of(model)
    if model is not None and model.is_dir():
        found = RunFolder(model).tflites()
        if not found:
            raise InputError(f"{model} holds no .tflite", f"edge-ran convert --int8 {model}")
        return found[0]
    if model is not None:
        return model
    chosen = default_tflite(Path.cwd())
    say(f"using {chosen}")
    return chosen


def announce(accelerator: Any, quiet: bool) -> None:
    """Tell on stderr what serves, where it is not plainly what was asked for; bad news even when quiet."""
    if accelerator.fallback_reason:
        say(f"running on {accelerator}")
    elif reason := accelerator.warning or ("" if quiet else accelerator.auto_reason):
        say(f"running on {accelerator}: {reason}")


def say(text: str) -> None:
    print(f"edge-ran: {one_line(text)}", file=sys.stderr, flush=True)


def talk(quiet: bool) -> Callable[[str], None]:
    """Return what prints a device's own words on stderr, as they come."""
    return lambda text: None if quiet else print(one_line(text), file=sys.stderr, flush=True)


def progress_note(quiet: bool) -> Callable[[str], None]:
    """Return what tells people on a terminal what takes so long; a moving bar would disturb the measurement."""
    watched = sys.stderr.isatty() or os.environ.get(RELAY)
    return say if watched and not quiet else (lambda text: None)


def human_size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:8.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:8.1f} kB"
