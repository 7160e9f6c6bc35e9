"""Zip archives of unknown origin: what comes out is counted, what their headers claim is not believed.

A header may claim little and unpack to much, many entries may share the same bytes, and two of the methods of zip
unpack to whatever size in one step. So only the entries asked for are unpacked, by the two usual methods, in small
steps, and no further than the limit.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable
from typing import IO

from edge_ran.errors import InputError

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
DAMAGE = (
    zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, KeyError,
    TypeError, IndexError, OverflowError,
)  # fmt: skip
MOST_ENTRIES = 1000
_STEP_BYTES = 1 << 16


def unpack(source: str | IO[bytes], names: Iterable[str] | None, most_bytes: int, called: object) -> dict[str, bytes]:
    """Return the entries of these names that the archive has, or all of them.

    Args:
        source: the archive, a path or an open file.
        names: of the entries that are wanted; None = every one, at most ``MOST_ENTRIES``.
        most_bytes: of all of them together, unpacked.
        called: what to call the archive in an error.

    Raises:
        InputError: it is damaged, packed by an unusual method, or holds more.
    """
    found: dict[str, bytes] = {}
    left = most_bytes
    try:
        with zipfile.ZipFile(source) as archive:
            listed = {entry.filename: entry for entry in archive.infolist()}
            if names is None and len(listed) > MOST_ENTRIES:
                raise InputError(f"{called} holds {len(listed):,} files", f"{MOST_ENTRIES} are the most that are read")
            for name in listed if names is None else names:
                if name not in listed:
                    continue
                found[name] = _read(archive, listed[name], left, most_bytes, called)
                left -= len(found[name])
    except DAMAGE as error:
        what = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{called} is damaged: {what}", "get or make the file again") from error
    return found


def check_method(entry: zipfile.ZipInfo, called: object) -> None:
    """Raise InputError where an entry is packed by a method that may unpack to any size at once."""
    if entry.compress_type not in METHODS:
        what = f"{called}: its {entry.filename!r} is packed by method {entry.compress_type}"
        raise InputError(what, "pack it again, deflated or not at all")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, left: int, most_bytes: int, called: object) -> bytes:
    check_method(entry, called)
    blocks: list[bytes] = []
    with archive.open(entry) as file:
        while block := file.read(_STEP_BYTES):
            blocks.append(block)
            left -= len(block)
            if left < 0:
                what = f"{called}: its {entry.filename!r} unpacks to more than {most_bytes:,} bytes"
                raise InputError(what, "get the file again from where it was made")
    return b"".join(blocks)
