"""Why a file that is called a video cannot be played."""

from pathlib import Path

import pytest

from edge_ran import dataset
from edge_ran.camera import open_source
from edge_ran.errors import InputError
from edge_ran.video_file import why_unreadable

FTYP = (24).to_bytes(4, "big") + b"ftypisom" + bytes(12)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html>", "web page"),
        (b"not found\n", "is text, not a video"),
        (b"\xff\xd8\xff\xe0\0", "is a JPEG picture"),
        (b"PK\x03\x04\0", "is a packed archive"),
        (FTYP + (1 << 20).to_bytes(4, "big") + b"mdat" + bytes(99), "cut off before its end"),
        (FTYP + (1).to_bytes(4, "big") + b"mdat" + (1 << 40).to_bytes(8, "big"), "cut off before its end"),
        (FTYP + (1 << 20).to_bytes(4, "big") + b"moov" + bytes(99), "cut off before its end"),
        (FTYP + bytes(64), "cut off before its end"),
        (FTYP + (8).to_bytes(4, "big") + b"moov", "that can be read"),
        (b"RIFF\0\0\0\0AVI ", "that can be read"),
    ],
)
def test_what_a_file_is_that_is_no_video(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a b.mp4"
    path.write_bytes(data)
    what, remedy = why_unreadable(path)
    assert words in what
    assert remedy


def test_text_is_no_clip_though_ffmpeg_plays_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.mp4"
    path.parent.mkdir()
    path.write_text("Not found\n" * 50)
    with pytest.raises(InputError, match="is text, not a video"):
        open_source(str(path))
    data = dataset.load(tmp_path)
    with pytest.raises(InputError, match="is text, not a video"):
        list(dataset.frames(data.samples))
