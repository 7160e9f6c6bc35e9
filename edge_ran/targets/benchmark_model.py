"""The official ``benchmark_model`` of TensorFlow Lite and of LiteRT: what to ask of it, and what its output means.

Two programs have that name, and their words differ:

- TensorFlow Lite's (``tflite/tools/benchmark``) times ``Invoke``. A GPU delegate's ``Invoke`` copies the inputs there
  and every output back and waits for both (``delegates/gpu/delegate.cc``, ``cl/api.cc``): its GPU times are whole.
- LiteRT's (``litert/tools/benchmark_litert_model``) times ``CompiledModel::Run``, which waits for the GPU's end
  (benchmark mode) but leaves the outputs there: reading them is not in its GPU times.

Both feed random numbers, unless TensorFlow Lite's is given files; both ignore a flag that they do not know, and name it
after "Unconsumed cmdline flags". On Android each delegate says which nodes it replaces: that, never the request, tells
what ran. The formats are those of LiteRT's sources of August 2026 and of TensorFlow's since 2.4; those that
tell no median are too old.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

COUNT = re.compile(r"\bcount=(?P<count>\d+)\b(?P<rest>.*)")
PAIR = re.compile(r"\b(?P<name>first|curr|min|max|avg|std|p5|median|p95)=(?P<value>[-+\d.e]+)")
TIMINGS = re.compile(r"Inference timings in us: Init: (?P<init>[\d.e+]+), First inference: (?P<first>[\d.e+]+)")
MEMORY = re.compile(r"Memory footprint delta .*\(MB\): init=(?P<init>[-\d.e+]+) overall=(?P<overall>[-\d.e+]+)")
PEAK = re.compile(r"(?:Overall peak memory footprint \(MB\) .*:|Peak memory:)\s+(?P<mb>[\d.e+]+)")
LITERT = re.compile(
    r"(?P<name>Model initialization|Warmup \(first\)|Init footprint|Overall footprint):\s+(?P<v>\d{1,12}(?:\.\d+)?) m",
    re.I,
)
REPLACING = re.compile(
    r"Replacing (?P<taken>\d+)(?: out of (?P<of>\d+))? node\(s\) with delegate \((?P<name>[^)]*)\)"
    r"(?: node, yielding (?P<partitions>\d+) partitions)?"
)
APPLIED = re.compile(
    r"Explicitly applied (?P<name>\w+) delegate, and the model graph will be (?P<share>completely|partially) executed"
    r"(?: by the delegate w/ (?P<kernels>\d+) delegate kernels)?"
)
NOT_APPLIED = re.compile(r"Though (?P<name>\w+) delegate is explicitly applied, the model graph will not be executed")
BACKEND = re.compile(r"Initialized (?P<name>\w+)-based API|Created (?P<litert>OpenCL|OpenGL|Vulkan|WebGPU) device")
UNKNOWN = re.compile(r"Unconsumed cmdline flags: (?P<flags>.*)")
LEFT = re.compile(r"not supported by (?P<name>\w+) delegate:")
GPU = re.compile(r"gpu|litert_(cl|gl|vk|vulkan|webgpu)", re.IGNORECASE)
XNNPACK = re.compile(r"xnn|ynn", re.IGNORECASE)
SEVERITY = re.compile(r"^(INFO|WARN|WARNING|ERROR|FATAL|VERBOSE): (\[[^\]]*\] )?")
# What says why an accelerator was not had, or why nothing was; the most telling first.
REASONS = (
    re.compile(r"TfLiteGpuDelegate \w+: .*"),
    re.compile(r"GPU acceleration is unsupported on this platform"),
    re.compile(r"^(ERROR|FATAL): (?!Benchmarking failed|Following operations).*"),
    re.compile(r"CANNOT LINK EXECUTABLE.*"),
)
LONGEST_MS, MOST_RUNS = 1e7, 10**9


@dataclass(frozen=True)
class Request:
    """What is asked of one run of the program. ``gpu_precision`` is ``fp16`` or ``fp32``."""

    num_runs: int = 50
    warmup_runs: int = 5
    min_secs: float = 1.0
    max_secs: float = 150.0
    warmup_secs: float = 0.5
    threads: int = 1
    gpu: bool = False
    gpu_precision: str = "fp16"

    def flags(self, model: str) -> list[str]:
        """Return the command's flags, for both programs: each ignores those of the other."""
        delegate = ["--use_gpu=false", "--use_xnnpack=true"]
        if self.gpu:
            loses = str(self.gpu_precision == "fp16").lower()
            delegate = [
                "--use_gpu=true", f"--gpu_precision_loss_allowed={loses}", f"--gpu-precision={self.gpu_precision}"
            ]  # fmt: skip
        return [
            f"--graph={model}",
            f"--num_runs={self.num_runs}",
            f"--warmup_runs={self.warmup_runs}",
            f"--min_secs={self.min_secs:g}",
            f"--max_secs={self.max_secs:g}",
            f"--warmup_min_secs={self.warmup_secs:g}",
            f"--num_threads={self.threads}",
            *delegate,
        ]


@dataclass(frozen=True)
class Times:
    """The times of ``runs`` runs in milliseconds."""

    runs: int
    first_ms: float
    mean_ms: float
    std_ms: float
    min_ms: float
    max_ms: float
    p5_ms: float
    median_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Delegate:
    """What a delegate says it took: ``taken`` of ``of`` nodes, in ``kernels`` pieces; None where it does not tell."""

    name: str
    taken: int | None
    of: int | None
    kernels: int | None

    @property
    def is_gpu(self) -> bool:
        return bool(GPU.search(self.name))


@dataclass(frozen=True)
class Output:
    """What one run of the program said."""

    program: str  # "TFLite benchmark_model" or "LiteRT benchmark_model"
    times: Times | None  # these three are None where it did not come to its end
    warmup: Times | None
    init_ms: float | None
    is_too_old: bool  # it tells no median
    init_mb: float | None
    overall_mb: float | None
    peak_mb: float | None
    delegates: tuple[Delegate, ...]
    backend: str  # of the GPU: "OpenCL", "OpenGL"
    left_reason: str  # why an operator is left to the CPU
    unknown_flags: tuple[str, ...]
    reason: str  # why an accelerator was not had, or why it failed, in its words

    @property
    def gpu(self) -> Delegate | None:
        """The GPU's delegate, where one runs a part of the model."""
        return next((d for d in self.delegates if d.is_gpu and d.taken != 0), None)

    @property
    def engine(self) -> Delegate | None:
        """What runs most of the model: the GPU, else XNNPACK, else None."""
        return self.gpu or next((d for d in self.delegates if XNNPACK.search(d.name)), None)

    @property
    def includes_output_read(self) -> bool:
        """Whether the outputs are in the processor's memory when the clock stops."""
        return self.gpu is None or not self.program.startswith("LiteRT")


def read(lines: Sequence[str]) -> Output:
    """Read the lines that the program printed, output and errors together."""
    plain = [SEVERITY.sub("", line) for line in lines]
    counts = [times for times in map(_times, plain) if times is not None]
    litert = {m["name"]: float(m["v"]) for m in _found(LITERT, plain)}
    is_litert = "Model initialization" in litert or any("BENCHMARK RESULTS" in line for line in plain)
    timings = next(_found(TIMINGS, plain), None)
    memory = next(_found(MEMORY, plain), None)
    peak = next(_found(PEAK, plain), None)
    backend = next(_found(BACKEND, plain), None)
    left = next((i for i, line in enumerate(plain) if LEFT.search(line)), None)
    init_us = _number(timings["init"]) if timings else None
    init_ms = init_us / 1e3 if init_us is not None else litert.get("Model initialization")
    ended = len(counts) > 1 and init_ms is not None and 0 <= init_ms < LONGEST_MS
    return Output(
        program="LiteRT benchmark_model" if is_litert else "TFLite benchmark_model",
        times=counts[-1] if ended else None,
        warmup=counts[0] if ended else None,
        init_ms=init_ms if ended else None,
        is_too_old=not counts and any(COUNT.search(line) for line in plain),
        init_mb=_number(memory["init"]) if memory else litert.get("Init footprint"),
        overall_mb=_number(memory["overall"]) if memory else litert.get("Overall footprint"),
        peak_mb=_number(peak["mb"]) if peak else None,
        delegates=_delegates(plain),
        backend=(backend["name"] or backend["litert"]) if backend else "",
        left_reason=plain[left + 1].strip()[:200] if left is not None and left + 1 < len(plain) else "",
        unknown_flags=tuple(flag for m in _found(UNKNOWN, plain) for flag in m["flags"].split()),
        reason=_reason(lines),
    )


def _times(line: str) -> Times | None:
    """Read ``count=50 first=119 curr=119 min=… max=… avg=… std=… p5=… median=… p95=…``, in microseconds."""
    match = COUNT.search(line)
    if match is None or not 0 < int(match["count"]) < MOST_RUNS:
        return None
    said = {m["name"]: _number(m["value"]) for m in PAIR.finditer(match["rest"])}
    ms = {name: us / 1e3 for name, us in said.items() if us is not None and 0 <= us < 1e3 * LONGEST_MS}
    if not {"curr", "p5", "median", "p95"} <= ms.keys() or not ms["median"] or not ms.get("avg", ms["curr"]):
        return None
    only = ms["curr"]  # of one run, or where all are the same, it prints no more
    return Times(
        runs=int(match["count"]),
        first_ms=ms.get("first", only),
        mean_ms=ms.get("avg", only),
        std_ms=ms.get("std", 0.0),
        min_ms=ms.get("min", only),
        max_ms=ms.get("max", only),
        p5_ms=ms["p5"],
        median_ms=ms["median"],
        p95_ms=ms["p95"],
    )


def _delegates(plain: Sequence[str]) -> tuple[Delegate, ...]:
    """Every delegate that took nodes, or was applied, in its order; of two lines on one, both are used."""
    found: dict[str, Delegate] = {}
    for line in plain:
        if match := REPLACING.search(line):
            taken = int(match["taken"])
            of = int(match["of"]) if match["of"] else None
            kernels = 1 if taken == of else None
            kind = _kind(match["name"])
            found[kind] = Delegate(match["name"][:60], taken, of, kernels)
        elif match := APPLIED.search(line):
            kind = _kind(match["name"])
            before = found.get(kind, Delegate(match["name"], None, None, None))
            kernels = int(match["kernels"]) if match["kernels"] else 1
            found[kind] = Delegate(before.name, before.taken, before.of, kernels)
        elif match := NOT_APPLIED.search(line):
            kind = _kind(match["name"])
            found[kind] = Delegate(match["name"], 0, None, 0)
    return tuple(found.values())


def _kind(name: str) -> str:
    return "gpu" if GPU.search(name) else "xnnpack" if XNNPACK.search(name) else name


def _reason(lines: Sequence[str]) -> str:
    for pattern in REASONS:
        for line in lines:
            if match := pattern.search(line):
                return SEVERITY.sub("", match[0])[:200].strip().rstrip(".")
    return ""


def _found(pattern: re.Pattern[str], lines: Iterable[str]) -> Iterator[re.Match[str]]:
    return filter(None, map(pattern.search, lines))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
