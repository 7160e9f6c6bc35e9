"""What Ctrl-C leaves: a line that says what was saved, and the command that goes on."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from edge_ran.cli.app import say


@contextlib.contextmanager
def on_interrupt(saved: Callable[[], tuple[str, str]]) -> Iterator[None]:
    """While a verb works: on Ctrl-C, print what was saved and the command that goes on, as ``saved`` returns them."""
    try:
        yield
    except KeyboardInterrupt:
        what, remedy = saved()
        say(f"stopped; {what}")
        print(f"  {remedy}", file=sys.stderr)
        raise


def resumable(run: Path) -> contextlib.AbstractContextManager[None]:
    """For a training in the folder ``run``: it continues from its checkpoint with ``--resume``."""

    def saved() -> tuple[str, str]:
        if any(run.glob("**/checkpoint.npz")):
            return f"the last checkpoint is in {run}; to continue:", command("--resume", leave_out=("--force", "-f"))
        if any(run.glob("**/settings.json")):
            return f"before the first checkpoint in {run}; to start again:", command(
                "--resume", leave_out=("--force", "-f")
            )
        return "nothing was saved; to start again:", command()

    return on_interrupt(saved)


def command(*more: str, leave_out: tuple[str, ...] = ()) -> str:
    """Return this command as it was typed, less some options, and more of others that it does not have."""
    words = [word for word in sys.argv[1:] if word not in leave_out]
    return shlex.join(["edge-ran", *words, *(word for word in more if word not in words)])
