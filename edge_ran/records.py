"""Records that another machine wrote, made into what they were: every value of its type, or an error."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any

from edge_ran.errors import InputError


def read(kind: Any, value: Any, where: str) -> Any:
    """Return an untrusted value, out of JSON, as what it should be.

    Args:
        kind: float, int, bool, str, Any, a tuple or dict of these, one of them or None, a dataclass of such fields
            (made of a record that may hold more), or ``{key: kind}``: a record with at least these keys.
        value: the value.
        where: what to call it in the error line.

    Raises:
        InputError: a key is missing, or a value is not of its type; a number that is not finite is none.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, dict) and isinstance(value, dict):
        for key, one in kind.items():
            if key not in value:
                raise InputError(f"{where} has no {key}")
            read(one, value[key], f"{where}.{key}")
        return value
    if origin in (types.UnionType, typing.Union):
        return None if value is None else read(inner[0], value, where)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        fields = [f.name for f in dataclasses.fields(kind) if f.name in value or f.default is dataclasses.MISSING]
        return kind(**{name: read(hints[name], value.get(name), f"{where}.{name}") for name in fields})  # type: ignore[operator]
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(read(inner[0], one, f"{where}[{i}]") for i, one in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: read(inner[1], one, f"{where}.{key}") for key, one in value.items()}
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        Any: True,
        bool: isinstance(value, bool),
        float: number and abs(value) < math.inf,
        int: number and isinstance(value, int),
        str: isinstance(value, str),
    }
    if not (isinstance(kind, (type, type(Any))) and fits.get(kind)):
        raise InputError(f"{where} is {str(value)[:40]!r}")
    return value
