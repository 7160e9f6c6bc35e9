"""`edge-ran demo`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ran.cli.app import (
    Force,
    Json,
    Quiet,
    Verbose,
    app,
    emit,
    host_packages,
    say,
)

if TYPE_CHECKING:
    pass


@app.command()
def demo(
    run: Annotated[Path | None, typer.Argument(help="A run folder.", show_default="the network that ships")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("edge-ran-demo"),
    data: Annotated[Path | None, typer.Option(help="Labelled pictures of the network's classes, for top-1.")] = None,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Do it all once: convert, compare, classify a clip, benchmark; leave one HTML page."""
    with host_packages("demo"):
        from edge_ran.host.demo import demo as show

    def note(text: str) -> None:
        if not quiet:
            say(text)

    report = show(output, run=run, data=data, force=force, note=note)
    emit(json, dataclasses.asdict(report), lambda: _demo_text(report))


def _demo_text(report: Any) -> str:
    lines = [
        f"{'file':<12}{'size':>9}{'median':>11}{'answers as fp32':>18}" + ("   top-1" if report.top1_images else "")
    ]
    for file in report.files:
        size, top1 = file.size_bytes / 1e6, "" if file.top1 is None else f"{file.top1:8.1%}"
        name = Path(file.path).name
        lines.append(f"{name:<12}{size:6.2f} MB{file.median_ms:8.2f} ms{file.agreement:18.1%}{top1}")
    lines.append(f"clip: {report.clip_frames} frames at {report.clip_fps:.0f} frames/s")
    if not all(file.quotable for file in report.files):
        lines.append("the times are not reliable: the page says why")
    lines.append(f"page: {report.report}  ({report.seconds:.0f} s)")
    return "\n".join(lines)
