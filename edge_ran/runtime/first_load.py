"""A model file that this machine has not loaded before is loaded and run once in a child process: it may crash there.

The checks of ``graph`` see what a file says; what a runtime's native code makes of it, only a run tells. A crash, a
hang or a hunger for memory becomes one line, and the file is remembered by its content once it has gone well. Files
that ``convert`` made here and the network that ships need no such trial.

The child is a fork, which costs little more than the run itself. A fork of a process with threads may hang for no fault
of the file: then, where TensorFlow is loaded, and where there is no fork, a fresh process decides.
"""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import os
import select
import shlex
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import files, runs
from edge_ran.errors import InputError
from edge_ran.graph import Graph, read_graph
from edge_ran.python_command import pip
from edge_ran.runtime import child_process, interpreter, output_capture, trial_cache
from edge_ran.runtime.types import Accelerator

if sys.platform != "win32":
    import resource

# What one load and two runs may take, besides what a file's operators and weights explain.
CPU_S = 3.0
SPARE_BYTES = 640 << 20
SLOWEST_MULTIPLY_ADDS_PER_S = 1e8  # of an emulated or very small board
MOST_CPU_S = 120.0
COPIES_OF_WEIGHTS = 4  # the file's, the packed ones, and room between
FORK_WALL_S = 20.0  # however busy the machine is
IDLE_S, MOST_IDLE = 0.25, 6  # a fork that sleeps so often so long hangs by its own fault

_OLDER = "the runtime is older than it"
# What helps where the runtime's own words tell it.
_REMEDIES = (
    ("edgetpu-custom-op", "it was compiled for the Edge TPU: give the .tflite that edgetpu_compiler was given"),
    ("Didn't find op for builtin opcode", _OLDER),
    ("old TFLite binary with newer model", _OLDER),
    ("old TFlite binary with newer model", _OLDER),
    ("Select TensorFlow op", "convert it again with TFLITE_BUILTINS alone, without SELECT_TF_OPS"),
)


def check(graph: Graph, package: interpreter.Package) -> None:
    """Try a file in a child process, unless it is known to be good.

    Raises:
        InputError: the runtime refuses it, crashes, or takes more time or memory than its operators explain.
    """
    if graph.path.resolve().parent.parent == runs.SHIPPED:
        return
    record = _record(files.sha256(graph.path), package, _sizes(graph))
    if trial_cache.load(record) is not None:
        return
    reason = None
    if sys.platform.startswith("linux") and "tensorflow" not in sys.modules:
        reason = _fork(graph, package)
    if reason is None:
        reason = _spawn(graph, package)
    if reason:
        raise InputError(f"{graph.path}: {package.name} {reason}", _remedy(reason, graph.path))
    trial_cache.store(record, {"loads": True})


def _remedy(reason: str, path: Path) -> str:
    again = f"get it again, or convert it again; to look at it: edge-ran inspect {shlex.quote(str(path))}"
    known = next((remedy for words, remedy in _REMEDIES if words in reason), "")
    return f"{known}: {pip('install --upgrade ai-edge-litert')}" if known == _OLDER else known or again


def trust(sha256: str) -> None:
    """Remember that a file of this content needs no trial: it was made here."""
    for package in interpreter.installed():
        trial_cache.store(_record(sha256, package, []), {"loads": True})


def run_once(path: str, package: dict[str, str], sizes: list[list[int]]) -> dict[str, Any]:
    """Load and run the file, in a fresh child process. Returns ``reason``, empty where it goes well."""
    graph, whose = read_graph(path), interpreter.Package(**package)
    for shape in sizes:
        graph = graph.with_input_shape(tuple(shape))
    interpreter.load(whose)
    _limit(graph)
    return {"reason": _attempt(graph, whose)}


def _record(sha256: str, package: interpreter.Package, sizes: list[list[int]]) -> Path:
    return trial_cache.cache_file(model=sha256, loads_in=dataclasses.astuple(package), sizes=sizes)


def _sizes(graph: Graph) -> list[list[int]]:
    """The input's shape where the file leaves it open; empty where the file says it."""
    return [list(tensor.shape) for tensor in graph.inputs[:1] if tensor.open_axes]


def _spawn(graph: Graph, package: interpreter.Package) -> str:
    request = {"path": str(graph.path.resolve()), "package": dataclasses.asdict(package), "sizes": _sizes(graph)}
    try:
        answer = child_process.ask(f"{__name__}:run_once", request, 10 + 4 * _cpu_s(graph))
    except child_process.ChildFailed as error:
        return _in_words(str(error), graph)
    return str(answer.get("reason", "gave no answer"))


def _fork(graph: Graph, package: interpreter.Package) -> str | None:
    """Why the file cannot be run, empty where it can; None where the fork itself may be at fault."""
    interpreter.load(package)  # before, so that no child does it again
    with files.scratch_file() as said, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks of processes with threads; see above
        reading, writing = os.pipe()
        parent, child = os.getpid(), os.fork()
        if not child:
            _be_the_child(graph, package, writing, said.fileno(), parent)
        os.close(writing)
        answer = None
        try:
            answer = _until_end(reading, child, FORK_WALL_S + 4 * _cpu_s(graph))
        finally:
            os.close(reading)
            if answer is None:
                os.kill(child, signal.SIGKILL)  # not waited for yet, so it is still ours
            _, status = os.waitpid(child, 0)
        if answer is None:
            return None
        if answer:
            return answer[1:].decode(errors="replace")
        said.seek(0)
        words = child_process.last_words(said.read().decode(errors="replace"))
        how = f"crashed ({child_process.signal_name(os.WTERMSIG(status))})" if os.WIFSIGNALED(status) else "ended"
        return _in_words(": ".join(filter(None, (how, words))), graph)


def _be_the_child(graph: Graph, package: interpreter.Package, writing: int, said: int, parent: int) -> None:
    """Try it, say so, and end at once: nothing of the parent's may be flushed or torn down here."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()
        os.dup2(said, 1)
        os.dup2(said, 2)
        output_capture.place = f"/proc/self/fd/{said}"
        child_process.die_with(parent)
        _limit(graph)
        os.write(writing, b"." + _attempt(graph, package).encode()[:4000])
    finally:
        os._exit(0)


def _attempt(graph: Graph, package: interpreter.Package) -> str:
    try:
        with interpreter.InterpreterRuntime(graph, package, 1, Accelerator("cpu", "cpu")) as runtime:
            for filled in (np.zeros, _noise):
                runtime.run(*(filled(tensor.shape, tensor.dtype) for tensor in graph.inputs))
    except InputError as error:
        return str(error).partition(f": {package.name} ")[2] or str(error)
    except Exception as error:  # whatever this child meets, the parent would meet
        return f"cannot run it: {' '.join(str(error).split()) or type(error).__name__}"
    return ""


def _noise(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    values = np.random.default_rng(0).integers(0, 100, shape)
    return values.astype(dtype) if np.issubdtype(np.dtype(dtype), np.integer) else (values / 100).astype(dtype)


def _cpu_s(graph: Graph) -> float:
    if graph.has_open_size:  # pictures may be of any size
        return MOST_CPU_S
    return min(MOST_CPU_S, CPU_S + 2 * graph.multiply_adds / SLOWEST_MULTIPLY_ADDS_PER_S)


def _limit(graph: Graph) -> None:
    """Bound what this process may still take."""
    if sys.platform == "win32":
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + _cpu_s(graph)) + 1
    with contextlib.suppress(ValueError):  # the user's own limit is lower, and holds
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm") as sizes:
            now = int(sizes.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        most = now + SPARE_BYTES + COPIES_OF_WEIGHTS * graph.size_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _until_end(reading: int, child: int, timeout_s: float) -> bytes | None:
    """What the child says until it ends; None where it does not end, or sleeps: it has nothing to wait for."""
    said, end, idle, worked = b"", time.monotonic() + timeout_s, 0, ""
    while time.monotonic() < end and idle < MOST_IDLE:
        if select.select([reading], [], [], IDLE_S)[0]:
            block = os.read(reading, 4096)
            if not block:
                return said
            said += block
            continue
        before, (state, worked) = worked, _state(child)
        idle = idle + 1 if state == "S" and worked == before else 0
    return None


def _state(process: int) -> tuple[str, str]:
    """Whether a process runs (R) or sleeps (S), and the processor time that it has had. Of Linux."""
    with contextlib.suppress(OSError, IndexError):
        with open(f"/proc/{process}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], " ".join(fields[11:13])
    return "", ""


def _in_words(how: str, graph: Graph) -> str:
    if "SIGXCPU" in how:
        return f"does not finish: one picture takes more than {_cpu_s(graph):.0f} s of processor time"
    return f"{how} when it ran it"
