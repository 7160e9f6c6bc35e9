"""The ``adb`` client of Android's platform tools: which phones it knows, and commands run by it.

The client is run as the program that it is, so that what works in a shell (USB, Wi-Fi, ``ANDROID_ADB_SERVER_PORT``,
``ANDROID_SERIAL``) works here. A server of another version is left alone: the client would end it. Whatever a phone
says is untrusted: cut to a bound, stripped of control characters.
"""

from __future__ import annotations

import os
import re
import selectors
import shlex
import shutil
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_ran.errors import EnvironmentMissing, UsageError
from edge_ran.targets.address import SERIAL
from edge_ran.targets.sanitize import clean

HEADING = "List of devices attached"
LISTED = re.compile(rf"(?P<serial>{SERIAL})\s+(?P<state>no permissions|\w+)(?P<rest>.*)")
ANSWER_S = 20.0  # for a command that does next to nothing
LONGEST_S = 24 * 3600.0  # what nobody waits for, and a system's clock can still count
MOST_LINES, LONGEST_LINE = 4000, 2000
STATES = {
    "unauthorized": ("does not trust this computer", "unlock it and accept 'Allow USB debugging?'"),
    "authorizing": ("does not trust this computer yet", "unlock it and accept 'Allow USB debugging?'"),
    "offline": ("is offline: it does not answer adb", "plug it in again, or: adb reconnect offline"),
    "connecting": ("is still connecting", "try again in a moment"),
    "no permissions": (
        "may not be used over USB by this user",
        "apt install android-sdk-platform-tools-common, join the group plugdev, plug it in again",
    ),
}

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Listed:
    """A phone as ``adb devices`` lists it; ``state`` is ``device`` for one that can be used."""

    serial: str
    state: str
    model: str = ""

    def __str__(self) -> str:
        return f"{self.serial} ({self.model or self.state})" if self.model or self.state != "device" else self.serial


@dataclass(frozen=True)
class Done:
    """How a command ended there: its exit status and what it printed, output and errors together."""

    status: int
    lines: tuple[str, ...]


class Adb:
    """The client program and the server that it talks to."""

    def __init__(self, starts_server: bool = True) -> None:
        """Find both.

        Args:
            starts_server: whether the client may start a server where none runs, which then stays, as always.

        Raises:
            EnvironmentMissing: no client, no server, or one that the client would end.
        """
        program = shutil.which("adb")
        if program is None:
            raise EnvironmentMissing("adb is not installed", "apt install adb, or put Android's platform-tools on PATH")
        self.program = program
        self._look_at_server(starts_server)

    def listed(self) -> list[Listed]:
        """Return the phones that the server knows of."""
        found = []
        lines = self._asked("devices", "-l")
        for line in lines[lines.index(HEADING) + 1 :] if HEADING in lines else ():
            match = LISTED.fullmatch(line)
            if match:
                model = re.search(r"\bmodel:(\S+)", match["rest"])
                found.append(Listed(match["serial"], match["state"], model[1].replace("_", " ") if model else ""))
        return found

    def choose(self, serial: str = "") -> str:
        """Return the serial of the phone that is named, or of the only one.

        Raises:
            EnvironmentMissing: it is not there, cannot be used as it is, or there are several and none is named.
        """
        serial = serial or os.environ.get("ANDROID_SERIAL", "")
        there = self.listed()
        others = ", ".join(map(str, there))
        if serial:
            chosen = next((phone for phone in there if phone.serial == serial), None)
            if chosen is None:
                what = f"no phone {clean(serial)} is connected" + (f", but there is {others}" if others else "")
                raise EnvironmentMissing(what, "plug it in with USB debugging on, or: adb connect HOST:PORT")
        elif not there:
            raise EnvironmentMissing(
                "no phone is connected", "plug one in with USB debugging on, or: adb connect HOST:PORT"
            )
        elif len(there) > 1:
            quoted = shlex.quote(f"adb:{there[0].serial}")
            raise EnvironmentMissing(
                f"{len(there)} phones are connected: {others}",
                f"name one: --device {quoted}",
            )
        else:
            chosen = there[0]
        if chosen.state != "device":
            unknown = (f"is in the state {chosen.state!r}", "start Android on it")
            what, remedy = STATES.get(chosen.state, unknown)
            raise EnvironmentMissing(f"phone {chosen.serial} {what}", remedy)
        return chosen.serial

    def run(self, words: Sequence[str], timeout_s: float, on_line: OnLine | None = None) -> Done:
        """Run the client to its end, output and errors together.

        Args:
            words: its arguments.
            timeout_s: seconds before it is ended.
            on_line: called with each line as it comes.

        Raises:
            TimeoutError: it took longer; it was ended.
            EnvironmentMissing: it cannot be started.
        """
        head: list[str] = []
        tail: deque[str] = deque(maxlen=MOST_LINES // 2)
        with self._started(words) as client:
            try:
                for line in _lines(client, time.monotonic() + min(timeout_s, LONGEST_S)):
                    (head if len(head) < MOST_LINES // 2 else tail).append(line)
                    if on_line:
                        on_line(line)
                client.wait(timeout=ANSWER_S)
            except subprocess.TimeoutExpired:
                client.kill()
                raise TimeoutError from None
            except BaseException:
                client.kill()
                raise
        return Done(client.returncode, (*head, *tail))

    def _started(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        command = [self.program, *words]
        try:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except OSError as error:  # Google's platform-tools are for x86_64 alone: no board of ARM starts them
            raise EnvironmentMissing(
                f"{self.program} cannot be started here: {error.strerror}",
                "apt install adb, and put it first on PATH",
            ) from error

    def _asked(self, *words: str) -> tuple[str, ...]:
        try:
            done = self.run(words, ANSWER_S)
        except TimeoutError:
            raise EnvironmentMissing(f"adb {words[0]} does not answer", "look at what: adb devices says") from None
        if done.status:
            raise EnvironmentMissing(
                f"adb {words[0]} failed: {last_line(done.lines)}", "look at what: adb devices says"
            )
        return done.lines

    def _look_at_server(self, may_start: bool) -> None:
        address = _server_address()
        if address is None:
            return
        running = _server_version(*address)
        if running is None:
            if not may_start:
                raise EnvironmentMissing("no adb server is running", "adb devices starts one and lists the phones")
            return
        match = re.search(r"version \d+\.\d+\.(\d+)", " ".join(self._asked("version")))
        if match and int(match[1]) != running:
            raise EnvironmentMissing(
                f"the adb server on port {address[1]} has version {running}; {self.program} of {match[1]} would end it",
                "put the adb that started the server first on PATH, or: adb kill-server",
            )


def _lines(client: subprocess.Popen[bytes], deadline: float) -> Iterator[str]:
    """Yield the client's lines, cleaned, until it closes its output. Raises TimeoutError past ``deadline``."""
    assert client.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(client.stdout, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not waiting.select(left):
                raise TimeoutError
            block = os.read(client.stdout.fileno(), 1 << 16)
            *whole, rest = (rest + block).replace(b"\r", b"").split(b"\n")
            yield from map(_plain, whole)
            if not block:
                if rest:
                    yield _plain(rest)
                return
            rest = rest[: 4 * LONGEST_LINE]  # of a line without an end


def _plain(line: bytes) -> str:
    return clean(line[: 4 * LONGEST_LINE].decode(errors="replace"))[:LONGEST_LINE].rstrip()


def last_line(lines: Sequence[str]) -> str:
    """Return the last of a command's lines that is not empty."""
    return next((line.removeprefix("adb: ") for line in reversed(lines) if line.strip()), "it says nothing")


def _server_address() -> tuple[str, int] | None:
    """Where the client looks for its server; None where that is no TCP port of this machine's view."""
    asked = os.environ.get("ADB_SERVER_SOCKET")
    if asked:
        match = re.fullmatch(r"tcp:(?:(?P<host>[^:]+):)?(?P<port>\d+)", asked)
        return (match["host"] or "127.0.0.1", int(match["port"])) if match else None
    port = os.environ.get("ANDROID_ADB_SERVER_PORT") or "5037"
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"ANDROID_ADB_SERVER_PORT={port} is not a port", "set it to the adb server's, or unset it")
    return os.environ.get("ANDROID_ADB_SERVER_ADDRESS", "127.0.0.1"), int(port)


def _server_version(host: str, port: int) -> int | None:
    """Ask a running server for its version; None where none answers."""
    request = b"host:version"
    try:
        with socket.create_connection((host, port), timeout=2) as server:
            server.sendall(b"%04x" % len(request) + request)
            answer = b""
            while len(answer) < 12 and (block := server.recv(12 - len(answer))):
                answer += block
    except OSError:
        return None
    return int(answer[8:], 16) if re.fullmatch(rb"OKAY0004[0-9a-fA-F]{4}", answer) else None
