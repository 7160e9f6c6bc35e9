"""Other people's text on its way to a terminal, a page or a log."""

import io
import sys
from pathlib import Path

import pytest

from edge_ran import printable
from edge_ran.printable import Guarded, clean, many, one_line, some

HOSTILE = "\x1b[2J\x1b]0;title\x07a\u202eb\u2028c\x9bd\x00\x08e\rf\tg\ud800"


def test_what_steers_a_terminal_is_gone() -> None:
    assert clean(HOSTILE) == "abcdef\tg"
    assert clean("one\ntwo", lines=True) == "one\ntwo"
    assert clean("one\ntwo") == "onetwo"
    assert one_line("one\r\n  two\u2028three  four") == "one two three  four"
    for kept in ("plain", "Große Halle", "Тест", "日本語", "🍎", "e\u0301"):
        assert clean(kept) == kept


def test_a_guarded_stream_cleans_whatever_is_written() -> None:
    under = io.StringIO()
    stream = Guarded(under)
    print(HOSTILE, "é", file=stream)
    stream.writelines([HOSTILE, "\n"])
    assert under.getvalue() == "abcdef\tg é\nabcdef\tg\n"
    assert not stream.isatty()


def test_an_encoding_that_lacks_a_letter_ends_nothing() -> None:
    raw = io.BytesIO()
    stream = Guarded(io.TextIOWrapper(raw, encoding="ascii"))
    print("Käse 日", file=stream, flush=True)
    assert raw.getvalue() == b"K\\xe4se \\u65e5\n"


def test_no_verb_prints_control_characters(
    labelled_model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """File names, manifests' headers and cells, labels given as text, tensor names: all reach errors and results."""
    from edge_ran.cli import main

    evil = "red\x1b[31m\u202e"
    (tmp_path / f"{evil}.csv").write_text(f"image{evil},label{evil}\na,b\n")
    (tmp_path / "labels.txt").write_text(f"{evil}\ngreen\nblue\n")
    (tmp_path / f"{evil}.tflite").write_bytes(b"nothing")
    picture = next(Path("calibration_data").rglob("*.jpg"), None) or next(Path("calibration_data").rglob("*.png"))
    model = str(labelled_model())
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    for words in (
        ["dataset", str(tmp_path / f"{evil}.csv")],
        ["inspect", str(tmp_path / f"{evil}.tflite")],
        ["run", model, "--labels", str(tmp_path / "labels.txt"), "--camera", str(picture), "--cpu"],
        ["run", model, "--camera", f"http://127.0.0.1:1/{evil}", "--cpu"],
        ["evaluate", model, str(tmp_path / evil)],
        [evil],
    ):
        monkeypatch.setattr(sys, "argv", ["edge-ran", *words])
        with pytest.raises(SystemExit):
            main()
        said = "".join(capsys.readouterr())
        assert said.strip()
        assert clean(said, lines=True) == said


def test_every_stream_is_guarded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    under = io.StringIO()
    monkeypatch.setattr(sys, "stdout", under)
    monkeypatch.setattr(sys, "stderr", under)
    printable.guard()
    printable.guard()
    assert printable.unguarded(sys.stdout) is under
    assert printable.unguarded(under) is under


def test_a_count_of_one_is_singular():
    assert [many(count, "class") for count in (0, 1, 2, 1200)] == ["0 classes", "1 class", "2 classes", "1,200 classes"]
    assert (many(0, "epoch"), many(2, "box"), many(3, "patch")) == ("0 epochs", "2 boxes", "3 patches")
    assert (many(1, "step"), many(None, "core")) == ("1 step", "an unknown number of cores")


def test_a_message_names_five_at_most() -> None:
    assert (some("a"), some("abcde"), some("abcdefg")) == ("a", "a, b, c, d, e", "a, b, c, d, e and 2 more")
