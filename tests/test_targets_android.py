"""Benchmark and verify on a double of a phone, whose shell runs a stand-in for the official program on real models."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from adb_device import Device
from typer.testing import CliRunner

from edge_ran import catalogue, records, verify
from edge_ran.bench import BenchModel, BenchReport, Plan, benchmark
from edge_ran.card import InputSpec, Overrides
from edge_ran.catalogue import DeviceSpec
from edge_ran.cli import app
from edge_ran.errors import EnvironmentMissing, GateError, InputError, UsageError
from edge_ran.graph import add_masks
from edge_ran.picture import read_picture
from edge_ran.pictures import some_pictures
from edge_ran.preprocess import fit_pixels
from edge_ran.runtime import RuntimeOptions, first_load
from edge_ran.runtime.agreement import Agreement
from edge_ran.targets import Order, android
from edge_ran.targets.adb_phone import Phone
from edge_ran.targets.android import SESSIONS, AndroidTarget
from edge_ran.targets.program import BINARY_VARIABLE, PhoneRuntime

QUICK = Plan(num_runs=60, warmup_runs=2, min_secs=0.1)
STAND_IN = Path(__file__).with_name("benchmark_model.py")
Answer = Callable[..., dict[str, Any]]


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """A function that makes the stand-in with a configuration of its own."""

    def make(**config: object) -> Path:
        path = tmp_path / "benchmark_model"
        path.write_text(f"#!{sys.executable}\nCONFIG = {config!r}\n{STAND_IN.read_text()}")
        return path

    return make


@pytest.fixture
def answer(phone: Device, program: Callable[..., Path], test_models: Path, monkeypatch) -> Answer:
    """A function that asks the only phone; the keywords beyond are the stand-in's."""

    def ask(
        verb: str = "benchmark", accelerator: str = "cpu", name: str = "int8", options: dict[str, Any] | None = None,
        plan: Plan = QUICK, say: Callable[[str], None] = print, fallback: bool = True, sessions: int = 2,
        overrides: Overrides | None = None, **config: object,
    ) -> dict[str, Any]:  # fmt: skip
        monkeypatch.setattr(android, "SESSIONS", sessions)
        spec = DeviceSpec("my-phone", "", "gpu", "fp16", target="adb:", benchmark_binary=str(program(**config)))
        runtime = RuntimeOptions(accelerator, fallback=fallback)
        with AndroidTarget(spec, say) as target:
            models = (test_models / f"{name}.tflite",)
            return target.answer(Order(verb, models, options or {}, runtime, plan, overrides=overrides or Overrides()))

    return ask


def kept(phone: Device) -> list[str]:
    """The files there whose names are not those of content."""
    return [name for name in phone.files() if len(Path(name).stem) != 64]


def test_a_benchmark_has_the_keys_of_a_local_one(phone: Device, answer: Answer, test_models: Path):
    said: list[str] = []
    there = answer(say=said.append, sessions=SESSIONS)
    here = benchmark([BenchModel(test_models / "int8.tflite")], Plan(num_runs=3, min_secs=0)).document()
    for report in (there, here):
        jsonschema.validate(json.loads(json.dumps(report)), records.schema(BenchReport))
    assert {k: there["model"][k] for k in ("sha256", "precision", "multiply_adds", "input")} == {
        k: here["model"][k] for k in ("sha256", "precision", "multiply_adds", "input")
    }
    latency = there["latency"]
    assert latency["min_ms"] <= latency["p5_ms"] <= latency["median_ms"] <= latency["p95_ms"] <= latency["max_ms"]
    assert latency["num_runs"] >= 60
    assert latency["init_ms"] > 0
    assert latency["first_run_ms"] > 0
    assert (latency["p90_ms"], latency["p99_ms"], latency["outliers"]) == (None, None, None), "it does not tell them"
    assert latency["median_interval_ms"] == [
        min(there["timing"]["session_medians_ms"]), max(there["timing"]["session_medians_ms"])
    ]  # fmt: skip
    assert there["timing"]["sessions"] == SESSIONS
    assert there["environment"]["board"] == "Google Pixel 99"
    assert there["environment"]["os"].startswith("Android 15")
    assert (there["conditions"]["throttled"], there["conditions"]["temperature_c_after"]) == (False, 41.5)
    assert "the load from other processes is not known" in there["validity"]["notes"]
    assert there["accelerator"]["actual"] == "cpu"
    assert there["delegation"]["engine"] == "TfLiteXNNPackDelegate"
    assert len(said) > SESSIONS
    assert len(phone.files()) == 2, "program and model stay"
    assert kept(phone) == [], "under their hashes"


def test_two_models_take_turns(phone: Device, program: Callable[..., Path], test_models: Path):
    spec = DeviceSpec("p", "", "cpu", "fp16", target="adb:", benchmark_binary=str(program(haste=1000)))
    models = (test_models / "int8.tflite", test_models / "float32.tflite")
    with AndroidTarget(spec) as target:
        found = target.answer(Order("benchmark", models, {}, RuntimeOptions("cpu"), Plan(num_runs=6, min_secs=0)))
    assert [one["name"] for one in found["models"]] == ["int8.tflite", "float32.tflite"]
    assert found["ratios"][0]["name"] == "float32.tflite"
    assert found["ratios"][0]["low"] <= found["ratios"][0]["ratio"] <= found["ratios"][0]["high"]


def test_the_gpu_is_what_the_output_says(answer: Answer):
    found = answer(accelerator="gpu")
    assert found["accelerator"]["actual"] == "gpu"
    assert (found["accelerator"]["adapter"], found["accelerator"]["driver"]) == ("Mali-G715", "OpenCL")
    assert (found["delegation"]["delegated"], found["delegation"]["partitions"]) == (17, 1)
    assert found["timing"]["includes_output_read"] is True


def test_a_part_on_the_gpu_is_said(answer: Answer):
    found = answer(accelerator="gpu", gpu="partial")
    assert (found["delegation"]["delegated"], found["delegation"]["operators"]) == (16, 17)
    assert "SOFTMAX" in found["delegation"]["left_reason"]


def test_litert_leaves_the_outputs_on_the_gpu(answer: Answer):
    found = answer(accelerator="gpu", style="litert")
    assert found["runtime"]["name"] == "LiteRT benchmark_model"
    assert found["accelerator"]["actual"] == "gpu"
    assert found["timing"]["includes_output_read"] is False
    assert any("reading the outputs is not in" in reason for reason in found["validity"]["reasons"])


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"gpu": "unsupported"}, "GPU acceleration is unsupported on this platform"),
        ({"gpu": "none"}, "SOFTMAX: OP is supported, but"),
        ({"gpu": "fails"}, "Can not open OpenCL library"),
        ({"gpu": "crashes"}, "crashed on the phone"),
        ({"gpu": "none", "style": "litert"}, "names no GPU among what ran"),
    ],
    ids=lambda value: " ".join(value.values()) if isinstance(value, dict) else "",
)
def test_no_gpu_to_be_had(answer: Answer, config: dict[str, str], why: str):
    with pytest.raises(GateError, match=f"the GPU was asked for, but .*{why}"):
        answer(accelerator="gpu", fallback=False, **config)
    found = answer(accelerator="gpu", plan=Plan(num_runs=6, min_secs=0), haste=1000, **config)
    assert (found["accelerator"]["requested"], found["accelerator"]["actual"]) == ("gpu", "cpu")
    assert why in found["accelerator"]["fallback_reason"]
    assert any("not gpu" in reason for reason in found["validity"]["reasons"])


def test_auto_takes_no_gpu_that_is_wrong(answer: Answer):
    found = answer(accelerator="auto", wrong="SOFTMAX", plan=Plan(num_runs=6, min_secs=0), haste=1000)
    assert found["accelerator"]["actual"] == "cpu"
    assert "the GPU is wrong" in found["accelerator"]["auto_reason"]


def test_auto_takes_no_gpu_whose_answers_nobody_can_see(answer: Answer):
    found = answer(accelerator="auto", style="litert", plan=Plan(num_runs=6, min_secs=0), haste=1000)
    assert found["accelerator"]["actual"] == "cpu"
    assert "what it answers cannot be seen" in found["accelerator"]["auto_reason"]


def test_verify_holds_the_phone_against_this_machine(phone: Device, answer: Answer):
    found = answer("verify", name="int8_float_io", options={"count": 2})
    assert [(c["accelerator"], c["precision"], c["is_right"]) for c in found["checks"]] == [
        ("cpu", "", True), ("gpu", "fp16", True), ("gpu", "fp32", True)
    ]  # fmt: skip
    assert found["checks"][0]["agreement"]["pictures"] == 2
    assert found["checks"][1]["adapter"] == "Mali-G715"
    assert kept(phone) == []


def test_verify_feeds_what_the_options_say_of_the_input(answer: Answer, monkeypatch):
    fed: list[Any] = []
    feed = PhoneRuntime.answers
    monkeypatch.setattr(PhoneRuntime, "answers", lambda self, inputs, *title: fed.extend(inputs) or feed(self, inputs))
    size, same = (20, 24), (0.0, 0.0, 0.0)
    wanted = Overrides(("a", "b", "c"), mean=same, std=(1.0, 1.0, 1.0), input_size=size, color="bgr")
    found = answer("verify", name="any_size", options={"count": 1}, overrides=wanted)
    assert [c["is_right"] for c in found["checks"]] == [True, True, True]
    frame = read_picture(some_pictures(catalogue.folder("calibration_data"), 1)[0])
    assert {x.shape for x in fed} == {(1, *size, 3)}
    assert (fed[0][0] == fit_pixels(frame, InputSpec(*size, color="bgr"))).all()


def test_one_pixel_is_not_timed_in_place_of_a_picture_of_any_size(answer: Answer):
    with pytest.raises(InputError, match="of one pixel"):
        answer("benchmark", name="any_size")


def test_verify_finds_the_operator_that_the_phone_gets_wrong(phone: Device, answer: Answer, monkeypatch):
    monkeypatch.setattr(verify, "GPU_PRECISIONS", ("fp16",))
    found = answer("verify", options={"count": 1}, wrong="SOFTMAX", gpu="full")
    cpu, gpu = found["checks"]
    assert cpu["is_right"]
    assert not gpu["is_right"]
    assert [one["name"] for one in gpu["wrong_operators"]] == ["SOFTMAX"]
    assert kept(phone) == []
    assert len(phone.files()) == 2, "the slices do not stay"


def test_a_gpu_that_crashes_or_hangs_is_broken(phone: Device, answer: Answer, monkeypatch):
    found = answer("verify", options={"count": 1}, gpu="crashes")
    assert [c["is_broken"] for c in found["checks"]] == [False, True]
    with pytest.raises(GateError, match="breaks gpu"):
        verify.gate(records.read_document(verify.Verification, found, "verification"))
    shell = Phone.shell

    def impatient(self: Phone, script: str, timeout_s: float = 20, **more: Any) -> Any:
        return shell(self, script, 1 if "--use_gpu=true" in script else timeout_s, **more)

    monkeypatch.setattr(Phone, "shell", impatient)
    found = answer("verify", options={"count": 1}, gpu="hangs")
    assert "hangs on its GPU" in found["checks"][1]["reason"]
    assert found["checks"][1]["is_broken"]
    found = answer(accelerator="auto", plan=Plan(num_runs=6, min_secs=0), gpu="hangs", haste=1000)
    assert found["accelerator"]["actual"] == "cpu"
    assert "hangs on its GPU" in found["accelerator"]["auto_reason"]
    assert kept(phone) == []


def test_a_phone_whose_cpu_is_wrong_is_not_advised_to_use_it():
    check = verify.Check("cpu", "", "", "", False, Agreement(1, 0, 1, 1, 1), 1, 1)
    with pytest.raises(GateError, match="is wrong on cpu") as error:
        verify.gate(verify.Verification("m.tflite", "benchmark_model", "1", (check,)))
    assert error.value.remedy.endswith("use another version of benchmark_model there")


def test_masks_that_the_phone_gets_wrong_are_wrong(answer: Answer, test_models: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(verify, "find_wrong_operators", lambda *_, **__: ())  # of a whole network, it takes a minute
    masked = tmp_path / "masked.tflite"
    masked.write_bytes(add_masks((test_models / "attention_float32.tflite").read_bytes())[0])
    name = str(masked.with_suffix(""))
    found = answer("verify", name=name, options={"count": 1}, wrong=1)
    assert [c["is_right"] for c in found["checks"]] == [True, False, False]
    assert [c["agreement"]["allowed_error"] for c in found["checks"]] == [0.002, 0.03, 0.002], "as on this machine"
    found = answer(accelerator="auto", name=name, plan=Plan(num_runs=6, min_secs=0), wrong=1)
    assert "the GPU is wrong" in found["accelerator"]["auto_reason"]


def test_a_file_is_tried_here_before_it_is_held_against_a_phone(
    phone: Device, answer: Answer, tmp_path: Path, monkeypatch
):  # fmt: skip
    with pytest.raises(InputError, match="answers that are not finite numbers"):
        answer("verify", name="overflowing", options={"count": 1})
    found = answer(accelerator="auto", name="overflowing", plan=Plan(num_runs=6, min_secs=0), haste=1000)
    assert "not finite numbers" in found["accelerator"]["auto_reason"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(first_load, "_fork", lambda graph, package: None)  # which is for processes without TensorFlow
    monkeypatch.setattr(first_load, "_spawn", lambda graph, package: "crashed (SIGSEGV)")
    sent = len(phone.sent)
    with pytest.raises(InputError, match=r"crashed \(SIGSEGV\)"):
        answer("verify", options={"count": 1})
    assert len(phone.sent) == sent


def test_the_cpus_answer_is_not_taken_for_the_gpus(answer: Answer):
    with pytest.raises(EnvironmentMissing, match="wrote 0 bytes of outputs instead of 3"):
        answer("verify", options={"count": 1}, mute=True)


def test_verify_with_a_program_that_takes_no_files(answer: Answer):
    with pytest.raises(EnvironmentMissing, match="does not know --input_layer_value_files and --output_filepath"):
        answer("verify", options={"count": 1}, style="litert")
    with pytest.raises(EnvironmentMissing, match="does not know --output_filepath"):
        answer("verify", options={"count": 1}, unknown=("output_filepath",))


def test_verify_without_a_gpu_there(answer: Answer):
    found = answer("verify", options={"count": 1}, gpu="fails")
    assert [c["agreement"] is None for c in found["checks"]] == [False, True]
    assert "OpenCL" in found["checks"][1]["reason"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"crash": 11}, r"benchmark_model crashed on the phone \(status 139\)"),
        ({"crash": 9}, r"was killed on the phone \(status 137\)"),
        ({"crash": 4}, "needs instructions that this processor lacks"),
        ({"old": True}, "is too old: it tells no median"),
    ],
)
def test_a_program_that_fails_there(phone: Device, answer: Answer, config: dict[str, Any], words: str):
    with pytest.raises(EnvironmentMissing, match=words):
        answer(**config)
    assert kept(phone) == []


def test_a_program_that_cannot_be_started(phone: Device, tmp_path: Path, test_models: Path):
    order = Order("benchmark", (test_models / "int8.tflite",), {}, RuntimeOptions("cpu"), QUICK)
    path = tmp_path / "benchmark_model"

    def ask(content: bytes) -> str:
        path.write_bytes(content)
        spec = DeviceSpec("p", "", "cpu", "fp16", target="adb:", benchmark_binary=str(path))
        with AndroidTarget(spec) as target, pytest.raises(EnvironmentMissing) as error:
            target.answer(order)
        assert "https://" in error.value.remedy
        return str(error.value)

    def elf(machine: int, loader: bytes) -> bytes:
        return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine) + bytes(100) + loader + bytes(1000)

    assert "is for x86_64, this phone runs arm64-v8a, armeabi-v7a" in ask(elf(62, b"/system/bin/linker64"))
    assert "is for Linux, not for Android" in ask(elf(183, b"/lib/ld-linux-aarch64.so.1"))
    assert "is for another processor" in ask(elf(8, b""))
    assert phone.sent == []
    # An ELF of the right kind, but this machine is no phone; and a script whose interpreter is not there.
    assert "cannot be started on the phone" in ask(elf(183, b"/system/bin/linker64"))
    assert "cannot be started on the phone" in ask(b"#!/no/such/interpreter\n")
    assert kept(phone) == []


def test_pulled_out_while_measuring(phone: Device, answer: Answer):
    def say(text: str) -> None:
        if text.startswith("session 2"):
            threading.Timer(0.2, phone.unplug).start()

    begun = time.monotonic()
    with pytest.raises(EnvironmentMissing, match="went away"):
        answer(say=say, plan=Plan(num_runs=60, min_secs=60, max_secs=100), haste=10)
    assert time.monotonic() - begun < 20
    while kept(phone) and time.monotonic() - begun < 20:
        time.sleep(0.05)
    assert kept(phone) == []


def test_the_program_is_named_by_the_device_or_the_environment(
    phone: Device, program: Callable[..., Path], test_models: Path, monkeypatch
):  # fmt: skip
    order = Order("benchmark", (test_models / "int8.tflite",), {}, RuntimeOptions("cpu"), Plan(num_runs=6, min_secs=0))
    spec = DeviceSpec("p", "", "cpu", "fp16", target="adb:")
    with pytest.raises(EnvironmentMissing, match="none is named") as error:
        AndroidTarget(spec).answer(order)
    assert BINARY_VARIABLE in error.value.remedy
    assert "benchmark_binary" in error.value.remedy
    monkeypatch.setenv(BINARY_VARIABLE, str(program(haste=1000)))
    with AndroidTarget(spec) as target:
        assert target.answer(order)["latency"]["num_runs"] >= 6
    for nowhere in ("/no/such/file", "~nobody-of-this-name/file"):
        monkeypatch.setenv(BINARY_VARIABLE, nowhere)
        with pytest.raises(EnvironmentMissing, match=f"there is no benchmark_model at {nowhere}"):
            AndroidTarget(spec).answer(order)


def test_only_a_program_is_sent_as_one(phone: Device, test_models: Path, tmp_path: Path):
    """A device's TOML is a file that others write, and names what is sent: never a key or a picture of this machine."""
    secret = tmp_path / "id_ed25519"
    secret.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    spec = DeviceSpec("p", "", "cpu", "fp16", target="adb:", benchmark_binary=str(secret))
    with pytest.raises(EnvironmentMissing, match="is not a program"), AndroidTarget(spec) as target:
        target.answer(Order("benchmark", (test_models / "int8.tflite",), {}, RuntimeOptions("cpu"), Plan(num_runs=6)))
    assert not any(b"PRIVATE KEY" in f.read_bytes() for f in phone.root.rglob("*") if f.is_file())


def test_libraries_beside_the_program_go_along(phone: Device, program: Callable[..., Path], test_models: Path):
    path = program(haste=1000, says=("looking",))
    path.write_text(
        path.read_text().replace(
            "def main():", "def main():\n    print(sorted(os.listdir(os.environ['LD_LIBRARY_PATH'])))"
        )
    )
    (path.parent / "libLiteRtClGlAccelerator.so").write_bytes(b"\x7fELF")
    spec = DeviceSpec("p", "", "cpu", "fp16", target="adb:", benchmark_binary=str(path))
    with AndroidTarget(spec) as target:
        there = target._program()
        from edge_ran.targets.benchmark_model import Request

        done, _ = there.run(Request(num_runs=1), there.send(test_models / "int8.tflite"))
    assert "['libLiteRtClGlAccelerator.so']" in done.lines
    assert kept(phone) == []


def test_what_a_phone_cannot_do(answer: Answer, tmp_path: Path):
    with pytest.raises(UsageError, match="cannot run: there is no Python there"):
        answer("run")
    for verb in ("profile", "sweep", "sustain"):
        with pytest.raises(UsageError, match=f"cannot {verb}: there is no Python there"):
            answer(verb)
    for option, value in {"images": tmp_path, "mean": "0", "labels": tmp_path / "labels.txt"}.items():
        with pytest.raises(UsageError, match=f"--{option} is not possible on a phone"):
            answer(options={option: value})
    with pytest.raises(UsageError, match="--mlperf is for the p90"):
        answer(options={"mlperf": True})
    with pytest.raises(UsageError, match="--network is not possible on a phone"):
        answer("verify", options={"network": tmp_path})


def test_probe(phone: Device, program: Callable[..., Path]):
    spec = DeviceSpec("p", "", "cpu", "fp16", target=f"adb:{phone.serial}", benchmark_binary=str(program()))
    found = AndroidTarget(spec).probe(5)
    assert found.answers
    assert not found.reason
    assert (found.system.split(", ")[:2], found.architecture) == (["Google Pixel 99", "Android 15"], "arm64-v8a")
    assert found.runtime.startswith("benchmark_model")
    without = AndroidTarget(DeviceSpec("p", "", "cpu", "fp16", target="adb:")).probe(5)
    assert without.answers
    assert "none is named" in without.reason
    phone.unplug()
    gone = AndroidTarget(DeviceSpec("p", "", "cpu", "fp16", target="adb:1234")).probe(5)
    assert not gone.answers
    assert "no phone 1234" in gone.reason
    assert gone.remedy


def test_several_phones_are_listed(phones: Callable[..., Device]):
    first = phones()
    assert android.connected() == [], "one goes by adb:"
    second = phones(trusted=False)
    found = {spec.name: spec for spec in android.connected()}
    assert found.keys() == {f"adb:{first.serial}", f"adb:{second.serial}"}
    answers = {name: AndroidTarget(spec).probe(5) for name, spec in found.items()}
    assert answers[f"adb:{first.serial}"].answers
    assert "does not trust this computer" in answers[f"adb:{second.serial}"].reason


def test_a_gpu_that_is_lost_on_the_way_is_not_mixed_with_the_cpu(answer: Answer, phone: Device):
    def say(text: str) -> None:
        if text.startswith("session 2"):  # from now on the program fails
            there = next(path for path in phone.folder.rglob("*") if path.is_file() and not path.suffix)
            there.write_text(there.read_text().replace("'gpu': 'full'", "'gpu': 'fails'"))

    with pytest.raises(EnvironmentMissing, match="the GPU served 1 sessions, then TfLiteGpuDelegate Init"):
        answer(accelerator="gpu", gpu="full", say=say)


def test_clean(phone: Device, answer: Answer, program: Callable[..., Path]):
    answer(plan=Plan(num_runs=6, min_secs=0), haste=1000)
    there = sum(size for _, size in phone.sent)
    with AndroidTarget(DeviceSpec("p", "", "cpu", "fp16", target="adb:")) as target:
        assert target.clean() == there > 0
        assert target.clean() == 0
    assert phone.files() == []


def test_the_command_line(phone: Device, program: Callable[..., Path], test_models: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(android, "SESSIONS", 2)
    device = tmp_path / "my-phone.toml"
    words = (
        f'summary = "mine"\naccelerator = "gpu"\nconverter = "fp16"\ntarget = "adb:"\nbenchmark_binary = "{program()}"'
    )
    device.write_text(words)
    model, page, table = test_models / "int8.tflite", tmp_path / "page.html", tmp_path / "table.csv"

    def run(verb: str, *options: object) -> Any:
        return CliRunner().invoke(app, [verb, *map(str, options)])

    done = run("benchmark", model, "-d", device, "--num-runs", 6, "--min-secs", 0, "--html", page, "--csv", table)
    assert done.exit_code == 0, done.exception
    assert "on        gpu (Mali-G715), TFLite benchmark_model" in done.stdout
    assert "machine   Google Pixel 99" in done.stdout
    assert "session 2, of 2 at least" in done.stderr
    assert "Google Pixel 99" in page.read_text()
    assert "my-phone" in table.read_text()
    done = run("verify", model, "-d", device, "--count", 1, "--json")
    assert done.exit_code == 0, done.exception
    assert [c["accelerator"] for c in json.loads(done.stdout)["checks"]] == ["cpu", "gpu", "gpu"]
    assert "answers  Google Pixel 99, Android 15" in run("devices", device).stdout
    for options, error in (
        (("run", model, "-d", device), "there is no Python there"),
        (("benchmark", model, "-d", device, "--plot", tmp_path / "x.png"), "which phones do not report"),
        (("benchmark", model, "-d", device, "--install"), "a phone needs no Python"),
    ):
        assert error in str(run(*options).exception)
    assert len(phone.files()) == 2
    assert run("devices", device, "--clean").exit_code == 0
    assert phone.files() == []


def test_interrupted_it_leaves_nothing_there(
    phone: Device, program: Callable[..., Path], test_models: Path, tmp_path: Path
):
    words = ["benchmark", str(test_models / "int8.tflite"), "-d", "adb:", "--cpu", "--min-secs", "100"]
    with subprocess.Popen(
        [sys.executable, "-m", "edge_ran", *words],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ, BINARY_VARIABLE: str(program(haste=1))},
        # A CI may run its jobs with SIGINT ignored, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as running:  # fmt: skip
        assert running.stderr is not None
        while not running.stderr.readline().startswith("session 1"):
            assert running.poll() is None
        time.sleep(1)
        assert list(phone.folder.glob("edge-ran/run-*"))
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=30)
    assert running.returncode == 130
    assert not list(phone.folder.glob("edge-ran/run-*"))


def test_an_error_of_a_phone_is_two_lines_and_a_code(tmp_path: Path, phone: Device, test_models: Path):
    model = str(test_models / "int8.tflite")
    done = subprocess.run(
        [sys.executable, "-m", "edge_ran", "benchmark", model, "-d", "adb:nobody"],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, BINARY_VARIABLE: "/bin/sh"},
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stdout == ""
    assert (
        done.stderr.splitlines()[0] == f"edge-ran: no phone nobody is connected, but there is {phone.serial} (Pixel 99)"
    )
    assert len(done.stderr.splitlines()) == 2
