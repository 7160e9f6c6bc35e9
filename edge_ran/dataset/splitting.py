"""Holds a part of the labelled images out, group by group."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_ran.dataset.folder_doubts import set_below
from edge_ran.dataset.samples import Dataset, Sample
from edge_ran.errors import InputError
from edge_ran.printable import some

MOST_COMPARED = 50  # groups of one label, before one of them is chosen

Counts = NDArray[np.int64]


def check_fraction(fraction: float) -> None:
    """Raise InputError unless ``fraction`` lies between 0 and 1."""
    if not 0 < fraction < 1:
        part = fraction / 100 if 1 < fraction < 100 else 0.1
        raise InputError(
            f"the validation fraction must be between 0 and 1, not {fraction:g}",
            f"for instance --validation-fraction {part:g}",
        )


def split(dataset: Dataset, fraction: float = 0.1, seed: int = 0) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return (training samples, validation samples).

    A ``val`` split in the data is taken as it is. Otherwise ``fraction`` of the training samples is held out, label by
    label. Groups are never torn apart: a label whose samples lie in two groups or more gives at least one of them, a
    label of one group gives none, for what stands beside its clip shows the same place. A label without any group
    gives single pictures. Every label keeps training samples. ``test`` samples are in neither part. ``not_covered``
    tells the labels of which nothing is held out.

    Raises:
        InputError: fewer than two classes, a class with one picture, a fraction outside (0, 1), or one group a class.
    """
    check_fraction(fraction)
    if len(dataset.labels) < 2:
        raise InputError(f"{dataset.source} has one class only: {', '.join(dataset.labels)}", one_class_remedy(dataset))
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
    held = _groups_to_hold(train, fraction, random)
    grouped = {s.label for s in train if s.group}
    for label in dataset.labels:
        alone = [i for i, s in enumerate(train) if s.label == label and label not in grouped]
        enough = min(max(round(fraction * len(alone)), 1), len(alone) - 1) if len(alone) > 1 else 0
        held.update(alone[i] for i in random.permutation(len(alone))[:enough])
    if not held:
        raise InputError(
            f"{dataset.source} cannot be divided: its classes have one group each",
            "film every class in two clips or more, put pictures that were held out into val/, or name what belongs "
            "together in a manifest: --group-column COLUMN",
        )
    return tuple(s for i, s in enumerate(train) if i not in held), tuple(train[i] for i in sorted(held))


def not_covered(labels: Sequence[str], held_out: Sequence[Sample], split: str = "validation") -> str:
    """Return a sentence about the labels of which no sample is held out, or an empty string."""
    absent = sorted(set(labels) - {s.label for s in held_out})
    if not absent or not held_out:
        return ""
    if split == "test":  # which the data set names itself
        return f"no test picture shows {some(absent)}: the test accuracy says nothing of them"
    return (
        f"validation covers {len(labels) - len(absent)} of {len(labels)} classes; these have one clip or place each, "
        f"or none that was held out: {some(absent)}"
    )


def one_class_remedy(dataset: Dataset) -> str:
    """What to do about a data set of one class."""
    folder = dataset.source / dataset.labels[0] if dataset.labels else dataset.source
    if folder.is_dir() and (below := set_below(folder)):
        return f"if its classes lie deeper, give {shlex.quote(str(below))}"
    return "add pictures of another class" if dataset.source.is_file() else "add a folder for each other class"


def _groups_to_hold(train: list[Sample], fraction: float, random: np.random.Generator) -> set[int]:
    """Return the places in ``train`` of the groups to hold out: the best of many random choices."""
    groups, labels = sorted({s.group for s in train} - {""}), sorted({s.label for s in train})
    if not groups:
        return set()
    row = {group: i for i, group in enumerate(groups)}
    column = {label: i for i, label in enumerate(labels)}
    table = np.zeros((len(groups), len(labels)), np.int64)  # samples by group and label
    for sample in train:
        if sample.group:
            table[row[sample.group], column[sample.label]] += 1
    everything = np.bincount([column[s.label] for s in train], minlength=len(labels))
    wanted = np.maximum(1.0, fraction * everything) * (table.sum(0) > 0)
    chosen, best = np.zeros(len(groups), bool), (np.inf, np.inf)
    for _ in range(max(1, min(200, 20_000 // len(groups)))):
        mine = _choose(table, everything, wanted, random)
        held = table[mine].sum(0)
        if (found := (float(((held == 0) & (wanted > 0)).sum()), _distance(held, wanted))) < best:
            best, chosen = found, mine
    return {i for i, s in enumerate(train) if s.group and chosen[row[s.group]]}


def _choose(
    table: Counts, everything: Counts, wanted: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose groups: first one for every label that has two, the nearest to its share, then what comes nearer."""
    held, mine = np.zeros(table.shape[1], np.int64), np.zeros(len(table), bool)

    def may_go(group: int) -> bool:
        has = table[group] > 0
        return bool(not mine[group] and (held + table[group] < everything)[has].all())

    for label in random.permutation(table.shape[1]):
        if held[label] or (table[:, label] > 0).sum() < 2:
            continue
        free = [g for g in random.permutation(np.flatnonzero(table[:, label])) if may_go(g)][:MOST_COMPARED]
        if free:
            nearest = min(free, key=lambda g: _distance(held + table[g], wanted))
            held, mine[nearest] = held + table[nearest], True
    for group in random.permutation(len(table)):
        if may_go(group) and _distance(held + table[group], wanted) < _distance(held, wanted) - 1e-9:
            held, mine[group] = held + table[group], True
    return mine


def _distance(held: Counts, wanted: NDArray[np.float64]) -> float:
    some_wanted = wanted > 0
    return float((np.abs(held - wanted)[some_wanted] / wanted[some_wanted]).sum())
