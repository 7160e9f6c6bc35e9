"""Ctrl-C says what was saved, and prints the command that goes on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from test_cli_help import VERBS
from test_cli_rules import refusal
from typer.core import TyperCommand

from edge_ran import cli, files
from edge_ran.cli.interrupted import _LONG, command, interruptible, on_interrupt, resumable


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """A function: a context and a command's words -> the lines that Ctrl-C in it prints."""

    def stop(context: AbstractContextManager[None], *words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["edge-ran", *words])
        with pytest.raises(KeyboardInterrupt), context:
            raise KeyboardInterrupt
        return capsys.readouterr().err.splitlines()

    return stop


def test_a_training_continues_from_its_checkpoint(stopped: Callable[..., list[str]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", "my pictures", "-o", str(run), "--epochs", "3", "--force")
    nothing = stopped(resumable(run), *words)
    assert nothing == [
        "edge-ran: stopped; nothing was saved; to start again:",
        f"  edge-ran train 'my pictures' -o {run} --epochs 3 --force",
    ]
    (run / "unfinished").mkdir(parents=True)
    for folder in (run, run / "unfinished"):  # a finished run, and a try to replace it
        for name in ("settings.json", "checkpoint.npz"):
            (folder / name).write_text("{}")
    assert stopped(resumable(run, force=True), *words) == nothing
    again = f"  edge-ran train 'my pictures' -o {run} --epochs 3 --resume"
    told = resumable(run, force=True)
    (run / "unfinished" / "checkpoint.npz").unlink()
    files.write_text(run / "unfinished" / "settings.json", "{}")
    assert stopped(told, *words) == [f"edge-ran: stopped; before the first checkpoint in {run}; to start again:", again]
    told = resumable(run, force=True)
    files.write_text(run / "unfinished" / "checkpoint.npz", "")
    assert stopped(told, *words) == [f"edge-ran: stopped; the last checkpoint is in {run}; to continue:", again]
    assert stopped(resumable(run), *words[:-1], "--resume")[1] == again


@pytest.mark.parametrize(
    "budget", ["--budget 9ms --device board", "--budget=9ms -d board", "-dboard", "--device=board"]
)
def test_a_training_with_a_budget_continues_with_the_network_that_it_chose(
    stopped: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, budget: str
) -> None:
    monkeypatch.setattr(VERBS["train"], "callback", None)  # restored afterwards
    (tmp_path / "checkpoint.npz").write_bytes(b"")
    chosen = {"--network": "places38", "--input-size": "96", "--width": "0.5"}
    typed = ("train", "data", *budget.split(), "--epochs", "9")
    again = "train data --epochs 9 --network=places38 --input-size=96 --width=0.5 --resume"
    assert stopped(resumable(tmp_path, chosen), *typed)[1] == f"  edge-ran {again}"
    assert not refusal("train", VERBS["train"], *again.split()[2:])


def test_other_verbs_say_what_is_there(stopped: Callable[..., list[str]]) -> None:
    context = on_interrupt(lambda: ("nothing was written; to start again:", command()))
    lines = stopped(context, "convert", "--int8", "runs/mine")
    assert lines == ["edge-ran: stopped; nothing was written; to start again:", "  edge-ran convert --int8 runs/mine"]


def test_other_errors_pass(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="other"), on_interrupt(lambda: ("", "")):
        raise ValueError("other")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("verb", sorted(_LONG))
def test_every_verb_that_takes_long_says_what_is_left(stopped: Callable[..., list[str]], verb: str) -> None:
    lines = stopped(interruptible(verb), *verb.split(), "x y")
    assert lines[0].startswith("edge-ran: stopped; ")
    assert lines[-1] == f"  edge-ran {verb} 'x y'"
    assert len(lines) == (3 if verb == "deploy" else 2)


def test_what_was_said_is_not_said_again_and_short_verbs_say_nothing(stopped: Callable[..., list[str]]) -> None:
    both = contextlib.ExitStack()
    both.enter_context(interruptible("train"))
    both.enter_context(on_interrupt(lambda: ("more precisely:", "edge-ran train x")))
    assert stopped(both, "train", "x") == ["edge-ran: stopped; more precisely:", "  edge-ran train x"]
    assert stopped(interruptible("logs"), "logs", "--follow") == []


def test_ctrl_c_reaches_the_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the application itself: the words come first, then exit code 130."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TyperCommand, "invoke", interrupted, raising=False)
    for words in (["benchmark", "m.tflite"], ["dataset", "check", "x"], ["dataset", "x"], ["deploy", "m.tflite"]):
        monkeypatch.setattr(sys, "argv", ["edge-ran", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 130
        err = capsys.readouterr().err.splitlines()
        assert err[0].startswith("edge-ran: stopped; ")
        assert err[-1] == f"  edge-ran {' '.join(words)}"


def test_the_verbs_that_take_long_exist() -> None:
    assert set(_LONG) <= set(VERBS)


def test_passwords_are_not_repeated(stopped: Callable[..., list[str]]) -> None:
    words = ("deploy", "m.tflite", "--camera", "rtsp://me:secret@cam/1", "--camera=rtsp://me:secret@cam/2")
    lines = stopped(interruptible("deploy"), *words)
    assert lines[-1] == "  edge-ran deploy m.tflite --camera rtsp://cam/1 --camera=rtsp://cam/2"
