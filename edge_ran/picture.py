"""THE one way to read a picture file, for data sets, calibration, benchmarks and the run loop."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import files
from edge_ran.errors import InputError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a PNG, JPEG, WebP or BMP as (H, W, 3) uint8 in BGR order, upright.

    EXIF rotation is applied, transparency laid over white, 16 bits reduced to 8, grey repeated in three channels.

    Raises:
        InputError: the file is missing, empty, cut short or not a picture.
    """
    data = files.read_bytes(path, "picture")
    if _cut_short(data):
        raise InputError(f"picture {path} is truncated", "copy it again")
    # IMREAD_UNCHANGED alone keeps transparency, and alone ignores EXIF rotation, which is then applied below.
    alpha = _has_alpha(data)
    flags = cv2.IMREAD_UNCHANGED if alpha else cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    frame = None
    with contextlib.suppress(cv2.error):  # raised for absurd sizes; None for all else
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if frame is None:
        raise InputError(f"picture {path} cannot be decoded", "it must be a PNG, JPEG, WebP or BMP")
    upright = _turned(np.asarray(frame), _orientation(data)) if alpha else np.asarray(frame)
    return eight_bit_bgr(upright, path)


def eight_bit_bgr(frame: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Make (H, W, 3) uint8 BGR of what OpenCV decoded. Raises InputError, naming ``path``, unless of 8 or 16 bits."""
    if frame.dtype == np.uint16:
        frame = np.rint(frame / 257.0).astype(np.uint8)
    if frame.dtype != np.uint8:
        raise InputError(f"picture {path} has {frame.dtype} pixels", "save it with 8 or 16 bits a channel")
    if frame.ndim == 2 or frame.shape[2] == 1:
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), np.uint8)
    if frame.shape[2] == 4:
        alpha = frame[:, :, 3:].astype(np.uint16)
        blended = frame[:, :, :3] * alpha + 255 * (255 - alpha)
        frame = ((blended + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(frame)


def _cut_short(data: bytes) -> bool:
    """Decoders fill the missing part of a truncated picture with grey and only mutter: look for the end ourselves."""
    if data[:3] == b"\xff\xd8\xff":
        position = 2
        while data[position : position + 1] == b"\xff" and data[position + 1 : position + 2] != b"\xda":
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        return data.find(b"\xff\xd9", position) < 0  # after the first scan; an EXIF thumbnail has its own end mark
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return not 0 <= data.rfind(b"IEND") <= len(data) - 8
    if data[:4] == b"RIFF":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    if data[:2] == b"BM":
        return len(data) < int.from_bytes(data[2:6], "little")
    return False


def _has_alpha(data: bytes) -> bool:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[25:26] in (b"\x04", b"\x06") or b"tRNS" in data[:4096]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        extended = data[12:16] == b"VP8X" and bool(data[20] & 0x10)
        return extended or (data[12:16] == b"VP8L" and bool(data[24] & 0x10))
    return False  # the fourth byte of a BMP's pixel is mostly unused and zero


def _orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, of a PNG or WebP; 1 where it has none."""
    png = data[:4] == b"\x89PNG"
    at = data.find(b"eXIf" if png else b"EXIF")
    if at < 0:
        return 1
    tiff = data[at + (4 if png else 8) :]
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    directory = int.from_bytes(tiff[4:8], order)
    for entry in range(int.from_bytes(tiff[directory : directory + 2], order)):
        record = tiff[directory + 2 + 12 * entry :][:12]
        if int.from_bytes(record[:2], order) == 0x0112:
            value = int.from_bytes(record[8:10], order)
            return value if 1 <= value <= 8 else 1
    return 1


def _turned(frame: NDArray[Any], orientation: int) -> NDArray[Any]:
    if orientation >= 5:
        frame = frame.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        frame = frame[:, ::-1]
    if orientation in (3, 4, 7, 8):
        frame = frame[::-1]
    return frame
