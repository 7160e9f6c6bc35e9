from __future__ import annotations

import html.parser
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from edge_ran import plots, report
from edge_ran.python_command import pip
from edge_ran.report import Commands, Report, Section, Strip, Table, Tile

REPORT = "install 'edge-ran[report]'"
SAMPLES = {"int8": [3.0, 3.1, 3.3], "fp32": [9.0, 9.2, 9.1]}


@pytest.fixture
def page() -> str:
    frame = np.full((40, 80, 3), (0, 128, 255), np.uint8)
    histogram = partial(plots.latency_histogram, SAMPLES)
    return report.render(
        Report(
            "A <title> & more",
            "lead",
            (Tile("3.1 ms", "median"),),
            (
                Section(
                    "Table", "text", (Table(("file", "ms"), (("<b>", 3.14159), ("y", None)), ("", ".2f"), ("ms",)),)
                ),
                Section("Plots", parts=(report.drawing(histogram), report.drawing(histogram, follow=False))),
                Section("Pictures", parts=(Strip((report.picture(frame, 'a "cat"', "fp32: dog", "bad"),)),)),
                Section("Again", parts=(Commands("edge-ran demo"),)),
            ),
            "made here",
        )
    )


class Reader(html.parser.HTMLParser):
    """Notes every address and whether each element is closed."""

    VOID = ("meta", "img", "link", "br", "hr", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag, attrs):
        assert tag not in ("script", "link", "iframe", "object")
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href", "data", "action")]
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_links_to_nothing(page: str):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.addresses
    assert all(address.startswith(("data:", "#")) for address in reader.addresses)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_ids_of_two_plots_do_not_mix_and_their_references_hold(page: str):
    reader = Reader()
    reader.feed(page)
    assert len(reader.ids) == len(set(reader.ids))
    targets = set(re.findall(r"url\(#([^)]+)\)", page)) | {a[1:] for a in reader.addresses if a.startswith("#")}
    assert targets
    assert targets <= set(reader.ids)


def test_words_of_a_model_file_are_text_not_markup(page: str):
    assert "A &lt;title&gt; &amp; more" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page.replace("<b>3.1 ms</b>", "")
    assert 'alt="a &#34;cat&#34;"' in page


def test_a_plot_follows_light_and_dark_unless_told_otherwise():
    following = report.drawing(partial(plots.latency_histogram, SAMPLES))
    staying = report.drawing(partial(plots.latency_histogram, SAMPLES), follow=False)
    assert "var(--ink)" in following.svg
    assert plots.INK.lower() not in following.svg.lower()
    assert "var(--" not in staying.svg


def test_numbers_are_formatted_and_drawn_in_proportion():
    table = Table(("file", "ms"), (("a", 2.0), ("b", 4.0), ("c", None)), ("", ".1f"), ("ms",))
    assert [table.cell(1, row[1]) for row in table.rows] == ["2.0", "4.0", "–"]
    assert [table.share(1, row[1]) for row in table.rows] == [0.5, 1.0, None]
    assert not table.is_number(0)
    assert table.is_number(1)


def test_a_picture_keeps_its_shape():
    import base64

    import cv2

    uri = report.picture(np.zeros((40, 80, 3), np.uint8), "x", side=20).uri
    data = np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (10, 20, 3)


def test_write_is_one_file(tmp_path: Path):
    report.write(Report("t", "l"), tmp_path / "new" / "report.html")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["report.html"]


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_the_extra_one_line_says_what_to_install(missing: str):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from edge_ran import errors, report\n"
        "try: report.render(report.Report('t', 'l'))\n"
        "except errors.EnvironmentMissing as error: print(error, '|', error.remedy)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"reports need {missing} | {pip(REPORT)}\n"
