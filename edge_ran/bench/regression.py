"""Compare two reports of the same model, from two days or two versions, and the gate on it."""

from __future__ import annotations

import json
from pathlib import Path

from edge_ran.bench.compare import Ratio, ratio_of_reports
from edge_ran.bench.report import BenchReport, check_figures
from edge_ran.errors import GateError, InputError, NotReliable
from edge_ran.files import read_bytes
from edge_ran.records import read_document


def read_report(path: Path) -> BenchReport:
    """Read a report of one model, as ``benchmark --result-json`` writes it.

    Raises:
        InputError: it is not JSON, not such a report, or of another version of edge-ran's records.
    """
    data = read_bytes(path, "report")
    remedy = "create it with: edge-ran benchmark MODEL --result-json FILE"
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON", remedy) from error
    if isinstance(value, dict) and "models" in value:
        raise InputError(
            f"{path} holds several models", "create a file for each: edge-ran benchmark MODEL --result-json FILE"
        )
    try:
        return check_figures(read_document(BenchReport, value, str(path)))
    except InputError as error:
        raise InputError(str(error), remedy) from error


def regression(now: BenchReport, before: BenchReport, name: str, baseline: str) -> Ratio:
    """Compare two reports. What else is known to differ between them is in the ratio's ``cautions`` and ``doubts``."""
    facts = zip(_facts(now).items(), _facts(before).values(), strict=True)
    cautions = [f"the {what} differ: {mine} and {other}" for (what, mine), other in facts if mine != other]
    doubts = [
        f"{which} is not reliable: {'; '.join(report.validity.reasons)}"
        for which, report in ((name, now), (baseline, before))
        if not report.validity.reliable
    ]
    here, there = now.environment, before.environment
    if here.cpu != there.cpu:
        doubts.append(f"the processors differ: {here.cpu} and {there.cpu}")
    if here.board and there.board and here.board != there.board:  # many boards call their processor the same
        doubts.append(f"the boards differ: {here.board} and {there.board}")
    return ratio_of_reports(name, now.latency, baseline, before.latency, cautions, doubts)


def _facts(report: BenchReport) -> dict[str, str]:
    """What must be the same for a difference in time to be the code's."""
    got, runtime = report.accelerator, report.runtime
    return {
        "models": report.model.sha256[:12],
        "input sizes": "x".join(map(str, report.model.input.shape)),
        "accelerators": " ".join(filter(None, (got.actual, got.adapter, got.precision))),
        "threads": str(runtime.threads),
        "runtimes": f"{runtime.name} {runtime.version}",
    }


def check_regression(ratio: Ratio, allowed: float, in_browser: bool = False) -> None:
    """Judge a ratio by what the user allows.

    Args:
        ratio: from ``regression``.
        allowed: 0.05 = 5 % slower.
        in_browser: a page measured them, and cannot go on until they are reliable.

    Raises:
        NotReliable: figures that are not reliable prove nothing, neither a regression nor its absence.
        GateError: it is slower than allowed, and a difference is shown at all.
    """
    if ratio.doubts:
        again = "edge-ran benchmark MODEL --until 2% --result-json FILE"
        if in_browser:
            again = "edge-ran benchmark MODEL --device DEVICE --min-secs 60 --result-json FILE"
        raise NotReliable(
            f"--max-regression cannot be judged: {'; '.join(ratio.doubts)}",
            f"measure both again on the same idle machine: {again}",
        )
    if ratio.different and ratio.ratio > 1 + allowed:
        raise GateError(
            f"{ratio.ratio - 1:.1%} slower than {ratio.baseline} "
            f"(95 %: {ratio.low - 1:+.1%} to {ratio.high - 1:+.1%}), {allowed:.1%} are allowed",
            "; ".join(ratio.cautions) or "measure again, or keep the new record as the baseline",
        )
