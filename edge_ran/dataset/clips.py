"""Frames of clips, by their time stamps: what a file announces of its length and rate is often wrong."""

from __future__ import annotations

import bisect
import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import files
from edge_ran.errors import InputError
from edge_ran.folder_walk import check_name
from edge_ran.picture import CLIP_SUFFIXES, MOST_PIXELS, eight_bit_bgr, square_pixels
from edge_ran.video_file import FASTEST, MOST_TORN_IN_A_ROW, USUAL_RATE, is_text, why_unreadable

__all__ = ["CLIP_SUFFIXES", "clip", "clip_frames", "clip_rows", "live_clip", "timed_frames"]

MOST_STEPS = 1_000_000  # eleven days of seconds; time stamps may claim any length
_UNREADABLE = (0,)  # a clip that cannot be read has one frame, which says so when it is decoded


@contextlib.contextmanager
def clip(path: Path) -> Iterator[cv2.VideoCapture]:
    """Open a clip; frames come upright. Raises InputError when it cannot be opened."""
    with _opened(path, []) as capture:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # phones film sideways and write a rotation tag
        yield capture


def live_clip(picture: str, names: Sequence[str]) -> str:
    """Return the name of the clip that an iPhone filmed with a picture, a Live Photo; empty where there is none.

    Args:
        picture: the name of the picture's file.
        names: those of all files in its folder, sorted.
    """
    stem = os.path.splitext(picture)[0]
    found = (f"{stem}{mark}{ending}" for mark in ("", "_HEVC") for ending in (".MOV", ".mov", ".mp4", ".MP4"))
    return next((name for name in found if _is_among(name, names)), "")


def _is_among(name: str, names: Sequence[str]) -> bool:
    place = bisect.bisect_left(names, name)
    return place < len(names) and names[place] == name


def clip_rows(path: Path, step_s: float) -> Sequence[int]:
    """Return the numbers of the frames to take from a clip: what it shows in the middle of every ``step_s`` seconds.

    Nothing is decoded. A clip that cannot be read gives frame 0: whoever decodes that is told why.
    """
    try:
        times = _times_s(path)
    except InputError:
        return _UNREADABLE
    if not len(times):
        return _UNREADABLE
    # The last frame is taken to be shown as long as the one before it.
    length_s = times[-1] - times[0] + (times[-1] - times[-2] if len(times) > 1 else step_s)
    steps = max(1, int(min(length_s / step_s, MOST_STEPS) + 0.5))
    middles = times[0] + (np.arange(steps) + 0.5) * min(step_s, length_s)
    shown = np.maximum(0, np.searchsorted(times, middles + 1e-6, side="right") - 1)
    return tuple(int(row) for row in np.unique(shown))


def clip_frames(path: Path, rows: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield frames of a clip, (H, W, 3) uint8 BGR, by their numbers, ascending.

    Torn frames are passed over: the next whole one takes their place, at the end the last one.

    Raises:
        InputError: the clip cannot be read, or most of the wanted frames are torn.
    """
    times = _times_s(path)
    wanted, torn, last = list(rows), 0, None
    with clip(path) as capture:
        for row, frame in _decoded(capture, times, path):
            last = frame
            while wanted and wanted[0] <= row:
                torn += wanted[0] < row
                wanted.pop(0)
                yield frame
            if not wanted:
                break
    torn += len(wanted)
    if last is None or torn > len(rows) / 2:
        raise InputError(f"clip {path} is torn: {torn} of {len(rows)} frames cannot be decoded", "copy it again")
    for _ in wanted:
        yield last


def timed_frames(path: Path, least_s: float) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Yield frames of a clip that can be decoded, with the times in seconds at which it shows them.

    Args:
        path: the clip.
        least_s: the least time between two of them; those between are not decoded.

    Yields:
        The time, and the frame, (H, W, 3) uint8 BGR.

    Raises:
        InputError: the clip cannot be read.
    """
    times, taken_s = _times_s(path), -math.inf

    def time_of(row: int) -> float:
        return float(times[min(row, len(times) - 1)]) if len(times) else row / USUAL_RATE

    def is_wanted(row: int) -> bool:
        return time_of(row) - taken_s >= least_s - 1e-6

    with clip(path) as capture:
        for row, frame in _decoded(capture, times, path, is_wanted):
            taken_s = time_of(row)
            yield taken_s, frame


def _decoded(
    capture: cv2.VideoCapture,
    times: NDArray[np.float64],
    path: Path,
    is_wanted: Callable[[int], bool] = lambda row: True,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield each wanted frame that can be decoded, with its number: the place of its time in ``times``."""
    row, torn = -1, 0
    while torn < MOST_TORN_IN_A_ROW:
        if not capture.grab():
            torn += 1
            continue
        torn = 0
        position_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        nearest = int(np.abs(times - position_s).argmin()) if len(times) else 0
        row = max(row + 1, nearest) if len(times) and abs(times[nearest] - position_s) < 0.02 else row + 1
        whole, frame = capture.retrieve() if is_wanted(row) else (False, None)
        if whole and frame is not None and frame.size:
            yield row, square_pixels(eight_bit_bgr(np.asarray(frame), path), capture)


def _times_s(path: Path) -> NDArray[np.float64]:
    """Return the times at which a clip shows its frames, ascending, in seconds.

    Streams without times, and files that claim a rate that no camera has, are taken to have 25 frames a second.
    """
    with _opened(path, [cv2.CAP_PROP_FORMAT, -1]) as packets:  # as they lie in the file, not decoded
        times = _positions(packets)
    if len(times) != 1 and not np.any(np.diff(times)):  # none, or a container or an OpenCV that tells none of packets
        with clip(path) as frames:
            times = _positions(frames)
            rate = frames.get(cv2.CAP_PROP_FPS)
        if len(times) > 1 and not np.any(np.diff(times)):
            times = np.arange(len(times)) / (rate if 0 < rate < 1e4 else USUAL_RATE)
    times = np.sort(times)
    if len(times) > 2 and times[-1] - times[0] < (len(times) - 1) / FASTEST:
        return np.arange(len(times)) / USUAL_RATE
    return times


def _positions(capture: cv2.VideoCapture) -> NDArray[np.float64]:
    """The times of all frames; a damaged one is not the end."""
    times, failed = [], 0
    while failed < MOST_TORN_IN_A_ROW:
        if capture.grab():
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)
            failed = 0
        else:
            failed += 1
    return np.array(times)


@contextlib.contextmanager
def _opened(path: Path, parameters: Sequence[int]) -> Iterator[cv2.VideoCapture]:
    check_name(path)  # FFmpeg's name of a file is UTF-8; OpenCV would end the process
    files.check_regular(path, "clip")
    if is_text(path):
        why = why_unreadable(path)
        raise InputError(f"clip {path} {why[0]}", why[1])
    capture = cv2.VideoCapture(str(Path(path).absolute()), cv2.CAP_FFMPEG, list(parameters))
    try:
        if not capture.isOpened():
            why = why_unreadable(path)
            raise InputError(f"clip {path} {why[0]}", why[1])
        width, height = (capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MOST_PIXELS:
            raise InputError(f"clip {path} has frames of {width:.0f} x {height:.0f} pixels", "make it smaller")
        yield capture
    finally:
        capture.release()
