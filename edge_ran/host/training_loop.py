"""The training loop that `train` and `quantize` share: stateless, so that a killed run resumes to the same result.

Everything random is a function of (seed, epoch) or (seed, step): the order of the pictures, their augmentation, mixup.
A checkpoint holds the step, every weight and every optimiser variable; what comes after it depends on nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran.card import InputSpec
from edge_ran.errors import InputError
from edge_ran.files import sweep_temporaries
from edge_ran.host import checkpoint
from edge_ran.host.checkpoint import EpochRecord
from edge_ran.host.scoring import Examples, balanced_accuracy, predictor, scores
from edge_ran.host.training_step import averages_of, optimizer_of, train_step
from edge_ran.recipe import Recipe
from edge_ran.runs import BEST


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

    ``on_load`` gets (pictures read, pictures), ``on_stage`` a few words on what begins now, ``on_step`` the progress
    after every step, ``on_epoch`` all epochs so far.
    """

    on_load: Callable[[int, int], None] | None = None
    on_stage: Callable[[str], None] = lambda text: None
    on_step: Callable[[Progress], None] | None = None
    on_epoch: Callable[[Sequence[EpochRecord]], None] | None = None


@dataclass(frozen=True)
class Task:
    """What is trained: pictures, how they become the input, the recipe, and the folder of the run.

    ``validation`` None keeps the last epoch instead of the best. ``class_weights`` (classes,) are factors on the loss.
    ``teacher`` is a network whose answers are learnt, too (``recipe.distillation``); ``answers`` (N, classes) are
    probabilities that a teacher gave for the training pictures before, and replace it. ``uneven`` chooses the best
    epoch by the mean recall of the classes instead of by top-1. A checkpoint is written every
    ``checkpoint_s`` seconds and after every epoch. ``identity`` is whatever must not change between a run and its
    continuation (data, recipe, seed).
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


def fit(model: tf_keras.Model, task: Task, callbacks: Callbacks | None = None) -> list[EpochRecord]:
    """Train ``model`` in place and leave it with its best weights; continue from a checkpoint in the task's folder.

    Args:
        model: (H, W, 3) float32, normalised by the task's ``spec`` -> (classes,) probabilities.

    Returns:
        The history, one record for each epoch.

    Raises:
        InputError: the checkpoint is of another run, or the loss is no longer a number.
        EnvironmentMissing: the disk is full; the last checkpoint is whole.
    """
    task.recipe.check()
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
        optimizer = optimizer_of(model, task.recipe)
        optimizer.build(model.trainable_variables)
        self.averages = averages_of(model, task.recipe)
        self.train_step = train_step(
            model, task.teacher, optimizer, task.spec, task.recipe, weights, task.seed, self.averages
        )
        self.classify = predictor(model, task.spec)
        self.variables = [*model.variables, *optimizer.variables, *self.averages]
        self.state, self.history = checkpoint.restore(task.folder, self.variables, task.identity)
        self.saved_at = time.monotonic()

    def run(self) -> list[EpochRecord]:
        if self.state.step < self.steps:
            done = f"continuing after step {self.state.step} of" if self.state.step else "training,"
            self.callbacks.on_stage(f"{done} {self.steps} steps; the first one takes longest")
        while self.state.step < self.steps and not self._has_stopped_improving:
            self._finish_epoch(self._train_epoch())
        if self.task.validation is not None:
            checkpoint.restore_best(self.task.folder, self.model.variables)
        elif self.averages:
            self._swap_in_averages()
        return self.history

    @property
    def _has_stopped_improving(self) -> bool:
        patience, best = self.task.recipe.patience, self.state.best_epoch
        return bool(patience) and best > 0 and self.state.step // self.per_epoch - best >= patience

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
        state, recipe, data = self.state, self.task.recipe, self.task.train
        rows = order[(state.step % self.per_epoch) * self.batch :][: self.batch]
        mix = 1.0
        if recipe.mixup:
            mix = np.random.default_rng((self.task.seed, state.step, 1)).beta(recipe.mixup, recipe.mixup)
        loss, correct = self.train_step(
            data.pixels[rows],
            data.labels[rows],
            tf.constant(state.step, tf.int32),
            tf.constant(recipe.learning_rate_at(state.step / self.steps), tf.float32),
            tf.constant(mix, tf.float32),
            *(() if self.task.answers is None else (self.task.answers[rows],)),
        )
        state.loss_sum += float(loss)
        state.correct += float(correct)
        state.step += 1
        self._check_finite(state.loss_sum)

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"the loss is no longer a number at step {self.state.step}",
                f"start again with a lower --learning-rate than {self.task.recipe.learning_rate}",
            )

    def _finish_epoch(self, images_per_s: float) -> None:
        """Judge the epoch on the validation pictures, write it down, and save."""
        state, validation = self.state, self.task.validation
        epoch = state.step // self.per_epoch
        loss, top1, balanced = None, None, None
        if validation is not None:
            before = self._swap_in_averages()
            probabilities = self.classify(validation.pixels)
            loss, top1 = scores(probabilities, validation.labels)
            balanced = balanced_accuracy(probabilities, validation.labels) if self.task.uneven else None
            self._check_finite(loss)
            rank = top1 if balanced is None else balanced
            if state.is_better(rank, loss):
                state.best_epoch, state.best_top1, state.best_loss = epoch, rank, loss
                checkpoint.save_arrays(self.task.folder / BEST, self.model.variables)
            for variable, value in zip(self.model.variables, before, strict=False):
                variable.assign(value)
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
        self._save()
        checkpoint.write_metrics(self.task.folder, self.history)
        if self.callbacks.on_epoch:
            self.callbacks.on_epoch(self.history)

    def _save(self) -> None:
        checkpoint.save(self.task.folder, self.variables, self.state, self.history, self.task.identity)
        self.saved_at = time.monotonic()
