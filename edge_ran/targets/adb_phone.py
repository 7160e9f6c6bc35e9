"""A phone over ``adb``: what it is, files and commands there. Whatever it says is untrusted, and cut to a bound."""

from __future__ import annotations

import contextlib
import re
import secrets
import shlex
from dataclasses import dataclass
from pathlib import Path

from edge_ran.errors import EnvironmentMissing
from edge_ran.files import sha256
from edge_ran.targets.adb import ANSWER_S, Adb, Done, OnLine, last_line

FOLDER = "/data/local/tmp/edge-ran"  # what shell users of every Android may write to and execute from
PUSH_S, PUSH_BYTES_PER_S = 60.0, 0.5e6  # the slowest USB and Wi-Fi
NO_SPACE = re.compile("no space left|not enough space|disk full", re.IGNORECASE)
# What the client says when a phone goes away; none of them comes from a command that ran to its end.
GONE = re.compile(
    r"device '.*' not found|device (still )?(offline|unauthorized)|no devices|error: closed|protocol fault"
)


class TookTooLong(EnvironmentMissing):
    """A command on the phone did not end in its time."""


@dataclass(frozen=True)
class Facts:
    """What a phone says it is. ``abis`` as Android calls them, the preferred first; None and empty: not told."""

    model: str
    android: str
    sdk: int | None
    abis: tuple[str, ...]
    soc: str
    cores: int
    memory_mb: int | None
    kernel: str
    governor: str | None
    load_average: float | None
    gpu: str
    is_virtual: bool | None


class Phone:
    """A phone that answers. Use it as a context manager: its temporary files go when the block ends."""

    def __init__(self, serial: str = "", adb: Adb | None = None) -> None:
        """Find it; ``serial`` empty: the only one.

        Raises:
            EnvironmentMissing: no client, no such phone, or one that cannot be used; the line says which.
        """
        self._adb = adb or Adb()
        self.serial = self._adb.choose(serial)
        self._token = secrets.token_hex(8)
        self._has_run_folder = False

    def __enter__(self) -> Phone:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what is temporary there, as far as it can be reached. May be called twice."""
        if self._has_run_folder:
            self._has_run_folder = False
            with contextlib.suppress(EnvironmentMissing):
                self.shell(f"rm -rf {self._run_folder}")
            self._token = secrets.token_hex(8)  # what was cut off there may remove the old one once more, later

    @property
    def _run_folder(self) -> str:
        return f"{FOLDER}/run-{self._token}"

    def run_folder(self) -> str:
        """Return a folder there that goes when the block ends; makes it."""
        if not self._has_run_folder:
            self._has_run_folder = True
            # What others left who were cut off lies there for a day.
            self.must(
                f"find {FOLDER} -maxdepth 1 '(' -name 'run-*' -o -name 'part-*' ')' -mmin +1440 -exec rm -rf {{}} + "
                f"2>/dev/null; mkdir -p {self._run_folder}",
                "make a folder in /data/local/tmp",
            )
        return self._run_folder

    def shell(self, script: str, timeout_s: float = ANSWER_S, on_line: OnLine | None = None) -> Done:
        """Run a script of the phone's shell; it must not ``exit`` before its end.

        Args:
            script: what to run; whoever writes it quotes what is not his own (``shlex.quote``).
            timeout_s: seconds before it is given up; what runs there then gets SIGHUP from the phone's adb.
            on_line: called with each line as it comes.

        Raises:
            EnvironmentMissing: the phone went away, or (TookTooLong) the script did not end in time.
        """
        mark = f"edge-ran-{secrets.token_hex(8)}"
        status: list[int] = []

        def heard(line: str) -> None:
            end = re.fullmatch(rf"(?P<text>.*){mark} (?P<status>\d+)", line)
            if end:
                status.append(int(end["status"]))
            elif on_line:
                on_line(line)

        # Phones before Android 7 pass no exit status on.
        words = ["-s", self.serial, "shell", f"{{ {script}\n}}; status=$?; echo; echo {mark} $status"]
        try:
            done = self._adb.run(words, timeout_s, heard)
        except TimeoutError:
            raise TookTooLong(
                f"phone {self.serial} took longer than {timeout_s:.0f} s", "look at it: is it asleep, hot, busy?"
            ) from None
        if not status:
            raise self._lost(done)
        lines = [line.partition(mark)[0] for line in done.lines]
        return Done(status[-1], tuple(line for line in lines if line))

    def must(self, script: str, what: str) -> None:
        """Run a script that has to end well; raises EnvironmentMissing saying that the phone cannot ``what``."""
        done = self.shell(script)
        if done.status:
            if NO_SPACE.search(" ".join(done.lines)):
                raise EnvironmentMissing(
                    f"no space left on phone {self.serial}",
                    f"free some there, or: edge-ran devices {shlex.quote(f'adb:{self.serial}')} --clean",
                )
            said = f" ({done.lines[-1]})" if done.lines else ""
            raise EnvironmentMissing(
                f"phone {self.serial} cannot {what}{said}", f"try: adb -s {shlex.quote(self.serial)} shell"
            )

    def facts(self, timeout_s: float = ANSWER_S) -> Facts:
        """Ask what the phone is."""
        names = (
            "ro.product.manufacturer ro.product.model ro.build.version.release ro.build.version.sdk ro.product.cpu.abi "
            "ro.product.cpu.abilist ro.soc.manufacturer ro.soc.model ro.hardware ro.kernel.qemu ro.boot.qemu"
        )
        done = self.shell(
            f'for name in {names}; do echo "$name=$(getprop $name)"; done\n'
            'echo "cores=$(grep -c ^processor /proc/cpuinfo)"; echo "kernel=$(uname -r)"\n'
            'echo "memory=$(grep MemTotal /proc/meminfo)"; echo "load=$(cat /proc/loadavg 2>/dev/null)"\n'
            'echo "governor=$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null)"\n'
            'echo "gles=$(dumpsys SurfaceFlinger 2>/dev/null | grep -m 1 GLES:)"',
            timeout_s,
        )
        said = {name: value.strip()[:200] for name, _, value in (line.partition("=") for line in done.lines)}

        def number(name: str) -> float | None:
            found = re.search(r"\d{1,12}(\.\d+)?", said.get(name, ""))
            return float(found[0]) if found else None

        def whole(name: str) -> int | None:
            value = number(name)
            return int(value) if value else None

        def words(*keys: str) -> str:
            return " ".join(said[key] for key in keys if said.get(key))

        memory_kb = whole("memory")
        abis = (said.get("ro.product.cpu.abilist") or said.get("ro.product.cpu.abi") or "").split(",")
        maker, model = said.get("ro.product.manufacturer", ""), said.get("ro.product.model", "")
        gles = [part.strip() for part in said.get("gles", "").partition("GLES:")[2].split(",")]
        return Facts(
            model=model if model.lower().startswith(maker.lower()) else f"{maker} {model}",
            android=said.get("ro.build.version.release", ""),
            sdk=whole("ro.build.version.sdk"),
            abis=tuple(abi.strip() for abi in abis if abi.strip()),
            soc=words("ro.soc.manufacturer", "ro.soc.model") or words("ro.hardware"),
            cores=whole("cores") or 1,
            memory_mb=memory_kb // 1024 if memory_kb else None,
            kernel=said.get("kernel", ""),
            governor=said.get("governor") or None,
            load_average=number("load"),
            gpu=gles[1] if len(gles) > 1 else "",
            is_virtual=True if "1" in (said.get("ro.kernel.qemu"), said.get("ro.boot.qemu")) else None,
        )

    def put(self, path: Path, executable: bool = False, note: OnLine = lambda text: None) -> str:
        """Bring a file there under the name of its SHA-256, unless it is there already; return its path there.

        Raises:
            EnvironmentMissing: no space there, or the phone went away; nothing of it stays.
        """
        path = Path(path).resolve()
        digest, size = sha256(path), path.stat().st_size
        there = f"{FOLDER}/{digest}{re.sub(r'[^A-Za-z0-9.]', '', path.suffix)[:16]}"
        if self._size(there) == size:
            return there
        note(f"sending {path.name}, {size / 1e6:.1f} MB")
        part = f"{FOLDER}/part-{self._token}"
        self.must(f"mkdir -p {FOLDER}", "make a folder in /data/local/tmp")
        try:
            self._send(path, part, size)
            # The hash is taken there, too, where the phone has the tool: a file that is cut or spoilt is not believed.
            self.must(
                f"sum=$(sha256sum {part} 2>/dev/null); sum=${{sum%% *}}\n"
                f'[ -z "$sum" ] || [ "$sum" = {digest} ] && [ "$(wc -c < {part})" -eq {size} ] && '
                f"chmod {755 if executable else 644} {part} && mv -f {part} {there}",
                f"keep {path.name}: what arrived is not what was sent",
            )
        except BaseException:
            with contextlib.suppress(EnvironmentMissing):
                self.shell(f"rm -f {part}")
            raise
        return there

    def put_temporary(self, data: bytes, name: str, folder: Path) -> str:
        """Bring bytes there as ``name`` in the run folder; ``folder`` is one here that they may be written to."""
        source = folder / name
        source.write_bytes(data)
        there = f"{self.run_folder()}/{name}"
        self._send(source, there, len(data))
        return there

    def get(self, there: str, most_bytes: int, folder: Path) -> bytes:
        """Fetch a file of at most ``most_bytes``; empty where it is missing or larger."""
        size = self._size(there)
        if size is None or size > most_bytes:
            return b""
        here = folder / "fetched"
        here.unlink(missing_ok=True)
        self._transfer(["pull", there, str(here)], size, f"fetch {there}")
        data = here.read_bytes() if here.exists() else b""
        return data if len(data) <= most_bytes else b""

    def warmth(self) -> tuple[int | None, float | None]:
        """Return Android's thermal status (0: none, from 1 on it slows things down) and the CPU's degrees Celsius."""
        said = "\n".join(self.shell("dumpsys thermalservice 2>/dev/null | head -n 200; true").lines)
        status = re.search(r"Thermal Status: (\d)", said)
        cpus = [float(value) for value in re.findall(r"mValue=(\d+(?:\.\d+)?), mType=0\b", said)]
        return int(status[1]) if status else None, max(cpus, default=None)

    def empty(self) -> int:
        """Remove everything of edge-ran's from the phone; return its bytes."""
        sizes = self.shell(f"[ ! -d {FOLDER} ] || find {FOLDER} -type f -exec wc -c {{}} ';'").lines
        self._has_run_folder = False
        self.must(f"rm -rf {FOLDER}", f"empty {FOLDER}")
        return sum(int(match[0]) for match in map(re.compile(r"\d{1,15}").match, (s.strip() for s in sizes)) if match)

    def _send(self, path: Path, there: str, size: int) -> None:
        self._transfer(["push", str(path), there], size, f"send {path.name}")

    def _transfer(self, words: list[str], size: int, what: str) -> None:
        limit_s = PUSH_S + size / PUSH_BYTES_PER_S
        try:
            done = self._adb.run(["-s", self.serial, *words], limit_s)
        except TimeoutError:
            raise EnvironmentMissing(
                f"cannot {what}: phone {self.serial} took longer than {limit_s:.0f} s", "try another cable or port"
            ) from None
        if not done.status:
            return
        said = " ".join(done.lines)
        if NO_SPACE.search(said):
            raise EnvironmentMissing(
                f"cannot {what}: no space left on phone {self.serial}",
                f"free some there, or: edge-ran devices {shlex.quote(f'adb:{self.serial}')} --clean",
            )
        if GONE.search(said):
            raise self._lost(done)
        raise EnvironmentMissing(
            f"cannot {what}: {last_line(done.lines)}", f"look at: adb -s {shlex.quote(self.serial)} shell df /data"
        )

    def _size(self, there: str) -> int | None:
        done = self.shell(f"[ -f {shlex.quote(there)} ] && wc -c < {shlex.quote(there)}")
        text = done.lines[-1].strip() if done.lines else ""
        return int(text) if not done.status and text.isdigit() and len(text) < 16 else None

    def _lost(self, done: Done) -> EnvironmentMissing:
        said = next((line for line in reversed(done.lines) if "error" in line.lower()), "")
        return EnvironmentMissing(
            f"phone {self.serial} went away" + (f": {said.removeprefix('adb: ')}" if said else ""),
            "look at cable and screen, then: adb devices",
        )
