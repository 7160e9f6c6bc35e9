"""A GPU or a delegate is tried in a child process before it serves here: it may crash, hang or be wrong.

What a trial found is remembered for this file on this machine (``memory``), under everything that could change it: the
file, the adapters with their drivers or the delegate's library and options, the versions, the precision, the threads.
Of a delegate only success is remembered; what it lacks (a stick that is not plugged in) may be there the next time.
Of a GPU also time-outs and children that were killed: each start would wait again. The failure says how to forget it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import files, machine, records, vulkan
from edge_ran.errors import AcceleratorError, EnvironmentMissing, InputError
from edge_ran.files import TemporaryFolder
from edge_ran.graph import Graph, read_graph
from edge_ran.runtime import child_process, delegates, gpu, interpreter, trial_cache
from edge_ran.runtime.agreement import Agreement, allowed, check_finite, compare_all
from edge_ran.runtime.types import Accelerator, Delegation, Inputs, Runtime, RuntimeOptions

TIMEOUT_S = 120.0
BUDGET_S = 10.0  # of one accelerator's runs; a slow one is compared on fewer pictures
FEWEST_PICTURES = 4


@dataclass(frozen=True)
class Trial:
    """What came of trying an accelerator.

    ``failure`` says why it cannot serve; the rest is then unknown. ``is_broken``: it is there, but crashed, hung
    (``is_hung``) or failed. ``agreement`` and the milliseconds of a run, its own and the CPU's, are None where there
    were no pictures: such a trial proves that the accelerator runs, not that it is right. ``took_ms`` is what the trial
    itself took, 0 where it was remembered.
    """

    failure: str = ""
    is_broken: bool = False
    is_hung: bool = False
    accelerator: Accelerator | None = None
    delegation: Delegation | None = None
    agreement: Agreement | None = None
    ms: float | None = None
    cpu_ms: float | None = None
    took_ms: float = field(default=0.0, metadata=records.internal())
    is_remembered: bool = field(default=False, metadata=records.internal())

    @classmethod
    def from_record(cls, record: Any) -> Trial:
        """Make it of what ``record`` wrote. Raises InputError where it is something else."""
        found: Trial = records.read(cls, record, "trial")
        return found

    def record(self) -> dict[str, Any]:
        """Return it as JSON, to be remembered."""
        return records.to_dict(self)


def try_accelerator(graph: Graph, options: RuntimeOptions, inputs: Inputs | None) -> Trial:
    """Try the options' delegate, else the GPU, in a child process, or remember what came of it.

    Args:
        graph: the model.
        options: threads, runtime, delegate and GPU precision count.
        inputs: gives real inputs, each of the model's input shape and dtype; called only when there must be a trial.
            None: the accelerator is only proved to run.

    Raises:
        InputError: ``inputs`` found none.
        AcceleratorError: there is no such delegate library.
    """
    if reason := obstacle(graph, options):
        return Trial(reason)
    file = trial_cache.cache_file(
        model=files.sha256(graph.path),
        runtime=dataclasses.astuple(interpreter.package(options.runtime)),
        accelerator=_identity(options),
        threads=options.threads or machine.available_cores(),
        processor=machine.cpu_name(),  # whose time was the measure; a home may be shared by several machines
        pictures=inputs is not None,
        scores=graph.scores,
    )
    if record := trial_cache.load(file):
        with contextlib.suppress(InputError):  # a damaged one
            return _remembered(Trial.from_record(record), file)
    start = time.perf_counter()
    given = inputs() if inputs else ()
    try:
        found = attempt(graph, options, given)
    except EnvironmentMissing as error:  # no place for what the child process is given
        return Trial(f"{_name(options)} cannot be tried: {error}")
    # Also where it took too long or was killed for want of memory: each start would wait, or run short, again.
    if not (options.delegate and found.failure):
        trial_cache.store(file, found.record())
    return dataclasses.replace(found, took_ms=1e3 * (time.perf_counter() - start))


def _remembered(found: Trial, file: Path) -> Trial:
    again = f" (remembered; to try it again: rm {shlex.quote(str(file))})" if found.failure else ""
    return dataclasses.replace(found, failure=found.failure + again, is_remembered=True)


def _identity(options: RuntimeOptions) -> list[Any]:
    if options.delegate is not None:
        library = delegates.find(options.delegate)
        return [str(library), files.sha256(library) if library.is_file() else "", options.delegate_options]
    libraries = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in gpu.libraries()]
    return [options.gpu_precision, libraries, *(dataclasses.asdict(adapter) for adapter in vulkan.adapters()[0])]


def obstacle(graph: Graph, options: RuntimeOptions) -> str:
    """Return why a GPU or delegate need not even be tried; empty where nothing speaks against it."""
    package = interpreter.package(options.runtime)
    if options.delegate is not None:
        is_open = any(len(tensor.shape) == 4 and {1, 2, 3} & set(tensor.open_axes) for tensor in graph.inputs)
        return "the size of this model's input is not fixed" if is_open else ""
    if package.name != "litert":
        return f"{package.name} has no GPU of its own"
    if not all(tensor.fixed for tensor in (*graph.inputs, *graph.outputs)):
        return "the GPU needs fixed shapes, this model leaves them open"
    return vulkan.adapters()[1] if sys.platform == "linux" else ""


def attempt(graph: Graph, options: RuntimeOptions, inputs: Sequence[NDArray[Any]]) -> Trial:
    """Try the accelerator in a child process, in any case. Without inputs it runs once, on zeros.

    Raises EnvironmentMissing where the inputs cannot be written for the child.
    """
    with TemporaryFolder() as folder:
        pictures = Path(folder) / "inputs.npy"
        if len(inputs):
            with _writing(folder):
                np.save(pictures, np.stack(inputs))
        request = {
            "path": str(graph.path.resolve()),
            "options": _resolved(options),
            "inputs": str(pictures) if len(inputs) else "",
            "scores": graph.scores,
        }
        try:
            return Trial.from_record(child_process.ask(f"{__name__}:run_attempt", request, TIMEOUT_S, options.verbose))
        except child_process.ChildFailed as error:
            return Trial(f"{_name(options)} {error}", is_broken=True, is_hung=error.is_hung)


def run_attempt(path: str, options: Any, inputs: str, scores: int) -> dict[str, Any]:
    """Run the accelerator, and the CPU beside it where there are inputs, in the child. Returns a ``Trial``'s record."""
    graph, wanted = read_graph(path), records.read(RuntimeOptions, options, "options")
    pictures = np.load(inputs) if inputs else ()
    answers, ms = list[list[NDArray[Any]]](), None
    try:
        with _load(graph, wanted, plain=True) as runtime:
            got, delegation = runtime.accelerator, runtime.delegation
            if inputs:
                answers, ms = timed(runtime, pictures)
            else:
                runtime.run(*(np.zeros(tensor.shape, tensor.dtype) for tensor in graph.inputs))
    except AcceleratorError as error:
        return Trial(str(error)).record()
    except (InputError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        return Trial(f"{_name(wanted)} failed in its first run: {reason}", is_broken=True).record()
    if not inputs:
        return Trial(accelerator=got, delegation=delegation).record()
    package = interpreter.package(wanted.runtime)
    with interpreter.InterpreterRuntime(graph, package, wanted.threads, Accelerator("cpu", "cpu")) as cpu:
        reference, cpu_ms = timed(cpu, pictures[: len(answers)])
    try:
        check_finite(reference, graph.path)
    except InputError as error:
        return Trial(str(error)).record()
    most = allowed(graph.precision, got.precision)
    agreement = compare_all(reference, answers[: len(reference)], graph.outputs, most, scores)
    return Trial("", False, False, got, delegation, agreement, ms, cpu_ms).record()


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
        if len(outputs) >= FEWEST_PICTURES and time.perf_counter() - start > BUDGET_S:
            break
    return outputs, float(np.median(times_ms))


def answers(graph: Graph, options: RuntimeOptions, fed: Sequence[Sequence[NDArray[Any]]]) -> list[list[NDArray[Any]]]:
    """Run the options' delegate, else the GPU, in a child process.

    Args:
        graph: the model, or a part of it.
        options: as for ``try_accelerator``.
        fed: for each run, one array for each input.

    Returns:
        For each run, every output.

    Raises:
        AcceleratorError: it refuses the model, crashes or hangs.
        EnvironmentMissing: there is no space for the arrays.
    """
    with TemporaryFolder() as name:
        folder = Path(name)
        with _writing(name):
            for turn, arrays in enumerate(fed):
                np.savez(folder / f"in{turn}.npz", *arrays)
        request = {
            "path": str(graph.path.resolve()), "options": _resolved(options), "folder": name, "runs": len(fed),
        }  # fmt: skip
        try:
            said = child_process.ask(f"{__name__}:run_answers", request, TIMEOUT_S)
        except child_process.ChildFailed as error:
            raise AcceleratorError(f"{_name(options)} {error}") from error
        if "no_space" in said:  # no fault of the accelerator's
            raise EnvironmentMissing(said["no_space"], said["remedy"])
        if "error" in said:
            raise AcceleratorError(said["error"])
        return [_arrays(folder / f"out{turn}.npz") for turn in range(len(fed))]


def run_answers(path: str, options: Any, folder: str, runs: int) -> dict[str, Any]:
    """Run in the child; ``answers`` tells what."""
    place = Path(folder)
    try:
        with _load(read_graph(path), records.read(RuntimeOptions, options, "options")) as runtime:
            for turn in range(runs):
                outputs = runtime.run(*_arrays(place / f"in{turn}.npz"))
                with _writing(folder):
                    np.savez(place / f"out{turn}.npz", *outputs)
    except (AcceleratorError, InputError, RuntimeError) as error:
        return {"error": " ".join(str(error).split())}
    except EnvironmentMissing as error:
        return {"no_space": str(error), "remedy": error.remedy}
    return {}


@contextlib.contextmanager
def _writing(folder: str) -> Iterator[None]:
    """Turn what a full disk raises into EnvironmentMissing."""
    try:
        yield
    except OSError as error:
        raise files.cannot_write(Path(folder), error) from error


def _load(graph: Graph, options: RuntimeOptions, plain: bool = False) -> Runtime:
    if options.delegate is not None:
        return delegates.DelegateRuntime(graph, options, plain)
    package = interpreter.package(options.runtime)
    return gpu.GpuRuntime(graph, package, options.threads, options.gpu_precision)


def _name(options: RuntimeOptions) -> str:
    return f"delegate {delegates.find(options.delegate)}" if options.delegate else "the GPU"


def _resolved(options: RuntimeOptions) -> Any:
    """The options as JSON, with the delegate's library as the child finds it."""
    library = delegates.find(options.delegate) if options.delegate else None
    return records.to_dict(dataclasses.replace(options, delegate=library, verbose=False))


def _arrays(file: Path) -> list[NDArray[Any]]:
    with np.load(file) as found:
        return [found[name] for name in found.files]
