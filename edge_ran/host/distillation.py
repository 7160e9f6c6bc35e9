"""`--teacher`: another classifier's answers to the training pictures, which are learnt beside the labels.

Hinton et al., *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531. The teacher may be a run folder or any
``.tflite``, of another architecture and input size. It is asked once for each picture, before the training, and sees
the whole picture in the way of its own card: what the student sees may be smaller or cut. One that takes any size sees
what the student sees.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ran import dataset, runs
from edge_ran.card import InputSpec
from edge_ran.classifier import Classifier
from edge_ran.errors import InputError
from edge_ran.files import check_regular, read_bytes
from edge_ran.host import networks
from edge_ran.host.scoring import predict
from edge_ran.host.training_data import TrainingData
from edge_ran.preprocess import fit_pixels
from edge_ran.printable import many, some

SHARE = 0.5  # weight of the teacher's answers where the recipe names none
_BLOCK = 512  # pictures in memory at once


class Teacher(Protocol):
    """A classifier of the student's classes; ``sha256`` is that of its network."""

    @property
    def sha256(self) -> str: ...

    def answers(self, data: TrainingData, spec: InputSpec, on_stage: Callable[[str], None]) -> NDArray[np.float32]:
        """Return (N, classes) probabilities, at temperature 1, for the training pictures, fitted to ``spec``."""


def check_place(path: str) -> None:
    """Raise InputError where there is no such run or file: before the pictures are read, which takes long."""
    if Path(path).suffix == ".tflite":
        check_regular(path, "teacher")
    else:
        runs.open_run(Path(path))


def open_teacher(path: str, labels: tuple[str, ...]) -> Teacher:
    """Return the teacher in a run folder or ``.tflite``.

    Args:
        path: where it is.
        labels: the student's classes.

    Raises:
        InputError: it is no classifier, or of other classes.
    """
    place = Path(path)
    if place.suffix == ".tflite":
        with Classifier(place) as classifier:
            order = _order(path, classifier.labels, labels)
        return _TfliteTeacher(place, hashlib.sha256(read_bytes(place, "model")).hexdigest(), order)
    run = runs.open_run(place)
    order = _order(path, run.card().labels, labels)
    return _RunTeacher(run, hashlib.sha256(read_bytes(run.model_path, "network")).hexdigest(), order)


def _order(path: str, known: tuple[str, ...], labels: tuple[str, ...]) -> NDArray[np.intp]:
    if set(known) != set(labels):
        raise InputError(
            f"the teacher {path} has other classes: {some(sorted(set(labels) ^ set(known)))}",
            "train the teacher on the same data",
        )
    return np.array([known.index(label) for label in labels], np.intp)


def _frames(data: TrainingData, spec: InputSpec, its: InputSpec) -> Iterator[NDArray[np.uint8]]:
    """Yield the training pictures as frames, (H, W, 3) uint8 BGR.

    They are decoded again unless the teacher, whose input is ``its``, sees just the pixels of the student, or takes
    any size.
    """
    if not its.is_open and (its.height, its.width, its.fit) != (spec.height, spec.width, spec.fit):
        yield from dataset.frames(data.train_samples)
        return
    for pixels in data.train.pixels:
        yield pixels if spec.color == "bgr" else np.ascontiguousarray(pixels[..., ::-1])


@dataclass(frozen=True)
class _RunTeacher:
    run: runs.RunFolder
    sha256: str
    order: NDArray[np.intp]

    def answers(self, data: TrainingData, spec: InputSpec, on_stage: Callable[[str], None]) -> NDArray[np.float32]:
        on_stage(f"asking the teacher {self.run.path} about {many(len(data.train), 'picture')}")
        model, its = networks.load(self.run.model_path), self.run.card().input
        fitted, parts = (fit_pixels(frame, its) for frame in _frames(data, spec, its)), []
        while block := list(itertools.islice(fitted, _BLOCK)):
            parts.append(predict(model, np.stack(block), its))
        return np.concatenate(parts)[:, self.order]


@dataclass(frozen=True)
class _TfliteTeacher:
    path: Path
    sha256: str
    order: NDArray[np.intp]

    def answers(self, data: TrainingData, spec: InputSpec, on_stage: Callable[[str], None]) -> NDArray[np.float32]:
        on_stage(f"asking the teacher {self.path} about {many(len(data.train), 'picture')}")
        with Classifier(self.path) as classifier:
            classifier.temperature = 1.0  # the loss has its own
            said = [classifier.scores(frame) for frame in _frames(data, spec, classifier.spec)]
        return np.stack(said)[:, self.order].astype(np.float32)
