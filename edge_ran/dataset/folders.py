"""A folder of class folders, perhaps below folders for training, validation and test."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from edge_ran.dataset import foreign
from edge_ran.dataset.clips import CLIP_SUFFIXES, clip_rows, live_clip
from edge_ran.dataset.folder_doubts import (
    check_boxes,
    check_classes,
    flat_in,
    holds_folders_only,
    inner_remedy,
    split_folders,
    tables_in,
    unpacked,
)
from edge_ran.dataset.manifest import lists_pictures
from edge_ran.dataset.samples import LOOSE, NO_ENDING, NO_FILES, SPLIT_NAMES, Sample
from edge_ran.errors import InputError
from edge_ran.folder_walk import folders_in, is_system_file, walk
from edge_ran.labels import clean_label
from edge_ran.picture import NAMED_SUFFIXES, is_picture


def from_folder(source: Path, clip_step_s: float, ignored: Counter[str], chosen: Sequence[str] = ()) -> list[Sample]:
    """List the samples of a folder of class folders; add to ``ignored`` what is none of them.

    Args:
        source: the folder.
        clip_step_s: as ``load`` takes it.
        ignored: counts by name ending, or by name.
        chosen: the classes that the user named, so that a folder's name is not doubted.

    Raises:
        InputError: there is no class folder, one without a picture, or folders that look like splits without being so.
    """
    children = folders_in(source)
    if not chosen:
        check_boxes(source, children)
    splits = split_folders(children, chosen)
    # A class may be called "train" as well: its pictures lie in it, a split holds folders of classes.
    divided = bool(splits) and (len(splits) == len(children) or all(holds_folders_only(one) for one in splits))
    samples: list[Sample] = []
    for folder in [source, *(splits if divided else [])] if children else []:
        if loose := sum(_is_sample(path) for path in folder.iterdir()):
            ignored[LOOSE.format(folder)] += loose
    if lost := sum(path.is_symlink() and not path.exists() for path in source.iterdir()):
        ignored[NO_FILES] += lost
    if divided:
        for child in children:
            if child not in splits:
                ignored[f"folder {child.name}, which is neither training, validation nor test,"] += 1
        empty: list[tuple[Path, InputError]] = []
        for parent in splits:
            if flat := flat_in(parent):
                ignored[LOOSE.format(flat)] += sum(map(_is_sample, flat.iterdir()))
                continue
            samples += _classes(unpacked(parent), splits[parent], clip_step_s, ignored, empty)
        known = {sample.label for sample in samples}
        for folder, error in empty:
            if clean_label(folder.name) not in known:
                raise error
            ignored[f"folder {folder.parent.name}/{folder.name}, which holds no picture,"] += 1
    else:
        if not chosen:
            check_classes(source, children)
        samples = _classes(source, "", clip_step_s, ignored)
    if not samples:
        remedy = f"lay it out as {source}/CLASS/PICTURE, one folder a class"
        names = [str(path) for path in source.iterdir() if path.is_file()]
        if any(map(is_picture, names)):
            remedy += f"; if this is one class, give the folder above: {source.absolute().parent}"
        elif clips := sorted(Path(name).name for name in names if name.lower().endswith(CLIP_SUFFIXES)):
            remedy = f"move each clip to a folder of its class, two clips or more a class: {source}/CLASS/{clips[0]}"
        remedy = foreign.remedy(names, source) or remedy
        if tables := tables_in(source):
            remedy = f"if a manifest tells the classes, name it: edge-ran dataset {shlex.quote(str(tables[0]))}"
        raise InputError(f"{source} holds no class folder with pictures", remedy)
    return _without_layout(samples)


def _is_sample(path: Path) -> bool:
    return (is_picture(path) or path.suffix.lower() in CLIP_SUFFIXES) and not is_system_file(path.name)


def manifests_in(source: Path) -> list[tuple[Path, str]]:
    """Find the manifests of a folder without class folders, each with the split whose pictures it lists.

    As Hugging Face, Roboflow, Edge Impulse and FiftyOne have it: one manifest lies beside the pictures, or beside the
    one folder that holds them; in the whole folder or in each split.
    """
    children = folders_in(source)
    splits = [child for child in children if child.name.lower() in SPLIT_NAMES]
    parts = [(one, SPLIT_NAMES[one.name.lower()]) for one in splits] if len(splits) == len(children) else []
    found = []
    for part, split in parts or [(source, "")]:
        tables, inner = tables_in(part), folders_in(part)
        tables += [path for path in sorted(part.glob("*.json")) if path not in tables and lists_pictures(path)]
        has_pictures = any(is_picture(path.name) for path in part.iterdir())
        if len(tables) == 1 and (0 if has_pictures else 1) == len(inner):
            found.append((tables[0], split))
    return found


def _classes(
    parent: Path,
    split: str,
    clip_step_s: float,
    ignored: Counter[str],
    empty: list[tuple[Path, InputError]] | None = None,
) -> list[Sample]:
    """List the class folders in a folder. One without pictures is an error, which goes to ``empty`` where given."""
    samples: list[Sample] = []
    for folder in folders_in(parent):
        found, others = _class(folder, split, clip_step_s)
        if not found:
            endings = sorted({*others} - {NO_ENDING, NO_FILES})
            other = f", only files ending in {', '.join(endings)}" if endings else ""
            names = [str(place.folder / name) for place in walk(folder) for name in place.files]
            remedy = inner_remedy(parent) or foreign.remedy(names, parent)
            remedy = remedy or f"fill it with {NAMED_SUFFIXES}, or delete it"
            error = InputError(f"class folder {folder} holds no picture{other}", remedy)
            if empty is None:
                raise error
            empty.append((folder, error))
        samples += found
        ignored += others
    return samples


def _class(folder: Path, split: str, clip_step_s: float) -> tuple[list[Sample], Counter[str]]:
    """List a class folder; a sample's group is, for now, its sub-folder and, of a frame, the clip's name.

    A Live Photo's picture and clip are in one group.
    """
    label, samples, others = clean_label(folder.name), list[Sample](), Counter[str]()
    for place in walk(folder):
        others.update({NO_FILES: len(place.others)} if place.others else {})
        group = place.folder.relative_to(folder).as_posix().removeprefix(".")
        live = {name: live_clip(name, place.files) for name in place.files if is_picture(name)}
        filmed = set(live.values())
        for name in place.files:
            path, suffix = place.folder / name, os.path.splitext(name)[1].lower()
            if is_picture(name):
                samples.append(Sample(path, label, group or live[name], split))
            elif suffix in CLIP_SUFFIXES:
                rows = clip_rows(path, clip_step_s)
                own = group if group and name in filmed else f"{group}/{name}".lstrip("/")
                samples += [Sample(path, label, own, split, row) for row in rows]
            else:
                lacks_ending = "." not in name and foreign.begins_as_picture(path)
                others[NO_ENDING if lacks_ending else suffix or name] += 1
    return samples, others


def _without_layout(samples: Sequence[Sample]) -> list[Sample]:
    """Tell groups from layout, and name them by class as well: clips of two classes may have the same name.

    Sub-folders of every class that are called train and test are splits; one sub-folder name everywhere, as in
    tiny-imagenet's CLASS/images, is nothing.
    """
    firsts = {s.group.split("/")[0] for s in samples}
    if not any(s.split for s in samples) and all(first.lower() in SPLIT_NAMES for first in firsts):
        samples = [
            dataclasses.replace(s, split=SPLIT_NAMES[first.lower()], group=rest)
            for s in samples
            for first, _, rest in [s.group.partition("/")]
        ]
    if len({s.group for s in samples if s.row < 0}) == 1:
        samples = [dataclasses.replace(s, group="") if s.row < 0 else s for s in samples]
    return [dataclasses.replace(s, group=clean_label(f"{s.label}/{s.group}")) if s.group else s for s in samples]
