"""`edge-ran precisions`: what every precision of a run costs in accuracy, and gives in size and time.

Every precision is converted once and kept in the run folder, judged on the same pictures, and timed in turns
(``bench``), so that what disturbs one disturbs all.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_ran import catalogue, plots
from edge_ran.bench import BenchModel, Plan, benchmark
from edge_ran.dataset import Dataset
from edge_ran.errors import GateError, InputError
from edge_ran.evaluate import EvalReport, evaluate
from edge_ran.files import sha256
from edge_ran.graph import read_card
from edge_ran.host.convert import convert
from edge_ran.host.run_settings import read_settings
from edge_ran.runs import RunFolder, open_run, tflite_path
from edge_ran.runtime import RuntimeOptions

PRECISIONS = ("fp32", "fp16", "dynamic", "int8")
QUANTISED = "int8-qat"


@dataclass(frozen=True)
class Row:
    """One precision. ``top1`` and ``agreement`` (equal top-1 answers with fp32) are 0..1, ``drop_points`` against fp32
    in percentage points, above 0 = worse; ``latency_ms`` is the median run on the CPU; ``top1_interval`` holds the true
    accuracy with 95 % confidence."""

    precision: str
    path: str
    size_bytes: int
    top1: float
    drop_points: float
    agreement: float
    latency_ms: float
    top1_interval: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Every precision of a run on the same ``images`` of ``split``; ``warnings`` say what their accuracy does not tell,
    as that the network was trained on some of them, and what is not compared, or is not as `convert` makes it."""

    run: str
    quantised_run: str | None
    source: str
    split: str
    images: int
    threads: int
    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()


def compare(
    run: Path,
    data: Dataset,
    cwd: Path,
    *,
    quantised: Path | None = None,
    split: str = "auto",
    calibration: Path | None = None,
    threads: int = 1,
    plan: Plan | None = None,
    again: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Convert a run to every precision, and compare accuracy, size and time.

    Args:
        run: a float run folder; of a quantised one there is no int8 file without quantisation-aware training.
        cwd: the working folder; files of the shipped run go to its ``runs/shipped``.
        quantised: the run folder that `quantize` made of it; None takes ``RUN-qat`` where that is a finished run.
        calibration: pictures for the int8 file without quantisation-aware training; None: as `convert`.
        again: convert anew what is there already and newer than the network.

    Raises:
        InputError: a run cannot be read, or ``quantised`` is not a quantised run of the same classes.
    """
    files, quantised, left_out = _files(run, quantised, calibration)
    options = RuntimeOptions(accelerator="cpu", threads=threads)
    paths = {name: _convert(name, file, cwd, again, note) for name, file in files.items()}
    reports = {}
    for name, path in paths.items():
        note(f"measuring the accuracy of {name}")
        reports[name] = evaluate(path, data, split=split, options=options)
    times = benchmark([BenchModel(path, options, name) for name, path in paths.items()], plan, note=note).reports
    base = reports["fp32"]
    latency_ms = {name: one.latency.p50_ms for name, one in zip(paths, times, strict=True)}
    return Comparison(
        run=str(run),
        quantised_run=str(quantised) if quantised is not None else None,
        source=base.source,
        split=base.split,
        images=base.images,
        threads=threads,
        rows=tuple(_row(name, paths[name], report, base, latency_ms[name]) for name, report in reports.items()),
        warnings=(*left_out, *_calibrated_elsewhere(files, paths), *base.warnings),
    )


@dataclass(frozen=True)
class _File:
    """One file to make: of which run, in which precision, and calibrated on which pictures (None: as convert does)."""

    run: RunFolder
    precision: str
    calibration: Path | None = None


def _files(
    run: Path, quantised: Path | None, calibration: Path | None
) -> tuple[dict[str, _File], Path | None, list[str]]:
    """Return the files to compare, by name, the quantised run among them or None, and what is left out."""
    folder, left_out = open_run(run), []
    remedy = f"edge-ran quantize {shlex.quote(str(run))}"
    precisions: tuple[str, ...] = PRECISIONS
    if folder.ranges_path.is_file():  # its int8 file is the quantisation-aware one
        if quantised is not None:
            raise InputError(f"{run} is quantised itself", "give the float run that it was made from")
        precisions, quantised = PRECISIONS[:-1], folder.path
    elif quantised is None:
        other = RunFolder(folder.quantised_path)
        quantised = other.path if other.is_finished and other.ranges_path.is_file() else None
        if quantised is not None and not _is_made_of(other, folder):
            left_out.append(
                f"{quantised} is left out: it was made of an older network; to make it anew: {remedy} --force"
            )
            quantised = None
    files = {name: _File(folder, name, calibration if name == "int8" else None) for name in precisions}
    if quantised is not None:
        other = open_run(quantised)
        if not other.ranges_path.is_file() or other.card().labels != folder.card().labels:
            raise InputError(f"{quantised} is not a quantised run of {run}", remedy)
        if other.path != folder.path and not _is_made_of(other, folder):
            raise InputError(f"{quantised} was made of another network than that in {run}", f"{remedy} --force")
        files[QUANTISED] = _File(other, "int8")
    return files, quantised, left_out


def _calibrated_elsewhere(files: dict[str, _File], paths: dict[str, Path]) -> list[str]:
    """A sentence for each file that was there already, and was calibrated on a folder that was named then."""
    used = {name: card.calibration for name, path in paths.items() if (card := read_card(path)) is not None}
    return [
        f"{paths[name]} was there, calibrated on {one.source}; to convert it again: --force"
        for name, one in used.items()
        if one.kind == "folder" and files[name].calibration is None
    ]


def _is_made_of(quantised: RunFolder, run: RunFolder) -> bool:
    """Whether a quantised run was made of the network that is in ``run``; True where it does not say of which."""
    try:
        made_of = read_settings(quantised.path).float_network
    except InputError:
        return True
    return made_of is None or made_of == sha256(run.model_path)


def _convert(name: str, file: _File, cwd: Path, again: bool, note: Callable[[str], None]) -> Path:
    """Return the ``.tflite``; make it, unless there is one that is newer than the network."""
    target = tflite_path(file.run.path, file.precision, cwd)
    fresh = target.is_file() and target.stat().st_mtime >= file.run.model_path.stat().st_mtime
    if again or not fresh or file.calibration is not None:  # an older file may be calibrated on other pictures
        note(f"converting {name}")
        convert(file.run.path, catalogue.converter(file.precision), target, calibration=file.calibration, force=True)
    return target


def _row(name: str, path: Path, report: EvalReport, base: EvalReport, latency_ms: float) -> Row:
    return Row(
        precision=name,
        path=str(path),
        size_bytes=path.stat().st_size,
        top1=report.top1,
        drop_points=100 * (base.top1 - report.top1),
        agreement=float(np.mean(report.scores.argmax(1) == base.scores.argmax(1))),
        latency_ms=latency_ms,
        top1_interval=report.top1_interval,
    )


def draw(found: Comparison, target: Path) -> None:
    """Draw accuracy against latency, each point with its size."""
    points = [
        (f"{r.precision}, {r.size_bytes / 1e6:.1f} MB", r.latency_ms, r.top1, r.top1_interval) for r in found.rows
    ]
    plots.accuracy_against_latency(points, target, f"{Path(found.run).name}: {found.images:,} images")


def check(found: Comparison, max_drop: float) -> None:
    """Raise GateError if int8 loses more points than that: after `quantize`, if there is such a run."""
    row = found.rows[-1]
    if row.drop_points > max_drop + 1e-9:  # 90 % - 89 % is not quite one point in binary numbers
        remedy = "" if row.precision == QUANTISED else f"edge-ran quantize {shlex.quote(str(found.run))}"
        raise GateError(f"{row.precision} loses {row.drop_points:.2f} points, more than {max_drop:g}", remedy)
