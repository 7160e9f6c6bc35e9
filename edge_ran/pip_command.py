"""The command that installs packages into the environment that runs, as it can be typed."""

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
    found = shutil.which("pip")
    is_own = found is not None and os.path.dirname(found) == os.path.dirname(sys.executable)
    if _is_the_systems():
        words = words.replace("install ", "install --break-system-packages ", 1)  # as edge-ran itself was installed
    return f"pip {words}" if is_own else f"{python} -m pip {words}"


def _is_the_systems() -> bool:
    """Whether the system keeps others from installing into this Python, as Debian does (PEP 668)."""
    marker = Path(os.__file__).with_name("EXTERNALLY-MANAGED")  # in the folder of the standard library
    return sys.prefix == sys.base_prefix and marker.is_file()
