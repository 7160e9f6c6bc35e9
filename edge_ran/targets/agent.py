"""The agent: the program that runs on a device for the time of one ssh connection and answers requests.

This file is sent over the connection and needs only Python 3.10. When the connection ends, for whatever reason, the
agent ends everything that it started and removes its working folder. Both ends send frames: a letter, four bytes of
length, then that many bytes.

    to the agent    Q request (JSON)   D data of a put    S signal for the command that runs   P sign of life
    from the agent  A answer (JSON)    D data of a fetch  O stdout of the command              E its stderr

In ``~/.cache/edge-ran``, ``work/`` has the working folders, ``pushed/`` what was sent, named by its SHA-256, and
``environment/`` what ``--install`` installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HELLO = b"\nedge-ran is there 1\n"
HEADER = struct.Struct(">cI")
BLOCK = 1 << 16
SILENCE_S = 60.0  # the other end sends something every few seconds
GRACE_S = 3.0
KEPT_S = 30 * 86400.0  # since the last use
# Run by the interpreter that will run edge-ran: which modules are missing, and which runtime is there.
INSPECT = """
import importlib.metadata as m, importlib.util as u, json, sys
needed, runtimes = json.loads(sys.argv[1])
found = [(name, m.version(name)) for module, name in runtimes if u.find_spec(module)]
missing = [name for module, name in needed if not u.find_spec(module)]
print(json.dumps({"missing": missing, "runtime": found[0] if found else None, "python": sys.version.split()[0]}))
"""


class ConnectionLost(Exception):
    """The connection has ended."""


class Wire:
    """Frames over standard input and output."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.heard = time.monotonic()

    def send(self, kind: bytes, payload: bytes) -> None:
        try:
            data = memoryview(HEADER.pack(kind, len(payload)) + payload)
            while data:
                data = data[os.write(1, data) :]
        except OSError as error:
            raise ConnectionLost from error

    def answer(self, **record: Any) -> None:
        self.send(b"A", json.dumps(record).encode())

    def frames(self) -> Iterator[tuple[bytes, bytes]]:
        """Read once, which must not block, and yield the frames that are whole."""
        data = os.read(0, BLOCK)
        if not data:
            raise ConnectionLost
        self.heard = time.monotonic()
        self.buffer += data
        while len(self.buffer) >= HEADER.size:
            kind, length = HEADER.unpack_from(self.buffer)
            if len(self.buffer) < HEADER.size + length:
                return
            payload = bytes(self.buffer[HEADER.size : HEADER.size + length])
            del self.buffer[: HEADER.size + length]
            if kind != b"P":
                yield kind, payload

    def wait(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield frames as they come, until the connection ends."""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            while True:
                if selector.select(1.0):
                    yield from self.frames()
                self.check()

    def check(self) -> None:
        if time.monotonic() - self.heard > SILENCE_S:
            raise ConnectionLost


class Agent:
    """Answers requests."""

    def __init__(self) -> None:
        self.cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-ran"
        self.pushed, self.environment = self.cache / "pushed", self.cache / "environment"
        self.wire, self.lock = Wire(), -1
        self.work = self.cache / "work"
        self.incoming: Path | None = None  # where what is sent arrives: on the disk of ``pushed``
        self.stream = self.wire.wait()
        self.more: Any = None

    def serve(self) -> None:
        for kind, payload in self.stream:
            if kind != b"Q":
                continue  # what was still on its way when a put failed
            request = json.loads(payload)
            name = f"do_{request.pop('do')}"
            try:
                self.wire.answer(**getattr(self if hasattr(self, name) else self.more, name)(**request))
            except OSError as error:
                self.wire.answer(error=error.strerror or str(error), errno=error.errno, path=str(error.filename or ""))
            self.wire.heard = time.monotonic()  # nobody listened during a long request: that was no silence

    def python(self) -> str:
        own = self.environment / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    def do_look(self, needed: Any, runtimes: Any) -> dict[str, Any]:
        """Tell what this device is and what it lacks."""
        if sys.version_info < (3, 11):
            needed = [*needed, ["tomli", "tomli"]]
        words = [self.python(), "-c", INSPECT, json.dumps([needed, runtimes])]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", check=False)
        try:
            found = json.loads(done.stdout)
        except ValueError:
            found = {"missing": ["a Python that works"], "runtime": None, "python": platform.python_version()}
        system = f"{platform.system()} {platform.release()}"
        return {**found, "system": system, "architecture": platform.machine(), "cache": str(self.cache)}

    def do_extend(self, modules: dict[str, str]) -> dict[str, Any]:
        """Learn more requests: those of the class ``Board`` in the last of these modules, which come as text."""
        for name, source in modules.items():
            module = types.ModuleType(name)
            sys.modules[name] = module
            exec(compile(source, name, "exec"), module.__dict__)
            self.more = getattr(module, "Board", None)
        self.more = self.more(self)
        return {}

    def do_open(self) -> dict[str, Any]:
        """Make a working folder, and remove those of others that are dead and what was pushed and not used for long."""
        import fcntl  # not on Windows, where only this module's constants are of use

        for folder in (self.pushed, self.cache / "work"):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.cache / "work").iterdir():
            with contextlib.suppress(OSError):
                lock = os.open(folder, os.O_RDONLY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(lock)
        for pushed in self.pushed.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - pushed.stat().st_mtime > KEPT_S:
                    shutil.rmtree(pushed) if pushed.is_dir() else pushed.unlink()
        self.work = Path(tempfile.mkdtemp(dir=self.cache / "work"))
        self.lock = os.open(self.work, os.O_RDONLY)
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (self.work / "tmp").mkdir()
        return {"work": str(self.work), "pushed": str(self.pushed)}

    def do_have(self, names: list[str]) -> dict[str, Any]:
        """Tell which are missing. A file is only there if it still is what its name says."""
        return {"missing": [name for name in names if not self._has(self.pushed / name)]}

    def _has(self, path: Path) -> bool:
        try:
            os.utime(path)
            if path.is_dir():
                return True
            with open(path, "rb") as file:
                return _sha256(file) == path.name
        except OSError:
            return False

    def do_put(self, name: str, size: int, folder: bool) -> dict[str, Any]:
        """Take a file, or an archive to unpack; it appears whole under its name, or not at all."""
        incoming = self.incoming or self.work
        partial = incoming / "partial"
        try:
            with open(partial, "w+b") as file:
                while size > 0:
                    kind, data = next(self.stream)
                    if kind != b"D":
                        raise ConnectionLost
                    size -= len(data)
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
                file.seek(0)
                if _sha256(file) != name:
                    return {"error": "what arrived is not what was sent"}
                target = self.pushed / name
                if folder:
                    unpacked = incoming / "unpacked"
                    with zipfile.ZipFile(file) as archive:
                        archive.extractall(unpacked)
                    self.sync_disk(unpacked)
                    try:
                        os.replace(unpacked, target)
                    except OSError:
                        if not target.is_dir():  # else another call was faster
                            raise
                else:
                    os.replace(partial, target)
        finally:
            shutil.rmtree(incoming / "unpacked", ignore_errors=True)
            partial.unlink(missing_ok=True)
        return {}

    def do_run(self, words: list[str], links: dict[str, str], environment: dict[str, str]) -> dict[str, Any]:
        """Run edge-ran in the working folder; its ``links`` lead to what was pushed."""
        for name, target in links.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
        (self.work / "out").mkdir(exist_ok=True)
        own = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] += f":{own}" if own else ""
        return {"code": self.execute([self.python(), "-m", "edge_ran", *words], environment)}

    def do_fetch(self, path: str) -> dict[str, Any]:
        """Send a file or folder of the working folder, as a tar; nothing where there is none."""
        if os.path.lexists(path):
            sender: Any = _Sender(self.wire)
            with tarfile.open(fileobj=sender, mode="w|") as archive:
                archive.add(path, arcname=".")
        return {}

    def do_install(self, requirements: list[str], target: str = "") -> dict[str, Any]:
        """Make an environment with these packages; the one before is kept until the new one is whole."""
        place = Path(target) if target else self.environment
        made = place.with_name(f".{place.name}-{os.getpid()}") if target else self.work / "environment"
        python = str(made / "bin" / "python")
        pip = [
            python,
            "-m",
            "pip",
            "install",
            "--no-cache-dir",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
        ]
        for words in ([sys.executable, "-m", "venv", str(made)], [*pip, *requirements]):
            if code := self.execute(words, {}):
                shutil.rmtree(made, ignore_errors=True)
                return {"code": code}
        shutil.rmtree(place, ignore_errors=True)
        os.replace(made, place)
        return {"code": 0}

    def do_clean(self) -> dict[str, Any]:
        """Remove what is kept between connections."""
        freed = 0
        for folder in (self.pushed, self.environment):
            freed += sum(f.lstat().st_size for f in folder.rglob("*") if f.is_file() and not f.is_symlink())
            shutil.rmtree(folder, ignore_errors=True)
        return {"freed_bytes": freed}

    def execute(self, words: list[str], environment: dict[str, str]) -> int:
        """Run a command and send on what it says; return its exit status."""
        variables = {**os.environ, "TMPDIR": str(self.work / "tmp"), **environment}
        child: Any = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=self.work,
            env=variables, start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(0, selectors.EVENT_READ)
                selector.register(child.stdout, selectors.EVENT_READ, b"O")
                selector.register(child.stderr, selectors.EVENT_READ, b"E")
                while len(selector.get_map()) > 1:
                    for key, _ in selector.select(1.0):
                        if key.data is None:
                            for kind, payload in self.wire.frames():
                                if kind == b"S":
                                    _signal(child, int(payload))
                        elif data := os.read(key.fd, BLOCK):
                            self.wire.send(key.data, data)
                        else:
                            selector.unregister(key.fileobj)
                    self.wire.check()
                    if child.poll() is not None:
                        _signal(child, signal.SIGKILL)  # what it may have left running would keep the pipes open
            return int(child.wait())
        finally:
            if child.poll() is None:
                _signal(child, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(GRACE_S)
            _signal(child, signal.SIGKILL)
            child.wait()

    def sync_disk(self, path: Path) -> None:
        """Have all that was written to the disk of ``path`` on it before going on; other disks are not waited for."""
        handle = os.open(path, os.O_RDONLY)
        try:
            if ctypes.CDLL(None).syncfs(handle):
                os.sync()
        except AttributeError:  # a C library without it
            os.sync()
        finally:
            os.close(handle)

    def close(self) -> None:
        if self.lock >= 0:
            shutil.rmtree(self.work, ignore_errors=True)
            os.close(self.lock)


class _Sender:
    """What tarfile writes to."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def write(self, data: bytes) -> int:
        for start in range(0, len(data), BLOCK):
            self.wire.send(b"D", data[start : start + BLOCK])
        return len(data)


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _signal(child: Any, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child.pid, number)


def _die_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a shell's background jobs are born without
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, of Linux


def _end(number: int, frame: Any) -> None:
    raise ConnectionLost


def main() -> None:
    """Serve until the connection ends."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the end of standard input tells the same, and in good order
    signal.signal(signal.SIGTERM, _end)
    os.write(1, HELLO)
    there = Agent()
    try:
        there.serve()
    except ConnectionLost:
        pass
    finally:
        there.close()


if __name__ == "__main__":
    main()
