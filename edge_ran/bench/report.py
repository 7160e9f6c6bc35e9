"""What a benchmark says: figures, how they came about, and whether they may be quoted."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ran import __version__, latency, machine, records
from edge_ran.bench.compare import Ratio, ratio_of_devices
from edge_ran.errors import InputError
from edge_ran.latency import LatencyStats
from edge_ran.machine import Conditions
from edge_ran.runtime import Accelerator

SCHEMA_VERSION = 1
LATENCY_COLUMNS = (
    "cold_ms",
    "p50_ms",
    "p50_low_ms",
    "p50_high_ms",
    "mean_ms",
    "std_ms",
    "p5_ms",
    "p90_ms",
    "p95_ms",
    "p99_ms",
)
# Beyond these a figure is not to be quoted.
FEWEST_RUNS = 30
WIDEST_INTERVAL = 0.03
LARGEST_DRIFT = 0.05
MOST_OTHERS_BUSY = 0.25  # cores
MOST_STEAL = 0.1  # cores
WALL_WITHIN = 0.03
MOST_OF_THE_LIMIT = 1.25  # the limit is itself measured, on a machine that may be busy

# What a record made elsewhere must hold, as everything that shows it relies on it.
_FIGURE = float | None
FACTS = {
    "name": str,
    "device": str,
    "input": str,
    "model": {"path": str, "sha256": str, "size_bytes": int, "precision": str, "multiply_adds": int},
    "delegation": {"engine": str, "operators": int, "delegated": int | None, "partitions": int | None},
    "runtime": {"name": str, "version": str, "threads": int},
    "cold_start": {"load_ms": float, "first_run_ms": float},
    "warmup": {"runs": int, "steady": bool | None},
    "stages_ms": dict[str, _FIGURE] | None,
    "timing": {
        "includes_output_read": bool, "clock": str, "wall_per_run_ms": _FIGURE, "sessions": int,
    },
    "memory": {"before_mb": _FIGURE, "peak_mb": _FIGURE},
    "energy": {"sensor": str | None, "joules_per_run": _FIGURE},
    "throughput": {"gmacs_per_s": _FIGURE, "limit_gmacs_per_s": _FIGURE, "percent_of_limit": _FIGURE},
    "environment": {
        "board": str | None, "cpu": str, "cores": int, "os": str, "governor": str | None, "virtual": bool | None,
        "architecture": str,
    },
}  # fmt: skip
# What only some devices tell.
MORE_FACTS = (
    ("timing", "session_medians_ms", tuple[float, ...] | None),
    ("memory", "running_took_mb", _FIGURE),
    ("memory", "huge_pages_mb", _FIGURE),
    ("environment", "emulated_on", str | None),
    ("cold_start", "trial_ms", _FIGURE),
)
LATENCY_FACTS = {
    **dict.fromkeys(("avg_ms", "median_ms", "std_ms", "min_ms", "max_ms", "p5_ms", "p95_ms"), float),
    **dict.fromkeys(("median_interval_ms", "p90_interval_ms"), tuple[_FIGURE, ...]),
    **dict.fromkeys(("first_run_ms", "p90_ms", "p99_ms"), _FIGURE),
    "outliers": int | None,
    "num_runs": int,
}


@dataclass(frozen=True)
class BenchReport:
    """One model on one accelerator. Times in milliseconds, memory in MB, throughput in 10^9 multiply-adds a second.

    ``latency`` is of inferences back to back, every output read inside the timer; ``stages_ms`` are medians of whole
    frames, from the picture file to the ranked labels; None for a model that is not an image classifier. ``energy`` is
    all that its ``sensor`` feeds, at rest as well; None where the device tells nothing. ``device`` is
    the name it was called by, ``local`` for this machine.
    """

    name: str
    model: dict[str, Any]
    accelerator: Accelerator
    delegation: dict[str, Any]
    runtime: dict[str, Any]
    latency: LatencyStats
    cold_start: dict[str, float | None]
    warmup: dict[str, Any]
    stages_ms: dict[str, float | None] | None
    timing: dict[str, Any]
    energy: dict[str, Any]
    memory: dict[str, float | None]
    throughput: dict[str, float | None]
    environment: dict[str, Any]
    conditions: Conditions
    input: str
    samples_ms: tuple[float, ...]
    device: str = "local"

    @classmethod
    def from_dict(cls, record: Any) -> BenchReport:
        """Make a report of the record that ``to_dict`` gave, perhaps on another machine.

        Raises:
            InputError: it is no such record.
        """
        told = records.read({**FACTS, "latency": LATENCY_FACTS}, record, "report")
        figures = told["latency"]
        median, p90 = figures["median_interval_ms"], figures["p90_interval_ms"]
        samples = records.read(tuple[float, ...], told.get("samples_ms"), "report.samples_ms")
        if len(median) != 2 or len(p90) != 2 or figures["num_runs"] < 1 or figures["median_ms"] <= 0:
            raise InputError("report.latency holds no times")
        for part, key, kind in MORE_FACTS:
            records.read(kind, told[part].get(key), f"report.{part}.{key}")
        if told["throughput"]["percent_of_limit"] is not None and told["throughput"]["gmacs_per_s"] is None:
            raise InputError("report.throughput holds a share of nothing")
        if told["stages_ms"] and "end_to_end" not in told["stages_ms"]:
            raise InputError("report.stages_ms holds no whole frame")
        return cls(
            **{key: told[key] for key in FACTS},
            accelerator=records.read(Accelerator, told.get("accelerator"), "report.accelerator"),
            conditions=records.read(Conditions, told.get("conditions"), "report.conditions"),
            samples_ms=samples,
            latency=LatencyStats(
                runs=figures["num_runs"],
                cold_ms=figures["first_run_ms"],
                mean_ms=figures["avg_ms"],
                p50_ms=figures["median_ms"],
                p50_low_ms=median[0],
                p50_high_ms=median[1],
                p90_low_ms=p90[0],
                p90_high_ms=p90[1],
                **{key: figures[key] for key in ("std_ms", "min_ms", "max_ms", "p5_ms", "p90_ms", "p95_ms", "p99_ms")},
                outliers=figures["outliers"],
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON. ``latency`` has the keys that readers of LiteRT's benchmark know."""
        stats = self.latency
        return {
            "schema_version": SCHEMA_VERSION,
            "tool": f"edge-ran {__version__}",
            "name": self.name,
            "device": self.device,
            "model": self.model,
            "accelerator": dataclasses.asdict(self.accelerator),
            "delegation": self.delegation,
            "runtime": self.runtime,
            "latency": {
                "avg_ms": stats.mean_ms,
                "median_ms": stats.p50_ms,
                "median_interval_ms": [stats.p50_low_ms, stats.p50_high_ms],
                "std_ms": stats.std_ms,
                "min_ms": stats.min_ms,
                "max_ms": stats.max_ms,
                "p5_ms": stats.p5_ms,
                "p90_ms": stats.p90_ms,
                "p90_interval_ms": [stats.p90_low_ms, stats.p90_high_ms],
                "p95_ms": stats.p95_ms,
                "p99_ms": stats.p99_ms,
                "outliers": stats.outliers,
                "num_runs": stats.runs,
                "warmup_runs": self.warmup["runs"],
                "init_ms": self.cold_start["load_ms"],
                "first_run_ms": stats.cold_ms,
            },
            "cold_start": self.cold_start,
            "warmup": self.warmup,
            "stages_ms": self.stages_ms,
            "timing": self.timing,
            "energy": self.energy,
            "memory": self.memory,
            "throughput": self.throughput,
            "environment": self.environment,
            "conditions": dataclasses.asdict(self.conditions),
            "validity": self.validity(),
            "input": self.input,
            "samples_ms": [round(ms, 5) for ms in self.samples_ms],
        }

    def validity(self) -> dict[str, Any]:
        """Return ``quotable``, the ``reasons`` against it, and ``notes`` to quote along."""
        reasons, notes = [], []
        stats, around = self.latency, self.conditions
        if stats.runs < FEWEST_RUNS:
            reasons.append(f"{stats.runs} runs only, {FEWEST_RUNS} are needed")
        elif stats.relative_interval is not None and stats.relative_interval > WIDEST_INTERVAL:
            reasons.append(
                f"the median is known to ±{stats.relative_interval:.0%} only: more --num-runs, or --until 2%"
            )
        if self.warmup["steady"] is False:
            reasons.append(f"not steady after {self.warmup['runs']} warm-up runs")
        drift = latency.drift(self.samples_ms)
        if stats.runs >= FEWEST_RUNS and abs(drift) > LARGEST_DRIFT:
            reasons.append(f"the last third ran {abs(drift):.0%} {'slower' if drift > 0 else 'faster'} than the first")
        medians = () if self.samples_ms else self.timing.get("session_medians_ms") or ()
        drift = latency.drift(medians)
        if abs(drift) > LARGEST_DRIFT:
            reasons.append(
                f"the last sessions ran {abs(drift):.0%} {'slower' if drift > 0 else 'faster'} than the first"
            )
        if not self.timing["includes_output_read"]:
            reasons.append(f"{self.timing['clock']} stops when the GPU is done: reading the outputs is not in its time")
        if around.throttled:
            reasons.append("the processor was throttled")
        if around.others_busy is not None and around.others_busy > MOST_OTHERS_BUSY:
            reasons.append(f"other processes kept {around.others_busy:.1f} cores busy")
        if around.steal is not None and around.steal > MOST_STEAL:
            reasons.append(f"the hypervisor kept {around.steal:.1f} cores for others")
        if self.runtime["threads"] > self.environment["cores"] and self.accelerator.actual == "cpu":
            reasons.append(f"{self.runtime['threads']} threads on {self.environment['cores']} cores")
        share = self.throughput["percent_of_limit"]
        if share is not None and share > 100 * MOST_OF_THE_LIMIT:
            reasons.append(
                f"implausible: {self.throughput['gmacs_per_s']:.0f} GMAC/s, this machine does "
                f"{self.throughput['limit_gmacs_per_s']:.0f} at most"
            )
        if self.accelerator.is_software:
            reasons.append(f"the GPU is software ({self.accelerator.adapter}): it shows function, not speed")
        if self.accelerator.fallback_reason:
            reasons.append(f"ran on {self.accelerator}")
        if self.accelerator.warning:
            reasons.append(self.accelerator.warning)
        if real := self.environment.get("emulated_on"):
            reasons.append(f"{self.environment['architecture']} is emulated on {real}: it shows function, not speed")
        waiting = (self.timing["wall_per_run_ms"] or 0) / stats.p50_ms
        if around.others_busy is None:
            notes.append("what else ran there at the time is not known")
        if medians:
            notes.append(f"the median and the percentiles are the middle ones of {self.timing['sessions']} sessions")
        if waiting > 1 + WALL_WITHIN:
            notes.append(f"wall-clock time a run is {waiting:.2f} times the median: quote the mean, too")
        if self.environment["governor"] not in (None, "performance"):
            notes.append(f"the clock policy is {self.environment['governor']!r}")
        if self.accelerator.precision == "fp32":
            notes.append("the GPU computed in fp32")
        if self.environment["virtual"]:
            notes.append("a virtual machine: its neighbours are not seen")
        return {"quotable": not reasons, "reasons": reasons, "notes": notes}


@dataclass(frozen=True)
class Bench:
    """Several models measured in turns, and the time of each against the first."""

    reports: tuple[BenchReport, ...]
    ratios: tuple[Ratio, ...] = ()

    @classmethod
    def from_dict(cls, record: Any) -> Bench:
        """Make it of the record that ``to_dict`` gave. Raises InputError as ``BenchReport.from_dict``."""
        several = records.read({}, record, "report").get("models")
        if several is None:
            return cls((BenchReport.from_dict(record),))
        reports = tuple(map(BenchReport.from_dict, records.read(tuple[Any, ...], several, "report.models")))
        ratios = records.read(tuple[Ratio, ...], record.get("ratios"), "report.ratios")
        if not reports or len(ratios) != len(reports) - 1:
            raise InputError("report.ratios does not match report.models")
        return cls(reports, ratios)

    def on(self, device: str) -> Bench:
        """Return the same as measured on ``device``."""
        return Bench(tuple(dataclasses.replace(one, device=device) for one in self.reports), self.ratios)

    def called(self, names: Sequence[str]) -> Bench:
        """Return the same with the models called otherwise."""
        reports = tuple(dataclasses.replace(one, name=name) for one, name in zip(self.reports, names, strict=True))
        ratios = zip(self.ratios, names[1:], strict=True)
        return Bench(reports, tuple(dataclasses.replace(r, name=name, baseline=names[0]) for r, name in ratios))

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON: one model's own, or ``models`` and ``ratios``."""
        if len(self.reports) == 1:
            return self.reports[0].to_dict()
        return {
            "schema_version": SCHEMA_VERSION,
            "tool": f"edge-ran {__version__}",
            "models": [report.to_dict() for report in self.reports],
            "ratios": [dataclasses.asdict(ratio) for ratio in self.ratios],
        }


def across(benches: Mapping[str, Bench]) -> Bench:
    """Put what several devices measured, by their names, side by side: each report is held against the first device's
    of the same model."""
    first = next(iter(benches.values()))
    reports, ratios = [], []
    for device, bench in benches.items():
        for one, base in zip(bench.reports, first.reports, strict=True):
            name = device if len(first.reports) == 1 else f"{one.name} on {device}"
            reports.append(dataclasses.replace(one, name=name, device=device))
            if bench is not first:
                ratios.append(ratio_of_devices(name, one.latency, next(iter(benches)), base.latency))
    return Bench(tuple(reports), tuple(ratios))


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return what to call files: by their names, with as many folders as it takes to tell them apart; the same file
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


def throughput(multiply_adds: int, median_ms: float, precision: str, threads: int, on_cpu: bool) -> dict[str, Any]:
    """Return inferences and 10^9 multiply-adds a second, and the share of what this machine can do.

    The limit is that of the processor, for the arithmetic of the file's precision; None on another accelerator.
    """
    gmacs = multiply_adds / median_ms / 1e6
    peak = machine.peak_gmacs() if on_cpu and multiply_adds else None
    limit = None
    if peak is not None:
        speedup = {"int8": machine.int8_speedup(), "dynamic": machine.int8_speedup(), "mixed": machine.int8_speedup()}
        speedup["int16x8"] = speedup["fp16"] = 2
        limit = peak * speedup.get(precision, 1) * min(threads, machine.available_cores())
    return {
        "inferences_per_s": 1e3 / median_ms,
        "gmacs_per_s": gmacs if multiply_adds else None,
        "limit_gmacs_per_s": limit,
        "percent_of_limit": 100 * gmacs / limit if limit else None,
    }


def csv_lines(reports: Sequence[BenchReport]) -> str:
    """Return a CSV with a header and a line a model."""
    rows = [
        {
            "name": r.name,
            "device": r.device,
            "sha256": r.model["sha256"],
            "precision": r.model["precision"],
            "accelerator": str(r.accelerator),
            "runtime": f"{r.runtime['name']} {r.runtime['version']}",
            "threads": r.runtime["threads"],
            "num_runs": r.latency.runs,
            **{key: _number(getattr(r.latency, key)) for key in LATENCY_COLUMNS},
            "load_ms": _number(r.cold_start["load_ms"]),
            "peak_mb": _number(r.memory["peak_mb"]),
            "joules_per_run": _number(r.energy["joules_per_run"]),
            "percent_of_limit": _number(r.throughput["percent_of_limit"]),
            "quotable": int(r.validity()["quotable"]),
            "cpu": r.environment["cpu"],
        }
        for r in reports
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
