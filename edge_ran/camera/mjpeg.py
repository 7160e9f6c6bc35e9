"""Cameras that send JPEG pictures one after the other: over HTTP, or from a program's standard output.

Read here and not by FFmpeg: a picture is handed out the moment its last byte is there, a broken one is seen as such,
and a silent server is noticed by the socket's own time-out.
"""

from __future__ import annotations

import contextlib
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from edge_ran.camera.address import without_password
from edge_ran.camera.http_request import led_to, request
from edge_ran.errors import CameraError, InputError

MAX_PICTURE_BYTES = 64 << 20
_LONGEST_HEADER = 1 << 16
_LONGEST_LINE = 256
SNAPSHOTS_PER_S = 5.0  # asked of an address that answers with one picture, unless told otherwise
_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF8")  # what a picture begins with
# The end of a part's last header line, from its last colon on (from any, colons without end take hours), and the empty
# line.
_PART = re.compile(rb":[^:\r\n]*\r?\n\r?\n")
_KIND = re.compile(rb"content-type:\s*([\w.+-]+/[\w.+-]+)", re.IGNORECASE)
_ENOUGH_TO_TELL = 12  # bytes
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # within coded data, FF 00 is a byte and FF D0..D7 a restart


class OtherStream(CameraError):
    """What the camera sends is no stream of pictures, and will be none when it is opened again."""


@dataclass(frozen=True)
class HttpVideo:
    """The address holds a video, not a camera: FFmpeg's business, which may lose the password on its way there."""

    address: str


class _Bytes:
    """A byte stream with a buffer. ``more`` returns at least one byte, or none at the end of the stream.

    A picture, from ``begin`` on, may take ``timeout_s``: a server that sends a byte now and then is never silent.
    """

    def __init__(self, more: Callable[[], bytes], name: str, timeout_s: float) -> None:
        self._more, self._name, self._timeout_s = more, name, timeout_s
        self.delimiter = b""  # what begins a part, where it is known
        self.other_kind = ""  # what the last part that was no picture says it is
        self._buffer = bytearray()
        self.begin()

    def begin(self) -> None:
        """Begin a picture."""
        self._until = time.monotonic() + self._timeout_s

    def jpeg(self) -> bytes:
        """Take the next JPEG, whatever stands before it: from its start to the end that its own marks tell.

        Raises:
            InputError: a part of the stream is no picture, or the picture has no end.
        """
        self._seek_picture()
        at = len(_START) - 1
        while True:
            self._have(at + 2)
            if self._buffer[at] != 0xFF:
                at = self._next_marker(at)
                continue
            kind = self._buffer[at + 1]
            if kind == 0xD9:
                return self._take(at + 2)
            if kind == 0xD8:
                del self._buffer[:at]
                raise InputError(f"{self._name} sent a broken picture")
            if kind == 0xFF:  # a fill byte
                at += 1
            elif kind in (0x00, 0x01) or 0xD0 <= kind <= 0xD7:
                at += 2
            else:
                at = self._behind_segment(at)
                if kind == 0xDA:
                    at = self._next_marker(at)

    def feed(self, data: bytes) -> None:
        """Put bytes that were read elsewhere at the front."""
        self._buffer[:0] = data

    def _next_marker(self, at: int) -> int:
        """Return where the next mark stands in a JPEG's coded data. Raises InputError where the part ends before."""
        while True:
            found = _MARKER.search(self._buffer, at)
            end = len(self._buffer) if found is None else found.start()
            self._check_whole(at, end)
            if found is not None:
                return found.start()
            at = max(at, end - max(1, len(self.delimiter)))
            self._have(end + 1)

    def _behind_segment(self, at: int) -> int:
        """Return where the segment that begins at ``at`` ends. Raises InputError where the part ends within it."""
        self._have(at + 4)
        end = at + 2 + int.from_bytes(self._buffer[at + 2 : at + 4], "big")
        while True:
            self._check_whole(at, end + len(self.delimiter))
            if len(self._buffer) >= end:
                return end
            self._fill()

    def _check_whole(self, at: int, end: int) -> None:
        """Raise InputError where the next part begins between ``at`` and ``end``, and go on there."""
        torn = self._buffer.find(self.delimiter, at, end) if self.delimiter else -1
        if torn >= 0:
            del self._buffer[:torn]
            raise InputError(f"{self._name} sent a broken picture")

    def _seek_picture(self) -> None:
        """Drop what stands before a picture: a delimiter, header lines, padding."""
        while True:
            at = self._buffer.find(_START)
            before = self._buffer if at < 0 else self._buffer[:at]
            parts = [found.start() for found in _PART.finditer(before)]
            if len(parts) > 1:
                kind = _KIND.search(before, 0, parts[0] + _LONGEST_LINE)
                self.other_kind = kind[1].decode("latin-1").lower() if kind else ""
                del self._buffer[: parts[1]]
                raise InputError(f"{self._name} sent a part that is no picture")
            if at >= 0:
                del self._buffer[:at]
                return
            if len(self._buffer) > _LONGEST_HEADER:
                del self._buffer[:-_LONGEST_HEADER]
            self._fill()

    def _have(self, count: int) -> None:
        if count > MAX_PICTURE_BYTES:
            self._buffer.clear()
            raise InputError(f"{self._name} sent {MAX_PICTURE_BYTES} bytes without the end of a picture")
        while len(self._buffer) < count:
            self._fill()

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _fill(self) -> None:
        if time.monotonic() > self._until:
            what = f"{self._name} sent no whole picture in {self._timeout_s:g} s"
            raise CameraError(what, "check the camera's power and network")
        block = self._more()
        if not block:
            raise CameraError(f"{self._name} closed the connection", "check the camera's power and network")
        self._buffer += block


class HttpCamera:
    """MJPEG over HTTP (``multipart/x-mixed-replace``), or an address that answers each request with one picture.

    Of a stream only the pictures' own bytes are believed: servers differ in delimiters, headers and lengths.
    """

    def __init__(self, url: str, response: Any, first: bytes, is_stream: bool, fps: float, timeout_s: float) -> None:
        """Go on with an answer of which the bytes ``first`` are read already."""
        self.name, self._wanted_fps = url, fps
        self._response, self._timeout_s = response, timeout_s
        self._stream = _Bytes(lambda: response.read1(1 << 16), without_password(url), timeout_s)
        self._is_stream, self._first, self._pictures = is_stream, b"" if is_stream else first, 0
        if is_stream:
            self._stream.feed(first)
            boundary = response.headers.get_param("boundary")
            if isinstance(boundary, str) and len(boundary.strip("-")) > 3:
                self._stream.delimiter = b"--" + boundary.strip("-").encode("latin-1", "replace")
            if response.headers.get_content_maintype() == "multipart":
                response.length = None  # Tasmota sends its first picture's header lines along with the answer's own
        self._next_request = time.monotonic()

    @property
    def fps(self) -> float:
        """Pictures a second, as far as this side decides: 0 for a stream."""
        return self._wanted_fps or (0.0 if self._is_stream else SNAPSHOTS_PER_S)

    def read(self) -> bytes:
        """Return the next JPEG. Raises InputError (a broken part), CameraError (lost) or OtherStream."""
        self._stream.begin()
        try:
            return self._next_of_stream() if self._is_stream else self._snapshot()
        except TimeoutError as error:
            what = f"{without_password(self.name)} sent nothing for {self._timeout_s:g} s"
            raise CameraError(what, "check the camera's power and network") from error
        except (OSError, HTTPException, ValueError) as error:  # ValueError: closed by another thread
            raise CameraError(f"{without_password(self.name)} was lost: {error}", "check the network") from error

    def _next_of_stream(self) -> bytes:
        try:
            jpeg = self._stream.jpeg()
        except CameraError:
            if self._pictures != 1:
                raise
            self._is_stream = False  # what calls itself a stream gives one picture an answer
            self._response.close()
            return self._snapshot()
        except InputError as error:
            kind = self._stream.other_kind
            if self._pictures or not kind.startswith("video/"):
                raise
            what = f"{without_password(self.name)} sends {kind}, not JPEG pictures"
            raise OtherStream(what, "give the address of its JPEG stream or snapshots, or rtsp://…") from error
        self._pictures += 1
        return jpeg

    def _snapshot(self) -> bytes:
        time.sleep(max(0.0, self._next_request - time.monotonic()))
        self._next_request = max(self._next_request, time.monotonic() - 1.0) + 1.0 / self.fps
        if self._response.closed:
            self._response = request(self.name, self._timeout_s)
        with self._response as response:
            picture, until = bytearray(self._first), time.monotonic() + self._timeout_s
            self._first = b""
            while len(picture) < MAX_PICTURE_BYTES and (block := response.read1(1 << 16)):
                picture += block
                if time.monotonic() > until:
                    raise TimeoutError
            return _only_part(picture) if response.headers.get_content_maintype() == "multipart" else bytes(picture)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._response.close()


def open_http(url: str, fps: float, timeout_s: float) -> HttpCamera | HttpVideo:
    """Connect and look at what is sent. Raises CameraError when nothing answers, InputError when it is no picture."""
    response = request(url, timeout_s)
    kind = response.headers.get_content_type()
    if kind.startswith("multipart/"):  # its first picture may be long in coming
        return HttpCamera(url, response, b"", True, fps, timeout_s)
    try:
        first, until = response.read1(1 << 12), time.monotonic() + timeout_s
        while len(first) < _ENOUGH_TO_TELL and time.monotonic() < until and (more := response.read1(1 << 12)):
            first += more
    except (OSError, HTTPException, ValueError) as error:
        response.close()
        raise CameraError(f"{without_password(url)} sends nothing: {error}", "check the camera") from error
    is_webp = first[:4] == b"RIFF" and first[8:12] == b"WEBP"  # an AVI begins with RIFF, too
    if is_webp or kind.startswith("image/") or first.startswith((b"--", *_PICTURES)):
        # A JPEG of no announced length may be the first of many.
        has_length = (response.headers.get("Content-Length") or "").strip().isdigit()
        is_stream = first.startswith(b"--") or (first.startswith(_START) and not has_length)
        return HttpCamera(url, response, first, is_stream, fps, timeout_s)
    response.close()
    if kind.startswith(("video/", "application/")):
        return HttpVideo(led_to(url, response.url))
    remedy = "give the address of the stream, not of the web page: often /stream, /video or /?action=stream"
    raise InputError(f"{without_password(url)} sends {kind}, not pictures", remedy)


class CsiCamera:
    """A camera on the ribbon connector, through the board's own program, which writes JPEGs to its standard output.

    OpenCV's wheel knows neither libcamera (Raspberry Pi) nor Argus (Jetson); their programs do.
    """

    def __init__(self, url: str, width: int, height: int, fps: float, timeout_s: float) -> None:
        self.name, self.fps = url, fps
        self._timeout_s = timeout_s
        number = url.removeprefix("csi://") or "0"
        if not number.isdigit():
            raise CameraError(f"{url}: a CSI camera is csi:// and its number", "use csi://0")
        command = _csi_command(int(number), width, height, fps)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        self._stream = _Bytes(self._more, url, timeout_s)

    def read(self) -> bytes:
        """Return the next JPEG. Raises InputError (broken) or CameraError (lost)."""
        self._stream.begin()
        return self._stream.jpeg()

    def _more(self) -> bytes:
        pipe = self._process.stdout
        assert pipe is not None
        try:
            if not select.select([pipe], [], [], self._timeout_s)[0]:
                raise CameraError(f"{self.name} sent nothing for {self._timeout_s:g} s", "check the camera's ribbon")
            return pipe.read(1 << 16)
        except ValueError as error:  # closed by another thread
            raise CameraError(f"{self.name} was closed") from error

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


def _only_part(answer: bytearray) -> bytes:
    """The JPEG in a multipart answer of one part: without its header lines, and what stands behind its end."""
    begins = max(0, answer.find(_START))
    ends = answer.rfind(_END, begins) + len(_END)
    return bytes(answer[begins : ends if ends > begins + len(_END) else None])


def _csi_command(number: int, width: int, height: int, fps: float) -> list[str]:
    for program in ("rpicam-vid", "libcamera-vid"):
        if shutil.which(program):
            size = ["--width", str(width), "--height", str(height), "--framerate", f"{fps:g}"]
            return [program, "--camera", str(number), "-t", "0", "-n", "--codec", "mjpeg", *size, "-o", "-"]
    if shutil.which("gst-launch-1.0"):
        caps = f"video/x-raw(memory:NVMM),width={width},height={height},framerate={round(fps)}/1"
        source = ["nvarguscamerasrc", f"sensor-id={number}", "!", caps, "!", "nvjpegenc", "!", "fdsink", "fd=1"]
        return ["gst-launch-1.0", "-q", *source]
    raise CameraError(
        "csi:// needs rpicam-vid (Raspberry Pi) or gst-launch-1.0 (Jetson)", "install it, or use --camera 0"
    )
