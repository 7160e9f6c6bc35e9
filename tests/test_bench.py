from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edge_ran import bench, machine
from edge_ran.bench import BenchModel, Plan, benchmark, check_regression, compare_files, csv_lines, measure, read_report
from edge_ran.bench.compare import ratio_of_sessions
from edge_ran.bench.sustained import Window, judge
from edge_ran.cli import app
from edge_ran.cli.benchmark import _row
from edge_ran.errors import EdgeRanError, GateError, InputError, OutputExists, UsageError
from edge_ran.files import sha256
from edge_ran.graph import read_graph
from edge_ran.machine import Conditions
from edge_ran.runtime import Accelerator, RuntimeOptions, interpreter

pytestmark = pytest.mark.serial

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
    record = measured[0].to_dict()
    samples, latency = record["samples_ms"], record["latency"]
    assert len(samples) == latency["num_runs"] == 30
    assert latency["median_ms"] == pytest.approx(np.median(samples), abs=1e-4)
    assert latency["avg_ms"] == pytest.approx(np.mean(samples), abs=1e-4)
    assert latency["p95_ms"] == pytest.approx(np.percentile(samples, 95), abs=1e-4)
    assert latency["min_ms"] > 0


def test_wall_clock_is_what_the_runs_took(measured, labelled_model, monkeypatch):
    report = measured[0].reports[0]
    assert report.timing["wall_ms"] >= sum(report.samples_ms)
    assert report.timing["wall_per_run_ms"] == pytest.approx(report.timing["wall_ms"] / 30)

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
    assert report.timing["wall_per_run_ms"] == report.latency.p50_ms == 5


def test_record(measured):
    record, path = measured[0].to_dict(), measured[1]
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
    assert 0 < record["throughput"]["percent_of_limit"] < 125
    speed = record["throughput"]
    assert speed["gmacs_per_s"] == pytest.approx(
        record["model"]["multiply_adds"] / record["latency"]["median_ms"] / 1e6
    )


def test_stages_add_up(measured):
    stages = measured[0].reports[0].stages_ms
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
    assert report.stages_ms["inference"] >= 5


def test_models_that_classify_nothing_are_measured_without_frames(labelled_model, monkeypatch):
    def refuse(graph, card):
        raise InputError("not an image classifier")

    monkeypatch.setattr("edge_ran.bench.measure.check_image_classifier", refuse)
    report = benchmark([BenchModel(labelled_model())], QUICK).reports[0]
    assert report.stages_ms is None
    assert report.input == "noise"
    assert report.latency.runs == 30


def test_turns(labelled_model):
    result = benchmark([BenchModel(labelled_model("int8")), BenchModel(labelled_model("float32"))], QUICK)
    assert [r.name for r in result.reports] == ["int8.tflite", "float32.tflite"]
    assert all(r.latency.runs >= 30 for r in result.reports)
    assert all(r.timing["sessions"] == 6 for r in result.reports)
    assert result.reports[0].timing["turns"] == result.reports[1].timing["turns"]
    (ratio,) = result.ratios
    assert (ratio.name, ratio.baseline) == ("float32.tflite", "int8.tflite")
    assert ratio.low <= ratio.ratio <= ratio.high
    assert {"models", "ratios"} <= result.to_dict().keys()


def test_one_model_is_loaded_several_times(measured, labelled_model):
    timing = measured[0].reports[0].timing
    assert timing["sessions"] == len(timing["session_medians_ms"]) == 6
    low, high = measured[0].to_dict()["latency"]["median_interval_ms"]
    assert low <= min(timing["session_medians_ms"]) <= max(timing["session_medians_ms"]) <= high
    few = benchmark([BenchModel(labelled_model())], Plan(num_runs=2, min_secs=0)).reports[0]
    assert (few.latency.runs, few.timing["sessions"]) == (2, 2)
    slow = benchmark([BenchModel(labelled_model())], Plan(num_runs=10**6, min_secs=0, max_secs=1e-3)).reports[0]
    assert slow.timing["sessions"] == 1  # a model so slow that one load takes all the time there is


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
    assert loose.timing["sessions"] == 6 < strict.timing["sessions"]
    assert strict.latency.relative_interval <= 0.01


def test_files_of_one_name_are_told_apart(labelled_model, tmp_path):
    paths = [tmp_path / "runs" / name for name in ("a/int8.tflite", "b/int8.tflite", "a/int8.tflite", "a/fp32.tflite")]
    names = ["a/int8.tflite", "b/int8.tflite", "a/int8.tflite (2)", "fp32.tflite"]
    assert bench.distinct_names(paths) == names
    for path in paths[:2]:
        path.parent.mkdir(parents=True)
        path.write_bytes(labelled_model().read_bytes())
    quick = ("--num-runs", 12, "--min-secs", 0, "--cpu", "--html", tmp_path / "page.html", "--json")
    record = json.loads(command("benchmark", *paths[:3], *quick))
    assert [one["name"] for one in record["models"]] == names[:3]
    assert [(ratio["name"], ratio["baseline"]) for ratio in record["ratios"]] == [(n, names[0]) for n in names[1:3]]
    page = (tmp_path / "page.html").read_text()
    assert all(f"{name}: " in page for name in names[:3])  # each has its own colour among the times
    assert "a/int8.tflite (2) against b/int8.tflite against a/int8.tflite on " in page


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
        ({"warmup": {"runs": 9, "secs": 1, "steady": False}}, "not steady"),
        ({"samples_ms": tuple([1.0] * 10 + [1.2] * 10 + [1.4] * 10)}, "the last third ran 40% slower"),
        ({"runtime": {"name": "litert", "version": "2", "threads": 64}}, "64 threads on"),
        (
            {"throughput": {"percent_of_limit": 900.0, "gmacs_per_s": 900.0, "limit_gmacs_per_s": 100.0}},
            "implausible: 900 GMAC/s, this machine does 100 at most",
        ),
    ],
)
def test_reasons_not_to_quote(measured, changes, words):
    stats = dataclasses.replace(measured[0].reports[0].latency, p50_low_ms=1.0, p50_high_ms=1.0, p50_ms=1.0)
    sound = dataclasses.replace(
        measured[0].reports[0],
        latency=stats,
        conditions=AROUND,
        warmup={"runs": 9, "secs": 1, "steady": True},
        samples_ms=(1.0,) * 30,
        throughput={"percent_of_limit": 50.0, "gmacs_per_s": 50.0, "limit_gmacs_per_s": 100.0},
    )
    assert sound.validity()["quotable"], sound.validity()
    spoilt = dataclasses.replace(sound, **changes).validity()
    assert not spoilt["quotable"]
    assert words in "; ".join(spoilt["reasons"])


def test_too_few_runs_and_wide_intervals(measured):
    report = measured[0].reports[0]
    few = dataclasses.replace(report, latency=dataclasses.replace(report.latency, runs=29))
    assert "29 runs only" in few.validity()["reasons"][0]
    wide = dataclasses.replace(report.latency, p50_ms=1.0, p50_low_ms=0.9, p50_high_ms=1.1)
    assert "known to ±10%" in dataclasses.replace(report, latency=wide).validity()["reasons"][0]


def test_the_limit_grows_with_threads_and_shrinks_with_bits(monkeypatch):
    monkeypatch.setattr(machine, "peak_gmacs", lambda: 10.0)
    monkeypatch.setattr(machine, "int8_speedup", lambda: 4)
    monkeypatch.setattr(machine, "available_cores", lambda: 2)
    speed = bench.report.throughput
    assert speed(5_000_000, 1.0, "fp32", 1, True)["percent_of_limit"] == pytest.approx(50)
    assert speed(5_000_000, 1.0, "fp32", 8, True)["percent_of_limit"] == pytest.approx(25)
    assert speed(5_000_000, 1.0, "int8", 1, True)["percent_of_limit"] == pytest.approx(12.5)
    assert speed(5_000_000, 1.0, "int8", 1, False)["percent_of_limit"] is None
    assert speed(0, 1.0, "fp32", 1, True)["gmacs_per_s"] is None


def written(measured, path: Path, factor: float = 1.0, **changes) -> Path:
    record = measured[0].to_dict()
    record["latency"]["median_ms"] *= factor
    record["latency"]["median_interval_ms"] = [record["latency"]["median_ms"] * f for f in (0.99, 1.01)]
    path.write_text(json.dumps({**record, **changes}))
    return path


def test_reports_compared(measured, tmp_path):
    a, b = written(measured, tmp_path / "a.json"), written(measured, tmp_path / "b.json", 1.5)
    ratio = compare_files(a, b)
    assert ratio.ratio == pytest.approx(1.5)
    assert ratio.different
    assert ratio.low == pytest.approx(1.5 * 0.99 / 1.01)
    check_regression(ratio, 0.6)
    with pytest.raises(GateError, match=r"50\.0% slower than"):
        check_regression(ratio, 0.05)
    check_regression(compare_files(b, a), 0.05)
    assert not compare_files(a, a).different
    check_regression(compare_files(a, written(measured, tmp_path / "c.json", 1.015)), 0.0)  # within the noise


def test_cautions_of_a_comparison(measured, tmp_path):
    a = written(measured, tmp_path / "a.json", validity={"quotable": True, "reasons": []})
    other = {**measured[0].to_dict()["environment"], "cpu": "Other CPU"}
    b = written(
        measured, tmp_path / "b.json", environment=other, validity={"quotable": False, "reasons": ["throttled"]}
    )
    cautions = "\n".join(compare_files(a, b).cautions)
    assert "the processors differ: Other CPU and" in cautions
    assert "b.json is not to be quoted: throttled" in cautions
    assert "models differ" not in cautions


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "{}", "[" * 100_000, '{"latency": {"median_ms": "fast"}}', '{"latency": {"median_ms": -1}}'],
)
def test_files_that_are_no_reports(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError):
        read_report(tmp_path / "r.json")


def test_csv(measured):
    (row,) = csv.DictReader(io.StringIO(csv_lines(measured[0].reports)))
    assert float(row["p50_ms"]) == pytest.approx(measured[0].reports[0].latency.p50_ms, rel=1e-3)
    assert row["threads"] == "1"


def command(*arguments: object):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, EdgeRanError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_command(labelled_model, tmp_path, module_pictures):
    model, saved = labelled_model(), tmp_path / "r.json"
    quick = ("--num-runs", 30, "--min-secs", 0, "--threads", 1, "--images", module_pictures)
    record = json.loads(
        command("benchmark", model, "--json", *quick, "--result-json", saved, "--csv", tmp_path / "r.csv")
    )
    assert record == json.loads(saved.read_text())
    assert record["latency"]["num_runs"] == 30
    assert (tmp_path / "r.csv").read_text().count("\n") == 2
    with pytest.raises(OutputExists):
        command("benchmark", model, *quick, "--result-json", saved)
    text = command("benchmark", model, *quick, "--baseline", saved, "--plot", tmp_path / "r.png")
    assert "median" in text
    assert "3 pictures" in text
    assert (tmp_path / "r.png").stat().st_size > 5000
    with pytest.raises(InputError, match="holds no picture"):
        command("benchmark", model, "--images", tmp_path / "nothing")


def test_command_gates_and_compares(labelled_model, measured, tmp_path):
    fast = written(measured, tmp_path / "fast.json", 1e-3)
    quick = ("--num-runs", 30, "--min-secs", 0)
    with pytest.raises(GateError, match="slower than"):
        command("benchmark", labelled_model(), *quick, "--baseline", fast, "--max-regression", "5%")
    slow = written(measured, tmp_path / "slow.json", 3)
    record = json.loads(command("benchmark", "--compare", fast, slow, "--json"))
    assert record["ratio"] == pytest.approx(3000)
    with pytest.raises(UsageError, match="--max-regression needs"):
        command("benchmark", labelled_model(), "--max-regression", "5%")
    with pytest.raises(UsageError, match="not a percentage"):
        command("benchmark", labelled_model(), "--until", "soon")
    for lets_all_through in ("nan%", "inf", "-5%"):
        with pytest.raises(UsageError, match="not a percentage"):
            command("benchmark", "--compare", fast, slow, "--max-regression", lets_all_through)


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
    json.dumps(parts.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("tensor", "where"),
    [
        ("net/stage1_module2_mask_down1_unit1_conv1_relu/Relu;net/x", "stage1 module2 mask"),
        ("net/stage1_module2_residual/add", "stage1 module2 gate"),
        ("net/stage3_unit_add/add", "stage3 unit"),
        ("net/stem_conv/Conv2D1", "stem"),
        ("tfl.quantize", "stem"),
        ("image_pixels", "stem"),
        ("net/tail_unit1_conv1/Conv2D", "tail"),
        ("net/logits/MatMul", "classifier"),
        ("Identity", "classifier"),
        ("model/conv2d_17/BiasAdd", "conv2d"),
    ],
)
def test_places(tensor, where):
    from edge_ran.bench.operators import layer_place

    assert layer_place(tensor) == where


# ----------------------------------------------------------------------------------------------- sweep, sustained


@pytest.fixture
def precisions(labelled_model, tmp_path) -> Path:
    """A run folder's two files, ``int8.tflite`` and ``fp32.tflite``."""
    for name, precision in (("int8", "int8"), ("float32", "fp32")):
        (tmp_path / f"{precision}.tflite").write_bytes(labelled_model(name).read_bytes())
    return tmp_path / "int8.tflite"


def test_combinations(precisions):
    options = RuntimeOptions()
    names = [s.name for s in bench.combinations(precisions, ["threads=1,2", "precision=int8,fp32"], options)]
    assert names == ["int8 cpu 1T", "int8 cpu 2T", "fp32 cpu 1T", "fp32 cpu 2T"]
    names = [s.name for s in bench.combinations(precisions, ["accelerator=cpu,gpu", "threads=1,2"], options)]
    assert names == ["int8 cpu 1T", "int8 cpu 2T", "int8 gpu"]  # a GPU has no threads to vary
    for terms, words in (
        (["depth=3"], "cannot sweep"),
        (["threads=two"], "not a number"),
        (["threads=1", "threads=2"], "each axis once"),
        (["threads="], "each axis once"),
        (["precision=int9"], "no converter"),
        (["accelerator=npu"], "no accelerator"),
        ([], "nothing to sweep"),
    ):
        with pytest.raises(UsageError, match=words):
            bench.combinations(precisions, terms, options)
    with pytest.raises(InputError, match=r"there is no .*fp16\.tflite"):
        bench.combinations(precisions, ["precision=fp16"], options)


def test_sweep_command(precisions, pictures, tmp_path):
    quick = ("--num-runs", 12, "--min-secs", 0, "--threads", 1)
    front = tmp_path / "front.svg"
    record = json.loads(
        command(
            "benchmark", precisions, "--sweep", "precision=int8,fp32", "threads=1,2", *quick,
            "--accuracy-on", pictures, "--plot", front, "--json",
        )
    )  # fmt: skip
    # Whatever is not swept is what benchmark takes otherwise; what it came to is told.
    assert [row["name"] for row in record["table"]] == ["int8 auto 1T", "int8 auto 2T", "fp32 auto 1T", "fp32 auto 2T"]
    assert {row["actual"] for row in record["table"]} == {"cpu"}
    fastest = min(record["table"], key=lambda row: row["median_ms"])
    assert record["recommendation"]["median_ms"] == fastest["median_ms"]
    assert record["recommendation"]["text"].startswith(f"on this device: converter {fastest['precision']} on cpu, ")
    assert [row["threads"] for row in record["table"]] == [1, 2, 1, 2]
    assert [row["top1"] for row in record["table"]] == [1, 1, 1, 1]
    assert all(0 < row["top1_interval"][0] < row["top1_interval"][1] <= 1 for row in record["table"])
    assert "(95 %: " in record["recommendation"]["text"]
    assert record["table"][0]["ratio"] == 1
    assert "accuracy" in front.read_text()
    with pytest.raises(UsageError, match="for one model"):
        command("benchmark", precisions, precisions, "--sweep", "threads=1")


def test_a_sweep_recommends_the_fastest_that_is_right_and_accurate_enough(precisions):
    terms = ["precision=int8,fp32", "accelerator=cpu,gpu"]
    found = bench.combinations(precisions, terms, RuntimeOptions())  # int8 cpu, int8 gpu, fp32 cpu, fp32 gpu

    def chosen(times_ms, top1=(None,) * 4, doubts=("",) * 4):
        rows = [
            {
                "converter": s.precision, "actual": s.options.accelerator, "threads": 1,
                "median_ms": ms, "top1": accuracy, "top1_interval": (0.5, 0.95), "doubt": doubt,
            }
            for s, ms, accuracy, doubt in zip(found, times_ms, top1, doubts, strict=True)
        ]  # fmt: skip
        advice = bench.recommend(rows)
        return advice and (advice.converter, advice.accelerator)

    assert chosen((3, 9, 4, 2)) == ("fp32", "gpu")
    assert chosen((3, 1, 4, 2), doubts=("", "the GPU is wrong", "", "")) == ("fp32", "gpu")
    assert chosen((3, 9, 4, 5), top1=(0.9, 0.9, 0.905, 0.905)) == ("int8", "cpu")
    assert chosen((3, 9, 4, 5), top1=(0.8, 0.8, 0.905, 0.905)) == ("fp32", "cpu")
    assert chosen((3, 9, 4, 5), doubts=("wrong",) * 4) is None
    assert bench.recommend([{"converter": "", "doubt": ""}]) is None  # one file, several numbers of threads


def window(at: float, ms: float, **around) -> Window:
    return Window(at, 10, ms, ms * 1.1, dataclasses.replace(AROUND, **around))


def test_throttling_is_named():
    cool = [window(i, 10, clock_mhz_after=2400, temperature_c_after=50) for i in range(6)]
    hot = [window(6 + i, 15, clock_mhz_after=1500, temperature_c_after=84, throttled=True) for i in range(6)]
    course = judge(cool + hot)
    assert course.slowdown == pytest.approx(0.5)
    assert course.throttled is True
    assert "throttled" in str(course)
    assert "the clock went from 2400 to 1500 MHz" in str(course)
    assert "50% slower" in str(course)
    calm = judge(cool * 2)
    assert calm.reasons == ()
    assert "steady" in str(calm)


def test_sustained_run(labelled_model, tmp_path):
    plot = tmp_path / "s.png"
    text = command(
        "benchmark", labelled_model(), "--sustained", "1s", "--plot", plot, "--result-json", tmp_path / "s.json"
    )
    assert "from the first quarter to the last" in text or "in the last quarter" in text
    record = json.loads((tmp_path / "s.json").read_text())
    assert len(record["windows"]) >= 4
    assert record["seconds"] >= 0.9
    assert plot.stat().st_size > 5000


def test_profile_command(labelled_model, tmp_path):
    text = command("benchmark", labelled_model(), "--profile", "--plot", tmp_path / "p.png")
    assert "CONV_2D" in text
    assert "the ten slowest" in text
    assert (tmp_path / "p.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("May it be quoted?", "A whole frame", "every output read")),
        (("threads=1,2", "--accuracy-on", "PICTURES"), ("Settings", "100.00%")),
        (("--profile",), ("By place in the paper", "CONV_2D")),
        (("--sustained", "1s"), ("without a pause", "window by window")),
    ],
)
def test_pages(labelled_model, pictures, tmp_path, options, words):
    options = [str(pictures) if option == "PICTURES" else option for option in options]
    page = tmp_path / "page.html"
    command("benchmark", labelled_model(), "--cpu", "--num-runs", 12, "--min-secs", 0, "--html", page, *options)
    text = page.read_text()
    for word in words:
        assert word in text
    assert "<svg" in text
    assert not re.search(r'(src|href)="(https?:|//)', text)


def test_what_auto_chose_holds_for_every_load(labelled_model, monkeypatch):
    """Models in turns are loaded six times; a GPU in one session and the CPU in the next would be no comparison."""
    asked = []
    real = measure.Classifier

    def classifier(path, options):
        asked.append(options.accelerator)
        return real(path, dataclasses.replace(options, accelerator="cpu"))

    monkeypatch.setattr(measure, "Classifier", classifier)
    subjects = [BenchModel(labelled_model(), RuntimeOptions(accelerator="auto")) for _ in "ab"]
    benchmark(subjects, Plan(num_runs=6, warmup_runs=1, min_secs=0))
    assert asked == ["auto"] * 2 + ["cpu"] * 10


def test_devices_command():
    record = json.loads(command("devices", "--json"))
    names = [device["name"] for device in record["devices"]]
    assert {"local", "raspberry-pi-5", "jetson-orin-nano"} <= set(names)
    assert all(name in command("devices") for name in names)
    assert json.loads(command("devices", "local", "--json"))["devices"][0]["target"] == "local"
    with pytest.raises(UsageError, match="no device is called"):
        command("devices", "pi")


def _paths(value, above=()):
    """Every place in a record, lists by their first element."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, one in items:
        yield (*above, key)
        yield from _paths(one, (*above, key))


def test_a_report_is_made_again_of_its_record(measured, labelled_model):
    alone = json.loads(json.dumps(measured[0].to_dict()))
    assert bench.Bench.from_dict(alone).to_dict() == alone
    two = benchmark([BenchModel(labelled_model("int8"), name="a"), BenchModel(labelled_model("int8"), name="b")], QUICK)
    record = json.loads(json.dumps(two.on("board").to_dict()))
    assert json.loads(json.dumps(bench.Bench.from_dict(record).to_dict())) == record
    assert [one["device"] for one in record["models"]] == ["board", "board"]


@pytest.mark.parametrize("value", [None, "x", -1, 0, 1e400, [], {}, True])
def test_a_record_that_was_tampered_with_is_refused_or_can_be_shown(measured, value):
    """What a device sends is untrusted: whatever is changed in it, there is one line, or a report, and no traceback."""
    from edge_ran.cli.benchmark import _bench_text, _devices_text

    text = json.dumps({**measured[0].to_dict(), "samples_ms": [1.0] * 30})
    refused = 0
    for path in _paths(json.loads(text)):
        record = json.loads(text)
        place = record
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        try:
            found = bench.Bench.from_dict(record)
        except InputError as error:
            refused += "\n" not in str(error)
        else:
            assert _bench_text(found) + _devices_text(found) + bench.csv_lines(found.reports)
            json.dumps(found.to_dict())
    assert refused > 20


def test_a_profile_and_a_sustained_run_are_made_again_of_their_records(test_models):
    profile = bench.profile(test_models / "int8.tflite")
    record = json.loads(json.dumps(profile.to_dict()))
    assert bench.Profile.from_dict(record) == profile
    for broken in ({}, {**record, "operators": []}, {**record, "whole_ms": 0}, {**record, "operators": [{"ms": 1}]}):
        with pytest.raises(InputError):
            bench.Profile.from_dict(broken)
    course = bench.sustain(BenchModel(test_models / "int8.tflite"), 1)
    assert bench.Sustained.from_dict(json.loads(json.dumps(course.to_dict()))) == course
    with pytest.raises(InputError):
        bench.Sustained.from_dict({**course.to_dict(), "windows": []})


def test_devices_side_by_side(measured):
    there = measured[0].reports[0]
    slower = dataclasses.replace(
        there,
        latency=dataclasses.replace(there.latency, p50_ms=2 * there.latency.p50_ms, p50_low_ms=None, p50_high_ms=None),
    )
    both = bench.across({"desk": measured[0], "board": bench.Bench((slower,))})
    assert [(one.name, one.device) for one in both.reports] == [("desk", "desk"), ("board", "board")]
    (ratio,) = both.ratios
    assert (ratio.name, ratio.baseline, ratio.ratio) == ("board", "desk", 2)
    assert ratio.different
    assert "2 devices" in bench.bench_page(both).lead


def test_a_sweeps_line_from_another_machine_holds_an_interval_or_no_accuracy():
    row = {
        "name": "int8 cpu", "converter": "int8", "accelerator": "cpu", "actual": "cpu", "doubt": "", "threads": 1,
        "median_ms": 1.0, "p90_ms": 1.0, "ratio": 1.0, "size_mb": 1.0, "top1": 0.9, "top1_interval": [0.8, 0.95],
    }  # fmt: skip
    assert _row(row) == row
    assert _row({**row, "top1": None, "top1_interval": None})["top1"] is None
    for bad in (None, [], [0.8], [0.8, "x"], [0.1, 0.2, 0.3], "0.8-0.9"):
        with pytest.raises(InputError):
            _row({**row, "top1_interval": bad})
    with pytest.raises(InputError):
        _row({**row, "top1": None})
