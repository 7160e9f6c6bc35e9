"""A real board for the tests: Debian with its own systemd and sshd in a container, which can lose its power.

Made with ``mmdebstrap`` and ``systemd-nspawn``, which need root. The archive of its files is kept in the user's cache.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from ports import free_port
from sshd import QUICK_KEYS, children, command_line

SUITE = "bookworm"
PACKAGES = (
    "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,openssh-server,python3,python3-venv,procps"  # one word
)
ARCHIVE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-ran-ci" / f"board-{SUITE}.tar"
PYTHON = (3, 11)  # of that Debian
HOME_MB = 200  # the size of the user's disk
# Imported by every Python of the board: its clock is as many seconds off as the file says, and can be set at any time.
FAKED_CLOCK = """
import time

real = time.time

def faked():
    try:
        with open("/opt/clock") as file:
            return real() + float(file.read())
    except (OSError, ValueError):
        return real()

time.time = faked
"""
# Times that suit a test, set as the owner of a board may set them (devices/README.md).
SHORTER = """[Service]
Environment=EDGE_RAN_LONGEST_PAUSE_S=0.2 EDGE_RAN_QUIET_S=2 EDGE_RAN_LEAST_FREE_MB=20
RestartSec=100ms
WatchdogSec=6
TimeoutStopSec=3
"""
UNNEEDED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "console-getty.service",
    "systemd-journal-flush.service",
)
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")  # of control groups' first version
# Hierarchies in which a board has a control group of its own. In one that two boards share, the systemd of one removes
# the empty group of a service just when that of the other starts the same service in it.
HIERARCHIES = (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))
IN_ITS_GROUPS = 'for group in $BOARD_GROUPS; do echo $$ >"$group/cgroup.procs"; done; exec "$@"'
NSPAWN = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "0", "SYSTEMD_SECCOMP": "0"}


def missing() -> str:
    """Why no board can be made here; empty where it can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "a board with systemd needs root on Linux"
    for program in ("mmdebstrap", "systemd-nspawn", "ssh"):
        if not shutil.which(program):
            return f"no {program}; Debian: apt install mmdebstrap systemd-container openssh-client"
    if sys.version_info[:2] != PYTHON:
        return f"the board's Python is {PYTHON[0]}.{PYTHON[1]}, and runs with the packages of this one"
    return "" if make_archive() else "the board's packages cannot be fetched from here"


def make_archive() -> bool:
    """Make the archive of a board's files, once; half a minute with a near mirror."""
    if ARCHIVE.is_file():
        return True
    ARCHIVE.parent.mkdir(parents=True, exist_ok=True)
    partial = ARCHIVE.with_name(f".{os.getpid()}-{ARCHIVE.name}")
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(partial)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        partial.unlink(missing_ok=True)
        print(done.stderr[-2000:], file=sys.stderr)
        return False
    partial.replace(ARCHIVE)
    return True


class Board:
    """A board that is on after ``start``. Use it as a context manager.

    Attributes:
        port: its ssh, on loopback.
        config: a configuration of the ssh client that knows it.
        home: the home of its user ``pi``, as seen from here.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.files = folder, name, folder / name
        self.files.mkdir(parents=True)
        subprocess.run(["tar", "-xf", ARCHIVE, "-C", self.files], check=True)
        self.port = free_port()
        self.home, self._clock = self.files / "home" / "pi", self.files / "opt" / "clock"
        self._groups: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._prepare()

    def _prepare(self) -> None:
        key, files = self.folder / f"{self.name}-key", self.files
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        subprocess.run(["chroot", files, "useradd", "-m", "-s", "/bin/bash", "pi"], check=True)
        words: list[str | Path] = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={HOME_MB}m,mode=755,uid=1000,gid=1000",
            "home",
            self.home,
        ]
        subprocess.run(words, check=True)  # a disk of its own, which can be full and outlives a power cut
        secret = self.home / ".ssh"
        secret.mkdir(mode=0o700)
        shutil.copy(f"{key}.pub", secret / "authorized_keys")
        for path in (secret, secret / "authorized_keys"):
            os.chown(path, 1000, 1000)
        (files / "etc/ssh/sshd_config.d/board.conf").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\n{QUICK_KEYS}\n"
        )
        linger = files / "var/lib/systemd/linger"
        linger.mkdir(parents=True, exist_ok=True)
        (linger / "pi").touch()  # what `loginctl enable-linger pi` does
        for unit in UNNEEDED:
            (files / "etc/systemd/system" / unit).unlink(missing_ok=True)
            (files / "etc/systemd/system" / unit).symlink_to("/dev/null")
        shorter = files / "etc/systemd/user/edge-ran.service.d"
        shorter.mkdir(parents=True)
        (shorter / "shorter.conf").write_text(SHORTER)
        modules = files / "usr/lib/python3/dist-packages"
        (modules / "here.pth").write_text("/opt/packages\nimport faked_clock\n")
        (modules / "faked_clock.py").write_text(FAKED_CLOCK)
        (files / "opt/packages").mkdir()
        kind, public = (files / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
        known = self.folder / f"{self.name}-known"
        known.write_text(f"[127.0.0.1]:{self.port} {kind} {public}\n")
        self.config = self.folder / f"{self.name}-config"
        self.config.write_text(
            f'Match host 127.0.0.1 exec "test %p = {self.port}"\n  User pi\n  IdentityFile {key}\n'
            "  IdentitiesOnly yes\n"
            f"  GlobalKnownHostsFile /dev/null\n  UserKnownHostsFile {known}\n"
        )

    def __enter__(self) -> Board:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.power_off()
        subprocess.run(["umount", self.home], check=True)
        for group in self._groups:
            for path, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):  # a process that has not quite ended keeps it
                    os.rmdir(path)

    def start(self) -> None:
        """Switch it on; returns when ssh and the user's systemd answer."""
        Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
        self._make_groups()
        words = [
            "sh", "-c", IN_ITS_GROUPS, "sh",
            "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe",
            f"--directory={self.files}", f"--machine=edge-ran-{self.name}",
            f"--bind-ro={sysconfig.get_paths()['purelib']}:/opt/packages",
        ]  # fmt: skip
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self._process = subprocess.Popen(
                words,
                env={**NSPAWN, "BOARD_GROUPS": " ".join(map(str, self._groups))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 90
        while self.ssh("systemctl --user is-system-running --wait", check=False).returncode not in (0, 1):
            if self._process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the board does not start: {self.folder / f'{self.name}.log'}")
            time.sleep(0.3)

    def _make_groups(self) -> None:
        self._groups = []
        for place in HIERARCHIES:
            with contextlib.suppress(OSError):  # where there is none of these, or none may be made
                group = place / f"edge-ran-{self.name}-{os.getpid()}"
                group.mkdir(exist_ok=True)
                self._groups.append(group)

    def power_off(self) -> None:
        """Cut its power: the end of its first process ends every other at once."""
        if self._process is not None:
            for pid in children(self._process.pid):
                os.kill(pid, signal.SIGKILL)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def set_clock(self, seconds: float) -> None:
        """Set its clock: as many seconds ahead of this machine's."""
        self._clock.write_text(str(seconds))

    def processes(self, words: str) -> list[int]:
        """Return the processes there whose command line holds ``words``, by their numbers here."""
        assert self._process is not None
        found, waiting = [], [self._process.pid]
        while waiting:
            below = children(waiting.pop())
            waiting += below
            found += [pid for pid in below if words in command_line(pid)]
        return found

    @contextlib.contextmanager
    def short_of_memory(self, limit_mb: int) -> Iterator[None]:
        """Give what its user's systemd starts from now on only so much memory together, as MemoryMax would.

        Control groups of the second version would do it by the unit; here the kernel is asked from outside.
        """
        (manager,) = self.processes("systemd --user")
        before = re.search(r":memory:(.*)", Path(f"/proc/{manager}/cgroup").read_text())
        assert before
        group, usual = MEMORY_GROUPS / f"edge-ran-{self.name}-{os.getpid()}", MEMORY_GROUPS / before[1].lstrip("/")
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(f"{limit_mb}M")
            (group / "cgroup.procs").write_text(str(manager))
            yield
        finally:
            (group / "memory.limit_in_bytes").write_text("-1")
            while pids := (group / "cgroup.procs").read_text().split():
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        (usual / "cgroup.procs").write_text(pid)
            group.rmdir()

    def ssh(self, script: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a script there as its user."""
        words = ["ssh", "-F", str(self.config), "-oBatchMode=yes", "-oConnectTimeout=5", "-p", str(self.port)]
        return subprocess.run([*words, "127.0.0.1", script], capture_output=True, text=True, check=check)
