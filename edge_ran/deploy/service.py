"""What systemd runs on a board: ``edge-ran run`` as a child process, watched over.

It tells systemd that it is alive, keeps ``live.json`` up to date and bounds what is recorded. When the child ends, it
ends as well; systemd then starts both again, after a pause that doubles with each failure in a row. A release that
never worked and fails three times is exchanged for the one before. Standard library only: a crash of the child is seen
from outside. Spans are taken from ``time.monotonic``: the clock of a board may be set at any time.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from edge_ran.deploy.layout import AT_RELEASE, AT_STORE, Layout, append, read_json, write_text

RELAY, WORDS = "EDGE_RAN_RELAY", "EDGE_RAN_WORDS"  # as edge_ran.errors has them
TICK_S = 1.0
HEALTHY_FRAMES, SETTLED_S = 3, 60.0  # results until a release counts as working; after so long, failures are forgotten
MOST_FAILURES = 3  # of a release that never worked
KEPT_TIMES = 1000
HELD_S = 2.0  # until an answer is an event: one that flickers would fill the log with itself, and wear flash out
ALIVE = ("starting", "running", "camera", "waiting")  # states that no service leaves behind which ends by itself
OOM_SCORE = 500  # of 1000: when memory is short, the kernel ends the child, not what watches over it or the ssh server
TOKEN = re.compile(r"(token=)[\w-]+")
PASSWORD = re.compile(r"(\w+://)\S*@")  # also one with "/" or "@" in it
SECRET = re.compile(r"(\w*(?:pass|pwd|secret)\w*=)[^&\s]+", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """What may be set for a board, by environment variables of the unit.

    Attributes:
        longest_pause_s: between two tries, ``EDGE_RAN_LONGEST_PAUSE_S``.
        quiet_s: without a result, but with a notice the camera is lost, ``EDGE_RAN_QUIET_S``.
        silent_s: without a result and without a notice the child hangs, ``EDGE_RAN_SILENT_S``.
        least_free_mb: with less free space nothing is recorded, ``EDGE_RAN_LEAST_FREE_MB``.
    """

    longest_pause_s: float = 300.0
    quiet_s: float = 5.0
    silent_s: float = 90.0
    least_free_mb: float = 100.0

    @classmethod
    def read(cls, complain: Callable[[str], None]) -> Limits:
        """Read them; ``complain`` is told of one that is no positive number."""
        found: dict[str, float] = {}
        for field in fields(cls):
            name = f"EDGE_RAN_{field.name.upper()}"
            if text := os.environ.get(name, ""):
                with contextlib.suppress(ValueError):
                    found[field.name] = float(text)
                if not found.get(field.name, 0) > 0:
                    complain(f"{name}={text[:40]} is no positive number: it is {field.default:g}")
                    found.pop(field.name, None)
        return cls(**found)


class Live:
    """What ``status`` is told: numbers of the child's results."""

    def __init__(self, release: str) -> None:
        self.release, self.state, self.reason = release, "starting", ""
        self.began = time.monotonic()
        self.frames, self.captured, self.changes = 0, 0, 0
        self.answer, self.answered, self.score = "", 0.0, 0.0
        self.inference: deque[float] = deque(maxlen=KEPT_TIMES)
        self.end_to_end: deque[float] = deque(maxlen=KEPT_TIMES)
        self.arrivals: deque[float] = deque(maxlen=100)
        self.heard_at = time.monotonic()
        self.notice, self.noticed_at = "", -math.inf  # what the child has said last
        self.accelerator = ""
        self.warning = ""  # what it goes on without

    def result(self, line: dict[str, Any]) -> None:
        now = time.monotonic()
        self.frames += 1
        self.captured = max(self.captured, int(line.get("index", 0)) + 1)
        self.heard_at, self.state, self.reason = now, "running", ""
        self.arrivals.append(now)
        stages = line.get("stages_ms", {})
        self.inference.append(float(stages.get("inference", 0)))
        self.end_to_end.append(float(stages.get("end_to_end", 0)))
        self.score = float(line.get("score", 0))
        if line.get("changed") or not self.answer:
            self.answer, self.answered = str(line.get("label", "")), now
            self.changes += 1
        accelerator = line.get("accelerator", {})
        self.accelerator = str(accelerator.get("actual", "")) if isinstance(accelerator, dict) else ""

    def to_dict(self, restarts: int) -> dict[str, Any]:
        recent = list(self.arrivals)
        clock, now = time.time(), time.monotonic()
        span = now - recent[0] if recent else 0.0
        return {
            "release": self.release,
            "state": self.state,
            "reason": self.reason,
            "warning": self.warning,
            "at": clock,
            "reported": now,
            "began_at": clock - (now - self.began),
            "frames": self.frames,
            "dropped": max(0, self.captured - self.frames),
            "frames_per_s": len(recent) / span if span > 0 else 0.0,
            "inference_ms": _percentiles(self.inference),
            "end_to_end_ms": _percentiles(self.end_to_end),
            "answer": self.answer,
            "score": self.score,
            "answer_at": clock - (now - self.answered) if self.answer else 0.0,
            "restarts": restarts,
            "accelerator": self.accelerator,
        }


def _percentiles(times: deque[float]) -> dict[str, float] | None:
    found = sorted(times)
    return {f"p{p}": found[min(len(found) - 1, len(found) * p // 100)] for p in (50, 90, 99)} if found else None


class Service:
    """One life of the child."""

    def __init__(self, layout: Layout, identity: str) -> None:
        self.layout, self.identity = layout, identity
        self.folder = layout.releases / identity
        self.release = layout.release(identity)
        self.live = Live(identity)
        self.stopping, self.awake = threading.Event(), threading.Event()  # told to stop; that, or the child has ended
        self.said: deque[str] = deque(maxlen=20)
        self.error = ""
        self.child: subprocess.Popen[bytes] | None = None
        self.readers: list[threading.Thread] = []
        self.limits = Limits.read(lambda text: self.layout.event("settings", text))
        self.before = read_json(layout.live)  # what the life before reported last, since the board's start
        same = self.before.get("release") == identity
        self.restarts = int(self.before.get("restarts", -1)) + 1 if same else 0
        self.was_killed = same and self.before.get("state") in ALIVE
        self.is_recording = False
        self.noted_answer = ""
        self.ended_for = ""  # why the child was told to end, to start again
        self.oom_kills = _oom_kills()
        self.bound_at = 0.0
        self.order: dict[Path, int] = {}  # of pictures; those first seen later are newer, whatever the clock said

    def run(self) -> int:
        """Live; return the exit status."""
        notify("READY=1")
        failures = self._failures()
        try:
            return self._live(failures)
        except OSError as error:  # a folder that is not ours to write to any more, no memory for a process
            self._note_failure(failures + 1, f"the service cannot work: {error}")
            return 1

    def _live(self, failures: int) -> int:
        self.layout.page.unlink(missing_ok=True)
        if self.was_killed:
            failures += 1
            if self._note_failure(failures, "what watches over it was killed, or hung and was ended by systemd"):
                return 1
        if not self._pause(failures):
            self._report("stopped")
            return 0
        self.layout.event("start", f"release {self.identity}")
        self._start()
        began = time.monotonic()
        while self.child is not None and self.child.poll() is None and not self.stopping.is_set():
            self._tick(began)
            self.awake.wait(TICK_S)
        return self._end(failures)

    def _pause(self, failures: int) -> bool:
        """Wait before a new try, the longer the more often it failed; False when told to stop meanwhile."""
        until = time.monotonic() + self._pause_s(failures)
        reason = self.layout.read_failures()[2]
        while (left := until - time.monotonic()) > 0:
            self.live.state = "waiting"
            self.live.reason = f"next try in {left:.0f} s, after {failures} failures in a row: {reason}"
            self._report()
            if self.stopping.wait(min(TICK_S, left)):
                return False
        self.live.state, self.live.reason = "starting", reason
        return True

    def _pause_s(self, failures: int) -> float:
        return float(min(self.limits.longest_pause_s, 2.0 ** min(failures - 1, 30))) if failures else 0.0

    def _start(self) -> None:
        options = [self._placed(word) for word in self.release.get("words", [])]
        keep = str(self.release.get("record", ""))
        self.is_recording = bool(keep) and self._free_mb() > self.limits.least_free_mb
        if self.is_recording:
            options += [f"--record={self.layout.records}", f"--keep={keep}"]
        elif keep:
            self.live.warning = "the disk is nearly full: nothing is recorded"
            self.layout.event("disk", self.live.warning)
        shutil.rmtree(self.layout.temporary, ignore_errors=True)
        self.layout.temporary.mkdir(parents=True)  # the disk may be full, or not ours to write to
        words = [self._placed(str(self.release.get("model", ""))), "--json", *options]
        environment = {
            **os.environ,
            "TMPDIR": str(self.layout.temporary),
            "PYTHONPATH": self._placed(str(self.release.get("code", ""))),
            "PYTHONUTF8": "1",
            "NO_COLOR": "1",
            RELAY: "1",
            WORDS: json.dumps(words),
        }
        environment.pop("NOTIFY_SOCKET", None)
        self.live.heard_at = time.monotonic()  # the pause before is none of the child's silence
        self.child = subprocess.Popen(
            [sys.executable, "-m", "edge_ran", "run"], env=environment, cwd=self.layout.home,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_die_with_parent,
        )  # fmt: skip
        self.readers = [threading.Thread(target=r, daemon=True) for r in (self._read_results, self._read_words)]
        for reader in self.readers:
            reader.start()

    def _placed(self, word: str) -> str:
        return word.replace(AT_RELEASE, str(self.folder)).replace(AT_STORE, str(self.layout.store))

    def _read_results(self) -> None:
        assert self.child is not None
        assert self.child.stdout is not None
        for line in self.child.stdout:
            with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
                state = self.live.state
                self.live.result(json.loads(line))
                if state == "camera":
                    self.layout.event("camera", "frames come again")
        self.child.wait()
        self.awake.set()

    def _read_words(self) -> None:
        assert self.child is not None
        assert self.child.stderr is not None
        for raw in self.child.stderr:
            line = raw.decode(errors="replace").rstrip()
            if line.startswith(f"{RELAY}:"):
                with contextlib.suppress(ValueError, AttributeError, RecursionError):
                    self.error = hidden(str(json.loads(line.partition(":")[2]).get("what", "")))
                    append(self.layout.log, f"{_stamp()} {self.error}\n")
                continue
            if found := re.search(r"watch at (\S+)", line):
                with contextlib.suppress(OSError):
                    write_text(self.layout.page, found[1] + "\n", is_durable=False)
            line = hidden(line)
            self.said.append(line)
            append(self.layout.log, f"{_stamp()} {line}\n")
            self.live.notice, self.live.noticed_at = line.removeprefix("edge-ran: "), time.monotonic()

    def _tick(self, began: float) -> None:
        self._report()
        self._note_answer()
        is_current = self.layout.current_id() == self.identity  # not while it is exchanged for another
        if self.live.frames >= HEALTHY_FRAMES and is_current and not self.layout.is_confirmed(self.identity):
            with contextlib.suppress(OSError):
                self.layout.confirm(self.identity)
                self.layout.event("confirmed", f"release {self.identity} classifies")
        if time.monotonic() - began > SETTLED_S and self.live.frames and self._failures():
            self.layout.note_failures(self.identity, 0, "")
        self._look_for_silence(time.monotonic() - self.live.heard_at)
        self._bound_records()

    def _note_answer(self) -> None:
        answer, held_s = self.live.answer, time.monotonic() - self.live.answered
        if answer != self.noted_answer and (held_s >= HELD_S or not self.noted_answer):
            self.noted_answer = answer
            self.layout.event("answer", f"{answer} {self.live.score:.0%}")

    def _look_for_silence(self, seconds: float) -> None:
        """Tell a lost camera, of which the child gives notice and which it tries to reach, from a child that hangs.

        The results of the last frames may come after the notice.
        """
        notice = self.live.notice if self.live.noticed_at > self.live.heard_at - self.limits.quiet_s else ""
        if notice and self.live.frames and seconds > self.limits.quiet_s and self.live.state != "camera":
            self.live.state, self.live.reason = "camera", notice
            self.layout.event("camera", notice)
        if not (notice and self.live.frames) and seconds > self.limits.silent_s and self.child is not None:
            last = f"; its last words: {self.live.notice}" if self.live.notice else ""
            self.error = f"no result for {self.limits.silent_s:.0f} s{last}"
            self.child.kill()

    def _report(self, state: str = "", reason: str = "") -> None:
        if state:
            self.live.state, self.live.reason = state, reason
        with contextlib.suppress(OSError):
            write_text(self.layout.live, json.dumps(self.live.to_dict(self.restarts)), is_durable=False)
        notify("WATCHDOG=1")

    def _bound_records(self) -> None:
        """Remove the oldest pictures beyond the release's limit, or while the disk is nearly full.

        Where that does not help the child starts again without recording, and with it once there is room.
        """
        if time.monotonic() < self.bound_at or not self.release.get("record"):
            return
        limit = int(self.release.get("record_limit_bytes", 0))
        found, began, unseen = [], time.monotonic(), len(self.order)
        for path in self.layout.records.rglob("*.jpg"):
            with contextlib.suppress(OSError):
                facts = path.stat()
                found.append((self.order.get(path, unseen), facts.st_mtime, facts.st_size, path))
        found.sort()
        self.order = {path: place for place, (*_, path) in enumerate(found)}
        total, free, least = sum(size for *_, size, _ in found), self._free_mb(), self.limits.least_free_mb
        for *_, size, path in found:
            if total <= limit and free > least:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total, free = total - size, free + size / 1e6
        self.bound_at = time.monotonic() + 100 * (time.monotonic() - began)  # a hundredth of the time
        if self.is_recording and free <= least:
            self._start_again("the disk is nearly full: goes on without recording")
        elif not self.is_recording and free > 2 * least:
            self._start_again("the disk has room again: records again")

    def _start_again(self, why: str) -> None:
        if self.child is not None and not self.ended_for:
            self.ended_for = why
            self.child.terminate()

    def _free_mb(self) -> float:
        return shutil.disk_usage(self.layout.home).free / 1e6

    def _end(self, failures: int) -> int:
        """Note how it ended; return the exit status."""
        assert self.child is not None
        if self.stopping.is_set():
            self.child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(10)
        self.child.kill()
        status = self.child.wait()
        for reader in self.readers:  # its last words are its reason
            reader.join(2)
        if self.stopping.is_set():
            self.layout.event("stop", f"release {self.identity}")
            self._report("stopped")
            return 0
        if self.ended_for or status == 0:  # 0: the end of a clip or a folder: begin again
            why = self.ended_for or "the source has ended"
            self.layout.event("disk" if self.ended_for else "end", why)
            self._report("ended", why)
            return 0
        was_oom = status == -signal.SIGKILL and _oom_kills() > self.oom_kills >= 0
        reason = self.error or _why(status, was_oom) or (self.said[-1] if self.said else "")
        self._note_failure(failures + 1, reason)
        return 1

    def _note_failure(self, count: int, reason: str) -> bool:
        """Note a failure, the ``count``-th in a row; whether it goes back to the release before.

        It does so where this one never worked.
        """
        self.layout.event("failure", reason)
        self.layout.note_failures(self.identity, count, reason)
        self._report("failed", reason)
        before = self.layout.confirmed_id()
        if count < MOST_FAILURES or not before or before == self.identity:
            return False
        self.layout.event("rollback", f"{self.identity} failed {count} times; back to {before}")
        with contextlib.suppress(OSError):
            self.layout.switch(before)
            return True
        return False

    def _failures(self) -> int:
        release, count, _ = self.layout.read_failures()
        return count if release == self.identity else 0


def hidden(line: str) -> str:
    """The line without the page's token and without passwords in addresses."""
    return PASSWORD.sub(r"\1", SECRET.sub(r"\1…", TOKEN.sub(r"\1…", line)))


def _oom_kills() -> int:
    """How many processes the kernel has ended for want of memory since the board's start; -1 where it does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/vmstat").read_text().split("oom_kill ")[1].split()[0])
    return -1


def _why(status: int, was_oom: bool) -> str:
    if was_oom:
        return "out of memory: the kernel ended it"
    return f"it crashed (signal {-status})" if status < 0 else f"it ended with status {status}"


def _stamp() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, of Linux
    with contextlib.suppress(OSError, ValueError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def notify(state: str) -> None:
    """Tell systemd; nothing happens without it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.settimeout(1.0)  # systemd may be busy; it is told again in a second
        channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def main() -> int:
    """Run the release that ``current`` leads to."""
    layout = Layout(Path(sys.argv[1]))
    os.umask(0o077)
    service = Service(layout, layout.current_id())

    def stop(number: int, frame: Any) -> None:
        service.stopping.set()
        service.awake.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return service.run()


if __name__ == "__main__":
    sys.exit(main())
