from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edge_ran import dataset, evaluation_page
from edge_ran.cli import app
from edge_ran.dataset import Sample
from edge_ran.errors import InputError
from edge_ran.evaluate import evaluate
from edge_ran.evaluation_page import Answers

LABELS = ("a", "b")


def answers(rows: list[tuple[str, str, float]]) -> Answers:
    """(group, true label, score of "a") of each picture."""
    samples = tuple(Sample(Path(f"{i:03d}.png"), label, group) for i, (group, label, _) in enumerate(rows))
    scores = np.array([(s, 1 - s) for _, _, s in rows], np.float32)
    return Answers(LABELS, scores, samples)


def test_clips_are_judged_alone_smoothed_and_whole():
    flicker = [("walk", "a", 0.9)] * 4 + [("walk", "a", 0.4)] + [("walk", "a", 0.9)] * 5
    lost = [("hall", "b", 0.8)] * 3
    alone = [("", "a", 0.9)] * 2
    hall, walk = evaluation_page.sequences(answers(flicker + lost + alone))
    assert (walk.group, walk.frames, walk.alone, walk.smoothed, walk.whole) == ("walk", 10, 0.9, 1.0, True)
    assert (hall.alone, hall.smoothed, hall.whole) == (0, 0, False)


def test_the_page_names_the_worst_and_shows_each_once(tmp_path: Path):
    pytest.importorskip("jinja2", reason="needs edge-ran[report]")
    samples = []
    for index in range(6):
        path = tmp_path / f"{index}.png"
        cv2.imwrite(str(path), np.full((8, 8, 3), 40 * index, np.uint8))
        samples.append(Sample(path, "a", "walk"))
    scores = np.array([(0.9, 0.1)] * 4 + [(0.01, 0.99), (0.4, 0.6)], np.float32)
    page = evaluation_page.make("t", "l", Answers(LABELS, scores, tuple(samples)), notes=["look out"])
    by_title = {section.title: section for section in page.sections}
    (strip,) = by_title["Most confidently wrong"].parts
    assert [(p.title, p.note) for p in strip.pictures] == [("a: 4.png", "b 99%"), ("a: 5.png", "b 60%")]
    assert by_title["Before you read"].text == "look out"
    assert [tile.value for tile in page.tiles] == ["66.7%", "66.7%"]


def test_evaluate_writes_the_page_and_measures_the_unknown(labelled_model, pictures: Path, tmp_path: Path):
    pytest.importorskip("jinja2", reason="needs edge-ran[report]")
    strange = tmp_path / "strange"
    strange.mkdir()
    random = np.random.default_rng(0)
    for index in range(5):
        cv2.imwrite(str(strange / f"{index}.png"), random.integers(0, 255, (16, 16, 3), np.uint8))
    page = tmp_path / "page.html"
    words = ["evaluate", labelled_model("int8"), pictures, "--html", page, "--unknown", strange]
    result = CliRunner().invoke(app, [str(w) for w in words])
    assert result.exit_code == 0, result.output
    text = page.read_text()
    for title in ("Classes", "Calibration", "Unknown places"):
        assert title in text
    assert "unknown 5 images, AUROC" in result.output
    found = evaluate(labelled_model("int8"), dataset.load(pictures), unknown=strange)
    assert found.unknown is not None
    assert 0.95 <= found.unknown.kept <= 1
    (printed,) = re.findall(r"--threshold (\S+) keeps", result.output)
    assert (found.scores.max(1) >= float(printed)).mean() == found.unknown.kept
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no picture and no clip"):
        evaluate(labelled_model("int8"), dataset.load(pictures), unknown=tmp_path / "empty")
