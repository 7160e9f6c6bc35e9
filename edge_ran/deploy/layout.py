"""The files of a deployment on a board, and how they change.

    ~/.local/share/edge-ran/
        store/SHA256            networks, code and labels, by content
        releases/ID/            release.json, start, links into the store, and worked: a number, the higher the later
        environments/ID/        what --install brought
        current                 link to the release that runs; replaced atomically
        confirmed               the ID of the last release that was seen to work
        failures.json           how often the current release has failed in a row, and why
        events.jsonl, log.txt   what happened, and what the program said; bounded
        records/                pictures that were recorded; bounded
    $XDG_RUNTIME_DIR/edge-ran/  live.json, page, switched, tmp: in memory, so that no flash is worn out

A board's clock jumps: many have none that runs without power. Spans and orders are therefore taken from
``time.monotonic``, which is one for all processes until the next boot, and from numbers, not from files' times.

Standard library only: this is sent to the board as text, and imported there by the service.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

UNIT = "edge-ran.service"
LONGEST_LOG_BYTES = 1_000_000  # and as much again in the file before
KEPT_RELEASES = 2  # besides the current one
AT_RELEASE, AT_STORE = "{edge-ran-release}", "{edge-ran-store}"  # what paths in a release's words begin with


class Layout:
    """Paths of a board's deployment, for the user who runs this."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "edge-ran"
        configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self.unit = configuration / "systemd" / "user" / UNIT
        self.enabled = configuration / "systemd" / "user" / "default.target.wants" / UNIT
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        self.runtime = Path(runtime)
        self.memory = self.runtime / "edge-ran"
        self.live, self.page, self.temporary = self.memory / "live.json", self.memory / "page", self.memory / "tmp"
        self.failures_live, self.switched = self.memory / "failures.json", self.memory / "switched.json"
        self.store, self.releases = self.home / "store", self.home / "releases"
        self.environments, self.records = self.home / "environments", self.home / "records"
        self.current, self.confirmed = self.home / "current", self.home / "confirmed"
        self.failures, self.events, self.log = (
            self.home / name for name in ("failures.json", "events.jsonl", "log.txt")
        )

    def current_id(self) -> str:
        """The release that runs, or that will when the board starts; empty without one."""
        with contextlib.suppress(OSError):
            name = os.path.basename(os.readlink(self.current))
            if (self.releases / name / "release.json").is_file():
                return name
        return ""

    def confirmed_id(self) -> str:
        """The last release that was seen to work; empty without one."""
        with contextlib.suppress(OSError):
            name = self.confirmed.read_text().strip()
            if name and (self.releases / name / "release.json").is_file():
                return name
        return ""

    def confirm(self, identity: str) -> None:
        """Note that a release works, later than all others so far. Raises OSError."""
        last = max((_number(mark) for mark in self.releases.glob("[!.]*/worked")), default=0)
        write_text(self.releases / identity / "worked", str(last + 1))
        write_text(self.confirmed, identity)

    def is_confirmed(self, identity: str) -> bool:
        """Whether it is noted that a release works."""
        return self.confirmed_id() == identity and (self.releases / identity / "worked").exists()

    def forget_worked(self, identity: str) -> None:
        """Let a release count no longer as one to go back to, until it works again. Raises OSError."""
        (self.releases / identity / "worked").unlink(missing_ok=True)

    def earlier_ids(self) -> list[str]:
        """Releases besides the current one that were seen to work, the latest first."""
        found = sorted(((_number(mark), mark.parent.name) for mark in self.releases.glob("[!.]*/worked")), reverse=True)
        return [name for _, name in found if name != self.current_id()]

    def release(self, identity: str) -> dict[str, Any]:
        """What is written in a release; empty where it cannot be read."""
        return read_json(self.releases / identity / "release.json") if identity else {}

    def switch(self, identity: str) -> None:
        """Make a release the current one. A power cut leaves the one before or this one."""
        self.note_failures(identity, 0, "")
        temporary = self.home / f".current-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("releases") / identity)
        os.replace(temporary, self.current)
        sync_folder(self.home)
        with contextlib.suppress(OSError):
            write_text(self.switched, json.dumps({"release": identity, "at": time.monotonic()}), is_durable=False)

    def since(self) -> float:
        """When the current release was switched to, by the present clock as Unix time; 0.0 where nobody can know.

        Since the board's start that is sure; before, it is a file's time, which no clock that was set back explains.
        """
        noted = read_json(self.switched)
        if noted.get("release") == self.current_id():
            return time.time() - (time.monotonic() - float(noted.get("at", 0)))
        with contextlib.suppress(OSError):
            at = self.current.lstat().st_mtime
            return at if at <= time.time() else 0.0
        return 0.0

    def note_failures(self, identity: str, count: int, reason: str) -> None:
        """Note how often a release has failed in a row: on the disk and, as that may be full, in memory."""
        text = json.dumps({"release": identity, "count": count, "reason": reason[:300]})
        for path, is_durable in ((self.failures_live, False), (self.failures, True)):
            try:
                write_text(path, text, is_durable)
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink()  # what it says holds no more

    def read_failures(self) -> tuple[str, int, str]:
        """The release that failed, how often in a row, and why the last time."""
        found = read_json(self.failures_live) or read_json(self.failures)
        return str(found.get("release", "")), int(found.get("count", 0)), str(found.get("reason", ""))

    def event(self, kind: str, text: str) -> None:
        """Note what happened. A full disk is no reason to stop."""
        line = json.dumps({"at": round(time.time(), 1), "kind": kind, "text": text[:500]})
        append(self.events, line + "\n")

    def prune(self) -> None:
        """Remove what no kept release needs: the current one is kept, and the latest that worked before."""
        kept = {self.current_id(), self.confirmed_id(), *self.earlier_ids()[:KEPT_RELEASES]}
        with contextlib.suppress(OSError):
            for path in self.releases.iterdir():
                if path.name not in kept:
                    shutil.rmtree(path, ignore_errors=True)
        used = {str(value) for name in kept for value in self.release(name).get("contents", [])}
        environments = {str(self.release(name).get("environment", "")) for name in kept}
        for folder, wanted in ((self.store, used), (self.environments, environments)):
            with contextlib.suppress(OSError):
                for path in folder.iterdir():
                    if path.name not in wanted:
                        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _number(path: Path) -> int:
    """The number in a file; 0 where there is none."""
    try:
        return int(path.read_text() or 0)
    except (OSError, ValueError):
        return 0


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; empty where there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_text(path: Path, text: str, is_durable: bool = True) -> None:
    """Write a file that only this user can read; it is whole or as before. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".edge-ran-", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    if is_durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have a folder's entries on the disk before going on."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def append(path: Path, text: str) -> None:
    """Add text to a bounded file: the older half goes to ``NAME.1`` and replaces what was there. Never raises."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size + len(text) > LONGEST_LOG_BYTES:
            os.replace(path, path.with_name(path.name + ".1"))
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(handle, "a", encoding="utf-8") as file:
            file.write(text)


def last_lines(path: Path, count: int) -> list[str]:
    """Return the last lines of a bounded file."""
    lines: list[str] = []
    for one in (path.with_name(path.name + ".1"), path):
        with contextlib.suppress(OSError):
            lines += one.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-count:] if count > 0 else []
