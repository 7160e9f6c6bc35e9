"""The names of classes that a manifest calls by numbers, out of a file beside it."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from edge_ran import files
from edge_ran.errors import InputError
from edge_ran.labels import decode_labels, names_by_number

_MAY_NAME = re.compile(r"(class|label|categor|name|map|disease)", re.IGNORECASE)  # files that may hold names of classes
_SUFFIXES = (".json", ".txt", ".csv", ".tsv", ".names", ".pbtxt", ".yaml", ".yml")
_MOST_BYTES = 1 << 20
_MOST_UNUSED = 2  # names for each number that occurs; more, and the file is about something else


def names_beside(manifest: Path, labels: Collection[str]) -> tuple[dict[str, str], str]:
    """Return the names of the classes that a manifest numbers, and the file that tells them; or nothing.

    As Kaggle's cassava leaves (``label_num_to_disease_map.json``), CUB-200-2011 and Caffe's lists (``classes.txt``)
    have it. The file's own numbers count; where they are not those of the manifest, or there are none, the first name
    is that of the lowest number, 0 or 1. Where two files give names, none is taken.

    Args:
        manifest: the file that lists the pictures.
        labels: the classes in it.
    """
    numbers = {int(label) for label in labels if re.fullmatch(r"\d{1,6}", label)}
    if len(numbers) != len(labels) or len(numbers) < 2:
        return {}, ""
    found = {}
    for path in sorted(manifest.parent.iterdir()):
        may_name = path != manifest and path.suffix.lower() in _SUFFIXES and _MAY_NAME.search(path.stem)
        if may_name and (names := _fitting(path, numbers)):
            found[path.name] = {label: names[int(label)] for label in labels}
    return (next(iter(found.values())), next(iter(found))) if len(found) == 1 else ({}, "")


def _fitting(path: Path, numbers: set[int]) -> dict[int, str]:
    """The names in a file by the manifest's numbers; nothing where they cannot be meant."""
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return {}
    try:
        listed = decode_labels(files.read_bytes(path, "label file"), str(path))
    except InputError:
        return {}
    names = names_by_number(listed)
    if not names.keys() >= numbers:
        first = 1 if 0 not in numbers and max(numbers) == len(listed) else 0
        names = dict(enumerate([names[number] for number in sorted(names)] or listed, first))
    plain = {name for name in names.values() if name and not re.fullmatch(r"[\d. ]+", name)}
    is_fit = names.keys() >= numbers and len(plain) == len(names) <= _MOST_UNUSED * len(numbers)
    return names if is_fit else {}
