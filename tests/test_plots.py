import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from edge_ran import plots
from edge_ran.errors import EnvironmentMissing, UsageError

HISTORY = [
    {"epoch": e, "loss": 2 / e, "top1": 1 - 0.8 / e, "validation_loss": 2.2 / e, "validation_top1": 1 - 0.85 / e}
    for e in range(1, 11)
]


def words(path) -> str:
    """The text of an SVG; matplotlib draws letters as paths and keeps the words in comments."""
    return " ".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


def draw_all(folder, suffix):
    plots.training_curves(HISTORY, folder / f"curves{suffix}")
    plots.confusion([[8, 2], [0, 10]], ["cat", "dog"], folder / f"confusion{suffix}")
    plots.latency_histogram({"int8": np.linspace(1, 2, 50), "fp32": np.linspace(3, 5, 50)}, folder / f"ms{suffix}")
    plots.shares({"stem": 1.0, "mask": 3.0}, folder / f"shares{suffix}", "by stage")
    plots.sustained([1, 2, 3], [5, 5, 9], [6, 6, 9], folder / f"sustained{suffix}", [2000, 2000, 900], [40, None, 90])
    curves = {"nothing": [(5, 0.4, 0.3, 0.5), (10, 0.5, 0.4, 0.6)], "other weights": [(5, 0.6, 0.6, 0.7)]}
    plots.accuracy_by_pictures(curves, folder / f"few{suffix}", "few", "accuracy in %")
    plots.accuracy_against_latency([("a", 1, 0.8, (0.7, 0.85)), ("b", 30, 0.9, (0.9, 0.9))], folder / f"front{suffix}")


def test_every_picture_in_png_shows_something(tmp_path):
    draw_all(tmp_path, ".png")
    pictures = sorted(tmp_path.iterdir())
    assert len(pictures) == 7
    for path in pictures:
        assert cv2.imread(str(path)).std() > 10


def test_svg_has_the_words_and_is_the_same_each_time(tmp_path):
    draw_all(tmp_path, ".svg")
    assert "validation" in words(tmp_path / "curves.svg")
    assert "cat" in words(tmp_path / "confusion.svg")
    assert "other weights" in words(tmp_path / "few.svg")
    assert "80" in words(tmp_path / "confusion.svg")  # eight of ten cats
    assert "75 %" in words(tmp_path / "shares.svg")
    assert "clock in MHz" in words(tmp_path / "sustained.svg")
    assert "minutes" in words(tmp_path / "sustained.svg")
    first = (tmp_path / "curves.svg").read_bytes()
    plots.training_curves(HISTORY, tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_bytes() == first


def test_history_without_validation(tmp_path):
    plots.training_curves([{"epoch": 1, "loss": 1.0, "top1": 0.5}], tmp_path / "c.svg")
    assert "validation" not in words(tmp_path / "c.svg")


def test_sustained_without_clock_and_temperature(tmp_path):
    plots.sustained([1, 2], [5, 5], [6, 6], tmp_path / "s.svg", [None, None], [])
    assert "clock" not in words(tmp_path / "s.svg")


def test_many_classes(tmp_path):
    plots.confusion(np.eye(200, dtype=int), [f"class {i}" for i in range(200)], tmp_path / "c.png")
    assert cv2.imread(str(tmp_path / "c.png")).shape[0] < 3000


def test_front():
    assert plots.front([(1, 0.8), (2, 0.9), (3, 0.85), (1, 0.7)]) == {0, 1}
    assert plots.front([(1, 0.8), (1, 0.8)]) == {0, 1}


def test_unknown_suffix_and_missing_matplotlib(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="cannot draw"):
        plots.shares({"a": 1}, tmp_path / "x.gif")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EnvironmentMissing) as caught:
        plots.shares({"a": 1}, tmp_path / "x.png")
    assert "edge-ran[report]" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_matplotlib_is_loaded_only_when_drawing():
    code = "import edge_ran.plots, sys; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_a_class_may_be_called_like_a_formula(tmp_path):
    plots.confusion(np.eye(2, dtype=int), ["$\\frac$", "a_$b"], tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_a_very_long_name_leaves_room_for_the_drawing(tmp_path, recwarn):
    plots.confusion([[1, 0], [0, 1]], ["a" * 300, "b"], tmp_path / "c.png")
    assert not [str(one.message) for one in recwarn if "layout" in str(one.message)]
