"""Why it decided, drawn over the picture."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran.attention import MEAN, Look, chosen, scale_bar, tint
from edge_ran.runtime import Accelerator
from edge_ran.stream.lettering import Lettering
from edge_ran.stream.pipeline import Result

_LEAST_SIDE = 240  # smaller pictures are enlarged: there would be no room for words
_WHITE, _GREY, _BAR, _UNKNOWN = (255, 255, 255), (190, 190, 190), (80, 200, 120), (90, 160, 240)  # BGR


class Overlay:
    """Draws pictures with label, score, bars, rate, latency and the accelerator really used, and the soft mask.

    Attributes:
        visible: whether the mask is drawn, where there is one; may be changed at any time.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        mask: str = MEAN,
        took: Callable[[str, float], None] = lambda stage, ms: None,
        complain: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Set what is the same in every picture.

        Args:
            accelerator: what ran the network.
            mask: which of a result's masks, for ``attention.chosen``.
            took: told the milliseconds of ``draw`` and of ``tint``, the mask's part of it, after every picture.
            complain: told once when no font has the letters of a label.
        """
        self._accelerator, self._mask, self._took = accelerator, mask, took
        self._lettering = Lettering(complain)
        self.visible = True

    def toggle(self) -> None:
        """Show the mask, or leave it away."""
        self.visible = not self.visible

    def __call__(self, result: Result) -> NDArray[np.uint8]:
        """Return the drawn picture.

        Returns:
            (H, W, 3) uint8 BGR: a copy of the frame, enlarged where it is smaller than 240 pixels.
        """
        began = time.perf_counter()
        factor = _enlargement(result.frame.image)
        picture = _enlarged(result.frame.image, factor)
        look = chosen(result.looks, self._mask) if result.looks and self.visible else None
        if look is not None:
            before = time.perf_counter()
            tint(picture, look, factor)
            self._took("tint", (time.perf_counter() - before) * 1e3)
        _write_answer(picture, result, self._accelerator, look, self._lettering)
        self._took("draw", (time.perf_counter() - began) * 1e3)
        return picture


def _write_answer(
    picture: NDArray[np.uint8], result: Result, accelerator: Accelerator, look: Look | None, letters: Lettering
) -> None:
    height, width = picture.shape[:2]
    unit = max(10, min(height, width) // 24)  # height of a line of text, pixels
    unknown = result.label == "unknown"

    latency = result.stages_ms["end_to_end"]
    status = f"{result.fps:.1f} fps   {latency:.1f} ms   {accelerator}"
    _shade(picture, 0, 0, width, 2 * unit)
    letters.write(picture, status, unit, int(1.4 * unit), unit * 0.75, _GREY, width - 2 * unit)
    if look is not None:
        _write_scale(picture, look, unit, letters)

    rows = len(result.predictions)
    top = height - unit * (3 + 2 * rows)
    head = (2 if look is None else 4) * unit
    _shade(picture, 0, max(head, top), min(width, 18 * unit), height)
    title = "unknown" if unknown else f"{result.label} {result.score:.0%}"
    room = min(width, 18 * unit) - 2 * unit
    letters.write(picture, title, unit, top + 2 * unit, unit * 1.3, _UNKNOWN if unknown else _WHITE, room)
    for row, prediction in enumerate(result.predictions):
        baseline = top + unit * (4 + 2 * row)
        right = unit + round(room * min(1.0, max(0.0, prediction.score)))
        colour = _BAR if prediction.label == result.label else _GREY
        cv2.rectangle(picture, (unit, baseline + unit // 4), (max(right, unit + 1), baseline + unit // 2), colour, -1)
        letters.write(picture, prediction.label, unit, baseline, unit * 0.75, _GREY, room - 4 * unit)
        score = f"{prediction.score:.0%}"
        letters.write(picture, score, unit + room - 3 * unit, baseline, unit * 0.75, _GREY, 3 * unit, to_the_right=True)


def _write_scale(picture: NDArray[np.uint8], look: Look, unit: int, letters: Lettering) -> None:
    """Say under the first line which mask it is, and what its colours stand for in this frame."""
    width = picture.shape[1]
    _shade(picture, 0, 2 * unit, width, 4 * unit)
    name = "mean of the masks" if look.module == MEAN else look.module.replace("_", " ")
    baseline, middle = int(3.4 * unit), width // 2
    letters.write(picture, name, unit, baseline, unit * 0.75, _GREY, middle - 5 * unit)
    letters.write(picture, f"{look.values.min():.3f}", middle - 3 * unit, baseline, unit * 0.75, _GREY, 3 * unit)
    bar = scale_bar(width - middle - 5 * unit, unit // 2)
    picture[3 * unit - unit // 4 :, middle:][: bar.shape[0], : bar.shape[1]] = bar
    high = f"{look.values.max():.3f}"
    letters.write(picture, high, width - 4 * unit, baseline, unit * 0.75, _GREY, 3 * unit, to_the_right=True)


def _enlargement(image: NDArray[np.uint8]) -> int:
    return int(max(1, -(-_LEAST_SIDE // min(image.shape[:2]))))


def _enlarged(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    if factor == 1:
        return image.copy()
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST), np.uint8)


def _shade(picture: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> None:
    region = picture[max(0, top) : bottom, left:right]
    if region.size:
        region[:] = region // 3
