"""Streams and pictures as cheap cameras send them: only the pictures' own bytes are believed."""

from __future__ import annotations

import http.server
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ran.camera import Capture, Limits, open_source, opencv
from edge_ran.camera.mjpeg import _PART, _Bytes
from edge_ran.errors import CameraError, InputError


def jpeg(number: int = 0, extra: bytes = b"") -> bytes:
    """A JPEG as bright as 20 ``number``, with ``extra`` bytes behind its start."""
    picture = np.full((24, 32, 3), 20 * number, np.uint8)
    picture[::3] //= 2
    data: bytes = cv2.imencode(".jpg", picture)[1].tobytes()
    return data[:2] + extra + data[2:]


def thumbnail(number: int) -> bytes:
    """An APP1 segment with a whole JPEG in it, as phones' EXIF blocks have."""
    inner = b"Exif\0\0" + jpeg(number)
    return b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner


def pictures(sent: bytes, count: int, block: int = 7) -> list[bytes]:
    blocks = iter([sent[at : at + block] for at in range(0, len(sent), block)])
    stream = _Bytes(lambda: next(blocks, b""), "camera", 10)
    return [stream.jpeg() for _ in range(count)]


HEAD = b"Content-Type: image/jpeg\r\n"
FORMS: dict[str, Callable[[bytes], bytes]] = {
    "lengths": lambda p: b"--frame\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % len(p) + p + b"\r\n",
    "no lengths": lambda p: b"--frame\r\n" + HEAD + b"\r\n" + p + b"\r\n",
    "too short a length": lambda p: b"--frame\r\n" + HEAD + b"Content-Length: %d\r\n\r\n" % (len(p) - 2) + p + b"\r\n",
    "a length of nothing": lambda p: b"--frame\r\n" + HEAD + b"Content-Length: 0\r\n\r\n" + p + b"\r\n",
    "no dashes": lambda p: b"frame\r\n" + HEAD + b"\r\n" + p + b"\r\n",
    "plain line ends": lambda p: b"--frame\nContent-Type: image/jpeg\n\n" + p + b"\n",
    "padding of zeros": lambda p: b"--frame\r\n" + HEAD + b"\r\n" + p + bytes(100),
    "padding of ones": lambda p: b"--frame\r\n" + HEAD + b"\r\n" + p + b"\xff" * 33,
    "nothing between": lambda p: p,
}


@pytest.mark.parametrize("block", [1, 7, 100_000])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_stream_gives_its_pictures(form: str, block: int) -> None:
    wanted = [jpeg(number) for number in range(4)]
    assert pictures(b"".join(map(FORMS[form], wanted)), 4, block) == wanted


@pytest.mark.parametrize("extra", [thumbnail(3), b"\xff\xff\xff", b"\xff\xfe\x00\x02", thumbnail(1) + thumbnail(2)])
def test_a_thumbnails_end_is_not_the_pictures(extra: bytes) -> None:
    wanted = [jpeg(number, extra) for number in range(3)]
    assert pictures(b"".join(map(FORMS["no lengths"], wanted)), 3) == wanted


def test_a_part_that_is_no_picture_is_told() -> None:
    blocks = iter([FORMS["lengths"](p) for p in (jpeg(1), b"no picture", b"", jpeg(2))])
    stream = _Bytes(lambda: next(blocks, b""), "camera", 10)
    assert stream.jpeg() == jpeg(1)
    for _ in range(2):
        with pytest.raises(InputError, match="a part that is no picture"):
            stream.jpeg()
    assert stream.jpeg() == jpeg(2)


def test_colons_without_end_do_not_hold_the_process_up() -> None:
    blocks = iter([b":" * (1 << 16), b":" * (1 << 16), FORMS["lengths"](jpeg(1))])
    assert _Bytes(lambda: next(blocks, b""), "camera", 5).jpeg() == jpeg(1)
    assert len(_PART.findall(FORMS["lengths"](jpeg(1)))) == 1


def test_a_picture_torn_anywhere_swallows_no_other() -> None:
    whole, part = jpeg(1), FORMS["no lengths"]
    for cut in range(3, len(whole) - 2):
        blocks = [part(jpeg(2)), part(whole[:cut])]
        stream = _Bytes(blocks.pop, "camera", 10)
        stream.delimiter = b"--frame"
        with pytest.raises(InputError, match="broken picture"):
            stream.jpeg()
        assert stream.jpeg() == jpeg(2), cut


def test_a_torn_picture_is_told_and_the_next_one_is_whole() -> None:
    sent = jpeg(1) + jpeg(2)[:-40] + jpeg(3)
    blocks = iter([sent])
    stream = _Bytes(lambda: next(blocks, b""), "camera", 10)
    assert stream.jpeg() == jpeg(1)
    with pytest.raises(InputError, match="camera sent a broken picture"):
        stream.jpeg()
    assert stream.jpeg() == jpeg(3)


@contextmanager
def server(kind: str, body: Callable[[int], bytes], has_length: bool = True) -> Iterator[str]:
    """An HTTP server that answers each request with one body of that content type."""
    asked = iter(range(100))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = body(next(asked))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            if has_length:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def brightness(opened: object, count: int) -> list[int]:
    return [round(float(opened.read().image[1].mean()) / 20) for _ in range(count)]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "kind", ["image/jpg", "IMAGE/JPEG", "text/plain", "image/jpeg;size=3", "application/octet-stream"]
)
def test_a_picture_is_one_whatever_the_server_calls_it(kind: str) -> None:
    with server(kind, jpeg) as url:
        assert brightness(open_source(url, fps=100), 3) == [0, 1, 2]


@pytest.mark.parametrize("ending", [".png", ".webp", ".bmp"])
def test_snapshots_of_other_formats(ending: str) -> None:
    def picture(number: int) -> bytes:
        data: bytes = cv2.imencode(ending, np.full((24, 32, 3), 20 * number, np.uint8))[1].tobytes()
        return data

    with server("image/x", picture) as url:
        assert brightness(open_source(url, fps=100), 3) == [0, 1, 2]


def test_a_stream_of_one_picture_is_asked_again() -> None:
    with server("multipart/x-mixed-replace; boundary=x", jpeg, has_length=False) as url:
        assert brightness(open_source(url, fps=100), 3) == [0, 1, 2]


def test_a_stream_of_one_whole_part_is_asked_again() -> None:
    def part(number: int) -> bytes:
        return b"--x\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg(number) + b"\r\n--x--\r\n"

    with server("multipart/x-mixed-replace; boundary=x", part, has_length=False) as url:
        assert brightness(open_source(url, fps=100), 3) == [0, 1, 2]


def test_a_camera_asked_now_and_then_is_not_taken_for_silent() -> None:
    said: list[str] = []
    with server("image/jpeg", lambda number: jpeg(number + 1)) as url:
        limits = Limits(stall_s=0.3, frozen_s=0)
        capture = Capture(
            lambda: open_source(url, fps=0.9), limits=limits, notify=lambda notice: said.append(notice.kind)
        )
        assert capture.next(time.monotonic() + 10)
        assert capture.next(time.monotonic() + 10)
        capture.close()
    assert said == []


def test_a_page_is_no_camera() -> None:
    with server("text/html", lambda number: b"<html>") as url, pytest.raises(InputError, match="sends text/html"):
        open_source(url)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="device numbers of Linux")
def test_a_link_to_a_device_is_asked_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "cam_left"
    link.symlink_to("/dev/null")
    with pytest.raises(InputError, match="a pipe or a device"):
        open_source(str(link))
    monkeypatch.setattr(opencv, "_VIDEO4LINUX", os.major(Path("/dev/null").stat().st_rdev))
    with pytest.raises(CameraError, match=r"camera .*cam_left cannot be opened"):
        open_source(str(link))
    monkeypatch.undo()
    with pytest.raises(CameraError, match="/dev/null is no camera"):
        open_source("/dev/null")
    for name in ("/dev/v4l/by-id/usb-ACME-video-index0", "/dev/video77"):
        with pytest.raises(CameraError, match="there is no camera"):
            open_source(name)


def test_the_length_of_the_first_picture_is_not_that_of_the_stream():
    """Tasmota sends the header lines of its first picture with those of the answer, and no delimiter before it."""
    parts = b"\r\n".join([jpeg(0), *(FORMS["lengths"](jpeg(number)) for number in range(1, 4))])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            head = "Content-Type: multipart/x-mixed-replace;boundary=frame\r\nContent-Type: image/jpeg"
            length = f"Content-Length: {len(jpeg(0))}"
            self.wfile.write(f"HTTP/1.1 200 OK\r\n{head}\r\n{length}\r\n\r\n".encode() + parts)

        def log_message(self, *_: object) -> None:
            pass

    asked: list[str] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        opened = open_source(f"http://127.0.0.1:{running.server_port}/")
        assert brightness(opened, 4) == [0, 1, 2, 3]
        opened.close()
        running.shutdown()
    assert len(asked) == 1


def video_part(number: int) -> bytes:
    return b"--frame\r\nContent-Type: video/x-h264\r\nX-FrameType: 0\r\n\r\n" + bytes([number]) * 500 + b"\r\n"


def test_a_stream_of_video_parts_is_named_at_once() -> None:
    body = b"".join(map(video_part, range(1, 9)))
    with server("multipart/x-mixed-replace; boundary=frame", lambda _: body, has_length=False) as url:
        opened = open_source(url)
        with pytest.raises(CameraError, match="sends video/x-h264, not JPEG pictures") as caught:
            opened.read()
        opened.close()
        assert "rtsp" in caught.value.remedy
        capture = Capture(lambda: open_source(url))
        with pytest.raises(CameraError, match="sends video/x-h264"):
            capture.next(time.monotonic() + 10)
        capture.close()


def test_other_parts_among_pictures_are_left_out() -> None:
    body = b"".join([FORMS["lengths"](jpeg(1)), video_part(3), FORMS["lengths"](jpeg(2))])
    with server("multipart/x-mixed-replace; boundary=frame", lambda _: body, has_length=False) as url:
        opened = open_source(url)
        assert brightness(opened, 1) == [1]
        with pytest.raises(InputError, match="no picture"):
            opened.read()
        assert brightness(opened, 1) == [2]
        opened.close()


def test_a_certificate_of_ones_own_is_named(tmp_path: Path) -> None:
    certificate = pytest.importorskip("edge_ran.phone.certificate")
    pytest.importorskip("cryptography", reason="needs edge-ran[phone]")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        server.socket = certificate.context("127.0.0.1", tmp_path)[0].wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *words: None  # type: ignore[method-assign]
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(CameraError, match="has a certificate that this machine does not trust") as caught:
            open_source(f"https://127.0.0.1:{server.server_port}/video")
    assert "SSL_CERT_FILE=camera.pem" in caught.value.remedy
