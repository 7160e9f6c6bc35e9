import os
import time

import pytest

from edge_ran import machine


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A function that lays out /proc and /sys of a made-up board, from {path: text}."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "SYS", tmp_path / "sys")
    machine.cpu_flags.cache_clear()

    def lay_out(files: dict[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        machine.cpu_flags.cache_clear()

    yield lay_out
    machine.cpu_flags.cache_clear()


def test_a_raspberry_pi(board):
    board(
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd asimddp\n\nModel\t\t: Raspberry Pi 5 Model B\n",
            "proc/meminfo": "MemTotal:        8000000 kB\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
            "sys/class/thermal/thermal_zone0/temp": "61200\n",
            "sys/class/thermal/thermal_zone1/temp": "-40000\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50004\n",
        }
    )
    found = machine.identity()
    assert found.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert found.memory_mb == 7812
    assert found.governor == "ondemand"
    assert machine.clock_mhz() == 1950
    assert machine.temperature_c() == 61.2
    assert machine.is_throttled() is True
    assert machine.ConditionsMonitor().stop().throttled is True
    board({"sys/devices/platform/soc/soc:firmware/get_throttled": "50000"})
    assert machine.ConditionsMonitor().stop().throttled is False


def test_a_server(board):
    board(
        {
            "proc/cpuinfo": "model name\t: Fast CPU\ncpu MHz\t\t: 2000.5\nflags\t\t: fpu hypervisor amx_int8\n\n"
            "model name\t: Fast CPU\ncpu MHz\t\t: 3000.5\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "2",
        }
    )
    assert machine.identity().cpu == "Fast CPU"
    assert machine.identity().virtual is True
    assert machine.clock_mhz() == 2500.5
    assert machine.throttle_events() == 5


def test_nothing_is_guessed(board):
    board({})
    found = machine.identity()
    assert found.board is None
    assert found.memory_mb is None
    assert (machine.clock_mhz(), machine.temperature_c(), machine.throttle_events()) == (None,) * 3
    conditions = machine.ConditionsMonitor().stop()
    assert (conditions.others_busy, conditions.throttled, conditions.preempted) == (None, None, None)


def test_watch_sees_others_and_throttling(board, monkeypatch):
    tick = os.sysconf("SC_CLK_TCK")
    stat = "cpu  {} 0 0 1000 0 0 0 {} 0 0\n"
    throttled = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    board({"proc/stat": stat.format(0, 0), throttled: "1"})
    now = iter([10.0, 12.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = machine.ConditionsMonitor()
    board({"proc/stat": stat.format(3 * tick, tick), throttled: "2"})
    conditions = watch.stop()
    assert conditions.seconds == 2
    assert conditions.others_busy == pytest.approx(1.5, abs=0.1)  # three seconds of others' work in two
    assert conditions.steal == 0.5
    assert conditions.throttled is True


def test_this_machine_does_arithmetic():
    peak = machine.peak_gmacs()
    assert peak is not None
    assert 0.05 < peak < 5000


def test_memory_is_that_of_this_process():
    now, peak = machine.memory_mb()
    assert now is not None
    assert 5 < now <= peak + 1
    block = bytearray(64 << 20)
    assert machine.memory_mb()[0] > now + 50
    del block


@pytest.mark.parametrize(("ours", "kernel", "real"), [
    ("aarch64", "x86_64", "x86_64"),  # qemu-user, or a container of another platform
    ("aarch64", "aarch64", None),
    ("armv7l", "aarch64", None),  # 32-bit programs on a 64-bit board
    ("i686", "x86_64", None),
    ("x86_64", "aarch64", "aarch64"),
    ("riscv64", "x86_64", "x86_64"),
    ("aarch64", "", None),  # an older kernel
])  # fmt: skip
def test_an_emulated_processor_is_told(board, monkeypatch, ours, kernel, real):
    monkeypatch.setattr(machine.platform, "machine", lambda: ours)
    board({"proc/sys/kernel/arch": f"{kernel}\n"})
    assert machine.emulated_on() == real
    assert machine.identity().emulated_on == real


def test_huge_pages_are_told_or_none(tmp_path, monkeypatch):
    found = machine.huge_pages_mb()
    assert found is None or found >= 0
    monkeypatch.setattr(machine, "PROC", tmp_path)
    assert machine.huge_pages_mb() is None
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "smaps_rollup").write_text("Rss: 33000 kB\nAnonHugePages:      6144 kB\n")
    assert machine.huge_pages_mb() == 6.0


@pytest.mark.parametrize(("files", "quota", "cores"), [
    ({"proc/self/cgroup": "0::/app\n", "sys/fs/cgroup/app/cpu.max": "50000 100000\n"}, 0.5, 1),
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
      "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 1.5, 1),
    ({"proc/self/cgroup": "0::/docker/1f\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0, 3),  # the host's path
    ({"proc/self/cgroup": "4:cpu,cpuacct:/x\n0::/\n", "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "250000\n",
      "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, 2.5, 2),
    ({"proc/self/cgroup": "4:cpuacct,cpu:/x\n", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"}, None, 8),
    ({"proc/self/cgroup": "0::/\n"}, None, 8),
    ({}, None, 8),
])  # fmt: skip
def test_a_cpu_quota_limits_the_cores(board, monkeypatch, files, quota, cores):
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    board(files)
    found = machine.identity()
    assert (found.cpu_quota_cores, found.cores, machine.available_cores()) == (quota, cores, cores)


def test_a_memory_limit_is_told(board):
    board({"proc/self/cgroup": "0::/app\n", "sys/fs/cgroup/app/memory.max": "536870912\n"})
    assert machine.identity().memory_limit_mb == 512
    board({"sys/fs/cgroup/app/memory.max": "max\n"})
    assert machine.identity().memory_limit_mb is None
    board({"proc/self/cgroup": "9:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"})
    assert machine.identity().memory_limit_mb is None


def test_being_stopped_by_a_quota_is_counted(board):
    group, stat = "sys/fs/cgroup/app", "nr_periods {}\nnr_throttled {}\nthrottled_usec 9\n"
    board({"proc/self/cgroup": "0::/app\n", f"{group}/cpu.max": "50000 100000", f"{group}/cpu.stat": stat.format(9, 4)})
    watch = machine.ConditionsMonitor()
    board({f"{group}/cpu.stat": stat.format(20, 11)})
    assert watch.stop().quota_stops == 7
    board({f"{group}/cpu.max": "max 100000"})
    assert machine.ConditionsMonitor().stop().quota_stops is None
