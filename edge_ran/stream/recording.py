"""A video of the drawn pictures, which survives whatever ends the run: a kill, a power cut, a full disk."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import files
from edge_ran.errors import EnvironmentMissing, UsageError
from edge_ran.printable import many
from edge_ran.stream import mp4
from edge_ran.stream.pipeline import Result

_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
SUFFIXES = tuple(_CODECS)
_MEASURED = 10  # results of a live source whose pace a recording takes
_PICTURES_A_SECOND = 2.0  # of a recording of single pictures
_LEAST_FREE_BYTES, _INDEX_BYTES = 16 << 20, 32  # room kept for what ends a video: the index, an entry for each frame
_KEEP_EVERY_S = 2.0  # what a power cut may take
_FINE_FPS = 65.0  # above it, thousandths of a frame a second do not fit into MPEG-4's 16 bits
_SHORT = 0.9  # a recording with fewer of its frames was cut off; containers count them only nearly


Picture = Callable[[], NDArray[np.uint8]]


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
            UsageError: another suffix. OutputExists: it is there. EnvironmentMissing: its folder cannot be written to.

        ``recovered`` are the recordings of runs that were killed, which were found in the folder and named; ``frames``
        are those written so far to ``path``.
        """
        if path.suffix.lower() not in _CODECS:
            raise UsageError(f"--save {path} is not a video's name", f"end it in {', '.join(_CODECS)}")
        files.check_output(path, force)
        self.recovered = finish_recordings(path.parent)
        self.path, self._fps, self._live = path, fps, live
        self._stack = contextlib.ExitStack()
        self._temporary: Path | None = None
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._kept_at = 0.0
        self._first: list[tuple[float, NDArray[np.uint8]]] = []
        self._next_at = 0.0
        self.frames = 0

    def put(self, result: Result, picture: Picture) -> None:
        """Write a picture as often as its time asks for.

        Raises:
            EnvironmentMissing: it cannot be written, or the disk is all but full; ``close`` then still finishes what
                was recorded before.
        """
        try:
            free = shutil.disk_usage(self.path.parent).free if self._temporary else math.inf
        except OSError as error:
            raise files.cannot_write(self.path, error) from error
        if free < _LEAST_FREE_BYTES + _INDEX_BYTES * self.frames:  # the writer says nothing of a full disk
            raise EnvironmentMissing(
                f"the disk of {self.path} is full: its recording ends after {many(self.frames, 'frame')}",
                "free some space",
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
            error = EnvironmentMissing(f"the recording {self.path} could not be written", "is the disk full?")
            self._stack.__exit__(type(error), error, None)
            raise error
        self._stack.close()
        if there < _SHORT * self.frames:
            what = f"the recording {self.path} was cut off: it holds {max(0, there)} of {many(self.frames, 'frame')}"
            raise EnvironmentMissing(what, "is the disk full?")

    def _open(self) -> None:
        fps = self._fps or (25.0 if self._live else _PICTURES_A_SECOND)
        first = self._first[0][0]
        intervals = [after - at for (at, _), (after, _) in itertools.pairwise(self._first) if after > at]
        if self._live and intervals:
            fps = min(fps, 1 / float(np.median(intervals)))  # one slow beginning must not set the rate
        fps = max(1.0, min(120.0, fps))
        fps = fps if fps < _FINE_FPS else round(fps, 2)
        self._interval = 1 / fps
        height, width = self._first[0][1].shape[:2]
        self._size = (width - width % 2, height - height % 2)  # MPEG-4 has even sides
        settings = _Settings(*self._size, fps)
        self._temporary = self._stack.enter_context(files.atomic_path(self.path, note=settings.note()))
        self._writer = settings.writer(self._temporary)
        if not self._writer.isOpened():
            self._writer, self._first = None, []
            error = EnvironmentMissing(f"OpenCV cannot write {self.path}", "choose another folder, or --save out.avi")
            self._stack.__exit__(type(error), error, None)
            raise error
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
        if self._temporary and time.monotonic() - self._kept_at > _KEEP_EVERY_S:
            self._kept_at = time.monotonic()
            _to_disk(self._temporary)


@dataclass(frozen=True)
class _Settings:
    """How a video is encoded. It stands in a temporary file's name: whoever finishes a killed one needs it."""

    width: int
    height: int
    fps: float

    def note(self) -> str:
        return f"{self.width}x{self.height}at{self.fps!r}"

    @classmethod
    def of(cls, temporary: Path) -> _Settings | None:
        found = re.search(r"-(\d{1,4})x(\d{1,4})at(\d{1,3}\.\d{1,20})-", temporary.name)
        return cls(int(found[1]), int(found[2]), float(found[3])) if found else None

    def writer(self, path: Path) -> cv2.VideoWriter:
        codec = cv2.VideoWriter.fourcc(*_CODECS[path.suffix.lower()])
        return cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, self.fps, (self.width, self.height))


def _to_disk(path: Path) -> None:
    """Have what is written so far put on the disk, where it survives a power cut."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        os.fsync(file.fileno())


def finish_recordings(folder: Path) -> tuple[Path, ...]:
    """Give the recordings that killed runs left in ``folder`` a name, where they can be played; remove the others.

    An .avi or .mkv can be played as it is, up to its last seconds; an .mp4 or .mov is given its index first.
    """
    found: list[Path] = []
    for leftover in files.abandoned(folder):
        if leftover.suffix.lower() not in files.RECORDINGS:
            continue
        with contextlib.suppress(OSError):  # a full disk: the next run tries again
            if not _is_playable(leftover) and not _give_index(leftover):
                leftover.unlink()
                continue
            began = time.strftime("%Y%m%d-%H%M%S", time.localtime(leftover.stat().st_mtime))
            names = (folder / f"recovered-{began}-{number}{leftover.suffix}" for number in itertools.count(1))
            name = next(name for name in names if not name.exists())  # a board without a clock repeats its times
            os.replace(leftover, name)
            found.append(name)
    return tuple(found)


def _is_playable(video: Path) -> bool:
    check = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
    try:
        return bool(check.isOpened() and check.grab())
    finally:
        check.release()


def _give_index(video: Path) -> bool:
    settings = _Settings.of(video)
    if settings is None or video.suffix.lower() not in (".mp4", ".mov"):
        return False
    with files.TemporaryFolder() as folder:
        like = Path(folder) / f"like{video.suffix.lower()}"
        writer = settings.writer(like)
        if not writer.isOpened():
            return False
        writer.write(np.zeros((settings.height, settings.width, 3), np.uint8))
        writer.release()
        return mp4.finish(video, like) > 0 and _is_playable(video)


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
