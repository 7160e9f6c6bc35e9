"""The text of `edge-ran run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_ran.printable import many

if TYPE_CHECKING:
    from edge_ran.runtime import Accelerator
    from edge_ran.stream import Result, Summary


def line(result: Result, accelerator: Accelerator, column: int) -> str:
    """Return the line of a frame; ``column`` is the width of the longest label."""
    others = "  ".join(f"{p.label} {p.score:.0%}" for p in result.predictions if p.label != result.label)
    return (
        f"{result.frame.index:>6}  {result.label:<{column}} {result.score:>4.0%}  "
        f"{result.stages_ms['end_to_end']:7.1f} ms  {accelerator}  {others}"
    ).rstrip()


def summary(report: Summary) -> str:
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items())
    lines = [
        f"{report.source}: {many(report.captured, 'frame')} captured = {report.classified:,} classified + "
        f"{sum(report.dropped.values()):,} dropped" + (f" ({dropped})" if dropped else ""),
        f"{report.fps:.1f} frames/s over {report.seconds:.1f} s, capture included, on {report.accelerator}"
        + (f", {many(report.parallel, 'frame')} in parallel" if report.parallel > 1 else ""),
    ]
    if report.latency:
        times = ", ".join(f"p{p} {getattr(report.latency, f'p{p}_ms'):.1f}" for p in (50, 90, 99))
        stages = ", ".join(f"{k} {v:.2f}" for k, v in report.stages_ms.items() if k != "end_to_end")
        lines.append(f"capture to result {times} ms; medians: {stages} ms")
    if cost := report.masks:
        lines.append(
            f"attention: {cost.masks} masks, inference {cost.with_ms:.3f} ms with and {cost.without_ms:.3f} ms without "
            f"them ({many(cost.pairs, 'pair')} of runs before the first frame)"
        )
    lines += [f"gap: {gap.kind} for {gap.seconds:.1f} s" for gap in report.gaps]
    return "\n".join(lines)
