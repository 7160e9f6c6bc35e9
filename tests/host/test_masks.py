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


def test_the_penaltys_gradient_is_that_of_its_formula() -> None:
    logits = tf.constant(np.random.default_rng(0).normal(0, 8, (4, 3, 3, 2)).astype(np.float32))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(logits)
        ours = 3 * beyond(logits)
        excess = tf.nn.relu(tf.abs(logits) - MASK_LIMIT)
        written = 3 * tf.reduce_mean(tf.where(excess < STRAIGHT, excess**2, STRAIGHT * (2 * excess - STRAIGHT)))
    np.testing.assert_allclose(ours, written, rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(ours, logits), tape.gradient(written, logits), rtol=1e-6)


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


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 1e-2), (0.9, 0.0), (0.0, 1e-2)])
def test_the_optimiser_moves_weights_as_keras_does(momentum: float, decay: float) -> None:
    random = np.random.default_rng(0)
    values = [random.normal(size=shape).astype(np.float32) for shape in ((3, 3, 2, 4), (4,), (5, 3))]
    ours, theirs = ([tf.Variable(value) for value in values] for _ in range(2))
    optimizer = Optimizer(ours, Recipe("r", 1, 1, 0.1, "constant", momentum=momentum, weight_decay=decay))
    keras = tf_keras.optimizers.SGD(0.1, momentum, nesterov=momentum > 0, weight_decay=decay or None)
    keras.exclude_from_weight_decay([v for v in theirs if len(v.shape) < 2])
    keras.build(theirs)
    for rate in (0.1, 0.1, 0.05, 0.01):
        gradients = [tf.constant(random.normal(size=v.shape), tf.float32) for v in ours]
        optimizer.apply(gradients, tf.constant(rate))
        keras.learning_rate.assign(rate)
        keras.apply_gradients(zip(gradients, theirs, strict=True))
    for one, other, before in zip(ours, theirs, values, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
        assert np.abs(one - before).max() > 0.01


def test_the_body_learns_and_decays_at_its_share_of_the_rate() -> None:
    """A step at a tenth of the rate is what the optimiser does with all variables at that rate."""
    how = Recipe("r", 1, 1, 0.1, "constant", weight_decay=0.1, body_rate=0.1)
    body, last, slow = (tf.Variable(tf.ones((3, 3))) for _ in range(3))
    shared, alone = Optimizer([body, last], how, [last]), Optimizer([slow], how)
    gradient = tf.fill((3, 3), 0.5)
    for _ in range(3):
        shared.apply([gradient, gradient], tf.constant(0.1))
        alone.apply([gradient], tf.constant(0.01))
    np.testing.assert_allclose(body, slow, rtol=1e-6)
    assert float(last[0, 0]) < float(body[0, 0]) < 1


def test_all_recipes_but_the_papers_bound_masks() -> None:
    assert {name for name, how in RECIPES.items() if not how.mask_penalty} == {"paper"}
