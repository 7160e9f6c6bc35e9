"""The same network with several settings: ``threads=1,2,4 precision=int8,fp16 accelerator=cpu,gpu``."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_ran import catalogue
from edge_ran.bench.measure import BenchModel
from edge_ran.bench.report import Bench
from edge_ran.errors import InputError, UsageError
from edge_ran.runtime import RuntimeOptions

AXES = ("precision", "accelerator", "threads")


@dataclass(frozen=True)
class Recommendation:
    """What a sweep says for this device: the fastest setting that is right, and not less accurate than it may be.

    ``text`` is one line for people; ``accelerator`` is the one that really served.
    """

    converter: str
    accelerator: str
    threads: int
    median_ms: float
    top1: float | None
    text: str


@dataclass(frozen=True)
class Accuracy:
    """Top-1 of labelled pictures, 0..1, and what holds the true one with 95 % confidence; None where not measured."""

    top1: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Setting:
    """One combination. ``precision`` is empty where the file is not varied."""

    path: Path
    precision: str
    options: RuntimeOptions

    @property
    def name(self) -> str:
        threads = f" {self.options.threads or 'all'}T" if self.options.accelerator != "gpu" else ""
        return f"{self.precision or self.path.stem} {self.options.accelerator}{threads}"

    @property
    def subject(self) -> BenchModel:
        """What ``benchmark`` measures."""
        return BenchModel(self.path, self.options, self.name)


def is_term(text: str) -> bool:
    """Whether the text is a term of a sweep, such as ``threads=1,2``, and not a file."""
    return text.partition("=")[0] in AXES and "=" in text


def combinations(model: Path, terms: Sequence[str], options: RuntimeOptions) -> list[Setting]:
    """Return every combination of the terms, in their order.

    Args:
        model: a ``.tflite``; other precisions are looked for beside it as ``<precision>.tflite``.
        terms: ``axis=value,value``; the axes are precision, accelerator and threads.
        options: what holds where no term says otherwise.

    Raises:
        UsageError: an axis or value is unknown, or an axis comes twice.
        InputError: a precision's file is not there.
    """
    chosen: dict[str, list[str]] = {}
    for term in terms:
        axis, _, text = term.partition("=")
        values = [value.strip() for value in text.split(",") if value.strip()]
        if axis not in AXES:
            raise UsageError(f"cannot sweep {axis!r}", catalogue.nearest(axis, AXES))
        if not values or axis in chosen or len(set(values)) < len(values):
            raise UsageError(f"--sweep {term!r}: give each axis once, with values that differ", "threads=1,2,4")
        chosen[axis] = values
    if not chosen:
        raise UsageError("nothing to sweep", "for instance --sweep threads=1,2,4 precision=int8,fp16")
    for value in chosen.get("threads", ()):
        if not value.isdigit():
            raise UsageError(f"threads={value} is not a number of threads", "0 = every core")
    found: list[Setting] = []
    for precision, accelerator, threads in itertools.product(
        chosen.get("precision", [""]),
        chosen.get("accelerator", [options.accelerator]),
        chosen.get("threads", [str(options.threads)]),
    ):
        path = model if not precision else model.with_name(f"{catalogue.converter(precision).name}.tflite")
        if not path.is_file():
            raise InputError(f"there is no {path}", f"edge-ran convert --{precision}")
        setting = Setting(path, precision, dataclasses.replace(options, accelerator=accelerator, threads=int(threads)))
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


def recommend(rows: Sequence[dict[str, Any]]) -> Recommendation | None:
    """Choose among the rows of ``overview``; None where no converter was varied, or every accelerator is doubtful.

    A converter may cost as many percentage points of the best accuracy measured as the catalogue allows it.
    """
    sound = [row for row in rows if row["converter"] and not row["doubt"]]
    best = max((row["top1"] for row in sound if row["top1"] is not None), default=None)
    fit = [
        row
        for row in sound
        if best is None or row["top1"] >= best - catalogue.converter(row["converter"]).max_drop / 100
    ]
    if not fit:
        return None
    row = min(fit, key=lambda one: float(one["median_ms"]))
    proof = "accuracy not measured: --accuracy-on DATA"
    if best is not None:
        low, high = row["top1_interval"]
        proof = f"top-1 {row['top1']:.1%} (95 %: {low:.1%} to {high:.1%})"
    name, accelerator = row["converter"], row["actual"]
    text = f"on this device: converter {name} on {accelerator}, {row['median_ms']:.3g} ms, {proof}"
    return Recommendation(name, accelerator, row["threads"], row["median_ms"], row["top1"], text)


def overview(found: Sequence[Setting], bench: Bench, accuracy: dict[str, Accuracy]) -> list[dict[str, Any]]:
    """Return a row for each setting: its name, times, ratio to the first, memory and top-1 accuracy (by name)."""
    ratios = {ratio.name: ratio.ratio for ratio in bench.ratios}
    unknown = Accuracy(None, None)
    return [
        {
            "name": report.name,
            "precision": report.model["precision"],
            "converter": catalogue.converter(setting.precision).name if setting.precision else "",
            "accelerator": str(report.accelerator),
            "actual": report.accelerator.actual,
            "doubt": report.accelerator.warning or report.accelerator.fallback_reason,
            "threads": report.runtime["threads"],
            "median_ms": report.latency.p50_ms,
            "p90_ms": report.latency.p90_ms,
            "ratio": ratios.get(report.name, 1.0),
            "size_mb": report.model["size_bytes"] / 1e6,
            "top1": accuracy.get(setting.name, unknown).top1,
            "top1_interval": accuracy.get(setting.name, unknown).interval,
        }
        for setting, report in zip(found, bench.reports, strict=True)
    ]
