"""The training loop that `train` and `quantize` share: stateless, so that a killed run resumes to the same result.

Everything random is a function of (seed, epoch) or (seed, step): the order of the pictures, their augmentation, mixup.
A checkpoint is one file, replaced atomically, that holds the step, every weight and every optimiser variable; what
comes after it depends on nothing else.
"""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran.card import InputSpec
from edge_ran.catalogue import nearest
from edge_ran.errors import InputError, UsageError
from edge_ran.files import atomic_path, sweep_temporaries, write_text

SCHEDULES = ("one-cycle", "cosine", "step", "constant")


@dataclass(frozen=True)
class Recipe:
    """How to train. Learning rates are for ``batch_size`` pictures a step.

    ``schedule``: ``one-cycle`` rises linearly over ``warmup`` (a share of all steps) and falls linearly to zero;
    ``cosine`` falls along a half cosine after the warm-up; ``step`` divides by ten at 40 % and 60 % (the paper's 64 k
    and 96 k of 160 k); ``constant`` stays after the warm-up. ``pad`` is the random shift as a share of the side (4 of
    32 pixels in the paper), ``brightness`` and ``contrast`` the largest relative change, ``mixup`` the alpha of its
    Beta distribution (0 = off). ``distillation`` is the weight of the teacher's answers in the loss, 0..1, and
    ``distillation_temperature`` softens them.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    warmup: float = 0.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    mixup: float = 0.0
    flip: bool = True
    pad: float = 0.125
    brightness: float = 0.0
    contrast: float = 0.0
    distillation: float = 0.0
    distillation_temperature: float = 2.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise UsageError(f"schedule {self.schedule!r} is unknown", nearest(self.schedule, SCHEDULES))
        for name, low, high in (
            ("epochs", 1, 1_000_000),
            ("batch_size", 1, 65_536),
            ("learning_rate", 0.0, 100.0),
            ("warmup", 0.0, 1.0),
            ("momentum", 0.0, 1.0),
            ("weight_decay", 0.0, 1.0),
            ("label_smoothing", 0.0, 0.9),
            ("mixup", 0.0, 10.0),
            ("pad", 0.0, 0.5),
            ("brightness", 0.0, 1.0),
            ("contrast", 0.0, 1.0),
            ("distillation", 0.0, 1.0),
        ):
            if not low <= getattr(self, name) <= high:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {getattr(self, name)} is outside {low}..{high}", f"choose another --{flag}")

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate at ``progress``, the share of all steps already made (0..1)."""
        if progress < self.warmup:
            return self.learning_rate * max(progress / self.warmup, 1e-3)
        rest = (progress - self.warmup) / max(1 - self.warmup, 1e-9)
        if self.schedule == "one-cycle":
            return self.learning_rate * (1 - rest)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * rest))
        if self.schedule == "step":
            return self.learning_rate * (1.0 if progress < 0.4 else 0.1 if progress < 0.6 else 0.01)
        return self.learning_rate


@dataclass(frozen=True)
class Examples:
    """Pictures already fitted to the network: ``pixels`` (N, H, W, 3) uint8, ``labels`` (N,) int32."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Progress:
    """Where a run stands, given to the progress callback after every step."""

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    images_per_s: float


@dataclass
class _State:
    """What a checkpoint holds beside the weights."""

    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    best_epoch: int = -1
    best_top1: float = -1.0
    best_loss: float = float("inf")
    seconds: float = 0.0


def fit(
    model: tf_keras.Model,
    train: Examples,
    validation: Examples | None,
    spec: InputSpec,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    class_weights: NDArray[np.float32] | None = None,
    teacher: tf_keras.Model | None = None,
    checkpoint_s: float = 120.0,
    identity: str = "",
    on_step: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[list[dict[str, float]]], None] | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` in place and leave it with its best weights; continue from a checkpoint in ``folder``.

    Args:
        model: (H, W, 3) float32, normalised by ``spec`` -> (classes,) probabilities.
        train, validation: what to learn from, and what to choose the best epoch on (None: the last epoch is kept).
        folder: receives ``checkpoint.npz``, ``best.npz`` and ``metrics.csv``, each replaced atomically.
        class_weights: (classes,) factors on the loss.
        teacher: a network whose answers are learnt too (``recipe.distillation``).
        checkpoint_s: seconds between checkpoints; one is written after every epoch, too.
        identity: whatever must not change between a run and its continuation (data, recipe, seed).

    Returns:
        One record an epoch: epoch, loss, top1, validation_loss, validation_top1, learning_rate, images_per_s.

    Raises:
        InputError: the checkpoint is of another run, or the loss is no longer a number.
        EnvironmentMissing: the disk is full; the last checkpoint is whole.
    """
    sweep_temporaries(folder)
    batch = min(recipe.batch_size, len(train))
    per_epoch = max(1, len(train) // batch)
    steps = per_epoch * recipe.epochs
    classes = int(model.output_shape[-1])
    weights = np.ones(classes, np.float32) if class_weights is None else class_weights
    optimizer = _optimizer(model, recipe)
    optimizer.build(model.trainable_variables)
    train_step = _train_step(model, teacher, optimizer, spec, recipe, weights, seed)
    classify = _predictor(model, spec)
    variables = [*model.variables, *optimizer.variables]
    state, history = _restore(folder, variables, identity)

    saved_at = time.monotonic()
    while state.step < steps:
        epoch = state.step // per_epoch
        order = np.random.default_rng((seed, epoch)).permutation(len(train))
        epoch_started, epoch_first = time.monotonic(), state.step
        while state.step < (epoch + 1) * per_epoch:
            rows = order[(state.step % per_epoch) * batch :][:batch]
            rate = recipe.learning_rate_at(state.step / steps)
            mix = np.random.default_rng((seed, state.step, 1)).beta(recipe.mixup, recipe.mixup) if recipe.mixup else 1.0
            loss, correct = train_step(
                train.pixels[rows],
                train.labels[rows],
                tf.constant(state.step, tf.int32),
                tf.constant(rate, tf.float32),
                tf.constant(mix, tf.float32),
            )
            state.loss_sum += float(loss)
            state.correct += float(correct)
            state.step += 1
            if not math.isfinite(state.loss_sum):
                raise InputError(
                    f"the loss is no longer a number at step {state.step}",
                    f"start again with a lower --learning-rate than {recipe.learning_rate}",
                )
            now = time.monotonic()
            speed = (state.step - epoch_first) * batch / max(now - epoch_started, 1e-9)
            if on_step:
                done = state.step - epoch * per_epoch
                on_step(Progress(state.step, steps, epoch, recipe.epochs, state.loss_sum / done, speed))
            if now - saved_at > checkpoint_s and state.step < (epoch + 1) * per_epoch:
                _save(folder, variables, state, history, identity)
                saved_at = time.monotonic()
        record = {
            "epoch": epoch + 1,
            "loss": state.loss_sum / per_epoch,
            "top1": state.correct / (per_epoch * batch),
            "learning_rate": recipe.learning_rate_at((state.step - 1) / steps),
            "images_per_s": speed,
        }
        if validation is not None:
            probabilities = classify(validation.pixels)
            record["validation_loss"], record["validation_top1"] = scores(probabilities, validation.labels)
            better = (record["validation_top1"], -record["validation_loss"]) >= (state.best_top1, -state.best_loss)
            if better:
                state.best_epoch, state.best_top1 = epoch + 1, record["validation_top1"]
                state.best_loss = record["validation_loss"]
                _save_arrays(folder / "best.npz", model.variables)
        history.append(record)
        state.loss_sum = state.correct = 0.0
        _save(folder, variables, state, history, identity)
        saved_at = time.monotonic()
        _write_metrics(folder / "metrics.csv", history)
        if on_epoch:
            on_epoch(history)
    if validation is not None and (folder / "best.npz").exists():
        with np.load(folder / "best.npz") as arrays:
            _assign(model.variables, arrays)
    return history


def predict(model: tf_keras.Model, pixels: NDArray[np.uint8], spec: InputSpec, batch: int = 256) -> NDArray[np.float32]:
    """(N, H, W, 3) uint8 -> (N, classes) float32 probabilities."""
    return _predictor(model, spec)(pixels, batch)


def _predictor(model: tf_keras.Model, spec: InputSpec) -> Callable[..., NDArray[np.float32]]:
    """`predict` with the graph traced once, for use in every epoch."""
    mean, std = tf.constant(spec.mean, tf.float32), tf.constant(spec.std, tf.float32)

    @tf.function(reduce_retracing=True)
    def forward(x: tf.Tensor) -> tf.Tensor:
        return model((tf.cast(x, tf.float32) - mean) / std, training=False)

    def run(pixels: NDArray[np.uint8], batch: int = 256) -> NDArray[np.float32]:
        parts = [forward(tf.constant(pixels[i : i + batch])).numpy() for i in range(0, len(pixels), batch)]
        return np.concatenate(parts).astype(np.float32)

    return run


def scores(probabilities: NDArray[np.float32], labels: NDArray[np.int32]) -> tuple[float, float]:
    """(N, classes) and (N,) -> mean negative log-likelihood, top-1 accuracy 0..1."""
    picked = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(picked, 1e-12)).mean()), float((probabilities.argmax(1) == labels).mean())


def fit_temperature(probabilities: NDArray[np.float32], labels: NDArray[np.int32]) -> float:
    """Return the temperature that minimises the negative log-likelihood (Guo et al. 2017, arXiv 1706.04599)."""
    logits = np.log(np.maximum(probabilities, 1e-12))

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        scaled -= scaled.max(1, keepdims=True)
        normaliser = np.log(np.exp(scaled).sum(1))
        return float((normaliser - scaled[np.arange(len(labels)), labels]).mean())

    grid = np.geomspace(0.2, 5.0, 161)  # 2 % apart: finer than a validation split can tell
    return float(grid[int(np.argmin([loss(t) for t in grid]))])


def _optimizer(model: tf_keras.Model, recipe: Recipe) -> tf_keras.optimizers.Optimizer:
    optimizer = tf_keras.optimizers.SGD(
        recipe.learning_rate, recipe.momentum, nesterov=recipe.momentum > 0, weight_decay=recipe.weight_decay or None
    )
    if recipe.weight_decay:
        # Decay belongs to kernels: shrinking a normalisation's scale or an offset only moves the optimum.
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if len(v.shape) < 2])
    return optimizer


def _train_step(
    model: tf_keras.Model,
    teacher: tf_keras.Model | None,
    optimizer: tf_keras.optimizers.Optimizer,
    spec: InputSpec,
    recipe: Recipe,
    class_weights: NDArray[np.float32],
    seed: int,
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    classes = len(class_weights)
    mean, std = tf.constant(spec.mean, tf.float32), tf.constant(spec.std, tf.float32)
    share = recipe.distillation if teacher is not None else 0.0

    @tf.function(reduce_retracing=True)
    def step(
        pixels: tf.Tensor, labels: tf.Tensor, number: tf.Tensor, rate: tf.Tensor, mix: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        optimizer.learning_rate.assign(rate)
        x = _augment(tf.cast(pixels, tf.float32), recipe, tf.stack([tf.constant(seed, tf.int32), number]))
        x = (x - mean) / std
        target = tf.one_hot(labels, classes) * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
        weight = tf.gather(tf.constant(class_weights), labels)
        if recipe.mixup:
            # The batch is in random order, so its mirror image is a fair partner.
            x = mix * x + (1 - mix) * x[::-1]
            target = mix * target + (1 - mix) * target[::-1]
            weight = mix * weight + (1 - mix) * weight[::-1]
        with tf.GradientTape() as tape:
            probabilities = model(x, training=True)
            log = tf.math.log(tf.clip_by_value(probabilities, 1e-7, 1.0))
            loss = -tf.reduce_sum(target * log, 1)
            if teacher is not None and share:
                taught = _soften(teacher(x, training=False), recipe.distillation_temperature)
                said = tf.math.log(_soften(probabilities, recipe.distillation_temperature) + 1e-7)
                distance = tf.reduce_sum(taught * (tf.math.log(taught + 1e-7) - said), 1)
                loss = (1 - share) * loss + share * recipe.distillation_temperature**2 * distance
            loss = tf.reduce_mean(weight * loss)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        hits = tf.equal(tf.argmax(probabilities, 1, tf.int32), labels)
        return loss, tf.reduce_sum(tf.cast(hits, tf.float32))

    return step


def _soften(probabilities: tf.Tensor, temperature: float) -> tf.Tensor:
    return tf.nn.softmax(tf.math.log(probabilities + 1e-7) / temperature)


def _augment(x: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    """Random shift, flip, brightness and contrast: (N, H, W, 3) float32 0..255 -> the same; a function of ``seed``."""
    count, height, width = tf.shape(x)[0], x.shape[1], x.shape[2]
    pad = round(recipe.pad * min(height, width))
    if pad or recipe.flip:
        shift = tf.random.stateless_uniform((2, count, 1), seed, 0, 2 * pad + 1, tf.int32)
        rows = shift[0] + tf.range(height)
        columns = shift[1] + tf.range(width)
        if recipe.flip:
            mirrored = tf.random.stateless_uniform((count, 1), _stream(seed, 1)) < 0.5
            columns = tf.where(mirrored, columns[:, ::-1], columns)
        x = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]], "REFLECT")
        x = tf.gather(tf.gather(x, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
    if recipe.brightness:
        gain = tf.random.stateless_uniform(
            (count, 1, 1, 1), _stream(seed, 2), 1 - recipe.brightness, 1 + recipe.brightness
        )
        x = x * gain
    if recipe.contrast:
        gain = tf.random.stateless_uniform((count, 1, 1, 1), _stream(seed, 3), 1 - recipe.contrast, 1 + recipe.contrast)
        centre = tf.reduce_mean(x, (1, 2), keepdims=True)
        x = centre + (x - centre) * gain
    return tf.clip_by_value(x, 0.0, 255.0) if recipe.brightness or recipe.contrast else x


def _stream(seed: tf.Tensor, number: int) -> tf.Tensor:
    """An independent seed of the same step."""
    return tf.stack([seed[0] + (number << 24), seed[1]])


def _save(folder: Path, variables: list[Any], state: _State, history: list[dict[str, float]], identity: str) -> None:
    record = json.dumps({"state": asdict(state), "history": history, "identity": identity})
    _save_arrays(folder / "checkpoint.npz", variables, np.frombuffer(record.encode(), np.uint8))


def _save_arrays(path: Path, variables: list[Any], record: NDArray[np.uint8] | None = None) -> None:
    arrays = {f"v{i}": np.asarray(v) for i, v in enumerate(variables)}
    if record is not None:
        arrays["record"] = record
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]  # the names never collide with savez's own


def _restore(folder: Path, variables: list[Any], identity: str) -> tuple[_State, list[dict[str, float]]]:
    path = folder / "checkpoint.npz"
    if not path.exists():
        return _State(), []
    try:
        with np.load(path) as arrays:
            record = json.loads(arrays["record"].tobytes())
            if record["identity"] != identity:
                raise InputError(
                    f"{path} is of a run with other data or settings", "resume with the same ones, or start a new run"
                )
            _assign(variables, arrays)
            return _State(**record["state"]), record["history"]
    except InputError:
        raise
    except Exception as error:  # a damaged archive raises whatever zipfile, json or NumPy think of it
        raise InputError(f"{path} is damaged: {error}", "remove it to start the run again") from error


def _assign(variables: list[Any], arrays: Any) -> None:
    for i, variable in enumerate(variables):
        variable.assign(arrays[f"v{i}"])


def _write_metrics(path: Path, history: list[dict[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]))
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" for k, v in record.items()} for record in history)
    write_text(path, text.getvalue())
