"""Pictures that lie in one folder and have their class in their names: ``cat.0.jpg``, ``Abyssinian_100.jpg``."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from edge_ran.dataset.samples import SPLIT_NAMES, Sample
from edge_ran.dataset.tables import MANIFEST_SUFFIXES
from edge_ran.folder_walk import folders_in, is_system_file
from edge_ran.labels import clean_label
from edge_ran.picture import is_picture

NOTE = "classes were taken from the pictures' names: {name} is {label!r}; a folder for each class goes before that"
_CLASS = re.compile(r"([^\W\d_].*?)[\W_]*\d.*")  # what stands before the first digit, without marks between
# What cameras, phones and programs call every picture, in lower case.
_NO_CLASSES = {
    *("img", "image", "imag", "cimg", "pic", "picture", "photo", "foto", "dsc", "dscn", "dscf", "pxl", "mvimg", "vid"),
    *("frame", "scan", "screenshot", "screen shot", "capture", "snapshot", "file", "sample", "p", "dji", "gopr", "sam"),
    *("whatsapp image", "signal", "untitled", "unnamed", "download", "ilsvrc"),
}


def from_names(source: Path) -> list[Sample]:
    """List the pictures of a folder, or of its ``train``, ``val`` and ``test``, by the classes in their names.

    Nothing where there are other folders or a manifest, where a name has no class, where the names look like a
    camera's, or unless there are two classes or more of two pictures or more.
    """
    children = folders_in(source)
    if any(child.name.lower() not in SPLIT_NAMES or folders_in(child) for child in children):
        return []
    parts = [(child, SPLIT_NAMES[child.name.lower()]) for child in children] or [(source, "")]
    samples = []
    for part, split in parts:
        for path in sorted(part.iterdir()):
            if is_system_file(path.name) or not path.is_file():
                continue
            if path.suffix.lower() in MANIFEST_SUFFIXES and path.suffix.lower() != ".xml":  # one a picture, of boxes
                return []
            if is_picture(path.name):
                found = _CLASS.fullmatch(path.stem)
                if found is None or found[1].lower() in _NO_CLASSES:
                    return []
                samples.append(Sample(path, clean_label(found[1]), split=split))
    counts = Counter(sample.label for sample in samples)
    return samples if len(counts) > 1 and min(counts.values()) > 1 else []
