"""`quantize` from a trained run folder to a proved integer file, and everything that stops it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import processes
import pytest
from schemas import valid_record

from edge_ran import catalogue, dataset, records
from edge_ran.architecture import Architecture, Stage
from edge_ran.bench import Plan
from edge_ran.card import InputSpec, ModelCard
from edge_ran.cli.render import verify as render
from edge_ran.cli.render.convert import compared
from edge_ran.errors import GateError, InputError, OutputExists, UsageError
from edge_ran.graph import read_graph

pytest.importorskip("tensorflow_model_optimization")

import tf_keras
from tf_keras import layers

from edge_ran.host import networks, parity, precisions, quantize, training_data
from edge_ran.host.convert import convert
from edge_ran.host.train import train
from edge_ran.host.training_loop import Callbacks, Trained
from edge_ran.pictures import pictures_in
from edge_ran.recipe import QUANTIZE, Recipe, TrainOptions

TINY = Architecture("tiny", 16, 3, 3, 8, 1, 2, (Stage(16, 8, 1, 1, 2),), ((8, 32, 2),), 0, 1, 0, mask_pool=2)
RECIPE = QUANTIZE.changed(epochs=2, batch_size=16, learning_rate=0.01)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noisy stripes: upright, level, none; 40 pictures each."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    waves = 60 * np.sin(np.arange(16) * np.pi / 2)[None, :, None, None]
    x = 128 + random.normal(0, 25, (120, 16, 16, 3)) + random.uniform(-20, 20, (120, 1, 1, 3))
    x[labels == 0] += waves
    x[labels == 1] += waves.swapaxes(1, 2)
    path = tmp_path_factory.mktemp("stripes") / "stripes.npz"
    np.savez(path, x=np.clip(x, 0, 255).astype(np.uint8), y=labels, labels=np.array(["level", "upright", "none"]))
    return path


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "float"
    train(
        pictures,
        folder,
        TINY,
        Recipe("short", 30, 16, 0.1, "one-cycle", warmup=0.2),
        TrainOptions(validation_fraction=0.3),
    )
    return folder


@pytest.fixture(scope="module")
def quantised(run: Path) -> Path:
    valid_record("quantize", quantize.quantize(run, run.with_name("float-qat"), how=RECIPE))
    return run.with_name("float-qat")


def weights(folder: Path) -> list[np.ndarray]:
    return networks.load(folder / "model.keras").get_weights()


def test_the_quantised_run_becomes_an_integer_file_that_computes_it(quantised: Path, pictures: Path) -> None:
    card = ModelCard.from_json((quantised / "card.json").read_bytes())
    assert card.training.quantisation is not None
    assert card.training.quantisation.recipe == RECIPE
    assert card.training.quantisation.float_layers == ()
    assert card.accuracy.of == "the int8 arithmetic"
    made = convert(quantised, catalogue.converter("int8"), quantised / "int8.tflite", io="int8", force=True)
    graph = read_graph(made.path)
    assert (graph.float_operators, graph.inner_quantize, graph.precision) == ([], [], "int8")

    found = parity.check_parity(quantised, made.path, parity.some_frames(pictures, 60))
    assert found.reference == parity.FAKE_QUANTISED
    assert found.pictures == 60
    assert found.agreement >= 0.98
    assert found.identical > 0.8
    assert found.first is None
    assert len(found.layers) == len(graph.operators)
    means = [layer.mean_steps for layer in found.worst]
    assert means == sorted(means, reverse=True)
    parity.check(found)
    plain = convert(quantised, catalogue.converter("int8"), quantised / "plain.tflite", io="float32", force=True)
    again = parity.check_parity(quantised, plain.path, parity.some_frames(pictures, 60), layers=False)
    assert (again.reference, again.agreement, again.identical) == (found.reference, found.agreement, found.identical)
    record = valid_record("verify-network", found)
    assert records.read_document(parity.ParityReport, record, "parity") == found


def test_verify_compares_a_run_with_its_own_file_and_no_other(
    run: Path, quantised: Path, pictures: Path, tmp_path: Path, printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = tmp_path / "runs" / "mine", tmp_path / "runs" / "other"
    for seed, folder in enumerate((mine, other)):
        shutil.copytree(run, folder)
        card = ModelCard.from_json((folder / "card.json").read_bytes())
        card = dataclasses.replace(card, training=dataclasses.replace(card.training, seed=seed))
        (folder / "card.json").write_text(card.to_json())
        convert(folder, catalogue.converter("fp32"), folder / "fp32.tflite", force=True)
    monkeypatch.chdir(tmp_path)  # the other one's file is the newest here
    found = json.loads(printed("verify", "--network", mine, "--images", pictures, "--count", 4, "--json"))
    assert found["model"] == str(mine / "fp32.tflite")
    frames = parity.some_frames(pictures, 2)
    with pytest.raises(InputError, match=r"not of the network in .*: its card tells of another training"):
        parity.check_parity(mine, other / "fp32.tflite", frames, layers=False)
    fine_tuned = convert(quantised, catalogue.converter("int8"), tmp_path / "int8.tflite").path
    parity.check_parity(mine, fine_tuned, frames, layers=False)  # of the same training, and then of quantize


def test_the_layer_that_is_wrong_is_named(quantised: Path, pictures: Path, tmp_path: Path) -> None:
    made = convert(quantised, catalogue.converter("int8"), tmp_path / "int8.tflite", io="int8")
    damaged = tmp_path / "damaged"
    shutil.copytree(quantised, damaged)
    model = networks.load(quantised / "model.keras")
    layer = model.get_layer("stage1_module1_trunk_unit1_conv2")
    kernel, bias = layer.get_weights()
    layer.set_weights([-kernel, bias])
    networks.save(model, damaged / "model.keras")
    found = parity.check_parity(damaged, made.path, parity.some_frames(pictures, 12))
    assert found.first is not None
    assert found.first.layer == "stage1_module1_trunk_unit1_conv2_relu"  # fused with it, and before all that follow
    assert f"first differing layer: {found.first.layer} (operator {found.first.index} " in render.parity(found)
    parity.draw(found, tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(GateError, match="stage1_module1_trunk_unit1_conv2_relu"):
        parity.check(dataclasses.replace(found, agreement=0.5))


def quantize_and_tell(heard: Connection, run: Path, output: Path, resume: bool) -> None:
    callbacks = Callbacks(on_step=lambda p: heard.send(p.step))
    quantize.quantize(run, output, how=RECIPE, resume=resume, checkpoint_s=0.0, callbacks=callbacks)


def test_a_killed_run_resumes_to_the_same_bits(run: Path, quantised: Path, tmp_path: Path) -> None:
    """SIGKILL inside an epoch, often in a checkpoint's write; then the undisturbed result, that of another process."""
    killed = tmp_path / "killed"
    process, steps = processes.start(quantize_and_tell, run, killed, False)
    while steps.recv() < 7:
        pass
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (killed / "model.keras").exists()
    with pytest.raises(OutputExists):
        quantize.quantize(run, killed, how=RECIPE)
    kept = (killed / "settings.json").read_bytes()
    with pytest.raises(InputError, match="other data or settings"):
        quantize.quantize(run, killed, how=RECIPE, seed=1, resume=True)
    assert (killed / "settings.json").read_bytes() == kept
    process, steps = processes.start(quantize_and_tell, run, killed, True)
    assert processes.said(steps)[0] in (7, 8)  # one after the checkpoint's step
    process.join()
    assert process.exitcode == 0
    for ours, theirs in zip(weights(killed), weights(quantised), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (killed / "ranges.json").read_bytes() == (quantised / "ranges.json").read_bytes()
    assert not list(killed.glob(".edge-ran-*"))


def test_weights_that_training_made_worse_are_given_up(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget(model: object, *args: object, **kwargs: object) -> Trained:
        for variable in model.trainable_variables:  # type: ignore[attr-defined]
            variable.assign(variable * 0)
        return Trained((), 0)

    monkeypatch.setattr(quantize, "fit", forget)
    report = quantize.quantize(run, tmp_path / "harmed", how=RECIPE)
    assert report.kept == "calibrated"
    assert report.calibrated_top1 is not None
    assert report.calibrated_top1 > 0.6
    assert report.top1 == pytest.approx(report.calibrated_top1, abs=0.03)  # snapping may turn one picture of 36


def test_every_precision_in_one_table(run: Path, quantised: Path, pictures: Path, tmp_path: Path) -> None:
    plan = Plan(num_runs=1, warmup_runs=0, min_secs=0, max_secs=1)
    (tmp_path / "mine").mkdir()
    for picture in pictures_in(catalogue.folder("calibration_data"))[:8]:
        shutil.copy(picture, tmp_path / "mine")
    there = run / "int8.tflite"
    convert(run, catalogue.converter("int8"), there, calibration=tmp_path / "mine", force=True)
    table = precisions.compare(run, dataset.load(pictures), tmp_path, calibration=None, plan=plan)
    assert [row.precision for row in table.rows] == ["fp32", "fp16", "dynamic", "int8", "int8-qat"]
    assert table.quantised_run == str(quantised)
    assert table.warnings[0] == f"{there} was there, calibrated on mine; to convert it again: --force"
    assert (table.rows[0].drop_points, table.rows[0].agreement) == (0, 1)
    assert all(row.size_bytes == Path(row.path).stat().st_size for row in table.rows)
    assert all(row.latency_ms > 0 for row in table.rows)
    for row in table.rows:
        assert row.drop_points == pytest.approx(100 * (table.rows[0].top1 - row.top1))
    precisions.draw(table, tmp_path / "table.svg")
    assert "int8-qat" in (tmp_path / "table.svg").read_text()
    assert "int8-qat" in compared(table)
    assert valid_record("precisions", table)["rows"][4]["precision"] == "int8-qat"
    (known,) = (line for line in compared(table).splitlines() if "are training images" in line)
    assert known.startswith("! ")
    precisions.check(table, 100)
    just = dataclasses.replace(table.rows[-1], drop_points=100 * (0.9 - 0.89))  # 1.0000000000000009
    precisions.check(dataclasses.replace(table, rows=(*table.rows[:-1], just)), 1)
    worse = dataclasses.replace(table.rows[-1], drop_points=0.7)
    with pytest.raises(GateError, match=r"loses 0\.70 points"):
        precisions.check(dataclasses.replace(table, rows=(*table.rows[:-1], worse)), 0.5)


def test_a_quantised_run_of_an_older_network_is_not_compared(run: Path, quantised: Path, tmp_path: Path) -> None:
    newer, older = tmp_path / "float", tmp_path / "float-qat"
    shutil.copytree(run, newer)
    shutil.copytree(quantised, older)
    assert precisions.QUANTISED in precisions._files(newer, None, None)[0]
    networks.save(networks.build(TINY), newer / "model.keras")  # trained again
    files, used, left_out = precisions._files(newer, None, None)
    assert (precisions.QUANTISED in files, used, len(left_out)) == (False, None, 1)
    assert left_out[0].endswith(f"was made of an older network; to make it anew: edge-ran quantize {newer} --force")
    with pytest.raises(InputError, match="was made of another network than that in") as refused:
        precisions._files(newer, older, None)
    assert refused.value.remedy == f"edge-ran quantize {newer} --force"


def test_pictures_take_the_networks_order_of_classes(tmp_path: Path, make_pictures: Callable[..., Path]) -> None:
    """An imported network has its own; that of folders is by name."""
    source = make_pictures(tmp_path / "colours", size=(16, 16))
    by_name = training_data.read(source, InputSpec(16, 16), 0.25, 0)
    reversed_ = training_data.read(source, InputSpec(16, 16), 0.25, 0, labels=by_name.labels[::-1])
    assert reversed_.labels == by_name.labels[::-1]
    np.testing.assert_array_equal(reversed_.train.labels, len(by_name.labels) - 1 - by_name.train.labels)
    assert training_data.read(source, InputSpec(16, 16), 0.25, 0, labels=("a", "b")).labels == by_name.labels


def test_what_cannot_be_quantised_is_one_line(
    run: Path, quantised: Path, tmp_path: Path, make_pictures: Callable[..., Path]
) -> None:
    with pytest.raises(InputError, match="quantised already"):
        quantize.quantize(quantised, tmp_path / "again")
    with pytest.raises(UsageError, match="is the run itself"):
        quantize.quantize(run, run)
    with pytest.raises(InputError, match="has the classes"):
        quantize.quantize(run, tmp_path / "other", make_pictures(tmp_path / "colours", size=(16, 16)))
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    settings = json.loads((moved / "settings.json").read_text())
    (moved / "settings.json").write_text(json.dumps({**settings, "source": str(tmp_path / "gone")}))
    with pytest.raises(UsageError, match="no longer at"):
        quantize.quantize(moved, tmp_path / "out")
    (moved / "settings.json").unlink()
    with pytest.raises(UsageError, match="does not say where"):
        quantize.quantize(moved, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda x: layers.Activation("softmax")(layers.Dense(3)(layers.Flatten()(layers.PReLU()(x)))), "PReLU"),
        (lambda x: layers.Dense(3)(layers.Flatten()(layers.Conv2DTranspose(4, 3)(x))), "Conv2DTranspose"),
        (lambda x: layers.Dense(3)(layers.LSTM(4)(layers.Reshape((16, 48))(x))), "LSTM"),
        (lambda x: layers.Dense(3)(layers.Flatten()(layers.ReLU(negative_slope=0.1)(x))), "ReLU"),
        (lambda x: layers.Dense(3)(layers.Flatten()(x)), "does not end in a softmax"),
    ],
)
def test_a_network_that_has_no_integer_arithmetic_here_is_refused(
    run: Path, tmp_path: Path, build: Callable[[object], object], named: str
) -> None:
    folder = tmp_path / "own"
    shutil.copytree(run, folder)
    image = layers.Input((16, 16, 3))
    networks.save(tf_keras.Model(image, build(image)), folder / "model.keras")
    with pytest.raises(InputError, match=named):
        quantize.quantize(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_softmax_inside_a_layer_is_split_off_and_what_stays_float_is_said_before_training(
    run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    shutil.copytree(run, folder)
    image = layers.Input((16, 16, 3))
    x = layers.UnitNormalization()(layers.GroupNormalization(3, name="norm")(image))
    x = layers.Concatenate()([x, layers.ReLU(0.5, name="wider")(layers.Conv2D(4, 1)(x))])
    answer = layers.Dense(3, activation="softmax")(layers.Flatten()(layers.ReLU(0.5)(layers.Conv2D(4, 1)(x))))
    networks.save(tf_keras.Model(image, answer), folder / "model.keras")
    said: list[str] = []
    how = quantize.recipe(folder).changed(epochs=1)
    made = quantize.quantize(folder, tmp_path / "out", how=how, callbacks=Callbacks(on_stage=said.append))
    assert made.float_layers == ("norm", "wider")
    assert (tmp_path / "out" / "ranges.json").is_file()
    told = [line.partition(" ")[0] for line in said if line.startswith("training") or "norm, wider" in line]
    assert told == ["these", "training,"]


def test_the_recipe_keeps_the_augmentation_of_the_training(run: Path) -> None:
    assert quantize.recipe(run).batch_size == QUANTIZE.batch_size
    card = json.loads((run / "card.json").read_text())
    how = quantize.recipe(run).changed(epochs=7)
    assert (how.epochs, how.flip, how.pad) == (7, card["training"]["recipe"]["flip"], card["training"]["recipe"]["pad"])


def test_force_costs_nothing_where_the_pictures_are_not_the_runs(run: Path, pictures: Path, tmp_path: Path) -> None:
    good = tmp_path / "good"
    shutil.copytree(run, good)
    before = {path.name: path.read_bytes() for path in good.iterdir() if path.is_file()}
    other = tmp_path / "other.npz"
    with np.load(pictures) as arrays:
        np.savez(other, x=arrays["x"], y=arrays["y"], labels=np.array(["level", "upright", "oblique"]))
    for source in (tmp_path / "MISTYPED", other):
        with pytest.raises(InputError):
            quantize.quantize(run, good, source, force=True)
        assert {path.name: path.read_bytes() for path in good.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("recipe", [3, {"flip": "yes"}, {"pad": [1]}, {"brightness": None}])
def test_a_card_whose_recipe_is_none_is_one_line(run: Path, tmp_path: Path, recipe: object) -> None:
    shutil.copytree(run, tmp_path / "run")
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    card["training"]["recipe"] = recipe
    (tmp_path / "run" / "card.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match="recipe"):
        quantize.recipe(tmp_path / "run")
