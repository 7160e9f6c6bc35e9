"""Text for people: a module for each verb, whose functions make lines of a result. No measuring, no deciding.

``emit`` is how a verb prints its result, as text or as JSON.
"""

from __future__ import annotations

import json as jsonlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.table import Table

_R = TypeVar("_R")


def emit(json: bool, result: _R, render: Callable[[_R], str]) -> None:
    """Print what a verb found on stdout.

    Args:
        json: whether as JSON.
        result: a frozen dataclass, as ``records`` takes it. Its JSON gets ``schema_version`` and ``tool``.
        render: makes the text for people of it.
    """
    from edge_ran import records

    text = jsonlib.dumps(records.document(result), indent=1, allow_nan=False) if json else render(result)
    try:
        print(text, flush=True)  # typer.echo would pass by the guard where the encoding is ASCII
    except BrokenPipeError:  # whoever read it has read enough; a gate that follows still counts
        discard_stdout()


def discard_stdout() -> None:
    """Throw away what is still to be written to stdout: nobody reads it, or its disk is full."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plain(table: Table) -> str:
    """Return a rich table as plain lines."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(row.rstrip() for row in captured.get().splitlines())
