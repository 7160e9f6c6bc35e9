"""The index of an MP4 or MOV file whose writer was killed: without it, no player reads what was recorded.

FFmpeg writes the index ("moov") last. A killed writer leaves the pictures alone, one after the other, in a box ("mdat")
whose length is still 0. Each begins with a start code of MPEG-4 Part 2 (ISO/IEC 14496-2, 6.2.1), which occurs nowhere
else in them; so their places can be found, and the index written. The rest of it (codec, size, rate) is taken from a
recording of one picture, made with the same settings.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# Start codes of a picture, and of what a key frame has first.
_PICTURE, _GROUP = b"\x00\x00\x01\xb6", b"\x00\x00\x01\xb3"
_GROUP_BYTES = 7  # a group's start code and its time
_KEY = 0  # coding type of a picture that stands for itself: the two bits after its start code
_WITH_BOXES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts"}
_MOST_32_BITS = (1 << 32) - 1


def finish(video: Path, like: Path) -> int:
    """Write the index of a file that lacks it, into the file. The last picture, which may be half there, is cut off.

    Args:
        video: MPEG-4 Part 2 in MP4 or MOV, as FFmpeg's writer leaves it when it is killed.
        like: a whole file of at least one picture, written with the same codec, size and rate.

    Returns:
        How many pictures it has now; 0 = there is none, or it is no such file, and nothing was changed.

    Raises:
        OSError: it cannot be written, as on a full disk; it can be tried again.
    """
    index = _box(like.read_bytes(), b"moov")
    with open(video, "r+b") as file:
        head = _open_data(file)
        if index is None or head is None:
            return 0
        begin = head + 8
        starts, keys = _pictures(file, begin)
        if len(starts) < 2:
            return 0
        sizes = [after - start for start, after in itertools.pairwise(starts)]
        end = starts[-1]
        file.truncate(end)
        file.seek(end)
        file.write(_changed(index, _tables(index, starts[0], sizes, [key for key in keys if key < len(sizes)])))
        file.flush()
        os.fsync(file.fileno())
        # Only now the length: until then this can be done again.
        if end - head <= _MOST_32_BITS:
            file.seek(head)
            file.write(struct.pack(">I", end - head))
        else:  # FFmpeg leaves an empty box before it for that
            file.seek(head - 8)
            file.write(struct.pack(">I4sQ", 1, b"mdat", end - head + 8))
    return len(sizes)


def _open_data(file: BinaryIO) -> int | None:
    """Where the box of pictures begins, if its length was never written."""
    at = 0
    for _ in range(8):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return None
        size, kind = struct.unpack(">I4s", head)
        if kind == b"mdat":
            return None if size else at
        if size < 8:
            return None
        at += size
    return None


def _pictures(file: BinaryIO, begin: int) -> tuple[list[int], list[int]]:
    """Where each picture begins, in bytes from the file's begin, and the numbers of the key frames, from 0 on."""
    starts: list[int] = []
    keys: list[int] = []
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(_PICTURE, begin)
        while 0 <= at < len(data) - len(_PICTURE):
            if data[at + len(_PICTURE)] >> 6 == _KEY:
                keys.append(len(starts))
            group = at - _GROUP_BYTES
            starts.append(group if group >= begin and data[group : group + 4] == _GROUP else at)
            at = data.find(_PICTURE, at + len(_PICTURE))
    return starts, keys


def _tables(index: bytes, begin: int, sizes: list[int], keys: list[int]) -> dict[bytes, Callable[[bytes], bytes]]:
    """How the boxes of the index change that depend on the number of pictures: kind -> (content -> new content)."""
    count = len(sizes)
    per_picture = struct.unpack_from(">I", _leaf(index, b"stts"), 12)[0]
    per_s = struct.unpack_from(">I", _leaf(index, b"mdhd"), 12)[0]
    movie_per_s = struct.unpack_from(">I", _leaf(index, b"mvhd"), 12)[0]
    ticks = count * per_picture
    movie_ticks = -(-ticks * movie_per_s // per_s)

    def duration(at: int, value: int) -> Callable[[bytes], bytes]:
        return lambda old: old[:at] + struct.pack(">I", min(value, _MOST_32_BITS)) + old[at + 4 :]

    def table(*numbers: int) -> Callable[[bytes], bytes]:
        return lambda old: struct.pack(f">{len(numbers) + 1}I", 0, *numbers)

    return {
        b"mvhd": duration(16, movie_ticks),
        b"tkhd": duration(20, movie_ticks),
        b"elst": duration(8, movie_ticks),
        b"mdhd": duration(16, ticks),
        b"stts": table(1, count, per_picture),
        b"stss": table(len(keys), *(key + 1 for key in keys)),
        b"stsc": table(1, 1, count, 1),  # all are in one piece
        b"stsz": table(0, count, *sizes),
        b"stco": table(1, begin),
    }


def _boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of each box; what is no box ends the list."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            break
        found.append((kind, data[at + 8 : at + size]))
        at += size
    return found


def _box(data: bytes, wanted: bytes) -> bytes | None:
    """The first box of this kind, whole, in a file's bytes."""
    for kind, content in _boxes(data):
        if kind == wanted:
            return struct.pack(">I4s", len(content) + 8, kind) + content
    return None


def _leaf(data: bytes, wanted: bytes) -> bytes:
    """The content of the first box of this kind, at any depth. Raises ValueError if there is none."""
    for kind, content in _boxes(data):
        if kind == wanted:
            return content
        if kind in _WITH_BOXES:
            try:
                return _leaf(content, wanted)
            except ValueError:
                continue
    raise ValueError(f"no {wanted.decode(errors='replace')} box")


def _changed(data: bytes, changes: dict[bytes, Callable[[bytes], bytes]]) -> bytes:
    written = []
    for kind, content in _boxes(data):
        if kind in _WITH_BOXES:
            content = _changed(content, changes)
        elif kind in changes:
            content = changes[kind](content)
        written.append(struct.pack(">I4s", len(content) + 8, kind) + content)
    return b"".join(written)
