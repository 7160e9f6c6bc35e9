"""The same network with several settings: numbers of threads, precisions, accelerators."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edge_ran import catalogue, records
from edge_ran.bench.compare import Ratio, ratio_of_sessions
from edge_ran.bench.measure import BenchModel
from edge_ran.bench.report import Bench, BenchReport, check_figures
from edge_ran.errors import InputError, UsageError
from edge_ran.runtime import RuntimeOptions

EXAMPLES = {"precision": "--precision int8,fp16", "accelerator": "--accelerator cpu,gpu", "threads": "--threads 1,2,4"}


@dataclass(frozen=True)
class Accuracy:
    """Top-1 of labelled pictures, 0..1, and what holds the true one with 95 % confidence; None where not measured."""

    top1: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Setting:
    """One combination. ``precision`` is as typed, a name or a converter's ``.toml``; empty: the file is not varied."""

    path: Path
    precision: str
    options: RuntimeOptions

    @property
    def name(self) -> str:
        threads = f" {self.options.threads or 'all'}T" if self.options.accelerator != "gpu" else ""
        return f"{self.path.stem} {self.options.accelerator}{threads}"

    @property
    def subject(self) -> BenchModel:
        """What ``benchmark`` measures."""
        return BenchModel(self.path, self.options, self.name)


@dataclass(frozen=True)
class Axes:
    """What is varied: the values of each axis, in order; empty = the axis is not varied. ``threads`` 0 = all cores."""

    precision: tuple[str, ...] = ()
    accelerator: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()

    @classmethod
    def parse(cls, precision: str = "", accelerator: str = "", threads: str = "") -> Axes:
        """Read the values as typed: ``int8,fp16``, ``cpu,gpu``, ``1,2,4``; an empty text is an axis not varied.

        Raises:
            UsageError: a value is unknown or given twice, or nothing is varied.
        """
        texts = {"precision": precision, "accelerator": accelerator, "threads": threads}
        found: dict[str, tuple[str, ...]] = {}
        for axis, text in texts.items():
            values = tuple(value.strip() for value in text.split(","))
            if text and (not all(values) or len(set(values)) < len(values)):
                raise UsageError(f"--{axis} {text!r}: give values that differ, with commas", EXAMPLES[axis])
            found[axis] = values if text else ()
        if not any(found.values()):
            raise UsageError("nothing to vary", "for instance edge-ran sweep MODEL --threads 1,2,4")
        for value in found["threads"]:
            if not (value.isascii() and value.isdigit()):
                raise UsageError(f"--threads: {value!r} is not a number of threads", EXAMPLES["threads"])
        for name in found["precision"]:
            catalogue.converter(name)
        for name in found["accelerator"]:
            RuntimeOptions(name)
        return cls(found["precision"], found["accelerator"], tuple(map(int, found["threads"])))


def combinations(model: Path, axes: Axes, options: RuntimeOptions) -> list[Setting]:
    """Return every combination of the axes' values, in their order.

    Args:
        model: a ``.tflite``; other precisions are looked for beside it as ``<precision>.tflite``.
        axes: what is varied.
        options: the values of what is not varied.

    Raises:
        InputError: a precision's file is not there.
    """
    found: list[Setting] = []
    for precision, accelerator, threads in itertools.product(
        axes.precision or ("",), axes.accelerator or (options.accelerator,), axes.threads or (options.threads,)
    ):
        path = model.with_name(f"{catalogue.converter(precision).name}.tflite") if precision else model
        if not path.is_file():
            option = "--converter" if precision.endswith(".toml") else "--precision"
            words = shlex.join(["edge-ran", "convert", option, precision, "RUN", "-o", str(path)])
            raise InputError(f"there is no {path}", words if precision else "check the path")
        setting = Setting(path, precision, dataclasses.replace(options, accelerator=accelerator, threads=threads))
        # The number of CPU threads does nothing for a GPU.
        if setting.options.accelerator != "gpu" or not any(s.name == setting.name for s in found):
            found.append(setting)
    return found


def accuracies(found: Sequence[Setting], measure: Callable[[Setting], Accuracy]) -> dict[str, Accuracy]:
    """Return the accuracy of each setting, by name; ``measure`` measures one, and threads do not change it."""
    known: dict[tuple[Path, str], Accuracy] = {}
    for setting in found:
        key = (setting.path, setting.options.accelerator)
        if key not in known:
            known[key] = measure(setting)
    return {s.name: known[s.path, s.options.accelerator] for s in found}


@dataclass(frozen=True)
class SweepRow:
    """One setting: its times, the ratio of its time to the first setting's, its file and its top-1 accuracy (0..1).

    ``converter`` is empty where the file is not varied; ``actual`` is the accelerator that really served, ``doubt`` why
    its results are not to be trusted. ``max_drop_points`` is how many percentage points of accuracy the converter may
    lose.
    """

    name: str
    precision: str
    converter: str
    max_drop_points: float
    accelerator: str
    actual: str
    doubt: str
    threads: int
    median_ms: float
    p90_ms: float | None
    ratio: float
    size_mb: float
    top1: float | None
    top1_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Recommendation:
    """What a sweep says for this device: the fastest setting whose results and accuracy are good enough.

    ``accelerator`` is the one that really served. ``as_fast`` are the other such settings whose time shows no
    difference from it; ``doubts`` are the reasons why its figures are not reliable.
    """

    name: str
    converter: str
    accelerator: str
    threads: int
    median_ms: float
    top1: float | None
    top1_interval: tuple[float, float] | None
    as_fast: tuple[str, ...]
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """Every setting measured in turns: the reports, the ratios to the first, and a row for each."""

    SCHEMA_VERSION: ClassVar[int] = BenchReport.SCHEMA_VERSION

    reports: tuple[BenchReport, ...] = field(metadata=records.key("models"))
    ratios: tuple[Ratio, ...]
    rows: tuple[SweepRow, ...] = field(metadata=records.key("table"))

    @property
    def bench(self) -> Bench:
        """The measurement without the settings."""
        return Bench(self.reports, self.ratios)

    @records.derived
    def recommendation(self) -> Recommendation | None:
        """The fastest setting that is good enough; None where no converter was varied, or every result is doubtful.

        A converter may cost as many percentage points of the best accuracy measured as the catalogue allows it.
        """
        sound = [row for row in self.rows if row.converter and not row.doubt]
        best = max((row.top1 for row in sound if row.top1 is not None), default=None)
        fit = [r for r in sound if best is None or (r.top1 or 0.0) >= best - r.max_drop_points / 100 - 1e-9]
        if not fit:
            return None
        row = min(fit, key=lambda one: one.median_ms)
        report = self._report(row)
        same = [one.name for one in fit if one is not row and not self._ratio(one, report).different]
        return Recommendation(
            name=row.name,
            converter=row.converter,
            accelerator=row.actual,
            threads=row.threads,
            median_ms=row.median_ms,
            top1=row.top1,
            top1_interval=row.top1_interval,
            as_fast=tuple(same),
            doubts=report.validity.reasons,
        )

    def _report(self, row: SweepRow) -> BenchReport:
        return self.reports[self.rows.index(row)]

    def _ratio(self, row: SweepRow, against: BenchReport) -> Ratio:
        mine, other = (report.timing.session_medians_ms for report in (self._report(row), against))
        return ratio_of_sessions(row.name, against.name, [[ms] for ms in mine], [[ms] for ms in other])


def sweep_of(settings: Sequence[Setting], bench: Bench, accuracy: Mapping[str, Accuracy]) -> Sweep:
    """Return the sweep that a measurement of settings makes; ``accuracy`` is by a setting's name."""
    ratios = {ratio.name: ratio.ratio for ratio in bench.ratios}
    rows = []
    for setting, report in zip(settings, bench.reports, strict=True):
        converter = catalogue.converter(setting.precision) if setting.precision else None
        known = accuracy.get(setting.name, Accuracy(None, None))
        rows.append(
            SweepRow(
                name=report.name,
                precision=report.model.precision,
                converter=converter.name if converter else "",
                max_drop_points=converter.max_drop if converter else 0.0,
                accelerator=str(report.accelerator),
                actual=report.accelerator.actual,
                doubt=report.accelerator.warning or report.accelerator.fallback_reason,
                threads=report.runtime.threads,
                median_ms=report.latency.p50_ms,
                p90_ms=report.latency.p90_ms,
                ratio=ratios.get(report.name, 1.0),
                size_mb=report.model.size_bytes / 1e6,
                top1=known.top1,
                top1_interval=known.interval,
            )
        )
    return Sweep(bench.reports, bench.ratios, tuple(rows))


def read_sweep(value: Any) -> Sweep:
    """Return the sweep that another machine's ``records.document`` describes.

    Raises:
        InputError: it is none, or its parts do not fit each other.
    """
    found = records.read_document(Sweep, value, "sweep")
    count, sessions = len(found.reports), {len(one.timing.session_medians_ms) for one in found.reports}
    if not count or len(found.rows) != count or len(found.ratios) != count - 1 or len(sessions) != 1 or 0 in sessions:
        raise InputError("sweep.table does not match sweep.models")
    for report, row in zip(found.reports, found.rows, strict=True):
        check_figures(report)
        if not all(ms > 0 for ms in (row.median_ms, *report.timing.session_medians_ms)):
            raise InputError("sweep.table holds no times")
        if (row.top1 is None) != (row.top1_interval is None):
            raise InputError("sweep.table holds an accuracy without its interval")
    return found
