"""`--teacher`: another classifier's answers to the training pictures, which are learnt beside the labels.

Hinton et al., *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531. The teacher may be a run folder or any
``.tflite``, of another architecture and input size. It is asked once for each picture, before the training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import runs
from edge_ran.card import InputSpec
from edge_ran.classifier import Classifier
from edge_ran.errors import InputError
from edge_ran.files import check_regular, read_bytes
from edge_ran.host import networks
from edge_ran.host.scoring import predict
from edge_ran.host.training_data import TrainingData
from edge_ran.printable import many

SHARE = 0.5  # weight of the teacher's answers where the recipe names none


class Teacher(Protocol):
    """A classifier of the student's classes; ``sha256`` is that of its network."""

    @property
    def sha256(self) -> str: ...

    def answers(self, data: TrainingData, spec: InputSpec, on_stage: Callable[[str], None]) -> NDArray[np.float32]:
        """Return (N, classes) probabilities for the training pictures, which are fitted to ``spec``."""


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
        absent = sorted(set(labels) ^ set(known))
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise InputError(
            f"the teacher {path} has other classes: {', '.join(absent[:5])}{more}",
            "train the teacher on the same data",
        )
    return np.array([known.index(label) for label in labels], np.intp)


def _fitted(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """(H, W, 3) pixels -> the same at the teacher's input size."""
    if pixels.shape[:2] == (spec.height, spec.width):
        return pixels
    smaller = spec.height < pixels.shape[0]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (spec.width, spec.height), interpolation=how), np.uint8)


@dataclass(frozen=True)
class _RunTeacher:
    run: runs.RunFolder
    sha256: str
    order: NDArray[np.intp]

    def answers(self, data: TrainingData, spec: InputSpec, on_stage: Callable[[str], None]) -> NDArray[np.float32]:
        on_stage(f"asking the teacher {self.run.path} about {many(len(data.train), 'picture')}")
        model, its = networks.load(self.run.model_path), self.run.card().input
        parts = []
        for first in range(0, len(data.train), 512):
            block = np.stack([_fitted(p, its) for p in data.train.pixels[first : first + 512]])
            parts.append(predict(model, _colours(block, spec, its), its))
        return np.concatenate(parts)[:, self.order]


@dataclass(frozen=True)
class _TfliteTeacher:
    path: Path
    sha256: str
    order: NDArray[np.intp]

    def answers(self, data: TrainingData, spec: InputSpec, on_stage: Callable[[str], None]) -> NDArray[np.float32]:
        on_stage(f"asking the teacher {self.path} about {many(len(data.train), 'picture')}")
        with Classifier(self.path) as classifier:
            # The classifier takes frames as a camera gives them, in BGR.
            bgr = [0, 1, 2] if spec.color == "bgr" else [2, 1, 0]
            said = [classifier.scores(np.ascontiguousarray(p[..., bgr])) for p in data.train.pixels]
        return np.stack(said)[:, self.order].astype(np.float32)


def _colours(block: NDArray[np.uint8], spec: InputSpec, its: InputSpec) -> NDArray[np.uint8]:
    return block if spec.color == its.color else block[..., ::-1]
