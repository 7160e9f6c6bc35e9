"""The JPEGs of all candidates, on the disk while they are chosen from: those of long clips do not fit into memory."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO


class Spool:
    """Bytes one after the other in a file; several threads may use it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._end, self._lock = file, 0, threading.Lock()

    def keep(self, data: bytes) -> Kept:
        """Write the bytes; what is returned reads them again."""
        with self._lock:
            kept = Kept(self, self._end, len(data))
            self._file.seek(self._end)
            self._file.write(data)
            self._end += len(data)
        return kept

    def read(self, start: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return self._file.read(size)


@dataclass(frozen=True)
class Kept:
    """Bytes in a spool."""

    spool: Spool
    start: int
    size: int

    def read(self) -> bytes:
        return self.spool.read(self.start, self.size)


@contextlib.contextmanager
def spool_in(folder: Path) -> Iterator[Spool]:
    """Yield a spool in a folder; its file has no name there, so that a killed process leaves nothing."""
    with tempfile.TemporaryFile(dir=folder) as file:
        yield Spool(file)
