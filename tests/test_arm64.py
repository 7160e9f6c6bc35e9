"""The device install on an emulated arm64 board: its wheels, its commands, and the answers of the shipped network.

EDGE_RAN_ARM64=FOLDER keeps the board's user space (100 MB) for the next time.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sshd import Sshd

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "edge_ran" / "shipped" / "edge50" / "int8.tflite"
PICTURES = ROOT / "calibration_data"
SHOWN = {"chelsea": "cat", "rocket": "airplane"}  # the pictures of something that the network knows

# Pixels, network input and output of every second picture with XNNPACK, of every tenth of these with TFLite's reference
# kernels.
RAW = """
import sys, cv2, numpy
from pathlib import Path
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from edge_ran.classifier import Classifier
model, pictures, out = sys.argv[1:]
found = {"frame": [], "input": [], "output": [], "reference": []}
plain = Interpreter(model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
plain.allocate_tensors()
with Classifier(model) as classifier:
    for number, path in enumerate(sorted(Path(pictures).glob("*.jpg"))[::2]):
        frame = cv2.imread(str(path))
        x = classifier.prepare(frame)
        found["frame"].append(frame)
        found["input"].append(x.copy())
        found["output"].append(classifier.runtime.run(x)[0].copy())
        if number % 10 == 0:
            plain.set_tensor(plain.get_input_details()[0]["index"], x)
            plain.invoke()
            found["reference"].append(plain.get_tensor(plain.get_output_details()[0]["index"]))
numpy.savez(out, **{name: numpy.stack(values) for name, values in found.items()})
"""


class Machine:
    """A Python with edge-ran: the emulated board's, or this one's."""

    def __init__(self, python: Path | str, folder: Path):
        self.python, self.folder = str(python), folder

    def run(self, *words: object, **environment: str) -> str:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        command, environment = [self.python, *map(str, words)], {**kept, **environment}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{words}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def edge_ran(self, *words: object) -> str:
        return self.run("-m", "edge_ran", *words)


@pytest.fixture(scope="module")
def board(tmp_path_factory, device_wheel: Path, pip_install: Callable[..., None]) -> Machine:
    if not shutil.which("mmdebstrap"):
        pytest.skip("no emulated board without mmdebstrap (Debian: apt install mmdebstrap)")
    kept = os.environ.get("EDGE_RAN_ARM64")
    folder = tmp_path_factory.mktemp("arm64")
    words = [ROOT / "scripts" / "arm64", kept or folder, folder / "device"]
    made = subprocess.run(words, capture_output=True, text=True, timeout=300)
    if made.returncode == 3:
        pytest.skip(" ".join(made.stderr.split("\n")[:1]))
    assert made.returncode == 0, made.stderr
    python = folder / "device" / "bin" / "python"
    # As a user types it, at the versions that this machine has: the answers of other ones may differ.
    pip_install([python, "-m", "pip"], "--constraint", ROOT / "constraints.txt", device_wheel)
    return Machine(python, tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Machine:
    pytest.importorskip("ai_edge_litert")
    return Machine(sys.executable, tmp_path_factory.mktemp("here"))


def test_it_is_installed_whole(board: Machine):
    script = Path(board.python).with_name("edge-ran")
    version = subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("edge-ran ")
    found = json.loads(board.edge_ran("doctor", "--json"))
    assert found["is_healthy"]
    what = {finding["name"]: finding["what"] for finding in found["findings"]}
    assert "on aarch64 (emulated on " in what["python"]
    assert "litert" in what["runtime"]
    assert "not installed" in what["host"]


def test_inspect_says_the_same(board: Machine, here: Machine):
    there = json.loads(board.edge_ran("inspect", MODEL, "--json"))
    assert there["operators"]["CONV_2D"] > 10
    assert there == json.loads(here.edge_ran("inspect", MODEL, "--json"))


@pytest.mark.parametrize("processor", ["cortex-a53", "cortex-a76"])  # without and with dot-product instructions
def test_answers_are_those_of_this_machine(board: Machine, here: Machine, processor: str):
    """Everything before the network is equal to the bit, and the network with the reference kernels; XNNPACK's
    kernels for arm64 and for x86 round a few values the other way."""
    board.run("-c", RAW, MODEL, PICTURES, "raw.npz", QEMU_CPU=processor)
    here.run("-c", RAW, MODEL, PICTURES, "raw.npz")
    theirs, ours = (np.load(machine.folder / "raw.npz") for machine in (board, here))
    assert len(ours["output"]) == 60
    assert len(np.unique(ours["output"].argmax(axis=-1))) > 3
    for name in ("frame", "input", "reference"):
        np.testing.assert_array_equal(theirs[name], ours[name])
    steps = np.abs(theirs["output"].astype(int) - ours["output"]).max(axis=(1, 2))
    assert steps.max() <= 1
    assert (steps == 0).mean() >= 0.95


def test_run_gives_the_same_labels(board: Machine, here: Machine, tmp_path: Path):
    for path in sorted(PICTURES.glob("*.jpg"))[::3]:
        (tmp_path / path.name).symlink_to(path)
    words = ("run", MODEL, "--camera", tmp_path, "--no-realtime", "--top-k", 10, "--json", "--quiet")

    def answers(machine: Machine) -> dict[str, dict[str, float]]:
        lines = [json.loads(line) for line in machine.edge_ran(*words).splitlines()]
        return {line["picture"]: {p["label"]: p["score"] for p in line["predictions"]} for line in lines}

    theirs, ours = answers(board), answers(here)
    assert list(theirs) == list(ours)
    assert len(ours) == 40
    for picture, scores in ours.items():
        assert max(theirs[picture], key=theirs[picture].__getitem__) == max(scores, key=scores.__getitem__)
        assert theirs[picture] == pytest.approx(scores, abs=0.005)  # one step before the temperature


def test_evaluate_counts_the_same(board: Machine, here: Machine, tmp_path: Path):
    with open(tmp_path / "labelled.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label"])
        for path in sorted(PICTURES.glob("*.jpg")):
            if label := SHOWN.get(path.name.partition("-")[0]):
                rows.writerow([path, label])

    def evaluated(machine: Machine) -> dict[str, Any]:
        return json.loads(machine.edge_ran("evaluate", MODEL, tmp_path / "labelled.csv", "--json", "--quiet"))

    theirs, ours = evaluated(board), evaluated(here)
    assert ours["images"] == 32
    assert ours["top1"] > 0.5
    for name in ("images", "top1", "top1_interval", "per_class", "confusion"):
        assert theirs[name] == ours[name]
    assert theirs["calibration_error"] == pytest.approx(ours["calibration_error"], abs=1e-3)


def test_verify_finds_no_accelerator_that_is_not_there(board: Machine):
    (check,) = json.loads(board.edge_ran("verify", MODEL, "--json", "--quiet"))["checks"]
    assert (check["accelerator"], check["is_right"]) == ("gpu", False)
    assert "Vulkan" in check["reason"]


def test_it_is_a_device_behind_ssh(board: Machine, tmp_path: Path, tmp_path_factory):
    """The whole way: this machine's command line, a real ssh, the board's benchmark as the answer; and emulated times
    are not called reliable."""
    if not Path("/usr/sbin/sshd").exists():
        pytest.skip("no sshd; Debian: apt install openssh-server")
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    spec = {"summary": "emulated", "accelerator": "cpu", "converter": "int8", "python": board.python}
    spec["target"] = f"ssh://127.0.0.1:{server.port}"
    (tmp_path / "board.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in spec.items()))
    model = ROOT / "tests" / "models" / "int8.tflite"  # a small one, for its graph is read by an emulated Python
    words = ["benchmark", model, "--device", tmp_path / "board.toml", "--json", "--num-runs", "40"]
    words += ["--min-secs", "0.1", "--warmup-runs", "1"]
    environment = {**os.environ, "EDGE_RAN_SSH_CONFIG": str(server.config)}
    try:
        command = [sys.executable, "-m", "edge_ran", *map(str, words)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    finally:
        server.close()
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["environment"]["architecture"] == "aarch64"
    assert len(report["samples_ms"]) >= 40
    assert not report["validity"]["reliable"]
    assert any("aarch64 is emulated on" in reason for reason in report["validity"]["reasons"])
