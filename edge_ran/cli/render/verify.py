"""What ``verify`` found, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_ran.printable import many

if TYPE_CHECKING:
    from edge_ran.host.parity import ParityReport
    from edge_ran.verify import Check, Verification


def verification(found: Verification) -> str:
    """A line for each accelerator, then lines for the operators that it computes wrongly."""
    lines = []
    for check in found.checks:
        lines.append(_check(check))
        for one in check.wrong_operators:
            lines.append(f"  operator {one.index} {one.name} {one.shapes} -> {one.output}: {one.what}")
            if one.remedy:
                lines.append(f"    {one.remedy}")
    return "\n".join(lines)


def parity(found: ParityReport, most: int = 10) -> str:
    """How the file agrees with its network, the layers that differ most, and the first that differs."""
    lines = [
        f"{found.model} and the {found.reference} of {found.run}, {many(found.pictures, 'picture')}: "
        f"top-1 agrees on {found.agreement:.2%}, every number on {found.identical:.2%}, "
        f"largest difference {found.largest_steps:.0f} steps of 1/256"
    ]
    if found.layers:
        lines.append(f"{'steps off: mean':>16} {'largest':>8} {'values':>8}  layer")
    lines += [f"{d.mean_steps:16.4f} {d.max_steps:8.1f} {d.share:8.2%}  {d.layer}" for d in found.worst[:most]]
    if found.first:
        lines.append(
            f"first differing layer: {found.first.layer} (operator {found.first.index} {found.first.operator})"
        )
    elif found.layers:
        lines.append("no layer differs from the network's by more than rounding")
    return "\n".join(lines)


def _check(check: Check) -> str:
    name = f"{check.accelerator} {check.precision}".strip() + (f" ({check.adapter})" if check.adapter else "")
    if check.agreement is None:
        return f"{name}: {'BROKEN' if check.is_broken else 'not available'}: {check.reason}"
    times = f"{check.ms:.3g} ms, CPU {check.cpu_ms:.3g} ms"
    return f"{name}: {'right' if check.is_right else 'WRONG'}: {check.agreement}; {times}"
