"""What ``doctor`` found, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_ran.doctor import Diagnosis

MARKS = {"good": "ok", "hint": "- ", "fault": "!!"}


def diagnosis(found: Diagnosis) -> str:
    """A line for each finding, and one for what to type where it is not good."""
    width = max(len(finding.name) for finding in found.findings)
    lines = []
    for finding in found.findings:
        lines.append(f"{MARKS[finding.state]} {finding.name:<{width}}  {finding.what}")
        if finding.remedy:
            lines.append(f"   {'':<{width}}  -> {finding.remedy}")
    return "\n".join(lines)
