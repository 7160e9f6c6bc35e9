"""Soft masks are bounded in training, so that int8 can hold them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tensorflow as tf
import tf_keras

from edge_ran.architecture import Architecture, Stage
from edge_ran.card import InputSpec
from edge_ran.host import networks
from edge_ran.host.training_step import MASK_LIMIT, STRAIGHT, Optimizer, beyond, mask_logits, train_step
from edge_ran.recipe import RECIPES, Recipe

TINY = Architecture("tiny", 16, 3, 3, 8, 1, 2, (Stage(16, 8, 1, 1, 1),), (), 0, 1, 0, mask_pool=2, mask_tail="linear")


def test_the_penalty_is_of_what_lies_beyond() -> None:
    assert float(beyond(tf.constant([0.0, MASK_LIMIT, -MASK_LIMIT]))) == 0
    assert float(beyond(tf.constant([MASK_LIMIT + 0.5, -MASK_LIMIT - 0.5]))) == pytest.approx(0.25)
    end = MASK_LIMIT + STRAIGHT
    first, second = (float(beyond(tf.constant(v))) for v in (end - 0.1, end + 0.1))
    assert second - first == pytest.approx(2 * STRAIGHT * 0.2, rel=0.05)  # the line goes on where the square ends
    first, second = (float(beyond(tf.constant(v))) for v in (13000.0, 13001.0))
    assert second - first == pytest.approx(2 * STRAIGHT, rel=1e-2)


def test_training_with_the_penalty_bounds_masks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3), np.uint8)
    labels = np.arange(16, dtype=np.int32) % 3
    x = ((pixels - np.float32(128)) / 128).astype(np.float32)

    def largest(penalty: float) -> float:
        tf_keras.utils.set_random_seed(0)
        model = networks.build(TINY)
        last = model.get_layer("stage1_module1_mask_tail2_conv")
        last.set_weights([100 * w for w in last.get_weights()])
        how = Recipe("r", 1, 16, 0.05, "constant", mask_penalty=penalty)
        optimizer = Optimizer(model.trainable_variables, how)
        step = train_step(model, None, optimizer, InputSpec(16, 16), how, np.ones(3, np.float32), 0)
        for number in range(15):
            step(pixels, labels, tf.constant(number), tf.constant(0.05), tf.constant(1.0))
        return float(np.abs(tf_keras.Model(model.input, mask_logits(model))(x)).mean())

    assert largest(1e-2) < 0.7 * largest(0.0)


def test_all_recipes_but_the_papers_bound_masks() -> None:
    assert {name for name, how in RECIPES.items() if not how.mask_penalty} == {"paper"}
