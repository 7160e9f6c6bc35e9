from __future__ import annotations

import dataclasses
import json
import math

import pytest

from edge_ran.architecture import named
from edge_ran.card import Accuracy, Calibration, InputSpec, ModelCard, Quantisation, Training, Versions
from edge_ran.errors import InputError
from edge_ran.recipe import RECIPES
from edge_ran.runs import SHIPPED

CARD = ModelCard(
    name="shelf",
    labels=("tea", "Кофе", "水", "👩‍🍳"),
    input=InputSpec(32, 48, mean=(1.0, 2.0, 3.5), std=(4.0, 5.0, 6.0), color="bgr", fit="crop"),
    network="cifar_attention56",
    options=named("cifar_attention56"),
    precision="int8",
    training=Training(
        "tea-shelf", train_images=90, recipe=RECIPES["cosine"], quantisation=Quantisation(kept="calibrated")
    ),
    calibration=Calibration("tea-shelf", 200, "training"),
    accuracy=Accuracy("tea-shelf", "test", 100, 0.91),
    versions=Versions(edge_ran="0.1.0"),
    rewrites=("fold_batch_norm",),
    masks=("stage1_module1",),
    temperature=1.3,
    license="Apache-2.0",
)


def record(**changes) -> dict:
    return {**json.loads(CARD.to_json()), **changes}


def test_a_card_survives_the_journey_through_json():
    assert ModelCard.from_json(CARD.to_json()) == CARD
    assert ModelCard.from_json(CARD.to_json().encode()) == CARD


def test_unknown_keys_are_left_out_and_optional_ones_have_defaults():
    minimal = {"schema_version": 1, "name": "n", "labels": ["a", "b"], "novelty": 3}
    minimal["input"] = {"height": 8, "width": 8, "mean": [0, 0, 0], "std": [1, 1, 1]}
    card = ModelCard.from_json(json.dumps(minimal))
    assert card == ModelCard("n", ("a", "b"), InputSpec(8, 8, (0, 0, 0), (1, 1, 1)))
    assert (card.input.color, card.input.fit, card.temperature) == ("rgb", "stretch", 1.0)


def test_numbers_that_json_cannot_hold_become_unknown():
    for number in ("1e999", "NaN", "-Infinity"):
        assert ModelCard.from_json(CARD.to_json().replace("0.91", number)).accuracy.top1 is None


def test_cards_of_older_versions_are_read():
    """They left records empty, wrote more keys, and had two keys for one version; the network that ships has one."""
    old = record(options={}, training={}, calibration={}, accuracy={}, versions={"edge_ran": "0.1", "edge-ran": "0.2"})
    card = ModelCard.from_json(json.dumps(old))
    assert (card.options, card.training, card.calibration) == (None, Training(), Calibration())
    assert (card.accuracy, card.versions) == (Accuracy(), Versions(edge_ran="0.2"))
    shipped = ModelCard.from_json((SHIPPED / "edge50" / "card.json").read_bytes())
    assert shipped.options == named("edge50")
    assert shipped.training.quantisation is not None
    assert shipped.training.quantisation.recipe is not None
    assert (shipped.training.train_images, shipped.training.quantisation.recipe.name) == (47500, "quantize")
    assert shipped.accuracy == Accuracy("cifar10", "test", 5000, 0.9082, "the int8 arithmetic")
    assert str(shipped.accuracy) == "cifar10, test split, 5,000 images"
    assert shipped.versions.edge_ran == "0.1.0"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00\xff\xfe",
        "not json",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        json.dumps(record(schema_version=2)),
        json.dumps(record(schema_version="x" * 10_000)),
        json.dumps(record(labels="abc")),
        json.dumps(record(labels=[1, 2])),
        json.dumps(record(labels=None)),
        json.dumps(record(name=3)),
        json.dumps(record(name="half \ud800")),
        json.dumps(record(training={"note": "half \ud800"})),
        json.dumps(record(labels=["red", "\x1b[2J"])),
        json.dumps(record(labels=["two\nlines"])),
        json.dumps(record(training=[])),
        json.dumps(record(training={"recipe": {"name": "mine"}})),
        json.dumps(record(options={"name": "edge50"})),
        json.dumps(record(accuracy={"top1": "high"})),
        json.dumps(record(accuracy={"top1": 1.5})),
        json.dumps(record(accuracy={"top1": 0.5, "dataset": "\x1b[2J"})),
        json.dumps(record(versions={"edge_ran": 3})),
        json.dumps(record(temperature=0)),
        json.dumps(record(temperature="warm")),
        json.dumps(record(input=3)),
        json.dumps(record(input={})),
        json.dumps(record(input={**record()["input"], "angle": 3})),
        json.dumps(record(input={**record()["input"], "mean": [math.nan] * 3})),
        json.dumps(record(input={**record()["input"], "height": 32.5})),
        json.dumps(record(input={**record()["input"], "height": "32"})),
    ],
)
def test_what_is_not_a_card_is_one_line(text):
    with pytest.raises(InputError) as caught:
        ModelCard.from_json(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 0},
        {"width": 8193},
        {"mean": (0.0,)},
        {"std": (1.0, 1.0, 0.0)},
        {"std": (1.0, 1.0, math.inf)},
        {"mean": (math.nan, 0.0, 0.0)},
        {"color": "yuv"},
        {"fit": "pad"},
    ],
)
def test_an_input_that_cannot_be_is_refused(wrong):
    with pytest.raises(InputError):
        dataclasses.replace(InputSpec(32, 32), **wrong)


@pytest.mark.parametrize("field", ["temperature", "accuracy", "training"])
def test_numbers_without_end_are_one_line(field: str):
    text = ModelCard("m", ("a", "b"), InputSpec(8, 8)).to_json()
    record = json.loads(text)
    record[field] = 0
    for number in ("1" * 400, "-" + "9" * 400, "1" * 5000):
        hostile = json.dumps(record).replace(f'"{field}": 0', f'"{field}": {{"top1": {number}}}')
        with pytest.raises(InputError, match="cannot be read"):
            ModelCard.from_json(hostile)
    spec = json.dumps(json.loads(text)).replace("128.0", "1" * 400, 1)
    with pytest.raises(InputError, match="cannot be read"):
        ModelCard.from_json(spec)
