"""The indoor reference's network, as its script saves it, comes in exactly in every form, with its attention masks."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tf_keras
from reference_network import reference

from edge_ran.errors import InputError
from edge_ran.host.importing.importer import Answers, import_network

KERAS3 = pytest.importorskip("keras", minversion="3")
X = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of the network and, as ``.npz``, what it answers."""
    folder, found = tmp_path_factory.mktemp("reference"), {}
    old, new = reference(tf_keras), reference(KERAS3)
    old.save(folder / "2lambda.h5")
    old.save_weights(folder / "2lambda.weights.h5")
    old.save_weights(folder / "2lambda.legacy.h5", save_format="h5")
    new.save(folder / "3lambda.keras")
    for name, model in (("2lambda", old), ("3lambda", new)):
        np.savez(folder / f"{name}.npz", inputs=X, outputs=np.asarray(model(X, training=False)))
        found[name] = folder / name
    return found


FORMS = ["2lambda.h5", "3lambda.keras"]  # each of the sixteen was tried once; test_importing has them all, smaller


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_the_reference_is_the_same_network(models: dict[str, Path], name: str, tmp_path: Path) -> None:
    base = models[name.split(".")[0]]
    expect = base.with_suffix(".npz")
    report = import_network(base.with_name(name), tmp_path / "run", Answers("numbers", "tf"), expect=expect)
    assert report.difference < 1e-5
    assert report.rewritten_difference < 2e-5
    assert report.expected_difference is not None
    assert report.expected_difference < 2e-5
    assert report.network.gates == 3
    places = {one.name: one.places for one in report.network.passes}
    assert places["attention (1 + M) T as T + M T"] == 3


@pytest.mark.parametrize("name", ["2lambda.legacy.h5", "2lambda.weights.h5"])
def test_weights_alone_find_their_places_by_the_networks_name(
    models: dict[str, Path], name: str, tmp_path: Path
) -> None:
    """In the order of creation, which the older files number, and in that of the model's list of layers."""
    base = models[name.split(".")[0]]
    answers = Answers("numbers", "tf", network="indoor56")
    report = import_network(base.with_name(name), tmp_path / "run", answers, expect=base.with_suffix(".npz"))
    assert report.expected_difference is not None
    assert report.expected_difference < 2e-5
    assert report.network.name == "indoor56"
    assert any("placed" in note for note in report.network.notes)
    with zipfile.ZipFile(tmp_path / "run" / "model.keras") as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    assert {"stage1_module1_gate", "stage3_module1_gate"} <= {layer["name"] for layer in layers}


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    model = tf_keras.Sequential([tf_keras.layers.Input((8, 8, 3)), tf_keras.layers.Flatten(), tf_keras.layers.Dense(2)])
    model.save_weights(tmp_path / "w.h5")
    with pytest.raises(InputError, match="no weights of indoor56"):
        import_network(tmp_path / "w.h5", tmp_path / "run", Answers("numbers", "tf", network="indoor56"))
