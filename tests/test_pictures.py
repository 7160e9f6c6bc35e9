"""Listing the pictures of a folder, and taking some of them evenly: one way for every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_ran import catalogue
from edge_ran.classifier import real_inputs
from edge_ran.errors import InputError
from edge_ran.pictures import pictures_in, shipped_pictures, some_pictures, spread


@pytest.mark.parametrize(("length", "count"), [(63, 32), (120, 32), (64, 32), (33, 32), (32, 32), (5, 32), (120, 16)])
def test_a_sample_reaches_from_the_first_item_to_the_last(length: int, count: int) -> None:
    taken = spread(range(length), count)
    assert len(taken) == min(length, count)
    assert len(set(taken)) == len(taken)
    assert (taken[0], taken[-1]) == (0, length - 1)
    steps = np.diff(taken)
    assert steps.max() - steps.min() <= 1


def test_one_or_no_item() -> None:
    assert spread(["a", "b", "c"], 1) == ["a"]
    assert spread([], 5) == []


def test_every_shipped_subject_is_in_a_sample_of_32() -> None:
    def subjects(paths: list[Path]) -> set[str]:
        return {path.stem.rpartition("-")[0] for path in paths}

    assert len(shipped_pictures()) == 120
    assert subjects(some_pictures(None, 32)) == subjects(shipped_pictures())
    assert len(real_inputs(lambda frame: frame, count=32)) == 32


def test_what_systems_leave_beside_pictures_is_left_out(make_pictures: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "own", classes=("red", "blue"), count=3)
    found = pictures_in(folder)
    (folder / "__MACOSX" / "red").mkdir(parents=True)
    (folder / ".cache").mkdir()
    for name in ("._000.png", "red/._000.png", "__MACOSX/red/000.png", ".cache/000.png", "Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(b"no picture")
    (folder / "RED.JPG").write_bytes(b"not looked into")
    assert pictures_in(folder) == sorted([*found, folder / "RED.JPG"])


def test_a_hidden_folder_that_is_named_is_looked_into(make_pictures: Callable[..., Path], tmp_path: Path) -> None:
    assert len(pictures_in(make_pictures(tmp_path / ".hidden", classes=("red",), count=2))) == 2


def test_no_pictures_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pictures"):
        pictures_in(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        pictures_in(tmp_path / "absent")


def test_an_installation_without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Path:
        raise InputError(f"the folder {name}/ is missing")

    monkeypatch.setattr(catalogue, "folder", absent)
    assert shipped_pictures() == []
