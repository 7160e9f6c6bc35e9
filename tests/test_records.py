from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

import pytest

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
