"""The text of a manifest as a table of cells: CSV, JSON, JSON lines, or a list of names and labels."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from edge_ran import files
from edge_ran.errors import InputError
from edge_ran.picture import PICTURE_SUFFIXES

Row: TypeAlias = tuple[int, list[str]]  # its line's number, and its cells

BESIDE = ("info.labels", "labels.json")  # manifests that Edge Impulse and FiftyOne export beside the pictures
MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".lst", ".labels")
_LISTED = re.compile(rf"(.+(?:{'|'.join(map(re.escape, PICTURE_SUFFIXES))}))\s+(.+)", re.IGNORECASE)
_NUMBERED = re.compile(r"(\S+)\s+(\d+)(?:\s+\d+)+")  # Oxford's pets: name, class, and more numbers
_NUMBERS = re.compile(r"\d+(\s+\d+)+")


def read_table(source: Path) -> list[Row]:
    """Return the lines of a manifest that are not empty. The first may name the columns; of JSON it does.

    Raises:
        InputError: it is empty, no such text, or gives a picture several labels.
    """
    rows = _rows(source)
    if not rows:
        raise InputError(f"manifest {source} is empty", "its first line is: image,label")
    return rows


def is_list(source: Path) -> bool:
    """Whether a manifest's name says that it may be a list of names and labels, without names of columns."""
    return source.suffix.lower() in (".txt", ".lst")


def _rows(source: Path) -> list[Row]:
    data = files.read_bytes(source, "manifest")
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"manifest {source} is not UTF-8 text", "save it as UTF-8 CSV") from error
    if source.suffix.lower() == ".jsonl":
        return _json_lines(source, text)
    if source.suffix.lower() in (".json", ".labels"):
        return _json(source, text)
    first = text.partition("\n")[0].strip()
    delimiter, skipped = max(",;\t", key=first.count), 0
    if source.suffix.lower() not in (".csv", ".tsv") and delimiter not in first:
        return _listed(source, text)
    if first.lower().startswith("sep=") and len(first) == 5:  # Excel's word for what divides
        delimiter, skipped = first[4], 1
        text = text.partition("\n")[2]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(reader.line_num + skipped, cells) for cells in reader]
    except csv.Error as error:
        raise InputError(f"manifest {source}, line {reader.line_num + skipped}: {error}", "save it as CSV") from error
    return [(number, cells) for number, cells in rows if any(cell.strip() for cell in cells)]


def _listed(source: Path, text: str) -> list[Row]:
    """A list of names, blanks and labels, as Caffe and PaddlePaddle write it; both may hold blanks themselves."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#"):
            continue
        found = _LISTED.fullmatch(line.strip())
        if found and _NUMBERS.fullmatch(found[2]):
            what = (
                f"manifest {source}, line {number}: {found[1]} has the labels {found[2]}; a picture has one class here"
            )
            raise InputError(what, "leave such lines out")
        several = None if found else _NUMBERED.fullmatch(line.strip())
        cells = [found[1], found[2]] if found else [several[1], several[2]] if several else line.rsplit(None, 1)
        if cells:
            rows.append((number, cells))
    return rows


def _json_lines(source: Path, text: str) -> list[Row]:
    """A table of an object a line, as ``metadata.jsonl`` of Hugging Face's image folders is."""
    rows: list[tuple[int, Mapping[str, object]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise InputError(f"manifest {source}, line {number}: no JSON object", '{"file_name": …, "label": …}')
            rows.append((number, row))
    return _of_objects(rows)


def _json(source: Path, text: str) -> list[Row]:
    """A list of objects, names with their labels, or what Edge Impulse exports."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"manifest {source} is no JSON", "save it again") from error
    remedy = 'it is a list of objects: [{"image": …, "label": …}, …]'
    if isinstance(value, dict):
        if "images" in value and "annotations" in value:
            what, remedy = f"manifest {source} lists what is in pictures (COCO), not their classes", "list.csv"
            raise InputError(what, f"list the pictures with their classes in {source.parent}/{remedy}: image,label")
        classes, labels, assets = (value.get(key) for key in ("classes", "labels", "assets"))
        if isinstance(value.get("files"), list):
            value = [_of_edge_impulse(one) for one in value["files"] if isinstance(one, dict)]
        elif isinstance(assets, dict):
            value = [_of_vott(source, one) for one in assets.values() if isinstance(one, dict)]
        elif isinstance(classes, list) and isinstance(labels, dict):  # FiftyOne: numbers of classes
            known = dict(enumerate(classes))
            places = {name: label for name, label in labels.items() if isinstance(label, int)}
            value = [{"image": name, "label": known.get(label)} for name, label in places.items()]
        elif value and all(isinstance(label, str | int) for label in value.values()):
            value = [{"image": name, "label": label} for name, label in value.items()]
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InputError(f"manifest {source} is JSON, but no list of pictures with labels", remedy)
    return _of_objects(list(enumerate(value, 1)))


def _of_edge_impulse(one: Mapping[str, object]) -> dict[str, object]:
    label = one.get("label")
    if isinstance(label, dict):
        label = label.get("label")
    return {"image": one.get("path"), "label": label, "split": one.get("category")}


def _of_vott(source: Path, one: Mapping[str, object]) -> dict[str, object]:
    asset, regions = one.get("asset"), one.get("regions")
    name = asset.get("name") if isinstance(asset, dict) else None
    boxes = [region for region in regions if isinstance(region, dict)] if isinstance(regions, list) else []
    lists = [box["tags"] for box in boxes if isinstance(box.get("tags"), list)]
    tags = {str(tag) for tags in lists for tag in tags}
    if len(tags) > 1:
        what = f"manifest {source}: {name} has the labels {', '.join(sorted(tags))}; a picture has one class here"
        raise InputError(what, "leave such pictures out")
    return {"image": name, "label": min(tags, default=None)}


def _of_objects(rows: Sequence[tuple[int, Mapping[str, object]]]) -> list[Row]:
    names = list(dict.fromkeys(name for _, row in rows for name in row))
    cells = [(number, [_text(row.get(name)) for name in names]) for number, row in rows]
    return [(0, list(map(_text, names))), *cells] if rows else []


def _text(value: object) -> str:
    """A cell's text; halves of characters, which JSON can hold and no file's name can, become question marks."""
    return "" if value is None else str(value).encode(errors="replace").decode()
