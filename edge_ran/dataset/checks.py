"""Looks for trouble in labelled images: unreadable files, near-duplicates, classes and groups that are cut apart."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import dynamic_range
from edge_ran.dataset.decoding import decode
from edge_ran.dataset.foreign import naming
from edge_ran.dataset.samples import LOOSE, NO_ENDING, NO_FILES, Dataset, Progress, Sample
from edge_ran.dataset.splitting import one_class_remedy
from edge_ran.folder_walk import by_number
from edge_ran.picture import HEIF_SUFFIXES, has_more_frames, heif_remedy
from edge_ran.printable import FEW, many, some

THUMB = 16


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

    last: list[tuple[object, NDArray[np.uint8]]] = [(None, thumbs[:0])]  # many rows may name one picture

    def look(position: int, frame: NDArray[np.uint8]) -> None:
        of, thumb = last[0]
        if frame is not of:
            thumb = np.asarray(cv2.resize(frame, (THUMB, THUMB), interpolation=cv2.INTER_AREA))
            last[0] = frame, thumb
        sizes[position] = frame.shape[:2]
        thumbs[position] = thumb

    unreadable = decode(samples, look, progress)
    good = sizes[:, 0] > 0
    samples, sizes, thumbs = tuple(itertools.compress(samples, good)), sizes[good], thumbs[good]
    counts = Counter(s.label for s in samples)
    splits: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        splits[sample.split or "all"][sample.label] += 1
    problems = [
        *([f"{many(len(unreadable), 'unreadable file')}, the first: {unreadable[0]}"] if unreadable else []),
        *ignored_notes(dataset),
        *alike_notes(dataset),
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


def ignored_notes(dataset: Dataset) -> list[str]:
    """Return a sentence for each kind of file or folder that ``load`` ignored, and for what it had to guess."""
    notes = list(dataset.notes)
    for what, count in dataset.ignored:
        if what.startswith("."):
            why = "unsupported format; if they are pictures, convert them to JPEG, if they are clips, to MP4"
            why = f"pillow-heif reads them: {heif_remedy()}" if what in HEIF_SUFFIXES else why
            notes.append(f"{many(count, 'file')} ending in {what} {'was' if count == 1 else 'were'} ignored: {why}")
        elif what == NO_ENDING:
            are = "a picture whose name has no ending was" if count == 1 else f"{count} {what} were"
            notes.append(f"{are} ignored; to name such: {naming(dataset.source)}")
        elif what == NO_FILES:
            notes.append(f"{count} {what} were ignored")
        elif what.endswith(LOOSE.partition("{}")[2]):
            notes.append(f"{what} were ignored: {count}")
        else:
            notes.append(f"{count} of {what} were ignored" if count > 1 else f"{what} was ignored")
    more = sum(has_more_frames(path) for path in {sample.path for sample in dataset.samples if sample.row < 0})
    if more:
        notes.append(
            f"{many(more, 'picture')} {'has' if more == 1 else 'have'} several frames or pages: the first alone is used"
        )
    clips = {sample.path for sample in dataset.samples if sample.row >= 0 and sample.path.suffix != ".npz"}
    return [*notes, *filter(None, [dynamic_range.note(sorted(clips))])]


def alike_notes(dataset: Dataset) -> list[str]:
    """Return a sentence for each set of classes whose names differ in capital letters only: mostly one is a slip."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in dataset.labels:
        alike[label.casefold()].append(label)
    named = [" and ".join(map(repr, labels)) for labels in alike.values() if len(labels) > 1]
    return [f"classes {names} differ in capital letters only" for names in named]


def copy_notes(parts: Mapping[str, tuple[Sequence[Sample], NDArray[np.uint8]]]) -> list[str]:
    """Return a sentence where pictures held out are among those of training, too, and one where they have two classes.

    Args:
        parts: the samples of each split, "train" among them, and their pixels at any one size.
    """
    first: dict[bytes, Sample] = {}
    held, two = list[tuple[Sample, Sample]](), list[tuple[Sample, Sample]]()
    for name, (samples, images) in sorted(parts.items(), key=lambda part: part[0] != "train"):
        for sample, image in zip(samples, images, strict=True):
            key = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
            other = first.setdefault(key, sample) if name == "train" else first.get(key, sample)
            if name != "train" and other is not sample:
                held.append((other, sample))
            if other.label != sample.label:
                two.append((other, sample))
    notes = []
    for pairs, what in (
        (held, "held out {} among the training pictures, too, so that accuracy will flatter: keep one of each"),
        (two, "{} in two classes: keep each in one"),
    ):
        if pairs:
            here, there = pairs[0]
            said = what.format("is" if len(pairs) == 1 else "are")
            notes.append(f"{many(len(pairs), 'picture')} {said}; the first: {here.path} and {there.path}")
    return notes


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
        indices.sort(key=lambda i: by_number(samples[i].path))
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
        yield f"one class only: {dataset.labels[0]}; {one_class_remedy(dataset)}"
    for count, what in ((0, "no readable picture"), (1, "one picture only")):
        few = [repr(label) for label in dataset.labels if counts[label] == count]
        if len(few) > FEW:
            yield f"{len(few)} classes have {what}: {some(few)}"
        else:
            yield from (f"class {label} has {what}" for label in few)
    places: dict[str, set[str]] = defaultdict(set)
    for sample in dataset.samples:
        places[sample.group].add(sample.split)
    torn = sorted(group for group, splits in places.items() if group and len(splits) > 1)
    if torn:
        yield f"{many(len(torn), 'group')} {'is' if len(torn) == 1 else 'are'} in two splits: {some(torn)}"
    least, most = min(counts.values(), default=0), max(counts.values(), default=0)
    if most > 10 * least > 0:
        yield f"uneven classes: {many(most, 'picture')} in the largest, {least} in the smallest"


def _twins(samples: Sequence[Sample], thumbs: NDArray[np.uint8]) -> Iterator[str]:
    """Find (almost) equal pictures under two labels or in two splits, by a coarse brightness pattern, then closely.

    Equal pictures of one label and split count as one.
    """
    if not len(thumbs):
        return
    first: dict[tuple[str, str, bytes], int] = {}
    for index, sample in enumerate(samples):
        first.setdefault((sample.split, sample.label, thumbs[index].tobytes()), index)
    samples, thumbs = [samples[index] for index in first.values()], thumbs[list(first.values())]
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
            here, there = pairs[0]
            yield f"{many(len(pairs), 'pair')} of almost equal pictures {where}, the first: {here} and {there}"
