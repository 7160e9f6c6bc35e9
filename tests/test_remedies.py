"""Each remedy and hint is a command that works as it is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import remedies

from edge_ran import cli
from edge_ran.cli.command import fitting

PACKAGE = Path(cli.__file__).resolve().parents[1]


def test_each_command_and_option_in_a_message_exists() -> None:
    found = list(remedies.messages(PACKAGE))
    assert len(found) > 300
    assert [f"{where}: {wrong}" for where, text in found for wrong in remedies.faults(text)] == []


@pytest.mark.parametrize(
    ("advice", "wrong"),
    [
        ("edge-ran train --resume -o RUN", "Missing argument"),
        ("edge-ran inspect it", "no name of a file"),
        ("edge-ran convert makes one", "unexpected extra argument"),
        ("edge-ran quantize RUN DATA --skip-bad", "No such option"),
        ("see edge-ran inspect", "Missing argument"),
        ("name the column: --lable-column NAME", "no option of any verb"),
    ],
)
def test_advice_that_leads_nowhere_is_found(advice: str, wrong: str) -> None:
    (fault,) = remedies.faults(advice)
    assert wrong in fault


@pytest.mark.parametrize(
    "advice",
    [
        "finish it: edge-ran train 'my pictures' --resume -o RUN",
        "edge-ran sweep MODEL --threads 1,2,4",
        "pip install --force-reinstall numpy",
        "next: edge-ran dataset DATA",
        "edge-ran inspect --help",
    ],
)
def test_advice_that_can_be_followed_is_none_of_them(advice: str) -> None:
    assert remedies.faults(advice) == []


def test_a_verb_advises_no_option_that_it_lacks() -> None:
    skip = "mend or delete them, or skip them aloud with --skip-bad"
    assert fitting(skip, {"--skip-bad"}) == skip
    assert fitting(skip, {"--force"}) == "mend or delete them"
    assert fitting("--labels FILE, one a line", set()) == ""
    assert fitting("pip install --force-reinstall x; or add --force", set()) == "pip install --force-reinstall x"
