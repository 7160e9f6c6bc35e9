"""`edge-ran run`."""

from __future__ import annotations

import json as jsonlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ran.cli.app import announce, parse_seconds, say, suited, talk
from edge_ran.cli.command import given
from edge_ran.cli.models import tflite_or_default
from edge_ran.cli.options import AcceleratorOptions, DeviceOptions, MetadataOptions, verb
from edge_ran.cli.render import discard_stdout
from edge_ran.cli.render import run as render
from edge_ran.cli.run_options import AnswerOptions, CameraOptions, LineOutputOptions, ResultOptions
from edge_ran.cli.signals import exit_code, stop_on_signals
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.classifier import Classifier
    from edge_ran.runtime import RuntimeOptions
    from edge_ran.stream import Result, Stream
    from edge_ran.targets import Order


@verb
def run(
    context: typer.Context,
    model: Annotated[
        Path | None, typer.Argument(help="A .tflite or a run folder.", show_default="newest run, else shipped")
    ] = None,
    *,
    camera: CameraOptions,
    answers: AnswerOptions,
    results: ResultOptions,
    metadata: MetadataOptions,
    device: DeviceOptions,
    accelerator: AcceleratorOptions,
    output: LineOutputOptions,
) -> None:
    """Classify the frames of a camera, stream, video or folder."""
    from edge_ran import targets

    spec = targets.resolve(device.device)
    typed = given(context, "model", "device", "install", "json", "force")
    own = suited(spec, typed)
    source = camera.camera
    if "camera" not in typed:
        own["camera"] = source = spec.camera
    options = accelerator.suited(own).runtime(output.verbose)
    if spec.target != "local":
        if output.json:
            typed["json"] = True
        order = _order(typed, own, tflite_or_default(model), options, output.force)
        # Not quiet here: the device is told to be, and a fallback is to be seen all the same.
        with targets.open_target(spec, talk(False), device.install) as target:
            target.follow(order, _print_or_end)
        return
    _run_here(model, source, options, camera, answers, results, metadata, output)


def _run_here(
    model: Path | None,
    source: str,
    options: RuntimeOptions,
    camera: CameraOptions,
    answers: AnswerOptions,
    results: ResultOptions,
    metadata: MetadataOptions,
    output: LineOutputOptions,
) -> None:
    from edge_ran.classifier import Classifier, mask_cost
    from edge_ran.errors import CameraError
    from edge_ran.files import check_output, check_output_folder
    from edge_ran.stream import open_stream, run_stream

    limits, decide, duration_s = camera.limits(), answers.decider(), parse_seconds(answers.duration)
    wishes = results.stream_options(answers.threshold, output.force)
    for target in filter(None, (results.summary, results.save)):
        check_output(target, output.force)
    if results.record:
        check_output_folder(results.record)
    attention = bool(results.attention)
    overrides = metadata.overrides()
    with (
        Classifier(tflite_or_default(model), options, overrides, attention=attention) as classifier,
        stop_on_signals() as (stop, signals),
    ):
        announce(classifier.runtime.accelerator, output.quiet)
        for note in classifier.notes:
            say(note)
        if attention:
            check_mask(results.attention, classifier.modules)
        try:
            stream = open_stream(
                classifier,
                source,
                width=camera.width,
                height=camera.height,
                fps=camera.fps,
                decide=decide,
                top_k=answers.top_k,
                realtime=camera.realtime,
                limits=limits,
                max_frames=answers.max_frames,
                duration_s=duration_s,
                notify=lambda notice: say(notice.text),
                stop=stop,
                masks=mask_cost(classifier) if attention else None,
            )
        except CameraError:
            if signals:  # nothing has begun that could be finished
                raise typer.Exit(exit_code(signals)) from None
            raise
        try:
            run_stream(
                stream,
                classifier.runtime.accelerator,
                wishes,
                stop=stop,
                on_result=_printer(classifier, output.json, stop),
                complain=say,
            )
        finally:
            _summarise(stream, results.summary, output.quiet)
    if signals:
        raise typer.Exit(exit_code(signals))


def _summarise(stream: Stream, target: Path | None, quiet: bool) -> None:
    from edge_ran import records
    from edge_ran.files import write_text

    report = stream.summary()
    if target:
        write_text(target, jsonlib.dumps(records.document(report), indent=1, allow_nan=False) + "\n")
    if report.captured and not quiet:
        print(render.summary(report), file=sys.stderr)


def _printer(classifier: Classifier, json: bool, stop: threading.Event) -> Callable[[Result], None]:
    """Return what prints a result at once, and sets ``stop`` when nobody reads any more."""
    from edge_ran import records

    got = classifier.runtime.accelerator
    column = max(len(text) for text in (*classifier.labels, "unknown"))

    def on_result(result: Result) -> None:
        if not _print(
            jsonlib.dumps(records.document(result.record(got)), allow_nan=False)
            if json
            else render.line(result, got, column)
        ):
            stop.set()

    return on_result


def _print(line: str) -> bool:
    """Print a line; return False when the reader has closed the pipe."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        discard_stdout()
        return False
    return True


def _print_or_end(line: str) -> None:
    if not _print(line):
        raise typer.Exit


def _order(typed: dict[str, Any], own: dict[str, Any], model: Path, options: RuntimeOptions, force: bool) -> Order:
    """What another device is asked to do: files of this machine go along, and what it writes comes back at the end.

    Only what was typed names files of this machine. What the device's description says, ``own``, is of the device: a
    description is a file that others write, and must not be able to fetch anything from here.
    """
    from edge_ran.files import check_output, check_output_folder
    from edge_ran.stream.web import is_loopback, parse_address
    from edge_ran.targets import Order, Page
    from edge_ran.targets import Result as Returned

    if typed.get("show"):
        raise UsageError("--show opens its window on this machine only", "use --web, or --save FILE")
    typed.pop("show", None)
    for name in ("save", "record", "summary"):
        if name in typed:
            if name == "record":
                check_output_folder(Path(typed[name]))
            else:
                check_output(Path(typed[name]), force)
            typed[name] = Returned(Path(typed[name]))
    if "web" in typed:
        page = Page(*parse_address(typed["web"]))
        if not is_loopback(page.host) or not page.port:
            raise UsageError(f"--web {typed['web']}: with --device the page is for this machine only", "--web 8080")
        typed["web"] = page
    if "labels" in typed:
        typed["labels"] = Path(typed["labels"])
    if "camera" in typed and (Path(typed["camera"]).is_file() or Path(typed["camera"]).is_dir()):
        typed["camera"] = Path(typed["camera"])  # of this machine; any other is the device's
    return Order("run", (model,), {**typed, **own}, options)


def check_mask(which: str, modules: tuple[str, ...]) -> None:
    """Raise UsageError unless ``which`` is ``mean`` or the number of one of the masks."""
    if which != "mean" and which not in map(str, range(1, len(modules) + 1)):
        named = ", ".join(f"{number} {module}" for number, module in enumerate(modules, 1))
        raise UsageError(f"--attention {which!r} is none of the network's masks", f"--attention mean, or {named}")
