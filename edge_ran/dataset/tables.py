"""The text of a manifest as a table of cells: CSV, JSON, JSON lines, or a list of names and labels."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from edge_ran import files
from edge_ran.dataset import array_commands, foreign
from edge_ran.dataset.cvat import of_xml
from edge_ran.dataset.json_tables import Row, check_cells, of_json, of_json_lines, of_via, table_of
from edge_ran.dataset.lists import of_list
from edge_ran.errors import InputError
from edge_ran.labels import decode_text
from edge_ran.picture import PICTURE_SUFFIXES

# Manifests that Edge Impulse, FiftyOne and CVAT export beside the pictures.
BESIDE = ("info.labels", "labels.json", "annotations.xml")
MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".manifest", ".json", ".txt", ".lst", ".labels", ".xml")
_JSON_LINES, _JSON = (".jsonl", ".ndjson", ".manifest"), (".json", ".labels")
_VIA = ["filename", "file_size", "file_attributes", "region_count"]
_FEW, _FEWEST_PIXELS = 10, 64  # rows that are looked at for pixels; numbers of the smallest picture, 8 x 8


def read_table(source: Path) -> list[Row]:
    """Return the lines of a manifest that are not empty. The first may name the columns; of JSON it does.

    Raises:
        InputError: it is empty, no such text, or gives a picture several labels.
    """
    rows = _rows(source)
    if not rows:
        remedy = '{"image": …, "label": …} for each picture' if is_json(source) else "its first line is: image,label"
        raise InputError(f"manifest {source} is empty", remedy)
    return rows


def is_json(source: Path) -> bool:
    """Whether a manifest is read as JSON."""
    return source.suffix.lower() in (*_JSON_LINES, *_JSON)


def is_list(source: Path) -> bool:
    """Whether a manifest's name says that it may be a list of names and labels, without names of columns."""
    return source.suffix.lower() in (".txt", ".lst")


def _rows(source: Path) -> list[Row]:
    data = files.read_bytes(source, "manifest")
    text = decode_text(data, f"manifest {source}", str(source))
    if source.suffix.lower() in _JSON_LINES:
        return of_json_lines(source, text)
    if source.suffix.lower() in _JSON:
        return of_json(source, text)
    if source.suffix.lower() == ".xml":
        return of_xml(source, text)
    first = text.partition("\n")[0].strip()
    delimiter, skipped = max(",;\t", key=first.count), 0
    if source.suffix.lower() not in (".csv", ".tsv") and delimiter not in first:
        return of_list(source, text)
    if first.lower().startswith("sep=") and len(first) == 5:  # Excel's word for what divides
        delimiter, skipped = first[4], 1
        text = text.partition("\n")[2]
    text, comments = _without_comments(text, delimiter)
    skipped += comments
    first = text.partition("\n")[0].strip()
    delimiter = max(",;\t", key=first.count) if comments else delimiter
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = [(reader.line_num + skipped, cells) for cells in reader]
    except csv.Error as error:
        raise InputError(f"manifest {source}, line {reader.line_num + skipped}: {error}", "save it as CSV") from error
    rows = [(number, cells) for number, cells in rows if any(cell.strip() for cell in cells)]
    if rows and "\n" in (last := rows[-1][1][-1]).strip() and not text.rstrip().endswith('"'):
        what = f"manifest {source}, line {rows[-1][0]}: a cell goes on from the lines before: {last.split()[0]!r}, …"
        raise InputError(what, "close its quotation mark, or write it in one line")
    check_cells(source, max((len(cells) for _, cells in rows[:1]), default=0), [len(cells) for _, cells in rows])
    if any(_holds_pixels(cells) for _, cells in rows[:_FEW]):
        command = array_commands.of_table(str(source), rows[0][1], rows[1][1]) if len(rows) > 1 else ""
        raise InputError(f"manifest {source} holds pixels, not names of pictures", command or foreign.AS_ARRAYS)
    return _of_via(source, rows) if rows and rows[0][1][:4] == _VIA else _without_marks(rows)


def _without_comments(text: str, delimiter: str) -> tuple[str, int]:
    """A text without the lines before the table that begin with ``#``, and their number.

    One that has as many cells as the line of a picture right below it names the columns.
    """
    lines, count = text.splitlines(keepends=True) if text.startswith("#") else [], 0
    while count < len(lines) - 1 and lines[count].startswith("#"):
        count += 1
    if not count:
        return text, 0
    cells = lines[count].split(delimiter)
    if lines[count - 1].count(delimiter) == len(cells) - 1 and any(map(_is_picture, cells)):
        return "".join([lines[count - 1].lstrip("# "), *lines[count:]]), count - 1
    return "".join(lines[count:]), count


def _is_picture(cell: str) -> bool:
    return cell.strip().lower().endswith(PICTURE_SUFFIXES)


def _without_marks(rows: Sequence[Row]) -> list[Row]:
    """Rows without single quotation marks, where all the cells of a column below its name stand in them."""
    width = min((len(cells) for _, cells in rows), default=0)
    marked = {p for p in range(width) if all(re.fullmatch(r"'[^']+'", cells[p].strip()) for _, cells in rows[1:])}
    if not marked or len(rows) < 2:
        return list(rows)
    bare = [[cell.strip().strip("'") if p in marked else cell for p, cell in enumerate(cells)] for _, cells in rows]
    return [(number, cells) for (number, _), cells in zip(rows, bare, strict=True)]


def _of_via(source: Path, rows: Sequence[Row]) -> list[Row]:
    """The VGG Image Annotator's CSV: one line a region, what is said of the whole picture in JSON."""
    found = []
    for number, (name, _, told, count, *_) in ((number, [*cells, *[""] * 4]) for number, cells in rows[1:]):
        with contextlib.suppress(ValueError, RecursionError):
            one = {"filename": name, "file_attributes": json.loads(told), "regions": count.strip("0")}
            found.append((number, of_via(source, one)))
    return table_of(source, found)


def _holds_pixels(cells: Sequence[str]) -> bool:
    """Whether a row is a picture: numbers of 0 to 255 in cells of their own, as MNIST has it, or in one, as FER2013."""
    numbers = [cell.strip() for cell in cells]
    numbers = max([[cell for cell in numbers if cell.isdigit()], *map(str.split, numbers)], key=len)
    if len(numbers) < _FEWEST_PIXELS or not all(number.isascii() and number.isdigit() for number in numbers):
        return False
    return 1 < max(int(number[:9]) for number in numbers) < 256  # 0 and 1 alone: a column for each class
