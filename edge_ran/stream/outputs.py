"""Where results go besides the terminal: a recording, a window, example pictures, a command, a web page.

Drawing and encoding have a thread of their own, beside capture and inference. A live source never waits for them: what
they cannot keep up with is left out and counted. A file waits: its recording has every frame.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import files
from edge_ran.errors import EdgeRanError, EnvironmentMissing, UsageError
from edge_ran.printable import clean
from edge_ran.stream.overlay import Overlay
from edge_ran.stream.pipeline import Result

_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_ROOM = 4  # results that wait for the drawing thread
_MEASURED = 10  # results of a live source whose pace a recording takes
_PICTURES_A_SECOND = 2.0  # of a recording of single pictures
_LEAST_FREE_BYTES, _INDEX_BYTES = 16 << 20, 32  # room kept for what ends a video: the index, an entry for each frame
_SHORT = 0.9  # a recording with fewer of its frames was cut off; containers count them only nearly


Picture = Callable[[], NDArray[np.uint8]]


class Output(Protocol):
    """Takes each result; called from one thread."""

    def put(self, result: Result, picture: Picture) -> None:
        """Take a result; ``picture()`` draws it, (H, W, 3) uint8 BGR, once for all who ask."""

    def close(self) -> None:
        """Finish."""


class Drawing:
    """Hands results to the outputs in a thread of its own, drawn where they want pictures.

    Attributes:
        skipped: results of a live source that were not drawn because drawing or encoding fell behind.
    """

    def __init__(self, outputs: list[Output], overlay: Overlay, live: bool) -> None:
        self._outputs, self._overlay, self._live = outputs, overlay, live
        self._queue: queue.Queue[Result | None] = queue.Queue(_ROOM)
        self.skipped = 0
        self._error: EdgeRanError | None = None
        self._thread = threading.Thread(target=self._work, name="edge-ran drawing", daemon=True)
        self._thread.start()

    def put(self, result: Result) -> None:
        """Hand on a result. Raises what an output raised, a full disk for instance."""
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
        if self._error:
            raise self._error

    def _work(self) -> None:
        while result := self._queue.get():
            if self._error:
                continue  # empty the queue: put must not block for ever
            try:
                picture = _Drawn(result, self._overlay)
                for output in self._outputs:
                    output.put(result, picture)
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


class Recording:
    """A video of the drawn pictures, at the pace of the frames; the file appears, whole, at the end."""

    def __init__(self, path: Path, fps: float, live: bool, force: bool = False) -> None:
        """Check the path; the file is opened with the first frame.

        Args:
            path: ``.mp4``, ``.mov``, ``.mkv`` or ``.avi``.
            fps: the source's rate; 0 = unknown.
            live: keep the pace of the results, which the network may slow down; a file's frames are written one by one
                at the file's rate.

        Raises:
            UsageError: another suffix. OutputExists: it is there.

        ``recovered`` are the recordings of runs that were killed, which were found in the folder and named.
        """
        if path.suffix.lower() not in _CODECS:
            raise UsageError(f"--save {path} is not a video's name", f"end it in {', '.join(_CODECS)}")
        files.refuse_existing(path, force)
        self.recovered = finish_recordings(path.parent)
        self._path, self._fps, self._live = path, fps, live
        self._stack = contextlib.ExitStack()
        self._temporary: Path | None = None
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._first: list[tuple[float, NDArray[np.uint8]]] = []
        self._next_at = 0.0
        self.frames = 0

    def put(self, result: Result, picture: Picture) -> None:
        """Write a picture as often as its time asks for.

        Raises:
            EnvironmentMissing: it cannot be written, or the disk is all but full; ``close`` then still finishes what
                was recorded before.
        """
        free = shutil.disk_usage(self._path.parent).free if self._temporary else math.inf
        if free < _LEAST_FREE_BYTES + _INDEX_BYTES * self.frames:  # the writer says nothing of a full disk
            raise EnvironmentMissing(
                f"the disk of {self._path} is full: its recording ends after {self.frames} frames", "free some space"
            )
        at = result.frame.captured_at
        if self._writer is None:
            self._first.append((at, picture()))
            if not self._live or len(self._first) == _MEASURED:
                self._open()
        else:
            self._write(at, picture())

    def close(self) -> None:
        """Finish the file. Raises EnvironmentMissing when what was written cannot be played, or is not all there."""
        if self._writer is None and self._first:
            self._open()
        if self._writer is None:
            return
        self._writer.release()
        assert self._temporary
        check = cv2.VideoCapture(str(self._temporary), cv2.CAP_FFMPEG)
        playable = check.isOpened() and check.grab()
        there = int(check.get(cv2.CAP_PROP_FRAME_COUNT))
        check.release()
        if not playable:
            error = EnvironmentMissing(f"the recording {self._path} could not be written", "is the disk full?")
            self._stack.__exit__(type(error), error, None)
            raise error
        self._stack.close()
        if there < _SHORT * self.frames:
            what = f"the recording {self._path} was cut off: it holds {max(0, there)} of {self.frames} frames"
            raise EnvironmentMissing(what, "is the disk full?")

    def _open(self) -> None:
        fps = self._fps or (25.0 if self._live else _PICTURES_A_SECOND)
        first, last = self._first[0][0], self._first[-1][0]
        if self._live and last > first:
            fps = min(fps, (len(self._first) - 1) / (last - first))
        self._interval = 1 / max(1.0, min(120.0, fps))
        height, width = self._first[0][1].shape[:2]
        self._size = (width - width % 2, height - height % 2)  # MPEG-4 has even sides
        self._temporary = self._stack.enter_context(files.atomic_path(self._path))
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, codec, 1 / self._interval, self._size)
        if not self._writer.isOpened():
            raise EnvironmentMissing(f"OpenCV cannot write {self._path}", "choose another folder, or --save out.avi")
        self._next_at = first
        for at, picture in self._first:
            self._write(at, picture)
        self._first.clear()

    def _write(self, at: float, picture: NDArray[np.uint8]) -> None:
        """Keep the recording's clock with the frames': a picture is repeated, or left out, where they drift apart."""
        assert self._writer
        if not self._live:
            at = self._next_at
        if at - self._next_at > 1.0:
            self._next_at = at  # a gap is not filled with pictures that never were
        behind = round((at - self._next_at) / self._interval) + 1
        if behind <= 0:
            return
        picture = _fitted(picture, self._size)
        for _ in range(behind):
            self._writer.write(picture)
            self.frames += 1
        self._next_at += behind * self._interval


def finish_recordings(folder: Path) -> tuple[Path, ...]:
    """Give the recordings that killed runs left in ``folder`` a name, where they can be played; remove the others.

    An .avi or .mkv can be played up to its last second, an .mp4 or .mov only once it is finished.
    """
    found: list[Path] = []
    for leftover in files.abandoned(folder):
        if leftover.suffix.lower() not in files.RECORDINGS:
            continue
        check = cv2.VideoCapture(str(leftover), cv2.CAP_FFMPEG)
        playable = check.isOpened() and check.grab()
        check.release()
        with contextlib.suppress(OSError):
            if not playable:
                leftover.unlink()
                continue
            began = time.strftime("%Y%m%d-%H%M%S", time.localtime(leftover.stat().st_mtime))
            name = folder / f"recovered-{began}-{len(found) + 1}{leftover.suffix}"
            if not name.exists():
                os.replace(leftover, name)
                found.append(name)
    return tuple(found)


def _fitted(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut one odd row or column off; fit a picture of another size in, with black borders."""
    width, height = size
    if picture.shape[0] - height in (0, 1) and picture.shape[1] - width in (0, 1):
        return picture[:height, :width]
    factor = min(width / picture.shape[1], height / picture.shape[0])
    inner = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA)
    return canvas


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
                "--show needs an OpenCV with windows; the installed one is headless", "pip install opencv-python"
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
        self._clip = time.strftime("clip-%Y%m%d-%H%M%S") + f"-{os.getpid()}"
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


class OnChange:
    """Runs a command, without a shell, whenever the answer changes.

    ``{label}``, ``{score}``, ``{index}`` and ``{previous}`` in its words are replaced, and the environment has
    ``EDGE_RAN_LABEL`` and so on. One runs at a time; meanwhile only the newest change waits.
    """

    def __init__(self, command: str, complain: Callable[[str], None]) -> None:
        """Raises UsageError: an empty command, unbalanced quotes, or no such program."""
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"--on-change {command!r}: {error}") from error
        if not self._words or not shutil.which(self._words[0]):
            raise UsageError(
                f"--on-change: there is no program {command!r}", "give its path; it is run without a shell"
            )
        self._complain = complain
        self._complained = False
        self._queue: queue.Queue[dict[str, str] | None] = queue.Queue()
        self._previous = ""
        self._thread = threading.Thread(target=self._work, name="edge-ran on-change", daemon=True)
        self._thread.start()

    def put(self, result: Result) -> None:
        """Note a result; returns at once."""
        if result.changed:
            values = {"label": result.label, "score": f"{result.score:.4f}", "index": str(result.frame.index)}
            self._queue.put({**values, "previous": self._previous})
            self._previous = result.label

    def close(self) -> None:
        """Let the last command end; one that takes longer than five seconds goes on alone."""
        self._queue.put(None)
        self._thread.join(5)

    def _work(self) -> None:
        while (values := self._queue.get()) is not None:
            with contextlib.suppress(queue.Empty):
                while True:  # only the newest change counts
                    newer = self._queue.get_nowait()
                    if newer is None:
                        self._run(values)
                        return
                    values = newer
            self._run(values)

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
        if trouble and not self._complained:
            self._complained = True
            self._complain(f"--on-change {self._words[0]} {trouble}")


def _filled(word: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        word = word.replace("{" + key + "}", value)
    return word
