"""Signals that end a verb properly, instead of at once."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from typing import Any

# A terminal that is gone, as when ssh is cut off: unknown on Windows.
HANG_UP = getattr(signal, "SIGHUP", None)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """Yield an event that SIGINT, SIGTERM and SIGHUP set, and the signals that came.

    A second signal ends the program at once. SIGHUP stays ignored where it is, as under ``nohup``.
    """
    stop, came = threading.Event(), list[int]()
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        came.append(number)
        stop.set()
        if number == HANG_UP:
            _let_go_of_the_terminal()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, *([HANG_UP] if HANG_UP else [])):
            if number != HANG_UP or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield stop, came
    finally:
        restore()


@contextlib.contextmanager
def interrupt_on_signals() -> Iterator[list[int]]:
    """Have SIGTERM and SIGHUP do what Ctrl-C does; yield those of the two that came.

    A second one ends the program at once. SIGHUP stays ignored where it is, as under ``nohup``.
    """
    came: list[int] = []
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        came.append(number)
        if number == HANG_UP:
            _let_go_of_the_terminal()
        restore()
        raise KeyboardInterrupt

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, *([HANG_UP] if HANG_UP else [])):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield came
    finally:
        restore()


def exit_code(came: list[int]) -> int:
    """Return the exit code of a verb that was stopped and has finished what it wrote.

    A service is stopped with SIGTERM: that is no failure, and nobody should start it again.
    """
    return 0 if not came or came[0] == signal.SIGTERM else 130


def _let_go_of_the_terminal() -> None:
    """Send to nowhere what would be written to a terminal that is gone: it would fail, and what is recorded with it."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):  # isatty() says no once it is gone
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
