"""Where the time goes: each operator of a ``.tflite`` run alone, and added up by kind and by place in the paper.

Runtimes give the whole graph to XNNPACK and report nothing of its inside. So every operator is cut out into a model of
its own and timed with the same runtime and threads. Alone, it pays for a call of its own, about a microsecond: what a
call costs is measured with neighbours run together and apart, and subtracted. Alone, it also finds its data in the
caches; ``accounted`` is the sum divided by the whole network's time: near 1, the shares can be trusted.
"""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edge_ran import layer_names, machine, records
from edge_ran.bench.figures import ModelFacts, RuntimeFacts
from edge_ran.bench.measure import model_facts
from edge_ran.errors import InputError
from edge_ran.files import read_bytes
from edge_ran.graph import Graph, read_graph
from edge_ran.graph.soundness import check_runnable
from edge_ran.graph.subgraph import computing, cut
from edge_ran.latency import steady
from edge_ran.runtime import first_load, huge_pages, interpreter, output_capture

FEWEST_RUNS, LEAST_SECONDS, MOST_RUNS = 10, 0.02, 300
PAIRS = 9  # of neighbours that are run together
LEAST_MS = 1e-5  # an operator takes some time, even if less than a call's cost varies


@dataclass(frozen=True)
class OperatorTime:
    """One operator: its median milliseconds when run alone, less the time of a call, and what it computes.

    ``place`` is where it is in the paper's network, ``shape`` that of its output.
    """

    index: int
    name: str
    place: str
    shape: tuple[int, ...] = field(metadata=records.key("output"))
    multiply_adds: int
    ms: float

    @records.derived
    def gmacs_per_s(self) -> float | None:
        """10^9 multiply-adds a second."""
        return self.multiply_adds / self.ms / 1e6 if self.multiply_adds else None


@dataclass(frozen=True)
class Profile:
    """Where the time of a model goes. ``whole_ms`` is the network's median before and after, ``call_ms`` what a call of
    the runtime costs, which is in no operator's time; ``failed`` lists operators that cannot run alone."""

    SCHEMA_VERSION: ClassVar[int] = 2

    model: ModelFacts
    runtime: RuntimeFacts
    environment: machine.Machine
    operators: tuple[OperatorTime, ...]
    whole_ms: float
    call_ms: float
    failed: tuple[str, ...] = ()

    @records.derived
    def accounted(self) -> float:
        """The sum of the operators' times divided by the network's time."""
        return sum(o.ms for o in self.operators) / self.whole_ms

    @records.derived
    def by_operator(self) -> dict[str, float]:
        """Milliseconds by kind of operator."""
        return self.by(lambda o: o.name)

    @records.derived
    def by_place(self) -> dict[str, float]:
        """Milliseconds by place in the paper's network."""
        return self.by(lambda o: o.place)

    def by(self, get: Callable[[OperatorTime], str]) -> dict[str, float]:
        """Return milliseconds added up by whatever ``get`` gives, in the order of first appearance."""
        sums: dict[str, float] = defaultdict(float)
        for operator in self.operators:
            sums[get(operator)] += operator.ms
        return dict(sums)


def read_profile(value: Any) -> Profile:
    """Return the profile that another machine's ``records.document`` describes. Raises InputError where it is none."""
    found = records.read_document(Profile, value, "profile")
    if not found.operators or not all(o.ms > 0 for o in found.operators) or found.whole_ms <= 0:
        raise InputError("profile.operators holds no times")
    return found


def profile(
    path: Path, threads: int = 1, *, runtime: str = "", progress: Callable[[int, int], None] | None = None
) -> Profile:
    """Time every operator of a model alone, on the CPU.

    Args:
        path: a ``.tflite``.
        threads: CPU threads; 0 = every core.
        runtime: ``litert`` or ``tflite-runtime``; empty = the preferred one.
        progress: called with (operators done, operators).

    Raises:
        InputError: not a model, one whose input has no fixed size, or the runtime does not run it.
        EnvironmentMissing: no runtime.
    """
    graph = read_graph(path)
    data = read_bytes(path, "model")
    package = interpreter.package(runtime)
    module = interpreter.load(package)
    if graph.has_open_size:
        raise InputError(
            f"{path} leaves the size of its input open: its operators cannot be timed",
            f"time it as a whole: edge-ran benchmark {shlex.quote(str(path))} --input-size 224x224",
        )
    check_runnable(graph)
    first_load.check(graph, package)
    threads = threads or machine.available_cores()
    found, failed = [], []
    before = _time_whole(path, module, data, threads)
    operators = computing(graph)
    for number, operator in enumerate(operators, start=1):
        try:
            if not operator.outputs:
                raise ValueError("it has no output, so it cannot run alone")
            ms = _time(module, cut(data, graph, [operator]), threads)
        except (RuntimeError, ValueError) as error:
            failed.append(f"{operator.index} {operator.name}: {' '.join(str(error).split())[:200]}")
        else:
            found.append(
                OperatorTime(
                    operator.index,
                    operator.name,
                    layer_names.place_of_tensor(operator.outputs[0].name),
                    operator.outputs[0].shape,
                    operator.multiply_adds,
                    ms,
                )
            )
        if progress is not None:
            progress(number, len(operators))
    call_ms = _call(module, data, graph, {o.index: o.ms for o in found}, threads)
    parts = tuple(dataclasses.replace(o, ms=max(LEAST_MS, o.ms - call_ms)) for o in found)
    after = _time_whole(path, module, data, threads)
    return Profile(
        model=model_facts(graph),
        runtime=RuntimeFacts(package.name, package.version, threads),
        environment=machine.identity(),
        operators=parts,
        whole_ms=(before + after) / 2,
        call_ms=call_ms,
        failed=tuple(failed),
    )


def _call(module: Any, data: bytes, graph: Graph, alone_ms: dict[int, float], threads: int) -> float:
    """Milliseconds that a call costs: a quick operator and the next, each alone, less both together; the median."""
    known = [o for o in computing(graph) if o.index in alone_ms]
    pairs = [
        (first, second)
        for first, second in itertools.pairwise(known)
        if {t.index for t in first.outputs} & {t.index for t in second.inputs}
    ]
    pairs.sort(key=lambda pair: sum(alone_ms[o.index] for o in pair))
    saved = []
    for pair in pairs[:PAIRS]:
        try:
            together = _time(module, cut(data, graph, pair), threads)
        except (RuntimeError, ValueError):
            continue
        saved.append(sum(alone_ms[o.index] for o in pair) - together)
    return max(0.0, float(np.median(saved))) if saved else 0.0


def _time_whole(path: Path, module: Any, model: bytes, threads: int) -> float:
    try:
        return _time(module, model, threads)
    except (RuntimeError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split()) or "it takes too much memory"
        remedy = f"look at it: edge-ran inspect {shlex.quote(str(path))}"
        raise InputError(f"{path} cannot be timed with random inputs: {reason}", remedy) from error


def _time(module: Any, model: bytes, threads: int) -> float:
    """Median milliseconds of a run, the inputs random."""
    with output_capture.captured(), huge_pages.gathered():  # as the runtime loads it
        runner = module.Interpreter(model_content=model, num_threads=threads)
        runner.allocate_tensors()
    random = np.random.default_rng(0)
    for detail in runner.get_input_details():
        dtype = np.dtype(detail["dtype"])
        if np.issubdtype(dtype, np.floating):
            values = random.standard_normal(detail["shape"]).astype(dtype)
        else:
            values = random.integers(0, 100, detail["shape"]).astype(dtype)
        runner.set_tensor(detail["index"], values)
    # On one thread its own processor time: it leaves out what other processes do in between.
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    times: list[float] = []
    warm, begun = 0, time.perf_counter()
    while len(times) - warm < FEWEST_RUNS or time.perf_counter() - begun < LEAST_SECONDS:
        start = clock()
        runner.invoke()
        times.append((clock() - start) / 1e6)
        if not warm and (steady(times, 3, 0.1) or len(times) >= 30):
            warm, begun = len(times), time.perf_counter()
        if len(times) - warm >= MOST_RUNS:
            break
    return float(np.median(times[warm:]))
