from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edge_ran import dataset
from edge_ran.card import InputSpec, ModelCard, Overrides, Training
from edge_ran.classifier import Classifier
from edge_ran.cli import app
from edge_ran.dataset.sketch import sketch
from edge_ran.errors import EdgeRanError, GateError, InputError, UsageError
from edge_ran.evaluate import check_drop, evaluate, write_predictions
from edge_ran.evaluation_page import Answers
from edge_ran.graph import attach_card, read_card
from edge_ran.intervals import of_drop, wilson
from edge_ran.picture import read_picture
from edge_ran.preprocess import fit_pixels


@pytest.fixture
def mixed(pictures) -> Path:
    """24 pictures, three of which lie in a wrong class's folder: two blue ones in red, one green one in blue."""
    for source, target in (("blue/000", "red/a"), ("blue/001", "red/b"), ("green/000", "blue/c")):
        (pictures / f"{source}.png").rename(pictures / f"{target}.png")
    return pictures


def command(*arguments: object):
    """Run the command line in this process; its errors are raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, EdgeRanError):
        raise result.exception
    return result


def test_counts(labelled_model, mixed):
    report = evaluate(labelled_model("int8"), dataset.load(mixed))
    assert report.labels == ("red", "green", "blue")
    assert report.confusion == ((8, 0, 2), (0, 7, 0), (0, 1, 6))
    assert report.images == 24
    assert report.top1 == pytest.approx(21 / 24)
    assert report.top1_interval == wilson(21, 24)
    assert report.balanced == pytest.approx((8 / 10 + 1 + 6 / 7) / 3)
    assert report.per_class["red"].recall == 0.8
    assert report.per_class["red"].precision == 1
    assert report.per_class["blue"].precision == pytest.approx(6 / 8)
    assert report.top5 is None
    assert report.split == "all"
    assert report.accelerator.actual == "cpu"
    assert report.ms_per_image == pytest.approx(sum(report.stages_ms.values()))
    assert set(report.stages_ms) == {"preprocess", "inference", "postprocess"}


def test_is_what_the_classifier_says(labelled_model, mixed):
    model, data = labelled_model("float32"), dataset.load(mixed)
    report = evaluate(model, data)
    with Classifier(model) as classifier:
        said = [classifier.classify(read_picture(s.path))[0].label for s in data.samples]
    assert report.top1 == np.mean([label == s.label for label, s in zip(said, data.samples, strict=True)])
    confidence = report.scores.max(1)
    one_bin = abs(confidence.mean() - report.top1)
    assert one_bin - 1e-6 <= report.calibration_error <= 1
    assert report.temperature == read_card(model).temperature


def test_classes_that_the_model_does_not_know(labelled_model, pictures, test_models):
    (pictures / "red").rename(pictures / "violet")
    with pytest.raises(InputError, match="unknown to the model: violet") as caught:
        evaluate(labelled_model(), dataset.load(pictures))
    assert "red, green, blue; without them: --classes blue,green" in caught.value.remedy
    with pytest.raises(
        InputError, match="3 of the data's classes are unknown to the model: blue, green, violet"
    ) as caught:
        evaluate(test_models / "int8.tflite", dataset.load(pictures))
    assert caught.value.remedy.endswith(
        "the file names no classes: --labels FILE, one a line in the order of its outputs"
    )
    report = evaluate(
        test_models / "int8.tflite", dataset.load(pictures), overrides=Overrides(labels=("violet", "green", "blue"))
    )
    assert report.top1 == 1


def test_classes_of_the_same_letters_are_taken_aloud(labelled_model, pictures, tmp_path):
    plain = evaluate(labelled_model(), dataset.load(pictures))
    (pictures / "red").rename(pictures / "RED_ ")
    found = evaluate(labelled_model(), dataset.load(pictures))
    assert found.top1 == plain.top1
    assert any("'RED_' as the model's 'red'" in warning for warning in found.warnings)
    assert not any("no image shows" in warning for warning in found.warnings)
    write_predictions(found, tmp_path / "p.csv")
    assert {row["right"] for row in csv.DictReader((tmp_path / "p.csv").read_text().splitlines())} == {"1"}


def test_which_classes_are_of_the_same_letters():
    known = ("Golden Retriever", "cat", "Cat", "dog", "+", "x1")
    assert dataset.renamed(["golden_retriever", "CAT", "DOG", "-", "x-1"], known) == {
        "golden_retriever": "Golden Retriever", "DOG": "dog", "x-1": "x1",
    }  # fmt: skip
    assert dataset.renamed(["dog", "DOG"], known) == {}  # two classes are not one
    assert dataset.renamed(["DOG", "Dog"], known) == {}


def test_labels_beside_the_model_are_named_where_classes_are_unknown(test_models, pictures, tmp_path):
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "m.tflite"
    path.write_bytes((test_models / "int8.tflite").read_bytes())
    (tmp_path / "m" / "labels.txt").write_text("red\ngreen\nblue\n")
    with pytest.raises(InputError, match="unknown to the model") as caught:
        evaluate(path, dataset.load(pictures))
    assert caught.value.remedy.endswith(f"--labels {tmp_path}/m/labels.txt")


def test_some_classes_only(labelled_model, pictures):
    report = evaluate(labelled_model(), dataset.load(pictures, labels=("red", "blue")))
    assert report.per_class["green"].images == 0
    assert report.per_class["green"].recall is None
    assert report.balanced == 1
    assert "no image shows green" in report.warnings[0]


def test_absent_classes_are_those_of_the_judged_images_in_the_words_of_the_model(
    labelled_model, test_models, pictures, make_pictures, tmp_path
):
    codes = {"red": "n00000001", "green": "n00000002", "blue": "n00000003"}
    for name, code in codes.items():
        (pictures / name).rename(pictures / code)
    (pictures / "words.txt").write_text("".join(f"{code}\t{name}\n" for name, code in codes.items()))
    by_code = Overrides(labels=tuple(codes.values()))
    report = evaluate(test_models / "int8.tflite", dataset.load(pictures), overrides=by_code)
    assert report.top1 == 1
    assert not any("no image shows" in warning for warning in report.warnings)
    make_pictures(tmp_path / "d" / "train", count=2)
    make_pictures(tmp_path / "d" / "test", classes=("red", "blue"), count=2)
    assert "no image shows green" in evaluate(labelled_model(), dataset.load(tmp_path / "d")).warnings[0]


def test_split_choice(labelled_model, tmp_path, make_pictures):
    for name, count in (("train", 3), ("val", 2), ("test", 1)):
        make_pictures(tmp_path / name, count=count)
    data, model = dataset.load(tmp_path), labelled_model()
    assert [evaluate(model, data, split=s).images for s in ("auto", "test", "validation", "all")] == [3, 3, 6, 18]
    assert "accuracy on others is lower" in evaluate(model, data, split="train").warnings[0]
    with pytest.raises(InputError, match="no split 'exam'"):
        evaluate(model, data, split="exam")


def test_reference_and_gate(labelled_model, mixed):
    report = evaluate(labelled_model("int8"), dataset.load(mixed), reference=labelled_model("float32"), max_drop=1)
    assert report.agreement == 1
    assert report.reference_top1 == report.top1
    assert report.drop_points == 0
    assert report.drop_interval == of_drop(*np.ones((2, 24), bool), [""] * 24)[1]
    assert report.drop_interval[0] < 0 < report.drop_interval[1]
    check_drop(report, 0)


def test_gate_against_the_card(labelled_model, mixed):
    data = dataset.load(mixed)
    report = evaluate(labelled_model(top1=0.9, images=9, dataset="d", split="test"), data, max_drop=1)
    assert report.drop_points == pytest.approx(2.5)
    assert "same images only" in report.warnings[0]
    check_drop(report, 2.5)
    with pytest.raises(GateError, match=r"2\.50 points below its card, 1 are allowed"):
        check_drop(report, 1)
    with pytest.raises(UsageError, match="has no accuracy"):
        evaluate(labelled_model(), data, max_drop=1)


def test_the_same_file_passes_the_gate_on_the_same_images(labelled_model, mixed):
    """Six of nine are right: 66.6667 % stand in the card."""
    data = dataset.load(mixed)
    wrong = [s for s in data.samples if s.path.stem in "abc"]
    right = [s for s in data.samples if s.label == "green"][:6]
    data = replace(data, samples=(*right, *wrong))
    report = evaluate(labelled_model(top1=round(6 / 9, 6)), data, max_drop=0)
    assert report.drop_points > 0
    check_drop(report, 0)
    with pytest.raises(GateError):
        check_drop(evaluate(labelled_model(top1=6 / 9 + 2e-6), data), 0)


def test_unreadable_pictures(labelled_model, pictures, make_pictures, tmp_path):
    (pictures / "red" / "000.png").write_bytes((pictures / "red" / "000.png").read_bytes()[:200])
    (pictures / "red" / "001.png").write_bytes(b"")
    data = dataset.load(pictures)
    with pytest.raises(InputError, match=r"red/000\.png is truncated"):
        evaluate(labelled_model(), data)
    report = evaluate(labelled_model(), data, skip_bad=True)
    assert report.images == 22
    assert len(report.skipped) == 2
    strange = make_pictures(tmp_path / "strange", classes=("any",), count=3) / "any" / "001.png"
    strange.write_bytes(strange.read_bytes()[:200])
    with pytest.raises(InputError, match=r"any/001\.png is truncated"):
        evaluate(labelled_model(), dataset.load(pictures, labels=("green",)), unknown=strange.parent)
    report = evaluate(labelled_model(), data, skip_bad=True, unknown=strange.parent)
    assert report.unknown.images == 2
    assert len(report.skipped) == 3
    (strange.parent / "000.png").unlink()
    (strange.parent / "002.png").unlink()
    with pytest.raises(InputError, match=r"nothing in .* can be read"):
        evaluate(labelled_model(), data, skip_bad=True, unknown=strange.parent)


def test_top5_counts_the_five_best(labelled_model, monkeypatch, tmp_path):
    """A classifier double with seven classes whose order is known."""

    class Seven:
        labels, card, notes, stages_ms = tuple("abcdefg"), None, (), {"inference": 2.0}
        runtime = type("R", (), {"name": "double", "version": "0"})()

        def __init__(self, *_, **__):
            from edge_ran.runtime import Accelerator

            self.runtime.accelerator = Accelerator("cpu", "cpu")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def scores(self, frame):
            return np.array([7, 6, 5, 4, 3, 2, 1], np.float32) / 28

    monkeypatch.setattr("edge_ran.evaluate.Classifier", Seven)
    x = np.zeros((7, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=np.array(list("abcdefg")))
    report = evaluate(Path("m"), dataset.load(tmp_path / "d.npz"))
    assert report.top1 == pytest.approx(1 / 7)
    assert report.top5 == pytest.approx(5 / 7)
    assert report.ms_per_image == pytest.approx(2)


def test_predictions_file(labelled_model, mixed, tmp_path):
    report = evaluate(labelled_model(), dataset.load(mixed))
    write_predictions(report, tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert sum(row["right"] == "0" for row in rows) == 3
    assert {row["predicted"] for row in rows if row["label"] == "red"} == {"red", "blue"}


def test_command(labelled_model, mixed, tmp_path):
    model = labelled_model("int8")
    plot = tmp_path / "confusion.png"
    result = command("evaluate", model, mixed, "--json", "--reference", labelled_model("float32"), "--plot", plot)
    record = json.loads(result.stdout)
    assert record["top1"] == pytest.approx(21 / 24)
    assert {"images", "top5", "per_class", "confusion", "agreement", "drop_points", "accelerator"} <= record.keys()
    assert plot.stat().st_size > 5000
    text = command("evaluate", model, mixed).stdout
    assert "top-1  87.50%" in text
    assert "24 images (all)" in text
    with pytest.raises(EdgeRanError, match="exists"):
        command("evaluate", model, mixed, "--plot", plot)


def test_command_gate_prints_and_fails(labelled_model, mixed):
    model = labelled_model(top1=0.99)
    result = CliRunner().invoke(app, ["evaluate", str(model), str(mixed), "--json", "--max-drop", "0.5"])
    assert json.loads(result.stdout)["drop_points"] == pytest.approx(11.5)
    assert isinstance(result.exception, GateError)
    assert result.exception.exit_code == 1


def test_training_pictures_are_counted_aloud(test_models, pictures, make_pictures, tmp_path):
    """By content: under another name, in another folder, as another format."""
    spec = InputSpec(16, 16)
    data = dataset.load(pictures)
    trained_on = [s.path for s in data.samples[::2]]
    known = sketch([fit_pixels(read_picture(path), spec) for path in trained_on])
    card = ModelCard("colours", ("red", "green", "blue"), spec, training=Training(pictures=known))
    model = tmp_path / "m.tflite"
    model.write_bytes(attach_card((test_models / "int8.tflite").read_bytes(), card))
    (said,) = (w for w in evaluate(model, data).warnings if "training images" in w)
    assert said == "12 of the 24 images are training images, by their content: the accuracy on others is lower"
    moved = tmp_path / "moved" / "red"
    moved.mkdir(parents=True)
    cv2.imwrite(str(moved / "x.bmp"), read_picture(trained_on[-1]))
    assert "1 of the 1 image" in evaluate(model, dataset.load(moved.parent)).warnings[-1]
    fresh = make_pictures(tmp_path / "fresh")
    assert not [w for w in evaluate(model, dataset.load(fresh)).warnings if "training" in w]


def test_two_outputs_of_one_name_are_one_class(test_models, pictures):
    for path in (pictures / "green").iterdir():
        path.rename(pictures / "blue" / f"green{path.name}")
    (pictures / "green").rmdir()
    names = Overrides(labels=("red", "blue", "blue"))
    report = evaluate(test_models / "int8.tflite", dataset.load(pictures), overrides=names)
    assert report.top1 == 1
    assert report.per_class["blue"].images == 16
    assert report.per_class["blue"].recall == 1
    assert any("several outputs have one name" in warning for warning in report.warnings)
    itself = evaluate(
        test_models / "int8.tflite", dataset.load(pictures), overrides=names, reference=test_models / "int8.tflite"
    )
    assert itself.agreement == itself.reference_top1 == 1
    assert itself.calibration_error == pytest.approx(float(np.mean(1 - itself.scores.max(1))), abs=1e-6)
    assert Answers(itself.labels, itself.scores, itself.samples).right.all()  # the page's
