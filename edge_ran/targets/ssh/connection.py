"""The connection to a board: ssh, and the frames that it carries."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import EdgeRanError, EnvironmentMissing, InputError
from edge_ran.targets import agent
from edge_ran.targets.address import SshAddress
from edge_ran.targets.sanitize import parse
from edge_ran.targets.ssh.command_line import command
from edge_ran.targets.ssh.failure import explain
from edge_ran.targets.ssh.output import Lines
from edge_ran.targets.target import Page

AGENT = Path(agent.__file__)
ALIVE_S = 5.0  # between two signs of life
STOP_S = 10.0  # from the first Ctrl-C until we wait no longer
READ_S = 1.0  # for what was read when ssh ended; a program that it started may hold its stderr
LONGEST_FRAME = 1 << 22
MOST_LATE_BYTES = 1 << 24  # more than can be on its way when we close


class Connection:
    """``ssh`` and what it started there. Frames as ``there`` tells; every wait has an end. ``meet`` comes first.

    Raises:
        EnvironmentMissing: there is no ssh here, no way there, no Python there, or the connection was lost.
    """

    def __init__(self, spec: DeviceSpec, address: SshAddress, timeout_s: float, pages: Sequence[Page] = ()) -> None:
        self._name, self._address, self._python = spec.name, address, spec.python
        self._frames: queue.Queue[tuple[bytes, bytes]] = queue.Queue(256)
        self._said: list[str] = []
        self._met, self._closed = False, threading.Event()
        self._writing = threading.Lock()
        self._source = AGENT.read_bytes()
        try:
            # A session of its own: Ctrl-C at the terminal is ours to hand on.
            self._ssh = subprocess.Popen(
                command(spec, address, timeout_s, len(self._source), pages), bufsize=0, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise EnvironmentMissing(
                "there is no ssh on this machine", "install OpenSSH's client; Debian: apt install openssh-client"
            ) from error
        self._readers = [
            threading.Thread(target=work, name=f"edge-ran ssh {spec.name}", daemon=True)
            for work in (self._read_frames, self._read_errors, self._stay_alive)
        ]
        for reader in self._readers:
            reader.start()

    def meet(self, timeout_s: float) -> None:
        """Wait until the agent is there."""
        self._write(self._source)
        kind, _ = self._next(timeout_s)
        if kind != b"H":
            raise self._failure()
        self._met = True

    def request(self, what: str, **values: Any) -> None:
        """Ask for something: ``agent.Agent`` has a method for each."""
        self.send(b"Q", json.dumps({"do": what, **values}).encode())

    def send(self, kind: bytes, payload: bytes) -> None:
        self._write(agent.HEADER.pack(kind, len(payload)) + payload)

    def answer(
        self,
        timeout_s: float | None,
        on: Mapping[bytes, Callable[[bytes], Any]] | None = None,
        late: Callable[[], float] | None = None,
    ) -> dict[str, Any]:
        """Hand on frames until the answer comes, and return it. A first Ctrl-C goes to what runs there.

        ``late`` is called once where that has not ended after ``STOP_S``, and returns how many seconds more it has.

        Raises:
            KeyboardInterrupt: Ctrl-C, when what runs there did not end by it, or nothing runs there.
        """
        stop_at = None if timeout_s is None else time.monotonic() + timeout_s
        interrupted = False
        while True:
            try:
                kind, payload = self._next(None if stop_at is None else stop_at - time.monotonic())
                if kind == b"A":
                    record = self._checked(payload)
                    if interrupted and "code" not in record:  # nothing ran there that the signal could have ended
                        raise KeyboardInterrupt
                    return record
                if on and kind in on:
                    on[kind](payload)
                if interrupted and stop_at is not None and time.monotonic() > stop_at:
                    raise self._silent()  # it says more and more, and does not end
            except KeyboardInterrupt:
                if interrupted or not on:
                    raise
                interrupted, stop_at = True, time.monotonic() + STOP_S
                self.send(b"S", b"2")
            except EnvironmentMissing:
                if not interrupted:
                    raise
                if late is None or self._ssh.poll() is not None:
                    raise KeyboardInterrupt from None
                stop_at, late = time.monotonic() + late(), None

    def cut(self) -> None:
        """End ssh at once, from any thread: whoever waits for an answer gets EnvironmentMissing."""
        self._ssh.terminate()

    def close(self) -> None:
        """End the connection, and with it everything that it started there."""
        if self._closed.is_set():
            return
        self._closed.set()
        with suppress(OSError, ValueError):
            assert self._ssh.stdin is not None
            self._ssh.stdin.close()
        with suppress(queue.Empty):  # the reader may wait for room
            while True:
                self._frames.get_nowait()
        try:
            self._ssh.wait(STOP_S if self._met else 0.1)
        except subprocess.TimeoutExpired:
            self._ssh.kill()
            self._ssh.wait()
        for reader in self._readers:
            reader.join(READ_S)

    def _checked(self, payload: bytes) -> dict[str, Any]:
        try:
            record = parse(payload)
        except InputError as error:
            raise EnvironmentMissing(f"{self._name} sent an invalid answer", "see what runs there") from error
        if "error" not in record:
            return record
        if record.get("errno") == 28:  # ENOSPC, of Linux
            raise EnvironmentMissing(
                f"no space left on {self._name}; nothing half-written is left there",
                "free some there; `edge-ran devices DEVICE --clean` removes what edge-ran keeps",
            )
        place = f": {record['path']}" if record.get("path") else ""
        raise EnvironmentMissing(f"{self._name}: {str(record['error'])[:200]}{place}", "look at it there")

    def _next(self, timeout_s: float | None) -> tuple[bytes, bytes]:
        try:
            kind, payload = self._frames.get(timeout=None if timeout_s is None else max(0.0, timeout_s))
        except queue.Empty:
            raise self._silent() from None
        if kind == b"":
            raise self._failure()
        return kind, payload

    def _write(self, data: bytes) -> None:
        assert self._ssh.stdin is not None
        try:
            with self._writing:
                view = memoryview(data)
                while view:
                    view = view[self._ssh.stdin.write(view) or 0 :]
        except (OSError, ValueError):
            raise self._failure() from None

    def _stay_alive(self) -> None:
        while not self._closed.wait(ALIVE_S):
            if self._met:
                with suppress(EdgeRanError):
                    self._write(agent.HEADER.pack(b"P", 0))

    def _read_frames(self) -> None:
        assert self._ssh.stdout is not None
        late = 0
        with self._ssh.stdout as stream:
            for kind, payload in read_frames(stream):
                self._put((kind, payload))
                late += agent.HEADER.size + len(payload) if self._closed.is_set() else 0
                if late > MOST_LATE_BYTES:
                    self._ssh.kill()  # it goes on sending what nobody wants, and would until close() waits no longer
        self._put((b"", b""))

    def _put(self, frame: tuple[bytes, bytes]) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._frames.put(frame, timeout=0.5)
                return

    def _read_errors(self) -> None:
        """Keep the last of what ssh says, and the shell and Python there."""
        assert self._ssh.stderr is not None
        lines = Lines(lambda line: self._said.append(line))
        with self._ssh.stderr as stream:
            while data := stream.read(agent.BLOCK):
                lines.put(data)
                del self._said[:-50]
        lines.end()

    def _silent(self) -> EnvironmentMissing:
        return EnvironmentMissing(f"{self._name} does not answer", f"try: ssh {self._address}")

    def _failure(self) -> EnvironmentMissing:
        """Why there is no connection, or none any more."""
        with suppress(subprocess.TimeoutExpired):
            self._ssh.wait(2.0)
        self._readers[1].join(2.0)
        status = self._ssh.returncode
        if self._met and status not in (0, 255, None) and self._said:
            return EnvironmentMissing(
                f"{self._name}: what edge-ran needs there failed: {self._said[-1][:200]}", "see it there"
            )
        if self._met:
            return EnvironmentMissing(
                f"the connection to {self._name} was lost; what ran there is ended", "try again; nothing is left there"
            )
        what, remedy = explain(self._said, status, self._address, self._python)
        return EnvironmentMissing(f"{self._name}: {what}", remedy)


def read_frames(stream: Any) -> Iterator[tuple[bytes, bytes]]:
    """Yield ``H`` when the other end has said hello, behind whatever a login says, and then its frames."""
    buffer, met = b"", False
    while data := stream.read(agent.BLOCK):
        buffer += data
        if not met:
            _, hello, rest = buffer.partition(agent.HELLO)
            if not hello:
                buffer = buffer[-agent.BLOCK :]
                continue
            met, buffer = True, rest
            yield b"H", b""
        while len(buffer) >= agent.HEADER.size:
            kind, length = agent.HEADER.unpack_from(buffer)
            if length > LONGEST_FRAME:
                return
            end = agent.HEADER.size + length
            if len(buffer) < end:
                break
            yield kind, buffer[agent.HEADER.size : end]
            buffer = buffer[end:]
