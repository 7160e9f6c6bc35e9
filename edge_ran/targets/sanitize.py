"""What a device says, made safe to print: a compromised board must not write to the terminal of who measures it."""

from __future__ import annotations

import json
from typing import Any

from edge_ran.errors import InputError
from edge_ran.printable import clean

__all__ = ["clean", "parse"]


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
