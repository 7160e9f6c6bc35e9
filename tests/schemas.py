"""What a verb prints with ``--json``, held against docs/schema."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema

from edge_ran import records

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "schema"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("schema", ROOT / "scripts" / "schema.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


script = _script()


@functools.cache
def _validator(name: str) -> Any:
    return jsonschema.Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


@functools.cache
def _schema_of(kind: type[Any]) -> str | None:
    """The name of the schema that describes a record; None for what no verb prints."""
    for name, place in script.OUTPUTS.items():
        module, _, cls = place.partition(":")
        if kind.__name__ == cls and f"{kind.__module__}.".startswith(f"{module}."):
            return str(name)
    return None


def valid(name: str, printed: str) -> Any:
    """Check one JSON object that a verb printed against docs/schema/NAME.json; return it."""
    record = json.loads(printed)
    _validator(name).validate(record)
    assert record["tool"].startswith("edge-ran ")
    return record


def valid_record(name: str, record: Any) -> Any:
    """Check what a verb would print of a record against docs/schema/NAME.json; return it as JSON."""
    return valid(name, json.dumps(records.document(record), allow_nan=False))


@contextmanager
def every_document_valid() -> Iterator[None]:
    """Check every record that becomes a verb's output in this process, whatever the test looks at."""
    write = records.document

    def checked(record: Any) -> dict[str, Any]:
        found = write(record)
        if name := _schema_of(type(record)):
            _validator(name).validate(json.loads(json.dumps(found)))
        return found

    records.document = checked
    try:
        yield
    finally:
        records.document = write
