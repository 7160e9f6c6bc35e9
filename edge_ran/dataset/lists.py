"""Lists of pictures and their labels with blanks between, as the sources of public data sets write them."""

from __future__ import annotations

import re
from pathlib import Path

from edge_ran.dataset.json_tables import Row
from edge_ran.errors import InputError
from edge_ran.picture import PICTURE_SUFFIXES

_LISTED = re.compile(rf"(.+(?:{'|'.join(map(re.escape, PICTURE_SUFFIXES))}))\s+(.+)", re.IGNORECASE)
_NUMBERED = re.compile(r"(\S+)\s+(\d+)(?:\s+\d+)+")  # Oxford's pets: name, class, and more numbers
_NUMBERS = re.compile(r"-?\d+(\s+-?\d+)+")


def of_list(source: Path, text: str) -> list[Row]:
    """Return the table of a list of names, blanks and labels, as Caffe writes it; both may hold blanks themselves.

    A number in the first line is that of the lines. A line before the pictures names the columns, perhaps without
    that of the pictures, as CelebA has it: then nothing holds a blank.

    Raises:
        InputError: a picture has several labels, and nothing names them.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if len(lines) > 2 and lines[0][1] == str(len(lines) - 2):
        names, cells = lines[1][1].split(), [line.split() for _, line in lines[2:]]
        widths = {len(row) for row in cells}
        if widths <= {len(names)} or widths <= {len(names) + 1}:
            names = names if widths <= {len(names)} else ["image", *names]
            return [(lines[1][0], names), *zip((number for number, _ in lines[2:]), cells, strict=True)]
    firsts = [line.split(None, 1)[0] for _, line in lines]
    is_first = len(set(firsts)) == len(firsts)  # the pictures' names hold no blanks, the labels may
    return [(number, _cells(f"manifest {source}, line {number}", line, is_first)) for number, line in lines]


def _cells(where: str, line: str, is_first: bool) -> list[str]:
    if found := _LISTED.fullmatch(line):
        if _NUMBERS.fullmatch(found[2]):
            what = f"{where}: {found[1]} has the labels {found[2]}; a picture has one class here"
            raise InputError(what, "leave such lines out")
        return [found[1], found[2]]
    if several := _NUMBERED.fullmatch(line):
        return [several[1], several[2]]
    if line.lower().endswith(PICTURE_SUFFIXES):
        return [line]
    return line.split(None, 1) if is_first else line.rsplit(None, 1)
