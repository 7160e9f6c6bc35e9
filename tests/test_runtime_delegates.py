"""External delegates: good ones are used, bad ones end as one line. Needs a C compiler."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_ran.card import Overrides
from edge_ran.errors import AcceleratorError, GateError
from edge_ran.model_interface import read_interface
from edge_ran.runtime import RuntimeOptions, child_process, open_runtime, trial

pytestmark = pytest.mark.prompt

TESTS = Path(__file__).parent
FLOAT = TESTS / "models" / "float32.tflite"
TAKES_LAST, TAKES_NOTHING, REFUSES, CRASHES, CRASHES_LATER, EXITS, HANGS, IS_RIGHT, TALKS = range(9)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def inputs() -> list[np.ndarray]:
    return list(np.random.default_rng(0).uniform(-1, 1, (6, 1, 16, 16, 3)).astype(np.float32))


@pytest.fixture
def build(tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")

    def compile_delegate(kind: int, *flags: str) -> Path:
        library = tmp_path / f"libdelegate{kind}.so"
        source = TESTS / "delegates" / "delegate.c"
        command = [compiler, "-shared", "-fPIC", f"-DKIND={kind}", *flags, "-o", library, source, "-lm"]
        subprocess.run(command, check=True)
        return library

    return compile_delegate


def test_a_delegate_serves_and_is_named(build):
    with open_runtime(FLOAT, delegate=build(TAKES_LAST)) as runtime:
        assert runtime.accelerator.requested == runtime.accelerator.actual == "delegate"
        assert runtime.accelerator.adapter == "libdelegate0.so"
        assert (runtime.delegation.delegated, runtime.delegation.operators) == (1, 17)
        answer = runtime.run(np.zeros(runtime.input.shape, np.float32))[0]
    assert answer[0] == pytest.approx([0.1, 0.2, 0.7])


def test_a_wrong_delegate_is_doubted_and_a_right_one_is_not(build):
    with open_runtime(FLOAT, RuntimeOptions(delegate=build(IS_RIGHT)), inputs) as runtime:
        assert runtime.accelerator.warning == ""
        assert runtime.delegation.delegated == 1
    wrong = RuntimeOptions(delegate=build(TAKES_LAST))
    with open_runtime(FLOAT, wrong, inputs) as runtime:
        assert runtime.accelerator.actual == "delegate"
        assert "libdelegate0.so is wrong: top-1 agrees on" in runtime.accelerator.warning
    with pytest.raises(GateError, match=r"libdelegate0\.so is wrong"):
        open_runtime(FLOAT, wrong, inputs, fallback=False)


def test_the_scores_may_be_another_output_than_the_first(build):
    """The delegate is wrong on the first of two outputs; the labels tell which one holds the scores."""
    options, path = RuntimeOptions(delegate=build(TAKES_LAST)), TESTS / "models" / "two_heads.tflite"
    for labels, scores_are_right in ((("dark", "bright"), True), (("red", "green", "blue"), False)):
        graph = read_interface(path, Overrides(labels=labels)).graph
        found = trial.try_accelerator(graph, options, inputs).agreement
        assert (found.top1 == 1) is (found.relative_error < 1e-5) is scores_are_right
        assert (found.masks_difference > 0.25) is scores_are_right
        assert not found.is_right


def test_a_library_is_tried_once_until_it_changes(build, monkeypatch):
    library, asked, real = build(IS_RIGHT), [], child_process.ask
    monkeypatch.setattr(child_process, "ask", lambda *words: asked.append(words[0]) or real(*words))
    for _ in range(2):
        open_runtime(FLOAT, delegate=library).close()
    assert sum("trial:" in one for one in asked) == 1  # a first load may ask, too
    build(TAKES_NOTHING).replace(library)
    open_runtime(FLOAT, delegate=library).close()
    assert sum("trial:" in one for one in asked) == 2


def test_a_delegate_that_hangs_is_given_up(build, monkeypatch):
    monkeypatch.setattr(trial, "TIMEOUT_S", 5)
    with pytest.raises(AcceleratorError, match="did not finish within 5 s"):
        open_runtime(FLOAT, delegate=build(HANGS))


def test_a_delegate_that_takes_nothing_is_not_called_the_accelerator(build):
    library = build(TAKES_NOTHING)
    with open_runtime(FLOAT, delegate=library) as runtime:
        assert runtime.accelerator.actual == "cpu"
        assert runtime.accelerator.requested == "delegate"
        assert "takes no operator" in runtime.accelerator.fallback_reason
    with pytest.raises(GateError, match="takes no operator"):
        open_runtime(FLOAT, delegate=library, fallback=False)


def test_options_reach_the_delegate(build):
    library = build(REFUSES)
    open_runtime(FLOAT, delegate=library).close()
    with pytest.raises(AcceleratorError, match="refused its options: unknown option: speed"):
        open_runtime(FLOAT, delegate=library, delegate_options=(("speed", "high"),))


@pytest.mark.parametrize(
    ("kind", "words"),
    [(CRASHES, r"crashed \(SIGABRT\)"), (CRASHES_LATER, r"crashed \(SIGABRT\)"), (EXITS, "ended its process")],
)
def test_a_crash_is_contained(kind, words, build, capfd):
    with pytest.raises(AcceleratorError, match=words) as caught:
        open_runtime(FLOAT, delegate=build(kind))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_library_that_is_no_delegate(build):
    with pytest.raises(AcceleratorError, match="is no TFLite delegate"):
        open_runtime(FLOAT, delegate=build(TAKES_LAST, "-DNO_DELEGATE"))


def test_a_missing_or_unloadable_library(tmp_path):
    with pytest.raises(AcceleratorError, match="there is no delegate library"):
        open_runtime(FLOAT, delegate=tmp_path / "libnone.so")
    with pytest.raises(AcceleratorError, match="there is no delegate library ~nobody-of-this-name"):
        open_runtime(FLOAT, delegate=Path("~nobody-of-this-name/libnone.so"))
    with pytest.raises(AcceleratorError, match="cannot be loaded"):
        open_runtime(FLOAT, delegate=Path("libnone.so"))
    text = tmp_path / "libtext.so"
    text.write_text("not a library")
    with pytest.raises(AcceleratorError, match="cannot be loaded"):
        open_runtime(FLOAT, delegate=text)


@pytest.mark.parametrize("verbose", [False, True])
def test_what_a_delegate_says_in_its_runs_stays_off_stdout(verbose, build):
    words = ["--delegate", build(TALKS), "--num-runs", 5, "--max-secs", 1, "--json", *(["-v"] if verbose else [])]
    command = [sys.executable, "-m", "edge_ran", "benchmark", FLOAT, *words]
    done = subprocess.run([*map(str, command)], cwd=TESTS.parent, capture_output=True, text=True, timeout=120)
    assert json.loads(done.stdout)["accelerator"]["actual"] == "delegate", done.stderr
    assert ("a run\n" in done.stderr) is ("the end\n" in done.stderr) is verbose
