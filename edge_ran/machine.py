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
NO_MEMORY_LIMIT = 1 << 62  # bytes; version 1 of control groups writes "none" as a number near 2^63


@dataclass(frozen=True)
class Machine:
    """What a machine is; None for what it does not tell.

    ``cores`` is how many this process may use at the same time: those it is allowed to run on, and no more than the
    CPU quota of its control group pays for (``cpu_quota_cores``, None without one). ``memory_limit_mb`` is the control
    group's limit. ``governor`` is the clock policy, ``emulated_on`` the real processor where another one plays
    ``architecture``.
    """

    board: str | None
    cpu: str
    architecture: str | None
    cores: int
    memory_mb: int | None
    governor: str | None
    virtual: bool | None
    emulated_on: str | None
    os: str
    python: str | None
    load_average: float | None
    cpu_quota_cores: float | None = None
    memory_limit_mb: int | None = None


def identity() -> Machine:
    """Return what this machine is."""
    memory_kb = _fields(PROC / "meminfo").get("MemTotal", "")
    quota, limit = cpu_quota_cores(), memory_limit_bytes()
    return Machine(
        board=_text(PROC / "device-tree" / "model").rstrip("\0") or _text(SYS / "class/dmi/id/product_name") or None,
        cpu=cpu_name(),
        architecture=platform.machine(),
        cores=available_cores(),
        memory_mb=int(memory_kb.split()[0]) // 1024 if memory_kb else None,
        governor=governor(),
        virtual="hypervisor" in cpu_flags() or None,
        emulated_on=emulated_on(),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        cpu_quota_cores=quota,
        memory_limit_mb=None if limit is None else limit // 2**20,
    )


def available_cores() -> int:
    """Return how many cores this process may keep busy: at least 1, and no more than its CPU quota pays for.

    A quota of 1.5 cores gives 1: a second thread would use the quota up early and then wait for the next period.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota_cores()
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota_cores() -> float | None:
    """Return the cores' worth of time that this process's control groups (containers) allow; None without a limit."""
    quotas = []
    for folder in _control_groups("cpu"):
        used, _, period = _text(folder / "cpu.max").partition(" ")  # version 2
        if not used:
            used, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if used.isdigit() and period.isdigit() and int(period) > 0:
            quotas.append(int(used) / int(period))
    return min(quotas, default=None)


def memory_limit_bytes() -> int | None:
    """Return the most memory that this process's control groups (containers) allow, in bytes; None without a limit."""
    texts = [
        _text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes") for folder in _control_groups("memory")
    ]
    limits = [int(text) for text in texts if text.isdigit()]
    return min((limit for limit in limits if limit < NO_MEMORY_LIMIT), default=None)


def quota_stops() -> int | None:
    """Return how often a CPU quota has stopped this process's control groups; None where none counts that."""
    counts = []
    for folder in _control_groups("cpu"):
        lines = dict(line.split(" ", 1) for line in _text(folder / "cpu.stat").splitlines() if " " in line)
        if (stops := lines.get("nr_throttled", "")).isdigit():
            counts.append(int(stops))
    return sum(counts) if counts and cpu_quota_cores() is not None else None


def _control_groups(controller: str) -> list[Path]:
    """The folders of this process's control groups, versions 1 and 2, and of those that they lie in.

    Within a container the path that the kernel tells may be that of the host; then the mount's root is our own.
    """
    found = []
    for line in _text(PROC / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        mount: Path | None
        if number == "0" and not names:
            mount = SYS / "fs/cgroup"
        elif controller in names.split(","):
            mount = next((m for m in (SYS / "fs/cgroup" / names, SYS / "fs/cgroup" / controller) if m.is_dir()), None)
        else:
            continue
        if mount is not None:
            own = mount / path.strip("/")
            found += [folder for folder in (own, *own.parents) if folder == mount or mount in folder.parents]
    return list(dict.fromkeys(found))


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

    One core, because threads that wait for each other measure other processes on a busy machine.
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


@dataclass(frozen=True)
class Conditions:
    """What happened around a measurement; None where the system does not tell.

    ``others_busy`` and ``own_busy`` are the cores' worth of work of other processes and of this one, ``steal`` what the
    hypervisor gave to other machines; ``preempted`` is how often this process had to wait for another, ``quota_stops``
    how often a CPU quota of its container stopped it. ``battery_before`` and ``battery_after`` are its charge, 0..1."""

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
    quota_stops: int | None = None
    battery_before: float | None = None
    battery_after: float | None = None
    charging: bool | None = None


class ConditionsMonitor:
    """Notes the conditions from its making until ``stop``."""

    def __init__(self) -> None:
        self._clock, self._temperature = clock_mhz(), temperature_c()
        self._throttle, self._throttled = throttle_events(), is_throttled()
        self._preempted, self._stops = _preempted(), quota_stops()
        self._cpu, self._own, self._start = _cpu_seconds(), _own_seconds(), time.perf_counter()

    def stop(self) -> Conditions:
        """Return what happened since."""
        seconds = time.perf_counter() - self._start
        own, cpu = _own_seconds() - self._own, _cpu_seconds()
        others = steal = None
        if cpu and self._cpu:
            others = round(max(0.0, cpu[0] - self._cpu[0] - own) / seconds, 2)
            steal = round(max(0.0, cpu[1] - self._cpu[1]) / seconds, 2)
        throttle, preempted, stops = throttle_events(), _preempted(), quota_stops()
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
            quota_stops=None if stops is None or self._stops is None else stops - self._stops,
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
