"""How a network of another script takes its pixels: what the user says of them, and what labelled pictures tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tf_keras
from tf_keras import layers

from edge_ran import runs
from edge_ran.card import InputSpec
from edge_ran.errors import EnvironmentMissing, InputError, UsageError
from edge_ran.host.importing import pixels as px
from edge_ran.host.importing.importer import Answers, import_network
from edge_ran.runs import RunFolder


@pytest.fixture(scope="module")
def scaled_inside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that scales pixels itself, as Keras's tutorials draw it."""
    path = tmp_path_factory.mktemp("scaled") / "m.h5"
    model = tf_keras.Sequential([layers.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3)])
    model.save(path)
    return path


def test_the_order_of_colours_holds_where_the_graph_scales_pixels(scaled_inside: Path, tmp_path: Path) -> None:
    for color in ("bgr", None):
        import_network(scaled_inside, tmp_path / "run", Answers("numbers", color=color), force=True)
        assert RunFolder(tmp_path / "run").card().input.color == (color or "rgb")


def test_an_unknown_order_of_colours_is_refused_before_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'bgrr'"):
        import_network(tmp_path / "not looked at.h5", tmp_path / "run", Answers("numbers", color="bgrr"))


@pytest.mark.parametrize(("color", "right"), [("bgr", 5), ("rgb", 0), (None, 1)])
def test_each_scaling_is_tried_in_the_order_of_colours_that_was_named(color: str | None, right: int) -> None:
    """Blue pictures, and a network whose first class is its first channel: caffe's own order alone is BGR."""
    blue = [np.full((8, 8, 3), (255, 0, 0), np.uint8)] * 4

    def forward(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(np.eye(3)[x.mean((1, 2)).argmax(1)], np.float32)

    trials = px.try_all(forward, blue, np.zeros(4, np.int64), InputSpec(8, 8), None, color)
    assert sum(trial.top1 == 1 for trial in trials) == right
    assert px.in_order(px.NAMED["tf"], color).color == (color or "rgb")


@pytest.mark.parametrize(("classes", "least"), [(2, 0.75), (3, 2 / 3), (10, 0.2)])
def test_how_often_the_best_scaling_must_be_right(classes: int, least: float) -> None:
    """Of two classes, twice chance would be always."""

    def trials(top1: float) -> tuple[px.PixelTrial, ...]:
        return px.PixelTrial("torch", top1, -0.4), px.PixelTrial("tf", 0.0, -2.0)

    assert px.choose(trials(least + 0.01), classes, Path("pictures")).name == "torch"
    with pytest.raises(InputError, match="none of the usual ways"):
        px.choose(trials(least - 0.01), classes, Path("pictures"))


def test_force_leaves_nothing_of_the_older_run(
    scaled_inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`convert` would take its training pictures for this network's; it stays whole until the new one is written."""
    run = tmp_path / "run"
    (run / "unfinished").mkdir(parents=True)
    older = {"card.json", "model.keras", "ranges.json", "int8.tflite", "curves.png", "report.html", runs.BEST}
    older |= {runs.CALIBRATION, runs.CHECKPOINT, runs.SETTINGS, runs.METRICS, "unfinished/settings.json"}
    for name in older:
        (run / name).write_bytes(b"older")
    (run / "notes.txt").write_text("of the user")

    def full(*given: object, **settings: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tf_keras.Model, "save", full)
        with pytest.raises(EnvironmentMissing):
            import_network(scaled_inside, run, Answers("numbers"), force=True)
    assert all((run / name).read_bytes() == b"older" for name in older)
    import_network(scaled_inside, run, Answers("numbers"), force=True)
    assert {path.name for path in run.iterdir()} == {"card.json", "model.keras", "notes.txt"}
