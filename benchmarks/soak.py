"""Half an hour of a camera that does everything cameras do, against the real ``edge-ran run``.

    python benchmarks/soak.py [--minutes 30] [--fps 25] [--model m.tflite] [--seed 0] [--json]

A camera on loopback is killed and restarted, stalls without closing, freezes, sends black and torn pictures and changes
its resolution, in random order, while one visitor watches the live page and another connects to it and takes nothing.
Then it must hold (exit 1 otherwise): stdout was NDJSON and nothing else; no frame number came twice, none is missing
without being counted as dropped, and every picture that was sent arrived, but for the few on their way when a
connection ended; every kind of fault was noticed; little processor time was used while nothing came; memory, threads
and open files stayed flat; and the run ended in order on SIGTERM.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from loopback import MjpegServer, jpeg, numbered

FAULTS = ("dies", "stalls", "freezes", "goes black", "sends torn pictures", "changes resolution")
NOTICED = {
    "dies": "lost",
    "stalls": "stalled",
    "freezes": "frozen",
    "goes black": "black",
    "sends torn pictures": "corrupt",
}
SILENCES = ("dies", "stalls")
GROWTH_ALLOWED = 1.03  # of memory, from the second third of the run to the last
BUSY_ALLOWED = 0.1  # of one core, while nothing comes
ON_THEIR_WAY = 4  # pictures that may be lost with a connection: in the sockets' buffers


class MoodyCamera:
    """An MJPEG camera whose ``mood`` can be set."""

    def __init__(self, fps: float) -> None:
        self.mood = ""
        self._wide = False
        self._pictures = [[jpeg(numbered(n, *size)) for n in range(64)] for size in ((320, 240), (640, 480))]
        self._black = jpeg(np.zeros((240, 320, 3), np.uint8))
        self.server = MjpegServer(self._picture, fps=fps).start()

    def _picture(self, index: int) -> bytes | None:
        if self.mood == "stalls":
            return None
        if self.mood == "goes black":
            return self._black
        whole = self._pictures[self._wide][0 if self.mood == "freezes" else index % 64]
        return whole[: len(whole) // 3] if self.mood == "sends torn pictures" else whole

    def have(self, fault: str, seconds: float) -> None:
        if fault == "changes resolution":
            self._wide = not self._wide
            return
        self.mood = fault
        if fault == "dies":
            self.server.kill()
        time.sleep(seconds)
        if fault == "dies":
            self.server.start()
        self.mood = ""


def rss_mb(pid: int) -> float:
    match = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match
    return int(match[1]) / 1024


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def held(pid: int) -> tuple[int, int]:
    """Threads and open files of a process."""
    return len(os.listdir(f"/proc/{pid}/task")), len(os.listdir(f"/proc/{pid}/fd"))


def watch_page(port: int, stop: threading.Event) -> None:
    """Look at the pictures as a browser does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/stream")
    response = connection.getresponse()
    while not stop.is_set() and response.read(1 << 14):
        pass


def connect_and_take_nothing(port: int, stop: threading.Event) -> None:
    while not stop.is_set():
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            stop.wait(20)


def soak(model: Path | None, minutes: float, fps: float, seed: int, folder: Path) -> dict[str, Any]:
    chance = random.Random(seed)
    camera = MoodyCamera(fps)
    command = [sys.executable, "-m", "edge_ran", "run", *([str(model)] if model else []), "--camera", camera.server.url]
    command += ["--json", "--stall", "2s", "--frozen", "3s", "--reconnect", "60s", "--web", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--summary", str(folder / "summary.json")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pid, said, indices, not_json = process.pid, list[str](), list[int](), list[str]()

    def read_results() -> None:
        for line in process.stdout or ():
            try:
                indices.append(json.loads(line)["index"])
            except (ValueError, KeyError):
                not_json.append(line)

    readers = [
        threading.Thread(target=read_results, daemon=True),
        threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True),
    ]
    for reader in readers:
        reader.start()
    while not (address := re.search(r"watch at http://127\.0\.0\.1:(\d+)/", "".join(said))):
        time.sleep(0.1)
    stop = threading.Event()
    for visitor in (watch_page, connect_and_take_nothing):
        threading.Thread(target=visitor, args=(int(address[1]), stop), daemon=True).start()

    began, happened, busy = time.monotonic(), list[str](), list[float]()
    at, memory, holds = list[float](), list[float](), list[tuple[int, int]]()
    while (elapsed := time.monotonic() - began) < minutes * 60:
        fault = FAULTS[len(happened)] if len(happened) < len(FAULTS) else chance.choice(FAULTS)
        print(f"{elapsed / 60:5.1f} min: the camera {fault}; {len(indices)} results", file=sys.stderr)
        before, started = cpu_s(pid), time.monotonic()
        camera.have(fault, 4 + 4 * chance.random())
        if fault in SILENCES:
            busy.append((cpu_s(pid) - before) / (time.monotonic() - started))
        happened.append(fault)
        time.sleep(3 + 7 * chance.random())
        at.append(elapsed / 3600)
        memory.append(rss_mb(pid))
        holds.append(held(pid))
    process.send_signal(signal.SIGTERM)
    code = process.wait(60)
    stop.set()
    for reader in readers:
        reader.join(20)
    camera.server.kill()

    summary = json.loads((folder / "summary.json").read_text())
    third = max(1, len(memory) // 3)  # the first third warms up
    middle, end = statistics.median(memory[third : 2 * third] or memory), statistics.median(memory[-third:])
    slope = statistics.linear_regression(at[third:], memory[third:]).slope if len(memory) > third + 1 else 0.0
    kinds = {gap["kind"] for gap in summary["gaps"]}
    captured, dropped = summary["captured"], sum(summary["dropped"].values())
    missing = len(set(range(captured)) - set(indices))
    sent, connections = camera.server.sent, camera.server.connections
    threads, files = (statistics.median(h[i] for h in holds[-third:]) for i in (0, 1))
    threads_before, files_before = (statistics.median(h[i] for h in holds[third : 2 * third] or holds) for i in (0, 1))
    checks = {
        "stdout is NDJSON": not not_json,
        "no frame number twice": all(a < b for a, b in itertools.pairwise(indices)),
        "none lost: those missing are those dropped": missing == dropped,
        "captured = classified + dropped": captured == len(indices) + dropped == summary["classified"] + dropped,
        "what was sent arrived": 0 <= sent - captured <= ON_THEIR_WAY * connections,
        "every fault was noticed": all(NOTICED[fault] in kinds for fault in happened if fault in NOTICED),
        "no busy loop": max(busy) <= BUSY_ALLOWED,
        "ended in order": code == 130,
        "memory is flat": end <= GROWTH_ALLOWED * middle,
        "threads and open files are flat": threads <= threads_before + 1 and files <= files_before + 2,
    }
    return {
        "minutes": minutes,
        "faults": {fault: happened.count(fault) for fault in FAULTS},
        "notices": len(said),
        "rss_mb": {"first": memory[0], "median": statistics.median(memory), "last": memory[-1], "most": max(memory)},
        "rss_slope_mb_an_hour": slope,
        "rss_mb_by_tenths": [round(statistics.median(part), 1) for part in np.array_split(memory, 10) if part.size],
        "threads_and_files": {"first": holds[0], "last": holds[-1]},
        "cpu_while_nothing_comes": {"median": statistics.median(busy), "most": max(busy)},
        "sent": sent,
        "connections": connections,
        "summary": {key: summary[key] for key in ("captured", "classified", "dropped", "fps")},
        "gaps": len(summary["gaps"]),
        "checks": checks,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--fps", type=float, default=25.0, help="of the camera")
    parser.add_argument("--model", type=Path, help="default: the newest run's, else the shipped one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = soak(arguments.model, arguments.minutes, arguments.fps, arguments.seed, Path(folder))
    if arguments.json:
        print(json.dumps(report, indent=1))
    else:
        for key, value in report.items():
            if key != "checks":
                print(f"{key}: {value}")
        for check, held in report["checks"].items():
            print(f"{'held  ' if held else 'BROKEN'}  {check}")
    sys.exit(0 if all(report["checks"].values()) else 1)


if __name__ == "__main__":
    main()
