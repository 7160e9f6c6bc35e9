from __future__ import annotations

from pathlib import Path

import pytest

from edge_ran import catalogue
from edge_ran.errors import InputError, UsageError


def test_every_entry_of_both_catalogues_reads():
    names = [entry.name for entry in catalogue.converters()]
    assert names == ["dynamic", "fp16", "fp32", "int16x8", "int8"]
    devices = catalogue.devices()
    assert "local" in [device.name for device in devices]
    assert {device.converter for device in devices} <= set(names)


def test_int8_is_int8():
    int8 = catalogue.converter("int8")
    assert (int8.weights, int8.activations) == ("int8", "int8")
    assert int8.calibration > 0


@pytest.mark.parametrize(
    ("read", "word", "remedy"),
    [
        (catalogue.converter, "itn8", "did you mean 'int8'?"),
        (catalogue.device, "raspberry-pi5", "did you mean 'raspberry-pi-5'?"),
        (catalogue.converter, "zzzzzz", "choose one of: dynamic, fp16, fp32, int16x8, int8"),
        (catalogue.converter, "../devices/local", "choose one of: dynamic"),
        (catalogue.converter, "", "choose one of"),
    ],
)
def test_a_name_outside_the_catalogue_gets_the_nearest_one(read, word, remedy):
    with pytest.raises(UsageError) as caught:
        read(word)
    assert remedy in caught.value.remedy


GOOD = """
summary = "mine"
weights = "int8"
activations = "int8"
io = "uint8"
calibration = 20
max_drop = 1
"""


def test_a_file_of_ones_own_works_wherever_a_name_does(tmp_path: Path):
    (tmp_path / "mine.toml").write_bytes(GOOD.replace("\n", "\r\n").encode("utf-8-sig"))  # as Windows' editor writes it
    mine = catalogue.converter(str(tmp_path / "mine.toml"))
    assert (mine.name, mine.io, mine.calibration, mine.max_drop) == ("mine", "uint8", 20, 1)


def test_a_device_of_ones_own_has_defaults(tmp_path: Path):
    (tmp_path / "board.toml").write_text('summary = "s"\naccelerator = "gpu"\nconverter = "fp16"\n')
    board = catalogue.device(str(tmp_path / "board.toml"))
    assert (board.threads, board.camera, board.target, board.runtime) == (0, "0", "local", "litert")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (GOOD + "wieghts = 3", "unknown key 'wieghts'"),
        (GOOD.replace("20", '"20"'), "calibration must be int"),
        (GOOD.replace("20", "true"), "calibration must be int"),
        (GOOD.replace("max_drop = 1", "max_drop = nan"), "max_drop must be float"),
        (GOOD.replace("max_drop = 1", "max_drop = inf"), "max_drop must be float"),
        (GOOD.replace("20", "-1"), "must not be negative"),
        (GOOD.replace("max_drop = 1", ""), "missing max_drop"),
        (GOOD.replace('io = "uint8"', 'io = "uint7"'), "io 'uint7' is unknown"),
        ("summary = ", "is not TOML"),
        ("\x00\x01", "is not TOML"),
        (f"summary = {'[' * 100_000}", "is not TOML"),
        (b"\xff\xfe\x00", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_where(tmp_path: Path, text: str | bytes, what: str):
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=what) as caught:
        catalogue.converter(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_said(tmp_path: Path):
    with pytest.raises(InputError, match="No such file"):
        catalogue.device(str(tmp_path / "none.toml"))
