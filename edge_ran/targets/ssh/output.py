"""What a verb says on a board, as lines for this terminal, and the error that it ended with."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from edge_ran.errors import RELAY, EdgeRanError, EnvironmentMissing, GateError, InputError, UsageError
from edge_ran.targets.sanitize import clean, parse

LONGEST_LINE = 1 << 20


class Lines:
    """Puts bytes together to clean lines."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line, self._rest = on_line, b""

    def put(self, data: bytes) -> None:
        *lines, self._rest = re.split(rb"[\r\n]", self._rest + data)
        while len(self._rest) > LONGEST_LINE:
            lines.append(self._rest[:LONGEST_LINE])
            self._rest = self._rest[LONGEST_LINE:]
        for line in filter(None, lines):
            self._on_line(clean(line.decode(errors="replace")))

    def end(self) -> None:
        """Hand on what had no end of line."""
        self.put(b"\n")


class Errors:
    """Tells the line that holds the error of the verb there from those that are for people."""

    def __init__(self, name: str, local: Callable[[str], str], say: Callable[[str], None]) -> None:
        self._name, self._local, self._say = name, local, say
        self._what = self._remedy = self._last = ""

    def put(self, line: str) -> None:
        line = self._local(line)
        if line.startswith(f"{RELAY}:"):
            with suppress(InputError):
                record = parse(line.partition(":")[2])
                self._what, self._remedy = str(record.get("what")), str(record.get("remedy"))
        else:
            self._last = line.strip() or self._last
            self._say(line)

    def error(self, code: Any) -> EdgeRanError | None:
        """Return the error that an exit status stands for. Raises KeyboardInterrupt for that of Ctrl-C."""
        if code == 0:
            return None
        if code in (130, -2):
            raise KeyboardInterrupt
        what = f"{self._name}: {self._what or f'edge-ran ended with status {code} there: {self._last[:200]}'}"
        kinds: dict[Any, type[EdgeRanError]] = {1: GateError, 2: UsageError}
        kind = kinds.get(code, EnvironmentMissing) if self._what else EnvironmentMissing
        # What its Python or its system lacks is installed there.
        where = f"on {self._name}: " if re.search(r"\b(pip|sudo) ", self._remedy) else ""
        return kind(what, f"{where}{self._remedy}" if self._remedy else "add --verbose to see more of it")
