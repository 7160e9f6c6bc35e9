"""float32 or bfloat16 in training: building a network for either, and measuring which is faster on this machine."""

from __future__ import annotations

import time
from pathlib import Path

import tensorflow as tf
import tf_keras

from edge_ran.architecture import Architecture
from edge_ran.host import networks
from edge_ran.host.run_settings import read_settings
from edge_ran.recipe import Recipe
from edge_ran.runs import CHECKPOINT, SETTINGS


def build_with(precision: str, architecture: Architecture) -> tf_keras.Model:
    """Build a network that computes in ``float32`` or ``bfloat16``; its weights are float32 in both."""
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        return networks.build(architecture)
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def choose_precision(resumed: Path | None, wanted: str, architecture: Architecture, how: Recipe) -> str:
    """Return ``float32`` or ``bfloat16``: a resumed run keeps its own; ``auto`` measures both where there are both."""
    if resumed and (resumed / SETTINGS).exists() and (resumed / CHECKPOINT).exists():
        return read_settings(resumed).precision or "float32"
    if wanted != "auto":
        return wanted
    if not _has_bfloat16():
        return "float32"
    seconds = {p: _step_seconds(build_with(p, architecture), how.batch_size) for p in ("float32", "bfloat16")}
    return min(seconds, key=lambda p: seconds[p])


def _has_bfloat16() -> bool:
    if tf.config.list_physical_devices("GPU"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _step_seconds(model: tf_keras.Model, batch: int) -> float:
    optimizer = tf_keras.optimizers.SGD(0.0)
    x = tf.random.stateless_uniform((batch, *model.input_shape[1:]), (0, 0), -1.0, 1.0)

    @tf.function(autograph=False)
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.math.log(model(x, training=True) + 1e-7))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    step().numpy()
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        step().numpy()
        times.append(time.perf_counter() - begun)
    return min(times)
