from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jsonschema
import pytest

from edge_ran import records
from edge_ran.errors import InputError
from edge_ran.records import read


@dataclass(frozen=True)
class Inner:
    name: str
    ms: float | None = None


@dataclass(frozen=True)
class Outer:
    count: int
    parts: tuple[Inner, ...]
    sums: dict[str, float]
    good: bool = True


GOOD = {"count": 2, "parts": [{"name": "a", "ms": 1}, {"name": "b", "ms": None}], "sums": {"x": 0.5}, "more": []}


def test_a_record_becomes_what_it_was():
    made = read(Outer, GOOD, "outer")
    assert made == Outer(2, (Inner("a", 1), Inner("b")), {"x": 0.5})
    assert read(Outer, json.loads(json.dumps(dataclasses.asdict(made))), "outer") == made
    assert read({"count": int}, GOOD, "outer") is GOOD


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("count", None, "outer.count"),
        ("count", 2.5, "outer.count"),
        ("count", True, "outer.count"),
        ("good", 1, "outer.good"),
        ("parts", {}, "outer.parts"),
        ("parts", [3], r"outer.parts\[0\]"),
        ("parts", [{"name": 7}], r"outer.parts\[0\].name"),
        ("parts", [{"name": "a", "ms": "1"}], r"outer.parts\[0\].ms"),
        ("sums", {"x": math.nan}, "outer.sums.x"),
        ("sums", {"x": math.inf}, "outer.sums.x"),
        ("sums", {"x": []}, "outer.sums.x"),
        ("sums", "x" * 1000, "outer.sums"),
    ],
)
def test_a_value_that_is_not_of_its_type_is_told_by_its_place(key: str, value: Any, where: str):
    with pytest.raises(InputError, match=where) as caught:
        read(Outer, {**GOOD, key: value}, "outer")
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("value", [None, [], 3, "x", {}])
def test_what_is_no_record_is_said(value: Any):
    with pytest.raises(InputError, match="outer"):
        read(Outer, value, "outer")


@dataclass(frozen=True)
class Timed:
    SCHEMA_VERSION = 3

    mean_ms: float = dataclasses.field(metadata=records.key("avg_ms"))
    span_ms: tuple[float, float] | None = None
    kind: Literal["cpu", "gpu"] = "cpu"
    file: Path | None = None
    inner: Inner | None = None

    @records.derived
    def per_second(self) -> float:
        return 1e3 / self.mean_ms


def test_a_document_is_read_back_and_valid_by_its_own_schema():
    made = Timed(4.0, (3.0, 5.0), "gpu", Path("a.tflite"), Inner("x", 1.5))
    written = json.loads(json.dumps(records.document(made), allow_nan=False))
    assert written["schema_version"] == 3
    assert (written["avg_ms"], written["per_second"], written["file"]) == (4.0, 250.0, "a.tflite")
    assert records.read_document(Timed, written, "report") == made
    jsonschema.Draft202012Validator.check_schema(records.schema(Timed))
    jsonschema.validate(written, records.schema(Timed))
    for key, wrong in (("avg_ms", "4"), ("span_ms", [1.0]), ("kind", "tpu"), ("schema_version", 2), ("more", 1)):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**written, key: wrong}, records.schema(Timed))


@pytest.mark.parametrize(("key", "wrong"), [("span_ms", [1.0]), ("kind", "tpu"), ("schema_version", 2), ("file", 3)])
def test_a_document_that_does_not_fit_is_one_line(key: str, wrong: Any):
    written = {**records.document(Timed(4.0)), key: wrong}
    with pytest.raises(InputError, match="report"):
        records.read_document(Timed, written, "report")


def test_a_number_that_is_not_finite_is_never_written():
    with pytest.raises(ValueError, match="nan"):
        records.to_dict(Inner("x", math.nan))


@dataclass(frozen=True)
class Partly:
    name: str
    cache: tuple[object, ...] = dataclasses.field(default=(), metadata=records.internal())


def test_an_internal_field_is_no_part_of_the_json():
    made = Partly("x", (object(),))
    written = records.document(made)
    assert "cache" not in written
    assert records.read_document(Partly, written, "report") == Partly("x")
    jsonschema.validate(written, records.schema(Partly))
