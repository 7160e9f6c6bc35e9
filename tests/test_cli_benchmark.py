"""`benchmark`, `profile`, `sweep`, `sustain` and `compare` as they are typed."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import jsonschema
import pytest
from typer.testing import CliRunner

from edge_ran import bench, cli, records
from edge_ran.bench import BenchModel, Plan, benchmark, regression
from edge_ran.bench.figures import Throughput, Warmup
from edge_ran.cli import app
from edge_ran.cli.render import sweep as render
from edge_ran.errors import (
    EdgeRanError,
    EnvironmentMissing,
    GateError,
    InputError,
    NotReliable,
    OutputExists,
    UsageError,
)
from edge_ran.machine import Conditions
from edge_ran.targets.devices import resolve

QUICK = ("--num-runs", 12, "--min-secs", 0, "--cpu")
QUIET = Conditions(1.0, 1.0, 0.0, 0.0, 0, None, None, None, None, False)


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def command(*arguments: object) -> str:
    result = invoke(*arguments)
    if isinstance(result.exception, EdgeRanError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def reliable(labelled_model) -> bench.BenchReport:
    """A measurement, as a machine that does nothing else would have given it."""
    (report,) = benchmark([BenchModel(labelled_model())], Plan(num_runs=30, warmup_runs=3, min_secs=0)).reports
    return dataclasses.replace(
        report,
        latency=dataclasses.replace(report.latency, p50_ms=1.0, min_ms=0.5, p50_interval_ms=(0.99, 1.01)),
        conditions=QUIET,
        warmup=Warmup(9, 1.0, True),
        samples_ms=(1.0,) * 30,
        throughput=Throughput(1e3, 50.0, 100.0, "a kernel"),
        runtime=dataclasses.replace(report.runtime, threads=1),
    )


@pytest.fixture
def written(reliable, tmp_path):
    """A function: writes a reliable report whose times are multiplied by ``factor``; returns the file."""

    def write(name: str, factor: float = 1.0, **changes: object) -> Path:
        low, high = (factor * bound for bound in reliable.latency.p50_interval_ms)
        latency = dataclasses.replace(reliable.latency, p50_ms=factor, min_ms=factor / 2, p50_interval_ms=(low, high))
        report = dataclasses.replace(reliable, latency=latency, **changes)
        (tmp_path / name).write_text(json.dumps(records.document(report)))
        return tmp_path / name

    return write


def test_benchmark(labelled_model, tmp_path, pictures):
    model, saved = labelled_model(), tmp_path / "r.json"
    quick = (*QUICK, "--threads", 1, "--images", pictures)
    record = json.loads(
        command("benchmark", model, "--json", *quick, "--result-json", saved, "--csv", tmp_path / "r.csv")
    )
    assert record == json.loads(saved.read_text())
    jsonschema.validate(record, records.schema(bench.BenchReport))
    assert record["latency"]["num_runs"] == record["plan"]["num_runs"] == 12
    assert (tmp_path / "r.csv").read_text().count("\n") == 2
    with pytest.raises(OutputExists):
        command("benchmark", model, *quick, "--result-json", saved)
    text = command("benchmark", model, *quick, "--baseline", saved, "--plot", tmp_path / "r.png")
    assert "16 pictures" in text
    assert re.search(r"^median    [\d.]+ ms", text, re.M)
    assert re.search(r"^compared  .* ratio [\d.]+ ", text, re.M)
    assert re.search(r"^caution   .*12 runs only, 30 are needed", text, re.M)
    assert re.search(r"^reliable  no: 12 runs only", text, re.M)
    assert re.search(r"^speed     [\d.e+]+ GMAC/s, \d+ % of the limit: .* convolution of \d+ channels on", text, re.M)
    assert (tmp_path / "r.png").stat().st_size > 5000
    with pytest.raises(InputError, match="is not a folder of pictures"):
        command("benchmark", model, "--images", tmp_path / "nothing")


def test_files_of_one_name_are_told_apart(labelled_model, tmp_path):
    paths = [tmp_path / name for name in ("a/int8.tflite", "b/int8.tflite", "a/int8.tflite")]
    for path in paths[:2]:
        path.parent.mkdir(parents=True)
        path.write_bytes(labelled_model().read_bytes())
    names = ["a/int8.tflite", "b/int8.tflite", "a/int8.tflite (2)"]
    record = json.loads(command("benchmark", *paths, *QUICK, "--html", tmp_path / "page.html", "--json"))
    jsonschema.validate(record, records.schema(bench.Bench))
    assert [one["name"] for one in record["models"]] == names
    assert [(ratio["name"], ratio["baseline"]) for ratio in record["ratios"]] == [(n, names[0]) for n in names[1:3]]
    page = (tmp_path / "page.html").read_text()
    assert all(f"{name}: " in page for name in names)  # each has its own colour among the times
    assert "a/int8.tflite (2) against b/int8.tflite against a/int8.tflite on " in page


def test_a_model_without_metadata_takes_its_normalisation_from_the_options(test_models, tmp_path):
    model = test_models / "float32.tflite"
    record = json.loads(command("benchmark", model, *QUICK, "--mean", "0", "--std", "255", "--json"))
    assert record["stages_ms"]["end_to_end"] > 0
    with pytest.raises(UsageError, match="--std"):
        command("benchmark", model, *QUICK, "--std", "0,0,0")


@pytest.mark.parametrize("verb", ["benchmark", "sustain"])
def test_a_model_with_two_inputs_is_one_line(test_models, verb):
    with pytest.raises(InputError, match="has 2 inputs"):
        command(verb, test_models / "two_inputs.tflite", "--cpu")


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--profile",), "edge-ran profile MODEL"),
        (("--sweep", "threads=1,2"), "edge-ran sweep MODEL --precision int8,fp16 --threads 1,2"),
        (("--sweep", "precision=int8,fp16", "threads=1"), "edge-ran sweep MODEL"),
        (("--sustained", "10m"), "edge-ran sustain MODEL --duration 10m"),
        (("--compare", "a.json", "b.json"), "edge-ran compare A.json B.json"),
        (("--accuracy-on", "data"), "edge-ran sweep MODEL"),
    ],
)
def test_what_has_moved_is_refused_with_the_new_command(words, remedy):
    with pytest.raises(UsageError, match="is a command of its own now") as caught:
        command("benchmark", *words)
    assert caught.value.remedy.startswith(remedy)


def test_a_run_is_not_compared_with_data(tmp_path):
    with pytest.raises(UsageError, match="a command of their own") as caught:
        command("compare", tmp_path, tmp_path)
    assert caught.value.remedy.startswith("edge-ran precisions ")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--max-regression", "5%"), "--max-regression has no effect without --baseline"),
        (("--until", "soon"), "not a percentage"),
        (("--until", "100%"), "between 0 % and 100 %"),
        (("--num-runs", 0), "--num-runs 0"),
        (("--warmup-runs", -1), "--warmup-runs -1"),
        (("--min-secs", 5, "--max-secs", 2), "--max-secs 2 is below --min-secs 5"),
        (("--max-secs", "inf"), "without an end"),
        (("--mlperf", "--max-secs", 2), "--mlperf and --max-secs cannot"),
        (("--mlperf", "--num-runs", 2000), "--mlperf and --num-runs cannot"),
        (("--threads", 10000), "--threads 10000"),
        (("--cpu", "--gpu"), "--cpu and --gpu"),
        (("--install",), "--install has no effect without --device"),
        (("--install", "--device", "local"), "--install is for another device"),
        (("--html", "x", "--csv", "x"), "the same name"),
        (("--html", "x.csv"), "does not end in .html"),
        (("--csv", "x.html"), "does not end in .csv"),
        (("--result-json", "x.txt"), "does not end in .json"),
        (("--plot", "x.tflite"), "cannot draw"),
        (("--device", "local", "-d", "local"), "given twice"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_before_anything_is_measured(labelled_model, monkeypatch, words, what):
    monkeypatch.setattr("edge_ran.bench.measure.loaded", None)  # it would fail
    with pytest.raises(UsageError, match=re.escape(what)) as caught:
        command("benchmark", labelled_model(), *words)
    assert caught.value.remedy
    assert caught.value.exit_code == 2


VERBS = {"benchmark": QUICK, "profile": (), "sweep": ("--threads", "1"), "sustain": ("--duration", "1s", "--cpu")}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("option", ["--result-json", "--html", "--plot"])
def test_unwritable_files_are_found_before_the_measurement(labelled_model, tmp_path, monkeypatch, verb, option):
    monkeypatch.setattr("edge_ran.bench.measure.loaded", None)
    (tmp_path / "file").write_text("no folder")
    suffix = {"--result-json": "json", "--html": "html", "--plot": "svg"}[option]
    (tmp_path / f"there.{suffix}").write_text("")
    for target, error in (
        (tmp_path / "file" / f"x.{suffix}", EnvironmentMissing),
        (Path(f"/proc/x.{suffix}"), EnvironmentMissing),
        (tmp_path / f"there.{suffix}", OutputExists),
    ):
        with pytest.raises(error):
            command(verb, labelled_model(), *VERBS[verb], option, target)


@pytest.mark.parametrize("verb", VERBS)
def test_what_was_measured_is_printed_even_when_a_file_cannot_be_written(labelled_model, tmp_path, monkeypatch, verb):
    """A disk that fills up while it measures."""

    def full(target, text):
        raise EnvironmentMissing(f"no space left on the disk of {target}", "free some space")

    monkeypatch.setattr("edge_ran.files.write_text", full)
    extra = ("--num-runs", 6, "--min-secs", 0) if verb == "sweep" else ()
    words = (*VERBS[verb], *extra, "--result-json", tmp_path / "x.json", "--plot", tmp_path / "x.svg")
    result = invoke(verb, labelled_model(), *words)
    assert isinstance(result.exception, EnvironmentMissing)
    assert " ms" in result.stdout
    assert (tmp_path / "x.svg").stat().st_size > 1000  # what can be written is


def test_gates(written):
    same, slow = written("same.json"), written("slow.json", 3)
    record = json.loads(command("compare", same, slow, "--json"))
    jsonschema.validate(record, records.schema(bench.Ratio))
    assert (record["ratio"], record["reliable"], record["different"]) == (pytest.approx(3), True, True)
    assert "3.00 times slower" in command("compare", same, slow)
    command("compare", slow, same, "--max-regression", "5%")
    with pytest.raises(GateError, match="slower than"):
        command("compare", same, slow, "--max-regression", "5%")
    for lets_all_through in ("nan%", "inf", "-5%"):
        with pytest.raises(UsageError, match="not a percentage"):
            command("compare", same, slow, "--max-regression", lets_all_through)


def test_a_gate_that_cannot_be_judged_has_its_own_exit_code(written, labelled_model, monkeypatch, capsys):
    busy = written("busy.json", 3, conditions=dataclasses.replace(QUIET, others_busy=1.8))
    with pytest.raises(NotReliable, match="other processes kept") as caught:
        command("compare", written("a.json"), busy, "--max-regression", "5%")
    assert caught.value.exit_code == 4
    # The same in `benchmark`, after its figures are printed; a dozen runs are never enough.
    words = ["benchmark", labelled_model(), *QUICK, "--baseline", written("a.json"), "--max-regression", "5%"]
    monkeypatch.setattr("sys.argv", ["edge-ran", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert end.value.code == 4
    assert "12 runs only" in err
    assert "median " in out


def test_what_helps_a_gate_on_a_page_can_be_typed_for_a_page(written, labelled_model, reliable, monkeypatch):
    page = dataclasses.replace(reliable, runtime=dataclasses.replace(reliable.runtime, name="LiteRT.js"))
    busy = dataclasses.replace(page, conditions=dataclasses.replace(QUIET, others_busy=1.8))
    monkeypatch.setattr("edge_ran.targets.measurements.benchmark", lambda *a: bench.Bench((busy,)))
    before = written("before.json", runtime=page.runtime)
    now = written("now.json", runtime=page.runtime, conditions=busy.conditions)
    here = written("here.json", conditions=busy.conditions)
    for words, advised in (
        (("benchmark", labelled_model(), "--baseline", before), "--device DEVICE --min-secs 60"),
        (("compare", before, now), "--device DEVICE --min-secs 60"),
        (("compare", before, here), "--until 2%"),
    ):
        with pytest.raises(NotReliable) as caught:
            command(*words, "--max-regression", "5%")
        assert advised in caught.value.remedy


def test_a_gate_on_reliable_figures_is_red_or_green(written, labelled_model, reliable, monkeypatch):
    found = bench.Bench((reliable,))
    monkeypatch.setattr("edge_ran.targets.measurements.benchmark", lambda *a: found)
    words = ("benchmark", labelled_model(), "--max-regression", "5%", "--baseline")
    assert "compared" in command(*words, written("a.json"))
    with pytest.raises(GateError, match="slower than"):
        command(*words, written("fast.json", 0.5))
    assert regression(reliable, reliable, "b", "a").ratio == 1


def test_sweep(labelled_model, pictures, tmp_path):
    for name, precision in (("int8", "int8"), ("float32", "fp32")):
        (tmp_path / f"{precision}.tflite").write_bytes(labelled_model(name).read_bytes())
    model, front = tmp_path / "int8.tflite", tmp_path / "front.svg"
    words = ("--precision", "int8,fp32", "--threads", "1,2", "--num-runs", 12, "--min-secs", 0)
    record = json.loads(command("sweep", model, *words, "--accuracy-on", pictures, "--plot", front, "--json"))
    jsonschema.validate(record, records.schema(bench.Sweep))
    # Whatever is not varied is auto; what it came to is told.
    assert [row["name"] for row in record["table"]] == ["int8 auto 1T", "int8 auto 2T", "fp32 auto 1T", "fp32 auto 2T"]
    assert {row["actual"] for row in record["table"]} == {"cpu"}
    fastest = min(record["table"], key=lambda row: row["median_ms"])
    advice = record["recommendation"]
    assert (advice["median_ms"], advice["name"]) == (fastest["median_ms"], fastest["name"])
    text = render.sweep(bench.read_sweep(record))
    assert f"\nrecommended for this device: {fastest['name']} on cpu, " in text
    (report,) = (one for one in record["models"] if one["name"] == advice["name"])
    assert advice["doubts"] == report["validity"]["reasons"]  # a recommendation carries its doubt
    assert ("not reliable" in text) == bool(advice["doubts"])
    assert "(95 %: " in text
    assert [row["threads"] for row in record["table"]] == [1, 2, 1, 2]
    assert [row["top1"] for row in record["table"]] == [1, 1, 1, 1]
    assert all(0 < row["top1_interval"][0] < row["top1_interval"][1] <= 1 for row in record["table"])
    assert record["table"][0]["ratio"] == 1
    assert "accuracy" in front.read_text()
    with pytest.raises(UsageError, match="nothing to vary"):
        command("sweep", model)
    with pytest.raises(InputError, match="nothing"):
        command("sweep", model, "--threads", "1", "--accuracy-on", tmp_path / "nothing")


def test_sustain(labelled_model, tmp_path):
    plot, saved = tmp_path / "s.svg", tmp_path / "s.json"
    text = command("sustain", labelled_model(), "--duration", "1s", "--cpu", "--plot", plot, "--result-json", saved)
    for line in (r"median       [\d.]+ ms, p90 [\d.]+ ms", r"clock        \S", r"temperature  \S", r"speed        \S"):
        assert re.search(f"^{line}", text, re.M), line
    record = json.loads(saved.read_text())
    jsonschema.validate(record, records.schema(bench.Sustained))
    assert len(record["windows"]) >= 4
    assert record["seconds"] >= 0.9
    assert record["median_ms"] <= record["p90_ms"]
    assert "minutes" in plot.read_text()
    with pytest.raises(UsageError, match="time above 0"):
        command("sustain", labelled_model(), "--duration", "0s")


def test_profile(labelled_model, tmp_path):
    saved = tmp_path / "p.json"
    text = command("profile", labelled_model(), "--plot", tmp_path / "p.png", "--result-json", saved)
    assert "CONV_2D" in text
    assert "the ten slowest" in text
    assert (tmp_path / "p.png").stat().st_size > 5000
    jsonschema.validate(json.loads(saved.read_text()), records.schema(bench.Profile))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("benchmark", "MODEL", *QUICK), ("Are the figures reliable?", "A whole frame", "every output read")),
        (
            ("sweep", "MODEL", "--threads", "1,2", "--accuracy-on", "PICTURES", "--num-runs", 6, "--min-secs", 0),
            ("Settings", "100.00%"),
        ),
        (("profile", "MODEL"), ("By place in the paper", "CONV_2D")),
        (("sustain", "MODEL", "--duration", "1s", "--cpu"), ("without a pause", "Time of an inference", "minutes")),
    ],
    ids=lambda value: value[0],
)
def test_pages(labelled_model, pictures, tmp_path, words, said):
    known = {"MODEL": labelled_model(), "PICTURES": pictures}
    page = tmp_path / "page.html"
    command(*(known.get(word, word) for word in words), "--html", page)
    text = page.read_text()
    for word in said:
        assert word in text
    assert "<svg" in text
    assert not re.search(r'(src|href)="(https?:|//)', text)


def test_devices_command():
    record = json.loads(command("devices", "--json"))
    names = [device["name"] for device in record["devices"]]
    assert {"local", "raspberry-pi-5", "jetson-orin-nano"} <= set(names)
    assert all(name in command("devices") for name in names)
    assert json.loads(command("devices", "local", "--json"))["devices"][0]["target"] == "local"
    for written in ("pi@raspberrypi", "raspberrypi.local", "192.168.1.7"):
        with pytest.raises(UsageError, match="no device is called") as caught:
            resolve(written)
        assert caught.value.remedy == f"over ssh: --device ssh://{written}"
    with pytest.raises(UsageError, match="no device is called 'adb'") as caught:
        resolve("adb")
    assert "adb:SERIAL" in caught.value.remedy
    with pytest.raises(UsageError, match="no device is called"):
        command("devices", "pi")
