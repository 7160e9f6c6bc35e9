"""`edge-ran train`: labelled pictures -> a run folder with a network, its card and its curves."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran import start
from edge_ran.architecture import Architecture
from edge_ran.card import InputSpec
from edge_ran.dataset import Reading
from edge_ran.files import write_text
from edge_ran.host import calibration, distillation, model_cards, networks, training_data, training_report, transfer
from edge_ran.host.arithmetic import build_with, choose_precision
from edge_ran.host.checkpoint import EpochRecord
from edge_ran.host.run_settings import RunSettings
from edge_ran.host.scoring import fit_temperature, predict, scores, top1
from edge_ran.host.training_data import TrainingData
from edge_ran.host.training_loop import Callbacks, Task, fit
from edge_ran.recipe import Recipe, TrainOptions
from edge_ran.run_output import RunOutput
from edge_ran.runs import CHECKPOINT, RunFolder

UNEVEN = 1.5


@dataclass(frozen=True)
class TrainResult:
    """What `train` did. Accuracies are 0..1; they are None where the data has no such part."""

    run: str
    network: str
    parameters: int
    epochs: int
    train_images: int
    validation_images: int
    test_images: int
    validation_top1: float | None
    test_top1: float | None
    precision: str
    seconds: float
    warnings: tuple[str, ...] = ()
    start: str = "none"


def train(
    source: Path,
    run: Path,
    architecture: Architecture,
    how: Recipe,
    options: TrainOptions | None = None,
    *,
    reading: Reading | None = None,
    resume: bool = False,
    force: bool = False,
    callbacks: Callbacks | None = None,
) -> TrainResult:
    """Train a network on labelled pictures.

    Args:
        source: whatever ``dataset.load`` reads.
        run: the run folder to write; ``resume`` continues the one that is there, ``force`` starts it again.
        reading: columns, classes and step between frames of the source; None = as ``dataset.load`` finds them.
        architecture: its number of classes is replaced by that of the data.

    Raises:
        InputError: the pictures cannot be learnt from; the checkpoint is of another run.
        InputError: ``options.start`` or ``options.teacher`` does not fit the network or the classes.
        UsageError: an option or a number of the recipe is out of range.
        OutputExists: the run folder is there and neither ``resume`` nor ``force`` was given.
        EnvironmentMissing: the disk is full; the last checkpoint is whole.
    """
    started = time.monotonic()
    options, callbacks = options or TrainOptions(), callbacks or Callbacks()
    options.check()
    how.check()
    output = RunOutput(run, resume, force)
    spec = InputSpec(architecture.input_size, architecture.input_size, fit=options.fit_to)
    callbacks.on_stage(f"reading pictures from {source}")
    data = training_data.read(
        source, spec, options.validation_fraction, options.seed,
        reading=reading, cache=run, skip_bad=options.skip_bad, on_load=callbacks.on_load,
    )  # fmt: skip
    architecture = dataclasses.replace(architecture, classes=len(data.labels))
    begun = start.find(options.start, architecture)
    teacher = distillation.open_teacher(options.teacher, data.labels) if options.teacher else None
    if teacher is not None and not how.distillation:
        how = dataclasses.replace(how, distillation=distillation.SHARE)
    balance = _is_uneven(data.train.labels) if options.balance is None else options.balance
    settings = RunSettings(
        recipe=how,
        seed=options.seed,
        data=data.record,
        source=str(Path(source).resolve()),
        architecture=architecture,
        balance=balance,
        reading=reading or Reading(),
        precision=choose_precision(output.folder if resume else None, options.precision, architecture, how),
        start=begun.sha256 if begun else None,
        teacher=teacher.sha256 if teacher else None,
    )
    model = _build(settings)
    output.begin()
    settings.write(output.folder)
    calibration.keep(output.folder, data.train)
    weights = _class_weights(data.train.labels, len(data.labels)) if balance else None
    if begun and not (resume and (output.folder / CHECKPOINT).exists()):
        transfer.take_over(model, begun, data.train, spec, weights, callbacks.on_stage)
    answers = teacher.answers(data, spec, callbacks.on_stage) if teacher else None
    task = _task(output.folder, data, spec, settings, options, weights, answers)
    model, history = _fit(model, settings, task, callbacks)
    result = _finish(output.folder, model, history, settings, data, spec)
    output.finish()
    seconds, name = time.monotonic() - started, begun.name if begun else "none"
    return dataclasses.replace(result, run=str(run), seconds=seconds, start=name)


def _task(
    folder: Path,
    data: TrainingData,
    spec: InputSpec,
    settings: RunSettings,
    options: TrainOptions,
    weights: NDArray[np.float32] | None,
    answers: NDArray[np.float32] | None,
) -> Task:
    """What the training loop is to do; ``weights`` are of the classes, ``answers`` those of a teacher."""
    return Task(
        train=data.train,
        validation=data.validation,
        spec=spec,
        recipe=settings.recipe,
        folder=folder,
        seed=settings.seed,
        class_weights=weights,
        answers=answers,
        uneven=_is_uneven(data.train.labels),
        checkpoint_s=options.checkpoint_s,
        identity=settings.identity,
    )


def _build(settings: RunSettings) -> tf_keras.Model:
    architecture, precision = settings.built
    tf_keras.utils.set_random_seed(settings.seed)
    return build_with(precision, architecture)


def _fit(
    model: tf_keras.Model, settings: RunSettings, task: Task, callbacks: Callbacks
) -> tuple[tf_keras.Model, list[EpochRecord]]:
    """Train the network. Returns it in float32, with the history."""
    architecture, precision = settings.built
    with contextlib.closing(tf.summary.create_file_writer(str(task.folder / "tensorboard"))) as board:
        curves = training_report.Curves(task.folder)
        history = fit(model, task, dataclasses.replace(callbacks, on_epoch=_draws(curves, board, callbacks)))
        curves.finish(history)
    if precision == "float32":
        return model, history
    whole = build_with("float32", architecture)
    whole.set_weights([np.asarray(w, np.float32) for w in model.get_weights()])
    return whole, history


def _finish(
    run: Path,
    model: tf_keras.Model,
    history: Sequence[EpochRecord],
    settings: RunSettings,
    data: TrainingData,
    spec: InputSpec,
) -> TrainResult:
    """Judge the network, and write it with its card."""
    validation_top1, temperature = None, 1.0
    if data.validation is not None:
        probabilities = predict(model, data.validation.pixels, spec)
        validation_top1 = scores(probabilities, data.validation.labels)[1]
        temperature = fit_temperature(probabilities, data.validation.labels)
    test_top1 = top1(model, data.test, spec)
    architecture, precision = settings.built
    training = model_cards.training(
        data.record, settings.recipe, seed=settings.seed, best_epoch=max(history, key=_rank).epoch, precision=precision
    )
    measured = model_cards.accuracy(data, validation_top1, test_top1)
    card = model_cards.trained(architecture, data, spec, training=training, measured=measured, temperature=temperature)
    folder = RunFolder(run)
    networks.save(model, folder.model_path)
    training_report.write(run, model, data, spec, history, temperature)
    write_text(folder.card_path, card.to_json())
    return TrainResult(
        run=str(run),
        network=architecture.name,
        parameters=model.count_params(),
        epochs=len(history),
        train_images=len(data.train),
        validation_images=len(data.validation or ()),
        test_images=len(data.test or ()),
        validation_top1=validation_top1,
        test_top1=test_top1,
        precision=precision,
        seconds=0.0,
        warnings=data.warnings,
    )


def _draws(curves: training_report.Curves, board: Any, callbacks: Callbacks) -> Callable[[Sequence[EpochRecord]], None]:
    """Return what is done after every epoch: curves, TensorBoard's events, and the caller's own callback."""

    def after_epoch(history: Sequence[EpochRecord]) -> None:
        curves.update(history)
        with board.as_default(step=history[-1].epoch):
            for name, value in history[-1].numbers().items():
                tf.summary.scalar(name, value)
        board.flush()
        if callbacks.on_epoch:
            callbacks.on_epoch(history)

    return after_epoch


def _rank(record: EpochRecord) -> tuple[float, float, float]:
    chosen_by = record.validation_top1 if record.validation_balanced is None else record.validation_balanced
    return chosen_by or 0.0, -(record.validation_loss or 0.0), record.epoch


def _is_uneven(labels: NDArray[np.int32]) -> bool:
    """Whether the largest class has more than ``UNEVEN`` times the pictures of the smallest."""
    counts = np.bincount(labels)
    return bool(counts.max() > UNEVEN * counts.min())


def _class_weights(labels: NDArray[np.int32], classes: int) -> NDArray[np.float32]:
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return (len(labels) / (classes * counts)).astype(np.float32)
