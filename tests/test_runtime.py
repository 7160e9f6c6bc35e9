import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edge_ran.errors import EnvironmentMissing, InputError, UsageError
from edge_ran.python_command import pip
from edge_ran.runtime import Runtime, RuntimeOptions, interpreter, open_runtime
from edge_ran.runtime.output_capture import captured

MODELS = Path(__file__).parent / "models"
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", ["float32", "int8", "uint8", "int8_float_io"])
def test_runs_every_precision_on_the_cpu(name):
    with open_runtime(MODELS / f"{name}.tflite") as runtime:
        assert isinstance(runtime, Runtime)
        assert runtime.accelerator.requested == runtime.accelerator.actual == "cpu"
        assert not runtime.accelerator.is_software
        dtype = np.dtype(runtime.input.dtype)
        assert dtype == {"int8": np.int8, "uint8": np.uint8}.get(name, np.float32)
        dark, bright = {"int8": (-64, 64), "uint8": (64, 192)}.get(name, (-0.5, 0.5))
        for brighter in range(3):
            x = np.full(runtime.input.shape, dark, dtype)
            x[..., brighter] = bright
            first, second = runtime.run(x), runtime.run(x)
            assert [output.shape for output in first] == [(1, 3)]
            assert first[0].argmax() == brighter
            assert np.array_equal(first[0], second[0])
            assert not np.shares_memory(first[0], second[0])  # the caller's, not the interpreter's buffer


def test_threads_are_those_asked_for():
    assert open_runtime(MODELS / "float32.tflite", threads=1).threads == 1
    assert open_runtime(MODELS / "float32.tflite").threads == len(os.sched_getaffinity(0))


def test_xnnpack_takes_the_float_graph_whole():
    delegation = open_runtime(MODELS / "float32.tflite").delegation
    assert delegation.engine == "XNNPACK"
    assert delegation.operators == delegation.delegated + 1  # the 1x1 max-pooling stays outside
    assert delegation.partitions == 2


def test_two_inputs_are_given_in_order():
    with open_runtime(MODELS / "two_inputs.tflite") as runtime:
        a, b = np.arange(4, dtype=np.float32)[None], np.full((1, 4), 10, np.float32)
        assert np.array_equal(runtime.run(a, b)[0], a + b)
        with pytest.raises(ValueError, match="argument"):
            runtime.run(a)


@pytest.mark.parametrize("kind", ["empty", "random", "truncated", "missing", "folder", "text"])
def test_what_is_no_model_is_one_line(kind, tmp_path):
    whole = (MODELS / "float32.tflite").read_bytes()
    path = tmp_path / "m.tflite"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        contents = {
            "empty": b"",
            "random": RNG.bytes(5000),
            "truncated": whole[: len(whole) // 2],
            "text": b"TFL3" * 100,
        }
        path.write_bytes(contents[kind])
    with pytest.raises(InputError) as caught:
        open_runtime(path)
    assert "\n" not in str(caught.value)


def test_no_truncation_and_no_flipped_byte_crashes_the_process(tmp_path):
    # In a child, because what this guards against is a segmentation fault in native code.
    code = f"""
import numpy as np
from pathlib import Path
from edge_ran.errors import EdgeRanError
from edge_ran.runtime import open_runtime
whole = Path({str(MODELS / "int8.tflite")!r}).read_bytes()
rng, path, refused = np.random.default_rng(0), Path({str(tmp_path)!r}) / "m.tflite", 0
for turn in range(120):
    data = bytearray(whole)
    if turn % 2:
        data = data[: rng.integers(1, len(data))]
    else:
        for place in rng.integers(0, len(data), 20):
            data[place] = rng.integers(256)
    path.write_bytes(data)
    try:
        with open_runtime(path, threads=1) as runtime:
            runtime.run(np.zeros(runtime.input.shape, runtime.input.dtype))
    except EdgeRanError:
        refused += 1
print("refused", refused)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) >= 60  # every truncated one at least


def test_memory_stays_flat_over_many_runtimes_and_runs():
    def resident_kib() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4

    def cycle(times: int) -> None:
        for _ in range(times):
            with open_runtime(MODELS / "int8.tflite", threads=1) as runtime:
                runtime.run(np.zeros(runtime.input.shape, runtime.input.dtype))

    cycle(50)
    before = resident_kib()
    cycle(300)
    with open_runtime(MODELS / "int8.tflite", threads=1) as runtime:
        x = np.zeros(runtime.input.shape, runtime.input.dtype)
        for _ in range(5000):
            runtime.run(x)
    assert resident_kib() - before < 8 * 1024


def test_creation_is_silent_and_its_words_are_kept():
    code = f"""
from edge_ran.runtime import open_runtime
runtime = open_runtime({str(MODELS / "float32.tflite")!r}, verbose={{}})
print(len(runtime.chatter) > 0)
"""
    quiet = subprocess.run([sys.executable, "-c", code.format(False)], capture_output=True, text=True, check=True)
    assert quiet.stderr == ""
    loud = subprocess.run([sys.executable, "-c", code.format(True)], capture_output=True, text=True, check=True)
    assert loud.stdout == quiet.stdout == "True\n"
    assert "XNNPACK" in loud.stderr


def test_captured_takes_both_streams_and_gives_them_back(capfd):
    with captured() as said:
        os.write(1, b"out ")
        os.write(2, b"err ")
        subprocess.run(["sh", "-c", "echo child"], check=True)
    os.write(1, b"after")
    assert said.text == "out err child\n"
    assert capfd.readouterr() == ("after", "")
    with captured(show=True):
        os.write(1, b"shown")
    assert capfd.readouterr() == ("", "shown")


def test_captured_gives_them_back_after_an_error(capfd):
    def fail() -> None:
        with captured() as said:
            os.write(2, b"reason")
            try:
                raise RuntimeError
            finally:
                kept.append(said)

    kept: list = []
    with pytest.raises(RuntimeError):
        fail()
    assert kept[0].text == "reason"
    os.write(1, b"after")
    assert capfd.readouterr().out == "after"


def test_threads_that_capture_at_once_give_both_streams_back(capfd):
    begun = threading.Event()

    def talk(seconds: float) -> None:
        with captured() as said:
            begun.set()
            os.write(1, str(seconds).encode())
            time.sleep(seconds)
        assert said.text == str(seconds)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(talk, 0.2)
        begun.wait()
        second = threads.submit(talk, 0.4)
        first.result()
        second.result()
    os.write(1, b"after")
    assert capfd.readouterr().out == "after"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork of a process with threads
def test_a_fork_captures_while_another_thread_does():
    begun, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with captured():
            begun.set()
            is_over.wait(30)

    with ThreadPoolExecutor(1) as threads:
        threads.submit(hold)
        begun.wait()
        child = os.fork()
        if not child:
            signal.alarm(10)
            with captured():
                os._exit(0)
        _, status = os.waitpid(child, 0)
        is_over.set()
    assert status == 0


@pytest.mark.parametrize(
    "words",
    [
        {"accelerator": "gpuu"},
        {"gpu_precision": "fp8"},
        {"threads": -1},
        {"runtime": "onnx"},
        {"delegate_options": (("a", "b"),)},
    ],
)
def test_options_that_mean_nothing_are_refused(words):
    with pytest.raises(UsageError):
        RuntimeOptions(**words)


def test_no_runtime_installed_says_what_to_type(monkeypatch):
    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentMissing, match="no TFLite runtime") as caught:
        open_runtime(MODELS / "float32.tflite")
    assert "pip install" in caught.value.remedy


def test_a_runtime_by_name(monkeypatch):
    installed = [interpreter.Package("litert", "x", "1"), interpreter.Package("tflite-runtime", "y", "2")]
    monkeypatch.setattr(interpreter, "installed", lambda: installed)
    assert interpreter.package().name == "litert"
    assert interpreter.package("tflite-runtime").name == "tflite-runtime"
    monkeypatch.setattr(interpreter, "installed", lambda: installed[:1])
    with pytest.raises(EnvironmentMissing, match="tflite-runtime is not installed"):
        interpreter.package("tflite-runtime")


def test_tflite_runtime_beside_numpy_2_is_one_line(monkeypatch):
    monkeypatch.setattr(np, "__version__", "2.4.0")
    with pytest.raises(EnvironmentMissing, match="needs NumPy below 2"):
        interpreter.load(interpreter.Package("tflite-runtime", "tflite_runtime.interpreter", "2.14.0"))


@pytest.mark.parametrize(
    ("why", "remedy"),
    [
        ("numpy.core.multiarray failed to import", pip("install --force-reinstall ai-edge-litert numpy")),
        ("libGL.so.1: cannot open shared object file: No such file or directory", "sudo apt install libgl1"),
        ("libx.so.1: cannot open shared object file: No such file", "install the system's package of libx.so.1"),
    ],
)
def test_a_broken_wheel_is_one_line(why, remedy, tmp_path, monkeypatch):
    (tmp_path / "broken_wheel.py").write_text(f"raise ImportError({why!r})")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentMissing, match="cannot be imported") as caught:
        interpreter.load(interpreter.Package("litert", "broken_wheel", "1"))
    assert why[:30] in str(caught.value)
    assert caught.value.remedy.startswith(remedy)
