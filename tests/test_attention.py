"""Where a network looks: a mask lies on the pixels that its cells saw, and its numbers are the frame's."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ran import dataset, records
from edge_ran.attention import Look, MaskSummary, chosen, scale_bar, tint
from edge_ran.bench import BenchModel, Plan, benchmark
from edge_ran.card import InputSpec
from edge_ran.classifier import Classifier, mask_cost, with_masks
from edge_ran.errors import InputError
from edge_ran.evaluate import evaluate
from edge_ran.graph import describe, read_card, read_graph
from edge_ran.model_interface import check_image_classifier
from edge_ran.preprocess import fit_pixels, seen
from edge_ran.runtime import RuntimeOptions
from edge_ran.verify import verify

MODELS = Path(__file__).parent / "models"


def hot(row: int, column: int, rows: int = 4, columns: int = 4) -> np.ndarray:
    values = np.full((rows, columns), 0.25, np.float32)
    values[row, column] = 0.75
    return values


@pytest.mark.parametrize("fit", ["stretch", "crop"])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 64), (63, 101), (640, 360), (5, 300)])
def test_a_hot_cell_lies_on_the_pixels_that_it_saw(fit: str, width: int, height: int) -> None:
    """Make exactly the pixels white that the overlay colours hottest: the network's input is white in that cell."""
    spec, row, column = InputSpec(32, 32, fit=fit), 1, 2
    region = seen(width, height, spec)
    look = Look("stage1_module1", hot(row, column), region)
    picture = np.zeros((height, width, 3), np.uint8)
    tint(picture, look)
    left, top, inner_width, inner_height = region
    outside = picture.copy()
    outside[top : top + inner_height, left : left + inner_width] = 0
    assert not outside.any()  # what the network did not see is left as it is
    x, y = look.summary().peak or (0, 0)
    yellow = picture.astype(int) @ [-1, 1, 1]
    assert (
        yellow[min(height - 1, int(y)), min(width - 1, int(x))] >= yellow.max() - 12
    )  # a cell may be less than a pixel
    frame = np.zeros((height, width, 3), np.uint8)
    xs, ys = (np.arange(width) + 0.5 - left) / inner_width * 4, (np.arange(height) + 0.5 - top) / inner_height * 4
    frame[np.ix_((ys >= row) & (ys < row + 1), (xs >= column) & (xs < column + 1))] = 255
    if min(inner_width, inner_height) >= 32:  # else one pixel covers several of the network's
        pixels = fit_pixels(frame, spec)[:, :, 0].astype(float)
        centre = [(pixels.sum(axis) @ (np.arange(32) + 0.5)) / pixels.sum() / 8 for axis in (0, 1)]
        assert centre == pytest.approx([column + 0.5, row + 0.5], abs=0.07)


def test_an_enlarged_picture_is_coloured_in_the_same_place() -> None:
    spec = InputSpec(8, 8, fit="crop")
    look = Look("m", hot(0, 3), seen(40, 24, spec))
    small, large = np.zeros((24, 40, 3), np.uint8), np.zeros((72, 120, 3), np.uint8)
    tint(small, look)
    tint(large, look, 3)
    assert np.abs(cv2.resize(large, (40, 24), interpolation=cv2.INTER_AREA).astype(int) - small).max() < 12


def test_yellow_is_where_the_mask_is_high_and_violet_where_it_is_low() -> None:
    picture = np.zeros((20, 40, 3), np.uint8)
    tint(picture, Look("m", np.array([[0.0, 1.0]], np.float32), (0, 0, 40, 20)))
    (low_blue, _, low_red), (high_blue, high_green, high_red) = picture[10, 2].tolist(), picture[10, -2].tolist()
    assert low_blue > low_red
    assert min(high_green, high_red) > high_blue


def test_the_numbers_of_a_mask() -> None:
    made = Look("stage2_module1", hot(1, 2), (100, 0, 400, 200)).summary()
    assert records.read(MaskSummary, json.loads(json.dumps(records.to_dict(made))), "mask") == made
    assert (made.module, made.min, made.max) == ("stage2_module1", 0.25, 0.75)
    assert made.mean == pytest.approx(0.25 + 0.5 / 16, abs=1e-4)
    assert made.center == made.peak == (100 + 2.5 * 100, 1.5 * 50)
    assert made.spread == 0.0
    flat = Look("m", np.full((2, 2), 0.5, np.float32), (0, 0, 80, 60)).summary()
    assert (flat.center, flat.peak) == ((40.0, 30.0), None)
    assert flat.spread == pytest.approx(np.hypot(20, 15), abs=0.1)
    two = hot(0, 0, 1, 4)
    two[0, 3] = 0.75
    assert Look("m", two, (0, 0, 400, 100)).summary().center == (200.0, 50.0)
    assert Look("m", two, (0, 0, 400, 100)).summary().spread == 150.0


def test_which_mask_is_shown() -> None:
    fine, coarse = Look("a", hot(0, 0), (0, 0, 8, 8)), Look("b", np.full((2, 2), 0.5, np.float32), (0, 0, 8, 8))
    assert chosen((fine, coarse), "1") is fine
    assert chosen((fine, coarse), "2") is coarse
    mean = chosen((coarse, fine), "mean")
    assert (mean.module, mean.values.shape, mean.region) == ("mean", (4, 4), (0, 0, 8, 8))
    assert mean.values == pytest.approx((fine.values + 0.5) / 2)


def test_a_mask_without_differences_draws_no_pattern() -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    tint(picture, Look("m", np.full((4, 4), 0.4, np.float32), (0, 0, 30, 20)))
    assert (picture == picture[0, 0]).all()
    assert scale_bar(50, 4).shape == (4, 50, 3)
    dark, bright = scale_bar(50, 4)[0, [0, -1]].astype(int).sum(1)
    assert bright > dark


# ------------------------------------------------------------------------------------------- through a classifier


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads((MODELS / "golden_attention.json").read_text())


def colour(label: str) -> np.ndarray:
    import sys

    sys.path.insert(0, str(MODELS))
    import colours

    return colours.frame(label)


@pytest.mark.parametrize(("model", "tolerance"), [("attention_float32", 1e-5), ("attention", 0.03)])
def test_masks_and_scores_are_those_of_the_network(labelled_model, golden, model: str, tolerance: float) -> None:
    path = labelled_model(model)
    with Classifier(path) as plain, Classifier(path, attention=True) as looking:
        assert plain.looks(colour("red")) == ()
        assert looking.modules == ("stage1_module1", "stage2_module1")
        for label, scores in golden["scores"].items():
            frame = colour(label)
            got = looking.scores(frame)
            assert (got == plain.scores(frame)).all()  # bit by bit
            assert got == pytest.approx(np.array(scores), abs=tolerance)
            looks = looking.looks(frame)
            assert [look.values.shape for look in looks] == [(16, 16), (8, 8)]
            for look in looks:
                assert look.values == pytest.approx(np.array(golden["masks"][look.module][label]), abs=tolerance)
                assert look.region == (0, 0, frame.shape[1], frame.shape[0])


def test_a_file_with_masks_is_taken_as_it_is_and_its_copy_is_gone_afterwards(labelled_model, tmp_path: Path) -> None:
    path = labelled_model("attention")
    masked = with_masks(path, tmp_path / "masked.tflite")
    with Classifier(masked) as plain, Classifier(masked, attention=True) as looking, Classifier(path) as other:
        assert looking.path == masked
        assert plain.looks(colour("green")) == ()
        assert (plain.scores(colour("green")) == other.scores(colour("green"))).all()
    with Classifier(path, attention=True) as copied:
        assert copied.path != path
        assert copied.path.is_file()
    assert not copied.path.exists()


def test_a_network_without_masks_is_refused(labelled_model, test_models: Path) -> None:
    with pytest.raises(InputError, match=re.escape("int8.tflite has no attention masks")) as error:
        Classifier(labelled_model("int8"), attention=True)
    assert "edge-ran convert --attention" in error.value.remedy
    with pytest.raises(InputError, match="has no card"):
        Classifier(test_models / "attention.tflite", attention=True)


def test_outputs_that_no_card_names_are_refused(labelled_model, tmp_path: Path) -> None:
    path = with_masks(labelled_model("attention"), tmp_path / "m.tflite")
    graph, card = read_graph(path), read_card(path)
    check_image_classifier(graph, card)
    with pytest.raises(InputError, match="3 outputs, its card names 3 masks"):
        check_image_classifier(graph, replace(card, masks=(*card.masks, "third")))
    for other in (None, replace(card, masks=())):  # one output alone is a row, as scores are
        assert check_image_classifier(graph, other) == 0
        rows = replace(graph, outputs=(graph.outputs[0], *graph.outputs))
        with pytest.raises(InputError, match=r"is not an image classifier: it has 4 outputs"):
            check_image_classifier(rows, other)
    flat = replace(graph.outputs[2], shape=(1, 64))
    with pytest.raises(InputError, match=r"its mask mask_2 is \(1, 64\)"):
        check_image_classifier(replace(graph, outputs=(*graph.outputs[:2], flat)), card)


def test_a_file_with_masks_is_judged_like_any_other(labelled_model, make_pictures, tmp_path: Path) -> None:
    path = labelled_model("attention")
    masked = with_masks(path, tmp_path / "m.tflite")
    pictures = dataset.load(make_pictures(tmp_path / "pictures", count=4))
    assert (evaluate(masked, pictures).scores == evaluate(path, pictures).scores).all()
    report = benchmark([BenchModel(masked)], Plan(num_runs=5, warmup_runs=1, min_secs=0)).reports[0]
    assert report.stages_ms is not None
    assert {one.accelerator for one in verify(masked, RuntimeOptions(), count=2).checks} == {"gpu"}
    assert describe(masked).quantize_between_operators == 0


def test_the_cost_of_the_masks_is_measured_on_both_files(labelled_model, tmp_path: Path) -> None:
    with Classifier(labelled_model("attention"), attention=True) as looking:
        cost = mask_cost(looking, budget_s=0.0)
        assert (cost.masks, cost.pairs) == (2, 5)
        assert min(cost.with_ms, cost.without_ms) > 0
        assert mask_cost(looking, budget_s=0.05).pairs > 5


def test_the_cost_of_the_masks_is_unknown_where_the_file_without_them_runs_elsewhere(labelled_model) -> None:
    with Classifier(labelled_model("attention"), attention=True) as looking:
        looking.options = RuntimeOptions("auto")
        looking.runtime.accelerator = replace(looking.runtime.accelerator, precision="fp32")
        assert mask_cost(looking, budget_s=0.0) is None
