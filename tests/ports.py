"""Ports on loopback for programs that must be told one."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket


def _own() -> itertools.chain[int]:
    """Ports below those that the system gives to whoever asks for none; each process of a test run has its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw9").removeprefix("gw")) % 10
    first, begin = 10_000 + worker * 1_000, os.getpid() * 101 % 1_000  # far from that of the process begun next
    return itertools.chain(range(first + begin, first + 1_000), range(first, first + begin))


_PORTS = itertools.cycle(_own())


def free_port(*addresses: str) -> int:
    """A port that is free on these addresses, 127.0.0.1 by default.

    Port 0 gives one of the system's own range, where another test or a connection may have it before the program does.
    """
    for port in itertools.islice(_PORTS, 1_000):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for address in addresses or ("127.0.0.1",):
                stack.enter_context(socket.socket()).bind((address, port))
            return port
    raise RuntimeError("no port is free")
