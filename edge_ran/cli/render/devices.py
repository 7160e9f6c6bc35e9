"""The devices that are known, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_ran.targets import Cleaned, DeviceList

HEADINGS = ("NAME", "ACCELERATOR", "CONVERTER", "CHOSEN BY", "THREADS", "TARGET", "")


def device_list(found: DeviceList) -> str:
    """A row for each device; below, where they were asked, what each answered."""
    rows = [HEADINGS]
    for one in found.devices:
        chosen_by = "measurement" if one.measured else "data sheet"
        threads = str(one.threads or "all")
        rows.append((one.name, one.accelerator, one.converter, chosen_by, threads, one.target, one.summary))
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines = ["  ".join([*(f"{c:<{w}}" for c, w in zip(row, widths, strict=False)), row[6]]).rstrip() for row in rows]
    asked = [(one.name, one.probe) for one in found.devices if one.probe is not None]
    if asked:
        lines.append("")
    for name, probe in asked:
        lines.append(f"{name:<{widths[0]}}  {'answers' if probe.answers else '-      '}  {probe}")
        if probe.remedy and (probe.answers or len(asked) == 1):
            lines.append(f"{'':<{widths[0]}}           -> {probe.remedy}")
    return "\n".join(lines)


def cleaned(found: Cleaned) -> str:
    """How much was removed."""
    return f"{found.device}: {found.freed_bytes / 1e6:.1f} MB removed"
