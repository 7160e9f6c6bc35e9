"""The cards that `train`, `quantize` and `convert` write: the one place that says what a card tells of each step."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from edge_ran import __version__
from edge_ran.architecture import Architecture
from edge_ran.card import Accuracy, Calibration, InputSpec, ModelCard, Quantisation, Training, TrainingSet, Versions
from edge_ran.dataset.sketch import union
from edge_ran.host.training_data import TrainingData
from edge_ran.recipe import Recipe


def accuracy(data: TrainingData, validation_top1: float | None, test_top1: float | None, of: str = "") -> Accuracy:
    """Return what a card says of the accuracy: that of the test part, else of the validation part, else nothing."""
    split, part = data.judged_on
    top1 = test_top1 if split == "test" else validation_top1
    if part is None or top1 is None:
        return Accuracy()
    return Accuracy(dataset=data.record.dataset, split=split, images=len(part), top1=round(top1, 6), of=of)


def trained(
    architecture: Architecture,
    data: TrainingData,
    spec: InputSpec,
    training: Training,
    measured: Accuracy,
    temperature: float,
) -> ModelCard:
    """Return the card of a network that `train` made."""
    return ModelCard(
        name=f"{architecture.name}-{data.record.dataset}",
        labels=data.labels,
        input=spec,
        network=architecture.name,
        options=architecture,
        training=training,
        accuracy=measured,
        temperature=round(temperature, 4),
        versions=versions(),
    )


def training(data: TrainingSet, recipe: Recipe, *, seed: int, best_epoch: int, precision: str) -> Training:
    """Return what a card says of the training."""
    return Training(**_fields(data), recipe=recipe, seed=seed, best_epoch=best_epoch, precision=precision)


def quantised(
    card: ModelCard,
    how: Quantisation,
    data: TrainingSet,
    *,
    calibration: Calibration,
    measured: Accuracy,
    rewrites: Sequence[str],
    temperature: float,
) -> ModelCard:
    """Return the card of a network that `quantize` made of the one with ``card``, fine-tuned on ``data``."""
    before = card.training
    said = {} if before.train_images else _fields(data)  # of an imported network no pictures are known
    said["pictures"] = union(before.pictures, data.pictures)
    return dataclasses.replace(
        card,
        name=f"{card.name}-qat",
        training=dataclasses.replace(before, **said, quantisation=how),
        calibration=calibration,
        accuracy=measured,
        rewrites=tuple(rewrites),
        temperature=round(temperature, 4),
        versions=_newer(card.versions),
    )


def converted(
    card: ModelCard, precision: str, *, calibration: Calibration, rewrites: Sequence[str], masks: Sequence[str]
) -> ModelCard:
    """Return the card of a ``.tflite`` that `convert` made of the network with ``card``."""
    known = card.accuracy.top1 is not None
    of = card.accuracy.of or "the network before conversion"
    return dataclasses.replace(
        card,
        precision=precision,
        calibration=calibration,
        accuracy=dataclasses.replace(card.accuracy, of=of) if known else Accuracy(),
        rewrites=(*card.rewrites, *rewrites),
        masks=tuple(masks),
        versions=_newer(card.versions),
    )


def versions() -> Versions:
    """Return the versions that decide what a network or a file looks like."""
    return Versions(__version__, tf.__version__, tf_keras.__version__, platform.python_version())


def _fields(data: TrainingSet) -> dict[str, Any]:
    return {field.name: getattr(data, field.name) for field in dataclasses.fields(TrainingSet)}


def _newer(before: Versions) -> Versions:
    return dataclasses.replace(versions(), model=before.model)
