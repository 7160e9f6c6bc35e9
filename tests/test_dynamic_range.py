"""Clips of high dynamic range are told from others, where OpenCV does not convert them."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ran import dataset, dynamic_range


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", 8 + len(data)) + kind + data


def movie(transfer: int, kind: bytes = b"nclx", large: bool = False) -> bytes:
    """An MP4 with pictures of a kind, before its index, as phones write it."""
    colours = box(b"colr", kind + struct.pack(">HHH", 9, transfer, 9) + bytes(kind == b"nclx"))
    pictures = struct.pack(">I4sQ", 1, b"mdat", 16 + 50) + bytes(50) if large else box(b"mdat", b"colrnclx" + bytes(42))
    return box(b"ftyp", b"qt  \0\0\0\0") + pictures + box(b"moov", box(b"trak", bytes(9) + colours))


def matroska(transfer: int) -> bytes:
    return b"\x1a\x45\xdf\xa3" + bytes(40) + b"\x55\xb0\x84\x55\xba\x81" + bytes([transfer]) + bytes(40)


@pytest.mark.parametrize(("number", "name"), [(18, "HLG"), (16, "PQ"), (1, ""), (6, "")])
def test_the_transfer_is_what_the_file_says(number: int, name: str, tmp_path: Path) -> None:
    clip = tmp_path / "clip"
    for data in (movie(number), movie(number, b"nclc"), movie(number, large=True), matroska(number)):
        clip.write_bytes(data)
        assert dynamic_range.transfer(clip) == name


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\x08ftyp", b"\0\0\0\0ftyp" + bytes(99), movie(18)[:40], b"RIFF" + bytes(99)]
)
def test_what_says_nothing_is_of_the_usual_range(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "clip").write_bytes(data)
    assert dynamic_range.transfer(tmp_path / "clip") == ""
    assert dynamic_range.transfer(tmp_path / "missing") == ""


def test_it_is_said_where_opencv_does_not_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("red", "blue"):
        (tmp_path / label).mkdir()
        writer = cv2.VideoWriter(str(tmp_path / label / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (32, 32))
        for _ in range(5):
            writer.write(np.zeros((32, 32, 3), np.uint8))
        writer.release()
    phone = tmp_path / "red" / "b.mov"
    phone.write_bytes(movie(18))
    data = dataset.load(tmp_path)
    for built, found in (
        ("swscale:   YES (9.5.101)", []),
        ("swscale:   YES (6.7.100)", ["b.mov: HDR"]),
        ("", ["b.mov"]),
    ):
        monkeypatch.setattr(cv2, "getBuildInformation", lambda built=built: built)
        dynamic_range._converts.cache_clear()
        notes = dataset.ignored_notes(data)
        assert [note[: len(words)] for note, words in zip(notes, found, strict=True)] == found
    dynamic_range._converts.cache_clear()
