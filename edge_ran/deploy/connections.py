"""Work on several boards at the same time; Ctrl-C ends it on all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from edge_ran.deploy.boards import Board
from edge_ran.deploy.remote import Remote

_T = TypeVar("_T")


class Connections:
    """The connections of threads that work at the same time."""

    def __init__(self) -> None:
        self._lock, self._is_cut = threading.Lock(), False
        self._remotes: list[Remote] = []

    def add(self, remote: Remote) -> Remote:
        """Have ``cut`` end this connection too, which may still have to be made; return it."""
        with self._lock:
            self._remotes.append(remote)
            if self._is_cut:
                remote.session.cut()
        return remote

    def cut(self) -> None:
        """End all connections, and those that are still to be made: nothing more is asked of a board."""
        with self._lock:
            self._is_cut = True
            for remote in self._remotes:
                remote.session.cut()


def on_each(chosen: Sequence[tuple[str, Board]], work: Callable[[str, Board, Connections], _T]) -> tuple[_T, ...]:
    """Return what ``work`` returns for each board. Its threads must add their connections to those it is given."""
    connections = Connections()
    with ThreadPoolExecutor(max(1, len(chosen))) as pool:
        try:
            return tuple(pool.map(lambda item: work(item[0], item[1], connections), chosen))
        except BaseException:  # Ctrl-C comes to this thread alone, and the pool waits for the others
            connections.cut()
            raise
