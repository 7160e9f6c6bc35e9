"""Training: learns, resumes to the same bits after SIGKILL, refuses what cannot be learnt from, leaves whole files."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import processes
import pytest
from numpy.typing import NDArray
from schemas import valid

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tensorflow as tf

from edge_ran import catalogue
from edge_ran.architecture import Architecture, Stage
from edge_ran.card import Calibration, InputSpec, ModelCard, Training
from edge_ran.cli.render.convert import converted
from edge_ran.dataset import Reading, decoding
from edge_ran.errors import EdgeRanError, InputError, OutputExists, UsageError
from edge_ran.graph import read_card
from edge_ran.host import calibration, networks, training_data
from edge_ran.host.convert import convert
from edge_ran.host.quantize import _read, _reading
from edge_ran.host.run_settings import read_settings
from edge_ran.host.scoring import Examples, fit_temperature, scores
from edge_ran.host.train import train
from edge_ran.host.training_loop import Callbacks
from edge_ran.host.training_step import augment
from edge_ran.recipe import RECIPES, Recipe, TrainOptions, preset
from edge_ran.run_output import RunOutput

# One stage, one module with a mask of one pooling: the trainer sees every kind of layer, and traces in a second.
TINY = Architecture("tiny", 16, 3, 3, 8, 1, 2, (Stage(16, 8, 1, 1, 1),), (), 0, 1, 0, mask_pool=2)
QUICK = Recipe("quick", epochs=2, batch_size=8, learning_rate=0.05, schedule="one-cycle", warmup=0.2)


def weights(run: Path) -> list[np.ndarray]:
    return networks.load(run / "model.keras").get_weights()


@pytest.mark.usefixtures("with_page")
def test_a_run_folder_holds_everything(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    report = train(pictures, run, TINY, QUICK, TrainOptions(validation_fraction=0.25))
    card = ModelCard.from_json((run / "card.json").read_text())
    assert card.labels == ("blue", "green", "red")
    assert card.network == "tiny"
    assert card.training.recipe == QUICK
    assert card.options == dataclasses.replace(TINY, classes=3)
    assert card.accuracy.split == "validation"
    assert card.accuracy.top1 == pytest.approx(report.validation_top1, abs=1e-6)
    assert card.accuracy.images == report.validation_images == 6
    with open(run / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert [r["epoch"] for r in rows] == ["1", "2"]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = (run / "report.html").read_text()
    assert "6 validation pictures below" in page
    assert page.count("<svg") == 3  # curves, confusion, confidence
    assert any(p.name.startswith("events") for p in (run / "tensorboard").iterdir())
    assert not list(run.glob(".edge-ran-*"))
    model = networks.load(run / "model.keras")
    assert model.count_params() == report.parameters


def test_the_columns_of_a_manifest_are_kept_for_quantize(pictures: Path, tmp_path: Path) -> None:
    rows = [f"{p.relative_to(pictures)},{p.parent.name},x" for p in sorted(pictures.rglob("*.png"))]
    (pictures / "list.csv").write_text("image,area,label\n" + "\n".join(rows) + "\n")
    reading = Reading(label_column="area", labels=("blue", "red"))
    result = train(pictures / "list.csv", tmp_path / "run", TINY, dataclasses.replace(QUICK, epochs=1), reading=reading)
    assert result.train_images + result.validation_images == 16
    assert read_settings(tmp_path / "run").reading == reading
    assert _reading(tmp_path / "run") == reading
    assert _reading(tmp_path) == Reading()


def test_it_learns(make_pictures, tmp_path: Path) -> None:
    """Three colours are told apart after a few steps; a network that does not learn stays near a third."""
    data = make_pictures(tmp_path / "data", count=40)
    how = Recipe("learn", epochs=6, batch_size=16, learning_rate=0.1, schedule="cosine", warmup=0.1)
    assert train(data, tmp_path / "run", TINY, how, TrainOptions(validation_fraction=0.2)).validation_top1 > 0.9


@pytest.mark.parametrize(
    "changes",
    [{"mixup": 0.2, "label_smoothing": 0.1}, {"brightness": 0.3, "contrast": 0.3, "colour": 0.3, "flip": False}],
)
def test_options_of_the_recipe_change_the_training_and_the_card_has_them(
    pictures: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    how = preset("cosine").changed(epochs=1, batch_size=8, **changes)
    options = TrainOptions(validation_fraction=0.25)
    report = train(pictures, tmp_path / "run", TINY, how, options)
    assert report.validation_top1 in {right / 6 for right in range(7)}
    assert ModelCard.from_json((tmp_path / "run" / "card.json").read_text()).training.recipe == how
    train(pictures, tmp_path / "plain", TINY, preset("cosine").changed(epochs=1, batch_size=8), options)
    assert any((a != b).any() for a, b in zip(weights(tmp_path / "run"), weights(tmp_path / "plain"), strict=True))


def test_augmentation_does_what_its_option_says() -> None:
    pixels = tf.constant(np.random.default_rng(0).uniform(60, 180, (32, 8, 8, 3)), tf.float32)
    still = Recipe("still", 1, 1, 0.1, "constant", flip=False, pad=0.0)

    def augmented(seed: int = 1, **changes: Any) -> NDArray[np.float32]:
        how = dataclasses.replace(still, **changes)
        return np.asarray(augment(pixels, how, tf.constant([0, seed])))

    x = pixels.numpy()
    assert (augmented() == x).all()
    flipped = augmented(flip=True)
    mirrored = [(one == other[:, ::-1]).all() for one, other in zip(flipped, x, strict=True)]
    kept = [(one == other).all() for one, other in zip(flipped, x, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 4 < sum(mirrored) < 28
    gain = augmented(brightness=0.3) / x
    assert np.ptp(gain, axis=(1, 2, 3)).max() < 1e-3
    assert gain.min() >= 0.7 - 1e-3
    assert gain.max() <= 1.3 + 1e-3
    assert np.ptp(gain) > 0.3
    contrast = augmented(contrast=0.3)
    np.testing.assert_allclose(contrast.mean((1, 2)), x.mean((1, 2)), atol=0.01)
    ratio = contrast.std((1, 2, 3)) / x.std((1, 2, 3))
    assert np.ptp(ratio) > 0.3
    coloured = augmented(colour=0.3)
    grey = np.repeat(x[..., :1], 3, 3)  # has no saturation to change: what is left is the gain of each channel
    light = np.asarray(augment(tf.constant(grey), dataclasses.replace(still, colour=0.3), tf.constant([0, 1]))) / grey
    assert np.ptp(light, axis=(1, 2)).max() < 1e-3
    assert light.min() >= 0.9 - 1e-3
    assert light.max() <= 1.1 + 1e-3
    assert np.ptp(light[:, 0, 0], axis=1).max() > 0.05
    spread = (coloured / light).std(3).mean((1, 2)) / x.std(3).mean((1, 2))
    assert np.ptp(spread) > 0.3
    assert spread.min() >= 0.7 - 1e-3
    assert spread.max() <= 1.3 + 1e-3
    shifted = augmented(pad=0.125)
    assert (shifted != x).any()
    assert (shifted == augmented(pad=0.125)).all()
    assert (shifted != augmented(seed=2, pad=0.125)).any()


def test_group_balance_counts_clips_not_frames(tmp_path: Path) -> None:
    """Of a class filmed in a clip of 6 frames and one of 2, each clip weighs the same; pictures alone are one more."""
    names = [f"red/long_{i:03}.png" for i in range(6)] + [f"red/short_{i:03}.png" for i in range(2)]
    names += [f"blue/x_{i:03}.png" for i in range(4)]
    rows = ["image,label,group,split"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.zeros((16, 16, 3), np.uint8))
        label, clip = path.parent.name, path.name.split("_")[0]
        rows.append(f"{name},{label},{'' if label == 'blue' else clip},train")
    rows += [row.replace(",train", ",val") for row in rows[1:]]
    (tmp_path / "data.csv").write_text("\n".join(rows))

    def weights_of(power: float) -> dict[str, list[float]] | None:
        found = training_data.read(tmp_path / "data.csv", InputSpec(16, 16), 0.1, 0, group_balance=power)
        train, known = found.train, found.labels
        if train.weights is None:
            return None
        return {name: [round(float(w), 3) for w in train.weights[train.labels == i]] for i, name in enumerate(known)}

    assert weights_of(0.0) is None
    assert weights_of(1.0) == {"blue": [1.0] * 4, "red": [0.667] * 6 + [2.0] * 2}
    assert weights_of(0.5) == {"blue": [1.0] * 4, "red": [0.845] * 6 + [1.464] * 2}


def test_class_weights_outweigh_a_common_class(make_pictures, tmp_path: Path) -> None:
    """With few pictures of one class beside many of another, --balance changes what is learnt."""
    data = make_pictures(tmp_path / "data", classes=("blue",), count=24)
    make_pictures(data, classes=("red",), count=4)
    how = Recipe("short", 1, 8, 0.05, "constant")
    for balance in (True, False):
        train(data, tmp_path / str(balance), TINY, how, TrainOptions(validation_fraction=0.25, balance=balance))
    assert any((a != b).any() for a, b in zip(weights(tmp_path / "True"), weights(tmp_path / "False"), strict=True))


def test_bfloat16_run_is_saved_as_float32(pictures: Path, tmp_path: Path) -> None:
    report = train(
        pictures, tmp_path / "run", TINY, QUICK, TrainOptions(validation_fraction=0.25, precision="bfloat16")
    )
    assert report.precision == "bfloat16"
    assert {w.dtype for w in weights(tmp_path / "run")} == {np.dtype(np.float32)}
    assert networks.load(tmp_path / "run" / "model.keras").get_layer("stem_conv").compute_dtype == "float32"


RESUMED = Recipe("quick", epochs=3, batch_size=4, learning_rate=0.05, schedule="one-cycle", warmup=0.2, mixup=0.2)


def train_and_tell(heard: Connection, pictures: Path, run: Path, resume: bool) -> None:
    options = TrainOptions(validation_fraction=0.25, checkpoint_s=0.0)
    train(
        pictures, run, TINY, RESUMED, options, resume=resume, callbacks=Callbacks(on_step=lambda p: heard.send(p.step))
    )


def test_killed_run_resumes_to_the_same_bits(pictures: Path, tmp_path: Path) -> None:
    """SIGKILL inside an epoch and at an arbitrary moment (often a checkpoint's write); then the undisturbed result."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    train(pictures, undisturbed, TINY, RESUMED, TrainOptions(validation_fraction=0.25))
    for stop_at in (2, 6):
        process, steps = processes.start(train_and_tell, pictures, killed, stop_at > 2)
        while steps.recv() < stop_at:
            pass
        time.sleep(0.003 * stop_at)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (killed / "card.json").exists()
    process, steps = processes.start(train_and_tell, pictures, killed, True)
    assert processes.said(steps)[-1] == 12
    process.join()
    assert process.exitcode == 0
    for a, b in zip(weights(undisturbed), weights(killed), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list(killed.glob(".edge-ran-*"))


def test_a_resumed_run_must_be_the_same_run(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(pictures, run, TINY, QUICK, TrainOptions(validation_fraction=0.25))
    kept = {name: (run / name).read_bytes() for name in ("settings.json", "calibration.npz")}
    other = TrainOptions(validation_fraction=0.25, seed=1)
    with pytest.raises(InputError, match="other data or settings"):
        train(pictures, run, TINY, QUICK, other, resume=True)
    (run / "checkpoint.npz").rename(tmp_path / "checkpoint.npz")  # as a run of --epochs 0, which has none
    with pytest.raises(InputError, match="other data or settings"):
        train(pictures, run, TINY, QUICK, other, resume=True)
    (tmp_path / "checkpoint.npz").rename(run / "checkpoint.npz")
    assert kept == {name: (run / name).read_bytes() for name in kept}
    with pytest.raises(OutputExists):
        train(pictures, run, TINY, QUICK, TrainOptions(validation_fraction=0.25))
    best = (run / "best.npz").read_bytes()
    (run / "best.npz").unlink()
    with pytest.raises(InputError, match=r"best\.npz, the weights of the best epoch, is gone"):
        train(pictures, run, TINY, QUICK, TrainOptions(validation_fraction=0.25), resume=True)
    (run / "best.npz").write_bytes(best[:1000])
    with pytest.raises(InputError, match=r"best\.npz, the weights of the best epoch, is damaged"):
        train(pictures, run, TINY, QUICK, TrainOptions(validation_fraction=0.25), resume=True)
    (run / "best.npz").write_bytes(best)
    said: list[str] = []
    wanted = TrainOptions(validation_fraction=0.25, precision="bfloat16")
    train(pictures, run, TINY, QUICK, wanted, resume=True, callbacks=Callbacks(on_stage=said.append))
    assert "going on in float32, in which the run was begun" in said
    (run / "checkpoint.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match="damaged"):
        train(pictures, run, TINY, QUICK, TrainOptions(validation_fraction=0.25), resume=True)
    with pytest.raises(InputError, match="not a run"):
        train(pictures, tmp_path / "nothing", TINY, QUICK, resume=True)


def test_copies_in_training_and_validation_are_said(pictures: Path) -> None:
    for path in sorted((pictures / "red").iterdir())[1:]:
        shutil.copy(pictures / "red" / "000.png", path)
    shutil.copy(pictures / "red" / "000.png", pictures / "green" / "a.png")
    data = training_data.read(pictures, InputSpec(16, 16), 0.25, 0)
    first = (pictures / "red" / "000.png").read_bytes()
    held = sum(sample.path.read_bytes() == first for sample in data.judged_samples)
    copies, two = data.warnings[-2:]
    assert copies.startswith(f"{held} picture")
    assert "held out" in copies
    assert "in two classes: keep each in one; the first: " in two


def test_unreadable_pictures_are_left_out_of_all_folders_and_again_by_quantize(
    pictures: Path, make_pictures: Callable[..., Path], tmp_path: Path
) -> None:
    strange = make_pictures(tmp_path / "strange", classes=("any",), count=3) / "any"
    for path in (pictures / "red" / "000.png", strange / "001.png"):
        path.write_bytes(path.read_bytes()[:200])
    spec = InputSpec(16, 16)
    data = training_data.read(pictures, spec, 0.25, 0, skip_bad=True, none=strange)
    assert not any("held out" in warning or "two classes" in warning for warning in data.warnings)
    assert (len(data.none), data.record.none_images, data.record.skipped) == (2, 2, 2)
    assert sum("is truncated" in warning for warning in data.warnings) == 2
    card = ModelCard("tiny", data.labels, spec, training=Training(skipped=1, validation_fraction=0.25))
    assert len(_read(pictures, tmp_path, tmp_path, card, Callbacks()).train) == len(data.train)
    card = dataclasses.replace(card, training=Training(validation_fraction=0.25))
    with pytest.raises(InputError, match="is truncated") as caught:
        _read(pictures, tmp_path, tmp_path, card, Callbacks())
    assert "--skip-bad" not in caught.value.remedy


def test_a_diverging_run_says_so(pictures: Path, tmp_path: Path) -> None:
    wild = Recipe("wild", epochs=40, batch_size=8, learning_rate=100.0, schedule="constant", weight_decay=0.9)
    with pytest.raises(InputError, match="no longer a number") as caught:
        train(pictures, tmp_path / "run", TINY, wild, TrainOptions(validation_fraction=0.25))
    assert "--learning-rate" in caught.value.remedy


def test_bad_folders_are_refused(make_pictures, tmp_path: Path) -> None:
    one = make_pictures(tmp_path / "one", classes=("blue",))
    (tmp_path / "empty").mkdir()
    for source in (one, tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(EdgeRanError) as caught:
            train(source, tmp_path / "run", TINY, QUICK)
        assert caught.value.exit_code == 2
    assert not (tmp_path / "run" / "card.json").exists()


def test_frames_of_a_clip_held_out_one_by_one_are_warned_of(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for shift, name in enumerate(("hall", "stairs")):
        (tmp_path / "walk" / name).mkdir(parents=True)
        for frame in range(30):  # the light changes slowly, as it does from frame to frame
            picture = np.clip(random.normal(40 + 6 * frame, 20 + shift, (24, 24, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "walk" / name / f"{frame:03d}.png"), picture)
    how = Recipe("one", epochs=1, batch_size=16, learning_rate=0.01, schedule="constant")
    assert "group" in train(tmp_path / "walk", tmp_path / "run", TINY, how).warnings[0]


def test_schedules() -> None:
    cycle = Recipe("c", 1, 1, 1.0, "one-cycle", warmup=0.2)
    assert cycle.learning_rate_at(0.1) == pytest.approx(0.5)
    assert cycle.learning_rate_at(0.2) == pytest.approx(1.0)
    assert cycle.learning_rate_at(1.0) == pytest.approx(0.0)
    paper = RECIPES["paper"]
    assert [round(paper.learning_rate_at(p), 6) for p in (0.0, 0.39, 0.41, 0.59, 0.61)] == [0.1, 0.1, 0.01, 0.01, 0.001]
    assert (paper.batch_size, paper.momentum) == (64, 0.9)
    # 1e-4 in the gradient is what the paper says; each step's part of it acts 1 / (1 - momentum) times.
    assert paper.weight_decay == pytest.approx(1e-4 / (1 - paper.momentum))


def test_unknown_recipe_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        preset("one-cylce")
    assert "one-cycle" in caught.value.remedy
    with pytest.raises(UsageError, match="--epochs"):
        preset("cosine").changed(epochs=-1)


def test_temperature_undoes_overconfidence() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 5))
    exact = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([random.choice(5, p=p) for p in exact], np.int32)
    sharp = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)
    assert fit_temperature(sharp.astype(np.float32), labels) == pytest.approx(3.0, rel=0.1)
    assert scores(exact.astype(np.float32), labels)[0] < scores(sharp.astype(np.float32), labels)[0]


def test_few_pictures_that_are_all_right_do_not_make_a_network_certain() -> None:
    right = np.tile(np.array([0.9, 0.1], np.float32), (4, 1))
    assert 0.7 < fit_temperature(right, np.zeros(4, np.int32)) < 1
    random = np.random.default_rng(0)
    logits = random.normal(size=(400, 2)) * 3
    exact = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    labels = (random.random(400) > exact[:, 0]).astype(np.int32)
    lost = []
    for start in range(0, 400, 4):  # fitted on four pictures, judged on all
        part = slice(start, start + 4)
        scaled = exact ** (1 / fit_temperature(exact[part], labels[part]))
        lost.append(scores(scaled / scaled.sum(1, keepdims=True), labels)[0])
    assert np.mean(lost) < scores(exact, labels)[0] + 0.02


def test_command_line(pictures: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edge_ran",
        "train",
        str(pictures),
        "--width",
        "0.125",
        "--no-mask",
        "--epochs",
        "1",
    ]
    command += ["--batch-size", "8", "--validation-fraction", "0.25", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr
    report = valid("train", done.stdout)
    assert report["run"] == "runs/pictures-places38"
    assert "Traceback" not in done.stderr
    assert "oneDNN" not in done.stderr
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 2
    assert "--resume" in again.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """What ends a training at once."""


@pytest.mark.usefixtures("with_page")
def test_force_replaces_a_run_only_when_the_new_one_is_whole(pictures: Path, make_pictures, tmp_path: Path) -> None:
    """A mistyped path, data of one class, a picture that cannot be read, a kill: the old run stays as it was."""
    run, how = tmp_path / "run", dataclasses.replace(QUICK, epochs=1)
    train(pictures, run, TINY, how, TrainOptions(validation_fraction=0.25))
    (run / "ranges.json").write_text("{}")  # as if it were quantised
    (run / "int8.tflite").write_text("old")
    (run / "notes.txt").write_text("mine")
    before = contents(run)
    one_class = tmp_path / "one"
    shutil.copytree(pictures / "red", one_class / "red")
    broken = make_pictures(tmp_path / "broken")
    next((broken / "red").glob("*.png")).write_bytes(b"no picture")
    for source in (tmp_path / "MISTYPED", one_class, broken):
        with pytest.raises(InputError):
            train(source, run, TINY, how, TrainOptions(validation_fraction=0.25), force=True)
        assert contents(run) == before

    def kill(history: list) -> None:
        raise Killed

    how, options = dataclasses.replace(QUICK, epochs=2), TrainOptions(validation_fraction=0.25, seed=7)
    with pytest.raises(Killed):
        train(pictures, run, TINY, how, options, force=True, callbacks=Callbacks(on_epoch=kill))
    assert {name: data for name, data in contents(run).items() if not name.startswith("unfinished/")} == before
    with pytest.raises(OutputExists):
        train(pictures, run, TINY, how, options)
    train(pictures, run, TINY, how, options, resume=True)
    assert "<title>run" in (run / "report.html").read_text()
    assert ModelCard.from_json((run / "card.json").read_text()).training.seed == 7
    assert (run / "model.keras").read_bytes() != before["model.keras"]
    kept = {name.partition("/")[0] for name in before} - {"ranges.json", "int8.tflite"}
    assert {path.name for path in run.iterdir()} == kept


def test_two_trainings_do_not_write_to_one_run(
    pictures: Path, tmp_path: Path, printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    run = tmp_path / "run"
    run.mkdir()
    handle = os.open(run, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # as the other training holds it
    with pytest.raises(OutputExists, match="another command is writing to"):
        train(pictures, run, TINY, QUICK)
    monkeypatch.setitem(sys.modules, "edge_ran.host.train", None)  # the verb says it before the pictures are read
    printed("train", pictures, "-o", run, code=2)
    printed("quantize", "edge50", pictures, "-o", run, code=2)
    os.close(handle)
    assert contents(run) == {}

    def other(stage: str) -> None:
        if stage.startswith("reading"):  # it began later and was done sooner
            run.mkdir(exist_ok=True)
            for name in ("settings.json", "card.json"):
                (run / name).write_text("other")

    for force in (False, True):
        with pytest.raises(OutputExists):
            train(pictures, run, TINY, QUICK, force=force, callbacks=Callbacks(on_stage=other))
        assert contents(run) == {"settings.json": b"other", "card.json": b"other"}
        shutil.rmtree(run)


def test_a_run_that_was_cut_short_while_it_moved_up_is_whole_with_the_next_command(tmp_path: Path) -> None:
    run, inner = tmp_path / "run", tmp_path / "run" / "unfinished"
    inner.mkdir(parents=True)
    for name in ("settings.json", "model.keras"):  # moved already; the old card is gone
        (run / name).write_text("new")
    for name in ("metrics.csv", "card.json"):
        (inner / name).write_text("new")
    with pytest.raises(OutputExists):
        RunOutput(run, resume=False, force=False)
    assert set(contents(run)) == {"settings.json", "model.keras", "metrics.csv", "card.json"}


def test_force_removes_the_cached_pixels_of_other_pictures(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "CACHE_ABOVE_BYTES", 0)
    run, inner = tmp_path / "run", tmp_path / "run" / "unfinished"
    run.mkdir()
    data = training_data.read(pictures, InputSpec(16, 16), 0.25, 0, cache=run)
    own = {path.name for path in run.iterdir()}
    assert set(data.cached) == own
    assert len(own) == 2  # to train and to validate
    for name in ("settings.json", "card.json", "pixels-of-others.npy"):
        (run / name).write_text("old")
    output = RunOutput(run, resume=False, force=True)
    inner.mkdir()
    (inner / "card.json").write_text("new")
    output.finish(data.cached)
    assert set(contents(run)) == own | {"card.json"}


def test_a_folder_that_a_killed_run_left_while_it_read_its_pictures_is_taken(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "pixels-0123.npy").write_bytes(b"half")
    (run / ".edge-ran-abc.npy").write_bytes(b"half")
    assert RunOutput(run, resume=False, force=False).folder == run
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(OutputExists, match="not a run folder"):
        RunOutput(tmp_path / "mine", resume=False, force=True)


def test_a_run_keeps_training_pictures_and_convert_calibrates_on_them(pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(pictures, run, TINY, dataclasses.replace(QUICK, epochs=1), TrainOptions(validation_fraction=0.25))
    spec = ModelCard.from_json((run / "card.json").read_text()).input
    kept = calibration.kept(run, spec)
    assert kept.shape == (18, 16, 16, 3)
    assert {int(p.mean((0, 1)).argmax()) for p in kept} == {0, 1, 2}  # pictures of red, green and blue
    made = convert(run, catalogue.converter("int8"), run / "int8.tflite")
    assert made.calibration == Calibration("pictures", 18, "training")
    assert read_card(made.path).calibration == made.calibration  # type: ignore[union-attr]
    assert "18 pictures of pictures (training pictures of the run)" in converted(made)
    (run / "calibration.npz").unlink()  # as in a run of an older version
    shipped = convert(run, catalogue.converter("int8"), run / "int8.tflite", force=True)
    assert shipped.calibration == Calibration("calibration_data", 120, "shipped")


@pytest.mark.parametrize("shape", [(201, 16, 16, 3), (5, 8, 16, 3), (0, 16, 16, 3), (5, 16, 16)])
def test_calibration_pictures_that_are_not_a_runs_are_one_line(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "calibration.npz", pixels=np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match="not pictures of this network") as caught:
        calibration.kept(tmp_path, InputSpec(16, 16))
    assert "--calibration-data" in caught.value.remedy


def test_damaged_calibration_pictures_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "calibration.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(InputError, match=r"calibration\.npz"):
        calibration.kept(tmp_path, InputSpec(16, 16))
    np.savez(tmp_path / "calibration.npz", pixels=np.zeros((2, 16, 16, 3), np.float32))
    with pytest.raises(InputError, match="float32"):
        calibration.kept(tmp_path, InputSpec(16, 16))


def test_a_long_data_set_is_sampled_over_its_whole_length(tmp_path: Path) -> None:
    pixels = np.repeat(np.arange(250, dtype=np.uint8), 4)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    calibration.keep(tmp_path, Examples(pixels, np.zeros(1000, np.int32)))
    kept = calibration.kept(tmp_path, InputSpec(4, 4))
    assert (len(kept), int(kept.min()), int(kept.max())) == (200, 0, 249)
