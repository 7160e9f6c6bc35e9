"""The text of `edge-ran dataset`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from edge_ran.printable import many

if TYPE_CHECKING:
    from edge_ran.collect import Collection
    from edge_ran.dataset import DatasetSummary


def text(found: DatasetSummary) -> str:
    width = max(len(label) for label in (*found.classes, "class"))
    lines = ["  ".join([f"{'class':<{width}}", *(f"{name:>7}" for name in found.splits)])]
    for label in (*found.classes, ""):
        counts = [split[label] if label else sum(split.values()) for split in found.splits.values()]
        lines.append("  ".join([f"{label or 'sum':<{width}}", *(f"{count:>7,}" for count in counts)]))
    if found.sizes:
        least, middle, most = ("{1}x{0}".format(*found.sizes[name]) for name in ("min", "median", "max"))
        lines.append(
            f"pictures of {middle} pixels, {least} to {most}" if least != most else f"pictures of {most} pixels"
        )
    if found.groups:
        lines.append(f"{many(found.groups, 'group')}; a split keeps each group together")
    return "\n".join([*lines, *(f"! {problem}" for problem in found.problems)])


def built(made: Collection) -> str:
    width = max(len(one.label) for one in made.classes)
    lines = [f"{'class':<{width}}    taken  of these test  groups  left out"]
    for one in made.classes:
        left = ", ".join(f"{count} {reason}" for reason, count in one.left_out.items()) or "nothing"
        lines.append(f"{one.label:<{width}}  {one.taken:>7,}  {one.test:>13,}  {one.groups:>6}  {left}")
    lines += [f"! {problem}" for problem in made.problems]
    lines.append(f"{many(made.images, 'picture')} in {made.folder}" + (f"; look at {made.page}" if made.page else ""))
    lines.append(f"next: edge-ran train {shlex.quote(made.manifest)}")
    return "\n".join(lines)
