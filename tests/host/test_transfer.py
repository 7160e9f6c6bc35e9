"""Training from another network's weights and with a teacher: what is taken over, what is refused, and resuming."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

from edge_ran import catalogue, start
from edge_ran.architecture import Architecture, Stage
from edge_ran.card import Accuracy, Imported, InputSpec, ModelCard, Training
from edge_ran.cli.render.train import quantised
from edge_ran.dataset.sketch import overlap, picture_hash
from edge_ran.errors import InputError, UsageError
from edge_ran.files import sha256
from edge_ran.graph import read_card
from edge_ran.host import distillation, networks, training_data, transfer
from edge_ran.host.checkpoint import State
from edge_ran.host.convert import convert
from edge_ran.host.quantize import quantize
from edge_ran.host.run_settings import read_settings
from edge_ran.host.scoring import Examples, balanced_accuracy, predict, standard_error
from edge_ran.host.train import BEFORE_ALL, train
from edge_ran.host.training_loop import Callbacks, Progress
from edge_ran.recipe import QUANTIZE, Recipe, TrainOptions

TINY = Architecture("tiny", 16, 3, 3, 8, 1, 2, (Stage(16, 8, 1, 1, 1),), (), 0, 1, 0, mask_pool=2)
LONG = Recipe("long", epochs=12, batch_size=6, learning_rate=0.05, schedule="one-cycle", warmup=0.2)
QUICK = Recipe("quick", 3, 6, 0.02, "cosine", body_rate=0.2, average=0.9, keep_statistics=True)
OPTIONS = TrainOptions(validation_fraction=0.25)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures, eight of each of three colours."""
    import cv2

    folder = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for label, colour in (("blue", (200, 40, 30)), ("green", (30, 190, 50)), ("red", (40, 30, 200))):
        (folder / label).mkdir()
        for index in range(8):
            frame = np.clip(np.array(colour) + random.normal(0, 40, (20, 20, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / label / f"{index}.png"), frame)
    return folder


@pytest.fixture(scope="module")
def run(colours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "first"
    train(colours, folder, TINY, LONG, OPTIONS)
    return folder


def weights(folder: Path) -> list[np.ndarray]:
    return networks.load(folder / "model.keras").get_weights()


def test_all_but_the_last_layer_is_taken_over_and_that_is_fitted(run: Path) -> None:
    larger = dataclasses.replace(TINY, input_size=32, classes=2)
    found = start.find(str(run), larger)
    assert found is not None
    model = networks.build(larger)
    pixels = np.zeros((20, 32, 32, 3), np.uint8)
    pixels[:10, ..., 0], pixels[10:, ..., 2] = 200, 200
    labels = np.repeat([0, 1], 10).astype(np.int32)
    spec = InputSpec(32, 32)
    fitted: list[tuple[int, int]] = []
    told = Callbacks(on_fit=lambda done, total: fitted.append((done, total)))
    transfer.take_over(model, found, Examples(pixels, labels), spec, None, QUICK, callbacks=told)
    assert [done for done, _ in fitted] == list(range(1, len(fitted) + 1))
    assert {total for _, total in fitted} == {len(fitted)}
    source = {layer.name: layer for layer in networks.load(run / "model.keras").layers}
    for layer in model.layers:
        if layer.name != "logits":
            for ours, theirs in zip(layer.get_weights(), source[layer.name].get_weights(), strict=True):
                assert np.array_equal(ours, theirs)
    said = model((pixels.astype(np.float32) - 128) / 128).numpy()
    assert (said.argmax(1) == labels).all()


def test_a_killed_run_from_other_weights_resumes_to_the_same_bits(colours: Path, run: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, start=str(run), checkpoint_s=0.0)
    train(colours, tmp_path / "whole", TINY, QUICK, options)

    def stop(progress: Progress) -> None:
        if progress.step == 5:  # in the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(colours, tmp_path / "killed", TINY, QUICK, options, callbacks=Callbacks(on_step=stop))
    result = train(colours, tmp_path / "killed", TINY, QUICK, options, resume=True)
    assert result.start == str(run)
    for one, other in zip(weights(tmp_path / "whole"), weights(tmp_path / "killed"), strict=True):
        assert np.array_equal(one, other)


def test_the_last_layer_fitted_alone_is_a_candidate(colours: Path, run: Path, tmp_path: Path) -> None:
    """What makes every epoch worse, nearly even targets, leaves the first weights; also after a kill and a resume.

    Their last layer is fitted to the validation pictures, too.
    """
    worse = dataclasses.replace(QUICK, label_smoothing=0.9, average=0.0)
    options = dataclasses.replace(OPTIONS, start=str(run), checkpoint_s=0.0)
    train(colours, tmp_path / "still", TINY, dataclasses.replace(QUICK, epochs=0), options)
    result = train(colours, tmp_path / "r", TINY, worse, options)
    assert result.best_epoch == 0
    assert ModelCard.from_json((tmp_path / "r" / "card.json").read_text()).training.best_epoch == 0
    for one, other in zip(weights(tmp_path / "still"), weights(tmp_path / "r"), strict=True):
        assert np.array_equal(one, other)

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(colours, tmp_path / "k", TINY, worse, options, callbacks=Callbacks(on_step=stop))
    assert train(colours, tmp_path / "k", TINY, worse, options, resume=True).best_epoch == 0
    for one, other in zip(weights(tmp_path / "k"), weights(tmp_path / "r"), strict=True):
        assert np.array_equal(one, other)


def test_an_epoch_must_be_clearly_better_than_the_last_layer_alone() -> None:
    state = State(best_epoch=0, best_top1=0.8, best_loss=0.5, margin=0.05)
    assert not state.is_better(0.84, 0.1)
    assert state.is_better(0.86, 0.9)
    assert State(best_epoch=3, best_top1=0.8, best_loss=0.5, margin=0.05).is_better(0.8, 0.4)
    probabilities, labels = np.eye(2, dtype=np.float32)[[0] * 90 + [1] * 10], np.zeros(100, np.int32)
    rate = 91 / 102
    assert standard_error(probabilities, labels, balanced=False) == pytest.approx((rate * (1 - rate) / 100) ** 0.5)
    assert standard_error(probabilities[:4], labels[:4], balanced=False) > 0.1  # four that are all right
    labels[95:] = 1  # 5 of 5, and 90 of 95
    first, second = 91 / 97, 6 / 7
    expected = (first * (1 - first) / 95 + second * (1 - second) / 5) ** 0.5 / 2
    assert standard_error(probabilities, labels, balanced=True) == pytest.approx(expected)


@pytest.mark.usefixtures("with_page")
def test_no_epochs_fit_the_last_layer_alone(colours: Path, run: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, start=str(run))
    result = train(colours, tmp_path / "r", TINY, dataclasses.replace(QUICK, epochs=0), options)
    assert (result.epochs, result.best_epoch) == (0, 0)
    assert result.validation_top1 > 0.9
    card = ModelCard.from_json((tmp_path / "r" / "card.json").read_text())
    assert (card.training.best_epoch, card.training.recipe.epochs) == (0, 0)
    assert card.accuracy.of == BEFORE_ALL
    assert BEFORE_ALL in (tmp_path / "r" / "report.html").read_text()
    made = convert(tmp_path / "r", catalogue.converter("fp32"), tmp_path / "fp32.tflite")
    assert read_card(made.path).accuracy == card.accuracy
    for one, other in zip(weights(tmp_path / "r")[:-2], weights(run)[:-2], strict=True):
        assert np.array_equal(one, other)
    kernel = weights(tmp_path / "r")[-2]
    model = networks.load(tmp_path / "r" / "model.keras")
    data = training_data.read(colours, InputSpec(16, 16), 0.25, OPTIONS.seed)
    assert data.validation is not None
    transfer.fit_last(model, [data.train], InputSpec(16, 16), None, QUICK, OPTIONS.seed)
    assert not np.array_equal(model.get_weights()[-2], kernel)  # what judged it
    pixels = np.concatenate([data.train.pixels, data.validation.pixels])
    transfer.fit_last(model, [data.train, data.validation], InputSpec(16, 16), None, QUICK, OPTIONS.seed)
    np.testing.assert_allclose(model.get_weights()[-2], kernel, atol=1e-5)
    found = overlap(card.training.pictures, map(picture_hash, pixels))
    assert found.known == len(pixels) == 24  # `evaluate` says that it has seen them
    taught = dataclasses.replace(options, teacher=str(run))
    with pytest.raises(UsageError, match="not from a --teacher"):
        train(colours, tmp_path / "n", TINY, dataclasses.replace(QUICK, epochs=0), taught)
    with pytest.raises(UsageError, match="would not fine-tune anything"):
        quantize(run, tmp_path / "n", how=dataclasses.replace(QUANTIZE, epochs=0))
    with pytest.raises(UsageError, match="--epochs 0 fits the last layer alone"):
        train(colours, tmp_path / "n", TINY, dataclasses.replace(QUICK, epochs=0), OPTIONS)
    assert not (tmp_path / "n").exists()


def test_pictures_of_none_of_the_classes_get_unsure_answers(colours: Path, run: Path, tmp_path: Path) -> None:
    import cv2

    none = tmp_path / "none" / "any"
    none.mkdir(parents=True)
    random = np.random.default_rng(1)
    for index in range(12):
        frame = np.clip(np.array((40, 200, 210)) + random.normal(0, 40, (20, 20, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(none / f"{index}.png"), frame)
    strange = np.stack([cv2.resize(cv2.imread(str(p))[..., ::-1], (16, 16)) for p in sorted(none.iterdir())])
    how = dataclasses.replace(QUICK, epochs=10, learning_rate=0.05)
    sure = {}
    for folder in ("", str(none.parent)):
        result = train(colours, tmp_path / f"r{bool(folder)}", TINY, how, dataclasses.replace(OPTIONS, none=folder))
        model = networks.load(Path(result.run) / "model.keras")
        sure[bool(folder)] = float(predict(model, strange, InputSpec(16, 16)).max(1).mean())
    assert sure[True] < sure[False] - 0.1
    card = ModelCard.from_json((tmp_path / "rTrue" / "card.json").read_text())
    assert card.training.none_images == 12
    options = dataclasses.replace(OPTIONS, start=str(run), none=str(none.parent), checkpoint_s=0.0)
    assert train(colours, tmp_path / "started", TINY, how, options).epochs == 10
    with pytest.raises(InputError, match="no such folder"):
        train(colours, tmp_path / "absent", TINY, how, dataclasses.replace(OPTIONS, none=str(tmp_path / "nowhere")))
    assert not (tmp_path / "absent").exists()


def test_it_stops_when_nothing_gets_better(colours: Path, run: Path, tmp_path: Path) -> None:
    patient = dataclasses.replace(QUICK, epochs=30, learning_rate=0.0, patience=2, keep_statistics=False)
    result = train(colours, tmp_path / "r", TINY, patient, dataclasses.replace(OPTIONS, start=str(run)))
    assert result.epochs < 30


def test_uneven_classes_are_weighed_and_judged_by_their_mean_recall(colours: Path, run: Path, tmp_path: Path) -> None:
    uneven = shutil.copytree(colours, tmp_path / "uneven")
    for index in range(4):
        (uneven / "red" / f"{index}.png").unlink()
    seen = []
    options = dataclasses.replace(OPTIONS, start=str(run), balance=None)
    train(uneven, tmp_path / "r", TINY, QUICK, options, callbacks=Callbacks(on_epoch=lambda h: seen.append(h[-1])))
    assert all(record.validation_balanced is not None for record in seen)
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], np.float32)
    assert balanced_accuracy(probabilities, np.array([0, 0, 0, 1], np.int32)) == 0.5


@pytest.mark.parametrize("kind", ["run", "tflite"])
def test_a_teacher_is_learnt_from(kind: str, colours: Path, run: Path, tmp_path: Path) -> None:
    teacher = run
    if kind == "tflite":
        teacher = tmp_path / "teacher.tflite"
        convert(run, catalogue.converter("fp32"), teacher)
    small = dataclasses.replace(TINY, input_size=8)
    result = train(colours, tmp_path / "r", small, QUICK, dataclasses.replace(OPTIONS, teacher=str(teacher)))
    assert result.epochs == 3


def test_a_teacher_sees_the_whole_pictures_and_a_file_answers_as_its_run(
    colours: Path, run: Path, tmp_path: Path
) -> None:
    softer = Path(shutil.copytree(run, tmp_path / "softer"))
    card = ModelCard.from_json((run / "card.json").read_text())
    (softer / "card.json").write_text(dataclasses.replace(card, temperature=3.0).to_json())
    convert(softer, catalogue.converter("fp32"), tmp_path / "teacher.tflite")
    at_own = training_data.read(colours, card.input, 0.25, OPTIONS.seed)
    expected = predict(networks.load(run / "model.keras"), at_own.train.pixels, card.input)
    for spec in (InputSpec(8, 8), InputSpec(16, 16, fit="crop", color="bgr"), InputSpec(16, 16, color="bgr")):
        data = training_data.read(colours, spec, 0.25, OPTIONS.seed)
        for teacher in (run, softer, tmp_path / "teacher.tflite"):
            opened = distillation.open_teacher(str(teacher), data.labels)
            np.testing.assert_allclose(opened.answers(data, spec, lambda text: None), expected, atol=1e-4)


def test_quantize_learns_from_a_teacher_too(colours: Path, run: Path, tmp_path: Path) -> None:
    how = dataclasses.replace(QUANTIZE, epochs=1, batch_size=6)
    result = quantize(run, tmp_path / "q", colours, how, teacher=str(run))
    assert result.int8_tensors
    assert read_settings(tmp_path / "q").teacher == sha256(run / "model.keras")
    assert not result.has_seen
    assert "has learnt from these" not in quantised(result)


def test_quantize_claims_no_accuracy_on_pictures_that_the_last_layer_was_fitted_to(
    colours: Path, run: Path, tmp_path: Path
) -> None:
    last = dataclasses.replace(QUICK, epochs=0)
    train(colours, tmp_path / "r", TINY, last, dataclasses.replace(OPTIONS, start=str(run)))
    result = quantize(tmp_path / "r", tmp_path / "q", how=dataclasses.replace(QUANTIZE, epochs=1, batch_size=6))
    assert result.has_seen
    assert "has learnt from these pictures" in quantised(result)
    before, after = (ModelCard.from_json((tmp_path / name / "card.json").read_text()) for name in "rq")
    assert after.accuracy == before.accuracy
    assert after.temperature == before.temperature


def test_quantize_of_an_imported_network_claims_what_was_held_out_and_remembers_the_pictures(
    colours: Path, run: Path, tmp_path: Path
) -> None:
    foreign = Path(shutil.copytree(run, tmp_path / "r"))
    card = ModelCard.from_json((run / "card.json").read_text())
    imported = dataclasses.replace(card, training=Training(imported=Imported("net.h5")), accuracy=Accuracy())
    (foreign / "card.json").write_text(imported.to_json())
    how = dataclasses.replace(QUANTIZE, epochs=1, batch_size=6)
    said: list[str] = []
    result = quantize(foreign, tmp_path / "q", colours, how, callbacks=Callbacks(on_stage=said.append))
    after = ModelCard.from_json((tmp_path / "q" / "card.json").read_text())
    assert result.has_seen
    assert any("may have learnt from the validation pictures" in one for one in said)
    assert (after.accuracy, after.temperature) == (Accuracy(), card.temperature)
    data = training_data.read(colours, card.input, 0.1, 0)
    assert after.training.imported == Imported("net.h5")
    assert (after.training.dataset, after.training.train_images) == (data.record.dataset, len(data.train))
    assert after.training.pictures == data.record.pictures

    held_out = tmp_path / "held_out"
    shutil.copytree(colours, held_out / "train")
    shutil.copytree(colours, held_out / "val")
    result = quantize(foreign, tmp_path / "q2", held_out, how)
    after = ModelCard.from_json((tmp_path / "q2" / "card.json").read_text())
    assert not result.has_seen
    assert after.accuracy.top1 is not None


class TestBadInput:
    def test_another_architecture(self, run: Path) -> None:
        with pytest.raises(InputError, match="its network is tiny, not other"):
            start.find(str(run), dataclasses.replace(TINY, name="other"))
        with pytest.raises(InputError, match="its attention is another"):
            start.find(str(run), dataclasses.replace(TINY, attention="channel"))

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="there is no run folder"):
            start.find(str(tmp_path / "absent"), TINY)

    def test_a_quantised_network(self) -> None:
        from edge_ran.architecture import named

        with pytest.raises(InputError, match="whose layers are merged"):
            start.find("edge50", named("edge50"))
        assert start.first_weights("auto", named("edge50")) == "none"

    @pytest.mark.parametrize("option", ["start", "teacher", "none"])
    def test_what_is_not_there_is_told_before_the_pictures_are_read(self, option: str, tmp_path: Path) -> None:
        options = dataclasses.replace(OPTIONS, **{option: str(tmp_path / "absent")})
        with pytest.raises(InputError, match=r"no run folder .*absent|no such folder: .*absent"):
            train(tmp_path / "no-pictures", tmp_path / "r", TINY, QUICK, options)
        assert not (tmp_path / "r").exists()

    def test_a_teacher_with_other_classes(self, colours: Path, run: Path, tmp_path: Path) -> None:
        other = shutil.copytree(colours, tmp_path / "other")
        (other / "red").rename(other / "pink")
        with pytest.raises(InputError, match="has other classes: pink, red"):
            train(other, tmp_path / "r", TINY, QUICK, dataclasses.replace(OPTIONS, teacher=str(run)))
        assert not (tmp_path / "r").exists()
