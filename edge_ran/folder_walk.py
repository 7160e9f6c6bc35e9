"""THE one way to look through a folder: what systems leave there is not seen, links are followed, circles end."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_ran.errors import InputError

# Thumbnails, resource forks and waste paper baskets of macOS, Windows, Synology and QNAP, in lower case.
_SYSTEM_NAMES = {
    "__macosx",
    "@eadir",
    "@tmp",
    "@recycle",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
}


@dataclass(frozen=True)
class Place:
    """One folder: its regular files, and ``others``: links that lead nowhere, pipes and devices."""

    folder: Path
    files: tuple[str, ...]
    others: tuple[str, ...] = ()


def is_system_file(name: str) -> bool:
    """Whether a file or folder of that name is one that a system leaves beside the user's own, or a hidden one."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def folders_in(folder: Path) -> list[Path]:
    """Return the user's folders in a folder, links to folders among them, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_system_file(path.name))


def by_number(path: Path | str) -> list[tuple[str, int]]:
    """Return the key that sorts names with numbers as people count: 2.png before 10.png."""
    pieces = re.split(r"([0-9]+)", str(path))
    return [(text, int(number)) for text, number in zip(pieces[::2], [*pieces[1::2], "0"], strict=True)]


def walk(folder: Path) -> Iterator[Place]:
    """Yield a folder and all below it, sorted; a link to a folder that it lies in is not followed.

    Raises:
        InputError: there is no such folder, it may not be read, or a name in it is not UTF-8.
    """
    folder = Path(folder)
    above = [parent.stat() for parent in folder.absolute().parents]
    yield from _walk(folder, tuple((status.st_dev, status.st_ino) for status in above))


def check_name(path: Path) -> None:
    """Raise InputError where a path is not UTF-8: no table, page or card could name it, and FFmpeg cannot open it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise InputError(f"the name {shown} is not UTF-8", "rename it") from error


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Place]:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot read folder {folder}: {error.strerror or error}", "check the path") from error
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    inner, files, others = list[str](), list[str](), list[str]()
    for entry in entries:
        if is_system_file(entry.name):
            continue
        check_name(Path(entry.path))
        (inner if entry.is_dir() else files if entry.is_file() else others).append(entry.name)
    yield Place(folder, tuple(files), tuple(others))
    for name in inner:
        yield from _walk(folder / name, (*above, identity))
