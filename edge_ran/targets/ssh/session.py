"""What is asked of a board over one connection: what is there, to keep files, to install, to bring files here."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from edge_ran import files, records
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import EnvironmentMissing, InputError
from edge_ran.targets import agent
from edge_ran.targets.address import ssh_address
from edge_ran.targets.sanitize import clean, parse
from edge_ran.targets.ssh.connection import Connection
from edge_ran.targets.ssh.output import Lines
from edge_ran.targets.ssh.packages import NEEDED, RUNTIMES, Installed, requirements
from edge_ran.targets.ssh.payload import Payload
from edge_ran.targets.target import Page

PATIENCE_S = 30.0  # with the connection, and with Python's start on a slow board
ANSWER_S = 120.0
MOST_FETCHED_BYTES = 1 << 36  # days of recording
LONGEST_RECORD = 1 << 27  # a list of a million pictures
LEAST_FREE_BYTES = 1 << 28  # on the disk that keeps what comes

Say = Callable[[str], None]
_R = TypeVar("_R")


@dataclass(frozen=True)
class Folders:
    """Folders there: ``work`` for the time of the connection, ``pushed`` for what is kept by its SHA-256."""

    work: str
    pushed: str


@dataclass(frozen=True)
class Missing:
    """What is not there yet, by SHA-256."""

    missing: tuple[str, ...]


@dataclass(frozen=True)
class Freed:
    """What was removed."""

    freed_bytes: int


class Session:
    """A board that is asked; it is connected at the first request. ``say`` is told lines of progress.

    Raises, in all of its methods:
        EnvironmentMissing: the board cannot be reached, was lost, lacks something, or gave no sensible answer.
    """

    def __init__(self, spec: DeviceSpec, say: Say) -> None:
        self.spec, self.say = spec, say
        self._address = ssh_address(spec.target)
        self._connection: Connection | None = None
        self._is_cut = False

    def cut(self) -> None:
        """End the connection, also one that is being made, at once, from any thread: who waits gets an error."""
        self._is_cut = True
        if (connection := self._connection) is not None:
            connection.cut()

    def close(self) -> None:
        """End the connection; what it started there ends with it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def connect(self, timeout_s: float = PATIENCE_S, pages: Sequence[Page] = ()) -> Connection:
        """Return the connection, which is made where there is none yet."""
        if self._connection is None:
            self._connection = Connection(self.spec, self._address, timeout_s, pages)
            try:
                if self._is_cut:
                    self._connection.cut()
                self._connection.meet(timeout_s)
            except BaseException:
                self.close()
                raise
        return self._connection

    def look(self, timeout_s: float = PATIENCE_S, pages: Sequence[Page] = ()) -> Installed:
        """Connect, where that is still to be done, and ask what is there."""
        self.connect(timeout_s, pages)
        return self.ask("look", Installed, {"needed": NEEDED, "runtimes": RUNTIMES}, timeout_s)

    def open(self) -> Folders:
        """Make a working folder there."""
        return self.ask("open", Folders)

    def clean(self) -> Freed:
        """Remove what is kept there between connections."""
        return self.ask("clean", Freed)

    def ask(
        self, what: str, kind: type[_R], values: Mapping[str, Any] | None = None, timeout_s: float = ANSWER_S
    ) -> _R:
        """Ask for something that ``agent.Agent`` has a method for, and read the answer."""
        return self.read(kind, self.request(what, values, {}, timeout_s))

    def ask_for_data(
        self, what: str, kind: type[_R], values: Mapping[str, Any] | None = None, timeout_s: float = ANSWER_S
    ) -> _R:
        """Ask for something that may be longer than an answer: the record comes as data before it."""
        data = bytearray()

        def keep(block: bytes) -> None:
            data.extend(block)
            if len(data) > LONGEST_RECORD:
                raise self.failed("sends a record without end")

        self.request(what, values, {b"D": keep}, timeout_s)
        try:
            return self.read(kind, parse(bytes(data)))
        except InputError as error:
            raise self.failed(f"sent an invalid answer: {error}") from error

    def read(self, kind: type[_R], answer: dict[str, Any]) -> _R:
        """Return an answer as what it should be."""
        try:
            return records.read(kind, answer, "it")
        except InputError as error:
            raise self.failed(f"sent an invalid answer: {error}") from error

    def request(
        self,
        what: str,
        values: Mapping[str, Any] | None,
        on: Mapping[bytes, Callable[[bytes], Any]],
        timeout_s: float | None = None,
        late: Callable[[], float] | None = None,
    ) -> dict[str, Any]:
        """Ask for something, hand on the frames that come before the answer, and return the answer as it came.

        ``late`` is as in ``Connection.answer``.
        """
        connection = self.connect()
        if self._is_cut:  # the answer before may have been on its way already
            raise self.failed("is not asked any more")
        connection.request(what, **values or {})
        return connection.answer(timeout_s, on, late)

    def install(self, found: Installed, allowed: bool) -> Installed:
        """Let pip install what is missing, where that is ``allowed``; return what is there then."""
        if found.lacks and allowed:
            where = f"{found.cache}/environment on {self.spec.name}"
            self.say(f"edge-ran: installing {', '.join(found.lacks)} into {where}")
            lines = Lines(self.say)
            values = {"requirements": requirements(self.spec.runtime)}
            ended = self.request("install", values, {b"O": lines.put, b"E": lines.put})
            lines.end()
            if ended.get("code") != 0:
                raise EnvironmentMissing(
                    f"{self.spec.name}: pip could not install what is needed; nothing of it was kept",
                    "pip's own lines are above; it needs a network and the packages python3-venv and python3-pip there",
                )
            found = self.look()
        if found.lacks:
            raise EnvironmentMissing(
                f"{self.spec.name} lacks {', '.join(found.lacks)}",
                "add --install: pip puts it into a folder of its own there, and touches nothing else",
            )
        return found

    def push(self, payload: Payload) -> None:
        """Send what is not there yet."""
        missing = self.ask("have", Missing, {"names": sorted(payload.contents)}).missing
        for name, content in payload.contents.items():
            if name not in missing:
                continue
            size = -(-content.size_bytes // 1000)
            self.say(f"edge-ran: sending {content.title}, {size:,} kB, to {self.spec.name}")
            connection = self.connect()
            connection.request("put", name=name, size=content.size_bytes, folder=content.is_folder)
            content.file.seek(0)
            while block := content.file.read(agent.BLOCK):
                connection.send(b"D", block)
            connection.answer(ANSWER_S)

    def fetch(self, path: PurePosixPath, target: Path, pictures: bool = False) -> None:
        """Bring a file here, or, with ``pictures``, the pictures of a folder.

        Raises:
            EnvironmentMissing: it cannot be written, or the board sends a broken archive, or one without end.
        """
        received, target = 0, target.absolute()
        place = next(one for one in (target, *target.parents) if one.is_dir())  # its disk has room, if any has
        try:
            archive_file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115
        except OSError as error:
            raise files.cannot_write(target, error) from error
        with archive_file as file:

            def keep(block: bytes) -> None:
                nonlocal received
                received += len(block)
                if received > MOST_FETCHED_BYTES or shutil.disk_usage(place).free < LEAST_FREE_BYTES:
                    what = f"{self.spec.name} sends more than fits: {received / 1e9:.1f} GB and no end"
                    raise EnvironmentMissing(what, "free some space, or record less")
                file.write(block)

            try:
                self.request("fetch", {"path": str(path)}, {b"D": keep})
            except OSError as error:
                raise EnvironmentMissing(f"cannot write {target}: {error.strerror}", "free some space") from error
            if not file.tell():
                return  # the verb did not come so far as to write it
            file.seek(0)
            try:
                with tarfile.open(fileobj=file, mode="r|") as archive:
                    for member in archive:
                        _extract(archive, member, target, pictures)
            except (tarfile.TarError, ValueError, EOFError, zlib.error) as error:
                raise EnvironmentMissing(f"{self.spec.name} sent a broken archive", "try again") from error

    def failed(self, what: str) -> EnvironmentMissing:
        """An error that names the board, and what shows more of it."""
        return EnvironmentMissing(f"{self.spec.name} {what}", "edge-ran devices DEVICE")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path, pictures: bool) -> None:
    """Write one file of an untrusted archive, if it is what was asked for.

    A single file is the target itself, whatever it is called. A folder holds pictures, in folders that are not hidden:
    no start-up file, no key, no module that something here would load. Nothing is written that was not sent, as a
    sparse file would be.
    """
    inside = PurePosixPath(clean(member.name))
    if not member.isfile() or member.issparse() or ".." in inside.parts or inside.is_absolute():
        return
    if pictures:
        if inside.suffix != ".jpg" or any(part.startswith(".") for part in inside.parts):
            return
    elif inside.parts:
        return
    content = archive.extractfile(member)
    assert content is not None
    with files.atomic_path(target / inside) as temporary, open(temporary, "wb") as to:
        while block := content.read(1 << 20):
            to.write(block)
