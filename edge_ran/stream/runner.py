"""A run from the first frame to the last, with everything that was wished for finished properly at the end."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_ran.attention import MEAN
from edge_ran.camera import Notice
from edge_ran.errors import RELAY
from edge_ran.printable import many
from edge_ran.runtime import Accelerator
from edge_ran.stream.outputs import Drawing, Examples, OnChange, Output, Window
from edge_ran.stream.overlay import Overlay
from edge_ran.stream.pipeline import Result
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
    def close(self) -> None: ...


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
            stack.callback(lambda: complain(f"{many(examples.kept, 'picture')} kept in {wishes.record}"))
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
        stack.callback(stream.close)  # first of all at the end: finishing the outputs is no part of the run's time
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
        complain(f"{many(recording.frames, 'frame')} recorded in {recording.path}")


def _finish(drawing: Drawing, complain: Callable[[str], None]) -> None:
    drawing.close()
    if drawing.skipped:
        complain(f"not drawn: {many(drawing.skipped, 'result')}: this machine could not draw that fast")
