"""What is taken for a video's end and rate, and what a file is that is called a video and cannot be played as one."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

MOST_TORN_IN_A_ROW = 250  # frames that cannot be decoded; then it is the end
FASTEST, USUAL_RATE = 300.0, 25.0  # frames a second; slow motion has up to 240, and headers without a rate 600

# How files begin that are no videos, and what they are.
_OTHERS = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"PK\x03\x04", "a packed archive"),
    (b"\x1f\x8b", "a packed archive"),
    (b"%PDF", "a PDF document"),
)
_INDEX = (b"moov", b"moof")  # the tables of an MP4, of a whole file and of one in fragments
_LONG = 1  # a box whose length stands behind its name, in eight bytes


def is_text(path: Path | str) -> bool:
    """Whether a file is text: FFmpeg plays any, as a terminal would show it."""
    with open(path, "rb") as file:
        return b"\0" not in file.read(1 << 16)


def why_unreadable(path: Path | str) -> tuple[str, str]:
    """Return why a file is no video that can be read (the words after its name), and what to do.

    Args:
        path: a file that is there.
    """
    with open(path, "rb") as file:
        head = file.read(4096)
    if not head:
        return "is empty: no video was written into it", "copy it again"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "is a web page, not a video", "download the file, not the page about it"
    kind = next((kind for begins, kind in _OTHERS if head.startswith(begins)), "text" if is_text(path) else "")
    if kind:
        return f"is {kind}, not a video, whatever its name", "give a video, such as .mp4"
    if head[4:8] == b"ftyp" and not _has_index(path):
        what = "was cut off before its end, where an MP4 has the table of its frames"
        return what, "copy it again; what a program that was killed recorded cannot be played"
    what = "is not a video that can be read: no pictures in it, a fault, or an unusual format"
    return what, f"convert it: ffmpeg -i {shlex.quote(str(Path(path).absolute()))} -c:v libx264 -an converted.mp4"


def _has_index(path: Path | str) -> bool:
    """Whether the boxes of an MP4 are whole up to one of its tables of frames."""
    size, place = os.path.getsize(path), 0
    with open(path, "rb") as file:
        while place + 8 <= size:
            file.seek(place)
            header = file.read(16)
            length, name = int.from_bytes(header[:4], "big"), header[4:8]
            if length == _LONG:
                length = int.from_bytes(header[8:16], "big")
            if name in _INDEX:
                return length == 0 or place + length <= size
            if length < 8:
                return False
            place += length
    return False
