"""Labelled pictures for training: read, split, fitted to the network's input, and described for card and settings."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ran import dataset
from edge_ran.card import InputSpec, TrainingSet
from edge_ran.dataset import Dataset, Sample
from edge_ran.dataset.sketch import sketch
from edge_ran.errors import InputError
from edge_ran.host.scoring import Examples

_BLOCK = 4096  # pictures hashed at once: a memory-mapped set may be larger than memory


@dataclass(frozen=True)
class TrainingData:
    """The three parts of a labelled set, as pixels; ``validation`` and ``test`` may be missing.

    ``train_samples`` are the files of ``train``, ``judged_samples`` those of the part in ``judged_on``;
    ``names_validation``: the set says itself which pictures are its validation part. ``warnings`` are sentences: what
    was ignored or skipped, what the split does not cover, why an accuracy is too high. ``none`` (n, H, W, 3) uint8 are
    pictures of none of the classes, None without.
    """

    labels: tuple[str, ...]
    train: Examples
    validation: Examples | None
    test: Examples | None
    record: TrainingSet
    warnings: tuple[str, ...] = ()
    judged_samples: tuple[Sample, ...] = ()
    none: NDArray[np.uint8] | None = None
    train_samples: tuple[Sample, ...] = ()
    names_validation: bool = False

    @property
    def judged_on(self) -> tuple[str, Examples | None]:
        """The part that an accuracy is given for, by name: the test part, else the validation part."""
        return ("test", self.test) if self.test is not None else ("validation", self.validation)

    @property
    def cached(self) -> tuple[str, ...]:
        """Names of the files that hold the pixels, where these are larger than memory should hold."""
        parts = [part.pixels for part in (self.train, self.validation, self.test) if part is not None]
        files = [p.filename for p in (*parts, self.none) if isinstance(p, np.memmap) and p.filename is not None]
        return tuple(Path(file).name for file in files)


def read(
    source: Path,
    spec: InputSpec,
    validation_fraction: float,
    seed: int,
    *,
    reading: dataset.Reading | None = None,
    cache: Path | None = None,
    skip_bad: bool = False,
    none: Path | None = None,
    labels: tuple[str, ...] = (),
    group_balance: float = 0.0,
    on_load: Callable[[int, int], None] | None = None,
) -> TrainingData:
    """Read and split a labelled set.

    Args:
        source: whatever ``dataset.load`` reads.
        reading: its columns, classes and step between frames; None = as ``dataset.load`` finds them.
        cache: folder for the pixels of a set that is larger than memory should hold.
        none: a folder of pictures and clips of none of the classes.
        labels: the order of the classes, where the set has exactly these; sets have them sorted.
        group_balance: of the recipe.
        on_load: called with (pictures read, pictures).

    Raises:
        InputError: there is nothing to learn from, or a picture cannot be read.
    """
    strange, unread = ((), ()) if none is None else dataset.unlabelled(none, skip_bad=skip_bad)
    labelled = (reading or dataset.Reading()).load(source).in_words_of(labels)
    if set(labels) == set(labelled.labels):
        labelled = dataclasses.replace(labelled, labels=labels)
    problems = unread
    if skip_bad:
        good, bad = dataset.readable(labelled.samples, progress=on_load)
        labelled, problems = dataclasses.replace(labelled, samples=good), (*bad, *unread)
    samples = _split(labelled, validation_fraction, seed)
    parts: dict[str, Examples | None] = dict.fromkeys(samples)
    digest = hashlib.sha256()
    for name, chosen in samples.items():
        if chosen:
            pixels = dataset.pixels(chosen, spec, cache=cache, progress=on_load)
            targets = dataset.targets(chosen, labelled.labels).astype(np.int32)
            parts[name] = part = Examples(pixels, targets, _picture_weights(chosen, group_balance))
            _hash(digest, name, part)
    train = parts["train"]
    if train is None:
        raise InputError(f"{source} has no pictures to train on", "give a folder with one sub-folder for each class")
    strangers = None
    if strange:
        strangers = dataset.pixels(strange, spec, cache=cache, progress=on_load)
        _hash(digest, "none", Examples(strangers, np.full(len(strangers), -1, np.int32)))
    record = TrainingSet(
        dataset=Path(source).resolve().stem,
        split_by="group" if any(s.group for s in labelled.samples) else "picture",
        validation_fraction=validation_fraction,
        skipped=len(problems),
        sha256=digest.hexdigest(),
        train_images=len(train),
        val_images=len(parts["val"] or ()),
        test_images=len(parts["test"] or ()),
        pictures=sketch(train.pixels),
        none_images=0 if strangers is None else len(strangers),
    )
    pixels_of = {name: (samples[name], part.pixels) for name, part in parts.items() if part}
    said = (*_warnings(labelled, problems, samples, train), *dataset.copy_notes(pixels_of))
    judged = samples["test"] or samples["val"]
    return TrainingData(
        labelled.labels, train, parts["val"], parts["test"], record, said, judged, strangers, samples["train"],
        names_validation=any(s.split == "val" for s in labelled.samples),
    )  # fmt: skip


def _warnings(
    labelled: Dataset, problems: Sequence[str], samples: Mapping[str, tuple[Sample, ...]], train: Examples
) -> tuple[str, ...]:
    notes = [
        *dataset.ignored_notes(labelled),
        *dataset.alike_notes(labelled),
        *(f"skipped: {problem}" for problem in problems),
        dataset.frame_leak(samples["train"], train.pixels),
        dataset.not_covered(labelled.labels, samples["val"]),
        dataset.not_covered(labelled.labels, samples["test"], "test"),
    ]
    return tuple(filter(None, notes))


def _split(labelled: Dataset, validation_fraction: float, seed: int) -> dict[str, tuple[Sample, ...]]:
    train, validation = dataset.split(labelled, validation_fraction, seed)
    return {"train": train, "val": validation, "test": tuple(s for s in labelled.samples if s.split == "test")}


def _picture_weights(samples: Sequence[Sample], group_balance: float) -> NDArray[np.float32] | None:
    """(N,) factors on the loss, of mean 1 in each class; None where all are alike.

    The pictures of a class that are in no group count as one group.
    """
    if not group_balance or not any(s.group for s in samples):
        return None
    sizes = Counter((s.label, s.group) for s in samples)
    counts, totals = Counter(s.label for s in samples), Counter[str]()
    for (label, _), size in sizes.items():
        totals[label] += size ** (1 - group_balance)
    return np.array(
        [sizes[s.label, s.group] ** -group_balance * counts[s.label] / totals[s.label] for s in samples], np.float32
    )


def _hash(digest: hashlib._Hash, name: str, part: Examples) -> None:
    digest.update(name.encode() + part.labels.tobytes())
    for start in range(0, len(part), _BLOCK):
        digest.update(np.ascontiguousarray(part.pixels[start : start + _BLOCK]).data)
