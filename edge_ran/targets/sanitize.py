"""What a device says, made safe to print: a compromised board must not write to the terminal of who measures it."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from edge_ran.errors import InputError

# Escape sequences as a whole: those with parameters, those that carry text (window titles), and the short ones.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*.", re.DOTALL)
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str) -> str:
    """Return the text without escape sequences, control characters (tabs stay) and marks that turn its direction."""
    if text.isascii() and text.isprintable():
        return text
    kept = (c for c in _ESCAPES.sub("", text) if c == "\t" or not _is_control(c))
    return "".join(kept)


def _is_control(character: str) -> bool:
    return character in _TURNING or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def parse(text: bytes | str) -> dict[str, Any]:
    """Read a JSON object whose strings are then ``clean``.

    Raises:
        InputError: it is none.
    """
    try:
        record = json.loads(text)
        if not isinstance(record, dict):
            raise ValueError("it is no object")
        return {clean(key): _cleaned(value) for key, value in record.items()}
    except (ValueError, RecursionError) as error:
        reason = "too deep" if isinstance(error, RecursionError) else clean(str(error))[:100]
        raise InputError(f"not JSON: {reason}") from error


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, dict):
        return {clean(key): _cleaned(one) for key, one in value.items()}
    return value
