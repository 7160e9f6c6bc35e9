"""How fast a training step is: ours, and plain ``tf_keras`` ``fit`` over ``tf.data``, on the same network and pictures.

    python benchmarks/training.py [--network edge50] [--size 32] [--batch-size 128] [--steps 60] [--rounds 3] [--json]

Both train the same network from the same random pictures (speed does not depend on what they show) with Nesterov's
momentum, weight decay, random shifts and mirror images, in float32, each in a process of its own, in turns. A step
begins with the pixels in memory and ends with the updated weights; the first steps, in which TensorFlow traces, are
left out and told apart as the time to the first step. What counts is the ratio within a round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tf_keras
    from numpy.typing import NDArray

    from edge_ran.recipe import Recipe

CLASSES = 10
FIRST = 5  # steps that are left out


def ours(model: tf_keras.Model, how: Recipe, pixels: NDArray[Any], labels: NDArray[Any], steps: int) -> list[float]:
    """Train with `edge-ran train`'s loop; return when each step ended, in seconds."""
    import tempfile
    from pathlib import Path

    from edge_ran.card import InputSpec
    from edge_ran.host.scoring import Examples
    from edge_ran.host.training_loop import Callbacks, Task, fit

    ended: list[float] = []

    class Enough(Exception):
        pass

    def note(_: object) -> None:
        ended.append(time.perf_counter())
        if len(ended) == steps:
            raise Enough

    with tempfile.TemporaryDirectory() as folder:
        spec = InputSpec(pixels.shape[1], pixels.shape[2])
        task = Task(Examples(pixels, labels), None, spec, how, Path(folder))
        with contextlib.suppress(Enough):
            fit(model, task, Callbacks(on_step=note))
    return ended


def plain(model: tf_keras.Model, how: Recipe, pixels: NDArray[Any], labels: NDArray[Any], steps: int) -> list[float]:
    """Train with ``fit`` as TensorFlow's guides write it; return when each step ended, in seconds."""
    import tensorflow as tf
    import tf_keras

    from edge_ran.card import InputSpec

    size, spec = pixels.shape[1], InputSpec(pixels.shape[1], pixels.shape[2])
    pad = round(how.pad * size)

    def prepared(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = tf.pad(tf.cast(x, tf.float32), [[pad, pad], [pad, pad], [0, 0]], "REFLECT")
        x = tf.image.random_flip_left_right(tf.image.random_crop(x, (size, size, 3)))
        return (x - tf.constant(spec.mean, tf.float32)) / tf.constant(spec.std, tf.float32), y

    data = tf.data.Dataset.from_tensor_slices((pixels, labels)).shuffle(len(pixels)).repeat()
    data = data.map(prepared, tf.data.AUTOTUNE).batch(how.batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    ended: list[float] = []

    clock = tf_keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: ended.append(time.perf_counter()))
    optimizer = tf_keras.optimizers.SGD(how.learning_rate, how.momentum, nesterov=True, weight_decay=how.weight_decay)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[clock])
    return ended


def once(way: str, network: str, size: int, batch_size: int, steps: int) -> tuple[float, float]:
    """Train in this process; return the pictures a second, and the seconds to the end of the first step."""
    import dataclasses

    import numpy as np

    from edge_ran.architecture import configure
    from edge_ran.host import networks
    from edge_ran.recipe import preset

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (16 * batch_size, size, size, 3), np.uint8)
    labels = random.integers(0, CLASSES, len(pixels)).astype(np.int32)
    how = dataclasses.replace(preset("one-cycle"), epochs=-(-steps // 16), batch_size=batch_size, learning_rate=0.01)
    model = networks.build(configure(network, input_size=size, classes=CLASSES))
    begun = time.perf_counter()
    ended = {"ours": ours, "fit": plain}[way](model, how, pixels, labels, steps)
    return batch_size * (len(ended) - 1 - FIRST) / (ended[-1] - ended[FIRST]), ended[0] - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="edge50")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.once:
        print(json.dumps(once(chosen.once, chosen.network, chosen.size, chosen.batch_size, chosen.steps)))
        return
    found: dict[str, list[list[float]]] = {"ours": [], "fit": []}
    for _ in range(chosen.rounds):
        for way, rounds in found.items():
            words = [sys.executable, __file__, "--once", way, "--network", chosen.network, "--size", str(chosen.size)]
            words += ["--batch-size", str(chosen.batch_size), "--steps", str(chosen.steps)]
            done = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            rounds.append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        way: [statistics.median(column) for column in zip(*rounds, strict=True)] for way, rounds in found.items()
    }
    ratio = statistics.median(a[0] / b[0] for a, b in zip(found["ours"], found["fit"], strict=True))
    if chosen.json:
        print(json.dumps({"rounds": found, "ratio": ratio}, indent=1))
        return
    print(f"{chosen.network}, {chosen.size} px, batches of {chosen.batch_size}, {chosen.rounds} rounds")
    for way, name in (("ours", "edge-ran train"), ("fit", "tf_keras fit, tf.data")):
        speed, first = medians[way]
        print(f"{name:<24} {speed:7.1f} pictures/s   first step after {first:.1f} s")
    print(f"ours is {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
