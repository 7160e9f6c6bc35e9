"""Why it decided, drawn over the picture."""

from __future__ import annotations

import unicodedata

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran.runtime import Accelerator
from edge_ran.stream.pipeline import Result

_LEAST_SIDE = 240  # smaller pictures are enlarged: there would be no room for words
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WHITE, _GREY, _BAR, _UNKNOWN = (255, 255, 255), (190, 190, 190), (80, 200, 120), (90, 160, 240)  # BGR


def draw(result: Result, accelerator: Accelerator) -> NDArray[np.uint8]:
    """Return a picture with label, score, bars, rate, latency and the accelerator really used.

    Returns:
        (H, W, 3) uint8 BGR: a copy of the frame, enlarged where it is smaller than 240 pixels.
    """
    picture = _enlarged(result.frame.image)
    height, width = picture.shape[:2]
    unit = max(10, min(height, width) // 24)  # height of a line of text, pixels
    unknown = result.label == "unknown"

    latency = result.stages_ms["end_to_end"]
    status = f"{result.fps:.1f} fps   {latency:.1f} ms   {accelerator}"
    _shade(picture, 0, 0, width, 2 * unit)
    _write(picture, status, unit, int(1.4 * unit), unit * 0.75, _GREY, width - 2 * unit)

    rows = len(result.predictions)
    top = height - unit * (3 + 2 * rows)
    _shade(picture, 0, max(2 * unit, top), min(width, 18 * unit), height)
    title = "unknown" if unknown else f"{result.label} {result.score:.0%}"
    room = min(width, 18 * unit) - 2 * unit
    _write(picture, title, unit, top + 2 * unit, unit * 1.3, _UNKNOWN if unknown else _WHITE, room)
    for row, prediction in enumerate(result.predictions):
        baseline = top + unit * (4 + 2 * row)
        right = unit + round(room * min(1.0, max(0.0, prediction.score)))
        colour = _BAR if prediction.label == result.label else _GREY
        cv2.rectangle(picture, (unit, baseline + unit // 4), (max(right, unit + 1), baseline + unit // 2), colour, -1)
        _write(picture, prediction.label, unit, baseline, unit * 0.75, _GREY, room - 4 * unit)
        _write(picture, f"{prediction.score:.0%}", unit + room - 3 * unit, baseline, unit * 0.75, _GREY, 3 * unit)
    return picture


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    least = min(image.shape[:2])
    if least >= _LEAST_SIDE:
        return image.copy()
    factor = -(-_LEAST_SIDE // least)
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST), np.uint8)


def _shade(picture: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> None:
    region = picture[max(0, top) : bottom, left:right]
    if region.size:
        region[:] = region // 3


def _write(
    picture: NDArray[np.uint8], text: str, x: int, baseline: int, height: float, colour: tuple, room: int
) -> None:
    """Write a line; a long one is made smaller, down to half, then cut."""
    # OpenCV's own font has ASCII only.
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode() or "?"
    scale = height / 22  # the font's capitals are 22 pixels high at scale 1
    thickness = 2 if scale > 0.9 else 1
    width = cv2.getTextSize(text, _FONT, scale, thickness)[0][0]
    if width > room:
        smaller = max(0.5, room / width)
        scale *= smaller
        text = text[: max(1, int(len(text) * room / (width * smaller)))]
    cv2.putText(picture, text, (x, baseline), _FONT, scale, colour, thickness, cv2.LINE_AA)
