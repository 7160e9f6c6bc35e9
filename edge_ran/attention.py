"""Where a network looks: a soft mask (section 3.1 of the paper) as numbers of the frame, and as colours over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran.errors import UsageError

STRENGTH = 0.5  # of the colours over the picture
MEAN = "mean"
_COLOURS = cv2.COLORMAP_VIRIDIS  # equal steps look equal, to the colour-blind as well, and lighter is more


@dataclass(frozen=True)
class MaskSummary:
    """A soft mask in a few numbers; places are (x, y) in the frame's pixels, values 0..1.

    ``center`` is the centre of mass of how far the mask is above its lowest value, ``spread`` the root mean square
    distance from it, ``peak`` the middle of the highest cell. A mask that is the same everywhere has the centre and
    spread of a uniform one, and no peak.
    """

    module: str
    min: float
    max: float
    mean: float
    center: tuple[float, float]
    spread: float
    peak: tuple[float, float] | None


@dataclass(frozen=True)
class Look:
    """One soft mask over one frame.

    ``values`` (h, w) float32 are the mask's mean over its channels; ``region`` (left, top, width, height) is the part
    of the frame that it lies on, in the frame's pixels: what the network saw of it.
    """

    module: str
    values: NDArray[np.float32]
    region: tuple[int, int, int, int]

    def summary(self) -> MaskSummary:
        """Return the mask in a few numbers."""
        left, top, width, height = self.region
        rows, columns = self.values.shape
        low, high = float(self.values.min()), float(self.values.max())
        weights = (self.values - low).astype(np.float64) if high > low else np.ones((rows, columns))
        weights /= weights.sum()
        xs = left + (np.arange(columns) + 0.5) * width / columns
        ys = top + (np.arange(rows) + 0.5) * height / rows
        across, down = weights.sum(0), weights.sum(1)
        x, y = float(across @ xs), float(down @ ys)
        spread = float(np.sqrt(across @ (xs - x) ** 2 + down @ (ys - y) ** 2))
        row, column = np.unravel_index(int(self.values.argmax()), self.values.shape)
        return MaskSummary(
            module=self.module,
            min=round(low, 4),
            max=round(high, 4),
            mean=round(float(self.values.mean()), 4),
            center=(round(x, 1), round(y, 1)),
            spread=round(spread, 1),
            peak=(round(float(xs[column]), 1), round(float(ys[row]), 1)) if high > low else None,
        )


def chosen(looks: Sequence[Look], which: str) -> Look:
    """Return the mask to show: ``1``, ``2``, … in the order of the network, or ``mean``, the mean of them all.

    The mean has the cells of the finest mask; coarser ones are interpolated.
    """
    if which != MEAN:
        return looks[int(which) - 1]
    rows, columns = max(look.values.shape for look in looks)
    same = [cv2.resize(look.values, (columns, rows), interpolation=cv2.INTER_LINEAR) for look in looks]
    return Look(MEAN, np.mean(same, axis=0, dtype=np.float32), looks[0].region)


def check(which: str, modules: tuple[str, ...]) -> None:
    """Raise UsageError unless ``which`` is ``mean`` or the number of one of the masks."""
    if which != MEAN and which not in map(str, range(1, len(modules) + 1)):
        named = ", ".join(f"{number} {module}" for number, module in enumerate(modules, 1))
        raise UsageError(f"--attention {which!r} is none of the network's masks", f"--attention mean, or {named}")


def tint(picture: NDArray[np.uint8], look: Look, scale: int = 1) -> None:
    """Lay a mask over the part of a picture that the network saw, in place.

    Dark violet is where the mask is lowest in this frame, yellow where it is highest.

    Args:
        picture: (H, W, 3) uint8 BGR: the frame, enlarged ``scale`` times.
        look: of that frame.
        scale: pixels of the picture for one of the frame.
    """
    left, top, width, height = (scale * side for side in look.region)
    part = picture[top : top + height, left : left + width]
    low, high = float(look.values.min()), float(look.values.max())
    levels = np.rint((look.values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8)
    colours = cv2.applyColorMap(cv2.resize(levels, (width, height), interpolation=cv2.INTER_LINEAR), _COLOURS)
    cv2.addWeighted(colours, STRENGTH, part, 1 - STRENGTH, 0, dst=part)


def scale_bar(width: int, height: int) -> NDArray[np.uint8]:
    """Return the colours from lowest to highest, left to right: (height, width, 3) uint8 BGR."""
    levels = np.linspace(0, 255, max(1, width)).round().astype(np.uint8)[None]
    return np.asarray(cv2.applyColorMap(np.repeat(levels, max(1, height), axis=0), _COLOURS), np.uint8)
