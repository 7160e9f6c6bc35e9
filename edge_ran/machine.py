"""What this machine is, how busy and how warm it is, and the most arithmetic it can do.

Everything is read from Linux's /proc and /sys; what another system or a container hides is None, never guessed.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROC, SYS = Path("/proc"), Path("/sys")

# Products of 512x512 matrices, the best of 0.5 s of processor time. In a process of its own: BLAS takes its number of
# threads from the environment, and what it allocates would count as the model's memory.
PEAK_PROGRAM = """
import time, numpy
a = numpy.random.default_rng(0).random((512, 512), numpy.float32)
b, c = a.copy(), a.copy()
best, begun, end = 1e9, time.process_time(), time.perf_counter() + 5
while time.process_time() - begun < 0.5 and time.perf_counter() < end:
    for _ in range(8):
        start = time.perf_counter()
        numpy.matmul(a, b, out=c)
        best = min(best, time.perf_counter() - start)
print(512**3 / best / 1e9)
"""
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# 8-bit multiply-adds in the time of one 32-bit one: dot-product instructions do four in each 32-bit lane.
INT8_SPEEDUP = {"amx_int8": 32, "i8mm": 8}
INT8_SPEEDUP_ELSE = 4


def identity() -> dict[str, Any]:
    """Return what the machine is: board, processor, cores, memory, clock policy, system and Python."""
    memory_kb = _fields(PROC / "meminfo").get("MemTotal", "")
    return {
        "board": _text(PROC / "device-tree" / "model").rstrip("\0") or _text(SYS / "class/dmi/id/product_name") or None,
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "cores": available_cores(),
        "memory_mb": int(memory_kb.split()[0]) // 1024 if memory_kb else None,
        "governor": governor(),
        "virtual": "hypervisor" in cpu_flags() or None,
        "emulated_on": emulated_on(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name, as well as the system tells it."""
    info = _fields(PROC / "cpuinfo")
    return info.get("model name") or info.get("Model") or info.get("Hardware") or platform.processor() or "unknown"


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's instruction set extensions, in the kernel's words."""
    info = _fields(PROC / "cpuinfo")
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def emulated_on() -> str | None:
    """Return the real processor's architecture where another one acts ours (qemu-user, a container of another
    platform); None where it is our own, or the kernel (before Linux 6.2) does not tell its own."""
    ours, real = platform.machine(), _text(PROC / "sys" / "kernel" / "arch")
    return real if real and _family(real) != _family(ours) else None


def _family(architecture: str) -> str:
    """The architectures that one processor runs by itself: 32-bit programs on a 64-bit system."""
    families = (("arm", "arm"), ("aarch64", "arm"), ("i", "x86"), ("x86", "x86"))
    return next((family for start, family in families if architecture.startswith(start)), architecture)


def governor() -> str | None:
    """Return the clock policy of the first core: ``performance`` keeps it up, others change it with the load."""
    return _text(SYS / "devices/system/cpu/cpu0/cpufreq/scaling_governor") or None


def clock_mhz() -> float | None:
    """Return the mean clock of the cores now."""
    clocks = [_text(p) for p in (SYS / "devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    if any(clocks):
        return sum(int(c) / 1000 for c in clocks if c) / sum(map(bool, clocks))
    lines = _text(PROC / "cpuinfo").splitlines()
    speeds = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return sum(speeds) / len(speeds) if speeds else None


def temperature_c() -> float | None:
    """Return the temperature of the hottest zone in degrees Celsius."""
    found = [_text(p) for p in (SYS / "class/thermal").glob("thermal_zone*/temp")]
    degrees = [int(t) / 1000 for t in found if t.lstrip("-").isdigit()]
    return max((d for d in degrees if 0 < d < 150), default=None)


def throttle_events() -> int | None:
    """Return how often the cores were slowed down for heat since the machine started, where the kernel counts that."""
    counts = [_text(p) for p in (SYS / "devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count")]
    return sum(int(c) for c in counts if c.isdigit()) if counts else None


def is_throttled() -> bool | None:
    """Return whether a Raspberry Pi is slowed down now, for heat or want of voltage; None on other machines."""
    flags = _text(SYS / "devices/platform/soc/soc:firmware/get_throttled")
    return bool(int(flags, 16) & 0xF) if flags else None  # the upper bits say that it was, at some time


def memory_mb() -> tuple[float | None, float | None]:
    """Return this process's resident memory in MB: now, and the most since ``reset_peak_memory``."""
    status = _fields(PROC / "self" / "status")
    now, peak = (status.get(key, "").split() for key in ("VmRSS", "VmHWM"))
    return (int(now[0]) / 1024 if now else None), (int(peak[0]) / 1024 if peak else None)


def huge_pages_mb() -> float | None:
    """Return how many MB of this process's memory lie in huge pages; None where the kernel does not tell."""
    kilobytes = _fields(PROC / "self" / "smaps_rollup").get("AnonHugePages", "").split()
    return int(kilobytes[0]) / 1024 if kilobytes else None


def reset_peak_memory() -> bool:
    """Make the peak start from now; False where the kernel does not allow it."""
    try:
        (PROC / "self" / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


@functools.cache
def peak_gmacs() -> float | None:
    """Measure 10^9 float32 multiply-adds a second of NumPy's matrix product on one core; None if it fails.

    One core, because threads that wait for each other measure their neighbours on a busy machine. A bound for what a
    network can reach, not a record: a good BLAS comes within a few per cent of the hardware.
    """
    environment = {**os.environ, **dict.fromkeys(BLAS_THREADS, "1")}
    environment.pop("OPENBLAS_CORETYPE", None)  # set to an older core for equal results, it would halve the speed
    try:
        run = subprocess.run(
            [sys.executable, "-c", PEAK_PROGRAM], env=environment, capture_output=True, text=True, timeout=60
        )
        return float(run.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def int8_speedup() -> int:
    """Return how many 8-bit multiply-adds this processor does, at most, in the time of a float32 one."""
    return max((n for flag, n in INT8_SPEEDUP.items() if flag in cpu_flags()), default=INT8_SPEEDUP_ELSE)


@dataclass(frozen=True)
class Conditions:
    """What went on around a measurement. ``others_busy`` and ``own_busy`` are cores' worth of work of other processes
    and of this one, ``steal`` cores' worth that the hypervisor kept; ``preempted`` how often this process had to
    wait for another; None where the system does not tell."""

    seconds: float
    own_busy: float | None
    others_busy: float | None
    steal: float | None
    preempted: int | None
    clock_mhz_before: float | None
    clock_mhz_after: float | None
    temperature_c_before: float | None
    temperature_c_after: float | None
    throttled: bool | None


class ConditionsMonitor:
    """Notes the conditions from its making until ``stop``."""

    def __init__(self) -> None:
        self._clock, self._temperature = clock_mhz(), temperature_c()
        self._throttle, self._throttled = throttle_events(), is_throttled()
        self._preempted = _preempted()
        self._cpu, self._own, self._start = _cpu_seconds(), _own_seconds(), time.perf_counter()

    def stop(self) -> Conditions:
        """Return what went on since."""
        seconds = time.perf_counter() - self._start
        own, cpu = _own_seconds() - self._own, _cpu_seconds()
        others = steal = None
        if cpu and self._cpu:
            others = round(max(0.0, cpu[0] - self._cpu[0] - own) / seconds, 2)
            steal = round(max(0.0, cpu[1] - self._cpu[1]) / seconds, 2)
        throttle, preempted = throttle_events(), _preempted()
        signs = [self._throttled, is_throttled()]
        if throttle is not None and self._throttle is not None:
            signs.append(throttle > self._throttle)
        throttled = any(signs) if any(sign is not None for sign in signs) else None
        return Conditions(
            seconds=round(seconds, 3),
            own_busy=round(own / seconds, 2),
            others_busy=others,
            steal=steal,
            preempted=None if preempted is None or self._preempted is None else preempted - self._preempted,
            clock_mhz_before=self._clock,
            clock_mhz_after=clock_mhz(),
            temperature_c_before=self._temperature,
            temperature_c_after=temperature_c(),
            throttled=throttled,
        )


def _cpu_seconds() -> tuple[float, float] | None:
    """Seconds that all cores together were busy, and that were stolen, since the machine started."""
    line = _text(PROC / "stat").partition("\n")[0].split()
    if len(line) < 9 or line[0] != "cpu":
        return None
    user, nice, system, _, _, irq, softirq, steal = (int(v) / os.sysconf("SC_CLK_TCK") for v in line[1:9])
    return user + nice + system + irq + softirq, steal


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system


def _preempted() -> int | None:
    text = _fields(PROC / "self" / "status").get("nonvoluntary_ctxt_switches", "")
    return int(text) if text.isdigit() else None


def _fields(path: Path) -> dict[str, str]:
    """The first value of each ``name: value`` line."""
    found: dict[str, str] = {}
    for line in _text(path).splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
