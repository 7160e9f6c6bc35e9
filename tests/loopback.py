"""Cameras on loopback for the tests: an HTTP MJPEG server whose behaviour can be changed, and a real RTSP server."""

from __future__ import annotations

import contextlib
import http.server
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from ports import free_port

RTSP_PACKAGES = "gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly python3-gi"
SYSTEM_PYTHON = "/usr/bin/python3"  # the binding of GStreamer's RTSP server is a Debian package


def numbered(index: int, width: int = 160, height: int = 120) -> np.ndarray:
    """A coloured noise picture that carries its number as 16 black or white blocks in the top row."""
    image = np.random.default_rng(index).integers(60, 200, (height, width, 3), np.uint8)
    block = width // 16
    for bit in range(16):
        image[:block, bit * block : (bit + 1) * block] = 255 if index >> bit & 1 else 0
    return image


def number_of(image: np.ndarray) -> int:
    """Read the number back; survives JPEG and MPEG-4."""
    block = image.shape[1] // 16
    row = image[block // 4 : 3 * block // 4].mean(axis=(0, 2))
    return sum(
        1 << bit for bit in range(16) if row[bit * block + block // 4 : (bit + 1) * block - block // 4].mean() > 128
    )


def write_clip(path: Path, frames: int = 30, fps: float = 30.0, size: tuple[int, int] = (320, 240)) -> Path:
    """A clip of numbered frames, motion JPEG in AVI or MPEG-4 in MP4 by the suffix."""
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    for index in range(frames):
        writer.write(numbered(index, *size))
    writer.release()
    return path


def torn(path: Path, *numbers: int) -> Path:
    """Overwrite some frames of an AVI of JPEGs, but for their first marks."""
    data = path.read_bytes()
    starts = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
    broken = bytearray(data)
    for number in numbers:
        at = starts[number]
        length = int.from_bytes(data[at - 4 : at], "little")
        broken[at + 2 : at + length] = bytes(length - 2)
    path.write_bytes(broken)
    return path


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image)[1].tobytes()


class MjpegServer:
    """``picture(n)`` gives the bytes of the n-th part; None stalls without closing. Counts its connections."""

    def __init__(self, picture: Callable[[int], bytes | None], fps: float = 30.0, lengths: bool = True) -> None:
        self.picture, self.fps, self.lengths = picture, fps, lengths
        self.connections = 0
        self.sent = 0
        self.closing = threading.Event()
        self._server: http.server.ThreadingHTTPServer | None = None
        self.port = free_port()  # its own when it is killed, too, so that it can be started again

    def start(self) -> MjpegServer:
        camera = self
        self.closing = threading.Event()
        closing = self.closing

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                if self.path == "/page":
                    self.send_response(200)
                    self.send_header("Content-Type", "text/html")
                    self.end_headers()
                    return
                if self.path == "/shot.jpg":
                    camera.connections += 1
                    body = camera.picture(camera.sent) or b""
                    camera.sent += 1
                    self.send_response(200)
                    self.send_header("Content-Type", "image/jpeg")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                if self.path != "/stream":
                    self.send_error(503 if self.path == "/busy" else 404)
                    return
                camera.connections += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(OSError):
                    while not closing.wait(1 / camera.fps):
                        part = camera.picture(camera.sent)
                        if part is None:
                            continue
                        camera.sent += 1
                        length = f"Content-Length: {len(part)}\r\n" if camera.lengths else ""
                        head = f"--frame\r\nContent-Type: image/jpeg\r\n{length}\r\n".encode()
                        self.wfile.write(head + part + b"\r\n")
                self.close_connection = True

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def kill(self) -> None:
        """Close the listening socket and every stream."""
        self.closing.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def __enter__(self) -> MjpegServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.kill()


_RTSP = """
import sys, gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(sys.argv[2])
factory.set_shared(True)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""
_PICTURE = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=25/1"
_LAUNCH = {
    "jpeg": f"( {_PICTURE} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )",
    "h264": f"( {_PICTURE} ! x264enc tune=zerolatency key-int-max=25 ! rtph264pay name=pay0 pt=96 )",
}


def rtsp_missing(codec: str) -> str:
    """Why no RTSP server can run here, or an empty string."""
    encoder = {"jpeg": "jpegenc", "h264": "x264enc"}[codec]
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer, Gst; "
    probe += f"Gst.init(None); assert Gst.ElementFactory.find('{encoder}')"
    try:
        done = subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, timeout=60)
    except OSError as error:
        return f"no {SYSTEM_PYTHON}: {error}"
    return "" if done.returncode == 0 else f"needs Debian's {RTSP_PACKAGES}"


class RtspServer:
    """A real RTSP server in a process of its own, on a fixed port, so that it can be killed, stopped and restarted."""

    def __init__(self, codec: str = "jpeg") -> None:
        self.launch = _LAUNCH[codec]
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/cam"

    def start(self) -> RtspServer:
        self.process = subprocess.Popen(
            [SYSTEM_PYTHON, "-c", _RTSP, str(self.port), self.launch],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline().strip() == "ready"
        return self

    def kill(self) -> None:
        if self.process:
            with self.process as process:
                process.kill()
            self.process = None


@contextlib.contextmanager
def rtsp_server(codec: str = "jpeg") -> Iterator[RtspServer]:
    if reason := rtsp_missing(codec):
        pytest.skip(reason)
    server = RtspServer(codec).start()
    try:
        yield server
    finally:
        server.kill()


def wait_for(condition: Callable[[], object], seconds: float = 20.0, every_s: float = 0.02) -> None:
    """Wait until the condition holds; the time-out only ends a test that has failed already."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(every_s)
