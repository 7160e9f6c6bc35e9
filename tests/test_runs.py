from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_ran import runs
from edge_ran.card import InputSpec, ModelCard
from edge_ran.errors import InputError

CARD = ModelCard("n", ("a", "b"), InputSpec(8, 8))


def make(folder: Path, age_s: float, *names: str) -> Path:
    """A folder with these files, all of them ``age_s`` seconds old."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        path.write_text(CARD.to_json() if name == "card.json" else "x")
        os.utime(path, (1e9 - age_s, 1e9 - age_s))
    return folder


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make(tmp_path / "package" / runs.DEFAULT, 0, "card.json", "model.keras", "int8.tflite")
    monkeypatch.setattr(runs, "SHIPPED", folder.parent)
    return folder


def test_the_run_finished_last_is_the_newest(tmp_path: Path, shipped: Path):
    assert runs.newest_run(tmp_path) is None
    assert runs.default_run(tmp_path) == shipped
    make(tmp_path / "runs" / "b-old", 90, "card.json", "model.keras")
    new = make(tmp_path / "runs" / "a-new", 60, "card.json", "model.keras")
    make(tmp_path / "runs" / "killed", 1, "card.json", "checkpoint.npz")
    make(tmp_path / "runs" / "shipped", 1, "int8.tflite")
    (tmp_path / "runs" / "notes.txt").write_text("x")
    assert runs.newest_run(tmp_path) == new
    assert runs.default_run(tmp_path) == new
    os.utime(new / "card.json")  # the accuracy written later makes no newer training
    os.utime(tmp_path / "runs" / "b-old" / "model.keras", (1e9, 1e9))
    assert runs.default_run(tmp_path) == tmp_path / "runs" / "b-old"


def test_the_tflite_written_last_is_the_default(tmp_path: Path, shipped: Path):
    assert runs.default_tflite(tmp_path) == shipped / "int8.tflite"
    make(tmp_path / "runs" / "one", 50, "card.json", "model.keras", "fp16.tflite")
    assert runs.default_tflite(tmp_path) == tmp_path / "runs" / "one" / "fp16.tflite"
    make(tmp_path / "runs" / "shipped", 40, "int8.tflite", "fp32.tflite")
    make(tmp_path / "runs" / "shipped", 1, ".edge-ran-abc.tflite")  # somebody is writing it right now
    assert runs.default_tflite(tmp_path) == tmp_path / "runs" / "shipped" / "fp32.tflite"
    run = runs.RunFolder(tmp_path / "runs" / "shipped")
    assert [path.name for path in run.tflites()] == ["fp32.tflite", "int8.tflite"]


def test_a_package_that_ships_nothing_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runs, "SHIPPED", tmp_path / "none")
    for default in (runs.default_run, runs.default_tflite):
        with pytest.raises(InputError, match="ships no network") as caught:
            default(tmp_path)
        assert "edge-ran train" in caught.value.remedy


def test_the_quantised_run_lies_beside_its_float_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine" / "below")
    assert runs.RunFolder(Path("runs/a")).quantised_path == Path("runs/a-qat")
    assert runs.RunFolder(Path(".")).quantised_path == tmp_path / "mine" / "below-qat"
    assert runs.RunFolder(Path("..")).quantised_path == tmp_path / "mine-qat"


def test_an_open_run_gives_its_card(tmp_path: Path):
    run = runs.open_run(make(tmp_path / "r", 0, "card.json", "model.keras"))
    assert run.card() == CARD
    (run.path / "card.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        run.card()


@pytest.mark.parametrize(
    ("names", "what", "remedy"),
    [
        (("card.json",), "model.keras missing", "make one: edge-ran train DATA"),
        (("settings.json", "checkpoint.npz"), "card.json and model.keras missing", "--resume"),
        (None, "there is no run folder", "make one: edge-ran train DATA"),
    ],
)
def test_what_is_no_finished_run_is_said(tmp_path: Path, names, what: str, remedy: str):
    if names is not None:
        make(tmp_path / "r", 0, *names)
    with pytest.raises(InputError, match=what) as caught:
        runs.open_run(tmp_path / "r")
    assert remedy in caught.value.remedy


def test_a_folder_of_runs_names_the_newest_and_deeper_ones_are_not_looked_for(tmp_path: Path):
    folder = tmp_path / "my runs"
    make(folder / "old", 90, "card.json", "model.keras", "settings.json", "checkpoint.npz")
    make(folder / "new", 60, "card.json", "model.keras", "settings.json", "checkpoint.npz")
    make(folder / "killed", 1, "settings.json", "checkpoint.npz")
    for path, remedy in ((folder, f"the newest: '{folder / 'new'}'"), (tmp_path, runs.MAKE_ONE)):
        with pytest.raises(InputError, match="is not a finished run") as caught:
            runs.open_run(path)
        assert caught.value.remedy.endswith(remedy)
    make(folder / "killed" / "unfinished", 1, "settings.json")
    (folder / "killed" / "unfinished" / "settings.json").write_text('{"source": "/data"}')
    with pytest.raises(InputError) as caught:
        runs.open_run(folder / "killed")
    assert "edge-ran train /data --resume -o" in caught.value.remedy


def test_convert_writes_into_the_run_but_never_into_the_package(tmp_path: Path, shipped: Path):
    run = tmp_path / "runs" / "r"
    assert runs.tflite_path(run, "int8", tmp_path) == run / "int8.tflite"
    assert runs.tflite_path(shipped, "fp16", tmp_path) == tmp_path / "runs" / f"shipped-{runs.DEFAULT}" / "fp16.tflite"


def test_a_shipped_network_has_a_name_that_a_file_of_the_user_hides(
    tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert runs.named(Path(runs.DEFAULT)) == runs.shipped(runs.DEFAULT) == shipped
    assert runs.open_run(Path(runs.DEFAULT)).is_shipped
    assert runs.named(Path("nobody")) == Path("nobody")
    assert runs.shipped("../package") is None
    mine = make(tmp_path / runs.DEFAULT, 0, "card.json", "model.keras")
    assert runs.named(Path(runs.DEFAULT)).resolve() == mine


def test_a_converted_file_in_the_place_of_a_run_is_named(tmp_path: Path):
    path = make(tmp_path / "r", 0, "int8.tflite") / "int8.tflite"
    with pytest.raises(InputError, match="is converted already: a run folder is needed"):
        runs.open_run(path)
