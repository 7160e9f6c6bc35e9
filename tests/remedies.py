"""What the product advises, looked at as the words of a command: does it exist, and can it be typed as it stands?

In a message a command begins with ``edge-ran VERB`` and goes on to the end of the text or to one of ``; , ( ) # ` ``.
Its words in capitals, and what is filled in when the message is printed, stand for whatever the user has.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from typer.core import TyperGroup

from edge_ran import cli
from edge_ran.cli.app import spell_out

ROOT: Any = typer.main.get_command(cli.app)
_COMMAND = re.compile(r"\bedge-ran ((?:[a-z]+|--?[a-z])[^;,()`#\n]*)")
_OPTION = re.compile(r"(?<![-\w])--[a-z][a-z0-9-]*[a-z0-9]")
OF_OTHERS = re.compile(
    r"\b(pip3?|npm|tensorflowjs_converter|apt|apt-get|dnf|adb|ssh|systemctl|(?<![-\w])(un)?install(?= --)) [^;]*"
)  # commands of other programs


def faults(text: str, verb: str = "") -> list[str]:
    """What is wrong with a message's commands and options; ``verb``: of the command that printed it."""
    found = [fault for words in commands(text) if (fault := _parse(words))]
    rest = OF_OTHERS.sub("", _COMMAND.sub("", text))
    if " " not in text or "\r\n" in text:
        rest = ""  # a word for another program, or a part of a page
    known = options_of(verb) if verb else {name for one in verbs() for name in options_of(one)}
    return found + [
        f"{name} is no option of {verb or 'any verb'}" for name in _OPTION.findall(rest) if name not in known
    ]


def commands(text: str) -> list[str]:
    """The commands in a message, each without ``edge-ran``."""
    return [found.rstrip(" .:") for found in _COMMAND.findall(text) if found.split()[0] in ROOT.commands]


def verbs() -> list[str]:
    found = []
    for name, command in ROOT.commands.items():
        found += [f"{name} {one}" for one in command.commands] if hasattr(command, "commands") else [name]
    return found


def verb_of(words: list[str]) -> str:
    """The verb of a command line; empty where it has none."""
    word = words[0] if words else ""
    if hasattr(ROOT.commands.get(word), "commands"):
        below = ROOT.commands[word].commands
        return f"{word} {words[1] if words[1:] and words[1] in below else next(iter(below))}"
    return word if word in ROOT.commands else ""


def options_of(verb: str) -> set[str]:
    """Every option of a verb, and of its sub-verbs."""
    command = ROOT.commands[verb.split()[0]]
    below = getattr(command, "commands", {"": command})
    leaves = [below[verb.split()[1]]] if len(verb.split()) > 1 and verb.split()[1] in below else below.values()
    return {name for leaf in leaves for one in leaf.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}


def _parse(text: str) -> str:
    """Why the words are no command line, or an empty text."""
    words = spell_out(shlex.split(text))
    if words[0] == "dataset" and words[1:2] and words[1] not in ROOT.commands["dataset"].commands:
        words.insert(1, "check")  # as `dataset` itself reads them
    context = typer.Context(ROOT, info_name="edge-ran")
    command: Any = ROOT
    try:
        while isinstance(command, TyperGroup):
            _, command, words = command.resolve_command(context, words)
            context = typer.Context(command, parent=context, info_name=command.name)
        if "--help" in words:
            return ""
        made = command.make_context(command.name, [_value(word) for word in words], parent=context.parent)
    except Exception as error:  # usage errors have no public name
        if not hasattr(error, "format_message"):
            raise
        return f"edge-ran {text}: {error.format_message()}"
    given = [made.params[one.name] for one in command.params if one.param_type_name == "argument"]
    prose = [word for word in map(str, given) if re.fullmatch(r"[a-z]+", word) and not Path(word).exists()]
    return f"edge-ran {text}: {prose[0]!r} is no name of a file" if prose else ""


def _value(word: str) -> str:
    return "1" if re.fullmatch(r"[A-Z][A-Z_]*", word) else word


def messages(package: Path) -> Iterator[tuple[str, str]]:
    """Each text in the sources that speaks of ``edge-ran`` or of an option: where, and what. No docstrings."""
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        passed = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                passed |= {id(part) for one in node.body[:1] if isinstance(one, ast.Expr) for part in ast.walk(one)}
            if isinstance(node, ast.JoinedStr):
                passed |= {id(one) for one in node.values}
        for node in ast.walk(tree):
            text = None if id(node) in passed else _text(node)
            if text and (_COMMAND.search(text) or _OPTION.search(text)):
                yield f"{path.relative_to(package.parent)}:{node.lineno}", text  # type: ignore[attr-defined]


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
