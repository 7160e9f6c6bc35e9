"""A board over ssh, which runs this very code.

One connection of OpenSSH's client carries everything: questions, files, output, signals (``there`` is its other end).
Nothing is asked for at a terminal, nothing is installed unless told to, and when the connection ends, by whatever
cause, so does what it started. What is kept there is told in ``there``.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from edge_ran import catalogue, files, records
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import RELAY, EdgeRanError, EnvironmentMissing, GateError, InputError, UsageError
from edge_ran.targets import agent
from edge_ran.targets.address import SshAddress, ssh_address
from edge_ran.targets.sanitize import clean, parse
from edge_ran.targets.target import Order, Page, Parcel, Probe, Result

PATIENCE_S = 30.0  # with the connection, and with Python's start on a slow board
CONNECT_S = 10.0
ANSWER_S = 120.0
ALIVE_S = 5.0  # between two signs of life
STOP_S = 10.0  # from the first Ctrl-C until we wait no longer
LONGEST_FRAME, LONGEST_ANSWER, LONGEST_LINE = 1 << 22, 1 << 28, 1 << 20
# What the code needs there besides a runtime: module, and what pip calls it.
NEEDED = (
    ("numpy", "numpy"),
    ("cv2", "opencv-python-headless"),
    ("flatbuffers", "flatbuffers"),
    ("tflite", "tflite"),
    ("typer", "typer"),
    ("rich", "rich"),
)
RUNTIMES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))
NAMES = {"ai-edge-litert": "litert"}
AGENT = Path(agent.__file__)
# The device needs no training code, and gets the network that it is to run by itself.
LEFT_OUT = ("host", "shipped", "__pycache__")


class SshTarget:
    """A device behind ``ssh://``. ``say`` is told lines of progress, and what the device says on stderr."""

    def __init__(self, spec: DeviceSpec, say: Callable[[str], None], install: bool) -> None:
        self.spec, self._say, self._install = spec, say, install
        self._address = ssh_address(spec.target)
        self._wire: Connection | None = None

    def __enter__(self) -> SshTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def probe(self, timeout_s: float) -> Probe:
        found = self._look(timeout_s)
        return Probe(
            answers=True,
            reason=f"lacks {', '.join(lacks)}" if (lacks := _lacks(found)) else "",
            remedy="--install lets pip put that into a folder of its own there" if lacks else "",
            system=found["system"],
            architecture=found["architecture"],
            python=f"Python {found['python']}",
            runtime=_runtime(found),
        )

    def answer(self, order: Order) -> dict[str, Any]:
        said = bytearray()

        def keep(data: bytes) -> None:
            said.extend(data)
            if len(said) > LONGEST_ANSWER:
                raise self._lost("said more than any report holds", "")

        error, local = self._carry_out(order, {"json": True}, keep)
        if error is not None and not (isinstance(error, GateError) and said):
            raise error
        try:
            record = parse(bytes(said))
        except InputError as reason:
            raise self._lost(f"gave an answer that is {reason}", f"edge-ran devices {self.spec.name}") from reason
        several = record.get("models")
        for one in several if isinstance(several, list) else [record]:
            if isinstance(one, dict) and isinstance(one.get("model"), dict):
                one["model"]["path"] = local(str(one["model"].get("path")))
        if isinstance(record.get("model"), str):
            record["model"] = local(record["model"])
        return record

    def follow(self, order: Order, on_line: Callable[[str], None]) -> None:
        as_json = bool(order.options.get("json"))

        def hand_on(line: str) -> None:
            if not as_json:
                on_line(line)
                return
            try:
                on_line(json.dumps(parse(line)))
            except InputError as reason:
                raise self._lost(f"gave a line that is {reason}", f"edge-ran devices {self.spec.name}") from reason

        lines = Lines(hand_on)
        error, _ = self._carry_out(order, {}, lines.put)
        lines.end()
        if error is not None:
            raise error

    def clean(self) -> int:
        """Remove what was pushed and installed there; return how many bytes that were."""
        self._look()
        freed: int = self._ask("clean", freed_bytes=int)["freed_bytes"]
        return freed

    # The steps of a call.

    def _look(self, timeout_s: float = PATIENCE_S, pages: Sequence[Page] = ()) -> dict[str, Any]:
        """Connect, where that is still to be done, and ask what is there."""
        if self._wire is None:
            self._wire = Connection(self.spec, self._address, timeout_s, pages)
        words = {"needed": NEEDED, "runtimes": RUNTIMES}
        texts = dict.fromkeys(("system", "architecture", "python", "cache"), str)
        return self._ask("look", words, timeout_s, missing=tuple[str, ...], **texts)

    def _ask(
        self, what: str, values: Mapping[str, Any] | None = None, timeout_s: float = ANSWER_S, **told: Any
    ) -> dict[str, Any]:
        """Ask for something; return the answer, which has the keys ``told`` with values of these types."""
        assert self._wire is not None
        self._wire.request(what, **values or {})
        try:
            answer: dict[str, Any] = records.read(told, self._wire.answer(timeout_s), "it")
        except InputError as error:
            raise self._lost(f"gave an answer that is none: {error}", f"edge-ran devices {self.spec.name}") from error
        return answer

    def _carry_out(
        self, order: Order, extra: Mapping[str, Any], out: Callable[[bytes], None]
    ) -> tuple[EdgeRanError | None, Callable[[str], str]]:
        """Do everything; return the error that the verb ended with, and what makes paths there paths here again."""
        found = self._look(pages=[value for value in order.options.values() if isinstance(value, Page)])
        folders = self._ask("open", work=str, pushed=str)
        self._check_packages(found)
        load = Load(PurePosixPath(folders["work"]), PurePosixPath(folders["pushed"]))
        with load:
            code = load.folder(_own_code())
            for place, model in enumerate(order.models):
                load.file(model, f"{place}")
            for path in order.beside:
                load.file(path, "0")
            words = [order.verb, *(str(load.file(model, str(i))) for i, model in enumerate(order.models))]
            words += load.words({**order.options, **extra})
            self._push(load)
        environment = {"PYTHONPATH": str(code), "PYTHONUTF8": "1", "NO_COLOR": "1", RELAY: "1"}
        assert self._wire is not None
        errors = Errors(self.spec.name, load.local, self._say)
        lines = Lines(errors.put)
        self._wire.request("run", words=words, links=load.links, environment=environment)
        ended = self._wire.answer(None, {b"O": out, b"E": lines.put})
        lines.end()
        for written, result in load.results:
            self._fetch(written, result.path)
        return errors.error(ended.get("code")), load.local

    def _check_packages(self, found: dict[str, Any]) -> None:
        lacks = _lacks(found)
        if lacks and self._install:
            self._say(f"edge-ran: installing {', '.join(lacks)} into {found['cache']}/environment on {self.spec.name}")
            assert self._wire is not None
            lines = Lines(self._say)
            self._wire.request("install", requirements=requirements(self.spec.runtime))
            ended = self._wire.answer(None, {b"O": lines.put, b"E": lines.put})
            lines.end()
            if ended.get("code") != 0:
                raise EnvironmentMissing(
                    f"{self.spec.name}: pip could not install what is needed; nothing of it was kept",
                    "its words stand above; it needs a network and the packages python3-venv and python3-pip there",
                )
            lacks = _lacks(self._look())
        if lacks:
            raise EnvironmentMissing(
                f"{self.spec.name} lacks {', '.join(lacks)}",
                "add --install: pip puts it into a folder of its own there, and touches nothing else",
            )

    def _push(self, load: Load) -> None:
        """Send what is not there yet."""
        missing = self._ask("have", {"names": sorted(load.contents)}, missing=tuple[str, ...])["missing"]
        for name in [name for name in load.contents if name in missing]:
            file, words, size, folder = load.contents[name]
            self._say(f"edge-ran: sending {words}, {-(-size // 1000):,} kB, to {self.spec.name}")
            assert self._wire is not None
            self._wire.request("put", name=name, size=size, folder=folder)
            file.seek(0)
            while block := file.read(agent.BLOCK):
                self._wire.send(b"D", block)
            self._wire.answer(ANSWER_S)

    def _fetch(self, path: PurePosixPath, target: Path) -> None:
        """Bring a file or the files of a folder here."""
        assert self._wire is not None
        with tempfile.TemporaryFile() as file:
            self._wire.request("fetch", path=str(path))
            try:
                self._wire.answer(None, {b"D": file.write})
            except OSError as error:
                raise EnvironmentMissing(f"cannot take {target} in: {error.strerror}", "free some space") from error
            if not file.tell():
                return  # the verb did not come so far as to write it
            file.seek(0)
            try:
                with tarfile.open(fileobj=file, mode="r|") as archive:
                    for member in archive:
                        inside = PurePosixPath(clean(member.name))
                        if member.isfile() and ".." not in inside.parts and not inside.is_absolute():
                            content = archive.extractfile(member)
                            assert content is not None
                            with files.atomic_path(target / inside) as temporary, open(temporary, "wb") as to:
                                while block := content.read(1 << 20):
                                    to.write(block)
            except tarfile.TarError as error:
                raise self._lost("sent a broken archive", "try again") from error

    def _lost(self, what: str, remedy: str) -> EnvironmentMissing:
        return EnvironmentMissing(f"{self.spec.name} {what}", remedy)


class Load:
    """What must go to the device for one call, and what it is called there. Close it: it holds files open."""

    def __init__(self, work: PurePosixPath, pushed: PurePosixPath) -> None:
        self.work, self.pushed = work, pushed
        self.contents: dict[str, tuple[BinaryIO, str, int, bool]] = {}  # by SHA-256: what, its name, bytes, folder?
        self.links: dict[str, str] = {}
        self.results: list[tuple[PurePosixPath, Result]] = []
        self._here: dict[str, str] = {}

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *exc: object) -> None:
        for file, *_ in self.contents.values():
            file.close()

    def file(self, path: Path, place: str) -> PurePosixPath:
        """Take a file along; return its path there, which ends in its own name."""
        content: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            with open(path, "rb") as file:
                shutil.copyfileobj(file, content)  # so that it cannot change between hash and sending
        except OSError as error:
            content.close()
            raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
        name = self._add(content, path.name, False)
        self.links[f"{place}/{path.name}"] = str(self.pushed / name)
        self._here[str(self.work / place / path.name)] = str(path)
        return self.work / place / path.name

    def folder(self, parcel: Parcel | tuple[str, dict[str, Path]]) -> PurePosixPath:
        """Take files along; return the folder there that holds them."""
        if isinstance(parcel, Parcel):
            title = f"{len(parcel.files)} files of {parcel.root.name}"
            members = {path.relative_to(parcel.root).as_posix(): path for path in parcel.files}
        else:
            title, members = parcel
        content: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        # The same files make the same archive, so that its hash tells whether it is there already.
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, path in sorted(members.items()):
                archive.writestr(zipfile.ZipInfo(name), files.read_bytes(path) if path.stat().st_size else b"")
        there_ = self.pushed / self._add(content, title, True)
        if isinstance(parcel, Parcel):
            self._here[str(there_)] = str(parcel.root)
        return there_

    def words(self, options: Mapping[str, Any]) -> list[str]:
        """Return the options as words, with everything that lies here taken along."""
        found: list[str] = []
        for name, value in options.items():
            flag = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                found.append(flag if value else flag.replace("--", "--no-", 1))
                continue
            for one in value if isinstance(value, (list, tuple)) else [value]:
                found += [f"{flag}={self._word(one, name)}"]
        return found

    def _word(self, value: Any, name: str) -> str:
        if isinstance(value, Result):
            path = self.work / "out" / name / value.path.name
            self.results.append((path, value))
            return str(path)
        if isinstance(value, Page):
            self._here[f"http://127.0.0.1:{value.port}/"] = f"http://{_shown(value.host)}:{value.port}/"
            return f"127.0.0.1:{value.port}"
        if isinstance(value, Path) and value.is_dir():
            value = Parcel(value, tuple(sorted(p for p in value.rglob("*") if p.is_file())))
        if isinstance(value, Parcel):
            return str(self.folder(value))
        if isinstance(value, Path):
            return str(self.file(value, name))
        return str(value)

    def local(self, text: str) -> str:
        """Return the text with paths there made into paths here."""
        for path, here in self._here.items():
            text = text.replace(path, here)
        return text

    def _add(self, content: BinaryIO, title: str, folder: bool) -> str:
        content.seek(0)
        digest, size = hashlib.sha256(), 0
        while block := content.read(1 << 20):
            digest.update(block)
            size += len(block)
        name = digest.hexdigest()
        if name in self.contents:
            content.close()
        else:
            self.contents[name] = (content, title, size, folder)
        return name


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
        return kind(what, self._remedy or "add --verbose to see more of it")


class Connection:
    """``ssh`` and what it started there. Frames as ``there`` tells; every wait has an end.

    Raises:
        EnvironmentMissing: there is no ssh here, no way there, no Python there, or the connection was lost.
    """

    def __init__(self, spec: DeviceSpec, address: SshAddress, timeout_s: float, pages: Sequence[Page] = ()) -> None:
        self._name, self._address, self._python = spec.name, address, spec.python
        self._frames: queue.Queue[tuple[bytes, bytes]] = queue.Queue(256)
        self._said: list[str] = []
        self._met = self._closed = False
        self._writing = threading.Lock()
        source = AGENT.read_bytes()
        try:
            # A session of its own: Ctrl-C at the terminal is ours to hand on.
            self._ssh = subprocess.Popen(
                command(spec, address, timeout_s, len(source), pages), bufsize=0, stdin=subprocess.PIPE,
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
        try:
            self._write(source)
            kind, _ = self._next(timeout_s)
            if kind != b"H":
                raise self._failure()
            self._met = True
        except BaseException:
            self.close()
            raise

    def request(self, what: str, **values: Any) -> None:
        """Ask for something: ``agent.Agent`` has a method for each."""
        self.send(b"Q", json.dumps({"do": what, **values}).encode())

    def send(self, kind: bytes, payload: bytes) -> None:
        self._write(agent.HEADER.pack(kind, len(payload)) + payload)

    def answer(
        self, timeout_s: float | None, on: Mapping[bytes, Callable[[bytes], Any]] | None = None
    ) -> dict[str, Any]:
        """Hand on frames until the answer comes, and return it. A first Ctrl-C goes to what runs there.

        Raises:
            KeyboardInterrupt: Ctrl-C, when what runs there did not end by it.
        """
        stop_at = None if timeout_s is None else time.monotonic() + timeout_s
        interrupted = False
        while True:
            try:
                kind, payload = self._next(None if stop_at is None else stop_at - time.monotonic())
                if kind == b"A":
                    return self._checked(payload)
                if on and kind in on:
                    on[kind](payload)
            except KeyboardInterrupt:
                if interrupted or not on:
                    raise
                interrupted, stop_at = True, time.monotonic() + STOP_S
                self.send(b"S", b"2")
            except EnvironmentMissing:
                if interrupted:
                    raise KeyboardInterrupt from None
                raise

    def close(self) -> None:
        """End the connection, and with it everything that it started there."""
        if self._closed:
            return
        self._closed = True
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

    def _checked(self, payload: bytes) -> dict[str, Any]:
        try:
            record = parse(payload)
        except InputError as error:
            raise EnvironmentMissing(f"{self._name} gave an answer that is none", "see what runs there") from error
        if "error" not in record:
            return record
        if record.get("errno") == 28:  # ENOSPC, of Linux
            raise EnvironmentMissing(
                f"no space left on {self._name}; nothing half-written is left there",
                f"free some there; `edge-ran devices {self._name} --clean` removes what edge-ran keeps",
            )
        place = f": {record['path']}" if record.get("path") else ""
        raise EnvironmentMissing(f"{self._name}: {str(record['error'])[:200]}{place}", "look at it there")

    def _next(self, timeout_s: float | None) -> tuple[bytes, bytes]:
        try:
            kind, payload = self._frames.get(timeout=None if timeout_s is None else max(0.0, timeout_s))
        except queue.Empty:
            raise EnvironmentMissing(f"{self._name} does not answer", f"try: ssh {self._address}") from None
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
        while not self._closed:
            time.sleep(ALIVE_S)
            if self._met:
                with suppress(EdgeRanError):
                    self._write(agent.HEADER.pack(b"P", 0))

    def _read_frames(self) -> None:
        assert self._ssh.stdout is not None
        for frame in read_frames(self._ssh.stdout):
            self._put(frame)
        self._put((b"", b""))

    def _put(self, frame: tuple[bytes, bytes]) -> None:
        while not self._closed:
            with suppress(queue.Full):
                self._frames.put(frame, timeout=0.5)
                return

    def _read_errors(self) -> None:
        """Keep the last of what ssh says, and the shell and Python there."""
        assert self._ssh.stderr is not None
        lines = Lines(lambda line: self._said.append(line))
        while data := self._ssh.stderr.read(agent.BLOCK):
            lines.put(data)
            del self._said[:-50]
        lines.end()

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


def command(
    spec: DeviceSpec, address: SshAddress, timeout_s: float, size: int, pages: Sequence[Page] = ()
) -> list[str]:
    """Return the words that start ssh, and by it Python, which reads ``size`` bytes of program.

    ``EDGE_RAN_SSH_CONFIG`` names another file than ``~/.ssh/config``.
    """
    options: dict[str, Any] = {
        "BatchMode": "yes",  # a password could only be asked for on a terminal
        "ConnectTimeout": max(1, round(min(timeout_s, CONNECT_S))),
        "ServerAliveInterval": 5,
        "ServerAliveCountMax": 3,
        "ControlMaster": "no",  # a master of the user's is used; ours would stay behind
        "RemoteCommand": "none",
        "PermitLocalCommand": "no",
        "LogLevel": "ERROR",
    }
    if pages:
        options["ControlPath"] = "none"  # what a master forwards, it would forward for ever
    words = ["ssh", "-T", "-a", "-x", *(f"-o{key}={value}" for key, value in options.items())]
    if config := os.environ.get("EDGE_RAN_SSH_CONFIG"):
        words += ["-F", config]
    for page in pages:
        words += ["-oExitOnForwardFailure=yes", "-L", f"{_shown(page.host)}:{page.port}:127.0.0.1:{page.port}"]
    if address.port:
        words += ["-p", str(address.port)]
    if address.user:
        words += ["-l", address.user]
    start = (
        'import sys; sys.version_info < (3, 10) and sys.exit("edge-ran-python %d.%d" % sys.version_info[:2]); '
        f'exec(compile(sys.stdin.buffer.read({size}), "edge-ran", "exec"), {{"__name__": "__main__"}})'
    )
    home, python = ("~/", spec.python[2:]) if spec.python.startswith("~/") else ("", spec.python)
    return [*words, "--", address.host, f"exec {home}{shlex.quote(python)} -I -u -c {shlex.quote(start)}"]


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


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


def explain(said: list[str], status: int | None, address: SshAddress, python: str) -> tuple[str, str]:
    """Say in one line why no connection came about, and in another what to do.

    Args:
        said: lines of ssh, and of the shell and Python there.
        status: ssh's exit status; 255 is its own.
        address: where it went.
        python: what was to run there.
    """
    text = "\n".join(said)
    if found := re.search(r"edge-ran-python (\d+\.\d+)", text):
        return f"Python {found[1]} is too old, 3.10 is needed", 'name another in the TOML: python = "/path/to/python3"'
    for pattern, what, remedy in (
        ("Could not resolve hostname", f"no host is called {address.host}", "check the name, or ~/.ssh/config"),
        ("Could not request local forwarding|in use", "that port is in use here", "choose another: --web HOST:PORT"),
        ("Connection refused", f"{address.host} refuses connections", "start sshd there, or name its port"),
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            f"{address.host} has another host key than before",
            f"if that is right: ssh-keygen -R {address.host}; then connect once by hand: ssh {address}",
        ),
        (
            "Host key verification failed|host key is known",
            f"the host key of {address.host} is not known",
            f"connect once by hand and look at it: ssh {address}",
        ),
        (
            "Permission denied|Too many authentication failures",
            f"{address.host} takes none of our keys",
            f"ssh-copy-id {address}  (passwords are never asked for)",
        ),
        (
            "timed out|No route to host|Network is unreachable|Host is down",
            f"{address.host} does not answer",
            f"try: ssh {address}",
        ),
        ("Bad configuration|terminating, .* bad", "ssh does not understand its configuration", f"try: ssh {address}"),
    ):  # fmt: skip
        if status == 255 and re.search(pattern, text):
            return what, remedy
    if status in (126, 127):
        return (
            f"there is no {python} there",
            'install Python 3.10 or newer, or name it in the TOML: python = "/path/to"',
        )
    last = said[-1][:200] if said else f"ssh ended with status {status}"
    return f"no connection: {last}", f"try: ssh {address}"


def requirements(runtime: str) -> list[str]:
    """Return what pip must install on a device for ``runtime``, as this edge-ran's own package says."""
    try:
        lines = importlib.metadata.requires("edge-ran") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    plain = [line for line in lines if "extra ==" not in line]
    if runtime == "tflite-runtime":
        extra = [line.partition(";")[0].strip() for line in lines if re.search(r"extra == .tflite-runtime.", line)]
        plain = [line for line in plain if not line.startswith("ai-edge-litert")] + extra
    if not plain:
        raise EnvironmentMissing("edge-ran does not know what it needs: it is not installed", "pip install edge-ran")
    return plain


def _own_code() -> tuple[str, dict[str, Path]]:
    """The package as the device needs it, with the folders of data inside, as in the wheel."""
    package = Path(__file__).resolve().parents[1]
    members = {}
    for root, at in [(package, "edge_ran"), *((catalogue.folder(n), f"edge_ran/{n}") for n in catalogue.FOLDERS)]:
        for path in root.rglob("*"):
            inside = path.relative_to(root)
            if path.is_file() and not set(LEFT_OUT) & set(inside.parts):
                members[f"{at}/{inside.as_posix()}"] = path
    return "edge-ran's code", members


def _lacks(found: dict[str, Any]) -> list[str]:
    lacks = [clean(str(name)) for name in found["missing"]]
    return lacks if found.get("runtime") else [*lacks, "a runtime (ai-edge-litert or tflite-runtime)"]


def _runtime(found: dict[str, Any]) -> str:
    match found.get("runtime"):
        case [str(name), str(version)]:
            return f"{NAMES.get(name, name)} {version}"
    return ""
