"""A model file that crashes, hangs or fills memory does so in a child process, and is one line."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tflite

from edge_ran import runs
from edge_ran.errors import InputError
from edge_ran.graph import Graph, check_runnable, read_graph
from edge_ran.runtime import child_process, first_load, interpreter, open_runtime, trial_cache

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="forks and limits are POSIX's"),
    pytest.mark.prompt,
]


@pytest.fixture(autouse=True)
def without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has loaded TensorFlow does not fork; other tests of the same process may have loaded it."""
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)


Attempt = Callable[[Graph, interpreter.Package], str]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return trial_cache.folder()


def crashes(graph: Graph, package: interpreter.Package) -> str:
    os.write(2, b"F0000 00:00:1.5    12 model.cc:218] Check failed: what a thing\n")
    os.kill(os.getpid(), signal.SIGSEGV)
    return ""


def hangs(graph: Graph, package: interpreter.Package) -> str:
    while True:
        pass


def fills_memory(graph: Graph, package: interpreter.Package) -> str:
    np.ones(1 << 30, np.uint8)
    return ""


def breaks(graph: Graph, package: interpreter.Package) -> str:
    raise IndexError("what a thing")


@pytest.mark.parametrize(
    ("attempt", "words"), [(crashes, r"crashed \(SIGSEGV\): Check failed: what a thing"), (hangs, "does not finish")]
)
def test_what_ends_the_child_is_one_line(
    attempt: Attempt, words: str, cache: Path, test_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_load, "_attempt", attempt)
    monkeypatch.setattr(first_load, "CPU_S", 0.0)
    for _ in range(2):  # it is not remembered as good
        with pytest.raises(InputError, match=words) as error:
            open_runtime(test_models / "int8.tflite", accelerator="cpu")
        assert "\n" not in str(error.value)
        assert error.value.remedy


def test_a_file_of_a_newer_converter_is_told_what_helps(cache: Path, test_models: Path, tmp_path: Path) -> None:
    data = bytearray((test_models / "int8.tflite").read_bytes())
    model = tflite.Model.GetRootAs(bytes(data))
    for code in map(model.OperatorCodes, range(model.OperatorCodesLength())):
        if place := code._tab.Offset(8):  # the version
            data[code._tab.Pos + place : code._tab.Pos + place + 4] = (99).to_bytes(4, "little")
    (tmp_path / "newer.tflite").write_bytes(data)
    with pytest.raises(InputError, match="version '99'") as error:
        open_runtime(tmp_path / "newer.tflite", accelerator="cpu")
    assert "pip install --upgrade ai-edge-litert" in error.value.remedy


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("Encountered unresolved custom op: edgetpu-custom-op.", "edgetpu_compiler"),
        ("Op builtin_code out of range: 230. Are you using old TFLite binary with newer model?", "--upgrade"),
        ("Select TensorFlow op(s), included in the given model, is(are) not supported", "without SELECT_TF_OPS"),
        ("Node number 3 (CONV_2D) failed to prepare.", "edge-ran inspect"),
    ],
)
def test_the_runtimes_words_tell_what_helps(
    words: str, remedy: str, cache: Path, test_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_load, "_attempt", lambda graph, package: f"cannot run it: {words}")
    with pytest.raises(InputError) as error:
        open_runtime(test_models / "int8.tflite", accelerator="cpu")
    assert remedy in error.value.remedy


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is bounded on Linux only")
def test_memory_is_bounded(cache: Path, test_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def attempt(graph: Graph, package: interpreter.Package) -> str:
        try:
            return fills_memory(graph, package)
        except MemoryError:
            return "takes too much"

    monkeypatch.setattr(first_load, "_attempt", attempt)
    with pytest.raises(InputError, match="takes too much"):
        open_runtime(test_models / "int8.tflite", accelerator="cpu")


def test_a_file_that_takes_pictures_of_any_size_has_the_most_time(test_models: Path) -> None:
    graph = read_graph(test_models / "float32.tflite")
    assert first_load._cpu_s(graph) < first_load.MOST_CPU_S
    opened = replace(graph, inputs=(replace(graph.inputs[0], open_axes=(1, 2)),))
    assert first_load._cpu_s(opened.with_input_shape((1, 1024, 1024, 3))) == first_load.MOST_CPU_S


def test_a_lower_limit_of_the_users_is_no_fault_of_the_file(cache: Path, test_models: Path, monkeypatch) -> None:
    def refuse(kind: int, limits: tuple[int, int]) -> None:
        if kind == resource.RLIMIT_CPU:
            raise ValueError("not allowed to raise maximum limit")  # as without the right to; root has it

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert first_load._fork(read_graph(test_models / "int8.tflite"), interpreter.package()) == ""


def test_a_file_is_tried_once_and_again_when_it_changes(
    cache: Path, test_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes((test_models / "int8.tflite").read_bytes())
    with open_runtime(model, accelerator="cpu") as runtime:
        assert runtime.trial_ms > 0
    assert len(list(cache.iterdir())) == 1
    monkeypatch.setattr(first_load, "_attempt", crashes)
    open_runtime(model, accelerator="cpu").close()
    model.write_bytes(model.read_bytes() + b"\0")
    with pytest.raises(InputError, match="crashed"):
        open_runtime(model, accelerator="cpu")


def test_the_shipped_network_and_what_was_made_here_need_no_trial(
    cache: Path, test_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_ran.files import sha256

    monkeypatch.setattr(first_load, "_attempt", crashes)
    open_runtime(runs.SHIPPED / "edge50" / runs.SHIPPED_TFLITE, accelerator="cpu").close()
    first_load.trust(sha256(test_models / "float32.tflite"))
    open_runtime(test_models / "float32.tflite", accelerator="cpu").close()


def test_a_fork_that_hangs_by_its_own_fault_is_tried_again_in_a_fresh_process(
    cache: Path, test_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(graph: Graph, package: interpreter.Package) -> str:
        time.sleep(600)
        return ""

    asked = []
    ask = child_process.ask
    monkeypatch.setattr(first_load, "_attempt", waits)
    monkeypatch.setattr(child_process, "ask", lambda *words, **named: asked.append(words) or ask(*words, **named))
    open_runtime(test_models / "int8.tflite", accelerator="cpu").close()
    assert len(asked) == 1


def test_mutated_files_end_in_answers_or_one_line(cache: Path, test_models: Path, tmp_path: Path) -> None:
    """Bytes changed at random: the process lives on, whatever comes of them."""
    random, path, package = np.random.default_rng(3), tmp_path / "m.tflite", interpreter.package("")
    refused = list[str]()
    for name in ("int8.tflite", "float32.tflite"):
        whole = (test_models / name).read_bytes()
        for _ in range(40):
            data = bytearray(whole)
            for place in random.integers(8, min(len(data), 4000), 4):
                data[place] = random.choice([0, 1, 0x7F, 0xFF, data[place] ^ 0x10])
            path.write_bytes(data)
            try:
                graph = read_graph(path)
                check_runnable(graph)
                first_load.check(graph, package)
            except InputError as error:
                refused.append(str(error))
    assert any("litert" in text for text in refused), "no file came as far as the runtime"
    assert not any("\n" in text for text in refused)
