"""LiteRT's CompiledModel on the GPU: its WebGPU accelerator over Vulkan (Metal on macOS), which the pip wheel ships.

Facts that shaped this (LiteRT 2.3):

- ``run_by_index`` returns when the work is queued; only reading an output waits for it. So ``run`` reads them all.
- Where the accelerator library is missing, GPU|CPU silently means CPU, and ``is_fully_accelerated`` is True of the
  CPU as well. The one sign of a GPU is the line ``Selected adapter: …`` among what is said at creation.
- Half precision is what the accelerator computes in where the adapter has it, and silently fp32 where it has not
  (equal bits); nothing is said of it. So ``accelerator.precision`` is what Vulkan says that the adapter can do.
- Operators that the accelerator does not take stay on the CPU; which, and why, is said at creation too. Where it takes
  none at all, an adapter is selected nevertheless; only ``Initializing WebGPU-based API`` is missing.
- Compiled programs are not kept between starts. LiteRT's Python package has no option for it; its C interface has
  (``serialization_dir``), and it works, but saves 2 % of a load of 740 ms on SwiftShader (benchmarks/cold_start.py):
  what it keeps are sources and weights, while their translation to machine code is the driver's, which Mesa and NVIDIA
  keep themselves. That is not worth bindings of our own. On the CPU only CompiledModel can keep packed weights (3 ms of
  14), not the Interpreter that serves here.
- The first write to a buffer makes a second environment, which lives and talks to the end of the process.
- Each environment sets the GPU up anew and leaves some KiB behind when it goes. So one that has found a GPU is kept for
  all models of this process: a second load takes a tenth of the time (97 -> 10 ms for one operator on SwiftShader).
  ``Selected adapter`` is said by an environment's first model only.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import importlib.util
import os
import re
import sys
import traceback
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import machine, vulkan
from edge_ran.errors import AcceleratorError
from edge_ran.graph import Graph
from edge_ran.python_command import pip
from edge_ran.runtime import output_capture
from edge_ran.runtime.interpreter import Package
from edge_ran.runtime.types import Accelerator, Delegation

ADAPTER = re.compile(r"Selected adapter: (?P<name>.*?), arch=.*?backend=(?P<backend>[^,]*), adapterType=(?P<kind>.*)")
LEFT = re.compile(
    r"not supported by GPU delegate:\s*(?P<reason>[^\n]*).*?(?P<taken>\d+) operations will run on the GPU, "
    r"and the remaining (?P<left>\d+) operations",
    re.DOTALL,
)
REFUSED = re.compile(r"not supported by GPU delegate:\s*([^\n]*)")

_is_used = False
_kept: tuple[Any, str] | None = None  # an environment that has found a GPU, and what was said then
_PIECE = "Initializing WebGPU-based API"


@atexit.register  # at import, so that it runs after the hooks of those who have more to say
def _hush() -> None:
    """Keep the last words of LiteRT's environment off the terminal: they come when Python is gone already."""
    if _is_used:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@dataclass(frozen=True)
class Seen:
    """What the accelerator said at creation."""

    adapter: str  # empty: no GPU
    is_software: bool
    operators_left: int  # that stay on the CPU
    operators_taken: int  # known where some are left
    left_reason: str  # why the first of them is left
    failure: str  # the line that tells why there is no GPU


def read_chatter(text: str) -> Seen:
    """Read the words of a creation, good or failed."""
    left = LEFT.search(text)
    counts = (int(left["left"]), int(left["taken"]), left["reason"].strip()) if left else (0, 0, "")
    found = ADAPTER.search(text)
    if found is None:
        return Seen("", False, *counts, _failure(text))
    software = bool(re.search("cpu|software", found["kind"], re.IGNORECASE)) or bool(
        vulkan.SOFTWARE_NAMES.search(found["name"])
    )
    return Seen(found["name"].strip(), software, *counts, _failure(text))


class GpuRuntime:
    """A ``Runtime`` on LiteRT's GPU accelerator."""

    def __init__(
        self,
        graph: Graph,
        package: Package,
        threads: int,
        precision: str,
        verbose: bool = False,
    ) -> None:
        """Load the model; compiles its shaders.

        Args:
            graph: a verified file (``read_graph``) whose shapes are fixed.
            package: LiteRT.
            threads: CPU threads for operators that the GPU does not take; 0 = every core.
            precision: ``fp16`` or ``fp32`` arithmetic.
            verbose: pass the runtime's messages on.

        Raises:
            AcceleratorError: there is no GPU here, or it takes no operator of this model; the line says why.
        """
        if package.name != "litert":
            raise AcceleratorError(f"{package.name} has no GPU of its own", pip("install ai-edge-litert"))
        if not all(tensor.fixed for tensor in (*graph.inputs, *graph.outputs)):
            raise AcceleratorError("the GPU needs fixed shapes, this model leaves them open", "convert it again")
        self.name, self.version = package.name, package.version
        self.input, self.outputs = graph.inputs[0], graph.outputs
        self.threads = threads or machine.available_cores()
        self.trial_ms = 0.0
        self._native: dict[str, Any] | None = None
        native: dict[str, Any] = {}
        failure = ""
        environment, before = _kept or (None, "")
        with output_capture.captured(verbose) as said:
            try:
                native.update(_create(graph, self.threads, precision, environment))
            except Exception as error:  # the wheel raises RuntimeError, ImportError, OSError, as it happens to fail
                failure = " ".join(str(error).split()) or type(error).__name__
            except BaseException as error:  # Ctrl-C: what was made until then must go while its words are kept
                traceback.clear_frames(error.__traceback__)
                raise
        self.chatter = said.text
        pieces = said.text.count(_PIECE)
        seen = read_chatter(said.text)
        if environment is not None and pieces:
            first = read_chatter(before)
            seen = dataclasses.replace(seen, adapter=first.adapter, is_software=first.is_software)
        operators = len(graph.operators)
        taken = (seen.operators_taken if seen.operators_left else operators) if pieces else 0
        if failure or not seen.adapter or not taken:
            _release(native)
            raise AcceleratorError(
                seen.left_reason or seen.failure or failure or "LiteRT loaded no GPU accelerator", "edge-ran doctor"
            )
        _keep(native["model"].environment, said.text)
        self._native = native
        # Destroying it talks, too; and an accelerator left to the end of the process talks then.
        self._finalizer = weakref.finalize(self, _release, native)
        adapter = next((found for found in vulkan.adapters()[0] if found.name == seen.adapter), None)
        self.accelerator = Accelerator(
            "gpu",
            "gpu",
            seen.adapter,
            seen.is_software,
            adapter.driver if adapter else "",  # LiteRT does not say it
            precision="fp32" if adapter and not adapter.has_fp16 else precision,
            asked_precision=precision,
        )
        self.delegation = Delegation("WebGPU", operators, operators - seen.operators_left, pieces, seen.left_reason)

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        if self._native is None:
            raise ValueError("the runtime is closed")
        buffers_in, buffers_out = self._native["inputs"], self._native["outputs"]
        for buffer, x in zip(buffers_in, inputs, strict=True):
            buffer.write(x)
        self._native["model"].run_by_index(0, buffers_in, buffers_out)
        return [
            buffer.read(tensor.elements, np.dtype(tensor.dtype)).reshape(tensor.shape)
            for buffer, tensor in zip(buffers_out, self.outputs, strict=True)
        ]

    def close(self) -> None:
        if self._native is not None:
            self._native = None
            self._finalizer()

    def __enter__(self) -> GpuRuntime:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _keep(environment: Any, words: str) -> None:
    global _kept
    _kept = _kept or (environment, words)


def _create(graph: Graph, threads: int, precision: str, environment: Any = None) -> dict[str, Any]:
    from ai_edge_litert import compiled_model as litert

    global _is_used
    _is_used = True
    options = litert.Options(
        # With the CPU beside it, it still raises where there is no adapter, but takes graphs that it cannot take whole.
        litert.HardwareAccelerator.GPU | litert.HardwareAccelerator.CPU,
        cpu_options=litert.CpuOptions(num_threads=threads),
        gpu_options=litert.GpuOptions(enforce_f32=precision == "fp32"),
    )
    model = litert.CompiledModel.from_file(str(graph.path), options=options, environment=environment)
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    for buffer, tensor in zip(inputs, graph.inputs, strict=True):
        buffer.write(np.zeros(tensor.shape, tensor.dtype))
    return {"model": model, "inputs": inputs, "outputs": outputs}


def _release(native: dict[str, Any]) -> None:
    with output_capture.captured():
        # Closed one by one, for the traceback of a Ctrl-C may hold any of them until nobody listens.
        for buffer in (*native.pop("inputs", ()), *native.pop("outputs", ())):
            buffer.destroy()
        if model := native.pop("model", None):
            model.close()
            if _kept is None or model.environment is not _kept[0]:
                model.environment.close()


def _failure(text: str) -> str:
    """The line that tells why, among dozens that do not, some of which tell of vendors' plugins nobody asked for."""
    if "No adapters found" in text:
        return "no GPU adapter was found (Vulkan)"
    if "GPU accelerator(" in text and "Dynamically loaded GPU accelerator" not in text:
        return "this LiteRT lacks its GPU accelerator's library"
    if refused := REFUSED.search(text):
        return f"it takes no operator of this model: {refused[1].strip()}"
    found = re.search(r"^ERROR: (?:\[[^\]]*\] ?)?(\S.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def libraries() -> list[Path]:
    """Return the accelerator libraries that the installed LiteRT carries; none where it has no GPU."""
    spec = importlib.util.find_spec("ai_edge_litert")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return sorted(path for folder in folders for path in Path(folder).glob("libLiteRt*Gpu*Accelerator.*"))
