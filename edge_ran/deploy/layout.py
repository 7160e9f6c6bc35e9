"""The files of a deployment on a board, and how they change.

    ~/.local/share/edge-ran/
        store/SHA256            networks, code and labels, by content
        releases/ID/            release.json, start, links into the store, and worked once it was seen to work
        environments/ID/        what --install brought
        current                 link to the release that runs; replaced atomically
        confirmed               the ID of the last release that was seen to work
        failures.json           how often the current release has failed in a row, and why
        events.jsonl, log.txt   what happened, and what the program said; bounded
        records/                pictures that were recorded; bounded
    $XDG_RUNTIME_DIR/edge-ran/  live.json, page, tmp: in memory, so that no flash is worn out

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
        self.failures_live = self.memory / "failures.json"
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
        """Note that a release works. Raises OSError."""
        write_text(self.releases / identity / "worked", "")
        write_text(self.confirmed, identity)

    def earlier_ids(self) -> list[str]:
        """Releases besides the current one that were seen to work, the latest first."""
        found: list[tuple[float, str]] = []
        for mark in self.releases.glob("[!.]*/worked"):
            with contextlib.suppress(OSError):
                found.append((mark.stat().st_mtime, mark.parent.name))
        return [name for _, name in sorted(found, reverse=True) if name != self.current_id()]

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

    def note_failures(self, identity: str, count: int, reason: str) -> None:
        """Note how often a release has failed in a row: on the disk and, as that may be full, in memory."""
        text = json.dumps({"release": identity, "count": count, "reason": reason[:300]})
        for path, is_durable in ((self.failures_live, False), (self.failures, True)):
            with contextlib.suppress(OSError):
                write_text(path, text, is_durable)

    def read_failures(self) -> tuple[str, int, str]:
        """The release that failed, how often in a row, and why the last time."""
        found = max((read_json(self.failures), read_json(self.failures_live)), key=lambda one: int(one.get("count", 0)))
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


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file; empty where there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
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
