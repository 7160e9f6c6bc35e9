"""What systemd runs on a board: ``edge-ran run`` as a child process, watched over.

It tells systemd that it is alive, keeps ``live.json`` up to date and bounds what is recorded. When the child ends, it
ends as well; systemd then starts both again, after a pause that doubles with each failure in a row. A release that
never worked and
fails three times is exchanged for the one before. Standard library only: a crash of the child is seen from outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
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
from pathlib import Path
from typing import Any

from edge_ran.deploy.layout import AT_RELEASE, AT_STORE, Layout, append, read_json, write_text

RELAY, WORDS = "EDGE_RAN_RELAY", "EDGE_RAN_WORDS"  # as edge_ran.errors has them
TICK_S = 1.0
LONGEST_PAUSE_S = 300.0
HEALTHY_FRAMES, SETTLED_S = 3, 60.0  # results until a release counts as working; after so long, failures are forgotten
MOST_FAILURES = 3  # of a release that never worked
QUIET_S = 5.0  # without a result, but with a notice: the camera is lost
SILENT_S = 90.0  # without a result and without a notice: the child hangs
LEAST_FREE_BYTES = 100_000_000  # below this nothing is recorded
KEPT_TIMES = 1000
TOKEN = re.compile(r"(token=)[\w-]+")
PASSWORD = re.compile(r"(\w+://)[^/\s@]+@")


class Live:
    """What ``status`` is told: numbers of the child's results."""

    def __init__(self, release: str) -> None:
        self.release, self.state, self.reason = release, "starting", ""
        self.began_at = time.time()
        self.frames, self.captured, self.changes = 0, 0, 0
        self.answer, self.answer_at, self.score = "", 0.0, 0.0
        self.inference: deque[float] = deque(maxlen=KEPT_TIMES)
        self.end_to_end: deque[float] = deque(maxlen=KEPT_TIMES)
        self.arrivals: deque[float] = deque(maxlen=100)
        self.heard_at = time.monotonic()
        self.notice = ""  # what the child has said since its last result
        self.accelerator = ""

    def result(self, line: dict[str, Any]) -> None:
        now = time.monotonic()
        self.frames += 1
        self.captured = max(self.captured, int(line.get("index", 0)) + 1)
        self.heard_at, self.state, self.reason, self.notice = now, "running", "", ""
        self.arrivals.append(now)
        stages = line.get("stages_ms", {})
        self.inference.append(float(stages.get("inference", 0)))
        self.end_to_end.append(float(stages.get("end_to_end", 0)))
        self.score = float(line.get("score", 0))
        if line.get("changed") or not self.answer:
            self.answer, self.answer_at = str(line.get("label", "")), time.time()
            self.changes += 1
        accelerator = line.get("accelerator", {})
        self.accelerator = str(accelerator.get("actual", "")) if isinstance(accelerator, dict) else ""

    def to_dict(self, restarts: int) -> dict[str, Any]:
        recent = list(self.arrivals)
        span = time.monotonic() - recent[0] if recent else 0.0
        return {
            "release": self.release,
            "state": self.state,
            "reason": self.reason,
            "at": time.time(),
            "began_at": self.began_at,
            "frames": self.frames,
            "dropped": max(0, self.captured - self.frames),
            "frames_per_s": len(recent) / span if span > 0 else 0.0,
            "inference_ms": _percentiles(self.inference),
            "end_to_end_ms": _percentiles(self.end_to_end),
            "answer": self.answer,
            "score": self.score,
            "answer_at": self.answer_at,
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
        self.stopping = threading.Event()
        self.said: deque[str] = deque(maxlen=20)
        self.error = ""
        self.child: subprocess.Popen[bytes] | None = None
        self.restarts = self._count_restart()
        self.bound_at = 0.0

    def run(self) -> int:
        """Live; return the exit status."""
        notify("READY=1")
        self.layout.page.unlink(missing_ok=True)
        failures = self._failures()
        if not self._pause(failures):
            return 0
        self.layout.event("start", f"release {self.identity}")
        self._start()
        began = time.monotonic()
        while self.child is not None and self.child.poll() is None and not self.stopping.is_set():
            self._tick(began)
            self.stopping.wait(TICK_S)
        return self._end(failures)

    def _pause(self, failures: int) -> bool:
        """Wait before a new try, the longer the more often it failed; False when told to stop meanwhile."""
        until = time.monotonic() + (min(LONGEST_PAUSE_S, 2.0 ** (failures - 1)) if failures else 0.0)
        reason = self.layout.read_failures()[2]
        while (left := until - time.monotonic()) > 0:
            self.live.state = "waiting"
            self.live.reason = f"next try in {left:.0f} s, after {failures} failures in a row: {reason}"
            self._report()
            if self.stopping.wait(min(TICK_S, left)):
                return False
        self.live.state, self.live.reason = "starting", reason
        return True

    def _start(self) -> None:
        options = [self._placed(word) for word in self.release.get("words", [])]
        keep = str(self.release.get("record", ""))
        if keep and shutil.disk_usage(self.layout.home).free > LEAST_FREE_BYTES:
            options += [f"--record={self.layout.records}", f"--keep={keep}"]
        elif keep:
            self.layout.event("disk", "the disk is nearly full: nothing is recorded")
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
        self.child = subprocess.Popen(
            [sys.executable, "-m", "edge_ran", "run"], env=environment, cwd=self.layout.home,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=_die_with_parent,
        )  # fmt: skip
        for read in (self._read_results, self._read_words):
            threading.Thread(target=read, daemon=True).start()

    def _placed(self, word: str) -> str:
        return word.replace(AT_RELEASE, str(self.folder)).replace(AT_STORE, str(self.layout.store))

    def _read_results(self) -> None:
        assert self.child is not None
        assert self.child.stdout is not None
        for line in self.child.stdout:
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                before, state = self.live.answer, self.live.state
                self.live.result(json.loads(line))
                if state == "camera":
                    self.layout.event("camera", "frames come again")
                if self.live.answer != before:
                    self.layout.event("answer", f"{self.live.answer} {self.live.score:.0%}")

    def _read_words(self) -> None:
        assert self.child is not None
        assert self.child.stderr is not None
        for raw in self.child.stderr:
            line = raw.decode(errors="replace").rstrip()
            if line.startswith(f"{RELAY}:"):
                with contextlib.suppress(ValueError, AttributeError):
                    self.error = hidden(str(json.loads(line.partition(":")[2]).get("what", "")))
                    append(self.layout.log, f"{_stamp()} {self.error}\n")
                continue
            if found := re.search(r"watch at (\S+)", line):
                with contextlib.suppress(OSError):
                    write_text(self.layout.page, found[1] + "\n", is_durable=False)
            line = hidden(line)
            self.said.append(line)
            append(self.layout.log, f"{_stamp()} {line}\n")
            self.live.notice = line.removeprefix("edge-ran: ")

    def _tick(self, began: float) -> None:
        self._report()
        notify("WATCHDOG=1")
        if self.live.frames >= HEALTHY_FRAMES and self.layout.confirmed_id() != self.identity:
            with contextlib.suppress(OSError):
                self.layout.confirm(self.identity)
                self.layout.event("confirmed", f"release {self.identity} classifies")
        if time.monotonic() - began > SETTLED_S and self.live.frames and self._failures():
            self.layout.note_failures(self.identity, 0, "")
        self._look_for_silence(time.monotonic() - self.live.heard_at)
        self._bound_records()

    def _look_for_silence(self, seconds: float) -> None:
        """Tell a lost camera, of which the child gives notice and which it tries to reach, from a child that hangs."""
        if self.live.notice and self.live.frames and seconds > QUIET_S and self.live.state != "camera":
            self.live.state, self.live.reason = "camera", self.live.notice
            self.layout.event("camera", self.live.notice)
        if not (self.live.notice and self.live.frames) and seconds > SILENT_S and self.child is not None:
            self.error = f"no result for {SILENT_S:.0f} s"
            self.child.kill()

    def _report(self) -> None:
        with contextlib.suppress(OSError):
            write_text(self.layout.live, json.dumps(self.live.to_dict(self.restarts)), is_durable=False)
        notify("WATCHDOG=1")

    def _bound_records(self) -> None:
        """Remove the oldest pictures beyond the release's limit, or while the disk is nearly full."""
        limit = int(self.release.get("record_limit_bytes", 0))
        if time.monotonic() < self.bound_at or not self.layout.records.is_dir():
            return
        found, began = [], time.monotonic()
        for path in self.layout.records.rglob("*.jpg"):
            with contextlib.suppress(OSError):
                facts = path.stat()
                found.append((facts.st_mtime, facts.st_size, path))
        total, free = sum(size for _, size, _ in found), shutil.disk_usage(self.layout.home).free
        self.bound_at = time.monotonic() + 100 * (time.monotonic() - began)  # a hundredth of the time
        for _, size, path in sorted(found):
            if total <= limit and free > LEAST_FREE_BYTES:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                total, free = total - size, free + size

    def _end(self, failures: int) -> int:
        """Note how it ended, and go back to the release before where this one never worked."""
        assert self.child is not None
        if self.stopping.is_set():
            self.child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(10)
        self.child.kill()
        status = self.child.wait()
        if self.stopping.is_set():
            self.layout.event("stop", f"release {self.identity}")
            return 0
        if status == 0:  # the end of a clip or a folder: begin again
            self.layout.event("end", "the source has ended")
            return 0
        reason = self.error or _why(status) or (self.said[-1] if self.said else "")
        self.layout.event("failure", reason)
        self.layout.note_failures(self.identity, failures + 1, reason)
        self.live.state, self.live.reason = "failed", reason
        self._report()
        before = self.layout.confirmed_id()
        if failures + 1 >= MOST_FAILURES and before and before != self.identity:
            self.layout.event("rollback", f"{self.identity} failed {failures + 1} times; back to {before}")
            with contextlib.suppress(OSError):
                self.layout.switch(before)
        return 1

    def _failures(self) -> int:
        release, count, _ = self.layout.read_failures()
        return count if release == self.identity else 0

    def _count_restart(self) -> int:
        before = read_json(self.layout.live)
        return int(before.get("restarts", -1)) + 1 if before.get("release") == self.identity else 0


def hidden(line: str) -> str:
    """The line without the page's token and without passwords in addresses."""
    return PASSWORD.sub(r"\1", TOKEN.sub(r"\1…", line))


def _why(status: int) -> str:
    if status == -9:
        return "it was killed: out of memory?"
    return f"it crashed (signal {-status})" if status < 0 else f"it ended with status {status}"


def _stamp() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, of Linux


def notify(state: str) -> None:
    """Tell systemd; nothing happens without it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def main() -> int:
    """Run the release that ``current`` leads to."""
    layout = Layout(Path(sys.argv[1]))
    os.umask(0o077)
    service = Service(layout, layout.current_id())

    def stop(number: int, frame: Any) -> None:
        service.stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    return service.run()


if __name__ == "__main__":
    sys.exit(main())
