"""Runs a ``.tflite``. Which runtime serves is decided here, in ``open_runtime``, and nowhere else.

| asked for | served by |
|---|---|
| cpu | the classic Interpreter with XNNPACK, of LiteRT, else of tflite-runtime |
| --delegate LIBRARY | the same Interpreter with that external delegate |
| gpu | LiteRT's CompiledModel on its WebGPU accelerator (Vulkan); tflite-runtime has no GPU of its own |
| auto | gpu or cpu: the faster one, but the gpu only if it agrees with the cpu (``auto.settle``) |

``Runtime.accelerator`` says what was really got. Where that is the CPU although something else was asked for, its
``fallback_reason`` says why; callers must show it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_ran.errors import AcceleratorError, GateError
from edge_ran.graph import Graph, TensorSpec, read_graph
from edge_ran.runtime import auto, delegates, gpu, interpreter
from edge_ran.runtime.types import Accelerator, Delegation, Runtime, RuntimeOptions

__all__ = ["Accelerator", "Delegation", "Runtime", "RuntimeOptions", "TensorSpec", "open_runtime"]

DEFAULT = RuntimeOptions()
Inputs = Callable[[], Sequence[NDArray[Any]]]


def open_runtime(
    path: Path | str, options: RuntimeOptions = DEFAULT, inputs: Inputs | None = None, **changes: Any
) -> Runtime:
    """Load a model on the accelerator that the options ask for.

    Args:
        path: a ``.tflite``.
        options: what is asked for.
        inputs: gives real inputs, which ``auto`` compares accelerators on; called only when it has to.
        changes: single fields of the options, by name: ``open_runtime(path, threads=2)``.

    Raises:
        InputError: the file is not a model, or the runtime refuses it.
        GateError: the accelerator cannot be had, and the options forbid to fall back.
        AcceleratorError: the delegate library is missing or broken.
        EnvironmentMissing: no runtime is installed.
    """
    options = dataclasses.replace(options, **changes)
    graph = read_graph(Path(path))
    if options.delegate is not None:
        runtime = delegates.open_delegate(graph, options)
        if runtime.delegation.delegated:
            return runtime
        runtime.close()
        return _fall_back(graph, options, "delegate", f"{runtime.delegation.engine} takes no operator of this model")
    if options.accelerator == "cpu":
        return _cpu(graph, options, Accelerator("cpu", "cpu"))
    if options.accelerator == "gpu":
        return _gpu(graph, options, "gpu")
    verdict = auto.settle(graph, options, inputs)
    if verdict.accelerator == "cpu":
        return _cpu(graph, options, Accelerator("auto", "cpu", auto_reason=verdict.reason))
    return _gpu(graph, options, "auto", verdict.reason)


def _gpu(graph: Graph, options: RuntimeOptions, requested: str, reason: str = "") -> Runtime:
    package = interpreter.package(options.runtime)
    try:
        runtime = gpu.GpuRuntime(
            graph, package, options.threads, options.gpu_precision, requested, verbose=options.verbose
        )
    except AcceleratorError as error:
        return _fall_back(graph, options, requested, str(error))
    runtime.accelerator = dataclasses.replace(runtime.accelerator, auto_reason=reason)
    return runtime


def _fall_back(graph: Graph, options: RuntimeOptions, requested: str, reason: str) -> Runtime:
    if not options.fallback:
        raise GateError(f"{requested} was asked for, but {reason}", "edge-ran doctor tells more")
    return _cpu(graph, options, Accelerator(requested, "cpu", fallback_reason=reason))


def _cpu(graph: Graph, options: RuntimeOptions, accelerator: Accelerator) -> Runtime:
    package = interpreter.package(options.runtime)
    return interpreter.InterpreterRuntime(graph, package, options.threads, accelerator, verbose=options.verbose)
