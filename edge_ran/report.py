"""One self-contained HTML page: tiles, tables, plots and pictures in a file that links to nothing.

A page is data (``Report`` of ``Section`` of parts); ``report.html`` beside this file is how it looks, light and dark.
jinja2 and matplotlib are loaded when a page is made; without them EnvironmentMissing says what to install.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran.errors import EnvironmentMissing
from edge_ran.files import TemporaryFolder, write_text
from edge_ran.plots import FAINT, INK
from edge_ran.printable import clean
from edge_ran.python_command import pip

ON_THE_PAGE = {INK: "var(--ink)", FAINT: "var(--line)", "#ffffff": "var(--card)"}
PICTURE_SIDE = 160  # pixels of an embedded picture's longer side


@dataclass(frozen=True)
class Tile:
    """One figure that the eye should meet first: ``3.1 ms``, ``a picture, int8``."""

    value: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """A table. A column is of numbers when all its cells are; a cell of None shows as a dash.

    ``formats`` has a ``str.format`` specification for each column of numbers; columns in ``bars`` (by name) show each
    cell as a bar besides, in proportion to the column's largest.
    """

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    formats: tuple[str, ...] = ()
    bars: tuple[str, ...] = ()
    note: str = ""

    def is_number(self, column: int) -> bool:
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and all(isinstance(cell, (int, float)) for cell in cells)

    def cell(self, column: int, value: Any) -> str:
        if value is None:
            return "–"
        specification = self.formats[column] if column < len(self.formats) else ""
        return format(value, specification) if self.is_number(column) else str(value)

    def share(self, column: int, value: Any) -> float | None:
        if self.columns[column] not in self.bars or value is None:
            return None
        largest = max(row[column] for row in self.rows if row[column] is not None)
        return value / largest if largest > 0 else None


@dataclass(frozen=True)
class Drawing:
    """A plot as SVG text that may stand inside a page."""

    kind: ClassVar[str] = "drawing"
    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture as a ``data:`` address, with what is on it; ``mood`` colours the note: ``good``, ``bad`` or empty."""

    uri: str
    title: str
    note: str = ""
    mood: str = ""


@dataclass(frozen=True)
class Strip:
    """Pictures side by side."""

    kind: ClassVar[str] = "strip"
    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Commands:
    """Lines to type."""

    kind: ClassVar[str] = "commands"
    text: str


Part: TypeAlias = "Table | Drawing | Strip | Commands"


@dataclass(frozen=True)
class Section:
    title: str
    text: str = ""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Report:
    title: str
    lead: str
    tiles: tuple[Tile, ...] = ()
    sections: tuple[Section, ...] = ()
    footer: str = ""


def check() -> None:
    """Raise EnvironmentMissing when a page could not be made; call it before the long work."""
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise EnvironmentMissing(f"reports need {error.name}", pip("install 'edge-ran[report]'")) from error


def render(report: Report) -> str:
    """Return the page's HTML. Raises EnvironmentMissing without jinja2."""
    check()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: clean(value, lines=True) if type(value) is str else value,  # drawings are Markup
    )  # fmt: skip
    return environment.get_template("report.html").render(report=report)


def write(report: Report, target: Path) -> None:
    """Write the page to ``target``, atomically."""
    write_text(target, render(report))


def drawing(draw: Callable[[Path], None], caption: str = "", *, follow: bool = True) -> Drawing:
    """Return what ``draw`` (one of ``plots``, given all but its target) draws, as a part of a page.

    The ids get a prefix of their own, for those of two SVGs in one page would mix. With ``follow`` the page's colours
    replace ink and paper, so that the plot follows light and dark; a heat map stays on its white paper.
    """
    with TemporaryFolder() as folder:
        target = Path(folder) / "plot.svg"
        draw(target)
        svg = target.read_text(encoding="utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    for literal, variable in ON_THE_PAGE.items() if follow else ():
        svg = re.sub(rf"(fill|stroke): {literal}", rf"\1: {variable}", svg, flags=re.IGNORECASE)
    prefix = f"p{zlib.crc32(svg.encode()):08x}-"
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}", svg)
    # As wide as the page allows, but no wider than drawn.
    svg = re.sub(r' height="[\d.]+pt"', "", svg, count=1)
    svg = re.sub(r' width="([\d.]+)pt"', r' style="max-width: \1pt"', svg, count=1)
    return Drawing(svg, caption)


def picture(frame: NDArray[np.uint8], title: str, note: str = "", mood: str = "", side: int = PICTURE_SIDE) -> Picture:
    """Return an (H, W, 3) uint8 BGR frame as a small WebP picture, its longer side ``side`` pixels."""
    factor = side / max(frame.shape[:2])
    size = (max(1, round(frame.shape[1] * factor)), max(1, round(frame.shape[0] * factor)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    _, data = cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, 80])
    return Picture(f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}", title, note, mood)
