"""Runs a ``.tflite``. Which runtime serves is decided here, in ``open_runtime``, and nowhere else.

| asked for | served by |
|---|---|
| cpu | the classic Interpreter with XNNPACK, of LiteRT, else of tflite-runtime |
| --delegate LIBRARY | the same Interpreter with that external delegate |
| gpu | LiteRT's CompiledModel on its WebGPU accelerator (Vulkan); tflite-runtime has no GPU of its own |
| auto | gpu or cpu: the faster one, but the gpu only if it agrees with the cpu (``auto.settle``) |

A file that this machine has not loaded before runs once in a child process, for it may crash there (``first_load``).
GPUs and delegates are tried in one as well (``trial``), once for a file on a machine. What comes of that:

| in its trial | auto | gpu, --delegate | the same with --no-fallback |
|---|---|---|---|
| a gpu is missing, refuses, crashes, hangs | cpu | cpu, with a ``fallback_reason`` | GateError |
| a delegate is missing, refuses, crashes, hangs | | AcceleratorError | AcceleratorError |
| a delegate takes no operator | | cpu, with a ``fallback_reason`` | GateError |
| wrong answers (by ``inspect``'s rules or on the trial's pictures) | cpu | it, with a ``warning`` | GateError |
| half precision changes answers, fp32 does not | fp32, or cpu | it, with a ``warning`` | GateError |

A wrong accelerator that was asked for serves, because one may want to see how wrong it is; but whoever wants none but a
good one says --no-fallback, and ``Accelerator.warning`` goes wherever its name goes.

``Runtime.accelerator`` says what was really got. Callers must show its ``fallback_reason`` and its ``warning``.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import Any

from edge_ran.errors import AcceleratorError, GateError, InputError
from edge_ran.graph import Graph, TensorSpec, check_runnable, read_graph
from edge_ran.runtime import auto, delegates, first_load, gpu, interpreter, trial
from edge_ran.runtime.types import Accelerator, Delegation, Inputs, Runtime, RuntimeOptions

__all__ = ["Accelerator", "Delegation", "Runtime", "RuntimeOptions", "TensorSpec", "open_runtime"]

DEFAULT = RuntimeOptions()
MORE = "see what is missing: edge-ran doctor"


def open_runtime(
    model: Path | str | Graph,
    options: RuntimeOptions = DEFAULT,
    inputs: Inputs | None = None,
    input_shape: tuple[int, ...] = (),
    **changes: Any,
) -> Runtime:
    """Load a model on the accelerator that the options ask for.

    Args:
        model: a ``.tflite``, or the graph of one, for who has read it already: that takes 0.1 s.
        options: what is asked for.
        inputs: gives real inputs, which accelerators are compared on; called only when it has to.
        input_shape: the shape to run with, of a model whose file leaves it open.
        changes: single fields of the options, by name: ``open_runtime(path, threads=2)``.

    Raises:
        InputError: the file is not a model, or the runtime refuses it.
        GateError: the accelerator is not available, or is wrong, and the options forbid to fall back.
        AcceleratorError: the delegate library is missing or broken.
        EnvironmentMissing: no runtime is installed.
    """
    options = dataclasses.replace(options, **changes)
    graph = model if isinstance(model, Graph) else read_graph(Path(model))
    check_runnable(graph)
    if input_shape:
        graph = graph.with_input_shape(input_shape)
    if options.delegate is None and options.accelerator == "cpu":
        return _cpu(graph, options, Accelerator("cpu", "cpu"))
    if options.delegate is None and options.accelerator == "auto":
        return _auto(graph, options, inputs)
    proof, inputs = _try_accelerator(graph, options, inputs)
    requested = "gpu" if options.delegate is None else "delegate"
    if options.delegate is not None and proof.failure:
        raise AcceleratorError(proof.failure, "check --delegate and --delegate-option; --cpu runs without it")
    if proof.failure:
        remedy = _verify(graph) if proof.is_broken else MORE
        return _fall_back(graph, options, requested, proof.failure, proof.took_ms, remedy)
    if options.delegate is not None and proof.delegation is not None and not proof.delegation.delegated:
        reason = f"{proof.delegation.engine} takes no operator of this model"
        return _fall_back(graph, options, requested, reason, proof.took_ms)
    warning, more_ms = auto.doubt(graph, options, proof, inputs)
    if warning and not options.fallback:
        raise GateError(f"{requested} was asked for, but {warning}", _verify(graph))
    runtime: Runtime
    if options.delegate is not None:
        runtime = delegates.DelegateRuntime(graph, options)
        runtime.delegation = proof.delegation or runtime.delegation  # its own, without XNNPACK's
    else:
        try:
            runtime = _gpu(graph, options)
        except AcceleratorError as error:
            return _fall_back(graph, options, requested, str(error), proof.took_ms)
    runtime.accelerator = dataclasses.replace(runtime.accelerator, warning=warning)
    runtime.trial_ms = proof.took_ms + more_ms
    return runtime


def _auto(graph: Graph, options: RuntimeOptions, inputs: Inputs | None) -> Runtime:
    verdict = auto.settle(graph, options, inputs)
    if verdict.accelerator == "gpu":
        try:
            runtime: Runtime = _gpu(graph, dataclasses.replace(options, gpu_precision=verdict.gpu_precision))
        except AcceleratorError as error:
            return _fall_back(graph, options, "auto", str(error), verdict.took_ms)
        runtime.accelerator = dataclasses.replace(runtime.accelerator, requested="auto", auto_reason=verdict.reason)
    else:
        runtime = _cpu(graph, options, Accelerator("auto", "cpu", auto_reason=verdict.reason))
    runtime.trial_ms += verdict.took_ms
    return runtime


def _try_accelerator(graph: Graph, options: RuntimeOptions, inputs: Inputs | None) -> tuple[trial.Trial, Inputs | None]:
    """The trial, and the inputs if there were any."""
    try:
        return trial.try_accelerator(graph, options, inputs), inputs
    except InputError:
        return trial.try_accelerator(graph, options, None), None


def _gpu(graph: Graph, options: RuntimeOptions) -> gpu.GpuRuntime:
    package = interpreter.package(options.runtime)
    return gpu.GpuRuntime(graph, package, options.threads, options.gpu_precision, options.verbose)


def _verify(graph: Graph) -> str:
    return f"see which operators: edge-ran verify {shlex.quote(str(graph.path))}"


def _fall_back(
    graph: Graph,
    options: RuntimeOptions,
    requested: str,
    reason: str,
    trial_ms: float,
    remedy: str = MORE,
) -> Runtime:
    if not options.fallback:
        raise GateError(f"{requested} was asked for, but {reason}", remedy)
    runtime = _cpu(graph, options, Accelerator(requested, "cpu", fallback_reason=reason))
    runtime.trial_ms += trial_ms
    return runtime


def _cpu(graph: Graph, options: RuntimeOptions, accelerator: Accelerator) -> Runtime:
    package = interpreter.package(options.runtime)
    began = time.perf_counter()
    first_load.check(graph, package)
    trial_ms = 1e3 * (time.perf_counter() - began)
    runtime = interpreter.InterpreterRuntime(graph, package, options.threads, accelerator, verbose=options.verbose)
    runtime.trial_ms = trial_ms
    return runtime
