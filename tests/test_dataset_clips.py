"""Clips as phones, screen recorders and torn transfers leave them."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from loopback import torn

from edge_ran import dataset
from edge_ran.camera.source import open_source
from edge_ran.card import InputSpec
from edge_ran.dataset import clips
from edge_ran.dataset.clips import clip_frames, clip_rows, timed_frames
from edge_ran.errors import InputError


def write_clip(path: Path, frames: int, fps: float = 10, code: str = "mp4v") -> Path:
    """Frame n is as bright as 7 n + 20, of 256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, (64, 48))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 7 * number + 20, np.uint8))
    writer.release()
    return path


def test_a_clip_whose_pixels_are_not_square_is_stretched(tmp_path):
    path = write_clip(tmp_path / "red" / "tv.mp4", 2)
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd") - 4
    end = box + int.from_bytes(data[box : box + 4], "big")
    data[end - 8 : end - 4] = struct.pack(">I", 96 << 16)  # shown 96 wide, of 64 pixels
    path.write_bytes(data)
    assert [frame.shape for frame in clip_frames(path, [0])] == [(48, 96, 3)]
    frame = open_source(str(path)).read()
    assert frame is not None
    assert frame.image.shape == (48, 96, 3)


def shown_for(path: Path, *runs: tuple[int, float]) -> None:
    """Give an MP4 other times: so many frames for so many tenths of a second each, and so on."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdhd") + 4
    ticks = struct.unpack(">I", data[start + 12 : start + 16])[0] / 10
    at = data.index(b"stts") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    entries = b"".join(struct.pack(">II", count, round(tenths * ticks)) for count, tenths in runs)
    box = struct.pack(">I4sII", 16 + len(entries), b"stts", 0, len(runs)) + entries
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        place = data.index(name) - 4
        data[place : place + 4] = struct.pack(">I", int.from_bytes(data[place : place + 4], "big") + len(box) - size)
    data[at : at + size] = box
    # A list of edits would cut what is longer than the clip was.
    edits = data.find(b"edts")
    if edits >= 0:
        data[edits : edits + 4] = b"free"
    path.write_bytes(data)


def brightness(frames) -> list[int]:
    return [round((float(frame.mean()) - 20) / 7) for frame in frames]


def test_frames_are_taken_by_their_times_not_by_a_rate(tmp_path):
    """A screen recorder: twenty frames in the first second, then one a second for eleven seconds."""
    path = write_clip(tmp_path / "a" / "vfr.mp4", 31)
    shown_for(path, (20, 0.5), (11, 10))
    rows = clip_rows(path, 1.0)
    assert rows == (10, *range(20, 31))
    assert brightness(clip_frames(path, rows)) == [10, *range(20, 31)]


def test_a_frame_that_is_shown_for_long_is_taken_once(tmp_path):
    path = write_clip(tmp_path / "still.mp4", 4)
    shown_for(path, (1, 10), (1, 100), (2, 10))
    assert clip_rows(path, 1.0) == (0, 1, 2, 3)


@pytest.mark.parametrize("step_s", [0.1, 0.3, 1.0, 100.0])
@pytest.mark.parametrize("name", ["c.mp4", "c.avi", "c.mkv"])
def test_a_steady_clip_gives_a_frame_a_step(tmp_path, name, step_s):
    path = write_clip(tmp_path / name, 30, code="MJPG" if name.endswith("avi") else "mp4v")
    rows = clip_rows(path, step_s)
    assert len(rows) == max(1, round(3 / step_s))
    assert brightness(clip_frames(path, rows)) == list(rows)


def test_torn_frames_are_passed_over_and_the_rest_is_used(tmp_path):
    path = torn(write_clip(tmp_path / "a" / "cam.avi", 30, code="MJPG"), 14, 15, 16)
    rows = clip_rows(path, 1.0)
    assert rows == (5, 15, 25)
    assert brightness(clip_frames(path, rows)) == [5, 17, 25]
    x = dataset.pixels(dataset.load(tmp_path).samples, InputSpec(8, 8))
    assert brightness(x) == [5, 17, 25]


def exp_golomb(number: int) -> str:
    bits = f"{number + 1:b}"
    return "0" * (len(bits) - 1) + bits


def unit(head: int, bits: str) -> bytes:
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    return bytes([head]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def write_h264(path: Path, frames: int) -> list[int]:
    """Write frames as ``write_clip`` does, of macroblocks that are not coded (I_PCM); return where each begins."""
    one, size = exp_golomb(0), exp_golomb(2) + exp_golomb(1) + "0" + exp_golomb(3) + exp_golomb(2)
    sps = unit(0x67, f"{66:08b}{0:08b}{30:08b}{one}{one}{size}1100")
    pps = unit(0x68, f"{one}{one}00{one}{one}{one}000{one}{one}{one}000")
    video = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"avc1"), 10.0, (64, 48), [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1]
    )
    if not video.isOpened():
        pytest.skip("this OpenCV does not write encoded frames")
    for number in range(frames):
        bits = f"{one}{exp_golomb(7)}{one}0000{exp_golomb(number % 2)}00{one}"
        luma = 16 + round((7 * number + 20) * 219 / 255)
        for _ in range(4 * 3):
            bits += exp_golomb(25)
            bits += "0" * (-len(bits) % 8) + f"{luma:08b}" * 256 + f"{128:08b}" * 128
        frame = b"".join(b"\0\0\0\1" + one for one in (sps, pps, unit(0x65, bits)))
        video.write(np.frombuffer(frame, np.uint8)[None])
    video.release()
    data, begins = path.read_bytes(), struct.pack(">I", len(sps)) + sps
    return [at for at in range(len(data)) if data.startswith(begins, at)]


@pytest.mark.parametrize("damaged", [(), (0,), (12, 13), range(30)])
def test_damaged_packets_of_h264_are_not_the_end(tmp_path, damaged):
    """FFmpeg gives no packet then, as it does at the end."""
    path = tmp_path / "phone.mp4"
    starts = write_h264(path, 30)
    assert len(starts) == 30
    data = bytearray(path.read_bytes())
    for number in damaged:
        data[starts[number] : starts[number] + 4] = b"\xff" * 4
    path.write_bytes(data)
    rows = clip_rows(path, 1.0)
    if len(damaged) == 30:
        with pytest.raises(InputError, match="is torn"):
            list(clip_frames(path, rows))
        return
    assert len(rows) == 3
    whole = [n for n in range(30) if n not in damaged]
    assert brightness(clip_frames(path, rows)) == [whole[row] for row in rows]
    assert brightness(frame for _, frame in timed_frames(path, 0)) == whole


def test_frames_of_a_clip_without_a_whole_packet_have_the_usual_rate(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "c.mp4", 4)
    monkeypatch.setattr(clips, "_times_s", lambda path: np.empty(0))
    assert [time_s for time_s, _ in timed_frames(path, 0)] == pytest.approx([0, 0.04, 0.08, 0.12])


def test_a_clip_that_is_mostly_torn_is_named(tmp_path):
    path = torn(write_clip(tmp_path / "cam.avi", 30, code="MJPG"), *range(3, 30))
    with pytest.raises(InputError, match="is torn: 2 of 3 frames"):
        list(clip_frames(path, (2, 15, 25)))


def test_a_clip_whose_end_is_missing_gives_what_is_there(tmp_path):
    path = write_clip(tmp_path / "cut.avi", 30, code="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    rows = clip_rows(path, 1.0)
    assert 1 <= len(rows) < 3
    assert brightness(clip_frames(path, rows)) == list(rows)


def test_a_rate_that_no_camera_has_does_not_count(tmp_path):
    """Raspberry Pi's AVI of 5 frames a second that says 600: it would be over in a blink."""
    path = write_clip(tmp_path / "c.avi", 30, code="MJPG")
    data = bytearray(path.read_bytes())
    rate = data.find(b"strh") + 8 + 20
    data[rate : rate + 8] = struct.pack("<II", 1, 600)
    path.write_bytes(data)
    rows = clip_rows(path, 0.2)
    assert rows == (2, 7, 12, 17, 22, 27)  # at 25 a second
    assert brightness(clip_frames(path, rows)) == list(rows)


def test_a_stream_without_times_has_the_usual_rate(tmp_path):
    frames = [np.full((48, 64, 3), 7 * number + 20, np.uint8) for number in range(30)]
    (tmp_path / "c.mjpeg").write_bytes(b"".join(cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames))
    rows = clip_rows(tmp_path / "c.mjpeg", 0.4)
    assert rows == (5, 15, 25)
    assert brightness(clip_frames(tmp_path / "c.mjpeg", rows)) == list(rows)
