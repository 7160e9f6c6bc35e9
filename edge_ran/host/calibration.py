"""The pictures on which the ranges of quantised activations are measured.

A run keeps some of its own training pictures, already fitted to the input, in ``calibration.npz``: they look like what
the network will see, which the pictures that ship cannot know. A folder that the user names goes first.

Where both are photographs they differ little. Measured with the weights of the network that ships, in int8 without
learnt ranges, on 2,000 test pictures of CIFAR-10: agreement with the float network 98.8 % and top-1 90.0 % with 200
training pictures, 99.1 % and 90.2 % with the 120 that ship.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ran import catalogue, npz
from edge_ran.card import Calibration, InputSpec, ModelCard
from edge_ran.errors import InputError
from edge_ran.files import atomic_path
from edge_ran.host.scoring import Examples
from edge_ran.picture import read_picture
from edge_ran.pictures import pictures_in, spread
from edge_ran.preprocess import fit_pixels, normalise
from edge_ran.runs import CALIBRATION

KEPT = 200  # pictures of a run
FEW = 20  # fewer give unsteady ranges; worth a note
FLAT_LEVELS = 8  # a picture whose pixels span fewer levels shows nothing
SMALLEST_SHARE = 4  # a picture may be enlarged so many times, no more: blur would narrow the ranges
_REMEDY = "give --calibration-data a folder of pictures of what the camera sees"


def keep(run: Path, train: Examples) -> None:
    """Write up to ``KEPT`` training pictures, evenly spread over the data, to ``calibration.npz``, atomically."""
    rows = spread(range(len(train)), KEPT)
    with atomic_path(run / CALIBRATION) as temporary:
        np.savez_compressed(temporary, pixels=np.asarray(train.pixels[rows]))


def choose(folder: Path | None, run: Path, card: ModelCard, count: int) -> tuple[NDArray[np.uint8], Calibration]:
    """Return up to ``count`` pictures: of ``folder``, else of the run's training pictures, else those that ship.

    Returns:
        (n, H, W, 3) uint8 pixels, and the record for the card.

    Raises:
        InputError: pictures cannot be read, or nothing can be measured on them.
    """
    if folder is None and (run / CALIBRATION).exists():
        pixels = kept(run, card.input)
        pixels = pixels[spread(range(len(pixels)), count)]
        return pixels, Calibration(card.training.dataset, len(pixels), "training")
    return of_folder(folder, card.input, count)


def kept(run: Path, spec: InputSpec) -> NDArray[np.uint8]:
    """Read a run's own calibration pictures, (n, H, W, 3) uint8.

    Raises:
        InputError: the file is damaged, too large, or not of such pictures.
    """
    path = run / CALIBRATION
    remedy = f"delete it to use the pictures that ship, or {_REMEDY}"
    pixels = npz.read(path, ["pixels"]).get("pixels", np.empty(0))
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (spec.height, spec.width, 3) or not 0 < len(pixels) <= KEPT:
        raise InputError(f"{path} holds {pixels.shape} {pixels.dtype}, not pictures of this network", remedy)
    return np.asarray(pixels)


def of_folder(source: Path | None, spec: InputSpec, count: int) -> tuple[NDArray[np.uint8], Calibration]:
    """Read up to ``count`` pictures of a folder, evenly spread over its sorted files, fitted to the network's input.

    Args:
        source: None takes the pictures that ship.

    Returns:
        (n, H, W, 3) uint8 pixels, and the record for the card.

    Raises:
        InputError: fewer than two different pictures, all of one colour, too small, or one that cannot be read.
    """
    folder = Path(source) if source is not None else catalogue.folder("calibration_data")
    try:
        found = pictures_in(folder)
    except InputError as error:
        raise InputError(f"calibration pictures: {error}", _REMEDY) from error
    paths = spread(found, count)
    pixels = np.empty((len(paths), spec.height, spec.width, 3), np.uint8)
    for i, path in enumerate(paths):
        pixels[i] = _read(path, spec)
    if len(paths) == 1:
        raise InputError(f"{folder} holds one picture: every range of the network would depend on it", _REMEDY)
    if all(np.ptp(p.reshape(-1, 3), axis=0).max() < FLAT_LEVELS for p in pixels):
        raise InputError(f"the pictures in {folder} are of one colour each (black?): nothing to calibrate on", _REMEDY)
    if (pixels == pixels[0]).all():
        raise InputError(f"{folder} holds {len(paths)} times the same picture", _REMEDY)
    return pixels, Calibration(folder.name, len(paths), "shipped" if source is None else "folder")


def representative(pixels: NDArray[np.uint8], spec: InputSpec) -> Iterator[list[NDArray[np.float32]]]:
    """Yield (1, H, W, 3) float32 pictures; one of them has a black and a white corner.

    So the input's range is that of all pixels, 0 to 255, whatever the pictures hold: with the default normalisation
    the int8 input is exactly pixel - 128 (scale 1/128, zero point 0).
    """
    framed = pixels[len(pixels) // 2].copy()
    framed[0, 0], framed[-1, -1] = 0, 255
    for picture in (framed, *pixels):
        yield [normalise(picture[None], spec)]


def _read(path: Path, spec: InputSpec) -> NDArray[np.uint8]:
    picture = read_picture(path)
    height, width = picture.shape[:2]
    if height * SMALLEST_SHARE < spec.height or width * SMALLEST_SHARE < spec.width:
        what = f"calibration picture {path} is {width}x{height}, too small for an input of {spec.width}x{spec.height}"
        raise InputError(what, _REMEDY)
    return fit_pixels(picture, spec)
