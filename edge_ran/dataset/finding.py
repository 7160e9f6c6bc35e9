"""Finds the pictures that a manifest names, wherever they lie and however their names are written."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote

from edge_ran.dataset.clips import CLIP_SUFFIXES
from edge_ran.folder_walk import folders_in, walk
from edge_ran.picture import PICTURE_SUFFIXES

_FEW = 50  # names that are looked for, until one is there
# Folders beside a manifest that hold what is in the pictures, in lower case.
_NO_PICTURES = {
    "trimaps",
    "masks",
    "mask",
    "segmentation",
    "segmentations",
    "groundtruth",
    "ground_truth",
    "gt",
    "xmls",
}


class Finder:
    """Finds the pictures that a manifest names: from the folder where it lies, one beside it, or the one above.

    Where several of these have the first picture, train.csv means train, or train_images. The names may begin with
    folders of another machine: ``gs://bucket/daisy/1.jpg`` is ``daisy/1.jpg``. ``notes`` say what else they lack.
    """

    def __init__(self, source: Path) -> None:
        self._source, self.root, self._left_out = source, source.parent, 0
        self._is_lost = False  # none of the pictures is where it should be
        above = source.absolute().parent.parent
        self._near = [[one, *_with_pictures(one)] for one in (source.parent, above)]
        self._names: dict[str, frozenset[str]] = {}
        self._ending = ""
        self.notes: list[str] = []

    def settle(self, images: Sequence[str]) -> None:
        """Choose the folder, and the parts of names to leave out, by the first of these pictures that is found."""
        for image in filter(None, images[:_FEW]):
            if found := self._places(image):
                self.root, self._left_out = found
                return
        self._is_lost = True
        self._ending = self._ending_of([parts_of(image)[-1] for image in images[:_FEW] if parts_of(image)])
        if self._ending:
            self.notes.append(f"the pictures' names end in {self._ending!r}, which the list leaves out")

    def _ending_of(self, names: Sequence[str]) -> str:
        """What stands in each picture's name behind that in the list: RAF-DB's 1.jpg is 1_aligned.jpg; else nothing."""
        stems = [_folded(os.path.splitext(name)[0]) for name in names]
        if not stems or any(_number(stem) in self._below for stem in stems):
            return ""
        ends = {name[len(stems[0]) :] for name in self._below if name.startswith(stems[0]) and "." not in name}
        fit = [end for end in ends if re.match(r"[ _-]", end) and all(stem + end in self._below for stem in stems)]
        return fit[0] if len(fit) == 1 else ""

    def is_there(self, image: str) -> bool:
        """Whether a picture or clip of that name is found in any way."""
        return bool(image) and self._places(image) is not None

    def folder(self, name: str) -> Path | None:
        """The folder of that name; None where there is none."""
        places = (root / name for folders in self._near for root in folders)
        with contextlib.suppress(OSError, ValueError):  # what is in a cell may be no name at all
            return next((place for place in places if place.is_dir()), None)
        return None

    def find(self, image: str, label: str = "") -> Path | None:
        """The picture or clip of that name; None when it is missing. Of several, the one in a folder of its class."""
        found = (_existing(root, image, n) for root in self._roots for n in {0: 0, self._left_out: 0})
        if path := next(filter(None, found), None):
            return path
        parts = parts_of(image) if self._is_lost else ()
        name = os.path.splitext(parts[-1])[0] + self._ending if parts and self._ending else "".join(parts[-1:])
        paths = self._below.get(_number(_folded(name)), []) if parts else []
        classed = [path for path in paths if path.parent.name == label]
        return paths[0] if len(paths) == 1 else classed[0] if len(classed) == 1 else None

    @functools.cached_property
    def _below(self) -> dict[str, list[Path]]:
        """The pictures and clips anywhere below the folder of the manifest, by name, with and without its ending."""
        found: dict[str, list[Path]] = {}
        for place in walk(self._source.parent):
            for name in (name for name in place.files if name.lower().endswith((*PICTURE_SUFFIXES, *CLIP_SUFFIXES))):
                for key in (name, os.path.splitext(name)[0]):
                    found.setdefault(_number(_folded(key)), []).append(place.folder / name)
        return found

    @functools.cached_property
    def _roots(self) -> list[Path]:
        """The folder of the pictures, and those beside it that are called the same up to a number: images_part_1, …"""
        alike = [one for one in self._near[0][1:] if _without_digits(one) == _without_digits(self.root)]
        return [self.root, *(one for one in alike if one != self.root and self.root in self._near[0][1:])]

    def _may_hold(self, root: Path, names: Sequence[str]) -> bool:
        """Whether a folder may have such a file: hundreds of folders may lie beside a manifest, each is listed once."""
        for name in names:
            folder, last = os.path.split(os.path.join(root, name))
            if folder not in self._names:
                self._names[folder] = _listed(folder)
            if _folded(last) in self._names[folder]:
                return True
        return False

    def _places(self, image: str) -> tuple[Path, int] | None:
        here = self._source.parent
        if _existing(here, image, 0):
            return here, 0
        for folders in self._near:
            for left_out in range(len(parts_of(image))):
                names = _relative(image, left_out)
                found = [root for root in folders if self._may_hold(root, names)]
                found = [root for root in found if _existing(root, image, left_out)]
                own = [folder for folder in found if folder.name.lower().startswith(self._source.stem.lower())]
                one = own if len(found) > 1 else found
                if len(one) == 1:
                    return one[0], left_out
        return None


def _number(name: str) -> str:
    """A number without the zeros before it, which Excel takes away; another name as it is."""
    return name.lstrip("0") if name.isdecimal() else name


def _with_pictures(folder: Path) -> list[Path]:
    return [one for one in folders_in(folder) if one.name.lower() not in _NO_PICTURES]


def _without_digits(folder: Path) -> str:
    return re.sub(r"\d+", "", folder.name)


def parts_of(image: str) -> tuple[str, ...]:
    """The folders and the name in a path of any system, without ``C:``, ``gs:`` and what is at the root."""
    path = PureWindowsPath(image.partition("://")[2] or image)
    return path.parts[1:] if path.anchor else path.parts


def _folded(name: str) -> str:
    """A name as file systems compare them that tell neither capitals nor forms of Unicode apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _listed(folder: str) -> frozenset[str]:
    """The names in a folder, with and without the endings of pictures; none where there is no such folder."""
    try:
        names = list(map(_folded, os.listdir(folder)))
    except (OSError, ValueError):
        return frozenset()
    return frozenset([*names, *(os.path.splitext(name)[0] for name in names if name.endswith(PICTURE_SUFFIXES))])


def _relative(image: str, left_out: int) -> list[str]:
    """The paths that a cell may mean, below a folder, without their first ``left_out`` parts."""
    paths: list[str] = []
    for name in dict.fromkeys((image, unquote(image))):  # "my%20dog.jpg", as addresses are written
        if left_out:
            parts = parts_of(name)[left_out:]
            paths += [os.path.join(*parts)] if parts and ".." not in parts else []
        else:
            paths += [name, *([os.path.join("", *PureWindowsPath(name).parts)] if "\\" in name else [])]
    return paths


def _existing(root: Path, image: str, left_out: int) -> Path | None:
    """The file of that name below a folder: Windows may have written it, or a program that leaves the ending out."""
    paths = [root / name for name in _relative(image, left_out)]
    for path in (path for path in paths if path.name):
        same = [path, *(path.with_suffix(ending) for ending in (path.suffix.lower(), path.suffix.upper()) if ending)]
        more = [path.name + ending for suffix in PICTURE_SUFFIXES for ending in (suffix, suffix.upper())]
        with contextlib.suppress(OSError, ValueError):  # what is in a cell may be no name at all
            if found := next((one for one in (*same, *map(path.with_name, more)) if one.is_file()), None):
                return found
    return None
