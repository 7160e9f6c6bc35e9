"""One mechanism for every record: dataclass to JSON, JSON to dataclass, and the JSON Schema of both.

What a verb finds is a frozen dataclass. ``to_dict`` makes it JSON, for files, for ``--json`` and for another machine;
``read`` makes it a dataclass again, from an untrusted value; ``schema`` describes the JSON. A field's type is one of
float, int, bool, str, Path, Literal, Any, a dataclass, ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[str, X]``, or
``X | None``. ``key`` gives a field another name in JSON, ``internal`` leaves it out; a ``derived`` property is
written, and ignored when read.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from edge_ran import __version__
from edge_ran.errors import InputError, UsageError

_R = TypeVar("_R")
_KEY, _INTERNAL = "json_key", "json_internal"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def key(name: str) -> dict[str, Any]:
    """Return the ``metadata`` of a field that is called ``name`` in JSON."""
    return {_KEY: name}


def internal() -> dict[str, Any]:
    """Return the ``metadata`` of a field that is not part of the JSON. Such a field needs a default."""
    return {_INTERNAL: True}


class derived(property):  # used as a decorator, as property is
    """A property that ``to_dict`` writes beside the fields: it follows from them, so ``read`` does not need it."""


def to_dict(record: Any) -> dict[str, Any]:
    """Return a dataclass as what ``json.dumps`` takes.

    Raises:
        ValueError: a number is not finite. JSON has no word for it; use None.
    """
    kind: Any = type(record)
    return {name: _to_json(getattr(record, attribute)) for name, attribute, _ in _members(kind)}


def document(record: Any) -> dict[str, Any]:
    """Return a verb's whole output: ``schema_version`` and ``tool``, then the fields of ``record``."""
    return {"schema_version": version(type(record)), "tool": f"edge-ran {__version__}", **to_dict(record)}


def read_document(kind: type[_R], value: Any, where: str) -> _R:
    """Return the record that ``document`` was given.

    Raises:
        InputError: it is of another schema version, or not such a record.
    """
    found = value.get("schema_version") if isinstance(value, dict) else None
    if found != version(kind):
        raise InputError(f"{where} has schema version {found!r:.20}, this edge-ran reads {version(kind)}")
    return read(kind, value, where)


def version(kind: type[Any]) -> int:
    """Return the version of a record's JSON: its class attribute ``SCHEMA_VERSION``, else 1."""
    return int(getattr(kind, "SCHEMA_VERSION", 1))


@overload
def read(kind: type[_R], value: Any, where: str) -> _R: ...
@overload
def read(kind: Any, value: Any, where: str) -> Any: ...
def read(kind: Any, value: Any, where: str) -> Any:
    """Return an untrusted value, as JSON gives it, as what it should be.

    Args:
        kind: a type as this module's docstring lists them, or ``{key: kind}``: a record with at least these keys.
        value: the value. Keys that the dataclass does not know are ignored.
        where: what to call it in the error line.

    Raises:
        InputError: a key is missing, or a value is not of its type; a number that is not finite is none.
    """
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            raise _wrong(where, value)
        for name, one in kind.items():
            if name not in value:
                raise InputError(f"{where} has no {name}")
            read(one, value[name], f"{where}.{name}")
        return value
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else read(inner[0], value, where)
    if origin is Literal:
        if value in inner and type(value) in map(type, inner):
            return value
        raise _wrong(where, value)
    if origin is tuple and isinstance(value, (list, tuple)):
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else list(inner)
        if len(kinds) != len(value):
            raise InputError(f"{where} has {len(value)} values, not {len(kinds)}")
        return tuple(read(one, v, f"{where}[{i}]") for i, (one, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is dict and isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {name: read(inner[1], one, f"{where}.{name}") for name, one in value.items()}
    return _read_plain(kind, value, where)


def schema(kind: Any) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a verb's output, as ``document`` writes it."""
    body = _schema(kind)
    first = {"schema_version": {"const": version(kind)}, "tool": {"type": "string"}}
    return {
        "$schema": DIALECT,
        "title": kind.__name__,
        **body,
        "properties": {**first, **body["properties"]},
        "required": [*first, *body["required"]],
    }


def _fields(kind: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if not field.metadata.get(_INTERNAL)]


@functools.cache  # `run --json` writes a record for each frame
def _members(kind: type[Any]) -> tuple[tuple[str, str, Any], ...]:
    """Return what is written of a dataclass: its name in JSON, the attribute, the type."""
    hints = typing.get_type_hints(kind)
    found = [(field.metadata.get(_KEY, field.name), field.name, hints[field.name]) for field in _fields(kind)]
    for name in dir(kind):
        if isinstance(one := getattr(kind, name), derived):
            found.append((name, name, typing.get_type_hints(typing.cast(Callable[..., Any], one.fget))["return"]))
    return tuple(found)


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, dict):
        return {str(name): _to_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} in a record")
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return value.item()  # a NumPy number


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, value)
    hints, found = typing.get_type_hints(kind), {}
    for field in _fields(kind):
        name = field.metadata.get(_KEY, field.name)
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in value and has_default:
            continue
        if name not in value and not _takes_none(hints[field.name]):
            raise InputError(f"{where} has no {name}")
        found[field.name] = read(hints[field.name], value.get(name), f"{where}.{name}")
    try:
        return kind(**found)
    except UsageError as error:  # its own check, which speaks of options
        raise InputError(f"{where}: {error}") from error


def _takes_none(kind: Any) -> bool:
    return kind is Any or type(None) in typing.get_args(kind)


def _read_plain(kind: Any, value: Any, where: str) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        Any: True,
        bool: isinstance(value, bool),
        float: number and abs(value) <= sys.float_info.max,  # an int may be larger than any float
        int: number and isinstance(value, int) and abs(value) < 1 << 63,  # larger ones overflow where they are used
        str: isinstance(value, str),
        Path: isinstance(value, str),
    }
    if not fits.get(kind):
        raise _wrong(where, value)
    return Path(value) if kind is Path else value


def _wrong(where: str, value: Any) -> InputError:
    return InputError(f"{where} is {str(value)[:40]!r}")


def _schema(kind: Any) -> dict[str, Any]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    plain = {float: "number", int: "integer", bool: "boolean", str: "string", Path: "string"}
    if kind in plain:
        return {"type": plain[kind]}
    if dataclasses.is_dataclass(kind):
        described: Any = kind
        members = _members(described)
        properties = {name: _schema(one) for name, _, one in members}
        return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [*(_schema(one) for one in inner if one is not type(None)), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is tuple and inner[1:] == (...,):
        return {"type": "array", "items": _schema(inner[0])}
    if origin is tuple:
        return {"type": "array", "prefixItems": [_schema(one) for one in inner], "items": False, "minItems": len(inner)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(inner[1])}
    return {}
