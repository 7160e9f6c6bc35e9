"""What is advised to install a package, or to run a line of code, works as it is printed, whatever Python runs."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from edge_ran import errors
from edge_ran.python_command import pip, python
from edge_ran.targets.ssh.output import Errors

PACKAGE = Path(errors.__file__).parent
WORDS = "install --upgrade 'edge-ran[host]'"


def _at(monkeypatch: pytest.MonkeyPatch, python: str, programs: dict[str, str], modules: tuple[str, ...] = ("pip",)):
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setattr(shutil, "which", programs.get)
    found = dict.fromkeys(modules, "its specification")
    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", found.get)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("/home/my pi/.venv/bin/pip", f"pip {WORDS}"),
        ("/usr/bin/pip", f"'/home/my pi/.venv/bin/python' -m pip {WORDS}"),
        (None, f"'/home/my pi/.venv/bin/python' -m pip {WORDS}"),
    ],
)
def test_pip_is_that_of_the_python_that_runs(found: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _at(monkeypatch, "/home/my pi/.venv/bin/python", {"pip": found} if found else {})
    monkeypatch.setattr(sys, "prefix", "/home/my pi/.venv")
    assert pip(WORDS) == expected


def test_an_environment_of_uv_has_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    _at(monkeypatch, "/v/bin/python", {"uv": "/bin/uv", "pip": "/usr/bin/pip"}, ())
    assert pip("install x") == "uv pip install --python /v/bin/python x"
    assert pip("uninstall -y x") == "uv pip uninstall --python /v/bin/python x"
    _at(monkeypatch, "/v/bin/python", {}, ())
    assert pip("install x") == "/v/bin/python -m ensurepip && /v/bin/python -m pip install x"


def test_debian_s_python_is_told_that_it_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    _at(monkeypatch, "/usr/bin/python3", {"pip": "/usr/bin/pip"})
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(os, "__file__", str(tmp_path / "os.py"))
    assert pip("install x") == "pip install --break-system-packages x"


def test_what_a_board_lacks_is_installed_on_the_board(monkeypatch: pytest.MonkeyPatch) -> None:
    _at(monkeypatch, "/home/pi/v/bin/python", {"pip": "/home/pi/v/bin/pip"})
    monkeypatch.setattr(sys, "prefix", "/home/pi/v")
    told = Errors("greenhouse", str, lambda line: None)
    told.put(f'{errors.RELAY}:{{"what": "litert is too old", "remedy": "{pip("install x")}"}}')
    error = told.error(3)
    assert error is not None
    assert error.remedy == "on greenhouse: pip install x"


def test_a_remedy_of_a_board_that_is_for_here_stays_as_it_is() -> None:
    told = Errors("greenhouse", str, lambda line: None)
    told.put(f'{errors.RELAY}:{{"what": "no", "remedy": "give --labels FILE"}}')
    error = told.error(2)
    assert error is not None
    assert error.remedy == "give --labels FILE"


def test_no_message_names_pip_by_itself() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and isinstance(node.body[0], ast.Expr)
        }
        found += [
            f"{path.name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented
            and re.search(r"\bpip (un)?install ", node.value) and "Let pip install" not in node.value
        ]  # fmt: skip
    assert found == []


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("/home/my pi/.venv/bin/python3", "python3 -c 'import numpy'"),
        ("/usr/bin/python3", "'/home/my pi/.venv/bin/python' -c 'import numpy'"),
    ],
)
def test_a_line_of_code_is_for_the_python_that_runs(found: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _at(monkeypatch, "/home/my pi/.venv/bin/python", {"python3": found})
    assert python("import numpy") == expected
