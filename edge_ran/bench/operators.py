"""Where the time goes: each operator of a ``.tflite`` run alone, and added up by kind and by place in the paper.

Runtimes hand the whole graph to XNNPACK and tell nothing of its inside. So every operator is cut out into a model of
its own and timed with the same runtime and threads. Alone, an operator finds its data in the caches, and pays for a
call of its own (about a microsecond); ``accounted`` says how the sum compares with the whole network's time: near 1,
the shares can be trusted.
"""

from __future__ import annotations

import re
import struct
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tflite

from edge_ran import machine
from edge_ran.errors import EnvironmentMissing
from edge_ran.files import read_bytes
from edge_ran.graph import Graph, Operator, read_graph
from edge_ran.latency import steady
from edge_ran.runtime import chatter, interpreter

# Slots of the SubGraph table in the schema's virtual tables (tensorflow/lite schema.fbs).
INPUTS, OUTPUTS, OPERATORS = 6, 8, 10
FEWEST_RUNS, LEAST_SECONDS, MOST_RUNS = 10, 0.02, 300


@dataclass(frozen=True)
class OperatorTime:
    """One operator: its median milliseconds alone and what it computes."""

    index: int
    name: str
    place: str
    shape: tuple[int, ...]
    multiply_adds: int
    ms: float


@dataclass(frozen=True)
class Profile:
    """``whole_ms`` is the network's median before and after; ``failed`` lists operators that do not run alone."""

    operators: tuple[OperatorTime, ...]
    whole_ms: float
    threads: int
    failed: tuple[str, ...] = ()

    @property
    def accounted(self) -> float:
        """The operators' sum as a part of the network's time."""
        return sum(o.ms for o in self.operators) / self.whole_ms

    def by(self, get: Callable[[OperatorTime], str]) -> dict[str, float]:
        """Return milliseconds added up by whatever ``get`` gives, in the order of first appearance."""
        sums: dict[str, float] = defaultdict(float)
        for operator in self.operators:
            sums[get(operator)] += operator.ms
        return dict(sums)

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return {
            "whole_ms": self.whole_ms,
            "accounted": self.accounted,
            "threads": self.threads,
            "by_operator": self.by(lambda o: o.name),
            "by_place": self.by(lambda o: o.place),
            "operators": [
                {
                    "index": o.index,
                    "name": o.name,
                    "place": o.place,
                    "output": list(o.shape),
                    "multiply_adds": o.multiply_adds,
                    "ms": o.ms,
                    "gmacs_per_s": o.multiply_adds / o.ms / 1e6 if o.multiply_adds else None,
                }
                for o in self.operators
            ],
            "failed": list(self.failed),
        }


def place(tensor: str) -> str:
    """Return where in the paper a tensor is made, by its layer's name: ``stage1 module2 trunk``, ``stem``, ``tail``.

    Layers of other networks are put together by their names less the number.
    """
    layer = tensor.partition(";")[0].partition("/")[2].partition("/")[0] or tensor
    words = layer.split("_")
    if words[0] == "stem" or layer.startswith(("tfl.", "serving_default")):
        return "stem"
    if words[0] in ("pool", "logits", "probabilities") or layer.startswith(("Identity", "StatefulPartitionedCall")):
        return "classifier"
    if words[0] == "tail":
        return "tail"
    if re.fullmatch(r"stage\d+", words[0]) and len(words) > 2 and words[1].startswith("module"):
        return f"{words[0]} {words[1]} {'gate' if words[2] == 'residual' else words[2]}"
    if re.fullmatch(r"stage\d+", words[0]) and len(words) > 1:
        return f"{words[0]} {words[1]}"
    return re.sub(r"_?\d+$", "", layer)


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
        InputError: not a model.
        EnvironmentMissing: no runtime, or no room for a copy of the model in the temporary folder.
    """
    graph = read_graph(path)
    data = read_bytes(path, "model")
    module = interpreter.load(interpreter.package(runtime))
    threads = threads or machine.available_cores()
    found, failed = [], []
    try:
        with tempfile.TemporaryDirectory(prefix="edge-ran-") as folder:
            before = _time(module, path, threads)
            copy = Path(folder) / "operator.tflite"
            copy.write_bytes(data)
            cut = _Cut(data, graph)
            for number, operator in enumerate(graph.operators):
                with open(copy, "r+b") as file:
                    cut.write(file, operator)
                try:
                    ms = _time(module, copy, threads)
                except (RuntimeError, ValueError) as error:
                    failed.append(f"{operator.index} {operator.name}: {' '.join(str(error).split())[:200]}")
                    continue
                finally:
                    if progress is not None:
                        progress(number + 1, len(graph.operators))
                output = operator.outputs[0]
                found.append(
                    OperatorTime(
                        operator.index, operator.name, place(output.name), output.shape, operator.multiply_adds, ms
                    )
                )
            after = _time(module, path, threads)
    except OSError as error:
        raise EnvironmentMissing(f"no room to take {path} apart: {error.strerror or error}", "set TMPDIR") from error
    return Profile(tuple(found), (before + after) / 2, threads, tuple(failed))


class _Cut:
    """Turns a copy of a model's file into one of its operators, by changing a few bytes.

    Vectors of a FlatBuffer are a length and elements that point forward, relative to where they stand. So the vector
    of operators is narrowed to one by writing a length just before its element and pointing there; new vectors of
    inputs and outputs go behind the end.
    """

    def __init__(self, data: bytes, graph: Graph) -> None:
        self.data = data
        subgraph = tflite.Model.GetRootAs(data, 0).Subgraphs(0)
        table = subgraph._tab
        self.fields = {slot: table.Pos + table.Offset(slot) for slot in (INPUTS, OUTPUTS, OPERATORS)}
        self.elements = table.Vector(table.Offset(OPERATORS))
        self.end = (len(data) + 3) // 4 * 4
        self.dirty: list[tuple[int, int]] = []

    def write(self, file: Any, operator: Operator) -> None:
        """Make ``file``, which holds the model or another operator of it, the model of this operator."""
        for position, length in self.dirty:
            file.seek(position)
            file.write(self.data[position : position + length])
        self.dirty = []
        start = self.elements + 4 * operator.index - 4
        self._put(file, start, 1)
        self._put(file, self.fields[OPERATORS], start - self.fields[OPERATORS])
        tail = self.end
        inputs = list(dict.fromkeys(t.index for t in operator.inputs if not t.constant))
        for slot, tensors in ((INPUTS, inputs), (OUTPUTS, [t.index for t in operator.outputs])):
            self._put(file, self.fields[slot], tail - self.fields[slot])
            file.seek(tail)
            file.write(struct.pack(f"<{1 + len(tensors)}i", len(tensors), *tensors))
            tail += 4 * (1 + len(tensors))
        file.truncate(tail)

    def _put(self, file: Any, position: int, value: int) -> None:
        file.seek(position)
        file.write(struct.pack("<I", value))
        self.dirty.append((position, 4))


def _time(module: Any, path: Path, threads: int) -> float:
    """Median milliseconds of a run of the model at ``path``, its inputs random."""
    with chatter.captured():
        model = module.Interpreter(model_path=str(path), num_threads=threads)
        model.allocate_tensors()
    random = np.random.default_rng(0)
    for detail in model.get_input_details():
        dtype = np.dtype(detail["dtype"])
        if np.issubdtype(dtype, np.floating):
            values = random.standard_normal(detail["shape"]).astype(dtype)
        else:
            values = random.integers(0, 100, detail["shape"]).astype(dtype)
        model.set_tensor(detail["index"], values)
    # On one thread its own processor time: it leaves out what other processes do in between.
    clock = time.thread_time_ns if threads == 1 else time.perf_counter_ns
    times: list[float] = []
    warm, begun = 0, time.perf_counter()
    while len(times) - warm < FEWEST_RUNS or time.perf_counter() - begun < LEAST_SECONDS:
        start = clock()
        model.invoke()
        times.append((clock() - start) / 1e6)
        if not warm and (steady(times, 3, 0.1) or len(times) >= 30):
            warm, begun = len(times), time.perf_counter()
        if len(times) - warm >= MOST_RUNS:
            break
    return float(np.median(times[warm:]))
