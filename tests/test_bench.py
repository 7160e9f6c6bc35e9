from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import re
import shlex
import struct
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import tflite
from models import handmade

from edge_ran import bench, catalogue, machine, records
from edge_ran.bench import (
    Axes,
    BenchModel,
    Plan,
    benchmark,
    check_regression,
    convolution,
    csv_lines,
    measure,
    read_report,
    regression,
)
from edge_ran.bench import limit as limits
from edge_ran.bench.compare import ratio_of_sessions
from edge_ran.bench.convolution import Convolution
from edge_ran.bench.figures import RuntimeFacts, Throughput, Warmup
from edge_ran.bench.sustained import Sustained, Window
from edge_ran.bench.sweep import SweepRow
from edge_ran.card import Overrides
from edge_ran.cli.render import benchmark as render
from edge_ran.errors import AcceleratorError, GateError, InputError, NotReliable, UsageError
from edge_ran.files import sha256
from edge_ran.graph import read_graph
from edge_ran.machine import Conditions
from edge_ran.runtime import Accelerator, RuntimeOptions, interpreter, open_runtime

pytestmark = pytest.mark.alone

QUICK = Plan(num_runs=30, warmup_runs=3, min_secs=0)


@pytest.fixture(scope="module")
def measured(labelled_model, tmp_path_factory, module_pictures):
    """One measurement of the int8 network, and its file."""
    path = labelled_model("int8")
    paths = sorted(module_pictures.rglob("*.png"))
    return benchmark([BenchModel(path, RuntimeOptions(threads=1))], QUICK, pictures=paths), path


@pytest.fixture(scope="module")
def module_pictures(tmp_path_factory) -> Path:
    import cv2

    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((60, 80, 3), 60 * number, np.uint8))
    return folder


def test_figures_follow_from_the_samples(measured):
    record = measured[0].document()
    samples, latency = record["samples_ms"], record["latency"]
    assert len(samples) == latency["num_runs"] == 30
    assert latency["median_ms"] == pytest.approx(np.median(samples), abs=1e-4)
    assert latency["avg_ms"] == pytest.approx(np.mean(samples), abs=1e-4)
    assert latency["p95_ms"] == pytest.approx(np.percentile(samples, 95), abs=1e-4)
    assert latency["min_ms"] > 0


def test_wall_clock_is_what_the_runs_took(measured, labelled_model, monkeypatch):
    report = measured[0].reports[0]
    assert report.timing.wall_ms >= sum(report.samples_ms)
    assert report.timing.wall_per_run_ms == pytest.approx(report.timing.wall_ms / 30)

    # On a clock that moves while the model runs only, the median times the runs is the wall-clock time: the loop times
    # the whole of each run, and every run.
    now = [0]

    class Slow(interpreter.InterpreterRuntime):
        def run(self, x):
            now[0] += 5_000_000
            return super().run(x)

    monkeypatch.setattr(interpreter, "InterpreterRuntime", Slow)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])
    report = benchmark([BenchModel(labelled_model())], QUICK).reports[0]
    assert set(report.samples_ms) == {5.0}
    assert report.timing.wall_per_run_ms == report.latency.p50_ms == 5


def test_record(measured):
    record, path = measured[0].document(), measured[1]
    json.dumps(record, allow_nan=False)
    assert record["model"]["sha256"] == sha256(path)
    assert record["model"]["size_bytes"] == path.stat().st_size
    assert record["model"]["precision"] == "int8"
    assert record["model"]["multiply_adds"] == read_graph(path).multiply_adds > 1e5
    assert record["model"]["name"] == "colours"
    assert record["accelerator"]["actual"] == "cpu"
    assert record["runtime"]["threads"] == 1
    assert record["timing"]["includes_output_read"] is True
    assert record["environment"]["cores"] >= 1
    assert record["latency"]["init_ms"] == record["cold_start"]["load_ms"] > 0
    assert record["latency"]["first_run_ms"] == record["cold_start"]["first_run_ms"] > 0
    assert record["memory"]["peak_mb"] >= record["memory"]["before_mb"]
    speed = record["throughput"]
    assert speed["percent_of_limit"] == pytest.approx(100 * speed["gmacs_per_s"] / speed["limit_gmacs_per_s"])
    assert re.fullmatch(r"\S+'s \dx\d convolution of \d+ channels", speed["limit_kernel"])
    assert speed["gmacs_per_s"] == pytest.approx(
        record["model"]["multiply_adds"] / record["latency"]["median_ms"] / 1e6
    )


def test_stages_add_up(measured):
    stages = records.to_dict(measured[0].reports[0].stages_ms)
    assert list(stages) == ["capture", "preprocess", "inference", "postprocess", "end_to_end"]
    assert all(ms > 0 for ms in stages.values())
    assert stages["end_to_end"] >= max(ms for name, ms in stages.items() if name != "end_to_end")


def test_every_output_is_read_inside_the_timer(labelled_model, monkeypatch):
    """A runtime that queues the work and does it when its output is read must not look fast."""

    class Queued(interpreter.InterpreterRuntime):
        def run(self, x):
            time.sleep(0.005)
            return super().run(x)

    monkeypatch.setattr(interpreter, "InterpreterRuntime", Queued)
    report = benchmark([BenchModel(labelled_model())], Plan(num_runs=5, warmup_runs=0, min_secs=0)).reports[0]
    assert report.latency.min_ms >= 5
    assert report.stages_ms.inference_ms >= 5


@pytest.mark.parametrize(("is_int8", "precision"), [(True, "int8"), (False, "fp32")])
def test_models_that_classify_nothing_are_measured_without_frames(tmp_path, is_int8, precision):
    path = tmp_path / "convolution.tflite"
    path.write_bytes(convolution.build(Convolution(8, 16, 3), is_int8))
    report = benchmark([BenchModel(path)], QUICK).reports[0]
    assert report.stages_ms is None
    assert report.input == "noise"
    assert report.latency.runs == 30
    assert report.model.precision == precision
    assert report.model.multiply_adds == Convolution(8, 16, 3).multiply_adds == 8 * 8 * 16 * 16 * 9


def test_a_convolution_of_the_runtime_is_what_numpy_computes(tmp_path):
    """The limit is measured with it: it must do the work that is counted."""
    path = tmp_path / "convolution.tflite"
    path.write_bytes(convolution.build(Convolution(4, 3, 1), False))
    x = np.random.default_rng(1).standard_normal((1, 4, 4, 3)).astype(np.float32)
    weights = np.random.default_rng(0).standard_normal((3, 1, 1, 3)).astype(np.float32)
    with open_runtime(path) as runtime:
        np.testing.assert_allclose(runtime.run(x)[0], x @ weights[:, 0, 0].T, rtol=1e-4, atol=1e-5)


def test_a_model_with_several_inputs_is_one_line(test_models):
    with pytest.raises(InputError, match="has 2 inputs, only models with one"):
        benchmark([BenchModel(test_models / "two_inputs.tflite")], QUICK)


def test_the_fastest_kernel_counts_as_the_limit(monkeypatch):
    limits.fastest_kernel.cache_clear()
    monkeypatch.setattr(machine, "peak_gmacs", lambda: 50.0)
    monkeypatch.setattr(convolution, "fastest", lambda is_int8: (200.0, "int8") if is_int8 else (60.0, "float"))
    assert limits.fastest_kernel(True) == (200.0, "int8")
    assert limits.fastest_kernel(False) == (60.0, "float")
    limits.fastest_kernel.cache_clear()
    monkeypatch.setattr(convolution, "fastest", lambda is_int8: None)
    assert limits.fastest_kernel(True) is None
    assert limits.fastest_kernel(False) == (50.0, "NumPy's matrix product")
    limits.fastest_kernel.cache_clear()


def test_turns(labelled_model):
    result = benchmark([BenchModel(labelled_model("int8")), BenchModel(labelled_model("float32"))], QUICK)
    assert [r.name for r in result.reports] == ["int8.tflite", "float32.tflite"]
    assert all(r.latency.runs >= 30 for r in result.reports)
    assert all(r.timing.sessions == 6 for r in result.reports)
    assert result.reports[0].timing.turns == result.reports[1].timing.turns
    (ratio,) = result.ratios
    assert (ratio.name, ratio.baseline) == ("float32.tflite", "int8.tflite")
    assert ratio.low <= ratio.ratio <= ratio.high
    assert {"models", "ratios"} <= result.document().keys()


def test_one_model_is_loaded_several_times(measured, labelled_model):
    timing = measured[0].reports[0].timing
    assert timing.sessions == len(timing.session_medians_ms) == 6
    low, high = measured[0].document()["latency"]["median_interval_ms"]
    assert low <= min(timing.session_medians_ms) <= max(timing.session_medians_ms) <= high
    few = benchmark([BenchModel(labelled_model())], Plan(num_runs=2, min_secs=0)).reports[0]
    assert (few.latency.runs, few.timing.sessions) == (2, 2)
    slow = benchmark([BenchModel(labelled_model())], Plan(num_runs=10**6, min_secs=0, max_secs=1e-6)).reports[0]
    assert slow.timing.sessions == 1  # a model so slow that one load takes all the time there is


def test_it_is_loaded_until_the_median_is_known(labelled_model, monkeypatch):
    """Where loads differ, more runs of the same ones would never tell more."""
    now, loads = [0.0], itertools.cycle([5.0, 5.2, 4.8, 5.1, 4.9, 5.0, 5.0, 5.0])

    class Placed(interpreter.InterpreterRuntime):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.ms = next(loads)

        def run(self, x):
            now[0] += self.ms
            return super().run(x)

    monkeypatch.setattr(interpreter, "InterpreterRuntime", Placed)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: round(now[0] * 1e6))
    found = [
        benchmark([BenchModel(labelled_model())], dataclasses.replace(QUICK, until=until)).reports[0]
        for until in (0.05, 0.01)
    ]
    loose, strict = found
    assert loose.timing.sessions == 6 < strict.timing.sessions
    assert strict.latency.relative_interval <= 0.01


def test_files_of_one_name_are_told_apart(tmp_path):
    paths = [tmp_path / "runs" / name for name in ("a/int8.tflite", "b/int8.tflite", "a/int8.tflite", "a/fp32.tflite")]
    assert bench.distinct_names(paths) == ["a/int8.tflite", "b/int8.tflite", "a/int8.tflite (2)", "fp32.tflite"]


def test_plan():
    assert Plan(num_runs=10, min_secs=2).done([1.0] * 9, 5) is False
    assert Plan(num_runs=10, min_secs=2).done([1.0] * 10, 1) is False
    assert Plan(num_runs=10, min_secs=2).done([1.0] * 10, 2) is True
    assert Plan(num_runs=10, max_secs=3).done([1.0], 3) is True
    wide, narrow = [1.0, 3.0] * 20, [1.0, 1.001] * 20
    assert Plan(num_runs=10, until=0.02).done(wide, 5) is False
    assert Plan(num_runs=10, until=0.02).done(narrow, 5) is True
    mlperf = Plan.mlperf()
    assert (mlperf.num_runs, mlperf.min_secs) == (1024, 60)
    for wrong in (
        {"num_runs": 0},
        {"min_secs": 9, "max_secs": 1},
        {"min_secs": math.nan},
        {"max_secs": math.nan},
        {"max_secs": math.inf},
        {"until": 1.5},
        {"warmup_runs": -1},
    ):
        with pytest.raises(UsageError):
            Plan(**wrong)


def turns(random, sessions: int, factor: float, layout: float):
    """Two models in turns on a noisy machine: each load is up to ``layout`` faster or slower as long as it lives."""
    mine, other = [], []
    for _ in range(sessions):
        a, b = 1 + random.uniform(-layout, layout, 2)
        noise = random.gamma(20, 0.05, 20)  # shared by the two of a turn
        mine.append((factor * a * noise * random.normal(1, 0.01, 20)).tolist())
        other.append((b * noise * random.normal(1, 0.01, 20)).tolist())
    return mine, other


def test_the_same_model_twice_is_no_difference_in_19_of_20_tries():
    random = np.random.default_rng(0)
    different = sum(ratio_of_sessions("b", "a", *turns(random, 6, 1.0, 0.05)).different for _ in range(400))
    assert different <= 400 / 20


def test_a_real_difference_is_found():
    random = np.random.default_rng(1)
    found = [ratio_of_sessions("b", "a", *turns(random, 6, 1.2, 0.05)) for _ in range(100)]
    assert sum(r.different for r in found) >= 95
    assert np.median([r.ratio for r in found]) == pytest.approx(1.2, abs=0.01)
    assert "slower" in str(found[0])
    assert "no difference" in str(ratio_of_sessions("b", "a", [[1.01, 1.0]] * 6, [[1.0, 1.01]] * 6))


AROUND = Conditions(1.0, 1.0, 0.0, 0.0, 0, None, None, None, None, False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"conditions": dataclasses.replace(AROUND, others_busy=1.8)}, "other processes kept 1.8 cores busy"),
        ({"conditions": dataclasses.replace(AROUND, throttled=True)}, "throttled"),
        ({"conditions": dataclasses.replace(AROUND, steal=0.5)}, "hypervisor"),
        ({"accelerator": Accelerator("gpu", "gpu", "SwiftShader", True)}, "the GPU is software"),
        ({"accelerator": Accelerator("gpu", "cpu", fallback_reason="no adapter")}, "ran on cpu (not gpu: no adapter)"),
        ({"warmup": Warmup(9, 1, False)}, "not steady"),
        ({"samples_ms": tuple([1.0] * 10 + [1.2] * 10 + [1.4] * 10)}, "the last third ran 40% slower"),
        ({"runtime": RuntimeFacts("litert", "2", 64)}, "64 threads on"),
        ({"plan": Plan(until=1e-9, max_secs=3)}, "--until 1e-07% was not reached in 3 s"),
        ({"conditions": dataclasses.replace(AROUND, quota_stops=7)}, "CPU quota stopped it 7 times"),
        (
            {"throughput": Throughput(1.0, 900.0, 100.0, "a kernel")},
            "implausible: 900 GMAC/s, this machine does 100 at most",
        ),
    ],
)
def test_reasons_why_figures_are_not_reliable(measured, changes, words):
    sound = reliable(measured[0].reports[0])
    assert sound.validity.reliable, sound.validity
    spoilt = dataclasses.replace(sound, **changes).validity
    assert not spoilt.reliable
    assert words in "; ".join(spoilt.reasons)


def reliable(report: bench.BenchReport) -> bench.BenchReport:
    """The same report, as a quiet machine would have given it."""
    latency = dataclasses.replace(report.latency, runs=30, p50_ms=1.0, p50_interval_ms=(0.99, 1.01))
    return dataclasses.replace(
        report,
        latency=latency,
        conditions=AROUND,
        warmup=Warmup(9, 1.0, True),
        samples_ms=(1.0,) * 30,
        throughput=Throughput(1e3, 50.0, 100.0, "a kernel"),
        runtime=dataclasses.replace(report.runtime, threads=1),
        environment=dataclasses.replace(report.environment, emulated_on=None),
    )


def test_too_few_runs_and_wide_intervals(measured):
    report = measured[0].reports[0]
    few = dataclasses.replace(report, latency=dataclasses.replace(report.latency, runs=29))
    assert "29 runs only" in few.validity.reasons[0]
    wide = dataclasses.replace(report.latency, p50_ms=1.0, p50_interval_ms=(0.9, 1.1))
    assert "known to ±10 %" in dataclasses.replace(report, latency=wide).validity.reasons[0]
    unknown = dataclasses.replace(report.latency, p50_interval_ms=None)
    asked = dataclasses.replace(report, latency=unknown, plan=Plan(until=0.02))
    assert "--until 2% was not reached in 150 s" in asked.validity.reasons[0]


def test_the_limit_grows_with_threads_and_shrinks_with_bits(monkeypatch):
    monkeypatch.setattr(limits, "fastest_kernel", lambda is_int8: (40.0, "a kernel") if is_int8 else (10.0, "another"))
    monkeypatch.setattr(machine, "available_cores", lambda: 2)
    speed = limits.throughput
    assert speed(5_000_000, 1.0, "fp32", 1, True).percent_of_limit == pytest.approx(50)
    assert speed(5_000_000, 1.0, "fp32", 8, True).percent_of_limit == pytest.approx(25)
    assert speed(5_000_000, 1.0, "int8", 1, True).percent_of_limit == pytest.approx(12.5)
    assert speed(5_000_000, 1.0, "int8", 1, False).percent_of_limit is None
    assert speed(0, 1.0, "fp32", 1, True).gmacs_per_s is None


def written(measured, path: Path, factor: float = 1.0, **changes) -> Path:
    """A file with a reliable report, its times multiplied by ``factor``."""
    report = reliable(measured[0].reports[0])
    low, high = (factor * bound for bound in report.latency.p50_interval_ms)
    latency = dataclasses.replace(report.latency, p50_ms=factor, min_ms=factor / 2, p50_interval_ms=(low, high))
    path.write_text(json.dumps(records.document(dataclasses.replace(report, latency=latency, **changes))))
    return path


def compare_files(a: Path, b: Path) -> bench.Ratio:
    return regression(read_report(b), read_report(a), str(b), str(a))


def test_reports_compared(measured, tmp_path):
    a, b = written(measured, tmp_path / "a.json"), written(measured, tmp_path / "b.json", 1.5)
    ratio = compare_files(a, b)
    assert ratio.ratio == pytest.approx(1.5)
    assert ratio.different
    assert ratio.low == pytest.approx(1.5 * 0.99 / 1.01)
    assert ratio.reliable
    check_regression(ratio, 0.6)
    with pytest.raises(GateError, match=r"50\.0% slower than"):
        check_regression(ratio, 0.05)
    check_regression(compare_files(b, a), 0.05)
    assert not compare_files(a, a).different
    check_regression(compare_files(a, written(measured, tmp_path / "c.json", 1.015)), 0.0)  # within the noise


def test_cautions_of_a_comparison(measured, tmp_path):
    report = measured[0].reports[0]
    a = written(measured, tmp_path / "a.json")
    newer = dataclasses.replace(report.runtime, version="99", threads=1)
    b = written(measured, tmp_path / "b.json", runtime=newer)
    ratio = compare_files(a, b)
    name = report.runtime.name
    assert ratio.cautions == (f"the runtimes differ: {name} 99 and {name} {report.runtime.version}",)
    assert ratio.reliable
    larger = dataclasses.replace(report.model, input=dataclasses.replace(report.model.input, shape=(1, 32, 32, 3)))
    half, full = (Accelerator("gpu", "gpu", "V3D", precision=precision) for precision in ("fp16", "fp32"))
    other = dataclasses.replace(report.runtime, name="tflite-runtime", threads=1)
    for before, now, words in (
        ({}, {"model": larger}, "the input sizes differ: 1x32x32x3 and 1x16x16x3"),
        ({"accelerator": half}, {"accelerator": full}, "the accelerators differ: gpu V3D fp32 and gpu V3D fp16"),
        ({}, {"runtime": other}, f"the runtimes differ: tflite-runtime {other.version} and {name} {other.version}"),
    ):
        written(measured, a, **before)
        assert compare_files(a, written(measured, b, **now)).cautions == (words,)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_a_gate_on_figures_that_are_not_reliable_is_neither_passed_nor_failed(measured, tmp_path, factor):
    here = measured[0].reports[0].environment
    four, five = (dataclasses.replace(here, board=name, emulated_on=None) for name in ("Pi 4", "Pi 5"))
    a = written(measured, tmp_path / "a.json", environment=four)
    board = written(measured, tmp_path / "d.json", factor, environment=five)
    busy = written(measured, tmp_path / "b.json", factor, conditions=dataclasses.replace(AROUND, others_busy=1.8))
    environment = dataclasses.replace(here, cpu="Other CPU", emulated_on=None)
    elsewhere = written(measured, tmp_path / "c.json", factor, environment=environment)
    for path, words in (
        (busy, "b.json is not reliable: other processes kept 1.8"),
        (elsewhere, "the processors differ"),
        (board, "the boards differ: Pi 5 and Pi 4"),
    ):
        assert not compare_files(a, path).reliable
        with pytest.raises(NotReliable, match=words) as caught:
            check_regression(compare_files(a, path), 0.05)
        assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "text",
    [
        "", "no json", "[]", "{}", "[" * 100_000, '{"schema_version": 2, "latency": {"median_ms": "fast"}}',
        '{"schema_version": 1}', '{"schema_version": 2, "models": []}',
    ],
)  # fmt: skip
def test_files_that_are_no_reports(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_report(tmp_path / "r.json")
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_impossible_times_are_refused(measured, tmp_path):
    record = json.loads(written(measured, tmp_path / "a.json").read_text())
    for key, value in (("median_ms", -1), ("num_runs", 0), ("min_ms", 0), ("median_interval_ms", [0, 1])):
        (tmp_path / "b.json").write_text(json.dumps({**record, "latency": {**record["latency"], key: value}}))
        with pytest.raises(InputError, match="holds no times"):
            read_report(tmp_path / "b.json")


def test_csv(measured):
    (row,) = csv.DictReader(io.StringIO(csv_lines(measured[0].reports)))
    assert float(row["p50_ms"]) == pytest.approx(measured[0].reports[0].latency.p50_ms, rel=1e-3)
    assert row["threads"] == "1"


# ------------------------------------------------------------------------------------------------------- operators


def test_operators_one_by_one(test_models):
    path, seen = test_models / "float32.tflite", []
    parts = bench.profile(path, progress=lambda *pair: seen.append(pair))
    graph = read_graph(path)
    assert [o.name for o in parts.operators] == [o.name for o in graph.operators]
    assert parts.failed == ()
    assert all(o.ms > 0 for o in parts.operators)
    assert 0 <= parts.call_ms < parts.whole_ms
    assert sum(o.multiply_adds for o in parts.operators) == graph.multiply_adds
    assert sum(parts.by(lambda o: o.name).values()) == pytest.approx(parts.accounted * parts.whole_ms)
    assert seen[-1] == (len(graph.operators), len(graph.operators))
    json.dumps(records.document(parts), allow_nan=False)


def test_operators_of_pictures_of_any_size_are_not_timed(test_models):
    with pytest.raises(InputError, match="leaves the size of its input open") as caught:
        bench.profile(test_models / "any_size.tflite")
    assert "benchmark" in caught.value.remedy


def test_a_network_of_any_size_that_is_no_classifier_is_timed_at_the_size_that_is_given(test_models):
    path = test_models / "any_size_map.tflite"
    with pytest.raises(InputError, match="any size, and names none") as caught:
        benchmark([BenchModel(path)], QUICK)
    assert "--input-size" in caught.value.remedy
    report = benchmark([BenchModel(path, overrides=Overrides(input_size=(24, 20)))], QUICK).reports[0]
    assert (report.model.input.shape, report.input, report.stages_ms) == ((1, 24, 20, 3), "noise", None)


# ----------------------------------------------------------------------------------------------- sweep, sustained


@pytest.fixture
def precisions(labelled_model, tmp_path) -> Path:
    """A run folder's two files, ``int8.tflite`` and ``fp32.tflite``."""
    for name, precision in (("int8", "int8"), ("float32", "fp32")):
        (tmp_path / f"{precision}.tflite").write_bytes(labelled_model(name).read_bytes())
    return tmp_path / "int8.tflite"


def test_combinations(precisions):
    def names(**texts):
        return [s.name for s in bench.combinations(precisions, Axes.parse(**texts), RuntimeOptions())]

    assert names(threads="1,2", precision="int8,fp32") == ["int8 cpu 1T", "int8 cpu 2T", "fp32 cpu 1T", "fp32 cpu 2T"]
    assert names(accelerator="cpu,gpu", threads="1,2") == ["int8 cpu 1T", "int8 cpu 2T", "int8 gpu"]  # GPU: no threads
    with pytest.raises(InputError, match=r"there is no .*fp16\.tflite") as caught:
        names(precision="fp16")
    beside = shlex.quote(str(precisions.with_name("fp16.tflite")))
    assert caught.value.remedy == f"edge-ran convert --precision fp16 RUN -o {beside}"


def test_a_converter_of_ones_own_may_be_swept(precisions):
    own = precisions.with_name("own.toml")
    own.write_text((catalogue.folder("converters") / "int8.toml").read_text())
    precisions.with_name("own.tflite").write_bytes(precisions.read_bytes())
    found = bench.combinations(precisions, Axes.parse(precision=f"{own},int8"), RuntimeOptions(threads=1))
    assert [s.name for s in found] == ["own cpu 1T", "int8 cpu 1T"]
    measured = benchmark([s.subject for s in found], Plan(num_runs=3, min_secs=0, max_secs=1))
    assert [row.converter for row in bench.sweep_of(found, measured, {}).rows] == ["own", "int8"]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"threads": "two"}, "not a number"),
        ({"threads": "1,1"}, "values that differ"),
        ({"threads": "1,"}, "values that differ"),
        ({"precision": "int9"}, "no converter"),
        ({"accelerator": "npu"}, "no accelerator"),
        ({}, "nothing to vary"),
    ],
)
def test_axes_that_are_refused(texts, words):
    with pytest.raises(UsageError, match=words) as caught:
        Axes.parse(**texts)
    assert caught.value.remedy


def test_a_sweep_recommends_the_fastest_that_is_right_and_accurate_enough(precisions, measured):
    axes = Axes.parse(precision="int8,fp32", accelerator="cpu,gpu")
    found = bench.combinations(precisions, axes, RuntimeOptions())  # int8 cpu, int8 gpu, fp32 cpu, fp32 gpu

    report = reliable(measured[0].reports[0])

    def swept(times_ms, top1=(None,) * 4, doubts=("",) * 4, converters=("int8", "int8", "fp32", "fp32")):
        rows, reports = [], []
        for s, ms, accuracy, doubt, name in zip(found, times_ms, top1, doubts, converters, strict=True):
            interval = None if accuracy is None else (0.5, 0.95)
            actual = s.options.accelerator
            rows.append(SweepRow(s.name, "", name, 1.0, actual, actual, doubt, 1, ms, ms, ms, 1.0, accuracy, interval))
            medians = tuple(ms * noise for noise in (0.99, 1.0, 1.01, 1.0, 0.99, 1.01))
            timing = dataclasses.replace(report.timing, session_medians_ms=medians)
            reports.append(dataclasses.replace(report, name=s.name, timing=timing))
        return bench.Sweep(tuple(reports), (), tuple(rows)).recommendation

    def chosen(*args, **kwargs):
        advice = swept(*args, **kwargs)
        return advice and (advice.converter, advice.accelerator)

    assert chosen((3, 9, 4, 2)) == ("fp32", "gpu")
    assert chosen((3, 1, 4, 2), doubts=("", "the GPU is wrong", "", "")) == ("fp32", "gpu")
    assert chosen((3, 9, 4, 5), top1=(0.9, 0.9, 0.905, 0.905)) == ("int8", "cpu")
    assert chosen((3, 9, 4, 5), top1=(0.8, 0.8, 0.905, 0.905)) == ("fp32", "cpu")
    assert chosen((3, 9, 4, 5), doubts=("wrong",) * 4) is None
    assert swept((3, 9, 4, 5), converters=("",) * 4) is None  # one file, several numbers of threads
    clear = swept((3, 9, 4, 5))
    assert (clear.as_fast, clear.doubts) == ((), ())
    assert "no difference" not in bench.advice_line(clear)
    close = swept((3, 3.01, 4, 5))
    assert close.as_fast == ("int8 gpu",)
    assert "no difference in time shown from int8 gpu" in bench.advice_line(close)
    report = dataclasses.replace(report, conditions=dataclasses.replace(AROUND, others_busy=1.8))
    assert bench.advice_line(swept((3, 9, 4, 5))).endswith("not reliable: other processes kept 1.8 cores busy")


def window(at: float, ms: float, **around) -> Window:
    return Window(at, 10, ms, ms * 1.1, dataclasses.replace(AROUND, **around))


def course_of(measured, windows: list[Window]) -> Sustained:
    one = measured[0].reports[0]
    return Sustained(one.model, one.accelerator, one.runtime, one.environment, 10.0, 12.0, tuple(windows))


def test_throttling_is_named(measured):
    cool = [window(i, 10, clock_mhz_after=2400, temperature_c_after=50) for i in range(6)]
    hot = [window(6 + i, 15, clock_mhz_after=1500, temperature_c_after=84, throttled=True) for i in range(6)]
    course = course_of(measured, cool + hot)
    assert course.slowdown == pytest.approx(0.5)
    assert course.throttled is True
    assert "throttled" in course.summary
    assert "the clock went from 2400 to 1500 MHz" in course.summary
    assert "50% slower" in course.summary
    calm = course_of(measured, cool * 2)
    assert calm.reasons == ()
    assert "steady" in calm.summary


def test_what_auto_chose_holds_for_every_load(labelled_model, monkeypatch):
    """Models in turns are loaded six times; a GPU in one session and the CPU in the next would be no comparison."""
    asked = []
    real = measure.Classifier

    def classifier(path, options, overrides):
        asked.append(options.accelerator)
        return real(path, dataclasses.replace(options, accelerator="cpu"), overrides)

    monkeypatch.setattr(measure, "Classifier", classifier)
    subjects = [BenchModel(labelled_model(), RuntimeOptions(accelerator="auto")) for _ in "ab"]
    benchmark(subjects, Plan(num_runs=6, warmup_runs=1, min_secs=0))
    assert asked == ["auto"] * 2 + ["cpu"] * 10


def test_a_later_load_asks_for_the_precision_of_the_first_and_is_refused_elsewhere(labelled_model, monkeypatch):
    asked, real = [], measure.Classifier
    served = [Accelerator("auto", "gpu", "V3D", precision="fp32", asked_precision="fp32")] * 2
    served += [Accelerator("gpu", "cpu", fallback_reason="the GPU is lost")]

    def classifier(path, options, overrides):
        found = real(path, dataclasses.replace(options, accelerator="cpu"), overrides)
        found.runtime.accelerator = served[len(asked)]
        asked.append((options.accelerator, options.gpu_precision))
        return found

    monkeypatch.setattr(measure, "Classifier", classifier)
    with measure.loaded([BenchModel(labelled_model(), RuntimeOptions("auto"))]) as (one,):
        one.load_again()
        with pytest.raises(AcceleratorError, match="on gpu fp32 in its first load and on cpu in a later one: the GPU"):
            one.load_again()
    assert asked == [("auto", "fp16"), ("gpu", "fp32"), ("gpu", "fp32")]


def _paths(value, above=()):
    """Every place in a record, lists by their first element."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, one in items:
        yield (*above, key)
        yield from _paths(one, (*above, key))


def round_trip(record):
    return json.loads(json.dumps(record, allow_nan=False))


def test_a_report_is_made_again_of_its_record(measured, labelled_model):
    alone = round_trip(measured[0].document())
    assert bench.read_bench(alone) == measured[0]
    jsonschema.validate(alone, records.schema(bench.BenchReport))
    two = benchmark([BenchModel(labelled_model("int8"), name="a"), BenchModel(labelled_model("int8"), name="b")], QUICK)
    record = round_trip(two.on("board").document())
    assert bench.read_bench(record) == two.on("board")
    jsonschema.validate(record, records.schema(bench.Bench))
    assert [one["device"] for one in record["models"]] == ["board", "board"]


@pytest.mark.parametrize("value", [None, "x", -1, 0, 1e400, 10**400, [], {}, True])
def test_a_record_that_was_tampered_with_is_refused_or_can_be_shown(measured, value):
    """What a device sends is untrusted: whatever is changed in it, there is one line, or a report, and no traceback."""
    text = json.dumps({**measured[0].document(), "samples_ms": [1.0] * 30})
    refused = 0
    for path in _paths(json.loads(text)):
        record = json.loads(text)
        place = record
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        try:
            found = bench.read_bench(record)
        except InputError as error:
            refused += "\n" not in str(error)
        else:
            assert render.benchmark(found) + render.devices(found) + bench.csv_lines(found.reports)
            json.dumps(found.document())
    assert refused > 20


def test_a_profile_and_a_sustained_run_are_made_again_of_their_records(test_models):
    profile = bench.profile(test_models / "int8.tflite")
    record = round_trip(records.document(profile))
    jsonschema.validate(record, records.schema(bench.Profile))
    assert bench.read_profile(record) == profile
    for broken in ({}, {**record, "operators": []}, {**record, "whole_ms": 0}, {**record, "operators": [{"ms": 1}]}):
        with pytest.raises(InputError):
            bench.read_profile(broken)
    course = bench.sustain(BenchModel(test_models / "int8.tflite"), 1)
    record = round_trip(records.document(course))
    jsonschema.validate(record, records.schema(Sustained))
    assert bench.read_sustained(record) == course
    with pytest.raises(InputError):
        bench.read_sustained({**record, "windows": []})


def test_a_profile_of_what_the_runtime_refuses_is_one_line(test_models, tmp_path):
    data = bytearray((test_models / "int8.tflite").read_bytes())
    codes = tflite.Model.GetRootAs(data)
    table = next(
        code._tab
        for code in map(codes.OperatorCodes, range(codes.OperatorCodesLength()))
        if code.BuiltinCode() == tflite.BuiltinOperator.SOFTMAX
    )
    struct.pack_into("<b", data, table.Pos + table.Offset(4), tflite.BuiltinOperator.CUSTOM)
    struct.pack_into("<i", data, table.Pos + table.Offset(10), tflite.BuiltinOperator.CUSTOM)
    (tmp_path / "custom.tflite").write_bytes(data)
    with pytest.raises(InputError, match="cannot run it"):
        bench.profile(tmp_path / "custom.tflite")


def test_a_profile_tells_which_operators_cannot_run_alone(tmp_path):
    path = tmp_path / "stateful.tflite"
    path.write_bytes(handmade.stateful())
    parts = bench.profile(path)
    assert [o.name for o in parts.operators] == ["VAR_HANDLE", "ADD"]
    assert parts.failed[0] == "1 ASSIGN_VARIABLE: it has no output, so it cannot run alone"


def test_devices_side_by_side(measured):
    there = measured[0].reports[0]
    slower = dataclasses.replace(
        there,
        latency=dataclasses.replace(there.latency, p50_ms=2 * there.latency.p50_ms, p50_interval_ms=None),
    )
    both = bench.across({"desk": measured[0], "board": bench.Bench((slower,))})
    assert [(one.name, one.device) for one in both.reports] == [("desk", "desk"), ("board", "board")]
    (ratio,) = both.ratios
    assert (ratio.name, ratio.baseline, ratio.ratio) == ("board", "desk", 2)
    assert ratio.different
    assert "2 devices" in bench.bench_page(both).lead


def test_a_sweep_from_another_machine_fits_together_or_is_refused(measured):
    one = measured[0].reports[0]
    row = SweepRow("int8 cpu", "int8", "int8", 1.0, "cpu", "cpu", "", 1, 1.0, 1.0, 1.0, 1.0, 0.9, (0.8, 0.95))
    sweep = bench.Sweep((one,), (), (row,))
    record = round_trip(records.document(sweep))
    jsonschema.validate(record, records.schema(bench.Sweep))
    assert bench.read_sweep(record) == sweep
    (line,) = record["table"]
    for bad in (
        {"table": []},
        {"models": []},
        {"table": [line, line]},
        {"table": [{**line, "top1": None}]},
        {"table": [{**line, "median_ms": 0}]},
        *(
            {"table": [{**line, "top1_interval": wrong}]}
            for wrong in (None, [], [0.8], [0.8, "x"], [0, 1, 1], "0.8-0.9")
        ),
    ):
        with pytest.raises(InputError):
            bench.read_sweep({**record, **bad})
