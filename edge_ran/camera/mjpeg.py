"""Cameras that send JPEG pictures one after the other: over HTTP, or from a program's standard output.

Read here and not by FFmpeg: a picture is handed out the moment its last byte is there, a broken one is seen as such,
and a silent server is noticed by the socket's own time-out.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import select
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from edge_ran.errors import CameraError, InputError

MAX_PICTURE_BYTES = 64 << 20
_START, _END = b"\xff\xd8", b"\xff\xd9"


class HttpVideo:
    """The address holds a video, not a camera: FFmpeg's business."""


class _Bytes:
    """A byte stream with a buffer. ``more`` returns at least one byte, or none at the end of the stream.

    A picture, from ``begin`` on, may take ``timeout_s``: a server that sends a byte now and then is never silent.
    """

    def __init__(self, more: Callable[[], bytes], name: str, timeout_s: float) -> None:
        self._more, self._name, self._timeout_s = more, name, timeout_s
        self._buffer = bytearray()
        self.begin()

    def begin(self) -> None:
        """Begin a picture."""
        self._until = time.monotonic() + self._timeout_s

    def until(self, mark: bytes, limit: int = MAX_PICTURE_BYTES) -> bytes:
        """Take everything up to and including ``mark``."""
        searched = 0
        while (at := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark) + 1)
            if len(self._buffer) > limit:
                self._buffer.clear()
                raise InputError(f"{self._name} sent {limit} bytes without the end of a picture")
            self._fill()
        return self._take(at + len(mark))

    def exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._fill()
        return self._take(count)

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
    """MJPEG over HTTP (``multipart/x-mixed-replace``), or an address that answers each request with one JPEG."""

    def __init__(self, url: str, response: Any, fps: float, timeout_s: float) -> None:
        self.name, self.fps = url, fps
        self._response, self._timeout_s = response, timeout_s
        self._stream = _Bytes(lambda: response.read1(1 << 16), without_password(url), timeout_s)
        self._multipart = response.headers.get_content_maintype() == "multipart"
        self._next_request = time.monotonic()

    def read(self) -> bytes:
        """Return the next JPEG. Raises InputError (a broken part) or CameraError (lost)."""
        self._stream.begin()
        try:
            return self._part() if self._multipart else self._snapshot()
        except TimeoutError as error:
            what = f"{without_password(self.name)} sent nothing for {self._timeout_s:g} s"
            raise CameraError(what, "check the camera's power and network") from error
        except (OSError, HTTPException, ValueError) as error:  # ValueError: closed by another thread
            raise CameraError(f"{without_password(self.name)} was lost: {error}", "check the network") from error

    def _part(self) -> bytes:
        # Between parts stand a delimiter line, header lines and an empty line; servers differ in everything else.
        length = 0
        while not self._stream.until(b"\n", 1 << 16).startswith(b"--"):
            pass
        while line := self._stream.until(b"\n", 1 << 16).strip():
            field, _, value = line.partition(b":")
            if field.strip().lower() == b"content-length" and value.strip().isdigit():
                length = int(value)
        if length > MAX_PICTURE_BYTES:
            raise CameraError(
                f"{without_password(self.name)} announces a picture of {length} bytes", "is this a camera?"
            )
        return self._stream.exactly(length) if length else self._stream.until(_END)

    def _snapshot(self) -> bytes:
        time.sleep(max(0.0, self._next_request - time.monotonic()))
        self._next_request = max(self._next_request, time.monotonic() - 1.0) + 1.0 / self.fps
        if self._response.closed:
            self._response = _request(self.name, self._timeout_s)
        with self._response as response:
            picture, until = bytearray(), time.monotonic() + self._timeout_s
            while len(picture) < MAX_PICTURE_BYTES and (block := response.read1(1 << 16)):
                picture += block
                if time.monotonic() > until:
                    raise TimeoutError
            return bytes(picture)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._response.close()


def open_http(url: str, fps: float, timeout_s: float) -> HttpCamera | HttpVideo:
    """Connect and look at what is sent. Raises CameraError when nothing answers, InputError when it is no picture."""
    response = _request(url, timeout_s)
    kind = response.headers.get_content_type()
    if kind == "multipart/x-mixed-replace" or kind == "image/jpeg":
        return HttpCamera(url, response, fps or (0.0 if kind.startswith("multipart") else 5.0), timeout_s)
    response.close()
    if kind.startswith(("video/", "application/")):
        return HttpVideo()
    raise InputError(
        f"{without_password(url)} sends {kind}, not pictures", "give the address of the stream, not of the web page"
    )


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
        self._stream.until(_START)
        return _START + self._stream.until(_END)

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


class _Deadline:
    """Ends all connections of a request that has no answer by then: one that comes a byte at a time never times out."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(timeout_s, self._end)
        self._timer.daemon = True
        self._is_over = False
        self.handlers = (_Plain(self._connect), _Secure(self._connect))

    def _connect(self, *words: Any, **named: Any) -> socket.socket:
        connected = socket.create_connection(*words, **named)
        self._sockets.append(connected.dup())  # TLS takes the socket itself over before its first byte
        return connected

    def _end(self) -> None:
        self._is_over = True
        for connected in self._sockets:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._timer.cancel()
        for connected in self._sockets:
            connected.close()
        if self._is_over:
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from error


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made, req)

    def _made(self, host: str, **named: Any) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(host, **named)
        connection._create_connection = self._connect  # type: ignore[attr-defined]
        return connection


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._connect = connect

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made, req)

    def _made(self, host: str, **named: Any) -> http.client.HTTPConnection:
        connection = http.client.HTTPSConnection(host, **named)
        connection._create_connection = self._connect  # type: ignore[attr-defined]
        return connection


def _request(url: str, timeout_s: float) -> Any:
    address, handlers = url, list[urllib.request.BaseHandler]()
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:  # it repeats what it takes for the port
        what = f"{without_password(url)} is not an address"
        raise CameraError(what, "in a user's name or password, write / as %2F, # as %23 and ? as %3F") from None
    try:
        if parts.username:
            address = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
            passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
            secret = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
            passwords.add_password(None, address, *secret)
            # Sent when asked for, in the way asked for, and to this host alone.
            handlers += [
                urllib.request.HTTPDigestAuthHandler(passwords),
                urllib.request.HTTPBasicAuthHandler(passwords),
            ]
        request = urllib.request.Request(address, headers={"User-Agent": "edge-ran"})
        with _Deadline(timeout_s) as deadline:
            return urllib.request.build_opener(*handlers, *deadline.handlers).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        raise CameraError(
            f"{without_password(url)} answers {error.code} {error.reason}", "check the address and password"
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise CameraError(
            f"{without_password(url)} does not answer: {reason}", "check the address and network"
        ) from error


# Cheap cameras take the password in the path or query: ?user=admin&pwd=…, /user=admin_password=…_channel=1.
_SECRET = re.compile(r"((?:pass(?:word|wd)?|pas|pwd|psw|token|secret|key|auth)=)[^&#/\s]+", re.IGNORECASE)


def without_password(url: str) -> str:
    """The address as it may be printed: user and password of ``rtsp://user:password@host`` left out.

    Passwords with an ``@`` or, against the rules, a ``/`` in them are left out whole, and so is the value of what looks
    like a password in the path or query. A path of this machine stays as it is.
    """
    scheme, is_url, rest = url.partition("://")
    if not is_url:
        # The scheme is left out by mistake: user:password@host. A path of this machine has no such beginning.
        return re.sub(r"^[^/\s@]+:[^\s@]*@(?=[\w.\[])", "", url)
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in host:
        rest = host.rpartition("@")[2] + rest[len(host) :]
    elif "@" in rest and not re.fullmatch(r"[^:]*|\[.*\](:\d*)?|[^:]*:\d*", host):  # no port: a password's beginning
        rest = rest.rpartition("@")[2]
    return scheme + is_url + _SECRET.sub(r"\1…", rest)
