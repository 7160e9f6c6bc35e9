"""A run from the first frame to the last, with everything that was wished for finished properly at the end."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_ran.attention import MEAN
from edge_ran.camera import Limits, Notice, open_source
from edge_ran.classifier import Classifier, MaskCost
from edge_ran.errors import RELAY
from edge_ran.runtime import Accelerator
from edge_ran.stream.decide import Decider
from edge_ran.stream.outputs import Drawing, Examples, OnChange, Output, Window
from edge_ran.stream.overlay import Overlay
from edge_ran.stream.pipeline import Result, Stream
from edge_ran.stream.recording import Recording
from edge_ran.stream.web import WebPage


@dataclass(frozen=True)
class StreamOptions:
    """Where results go besides the caller; everything is off unless set.

    ``save`` a video to write (``force`` replaces one); ``show`` a window; ``record`` a folder for example pictures, of
    class ``label``, keeping ``keep`` of them (see ``Examples``); ``on_change`` a command; ``uncertain_below`` the score
    under which an example is uncertain; ``web`` an address to serve the live page on; ``mask`` which soft mask to draw,
    for ``attention.chosen``, where the stream's classifier gives them.
    """

    save: Path | None = None
    force: bool = False
    show: bool = False
    record: Path | None = None
    label: str = ""
    keep: str = "all"
    uncertain_below: float = 0.6
    on_change: str = ""
    web: str = ""
    mask: str = MEAN


class AnyStream(Protocol):
    """What ``run_stream`` needs of a stream: ``Stream`` is one, the frames of a phone's camera another."""

    name: str
    live: bool
    source_fps: float
    listeners: list[Callable[[Notice], None]]

    def __enter__(self) -> AnyStream: ...
    def __exit__(self, *exc: object) -> None: ...
    def __iter__(self) -> Iterator[Result]: ...
    def took(self, stage: str, milliseconds: float) -> None: ...
    def when_idle(self, call: Callable[[], None]) -> None: ...


def open_stream(
    classifier: Classifier,
    source: str,
    *,
    width: int = 0,
    height: int = 0,
    fps: float = 0.0,
    decide: Decider | None = None,
    top_k: int = 3,
    realtime: bool = True,
    limits: Limits | None = None,
    max_frames: int = 0,
    duration_s: float = math.inf,
    notify: Callable[[Notice], None] = lambda notice: None,
    stop: threading.Event | None = None,
    masks: MaskCost | None = None,
) -> Stream:
    """Open a source for a classifier.

    Args:
        classifier: what classifies; stays the caller's to close.
        source: as ``camera.open_source`` takes it: ``0``, ``/dev/video0``, a URL, a video, a folder of pictures.
        width: of a camera's frames in pixels; 0 = the camera's own.
        height: likewise.
        fps: frame rate of a camera, or to play a file at; 0 = its own.
        decide: smoothing and the threshold of "unknown"; None = each frame for itself.
        top_k: predictions of a result.
        realtime: play files at their own rate.
        limits: when a live source counts as faulty, and for how long to try again.
        max_frames: end after this many results; 0 = no limit.
        duration_s: end after this many seconds.
        notify: told of faults, from any thread; must return at once.
        stop: set it to end the run.
        masks: what the soft masks cost, for the summary.

    Raises:
        CameraError, InputError, UsageError: the source cannot be opened, or a number is out of range.
    """
    limits = limits or Limits()
    # A little more patience in the driver than in the watchdog, so that a read that hangs ends by itself as well.
    patience_s = limits.stall_s + 1
    return Stream(
        classifier,
        lambda: open_source(source, width, height, fps, timeout_s=patience_s),
        decide=decide,
        top_k=top_k,
        realtime=realtime,
        limits=limits,
        max_frames=max_frames,
        duration_s=duration_s,
        notify=notify,
        stop=stop,
        masks=masks,
    )


def run_stream(
    stream: AnyStream,
    accelerator: Accelerator,
    wishes: StreamOptions,
    *,
    stop: threading.Event,
    on_result: Callable[[Result], None],
    complain: Callable[[str], None],
) -> None:
    """Run a stream to its end and hand every result on.

    However it ends, recordings are finished and the stream is closed; then its summary is complete.

    Args:
        stream: opened.
        accelerator: what the overlay says.
        wishes: where else results go.
        stop: the stream's; set when the user closes the window.
        on_result: called with each result, at once.
        complain: called with one line when there is something to say beside the results.

    Raises:
        CameraError: a live source is lost for good. InputError: nothing can be read. OutputExists, UsageError,
        EnvironmentMissing: a wish cannot be met.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(stream)
        outputs: list[Output] = []
        overlay = Overlay(accelerator, wishes.mask, stream.took, complain)
        window = Window(f"edge-ran {stream.name}", {"a": overlay.toggle}) if wishes.show else None
        if window:
            outputs.append(window)
            stack.callback(window.destroy)
            stream.when_idle(lambda: _look(window, stop))  # a camera that is gone must not freeze its window
        if wishes.save:
            recording = Recording(wishes.save, stream.source_fps, stream.live, wishes.force)
            outputs.append(recording)
            stack.callback(_tell_recorded, recording, complain)
            for path in recording.recovered:
                complain(f"{path} is what a run recorded that was killed")
        if wishes.record:
            examples = Examples(wishes.record, wishes.label, wishes.keep, wishes.uncertain_below)
            outputs.append(examples)
            stack.callback(lambda: complain(f"{examples.kept:,} pictures kept in {wishes.record}"))
        if wishes.web:
            page = WebPage(wishes.web, accelerator, stream.name)
            outputs.append(page)
            stream.listeners.append(page.notice)
            complain(f"watch at {page.url}")
            if page.elsewhere and not os.environ.get(RELAY):  # where another edge-ran asked for it, it leads there
                complain(page.elsewhere)
        change = OnChange(wishes.on_change, complain) if wishes.on_change else None
        if change:
            stack.callback(change.close)
        drawing = Drawing(outputs, overlay, stream.live, complain) if outputs else None
        if drawing:
            stack.callback(_finish, drawing, complain)
        for result in stream:
            on_result(result)
            if change:
                change.put(result)
            if drawing:
                drawing.put(result)
            if window:
                _look(window, stop)


def _look(window: Window, stop: threading.Event) -> None:
    if not window.show():
        stop.set()


def _tell_recorded(recording: Recording, complain: Callable[[str], None]) -> None:
    if recording.frames and recording.path.exists():
        complain(f"{recording.frames:,} frames recorded in {recording.path}")


def _finish(drawing: Drawing, complain: Callable[[str], None]) -> None:
    drawing.close()
    if drawing.skipped:
        complain(f"{drawing.skipped} results were not drawn: this machine could not draw that fast")
