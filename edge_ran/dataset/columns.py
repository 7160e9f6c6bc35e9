"""Which column of a manifest is what: by the names that people give them, else by what is in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import NoReturn

from edge_ran.dataset.json_tables import Row
from edge_ran.dataset.samples import SPLIT_NAMES
from edge_ran.dataset.tables import is_list
from edge_ran.errors import InputError
from edge_ran.picture import PICTURE_SUFFIXES
from edge_ran.printable import some

# The names that columns have, in lower case, letters and digits alone; of several that are there, the first counts.
KNOWN_NAMES = {
    "image": (
        *("image", "filename", "file", "path", "filepath", "imagepath", "imagename", "imageid", "imagefile", "imgpath"),
        *("imgname", "img", "picture"),
    ),
    "label": (
        "label",
        "class",
        "category",
        "target",
        "classname",
        "labelname",
        "choice",
        "classes",
        "labels",
        "tag",
        "tags",
    ),
    "group": ("group",),
    "split": ("split", "set", "subset", "partition", "dataset", "datasplit", "phase", "fold"),
}
# What pictures share that must not be torn apart, as data sets of medicine and of traffic call it.
_SHARED = (
    *("patientid", "patient", "subjectid", "subject", "personid", "person", "participantid", "participant", "lesionid"),
    *("caseid", "videoid", "clipid", "sequenceid", "driver", "driverid", "animalid", "individualid"),
)
_SPLIT_FLAGS = {f"is{word}": split for word, split in SPLIT_NAMES.items()}  # columns of 0 and 1, as is_train
NO_SPLIT = "unassigned"  # AutoML's word for a row that is in no split
_FEW = 50  # rows that are looked at to find the pictures


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a manifest, as the user gave them; an empty one is looked for."""

    image: str = ""
    label: str = ""
    group: str = ""
    split: str = ""


@dataclass(frozen=True)
class Layout:
    """The rows of a manifest, the place of each kind of column in them, None where there is none, and their names.

    ``notes`` say how the rows were read, where only what is in them told so; ``shared`` is the column of groups where
    its name told so.
    """

    body: Sequence[Row]
    places: dict[str, int | None]
    names: Sequence[str]
    notes: tuple[str, ...] = ()
    shared: str = ""

    def cell(self, cells: Sequence[str], kind: str) -> str:
        """The cell of that kind in a row; empty where there is none."""
        place = self.places[kind]
        return cells[place].strip() if place is not None and place < len(cells) else ""


def find_columns(source: Path, rows: list[Row], columns: Columns, is_picture: Callable[[str], bool]) -> Layout:
    """Find the columns of a table.

    A column that the user named counts first, then one of ``KNOWN_NAMES``, then the one that holds pictures, and the
    only one that can hold their labels. A first row that names a picture itself is no row of names: then the label
    follows the picture, and after it the group; a column of splits may stand anywhere.

    Args:
        source: the manifest.
        rows: its table.
        columns: what the user named.
        is_picture: whether a cell names a picture that is there.

    Raises:
        InputError: no column of pictures or labels is found.
    """
    names = [name.strip() for name in rows[0][1]]
    body: Sequence[Row] = [row for row in rows[1:] if row[1] != rows[0][1]]  # tables put together have it again
    known = bool(set(map(_plain, names)) & set(KNOWN_NAMES["image"])) or bool(columns.image)
    image = None if known else _column_of_pictures(rows[:_FEW], is_picture)
    if image is not None and _names_picture(rows[0], image, is_picture):
        names, body, image = _names_of(source, rows, image), rows, None
    elif not known and image is None and is_list(source) and len(names) > 1:
        names, body = _names_of(source, rows, 0), rows
    if source.suffix.lower() == ".lst" and body is rows and len(rows[0][1]) > 2:
        names = ["number", "label", *[""] * (len(rows[0][1]) - 3), "image"]  # as MXNet's im2rec writes it
    longer = [] if body is rows else [str(n) for n, cells in body if any(map(str.strip, cells[len(names) :]))]
    flagged: list[str] = []
    if not columns.label:
        names, body, flagged = _with_class_column(source, names, body)
    names, body, denied = _without_denied(names, body)
    untold: list[str] = []
    if not columns.split:
        names, body, untold = _with_split_column(names, body, flagged)
    places = {kind: _place(kind, getattr(columns, kind), names, body, source) for kind in KNOWN_NAMES}
    found_groups = (_repeats(key, names, body) for key in _SHARED if places["group"] is None)
    shared = next((place for place in found_groups if place is not None and place not in places.values()), None)
    if shared is not None:
        places["group"] = shared
    if places["image"] is None:
        places["image"] = image
    if places["image"] is None and "id" in (plain := list(map(_plain, names))):
        places["image"] = plain.index("id")
    if places["image"] is None:
        _no_column(source, "image", names)
    notes = [f"lines whose confidence is 0 say what a picture does not show; left out: {denied}"] if denied else []
    notes += untold
    if flagged:
        notes.append(f"the columns {some(flagged)} were taken for the classes; --label-column names that of the labels")
    if longer:
        notes.append(f"lines with more cells than the first, as a comma in a name makes them: {some(longer)}")
    if places["label"] is None and body is rows and len(names) == 1 and (folders := _folders_named(body)):
        body = [(number, [*cells, folder]) for (number, cells), folder in zip(body, folders, strict=True)]
        places["label"] = 1
        notes.append(f"classes were taken from the folders in the names: {body[0][1][0]} is {folders[0]!r}")
    if places["label"] is None:
        found = _columns_of_labels(body, names, {p for p in places.values() if p is not None})
        if len(found) != 1:
            _no_column(source, "label", [names[place] for place in found] or names)
        places["label"] = found[0]
        notes.append(f"the column {names[found[0]]!r} was taken for the labels; --label-column names another")
    return Layout(body, places, [*names, "label"], tuple(notes), names[shared] if shared is not None else "")


def _plain(name: str) -> str:
    """A name without capitals, blanks and marks: "Image ID", "image_id" and "ImageId" are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _place(kind: str, wanted: str, names: list[str], body: Sequence[Row], source: Path) -> int | None:
    """The place of a column: the one that the user named, else the first of the known names."""
    if wanted:
        lower = [name.lower() for name in names]
        if wanted in names or wanted.lower() in lower:
            return names.index(wanted) if wanted in names else lower.index(wanted.lower())
        _no_column(source, kind, names, wanted)
    plain = list(map(_plain, names))
    for name in KNOWN_NAMES[kind]:
        if name in plain:
            place = plain.index(name)
            # "set" may hold anything; it divides the data only where it says train, val and test.
            if kind != "split" or name == "split" or _are_splits(body, place):
                return place
    return None


def _repeats(key: str, names: Sequence[str], body: Sequence[Row]) -> int | None:
    """The place of a column of that name, if several rows share what is in it."""
    place = next((place for place, name in enumerate(names) if _plain(name) == key), None)
    if place is None:
        return None
    cells = [cells[place].strip() if place < len(cells) else "" for _, cells in body]
    return place if 1 < len(set(cells)) < len(cells) else None


def _are_splits(body: Sequence[Row], place: int) -> bool:
    values = {cells[place].strip().lower() for _, cells in body if place < len(cells)} - {""}
    return bool(values) and values <= {*SPLIT_NAMES, NO_SPLIT}


def _column_of_pictures(rows: Sequence[Row], is_picture: Callable[[str], bool]) -> int | None:
    """The column whose cells end as pictures' names do and are there; else one of these that is there.

    Cells that repeat, as labels do, are no names: a folder beside may hold a 1.jpg.
    """
    columns = [[cells[p].strip() for _, cells in rows if p < len(cells)] for p in range(max(len(c) for _, c in rows))]
    ends = [any(cell.lower().endswith(PICTURE_SUFFIXES) for cell in column) for column in columns]
    there = [any(map(is_picture, column)) for column in columns]
    differ = [len(set(column)) > len(column) / 2 for column in columns]
    for tests in ((ends, there), (there, differ), (ends,)):
        if (place := next((p for p, told in enumerate(zip(*tests, strict=True)) if all(told)), None)) is not None:
            return place
    return None


def _names_picture(row: Row, place: int, is_picture: Callable[[str], bool]) -> bool:
    cell = row[1][place].strip() if place < len(row[1]) else ""
    return is_picture(cell) or cell.lower().endswith(PICTURE_SUFFIXES)


def _names_of(source: Path, rows: Sequence[Row], image: int) -> list[str]:
    """Names for the columns of a table that has none. Where four numbers stand there, they are the sides of a box."""
    width = max(len(cells) for _, cells in rows)
    names = [""] * width
    names[image] = "image"
    others = [place for place in range(width) if place != image]
    splits = [place for place in others if _are_splits(rows, place)]
    if splits:
        names[splits[0]] = "split"
        others.remove(splits[0])
    numbers = [place for place in others if all(_number(cells, place) for _, cells in rows[:_FEW])]
    if len(numbers) > 3:
        others = [place for place in others if place not in numbers]
        if len(others) != 1:
            first = ",".join(["image", *[f"n{number}" for number in range(1, width - 1)], "label"])
            what = f"manifest {source} has {len(numbers)} columns of numbers, and no names that tell which is the label"
            raise InputError(what, f"name them in a first line: sed -i '1i {first}' {shlex.quote(str(source))}")
    for place, name in zip(others, ("label", "group"), strict=False):
        names[place] = name
    return names


def _number(cells: Sequence[str], place: int) -> bool:
    return place < len(cells) and re.fullmatch(r"-?[0-9]*[.]?[0-9]+", cells[place].strip()) is not None


def _folders_named(body: Sequence[Row]) -> list[str]:
    """The folders that pictures' names say they lie in, as in MIT's indoor scenes; nothing unless there are several."""
    folders = [PureWindowsPath(cells[0].strip()).parent.name for _, cells in body]
    return folders if all(folders) and len(set(folders)) > 1 else []


def _columns_of_labels(body: Sequence[Row], names: Sequence[str], taken: set[int]) -> list[int]:
    """The columns, of those not taken, whose cells repeat as classes do: neither all different nor all alike.

    Of columns that divide the pictures in the same way, the one that is called a name counts alone.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for place in sorted(set(range(len(names))) - taken):
        cells = [cells[place].strip() if place < len(cells) else "" for _, cells in body]
        fraction = any(re.fullmatch(r"-?\d*\.\d+", cell) and not cell.endswith(".0") for cell in cells)
        if all(cells) and not fraction and 1 < len(set(cells)) <= max(2, len(cells) / 2):
            firsts: dict[str, int] = {}
            alike.setdefault(tuple(firsts.setdefault(cell, row) for row, cell in enumerate(cells)), []).append(place)
    called = [[place for place in places if names[place].endswith("name")] for places in alike.values()]
    pairs = zip(alike.values(), called, strict=True)
    return sorted(place for places, named in pairs for place in (named if len(named) == 1 else places))


def _no_column(source: Path, kind: str, names: Sequence[str], wanted: str = "") -> NoReturn:
    what = {"image": "pictures", "label": "labels", "group": "groups", "split": "splits"}[kind]
    if kind == "label" and not wanted and len(names) == 1:  # as the pictures of a competition's test are listed
        raise InputError(
            f"manifest {source} has no column 'label'",
            "it only names pictures; without classes: edge-ran run MODEL --camera FOLDER",
        )
    raise InputError(
        f"manifest {source} has no column {wanted or kind!r}",
        f"its columns are {some(names)}; name that of the {what}: --{kind}-column NAME",
    )


def _with_class_column(
    source: Path, names: list[str], body: Sequence[Row]
) -> tuple[list[str], Sequence[Row], list[str]]:
    """Add a column of labels where each class has a column of its own, of 0 and 1, as Roboflow and ISIC write it.

    Returns:
        the names of the columns, the rows, and the names of the classes.
    """
    known = {*_SPLIT_FLAGS, *(name for kind in KNOWN_NAMES.values() for name in kind)}
    if set(map(_plain, names)) & set(KNOWN_NAMES["label"]):
        return names, body, []
    places = [place for place, name in enumerate(names) if name and _plain(name) not in known]
    places = [place for place in places if all(place < len(cells) and _flag(cells[place]) for _, cells in body)]
    if len(places) < 2 or all(_plain(names[place]) in SPLIT_NAMES for place in places):
        return names, body, []
    labelled = []
    for number, cells in body:
        classes = [names[place] for place in places if _flag(cells[place]) == "1"]
        if len(classes) != 1:
            raise InputError(
                f"manifest {source}, line {number}: of the classes {some([names[p] for p in places])}, "
                f"{len(classes)} are 1; a picture has one class here",
                "leave such lines out, or name the column of the labels: --label-column NAME",
            )
        labelled.append((number, _with_cell(cells, len(names), classes[0])))
    return [*names, KNOWN_NAMES["label"][0]], labelled, [names[place] for place in places]


def _without_denied(names: list[str], body: Sequence[Row]) -> tuple[list[str], Sequence[Row], int]:
    """Leave out the rows that say what a picture does not show: a confidence of 0 beside 1, as in Open Images."""
    plain = list(map(_plain, names))
    place = plain.index("confidence") if "confidence" in plain else len(names)
    said = [_flag(cells[place]) if place < len(cells) else "" for _, cells in body]
    if set(said) != {"0", "1"}:
        return names, body, 0
    return names, [row for row, flag in zip(body, said, strict=True) if flag == "1"], said.count("0")


def _with_split_column(
    names: list[str], body: Sequence[Row], classes: Sequence[str]
) -> tuple[list[str], Sequence[Row], list[str]]:
    """Add a column of splits where columns say of each picture whether it is in one: fastai's ``is_valid``.

    A picture that is in none of them is for training, where no column says so itself.

    Returns:
        the names of the columns, the rows, and notes on such columns that tell no split.
    """
    plain = list(map(_plain, names))
    if "split" in plain:
        return names, body, []
    told = {place: _SPLIT_FLAGS[name] for place, name in enumerate(plain) if name in _SPLIT_FLAGS}
    if not told and "train" in plain:  # columns called as the splits, with nothing before
        told = {place: SPLIT_NAMES[name] for place, name in enumerate(plain) if name in SPLIT_NAMES}
    told = {place: split for place, split in told.items() if names[place] not in classes}
    notes, flags = list[str](), dict[int, list[str]]()
    for place in told:
        column = [_flag(cells[place]) if place < len(cells) else "" for _, cells in body]
        if all(column):
            flags[place] = column
        else:
            number, cells = body[column.index("")]
            cell = cells[place].strip() if place < len(cells) else ""
            notes.append(_no_flags([names[place]], f"line {number} has {cell!r} there, neither 0 nor 1"))
    of_flags, called = [told[place] for place in flags], [names[place] for place in flags]
    ones = [
        [split for split, flag in zip(of_flags, row, strict=True) if flag == "1"]
        for row in zip(*flags.values(), strict=True)
    ]
    if of_flags == ["train"]:
        is_doubtful = any(not one for one in ones)  # or all is for training, which needs no column
        why = "it does not say whether the others are val or test"
        return names, body, [*notes, *([_no_flags(called, why)] if is_doubtful else [])]
    odd = next((place for place, one in enumerate(ones) if not ("train" in of_flags) <= len(one) <= 1), None)
    if odd is not None:
        return names, body, [*notes, _no_flags(called, f"line {body[odd][0]} is in {len(ones[odd]) or 'none'} of them")]
    if not flags:
        return names, body, notes
    splits = ["".join(one) or "train" for one in ones]
    rows = [(number, _with_cell(cells, len(names), split)) for (number, cells), split in zip(body, splits, strict=True)]
    return [*names, "split"], rows, notes


def _no_flags(columns: Sequence[str], why: str) -> str:
    """The note on columns that are called as splits are, and tell none."""
    are = f"column {columns[0]!r}" if len(columns) == 1 else f"columns {some(columns)}"
    return f"no splits were taken from the {are}: {why}; --split-column names one of train, val and test"


def _with_cell(cells: Sequence[str], place: int, cell: str) -> list[str]:
    """A row with a cell at that place; a row may be shorter or longer."""
    return [*cells[:place], *[""] * (place - len(cells)), cell]


def _flag(cell: str) -> str:
    """0 or 1, however it is written; else nothing."""
    known = {"0": "0", "0.0": "0", "1": "1", "1.0": "1", "false": "0", "true": "1"}
    return known.get(cell.strip().lower(), "")
