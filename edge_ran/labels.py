"""THE one way to read a list of labels, whether it is a file of its own or lies inside a ``.tflite``."""

from __future__ import annotations

import codecs
import re
import unicodedata

from edge_ran.errors import InputError

_NUMBERED = re.compile(r"(\d+)\s*[\s:;,]\s*(\S.*)")


def decode_labels(data: bytes, where: str) -> tuple[str, ...]:
    """Return the labels of a text: one label per line.

    UTF-8 or UTF-16, with or without a byte order mark, and the line ends of every system are read. Blanks around a
    label and empty lines at the end do not count. Where every line begins with its own number, counted from 0, as
    Teachable Machine writes it ("0 red"), the numbers are left out.

    Args:
        data: the bytes of the text.
        where: what to call it in the error line.

    Raises:
        InputError: it is not such text.
    """
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 text", "save it as UTF-8, one label per line") from error
    lines = [clean_label(line) for line in re.split(r"\r\n|\r|\n", text)]
    while lines and not lines[-1]:
        lines.pop()
    return _without_numbers(lines)


def clean_label(text: str) -> str:
    """Return a label without blanks around it, and in Unicode's composed form (NFC): macOS writes names decomposed."""
    return unicodedata.normalize("NFC", text.strip())


def _without_numbers(lines: list[str]) -> tuple[str, ...]:
    found = [_NUMBERED.fullmatch(line) for line in lines]
    if len(lines) > 1 and all(match and int(match[1]) == place for place, match in enumerate(found)):
        return tuple(match[2] for match in found if match)
    return tuple(lines)
