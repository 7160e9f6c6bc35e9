"""Sources by one string, and the capture that keeps them fresh and honest."""

from __future__ import annotations

import contextlib
import functools
import glob
import http.server
import itertools
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from loopback import MjpegServer, jpeg, number_of, numbered, rtsp_server, torn, wait_for, write_clip

from edge_ran.camera import Capture, Frame, FrameSource, Limits, Notice, open_source
from edge_ran.camera.address import WRITTEN, is_near, remedy_of_address, without_password
from edge_ran.errors import CameraError, EdgeRanError, InputError, UsageError
from edge_ran.picture import check_pixels, read_picture

pytestmark = pytest.mark.prompt

QUICK = Limits(stall_s=0.6, frozen_s=0.6, reconnect_s=30.0)


class Said(list):
    """Collects notices."""

    def __call__(self, notice: Notice) -> None:
        self.append(notice)

    @property
    def kinds(self) -> list[str]:
        return [notice.kind for notice in self]


# ------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_clip_gives_every_frame_in_order_with_its_own_time(tmp_path: Path, suffix: str) -> None:
    clip = write_clip(tmp_path / f"clip{suffix}", frames=24, fps=12)
    frames = list(open_source(str(clip)))
    assert [number_of(f.image) for f in frames] == list(range(24))
    assert [f.index for f in frames] == list(range(24))
    assert np.allclose([f.timestamp for f in frames], np.arange(24) / 12, atol=0.002)
    assert frames[0].image.shape == (240, 320, 3)
    assert frames[0].image.dtype == np.uint8


def test_the_real_clips(shared_data: Path) -> None:
    for name, size, count in (("car-detection.mp4", (432, 768, 3), 377),):
        source = open_source(str(shared_data / "clips" / name))
        frames = [(f.index, f.timestamp, f.image.shape) for f in source]
        assert len(frames) == count
        assert {shape for _, _, shape in frames} == {size}
        assert np.allclose(np.diff([t for _, t, _ in frames]), 1 / 12.5, atol=0.002)


@pytest.mark.parametrize(
    ("url", "helps"),
    [
        ("rtsp://u:a%0Xb@10.0.0.1/s", True),
        ("rtsp://u:a%@10.0.0.1/s", True),
        ("rtsp://u:a%40b@10.0.0.1/s?x=%", False),
        ("rtsp://10.0.0.1/s%", False),
    ],
)
def test_a_percent_sign_in_a_password_that_is_no_escape_is_told(url: str, helps: bool) -> None:
    assert (remedy_of_address(url) == WRITTEN) is helps


def test_portrait_phone_video_is_upright(tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 32))
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :32] = (0, 0, 255)  # the left half of the sensor is red
    for _ in range(5):
        writer.write(image)
    writer.release()
    _tag_rotation_90(path)
    frame = open_source(str(path)).read()
    assert frame is not None
    assert frame.image.shape == (64, 32, 3)
    assert frame.image[:28].mean(axis=(0, 1))[2] > 200  # a quarter turn clockwise puts the left side on top
    assert frame.image[36:].mean() < 30


def _tag_rotation_90(path: Path) -> None:
    data = bytearray(path.read_bytes())
    matrix = data.find(b"tkhd") + 4 + 4 + 20 + 8 + 8  # version and flags, times and ids, reserved, layer … volume
    assert struct.unpack(">9i", data[matrix : matrix + 36])[0] == 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)
    path.write_bytes(data)


def test_pictures_come_in_order_of_their_names_and_a_broken_one_is_left_out(tmp_path: Path) -> None:
    for index in (2, 0, 1):
        cv2.imwrite(str(tmp_path / f"{index}.png"), numbered(index))
    (tmp_path / "1.png").write_bytes(b"\x89PNG nonsense")
    (tmp_path / "notes.txt").write_text("not a picture")
    said = Said()
    capture = Capture(lambda: open_source(str(tmp_path)), notify=said)
    frames = _all(capture)
    assert [(f.index, number_of(f.image), Path(f.name).name) for f in frames] == [(0, 0, "0.png"), (2, 2, "2.png")]
    assert said.kinds == ["corrupt"]
    assert "1.png" in said[0].text
    assert (capture.captured, dict(capture.dropped)) == (3, {"corrupt": 1})
    assert [f.name for f in open_source(str(tmp_path / "[02].png"))] == [str(tmp_path / f"{i}.png") for i in (0, 2)]
    assert len(list(open_source(str(tmp_path / "0.png")))) == 1


def test_pictures_are_read_as_data_sets_read_them(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((8, 8), 77, np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((8, 8, 3), 77 * 257, np.uint16))
    cv2.imwrite(str(tmp_path / "clear.png"), np.zeros((8, 8, 4), np.uint8))
    images = {Path(f.name).stem: f.image for f in open_source(str(tmp_path))}
    assert {image.shape for image in images.values()} == {(8, 8, 3)}
    assert {name: int(image.mean()) for name, image in images.items()} == {"gray": 77, "deep": 77, "clear": 255}
    whole = jpeg(numbered(0))
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated"):
        open_source(str(tmp_path / "half.jpg")).read()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("97", CameraError),
        ("/dev/video97", CameraError),
        ("nowhere.mp4", InputError),
        ("ftp://host/cam", UsageError),
        ("http://127.0.0.1:1/stream", CameraError),
        ("rtsp://127.0.0.1:1/cam", CameraError),
        ("tcp://127.0.0.1:1", CameraError),
        ("csi://x", CameraError),
        ("libcamerasrc ! video/x-raw,width=640 ! videoconvert ! appsink", UsageError),
    ],
)
def test_what_is_not_there_is_one_clear_line(text: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        open_source(text)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


@contextlib.contextmanager
def stream_without_a_protocol(picture: Callable[[int], bytes]) -> Iterator[str]:
    """As ``rpicam-vid --codec mjpeg --listen -o tcp://0.0.0.0:PORT`` sends it."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def send() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            for number in itertools.count():
                connection.sendall(picture(number))
                if ended.wait(0.005):
                    return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.close()
        thread.join(5)


def test_a_stream_without_a_protocol_is_read() -> None:
    address = stream_without_a_protocol(lambda n: jpeg(numbered(n % 200)))
    with address as url, contextlib.closing(open_source(url)) as source:
        assert source.live
        assert source.read() is not None


def test_torn_pictures_of_a_stream_are_no_loss_of_it() -> None:
    def picture(number: int) -> bytes:
        whole = jpeg(numbered(number % 200))
        return whole[:4] + bytes(len(whole) - 6) + whole[-2:] if number % 200 in (100, 101) else whole

    said = Said()
    with stream_without_a_protocol(picture) as url:
        capture = Capture(lambda: open_source(url), notify=said)
        _take(capture, lambda f: number_of(f.image) > 110)
        capture.close()
    assert said.kinds == ["corrupt", "back"]
    assert capture.dropped["corrupt"] == 2


def test_pictures_are_named_as_ffmpeg_names_them(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        cv2.imwrite(str(tmp_path / f"img{number:03d}.png"), numbered(number))
    with contextlib.closing(open_source(str(tmp_path / "img%03d.png"))) as source:
        assert [Path(frame.name).name for frame in source] == ["img001.png", "img009.png", "img010.png"]


def test_what_is_not_a_video_is_refused(tmp_path: Path) -> None:
    for name, data in (("random.mp4", os.urandom(5000)), ("empty.mp4", b""), ("words.txt", b"hello " * 99)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            open_source(str(tmp_path / name))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        open_source(str(tmp_path / "folder"))
    with pytest.raises(UsageError, match="width"):
        open_source(str(write_clip(tmp_path / "c.avi", 2)), width=320)


def test_a_clip_cut_short_is_said(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.avi", 40)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    said = Said()
    frames = _all(Capture(lambda: open_source(str(cut)), realtime=False, notify=said))
    assert [number_of(f.image) for f in frames] == list(range(len(frames)))
    assert 5 < len(frames) < 36
    assert said.kinds in ([], ["short"])  # an AVI without its index does not announce a count
    said.clear()
    source = open_source(str(whole))
    source.frames_announced = 400
    _all(Capture(lambda: source, realtime=False, notify=said))
    assert said.kinds == ["short"]


def test_torn_frames_of_a_clip_are_left_out_and_are_not_its_end(tmp_path: Path) -> None:
    clip = torn(write_clip(tmp_path / "clip.avi", 30), 3, 4, 12, 28, 29)
    capture = Capture(lambda: open_source(str(clip)), realtime=False, notify=(said := Said()))
    frames = _all(capture)
    assert [number_of(f.image) for f in frames] == [n for n in range(28) if n not in (3, 4, 12)]
    assert (capture.captured, dict(capture.dropped)) == (28, {"corrupt": 3})
    assert [re.search(r"frame \d+", notice.text)[0] for notice in said] == ["frame 3", "frame 4", "frame 12"]


def test_a_rate_that_no_camera_has_is_not_believed(tmp_path: Path) -> None:
    assert [open_source(str(write_clip(tmp_path / f"{fps}.avi", 2, fps))).fps for fps in (240, 600)] == [240, 25]


def test_a_file_is_played_at_its_own_pace_or_as_fast_as_possible(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", frames=16, fps=20)
    frames = _all(Capture(lambda: open_source(str(clip))))
    assert len(frames) == 16
    late = [f.captured_at - frames[0].captured_at - f.timestamp for f in frames]
    assert min(late) > -0.03  # never ahead of its own time, whatever the machine
    at_once = _all(Capture(lambda: open_source(str(clip)), realtime=False))
    assert [number_of(f.image) for f in at_once] == list(range(16))
    slower = open_source(str(clip), fps=5)
    assert np.allclose([f.timestamp for f in slower], np.arange(16) / 5, atol=0.002)


def test_a_broken_first_picture_does_not_change_the_pace(tmp_path: Path) -> None:
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.png"), numbered(index))
    (tmp_path / "0.png").write_bytes(b"")
    frames = _all(Capture(lambda: open_source(str(tmp_path), fps=10)))
    late = [f.captured_at - frames[0].captured_at - f.timestamp + frames[0].timestamp for f in frames]
    assert [number_of(f.image) for f in frames] == [1, 2, 3]
    assert min(late) > -0.03


def test_a_video_may_be_named_after_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "cam-13:45.avi", 2)
    monkeypatch.chdir(tmp_path)
    assert [number_of(f.image) for f in open_source("cam-13:45.avi")] == [0, 1]


def test_a_slow_consumer_still_gets_every_frame_of_a_file(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", frames=10, fps=200)
    capture = Capture(lambda: open_source(str(clip)))
    frames = []
    while frame := capture.next():
        time.sleep(0.02)
        frames.append(frame)
    assert [number_of(f.image) for f in frames] == list(range(10))
    assert (capture.captured, sum(capture.dropped.values())) == (10, 0)


# ----------------------------------------------------------------------------------------- live sources


def test_only_the_newest_frame_of_a_live_source_waits() -> None:
    with MjpegServer(lambda n: jpeg(numbered(n)), fps=100) as server:
        capture = Capture(lambda: open_source(server.url))
        seen = []
        for _ in range(5):
            wait_for(lambda: capture.captured >= (seen[-1].index + 8 if seen else 8))
            frame = capture.next()
            assert frame is not None
            seen.append(frame)
        capture.close()
    assert all(number_of(f.image) == f.index for f in seen)
    assert all(b.index - a.index >= 6 for a, b in itertools.pairwise(seen))  # never a stale one
    assert capture.captured == len(seen) + sum(capture.dropped.values())
    assert capture.dropped["superseded"] > 10


@pytest.mark.parametrize("lengths", [True, False])
def test_http_mjpeg_with_and_without_content_lengths(lengths: bool) -> None:
    with MjpegServer(lambda n: jpeg(numbered(n)), fps=200, lengths=lengths) as server:
        source = open_source(server.url)
        frames = [source.read() for _ in range(10)]
        source.close()
    assert [number_of(f.image) for f in frames if f] == list(range(10))


def test_http_snapshots_are_polled_at_the_pace_asked_for() -> None:
    with MjpegServer(lambda n: jpeg(numbered(n))) as server:
        source = open_source(server.url.replace("/stream", "/shot.jpg"), fps=50)
        frames = [source.read() for _ in range(5)]
        assert [number_of(f.image) for f in frames if f] == list(range(5))
        assert server.connections == 5
        with pytest.raises(CameraError, match="404"):
            open_source(server.url + "x")
        with pytest.raises(CameraError, match="503") as caught:
            open_source(server.url.replace("/stream", "/busy"))
        assert "the camera is busy" in caught.value.remedy
        assert "check the address" not in caught.value.remedy
        with pytest.raises(InputError, match="text/html"):
            open_source(server.url.replace("/stream", "/page"))


def test_broken_pictures_are_said_once_and_never_handed_out() -> None:
    def picture(n: int) -> bytes:
        whole = jpeg(numbered(n))
        return whole[: len(whole) // 2] if 5 <= n < 15 else b"not a picture" if 15 <= n < 20 else whole

    said = Said()
    with MjpegServer(picture, fps=100) as server:
        capture = Capture(lambda: open_source(server.url), notify=said)
        frames = _take(capture, lambda f: f.index >= 25)
        capture.close()
    assert all(number_of(f.image) == f.index for f in frames)
    assert not {f.index for f in frames} & set(range(5, 20))
    assert capture.dropped["corrupt"] == 15
    assert said.kinds == ["corrupt", "back"]


def test_black_pictures_are_said_once_and_never_handed_out() -> None:
    black = jpeg(np.full((120, 160, 3), 4, np.uint8))
    said = Said()
    with MjpegServer(lambda n: black if 5 <= n < 30 else jpeg(numbered(n)), fps=100) as server:
        capture = Capture(lambda: open_source(server.url), notify=said)
        frames = _take(capture, lambda f: f.index >= 35)
        capture.close()
    assert not {f.index for f in frames} & set(range(5, 30))
    assert capture.dropped["black"] == 25
    assert said.kinds == ["black", "back"]
    assert [gap.kind for gap in capture.gaps] == ["black"]


def test_a_frozen_picture_is_noticed_and_the_camera_opened_again() -> None:
    frozen = threading.Event()
    still = jpeg(numbered(7))
    said = Said()
    with MjpegServer(lambda n: still if frozen.is_set() else jpeg(numbered(n)), fps=60) as server:
        capture = Capture(lambda: open_source(server.url), notify=said, limits=QUICK)
        assert capture.next()
        frozen.set()
        consumer = threading.Thread(target=_take, args=(capture, lambda f: "back" in said.kinds))
        consumer.start()
        wait_for(lambda: server.connections >= 2)
        handed_out = capture.captured - sum(capture.dropped.values())
        wait_for(lambda: capture.dropped["frozen"] > 30)
        assert capture.captured - sum(capture.dropped.values()) <= handed_out + 1
        frozen.clear()
        consumer.join(20)
        capture.close()
    assert said.kinds == ["frozen", "back"]


def test_a_picture_may_stand_still_where_the_user_says_so() -> None:
    still = jpeg(numbered(7))
    limits = Limits(stall_s=5, frozen_s=0)
    with MjpegServer(lambda n: still, fps=100) as server:
        capture = Capture(lambda: open_source(server.url), limits=limits)
        frames = _take(capture, lambda f: f.index > 120)
        capture.close()
    assert frames
    assert not capture.dropped["frozen"]


def test_a_camera_that_goes_black_and_then_dies_is_said_to_be_lost() -> None:
    black = jpeg(np.zeros((120, 160, 3), np.uint8))
    dark = threading.Event()
    said = Said()
    server = MjpegServer(lambda n: black if dark.is_set() else jpeg(numbered(n)), fps=50).start()
    capture = Capture(lambda: open_source(server.url), notify=said, limits=Limits(2, 0, 1.5))
    assert capture.next()
    dark.set()
    wait_for(lambda: said.kinds == ["black"])
    server.kill()
    with pytest.raises(CameraError, match="lost for good"):
        _take(capture, lambda f: False)
    capture.close()
    assert said.kinds == ["black", "lost"]
    assert [gap.kind for gap in capture.gaps] == ["black", "lost"]


def test_a_dark_night_is_waited_out() -> None:
    black = jpeg(np.zeros((120, 160, 3), np.uint8))
    said = Said()
    server = MjpegServer(lambda n: black if n < 150 else jpeg(numbered(n)), fps=50)
    with server:
        capture = Capture(lambda: open_source(server.url), notify=said, limits=Limits(0.3, 0, 0.3))
        frames = _take(capture, lambda f: True)  # three seconds of black: ten times the patience with other faults
        capture.close()
    assert frames
    assert said.kinds == ["black", "back"]
    assert server.connections >= 2


class _Night(FrameSource):
    """A camera in the dark: black pictures, 20 a second, and what ``at`` gives for some of them."""

    name, live, fps = "cam", True, 0.0

    def __init__(self, at: dict[int, np.ndarray | InputError]) -> None:
        self.at, self.number = at, 0

    def read(self) -> Frame:
        time.sleep(0.3 if self.number - 1 in self.at else 0.05)
        self.number += 1
        found = self.at.get(self.number, np.zeros((24, 32, 3), np.uint8))
        if isinstance(found, InputError):
            raise found
        return Frame(found, self.number, time.monotonic(), 0.0)

    def close(self) -> None:
        pass


def test_a_torn_picture_in_the_night_does_not_end_patience() -> None:
    said = Said()
    night = _Night({20: InputError("torn"), 24: numbered(1)})
    capture = Capture(lambda: night, notify=said, limits=Limits(stall_s=5, frozen_s=0, reconnect_s=0.6))
    assert capture.next(time.monotonic() + 10)
    capture.close()
    assert said.kinds[:2] == ["black", "back"]


def test_a_camera_that_is_gone_when_it_is_opened_again_in_the_dark_is_given_up() -> None:
    said, opened = Said(), itertools.count()

    def open_it() -> FrameSource:
        if next(opened):
            raise CameraError("cam is gone", "plug it in")
        return _Night({})

    capture = Capture(open_it, notify=said, limits=Limits(stall_s=0.2, frozen_s=0, reconnect_s=0.4))
    with pytest.raises(CameraError, match="lost for good"):
        capture.next(time.monotonic() + 10)
    capture.close()
    assert said.kinds == ["black", "lost"]


def test_a_change_of_resolution_is_said_and_lived_with() -> None:
    said = Said()
    with MjpegServer(lambda n: jpeg(numbered(n, *((160, 120) if n < 10 else (320, 240)))), fps=50) as server:
        capture = Capture(lambda: open_source(server.url), notify=said)
        frames = _take(capture, lambda f: f.index >= 20)
        capture.close()
    assert {f.image.shape for f in frames} == {(120, 160, 3), (240, 320, 3)}
    assert said.kinds == ["resolution"]
    assert "160x120 to 320x240" in said[0].text


def test_a_server_that_dies_and_comes_back() -> None:
    said = Said()
    server = MjpegServer(lambda n: jpeg(numbered(n)), fps=50).start()
    capture = Capture(lambda: open_source(server.url), notify=said, limits=QUICK)
    first = capture.next()
    assert first
    server.kill()
    wait_for(lambda: said.kinds == ["lost"])
    server.start()
    frames = _take(capture, lambda f: "back" in said.kinds)
    capture.close()
    server.kill()
    indices = [f.index for f in (first, *frames)]
    assert indices == sorted(set(indices))
    assert said.kinds == ["lost", "back"]
    assert [gap.kind for gap in capture.gaps] == ["lost"]
    assert capture.gaps[0].seconds > 0


def test_a_stall_without_a_closed_connection_is_noticed() -> None:
    stalled = threading.Event()
    said = Said()
    with MjpegServer(lambda n: None if stalled.is_set() else jpeg(numbered(n)), fps=50) as server:
        capture = Capture(lambda: open_source(server.url, timeout_s=30), notify=said, limits=QUICK)
        assert capture.next()
        stalled.set()
        threading.Timer(1.5, stalled.clear).start()
        _take(capture, lambda f: "back" in said.kinds)
        capture.close()
        assert server.connections >= 2
    assert said.kinds == ["stalled", "back"]


def test_a_camera_lost_for_good_ends_in_an_error_and_not_in_a_busy_loop() -> None:
    opened = []
    server = MjpegServer(lambda n: jpeg(numbered(n)), fps=50).start()

    def open_() -> object:
        opened.append(time.monotonic())
        return open_source(server.url)

    said = Said()
    capture = Capture(open_, notify=said, limits=Limits(stall_s=1, frozen_s=0, reconnect_s=2))  # type: ignore[arg-type]
    assert capture.next()
    server.kill()
    with pytest.raises(CameraError, match="lost for good"):
        _take(capture, lambda f: False)
    capture.close()
    assert 2 <= len(opened) <= 5  # 0.5, 1, 2 … seconds apart
    assert said.kinds == ["lost"]


def test_a_picture_that_stands_still_is_given_up_with_the_option_that_lets_it() -> None:
    with MjpegServer(lambda n: jpeg(numbered(5)), fps=50) as server:
        limits = Limits(stall_s=0.2, frozen_s=0.1, reconnect_s=0.3)
        capture = Capture(lambda: open_source(server.url), limits=limits)
        with pytest.raises(CameraError, match="lost for good: frozen") as caught:
            _take(capture, lambda f: False)
        capture.close()
    assert caught.value.remedy.endswith("--frozen 0")


def test_stop_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    with MjpegServer(lambda n: None, fps=50) as server:
        capture = Capture(lambda: open_source(server.url), stop=stop)
        threading.Timer(0.2, stop.set).start()
        assert capture.next() is None
        capture.close()


@pytest.mark.parametrize(("codec", "transport"), [("jpeg", ""), ("h264", "?udp")])
def test_rtsp_is_read_killed_restarted_and_stalled(codec: str, transport: str) -> None:
    with rtsp_server(codec) as server:
        said = Said()
        url = server.url + transport
        capture = Capture(lambda: open_source(url, timeout_s=2), notify=said, limits=Limits(2, 0, 60))
        assert _take(capture, lambda f: f.index >= 10)[0].image.shape == (240, 320, 3)
        server.kill()
        wait_for(lambda: "lost" in said.kinds or _peek(capture, said))
        server.start()
        _take(capture, lambda f: "back" in said.kinds)
        before = len(said)
        assert server.process
        os.kill(server.process.pid, 19)  # SIGSTOP: the connection stays open, nothing comes
        threading.Timer(5, os.kill, (server.process.pid, 18)).start()
        _take(capture, lambda f: len(said) >= before + 2)
        capture.close()
    assert said.kinds[0] in ("lost", "stalled")
    assert said.kinds[1:] in (["back", "stalled", "back"], ["back", "lost", "back"])
    assert len(capture.gaps) == 2


def test_rtsp_goes_over_tcp_and_over_udp_where_asked() -> None:
    def udp_sockets() -> int:
        """Of this process: their inodes are in the table of all."""
        table = {line.split()[9] for line in Path("/proc/self/net/udp").read_text().splitlines()[1:]}
        with os.scandir("/proc/self/fd") as entries:
            mine = {os.readlink(entry.path) for entry in entries if os.path.islink(entry.path)}
        return len(mine & {f"socket:[{inode}]" for inode in table})

    with rtsp_server() as server:
        before = udp_sockets()
        for address, expected in ((server.url, False), (server.url + "?udp", True)):
            source = open_source(address)
            assert source.read().image.shape == (240, 320, 3)
            assert (udp_sockets() > before) == expected
            source.close()


def _peek(capture: Capture, said: Said) -> bool:
    capture._watch(time.monotonic())
    return "stalled" in said.kinds


# ------------------------------------------------------------------------------- cameras of this machine, doubled


class _FakeVideo:
    """Stands for cv2.VideoCapture on a V4L2 device: a driver that stamps its pictures and can be unplugged."""

    plugged = True

    def __init__(self, *args: object) -> None:
        self.settings: dict[int, float] = {}
        self.count = 0

    def isOpened(self) -> bool:
        return _FakeVideo.plugged

    def set(self, key: int, value: float) -> bool:
        self.settings[key] = value
        return True

    def get(self, key: int) -> float:
        if key == cv2.CAP_PROP_POS_MSEC:
            return (time.monotonic() - 0.05) * 1e3
        return self.settings.get(key, 0.0)

    def grab(self) -> bool:
        time.sleep(0.01)
        return _FakeVideo.plugged

    def retrieve(self) -> tuple[bool, np.ndarray]:
        self.count += 1
        return True, numbered(self.count)

    def release(self) -> None:
        pass


@pytest.fixture
def fake_device(monkeypatch: pytest.MonkeyPatch) -> type[_FakeVideo]:
    monkeypatch.setattr(cv2, "VideoCapture", _FakeVideo)
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda p: _FakeVideo.plugged if "/dev/video" in str(p) else exists(p))
    monkeypatch.setattr(os, "access", lambda p, mode: True)
    monkeypatch.setattr(_FakeVideo, "plugged", True)
    return _FakeVideo


def test_a_device_gets_the_mode_asked_for_and_the_drivers_own_time_is_used(fake_device: type[_FakeVideo]) -> None:
    source = open_source("/dev/video0", width=640, height=480, fps=15)
    frame = source.read()
    assert frame
    assert 0.04 < time.monotonic() - frame.captured_at < 2.0  # the driver's stamp, not the time of reading
    settings = source._video.settings
    assert (settings[cv2.CAP_PROP_FRAME_WIDTH], settings[cv2.CAP_PROP_FRAME_HEIGHT]) == (640, 480)
    assert (source.live, source.fps) == (True, 15)


@pytest.mark.parametrize(
    ("pixels", "mean"),
    [
        (np.full((12, 16), 40, np.uint8), 40),
        (np.full((12, 16), 40 * 257, np.uint16), 40),  # Y16
        (np.full((12, 16, 1), 40, np.uint8), 40),
        (np.dstack([np.full((12, 16, 3), 40, np.uint8), np.zeros((12, 16), np.uint8)]), 40),  # BGRX
        (np.zeros((1, 12 * 16 * 2), np.uint8), None),  # bytes as they came
        (np.zeros((12, 16, 2), np.uint8), None),  # YUYV
        (np.zeros((12, 16, 3), np.float32), None),
    ],
)
def test_a_camera_of_another_pixel_format(
    pixels: np.ndarray, mean: int | None, fake_device: type[_FakeVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_device, "retrieve", lambda video: (True, pixels))
    source = open_source("/dev/video0")
    if mean is None:
        with pytest.raises(InputError):
            source.read()
        return
    frame = source.read()
    assert frame
    assert (frame.image.shape, frame.image.dtype, frame.image.mean()) == ((12, 16, 3), np.uint8, mean)


@pytest.mark.parametrize("source", ["", "*.png"])
def test_pictures_come_in_the_order_of_their_numbers(tmp_path: Path, source: str) -> None:
    for number in (10, 9, 1, 100, 2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    opened = open_source(str(tmp_path / source))
    assert [frame.image[0, 0, 0] for frame in opened] == [1, 2, 9, 10, 100]


def test_a_folder_of_clips_is_told(tmp_path: Path) -> None:
    (tmp_path / "my clip.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="holds clips, no pictures") as caught:
        open_source(str(tmp_path))
    assert caught.value.remedy == f"give one of them: --camera '{tmp_path}/my clip.mp4'"


def test_a_folder_of_folders_of_pictures_is_told(tmp_path: Path) -> None:
    (tmp_path / "my cats").mkdir()
    (tmp_path / "my cats" / "1.png").write_bytes(b"x")
    with pytest.raises(InputError, match="holds no pictures itself, but folders of them") as caught:
        open_source(str(tmp_path))
    assert caught.value.remedy == f"give one of them: --camera '{tmp_path}/my cats'"


def test_a_camera_that_never_sends_may_share_its_usb(
    fake_device: type[_FakeVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source("0")
    monkeypatch.setattr(fake_device, "grab", lambda video: False)
    with pytest.raises(CameraError, match="0 sends no picture; where cameras share a USB: --width 640"):
        source.read()


def test_a_camera_that_does_not_open_may_be_one_on_a_ribbon(
    fake_device: type[_FakeVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_device, "isOpened", lambda video: False)
    for found, word in ((["/dev/media0"], True), ([], False)):
        monkeypatch.setattr(glob, "glob", lambda pattern, found=found: found if "media" in pattern else [])
        with pytest.raises(CameraError, match="camera 0 cannot be opened") as caught:
            open_source("0")
        assert ("--camera csi://0" in caught.value.remedy) == word


def test_a_mode_that_the_camera_does_not_have_is_said(fake_device: type[_FakeVideo]) -> None:
    said = Said()
    capture = Capture(lambda: open_source("0", width=1920, height=1080), notify=said)
    assert capture.next()
    capture.close()
    assert [notice.text for notice in said] == ["0 gives 160x120, not 1920x1080 as asked"]


def test_an_unplugged_device_is_said_once_and_found_again(
    fake_device: type[_FakeVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Said()
    capture = Capture(lambda: open_source("0"), notify=said)
    assert capture.next()
    fake_device.plugged = False
    wait_for(lambda: said.kinds == ["lost"])
    fake_device.plugged = True
    _take(capture, lambda f: "back" in said.kinds)
    capture.close()
    assert said.kinds == ["lost", "back"]


def test_a_camera_that_is_not_there_or_not_allowed_says_what_to_do() -> None:
    with pytest.raises(CameraError, match="no camera 97") as caught:
        open_source("97")
    assert "--camera also takes a video" in caught.value.remedy or "found: /dev/video" in caught.value.remedy
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    with tempfile.NamedTemporaryFile(prefix="video") as device:  # its mode is 600, as root's
        uid = 65534
        done = subprocess.run(
            [
                *(sys.executable, "-c"),
                "import os, sys; from pathlib import Path; from edge_ran.camera.opencv import _check_device\n"
                f"os.setgroups([]); os.setgid({uid}); os.setuid({uid})\n"
                "_check_device('0', Path(sys.argv[1]))",
                device.name,
            ],
            capture_output=True,
            text=True,
        )
    assert f"this user may not use {device.name}" in done.stderr


def test_a_csi_camera_is_the_boards_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = b"".join(jpeg(numbered(n)) for n in range(8))
    (tmp_path / "stream").write_bytes(stream)
    program = tmp_path / "rpicam-vid"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\ncat {tmp_path}/stream\nexec sleep 30\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    source = open_source("csi://1", width=320, height=240, fps=20, timeout_s=0.5)
    assert [number_of(source.read().image) for _ in range(8)] == list(range(8))
    with pytest.raises(CameraError, match="nothing for"):
        source.read()
    source.close()
    assert source._camera._process.returncode is not None
    arguments = (tmp_path / "arguments").read_text()
    assert "--camera 1" in arguments
    assert "--width 320 --height 240 --framerate 20" in arguments


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://user:secret@host:554/x", "rtsp://host:554/x"),
        ("rtsp://user:sec@ret@host/x", "rtsp://host/x"),
        ("rtsp://user:sec/ret@host/x", "rtsp://host/x"),
        ("rtsp://user:sec@re/t@192.168.1.2/x", "rtsp://192.168.1.2/x"),
        ("rtsp://user:s@e#c?r/et@camera:554", "rtsp://camera:554"),
        ("rtsp://user:secret@host/who@home", "rtsp://host/who@home"),
        ("http://host:80/x?user=a&pwd=secret&n=1", "http://host:80/x?user=a&pwd=…&n=1"),
        ("rtsp://host/user=a_password=secret_channel=1", "rtsp://host/user=a_password=…"),
        ("http://host/cgi?loginuse=a&loginpas=secret&x=1", "http://host/cgi?loginuse=a&loginpas=…&x=1"),
        ("http://host/snap?key=secret", "http://host/snap?key=…"),
        ("http://host/1/current/?_username=a&_signature=0f3a", "http://host/1/current/?_username=a&_signature=…"),
        ("http://host/x?design=1&sid=secret", "http://host/x?design=1&sid=…"),
        ("admin:secret@192.168.1.2/cam", "192.168.1.2/cam"),
        ("clips/a:b@c.mp4", "clips/a:b@c.mp4"),
        ("rtsp://[fe80::1]:554/who@home", "rtsp://[fe80::1]:554/who@home"),
        ("rtsp://host:554/who@home", "rtsp://host:554/who@home"),
        ("clips/pwd=1/who@home.mp4", "clips/pwd=1/who@home.mp4"),
    ],
)
def test_addresses_are_told_without_their_passwords(address: str, shown: str) -> None:
    assert without_password(address) == shown


@pytest.mark.parametrize("words", [{}, {"width": 5}, {"fps": 5.0}])
@pytest.mark.parametrize("scheme", ["rtsp", "http", "RTSP"])
@pytest.mark.parametrize("password", ["secret", "sec/ret", "s@sec/ret"])
def test_no_complaint_repeats_a_password(scheme: str, password: str, words: dict) -> None:
    with pytest.raises(EdgeRanError) as caught:
        open_source(f"{scheme}://user:{password}@127.0.0.1:1/cam", **words)
    assert "sec" not in str(caught.value) + caught.value.remedy
    assert "127.0.0.1:1/cam" in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
@pytest.mark.parametrize("password", ["p@ss/word", "p@ss#1", "a@b?c"])
def test_a_password_that_breaks_the_address_is_told_how_to_write_it(scheme: str, password: str) -> None:
    with pytest.raises(CameraError) as caught:
        open_source(f"{scheme}://user:{password}@127.0.0.1:1/cam")
    assert "write / as %2F" in caught.value.remedy


def test_a_video_behind_an_address_is_named_without_its_password(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.avi", 3)  # can be played without going back, which this server does not allow
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            source = open_source(f"http://user:secret@127.0.0.1:{server.server_port}/clip.avi")
            assert (len(list(source)), source.live) == (3, False)
            assert source.name == f"http://127.0.0.1:{server.server_port}/clip.avi"
            source.close()
        finally:
            server.shutdown()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_camera_of_this_network_is_not_asked_for_through_a_proxy(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "snap.jpg").write_bytes(jpeg(numbered(3)))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            source = open_source(f"http://{host}:{server.server_port}/snap.jpg", timeout_s=5)
            assert number_of(source.read().image) == 3
            source.close()
            write_clip(tmp_path / "clip.avi", 3)
            source = open_source(f"http://{host}:{server.server_port}/clip.avi", timeout_s=5)
            assert len(list(source)) == 3
            source.close()
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("host", "near"),
    [
        *((host, True) for host in ("192.168.1.7", "10.0.0.2", "169.254.3.4", "::1", "fe80::1", "camera", "pi.local")),
        *((host, False) for host in ("8.8.8.8", "camera.example.org", "2606:4700::1111")),
    ],
)
def test_what_is_in_this_network(host: str, near: bool) -> None:
    assert is_near(host) is near


def test_an_address_that_does_not_answer_does_not_hold_a_stop_up() -> None:
    stop, late = threading.Event(), threading.Event()
    closed = threading.Event()

    def slow() -> SimpleNamespace:
        stop.set()
        late.wait(20)
        return SimpleNamespace(close=closed.set)

    with pytest.raises(CameraError, match="stopped"):
        Capture(slow, stop=stop)
    late.set()
    assert closed.wait(20)  # what is opened after all is given back


def test_decoding_counts_as_capturing(tmp_path: Path) -> None:
    source = open_source(str(write_clip(tmp_path / "clip.mp4", 3)))
    video, grabbed_at = source._video, []

    def grab() -> bool:
        grabbed_at.append(time.monotonic())
        time.sleep(0.05)
        return video.grab()

    source._video = SimpleNamespace(grab=grab, get=video.get, retrieve=video.retrieve, release=video.release)
    frame = source.read()
    assert frame.capture_ms >= 50
    assert frame.captured_at <= grabbed_at[0]  # of a file, all of the grab is decoding
    source.close()


def _all(capture: Capture) -> list[Frame]:
    frames = []
    while frame := capture.next():
        frames.append(frame)
    capture.close()
    return frames


def _take(capture: Capture, enough) -> list[Frame]:
    frames = []
    while frame := capture.next():
        frames.append(frame)
        if enough(frame):
            break
    return frames


@contextlib.contextmanager
def dripping(first: bytes, drop: bytes) -> Iterator[str]:
    """An address whose server sends ``first`` at once and ``drop`` again and again, for as long as anybody listens."""
    listener, ended = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(first)
            while not ended.wait(0.02):
                connection.sendall(drop)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        ended.set()
        listener.close()


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=a\r\n", b"x: y\r\n"),
    ],
)
def test_a_camera_that_drips_is_not_waited_for(first: bytes, drop: bytes) -> None:
    with dripping(first, drop) as address, pytest.raises(CameraError, match=r"does not answer|was lost"):
        open_source(address, timeout_s=0.5)


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"Content-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n--b\r\n\r\n\xff\xd8", b"x"),
        (b"Content-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n--b\r\nContent-Length: 99999\r\n\r\n", b"x"),
        (b"Content-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n", b"x\n"),
        (b"Content-Type: image/jpeg\r\n\r\n\xff\xd8", b"x"),
    ],
)
def test_a_picture_that_drips_is_given_up(head: bytes, drop: bytes) -> None:
    with dripping(b"HTTP/1.1 200 OK\r\n" + head, drop) as address:
        source = open_source(address, timeout_s=0.5)
        with pytest.raises(CameraError):
            source.read()
        source.close()


def test_a_jpeg_of_too_many_pixels_from_a_camera_is_not_decoded() -> None:
    """Its header is enough to tell."""
    whole = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    start = whole.index(b"\xff\xc0") + 5
    bomb = whole[:start] + struct.pack(">HH", 30_000, 30_000) + whole[start + 4 :]
    with pytest.raises(InputError, match="more than"):
        check_pixels(bomb, "the camera")
    check_pixels(whole, "the camera")


def test_pipes_and_devices_are_no_pictures_or_videos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "a.mp4")
    os.symlink("/dev/zero", tmp_path / "b.jpg")
    os.symlink("/dev/zero", tmp_path / "b.mp4")
    for name in ("a.jpg", "b.jpg"):
        with pytest.raises(InputError, match="a pipe or a device"):
            read_picture(tmp_path / name)
        with pytest.raises(InputError, match="a pipe or a device"):
            open_source(str(tmp_path / name)).read()
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(InputError, match="a pipe or a device"):
            open_source(str(tmp_path / name))


def test_an_opening_that_hangs_ends_with_the_duration() -> None:
    release = threading.Event()

    def open_it() -> FrameSource:
        release.wait(30)
        raise CameraError("late")

    with pytest.raises(CameraError, match=r"did not answer within 0\.2 s"):
        Capture(open_it, patience_s=0.2)
    release.set()
