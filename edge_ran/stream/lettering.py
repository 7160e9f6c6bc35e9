"""Words on pictures, in any script: ASCII in OpenCV's own font, the rest with Pillow in a font of the system."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

_ASCII = cv2.FONT_HERSHEY_SIMPLEX
_CAPITALS = 22  # height of its capitals at scale 1, pixels
_CAPITALS_SHARE = 0.73  # of other fonts' capitals, of the font's size
_PLACES = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/System/Library/Fonts",
           "/Library/Fonts", "C:/Windows/Fonts")  # fmt: skip
_MOST_FONTS = 500  # that are looked at
_MISSING = "\U0010fffe"  # a code point that no font has: what is drawn for it stands for "not in this font"
_UNKNOWN = "?"


class Lettering:
    """Writes lines of text. What no font of this machine has is told once, and drawn as question marks."""

    def __init__(self, complain: Callable[[str], None] = lambda line: None) -> None:
        self._complain = complain
        self._is_told = False

    def write(
        self,
        picture: NDArray[np.uint8],
        text: str,
        x: int,
        baseline: int,
        height: float,
        colour: tuple[int, ...],
        room: int,
        to_the_right: bool = False,
    ) -> None:
        """Write a line into the picture, from ``x`` on or to the end of its room.

        Args:
            picture: (H, W, 3) uint8 BGR; changed.
            text: one line.
            x: left end of the room, pixels.
            baseline: of the letters, pixels.
            height: of the capitals, pixels; a long text is made smaller, down to half, then cut.
            colour: BGR.
            room: width that it may take, pixels.
            to_the_right: end at the right end of the room.
        """
        if not text.isascii() and (font := self._font(text)):
            _write_with(font, picture, text, x, baseline, height, colour, room, to_the_right)
            return
        text = _as_ascii(text)
        scale = height / _CAPITALS
        thickness = 2 if scale > 0.9 else 1
        width = cv2.getTextSize(text, _ASCII, scale, thickness)[0][0]
        if width > room:
            smaller = max(0.5, room / width)
            scale *= smaller
            text = text[: max(1, int(len(text) * room / (width * smaller)))]
        elif to_the_right:
            x += room - width
        cv2.putText(picture, text, (x, baseline), _ASCII, scale, colour, thickness, cv2.LINE_AA)

    def _font(self, text: str) -> str | None:
        """The file of a font for the text; None where there is none."""
        found = font_for(text)
        if found is None and not self._is_told:
            self._is_told = True
            what = f"no font of this machine has every letter of {text!r}: they are drawn as {_UNKNOWN}"
            self._complain(f"{what}; on Debian: sudo apt install {_package(text)}")
        return found


@functools.lru_cache(maxsize=1000)
def font_for(text: str) -> str | None:
    """Return the file of a font that has every letter of the text, or None."""
    try:
        import PIL.ImageFont
    except ImportError:
        return None
    del PIL
    return next((path for path in _fonts(text) if _has(path, text)), None)


def _fonts(text: str) -> Iterator[str]:
    """Files of fonts, the likeliest first."""
    rare = max(text)  # of the scripts in one text, the one that fewer fonts have
    if shutil.which("fc-match"):
        words = ["fc-match", "--format=%{file}", f"sans-serif:charset={ord(rare):x}"]
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            yield subprocess.run(words, capture_output=True, text=True, timeout=10).stdout
    yield from _installed()


@functools.cache
def _installed() -> tuple[str, ...]:
    usual = [place for place in _PLACES if not place.startswith("C:") or sys.platform == "win32"]
    places = [Path(os.path.expanduser(place)) for place in usual]
    if (plots := importlib.util.find_spec("matplotlib")) and plots.origin:  # it brings DejaVu
        places.append(Path(plots.origin).parent / "mpl-data" / "fonts" / "ttf")
    found: list[str] = []
    for place in places:
        for folder, _, names in os.walk(place):
            found += [os.path.join(folder, name) for name in names if name.lower().endswith((".ttf", ".otf", ".ttc"))]
    plain = [path for path in found if not any(word in path.lower() for word in ("bold", "italic", "oblique", "mono"))]
    return tuple(sorted(plain, key=lambda path: ("sans" not in path.lower(), path))[:_MOST_FONTS])


def _has(path: str, text: str) -> bool:
    if "lastresort" in path.lower():  # it draws what kind of letter is missing
        return False
    try:
        font = _load(path, 16)
        missing = bytes(font.getmask(_MISSING))
        return all(bytes(font.getmask(letter)) != missing for letter in set(text) if not letter.isspace())
    except (OSError, ValueError):  # no font, or a damaged one
        return False


@functools.lru_cache(maxsize=50)
def _load(path: str, size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(path, size)


def _write_with(
    path: str,
    picture: NDArray[np.uint8],
    text: str,
    x: int,
    baseline: int,
    height: float,
    colour: tuple[int, ...],
    room: int,
    to_the_right: bool,
) -> None:
    size = max(6, round(height / _CAPITALS_SHARE))
    width = _load(path, size).getlength(text)
    if width > room:
        smaller = max(0.5, room / width)
        size = max(6, int(size * smaller))
        text = text[: max(1, int(len(text) * room / (width * smaller)))]
    elif to_the_right:
        x += round(room - width)
    ink, left, above = _ink(path, size, text)
    top = baseline - above
    _blend(picture, ink, x + left, top, colour)


@functools.lru_cache(maxsize=200)
def _ink(path: str, size: int, text: str) -> tuple[NDArray[np.float32], int, int]:
    """How much of each pixel is covered, (h, w) from 0 to 1; its left end; how far its top is above the baseline."""
    from PIL import Image, ImageDraw

    font = _load(path, size)
    left, top, right, bottom = (round(side) for side in font.getbbox(text, anchor="ls"))
    canvas = Image.new("L", (max(1, right - left + 2), max(1, bottom - top + 2)))
    ImageDraw.Draw(canvas).text((1 - left, 1 - top), text, font=font, fill=255, anchor="ls")
    return np.asarray(canvas, np.float32) / np.float32(255), left - 1, 1 - top


def _blend(picture: NDArray[np.uint8], ink: NDArray[np.float32], x: int, y: int, colour: tuple[int, ...]) -> None:
    top, left = max(0, y), max(0, x)
    part = picture[top : y + ink.shape[0], left : x + ink.shape[1]]
    if not part.size:
        return
    covered = ink[top - y :, left - x :][: part.shape[0], : part.shape[1], np.newaxis]
    part[:] = np.rint(part * (1 - covered) + np.array(colour, np.float32) * covered).astype(np.uint8)


def _as_ascii(text: str) -> str:
    """The text without accents, with question marks for the letters that are left."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return plain.encode("ascii", "replace").decode() or _UNKNOWN


def _package(text: str) -> str:
    """The Debian package with a font for the text."""
    wide = any(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return "fonts-noto-cjk" if wide else "fonts-noto-core"
