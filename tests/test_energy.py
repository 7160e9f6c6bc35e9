import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_ran import bench, energy, records

pytestmark = pytest.mark.alone


@pytest.fixture
def sys_tree(tmp_path):
    """A function that lays out a made-up /sys from {path: text}, and returns it."""

    def lay_out(files: dict[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return lay_out


def packages(*counts: int, span: int = 262_143_328_850) -> dict[str, str]:
    files = {}
    for i, count in enumerate(counts):
        zone = f"class/powercap/intel-rapl:{i}"
        files |= {f"{zone}/name": f"package-{i}\n", f"{zone}/energy_uj": f"{count}\n"}
        files |= {f"{zone}/max_energy_range_uj": f"{span}\n", f"{zone}:0/name": "core", f"{zone}:0/energy_uj": "7"}
    return files


def test_packages_are_added_up_and_their_parts_are_not_counted_again(sys_tree):
    sensor = energy.find(sys_tree(packages(2_000_000, 500_000)))
    assert sensor.name == "RAPL package-0 + package-1"
    meter = energy.Meter(sensor)
    for used in (1_500_000, 500_000):
        meter.start()
        before = [int(c.path.read_text()) for c in sensor.counters]
        sys_tree(packages(before[0] + used, before[1] + used))
        meter.stop()
        sys_tree(packages(before[0] + used + 9_000_000, before[1]))  # between a stop and a start: not ours
    assert meter.joules == pytest.approx(4.0)


def test_a_counter_that_begins_anew(sys_tree):
    meter = energy.Meter(energy.find(sys_tree(packages(999_000, span=1_000_000))))
    meter.start()
    sys_tree(packages(4_000, span=1_000_000))
    meter.stop()
    assert meter.joules == pytest.approx(0.005)


def test_a_whole_machine_zone_holds_the_packages(sys_tree):
    files = {"class/powercap/intel-rapl:1/name": "psys", "class/powercap/intel-rapl:1/energy_uj": "5"}
    assert energy.find(sys_tree({**packages(1), **files})).name == "RAPL psys"


def test_a_jetson_tells_the_power_of_several_rails(sys_tree):
    chip = "class/hwmon/hwmon3"
    files = {f"{chip}/name": "ina3221", f"{chip}/in1_label": "VDD_CPU_GPU_CV", f"{chip}/in2_label": "VDD_IN"}
    for i, (millivolts, milliamperes) in enumerate(((4900, 100), (5000, 2000)), start=1):
        files |= {f"{chip}/in{i}_input": f"{millivolts}\n", f"{chip}/curr{i}_input": f"{milliamperes}\n"}
    meter = energy.Meter(sensor := energy.find(sys_tree(files)))
    assert sensor.name == "ina3221 VDD_IN"
    meter.start()
    time.sleep(0.05)
    meter.stop()
    assert 0.05 * 10 <= meter.joules < 10 * 10  # 10 W for 50 ms and however long a busy machine slept


def test_a_power_meter_in_microwatts_and_sensors_that_mean_something_else(sys_tree):
    graphics = {"class/hwmon/hwmon0/name": "amdgpu", "class/hwmon/hwmon0/power1_average": "30000000"}
    assert energy.find(sys_tree(graphics)) is None
    board = {"class/hwmon/hwmon1/name": "ina260_u14", "class/hwmon/hwmon1/power1_input": "4000000"}
    assert energy.find(sys_tree(board)).name == "ina260_u14"
    server = {f"class/hwmon/hwmon2/energy{i}_{what}": text for i, what, text in (
        (1, "label", "Ecore000"), (1, "input", "9"), (9, "label", "Esocket0"), (9, "input", "9"))}  # fmt: skip
    sensor = energy.find(sys_tree({**server, "class/hwmon/hwmon2/name": "amd_energy"}))
    assert (sensor.name, len(sensor.counters)) == ("amd_energy sockets", 1)


def test_nothing_is_told_where_nothing_can_be_read(sys_tree, tmp_path):
    assert energy.find(tmp_path / "nowhere") is None
    meter = energy.Meter(None)
    meter.start()
    meter.stop()
    assert meter.joules is None
    sensor = energy.find(sys_tree(packages(100)))
    meter = energy.Meter(sensor)
    meter.start()
    sensor.counters[0].path.write_text("")  # torn away in the middle
    meter.stop()
    assert meter.joules is None


def test_a_sum_that_lacks_a_part_is_not_told(sys_tree):
    sensor = energy.find(sys_tree(packages(100)))
    meter = energy.Meter(sensor)
    for count in ("200", "", "300", "400"):
        meter.start()
        sensor.counters[0].path.write_text(count)
        meter.stop()
    assert meter.joules is None


TURNING = """
import os, sys, time
begun = time.perf_counter()
while True:
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(str(int(20e6 * (time.perf_counter() - begun))))
    os.replace(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(0.0002)
"""


def test_a_benchmark_tells_what_a_run_takes(sys_tree, monkeypatch, test_models):
    """A real measurement while another process turns the counter, 20 W worth of it."""
    tree, find = sys_tree(packages(0)), energy.find
    turning = subprocess.Popen([sys.executable, "-c", TURNING, str(find(tree).counters[0].path)])
    monkeypatch.setattr(energy, "find", lambda: find(tree))
    try:
        (report,) = bench.benchmark(
            [bench.BenchModel(test_models / "float32.tflite")], bench.Plan(min_secs=0.5)
        ).reports
    finally:
        turning.kill()
        turning.wait()
    assert report.energy.sensor == "RAPL package-0"
    joules = report.energy.joules_per_run
    assert joules == pytest.approx(20 * report.timing.wall_per_run_ms / 1e3, rel=0.5)
    assert records.document(report)["energy"]["joules_per_run"] == joules
