"""Each remedy and hint is a command that works as it is printed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import remedies

from edge_ran import cli, runs
from edge_ran.cli.command import fitting
from edge_ran.dataset import decoding

PACKAGE = Path(cli.__file__).resolve().parents[1]


def test_each_command_and_option_in_a_message_exists() -> None:
    found = list(remedies.messages(PACKAGE))
    assert len(found) > 300
    assert [f"{where}: {wrong}" for where, text in found for wrong in remedies.faults(text)] == []


@pytest.mark.parametrize(
    ("advice", "wrong"),
    [
        ("edge-ran train --resume -o RUN", "Missing argument"),
        ("edge-ran inspect it", "no name of a file"),
        ("edge-ran convert makes one", "unexpected extra argument"),
        ("edge-ran quantize RUN DATA --skip-bad", "No such option"),
        ("see edge-ran inspect", "Missing argument"),
        ("name the column: --lable-column NAME", "no option of any verb"),
    ],
)
def test_advice_that_leads_nowhere_is_found(advice: str, wrong: str) -> None:
    (fault,) = remedies.faults(advice)
    assert wrong in fault


@pytest.mark.parametrize(
    "advice",
    [
        "finish it: edge-ran train 'my pictures' --resume -o RUN",
        "edge-ran sweep MODEL --threads 1,2,4",
        "pip install --force-reinstall numpy",
        "next: edge-ran dataset DATA",
        "edge-ran inspect --help",
    ],
)
def test_advice_that_can_be_followed_is_none_of_them(advice: str) -> None:
    assert remedies.faults(advice) == []


def test_a_verb_advises_no_option_that_it_lacks() -> None:
    skip = decoding.REMEDY
    assert fitting(skip, {"--skip-bad"}) == skip
    assert fitting(skip, {"--force"}) == "mend or delete what cannot be read"
    assert fitting("--labels FILE, one a line", set()) == ""
    assert fitting("pip install --force-reinstall x; or add --force", set()) == "pip install --force-reinstall x"


@pytest.fixture
def advised(
    tmp_path: Path, labelled_model, make_pictures, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """A function: a command line, in a folder of all sorts of files -> exit code, the error's line, its remedy."""
    monkeypatch.chdir(tmp_path)
    make_pictures(tmp_path / "photos", count=2)
    (tmp_path / "m.tflite").write_bytes(labelled_model("int8").read_bytes())
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    rows = "".join(f"photos/{name}/00{i}.png,{name},dark {name}\n" for name in ("red", "blue") for i in range(2))
    (tmp_path / "manifest.csv").write_text("file,kind,shade\n" + rows)
    (tmp_path / "other.csv").write_text("image,kind\n")
    (tmp_path / "begun" / "unfinished").mkdir(parents=True)
    (tmp_path / "begun" / runs.CHECKPOINT).touch()
    (tmp_path / "begun" / runs.SETTINGS).write_text('{"source": "my photos"}')
    (tmp_path / "empty").mkdir()
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    (tmp_path / "a.onnx").write_bytes(b"onnx" * 10)
    (tmp_path / "bad" / "red").mkdir(parents=True)
    (tmp_path / "bad" / "red" / "1.png").write_bytes(b"nothing")

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edge-ran", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        lines = capsys.readouterr().err.splitlines()
        at = next((i for i, line in enumerate(lines) if line.startswith("  ")), len(lines))
        what = lines[at - 1] if at else ""
        return int(end.value.code or 0), what, lines[at].strip() if at < len(lines) else ""

    return call


# A command line that is refused; a part of the remedy; the same line with the remedy followed, which is refused no
# more, or for another reason.
FOLLOWED = [
    ("sweep m.tflite", "edge-ran sweep MODEL --threads 1,2,4", ""),
    ("benchmark m.tflite --sweep threads=1,2", "edge-ran sweep MODEL --precision int8,fp16 --threads 1,2", ""),
    ("benchmark m.tflite --sustained 30s", "edge-ran sustain MODEL --duration 30s", ""),
    ("benchmark m.tflite --profile", "edge-ran profile MODEL", "profile m.tflite -q"),
    ("run m.tflite --mean 1 2 3", "--mean 1,2,3", ""),
    ("run m.tflite --camera 0 --camera=photos", "give it once: --camera photos", ""),
    ("run m.tflite --camera 0 --width 1280x720", "--width 1280 --height 720", ""),
    ("run m.tflite --camera photos/red --labels red,green", "printf '%s\\n' red green > labels.txt", ""),
    ("run m.tflite --source 0", "--camera", ""),
    ("evaluate --model m.tflite --data photos", "edge-ran evaluate MODEL DATA", ""),
    ("convert begun --quantize", "--int8", ""),
    ("run m.tflite --threshold 0,5", "--threshold 0.5", ""),
    ("run m.tflite 0", "--camera 0", ""),
    ("export m.tflite --web --threshold 50", "--threshold 0.5", ""),
    ("train photos --validation-fraction 20", "--validation-fraction 0.2", ""),
    ("run m.tflite --smoothing 90%", "--smoothing 0.9", ""),
    ("evaluate m.tflite photos --reference m.tflite --max-drop 2%", "without the sign: --max-drop 2", ""),
    ("deploy m.tflite --min-agreement 98%", "without the sign: --min-agreement 98", ""),
    ("predict m.tflite photos", "edge-ran run --help", "run --help"),
    ("benchmark m.tflite --num-runs 0", "--num-runs 50", ""),
    ("export m.tflite", "edge-ran export --web", ""),
    ("run m.tflite --std 0,0,0 --camera photos/red", "--std 128,128,128", ""),
    (
        "run m.tflite --threshold 3 --camera photos/red",
        "--threshold 0.5",
        "run m.tflite --threshold 0.5 --camera photos/red",
    ),
    ("run m.tflite --camera photos/red --web 127.0.0.1:x", "--web 127.0.0.1:8080", ""),
    (
        "run m.tflite --camera photos/red --save out.gif",
        "change the name",
        "run m.tflite --camera photos/red --save out.mp4",
    ),
    (
        "run m.tflite --camera photos/red --label x",
        "add --record",
        "run m.tflite --camera photos/red --label x --record r",
    ),
    ("run empty", "edge-ran convert --int8 empty", ""),
    ("inspect begun", "edge-ran train 'my photos' --resume -o begun", ""),
    ("inspect empty", "edge-ran train DATA", ""),
    ("inspect a.onnx", "onnx2tf", ""),
    ("inspect edge05", "did you mean 'edge50'?", "inspect edge50 --labels"),
    ("inspect m.tflite --width 2", "leave out --width", "inspect m.tflite"),
    (
        "evaluate m.tflite manifest.csv",
        "--label-column",
        "evaluate m.tflite manifest.csv --label-column kind --image-column file",
    ),
    ("dataset manifest.csv", "--label-column", "dataset manifest.csv --label-column kind --image-column file"),
    ("evaluate m.tflite bad", "--skip-bad", ""),
    (
        "evaluate m.tflite photos --max-drop 1",
        "--reference OTHER.tflite",
        "evaluate m.tflite photos --max-drop 1 --reference m.tflite",
    ),
    ("evaluate m.tflite photos --html labels.txt", "change the name", "evaluate m.tflite photos --html page.html"),
    ("evaluate m.tflite photos --plot labels.png --accelerator cpu --no-fallback", "--gpu", ""),
    ("convert edge50 --fp16 --calibration-data photos", "leave --calibration-data away", ""),
    ("convert edge50 -o labels.txt", "change the name", ""),
    ("sweep m.tflite --threads 1 --accelerator cpu --gpu-precision fp32", "leave out --gpu-precision", ""),
    ("compare labels.txt labels.txt", "edge-ran benchmark MODEL --result-json FILE", ""),
    ("benchmark m.tflite --max-regression 5%", "add --baseline", ""),
    ("compare empty photos", "edge-ran precisions empty photos", ""),
    ("devices --clean", "edge-ran devices NAME --clean", ""),
    (
        "run m.tflite --camera photos/red --on-change 'echo {lable}'",
        "{label}",
        "run m.tflite --camera photos/red --on-change 'echo {label}'",
    ),
    ("train photos -o photos", "choose another --output", ""),
    ("verify m.tflite --plot x.png", "add --network", ""),
    ("run m.tflite --camera front", "add --device phone", ""),
    ("run m.tflite --device phone --camera 0", "--camera back or --camera front", ""),
    ("trian photos", "edge-ran --help", "--help"),
]


@pytest.mark.parametrize(("line", "remedy", "followed"), FOLLOWED, ids=[line for line, _, _ in FOLLOWED])
def test_a_remedy_that_is_followed_helps(advised, line: str, remedy: str, followed: str) -> None:
    """What it advises can be typed (each message is looked at as it is printed: conftest.py), and then it works."""
    code, what, advice = advised(*shlex.split(line))
    assert code in (1, 2, 3), what
    assert what.startswith("edge-ran: ")
    assert remedy in advice
    if followed:
        assert advised(*shlex.split(followed))[0] == 0
