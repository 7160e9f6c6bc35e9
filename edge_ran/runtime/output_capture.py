"""Native libraries talk on file descriptors 1 and 2. Here their words are kept instead of shown."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator

from edge_ran.files import scratch_file

# Where what is said is kept meanwhile; None: in a file without a name. A process that may not live to the end of the
# block sets it, for its last words to be found.
place: str | None = None


_lock = threading.RLock()  # the descriptors are the process's: threads that overlap would give back each other's file


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)  # the thread that held it does not live in the child


class CapturedOutput:
    """What was said; ``text`` is complete once the ``captured`` block has ended."""

    text = ""


@contextlib.contextmanager
def captured(show: bool = False) -> Iterator[CapturedOutput]:
    """Keep everything that is written to file descriptors 1 and 2 inside the block, by any thread of the process.

    One thread at a time: another one waits for the end of the block.

    Args:
        show: pass it on to stderr afterwards (never to stdout, which is for results).
    """
    chatter = CapturedOutput()
    with _lock, contextlib.ExitStack() as stack:
        file = stack.enter_context(open(place, "w+b") if place else scratch_file())  # noqa: SIM115
        _flush()
        kept = [(fd, os.dup(fd)) for fd in (1, 2) if _is_open(fd)]
        try:
            for fd, _ in kept:
                os.dup2(file.fileno(), fd)
            yield chatter
        finally:
            _flush()  # libc's buffers still hold what printf wrote
            for fd, copy in kept:
                os.dup2(copy, fd)
                os.close(copy)
            file.seek(0)
            chatter.text = file.read().decode(errors="replace")
            if show and chatter.text:
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write(chatter.text)
                    sys.stderr.flush()


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).fflush(None)
