"""THE one way to read a list of labels, whether it is a file of its own or lies inside a ``.tflite``."""

from __future__ import annotations

import codecs
import contextlib
import csv
import json
import re
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from edge_ran.errors import InputError
from edge_ran.python_command import python

# "0 red", "0: red", "0,red", "0=red", "0. red", "0) red", "0 - red"; but neither "1.5 mm" nor "3-door car".
_NUMBERED = re.compile(r"(\d{1,9})(?:\s*[:;,=]|[.)-](?=\s)|\s+-(?=\s)|\s)\s*(\S.*)")
_MOST_ALIKE = 0.1  # of the names behind numbers; more, and the numbers tell them apart: "1 euro", "2 euro"
_PLURALS = ("", "s", "es", "n", "en", "x")  # of English, German and the Romance languages
_CELLS = re.compile(r"[^,;\t]+[,;\t][^,;\t]+")
_NUMBER_KEYS = ("id", "index", "class_id", "label_id", "class_index")  # of objects and columns
_NAME_KEYS = ("display_name", "name", "class_name", "label_name", "label", "class", "title")
_KEYS = (
    "id2label",
    "label2id",
    "labels",
    "names",
    "classes",
    "class_names",
    "categories",
)  # above labels in JSON
_ITEM = re.compile(r"\bitem\s*\{([^{}]*)\}")
_FIELD = re.compile(r"""\b(id|name|display_name)\s*:\s*(?:"([^"\n]*)"|'([^'\n]*)'|([^\s,'"]+))""")
_PRINTED = re.compile(r"""\s*(?:(\d+)\s*:\s*)?(?:'((?:[^'\\\n]|\\.)*)'|"((?:[^"\\\n]|\\.)*)")\s*(?:,|$)""")
_YAML_KEY = re.compile(r"^names:[ \t]*", re.MULTILINE)
_YAML_NAMES = re.compile(r"(\[[^\]]*\]|\{[^}]*\}|(?:#.*)?\n(?:[ \t]*(?:-[ \t]|\d+:).*(?:\n|$))+)", re.MULTILINE)
_YAML_LINE = re.compile(r"[ \t]*(?:-|(\d+):)[ \t]+(.*?)(?:[ \t]#.*)?")


def decode_labels(data: bytes, where: str, path: str = "") -> tuple[str, ...]:
    """Return the labels of a text: one label per line.

    UTF-8 or UTF-16, with or without a byte order mark, and the line ends of every system are read. Blanks around a
    label and empty lines at the end do not count. Where every line begins with a number, and these are 0, 1, 2, … in
    any order, as Teachable Machine writes it ("0 red"), they are the labels' places and left out; so are those that end
    every line ("red,0"), and a first line that names the two columns of a CSV. What other numbers mean,
    ``numbered_labels`` tells with the network's number of classes.

    JSON is read as well: ``["red", "green"]``, ``{"0": "red", "1": "green"}``, ``{"red": 0, "green": 1}`` (Keras's
    ``class_indices``), ``{"0": ["n01440764", "tench"]}`` (Keras's ImageNet classes), and each of them below
    ``id2label``, ``labels``, ``names``, …; the same as Python prints it (``{0: 'red', 1: 'green'}``); the ``names`` of
    a ``data.yaml`` of Ultralytics; and TensorFlow's ``label_map.pbtxt``, whose numbers may begin with 1.

    Args:
        data: the bytes of the text.
        where: what to call it in the error line.
        path: its path, where it is a file of its own.

    Raises:
        InputError: it is not such text, or JSON or a label map of another form.
    """
    return labels_and_first(data, where, path)[0]


def labels_and_first(data: bytes, where: str, path: str = "") -> tuple[tuple[str, ...], int | None]:
    """Return the labels as ``decode_labels`` does, and the number of the first of them; None where the text tells none.

    A ``data.yaml`` whose names have no numbers counts from 0.
    """
    text = decode_text(data, where, path)
    if text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            return _of_json(json.loads(text), where)
        if printed := _as_python_prints(text.strip()):
            return _of_json(printed, where)
    if items := _ITEM.findall(text):
        return _of_label_map(items, where)
    if (key := _YAML_KEY.search(text)) and (names := _YAML_NAMES.match(text, key.end())):
        return _of_yaml(names[1], where)
    lines = [clean_label(line) for line in re.split(r"\r\n|\r|\n", text)]
    while lines and not lines[-1]:
        lines.pop()
    lines = _without_ends(lines)
    labels, number = _without_numbers(_of_table(lines) or lines)
    return tuple(map(_unquoted, labels)), number


def decode_text(data: bytes, where: str, path: str = "") -> str:
    """Return a text in UTF-8 or UTF-16, without its byte order mark.

    Raises:
        InputError: it is none; ``where`` and ``path`` as ``decode_labels`` takes them.
    """
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        if (kind := _binary(data, path)) is not None:
            raise InputError(f"{where} is {kind[0]}, not text", kind[1]) from error
        new = shlex.quote(str(Path(path).parent / f"utf8{Path(path).suffix}"))  # paths in it count from its folder
        remedy = f"if Windows wrote it: iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(path)} > {new}; then give {new}"
        if not path:
            remedy = "give the labels in a file: --labels FILE"
        raise InputError(f"{where} is not UTF-8 text", remedy) from error


# How files begin that are no text, and what they are.
_BINARY = (
    (b"\x93NUMPY", "an array of NumPy"),
    (b"\x80", "a pickle of Python"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"PK\x03\x04", "a spreadsheet or an archive"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet or a document"),
    (b"\x1f\x8b", "an archive"),
    (b"MATLAB", "a file of MATLAB"),
)


def _binary(data: bytes, path: str) -> tuple[str, str] | None:
    """What a file is that is no text, and what to do; None where it may be text of another encoding."""
    kind = next((kind for begins, kind in _BINARY if data.startswith(begins)), "")
    if kind.endswith("NumPy") and path:
        new = shlex.quote(str(Path(path).with_suffix(".txt")))
        code = f"import numpy; print(*numpy.load({path!r}), sep='\\n')"
        return kind, f"{python(code)} > {new}; then give {new}"
    if kind or b"\0" in data[:4096]:
        return kind or "binary", "write it as text, one per line; a spreadsheet: save it as CSV"
    return None


def numbered_labels(lines: Sequence[str], classes: int) -> tuple[str, ...] | None:
    """The labels of lines that begin or end with numbers other than 0, 1, 2, …, for a network of so many classes.

    Numbers from 1 to ``classes`` count from 1. Of fewer lines, each number is that of its class, and a class without a
    line is called by its number: often 0 is the background. A first line that names two columns is left out.

    None where a line has no number, one is there twice, or is no class; and where the names behind the numbers are so
    much alike that the numbers belong to them.
    """
    named = names_by_number(lines)
    if named.keys() == set(range(1, classes + 1)):
        return tuple(named[place] for place in range(1, classes + 1))
    if not named or max(named) >= classes:
        return None
    return tuple(named.get(place, str(place)) for place in range(classes))


def fitted_labels(lines: Sequence[str], widths: Sequence[int]) -> tuple[str, ...]:
    """The labels for a network whose outputs have so many numbers each: without those of ``numbered_labels``.

    Of several outputs it is not known which holds the scores: there the lines must be as many as its numbers.
    """
    named = tuple(filter(None, lines))
    if named != tuple(lines) and len(named) in (max(2, width) for width in widths):  # blank lines between them
        return named
    for width in (max(2, width) for width in widths):  # one number stands for two classes
        if (len(widths) == 1 or width == len(names_by_number(lines))) and (found := numbered_labels(lines, width)):
            return found
    return tuple(lines)


def count_remedy(labels: int, classes: int, name: str) -> str:
    """What to type where a network has another number of classes than the file of labels that is called ``name``."""
    if labels == classes - 1:
        return f"if its first class is a background: sed '1i background' {name} > with.txt, then --labels with.txt"
    if labels == classes + 1:
        return f"if the first label is a background: tail -n +2 {name} > without.txt, then --labels without.txt"
    return "--labels FILE, one per line"


def clean_label(text: str) -> str:
    """Return a label without blanks around it, and in Unicode's composed form (NFC): macOS writes names decomposed."""
    return unicodedata.normalize("NFC", text.strip())


def _unquoted(label: str) -> str:
    """A label without the quotation marks in which CSV puts one with a comma."""
    if len(label) > 2 and label[0] == label[-1] == '"' and '"' not in label[1:-1].replace('""', ""):
        return label[1:-1].replace('""', '"')
    return label


def _without_ends(lines: list[str]) -> list[str]:
    """Lines without the comma or semicolon that ends each of them, but perhaps the last: out of a program's list."""
    for end in ",;":
        if len(lines) > 1 and all(line.endswith(end) and len(line) > 1 for line in lines[:-1]):
            return [line.removesuffix(end).rstrip() for line in lines]
    return lines


def _of_table(lines: list[str]) -> list[str]:
    """The numbers and the names in a table of three columns or more whose first line names them; else nothing."""
    if not lines or max(map(lines[0].count, ",;\t")) < 2:
        return []
    delimiter = max(",;\t", key=lines[0].count)
    try:
        first, *rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    except (csv.Error, ValueError):
        return []
    heads = [head.strip().lower().replace(" ", "_") for head in first]
    number = next((heads.index(key) for key in _NUMBER_KEYS if key in heads), None)
    name = next((heads.index(key) for key in _NAME_KEYS if key in heads), None)
    if number is None or name is None or any(len(row) != len(heads) for row in rows):
        return []
    return [f"{row[number].strip()} {clean_label(row[name])}" for row in rows]


def _without_numbers(lines: list[str]) -> tuple[tuple[str, ...], int | None]:
    """The labels in the order of the numbers 0, 1, 2, … before or after them, and 0; else the lines, and None."""
    named = names_by_number(lines)
    if len(named) > 1 and named.keys() == set(range(len(named))):
        return tuple(named[place] for place in range(len(named))), 0
    return tuple(lines), None


def names_by_number(lines: Sequence[str]) -> dict[int, str]:
    """Return the names of lines that all begin, or all end, with different numbers, by number; else nothing."""
    for rows in (lines, lines[1:] if lines and _CELLS.fullmatch(lines[0]) else ()):
        found = [(match[1], match[2]) for line in rows if (match := _NUMBERED.fullmatch(line))]
        found = found or [pair for line in rows if (pair := _number_last(line))]
        named = {int(number): name for number, name in found}
        if rows and len(named) == len(found) == len(rows) and not _are_counted(set(named.values()), len(rows)):
            return named
    return {}


def _are_counted(names: set[str], rows: int) -> bool:
    """Whether names are what is counted by the numbers before them: one for all, or its plural ("1 hour, 2 hours")."""
    one = min(names, key=len)
    return len(names) < (1 - _MOST_ALIKE) * rows or (len(names) > 1 and names <= {one + end for end in _PLURALS})


def _number_last(line: str) -> tuple[str, str] | None:
    """The number and the name of a line such as ``red,0``; a pattern would take for ever on a line of tabs."""
    place = max(map(line.rfind, ",;\t "))
    name, number = line[: max(place, 0)].rstrip(" \t,;"), line[place + 1 :].strip()
    return (number, name) if name and re.fullmatch(r"\d{1,9}", number) else None


def _as_python_prints(text: str) -> dict[str, str] | list[str]:
    """The names in a text such as ``{0: 'red', 1: "it's"}`` or ``['red', 'green']``; nothing where it is none."""
    inner, end = text[1:-1].rstrip().rstrip(","), 0
    found: list[re.Match[str]] = []
    while end < len(inner) and (match := _PRINTED.match(inner, end)):
        found.append(match)
        end = match.end()
    if end < len(inner):
        return []
    names = [re.sub(r"\\(.)", r"\1", match[2] if match[2] is not None else match[3]) for match in found]
    if text[0] == "[":
        return names
    return {str(match[1]): name for match, name in zip(found, names, strict=True)}


def _of_label_map(items: Sequence[str], where: str) -> tuple[tuple[str, ...], int]:
    """The names of TensorFlow's label map, ``item { id: 1 name: 'red' }``, by their numbers, and the first of these."""
    fields = [{match[1]: match[2] or match[3] or match[4] or "" for match in _FIELD.finditer(item)} for item in items]
    named = {one.get("id", ""): one.get("display_name") or one.get("name", "") for one in fields}
    for first in (0, 1):
        if named.keys() == {str(place) for place in range(first, first + len(items))}:
            return tuple(clean_label(named[str(place)]) for place in range(first, first + len(items))), first
    raise InputError(
        f"{where} is a label map whose numbers are not 1, 2, 3, …", "write the labels as text, one per line"
    )


def _of_yaml(names: str, where: str) -> tuple[tuple[str, ...], int | None]:
    """The names of a ``data.yaml``: a list in brackets, a line each, or with numbers; and the first number."""
    if names[0] in "[{":
        inner = [part.strip() for part in names[1:-1].replace("\n", " ").split(",")]
        found = [_YAML_LINE.fullmatch(part if names[0] == "{" else f"- {part}") for part in inner if part]
    else:
        found = [_YAML_LINE.fullmatch(line) for line in names.splitlines()[1:]]
    pairs = [(match[1], match[2].strip().strip("'\"")) for match in found if match]
    if all(number is None for number, _ in pairs):
        return _of_json([name for _, name in pairs], where)[0], 0
    return _of_json({str(number): name for number, name in pairs}, where)


def _numbered_object(value: object) -> tuple[str, str] | None:
    """The number and the name in an object such as ``{"id": 1, "name": "red"}``; None where it has not both."""
    if not isinstance(value, dict):
        return None
    number = next((value[key] for key in _NUMBER_KEYS if isinstance(value.get(key), int)), None)
    name = next((value[key] for key in _NAME_KEYS if isinstance(value.get(key), str)), None)
    return None if number is None or name is None else (str(number), name)


def _of_json(value: object, where: str) -> tuple[tuple[str, ...], int | None]:
    """The labels of a list, of numbers with names, or of names with numbers, and the first number; None of a list."""
    first = None
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if isinstance(value.get(key), dict | list)), value)
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get("Label"), list):  # Lobe's signature.json
        value = value["Label"]
    if isinstance(value, dict) and value and all(isinstance(place, int) for place in value.values()):
        value = {str(place): key for key, place in value.items()}
    if isinstance(value, list) and value and all(map(_numbered_object, value)):
        value = dict(filter(None, map(_numbered_object, value)))
    if isinstance(value, dict) and value:
        named = {str(key): name[-1] if isinstance(name, list) and name else name for key, name in value.items()}
        is_numbered = all(re.fullmatch(r"[0-9]{1,9}", key) and isinstance(name, str) for key, name in named.items())
        if is_numbered and "0" not in named and len(named) > 1:
            return _without_numbers([f"{int(key)} {clean_label(named[key])}" for key in sorted(named, key=int)])
        value, first = [named.get(str(place)) for place in range(len(value))], 0
    if isinstance(value, list):
        labels = [name[-1] if isinstance(name, list) and name else name for name in value]
        if labels and all(isinstance(label, str) for label in labels):
            return tuple(clean_label(str(label)) for label in labels), first
    what = f"{where} is no list of names, and no names with the numbers 0, 1, 2, …"
    raise InputError(what, "write the labels as text, one per line")
