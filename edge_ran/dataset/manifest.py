"""A manifest of labelled images, as people and programs write them: CSV, JSON, or a list of names and labels."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_ran.dataset.clips import CLIP_SUFFIXES, clip_rows
from edge_ran.dataset.columns import NO_SPLIT, Columns, find_columns
from edge_ran.dataset.finding import Finder, parts_of
from edge_ran.dataset.json_tables import several_labels
from edge_ran.dataset.samples import NO_LABELS, SPLIT_NAMES, Sample, split_name
from edge_ran.dataset.tables import is_json, read_table
from edge_ran.errors import InputError
from edge_ran.folder_walk import check_name, folders_in
from edge_ran.labels import clean_label
from edge_ran.printable import many

_SHOWN = 300  # letters of a name in an error line
_LISTS = (".txt", ".csv", ".tsv", ".lst", ".jsonl")
_END_OF_LIST = re.compile(r"[ _-]?(list|labels?|set|data|annotations?|images)$")
_FEW = 50  # names that are looked for, until one is there
_MOST_COLUMNS, _MOST_ROWS = 20, 2000  # of a table beside folders, that are looked at
# A class with the places of its boxes, perhaps several times: Kaggle's ImageNet.
_BOXED = re.compile(r"(\S+)( \d+){4}( \1( \d+){4})*")


@dataclass(frozen=True)
class Manifest:
    """The samples of a manifest, and what the user should know of how it was read."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


def from_manifest(source: Path, columns: Columns, clip_step_s: float) -> Manifest:
    """List the samples of a manifest. Raises InputError where it is no such table, or names missing files."""
    samples: list[Sample] = []
    missing: list[str] = []
    finder = Finder(source)
    layout = find_columns(source, read_table(source), columns, finder.is_there)
    images = [layout.cell(cells, "image") for _, cells in layout.body]
    finder.settle(images)
    divided, of_splits = _splits_in(images) if layout.places["split"] is None else ({}, "")
    for number, cells in layout.body:
        where = f"manifest {source}, line {number}"
        image, label, group, split = (layout.cell(cells, kind) for kind in ("image", "label", "group", "split"))
        if not image or label.lower() in NO_LABELS:
            name = layout.names[layout.places["label"] or 0]
            raise InputError(f"{where}: image or {name} is empty", "fill it in, or leave such lines out")
        check_name(Path(image))
        _check_lines(source, where, label, group)
        split = divided.get(image) or split_name("" if split.lower() == NO_SPLIT else split, where)
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
    if missing:
        raise _missing(source, missing, finder)
    if not samples:
        raise InputError(f"manifest {source} lists no picture", "add lines: image,label")
    if all(re.fullmatch(r"\d+(\.0+)?", sample.label) for sample in samples):  # pandas, where some are missing
        samples = [dataclasses.replace(sample, label=sample.label.partition(".")[0]) for sample in samples]
    notes = [*_check_several(samples, source), *layout.notes, *finder.notes, *filter(None, [of_splits])]
    if layout.shared:
        samples, note = _with_shared(samples, layout.shared)
        notes.append(note)
    once = _once(samples, source)
    if again := len(samples) - len(once):
        notes.append(f"lines of {source.name} that name a picture again, with the same class, count once: {again}")
    return Manifest(tuple(once), tuple(notes))


def _check_lines(source: Path, where: str, label: str, group: str) -> None:
    """Raise InputError where a cell goes on over lines: rows in it would be lost, and labels are listed one a line."""
    if is_json(source):
        if re.search(r"[\r\n]", label):
            raise InputError(f"{where}: a label has several lines: {label.split()[0]!r}, …", "write it in one line")
    elif cell := next((cell for cell in (label, group) if re.search(r"[\r\n]", cell)), ""):
        what = f"{where}: a cell goes on from the lines before: {cell.split()[0]!r}, …"
        raise InputError(what, "close its quotation mark, or write it in one line")


def _missing(source: Path, missing: Sequence[str], finder: Finder) -> InputError:
    """The error of a manifest that names files which are not there."""
    if frames := finder.folder(missing[0]):
        classes = shlex.quote(str(frames.parent.parent))
        what = f"manifest {source} names folders of frames, not pictures; the first: {frames}"
        return InputError(what, f"if the folders above them are the classes: edge-ran dataset {classes}")
    first = str(finder.root / missing[0])[:_SHOWN]
    return InputError(
        f"manifest {source} names {many(len(missing), 'missing file')}; the first: {first}",
        f"paths count from {finder.root}; correct them, or move the manifest",
    )


def _splits_in(images: Sequence[str]) -> tuple[dict[str, str], str]:
    """The splits that all the names tell, train/cat/1.jpg or RAF-DB's test_0001.jpg, and a note; else nothing.

    Nothing unless there are two. Folders that all names share tell none, as /home/me/dev; of several the first counts
    that divides: val/train/1.jpg is for validation, also where a class is called train.
    """
    names = {image: parts_of(image) or ("",) for image in images}
    first, last = min(names.values(), default=()), max(names.values(), default=())
    alike = [one == other for one, other in zip(first[:-1], last[:-1], strict=False)]
    shared = [*alike, False].index(False)
    told = {image: [SPLIT_NAMES.get(one.lower(), "") for one in parts[shared:-1]] for image, parts in names.items()}
    levels: dict[int, set[str]] = {}
    for splits in told.values():
        for level, split in enumerate(splits):
            levels.setdefault(level, set()).add(split)
    divides = next((level for level in sorted(levels) if _divide(levels[level])), -1)
    found = {image: _split_in(told[image], divides, names[image][-1]) for image in names}
    if not _divide(found.values()):
        return {}, ""
    untold = next((image for image, split in found.items() if not split), "")
    one = next(image for image, split in found.items() if split)
    if untold:
        return {}, f"no splits were taken from the names: {one} is for {found[one]}, but {untold} tells none"
    return found, f"splits were taken from the names: {one} is for {found[one]}"


def _divide(splits: Collection[str]) -> bool:
    return "train" in splits and len({*splits} - {""}) > 1


def _split_in(folders: Sequence[str], divides: int, name: str) -> str:
    """The split of the folder that divides, or the only one in a picture's path, or that its name begins with."""
    if 0 <= divides < len(folders) and folders[divides]:
        return folders[divides]
    if any(folders):
        found = {*folders} - {""}
        return min(found) if len(found) == 1 else ""
    before = re.match(r"([a-z]+)[ _-]\d+\b", name.lower())
    return SPLIT_NAMES.get(before[1], "") if before else ""


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
            find_columns(path, read_table(path), columns, Finder(path).is_there)
            found.append((path, split))
    return found if "train" in {split for _, split in found} else []


def lists_pictures(table: Path) -> bool:
    """Whether a file is a manifest, and one of its first pictures is there."""
    finder = Finder(table)
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
    finder, folders = Finder(table), set[tuple[str, str]]()
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
