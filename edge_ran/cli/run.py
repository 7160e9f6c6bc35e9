"""`edge-ran run`."""

from __future__ import annotations

import contextlib
import json as jsonlib
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edge_ran.cli.app import announce, parse_seconds, say, suited, talk
from edge_ran.cli.command import given
from edge_ran.cli.model_options import MetadataOptions
from edge_ran.cli.models import Model, tflite_or_default
from edge_ran.cli.option_groups import verb
from edge_ran.cli.options import AcceleratorOptions, PageDeviceOptions
from edge_ran.cli.render import run as render
from edge_ran.cli.run_elsewhere import follow, order_of, print_line, refuse_for_phones
from edge_ran.cli.run_options import AnswerOptions, CameraOptions, LineOutputOptions, ResultOptions
from edge_ran.cli.signals import exit_code, stop_on_signals

if TYPE_CHECKING:
    from edge_ran.catalogue import DeviceSpec
    from edge_ran.phone.camera_stream import PhoneStream
    from edge_ran.runtime import RuntimeOptions
    from edge_ran.stream import Result, Stream


@verb
def run(
    context: typer.Context,
    model: Model = None,
    *,
    camera: CameraOptions,
    answers: AnswerOptions,
    results: ResultOptions,
    metadata: MetadataOptions,
    device: PageDeviceOptions,
    accelerator: AcceleratorOptions,
    output: LineOutputOptions,
) -> None:
    """Classify the frames of a camera, stream, video or folder."""
    from edge_ran import targets
    from edge_ran.targets.address import is_browser

    spec = targets.resolve(device.device)
    typed = given(context, "model", "device", "install", "json", "force")
    defaults = suited(spec, typed)
    own, source = defaults.options(), camera.camera
    if "camera" not in typed:
        own["camera"] = source = spec.camera
    options = defaults.runtime(accelerator.runtime(output.verbose))
    if is_browser(spec.target):
        refuse_for_phones(typed, device.install)
    elif spec.target != "local":
        if output.json:
            typed["json"] = True
        order = order_of(typed, own, model, options, output.force)
        # Not quiet here: the device is told to be, and a fallback is to be seen all the same.
        with targets.open_target(spec, talk(False), device.install) as target:
            follow(target, order)
        return
    _run_here(model, spec, source, options, camera, answers, results, metadata, output)


def _run_here(
    model: Path | None,
    spec: DeviceSpec,
    source: str,
    options: RuntimeOptions,
    camera: CameraOptions,
    answers: AnswerOptions,
    results: ResultOptions,
    metadata: MetadataOptions,
    output: LineOutputOptions,
) -> None:
    from edge_ran import dynamic_range
    from edge_ran.attention import check
    from edge_ran.classifier import Classifier, mask_cost
    from edge_ran.errors import CameraError
    from edge_ran.runtime import RuntimeOptions
    from edge_ran.stream import Stream, run_stream
    from edge_ran.targets.address import is_browser

    words, wishes = _words(camera, answers), results.stream_options(answers.threshold, output.force)
    _check_files(results, output.force, source)
    attention = bool(results.attention)
    on_phone = is_browser(spec.target)
    here = RuntimeOptions(accelerator="cpu") if on_phone else options
    with (
        Classifier(tflite_or_default(model), here, metadata.overrides(), attention=attention) as classifier,
        stop_on_signals() as (stop, signals),
        contextlib.ExitStack() as stack,
    ):
        words["stop"] = stop
        if not on_phone:
            announce(classifier.runtime.accelerator, output.quiet)
        for note in filter(None, (*classifier.notes, dynamic_range.note([Path(source)]))):
            say(note)
        if attention:
            check(results.attention, classifier.modules)
        try:
            if on_phone:
                from edge_ran.targets.browser import BrowserTarget

                phone = stack.enter_context(BrowserTarget(spec, talk(False)))
                pictures = bool(wishes.save or wishes.record or wishes.web or wishes.show)
                stream: Stream | PhoneStream = phone.stream(
                    classifier, options, pictures=pictures, camera=source, **words
                )
            else:
                masks = mask_cost(classifier) if attention else None
                stream = Stream(classifier, source, **camera.mode(), masks=masks, **words)
        except CameraError:
            if signals:  # nothing has begun that could be finished
                raise typer.Exit(exit_code(signals)) from None
            raise
        if on_phone:
            announce(stream.accelerator, output.quiet)
        try:
            printer = _printer(classifier.labels, stream, output.json, stop)
            run_stream(stream, stream.accelerator, wishes, stop=stop, on_result=printer, complain=say)
        finally:
            _summarise(stream, results.summary, output.quiet)
    if signals:
        raise typer.Exit(exit_code(signals))


def _check_files(results: ResultOptions, force: bool, source: str) -> None:
    """Raise before the work where a file could not be written after it."""
    from edge_ran.files import check_output, check_output_folder
    from edge_ran.stream.recording import SUFFIXES

    for target, suffixes in ((results.summary, ()), (results.save, SUFFIXES)):
        if target:
            check_output(target, force, suffixes, source)
    if results.record:
        check_output_folder(results.record)


def _words(camera: CameraOptions, answers: AnswerOptions) -> dict[str, Any]:
    """What every kind of stream takes."""
    return {
        "limits": camera.limits(),
        "decide": answers.decider(),
        "top_k": answers.top_k,
        "max_frames": answers.max_frames,
        "duration_s": parse_seconds(answers.duration),
        "notify": lambda notice: say(notice.text),
    }


def _summarise(stream: Stream | PhoneStream, target: Path | None, quiet: bool) -> None:
    from edge_ran import records
    from edge_ran.files import write_text

    report = stream.summary()
    if target:
        write_text(target, jsonlib.dumps(records.document(report), indent=1, allow_nan=False) + "\n")
    if report.captured and not quiet:
        print(render.summary(report), file=sys.stderr)


def _printer(
    labels: Sequence[str], stream: Stream | PhoneStream, json: bool, stop: threading.Event
) -> Callable[[Result], None]:
    """Return what prints a result at once, and sets ``stop`` when nobody reads any more."""
    from edge_ran import records

    column = max(len(text) for text in (*labels, "unknown"))

    def on_result(result: Result) -> None:
        got = stream.accelerator
        if not print_line(
            jsonlib.dumps(records.document(result.record(got)), allow_nan=False)
            if json
            else render.line(result, got, column)
        ):
            stop.set()

    return on_result
