"""Text of a sweep: a line for each setting, and what is recommended."""

from __future__ import annotations

from edge_ran.bench import Sweep, advice_line


def sweep(found: Sweep) -> str:
    """The table, the recommendation, and the doubts about accelerators."""
    advice = [advice_line(found.recommendation)] if found.recommendation else []
    return "\n".join([_table(found), *advice, *dict.fromkeys(f"! {row.doubt}" for row in found.rows if row.doubt)])


def _table(found: Sweep) -> str:
    width = max(len(row.name) for row in found.rows)
    lines = [f"{'':<{width}}  median ms    p90 ms  ratio       MB  top-1 (95 %)          on"]
    for row in found.rows:
        top1 = "-"
        if row.top1 is not None and row.top1_interval is not None:
            low, high = row.top1_interval
            top1 = f"{row.top1:.1%} ({low:.1%}-{high:.1%})"
        p90 = "        -" if row.p90_ms is None else f"{row.p90_ms:9.4g}"
        lines.append(
            f"{row.name:<{width}}  {row.median_ms:9.4g} {p90} {row.ratio:6.2f} "
            f"{row.size_mb:8.2f}  {top1:<20}  {row.accelerator}"
        )
    return "\n".join(lines)
