"""What every runtime is asked for, and what it says of itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from edge_ran import records
from edge_ran.catalogue import ACCELERATORS, nearest
from edge_ran.errors import UsageError
from edge_ran.graph import TensorSpec

RUNTIMES = ("litert", "tflite-runtime")
GPU_PRECISIONS = ("fp16", "fp32")
MOST_THREADS = 512

# Gives real inputs, each of the model's input shape and dtype; raises InputError where it finds none.
Inputs = Callable[[], Sequence[NDArray[Any]]]


@dataclass(frozen=True)
class RuntimeOptions:
    """What the user asks of the runtime.

    Attributes:
        accelerator: ``cpu``, ``gpu``, or ``auto`` = the faster of those that agree with the CPU on this device.
        threads: CPU threads; 0 = every core that this process may use.
        delegate: a classic TFLite external delegate's shared library; it then takes the accelerator's place.
        delegate_options: (key, value) pairs handed to the delegate.
        runtime: ``litert`` or ``tflite-runtime``; empty = the preferred one of those installed.
        gpu_precision: arithmetic on the GPU, ``fp16`` (where the adapter has it) or ``fp32``.
        fallback: False raises GateError instead of going on with the CPU.
        verbose: let the runtime's own messages through to stderr.
    """

    accelerator: str = "cpu"
    threads: int = 0
    delegate: Path | None = None
    delegate_options: tuple[tuple[str, str], ...] = ()
    runtime: str = ""
    gpu_precision: str = "fp16"
    fallback: bool = True
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.accelerator not in ACCELERATORS:
            raise UsageError(f"no accelerator is called {self.accelerator!r}", nearest(self.accelerator, ACCELERATORS))
        if self.runtime and self.runtime not in RUNTIMES:
            raise UsageError(f"no runtime is called {self.runtime!r}", nearest(self.runtime, RUNTIMES))
        if self.gpu_precision not in GPU_PRECISIONS:
            raise UsageError(f"no GPU precision is called {self.gpu_precision!r}", "choose fp16 or fp32")
        if not 0 <= self.threads <= MOST_THREADS:
            raise UsageError(f"--threads {self.threads} is not a number from 0 to {MOST_THREADS}", "0 means all cores")
        if not self.fallback and self.delegate is None and self.accelerator == "auto":
            raise UsageError("--no-fallback forbids what --accelerator auto is for", "add --gpu or --delegate LIBRARY")
        if self.delegate_options and self.delegate is None:
            raise UsageError("--delegate-option is for a delegate", "add --delegate LIBRARY")

    def settled(self, got: Accelerator) -> RuntimeOptions:
        """Return the options that ask for what an earlier load got: ``auto`` decides once."""
        if self.delegate is not None:
            return self
        return dataclasses.replace(
            self, accelerator=got.actual, gpu_precision=got.asked_precision or self.gpu_precision
        )


@dataclass(frozen=True)
class Accelerator:
    """What was asked for and what was really got, as the runtime itself tells it.

    ``requested`` and ``actual`` are ``cpu``, ``gpu`` or ``delegate`` (``requested`` also ``auto``); ``adapter`` is the
    GPU's or the delegate library's name, empty for the CPU; ``is_software`` is True for a GPU made of CPU threads
    (SwiftShader, llvmpipe); ``driver`` is the adapter's driver and its version; ``fallback_reason`` says why
    the CPU serves although something else was asked for, ``auto_reason`` why ``auto`` chose it; ``precision`` is the
    arithmetic of a GPU: ``fp32`` where ``fp16`` was asked for and the adapter has none. ``warning`` says why its
    answers are not to be trusted; ``asked_precision`` is the ``gpu_precision`` that a GPU was loaded with.
    """

    requested: str
    actual: str
    adapter: str = ""
    is_software: bool = False
    driver: str = ""
    fallback_reason: str = ""
    auto_reason: str = ""
    precision: str = ""
    warning: str = ""
    asked_precision: str = field(default="", compare=False, metadata=records.internal())

    def is_that_of(self, other: Accelerator) -> bool:
        """Whether both loads run on the same, so that their times may be compared."""
        return (self.actual, self.precision) == (other.actual, other.precision)

    def __str__(self) -> str:
        words = [self.adapter, "software" if self.is_software else "", "DOUBTFUL" if self.warning else ""]
        if self.fallback_reason:
            words = [f"not {self.requested}: {self.fallback_reason}"]
        within = ", ".join(word for word in words if word)
        return f"{self.actual} ({within})" if within else self.actual


@dataclass(frozen=True)
class Delegation:
    """How much of the graph an engine other than the plain kernels runs.

    ``engine`` is ``XNNPACK``, ``WebGPU`` or the delegate's name; ``delegated`` of ``operators`` run there, in
    ``partitions`` pieces (every border between pieces costs a copy); None where the engine does not tell.
    """

    engine: str
    operators: int
    delegated: int | None
    partitions: int | None
    left_reason: str = ""  # why an operator is left to the CPU, in the engine's words


@runtime_checkable
class Runtime(Protocol):
    """A loaded model. Use it as a context manager, or call ``close``."""

    name: str  # "litert" or "tflite-runtime"
    version: str
    input: TensorSpec  # the first, which is the only one of a classifier
    outputs: tuple[TensorSpec, ...]
    accelerator: Accelerator
    delegation: Delegation
    threads: int  # CPU threads really used
    chatter: str  # what the runtime said while it was created
    trial_ms: float  # what it took to try the accelerator before; 0 where that was not necessary or is remembered

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Run once and read every output: the time of this call is the whole time of an inference.

        Args:
            inputs: one array for each input, of its shape and dtype exactly (quantised inputs take quantised values).

        Returns:
            One array for each of ``outputs``, owned by the caller.
        """
        ...

    def close(self) -> None:
        """Give the model's memory back. May be called twice."""
        ...

    def __enter__(self) -> Runtime: ...

    def __exit__(self, *exc: object) -> None: ...
