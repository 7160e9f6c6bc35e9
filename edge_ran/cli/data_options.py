"""Options of the verbs that read labelled data."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.dataset import Dataset, Reading


LabelledData = Annotated[Path, typer.Argument(help="Class folders of pictures or clips, a CSV, or an .npz.")]


@dataclass(frozen=True)
class ManifestOptions:
    """How labelled data is read."""

    PANEL: ClassVar[str] = "Data"

    image_column: Annotated[
        str, typer.Option("--image-column", metavar="NAME", help="The CSV manifest's column of pictures, if not found.")
    ] = ""
    label_column: Annotated[
        str, typer.Option("--label-column", metavar="NAME", help="Its column of labels, if not found.")
    ] = ""
    group_column: Annotated[
        str, typer.Option("--group-column", metavar="NAME", help="Its column of groups that a split keeps together.")
    ] = ""
    split_column: Annotated[
        str, typer.Option("--split-column", metavar="NAME", help="Its column of train, val and test, if not found.")
    ] = ""
    classes: Annotated[str, typer.Option("--classes", metavar="A,B,…", help="Use these classes only.")] = ""
    clip_step: Annotated[
        float, typer.Option("--clip-step", metavar="SECONDS", help="Time between the frames taken from a clip.")
    ] = 1.0

    def reading(self) -> Reading:
        """Return them as the library takes them."""
        from edge_ran.dataset import Reading

        # As a line of CSV: a class with a comma in its name stands in quotation marks.
        cells = next(csv.reader([self.classes], skipinitialspace=True), [])
        names = tuple(name.strip() for name in cells if name.strip())
        columns = (self.image_column, self.label_column, self.group_column, self.split_column)
        return Reading(*columns, names, self.clip_step)

    def load(self, data: Path) -> Dataset:
        """Read the folder, manifest or archive ``data``. Raises InputError, or UsageError for columns of no table."""
        self.check(data)
        return self.reading().load(data)

    def check(self, data: Path) -> None:
        """Raise UsageError if a column is named although ``data`` has none."""
        named = [name for name in ("image", "label", "group", "split") if getattr(self, f"{name}_column")]
        if named and (data.is_dir() or data.suffix.lower() == ".npz"):
            option = f"--{named[0]}-column"
            raise UsageError(f"{option} has no effect: {data} is no CSV manifest", f"leave out {option}")
