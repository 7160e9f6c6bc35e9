"""What a verb writes is tried before its work; what it measured is printed even where a file cannot be written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_ran import cli, evaluation_page
from edge_ran.errors import EnvironmentMissing


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function: a command line -> exit code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edge-ran", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


OUTPUTS = [
    "train PICTURES -o FILE/x",
    "quantize edge50 PICTURES -o FILE/x",
    "import x.keras -o FILE/x",
    "convert edge50 --fp16 -o FILE/x.tflite",
    "convert edge50 --fp16 -o x.onnx",
    "convert edge50 --fp16 -o FOLDER",
    "evaluate MODEL PICTURES --predictions FILE/x.csv",
    "evaluate MODEL PICTURES --plot FILE/x.png",
    "evaluate MODEL PICTURES --html FILE/x.html",
    "precisions edge50 PICTURES --plot FILE/x.png",
    "verify MODEL --network edge50 --plot FILE/x.png",
    "benchmark MODEL --result-json FILE/x.json",
    "benchmark MODEL --csv FILE/x.csv",
    "profile MODEL --html FILE/x.html",
    "sweep MODEL --threads 1,2 --plot FILE/x.png",
    "sustain MODEL --result-json FILE/x.json",
    "run MODEL --save FILE/x.mp4",
    "run MODEL --save FOLDER",
    "run MODEL --record FILE/x",
    "run MODEL --record FILE",
    "run MODEL --summary FILE/x.json",
    "run MODEL --device ssh://nowhere.invalid --save FILE/x.mp4",
    "export MODEL --web -o FILE/x",
    "demo -o FILE/x",
    "dataset build PICTURES -o FILE/x",
    "fetch FILE/x --device ssh://nowhere.invalid",
]


@pytest.mark.parametrize("line", OUTPUTS)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    line: str, called, labelled_model, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "FILE").touch()
    (tmp_path / "FOLDER").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # it is not even loaded
    before = sorted(tmp_path.rglob("*"))
    words = line.replace("MODEL", str(labelled_model("int8"))).replace("PICTURES", str(pictures)).split()
    code, out, err = called(*words)
    assert (code in (2, 3), out) == (True, ""), err
    assert [text[:2] for text in err.splitlines() if not text.startswith("edge-ran: converting")] == ["ed", "  "]
    assert "FILE" in err or "x.onnx" in err or "FOLDER" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_calibration_pictures_that_are_not_needed_are_refused_before_the_work(
    called, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    code, _, err = called("convert", "edge50", "--fp16", "--calibration-data", pictures, "-o", pictures / "x.tflite")
    assert code == 2
    assert "fp16 needs no calibration pictures\n  leave --calibration-data away" in err


@pytest.mark.parametrize(
    ("option", "value"), [("--colour", "9"), ("--validation-fraction", "20"), ("--epochs", "-1"), ("--budget", "0ms")]
)
def test_a_recipe_that_cannot_be_is_refused_before_the_work(
    option: str, value: str, called, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    code, _, err = called("train", pictures, option, value, "-o", tmp_path / "run")
    assert code == 2
    assert value in err
    assert option in err
    assert len(err.splitlines()) == 2
    assert not (tmp_path / "run").exists()


def test_what_was_measured_is_printed_where_a_file_cannot_be_written(
    called, labelled_model, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise EnvironmentMissing("no space left on the disk", "free some space")

    monkeypatch.setattr(evaluation_page, "write", fail)
    table = tmp_path / "predictions.csv"
    words = ("--html", tmp_path / "page.html", "--predictions", table)
    code, out, err = called("evaluate", labelled_model("int8"), pictures, *words)
    assert (code, err) == (3, "edge-ran: no space left on the disk\n  free some space\n")
    assert "top-1" in out
    assert len(table.read_text().splitlines()) == 1 + 24
