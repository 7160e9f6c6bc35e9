"""Activations that a script calls as functions: their settings change numbers, and are kept or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tensorflow as tf
import tf_keras

from edge_ran import layer_names
from edge_ran.errors import InputError
from edge_ran.host.importing.configuration import read_graph
from edge_ran.host.importing.source import open_source
from edge_ran.host.importing.translate import translate

X = np.random.default_rng(0).uniform(-3, 3, (2, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def keras3() -> Any:
    return pytest.importorskip("keras", minversion="3")


def functions(keras: Any) -> dict[str, Callable[[Any], Any]]:
    """Activations with settings other than the usual ones, of Keras 2 or 3."""
    if keras is tf_keras:
        return {
            "gelu": tf.nn.gelu,
            "gelu of tanh": lambda x: tf.nn.gelu(x, approximate=True),
            "swish": tf.nn.silu,
            "steeper swish": lambda x: tf.nn.silu(x, beta=1.702),
            "leaky relu": lambda x: tf.nn.leaky_relu(x, 0.3),
            "named relu": lambda x: tf.nn.relu(x, name="named"),
        }
    ops, activations = keras.ops, keras.activations
    return {
        "gelu of tanh": ops.gelu,
        "gelu": lambda x: ops.gelu(x, approximate=False),
        "elu": ops.elu,
        "flatter elu": lambda x: ops.elu(x, alpha=0.5),
        "leaky relu": lambda x: ops.leaky_relu(x, 0.3),
        "relu": lambda x: activations.relu(x, negative_slope=0.1, threshold=0.5, max_value=2.0),
        "softmax": ops.softmax,
    }


@pytest.mark.parametrize(("keras", "suffix"), [(2, "h5"), (3, "h5"), (3, "keras")])
def test_the_settings_of_an_activation_count(keras: int, suffix: str, keras3: Any, tmp_path: Path) -> None:
    of = tf_keras if keras == 2 else keras3
    given, kl = functions(of), of.layers
    image = kl.Input((8, 8, 3))
    maps = [kl.ZeroPadding2D(1)(function(image)) for function in given.values()]
    model = of.Model(image, kl.Concatenate()(maps))
    model.save(tmp_path / f"m.{suffix}")
    with open_source(tmp_path / f"m.{suffix}") as source:
        graph = read_graph(source, {}).graph
    found = translate(graph)
    assert not any(layer_names.is_gate(name) for name in found.graph.nodes)
    expected = np.asarray(model(X))
    for drawn in (graph, found.graph):
        moved = np.abs(np.asarray(drawn.model("drawn")(X)) - expected).max((0, 1, 2)).reshape(len(given), 3).max(1)
        assert {name: most for name, most in zip(given, moved, strict=True) if most > 2e-6} == {}


def test_a_setting_that_is_not_known_is_named(tmp_path: Path) -> None:
    image = tf_keras.layers.Input((8, 8, 3))
    tf_keras.Model(image, tf.nn.gelu(image, approximate=True)).save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"approximate"', '"nearly"')
    with open_source(tmp_path / "m.h5") as source, pytest.raises(InputError, match="its setting nearly is not known"):
        read_graph(source, {})
