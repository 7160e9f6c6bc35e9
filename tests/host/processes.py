"""Processes with TensorFlow that a test may kill. They are forked from one that has imported it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["edge_ran.host.train", "edge_ran.host.quantize", "edge_ran.host.transfer"])


def start(work: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Start ``work(connection, *arguments)``; return the process and the end of the connection that hears it."""
    hears, says = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=work, args=(says, *arguments), daemon=True)
    process.start()
    says.close()
    return process, hears


def said(connection: Connection) -> list[Any]:
    """All that comes until the process ends."""
    found = []
    try:
        while True:
            found.append(connection.recv())
    except EOFError:
        return found
