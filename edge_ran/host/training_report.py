"""What a run shows: ``curves.png`` while it trains, and ``report.html`` of what `train` made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tf_keras
from numpy.typing import NDArray

from edge_ran import attention, evaluation_page, layer_names, plots, report
from edge_ran.attention import Look
from edge_ran.card import InputSpec
from edge_ran.host.checkpoint import EpochRecord
from edge_ran.host.scoring import predict
from edge_ran.host.training_data import TrainingData
from edge_ran.preprocess import fit_pixels, seen

FILE = "report.html"


class Curves:
    """Loss and accuracy of a run by epoch, as a picture in its folder.

    Drawing takes longer than a short epoch, so that the picture is at most ``EVERY_S`` seconds behind the run.
    """

    EVERY_S = 5.0

    def __init__(self, folder: Path) -> None:
        self._target = folder / "curves.png"
        self._drawn_at, self._drawn_epochs = time.monotonic(), 0

    def update(self, history: Sequence[EpochRecord]) -> None:
        """Draw the epochs so far, unless the picture was drawn, or the run began, a moment ago."""
        if time.monotonic() - self._drawn_at > self.EVERY_S:
            self.finish(history)

    def finish(self, history: Sequence[EpochRecord]) -> None:
        """Draw the epochs that the picture lacks."""
        if len(history) > self._drawn_epochs:
            plots.training_curves([record.numbers() for record in history], self._target)
            self._drawn_at, self._drawn_epochs = time.monotonic(), len(history)


def write(
    folder: Path,
    name: str,
    model: tf_keras.Model,
    data: TrainingData,
    spec: InputSpec,
    history: Sequence[EpochRecord],
    temperature: float,
    of: str = "",
) -> None:
    """Write the page of a run on its test pictures, else on its validation pictures; nothing without either.

    Args:
        folder: where to write.
        name: that of the run.
        model: the network that was kept.
        data: what it was trained on.
        spec: its input.
        history: its epochs.
        temperature: divides the logarithms of its probabilities, as its card says.
        of: what the page judges, where that is not the network that the run keeps.

    Raises:
        EnvironmentMissing: the disk is full.
    """
    split, part = data.judged_on
    if part is None:
        return
    logits = np.log(np.maximum(predict(model, part.pixels, spec), 1e-12)) / temperature
    scores = np.exp(logits - logits.max(1, keepdims=True))
    scores /= scores.sum(1, keepdims=True)
    answers = evaluation_page.Answers(data.labels, scores.astype(np.float32), data.judged_samples)
    notes = [f"The accuracies are those of {of}."] if of else []
    page = evaluation_page.make(
        name,
        f"{model.name}, trained on {len(data.train):,} pictures; {len(part):,} {split} pictures below, in float.",
        answers,
        history=[record.numbers() for record in history],
        notes=[*notes, *data.warnings],
        look=_looking(model, spec),
    )
    report.write(page, folder / FILE)


def _looking(model: tf_keras.Model, spec: InputSpec) -> evaluation_page.Look | None:
    """Return a function that lays the mean of the soft masks over a frame; None for a network without masks."""
    masks = [layer for layer in model.layers if layer_names.is_mask_sigmoid(layer.name)]
    if not masks:
        return None
    inner = tf_keras.Model(model.input, [layer.output for layer in masks])
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)

    def tinted(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        x = (fit_pixels(frame, spec)[None].astype(np.float32) - mean) / std
        values = inner(x, training=False)
        values = values if isinstance(values, list) else [values]
        region = seen(frame.shape[1], frame.shape[0], spec)
        looks = [Look(layer.name, v.numpy()[0].mean(-1), region) for layer, v in zip(masks, values, strict=True)]
        shown = frame.copy()
        attention.tint(shown, attention.chosen(looks, attention.MEAN))
        return shown

    return tinted
