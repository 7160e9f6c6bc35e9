from pathlib import Path

import numpy as np
import pytest
from models import colours

from edge_ran.card import InputSpec, ModelCard, Overrides
from edge_ran.classifier import Classifier
from edge_ran.errors import InputError
from edge_ran.graph import attach_card, read_graph
from edge_ran.model_interface import check_image_classifier, input_spec, read_labels

MODELS = Path(__file__).parent / "models"


def with_card(tmp_path: Path, model: str, **changes) -> Path:
    fields = {"name": "colours", "labels": colours.LABELS, "input": InputSpec(16, 16)} | changes
    path = tmp_path / f"{model}.tflite"
    path.write_bytes(attach_card((MODELS / f"{model}.tflite").read_bytes(), ModelCard(**fields)))
    return path


@pytest.mark.parametrize("model", ["float32", "int8", "uint8", "int8_float_io", "logits"])
@pytest.mark.parametrize("colour", colours.LABELS)
def test_tells_colours_apart(model, colour, tmp_path):
    with Classifier(with_card(tmp_path, model)) as classifier:
        predictions = classifier.classify(colours.frame(colour))
    assert predictions[0].label == colour
    assert predictions[0].index == colours.LABELS.index(colour)
    scores = [prediction.score for prediction in predictions]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=0.02)
    assert scores[0] > 0.6


@pytest.mark.parametrize("model", ["float32", "int8", "uint8"])
def test_a_file_without_a_card_runs(model):
    with Classifier(MODELS / f"{model}.tflite", overrides=Overrides(labels=colours.LABELS)) as classifier:
        assert classifier.card is None
        assert classifier.classify(colours.frame("green"))[0].label == "green"
    with Classifier(MODELS / f"{model}.tflite") as classifier:
        assert classifier.labels == ("0", "1", "2")


def test_precisions_and_logits_agree(tmp_path):
    frame = colours.frame("red")
    reference = Classifier(with_card(tmp_path, "float32")).scores(frame)
    assert reference.shape == (3,)
    assert reference.dtype == np.float32
    for model, tolerance in (("logits", 1e-5), ("int8", 0.05), ("uint8", 0.05), ("int8_float_io", 0.05)):
        assert Classifier(with_card(tmp_path, model)).scores(frame) == pytest.approx(reference, abs=tolerance)


def test_quantised_input_without_a_card_takes_pixels_as_they_are():
    for model in ("int8", "uint8"):
        spec = input_spec(read_graph(MODELS / f"{model}.tflite"))
        assert spec.mean == pytest.approx((128, 128, 128), abs=0.5)
        assert spec.std == pytest.approx((128, 128, 128), abs=0.5)


def test_mean_and_std_take_the_place_of_the_cards(tmp_path):
    path = with_card(tmp_path, "float32")
    with Classifier(path, overrides=Overrides(mean=(0, 0, 0), std=(1, 1, 1))) as classifier:
        assert classifier.spec.mean == (0, 0, 0)
        changed = classifier.scores(colours.frame("red"))
    assert not np.allclose(changed, Classifier(path).scores(colours.frame("red")))


@pytest.mark.parametrize("model", ["float32", "int8", "logits"])
def test_temperature_softens_and_keeps_the_order(model, tmp_path):
    frame = colours.frame("blue")
    plain = Classifier(with_card(tmp_path, model)).classify(frame)
    soft = Classifier(with_card(tmp_path, model, temperature=3.0)).classify(frame)
    assert soft[0].label == plain[0].label
    assert 1 / 3 < soft[0].score < plain[0].score
    assert sum(prediction.score for prediction in soft) == pytest.approx(1, abs=1e-4)


def test_stages_of_the_last_call():
    classifier = Classifier(MODELS / "float32.tflite")
    classifier.scores(colours.frame("red"))
    assert set(classifier.stages_ms) == {"preprocess", "inference", "postprocess"}
    assert min(classifier.stages_ms.values()) > 0


def test_a_batch_that_is_not_fixed_is_run_as_one():
    assert not read_graph(MODELS / "any_batch.tflite").inputs[0].fixed
    with Classifier(MODELS / "any_batch.tflite", overrides=Overrides(labels=colours.LABELS)) as classifier:
        assert classifier.runtime.input.shape == (1, 16, 16, 3)
        assert classifier.classify(colours.frame("blue"))[0].label == "blue"


@pytest.mark.parametrize("labels", [("a", "b"), tuple("abcd"), ()])
def test_labels_that_do_not_match_are_refused(labels, tmp_path):
    with pytest.raises(InputError, match="3 outputs"):
        Classifier(MODELS / "float32.tflite", overrides=Overrides(labels=labels))
    if labels:
        with pytest.raises(InputError, match="3 outputs"):
            Classifier(with_card(tmp_path, "float32", labels=labels))


def test_a_card_of_another_size_is_refused(tmp_path):
    with pytest.raises(InputError, match="24x16"):
        Classifier(with_card(tmp_path, "float32", input=InputSpec(24, 16)))


def test_what_is_no_image_classifier_is_refused():
    with pytest.raises(InputError, match="not an image classifier: it has 2 inputs"):
        Classifier(MODELS / "two_inputs.tflite")


@pytest.mark.parametrize(
    ("where", "shape"),
    [
        ("inputs", (1, 2, 16, 16)),
        ("inputs", (4, 16, 16, 3)),
        ("inputs", (16, 16, 3)),
        ("inputs", (1, 16, 16, 4)),
        ("inputs", (1, 0, 16, 3)),
        ("outputs", (1, 1)),
        ("outputs", (2, 3)),
        ("outputs", ()),
    ],
)
def test_shapes_that_are_no_image_classifier(where, shape):
    import dataclasses

    graph = read_graph(MODELS / "float32.tflite")
    check_image_classifier(graph)
    wrong = dataclasses.replace(getattr(graph, where)[0], shape=shape)
    with pytest.raises(InputError, match="not an image classifier"):
        check_image_classifier(dataclasses.replace(graph, **{where: (wrong,)}))


def test_label_files(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("\ufeffred\ngrün \r\nblue\n\n", encoding="utf-8")
    assert read_labels(path) == ("red", "grün", "blue")
    path.write_bytes(b"gr\xfcn\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_labels(path)
    with pytest.raises(InputError, match="cannot read"):
        read_labels(tmp_path / "none.txt")
