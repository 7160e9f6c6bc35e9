"""`edge-ran train`: labelled pictures -> a run folder with a network, its card and its curves."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
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
from edge_ran.card import InputSpec, TrainingSet
from edge_ran.dataset import Reading
from edge_ran.dataset.sketch import sketch
from edge_ran.errors import UsageError
from edge_ran.files import TemporaryFolder, write_text
from edge_ran.host import (
    calibration,
    distillation,
    distributed,
    model_cards,
    networks,
    training_data,
    training_report,
    transfer,
)
from edge_ran.host.arithmetic import build_with, choose_precision
from edge_ran.host.checkpoint import EpochRecord
from edge_ran.host.run_settings import RunSettings, check_resumed
from edge_ran.host.scoring import Examples, fit_temperature, predict, scores, top1
from edge_ran.host.training_data import TrainingData
from edge_ran.host.training_loop import Callbacks, Task, Trained, fit
from edge_ran.recipe import Recipe, TrainOptions
from edge_ran.run_output import RunOutput
from edge_ran.runs import CHECKPOINT, RunFolder
from edge_ran.workers import Workers

UNEVEN = 1.5
BEFORE_ALL = "the network before its last layer was fitted to these pictures as well"


@dataclass(frozen=True)
class TrainResult:
    """What `train` did. Accuracies are 0..1; they are None where the data has no such part, and on workers above 0,
    which judge nothing. ``best_epoch`` is the one whose weights were kept: 0 for the first weights with nothing but the
    last layer fitted, -1 for the last epoch where there is no validation part."""

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
    best_epoch: int = -1
    worker: int = 0


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
    workers: Workers | None = None,
    wait_s: float = 300.0,
    callbacks: Callbacks | None = None,
) -> TrainResult:
    """Train a network on labelled pictures.

    Args:
        source: whatever ``dataset.load`` reads.
        run: the run folder to write; ``resume`` continues the one that is there, ``force`` starts it again.
        reading: columns, classes and step between frames of the source; None = as ``dataset.load`` finds them.
        architecture: its number of classes is replaced by that of the data.
        workers: the processes, on this and other machines, that train together, each called with the same arguments.
            Only the first one writes ``run``; each reads all pictures and trains on its share of every batch.
        wait_s: how long to wait for other workers.

    Raises:
        InputError: the pictures cannot be learnt from; the checkpoint is of another run.
        InputError: ``options.start`` or ``options.teacher`` does not fit the network or the classes.
        UsageError: an option or a number of the recipe is out of range.
        OutputExists: the run folder is there and neither ``resume`` nor ``force`` was given.
        EnvironmentMissing: the disk is full, or a worker does not answer; the last checkpoint is whole.
    """
    started = time.monotonic()
    options, callbacks = options or TrainOptions(), callbacks or Callbacks()
    options.check()
    how.check()
    writes = workers is None or workers.is_first
    output = RunOutput(run, resume, force) if writes else None
    scratch = None if output else TemporaryFolder(run.parent)  # for the pixels of a large data set
    folder = output.folder if output else Path(scratch.name if scratch else "")
    spec = InputSpec(architecture.input_size, architecture.input_size, fit=options.fit_to)
    begun = _first_weights(options, architecture, how)
    if options.teacher:
        distillation.check_place(options.teacher)
    callbacks.on_stage(f"reading pictures from {source}")
    data = training_data.read(
        source, spec, options.validation_fraction, options.seed,
        reading=reading, cache=run if writes else folder, skip_bad=options.skip_bad,
        none=Path(options.none) if options.none else None, group_balance=how.group_balance, on_load=callbacks.on_load,
    )  # fmt: skip
    architecture = dataclasses.replace(architecture, classes=len(data.labels))
    teacher = distillation.open_teacher(options.teacher, data.labels) if options.teacher else None
    if teacher is not None and not how.distillation:
        how = dataclasses.replace(how, distillation=distillation.SHARE)
    resumed = folder if resume and writes else None
    settings = _settings(source, architecture, how, options, data, reading, begun, teacher, resumed, workers)
    if resumed and settings.precision != options.precision and options.precision != "auto":
        callbacks.on_stage(f"going on in {settings.precision}, in which the run was begun")
    crew, settings = _connect(workers, settings, options, data, wait_s, callbacks) if workers else (None, settings)
    model = _build(settings, crew)
    with output.begun() if output else contextlib.nullcontext():
        if output:
            settings.write(folder)
            calibration.keep(folder, data.train)
        weights = _class_weights(data.train.labels, len(data.labels)) if settings.balance else None
        if begun and writes and not (resume and (folder / CHECKPOINT).exists()):
            transfer.take_over(model, begun, data.train, spec, weights, how, options.seed, data.none, callbacks)
        answers = teacher.answers(data, spec, callbacks.on_stage) if teacher else None
        task = _task(folder, data, spec, settings, options, weights, answers, crew)
        model, trained = _fit(model, settings, task, callbacks)
        result = _result(model, trained, settings, data)
        if output:
            result = _finish(output, model, trained, result, settings, data, spec, weights, callbacks)
            output.finish(data.cached)
    if scratch:
        scratch.cleanup()
    name, worker = begun.name if begun else "none", workers.index if workers else 0
    return dataclasses.replace(result, run=str(run), seconds=time.monotonic() - started, start=name, worker=worker)


def _first_weights(options: TrainOptions, architecture: Architecture, how: Recipe) -> start.Start | None:
    begun = start.find(options.start, architecture)
    if not how.epochs and begun is None:
        what = "--epochs 0 fits the last layer alone, and the network starts from random weights"
        raise UsageError(what, "choose weights with --from, or 1 or more --epochs")
    if not how.epochs and options.teacher:
        raise UsageError("--epochs 0 learns from the labels alone, not from a --teacher", "choose 1 or more --epochs")
    return begun


def _settings(
    source: Path,
    architecture: Architecture,
    how: Recipe,
    options: TrainOptions,
    data: TrainingData,
    reading: Reading | None,
    begun: start.Start | None,
    teacher: distillation.Teacher | None,
    resumed: Path | None,
    workers: Workers | None,
) -> RunSettings:
    """What the run is started with.

    Raises:
        InputError: the run in the folder ``resumed`` was not started with this.
    """
    # Measuring what is faster would differ between workers, and begin TensorFlow before they are connected.
    precision = "float32" if (workers or not how.epochs) and options.precision == "auto" else options.precision
    settings = RunSettings(
        recipe=how,
        seed=options.seed,
        data=data.record,
        source=str(Path(source).resolve()),
        architecture=architecture,
        balance=_is_uneven(data.train.labels) if options.balance is None else options.balance,
        start=begun.sha256 if begun else None,
        teacher=teacher.sha256 if teacher else None,
        reading=reading or Reading(),
        precision=choose_precision(resumed, precision, architecture, how),
    )
    if resumed:
        check_resumed(resumed, settings)
    return settings


def _task(
    folder: Path,
    data: TrainingData,
    spec: InputSpec,
    settings: RunSettings,
    options: TrainOptions,
    weights: NDArray[np.float32] | None,
    answers: NDArray[np.float32] | None,
    crew: distributed.Crew | None,
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
        judge_start=settings.start is not None,
        none=data.none,
        crew=crew,
    )


def _connect(
    workers: Workers,
    settings: RunSettings,
    options: TrainOptions,
    data: TrainingData,
    wait_s: float,
    callbacks: Callbacks,
) -> tuple[distributed.Crew, RunSettings]:
    """Meet the other workers; return the settings in the first one's precision, which alone knows a run that goes on.

    Raises:
        UsageError: a batch has not a picture for each.
    """
    count, batch = len(workers.addresses), min(settings.recipe.batch_size, len(data.train))
    if batch < count:
        raise UsageError(f"a batch of {batch} pictures is too small for {count} workers", "give a larger --batch-size")
    callbacks.on_stage(f"worker {workers.index} of {count}: waiting for the others")
    crew = distributed.Crew(workers, f"{settings.identity} {options.precision}", wait_s, settings.precision or "")
    return crew, dataclasses.replace(settings, precision=crew.precision)


def _build(settings: RunSettings, crew: distributed.Crew | None) -> tf_keras.Model:
    architecture, precision = settings.built
    tf_keras.utils.set_random_seed(settings.seed)
    model = build_with(precision, architecture)
    return model if crew is None else distributed.synchronised(model)


def _fit(
    model: tf_keras.Model, settings: RunSettings, task: Task, callbacks: Callbacks
) -> tuple[tf_keras.Model, Trained]:
    """Train the network. Returns it in float32, with the history."""
    architecture, precision = settings.built
    if task.crew is not None and not task.crew.is_first:
        return model, fit(model, task, callbacks)
    with contextlib.closing(tf.summary.create_file_writer(str(task.folder / "tensorboard"))) as board:
        curves = training_report.Curves(task.folder)
        trained = fit(model, task, dataclasses.replace(callbacks, on_epoch=_draws(curves, board, callbacks)))
        curves.finish(trained.history)
    if precision == "float32" and task.crew is None:
        return model, trained
    whole = build_with("float32", architecture)
    whole.set_weights([np.asarray(w, np.float32) for w in model.get_weights()])
    return whole, trained


def _result(model: tf_keras.Model, trained: Trained, settings: RunSettings, data: TrainingData) -> TrainResult:
    """What is known of a training without judging the network."""
    architecture, precision = settings.built
    return TrainResult(
        run="",
        network=architecture.name,
        parameters=model.count_params(),
        epochs=len(trained.history),
        train_images=len(data.train),
        validation_images=len(data.validation or ()),
        test_images=len(data.test or ()),
        validation_top1=None,
        test_top1=None,
        precision=precision,
        seconds=0.0,
        warnings=data.warnings,
        best_epoch=trained.best_epoch,
    )


def _finish(
    output: RunOutput,
    model: tf_keras.Model,
    trained: Trained,
    result: TrainResult,
    settings: RunSettings,
    data: TrainingData,
    spec: InputSpec,
    weights: NDArray[np.float32] | None,
    callbacks: Callbacks,
) -> TrainResult:
    """Judge the network, and write it with its card; ``weights`` are of the classes."""
    run, validation_top1, temperature = RunFolder(output.folder), None, 1.0
    if data.validation is not None:
        probabilities = predict(model, data.validation.pixels, spec)
        validation_top1 = scores(probabilities, data.validation.labels)[1]
        temperature = fit_temperature(probabilities, data.validation.labels)
    # Of these pictures the last layer learns after it was judged: the accuracy is that of weights that are not saved.
    learns = data.validation if trained.best_epoch == 0 else None
    of = BEFORE_ALL if learns is not None and data.test is None else ""
    page = functools.partial(
        training_report.write, run.path, output.name, model, data, spec, trained.history, temperature, of
    )
    if data.test is None:
        page()
    record = data.record
    if learns is not None:
        record = _fit_to_all(model, data, learns, spec, weights, settings, callbacks)
    test_top1 = top1(model, data.test, spec)
    if data.test is not None:
        page()
    architecture, precision = settings.built
    best = trained.best_epoch if trained.best_epoch >= 0 else len(trained.history)
    training = model_cards.training(record, settings.recipe, seed=settings.seed, best_epoch=best, precision=precision)
    measured = model_cards.accuracy(data, validation_top1, test_top1, of)
    card = model_cards.trained(architecture, data, spec, training=training, measured=measured, temperature=temperature)
    networks.save(model, run.model_path)
    write_text(run.card_path, card.to_json())
    return dataclasses.replace(result, validation_top1=validation_top1, test_top1=test_top1)


def _fit_to_all(
    model: tf_keras.Model,
    data: TrainingData,
    validation: Examples,
    spec: InputSpec,
    weights: NDArray[np.float32] | None,
    settings: RunSettings,
    callbacks: Callbacks,
) -> TrainingSet:
    """Fit the last layer to the validation pictures as well, which have judged it; return what it was trained on now.

    Whole clips were held out for judging, and of few clips each is missed.
    """
    parts = [data.train, validation]
    callbacks.on_stage(f"fitting the last layer to the {len(validation):,} validation pictures as well")
    transfer.fit_last(model, parts, spec, weights, settings.recipe, settings.seed, data.none, callbacks.on_fit)
    return dataclasses.replace(data.record, pictures=sketch(picture for part in parts for picture in part.pixels))


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


def _is_uneven(labels: NDArray[np.int32]) -> bool:
    """Whether the largest class has more than ``UNEVEN`` times the pictures of the smallest."""
    counts = np.bincount(labels)
    return bool(counts.max() > UNEVEN * counts.min())


def _class_weights(labels: NDArray[np.int32], classes: int) -> NDArray[np.float32]:
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return (len(labels) / (classes * counts)).astype(np.float32)
