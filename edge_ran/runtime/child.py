"""Native code that may crash or hang is tried in a child process first."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class ChildFailed(Exception):
    """The child crashed, hung or gave no answer; ``str`` says which, ready to follow the library's name."""


def ask(function: str, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Call ``module:function`` with the request in a child process; return its answer. Both are JSON objects.

    The child works in another folder: paths in the request must be absolute.

    Raises:
        ChildFailed: there was no answer.
    """
    package = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory(prefix="edge-ran-") as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", __name__, function, json.dumps(request), str(answer)]
        try:
            done = subprocess.run(
                command, cwd=package, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ChildFailed(f"did not finish within {timeout_s:.0f} s") from error
        if done.returncode < 0:
            raise ChildFailed(f"crashed ({_signal(-done.returncode)})")
        try:
            found = json.loads(answer.read_text())
        except (OSError, ValueError) as error:
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
            raise ChildFailed(f"ended its process with status {done.returncode}{': ' if last else ''}{last}") from error
    if not isinstance(found, dict):
        raise ChildFailed("gave no answer")
    return found


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _serve(function: str, request: str, answer: str) -> None:
    module, _, name = function.partition(":")
    found = getattr(importlib.import_module(module), name)(**json.loads(request))
    partial = Path(answer).with_suffix(".part")
    partial.write_text(json.dumps(found))
    os.replace(partial, answer)
    sys.stdout.flush()
    os._exit(0)  # the answer is given: what native libraries do when they are unloaded is of no interest


if __name__ == "__main__":
    _serve(*sys.argv[1:])
