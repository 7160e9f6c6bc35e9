"""A double of an Android phone for the tests: the device's end of the adb wire protocol over TCP.

The real ``adb`` client and server talk to it. Its files are a folder here and its shell really runs what it is told,
under mksh, which is Android's, or /bin/sh, so that a program that is pushed and started there is executed. After the
protocol's description in Android's ``packages/modules/adb/{protocol,SYNC,SHELL}``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ports import free_port

TMP = "/data/local/tmp"
PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 99",
    "ro.build.version.release": "15",
    "ro.build.version.sdk": "35",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor G9",
}
MAX_PAYLOAD = 256 * 1024
CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (int.from_bytes(word, "little") for word in (
    b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE"))  # fmt: skip


class Device:
    """One phone.

    Attributes:
        root: what ``/data/local/tmp`` is.
        trusted: False never accepts the computer's key (``unauthorized``).
        silent: says nothing at all (``offline``).
        has_shell_v2: False is a phone before Android 7: no exit status, no separate streams.
        space_bytes: what may still be sent to it; more is "No space left on device".
        shells, sent: the commands it ran, and (path, bytes) of the files that it was sent.
        reversed: ports of its own that lead to this machine, as ``tcp:THERE;tcp:HERE``.
    """

    def __init__(self, root: Path, properties: dict[str, str] | None = None) -> None:
        self.root = root
        self.folder = root / "tmp"
        self.folder.mkdir(parents=True)
        self.trusted, self.silent, self.has_shell_v2 = True, False, True
        self.space_bytes: int | None = None
        self.shells: list[str] = []
        self.reversed: list[str] = []
        self.sent: list[tuple[str, int]] = []
        self.tools: dict[str, str] = {}
        self._connections: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = free_port()
        bin_folder = root / "bin"
        bin_folder.mkdir()
        cases = "\n".join(
            f"{name}) echo '{value}';;" for name, value in (PROPERTIES if properties is None else properties).items()
        )
        self.tool("getprop", f'case "$1" in\n{cases}\n*) echo;;\nesac')
        self.tool(
            "dumpsys",
            'case "$1" in\nSurfaceFlinger) echo "GLES: ARM, Mali-G715, OpenGL ES 3.2 v1";;\n'
            'thermalservice) echo "Thermal Status: 0"; echo "Temperature{mValue=41.5, mType=0, mName=CPU}";;\nesac',
        )
        self.path = f"{bin_folder}:{os.environ['PATH']}"

    def tool(self, name: str, script: str) -> None:
        """Give its shell a command."""
        program = self.root / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def start(self) -> Device:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def unplug(self) -> None:
        """Cut every connection, and take no new one."""
        if self._listener:
            # close alone leaves a thread in accept() holding the port
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def files(self) -> list[str]:
        """The files there, by their path below ``/data/local/tmp``."""
        return sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if not p.is_dir())

    def local(self, path: str) -> str:
        return path.replace(TMP, str(self.folder))

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._connections.add(connection)
                threading.Thread(target=_Transport(self, connection).serve, daemon=True).start()


class _Transport:
    def __init__(self, device: Device, connection: socket.socket) -> None:
        self.device, self.connection = device, connection
        self.lock = threading.Lock()
        self.streams: dict[int, _Stream] = {}

    def send(self, command: int, arg0: int, arg1: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, arg0, arg1, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self.lock:
            self.connection.sendall(head + data)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            block = self.connection.recv(count - len(data))
            if not block:
                raise ConnectionError
            data += block
        return data

    def serve(self) -> None:
        number = 0
        try:
            while True:
                command, arg0, arg1, length, _, magic = struct.unpack("<6I", self._exactly(24))
                assert magic == command ^ 0xFFFFFFFF
                data = self._exactly(length)
                if self.device.silent:
                    continue
                if command in (CNXN, AUTH) and not self.device.trusted:
                    if (command, arg0) != (AUTH, 3):  # its public key: a person would be asked now
                        self.send(AUTH, 1, 0, os.urandom(20))  # none of its private keys is known here
                elif command == CNXN:
                    features = "features=shell_v2,cmd" if self.device.has_shell_v2 else "features="
                    banner = f"device::ro.product.name=double;ro.product.model=Pixel_99;ro.product.device=d;{features}"
                    self.send(CNXN, 0x01000001, MAX_PAYLOAD, banner.encode())
                elif command == OPEN:
                    number += 1
                    stream = self.streams[number] = _Stream(self, number, arg0)
                    service = data.rstrip(b"\0").decode()
                    threading.Thread(target=stream.run, args=(service,), daemon=True).start()
                elif command == OKAY and arg1 in self.streams:
                    self.streams[arg1].ready.release()
                elif command == WRTE and arg1 in self.streams:
                    self.streams[arg1].inbox.put(data)
                    self.send(OKAY, arg1, arg0)
                elif command == CLSE and arg1 in self.streams:
                    self.streams.pop(arg1).hang_up()
        except (OSError, ConnectionError):
            pass
        finally:
            for stream in self.streams.values():
                stream.hang_up()
            self.device._connections.discard(self.connection)
            self.connection.close()


class _Stream:
    def __init__(self, transport: _Transport, local: int, remote: int) -> None:
        self.transport, self.local, self.remote = transport, local, remote
        self.device = transport.device
        self.inbox: queue.Queue[bytes | None] = queue.Queue()
        self.ready = threading.Semaphore(0)
        self.gone = threading.Event()
        self.unread = b""

    def hang_up(self) -> None:
        self.gone.set()
        self.inbox.put(None)
        self.ready.release()

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_PAYLOAD):
            if self.gone.is_set():
                raise ConnectionError
            self.transport.send(WRTE, self.local, self.remote, data[start : start + MAX_PAYLOAD])
            self.ready.acquire()

    def read(self, count: int) -> bytes:
        while len(self.unread) < count:
            block = self.inbox.get()
            if block is None:
                raise ConnectionError
            self.unread += block
        data, self.unread = self.unread[:count], self.unread[count:]
        return data

    def run(self, service: str) -> None:
        name, _, argument = service.partition(":")
        kind = name.split(",")[0]
        served = {"shell": self.shell, "sync": self.sync, "reverse": self.reverse}.get(kind)
        try:
            if served is None:
                self.transport.send(CLSE, 0, self.remote)
                return
            self.transport.send(OKAY, self.local, self.remote)
            served(name, argument)
            self.transport.send(CLSE, self.local, self.remote)
        except (OSError, ConnectionError):
            pass

    def shell(self, name: str, command: str) -> None:
        """The shell service; version 2 packs its streams and the exit status."""
        packed = "v2" in name.split(",")
        self.device.shells.append(command)
        with subprocess.Popen(
            [shutil.which("mksh") or "/bin/sh", "-c", self.device.local(command)],
            cwd=self.device.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": self.device.path, "HOME": "/"}, start_new_session=True,
            # Under nohup SIGHUP is ignored, which children inherit and a shell cannot trap; no adbd runs so.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        ) as process:  # fmt: skip
            threading.Thread(target=self._hang_up_with, args=(process,), daemon=True).start()
            while block := os.read(process.stdout.fileno(), 1 << 15):
                self.write(struct.pack("<BI", 1, len(block)) + block if packed else block)
            status = process.wait()
        if packed:
            self.write(struct.pack("<BIB", 3, 1, status & 0xFF))

    def _hang_up_with(self, process: subprocess.Popen[bytes]) -> None:
        self.gone.wait()
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)  # as adbd does when the other end is gone: to the shell alone

    def reverse(self, name: str, argument: str) -> None:
        """Its localhost is this machine's, so that a port there leads here already."""
        what, _, ports = argument.partition(":")
        if what == "forward":
            self.device.reversed.append(ports)
        else:
            self.device.reversed = [p for p in self.device.reversed if not p.startswith(f"{ports};")]
        self.write(b"OKAY")

    def sync(self, name: str, argument: str) -> None:
        """File transfer."""
        while True:
            word, length = struct.unpack("<4sI", self.read(8))
            if word == b"QUIT":
                return
            path = self.read(length).decode()
            if word == b"STAT":
                self.write(b"STAT" + self._stat(Path(self.device.local(path))))
            elif word == b"SEND":
                self._receive(path.rpartition(",")[0])
            elif word == b"RECV":
                self._give(Path(self.device.local(path)))
            else:
                raise AssertionError(f"sync {word!r}")

    def _stat(self, path: Path) -> bytes:
        try:
            seen = path.lstat()
        except OSError:
            return bytes(12)
        return struct.pack("<3I", seen.st_mode, seen.st_size, int(seen.st_mtime))

    def _receive(self, path: str) -> None:
        data, failure = b"", b""
        while True:
            word, length = struct.unpack("<4sI", self.read(8))
            if word == b"DONE":
                break
            block = self.read(length)
            space = self.device.space_bytes
            if space is not None and len(data) + len(block) > space:
                failure = failure or b"write failed: No space left on device"
            if not failure:
                data += block
        target = Path(self.device.local(path))
        if not target.parent.is_dir():
            failure = failure or b"couldn't create file: No such file or directory"
        if failure:
            self.write(b"FAIL" + struct.pack("<I", len(failure)) + failure)
            return
        target.write_bytes(data)
        self.device.sent.append((path, len(data)))
        self.write(b"OKAY" + bytes(4))

    def _give(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError:
            failure = b"open failed: No such file or directory"
            self.write(b"FAIL" + struct.pack("<I", len(failure)) + failure)
            return
        for start in range(0, len(data), 1 << 16):
            block = data[start : start + (1 << 16)]
            self.write(b"DATA" + struct.pack("<I", len(block)) + block)
        self.write(b"DONE" + bytes(4))


class Server:
    """A real adb server on a port of its own, with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.environment = {
            "HOME": str(home),
            "ANDROID_ADB_SERVER_PORT": str(self.port),
            "ADB_MDNS_AUTO_CONNECT": "",
        }
        self._server = subprocess.Popen(
            ["adb", "-P", str(self.port), "server", "nodaemon"],
            env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.02)
        raise AssertionError("the adb server does not start")

    def adb(self, *words: str) -> str:
        done = subprocess.run(
            ["adb", *words], env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60
        )
        return done.stdout + done.stderr

    def is_running(self) -> bool:
        return self._server.poll() is None

    def stop(self) -> None:
        self._server.terminate()
        self._server.wait(timeout=10)


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("adb") is None:
        pytest.skip("no adb client (Debian: apt install adb)")
    server = Server(tmp_path_factory.mktemp("adb-home"))
    yield server
    server.stop()


@pytest.fixture
def phones(adb_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Device]]:
    """A function that makes a phone, connected unless told otherwise, for a server that this process then uses."""
    for name, value in adb_server.environment.items():
        if name != "HOME":
            monkeypatch.setenv(name, value)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    made: list[Device] = []

    def make(is_connected: bool = True, properties: dict[str, str] | None = None, **attributes: object) -> Device:
        device = Device(tmp_path / f"phone{len(made)}", properties)
        for name, value in attributes.items():
            setattr(device, name, value)
        made.append(device.start())
        if is_connected:
            adb_server.adb("connect", device.serial)
        return device

    yield make
    for device in made:
        adb_server.adb("disconnect", device.serial)
        device.unplug()


@pytest.fixture
def phone(phones: Callable[..., Device]) -> Device:
    return phones()
