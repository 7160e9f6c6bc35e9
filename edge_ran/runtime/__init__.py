"""Runs a ``.tflite``. Which runtime serves is decided here, in ``open_runtime``, and nowhere else.

| asked for | served by |
|---|---|
| cpu | the classic Interpreter with XNNPACK, of LiteRT, else of tflite-runtime |
| --delegate LIBRARY | the same Interpreter with that external delegate |
| gpu | LiteRT's CompiledModel on its WebGPU accelerator (Vulkan); tflite-runtime has no GPU of its own |
| auto | the faster of gpu and cpu, the gpu only if it agrees with the cpu |

``Runtime.accelerator`` says what was really got.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from edge_ran.errors import InputError
from edge_ran.graph import TensorSpec, read_graph
from edge_ran.runtime import interpreter
from edge_ran.runtime.types import Accelerator, Delegation, Runtime, RuntimeOptions

__all__ = ["Accelerator", "Delegation", "Runtime", "RuntimeOptions", "TensorSpec", "open_runtime"]

DEFAULT = RuntimeOptions()


def open_runtime(path: Path | str, options: RuntimeOptions = DEFAULT, **changes: Any) -> Runtime:
    """Load a model on the accelerator that the options ask for.

    Args:
        path: a ``.tflite`` with one input.
        options: what is asked for.
        changes: single fields of the options, by name: ``open_runtime(path, threads=2)``.

    Raises:
        InputError: the file is not a model, or not one with a single input.
        EnvironmentMissing: no runtime is installed.
    """
    options = dataclasses.replace(options, **changes)
    graph = read_graph(Path(path))
    if len(graph.inputs) != 1:
        raise InputError(f"{path} has {len(graph.inputs)} inputs, one is needed", "edge-ran inspect it")
    return interpreter.InterpreterRuntime(
        graph, interpreter.package(options.runtime), options.threads, Accelerator("cpu", "cpu"), verbose=options.verbose
    )
