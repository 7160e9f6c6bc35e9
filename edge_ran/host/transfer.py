"""`train --from`: the weights to start with, from a shipped network or any run of the same architecture.

The classes and the input size may differ, since a residual attention network is convolutional up to its pooling: every
layer but the last is taken over. The last is fitted to the new classes first, on what the layers below make of the
pictures and of changed copies of them; the training of all layers then starts from there.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran import runs
from edge_ran.card import InputSpec
from edge_ran.host import networks
from edge_ran.host.scoring import Examples
from edge_ran.host.training_loop import Callbacks
from edge_ran.host.training_step import NONE_WEIGHT, augment
from edge_ran.printable import many
from edge_ran.recipe import Recipe
from edge_ran.start import Start

HEAD = "logits"
HEAD_STEPS = 300
HEAD_RATE = 0.02
HEAD_DECAY = 1e-2
COPIES = 6  # changed copies of a picture that the last layer is fitted to, where memory allows
SMALLEST = 0.5  # share of a picture that a copy shows
MOST_ROWS = 50_000  # of features, 100 MB: more pictures than that get no copies, for each is a pass through the network
BATCH = 128


def take_over(
    model: tf_keras.Model,
    start: Start,
    train: Examples,
    spec: InputSpec,
    class_weights: NDArray[np.float32] | None,
    how: Recipe,
    seed: int = 0,
    none: NDArray[np.uint8] | None = None,
    callbacks: Callbacks | None = None,
) -> None:
    """Give ``model`` the weights of ``start``, and fit its last layer to the training pictures.

    Args:
        model: of the architecture that ``start.find`` was asked for.
        train: N pictures with labels.
        class_weights: (classes,) factors on the loss, or None.
        how: says how pictures are changed.
        seed: of what is random in that.
        none: (n, H, W, 3) pictures of none of the classes.
        callbacks: told of what begins, and of the fit's progress.
    """
    source = networks.load(runs.RunFolder(start.folder).model_path)
    known = {layer.name: layer for layer in source.layers}
    for layer in model.layers:
        if layer.weights and layer.name != HEAD:
            layer.set_weights(known[layer.name].get_weights())
    callbacks = callbacks or Callbacks()
    callbacks.on_stage(f"starting from {start.name}: fitting the last layer to {many(len(train), 'picture')}")
    fit_last(model, [train], spec, class_weights, how, seed, none, callbacks.on_fit)


def fit_last(
    model: tf_keras.Model,
    parts: Sequence[Examples],
    spec: InputSpec,
    class_weights: NDArray[np.float32] | None,
    how: Recipe,
    seed: int = 0,
    none: NDArray[np.uint8] | None = None,
    on_fit: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Fit the last layer of ``model`` to all pictures of ``parts``, and leave those below as they are.

    It is fitted to changed copies of each picture as well: a part of it, with the mirroring, brightness, contrast and
    colour of ``how``. On indoor places never seen (four areas, 96 pixels) copies were worth a point of balanced
    accuracy, and their colours another. The pixels are read part by part, for they may be more than memory holds. Other
    arguments are ``take_over``'s.
    """
    copies = min(COPIES, max(0, MOST_ROWS // sum(len(part) for part in parts) - 1))
    batches = sum(-(-len(part) // BATCH) for part in parts) * (1 + copies)
    done, total = itertools.count(1), batches + HEAD_STEPS + (2 * -(-len(none) // BATCH) if none is not None else 0)

    def on_part() -> None:
        on_fit(next(done), total)

    see = _until_last(model, spec)
    features = np.concatenate([_features(see, part.pixels, how, seed, copies, on_part) for part in parts])
    labels = np.concatenate([np.tile(part.labels, 1 + copies) for part in parts])
    strange = None if none is None else _features(see, none, how, seed, 1, on_part)
    given = [np.ones(len(part), np.float32) if part.weights is None else part.weights for part in parts]
    weights = np.concatenate([np.tile(one, 1 + copies) for one in given])
    kernel, bias = fit_head(features, labels, model.output_shape[-1], class_weights, strange, on_part, weights)
    model.get_layer(HEAD).set_weights([kernel, bias])


def _until_last(model: tf_keras.Model, spec: InputSpec) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function: (N, H, W, 3) float32 0..255 -> (N, channels) float32, what the last layer sees of pictures."""
    inner = tf_keras.Model(model.input, model.get_layer(HEAD).input)
    mean, std = tf.constant(spec.mean, tf.float32), tf.constant(spec.std, tf.float32)

    # Of any number of pictures: the network is traced once.
    @tf.function(input_signature=[tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)], autograph=False)
    def see(x: tf.Tensor) -> tf.Tensor:
        return tf.cast(inner((x - mean) / std, training=False), tf.float32)

    return see


def _features(
    see: Callable[[tf.Tensor], tf.Tensor],
    pixels: NDArray[np.uint8],
    how: Recipe,
    seed: int,
    copies: int,
    on_part: Callable[[], None],
) -> NDArray[np.float32]:
    """(N, H, W, 3) uint8 -> ((1 + copies) N, channels): what the last layer sees of the pictures, then of each copy."""

    @tf.function(reduce_retracing=True, autograph=False)
    def changed(batch: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        return _changed(batch, how, number)

    rounds: list[list[NDArray[np.float32]]] = [[] for _ in range(1 + copies)]
    for first in range(0, len(pixels), BATCH):  # each batch is read once
        batch = tf.cast(pixels[first : first + BATCH], tf.float32)
        rounds[0].append(see(batch).numpy())
        on_part()
        for copy in range(copies):
            number = tf.constant((seed, first * COPIES + copy), tf.int32)
            rounds[1 + copy].append(see(changed(batch, number)).numpy())
            on_part()
    return np.concatenate([part for one in rounds for part in one])


def _changed(x: tf.Tensor, how: Recipe, seed: tf.Tensor) -> tf.Tensor:
    """(N, H, W, 3) float32 0..255 -> the same of a random part of each picture; a function of ``seed``, (2,) int32."""
    count, size = tf.shape(x)[0], x.shape[1:3]
    draw = tf.random.stateless_uniform((4, count), seed)
    area, stretch = SMALLEST + (1 - SMALLEST) * draw[0], tf.exp((draw[1] - 0.5) * np.log(4 / 3))
    height, width = tf.minimum(tf.sqrt(area) * stretch, 1.0), tf.minimum(tf.sqrt(area) / stretch, 1.0)
    top, left = draw[2] * (1 - height), draw[3] * (1 - width)
    boxes = tf.stack([top, left, top + height, left + width], 1)
    part = tf.image.crop_and_resize(x, boxes, tf.range(count), size)
    return augment(part, dataclasses.replace(how, pad=0.0), seed + 1)


def fit_head(
    features: NDArray[np.float32],
    labels: NDArray[np.int32],
    classes: int,
    class_weights: NDArray[np.float32] | None,
    none: NDArray[np.float32] | None = None,
    on_part: Callable[[], None] = lambda: None,
    picture_weights: NDArray[np.float32] | float = 1.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Multinomial logistic regression on standardised features, all pictures in every step: kernel and bias.

    ``picture_weights`` (N,) are factors on the loss of each. The target of ``none``, (n, channels) features of pictures
    of none of the classes, is every class alike.
    """
    mean, std = features.mean(0), features.std(0) + 1e-3
    x = tf.constant((features - mean) / std)
    weights = np.ones(classes, np.float32) if class_weights is None else class_weights
    weight = weights[labels] * picture_weights
    weight = tf.constant(weight / weight.sum(), tf.float32)
    kernel = tf.Variable(tf.zeros((features.shape[1], classes)))
    bias = tf.Variable(tf.zeros(classes))
    optimizer = tf_keras.optimizers.Adam(HEAD_RATE)
    optimizer.build([kernel, bias])
    target = tf.constant(labels)
    strange = None if none is None else tf.constant((none - mean) / std)

    @tf.function(autograph=False)
    def step() -> None:
        with tf.GradientTape() as tape:
            logits = tf.matmul(x, kernel) + bias
            loss = tf.reduce_sum(weight * tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits))
            if strange is not None:
                logits = tf.matmul(strange, kernel) + bias
                loss -= NONE_WEIGHT * tf.reduce_mean(tf.nn.log_softmax(logits))
            loss += HEAD_DECAY * tf.reduce_sum(kernel * kernel)
        optimizer.apply_gradients(zip(tape.gradient(loss, [kernel, bias]), [kernel, bias], strict=True))

    for _ in range(HEAD_STEPS):
        step()
        on_part()
    scaled = kernel.numpy() / std[:, None]
    return scaled, bias.numpy() - mean @ scaled
