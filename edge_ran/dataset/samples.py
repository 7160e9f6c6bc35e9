"""What a labelled image is, and a set of them."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ran.errors import InputError
from edge_ran.labels import clean_label
from edge_ran.printable import some

NO_FILES = "links that lead nowhere, pipes or devices"  # as `Dataset.ignored` counts them
NO_ENDING = "pictures whose names have no ending"  # the same
LOOSE = "pictures in {} that are in no class folder"  # the same
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
NO_LABELS = {"", "nan", "n/a", "#n/a", "<na>", "null"}  # what pandas, R and Excel write where there is none

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
    """Samples in a fixed order, their labels sorted, and the files that were ignored (name endings, counted).

    ``notes`` are sentences on how the source was read, where that was not told but found. ``codes`` are the words by
    which the source calls the classes, by name, where a file beside it told the names: {"tench": "n01440764"}.
    """

    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    source: Path
    ignored: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    codes: Mapping[str, str] = field(default_factory=dict)

    def in_words_of(self, labels: Collection[str]) -> Dataset:
        """Return the set with the source's own words for its classes, where more of these than names are labels."""
        known = [sum(word in labels for word in words) for words in (self.codes.values(), self.codes)]
        if known[0] <= known[1]:
            return self
        samples = tuple(replace(s, label=self.codes.get(s.label, s.label)) for s in self.samples)
        return replace(self, samples=samples, labels=tuple(sorted({s.label for s in samples})), codes={})

    def part(self, split: str) -> tuple[Sample, ...]:
        """Return the samples of one split; ``all`` is everything.

        Raises:
            InputError: there is no such split.
        """
        if split == "all":
            return self.samples
        chosen = tuple(s for s in self.samples if s.split == SPLIT_NAMES.get(split.lower(), split))
        if not chosen:
            known = sorted({s.split for s in self.samples} - {""})
            raise InputError(
                f"{self.source} has no split {split!r}",
                f"it has: {', '.join(known)}" if known else "it is not divided: leave --split away",
            )
        return chosen


def split_name(text: str, where: str) -> str:
    if not text:
        return ""
    if text.lower() not in SPLIT_NAMES:
        raise InputError(f"{where}: split {text!r} is unknown", "use train, val or test")
    return SPLIT_NAMES[text.lower()]


def renamed(labels: Iterable[str], known: Sequence[str]) -> dict[str, str]:
    """Return, for labels that a model does not know, its own of the same letters: golden_retriever, Golden Retriever.

    They differ in capitals, blanks and marks alone. One that several labels could mean is none.
    """
    labels = set(labels)
    places = Counter(map(_letters, known))
    own = {_letters(name): name for name in known if places[_letters(name)] == 1 and name not in labels}
    asked = Counter(map(_letters, labels - set(known)))
    own.pop("", None)  # of names without letters nothing can be said
    return {label: own[key] for label in labels - set(known) if asked[key := _letters(label)] == 1 and key in own}


def _letters(label: str) -> str:
    return re.sub(r"[\W_]+", "", label.casefold())


def targets(samples: Iterable[Sample], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return (N,) places of the samples' labels in ``labels``.

    A label counts as one of those with the same letters, as ``renamed`` tells.

    Raises:
        InputError: a sample's label is not among them.
    """
    place = {clean_label(label): index for index, label in reversed(list(enumerate(labels)))}
    samples = tuple(samples)
    place |= {label: place[own] for label, own in renamed({s.label for s in samples}, tuple(place)).items()}
    unknown = sorted({s.label for s in samples} - place.keys())
    if unknown:
        are = "is" if len(unknown) == 1 else "are"
        what = f"{len(unknown)} of the data's classes {are} unknown to the model: {some(unknown)}"
        known = sorted({s.label for s in samples} & place.keys())
        others = f"; without them: {of_classes(known)}" if known else ""
        raise InputError(what, f"the model knows: {some(labels)}{others}")
    return np.array([place[s.label] for s in samples], np.int64)


def of_classes(names: Sequence[str]) -> str:
    """The option that chooses these classes."""
    return f"--classes {shlex.quote(','.join(f'{chr(34)}{name}{chr(34)}' if ',' in name else name for name in names))}"
