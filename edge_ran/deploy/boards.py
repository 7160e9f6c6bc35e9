"""Which boards this machine has deployed to, so that ``status`` and ``--all`` know them."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_ran import files
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import EdgeRanError, EnvironmentMissing, UsageError
from edge_ran.targets import resolve

if sys.platform != "win32":
    import fcntl

_changing = threading.Lock()  # boards are deployed to by several threads; another process is kept out by a file


@dataclass(frozen=True)
class Undescribed:
    """A known board whose description is gone or wrong, and why."""

    name: str
    error: EnvironmentMissing
    is_gone: bool
    is_named: bool  # else it is meant by --all


Board = DeviceSpec | Undescribed


def described(board: Board) -> DeviceSpec:
    """Return a board's description. Raises EnvironmentMissing where it is gone or wrong."""
    if isinstance(board, Undescribed):
        raise board.error
    return board


def known() -> list[str]:
    """The words of ``--device`` for every board that something was deployed to and not removed from."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [str(word) for word in found] if isinstance(found, list) else []


def remember(device: str) -> None:
    """Note that something runs on a board; a TOML file by its full path. Raises EnvironmentMissing."""
    if (word := _lasting(device)) in known():
        return
    with _locked():
        if word not in (words := known()):
            files.write_text(_file(), json.dumps([*words, word], indent=1) + "\n")


def forget(device: str) -> None:
    """Note that nothing runs there any more. Raises EnvironmentMissing."""
    if (word := _lasting(device)) not in known():
        return
    with _locked():
        files.write_text(_file(), json.dumps([one for one in known() if one != word], indent=1) + "\n")


def chosen(devices: Sequence[str], every: bool) -> list[tuple[str, Board]]:
    """The boards that were named, or with ``every`` all that are known.

    A known board with a TOML file may be called by the file's name alone. One whose file is gone or wrong is there all
    the same: something runs on it.

    Raises:
        UsageError: none was named, none is known, or one is not a board over ssh.
    """
    remembered = known()
    by_name = {Path(word).stem: word for word in remembered if word.endswith(".toml")}
    words = [*devices, *(remembered if every or not devices else [])]
    if not words:
        raise UsageError("no board is named, and nothing was deployed from here yet", "add --device NAME")
    found: dict[str, Board] = {}
    for place, word in enumerate(words):
        try:
            spec = resolve(word)
        except EdgeRanError:
            word = by_name.get(word, word)
            try:
                spec = resolve(word)
            except EdgeRanError as error:
                if _lasting(word) not in remembered:
                    raise
                found.setdefault(_lasting(word), _undescribed(word, error, place < len(devices)))
                continue
        if not spec.target.startswith("ssh:"):
            remedy = "edge-ran run" if spec.target == "local" else f"edge-ran benchmark --device {shlex.quote(word)}"
            raise UsageError(f"{spec.name} is not a board over ssh: nothing can be deployed to it", remedy)
        found.setdefault(_lasting(word), spec)
    return list(found.items())


def only(device: str) -> DeviceSpec:
    """The board that a verb for a single one was given. Raises as ``chosen`` and ``described`` do."""
    if device == "local":
        raise UsageError("no board is named", "add --device NAME")
    ((_, board),) = chosen([device], False)
    return described(board)


def _undescribed(word: str, error: EdgeRanError, is_named: bool) -> Undescribed:
    is_gone, remedy = not Path(word).exists(), error.remedy
    if is_gone:
        remedy = f"put it back, or have the board forgotten: edge-ran undeploy --device {shlex.quote(word)}"
    return Undescribed(Path(word).stem, EnvironmentMissing(str(error), remedy), is_gone, is_named)


def _lasting(device: str) -> str:
    return str(Path(device).resolve()) if device.endswith(".toml") else device


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Keep other threads and processes from changing the list meanwhile."""
    path = _file().with_suffix(".lock")
    with _changing:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise files.cannot_write(path, error) from error
        try:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _file() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else files.home() / ".local" / "state") / "edge-ran" / "boards.json"
