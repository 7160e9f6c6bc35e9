"""What Ctrl-C leaves: a line that says what was saved, and the command that goes on."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from edge_ran.cli.app import say


class Told(KeyboardInterrupt):
    """A Ctrl-C whose consequences were said."""


# The verbs that take long, and what Ctrl-C leaves of each where the verb itself has not said it.
_NOTHING = "nothing was written; to start again:"
_LONG = {
    **dict.fromkeys(("train", "import", "quantize", "convert", "evaluate", "precisions", "verify", "export"), _NOTHING),
    **dict.fromkeys(("benchmark", "profile", "sweep", "sustain", "demo", "dataset check", "dataset build"), _NOTHING),
    "deploy": "a board has the release that it had, or the new one, whole; to see which, and to go on:",
    "rollback": "every board runs the release that it had; to start again:",
    "undeploy": "a board has all that it had, or nothing of it any more; to go on:",
    "fetch": "the pictures that have come are whole, and stay; to go on:",
}


@contextlib.contextmanager
def interruptible(verb: str) -> Iterator[None]:
    """On Ctrl-C in a verb that takes long, say what is left of its work, unless that was said more precisely."""
    try:
        yield
    except Told:
        raise
    except KeyboardInterrupt:
        if verb in _LONG:
            _tell(_LONG[verb], *(["edge-ran status"] if verb == "deploy" else []), command())
        raise


def _tell(what: str, *remedies: str) -> None:
    say(f"stopped; {what}")
    for remedy in remedies:
        print(f"  {remedy}", file=sys.stderr)


@contextlib.contextmanager
def on_interrupt(saved: Callable[[], tuple[str, ...]]) -> Iterator[None]:
    """While a verb works: on Ctrl-C, print what was saved and the commands that go on, as ``saved`` returns them."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        _tell(*saved())
        raise Told from interrupt


def resumable(
    run: Path, instead: Mapping[str, str] | None = None, force: bool = False
) -> contextlib.AbstractContextManager[None]:
    """For a training in the folder ``run``: it continues from its checkpoint with ``--resume``.

    ``instead`` are options with values that stand for ``--budget`` and ``--device``: what these have chosen. With
    ``force`` what is there already is of another run, with which the training does not go on.
    """
    from edge_ran.runs import CHECKPOINT, SETTINGS

    others = _training_files(run) if force else {}

    def saved() -> tuple[str, str]:
        words = tuple(f"{option}={value}" for option, value in (instead or {}).items())
        measured = ("--budget", "--device", "-d") if words else ()
        again = command(*words, "--resume", leave_out=("--force", "-f"), leave_out_with_value=measured)
        own = {path.name for path, written in _training_files(run).items() if others.get(path) != written}
        if CHECKPOINT in own:
            return f"the last checkpoint is in {run}; to continue:", again
        if SETTINGS in own:
            return f"before the first checkpoint in {run}; to start again:", again
        return "nothing was saved; to start again:", command()

    return on_interrupt(saved)


def _training_files(run: Path) -> dict[Path, tuple[int, int]]:
    """What a training in ``run`` goes on from -> its inode and time, which change when it is written again."""
    from edge_ran.runs import RunFolder

    statuses = {path: path.stat() for path in RunFolder(run).training_files()}
    return {path: (status.st_ino, status.st_mtime_ns) for path, status in statuses.items()}


def command(*more: str, leave_out: tuple[str, ...] = (), leave_out_with_value: tuple[str, ...] = ()) -> str:
    """Return this command as it was typed, less some options, and more of others that it does not have."""
    from edge_ran.camera.address import without_password

    typed = _without(sys.argv[1:], leave_out_with_value)
    words = [_hidden(word, without_password) for word in typed if word not in leave_out]
    return shlex.join(["edge-ran", *words, *(word for word in more if word not in words)])


def _without(words: Sequence[str], options: tuple[str, ...]) -> Iterator[str]:
    """The words without these options and their values, as ``--device NAME``, ``--device=NAME``, ``-dNAME``."""
    remaining = iter(words)
    for word in remaining:
        if word in options:
            next(remaining, None)
        elif not any(word.startswith(f"{one}=" if one.startswith("--") else one) for one in options):
            yield word


def _hidden(word: str, without_password: Callable[[str], str]) -> str:
    """The word without the password of an address in it, with or without its option: ``--camera=rtsp://…``."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{without_password(value)}"
