"""Manifests in JSON, as labelling programs and data sets write them, as tables of cells."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from edge_ran.dataset.samples import SPLIT_NAMES
from edge_ran.errors import InputError
from edge_ran.picture import PICTURE_SUFFIXES

Row: TypeAlias = tuple[int, list[str]]  # its line's number, and its cells

# Objects that each have keys of their own have a column for each of these keys, in each row.
_MOST_CELLS, _MOST_EMPTY = 50_000_000, 4  # 400 MB; cells for each one that is filled
_DEEPEST = 14  # objects in objects whose values get columns


def of_json_lines(source: Path, text: str) -> list[Row]:
    """Return the table of an object a line, as ``metadata.jsonl`` of Hugging Face's image folders is.

    Raises:
        InputError: a line is no object.
    """
    rows: list[tuple[int, Mapping[str, object]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise InputError(f"manifest {source}, line {number}: no JSON object", '{"file_name": …, "label": …}')
            rows.append((number, _of_line(f"manifest {source}, line {number}", row)))
    return table_of(source, rows)


def of_json(source: Path, text: str) -> list[Row]:
    """Return the table of a list of objects, of names with their labels, or of what labelling programs export.

    Raises:
        InputError: it is no JSON, or of another form; a picture has several labels.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        with contextlib.suppress(InputError):
            return of_json_lines(source, text)  # an object a line, under the usual name
        raise InputError(f"manifest {source} is no JSON", "save it again") from error
    remedy = 'it is a list of objects: [{"image": …, "label": …}, …]'
    if isinstance(value, dict):
        value = value.get("_via_img_metadata", value)
    if isinstance(value, dict):
        if isinstance(value.get("images"), list) and isinstance(value.get("annotations"), list):
            return table_of(source, list(enumerate(_of_coco(source, value), 1)))
        value = _of_pandas(value) or value
    if isinstance(value, dict):
        classes, labels, assets = (value.get(key) for key in ("classes", "labels", "assets"))
        if isinstance(value.get("files"), list):
            value = [_of_edge_impulse(one) for one in value["files"] if isinstance(one, dict)]
        elif isinstance(assets, dict):
            value = [_of_vott(source, one) for one in assets.values() if isinstance(one, dict)]
        elif all(isinstance(one, dict) and "file_attributes" in one for one in value.values()):
            value = [of_via(source, one) for one in value.values()]
        elif _are_described(value):
            value = [{"image": name, **one} for name, one in value.items()]
        elif "classes" in value and isinstance(labels, dict):
            known = dict(enumerate(_listed(classes)))
            value = [_of_fiftyone(source, name, label, known) for name, label in labels.items()]
        elif value and all(isinstance(label, str | int) for label in value.values()):
            value = [{"image": name, "label": label} for name, label in value.items()]
    value = _of_names(value)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InputError(f"manifest {source} is JSON, but no list of pictures with labels", remedy)
    if value and all(isinstance(one.get("annotations"), list) and isinstance(one.get("data"), dict) for one in value):
        value = [_of_label_studio(source, one) for one in value]
    return table_of(source, list(enumerate(value, 1)))


def _of_pandas(value: Mapping[str, object]) -> list[dict[str, object]]:
    """The rows of a table as pandas' ``to_json`` writes it, but as records: split, columns or index; else nothing."""
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        names = list(map(str, columns))
        return [dict(zip(names, row, strict=False)) for row in data]
    tables = [one for one in value.values() if isinstance(one, dict)]
    if len(tables) < len(value) or len(value) < 2:
        return []
    keys = list(tables[0])
    is_plain = all(list(one) == keys and not any(isinstance(v, dict | list) for v in one.values()) for one in tables)
    if not is_plain or not keys:
        return []
    if all(key.isdigit() for key in keys):  # a column each, by the number of the row
        return [{name: one[key] for name, one in zip(value, tables, strict=True)} for key in keys]
    return tables if all(key.isdigit() for key in value) else []


def _are_described(value: Mapping[str, object]) -> bool:
    """Whether pictures' names lead to objects: ``{"1.jpg": {"label": "cat"}}``."""
    return all(isinstance(one, dict) for one in value.values()) and any(
        name.lower().endswith(PICTURE_SUFFIXES) for name in value
    )


def _of_names(value: object) -> object:
    """Lists of pictures in other forms as one of objects: below their classes, below splits, or as [picture, label].

    ``{"cat": ["1.jpg", …]}``, ``{"train": [["1.jpg", 0, "cat"], …]}``.
    """
    if isinstance(value, dict) and value and all(isinstance(one, list) and one for one in value.values()):
        if value.keys() <= SPLIT_NAMES.keys():
            parts = [(split, _of_names(part)) for split, part in value.items()]
            return [{**one, "split": split} for split, part in parts for one in _objects(_listed(part))]
        if all(
            isinstance(name, str) and name.lower().endswith(PICTURE_SUFFIXES)
            for part in value.values()
            for name in part
        ):
            return [{"image": name, "label": label} for label, part in value.items() for name in part]
    pairs = _listed(value)
    if pairs and all(isinstance(one, list) and 2 <= len(one) <= 3 and isinstance(one[0], str) for one in pairs):
        return [{"image": one[0], "label": one[-1]} for one in pairs if isinstance(one, list)]
    return value


def _of_coco(source: Path, value: Mapping[str, Any]) -> list[dict[str, object]]:
    """The pictures of COCO's form where each has a category and no box, as iNaturalist and iWildCam have it."""
    annotations = _objects(value["annotations"])
    if not annotations or any(one.get("bbox") or one.get("segmentation") for one in annotations):
        what = f"manifest {source} lists what is in pictures (COCO), not their classes"
        raise InputError(what, f"list the pictures with their classes in {source.parent}/list.csv: image,label")
    categories = _objects(_listed(value.get("categories")))
    names = {_first(one, "id", "category_id"): _first(one, "name", "scientificName") for one in categories}
    labels: dict[str, set[str]] = {}
    for one in annotations:
        number = _text(one.get("category_id"))
        labels.setdefault(_text(one.get("image_id")), set()).add(names.get(number) or number)
    rows: list[dict[str, object]] = []
    for image in _objects(value["images"]):
        found = labels.get(_first(image, "id", "image_id"), set())
        if len(found) > 1:
            raise several_labels(f"manifest {source}: {image.get('file_name')}", found)
        rows.append({"image": image.get("file_name"), "label": min(found, default="")})
    return rows


def _first(one: Mapping[str, object], *keys: str) -> str:
    """The text of the first of these keys that an object has."""
    return next((_text(one[key]) for key in keys if key in one), "")


def _of_edge_impulse(one: Mapping[str, object]) -> dict[str, object]:
    label = one.get("label")
    if isinstance(label, dict):
        label = label.get("label")
    return {"image": one.get("path"), "label": label, "split": one.get("category")}


def _of_vott(source: Path, one: Mapping[str, object]) -> dict[str, object]:
    asset, regions = one.get("asset"), one.get("regions")
    name = asset.get("name") if isinstance(asset, dict) else None
    tags = {str(tag) for box in _objects(_listed(regions)) for tag in _listed(box.get("tags"))}
    if len(tags) > 1:
        raise several_labels(f"manifest {source}: {name}", tags)
    return {"image": name, "label": min(tags, default=None)}


def _of_fiftyone(source: Path, name: str, label: object, classes: Mapping[int, object]) -> dict[str, object]:
    """A picture's label: a class's number or name, by itself, with its confidence, or in a list."""
    told = [one.get("label") if isinstance(one, dict) else one for one in (_listed(label) or [label])]
    found = {str(classes.get(one) if isinstance(one, int) else one) for one in told if isinstance(one, int | str)}
    if len(found) > 1:
        raise several_labels(f"manifest {source}: {name}", found)
    return {"image": name, "label": min(found - {"None"}, default=None)}


def _of_label_studio(source: Path, one: Mapping[str, Any]) -> dict[str, object]:
    """A task of Label Studio: its first picture, and the choice of all that annotated it."""
    texts = [text for text in one["data"].values() if isinstance(text, str)]
    image = next((text for text in texts if text.lower().endswith(PICTURE_SUFFIXES)), texts[0] if texts else "")
    results = [done["result"] for done in _objects(one["annotations"]) if isinstance(done.get("result"), list)]
    values = [part["value"] for result in results for part in _objects(result) if isinstance(part.get("value"), dict)]
    choices = {str(choice) for value in values for choice in _listed(value.get("choices"))}
    if len(choices) > 1:
        raise several_labels(f"manifest {source}: {image}", choices)
    return {"image": image, "label": min(choices, default=None)}


def of_via(source: Path, one: Mapping[str, Any]) -> dict[str, object]:
    """A picture of the VGG Image Annotator: its name, and what is said of the whole of it.

    Raises:
        InputError: several boxes of an attribute are ticked, or nothing is said but of parts of it.
    """
    told = one["file_attributes"] if isinstance(one["file_attributes"], dict) else {}
    if not told and one.get("regions"):
        what = f"manifest {source} lists what is in pictures, not their classes"
        raise InputError(what, "describe the pictures themselves in VIA: Attributes, File Attributes")
    row: dict[str, object] = {"image": one.get("filename")}
    for name, value in told.items():
        ticked = {key for key, on in value.items() if on} if isinstance(value, dict) else {_text(value)}
        if len(ticked) > 1:
            raise several_labels(f"manifest {source}: {one.get('filename')}", ticked)
        row[name] = next(iter(ticked), None)
    return row


def _of_line(where: str, one: Mapping[str, Any]) -> Mapping[str, object]:
    """An object of JSON lines, or what it means where Vertex AI or SageMaker wrote it."""
    if "classificationAnnotation" in one:
        return _of_vertex(one)
    about = [value for key, value in one.items() if key.endswith("-metadata") and isinstance(value, dict)]
    names = {str(value["class-name"]) for value in about if "class-name" in value}
    if "source-ref" not in one or not names:
        return one
    if len(names) > 1:
        raise several_labels(f"{where}: {one['source-ref']}", names)
    return {"image": one["source-ref"], "label": min(names)}


def _of_vertex(one: Mapping[str, Any]) -> dict[str, object]:
    """A line of Google's Vertex AI."""
    told, marks = one["classificationAnnotation"], one.get("dataItemResourceLabels")
    split = next((v for k, v in marks.items() if k.endswith("ml_use")), None) if isinstance(marks, dict) else None
    label = told.get("displayName") if isinstance(told, dict) else told
    return {"image": one.get("imageGcsUri"), "label": label, "split": split}


def several_labels(what: str, labels: Iterable[str]) -> InputError:
    """The error for a picture with more than one label."""
    names = ", ".join(sorted(labels))
    return InputError(f"{what} has the labels {names}; a picture has one class here", "leave such pictures out")


def _objects(values: Sequence[object]) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)]


def _listed(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []


def table_of(source: Path, rows: Sequence[tuple[int, Mapping[str, object]]]) -> list[Row]:
    """Return objects as a table: a first row with the names of all their values, then one for each object.

    Raises:
        InputError: as ``check_cells`` does.
    """
    flat = [(number, dict(_flat(row))) for number, row in rows]
    names = list(dict.fromkeys(name for _, row in flat for name in row))
    check_cells(source, len(names), [len(row) for _, row in flat])
    cells = [(number, [row.get(name, "") for name in names]) for number, row in flat]
    return [(0, names), *cells] if rows else []


def check_cells(source: Path, columns: int, filled: Sequence[int]) -> None:
    """Raise InputError where a table is large because most of its rows lack most of its columns.

    Args:
        source: the manifest.
        columns: the number of its columns.
        filled: of each row, the number of cells that it has.
    """
    if columns * len(filled) > max(_MOST_CELLS, _MOST_EMPTY * sum(filled)):
        what = f"manifest {source} is a table of {len(filled):,} rows and {columns:,} columns, most of it empty"
        raise InputError(what, "write one with the columns image,label")


def _flat(value: object, name: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The texts in a value, each with its column's name: {"a": {"b": 1}} has the column a.b, [1] is 1."""
    if isinstance(value, dict) and depth < _DEEPEST:
        for key, one in value.items():
            yield from _flat(one, f"{name}.{_text(key)}" if name else _text(key), depth + 1)
    elif isinstance(value, list) and len(value) == 1 and depth < _DEEPEST:
        yield from _flat(value[0], name, depth + 1)
    elif isinstance(value, list):
        plain = all(isinstance(one, str | int | float) for one in value)
        yield name, _text(json.dumps(value)) if value and plain else ""
    else:
        yield name, "" if isinstance(value, dict) else _text(value)


def _text(value: object) -> str:
    """A cell's text; halves of characters, which JSON can hold and no file's name can, become question marks."""
    return "" if value is None else str(value).encode(errors="replace").decode()
