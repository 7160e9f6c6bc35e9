"""`--help`: short enough to be read, in plain text, with every default."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from edge_ran import cli


def _verbs(group: Any, *above: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _verbs(command, *above, name)
        else:
            yield " ".join((*above, name)), command


VERBS = dict(_verbs(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_fits_on_a_screen(verb: str, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["edge-ran", *verb.split(), "--help"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    lines = capsys.readouterr().out.splitlines()
    assert not end.value.code
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith(f"Usage: edge-ran {verb}")


OPTIONS = [
    pytest.param(command, parameter, id=f"{verb} {parameter.opts[-1]}")
    for verb, command in VERBS.items()
    for parameter in command.params
    if parameter.param_type_name == "option" and not parameter.is_flag
]


@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_every_default_is_shown(command: Any, option: Any):
    if option.required or option.default in (None, "", (), []):
        return
    record = option.get_help_record(command.context_class(command))
    shown = option.show_default if isinstance(option.show_default, str) else option.default
    assert re.search(rf"\[default: \(?{re.escape(str(shown))}\)?[];]", " ".join(record[1].split()))


@pytest.mark.parametrize(
    "words",
    [["--help"], ["run", "--help"], ["devices", "--json", "-q", "--no-probe"], ["devices", "--no-probe"]],
    ids=" ".join,
)
def test_a_reader_that_leaves_is_no_failure(words: list[str]):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "edge_ran", *words], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_of_commands_is_current(monkeypatch: pytest.MonkeyPatch):
    """docs/commands.md is the help of every verb, to the letter."""
    # A command keeps the words for --help that it was first asked with: here, commands that nobody has asked yet.
    monkeypatch.setattr(typer.main, "get_command", typer.main.get_command.__wrapped__)
    root = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location("readme", root / "scripts" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    readme = importlib.util.module_from_spec(spec)
    sys.modules["readme"] = readme
    spec.loader.exec_module(readme)
    assert readme.COMMANDS.read_text(encoding="utf-8") == readme.command_page(), "run scripts/readme.py"
