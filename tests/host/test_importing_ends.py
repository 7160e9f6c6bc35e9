"""How networks of other scripts end: one softmax, wherever it stands, and never a second one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tf_keras
from tf_keras import layers

from edge_ran.errors import GateError, InputError
from edge_ran.host import networks
from edge_ran.host.importing import importer
from edge_ran.host.importing.configuration import read_graph
from edge_ran.host.importing.ending import end_in_softmax
from edge_ran.host.importing.importer import Answers, import_network
from edge_ran.host.importing.source import open_source
from edge_ran.host.importing.translate import translate
from edge_ran.host.rewrites import LayerGraph, logits
from edge_ran.runs import RunFolder

X = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
KNOWN = Answers(labels="numbers", preprocessing="tf")


def scores(x: Any, activation: str | None = None) -> Any:
    return layers.Dense(4, activation)(layers.Flatten()(x))


def a_position(x: Any, activation: str | None = None) -> Any:
    return layers.Conv2D(4, 8, activation=activation)(x)


ONE_SOFTMAX: dict[str, Callable[[Any], Any]] = {
    "layer": lambda x: layers.Softmax()(scores(x)),
    "handed on": lambda x: layers.Activation("linear")(scores(x, "softmax")),
    "reshaped": lambda x: layers.Reshape((4,))(layers.Activation("softmax")(a_position(x))),
    "flattened twice": lambda x: layers.Flatten()(layers.Reshape((1, 4, 1, 1))(layers.Softmax()(a_position(x)))),
    "of a convolution": lambda x: layers.Flatten()(a_position(x, "softmax")),
}
AVERAGES: dict[str, Callable[[Any], Any]] = {
    "of two": lambda x: layers.Average()([scores(x, "softmax"), layers.Dropout(0.1)(scores(x, "softmax"))]),
    "of positions": lambda x: layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="softmax")(x)),
    "of positions, flattened": lambda x: layers.Flatten()(
        layers.AveragePooling2D(6)(layers.Softmax()(layers.Conv2D(4, 3)(x)))
    ),
}
MIXES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "maximum": (lambda x: layers.Maximum()([scores(x, "softmax"), scores(x, "softmax")]), "mixes the outputs"),
    "sum": (lambda x: layers.Add()([scores(x, "softmax"), scores(x, "softmax")]), "mixes the outputs"),
    "all positions": (lambda x: layers.Flatten()(layers.Conv2D(4, 5, activation="softmax")(x)), "mixes the outputs"),
    "segmentation": (lambda x: layers.Reshape((64, 4))(layers.Conv2D(4, 1, activation="softmax")(x)), "segmentation"),
}


def drawn(path: Path, ending: Callable[[Any], Any]) -> Any:
    image = layers.Input((8, 8, 3))
    model = tf_keras.Model(image, ending(image))
    model.save(path)
    return model


def ended(path: Path) -> tuple[LayerGraph, list[str]]:
    with open_source(path) as source:
        graph = translate(read_graph(source, {}).graph).graph
    return graph, end_in_softmax(graph, "", path)


@pytest.mark.parametrize("name", ONE_SOFTMAX)
def test_a_softmax_before_the_last_layer_is_the_last_one(tmp_path: Path, name: str) -> None:
    theirs = drawn(tmp_path / "m.h5", ONE_SOFTMAX[name])
    graph, notes = ended(tmp_path / "m.h5")
    assert notes == []
    assert sum(node.config.get("activation") == "softmax" for node in graph.nodes.values()) == 1
    ours = graph.model("ours")
    np.testing.assert_allclose(ours(X), theirs(X), atol=1e-6)
    np.testing.assert_allclose(logits(ours, X), logits(theirs, X).reshape(2, 4), atol=1e-5)
    assert import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN).difference < 1e-5
    assert RunFolder(tmp_path / "run").is_finished


@pytest.mark.parametrize("name", AVERAGES)
def test_an_average_of_softmaxes_gets_no_other_one(tmp_path: Path, name: str) -> None:
    theirs = drawn(tmp_path / "m.h5", AVERAGES[name])
    graph, notes = ended(tmp_path / "m.h5")
    assert "average of softmaxes" in notes[0]
    np.testing.assert_allclose(graph.model("ours")(X), theirs(X), atol=1e-6)
    assert import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN).difference < 1e-5


@pytest.mark.parametrize("name", MIXES)
def test_what_softmaxes_are_mixed_into_is_refused_where_it_is_none(tmp_path: Path, name: str) -> None:
    ending, words = MIXES[name]
    drawn(tmp_path / "m.h5", ending)
    with pytest.raises(InputError, match=words):
        ended(tmp_path / "m.h5")


def test_scores_that_a_softmax_weighs_are_scores(tmp_path: Path) -> None:
    """Attention over positions, then the mean: the usual softmax is still missing."""
    theirs = drawn(
        tmp_path / "m.h5",
        lambda x: layers.GlobalAveragePooling2D()(
            layers.Multiply()([layers.Conv2D(4, 1)(x), layers.Conv2D(4, 1, activation="softmax")(x)])
        ),
    )
    graph, notes = ended(tmp_path / "m.h5")
    assert "one was added" in notes[0]
    np.testing.assert_allclose(graph.model("ours")(X), tf_keras.activations.softmax(theirs(X)), atol=1e-6)


@pytest.mark.parametrize(("version", "suffix"), [(2, "h5"), (2, "keras"), (3, "h5"), (3, "keras")])
def test_one_logit_whose_loss_has_the_sigmoid_is_two_classes(tmp_path: Path, version: int, suffix: str) -> None:
    """As ``binary_crossentropy`` of logits is written; large logits, whose sigmoids all are 0 or 1."""
    keras = tf_keras if version == 2 else pytest.importorskip("keras", minversion="3")
    kl = keras.layers
    start = keras.initializers.RandomNormal(stddev=20, seed=1)
    model = keras.Sequential([kl.Input((8, 8, 3)), kl.Flatten(), kl.Dense(1, kernel_initializer=start)])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    path, expect = tmp_path / f"m.{suffix}", tmp_path / "x.npz"
    model.save(path)
    z = np.asarray(model(X))
    np.savez(expect, inputs=X, outputs=z)
    report = import_network(path, tmp_path / "run", KNOWN, expect=expect)
    assert max(report.difference, report.expected_difference or 0) < 1e-5
    assert "one logit became a softmax" in " ".join(report.network.notes)
    found = np.asarray(networks.load(tmp_path / "run" / "model.keras")(X))
    np.testing.assert_allclose(found[:, 1:], 1 / (1 + np.exp(-z.astype(np.float64))), atol=1e-5)
    np.testing.assert_allclose(importer._probabilities(model, X) if version == 2 else found, found, atol=1e-5)
    model.compile("sgd", "binary_crossentropy")  # of probabilities: 0.5 parts the classes, not 0
    model.save(path)
    with pytest.raises(InputError, match="single number"):
        import_network(path, tmp_path / "other", KNOWN)


def test_the_logit_of_one_sigmoid_is_compared(tmp_path: Path) -> None:
    """Behind the sigmoid, large logits differ by its rounding."""
    start = tf_keras.initializers.Constant(1.0)
    dense = layers.Dense(1, "sigmoid", kernel_initializer=start, bias_initializer=tf_keras.initializers.Constant(30.0))
    drawn(tmp_path / "m.h5", lambda x: dense(layers.Flatten()(x)))
    assert import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN).difference < 1e-5


def test_recorded_probabilities_of_one_sigmoid_are_compared_as_such(tmp_path: Path) -> None:
    """Also where the sigmoid's output is handed on, as in mixed precision: small ones must be right, too."""
    start = tf_keras.initializers.RandomNormal(stddev=0.1, seed=1)
    dense = layers.Dense(1, "sigmoid", kernel_initializer=start, bias_initializer=tf_keras.initializers.Constant(-12.0))
    model = drawn(tmp_path / "m.h5", lambda x: layers.Activation("linear", dtype="float32")(dense(layers.Flatten()(x))))
    answers = np.asarray(model(X))
    np.savez(tmp_path / "x.npz", inputs=X, outputs=answers)
    report = import_network(tmp_path / "m.h5", tmp_path / "run", KNOWN, expect=tmp_path / "x.npz")
    assert 0 <= (report.expected_difference or 0) < 1e-5
    large, small = np.full_like(X[:1], 40.0) * np.sign(dense.kernel.numpy()).reshape(1, 8, 8, 3), X[:1]
    x = np.concatenate([large, small])
    np.savez(tmp_path / "x.npz", inputs=x, outputs=np.asarray(model(x)) * [[1], [2]])
    with pytest.raises(GateError, match="differ"):
        import_network(tmp_path / "m.h5", tmp_path / "other", KNOWN, expect=tmp_path / "x.npz")
