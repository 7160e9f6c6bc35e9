"""Classic TFLite external delegates: shared libraries from vendors, which may be anything.

A library is tried in a child process, with the model, before it is loaded here: a missing one, one that is no delegate,
one that refuses its options and one that crashes in its initialiser or in the first run each end as one line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_ran.errors import AcceleratorError, EdgeRanError
from edge_ran.graph import Graph, read_graph
from edge_ran.runtime import chatter, child
from edge_ran.runtime.interpreter import InterpreterRuntime, Package, load, package
from edge_ran.runtime.types import Accelerator, Delegation, RuntimeOptions

PROBE_TIMEOUT_S = 120.0


def open_delegate(graph: Graph, options: RuntimeOptions, *, is_proved: bool = False) -> InterpreterRuntime:
    """Load the model with the options' delegate. ``delegation.delegated`` tells what it took, which may be nothing.

    Args:
        graph: the model.
        options: with a delegate.
        is_proved: the library has come through its trial with a larger part of this model; ``delegation`` then counts
            XNNPACK's operators, too.

    Raises:
        AcceleratorError: the library is missing, no delegate, refuses its options or the model, hangs or crashes.
    """
    assert options.delegate is not None
    library = options.delegate.expanduser()
    if library.is_file():
        library = library.resolve()
    elif library.name != str(library):  # a bare name is for the loader to find
        raise AcceleratorError(f"there is no delegate library {library}", "check --delegate")
    found, accelerator = package(options.runtime), Accelerator("delegate", "delegate", library.name)
    words = dict(options.delegate_options)
    if is_proved:
        delegate = _load(found, library, words, options.verbose)
        return InterpreterRuntime(graph, found, options.threads, accelerator, delegate, verbose=options.verbose)
    request = {
        "path": str(graph.path.resolve()),
        "library": str(library),
        "options": words,
        "threads": options.threads,
        "runtime": options.runtime,
    }
    try:
        answer = child.ask(f"{__name__}:probe", request, PROBE_TIMEOUT_S)
    except child.ChildFailed as error:
        raise AcceleratorError(f"delegate {library} {error}", "ask its vendor; --cpu runs without it") from error
    if "error" in answer:
        raise AcceleratorError(answer["error"], "check --delegate and --delegate-option")
    delegate = _load(found, library, words, options.verbose)
    runtime = InterpreterRuntime(graph, found, options.threads, accelerator, delegate, verbose=options.verbose)
    runtime.delegation = Delegation(library.name, **answer["delegation"])
    return runtime


def probe(path: str, library: str, options: dict[str, str], threads: int, runtime: str) -> dict[str, Any]:
    """Load and run once, in the child, without XNNPACK. Returns what the delegate took, or ``error``."""
    graph, found, file = read_graph(path), package(runtime), Path(library)
    accelerator = Accelerator("delegate", "delegate", file.name)
    try:
        delegate = _load(found, file, options, verbose=False)
        with InterpreterRuntime(graph, found, threads, accelerator, delegate, plain=True) as tried:
            tried.run(*(np.zeros(tensor.shape, tensor.dtype) for tensor in graph.inputs))
            took = tried.delegation
    except RuntimeError as error:
        return {"error": f"delegate {library} failed in its first run: {' '.join(str(error).split())}"}
    except EdgeRanError as error:
        return {"error": str(error)}
    return {
        "delegation": {"operators": took.operators, "delegated": took.delegated, "partitions": took.partitions},
    }


def _load(package: Package, library: Path, options: dict[str, str], verbose: bool) -> Any:
    module = load(package)
    try:
        with chatter.captured(verbose):
            return module.load_delegate(str(library), options)
    except OSError as error:
        what = f"cannot be loaded: {' '.join(str(error).split())}"
    except AttributeError:
        what = "is no TFLite delegate: it lacks tflite_plugin_create_delegate"
    except ValueError as error:
        words = " ".join(str(error).split()).removeprefix(f"Failed to load delegate from {library}").strip()
        what = f"refused its options: {words or 'without a word'}"
    raise AcceleratorError(f"delegate {library} {what}", "check --delegate and --delegate-option")
