"""Exact rewrites of a trained graph into an equal one that quantises, converts and runs better.

Each pass is one function with its equation; ``rewrite`` runs them in order and measures, on pictures, how far the
logits moved: by float32 rounding alone, under 1e-4 of the largest; more is refused. Nothing is left of
BatchNormalization: what comes out is what ``convert`` writes and what ``quantize`` trains, convolutions that end in a
ReLU, as runtimes fuse them.

The result is again one flat functional graph; layers keep their names, and new ones are named after their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import tf_keras
from tf_keras import layers

from edge_ran.errors import InputError
from edge_ran.host.rewrites.convolutions import (
    leave_out_padding,
    merge_pointwise,
    pad_in_convolution,
    separate_activations,
    stride_before_pointwise,
)
from edge_ran.host.rewrites.layer_graph import Array, LayerGraph, Node
from edge_ran.host.rewrites.merging import merge_two_by_two
from edge_ran.host.rewrites.normalisation import (
    fold_norms,
    fold_norms_forward,
    normalise_positions,
    norms_to_depthwise,
)
from edge_ran.host.rewrites.preactivation import carry_shifts, norms_between_relus
from edge_ran.host.rewrites.resizing import commute_upsampling, part_padding_from_pooling, repeat_positions

__all__ = [
    "MOST_DIFFERENCE", "MOVING", "PASSES", "LayerGraph", "Node", "PassReport", "Rewritten", "check_difference",
    "difference", "for_floats", "in_batches", "last_layer", "leave_out_padding", "logits", "normalise_positions",
    "rewrite", "separate_activations",
]  # fmt: skip

MOST_DIFFERENCE = 1e-4  # of the largest logit; float32 rounding moves the deepest network here by a tenth of that

BATCH = 16  # pictures that a network is asked about at once: most of a call of one picture is Keras's own work

_BETWEEN_RELUS, _CARRIED_SHIFTS = "normalisation between two ReLUs", "shift carried by additions"
MOVING = (_BETWEEN_RELUS, _CARRIED_SHIFTS)  # after these, layers that keep their names give other numbers

# In their order; each changes a graph and returns in how many places.
PASSES: tuple[tuple[str, Callable[[LayerGraph], int]], ...] = (
    ("activation as a layer of its own", separate_activations),
    ("padding in the convolution", pad_in_convolution),
    ("merge pointwise convolutions", merge_pointwise),
    ("commute upsampling", commute_upsampling),
    ("stride before pointwise convolution", stride_before_pointwise),
    ("fold normalisation into convolution", fold_norms),
    ("fold normalisation into dense layer", fold_norms_forward),
    (_BETWEEN_RELUS, norms_between_relus),
    (_CARRIED_SHIFTS, carry_shifts),
    ("normalisation as depthwise convolution", norms_to_depthwise),
    ("nearest upsampling as concatenation", repeat_positions),
    ("spatial normalisation in four dimensions", normalise_positions),
    ("padding apart from max-pooling", part_padding_from_pooling),
    ("sums and products of two", merge_two_by_two),
)


@dataclass(frozen=True)
class PassReport:
    """The number of ``places`` in the graph that a pass changed."""

    name: str
    places: int


@dataclass(frozen=True)
class Rewritten:
    """The rewritten model, the passes that changed something in the order they ran, and what they did to the logits.

    ``difference`` is the largest change of a logit, as a share of the largest logit.
    """

    model: tf_keras.Model
    passes: tuple[PassReport, ...]
    difference: float


def rewrite(model: tf_keras.Model, images: Array | None = None, *, without: Collection[str] = ()) -> Rewritten:
    """Rewrite a network into an equal one that deploys better; ``model`` itself is left as it is.

    Args:
        model: flat functional graph, one image input (H, W, 3), one output.
        images: (n, H, W, 3) float32 normalised pictures to measure the difference on; None = a random one.
        without: names of passes to leave out.

    Raises:
        InputError: the model is not a flat functional graph of one input and one output, holds what cannot be drawn
            again, or the rewritten one gives other logits.
    """
    graph = LayerGraph.of(model)
    if any(layer.compute_dtype != "float32" for layer in model.layers):  # what it was trained in rounds more coarsely
        model = graph.model(model.name)
    reports = tuple(PassReport(name, change(graph)) for name, change in PASSES if name not in without)
    rewritten = graph.model(model.name)
    moved = difference(model, rewritten, images=images)
    check_difference(moved, model.name)
    return Rewritten(rewritten, tuple(r for r in reports if r.places), moved)


def check_difference(moved: float, name: str) -> None:
    """Raise InputError where logits moved by more than rounding; NaN is more."""
    if not moved <= MOST_DIFFERENCE:
        what = f"{name}: rewriting it moves its logits by {moved:.1e} of the largest, more than {MOST_DIFFERENCE:g}"
        raise InputError(what, "take it as it is: edge-ran convert --no-rewrite RUN; and please report the network")


def for_floats(rewritten: Rewritten, images: Array | None = None) -> Rewritten:
    """Rewrite once more, for files that compute in float32: no products with padding (``leave_out_padding``).

    ``images`` and what is raised are those of ``rewrite``.
    """
    graph = LayerGraph.of(rewritten.model)
    if not (places := leave_out_padding(graph)):
        return rewritten
    model = graph.model(rewritten.model.name)
    report = PassReport("convolution without its padding", places)
    moved = rewritten.difference + difference(rewritten.model, model, images=images)
    check_difference(moved, model.name)
    return Rewritten(model, (*rewritten.passes, report), moved)


def difference(model: tf_keras.Model, other: tf_keras.Model, seed: int = 0, images: Array | None = None) -> float:
    """Return the largest difference of two models' logits, as a share of the largest logit.

    Args:
        seed: of the random image that is taken without ``images``.
        images: (n, H, W, 3) float32 normalised pictures.
    """
    if images is None:
        images = np.random.default_rng(seed).uniform(-1, 1, (1, *model.input_shape[1:])).astype(np.float32)
    before, after = (logits(m, images) for m in (model, other))
    return float(np.abs(after - before).max()) / max(float(np.abs(before).max()), float(np.finfo(np.float32).tiny))


def logits(model: tf_keras.Model, images: Array) -> Array:
    """(n, H, W, 3) -> (n, classes), a model's output before a final softmax or sigmoid, which would hide differences.

    It is final, too, where its output is only handed on or gets another shape; its input's shape is then given.
    """
    last = last_layer(model)
    config = last.get_config()
    is_pressing = config.get("activation") in ("softmax", "sigmoid")
    if isinstance(last, layers.Softmax) or (isinstance(last, layers.Activation) and is_pressing):
        return in_batches(tf_keras.Model(model.input, last.input), images)
    if not is_pressing:
        return in_batches(model, images)
    plain = type(last).from_config({**config, "activation": "linear", "dtype": "float32"})
    probe = tf_keras.Model(model.input, plain(last.input))
    plain.set_weights(last.get_weights())
    return in_batches(probe, images)


def last_layer(model: tf_keras.Model) -> layers.Layer:
    """Return the layer that computes a model's output, which others may hand on or give another shape."""
    last = model.output.node.layer
    while isinstance(last, (layers.Flatten, layers.Reshape)) or _hands_on(last):
        last = last.inbound_nodes[0].parent_nodes[0].layer
    return last


def _hands_on(layer: layers.Layer) -> bool:
    return isinstance(layer, layers.Activation) and layer.get_config()["activation"] == "linear"


def in_batches(model: tf_keras.Model, images: Array) -> Array:
    """(n, H, W, 3) -> (n, classes), a model's output; one by one where the network was saved for a batch of 1."""
    size = model.input_shape[0] or BATCH
    parts = [np.asarray(model(images[i : i + size], training=False)) for i in range(0, len(images), size)]
    return np.concatenate(parts)
