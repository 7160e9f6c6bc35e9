"""The contact sheet: a page that shows what was taken and left out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_ran import report
from edge_ran.collect.candidates import Candidate, Choice
from edge_ran.collect.collection import Collection
from edge_ran.dataset import CLIP_SUFFIXES

ON_THE_PAGE = 24  # pictures of a class that are shown, of each kind


def page_of(judged: Sequence[Candidate], found: Collection, choice: Choice) -> report.Report:
    kept = [c for c in judged if not c.reason]
    groups = {count.label: len({c.group for c in kept if c.label == count.label} - {""}) for count in found.classes}
    table = report.Table(
        ("class", "taken", "of these test", "clips or visits", "blurred", "alike"),
        tuple(
            (c.label, c.taken, c.test, groups[c.label], c.left_out.get("blurred", 0), c.left_out.get("alike", 0))
            for c in found.classes
        ),
        bars=("taken",),
    )
    sections = [report.Section("Classes", "\n".join(found.problems), (table,))]
    for count in found.classes:
        mine = [(i, c) for i, c in enumerate(judged) if c.label == count.label]
        taken = [(i, c) for i, c in mine if not c.reason]
        left = [(i, c) for i, c in mine if c.reason]
        parts = [_strip(taken, f"{len(taken)} taken")]
        if left:
            parts.append(_strip(left, f"{len(left)} left out"))
        sections.append(report.Section(count.label, "", tuple(parts)))
    return report.Report(
        title=f"Contact sheet: {Path(found.folder).name}",
        lead=f"{found.images} pictures of {len(found.classes)} classes from {found.sources} clips and photos.",
        tiles=(
            report.Tile(f"{found.images:,}", "pictures taken"),
            report.Tile(f"{sum(bool(c.reason) for c in judged):,}", "left out"),
            report.Tile(f"{len(found.problems)}", "problems"),
        ),
        sections=tuple(sections),
        footer=f"Least sharpness {choice.sharpness:g}, least difference {choice.difference} of 64 bits, "
        f"a candidate every {choice.step_s:g} s.",
    )


def _strip(chosen: Sequence[tuple[int, Candidate]], note: str) -> report.Strip:
    """At most ``ON_THE_PAGE`` of them, evenly spread."""
    shown = [chosen[round(i)] for i in np.linspace(0, len(chosen) - 1, min(len(chosen), ON_THE_PAGE))]
    pictures = []
    for _, one in shown:
        frame = cv2.imdecode(np.frombuffer(one.jpeg.read(), np.uint8), cv2.IMREAD_COLOR)
        title = (
            f"{one.source.name} {one.time_s:.1f} s" if one.source.suffix.lower() in CLIP_SUFFIXES else one.source.name
        )
        what = one.reason or one.split
        mood = "bad" if one.reason else "good" if one.split == "test" else ""
        pictures.append(
            report.picture(np.asarray(frame, np.uint8), title, f"{what}, {one.sharpness:.0f}", mood, side=112)
        )
    more = f", {len(shown)} of them shown" if len(shown) < len(chosen) else ""
    return report.Strip(tuple(pictures), f"{note}{more}; below each: its split or why not, and its sharpness")
