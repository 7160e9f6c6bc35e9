"""Classic TFLite external delegates: shared libraries from vendors, which may be anything.

Load one here only after its ``trial``: a missing library, one that is no delegate, one that refuses its options or the
model and one that crashes or hangs, in its initialiser or in a run, then each end as one line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from edge_ran.errors import AcceleratorError
from edge_ran.graph import Graph
from edge_ran.runtime import output_capture
from edge_ran.runtime.interpreter import InterpreterRuntime, Package, load, package
from edge_ran.runtime.types import Accelerator, RuntimeOptions


class DelegateRuntime(InterpreterRuntime):
    """A ``Runtime`` on the classic Interpreter with the options' delegate."""

    def __init__(self, graph: Graph, options: RuntimeOptions, plain: bool = False) -> None:
        """Load library and model.

        Args:
            graph: the model.
            options: with a delegate.
            plain: keep XNNPACK out, so that ``delegation`` is the delegate's alone.

        Raises:
            AcceleratorError: the library is missing, no delegate, or refuses its options.
            InputError: it refuses the model.
        """
        assert options.delegate is not None
        library, found = find(options.delegate), package(options.runtime)
        delegate = _load(found, library, dict(options.delegate_options), options.verbose)
        accelerator = Accelerator("delegate", "delegate", library.name)
        super().__init__(graph, found, options.threads, accelerator, delegate, plain, options.verbose)


def find(library: Path) -> Path:
    """Return the library's full path, or a bare name, which the loader looks for.

    Raises:
        AcceleratorError: there is no such file.
    """
    library = Path(os.path.expanduser(library))  # Path's own raises where there is no such user
    if library.is_file():
        return library.resolve()
    if library.name != str(library):
        raise AcceleratorError(f"there is no delegate library {library}", "check --delegate")
    return library


def _load(package: Package, library: Path, options: dict[str, str], verbose: bool) -> Any:
    module = load(package)
    try:
        with output_capture.captured(verbose):
            return module.load_delegate(str(library), options)
    except OSError as error:
        what = f"cannot be loaded: {' '.join(str(error).split())}"
    except AttributeError:
        what = "is no TFLite delegate: it lacks tflite_plugin_create_delegate"
    except ValueError as error:
        words = " ".join(str(error).split()).removeprefix(f"Failed to load delegate from {library}").strip()
        what = f"refused its options: {words or 'without a word'}"
    raise AcceleratorError(f"delegate {library} {what}", "check --delegate and --delegate-option")
