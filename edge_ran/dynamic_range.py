"""Clips of high dynamic range, as phones film them: whether the FFmpeg in OpenCV shows them as others are shown."""

from __future__ import annotations

import contextlib
import functools
import re
from pathlib import Path
from typing import BinaryIO

import cv2

_MOST_BYTES = 1 << 24  # of an index, that are looked through
_MOST_BOXES = 10_000  # before it: a hostile file may have one every eight bytes
_TRANSFERS = {16: "PQ", 18: "HLG"}  # ITU-T H.273, table 3
_COLOURS = re.compile(rb"colrncl[xc]..\x00(.)", re.DOTALL)  # ISO 14496-12, 12.1.5: primaries, transfer, matrix
_MATROSKA = re.compile(rb"\x55\xba\x81(.)", re.DOTALL)  # TransferCharacteristics, RFC 9559
_CONVERTING_SWSCALE = 9  # measured: 9.5 (OpenCV 5.0) makes standard pictures of them, 6.7 (OpenCV 4.11) does not


def transfer(clip: Path) -> str:
    """Return ``HLG`` or ``PQ`` where an MP4, MOV, Matroska or WebM file says so, else nothing. Decodes nothing."""
    with contextlib.suppress(OSError), open(clip, "rb") as file:
        head = file.read(12)
        if head.startswith(b"\x1a\x45\xdf\xa3"):
            found = _MATROSKA.search(file.read(1 << 16))
        else:
            found = _COLOURS.search(_index(file)) if head[4:8] in (b"ftyp", b"moov", b"wide", b"mdat") else None
        return _TRANSFERS.get(found[1][0], "") if found else ""
    return ""


def note(clips: list[Path]) -> str:
    """Return a sentence where clips of high dynamic range are shown in wrong colours here, else an empty string."""
    wrong = [] if _converts() else [clip for clip in clips if transfer(clip)]
    if not wrong:
        return ""
    which = wrong[0].name if len(wrong) == 1 else f"{len(wrong)} clips"
    return (
        f"{which}: HDR, whose colours OpenCV {cv2.__version__} does not convert (5.0 does): they are pale here; "
        "convert such clips to SDR first, or film without HDR"
    )


@functools.cache
def _converts() -> bool:
    found = re.search(r"swscale:\s+YES \((\d+)", cv2.getBuildInformation())
    return found is not None and int(found[1]) >= _CONVERTING_SWSCALE


def _index(file: BinaryIO) -> bytes:
    """The ``moov`` box of an MP4 or MOV file; nothing where there is none, or it is too large."""
    start = 0
    for _ in range(_MOST_BOXES):
        file.seek(start)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        size = int.from_bytes(head[8:], "big") if size == 1 else size
        if kind == b"moov":
            return file.read(min(size, _MOST_BYTES) if size else _MOST_BYTES)
        if size < 8:  # to the end, or damaged
            return b""
        start += size
    return b""
