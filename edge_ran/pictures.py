"""The pictures of a folder: the one way to list them, and the one way to take some of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from edge_ran import catalogue
from edge_ran.errors import InputError
from edge_ran.folder_walk import walk
from edge_ran.picture import NAMED_SUFFIXES, is_picture

_Item = TypeVar("_Item")


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files in a folder and below, sorted, without those that systems leave there.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder} is not a folder of pictures", "check the path")
    found = [place.folder / name for place in walk(folder) for name in place.files if is_picture(name)]
    if not found:
        raise InputError(f"{folder} holds no pictures", f"put some there: {NAMED_SUFFIXES}")
    return sorted(found)


def spread(items: Sequence[_Item], count: int) -> list[_Item]:
    """Return up to ``count`` >= 1 items, evenly spread from the first to the last.

    Lists of pictures are sorted by folder, so every class gets its share. Of no items there are none.
    """
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def some_pictures(folder: Path | None, count: int) -> list[Path]:
    """Return up to ``count`` pictures of a folder, evenly spread over it; None takes the pictures that ship.

    Raises:
        InputError: there is no folder, or no picture in it.
    """
    return spread(pictures_in(folder or catalogue.folder("calibration_data")), count)


def shipped_pictures() -> list[Path]:
    """Return the pictures that stand for the camera's view; none where this installation has none."""
    try:
        return pictures_in(catalogue.folder("calibration_data"))
    except InputError:
        return []
