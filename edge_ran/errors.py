"""Every error that edge-ran raises on purpose.

    EdgeRanError                 what is wrong, and what to type; has an exit code
    ├── GateError            1   a gate was not met: accuracy drop, latency regression, strict accelerator
    ├── UsageError           2   the command's words are off
    │   ├── InputError       2   a file, picture, folder or model is not what it should be
    │   └── OutputExists     2   an output is there already and --force was not given
    ├── NotReliable          4   a gate cannot be judged, because the figures are not reliable
    └── EnvironmentMissing   3   this machine lacks something: package, runtime, disk space
        ├── CameraError      3   a camera cannot be opened, or was lost for good
        └── AcceleratorError 3   a GPU, delegate or its driver is not available

``edge_ran.cli.main`` is the only place that catches them; the library never prints.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# An edge-ran that is run by another one, on a device, has this in its environment. It then tells an error to that one,
# as {"what": ..., "remedy": ...} on a line of stderr that begins with this word and a colon.
RELAY = "EDGE_RAN_RELAY"
# Its options, as JSON: a camera's address may hold a password, and every user of a machine can read command lines.
WORDS = "EDGE_RAN_WORDS"


class EdgeRanError(Exception):
    """Base of all; ``str(error)`` is one line saying what is wrong, ``remedy`` one line saying what to type."""

    exit_code = 1

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.remedy = remedy


class GateError(EdgeRanError):
    """A gate that the user set was not met."""

    exit_code = 1


class NotReliable(EdgeRanError):
    """A gate that the user set cannot be judged: the figures are not reliable. Neither passed nor failed."""

    exit_code = 4


class UsageError(EdgeRanError):
    """The command's words cannot be carried out as they stand."""

    exit_code = 2


class InputError(UsageError):
    """A file, picture, folder or model is not what it should be."""


class OutputExists(UsageError):
    """An output is there already; nothing was changed."""


class EnvironmentMissing(EdgeRanError):
    """This machine lacks something that the command needs."""

    exit_code = 3


class CameraError(EnvironmentMissing):
    """A camera cannot be opened, or was lost for good."""


class AcceleratorError(EnvironmentMissing):
    """A GPU, a delegate or its driver is not available."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the remedy line for a misspelt ``word``: the nearest known one, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(known)}"


def unimportable(error: BaseException, remedy: str) -> tuple[str, str]:
    """Why a package cannot be imported, in one line, and the remedy: the given one, or the library the system lacks."""
    root = error  # NumPy puts a page of advice on top of it
    while root.__cause__ is not None:
        root = root.__cause__
    what = str(root).strip().partition("\n")[0][:200] or type(root).__name__
    library, is_absent, _ = what.partition(": cannot open shared object file")
    if not is_absent:
        return what, remedy
    if package := _DEBIAN.get(library):
        return what, f"sudo apt install {package}"
    return what, f"install the system's package of {library} (Debian: apt-file search it)"


# Libraries that containers and small systems mostly lack, and Debian's packages of them.
_DEBIAN = {
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libopenblas.so.0": "libopenblas0",
    "libstdc++.so.6": "libstdc++6",
}
