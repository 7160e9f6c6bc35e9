"""The training loop that `train` and `quantize` share: stateless, so that a killed run resumes to the same result.

Everything random is a function of (seed, epoch) or (seed, step): the order of the pictures, their augmentation, mixup.
A checkpoint holds the step, every weight and every optimiser variable; what comes after it depends on nothing else.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran.card import InputSpec
from edge_ran.errors import InputError
from edge_ran.files import sweep_temporaries
from edge_ran.host import checkpoint
from edge_ran.host.checkpoint import EpochRecord, State
from edge_ran.host.distributed import Crew
from edge_ran.host.scoring import Examples, balanced_accuracy, predictor, scores, standard_error
from edge_ran.host.training_step import Optimizer, averages_of, train_step
from edge_ran.printable import many
from edge_ran.recipe import Recipe
from edge_ran.runs import BEST

PER_NONE = 4
EPOCH_CHECKPOINT_S = 5.0  # epochs of a few pictures are shorter than the writing of a checkpoint


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step; ``loss`` is the mean of the epoch so far."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    images_per_s: float


@dataclass(frozen=True)
class Callbacks:
    """What is called while a run goes on, each or none.

    ``on_load`` gets (pictures read, pictures), ``on_fit`` (done, total) parts of fitting the last layer, ``on_stage`` a
    few words on what begins now, ``on_step`` the progress after every step, ``on_epoch`` all epochs so far.
    """

    on_load: Callable[[int, int], None] | None = None
    on_stage: Callable[[str], None] = lambda text: None
    on_step: Callable[[Progress], None] | None = None
    on_epoch: Callable[[Sequence[EpochRecord]], None] | None = None
    on_fit: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Task:
    """What is trained: pictures, how they become the input, the recipe, and the folder of the run.

    ``validation`` None keeps the last epoch instead of the best. ``class_weights`` (classes,) are factors on the loss.
    ``teacher`` is a network whose answers are learnt, too (``recipe.distillation``); ``answers`` (N, classes) are
    probabilities that a teacher gave for the training pictures before, and replace it. ``uneven`` chooses the best
    epoch by the mean recall of the classes instead of by top-1. A checkpoint is written every
    ``checkpoint_s`` seconds, and after an epoch unless the last one is only ``EPOCH_CHECKPOINT_S`` old. ``identity`` is
    whatever must not change between a run and its continuation (data, recipe, seed). ``judge_start`` makes the network
    as it comes, epoch 0, a candidate for the best one, which is kept unless an epoch is better by more than a standard
    error: training that gains nothing costs accuracy on other places. ``none`` (n, H, W, 3) are pictures of none of the
    classes; a batch gets one for every ``PER_NONE`` of its pictures. ``crew`` are the workers that train together; only
    worker 0 judges, and writes to the folder.
    """

    train: Examples
    validation: Examples | None
    spec: InputSpec
    recipe: Recipe
    folder: Path
    seed: int = 0
    class_weights: NDArray[np.float32] | None = None
    teacher: tf_keras.Model | None = None
    answers: NDArray[np.float32] | None = None
    uneven: bool = False
    checkpoint_s: float = 120.0
    identity: str = ""
    judge_start: bool = False
    none: NDArray[np.uint8] | None = None
    crew: Crew | None = None


@dataclass(frozen=True)
class Trained:
    """The epochs of a training, and the one whose weights were kept: 0 for the network as it came, -1 for the last."""

    history: tuple[EpochRecord, ...]
    best_epoch: int


def fit(model: tf_keras.Model, task: Task, callbacks: Callbacks | None = None) -> Trained:
    """Train ``model`` in place and leave it with its best weights; continue from a checkpoint in the task's folder.

    Args:
        model: (H, W, 3) float32, normalised by the task's ``spec`` -> (classes,) probabilities.

    Raises:
        InputError: the checkpoint is of another run, or the loss is no longer a number.
        EnvironmentMissing: the disk is full, or another worker is lost; the last checkpoint is whole.
    """
    task.recipe.check()
    if task.crew is None or task.crew.is_first:
        sweep_temporaries(task.folder)
    return _Loop(model, task, callbacks or Callbacks()).run()


class _Loop:
    """The state of one call of ``fit``."""

    def __init__(self, model: tf_keras.Model, task: Task, callbacks: Callbacks) -> None:
        self.model, self.task, self.callbacks = model, task, callbacks
        self.batch = min(task.recipe.batch_size, len(task.train))
        self.per_epoch = max(1, len(task.train) // self.batch)
        self.steps = self.per_epoch * task.recipe.epochs
        weights = np.ones(int(model.output_shape[-1]), np.float32) if task.class_weights is None else task.class_weights
        last = model.get_layer("logits").trainable_variables if task.recipe.body_rate != 1 else None
        optimizer = Optimizer(model.trainable_variables, task.recipe, last)
        self.averages = averages_of(model, task.recipe)
        self.none = 0 if task.none is None else max(1, self.batch // PER_NONE)
        self.train_step = train_step(
            model, task.teacher, optimizer, task.spec, task.recipe, weights, task.seed,
            self.averages, task.crew, self.none,
        )  # fmt: skip
        self.classify = predictor(model, task.spec)
        self.variables = [*model.variables, *optimizer.momenta, *self.averages]
        self.state = State()
        self.history: list[EpochRecord] = []
        if self.judges:
            self.state, self.history = checkpoint.restore(task.folder, self.variables, task.identity)
        if task.crew is not None:
            self._take_from_first(task.crew)
        self.saved_at = time.monotonic()

    @property
    def judges(self) -> bool:
        """Whether this worker judges the network and writes it down; the only one does."""
        return self.task.crew is None or self.task.crew.is_first

    def _take_from_first(self, crew: Crew) -> None:
        """Go on from the state and the weights of worker 0, which has read the checkpoint."""
        numbers, *values = crew.from_first([self.state.numbers(), *self.variables])
        self.state = State.of_numbers(numbers)
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value.astype(variable.dtype.as_numpy_dtype))

    def run(self) -> Trained:
        if self.state.step == 0 and self.task.judge_start and self.judges and self.task.validation is not None:
            loss, top1, balanced = self._judge(self.task.validation, epoch=0)
            mean = "" if balanced is None else f", balanced {balanced:.2%}"
            self.callbacks.on_stage(f"before the first step: validation loss {loss:.4f} top-1 {top1:.2%}{mean}")
        if self.state.step < self.steps:
            done = f"continuing after step {self.state.step} of" if self.state.step else "training,"
            self.callbacks.on_stage(f"{done} {many(self.steps, 'step')}; the first one takes longest")
        while self.state.step < self.steps and not self._has_stopped_improving:
            self._finish_epoch(self._train_epoch())
        if self.task.validation is None:
            self._swap_in_averages()
        elif self.judges and self.state.best_epoch >= 0:
            checkpoint.restore_best(self.task.folder, self.model.variables)
        return Trained(tuple(self.history), self.state.best_epoch)

    @property
    def _has_stopped_improving(self) -> bool:
        patience, best = self.task.recipe.patience, self.state.best_epoch
        return bool(patience) and best >= 0 and self.state.step // self.per_epoch - best >= patience

    def _swap_in_averages(self) -> list[NDArray[np.float32]]:
        """Put the averages, where there are any, into the network; return the weights that it had."""
        before = [v.numpy() for v in self.model.variables] if self.averages else []
        for variable, average in zip(self.model.variables, self.averages, strict=False):
            variable.assign(average)
        return before

    def _train_epoch(self) -> float:
        """Train what is left of the epoch that the state is in. Returns the pictures a second."""
        state, epoch = self.state, self.state.step // self.per_epoch
        end = (epoch + 1) * self.per_epoch
        order = np.random.default_rng((self.task.seed, epoch)).permutation(len(self.task.train))
        started, first, speed = time.monotonic(), state.step, 0.0
        while state.step < end:
            self._step(order)
            now = time.monotonic()
            speed = (state.step - first) * self.batch / max(now - started, 1e-9)
            if self.callbacks.on_step:
                loss = state.loss_sum / (state.step - epoch * self.per_epoch)
                self.callbacks.on_step(Progress(state.step, self.steps, epoch, self.task.recipe.epochs, loss, speed))
            if now - self.saved_at > self.task.checkpoint_s and state.step < end:
                self._save()
        return speed

    def _step(self, order: NDArray[np.int64]) -> None:
        state, recipe = self.state, self.task.recipe
        rows = order[(state.step % self.per_epoch) * self.batch :][: self.batch]
        mix = 1.0
        if recipe.mixup:
            mix = np.random.default_rng((self.task.seed, state.step, 1)).beta(recipe.mixup, recipe.mixup)
        pixels, labels, weights, *answers = self._batch(rows)
        with self.task.crew.connected() if self.task.crew else contextlib.nullcontext():
            loss, correct = self.train_step(
                pixels,
                labels,
                tf.constant(state.step, tf.int32),
                tf.constant(recipe.learning_rate_at(state.step / self.steps), tf.float32),
                tf.constant(mix, tf.float32),
                weights,
                *answers,
            )
        state.loss_sum += float(loss)
        state.correct += float(correct)
        state.step += 1
        self._check_finite(state.loss_sum)

    def _batch(self, rows: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Return pixels, labels, weights and perhaps a teacher's answers of these pictures, and of some of ``none``."""
        task = self.task
        weights = np.ones(len(rows), np.float32) if task.train.weights is None else task.train.weights[rows]
        found: list[NDArray[Any]] = [task.train.pixels[rows], task.train.labels[rows], weights]
        if task.answers is not None:
            found.append(task.answers[rows])
        if task.none is None:
            return found
        chosen = np.random.default_rng((task.seed, self.state.step, 2)).integers(len(task.none), size=self.none)
        classes = int(self.model.output_shape[-1])
        strange: tuple[NDArray[Any], ...] = (
            task.none[chosen],
            np.full(self.none, -1, np.int32),
            np.ones(self.none, np.float32),
            np.full((self.none, classes), 1 / classes),
        )
        return [np.concatenate([a, b.astype(a.dtype)]) for a, b in zip(found, strange, strict=False)]

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is no longer a number at step {self.state.step}",
                f"start again with a lower --learning-rate than {self.task.recipe.learning_rate}",
            )

    def _judge(self, validation: Examples, epoch: int) -> tuple[float, float, float | None]:
        """Return loss, top-1 and perhaps balanced accuracy on the validation pictures; keep the weights if best."""
        state, before = self.state, self._swap_in_averages()
        probabilities = self.classify(validation.pixels)
        loss, top1 = scores(probabilities, validation.labels)
        balanced = balanced_accuracy(probabilities, validation.labels) if self.task.uneven else None
        self._check_finite(loss)
        rank = top1 if balanced is None else balanced
        if epoch == 0:
            state.margin = standard_error(probabilities, validation.labels, balanced is not None)
        if state.is_better(rank, loss):
            state.best_epoch, state.best_top1, state.best_loss = epoch, rank, loss
            checkpoint.save_arrays(self.task.folder / BEST, self.model.variables)
        for variable, value in zip(self.model.variables, before, strict=False):
            variable.assign(value)
        return loss, top1, balanced

    def _finish_epoch(self, images_per_s: float) -> None:
        """Judge the epoch on the validation pictures, write it down, and save."""
        state, validation = self.state, self.task.validation
        epoch = state.step // self.per_epoch
        loss, top1, balanced = None, None, None
        if validation is not None and self.judges:
            loss, top1, balanced = self._judge(validation, epoch)
        if self.task.crew is not None:  # whether to stop, all know from worker 0
            state.best_epoch = int(self.task.crew.from_first([state.best_epoch])[0])
        self.history.append(
            EpochRecord(
                epoch=epoch,
                loss=state.loss_sum / self.per_epoch,
                top1=state.correct / (self.per_epoch * self.batch),
                learning_rate=self.task.recipe.learning_rate_at((state.step - 1) / self.steps),
                images_per_s=images_per_s,
                validation_loss=loss,
                validation_top1=top1,
                validation_balanced=balanced,
            )
        )
        state.loss_sum = state.correct = 0.0
        spared = time.monotonic() - self.saved_at < min(EPOCH_CHECKPOINT_S, self.task.checkpoint_s)
        if not spared or epoch == 1 or state.step == self.steps:
            self._save()
        if self.judges:
            checkpoint.write_metrics(self.task.folder, self.history)
        if self.callbacks.on_epoch:
            self.callbacks.on_epoch(self.history)

    def _save(self) -> None:
        if self.judges:
            checkpoint.save(self.task.folder, self.variables, self.state, self.history, self.task.identity)
        self.saved_at = time.monotonic()
