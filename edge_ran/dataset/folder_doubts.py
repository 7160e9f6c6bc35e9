"""Folders beside each other that are no classes: parts of the data, pictures of boxes, or what a table divides.

A layout that is not understood must not be trained on: here it becomes a question.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from edge_ran.dataset import foreign
from edge_ran.dataset.manifest import divides_otherwise
from edge_ran.dataset.names import from_names
from edge_ran.dataset.samples import SPLIT_NAMES, Sample, of_classes
from edge_ran.dataset.tables import BESIDE
from edge_ran.errors import InputError
from edge_ran.folder_walk import folders_in, is_system_file
from edge_ran.picture import is_picture

_PICTURES_OF_BOXES, _BOXES = {"jpegimages", "images", "imgs", "data"}, {"annotations", "labels", "imagesets", "xmls"}
_NO_CLASSES = {*_PICTURES_OF_BOXES, "image", "img", "pictures", "photos", "data", "dataset", "jpg", "jpeg", "png"}
_MOST_LISTS = 5
_MOST_FOLDERS = 200  # of a level, that are looked into
_LIKE_A_SPLIT = re.compile(
    r"(^|[ _.-])(train|training|val|valid|validation|test|testing|pred)\d*([ _.-]|$)", re.IGNORECASE
)
_MASK = re.compile(r"(.+)[ _-](?:mask|seg|segmentation|groundtruth|gt)(?:[ _-]?\d+)?", re.IGNORECASE)
_LIKE_A_PART = re.compile(r"(k?fold|cv|part|split|batch|chunk|subset)s?[ _.-]?\d+", re.IGNORECASE)


def check_boxes(source: Path, children: Sequence[Path]) -> None:
    """Raise InputError where a folder has pictures in one folder and what is on them in another (VOC, YOLO, COCO)."""
    names = {child.name.lower(): child.name for child in children}
    pictures, boxes = names.keys() & _PICTURES_OF_BOXES, names.keys() & _BOXES
    if pictures and boxes:
        within = folders_in(source / names[min(pictures)])
        if len(within) > 1 and not any(one.name.lower() in SPLIT_NAMES for one in within) and inner_remedy(source):
            raise InputError(f"{names[min(boxes)]} in {source} is no class", inner_remedy(source))
        what = f"{source} is laid out for detection: {names[min(pictures)]} and {names[min(boxes)]} are no classes"
        remedy = f"list the pictures with their classes in {source}/list.csv: image,label"
        if below := next(filter(None, map(set_below, children)), None):
            remedy = f"if the classes are the folders in it, give it: edge-ran dataset {shlex.quote(str(below))}"
        if tables := [table for one in sorted(boxes) for table in tables_in(source / names[one], (".txt",))]:
            remedy = f"if a table tells the classes, name it: edge-ran dataset {shlex.quote(str(tables[0]))}"
        raise InputError(what, remedy)


def check_classes(source: Path, children: Sequence[Path]) -> None:
    """Raise InputError where the folders in a folder seem not to be the classes, and name the command that helps."""
    for child in children:
        if _LIKE_A_SPLIT.search(child.name) and holds_folders_only(child):
            raise InputError(
                f"{child} looks like a part of the data, not like a class",
                f"rename it to {source}/train, {source}/val or {source}/test, or name the classes: --classes A,B",
            )
    parts = [child for child in children if _LIKE_A_PART.fullmatch(child.name) and holds_folders_only(child)]
    names = [{inner.name for inner in folders_in(part)} for part in parts]
    if len(parts) > 1 and len(set.intersection(*names)) > 1:
        one, name = parts[0], min(set.intersection(*names))
        what = f"{one} and {parts[1].name} hold the same folders: they look like parts of the data, not like classes"
        raise InputError(
            what,
            f"move {one}/{name} to {source}/{name}/{one.name}, and so on; or {_named(parts)} if they are classes",
        )
    for child in children:
        same = {one.name for one in folders_in(child)} & ({one.name for one in children} - {child.name})
        if len(same) > 1 and holds_folders_only(child):
            what = f"{child} holds folders that are called as the classes beside it: {', '.join(sorted(same))}"
            classes = [one for one in children if one != child]
            raise InputError(what, f"leave it out: {_named(classes)}")
    if len(children) > 1 and all(_LIKE_A_SPLIT.search(child.name) for child in children):
        what = f"{children[0]} and {children[1].name} look like parts of the data, not like classes"
        named = [f"edge-ran dataset {shlex.quote(str(child))}" for child in children if from_names(child)]
        tables = [f"edge-ran dataset {shlex.quote(str(table))}" for table in tables_in(source)]
        remedy = " or ".join(named or tables) or f"make a folder for each class: {children[0]}/CLASS/PICTURE"
        raise InputError(what, f"{remedy}; or {_named(children)} if they are classes")
    child = children[0] if len(children) == 1 else source
    if child.name.lower() in _NO_CLASSES and child != source and (_holds_pictures(child) or _holds_classes(child)):
        what = f"{source} holds one folder, {child.name}, which does not look like a class"
        beside = [str(path) for path in source.iterdir() if path.is_file()]
        remedy = foreign.remedy(beside, source) or inner_remedy(source)
        if tables := [shlex.quote(str(table)) for table in tables_in(source)]:
            remedy = f"if a manifest tells the classes, name it: edge-ran dataset {' or '.join(tables)}"
        raise InputError(what, remedy or f"lay it out as {source}/CLASS/PICTURE; or {_named([child])} if it is a class")
    for table in tables_in(source):
        if divides_otherwise(table, _numbered_alike(children)):
            what = f"{table} names the pictures in the folders beside it, and gives them other classes"
            raise InputError(
                what,
                f"edge-ran dataset {shlex.quote(str(table))}; or {_named(children)} for the folders",
            )


def doubts(source: Path, samples: Sequence[Sample]) -> list[str]:
    """Return what seems odd in a folder that was read: folders that are no classes, pictures that are masks."""
    notes = []
    children = folders_in(source)
    inner = [{one.name for one in folders_in(child)} for child in children if holds_folders_only(child)]
    are_alike = 1 < len(inner) == len(children) and len(inner[0]) > 1 and all(names == inner[0] for names in inner)
    if are_alike and {child.name for child in children} == {sample.label for sample in samples}:
        what = f"{children[0].name} and {children[1].name} hold the same folders; if these are the classes, give one"
        notes.append(f"{what}: edge-ran dataset {shlex.quote(str(children[0]))}")
    stems = {(sample.path.parent, sample.path.stem) for sample in samples if sample.row < 0}
    masks = [(place, stem) for place, stem in stems if (found := _MASK.fullmatch(stem)) and (place, found[1]) in stems]
    if masks:
        place, stem = min(masks)
        look = "pictures look like masks of others, and count as pictures"
        look = "picture looks like a mask of another, and counts as a picture" if len(masks) == 1 else look
        notes.append(f"{len(masks)} {look}: {place.name}/{stem}")
    return notes


def split_folders(children: Sequence[Path], chosen: Sequence[str]) -> dict[Path, str]:
    """Return the folders that are splits, each with its split: train, or seg_train and training_set.

    The longer names count where each of the folders has one, none is that of another folder, too, and the user has
    not ``chosen`` one as a class.
    """
    named = {child: SPLIT_NAMES[child.name.lower()] for child in children if child.name.lower() in SPLIT_NAMES}
    found = {child: _split_in(child.name) for child in children if holds_folders_only(child)}
    splits = {child: split for child, split in found.items() if split in SPLIT_NAMES}
    is_clear = len(found) == len(children) and "" not in found.values() and not {one.name for one in found} & {*chosen}
    return splits if is_clear and "train" in splits.values() and len(set(splits.values())) == len(splits) else named


def _split_in(name: str) -> str:
    """The split, or "pred", that one word of a folder's name is; empty where there are none or several."""
    words = {word for word in re.split(r"[\W_\d]+", name.lower()) if word in SPLIT_NAMES or word == "pred"}
    return SPLIT_NAMES.get(word := words.pop(), word) if len(words) == 1 else ""


def unpacked(split: Path) -> Path:
    """Return the folder of the classes of a split: inside one of the same kind of name where archives left that.

    ``train/train/CLASS``, ``train/seg_train/CLASS``, ``train/images/CLASS``.
    """
    inner = folders_in(split)
    if len(inner) == 1 and (inner[0].name.lower() in _NO_CLASSES or _LIKE_A_SPLIT.search(inner[0].name)):
        return inner[0] if _holds_classes(inner[0]) and holds_folders_only(inner[0]) else split
    return split


def flat_in(split: Path) -> Path | None:
    """The one folder of a split that holds its pictures and is no class: tiny-imagenet's val/images, or test/test."""
    inner = folders_in(split)
    is_named = len(inner) == 1 and (inner[0].name.lower() in _NO_CLASSES or _LIKE_A_SPLIT.search(inner[0].name))
    return inner[0] if is_named and not folders_in(inner[0]) and _holds_pictures(inner[0]) else None


def inner_remedy(source: Path) -> str:
    """What to type where one of the folders in a folder holds the folders of the classes; empty where none does."""
    found = [child for child in folders_in(source) if holds_folders_only(child) and _holds_classes(child)]
    if len(found) != 1:
        return ""
    return f"if the classes are the folders in {found[0].name}, give it: edge-ran dataset {shlex.quote(str(found[0]))}"


def set_below(folder: Path, levels: int = 4) -> Path | None:
    """The first folder of so many levels below one, itself included, that holds a folder for each class, or splits."""
    level = [folder]
    for _ in range(levels):
        for one in level:
            splits = [child for child in folders_in(one) if child.name.lower() in SPLIT_NAMES]
            if _holds_classes(one) if not splits else any(map(_holds_classes, splits)):
                return one
        level = [child for one in level for child in folders_in(one)][:_MOST_FOLDERS]
    return None


def tables_in(folder: Path, lists: tuple[str, ...] = ()) -> list[Path]:
    """Return what looks like a manifest there; one of training pictures first.

    Of files with the endings ``lists``, there is one for each picture where they tell boxes: only a few are tables.
    """
    suffixes: tuple[str, ...] = (".csv", ".tsv", ".jsonl", ".ndjson", ".manifest")
    if lists and sum(path.suffix.lower() in lists for path in folder.iterdir()) <= _MOST_LISTS:
        suffixes += lists
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes or path.name in BESIDE]
    found = [path for path in found if not is_system_file(path.name)]
    return sorted(found, key=lambda path: ("train" not in path.name.lower(), path.name))


def holds_folders_only(folder: Path) -> bool:
    """Whether there are folders and no picture directly in a folder."""
    if not folders_in(folder):
        return False
    return not any(is_picture(path.name) for path in folder.iterdir() if path.is_file())


def _holds_classes(folder: Path) -> bool:
    """Whether two folders or more in it hold pictures directly."""
    return sum(map(_holds_pictures, folders_in(folder))) > 1


def _holds_pictures(folder: Path) -> bool:
    return any(map(is_picture, folder.iterdir()))


def _numbered_alike(folders: Sequence[Path]) -> bool:
    """Whether the folders are called the same up to a number: images_part_1, images_part_2."""
    names = {re.sub(r"\d+", "", folder.name) for folder in folders}
    return len(folders) > 1 and len(names) == 1 and names != {""}


def _named(folders: Sequence[Path]) -> str:
    return of_classes([folder.name for folder in folders])
