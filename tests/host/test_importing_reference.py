"""The indoor reference's network, as its script saves it, comes in exactly in every form, with its attention masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tf_keras
from reference_network import reference

from edge_ran.errors import InputError
from edge_ran.host import networks
from edge_ran.host.importing.importer import Answers, import_network

KERAS3 = pytest.importorskip("keras", minversion="3")
X = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    folder, found = tmp_path_factory.mktemp("reference"), {}
    for number, keras in ((2, tf_keras), (3, KERAS3)):
        for form in ("lambda", "operator"):
            model = reference(keras, form=form)
            name = f"{number}{form}"
            model.save(folder / f"{name}.h5")
            model.save(folder / f"{name}.keras")
            model.save_weights(folder / f"{name}.weights.h5")
            if number == 2:
                model.save_weights(folder / f"{name}.legacy.h5", save_format="h5")
            (folder / f"{name}.json").write_text(model.to_json())
            found[name] = folder / name, model
    return found


FORMS = ["2lambda.h5", "3lambda.keras", "3operator.h5", "2operator.weights.h5"]  # all were tried once


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_the_reference_is_the_same_network(
    models: dict[str, tuple[Path, Any]], name: str, tmp_path: Path
) -> None:
    stem, kind = name.split(".", 1)
    base, model = models[stem]
    path = base.with_name(name)
    architecture = base.with_name(f"{stem}.json") if kind not in ("h5", "keras") else None
    np.savez(tmp_path / "x.npz", inputs=X, outputs=np.asarray(model(X, training=False)))
    answers = Answers("numbers", "tf", architecture=architecture)
    report = import_network(path, tmp_path / "run", answers, expect=tmp_path / "x.npz")
    assert report.difference < 1e-5
    assert report.rewritten_difference < 2e-5
    assert report.expected_difference is not None
    assert report.expected_difference < 2e-5
    assert report.gates == 3
    places = {one.name: one.places for one in report.passes}
    assert places["attention (1 + M) T as T + M T"] == 3


@pytest.mark.parametrize("name", ["2lambda.legacy.h5", "2lambda.weights.h5"])
def test_weights_alone_find_their_places_by_the_networks_name(
    models: dict[str, tuple[Path, Any]], name: str, tmp_path: Path
) -> None:
    """In the order of creation, which the older files number, and in that of the model's list of layers."""
    base, model = models[name.split(".")[0]]
    np.savez(tmp_path / "x.npz", inputs=X, outputs=np.asarray(model(X, training=False)))
    answers = Answers("numbers", "tf", network="indoor56")
    report = import_network(base.with_name(name), tmp_path / "run", answers, expect=tmp_path / "x.npz")
    assert report.expected_difference is not None
    assert report.expected_difference < 2e-5
    assert report.network == "indoor56"
    assert any("placed" in note for note in report.notes)
    found = networks.load(tmp_path / "run" / "model.keras")
    assert {"stage1_module1_gate", "stage3_module1_gate"} <= {layer.name for layer in found.layers}


def test_weights_of_another_network_name_what_differs(models: dict[str, tuple[Path, Any]], tmp_path: Path) -> None:
    base, _ = models["2lambda"]
    with pytest.raises(InputError, match="does not fit edge50"):
        import_network(
            base.with_name("2lambda.legacy.h5"), tmp_path / "run", Answers("numbers", "tf", network="edge50")
        )
    model = tf_keras.Sequential([tf_keras.layers.Input((8, 8, 3)), tf_keras.layers.Flatten(), tf_keras.layers.Dense(2)])
    model.save_weights(tmp_path / "w.h5")
    with pytest.raises(InputError, match="no weights of indoor56"):
        import_network(tmp_path / "w.h5", tmp_path / "run", Answers("numbers", "tf", network="indoor56"))
