"""What ``verify`` found, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def _check(check: Check) -> str:
    name = f"{check.accelerator} {check.precision}".strip() + (f" ({check.adapter})" if check.adapter else "")
    if check.agreement is None:
        return f"{name}: {'BROKEN' if check.is_broken else 'not available'}: {check.reason}"
    times = f"{check.ms:.3g} ms, CPU {check.cpu_ms:.3g} ms"
    return f"{name}: {'right' if check.is_right else 'WRONG'}: {check.agreement}; {times}"
