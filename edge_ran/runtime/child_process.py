"""Native code that may crash or hang is tried in a child process first."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from edge_ran.files import TemporaryFolder
from edge_ran.runtime import output_capture

_PROGRAM = "import sys; from edge_ran.runtime.child_process import serve; serve(*sys.argv[1:])"
_SET_DEATH_SIGNAL = 1  # prctl(2)
_LAST_WAIT_S = 5.0  # for a child that was killed; one that waits for a driver in the kernel may never end
# As Google's libraries write it: F0000 00:00:1795431109.018800    2792 model.cc:218] Check failed: …
_FATAL = re.compile(r"F\d{4} [\d:.]+ +\d+ [^ ]*] ")
_CHATTY = re.compile(r"(INFO|WARNING|[IW]\d{4}\b)")


class ChildFailed(Exception):
    """The child crashed, hung or gave no answer; ``str`` says which, ready to follow the library's name."""

    def __init__(self, what: str, is_hung: bool = False) -> None:
        super().__init__(what)
        self.is_hung = is_hung


def ask(function: str, request: dict[str, Any], timeout_s: float, verbose: bool = False) -> dict[str, Any]:
    """Call ``module:function`` with the request in a child process; return its answer. Both are JSON objects.

    The child works in another folder: paths in the request must be absolute. Whatever ends this call, Ctrl-C as well,
    ends the child and all that it started. ``verbose`` passes on what its native libraries said.

    Raises:
        ChildFailed: there was no answer.
    """
    package = Path(__file__).resolve().parents[2]
    with TemporaryFolder() as name:
        folder = Path(name)
        command = [sys.executable, "-c", _PROGRAM, function, json.dumps(request), name, str(os.getpid())]
        # Into a file: a pipe would stay open as long as anything that the child started holds it.
        with open(folder / "words", "wb") as words:
            process = subprocess.Popen(
                command, cwd=package, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
            )
            try:
                status = process.wait(timeout_s)
            except subprocess.TimeoutExpired as error:
                raise ChildFailed(f"did not finish within {timeout_s:.0f} s", is_hung=True) from error
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LAST_WAIT_S)
        if verbose:
            for file in folder.glob("chatter"):
                sys.stderr.write(file.read_text(errors="replace"))
        try:
            found = json.loads((folder / "answer.json").read_text())
        except (OSError, ValueError, RecursionError) as error:
            how = f"crashed ({signal_name(-status)})" if status < 0 else f"ended its process with status {status}"
            said = ": ".join(filter(None, (how, last_words(_said(folder)))))
            raise ChildFailed(said) from error
    if not isinstance(found, dict):
        raise ChildFailed("gave no answer")
    return found


def last_words(said: str) -> str:
    """Return the line that says why a process crashed, of what it said or would have said; empty where none does."""
    lines = [line for line in said.splitlines() if line.strip()]
    fatal = [line for line in lines if _FATAL.match(line)]
    last = (fatal or [line for line in lines[-1:] if not _CHATTY.match(line)] or [""])[-1]
    return _FATAL.sub("", last).strip()[:200]


def _said(folder: Path) -> str:
    found = (folder / name for name in ("words", "chatter"))
    return "\n".join(file.read_text(errors="replace") for file in found if file.is_file())


def signal_name(number: int) -> str:
    """Return the name of a signal: SIGSEGV."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def serve(function: str, request: str, folder: str, parent: str) -> None:
    """Answer, in the child."""
    die_with(int(parent))
    output_capture.place = str(Path(folder) / "chatter")
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)(**json.loads(request))
    partial = Path(folder) / "answer.part"
    partial.write_text(json.dumps(found))
    os.replace(partial, Path(folder) / "answer.json")
    os._exit(0)  # the answer is given: what native libraries do when they are unloaded is of no interest


def die_with(parent: int) -> None:
    """End with the parent, even where it is killed and cannot end us. Linux only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, int(signal.SIGKILL))
        if os.getppid() != parent:  # it is gone already
            os._exit(1)
