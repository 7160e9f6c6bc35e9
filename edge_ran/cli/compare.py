"""`edge-ran compare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.bench_options import percent
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit
from edge_ran.errors import UsageError


@verb
def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="The baseline: a file of benchmark --result-json.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="The file that is compared with it.")],
    *,
    max_regression: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Exit 1 if B is slower by more; 4 if one is not reliable.")
    ] = None,
    output: Annotated[OutputOptions, Only("json", "verbose")],
) -> None:
    """Compare two records of benchmark: is B faster or slower than A?"""
    allowed = percent("--max-regression", max_regression) if max_regression is not None else None
    if a.is_dir():
        raise UsageError(
            "compare compares two records; a run's precisions have a command of their own",
            shlex.join(["edge-ran", "precisions", str(a), str(b)]),
        )
    from edge_ran import bench
    from edge_ran.cli.render import benchmark as render

    before, now = bench.read_report(a), bench.read_report(b)
    found = bench.regression(now, before, str(b), str(a))
    emit(output.json, found, render.comparison)
    if allowed is not None:
        bench.check_regression(found, allowed, now.in_browser)
