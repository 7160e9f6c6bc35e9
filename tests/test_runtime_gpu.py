"""The GPU, through SwiftShader: Debian's chromium package carries this Vulkan driver made of CPU threads.

What these tests hold is that the words and the times are true; how fast a GPU is they cannot tell.
"""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from models import colours

from edge_ran import machine, vulkan
from edge_ran.card import Overrides
from edge_ran.classifier import Classifier
from edge_ran.errors import AcceleratorError, EnvironmentMissing, GateError, UsageError
from edge_ran.graph import add_masks, read_graph
from edge_ran.runtime import (
    Accelerator,
    RuntimeOptions,
    auto,
    child_process,
    gpu,
    interpreter,
    open_runtime,
    trial,
    trial_cache,
)
from edge_ran.runtime.agreement import Agreement, compare, compare_all
from edge_ran.runtime.output_capture import captured
from edge_ran.runtime.trial import Trial

pytestmark = pytest.mark.prompt

MODELS = Path(__file__).parent / "models"
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


def inputs(model: str, count: int = 12) -> list[np.ndarray]:
    """Pictures with another colour in each quarter: a kernel that looks at the wrong place gives itself away."""
    tensor = read_graph(MODELS / f"{model}.tflite").inputs[0]
    found = []
    for turn in range(count):
        frame = np.concatenate(
            [
                np.concatenate([colours.frame(colours.LABELS[(turn + k * (1 + turn // 3)) % 3], 8, 8) for k in pair], 1)
                for pair in ((0, 1), (1, 1))
            ]
        )
        pixels = frame[None, :, :, ::-1].astype(np.float32)
        offset, scale = {"int8": (128, 1), "uint8": (0, 1), "float32": (128, 128)}[tensor.dtype]
        found.append(((pixels - offset) / scale).astype(tensor.dtype))
    return found


@pytest.fixture
def software_gpu(monkeypatch, tmp_path):
    if not SWIFTSHADER.is_file():
        pytest.skip(f"no software GPU: {SWIFTSHADER} is absent (apt install chromium chromium-common libvulkan1)")
    if interpreter.package().name != "litert":
        pytest.skip("no LiteRT")
    monkeypatch.setenv("VK_DRIVER_FILES", str(SWIFTSHADER))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if not vulkan.adapters()[0]:
        pytest.skip(f"no software GPU: {vulkan.adapters()[1]}")


@pytest.fixture
def no_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path / "none.json"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("software_gpu")
class TestSoftwareGpu:
    @pytest.mark.parametrize("model", ["float32", "int8", "int8_float_io"])
    @pytest.mark.parametrize("precision", ["fp16", "fp32"])
    def test_the_gpu_serves_is_named_and_agrees(self, model, precision, capfd):
        path = MODELS / f"{model}.tflite"
        with open_runtime(path, accelerator="gpu", gpu_precision=precision) as runtime, open_runtime(path) as cpu:
            got = runtime.accelerator
            assert (got.requested, got.actual, got.is_software) == ("gpu", "gpu", True)
            assert "SwiftShader" in got.adapter
            assert "SwiftShader" in got.driver
            assert got.fallback_reason == got.warning == ""
            assert got.precision == "fp32"  # SwiftShader has no half precision, whatever is asked for
            assert runtime.delegation.delegated == runtime.delegation.operators == len(read_graph(path).operators)
            pictures = inputs(model)
            answers = [runtime.run(x)[0] for x in pictures]
            agreement = compare([cpu.run(x)[0] for x in pictures], answers, cpu.outputs[0])
        assert agreement.is_right
        assert agreement.relative_error < 0.02
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("model", ["attention_float32", "attention"])
    def test_masks_as_outputs_agree(self, model, tmp_path):
        path = tmp_path / "m.tflite"
        path.write_bytes(add_masks((MODELS / f"{model}.tflite").read_bytes())[0])
        pictures = inputs(model)
        with open_runtime(path, accelerator="gpu") as runtime, open_runtime(path) as cpu:
            assert runtime.accelerator.actual == "gpu"
            reference, answers = [cpu.run(x) for x in pictures], [runtime.run(x) for x in pictures]
            agreement = compare_all(reference, answers, cpu.outputs)
            assert agreement.is_right
            assert (agreement.masks_difference < 1e-3) == (model == "attention_float32")
            # A mask that is wrong is told although the scores agree.
            for output in answers:
                output[2] = np.flip(output[2], 2)
            assert not compare_all(reference, answers, cpu.outputs).is_right

    def test_nothing_is_said_even_when_the_process_ends(self):
        code = f"""
import numpy as np
from edge_ran.runtime import open_runtime
runtime = open_runtime({str(MODELS / "float32.tflite")!r}, accelerator="gpu")
runtime.run(np.zeros((1, 16, 16, 3), np.float32))
print(runtime.accelerator.actual)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("gpu\n", "")

    def test_the_time_of_a_run_holds_all_of_its_work(self):
        # Queued work would be waited for by whoever reads next: ten timed runs are then shorter than the wall clock's.
        with open_runtime(MODELS / "float32.tflite", accelerator="gpu") as runtime:
            x = inputs("float32")[0]
            runtime.run(x)
            start = time.perf_counter()
            spent = 0.0
            for _ in range(10):
                before = time.perf_counter()
                outputs = runtime.run(x)
                spent += time.perf_counter() - before
            unread = time.perf_counter()
            outputs[0].copy()
            end = time.perf_counter()
        assert spent >= 0.9 * (end - start)
        assert end - unread < 0.1 * spent

    def test_a_strided_int8_shortcut_is_found_wrong(self):
        path = MODELS / "int8_strided.tflite"
        pictures = inputs("int8_strided")
        with open_runtime(path, accelerator="gpu") as runtime, open_runtime(path) as cpu:
            reference = [cpu.run(x)[0] for x in pictures]
            agreement = compare(reference, [runtime.run(x)[0] for x in pictures], cpu.outputs[0])
        assert not agreement.is_right

    def test_auto_never_takes_a_wrong_gpu(self, monkeypatch):
        path = MODELS / "int8_strided.tflite"
        with open_runtime(path, accelerator="auto", inputs=lambda: inputs("int8_strided")) as runtime:
            assert runtime.accelerator.actual == "cpu"
            assert "strid" in runtime.accelerator.auto_reason
        # The same by trial alone, as for a fault that nobody knows yet.
        monkeypatch.setattr(auto, "gpu_warnings", lambda graph: [])
        with open_runtime(path, accelerator="auto", inputs=lambda: inputs("int8_strided")) as runtime:
            assert runtime.accelerator.actual == "cpu"
            assert "is wrong: top-1 agrees on" in runtime.accelerator.auto_reason

    def test_auto_measures_once_and_remembers(self, monkeypatch):
        graph, options = read_graph(MODELS / "float32.tflite"), RuntimeOptions("auto")
        first = auto.settle(graph, options, lambda: inputs("float32"))
        assert first.accelerator == "cpu"  # a GPU made of CPU threads is slower
        assert "the CPU is faster" in first.reason
        assert not first.is_remembered
        monkeypatch.setattr(trial, "attempt", None)  # asking again would fail
        second = auto.settle(graph, options, list)
        assert second == dataclasses.replace(first, is_remembered=True, took_ms=0)
        assert first.took_ms > 0

        kept = list(trial_cache.folder().iterdir())
        assert len(kept) == 1
        asked = []
        monkeypatch.setattr(trial, "attempt", lambda *words: asked.append(words) or Trial("asked"))
        kept[0].write_text("{}")  # damaged
        assert auto.settle(graph, options, list).reason == "asked"
        kept[0].unlink()
        assert auto.settle(graph, options, list).reason == "asked"
        for changed in (RuntimeOptions("auto", threads=7), RuntimeOptions("auto", gpu_precision="fp32")):
            assert not auto.settle(graph, changed, list).is_remembered
        assert len(asked) == 4

    def test_a_gpu_that_was_asked_for_and_is_wrong_serves_with_a_warning(self):
        path = MODELS / "int8_strided.tflite"
        options = RuntimeOptions("gpu")
        with open_runtime(path, options, lambda: inputs("int8_strided")) as runtime:
            assert runtime.accelerator.actual == "gpu"
            assert "1x1 convolution with a stride" in runtime.accelerator.warning
            assert "top-1 agrees on" in runtime.accelerator.warning
            assert "DOUBTFUL" in str(runtime.accelerator)
        with pytest.raises(GateError, match="the GPU is wrong"):
            open_runtime(path, options, lambda: inputs("int8_strided"), fallback=False)

    def test_a_network_that_ends_the_process_of_the_gpu_is_survived(self, monkeypatch):
        path = MODELS / "self_product.tflite"
        asked = []
        real = child_process.ask
        monkeypatch.setattr(child_process, "ask", lambda *words: asked.append(words[0]) or real(*words))
        for _ in range(2):
            with open_runtime(path, accelerator="gpu") as runtime:
                assert (runtime.accelerator.requested, runtime.accelerator.actual) == ("gpu", "cpu")
                assert "ended its process with status 1: Check failed" in runtime.accelerator.fallback_reason
                assert "Check failed" in str(runtime.accelerator)
        assert sum("trial:" in one for one in asked) == 1  # a first load may ask, too
        with pytest.raises(GateError, match="Check failed"):
            open_runtime(path, accelerator="gpu", fallback=False)
        assert auto.settle(read_graph(path), RuntimeOptions(), lambda: inputs("float32")).accelerator == "cpu"

    def test_a_network_of_which_the_gpu_takes_nothing_is_not_called_the_gpus(self):
        for name in ("operators/conv.int16x8", "float32", "operators/conv.int16x8"):
            with open_runtime(MODELS / f"{name}.tflite", accelerator="gpu") as runtime:
                if name == "float32":
                    assert "SwiftShader" in runtime.accelerator.adapter  # a second load in this process, too
                else:
                    assert runtime.accelerator.actual == "cpu"
                    assert "it takes no operator of this model" in runtime.accelerator.fallback_reason

    def test_later_loads_in_a_process_are_known_to_be_on_the_gpu(self):
        package = interpreter.package()
        for name in ("float32", "int8", "float32"):
            with gpu.GpuRuntime(read_graph(MODELS / f"{name}.tflite"), package, 1, "fp32") as runtime:
                assert runtime.accelerator.is_software
                assert runtime.delegation.partitions == 1
        with pytest.raises(AcceleratorError, match="it takes no operator of this model"):
            gpu.GpuRuntime(read_graph(MODELS / "operators" / "conv.int16x8.tflite"), package, 1, "fp32")

    def test_the_classifier_says_what_serves(self):
        with Classifier(
            MODELS / "int8.tflite", RuntimeOptions("gpu"), overrides=Overrides(labels=colours.LABELS)
        ) as classifier:
            assert classifier.classify(colours.frame("green"))[0].label == "green"
            assert classifier.runtime.accelerator.actual == "gpu"

    def test_memory_stays_flat_over_many_runtimes_and_runs(self):
        def resident_kib() -> int:
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4

        def cycle(times: int, runs: int) -> None:
            for _ in range(times):
                with open_runtime(MODELS / "float32.tflite", accelerator="gpu") as runtime:
                    for _ in range(runs):
                        runtime.run(np.zeros(runtime.input.shape, np.float32))

        cycle(2, 50)
        before = resident_kib()
        cycle(4, 100)
        assert resident_kib() - before < 32 * 1024


@pytest.mark.usefixtures("no_gpu")
class TestNoGpu:
    def test_gpu_falls_back_and_says_why_or_is_a_gate(self):
        # In a process of its own: one that has had an adapter keeps it.
        code = f"""
from edge_ran.errors import GateError
from edge_ran.runtime import open_runtime
runtime = open_runtime({str(MODELS / "float32.tflite")!r}, accelerator="gpu")
print(runtime.accelerator.requested, runtime.accelerator.actual, runtime.accelerator.fallback_reason)
try:
    open_runtime({str(MODELS / "float32.tflite")!r}, accelerator="gpu", fallback=False)
except GateError as error:
    print(error.exit_code, error)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == ""
        assert done.stdout.splitlines() == [
            "gpu cpu there is no Vulkan driver (vkCreateInstance returned -9)",
            "1 gpu was asked for, but there is no Vulkan driver (vkCreateInstance returned -9)",
        ]

    def test_auto_takes_the_cpu(self):
        with open_runtime(MODELS / "float32.tflite", accelerator="auto", inputs=list) as runtime:
            assert (runtime.accelerator.requested, runtime.accelerator.actual) == ("auto", "cpu")
            assert "Vulkan" in runtime.accelerator.auto_reason


def test_no_fallback_with_auto_is_refused():
    with pytest.raises(UsageError, match="--no-fallback"):
        RuntimeOptions("auto", fallback=False)


def test_an_open_batch_is_no_matter_for_a_gpu():
    with pytest.raises(AcceleratorError, match="fixed"):
        gpu.GpuRuntime(read_graph(MODELS / "any_batch.tflite"), interpreter.package(), 1, "fp16")


def test_tflite_runtime_has_no_gpu():
    package = interpreter.Package("tflite-runtime", "x", "2.14.0")
    with pytest.raises(AcceleratorError, match="has no GPU"):
        gpu.GpuRuntime(read_graph(MODELS / "float32.tflite"), package, 1, "fp16")


@pytest.mark.parametrize(
    ("name", "kind", "software"),
    [
        ("V3D 7.1.7.0", "Integrated GPU", False),
        ("llvmpipe (LLVM 15)", "CPU / Software", True),
        ("lavapipe in disguise", "Discrete GPU", True),
    ],
)
def test_reads_the_adapter(name, kind, software):
    line = f"I0000 x] Selected adapter: {name}, arch=x, vendor=y, backend=Vulkan, adapterType={kind}"
    seen = gpu.read_chatter(f"INFO: before\n{line}\nINFO: after")
    assert (seen.adapter, seen.is_software) == (name, software)
    assert gpu.read_chatter("INFO: nothing of the kind").adapter == ""


def test_reads_why_there_is_no_gpu():
    plugin = (
        "WARNING: [compiler_plugin.cc:312] Failed to load plugin at: x with error: ERROR: [compiler_plugin.cc:259]\n"
        "└ Could not load shared library x.so: libopenvino.so: cannot open shared object file.\n"
    )
    tried = "INFO: [gpu_registry.cc:130] Attempting to load GPU accelerator(libLiteRtWebGpuAccelerator.so).\n"
    loaded = (
        "INFO: [gpu_registry.cc:138] Dynamically loaded GPU accelerator(libLiteRtWebGpuAccelerator.so) registered.\n"
    )
    assert "lacks its GPU accelerator's library" in gpu.read_chatter(tried + plugin).failure
    assert gpu.read_chatter(tried + loaded + plugin).failure == ""
    assert gpu.read_chatter(loaded + plugin + "ERROR: [b.cc:1] No room.\n").failure == "No room."
    assert gpu.read_chatter(loaded + "No adapters found").failure == "no GPU adapter was found (Vulkan)"


def test_reads_what_is_left_to_the_cpu():
    seen = gpu.read_chatter(
        "Selected adapter: A, arch=x, vendor=x, backend=Vulkan, adapterType=Integrated GPU\n"
        "ERROR: Following operations are not supported by GPU delegate:\nSTRIDED_SLICE: Slice does not shrink. \n"
        "3 operations will run on the GPU, and the remaining 2 operations will run on the CPU.\n"
    )
    assert (seen.operators_taken, seen.operators_left) == (3, 2)
    assert seen.left_reason == "STRIDED_SLICE: Slice does not shrink."


@pytest.mark.parametrize(
    ("figures", "accelerator", "words"),
    [
        ({"ms": 2, "cpu_ms": 5}, "gpu", "the GPU is faster: 2 ms, 5 ms on the CPU"),
        ({"ms": 5, "cpu_ms": 2}, "cpu", "the CPU is faster: 2 ms, 5 ms on the GPU (V3D)"),
        ({"ms": 2, "cpu_ms": 5, "error": 0.8}, "cpu", "the GPU (V3D) is wrong"),
        ({"ms": 2, "cpu_ms": 5, "difference": 0.5}, "cpu", "the GPU (V3D) is wrong"),
    ],
)
def test_the_verdict(figures, accelerator, words):
    agreement = Agreement(
        pictures=32,
        top1=1.0,
        largest_difference=figures.pop("difference", 0.01),
        relative_error=figures.pop("error", 0.01),
        answers_range=1.0,
    )
    verdict = auto.decide(tried(agreement, **figures), "fp16")
    assert verdict.accelerator == accelerator
    assert words in verdict.reason


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_answers_that_are_no_numbers_are_wrong_and_can_be_recorded(number):
    tensor = read_graph(MODELS / "float32.tflite").outputs[0]
    right, answer = np.array([[0.1, 0.8, 0.1]], np.float32), np.array([[0.1, number, 0.1]], np.float32)
    agreement = compare([right], [answer], tensor)
    assert not agreement.is_right
    assert Trial.from_record(Trial(agreement=agreement).record()).agreement == agreement


def tried(agreement: Agreement, ms: float = 2, cpu_ms: float = 5, precision: str = "fp16") -> Trial:
    accelerator = Accelerator("gpu", "gpu", "V3D", precision=precision)
    return Trial(accelerator=accelerator, agreement=agreement, ms=ms, cpu_ms=cpu_ms)


def test_half_precision_that_changes_answers_is_told_and_auto_takes_fp32(monkeypatch, tmp_path):
    # No adapter here computes in half precision: the figures are made up.
    monkeypatch.setattr(trial, "obstacle", lambda graph, options: "")
    graph, options = read_graph(MODELS / "float32.tflite"), RuntimeOptions("gpu")
    good, turned, bad = Agreement(32, 1, 0, 0, 1), Agreement(32, 30 / 32, 0.1, 0.05, 1), Agreement(32, 0.5, 0.8, 0.9, 1)

    def prove(half: Agreement, full: Agreement) -> None:
        found = {"fp16": tried(half), "fp32": tried(full, precision="fp32")}
        monkeypatch.setattr(trial, "try_accelerator", lambda graph, options, inputs: found[options.gpu_precision])

    prove(turned, good)
    assert "half precision changes answers: top-1 agrees" in auto.doubt(graph, options, tried(turned), list)[0]
    assert auto.settle(graph, options, list).gpu_precision == "fp16"
    prove(bad, good)
    assert "half precision changes answers" in auto.doubt(graph, options, tried(bad), list)[0]
    verdict = auto.settle(graph, options, list)
    assert (verdict.accelerator, verdict.gpu_precision) == ("gpu", "fp32")
    assert "fp16 is not as good: top-1 agrees on 50.0%" in verdict.reason
    prove(bad, bad)
    assert "the GPU is wrong" in auto.doubt(graph, options, tried(bad), list)[0]
    assert auto.settle(graph, options, list).accelerator == "cpu"
    prove(good, good)
    assert auto.doubt(graph, options, tried(good), list) == ("", 0.0)


def test_a_trial_that_crashes_or_hangs_leaves_the_cpu(monkeypatch, tmp_path):
    def fail(*words):
        raise child_process.ChildFailed("crashed (SIGSEGV)")

    monkeypatch.setattr(child_process, "ask", fail)
    found = trial.attempt(read_graph(MODELS / "float32.tflite"), RuntimeOptions(), inputs("float32"))
    assert found == Trial("the GPU crashed (SIGSEGV)", is_broken=True)


def test_no_space_for_the_inputs_of_a_trial_leaves_the_cpu(monkeypatch, tmp_path):
    def full(*words):
        raise OSError("768 requested and 0 written")  # as NumPy says it, without a number

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(trial, "obstacle", lambda graph, options: "")
    for name in ("save", "savez"):
        monkeypatch.setattr(np, name, full)
    graph, options = read_graph(MODELS / "float32.tflite"), RuntimeOptions("gpu")
    found = trial.try_accelerator(graph, options, lambda: inputs("float32"))
    assert found.failure.startswith("the GPU cannot be tried: cannot write ")
    with pytest.raises(EnvironmentMissing, match="0 written") as caught:
        trial.answers(graph, options, [inputs("float32", 1)])
    assert not isinstance(caught.value, AcceleratorError)  # which would be the accelerator's fault
    monkeypatch.setattr(np, "savez", lambda *words: None)
    monkeypatch.setattr(child_process, "ask", lambda *words: {"no_space": "no space", "remedy": ""})
    with pytest.raises(EnvironmentMissing, match="no space") as caught:
        trial.answers(graph, options, [inputs("float32", 1)])
    assert not isinstance(caught.value, AcceleratorError)


def test_children_that_crash_hang_or_say_nothing(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with pytest.raises(child_process.ChildFailed, match=r"crashed \(SIGABRT\)"):
        child_process.ask("os:abort", {}, 30)
    with pytest.raises(child_process.ChildFailed, match="did not finish within 1 s"):
        child_process.ask("signal:pause", {}, 1)
    with pytest.raises(child_process.ChildFailed, match="status 1: TypeError"):
        child_process.ask("os:getcwd", {"no": "such"}, 30)
    with pytest.raises(child_process.ChildFailed, match="no answer"):
        child_process.ask("os:getpid", {}, 30)
    with pytest.raises(child_process.ChildFailed, match="status 3: the reason") as caught:
        child_process.ask("test_runtime_gpu:said_and_gone", {}, 30)
    assert not caught.value.is_hung


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Popen tells that one still runs
def test_a_child_that_cannot_even_be_killed_is_not_waited_for(monkeypatch):
    left = []
    monkeypatch.setattr(child_process, "_LAST_WAIT_S", 0.1)
    monkeypatch.setattr(os, "killpg", lambda process, number: left.append(process))
    with pytest.raises(child_process.ChildFailed, match="did not finish within 1 s"):
        child_process.ask("signal:pause", {}, 1)
    monkeypatch.setattr(vulkan, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(vulkan, "_LAST_WAIT_S", 0.1)
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: left.append(process.pid))
    with pytest.raises(subprocess.TimeoutExpired):
        vulkan._run([sys.executable, "-c", "import signal; signal.pause()"])
    for process in left:
        os.kill(process, signal.SIGKILL)
    assert len(left) == 2


@pytest.mark.parametrize("is_hung", [True, False])
def test_a_failure_that_is_remembered_says_so_and_how_to_try_again(is_hung, monkeypatch, tmp_path):
    asked = []

    def fail(*words):
        asked.append(words)
        raise child_process.ChildFailed("failed", is_hung)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(trial, "obstacle", lambda graph, options: "")
    monkeypatch.setattr(child_process, "ask", fail)
    graph, options = read_graph(MODELS / "float32.tflite"), RuntimeOptions("gpu")
    assert trial.try_accelerator(graph, options, None).failure == "the GPU failed"
    again = trial.try_accelerator(graph, options, None)
    assert (len(asked), again.is_remembered) == (1, True)
    (kept,) = trial_cache.folder().glob("*.json")
    assert again.failure == f"the GPU failed (remembered; to try it again: rm {kept})"
    monkeypatch.setattr(machine, "cpu_name", lambda: "another")
    assert not trial.try_accelerator(graph, options, None).is_remembered


def said_and_gone() -> None:
    """In a child: what native code writes before it ends the process."""
    with captured():
        os.write(2, b"I0000 00:00:1795431109.018698    2792 a.cc:1] all is well\n")
        os.write(2, b"F0000 00:00:1795431109.018800    2792 a.cc:2] the reason\n")
        os._exit(3)


def test_vulkan_without_loader_or_driver(no_gpu):
    adapters, reason = vulkan.adapters()
    assert adapters == ()
    assert "Vulkan" in reason


def test_vulkan_drivers_that_crash_or_hang(monkeypatch):
    def ended(status: int, output: bytes = b""):
        vulkan.listed.cache_clear()
        return lambda *words, **more: subprocess.CompletedProcess(words, status, output, b"")

    monkeypatch.setattr(vulkan, "_run", ended(-11))
    assert vulkan.adapters() == ((), "the Vulkan driver crashed (signal 11)")
    monkeypatch.setattr(vulkan, "_run", ended(0, b"driver says hello\nnot json"))
    assert vulkan.adapters() == ((), "the Vulkan adapters cannot be listed")
    answer = {"adapters": [{"name": "A", "kind": "discrete", "driver": "d", "api": "1.3.0"}], "reason": ""}
    monkeypatch.setattr(vulkan, "_run", ended(0, b"driver says hello\n" + json.dumps(answer).encode()))
    adapters, _ = vulkan.adapters()
    assert [adapter.name for adapter in adapters] == ["A"]
    assert not adapters[0].is_software
    vulkan.listed.cache_clear()


def descendants(pid: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.usefixtures("software_gpu")
class TestCtrlC:
    """At any time it ends with 130, without a word, a child or a temporary file left."""

    def interrupt(self, words, is_time, tmp_path, monkeypatch, number=signal.SIGINT) -> int:
        temporary = tmp_path / "temporary"
        temporary.mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", str(temporary))
        command = [sys.executable, "-m", "edge_ran", *map(str, words), "--quiet"]
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # A CI may run its jobs with SIGINT ignored, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 60
        while not is_time(process.pid, temporary):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        children = descendants(process.pid)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        if number == signal.SIGINT:
            told = [] if number == signal.SIGKILL else ["edge-ran: stopped; nothing was written; to start again:"]
            assert said.splitlines()[:1] == told
            assert len(said.splitlines()) == 2 * len(told)
            assert list(temporary.iterdir()) == []
        while left := [pid for pid in children if alive(pid)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        return process.returncode

    @staticmethod
    def in_a_trial(pid, temporary):
        return bool(list(temporary.glob("*/words"))) and bool(descendants(pid))

    @staticmethod
    def on_the_gpu(pid, temporary):
        with contextlib.suppress(OSError):
            return "WebGpuAccelerator" in Path(f"/proc/{pid}/maps").read_text()
        return False

    def test_in_a_trial(self, tmp_path, monkeypatch):
        words = ("benchmark", MODELS / "float32.tflite", "--gpu")
        assert self.interrupt(words, self.in_a_trial, tmp_path, monkeypatch) == 130

    @pytest.mark.parametrize("later_s", [0.0, 0.15, 1.5])
    def test_while_it_loads_or_runs(self, later_s, tmp_path, monkeypatch):
        def is_time(pid, temporary):
            if on := self.on_the_gpu(pid, temporary):
                time.sleep(later_s)
            return on

        words = ("benchmark", MODELS / "float32.tflite", "--gpu", "--min-secs", 60)
        assert self.interrupt(words, is_time, tmp_path, monkeypatch) == 130

    def test_while_guilty_operators_are_searched(self, tmp_path, monkeypatch):
        def is_time(pid, temporary):
            return bool(list(temporary.glob("*/slice.tflite"))) and self.in_a_trial(pid, temporary)

        words = ("verify", MODELS / "int8_strided.tflite")
        assert self.interrupt(words, is_time, tmp_path, monkeypatch) == 130

    def test_a_trial_dies_with_what_started_it(self, tmp_path, monkeypatch):
        words = ("benchmark", MODELS / "float32.tflite", "--gpu")
        assert self.interrupt(words, self.in_a_trial, tmp_path, monkeypatch, signal.SIGKILL) == -signal.SIGKILL
