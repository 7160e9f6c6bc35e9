"""Where results go besides the terminal: a recording, a window, example pictures, a command, a web page.

Drawing and encoding have a thread of their own, beside capture and inference. A live source never waits for them: what
they cannot keep up with is left out and counted. A file waits: its recording has every frame.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import files
from edge_ran.errors import EdgeRanError, EnvironmentMissing, UsageError
from edge_ran.printable import clean
from edge_ran.python_command import pip
from edge_ran.stream.overlay import Overlay
from edge_ran.stream.pipeline import Result

# Programs that run a word of theirs as a program.
_INTERPRETERS = re.compile(r"(ba|da|z|k|a|fi|c|tc)?sh|python[\d.]*|perl|ruby|node")
_ROOM = 4  # results that wait for the drawing thread
LONG_S = 60.0  # of a command on a change; then it is said that no other is started meanwhile


Picture = Callable[[], NDArray[np.uint8]]


class Output(Protocol):
    """Takes each result; called from one thread."""

    def put(self, result: Result, picture: Picture) -> None:
        """Take a result; ``picture()`` draws it, (H, W, 3) uint8 BGR, once for all who ask."""

    def close(self) -> None:
        """Finish."""


class Drawing:
    """Hands results to the outputs in a thread of its own, drawn where they want pictures.

    An output that this machine cannot go on with, a recording on a full disk for instance, ends alone.

    Attributes:
        skipped: results of a live source that were not drawn because drawing or encoding fell behind.
    """

    def __init__(self, outputs: list[Output], overlay: Overlay, live: bool, complain: Callable[[str], None]) -> None:
        self._outputs, self._overlay, self._live, self._complain = list(outputs), overlay, live, complain
        self._queue: queue.Queue[Result | None] = queue.Queue(_ROOM)
        self.skipped = 0
        self._error: EdgeRanError | None = None  # ends the run
        self._lost: EdgeRanError | None = None  # ended an output; told again at the end of the run
        self._thread = threading.Thread(target=self._work, name="edge-ran drawing", daemon=True)
        self._thread.start()

    def put(self, result: Result) -> None:
        """Hand on a result. Raises what an output raised, but for what ends that output only."""
        if self._error:
            raise self._error
        try:
            self._queue.put(result, block=not self._live)
        except queue.Full:
            self.skipped += 1

    def close(self) -> None:
        """Draw what waits, then finish every output. Raises what an output raised."""
        self._queue.put(None)
        self._thread.join()
        if error := self._error or self._lost:
            raise error

    def _work(self) -> None:
        while result := self._queue.get():
            if self._error:
                continue  # empty the queue: put must not block for ever
            try:
                self._draw(result)
            except EdgeRanError as error:
                self._error = error
            except Exception as error:  # this thread must go on: put of a file waits for it
                what = f"drawing frame {result.frame.index} failed: {error!r}"
                self._error = EdgeRanError(what, "please report this")
        for output in self._outputs:
            try:
                output.close()
            except EdgeRanError as error:
                self._error = self._error or error

    def _draw(self, result: Result) -> None:
        picture = _Drawn(result, self._overlay)
        for output in tuple(self._outputs):
            try:
                output.put(result, picture)
            except EnvironmentMissing as error:
                self._outputs.remove(output)
                self._lost = self._lost or error
                self._complain(f"{error}; the run goes on without it")
                with contextlib.suppress(EdgeRanError):  # the first reason is the one that counts
                    output.close()


class _Drawn:
    """Draws when somebody looks, once."""

    def __init__(self, result: Result, overlay: Overlay) -> None:
        self._result, self._overlay = result, overlay
        self._picture: NDArray[np.uint8] | None = None
        self._lock = threading.Lock()

    def __call__(self) -> NDArray[np.uint8]:
        with self._lock:
            if self._picture is None:
                self._picture = self._overlay(self._result)
            return self._picture


class Window:
    """A window on this machine's screen. Made and shown from the main thread, as screens want it."""

    _picture: Picture | None = None

    def __init__(self, title: str, keys: Mapping[str, Callable[[], None]] | None = None) -> None:
        """Open it; ``keys`` are called when their key is pressed.

        Raises:
            EnvironmentMissing: OpenCV's headless build, or no screen.
        """
        backend = cv2.currentUIFramework() if hasattr(cv2, "currentUIFramework") else "?"
        if not backend:
            raise EnvironmentMissing(
                "--show needs an OpenCV with windows; the installed one is headless", pip("install opencv-python")
            )
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise EnvironmentMissing("--show needs a screen, and there is none here", "use --save, --web or --headless")
        self._title, self._keys = title, keys or {}

    def put(self, result: Result, picture: Picture) -> None:
        """Take the newest picture; called from the drawing thread."""
        picture()  # drawn there, not while the window is shown
        self._picture = picture

    def show(self) -> bool:
        """Show the newest picture. False: the user pressed q or Esc, or closed the window."""
        if self._picture is None:
            return True
        cv2.imshow(self._title, self._picture())
        key = cv2.waitKey(1) & 0xFF
        if pressed := self._keys.get(chr(key)):
            pressed()
        return key not in (ord("q"), 27) and self._is_open()

    def _is_open(self) -> bool:
        try:
            return cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt forgets everything with its last window
            return False

    def close(self) -> None:
        self._picture = None

    def destroy(self) -> None:
        """Take the window off the screen; from the main thread."""
        with contextlib.suppress(cv2.error):  # the user closed it
            cv2.destroyAllWindows()


class Examples:
    """Keeps frames, undrawn, as pictures that ``train`` reads: ``FOLDER/LABEL/CLIP/000123.jpg``.

    Every run is a clip of its own, so that a split never tears its frames apart.
    """

    WHICH = ("all", "changes", "uncertain")

    def __init__(self, folder: Path, label: str = "", which: str = "all", least: float = 0.6) -> None:
        """Set the rules.

        Args:
            folder: where to; made when needed.
            label: the class of everything recorded; empty = the answer of each frame, to be looked through by hand.
            which: every frame, those where the answer changed, or those whose best score is under ``least``.

        Raises:
            UsageError: a label that is no folder name, or an unknown ``which``.
        """
        if label and (label in (".", "..") or set(label) & set('/\\:*?"<>|\0')):
            raise UsageError(f"--label {label!r} cannot be a folder's name", "leave / and \\ out")
        if which not in self.WHICH:
            raise UsageError(f"--keep {which} is unknown", f"choose one of: {', '.join(self.WHICH)}")
        self._folder, self._label, self._which, self._least = folder, label, which, least
        name = time.strftime("clip-%Y%m%d-%H%M%S") + f"-{os.getpid()}"
        # A board without a clock starts at the same time, with the same numbers of processes, after each power cut.
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        self._clip = next(name for name in names if not any(folder.glob(f"*/{name}")))
        self.kept = 0

    def put(self, result: Result, picture: Picture) -> None:
        """Keep the frame if it is wanted. Raises EnvironmentMissing when the disk is full."""
        if not self._wanted(result):
            return
        label = self._label or _folder_name(result.label)
        whole, data = cv2.imencode(".jpg", result.frame.image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        if whole:
            name = f"{result.frame.index:06d}.jpg"
            files.write_bytes(self._folder / label / self._clip / name, data.tobytes())
            self.kept += 1

    def _wanted(self, result: Result) -> bool:
        if self._which == "changes":
            return result.changed
        return self._which == "all" or result.predictions[0].score < self._least

    def close(self) -> None:
        pass


def _folder_name(label: str) -> str:
    """A label as the name of a folder beside others: a network's labels are other people's text."""
    name = "".join("_" if c in '/\\:*?"<>|' else c for c in clean(label)).strip().rstrip(".")[:100]
    return name or "_"


def _check_no_code(words: Sequence[str]) -> None:
    """Raise UsageError where a label would become a part of a program: a model may call a class ``$(rm -r ~)``."""
    names = map(os.path.basename, words)
    rest = list(itertools.dropwhile(lambda name: not _INTERPRETERS.fullmatch(name), names))  # perhaps behind sudo
    for option, code in itertools.pairwise(rest):
        if re.fullmatch(r"-[a-z]*[ce]", option) and (field := re.search(r"\{(label|previous)\}", code)):
            what = f"--on-change: {rest[0]} {option} would run what a label says as a part of its program"
            variable = f"EDGE_RAN_{field[1].upper()}"
            raise UsageError(what, f"take it from the environment: sh -c 'echo \"${variable}\"'")


class OnChange:
    """Runs a command, without a shell, whenever the answer changes.

    ``{label}``, ``{score}``, ``{index}`` and ``{previous}`` in its words are replaced, and the environment has
    ``EDGE_RAN_LABEL`` and so on. One runs at a time; meanwhile only the newest change waits.
    """

    def __init__(self, command: str, complain: Callable[[str], None]) -> None:
        """Raises UsageError: an empty command, unbalanced quotes, no such program, or an unknown field."""
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"--on-change {command!r}: {error}") from error
        if not self._words or not shutil.which(self._words[0]):
            raise UsageError(
                f"--on-change: there is no program {command!r}", "give its path; it is run without a shell"
            )
        _check_no_code(self._words)
        known = ("label", "score", "index", "previous")
        for field in re.findall(r"\{(\w+)\}", " ".join(self._words)):
            if field not in known:
                fields = ", ".join(f"{{{name}}}" for name in known)
                raise UsageError(f"--on-change: there is no {{{field}}}", f"it has {fields}")
        self._complain = complain
        self._complained = False
        self._changed = threading.Condition()
        self._waiting: dict[str, str] | None = None
        self._is_closed = False
        self._began_at = math.inf  # when the command that runs was started
        self._previous = ""
        self._thread = threading.Thread(target=self._work, name="edge-ran on-change", daemon=True)
        self._thread.start()

    def put(self, result: Result) -> None:
        """Note a result; returns at once."""
        if result.changed:
            values = {"label": result.label, "score": f"{result.score:.4f}", "index": str(result.frame.index)}
            with self._changed:
                self._waiting = {**values, "previous": self._previous}  # only the newest change counts
                self._changed.notify()
            self._previous = result.label
            if time.monotonic() - self._began_at > LONG_S:
                self._complain_once(f"runs for more than {LONG_S:.0f} s: no other is started until it ends")

    def close(self) -> None:
        """Let the last command end; one that takes longer than five seconds goes on alone."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(5)

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._is_closed:
                    self._changed.wait()
                values, self._waiting = self._waiting, None
            if values is None:
                return
            self._began_at = time.monotonic()
            self._run(values)
            self._began_at = math.inf

    def _run(self, values: dict[str, str]) -> None:
        values = {key: clean(value) for key, value in values.items()}  # labels may hold what no command line can
        words = [self._words[0], *(_filled(word, values) for word in self._words[1:])]
        environment = {**os.environ, **{f"EDGE_RAN_{key.upper()}": value for key, value in values.items()}}
        try:
            # Its words go to stderr: stdout is for results.
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=2, env=environment)
            trouble = f"ended with {done.returncode}" if done.returncode else ""
        except OSError as error:
            trouble = str(error)
        if trouble:
            self._complain_once(trouble)

    def _complain_once(self, trouble: str) -> None:
        if not self._complained:
            self._complained = True
            self._complain(f"--on-change {self._words[0]} {trouble}")


def _filled(word: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        word = word.replace("{" + key + "}", value)
    return word
