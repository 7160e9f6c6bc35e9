"""A manifest of labelled images, as people and programs write them: CSV, JSON lines, or a list of names and labels."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from edge_ran import files
from edge_ran.dataset.clips import CLIP_SUFFIXES, clip_rows
from edge_ran.dataset.samples import SPLIT_NAMES, Sample, some, split_name
from edge_ran.errors import InputError
from edge_ran.folder_walk import check_name, folders_in
from edge_ran.labels import clean_label
from edge_ran.picture import PICTURE_SUFFIXES

# The names that columns have, in lower case; of several that are there, the first counts.
KNOWN_NAMES = {
    "image": (
        "image",
        "filename",
        "file",
        "path",
        "filepath",
        "file_name",
        "file_path",
        "image_path",
        "image_id",
        "img",
        "picture",
    ),
    "label": ("label", "class", "category", "target", "class_name", "label_name"),
    "group": ("group",),
    "split": ("split", "set", "subset", "partition"),
}

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt", ".lst")


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a manifest, as the user gave them; an empty one is looked for by ``KNOWN_NAMES``."""

    image: str = ""
    label: str = ""
    group: str = ""
    split: str = ""


@dataclass(frozen=True)
class _Row:
    line: int
    image: str
    label: str
    group: str
    split: str


def from_manifest(source: Path, columns: Columns, clip_step_s: float) -> list[Sample]:
    """List the samples of a manifest. Raises InputError where it is no such table, or names missing files."""
    samples: list[Sample] = []
    missing: list[Path] = []
    rows = _rows(source, columns)
    root = _root(source, rows[0].image) if rows else source.parent
    for row in rows:
        path = _path(root, row.image)
        if not path.is_file():
            missing.append(path)
        elif path.suffix.lower() in CLIP_SUFFIXES:
            numbers = clip_rows(path, clip_step_s)
            samples += [Sample(path, row.label, row.group or row.image, row.split, number) for number in numbers]
        else:
            samples.append(Sample(path, row.label, row.group, row.split))
    if missing:
        raise InputError(
            f"manifest {source} names {len(missing)} missing files; the first: {missing[0]}",
            f"paths count from {root}; correct them, or move the manifest",
        )
    if not samples:
        raise InputError(f"manifest {source} lists no picture", "add lines: image,label")
    return samples


def _rows(source: Path, columns: Columns) -> list[_Row]:
    lines = _lines(source)
    if not lines:
        raise InputError(f"manifest {source} is empty", "its first line is: image,label")
    number, header = lines[0]
    names = [name.strip() for name in header]
    body = lines[1:]
    if not {name.lower() for name in names} & set(KNOWN_NAMES["image"]) and not columns.image:
        is_list = source.suffix.lower() in (".txt", ".lst")
        if len(names) < 2 or not (is_list or _exists(source, names[0])):
            _no_column(source, "image", names)
        names, body = ["image", "label", "group", "split"][: len(names)], lines  # there is no header
        if source.suffix.lower() == ".lst" and len(header) > 2:
            names = ["number", "label", *[""] * (len(header) - 3), "image"]  # as MXNet's im2rec writes it
    if not columns.label:
        names, body = _with_class_column(source, names, body)
    places = {kind: _place(source, kind, getattr(columns, kind), names, body) for kind in KNOWN_NAMES}
    found = []
    for number, cells in body:
        values = {k: cells[p].strip() if p is not None and p < len(cells) else "" for k, p in places.items()}
        if not values["image"] or not values["label"]:
            label = names[places["label"] or 0]
            raise InputError(f"manifest {source}, line {number}: image or {label} is empty", "fill it in")
        check_name(Path(values["image"]))
        split = split_name(values["split"], f"manifest {source}, line {number}")
        found.append(_Row(number, values["image"], clean_label(values["label"]), clean_label(values["group"]), split))
    return found


def _place(source: Path, kind: str, wanted: str, names: list[str], body: list[tuple[int, list[str]]]) -> int | None:
    """The place of a column: the one that the user named, else the first of the known names."""
    lower = [name.lower() for name in names]
    if wanted:
        if wanted in names or wanted.lower() in lower:
            return names.index(wanted) if wanted in names else lower.index(wanted.lower())
        _no_column(source, kind, names, wanted)
    for name in KNOWN_NAMES[kind]:
        if name in lower:
            place = lower.index(name)
            # "set" may hold anything; it divides the data only where it says train, val and test.
            if kind != "split" or name == "split" or _are_splits(body, place):
                return place
    if kind in ("image", "label"):
        _no_column(source, kind, names)
    return None


def _are_splits(body: list[tuple[int, list[str]]], place: int) -> bool:
    values = {cells[place].strip().lower() for _, cells in body if place < len(cells)} - {""}
    return bool(values) and values <= SPLIT_NAMES.keys()


def _no_column(source: Path, kind: str, names: Sequence[str], wanted: str = "") -> None:
    what = {"image": "pictures", "label": "labels", "group": "groups", "split": "splits"}[kind]
    raise InputError(
        f"manifest {source} has no column {wanted or kind!r}",
        f"its columns are {some(names)}; name that of the {what}: --{kind}-column NAME",
    )


def _with_class_column(
    source: Path, names: list[str], body: list[tuple[int, list[str]]]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Add a column of labels where each class has a column of its own, of 0 and 1, as Roboflow and ISIC write it."""
    known = {name for kind in KNOWN_NAMES.values() for name in kind}
    if {name.lower() for name in names} & set(KNOWN_NAMES["label"]):
        return names, body
    places = [place for place, name in enumerate(names) if name and name.lower() not in known]
    places = [place for place in places if all(place < len(cells) and _flag(cells[place]) for _, cells in body)]
    if len(places) < 2:
        return names, body
    labelled = []
    for number, cells in body:
        classes = [names[place] for place in places if _flag(cells[place]) == "1"]
        if len(classes) != 1:
            raise InputError(
                f"manifest {source}, line {number}: of the classes {some([names[p] for p in places])}, "
                f"{len(classes)} are 1; a picture has one class here",
                "leave such lines out, or name the column of the labels: --label-column NAME",
            )
        labelled.append((number, [*cells[: len(names)], *[""] * (len(names) - len(cells)), classes[0]]))
    return [*names, KNOWN_NAMES["label"][0]], labelled


def _flag(cell: str) -> str:
    """0 or 1, however it is written; else nothing."""
    return {"0": "0", "0.0": "0", "1": "1", "1.0": "1"}.get(cell.strip(), "")


def _root(source: Path, image: str) -> Path:
    """The folder from which the names count: the manifest's own, else the one beside it that has that picture.

    Where several have it, train.csv means train, or train_images.
    """
    if _path(source.parent, image).is_file():
        return source.parent
    found = [folder for folder in folders_in(source.parent) if _path(folder, image).is_file()]
    own = [folder for folder in found if folder.name.lower().startswith(source.stem.lower())]
    one = own if len(found) > 1 else found
    return one[0] if len(one) == 1 else source.parent


def _path(root: Path, image: str) -> Path:
    """The picture or clip of that name: Windows may have written it, or a program that leaves the ending out."""
    named = root / image
    paths = [named, *([root.joinpath(*PureWindowsPath(image).parts)] if "\\" in image else [])]
    endings = ["", *PICTURE_SUFFIXES, *(suffix.upper() for suffix in PICTURE_SUFFIXES)]
    found = (path.with_name(path.name + ending) for path in paths if path.name for ending in endings)
    return next((path for path in found if path.is_file()), named)


def _exists(source: Path, image: str) -> bool:
    image = image.strip()
    return bool(image) and _path(_root(source, image), image).is_file()


def _lines(source: Path) -> list[tuple[int, list[str]]]:
    """The lines of the table that are not empty, with their numbers."""
    data = files.read_bytes(source, "manifest")
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"manifest {source} is not UTF-8 text", "save it as UTF-8 CSV") from error
    if source.suffix.lower() == ".jsonl":
        return _json_lines(source, text)
    first = text.partition("\n")[0].strip()
    delimiter, skipped = max(",;\t", key=first.count), 0
    if source.suffix.lower() not in (".csv", ".tsv") and delimiter not in first:  # a blank before the label
        listed = [(number, line.rsplit(None, 1)) for number, line in enumerate(text.splitlines(), 1)]
        return [(number, cells) for number, cells in listed if cells]
    if first.lower().startswith("sep=") and len(first) == 5:  # Excel's word for what divides
        delimiter, skipped = first[4], 1
        text = text.partition("\n")[2]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(reader.line_num + skipped, cells) for cells in reader]
    except csv.Error as error:
        raise InputError(f"manifest {source}, line {reader.line_num + skipped}: {error}", "save it as CSV") from error
    return [(number, cells) for number, cells in rows if any(cell.strip() for cell in cells)]


def _json_lines(source: Path, text: str) -> list[tuple[int, list[str]]]:
    """A table of an object a line, as ``metadata.jsonl`` of Hugging Face's image folders is."""
    rows: list[tuple[int, dict[str, object]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise InputError(f"manifest {source}, line {number}: no JSON object", '{"file_name": …, "label": …}')
            rows.append((number, row))
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    cells = [(number, ["" if row.get(name) is None else str(row[name]) for name in names]) for number, row in rows]
    return [(0, names), *cells] if rows else []
