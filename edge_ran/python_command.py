"""Commands for the Python that runs, as they can be typed: to install packages, or to run a line of code."""

from __future__ import annotations

import importlib.machinery
import os
import shlex
import shutil
import sys
from pathlib import Path

BEFORE_NUMPY_2 = "install 'numpy<2' 'opencv-python-headless<4.12'"  # for tflite-runtime


def pip(words: str) -> str:
    """Return the command line of pip with these words, for the Python that runs.

    Plain ``pip`` where that is this Python's own: where the environment is not activated, it would be the system's,
    which refuses or installs for another Python. An environment made by ``uv`` has no pip in it.

    Args:
        words: what follows ``pip``, quoted for a shell: ``install 'edge-ran[host]'``.
    """
    python = shlex.quote(sys.executable)
    # Not importlib.util.find_spec: setuptools' hook there takes its distutils away where pip is asked for.
    if importlib.machinery.PathFinder.find_spec("pip") is None:
        if shutil.which("uv") is None:
            return f"{python} -m ensurepip && {python} -m pip {words}"
        verb, _, rest = words.replace("uninstall -y", "uninstall").partition(" ")  # it does not ask
        return f"uv pip {verb} --python {python} {rest}"
    if _is_the_systems():
        words = words.replace("install ", "install --break-system-packages ", 1)  # as edge-ran itself was installed
    return f"pip {words}" if _is_own("pip") else f"{python} -m pip {words}"


def python(code: str) -> str:
    """Return the command line that runs ``code`` with the Python that runs: it has NumPy, another may lack it."""
    name = "python3" if _is_own("python3") else shlex.quote(sys.executable)
    return f"{name} -c {shlex.quote(code)}"


def _is_own(program: str) -> bool:
    """Whether the first program of that name on the path lies beside the Python that runs."""
    found = shutil.which(program)
    return found is not None and os.path.dirname(found) == os.path.dirname(sys.executable)


def _is_the_systems() -> bool:
    """Whether the system keeps others from installing into this Python, as Debian does (PEP 668)."""
    marker = Path(os.__file__).with_name("EXTERNALLY-MANAGED")  # in the folder of the standard library
    return sys.prefix == sys.base_prefix and marker.is_file()
