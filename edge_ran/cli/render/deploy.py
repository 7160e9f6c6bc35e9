"""What `deploy`, `status`, `logs`, `rollback`, `undeploy` and `fetch` found, as text."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING

from edge_ran.printable import many

if TYPE_CHECKING:
    from edge_ran.deploy.fetch import Fetched
    from edge_ran.deploy.fleet import BoardStatus, Changes, Fleet, Log
    from edge_ran.deploy.rollout import Outcome, Rollout

HEADINGS = (
    "BOARD", "STATE", "RELEASE", "MODEL", "FOR", "FRAMES/S", "P50 MS", "P99 MS", "ANSWER", "RESTARTS", "DROPPED",
    "TEMP", "FREE", "CLOCK",
)  # fmt: skip
NEARLY_FULL_BYTES = 100_000_000


def rollout(found: Rollout) -> str:
    """Lines for each board."""
    return "\n".join(line for one in found.boards for line in _outcome(one))


def _outcome(one: Outcome) -> list[str]:
    before = f", before {one.before}" if one.before and one.before != one.release else ""
    lines = [f"{one.device}: {one.end}" + (f" {one.release}{before}" if one.release else "")]
    if one.end == "deployed":
        lines[0] += f", in {one.seconds:.0f} s"
    if accepted := one.acceptance:
        lines.append(f"  {accepted.agreement}")
        lines.append(f"  inference there {accepted.latency.p50_ms:.3g} ms (median) on {accepted.accelerator}")
    if one.reason:
        lines.append(f"  {one.reason}")
    if one.remedy:
        lines.append(f"  -> {one.remedy}")
    return [*lines, *(f"  {word}" for word in one.words)]


def fleet(found: Fleet) -> str:
    """A row for each board; below, what is wrong."""
    rows = [HEADINGS, *map(_row, found.boards)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    for one in found.boards:
        notes = _notes(one)
        if notes:
            lines += ["", *(f"{one.device}: {note}" for note in notes)]
    return "\n".join(lines)


def _row(one: BoardStatus) -> tuple[str, ...]:
    if not one.answers:
        return (one.device, "no answer", *[""] * (len(HEADINGS) - 2))
    state = "runs" if not one.trouble else "nothing" if not one.release else "trouble"
    live = one.live
    times = live.end_to_end_ms if live else None
    seen = live.dropped + live.frames if live else 0
    return (
        one.device,
        state,
        one.release,
        one.model,
        _span(time.time() - one.since) if one.since else "",
        f"{live.frames_per_s:.1f}" if live and live.frames else "",
        f"{times.p50:.1f}" if times else "",
        f"{times.p99:.1f}" if times else "",
        f"{live.answer}, {_span(live.at - live.answer_at)}" if live and live.answer else "",
        str(live.restarts) if live else "",
        f"{live.dropped / seen:.0%}" if live and seen else "",
        f"{one.temperature_c:.0f} °C" if one.temperature_c is not None else "",
        f"{one.free_bytes / 1e9:.1f} GB" if one.free_bytes is not None else "",
        f"{one.clock_drift_s:+.0f} s" if one.clock_drift_s is not None else "",
    )


def _notes(one: BoardStatus) -> list[str]:
    notes = [one.trouble] if one.trouble else []
    if one.remedy:
        notes.append(f"-> {one.remedy}")
    if one.live and one.live.warning:
        notes.append(one.live.warning)
    elif one.free_bytes is not None and one.free_bytes < NEARLY_FULL_BYTES:
        notes.append("its disk is nearly full")
    if one.recorded_files:
        notes.append(
            f"{many(one.recorded_files, 'picture')} recorded, {one.recorded_bytes / 1e6:.1f} MB: "
            f"edge-ran fetch FOLDER --device {shlex.quote(one.device)}"
        )
    if one.clock_drift_s is not None and abs(one.clock_drift_s) > 5:
        notes.append(f"its clock is {abs(one.clock_drift_s):.0f} s {'ahead' if one.clock_drift_s > 0 else 'behind'}")
    if one.page:
        notes.append(f"live page: {one.page}")
    return notes


def _span(seconds: float) -> str:
    """How long, in the largest unit of which it is at least two."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def log(found: Log) -> str:
    """Events, then lines."""
    events = [f"{_moment(one.at)}  {one.kind:<10} {one.text}" for one in found.events]
    return "\n".join([*events, "", *found.lines]).strip()


def rolled_back(found: Changes) -> str:
    """A line for each board."""
    return "\n".join(
        f"{one.device}: {one.failure}\n  -> {one.remedy}" if one.failure else f"{one.device}: {one.release} runs again"
        for one in found.boards
    )


def undeployed(found: Changes) -> str:
    """A line for each board."""
    return "\n".join(
        f"{one.device}: {one.failure}\n  -> {one.remedy}"
        if one.failure
        else f"{one.device}: removed, {one.freed_bytes / 1e6:.1f} MB"
        for one in found.boards
    )


def fetched(found: Fetched) -> str:
    """One line."""
    removed = f"; {found.removed:,} removed there" if found.removed else ""
    return f"{found.device}: {found.files:,} new pictures, {found.size_bytes / 1e6:.1f} MB, in {found.folder}{removed}"


def _moment(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) if at else ""
