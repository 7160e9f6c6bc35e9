"""What a network expects of a picture's pixels: told by the user, by the graph, or found out on labelled pictures.

A network that another script trained computes nonsense, without an error, when its pixels are scaled in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ran.card import InputSpec, check_units
from edge_ran.catalogue import nearest
from edge_ran.errors import InputError, UsageError
from edge_ran.host.importing.translate import Scaling
from edge_ran.preprocess import fit_pixels

Forward = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Pixels:
    """``(pixel - mean) / std`` for each channel, pixels 0..255, channels in the order of ``color``."""

    name: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    color: str = "rgb"


# ``tf``, ``torch`` and ``caffe`` as keras.applications.imagenet_utils.preprocess_input calls them.
NAMED = {
    p.name: p
    for p in (
        Pixels("tf", (127.5,) * 3, (127.5,) * 3),
        Pixels("unit", (0.0,) * 3, (255.0,) * 3),
        Pixels("torch", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        Pixels("caffe", (103.939, 116.779, 123.68), (1.0,) * 3, "bgr"),
        Pixels("raw", (0.0,) * 3, (1.0,) * 3),
    )
}
MEANINGS = "tf: -1..1; unit: 0..1; torch: ImageNet's mean and deviation; caffe: BGR minus its mean; raw: 0..255"
CHECK_PICTURES = 200
CLEAR_POINTS = 5.0  # of top-1, by which the best must lead


@dataclass(frozen=True)
class PixelTrial:
    """One way to scale pixels, on labelled pictures: top-1, 0..1, and the mean log-probability of the right class."""

    name: str
    top1: float
    log_likelihood: float


def told(
    name: str | None, mean: Sequence[float] | None, std: Sequence[float] | None, scale: float | None, color: str | None
) -> Pixels | None:
    """Return what the user said of the pixels, None where they did not say how these are scaled.

    Raises:
        UsageError: it contradicts itself, or a name or number is none.
    """
    if color is not None and color not in ("rgb", "bgr"):
        raise UsageError(f"--color {color!r} is unknown", "--color rgb or bgr")
    if name is not None and (mean or std or scale is not None):
        raise UsageError("--preprocessing and --mean, --std or --scale were both given", "give one")
    if scale is not None and std:
        raise UsageError("--scale and --std were both given", "--std is 1 / scale")
    if name is not None:
        if name not in NAMED:
            raise UsageError(f"no preprocessing is called {name!r}: {MEANINGS}", nearest(name, NAMED))
        return in_order(NAMED[name], color)
    if not (mean or std or scale is not None):
        return None
    if scale is not None and not 0 < scale < float("inf"):
        raise UsageError(f"--scale {scale} is not above 0", "--scale 0.00392157 for 1/255")
    if scale is not None and scale > 1:
        raise UsageError(f"--scale {scale:g} would multiply pixels, which go from 0 to 255", f"--scale {1 / scale:g}")
    check_units(mean, [1 / scale] if scale is not None else std)
    deviation = [1 / scale] if scale is not None else list(std or [1.0])
    return Pixels("given", _three(mean or [0.0], "--mean"), _three(deviation, "--std"), color or "rgb")


def in_order(pixels: Pixels, color: str | None) -> Pixels:
    """Return the scaling with its channels in the order that the user named, its own where that is None.

    Means and deviations keep their places: a script that reads pictures with OpenCV and scales them with a function
    for RGB takes the first mean from blue.
    """
    return pixels if color is None else replace(pixels, color=color)


def from_graph(scaling: Scaling) -> Pixels | None:
    """Return raw pixels where the graph itself brings 0..255 to a few units; None where that does not say enough."""
    ends = [abs(s * p + t) for s, t in zip(scaling.scale, scaling.shift, strict=True) for p in (0, 255)]
    return NAMED["raw"] if scaling.is_there and max(scaling.scale) < 0.1 and max(ends) < 12 else None


def input_spec(pixels: Pixels, scaling: Scaling, height: int, width: int, fit: str) -> InputSpec:
    """Return pixels and the graph's own scaling as one: ``s (p - m) / d + t = (p - (m - t d / s)) / (d / s)``."""
    std = [d / s for d, s in zip(pixels.std, scaling.scale, strict=True)]
    mean = [m - t * d for m, t, d in zip(pixels.mean, scaling.shift, std, strict=True)]
    return InputSpec(height, width, tuple(mean), tuple(std), pixels.color, fit)


def scaled(frames: Sequence[NDArray[np.uint8]], pixels: Pixels, spec: InputSpec) -> NDArray[np.float32]:
    """(H, W, 3) uint8 BGR frames of any size -> (N, height, width, 3) float32, as the original network takes them."""
    own = InputSpec(spec.height, spec.width, pixels.mean, pixels.std, pixels.color, spec.fit)
    fitted = np.stack([fit_pixels(frame, own) for frame in frames])
    mean, std = np.array(pixels.mean, np.float32), np.array(pixels.std, np.float32)
    return np.asarray((fitted - mean) / std, np.float32)


def try_all(
    forward: Forward, frames: Sequence[NDArray[np.uint8]], truth: NDArray[np.int64], size: InputSpec,
    also: Pixels | None, color: str | None = None,
) -> tuple[PixelTrial, ...]:  # fmt: skip
    """Try every named way, and ``also``, on labelled pictures; return them with the best first.

    ``color`` is the order of the channels where the user named it; each named way is then tried in that order.
    """
    ways = {
        **{name: in_order(one, color) for name, one in NAMED.items()},
        **({also.name: also} if also is not None else {}),
    }
    found = []
    for pixels in ways.values():
        values = scaled(frames, pixels, size)
        probabilities = np.concatenate([forward(values[i : i + 16]) for i in range(0, len(values), 16)])
        right = np.log(np.clip(probabilities[np.arange(len(truth)), truth], 1e-7, 1))
        top1 = float((probabilities.argmax(1) == truth).mean())
        found.append(PixelTrial(pixels.name, top1, float(right.mean())))
    return tuple(sorted(found, key=lambda one: (-one.top1, -one.log_likelihood)))


def choose(trials: tuple[PixelTrial, ...], classes: int, folder: Path) -> Pixels:
    """Return the way that clearly fits. Raises InputError where none does."""
    best, second = trials[:2]
    listed = ", ".join(f"{one.name} {one.top1:.0%}" for one in trials)
    if best.top1 < min(2 / classes, (1 + 1 / classes) / 2):  # twice chance; of two classes, half way to all right
        what = f"none of the usual ways to scale pixels fits the pictures in {folder}: {listed}"
        raise InputError(what, "look at the training script: --mean, --std or --scale, --color; and check --labels")
    if 100 * (best.top1 - second.top1) < CLEAR_POINTS and best.log_likelihood - second.log_likelihood < 0.1:
        what = f"the pictures in {folder} do not tell how pixels are scaled: {listed}"
        raise InputError(what, f"look at the training script: --preprocessing {best.name} or {second.name}")
    return NAMED[best.name]


def unknown(path: Path) -> InputError:
    """The error that asks the user."""
    return InputError(
        f"{path} does not say how its pixels are scaled ({MEANINGS})",
        f"--preprocessing {'|'.join(NAMED)}, --mean and --std, or --check-on FOLDER of labelled pictures tries them",
    )


def _three(values: Sequence[float], option: str) -> tuple[float, float, float]:
    numbers = list(values) * (3 if len(values) == 1 else 1)
    if len(numbers) != 3 or not all(np.isfinite(numbers)) or (option == "--std" and min(numbers) <= 0):
        raise UsageError(
            f"{option} is one number or three{', above 0' if option == '--std' else ''}", f"{option} 127.5"
        )
    return numbers[0], numbers[1], numbers[2]
