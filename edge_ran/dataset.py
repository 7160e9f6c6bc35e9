"""Labelled images: a folder of class folders, a CSV manifest or an ``.npz`` -> samples -> pixels.

A *group* is what must not be torn apart when a part is held out: the frames of one clip, the pictures of one place.
Neighbouring frames of a clip are almost the same picture, so a split by frame measures memory, not skill.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import files, npz
from edge_ran.card import InputSpec
from edge_ran.errors import InputError
from edge_ran.picture import PICTURE_SUFFIXES, eight_bit_bgr, read_picture
from edge_ran.preprocess import fit_pixels

CLIP_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
CACHE_ABOVE_BYTES = 1 << 30
SHOW_AT_MOST = 5
THUMB = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    ``path`` is a picture, a clip or an ``.npz``; ``row`` the frame number in the clip or the row of the array, -1 for a
    picture. ``group`` is empty where none is known; ``split`` is ``train``, ``val``, ``test`` or empty.
    """

    path: Path
    label: str
    group: str = ""
    split: str = ""
    row: int = -1


@dataclass(frozen=True)
class Dataset:
    """Samples in a fixed order, their labels sorted, and the files that were ignored (name endings, counted)."""

    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    source: Path
    ignored: tuple[tuple[str, int], ...] = ()

    def part(self, split: str) -> tuple[Sample, ...]:
        """Return the samples of one split; ``all`` is everything.

        Raises:
            InputError: there is no such split.
        """
        if split == "all":
            return self.samples
        chosen = tuple(s for s in self.samples if s.split == SPLIT_NAMES.get(split, split))
        if not chosen:
            known = sorted({s.split for s in self.samples} - {""})
            raise InputError(
                f"{self.source} has no split {split!r}",
                f"it has: {', '.join(known)}" if known else "it is not divided: leave --split away",
            )
        return chosen


# ------------------------------------------------------------------------------------------------ a whole source


def load(
    source: Path,
    *,
    label_column: str = "label",
    group_column: str = "group",
    split_column: str = "split",
    labels: Sequence[str] = (),
    clip_step_s: float = 1.0,
) -> Dataset:
    """List the labelled images of a source, without decoding them.

    Args:
        source: a folder of class folders (also below ``train/``, ``val/``, ``test/``), whose pictures in a sub-folder
            of a class share that sub-folder as group; a CSV manifest with the columns ``image,label[,group][,split]``
            and paths relative to it; or an ``.npz`` with ``x`` (N, H, W, 3) or (N, H, W) uint8 RGB, ``y`` (N,) and
            perhaps ``labels`` (names of the numbers in y), ``group`` and ``split``.
        label_column, group_column, split_column: other names of the manifest's columns.
        labels: keep these classes only; empty keeps all.
        clip_step_s: seconds between two frames taken from a clip (``.mp4``, ``.mov``, …); a clip is a group.

    Raises:
        InputError: the source is missing, empty, or not of such a form.
    """
    source = Path(source)
    if clip_step_s <= 0:
        raise InputError(f"the step between frames must be above 0 s, not {clip_step_s:g}")
    ignored: Counter[str] = Counter()
    if source.is_dir():
        samples = _from_folder(source, clip_step_s, ignored)
    elif source.suffix.lower() == ".csv":
        samples = _from_manifest(source, (label_column, group_column, split_column), clip_step_s)
    elif source.suffix.lower() == ".npz":
        samples = _from_arrays(source)
    elif source.exists():
        raise InputError(f"{source} is not a data set", "give a folder of class folders, a .csv manifest or a .npz")
    else:
        raise InputError(f"no such folder or file: {source}", "check the path")
    if labels:
        absent = sorted(set(labels) - {s.label for s in samples})
        if absent:
            raise InputError(f"{source} has no class {', '.join(map(repr, absent))}", "check the class names")
        samples = [s for s in samples if s.label in set(labels)]
    found = tuple(sorted({s.label for s in samples}))
    return Dataset(tuple(samples), found, source, tuple(sorted(ignored.items())))


def _from_folder(source: Path, clip_step_s: float, ignored: Counter[str]) -> list[Sample]:
    children = [child for child in sorted(source.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    by_split = bool(children) and all(child.name.lower() in SPLIT_NAMES for child in children)
    samples: list[Sample] = []
    for parent in children if by_split else [source]:
        split = SPLIT_NAMES[parent.name.lower()] if by_split else ""
        for folder in sorted(parent.iterdir()):
            if not folder.is_dir() or folder.name.startswith("."):
                continue
            before = len(samples)
            for place, inner, names in os.walk(folder):
                inner[:] = sorted(name for name in inner if not name.startswith("."))
                group = Path(place).relative_to(folder).as_posix().removeprefix(".")
                for name in sorted(names):
                    path, suffix = Path(place, name), os.path.splitext(name)[1].lower()
                    if name.startswith("."):
                        continue
                    if suffix in PICTURE_SUFFIXES:
                        samples.append(Sample(path, folder.name, group, split))
                    elif suffix in CLIP_SUFFIXES:
                        rows = _clip_rows(path, clip_step_s)
                        samples += [Sample(path, folder.name, f"{group}/{name}".lstrip("/"), split, r) for r in rows]
                    else:
                        ignored[suffix or name] += 1
            if len(samples) == before:
                other = f", only files ending in {', '.join(sorted(ignored))}" if ignored else ""
                raise InputError(
                    f"class folder {folder} holds no picture{other}",
                    f"fill it with {', '.join(PICTURE_SUFFIXES)}, or delete it",
                )
    if not samples:
        raise InputError(
            f"{source} holds no class folder with pictures", f"lay it out as {source}/CLASS/PICTURE, one folder a class"
        )
    pictures = {s.group for s in samples if s.row < 0}
    if len(pictures) == 1:  # tiny-imagenet's CLASS/images/*: one sub-folder name everywhere is layout, not a group
        samples = [Sample(s.path, s.label, "", s.split) if s.row < 0 else s for s in samples]
    return samples


def unlabelled(folder: Path, clip_step_s: float = 1.0) -> tuple[Sample, ...]:
    """List the pictures and clips' frames anywhere below a folder, without labels; a clip is a group.

    Raises:
        InputError: there is no such folder, nothing in it, or a clip that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}", "check the path")
    samples: list[Sample] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        if path.suffix.lower() in PICTURE_SUFFIXES:
            samples.append(Sample(path, ""))
        elif path.suffix.lower() in CLIP_SUFFIXES:
            group = path.relative_to(folder).as_posix()
            samples += [Sample(path, "", group, row=row) for row in _clip_rows(path, clip_step_s)]
    if not samples:
        raise InputError(f"{folder} holds no picture and no clip", f"fill it with {', '.join(PICTURE_SUFFIXES)}")
    return tuple(samples)


def _from_manifest(source: Path, columns: tuple[str, str, str], clip_step_s: float) -> list[Sample]:
    label_column, group_column, split_column = columns
    try:
        text = files.read_bytes(source, "manifest").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"manifest {source} is not UTF-8 text", "save it as UTF-8 CSV") from error
    header = text.splitlines()[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter)
    names = rows.fieldnames or ()
    for wanted in ("image", label_column):
        if wanted not in names:
            raise InputError(
                f"manifest {source} has no column {wanted!r}",
                f"its columns are {', '.join(names)}; choose with --label-column and --group-column",
            )
    for wanted, default in ((group_column, "group"), (split_column, "split")):
        if wanted != default and wanted not in names:
            raise InputError(f"manifest {source} has no column {wanted!r}", f"its columns are {', '.join(names)}")
    samples: list[Sample] = []
    missing: list[Path] = []
    for row in rows:
        image, label = (row["image"] or "").strip(), (row[label_column] or "").strip()
        if not image or not label:
            raise InputError(f"manifest {source}, line {rows.line_num}: image or {label_column} is empty", "fill it in")
        path = source.parent / image
        group = (row.get(group_column) or "").strip()
        split = _split_name((row.get(split_column) or "").strip(), f"manifest {source}, line {rows.line_num}")
        if not path.is_file():
            missing.append(path)
        elif path.suffix.lower() in CLIP_SUFFIXES:
            samples += [Sample(path, label, group or image, split, r) for r in _clip_rows(path, clip_step_s)]
        else:
            samples.append(Sample(path, label, group, split))
    if missing:
        raise InputError(f"manifest {source} names {len(missing)} missing files; the first: {missing[0]}", "mend it")
    if not samples:
        raise InputError(f"manifest {source} lists no picture", "add lines: image,label")
    return samples


def _from_arrays(source: Path) -> list[Sample]:
    arrays = npz.read(source, ("x", "y", "labels", "group", "split"))
    for wanted in ("x", "y"):
        if wanted not in arrays:
            raise InputError(
                f"{source} has no array {wanted!r}", f"it has: {', '.join(npz.names(source)) or 'nothing'}"
            )
    y, groups, splits = arrays["y"], arrays.get("group"), arrays.get("split")
    if "labels" in arrays and arrays["labels"].ndim != 1:
        raise InputError(f"{source}: labels must be (classes,), not {arrays['labels'].shape}")
    names = [str(name) for name in arrays["labels"]] if "labels" in arrays else None
    count = len(_pixels_of(source, arrays))
    if y.ndim != 1 or len(y) != count or any(a is not None and a.shape != (count,) for a in (groups, splits)):
        raise InputError(f"{source}: y, group and split must be ({count},), one value for each image of x")
    if names is not None and not (np.issubdtype(y.dtype, np.integer) and y.min() >= 0 and y.max() < len(names)):
        raise InputError(f"{source}: y must be whole numbers from 0 to {len(names) - 1}, places in labels")
    return [
        Sample(
            source,
            names[int(y[row])] if names is not None else str(y[row]),
            str(groups[row]) if groups is not None else "",
            _split_name(str(splits[row]), f"{source}, row {row}") if splits is not None else "",
            row,
        )
        for row in range(count)
    ]


def _pixels_of(source: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    x = arrays["x"]
    if x.dtype != np.uint8 or not (x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (1, 3))) or not x.size:
        raise InputError(f"{source}: x must be (N, H, W, 3) uint8, not {x.shape} {x.dtype}")
    x = x[..., None] if x.ndim == 3 else x
    return np.broadcast_to(x, (*x.shape[:3], 3))


def _split_name(text: str, where: str) -> str:
    if not text:
        return ""
    if text.lower() not in SPLIT_NAMES:
        raise InputError(f"{where}: split {text!r} is unknown", "use train, val or test")
    return SPLIT_NAMES[text.lower()]


def _clip_rows(path: Path, step_s: float) -> list[int]:
    """Numbers of the frames to take from a clip: the middle of every ``step_s`` seconds, at least one."""
    with clip(path) as capture:
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        fps = capture.get(cv2.CAP_PROP_FPS)
    if count <= 0 or not 0 < fps < 1e4:
        raise InputError(f"clip {path} does not tell its length", "record or convert it again, as .mp4")
    steps = max(1, int(count / fps / step_s))
    return [min(count - 1, int((step + 0.5) * min(step_s * fps, count))) for step in range(min(steps, count))]


@contextlib.contextmanager
def clip(path: Path) -> Iterator[cv2.VideoCapture]:
    """Open a clip; frames come upright. Raises InputError when it cannot be opened."""
    files.check_regular(path, "clip")
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise InputError(f"clip {path} cannot be opened", "it must be a video that FFmpeg reads")
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # phones film sideways and write a rotation tag
        yield capture
    finally:
        capture.release()


# ------------------------------------------------------------------------------------------------ splitting


def split(dataset: Dataset, fraction: float = 0.1, seed: int = 0) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return (training samples, validation samples).

    A ``val`` split in the data is taken as it is. Otherwise ``fraction`` of the training samples is held out, label by
    label; a group is never torn apart, and every class keeps training samples. ``test`` samples are in neither part.

    Raises:
        InputError: fewer than two classes, a class with one picture, or a fraction outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise InputError(f"the validation fraction must be between 0 and 1, not {fraction:g}")
    if len(dataset.labels) < 2:
        raise InputError(
            f"{dataset.source} has one class only: {', '.join(dataset.labels)}", "add a folder for each other class"
        )
    train = [s for s in dataset.samples if s.split in ("train", "")]
    validation = [s for s in dataset.samples if s.split == "val"]
    counts = Counter(s.label for s in train)
    for label in dataset.labels:
        if counts[label] < 2 - bool(validation):
            have = "one picture only" if counts[label] else "no picture to train on"
            raise InputError(f"class {label!r} of {dataset.source} has {have}", "add pictures, or remove the class")
    if validation:
        return tuple(train), tuple(validation)

    random = np.random.default_rng(seed)
    groups = sorted({s.group for s in train} - {""})
    held = _choose_groups(train, groups, fraction, random) if groups else set()
    for label in dataset.labels:
        alone = [i for i, s in enumerate(train) if s.label == label and not s.group]
        enough = round(fraction * len(alone)) or int(1 < len(alone) == counts[label])
        held.update(alone[i] for i in random.permutation(len(alone))[:enough])
    if not held:
        raise InputError(
            f"{dataset.source} cannot be divided: its classes have one group each",
            "film every class in two clips or more, or give a val/ folder",
        )
    return tuple(s for i, s in enumerate(train) if i not in held), tuple(train[i] for i in sorted(held))


def _choose_groups(train: list[Sample], groups: list[str], fraction: float, random: np.random.Generator) -> set[int]:
    """Return the places in ``train`` of the groups to hold out: of many random greedy tries, the one with every label
    nearest to ``fraction`` of its samples."""
    labels = sorted({s.label for s in train})
    table = np.zeros((len(groups), len(labels)), np.int64)  # samples by group and label
    row = {group: i for i, group in enumerate(groups)}
    column = {label: i for i, label in enumerate(labels)}
    for sample in train:
        if sample.group:
            table[row[sample.group], column[sample.label]] += 1
    everything = np.bincount([column[s.label] for s in train], minlength=len(labels))
    wanted = np.maximum(1.0, fraction * table.sum(0))
    best, chosen = np.inf, np.zeros(len(groups), bool)
    for _ in range(max(1, min(200, 20_000 // len(groups)))):
        held, mine = np.zeros(len(labels), np.int64), np.zeros(len(groups), bool)
        for index in random.permutation(len(groups)):
            after = held + table[index]
            nearer = (np.abs(after - wanted) / wanted).sum() < (np.abs(held - wanted) / wanted).sum() - 1e-9
            if nearer and (after[table[index] > 0] < everything[table[index] > 0]).all():
                held, mine[index] = after, True
        distance = (np.abs(held - wanted) / wanted).sum()
        if distance < best:
            best, chosen = distance, mine
    return {i for i, s in enumerate(train) if s.group and chosen[row[s.group]]}


def targets(samples: Iterable[Sample], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return (N,) places of the samples' labels in ``labels``.

    Raises:
        InputError: a sample's label is not among them.
    """
    place = {label: index for index, label in enumerate(labels)}
    samples = tuple(samples)
    unknown = sorted({s.label for s in samples} - place.keys())
    if unknown:
        raise InputError(
            f"{len(unknown)} of the data's classes are unknown to the model: {_some(unknown)}",
            f"the model knows: {_some(labels)}",
        )
    return np.array([place[s.label] for s in samples], np.int64)


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOW_AT_MOST
    return ", ".join(names[:SHOW_AT_MOST]) + (f" and {more} more" if more > 0 else "")


# ------------------------------------------------------------------------------------------------ looking for trouble


@dataclass(frozen=True)
class DatasetSummary:
    """What `edge-ran dataset` finds.

    ``classes`` and ``splits`` count images by label, ``groups`` is the number of groups, ``sizes`` has ``min``,
    ``median`` and ``max`` (height, width) in pixels, empty without images, ``unreadable`` one line a file, ``ignored``
    the number of files by name ending, ``problems`` sentences for people.
    """

    source: str
    images: int
    classes: dict[str, int]
    splits: dict[str, dict[str, int]]
    groups: int
    sizes: dict[str, tuple[int, int]]
    unreadable: tuple[str, ...]
    ignored: dict[str, int]
    problems: tuple[str, ...]


def summarise(dataset: Dataset, *, progress: Progress | None = None) -> DatasetSummary:
    """Decode every sample once and describe the data set."""
    samples = dataset.samples
    sizes = np.zeros((len(samples), 2), np.int64)
    thumbs = np.zeros((len(samples), THUMB, THUMB, 3), np.uint8)

    def look(position: int, frame: NDArray[np.uint8]) -> None:
        sizes[position] = frame.shape[:2]
        thumbs[position] = cv2.resize(frame, (THUMB, THUMB), interpolation=cv2.INTER_AREA)

    unreadable = _decode(samples, look, progress)
    good = sizes[:, 0] > 0
    samples, sizes, thumbs = tuple(itertools.compress(samples, good)), sizes[good], thumbs[good]
    counts = Counter(s.label for s in samples)
    splits: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        splits[sample.split or "all"][sample.label] += 1
    problems = [
        *([f"{len(unreadable)} unreadable files, the first: {unreadable[0]}"] if unreadable else []),
        *(f"{count} files ending in {ending} were ignored: unsupported format" for ending, count in dataset.ignored),
        *_count_problems(dataset, counts),
        *_twins(samples, thumbs),
        *filter(None, [frame_leak(samples, thumbs)]),
    ]
    by_area = sizes[np.argsort(sizes.prod(1), kind="stable")]
    places = (("min", 0), ("median", len(by_area) // 2), ("max", -1)) if len(by_area) else ()
    return DatasetSummary(
        source=str(dataset.source),
        images=len(samples),
        classes={label: counts[label] for label in dataset.labels},
        splits={name: {label: n[label] for label in dataset.labels} for name, n in splits.items()},
        groups=len({s.group for s in samples} - {""}),
        sizes={name: (int(by_area[place][0]), int(by_area[place][1])) for name, place in places},
        unreadable=tuple(unreadable),
        ignored=dict(dataset.ignored),
        problems=tuple(problems),
    )


def frame_leak(samples: Sequence[Sample], images: NDArray[np.uint8]) -> str:
    """Return a warning when the ungrouped samples look like frames of clips, else an empty string.

    Neighbours by name within a class whose colours are more alike than those of two pictures of that class drawn at
    random come from the same clip; held out one by one they would be recognised, not classified. (Indoor walks at one
    frame a second: nearer in 81 % of the pairs. CIFAR-10: in 52 %.)

    Args:
        samples: N of them.
        images: (N, H, W, 3) uint8, their pixels at any size.
    """
    by_class: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, sample in enumerate(samples):
        if not sample.group and sample.row < 0:
            by_class[sample.label, sample.split].append(index)
    random = np.random.default_rng(0)
    nearer = []
    for indices in by_class.values():
        indices.sort(key=lambda i: str(samples[i].path))
        if len(indices) < 8:
            continue
        for at in random.permutation(len(indices) - 1)[:100]:
            one, next_, other = (_colours(images[indices[i]]) for i in (at, at + 1, random.integers(len(indices))))
            nearer.append(np.abs(one - next_).sum() < np.abs(one - other).sum())
    if len(nearer) < 20 or np.mean(nearer) < 0.66:
        return ""
    return (
        "neighbouring pictures are much alike, as frames of one clip are, and no group says which belong together: "
        "accuracy on held-out frames will flatter; put each clip in a sub-folder of its class, or give a group column"
    )


def _colours(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W, 3) -> (3, 16) share of the pixels in sixteen brightness bands of each colour."""
    return np.stack([np.bincount(band.ravel() >> 4, minlength=16) / band.size for band in np.moveaxis(image, -1, 0)])


def _distance(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())


def _count_problems(dataset: Dataset, counts: Counter[str]) -> Iterator[str]:
    if len(dataset.labels) < 2:
        yield f"one class only: {dataset.labels[0]}"
    for label in dataset.labels:
        if counts[label] < 2:
            yield f"class {label!r} has {'one picture only' if counts[label] else 'no readable picture'}"
    places: dict[str, set[str]] = defaultdict(set)
    for sample in dataset.samples:
        places[sample.group].add(sample.split)
    torn = sorted(group for group, splits in places.items() if group and len(splits) > 1)
    if torn:
        yield f"{len(torn)} groups are in two splits: {_some(torn)}"
    least, most = min(counts.values(), default=0), max(counts.values(), default=0)
    if most > 10 * least > 0:
        yield f"uneven classes: {most} pictures in the largest, {least} in the smallest"


def _twins(samples: Sequence[Sample], thumbs: NDArray[np.uint8]) -> Iterator[str]:
    """Find (almost) equal pictures under two labels or in two splits, by a coarse brightness pattern, then closely."""
    coarse = thumbs.reshape(-1, 8, THUMB // 8, 8, THUMB // 8, 3).mean((2, 4, 5))
    patterns = np.packbits(coarse > np.median(coarse, axis=(1, 2), keepdims=True), axis=None).reshape(-1, 8)
    buckets: dict[bytes, list[int]] = defaultdict(list)
    across_splits, across_labels = [], []
    for index, pattern in enumerate(patterns):
        bucket = buckets[pattern.tobytes()]
        for other in bucket[:32]:
            one, two = samples[index], samples[other]
            if (one.split, one.label) != (two.split, two.label) and _distance(thumbs[index], thumbs[other]) < 2:
                if one.split != two.split:
                    across_splits.append((two.path, one.path))
                if one.label != two.label:
                    across_labels.append((two.path, one.path))
        bucket.append(index)
    for pairs, where in ((across_splits, "in two splits"), (across_labels, "under two labels")):
        if pairs:
            yield f"{len(pairs)} pairs of almost equal pictures {where}, the first: {pairs[0][0]} and {pairs[0][1]}"


# ------------------------------------------------------------------------------------------------ decoding


def pixels(
    samples: Sequence[Sample], spec: InputSpec, *, progress: Progress | None = None, cache: Path | None = None
) -> NDArray[np.uint8]:
    """Decode and fit samples to a network's input, on all cores.

    Args:
        samples: N of them.
        spec: the network's input.
        progress: called with (done, total) from time to time, in the caller's thread.
        cache: a folder; arrays above 1 GiB become a memory-mapped ``.npy`` there, which is used again while neither
            files nor ``spec`` change. Without it everything stays in memory.

    Returns:
        (N, spec.height, spec.width, 3) uint8 in ``spec.color`` order.

    Raises:
        InputError: a picture is unreadable; names the first and says how many.
        EnvironmentMissing: no space left for the cache.
    """
    shape = (len(samples), spec.height, spec.width, 3)
    if cache is None or np.prod(shape, dtype=np.int64) <= CACHE_ABOVE_BYTES:
        out = np.empty(shape, np.uint8)
        _fill(out, samples, spec, progress)
        return out
    target = Path(cache) / f"pixels-{_fingerprint(samples, spec)}.npy"
    if not target.is_file():
        files.sweep_temporaries(target.parent)
        with files.atomic_path(target) as temporary:
            mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            with open(temporary, "rb+") as file:  # a sparse file on a full disk would kill the process with SIGBUS
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            _fill(mapped, samples, spec, progress)
            mapped.flush()
    pixels: NDArray[np.uint8] = np.load(target, mmap_mode="r")
    return pixels


def readable(
    samples: Sequence[Sample], *, progress: Progress | None = None
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Decode every sample once; return those that can be read, and one line for each file that cannot."""
    good = np.zeros(len(samples), bool)

    def note(position: int, frame: NDArray[np.uint8]) -> None:
        good[position] = True

    problems = _decode(samples, note, progress)
    return tuple(itertools.compress(samples, good)), tuple(problems)


def frames(samples: Sequence[Sample], ahead: int = 16) -> Iterator[NDArray[np.uint8]]:
    """Yield each sample as a frame, (H, W, 3) uint8 BGR, in order; ``ahead`` of them are decoded in the background.

    Raises:
        InputError: a picture is unreadable.
    """
    runs = [list(run) for _, run in itertools.groupby(samples, key=lambda s: (s.path, s.row < 0))]
    arrays = _open_arrays(samples)
    pictures = ThreadPoolExecutor(_threads())
    try:
        waiting: list[Any] = []
        for run in runs:
            if run[0].row < 0:
                waiting.append(pictures.submit(read_picture, run[0].path))
                waiting += waiting[-1:] * (len(run) - 1)
                while len(waiting) > ahead:
                    yield waiting.pop(0).result()
                continue
            while waiting:
                yield waiting.pop(0).result()
            yield from _rows(run[0].path, [s.row for s in run], arrays)
        while waiting:
            yield waiting.pop(0).result()
    finally:
        pictures.shutdown(cancel_futures=True)


def _fill(out: NDArray[np.uint8], samples: Sequence[Sample], spec: InputSpec, progress: Progress | None) -> None:
    def put(position: int, frame: NDArray[np.uint8]) -> None:
        out[position] = fit_pixels(frame, spec)

    problems = _decode(samples, put, progress)
    if problems:
        count = f"{len(problems)} files cannot be read; the first: " if len(problems) > 1 else ""
        raise InputError(f"{count}{problems[0]}", "mend or delete them, or skip them aloud with --skip-bad")


def _decode(
    samples: Sequence[Sample], use: Callable[[int, NDArray[np.uint8]], None], progress: Progress | None
) -> list[str]:
    """Call ``use(position, frame)`` for every sample, in threads and in any order; return what could not be read."""
    places: dict[Path, list[int]] = defaultdict(list)
    for position, sample in enumerate(samples):
        places[sample.path].append(position)
    arrays = _open_arrays(samples)
    # One job decodes one picture or one clip, or a handful of an array's rows.
    jobs = [
        positions[start : start + step]
        for path, positions in places.items()
        for step in [256 if path in arrays else len(positions)]
        for start in range(0, len(positions), step)
    ]

    def work(positions: list[int]) -> tuple[int, str]:
        path = samples[positions[0]].path
        try:
            if samples[positions[0]].row < 0:
                frame = read_picture(path)
                for position in positions:
                    use(position, frame)
            else:
                positions = sorted(positions, key=lambda p: samples[p].row)
                decoded = _rows(path, [samples[p].row for p in positions], arrays)
                for position, frame in zip(positions, decoded, strict=True):
                    use(position, frame)
        except InputError as error:
            return len(positions), str(error)
        return len(positions), ""

    problems, done = [], 0
    pool = ThreadPoolExecutor(_threads())
    try:
        for count, problem in pool.map(work, jobs):
            done += count
            if problem:
                problems.append(problem)
            if progress is not None:
                progress(done, len(samples))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing is left working
    return problems


def _open_arrays(samples: Iterable[Sample]) -> dict[Path, NDArray[np.uint8]]:
    opened = {}
    for path in {s.path for s in samples if s.row >= 0 and s.path.suffix.lower() == ".npz"}:
        opened[path] = _pixels_of(path, npz.read(path, ("x",)))
    return opened


def _rows(path: Path, rows: list[int], arrays: dict[Path, NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of an array or a clip as BGR, ``rows`` ascending."""
    if path in arrays:
        for row in rows:
            yield np.ascontiguousarray(arrays[path][row, :, :, ::-1])
        return
    with clip(path) as capture:
        at, frame = -1, None
        for row in rows:
            while at < row:
                if not capture.grab():
                    raise InputError(f"clip {path} ends at frame {at + 1}, before frame {row}", "copy it again")
                at, frame = at + 1, None
            if frame is None:
                _, frame = capture.retrieve()
            yield eight_bit_bgr(np.asarray(frame), path)


def _threads() -> int:
    return max(2, min(8, os.cpu_count() or 1))


def _fingerprint(samples: Iterable[Sample], spec: InputSpec) -> str:
    digest = hashlib.sha256(repr(spec).encode())
    for sample in samples:
        status = sample.path.stat()
        digest.update(f"{sample.path}\0{sample.row}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
