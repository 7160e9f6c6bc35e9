"""``--accelerator auto``: is the GPU there, is it right, is it faster? Asked once for a file on a machine.

The trial runs in a child process, so that a driver that crashes or hangs costs nothing but time. Its verdict is kept in
the user's cache folder under a key of everything that could change it: the file, the adapters with their drivers, the
versions, the options. Deleting the folder is safe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import __version__, files, machine, vulkan
from edge_ran.errors import AcceleratorError, EdgeRanError, InputError
from edge_ran.graph import Graph, gpu_warnings, read_graph
from edge_ran.runtime import child, interpreter
from edge_ran.runtime.agreement import Agreement, compare_all
from edge_ran.runtime.gpu import GpuRuntime
from edge_ran.runtime.types import Accelerator, Runtime, RuntimeOptions

TRIAL_TIMEOUT_S = 120.0
TRIAL_BUDGET_S = 10.0  # of one accelerator's runs; a slow GPU is compared on fewer pictures
FEWEST_PICTURES = 4


@dataclass(frozen=True)
class Verdict:
    """Which accelerator serves, ``gpu`` or ``cpu``, and why, in one line. ``is_remembered``: from an earlier trial."""

    accelerator: str
    reason: str
    is_remembered: bool = False


def settle(graph: Graph, options: RuntimeOptions, inputs: Callable[[], Sequence[NDArray[Any]]] | None) -> Verdict:
    """Choose between the GPU and the CPU for this model on this machine.

    Args:
        graph: the model.
        options: threads and GPU precision count; ``accelerator`` does not.
        inputs: gives real inputs, each of the model's input shape and dtype; None leaves the GPU out, unproved.
    """
    package = interpreter.package(options.runtime)
    if package.name != "litert":
        return Verdict("cpu", f"{package.name} has no GPU of its own")
    wrong = [finding for finding in gpu_warnings(graph) if "wrong" in finding.what]
    if wrong:
        place = f" (operator {wrong[0].operator.index})" if wrong[0].operator else ""
        return Verdict("cpu", f"the GPU would be wrong: {wrong[0].what}{place}")
    adapters, missing = vulkan.adapters() if sys.platform == "linux" else ((), "")
    if missing:
        return Verdict("cpu", missing)
    if inputs is None:
        return Verdict("cpu", "there are no pictures to prove the GPU on")
    kept = _kept(graph, options, package.version, adapters)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(kept.read_text())
        if record["accelerator"] in ("cpu", "gpu"):
            return Verdict(record["accelerator"], str(record["reason"]), is_remembered=True)
    try:
        verdict = decide(*try_gpu(graph, options, inputs()))
    except InputError as error:
        return Verdict("cpu", f"there are no pictures to prove the GPU on: {error}")
    with contextlib.suppress(EdgeRanError):  # a read-only home costs a trial at every start, nothing else
        files.write_text(kept, json.dumps({"accelerator": verdict.accelerator, "reason": verdict.reason}))
    return verdict


def decide(trial: dict[str, Any], failure: str) -> Verdict:
    """Turn a trial's figures, or the reason why there are none, into a verdict."""
    if failure:
        return Verdict("cpu", failure)
    agreement = Agreement(**trial["agreement"])
    gpu, cpu = (f"{trial[name]:.3g} ms" for name in ("gpu_ms", "cpu_ms"))
    adapter = trial["accelerator"]["adapter"]
    if not agreement.is_right:
        return Verdict("cpu", f"the GPU ({adapter}) is wrong: {agreement}")
    if trial["gpu_ms"] >= trial["cpu_ms"]:
        return Verdict("cpu", f"the CPU is faster: {cpu}, {gpu} on the GPU ({adapter})")
    return Verdict("gpu", f"the GPU is faster: {gpu}, {cpu} on the CPU; {agreement}")


def cache_folder() -> Path:
    """Where verdicts are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(base) / "edge-ran" / "verdicts"


def _kept(graph: Graph, options: RuntimeOptions, version: str, adapters: Sequence[vulkan.Adapter]) -> Path:
    identity = {
        "model": files.sha256(graph.path),
        "edge_ran": __version__,
        "litert": version,
        "adapters": [dataclasses.asdict(adapter) for adapter in adapters],
        "precision": options.gpu_precision,
        "threads": options.threads or machine.available_cores(),
    }
    return cache_folder() / f"{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]}.json"


def try_gpu(graph: Graph, options: RuntimeOptions, inputs: Sequence[NDArray[Any]]) -> tuple[dict[str, Any], str]:
    """Run a ``trial`` in a child process. Returns its answer, or the reason why there is none."""
    with tempfile.TemporaryDirectory(prefix="edge-ran-") as folder:
        pictures = Path(folder) / "inputs.npy"
        np.save(pictures, np.stack(inputs))
        request = {
            "path": str(graph.path.resolve()),
            "inputs": str(pictures),
            "threads": options.threads,
            "precision": options.gpu_precision,
        }
        try:
            answer = child.ask(f"{__name__}:trial", request, TRIAL_TIMEOUT_S)
        except child.ChildFailed as error:
            return {}, f"the GPU {error} in its trial"
    return answer, answer.get("error", "")


def trial(path: str, inputs: str, threads: int, precision: str) -> dict[str, Any]:
    """Run both accelerators on the inputs, in the child. Returns times and agreement, or ``error``."""
    graph, pictures = read_graph(path), np.load(inputs)
    package = interpreter.package("litert")
    try:
        with GpuRuntime(graph, package, threads, precision) as gpu:
            answers, gpu_ms = timed(gpu, pictures)
            got = gpu.accelerator
    except AcceleratorError as error:
        return {"error": str(error)}
    with interpreter.InterpreterRuntime(graph, package, threads, Accelerator("cpu", "cpu")) as cpu:
        reference, cpu_ms = timed(cpu, pictures[: len(answers)])
    answers = answers[: len(reference)]
    agreement = compare_all(reference[: len(answers)], answers, graph.outputs)
    return {
        "agreement": dataclasses.asdict(agreement),
        "gpu_ms": gpu_ms,
        "cpu_ms": cpu_ms,
        "accelerator": dataclasses.asdict(got),
    }


def timed(runtime: Runtime, inputs: Sequence[NDArray[Any]]) -> tuple[list[list[NDArray[Any]]], float]:
    """Run each of the inputs (1, H, W, 3), as many as the budget allows.

    Returns:
        Their outputs, and the median milliseconds of a run with every output read, without the first runs.
    """
    runtime.run(inputs[0])  # compiles what is left to compile
    outputs: list[list[NDArray[Any]]] = []
    times_ms: list[float] = []
    start = time.perf_counter()
    for x in inputs:
        before = time.perf_counter()
        outputs.append(runtime.run(x))
        times_ms.append(1e3 * (time.perf_counter() - before))
        if len(outputs) >= FEWEST_PICTURES and time.perf_counter() - start > TRIAL_BUDGET_S:
            break
    return outputs, float(np.median(times_ms))
