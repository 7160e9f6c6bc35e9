"""Keeps the README true: runs its commands in an empty folder and puts their output, and its tables, into it.

    python scripts/readme.py                      # the tables, and docs/commands.md
    python scripts/readme.py --pictures FOLDER    # the outputs, too; labelled pictures of the shipped network's classes

tests/test_docs.py runs the same commands and holds the words of the README against theirs.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.main

from edge_ran import catalogue, cli

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
COMMANDS = ROOT / "docs" / "commands.md"
# Where no camera is, a clip; where nobody waits, fewer rounds.
STAND_INS = {
    "--camera 0": "--camera clip.avi --headless --max-frames 3",
    "train photos": "train photos --epochs 1",
}
MOST_LINES = 16  # of an output; what is longer is cut


@dataclass(frozen=True)
class Command:
    """A line after ``$`` in a console block of the README, and the output that it shows there."""

    words: str
    output: str

    @property
    def to_run(self) -> list[str]:
        """The words without the remark, with stand-ins, the program being this environment's."""
        words = self.words
        for written, instead in STAND_INS.items():
            words = words.replace(written, instead)
        program, *rest = shlex.split(words, comments=True)
        assert program == "edge-ran", f"the README's console runs {program}"
        return [sys.executable, "-m", "edge_ran", *rest]


def commands(text: str) -> list[Command]:
    """Return the commands of all console blocks, in order."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            words, _, output = entry.partition("\n")
            found.append(Command(words, output))
    return found


def prepare(folder: Path, pictures: Path | None = None) -> None:
    """Put what the README's commands speak of into ``folder``: ``clip.avi``, ``photos/`` and ``pictures/``."""
    from edge_ran.host.demo import make_clip
    from edge_ran.picture import read_picture

    found = sorted(catalogue.folder("calibration_data").glob("*.jpg"))
    make_clip([read_picture(path) for path in found[:: len(found) // 12]], folder / "clip.avi")
    for label, name in (("coffee", "coffee"), ("flower", "flower"), ("rocket", "rocket")):
        (folder / "photos" / label).mkdir(parents=True)
        for path in (path for path in found if path.stem.startswith(name)):
            shutil.copy(path, folder / "photos" / label)
    if pictures:
        (folder / "pictures").symlink_to(pictures.resolve())
        return
    for label, name in (("cat", "chelsea"), ("airplane", "rocket")):  # any pictures will do: their words are the same
        (folder / "pictures" / label).mkdir(parents=True)
        for path in (path for path in found if path.stem.startswith(name)):
            shutil.copy(path, folder / "pictures" / label)


def device_table() -> str:
    """Return the README's table of the device catalogue."""
    lines = ["| device | hardware | accelerator | converter | runtime |", "|---|---|---|---|---|"]
    for d in catalogue.devices():
        lines.append(f"| `{d.name}` | {d.summary} | {d.accelerator} | `{d.converter}` | {d.runtime} |")
    return "\n".join(lines)


def verb_table() -> str:
    """Return the README's table of verbs, in the words of their help."""
    lines = ["| verb | does |", "|---|---|"]
    for name, command in typer.main.get_group(cli.app).commands.items():
        lines.append(f"| `{name}` | {' '.join((command.help or '').split()).rstrip('.')} |")
    return "\n".join(lines)


def command_page() -> str:
    """Return docs/commands.md: the help of every verb."""
    parts = ["# Commands\n\nThe `--help` of every verb; `scripts/readme.py` writes this page.\n"]
    for verb, command in leaves(typer.main.get_command(cli.app)):
        context = command.context_class(
            command, info_name=f"edge-ran {verb}", max_content_width=100, terminal_width=100
        )
        text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"## {verb}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def leaves(group: Any, *above: str) -> Iterator[tuple[str, Any]]:
    """Yield every verb's words and command, those of a group of verbs one by one."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, *above, name)
        else:
            yield " ".join((*above, name)), command


def with_tables(text: str) -> str:
    """Return the README's text with the tables of today's catalogue and verbs between their marks."""
    for name, table in (("devices", device_table()), ("verbs", verb_table())):
        start, end = f"<!-- {name}: scripts/readme.py writes this -->\n", f"\n<!-- end of {name} -->"
        before, rest = text.split(start)
        text = f"{before}{start}{table}{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--pictures", type=Path, help="labelled, of the shipped network's classes; without: only tables"
    )
    pictures = parser.parse_args().pictures
    text = with_tables(README.read_text(encoding="utf-8"))
    README.write_text(text, encoding="utf-8")
    COMMANDS.write_text(command_page(), encoding="utf-8")
    if not pictures:
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, pictures)
        for command in commands(text):
            print(command.words, file=sys.stderr)
            done = subprocess.run(command.to_run, cwd=folder, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{command.words}: {done.stderr}")
            if command.output:  # what is shown without output stays so
                lines = [line.rstrip() for line in done.stdout.splitlines()]
                lines = lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "…"]
                output = "".join(f"{line}\n" for line in lines)
                text = text.replace(f"$ {command.words}\n{command.output}", f"$ {command.words}\n{output}")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
