"""THE one way to read a list of labels, whether it is a file of its own or lies inside a ``.tflite``."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
import unicodedata
from collections.abc import Sequence

from edge_ran.errors import InputError

_NUMBERED = re.compile(r"(\d+)\s*[\s:;,]\s*(\S.*)")


def decode_labels(data: bytes, where: str) -> tuple[str, ...]:
    """Return the labels of a text: one label per line.

    UTF-8 or UTF-16, with or without a byte order mark, and the line ends of every system are read. Blanks around a
    label and empty lines at the end do not count. Where every line begins with a number, and these are 0, 1, 2, … in
    any order, as Teachable Machine writes it ("0 red"), they are the labels' places and left out.

    JSON is read as well: ``["red", "green"]``, ``{"0": "red", "1": "green"}``, ``{"red": 0, "green": 1}`` (Keras's
    ``class_indices``), ``{"0": ["n01440764", "tench"]}`` (Keras's ImageNet classes), and each of them below
    ``id2label`` or ``label2id``.

    Args:
        data: the bytes of the text.
        where: what to call it in the error line.

    Raises:
        InputError: it is not such text, or JSON of another form.
    """
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text", "save it as UTF-8, one label per line") from error
    if text.lstrip()[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            return _of_json(json.loads(text), where)
    lines = [clean_label(line) for line in re.split(r"\r\n|\r|\n", text)]
    while lines and not lines[-1]:
        lines.pop()
    return _without_numbers(lines)


def numbered_labels(lines: Sequence[str], classes: int) -> tuple[str, ...] | None:
    """The labels where each line begins with its class's number and some classes have none: those are called by theirs.

    None where a line has no number, one is there twice, or is no class.
    """
    found = [match for line in lines if (match := _NUMBERED.fullmatch(line)) and len(match[1]) < len(str(classes)) + 4]
    named = {int(match[1]): match[2] for match in found}
    if not named or len(named) != len(lines) or max(named) >= classes:
        return None
    return tuple(named.get(place, str(place)) for place in range(classes))


def clean_label(text: str) -> str:
    """Return a label without blanks around it, and in Unicode's composed form (NFC): macOS writes names decomposed."""
    return unicodedata.normalize("NFC", text.strip())


def _without_numbers(lines: list[str]) -> tuple[str, ...]:
    found = [match for line in lines if (match := _NUMBERED.fullmatch(line))]
    named = {match[1].lstrip("0") or "0": match[2] for match in found}
    if len(lines) > 1 and len(found) == len(lines) and named.keys() == {str(place) for place in range(len(lines))}:
        return tuple(named[str(place)] for place in range(len(lines)))
    return tuple(lines)


def _of_json(value: object, where: str) -> tuple[str, ...]:
    """The labels of a list, of numbers with names, or of names with numbers."""
    if isinstance(value, dict):
        value = value.get("id2label", value.get("label2id", value))
    if isinstance(value, dict) and value:
        names = {str(key): name for key, name in value.items()}
        if all(isinstance(place, int) for place in value.values()):
            names = {str(place): key for key, place in value.items()}
        value = [names.get(str(place)) for place in range(len(value))]
    if isinstance(value, list):
        labels = [name[-1] if isinstance(name, list) and name else name for name in value]
        if labels and all(isinstance(label, str) for label in labels):
            return tuple(clean_label(str(label)) for label in labels)
    what = f"{where} is JSON, but no list of names and no names with the numbers 0, 1, 2, …"
    raise InputError(what, "write the labels as text, one per line")
