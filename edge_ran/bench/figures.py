"""The parts of a benchmark's report. Times in milliseconds, memory in MB; None for what a device does not report."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_ran import records
from edge_ran.latency import LatencyStats


@dataclass(frozen=True)
class InputTensor:
    """The first input of a model."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ModelFacts:
    """The file that was measured. ``name`` and ``network`` are those of its card, None without one.

    ``multiply_adds`` is 0 where the file leaves the size of its input open.
    """

    path: str
    name: str | None
    network: str | None
    sha256: str
    size_bytes: int
    precision: str
    multiply_adds: int
    operators: int
    input: InputTensor


@dataclass(frozen=True)
class RuntimeFacts:
    """What ran the model, and on how many CPU threads."""

    name: str
    version: str
    threads: int


@dataclass(frozen=True)
class BenchLatency(LatencyStats):
    """Times of inferences one after another, every output read inside the timer.

    ``init_ms`` (loading) and ``warmup_runs`` are told again here for programs that read LiteRT's benchmark.
    """

    init_ms: float = field(default=0.0, kw_only=True)
    warmup_runs: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class ColdStart:
    """What the start costs. ``trial_ms`` is for trying the accelerator, which the next start remembers."""

    import_ms: float | None
    trial_ms: float | None
    load_ms: float
    first_run_ms: float | None


@dataclass(frozen=True)
class Warmup:
    """The runs before the first measurement; whether the times were steady at their end."""

    runs: int
    seconds: float | None
    is_steady: bool | None


@dataclass(frozen=True)
class StageTimes:
    """Median milliseconds of each stage of whole frames, from the picture file to the ranked labels."""

    capture_ms: float | None = field(metadata=records.key("capture"))
    preprocess_ms: float = field(metadata=records.key("preprocess"))
    inference_ms: float = field(metadata=records.key("inference"))
    postprocess_ms: float = field(metadata=records.key("postprocess"))
    end_to_end_ms: float = field(metadata=records.key("end_to_end"))


@dataclass(frozen=True)
class Timing:
    """How times were taken: with which ``clock``, whether it includes reading the outputs, and how the runs were split.

    The model was loaded ``sessions`` times; ``session_medians_ms`` are the medians of those. ``turns`` is how often it
    ran before another model, ``wall_per_run_ms`` the wall-clock time of all runs divided by their number.
    """

    includes_output_read: bool
    clock: str
    sessions: int
    turns: int
    session_medians_ms: tuple[float, ...]
    wall_ms: float | None = None
    wall_per_run_ms: float | None = None
    batch: int = 1


@dataclass(frozen=True)
class EnergyUse:
    """Energy of everything that ``sensor`` measures, at rest as well."""

    sensor: str | None = None
    joules_per_run: float | None = None


@dataclass(frozen=True)
class MemoryUse:
    """Resident memory of the process before loading, after it, and at its highest; ``huge_pages_mb`` of it in huge
    pages. ``loading_took_mb`` and ``running_took_mb`` are what another program reports as the model's own."""

    before_mb: float | None = None
    loaded_mb: float | None = None
    peak_mb: float | None = None
    huge_pages_mb: float | None = None
    loading_took_mb: float | None = None
    running_took_mb: float | None = None


@dataclass(frozen=True)
class Throughput:
    """10^9 multiply-adds a second (GMAC/s), and the most that this machine does: the fastest of the kernels that were
    measured on it for the model's arithmetic, times the cores in use. ``limit_kernel`` says which kernel that is."""

    inferences_per_s: float
    gmacs_per_s: float | None
    limit_gmacs_per_s: float | None = None
    limit_kernel: str | None = None

    @records.derived
    def percent_of_limit(self) -> float | None:
        """The share of the limit, in per cent."""
        if self.gmacs_per_s is None or not self.limit_gmacs_per_s:
            return None
        return 100 * self.gmacs_per_s / self.limit_gmacs_per_s


@dataclass(frozen=True)
class Validity:
    """Whether the figures are reliable, the ``reasons`` why not, and ``notes`` to give along with them."""

    reliable: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
