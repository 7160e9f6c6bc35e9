"""What a board does for ``edge-ran deploy`` and its companions: the agent of ``targets`` learns these requests.

Sent as text over the connection, after ``layout``; standard library only. Each change leaves the board, whatever
happens, with the release before or the new one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edge_ran.deploy.layout import UNIT, Layout, last_lines, read_json, sync_folder, write_text

HARDENED = (
    "NoNewPrivileges=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "UMask=0077",
    "MemoryMax=80%",
    "OOMPolicy=continue",  # the service tells why its child ended, and starts it again
    "TasksMax=256",
    "LimitCORE=0",
)
# Need user namespaces, which not every kernel gives to users.
SANDBOXED = ("PrivateUsers=yes", "ProtectSystem=strict", "ProtectKernelTunables=yes", "ProtectControlGroups=yes")


class Board:
    """Answers requests; ``agent`` is what it is asked through."""

    def __init__(self, agent: Any) -> None:
        self.agent, self.layout = agent, Layout()
        # A release must not depend on what `devices --clean` removes.
        agent.environment = self.layout.environments / "none"
        self.lock = -1
        self.environment = {**os.environ, "XDG_RUNTIME_DIR": str(self.layout.runtime)}
        self.environment.setdefault("DBUS_SESSION_BUS_ADDRESS", f"unix:path={self.layout.runtime}/bus")

    def do_board(self) -> dict[str, Any]:
        """Tell whether this board can keep a service running, and why not."""
        state = self.systemctl("is-system-running") if shutil.which("systemctl") else None
        running = state is not None and state.stdout.strip() in ("running", "degraded", "starting")
        why = "" if running else "it has no systemd" if state is None else (state.stderr.strip() or "no user session")
        return {
            "user": _user(),
            "home": str(self.layout.home),
            "python": self.agent.python(),
            "manager": why,
            "lingers": Path("/var/lib/systemd/linger", _user()).exists(),
            "free_bytes": shutil.disk_usage(_existing(self.layout.home)).free,
            "current": self.layout.current_id(),
        }

    def do_linger(self) -> dict[str, Any]:
        """Ask that this user's services start at boot."""
        done = subprocess.run(
            ["loginctl", "enable-linger"],
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode == 0:
            write_text(self.layout.home / "lingering", "enabled by edge-ran deploy\n")
        return {"reason": "" if done.returncode == 0 else (done.stderr.strip() or "refused").splitlines()[-1]}

    def do_deployment(self) -> dict[str, Any]:
        """Begin a deployment: one at a time. What is pushed from now on goes to its store."""
        self.layout.store.mkdir(parents=True, exist_ok=True)
        os.chmod(self.layout.home, 0o700)
        lock = os.open(self.layout.home, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.lock = lock
        except OSError:
            os.close(lock)
            return {"error": "another deployment to this board is going on"}
        for leftover in (*self.layout.home.glob(".*"), *self.layout.releases.glob(".*")):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink()
        opened: dict[str, Any] = self.agent.do_open()
        self.agent.pushed, self.agent.incoming = self.layout.store, self.layout.home / ".incoming"
        self.agent.incoming.mkdir()
        return {**opened, "pushed": str(self.layout.store)}

    def do_equip(self, requirements: list[str], install: bool) -> dict[str, Any]:
        """Find the environment with these packages that an earlier release has, or have pip make it.

        One of another Python is of no use: an update of the board's system replaces that.
        """
        kind = [requirements, sys.executable, *sys.version_info[:2]]
        name = hashlib.sha256(json.dumps(kind).encode()).hexdigest()[:16]
        target = self.layout.environments / name
        if not target.is_dir():
            if not install:
                return {"code": 0, "environment": "", "python": ""}
            target.parent.mkdir(exist_ok=True)
            ended: dict[str, Any] = self.agent.do_install(requirements, str(target))
            if ended.get("code") != 0:
                return {**ended, "environment": "", "python": ""}
        return {"code": 0, "environment": name, "python": str(target / "bin" / "python")}

    def do_stage(self, identity: str, release: dict[str, Any], links: dict[str, str]) -> dict[str, Any]:
        """Put a release beside the others, whole or not at all."""
        target = self.layout.releases / identity
        if (target / "release.json").is_file():
            return {}
        partial = self.layout.releases / f".{identity}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, content in links.items():
            link = partial / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(self.layout.store / content)
        code = self.layout.store / str(release["code"]).rpartition("/")[2]
        words = [release["python"], "-s", "-u", "-m", "edge_ran.deploy.service", str(self.layout.home)]
        write_text(partial / "start", f"PYTHONPATH={shlex.quote(str(code))} exec {shlex.join(words)}\n")
        write_text(partial / "release.json", json.dumps(release, indent=1))
        self.agent.sync_disk(partial)
        os.replace(partial, target)
        sync_folder(self.layout.releases)
        return {}

    def do_accept(self, identity: str, code: str, python: str) -> dict[str, Any]:
        """Run a release against the answers recorded for it; what it says comes as output."""
        words = [python, "-m", "edge_ran.deploy.acceptance", str(self.layout.releases / identity)]
        environment = {"PYTHONPATH": str(self.layout.store / code), "PYTHONUTF8": "1", "EDGE_RAN_RELAY": "1"}
        return {"code": self.agent.execute(words, environment)}

    def do_switch(self, identity: str, leave: str = "") -> dict[str, Any]:
        """Make a release the one that runs, now and after every boot; ``leave`` is the one that is gone back from.

        The next time, that one is not returned to: it counts as one that worked only when it works again.
        """
        before = self.layout.current_id()
        self._write_unit()
        self.layout.switch(identity)
        if leave:
            self.layout.forget_worked(leave)
        self.layout.event("switch", f"from {before or 'nothing'} to {identity}")
        self.systemctl("daemon-reload")
        enabled = self.systemctl("enable", UNIT)
        if enabled.returncode:
            return {"error": f"systemctl enable: {enabled.stderr.strip()[-200:]}"}
        self.systemctl("reset-failed", UNIT)
        started = self.systemctl("restart", "--no-block", UNIT)
        return {"error": f"systemctl: {started.stderr.strip()[-200:]}"} if started.returncode else {"before": before}

    def do_finish(self) -> dict[str, Any]:
        """End a deployment: remove releases that nobody needs, and everything where there is none."""
        if self.lock >= 0:  # this is the deployment that goes on, not one that was refused
            shutil.rmtree(self.layout.home / ".incoming", ignore_errors=True)
            self.layout.prune()
            if not self.layout.current_id() and not self.layout.records.exists():
                self.do_undeploy()
        return {}

    def do_status(self) -> dict[str, Any]:
        """Tell all that is known of what runs here."""
        identity = self.layout.current_id()
        shown = self.systemctl("show", UNIT, "--property=ActiveState,SubState,NRestarts,Result") if identity else None
        pairs = (line.partition("=") for line in shown.stdout.splitlines()) if shown else ()
        unit = {key: value for key, _, value in pairs}
        live = read_json(self.layout.live)
        reported = live.pop("reported", None)
        release = self.layout.release(identity)
        recorded = []
        for path in self._pictures() if identity else ():
            with contextlib.suppress(OSError):  # the oldest go at any time
                recorded.append(path.stat().st_size)
        failed, failures, reason = self.layout.read_failures()
        return {
            "release": identity,
            "confirmed": self.layout.confirmed_id(),
            "since": self.layout.since() if identity else 0.0,
            "model": str(release.get("model_name", "")),
            "model_sha256": str(release.get("model_sha256", "")),
            "unit": unit.get("ActiveState", ""),
            "silent_s": time.monotonic() - reported if isinstance(reported, float) else None,
            "live": live if live.get("release") == identity else None,
            "failures": failures if failed == identity else 0,
            "reason": reason,
            "page": _text(self.layout.page),
            "recorded_files": len(recorded),
            "recorded_bytes": sum(recorded),
            "free_bytes": shutil.disk_usage(_existing(self.layout.home)).free,
            "temperature_c": _temperature_c(),
            "time": time.time(),
        }

    def do_logs(self, lines: int) -> dict[str, Any]:
        """Send the last events and the last lines of the program, as data."""
        events = []
        for line in last_lines(self.layout.events, lines):
            with contextlib.suppress(ValueError, RecursionError):
                events.append(json.loads(line))
        return self._send({"events": events, "lines": last_lines(self.layout.log, lines)})

    def do_back(self, identity: str) -> dict[str, Any]:
        """Go back to a release; without one, end and remove what runs."""
        if identity:
            return self.do_switch(identity)
        self._stop()
        for path in (self.layout.current, self.layout.confirmed):
            path.unlink(missing_ok=True)
        return {"before": ""}

    def do_previous(self) -> dict[str, Any]:
        """The latest release that worked before the one that runs; empty without one."""
        earlier = self.layout.earlier_ids()
        return {"current": self.layout.current_id(), "previous": earlier[0] if earlier else ""}

    def do_undeploy(self) -> dict[str, Any]:
        """End the service and remove all of it."""
        there = self.layout.home.is_dir() or self.layout.unit.exists()
        freed = sum(p.lstat().st_size for p in self.layout.home.rglob("*") if p.is_file() and not p.is_symlink())
        self._stop()
        self.layout.unit.unlink(missing_ok=True)
        _remove_empty(self.layout.enabled.parent, 4)
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed", UNIT)
        if (self.layout.home / "lingering").exists():
            subprocess.run(["loginctl", "disable-linger"], env=self.environment, capture_output=True, check=False)
        shutil.rmtree(self.layout.memory, ignore_errors=True)
        shutil.rmtree(self.layout.home, ignore_errors=True)
        _remove_empty(self.layout.home.parent, 2)
        cache = self.agent.cache
        if not any(cache.glob("pushed/*")) and not (cache / "environment").exists():  # of `run --device`
            shutil.rmtree(cache, ignore_errors=True)
            _remove_empty(cache.parent, 1)
        return {"freed_bytes": freed, "removed": there}

    def do_records(self) -> dict[str, Any]:
        """Send a list of what was recorded, as data: name, size, and SHA-256."""
        found = []
        for path in sorted(self._pictures()):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                data = file.read()
                found.append([str(path.relative_to(self.layout.records)), len(data), hashlib.sha256(data).hexdigest()])
        return self._send({"files": found})

    def do_send(self, name: str) -> dict[str, Any]:
        """Send a recorded file; ``gone``: it was removed since it was listed, as the oldest are."""
        try:
            with open(self._record(name), "rb") as file:
                while block := file.read(1 << 16):
                    self.agent.wire.send(b"D", block)
        except FileNotFoundError:
            return {"gone": True}
        return {"gone": False}

    def do_forget(self, files: list[list[str]]) -> dict[str, Any]:
        """Remove recorded files that are still what they were: name and SHA-256 of each."""
        removed = 0
        for name, digest in files:
            with contextlib.suppress(OSError):
                path = self._record(name)
                if hashlib.sha256(path.read_bytes()).hexdigest() == digest:
                    path.unlink()
                    removed += 1
                    _remove_empty(path.parent, 2)
        return {"removed": removed}

    def _send(self, record: dict[str, Any]) -> dict[str, Any]:
        """Send a record of any length before the answer, which must fit into one frame."""
        data = json.dumps(record).encode()
        for start in range(0, len(data), 1 << 16):
            self.agent.wire.send(b"D", data[start : start + (1 << 16)])
        return {}

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Ask this user's systemd."""
        try:
            return subprocess.run(
                ["systemctl", "--user", *words], env=self.environment, capture_output=True, text=True, timeout=60,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(words, 1, "", str(error))

    def _stop(self) -> None:
        self.systemctl("disable", UNIT)
        self.systemctl("stop", UNIT)

    def _pictures(self) -> list[Path]:
        """What was recorded; not what is being written, or was when the power was cut."""
        return list(self.layout.records.rglob("[!.]*.jpg"))

    def _record(self, name: str) -> Path:
        path = self.layout.records / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise OSError(f"{name} is no recorded file")
        return path

    def _write_unit(self) -> None:
        """Write the unit, which is the same for every release: the link decides which one runs."""
        home = _for_systemd(str(self.layout.home))
        lines = [*HARDENED, *(self._sandbox(home))]
        text = UNIT_TEXT.format(home=home, hardening="\n".join(lines))
        if _text(self.layout.unit) != text.strip():
            write_text(self.layout.unit, text)

    def _sandbox(self, home: str) -> list[str]:
        """What keeps the service from writing elsewhere, where this kernel allows it to users."""
        lines = [*SANDBOXED, f'ReadWritePaths="{home}" %t -%C']
        words = [f"--property={one}" for one in SANDBOXED]
        tried = subprocess.run(
            ["systemd-run", "--user", "--wait", "--quiet", "--collect", *words, "true"], env=self.environment,
            capture_output=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return lines if tried.returncode == 0 else []


UNIT_TEXT = """# Written by edge-ran. To remove it: edge-ran undeploy --device NAME
[Unit]
Description=edge-ran: a camera classifier
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=/bin/sh "{home}/current/start"
Restart=always
RestartSec=1
WatchdogSec=120
TimeoutStartSec=120
TimeoutStopSec=30
{hardening}

[Install]
WantedBy=default.target
"""


def _for_systemd(path: str) -> str:
    """A path inside quotes in a unit."""
    if any(ord(c) < 32 for c in path):
        raise OSError("the home folder's name cannot stand in a unit")
    return path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")


def _remove_empty(folder: Path, count: int) -> None:
    """Remove a folder and those above it, ``count`` in all, as far as nothing is in them."""
    for one in (folder, *folder.parents)[:count]:
        with contextlib.suppress(OSError):
            one.rmdir()


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _temperature_c() -> float | None:
    found = []
    for path in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        with contextlib.suppress(ValueError):
            found.append(int(_text(path)) / 1000)
    return max((one for one in found if 0 < one < 150), default=None)
