"""What a data set is chosen from: the files of the sources, and the sharpest frame of every step of a clip."""

from __future__ import annotations

import functools
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import dataset
from edge_ran.collect.spool import Kept, Spool
from edge_ran.dataset import CLIP_SUFFIXES
from edge_ran.dataset.folder_doubts import split_folders
from edge_ran.dataset.samples import LOOSE
from edge_ran.errors import EnvironmentMissing, InputError, UsageError
from edge_ran.folder_walk import folders_in, walk
from edge_ran.labels import clean_label
from edge_ran.picture import HEIF_SUFFIXES, heif_remedy, is_picture, read_picture
from edge_ran.python_command import pip

SHARPNESS_SIDE = 320  # pixels of the longer side at which sharpness is measured: grain of a large sensor does not count
LOOKS_A_SECOND = 6  # frames of a clip that are measured; a hand's shake lasts a few tenths of a second
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Choice:
    """What is taken. ``sharpness`` is the least variance of the Laplacian (8-bit brightness, longer side 320 pixels);
    a frame must also reach ``relative_sharpness`` of its clip's median. ``difference`` is the least number of
    differing bits, of 64, of the perceptual hashes of two pictures of a class. ``side`` is the longest side written."""

    step_s: float = 1.0
    sharpness: float = 12.0
    relative_sharpness: float = 0.35
    difference: int = 8
    side: int = 640
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        for flag, value, low, high in (
            ("step", self.step_s, 0.04, 3600.0),
            ("sharpness", self.sharpness, 0.0, 1e6),
            ("difference", self.difference, 0, 32),
            ("side", self.side, 32, 8192),
            ("test-fraction", self.test_fraction, 0.0, 0.9),
        ):
            if not low <= value <= high:
                raise UsageError(f"--{flag} {value:g} is outside {low:g}..{high:g}", f"leave --{flag} away")


@dataclass(frozen=True)
class Candidate:
    """One frame that was looked at: ``time_s`` in its clip (0 for a photo), ``reason`` why it is left out, or empty."""

    label: str
    visit: str
    source: Path
    time_s: float
    sharpness: float
    bits: int
    jpeg: Kept = field(repr=False)
    reason: str = ""
    split: str = ""

    @property
    def group(self) -> str:
        """The visit, else the clip, which is of one class; a photo without either stands alone.

        A Live Photo is of the clip that was filmed with it.
        """
        is_clip = self.source.suffix.lower() in CLIP_SUFFIXES
        clip = self.source.name if is_clip else dataset.live_clip(self.source.name, _names_in(self.source.parent))
        return self.visit or (f"{self.label}/{clip}" if clip else "")

    @property
    def unit(self) -> str:
        """What a split keeps together: the group, or the photo that stands alone."""
        return self.group or str(self.source)


@functools.cache
def _names_in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(os.listdir(folder)))


def files_in(sources: Sequence[Path]) -> tuple[list[tuple[str, str, Path]], Counter[str]]:
    """(label, visit, file) of every clip and photo, in a fixed order; and what was ignored, by name ending."""
    ignored: Counter[str] = Counter()
    found: list[tuple[str, str, Path]] = []
    for source in sources:
        if not source.is_dir():
            raise InputError(f"no such folder: {source}", "give folders of class folders: FOLDER/CLASS/CLIP.mp4")
        before, children = len(found), folders_in(source)
        _refuse_splits(source, children)
        loose = sum(is_picture(name) or name.lower().endswith(CLIP_SUFFIXES) for name in next(walk(source)).files)
        ignored.update({LOOSE.format(source): loose} if loose and children else {})
        for folder in children:
            for place in walk(folder):
                visit = place.folder.relative_to(folder).as_posix().removeprefix(".")
                if len(sources) > 1:
                    visit = f"{source.name}/{visit}".rstrip("/")
                for name in place.files:
                    suffix = Path(name).suffix.lower()
                    if is_picture(name) or suffix in CLIP_SUFFIXES:
                        found.append((clean_label(folder.name), visit, place.folder / name))
                    else:
                        ignored[suffix or name] += 1
        if len(found) == before:
            raise InputError(
                f"{source} holds no class folder with clips or photos",
                f"lay it out as {source}/CLASS/CLIP.mp4, with two clips or more of each class",
            )
    filled = {label for label, _, _ in found}
    for folder in (folder for source in sources for folder in folders_in(source)):
        if clean_label(folder.name) not in filled:  # one visit may lack a class, all visits may not
            raise _empty(folder)
    return found, ignored


def _empty(folder: Path) -> InputError:
    """The error of a class folder without clips and photos."""
    endings = sorted({Path(name).suffix.lower() or name for place in walk(folder) for name in place.files})
    other = f", only files ending in {', '.join(endings)}" if endings else ""
    remedy = heif_remedy() if any(ending in HEIF_SUFFIXES for ending in endings) else "fill it, or delete it"
    return InputError(f"class folder {folder} holds no clip and no photo{other}", remedy)


def _refuse_splits(source: Path, children: Sequence[Path]) -> None:
    """Raise InputError where the folders of a source are training, validation and test, not classes."""
    splits = split_folders(children, ())
    if len(splits) > 1 and len(splits) == len(children) and all(map(folders_in, children)):
        given = " ".join(shlex.quote(str(split)) for split in splits)
        names = " and ".join(split.name for split in splits)
        remedy = f"give the folders of the classes: edge-ran dataset build {given} --output FOLDER"
        raise InputError(f"{source} is divided: {names} are no classes", remedy)


def candidates_of(label: str, visit: str, path: Path, choice: Choice, spool: Spool) -> list[Candidate]:
    """The candidates of one file, each with its sharpness and hash; their JPEGs go to ``spool``."""
    if path.suffix.lower() not in CLIP_SUFFIXES:
        frame = read_picture(path)
        return [_candidate(label, visit, path, 0.0, _sharpness(frame), frame, choice, spool)]
    candidates = [
        _candidate(label, visit, path, time_s, sharpness, frame, choice, spool)
        for time_s, sharpness, frame in _sharpest(path, choice.step_s)
    ]
    typical = float(np.median([c.sharpness for c in candidates]))
    least = choice.relative_sharpness * typical
    return [replace(c, reason=c.reason or ("blurred" if c.sharpness < least else "")) for c in candidates]


def _sharpest(path: Path, step_s: float) -> Iterator[tuple[float, float, NDArray[np.uint8]]]:
    """The sharpest frame of every ``step_s`` seconds, by the clip's own time stamps: phones film at a varying rate."""
    best: tuple[float, float, NDArray[np.uint8]] | None = None
    step = 0
    for time_s, frame in dataset.timed_frames(path, 1 / LOOKS_A_SECOND):
        if best is not None and time_s >= (step + 1) * step_s:
            yield best
            best = None
        if best is None:
            step = int(time_s / step_s)
        sharpness = _sharpness(frame)
        if best is None or sharpness > best[1]:
            best = (time_s, sharpness, frame)
    if best is None:
        raise InputError(f"clip {path} holds no frame that can be read", "copy it again, or convert it to .mp4")
    yield best


def _sharpness(frame: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the brightness (Pech-Pacheco et al. 2000), at a longer side of 320 pixels."""
    grey = cv2.cvtColor(_shrunk(frame, SHARPNESS_SIDE), cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def _shrunk(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    factor = side / max(frame.shape[:2])
    if factor >= 1:
        return frame
    size = (max(1, round(frame.shape[1] * factor)), max(1, round(frame.shape[0] * factor)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _candidate(
    label: str,
    visit: str,
    path: Path,
    time_s: float,
    sharpness: float,
    frame: NDArray[np.uint8],
    choice: Choice,
    spool: Spool,
) -> Candidate:
    from PIL import Image

    small = _shrunk(frame, choice.side)
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    pattern = need_imagehash().phash(Image.fromarray(np.ascontiguousarray(_shrunk(frame, SHARPNESS_SIDE)[..., ::-1])))
    bits = int("".join("1" if bit else "0" for bit in pattern.hash.ravel()), 2)
    reason = "blurred" if sharpness < choice.sharpness else ""
    return Candidate(label, visit, path, time_s, sharpness, bits, spool.keep(jpeg.tobytes()), reason)


def need_imagehash() -> Any:
    """Return the package of perceptual hashes. Raises EnvironmentMissing where it is not installed."""
    try:
        import imagehash
    except ModuleNotFoundError as error:
        raise EnvironmentMissing(
            f"a data set from clips needs {error.name}", pip("install 'edge-ran[clips]'")
        ) from error
    return imagehash
