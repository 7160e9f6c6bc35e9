"""The report of a benchmark: figures, how they were measured, and whether they are reliable."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edge_ran import latency, records
from edge_ran.bench.compare import Ratio, ratio_of_reports
from edge_ran.bench.figures import (
    BenchLatency,
    ColdStart,
    EnergyUse,
    MemoryUse,
    ModelFacts,
    RuntimeFacts,
    StageTimes,
    Throughput,
    Timing,
    Validity,
    Warmup,
)
from edge_ran.bench.plan import Plan
from edge_ran.errors import InputError
from edge_ran.machine import Conditions, Machine
from edge_ran.printable import many
from edge_ran.runtime import Accelerator, Delegation

# Beyond these a figure is not reliable.
FEWEST_RUNS = 30
WIDEST_INTERVAL = 0.03
LARGEST_DRIFT = 0.05
MOST_OTHERS_BUSY = 0.25  # cores
MOST_STEAL = 0.1  # cores
WALL_WITHIN = 0.03
MOST_OF_THE_LIMIT = 1.25  # the limit is itself measured, on a machine that may be busy
LATENCY_COLUMNS = ("cold_ms", "p50_ms", "mean_ms", "std_ms", "p5_ms", "p90_ms", "p95_ms", "p99_ms")


@dataclass(frozen=True)
class BenchReport:
    """One model on one accelerator.

    ``latency`` is of inferences one after another; ``stages_ms`` are medians of whole frames, None for a model that is
    not an image classifier. ``plan`` is what was asked for, ``input`` what the model was fed with, ``device`` the name
    of the device, ``local`` for this machine. ``regression`` is the comparison with ``--baseline``, None without one.
    """

    SCHEMA_VERSION: ClassVar[int] = 2

    name: str
    model: ModelFacts
    accelerator: Accelerator
    delegation: Delegation
    runtime: RuntimeFacts
    latency: BenchLatency
    cold_start: ColdStart
    warmup: Warmup
    stages_ms: StageTimes | None
    timing: Timing
    energy: EnergyUse
    memory: MemoryUse
    throughput: Throughput
    environment: Machine
    conditions: Conditions
    plan: Plan
    input: str
    samples_ms: tuple[float, ...]
    device: str = "local"
    regression: Ratio | None = None

    @records.derived
    def validity(self) -> Validity:
        """Whether the figures are reliable, and why not."""
        reasons = (*_doubts_of_times(self), *_doubts_of_conditions(self), *_doubts_of_accelerator(self))
        return Validity(not reasons, reasons, _notes(self))

    @property
    def in_browser(self) -> bool:
        """Whether a page measured it, for a time that was set before."""
        return self.runtime.name == "LiteRT.js"


@dataclass(frozen=True)
class FailedDevice:
    """A device that could not be measured, and why; ``is_gate``: a gate that the user set was not met there."""

    device: str
    reason: str
    remedy: str = ""
    is_gate: bool = False


@dataclass(frozen=True)
class Bench:
    """Several models measured in turns, and the time of each compared with the first."""

    SCHEMA_VERSION: ClassVar[int] = BenchReport.SCHEMA_VERSION

    reports: tuple[BenchReport, ...] = field(metadata=records.key("models"))
    ratios: tuple[Ratio, ...] = ()
    failed: tuple[FailedDevice, ...] = ()

    def on(self, device: str) -> Bench:
        """Return the same as measured on ``device``."""
        return dataclasses.replace(self, reports=tuple(dataclasses.replace(one, device=device) for one in self.reports))

    def called(self, names: Sequence[str]) -> Bench:
        """Return the same with other names for the models."""
        reports = tuple(dataclasses.replace(one, name=name) for one, name in zip(self.reports, names, strict=True))
        ratios = zip(self.ratios, names[1:], strict=True)
        return Bench(reports, tuple(dataclasses.replace(r, name=name, baseline=names[0]) for r, name in ratios))

    @property
    def result(self) -> BenchReport | Bench:
        """What ``benchmark`` prints as JSON: one model's own report, or ``models``, ``ratios`` and ``failed``."""
        return self if self.reports[1:] or self.failed else self.reports[0]

    def document(self) -> dict[str, Any]:
        """Return the JSON of ``benchmark``."""
        return records.document(self.result)


def read_bench(value: Any, where: str = "report") -> Bench:
    """Return what ``Bench.document`` was made of, perhaps on another machine.

    Raises:
        InputError: it is no such record.
    """
    if not isinstance(value, dict) or "models" not in value:
        return Bench((check_figures(records.read_document(BenchReport, value, where)),))
    found = records.read_document(Bench, value, where)
    if not found.reports or len(found.ratios) != len(found.reports) - 1:
        raise InputError(f"{where}.ratios does not match {where}.models")
    for one in found.reports:
        check_figures(one)
    return found


def check_figures(report: BenchReport) -> BenchReport:
    """Return the report. Raises InputError where a figure of an untrusted record is impossible."""
    stats = report.latency
    bounds = (stats.p50_ms, stats.min_ms, *(stats.p50_interval_ms or ()))
    if stats.runs < 1 or not all(ms > 0 for ms in bounds):
        raise InputError(f"the latency in the report of {report.name:.40} holds no times")
    if report.stages_ms is not None and report.stages_ms.end_to_end_ms <= 0:
        raise InputError(f"the stages in the report of {report.name:.40} hold no times")
    return report


def across(benches: Mapping[str, Bench]) -> Bench:
    """Put what several devices measured, by their names, side by side: each report is compared with the first device's
    report of the same model."""
    first_device, first = next(iter(benches.items()))
    reports, ratios = [], []
    for device, bench in benches.items():
        for one, base in zip(bench.reports, first.reports, strict=True):
            name = device if len(first.reports) == 1 else f"{one.name} on {device}"
            reports.append(dataclasses.replace(one, name=name, device=device))
            if bench is not first:
                ratios.append(ratio_of_reports(name, one.latency, first_device, base.latency))
    return Bench(tuple(reports), tuple(ratios))


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return names for files: each file's own, with as many folders as it takes to tell them apart; the same file
    twice is numbered."""
    whole = [path.absolute() for path in paths]
    names = [
        next(
            "/".join(path.parts[-n:])
            for n in range(1, len(path.parts) + 1)
            if not any(other.parts[-n:] == path.parts[-n:] for other in whole if other != path)
        )
        for path in whole
    ]
    return [f"{name} ({names[:i].count(name) + 1})" if name in names[:i] else name for i, name in enumerate(names)]


def _doubts_of_times(report: BenchReport) -> tuple[str, ...]:
    stats, plan, found = report.latency, report.plan, []
    within = stats.relative_interval
    if plan.until and (within is None or within > plan.until):
        known = (
            "too few runs to know the median" if within is None else f"the median is known to ±{_percent(within)} only"
        )
        found.append(f"{known}: --until {100 * plan.until:g}% was not reached in {plan.max_secs:g} s: more --max-secs")
    elif stats.runs < FEWEST_RUNS:
        found.append(f"{many(stats.runs, 'run')} only, {FEWEST_RUNS} are needed")
    elif within is not None and within > WIDEST_INTERVAL:
        remedy = "more --num-runs" if report.in_browser else "more --num-runs, or --until 2%"
        found.append(f"the median is known to ±{_percent(within)} only: {remedy}")
    if report.warmup.is_steady is False:
        found.append(f"not steady after {report.warmup.runs} warm-up runs")
    drift = latency.drift(report.samples_ms)
    if stats.runs >= FEWEST_RUNS and abs(drift) > LARGEST_DRIFT:
        found.append(f"the last third ran {abs(drift):.0%} {_slower(drift)} than the first")
    drift = latency.drift(_session_medians(report))
    if abs(drift) > LARGEST_DRIFT:
        found.append(f"the last sessions ran {abs(drift):.0%} {_slower(drift)} than the first")
    if not report.timing.includes_output_read:
        found.append(f"{report.timing.clock} stops when the GPU is done: reading the outputs is not in its time")
    speed = report.throughput
    share, limit = speed.percent_of_limit, speed.limit_gmacs_per_s
    if share is not None and share > 100 * MOST_OF_THE_LIMIT:
        found.append(f"implausible: {speed.gmacs_per_s:.0f} GMAC/s, this machine does {limit:.0f} at most")
    return tuple(found)


def _doubts_of_conditions(report: BenchReport) -> tuple[str, ...]:
    around, machine, found = report.conditions, report.environment, []
    if around.throttled:
        found.append("the processor was throttled")
    if around.quota_stops:
        found.append(f"the container's CPU quota stopped it {around.quota_stops} times")
    if around.others_busy is not None and around.others_busy > MOST_OTHERS_BUSY:
        found.append(f"other processes kept {around.others_busy:.1f} cores busy")
    if around.steal is not None and around.steal > MOST_STEAL:
        found.append(f"the hypervisor gave {around.steal:.1f} cores to other machines")
    if report.runtime.threads > machine.cores and report.accelerator.actual == "cpu":
        found.append(f"{many(report.runtime.threads, 'thread')} on {many(machine.cores, 'core')}")
    if machine.emulated_on:
        found.append(f"{machine.architecture} is emulated on {machine.emulated_on}: it shows function, not speed")
    return tuple(found)


def _doubts_of_accelerator(report: BenchReport) -> tuple[str, ...]:
    accelerator, found = report.accelerator, []
    if accelerator.is_software:
        found.append(f"the GPU is software ({accelerator.adapter}): it shows function, not speed")
    if accelerator.fallback_reason:
        found.append(f"ran on {accelerator}")
    if accelerator.warning:
        found.append(accelerator.warning)
    return tuple(found)


def _notes(report: BenchReport) -> tuple[str, ...]:
    found = []
    waiting = (report.timing.wall_per_run_ms or 0) / report.latency.p50_ms
    if report.conditions.others_busy is None:
        found.append("the load from other processes is not known")
    if _session_medians(report):
        found.append(f"median and percentiles are the middle ones of {report.timing.sessions} sessions")
    if waiting > 1 + WALL_WITHIN:
        found.append(f"wall-clock time per run is {waiting:.2f} times the median: give the mean along with it")
    if report.environment.governor not in (None, "performance"):
        found.append(f"the clock policy is {report.environment.governor!r}")
    if report.accelerator.precision == "fp32":
        found.append("the GPU computed in fp32")
    if report.environment.virtual:
        found.append("this is a virtual machine: the load from others cannot be measured")
    if (battery := battery_words(report.conditions)) is not None:
        found.append(battery)
    if report.environment.cpu_quota_cores is not None:
        found.append(f"the container's CPU quota is {report.environment.cpu_quota_cores:g} cores")
    return tuple(found)


def battery_words(around: Conditions) -> str | None:
    """What is known of the battery, in words."""
    if around.battery_before is None or around.battery_after is None:
        return None
    course = f"{around.battery_before:.0%} at first, {around.battery_after:.0%} at the end"
    return f"the battery was being charged: {course}" if around.charging else f"it ran on its battery: {course}"


def _session_medians(report: BenchReport) -> tuple[float, ...]:
    """What a program tells that does not tell single times."""
    return () if report.samples_ms else report.timing.session_medians_ms


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %" if part < 0.995 else f"{100 * part:.0f} %"


def _slower(drift: float) -> str:
    return "slower" if drift > 0 else "faster"


def csv_lines(reports: Sequence[BenchReport]) -> str:
    """Return a CSV with a header and a line for each model."""
    rows = []
    for one in reports:
        low, high = one.latency.p50_interval_ms or (None, None)
        figures = {
            **{key: getattr(one.latency, key) for key in LATENCY_COLUMNS},
            "p50_low_ms": low,
            "p50_high_ms": high,
            "load_ms": one.cold_start.load_ms,
            "peak_mb": one.memory.peak_mb,
            "joules_per_run": one.energy.joules_per_run,
            "percent_of_limit": one.throughput.percent_of_limit,
        }
        rows.append(
            {
                "name": one.name,
                "device": one.device,
                "sha256": one.model.sha256,
                "precision": one.model.precision,
                "accelerator": str(one.accelerator),
                "runtime": f"{one.runtime.name} {one.runtime.version}",
                "threads": one.runtime.threads,
                "num_runs": one.latency.runs,
                **{key: "" if value is None else f"{value:.5g}" for key, value in figures.items()},
                "reliable": int(one.validity.reliable),
                "cpu": one.environment.cpu,
            }
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
