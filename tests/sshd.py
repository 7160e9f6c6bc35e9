"""A real sshd on a loopback port, as the user who runs the tests, with keys of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from ports import free_port

# The usual exchange of keys, which quantum computers cannot break either, takes a third of a connection's time.
QUICK_KEYS = "KexAlgorithms curve25519-sha256"


class Sshd:
    """Starts at once; ``close`` ends it. ``cache`` is the folder of edge-ran's own on its side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "there" / "edge-ran"
        self.port = free_port()
        for name in ("host", "key", "stranger"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        shutil.copy(folder / "key.pub", folder / "authorized")
        kind, public = (folder / "host.pub").read_text().split()[:2]
        (folder / "known").write_text(f"[127.0.0.1]:{self.port},[localhost]:{self.port} {kind} {public}\n")
        (folder / "nobody-known").write_text("")
        self.config = self.client_config("config")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nSetEnv XDG_CACHE_HOME={self.cache.parent}\n{QUICK_KEYS}\n"
        )
        self._log = open(folder / "log", "w")  # noqa: SIM115
        self._daemon = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", folder / "sshd_config"], stderr=self._log)
        for _ in range(100):
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError((folder / "log").read_text())

    def client_config(self, name: str, key: str = "key", known: str = "known") -> Path:
        """Write a configuration of the client with these files of the folder."""
        (self.folder / name).write_text(
            f"Host *\n  IdentityFile {self.folder}/{key}\n  IdentitiesOnly yes\n  GlobalKnownHostsFile /dev/null\n"
            f"  UserKnownHostsFile {self.folder}/{known}\n"
        )
        return self.folder / name

    def board(self, home: Path) -> Path:
        """Write the description of a board without systemd, whose programs keep their files in ``home``."""
        python, toml = home / "python", home / "board.toml"
        where = f"XDG_RUNTIME_DIR={home}/run XDG_DATA_HOME={home}/data XDG_CONFIG_HOME={home}/config"
        python.write_text(f'#!/bin/sh\n{where} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        toml.write_text(
            f'summary = "a board"\naccelerator = "cpu"\nconverter = "int8"\ntarget = "ssh://127.0.0.1:{self.port}"\n'
            f'python = "{python}"\n'
        )
        return toml

    def cut(self) -> int:
        """Kill every connection as it stands, with no word to either side; return how many processes that were."""
        killed = 0
        for pid in children(self._daemon.pid):
            for one in (*children(pid), pid):  # the part without privileges, then its monitor
                if command_line(one).startswith("sshd"):
                    os.kill(one, signal.SIGKILL)
                    killed += 1
        return killed

    def leftovers(self) -> list[str]:
        """What is in the working folders there, and which processes work in them."""
        work = self.cache / "work"
        found = [str(path) for path in work.iterdir()] if work.is_dir() else []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                where = os.readlink(process / "cwd")
            except OSError:
                continue
            if where.startswith(str(self.cache)):
                found.append(f"{process.name}: {command_line(int(process.name))}")
        return found

    def close(self) -> None:
        """End it."""
        self._daemon.terminate()
        self._daemon.wait()
        self._log.close()


def children(pid: int) -> list[int]:
    """Return the processes whose parent is ``pid``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(parent) == pid:
            found.append(int(process.name))
    return found


def command_line(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
