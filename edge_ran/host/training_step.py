"""One step of training: augment a batch, compute the loss, update the weights.

The augmentation is a function of a seed alone, so that a resumed run sees the same pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran import layer_names
from edge_ran.card import InputSpec
from edge_ran.host.distributed import Crew
from edge_ran.recipe import Recipe

NONE_WEIGHT = 0.5  # of the pictures of none of the classes, as in the paper
MASK_LIMIT = 6.0  # of a soft mask's logit: sigmoid(6) is 0.9975
STRAIGHT = 1.0  # further out the pull is constant, so that no logit, however large, makes training diverge


class Optimizer:
    """Stochastic gradient descent with Nesterov's momentum, and weight decay apart from the gradient.

    The same numbers as ``tf_keras.optimizers.SGD`` to rounding, with one operator for each variable where that has
    several: less time for each step, and for tracing it. Decay belongs to kernels alone: shrinking a normalisation's
    scale or an offset only moves the optimum.

    Args:
        variables: float32, of any shape.
        last: those of the last layer; the others learn, and decay, at ``recipe.body_rate`` of the rate. None = all at
            the whole rate.
    """

    def __init__(
        self, variables: Sequence[tf.Variable], recipe: Recipe, last: Sequence[tf.Variable] | None = None
    ) -> None:
        self.trained, self.recipe = tuple(variables), recipe
        whole = {id(v) for v in (self.trained if last is None else last)}
        self._shares = [1.0 if id(v) in whole else recipe.body_rate for v in self.trained]
        self.momenta = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in self.trained]

    def apply(self, gradients: Sequence[tf.Tensor], rate: tf.Tensor) -> None:
        """Move each variable by one step at the learning rate ``rate``, () float32."""
        momentum = tf.constant(self.recipe.momentum, tf.float32)
        for gradient, variable, before, share in zip(gradients, self.trained, self.momenta, self._shares, strict=True):
            own = rate * share
            if self.recipe.weight_decay and len(variable.shape) > 1:
                variable.assign_sub(variable * (self.recipe.weight_decay * own))
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=variable.handle, accum=before.handle, lr=own, grad=gradient, momentum=momentum, use_nesterov=True
            )


def averages_of(model: tf_keras.Model, recipe: Recipe) -> list[tf.Variable]:
    """Return the variables of the moving average of the network's, in the same order; none where it is off."""
    return [tf.Variable(v, trainable=False) for v in model.variables] if recipe.average else []


def train_step(
    model: tf_keras.Model,
    teacher: tf_keras.Model | None,
    optimizer: Optimizer,
    spec: InputSpec,
    recipe: Recipe,
    class_weights: NDArray[np.float32],
    seed: int,
    averages: Sequence[tf.Variable] = (),
    crew: Crew | None = None,
    none: int = 0,
) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """Return the function of one step: pixels, labels, … -> the loss without the masks' penalty, and the hits.

    ``picture_weights`` (N,) are factors on the loss of each picture.

    With a ``crew`` all workers get the whole batch, augment it alike, and train on a share each. The last ``none``
    pictures of a batch, labelled -1, are of none of the classes: their target is every class alike (outlier exposure,
    Hendrycks et al. 2019, arXiv 1812.04606), so that a threshold tells them from the others.
    """
    compute = _gradients(model, teacher, recipe, none)

    @tf.function(reduce_retracing=True, autograph=False)
    def step(
        pixels: tf.Tensor,
        labels: tf.Tensor,
        number: tf.Tensor,
        rate: tf.Tensor,
        mix: tf.Tensor,
        picture_weights: tf.Tensor | float = 1.0,
        answers: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        x = augment(tf.cast(pixels, tf.float32), recipe, tf.stack([tf.constant(seed, tf.int32), number]))
        x = (x - tf.constant(spec.mean, tf.float32)) / tf.constant(spec.std, tf.float32)
        batch = int(pixels.shape[0])
        target, weight = _targets(labels, class_weights, recipe, none, batch)
        weight *= picture_weights
        if recipe.mixup:
            # The batch is in random order, so its mirror image is a fair partner.
            x, target, weight = (mix * part + (1 - mix) * part[::-1] for part in (x, target, weight))
            if answers is not None:
                answers = mix * answers + (1 - mix) * answers[::-1]
        if crew is None:
            loss, hits, *gradients = compute(x, target, weight, labels, answers, batch)
        else:
            part = slice(*crew.workers.share(batch))
            theirs = None if answers is None else answers[part]
            loss, hits, *gradients = crew.summed(
                lambda: compute(x[part], target[part], weight[part], labels[part], theirs, batch)
            )
        optimizer.apply(gradients, rate)
        _move_averages(averages, model.variables, recipe.average, number)
        return loss, hits

    return step


def _targets(
    labels: tf.Tensor, class_weights: NDArray[np.float32], recipe: Recipe, none: int, batch: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what is to be answered, (N, classes), and the weight of each picture, (N,), in the loss."""
    classes = len(class_weights)
    target = tf.one_hot(labels, classes) * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
    weight = tf.gather(tf.constant(class_weights), tf.maximum(labels, 0))
    if none:
        strange = labels < 0
        target = tf.where(strange[:, None], 1 / classes, target)
        weight = tf.where(strange, NONE_WEIGHT * (batch - none) / none, weight)
    return target, weight


def _gradients(
    model: tf_keras.Model, teacher: tf_keras.Model | None, recipe: Recipe, none: int
) -> Callable[..., list[tf.Tensor]]:
    """Return a function: a share of a batch of ``batch`` pictures -> its part of loss, hits and gradients."""
    share = recipe.distillation
    masks = mask_logits(model) if recipe.mask_penalty else []
    network = tf_keras.Model(model.input, [model.output, *masks]) if masks else model

    def compute(
        x: tf.Tensor, target: tf.Tensor, weight: tf.Tensor, labels: tf.Tensor, answers: tf.Tensor | None, batch: int
    ) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            probabilities, *logits = tf.nest.flatten(network(x, training=not recipe.keep_statistics))
            log = tf.math.log(tf.clip_by_value(probabilities, 1e-7, 1.0))
            loss = -tf.reduce_sum(target * log, 1)
            given = answers if answers is not None or teacher is None else teacher(x, training=False)
            if share and given is not None:
                loss = (1 - share) * loss + share * _distance(given, probabilities, recipe.distillation_temperature)
            loss = tf.reduce_sum(weight * loss) / (batch - none)
            bounded = loss
            for values in logits:
                bounded += recipe.mask_penalty * beyond(values) * (x.shape[0] / batch)
        gradients = tape.gradient(bounded, model.trainable_variables)
        hits = tf.equal(tf.argmax(probabilities, 1, tf.int32), labels)
        return [loss, tf.reduce_sum(tf.cast(hits, tf.float32)), *gradients]

    return compute


def mask_logits(model: tf_keras.Model) -> list[tf.Tensor]:
    """Return what a network's soft masks put into their sigmoids, (N, h, w, c) each, as Keras tensors."""
    return [layer.input for layer in model.layers if layer_names.is_mask_sigmoid(layer.name)]


def beyond(logits: tf.Tensor) -> tf.Tensor:
    """Mean over all values of ``e^2`` where they exceed +-``MASK_LIMIT`` by ``e``; a straight line from ``e = 1`` on.

    A square all the way makes training diverge where logits are in the hundreds, as of a network trained without.
    """
    return _beyond(tf.cast(logits, tf.float32))


# The gradient is written out: what TensorFlow derives of the same sum reads the logits three times as often, which
# takes 2 % of a step of `edge50`.
@tf.custom_gradient
def _beyond(logits: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    excess = logits - tf.clip_by_value(logits, -MASK_LIMIT, MASK_LIMIT)
    bent = tf.clip_by_value(excess, -STRAIGHT, STRAIGHT)
    count = tf.cast(tf.size(logits), tf.float32)

    def gradient(above: tf.Tensor) -> tf.Tensor:
        return bent * (2 * above / count)

    return tf.reduce_sum(bent * (2 * excess - bent)) / count, gradient


def _distance(teacher: tf.Tensor, student: tf.Tensor, temperature: float) -> tf.Tensor:
    """(N,) KL divergence of the softened probabilities, times temperature squared (Hinton et al. 2015, 2.1)."""
    taught, said = _soften(teacher, temperature), tf.math.log(_soften(student, temperature) + 1e-7)
    return temperature**2 * tf.reduce_sum(taught * (tf.math.log(taught + 1e-7) - said), 1)


def _move_averages(
    averages: Sequence[tf.Variable], variables: Sequence[tf.Variable], most: float, number: tf.Tensor
) -> None:
    """Move the averages, none where there are none, towards the variables at step ``number``."""
    if not averages:
        return
    # The first steps count for more, so that the average does not carry the initial weights along.
    keep = tf.minimum(most, tf.cast(number + 1, tf.float32) / tf.cast(number + 10, tf.float32))
    for average, variable in zip(averages, variables, strict=True):
        average.assign(keep * average + (1 - keep) * variable)


def _soften(probabilities: tf.Tensor, temperature: float) -> tf.Tensor:
    return tf.nn.softmax(tf.math.log(probabilities + 1e-7) / temperature)


def augment(x: tf.Tensor, recipe: Recipe, seed: tf.Tensor) -> tf.Tensor:
    """Random shift, flip, brightness, contrast and colour: (N, H, W, 3) float32 0..255 -> the same.

    A function of ``seed``.
    """
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
    if recipe.colour:
        x = _coloured(x, recipe.colour, seed)
    return tf.clip_by_value(x, 0.0, 255.0) if recipe.brightness or recipe.contrast or recipe.colour else x


def _coloured(x: tf.Tensor, most: float, seed: tf.Tensor) -> tf.Tensor:
    """Change the saturation by up to ``most`` of it, and each channel, as other light does, by a third of that."""
    count = tf.shape(x)[0]
    saturation = tf.random.stateless_uniform((count, 1, 1, 1), _stream(seed, 4), 1 - most, 1 + most)
    light = tf.random.stateless_uniform((count, 1, 1, 3), _stream(seed, 5), 1 - most / 3, 1 + most / 3)
    grey = tf.reduce_mean(x, 3, keepdims=True)
    return (grey + (x - grey) * saturation) * light


def _stream(seed: tf.Tensor, number: int) -> tf.Tensor:
    """An independent seed of the same step."""
    return tf.stack([seed[0] + (number << 24), seed[1]])
