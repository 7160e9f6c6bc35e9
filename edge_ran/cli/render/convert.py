"""What ``convert`` made, what ``precisions`` compared and what ``demo`` left, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_ran.printable import many

if TYPE_CHECKING:
    from edge_ran.card import Calibration
    from edge_ran.host.convert import ConvertResult
    from edge_ran.host.demo import DemoReport
    from edge_ran.host.precisions import Comparison


def converted(result: ConvertResult) -> str:
    """The file, what the rewriting changed, its operators, and where its ranges come from."""
    lines = [
        f"{result.path}  {result.size_bytes / 1e6:.2f} MB  {result.network} as {result.precision}, "
        f"{result.io} input and output, {result.seconds:.1f} s"
    ]
    lines += [f"  {p.places:3d} x {p.name}" for p in result.passes]
    if result.passes:
        lines.append(f"      largest relative change of the logits by all of them: {result.difference:.1e}")
    lines.append(f"  {_counted(result.operators)}")
    if result.activations != "float32" and result.float_operators:
        lines.append(f"  still in float: {_counted(Counter(result.float_operators))}")
    if result.calibration.source or result.calibration.kind:
        lines.append(f"  ranges from {calibration(result.calibration)}")
    if result.masks:
        lines.append(f"  soft masks as outputs after the scores: {', '.join(result.masks)}")
    return "\n".join(lines + [f"  note: {note}" for note in result.notes])


def calibration(used: Calibration) -> str:
    """Where the ranges of quantised activations come from."""
    pictures = f"{many(used.pictures, 'picture')} of {used.source}" if used.pictures else used.source
    if used.kind == "quantisation-aware training":
        return f"{used.kind}{f', {pictures}' if pictures else ''}"
    kinds = {"shipped": " (shipped with edge-ran)", "training": " (training pictures of the run)"}
    return pictures + kinds.get(used.kind, "")


def compared(result: Comparison) -> str:
    """A line for each precision."""
    lines = [
        f"{result.run} on {many(result.images, 'image')} of {result.source} ({result.split}), "
        f"{many(result.threads, 'thread') if result.threads else 'all threads'}",
        f"{'':10} {'MB':>6} {'top-1 %':>8} {'drop':>6} {'agrees %':>9} {'median ms':>10}",
    ]
    lines += [
        f"{row.precision:10} {row.size_bytes / 1e6:6.2f} {100 * row.top1:8.2f} {row.drop_points:6.2f} "
        f"{100 * row.agreement:9.2f} {row.latency_ms:10.3f}"
        for row in result.rows
    ]
    return "\n".join([*lines, *(f"! {warning}" for warning in result.warnings)])


def demonstrated(result: DemoReport) -> str:
    """A line for each file, the clip, and where the page is."""
    lines = [f"{'file':<12}{'size':>9}{'median':>11}{'same as fp32':>18}" + ("   top-1" if result.top1_images else "")]
    for file in result.files:
        size, top1 = file.size_bytes / 1e6, "" if file.top1 is None else f"{file.top1:8.1%}"
        name = Path(file.path).name
        lines.append(f"{name:<12}{size:6.2f} MB{file.median_ms:8.2f} ms{file.agreement:18.1%}{top1}")
    lines.append(f"clip: {many(result.clip_frames, 'frame')} at {result.clip_fps:.0f} frames/s")
    if not all(file.reliable for file in result.files):
        lines.append("the times are not reliable: the page says why")
    lines.append(f"page: {result.report}  ({result.seconds:.0f} s)")
    return "\n".join(lines)


def _counted(names: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(names.items()))
