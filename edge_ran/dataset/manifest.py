"""A manifest of labelled images, as people and programs write them: CSV, JSON, or a list of names and labels."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote

from edge_ran.dataset.class_names import names_beside
from edge_ran.dataset.clips import CLIP_SUFFIXES, clip_rows
from edge_ran.dataset.columns import NO_SPLIT, Columns, find_columns
from edge_ran.dataset.json_tables import several_labels
from edge_ran.dataset.samples import SPLIT_NAMES, Sample, split_name
from edge_ran.dataset.tables import read_table
from edge_ran.errors import InputError
from edge_ran.folder_walk import check_name, folders_in, walk
from edge_ran.labels import clean_label
from edge_ran.picture import PICTURE_SUFFIXES

_SHOWN = 300  # letters of a name in an error line
_LISTS = (".txt", ".csv", ".tsv", ".lst", ".jsonl")
_END_OF_LIST = re.compile(r"[ _-]?(list|labels?|set|data|annotations?|images)$")
_FEW = 50  # names that are looked for, until one is there
_NO_LABELS = {"", "nan", "n/a", "#n/a", "<na>", "null"}  # what pandas, R and Excel write where there is none
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
_MOST_COLUMNS, _MOST_ROWS = 20, 2000  # of a table beside folders, that are looked at
# A class with the places of its boxes, perhaps several times: Kaggle's ImageNet.
_BOXED = re.compile(r"(\S+)( \d+){4}( \1( \d+){4})*")


@dataclass(frozen=True)
class Manifest:
    """The samples of a manifest, and what the user should know of how it was read."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


class _Finder:
    """Finds the pictures that a manifest names: from the folder where it lies, one beside it, or the one above.

    Where several of these have the first picture, train.csv means train, or train_images. The names may begin with
    folders of another machine: ``gs://bucket/daisy/1.jpg`` is ``daisy/1.jpg``.
    """

    def __init__(self, source: Path) -> None:
        self._source, self.root, self._left_out = source, source.parent, 0
        self._is_lost = False  # none of the pictures is where it should be
        above = source.absolute().parent.parent
        self._near = [[one, *_with_pictures(one)] for one in (source.parent, above)]
        self._names: dict[str, frozenset[str]] = {}

    def settle(self, images: Sequence[str]) -> None:
        """Choose the folder, and the parts of names to leave out, by the first of these pictures that is found."""
        for image in filter(None, images[:_FEW]):
            if found := self._places(image):
                self.root, self._left_out = found
                return
        self._is_lost = True

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
        parts = _parts(image) if self._is_lost else ()
        paths = self._below.get(_number(_folded(parts[-1])), []) if parts else []
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
            for left_out in range(len(_parts(image))):
                names = _relative(image, left_out)
                found = [root for root in folders if self._may_hold(root, names)]
                found = [root for root in found if _existing(root, image, left_out)]
                own = [folder for folder in found if folder.name.lower().startswith(self._source.stem.lower())]
                one = own if len(found) > 1 else found
                if len(one) == 1:
                    return one[0], left_out
        return None


def from_manifest(source: Path, columns: Columns, clip_step_s: float) -> Manifest:
    """List the samples of a manifest. Raises InputError where it is no such table, or names missing files."""
    samples: list[Sample] = []
    missing: list[str] = []
    finder = _Finder(source)
    layout = find_columns(source, read_table(source), columns, finder.is_there)
    finder.settle([layout.cell(cells, "image") for _, cells in layout.body])
    for number, cells in layout.body:
        where = f"manifest {source}, line {number}"
        image, label, group, split = (layout.cell(cells, kind) for kind in ("image", "label", "group", "split"))
        if not image or label.lower() in _NO_LABELS:
            name = layout.names[layout.places["label"] or 0]
            raise InputError(f"{where}: image or {name} is empty", "fill it in, or leave such lines out")
        check_name(Path(image))
        split = split_name("" if split.lower() == NO_SPLIT else split, where)
        label, group = _class(label, f"{where}: {image}"), clean_label(group)
        if not label:
            raise InputError(f"{where}: {image} has no label", "leave such lines out")
        path = finder.find(image, label)
        if path is None:
            missing.append(image)
        elif path.suffix.lower() in CLIP_SUFFIXES:
            samples += [Sample(path, label, group or image, split, row) for row in clip_rows(path, clip_step_s)]
        else:
            samples.append(Sample(path, label, group, split))
    if missing and (frames := finder.folder(missing[0])):
        classes = shlex.quote(str(frames.parent.parent))
        what = f"manifest {source} names folders of frames, not pictures; the first: {frames}"
        raise InputError(what, f"if the folders above them are the classes: edge-ran dataset {classes}")
    if missing:
        first = str(finder.root / missing[0])[:_SHOWN]
        raise InputError(
            f"manifest {source} names {len(missing)} missing files; the first: {first}",
            f"paths count from {finder.root}; correct them, or move the manifest",
        )
    if not samples:
        raise InputError(f"manifest {source} lists no picture", "add lines: image,label")
    if all(re.fullmatch(r"\d+(\.0+)?", sample.label) for sample in samples):  # pandas, where some are missing
        samples = [dataclasses.replace(sample, label=sample.label.partition(".")[0]) for sample in samples]
    names, told = names_beside(source, {sample.label for sample in samples})
    if names:
        samples = [dataclasses.replace(sample, label=names[sample.label]) for sample in samples]
    notes = _check_several(samples, source)
    if told:
        first = min(names, key=int)
        notes.append(f"the names of the classes are from {told} beside {source.name}: {first} is {names[first]!r}")
    notes += layout.notes
    if layout.shared:
        samples, note = _with_shared(samples, layout.shared)
        notes.append(note)
    once = _once(samples, source)
    if again := len(samples) - len(once):
        notes.append(f"lines of {source.name} that name a picture again, with the same class, count once: {again}")
    return Manifest(tuple(once), tuple(notes))


def _with_shared(samples: list[Sample], column: str) -> tuple[list[Sample], str]:
    """The samples with the groups that a column told by its name, or without, where a class has one group alone."""
    groups: dict[str, set[str]] = {}
    for sample in samples:
        groups.setdefault(sample.label, set()).add(sample.group)
    if min(map(len, groups.values())) > 1:
        return samples, f"pictures of one {column!r} stay together in a split; --group-column names another"
    bare = [dataclasses.replace(sample, group="") if sample.row < 0 else sample for sample in samples]
    return (
        bare,
        f"pictures of one {column!r} may be in two splits, as a class has one alone; --group-column keeps them",
    )


def _check_several(samples: Sequence[Sample], source: Path) -> list[str]:
    """Raise InputError where a label is several of the others: "cat,dog" beside cat and dog.

    Returns:
        a note where only blanks stand between them: "cherry tomato" is a class beside cherry and tomato.
    """
    labels, blanks = {sample.label for sample in samples}, set[str]()
    for sample in samples:
        parts = set(re.split(r"\s*[,;|]\s*", sample.label))
        if len(parts) > 1 and parts <= labels:
            raise several_labels(f"manifest {source}: {sample.path.name}", parts)
        words = sample.label.split()
        blanks |= {sample.label} if len(words) > 1 and labels.issuperset(words) else set()
    return [f"classes of their own, though their words are classes, too: {', '.join(sorted(blanks))}"] if blanks else []


def _once(samples: Sequence[Sample], source: Path) -> Sequence[Sample]:
    """The samples without those that are listed again. Raises InputError where one has two classes in a split."""
    found: dict[tuple[Path, int, str], Sample] = {}
    for sample in samples:
        first = found.setdefault((sample.path, sample.row, sample.split), sample)
        if first.label != sample.label:
            raise several_labels(f"manifest {source}: {sample.path.name}", {first.label, sample.label})
    return list(found.values())


def split_lists(source: Path, columns: Columns) -> list[tuple[Path, str]]:
    """Find the manifests of a folder that are called as splits are, each with its split: train.txt, val_list.txt.

    Those without labels, such as a competition's test.csv, are left out. Nothing unless there are two or more, one for
    training, and where there are more folders than one: these may be the classes.
    """
    if len(folders_in(source)) > 1:
        return []
    paths = [path for path in sorted(source.iterdir()) if path.suffix.lower() in _LISTS and path.is_file()]
    splits = {path: SPLIT_NAMES.get(_END_OF_LIST.sub("", path.stem.lower()), "") for path in paths}
    named = [(path, split) for path, split in splits.items() if split]
    found = []
    for path, split in named if len(named) > 1 else []:
        with contextlib.suppress(InputError):
            find_columns(path, read_table(path), columns, _Finder(path).is_there)
            found.append((path, split))
    return found if "train" in {split for _, split in found} else []


def lists_pictures(table: Path) -> bool:
    """Whether a file is a manifest, and one of its first pictures is there."""
    finder = _Finder(table)
    try:
        layout = find_columns(table, read_table(table), Columns(), finder.is_there)
    except InputError:
        return False
    return any(finder.is_there(layout.cell(cells, "image")) for _, cells in layout.body[:_FEW])


def divides_otherwise(table: Path, are_parts: bool) -> bool:
    """Whether a table beside folders names pictures in them, and its classes are not one for each folder.

    Args:
        table: the manifest; one that cannot be read does nothing.
        are_parts: the folders look like parts of the data: then the table counts even where its labels are not found.
    """
    finder, folders = _Finder(table), set[tuple[str, str]]()
    try:
        rows = read_table(table)
    except InputError:
        return False
    if not any(finder.is_there(cell.strip()) for _, cells in rows[:_FEW] for cell in cells[:_MOST_COLUMNS]):
        return False
    try:
        layout = find_columns(table, rows, Columns(), finder.is_there)
    except InputError:
        return are_parts
    finder.settle([layout.cell(cells, "image") for _, cells in layout.body])
    for _, cells in layout.body[:_MOST_ROWS]:
        path = finder.find(layout.cell(cells, "image"))
        if path is not None and path.is_relative_to(table.parent) and path.parent != table.parent:
            folders.add((path.relative_to(table.parent).parts[0], layout.cell(cells, "label")))
    return len(folders) > len({folder for folder, _ in folders}) or len(folders) > len({label for _, label in folders})


def _class(label: str, where: str) -> str:
    """The class in a cell: one name, also in a list of one (["cat"]), as Label Studio's choices, or with its boxes."""
    if label[0] == "{" and label[-1] == "}":
        with contextlib.suppress(ValueError, RecursionError):
            told = json.loads(label)
            if isinstance(told.get("choices"), list):
                label = json.dumps(told["choices"])
    if label[0] == "[" and label[-1] == "]":
        for text in (label, label.replace("'", '"')):  # as JSON and as Python write it
            with contextlib.suppress(ValueError, RecursionError):
                names = {str(name) for name in json.loads(text)}
                if len(names) > 1:
                    raise several_labels(where, names)
                return clean_label(min(names, default=""))
    if _BOXED.fullmatch(label):
        return clean_label(label.partition(" ")[0])
    return clean_label(label)


def _number(name: str) -> str:
    """A number without the zeros before it, which Excel takes away; another name as it is."""
    return name.lstrip("0") if name.isdecimal() else name


def _with_pictures(folder: Path) -> list[Path]:
    return [one for one in folders_in(folder) if one.name.lower() not in _NO_PICTURES]


def _without_digits(folder: Path) -> str:
    return re.sub(r"\d+", "", folder.name)


def _parts(image: str) -> tuple[str, ...]:
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
            parts = _parts(name)[left_out:]
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
