"""Watch a board that has no screen: the live picture, charts and events as one small page.

``/`` is the page, ``/stream`` the drawn pictures as MJPEG, ``/events`` numbers and events as server-sent events. The
pipeline only leaves its newest result here; drawing and encoding happen in the threads of those who watch, 15 times
a second at most. A slow client misses pictures, and one that takes nothing is dropped; no one else notices.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import web_server
from edge_ran.camera import Notice
from edge_ran.errors import EnvironmentMissing
from edge_ran.printable import clean
from edge_ran.runtime import Accelerator
from edge_ran.stream.pipeline import Result
from edge_ran.web_server import is_loopback

__all__ = ["WebPage", "is_loopback", "parse_address"]

DEFAULT_ADDRESS = "127.0.0.1:8080"
MAX_WATCHERS = 8  # of each kind: pictures, numbers
_PICTURE_EVERY_S, _NUMBERS_EVERY_S = 1 / 15, 0.2
_POINTS, _EVENTS = 600, 100  # kept for those who come later

Picture = Callable[[], NDArray[np.uint8]]


def parse_address(text: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, ``PORT``, ``HOST`` or ``[IPv6]:PORT``. Raises UsageError."""
    return web_server.parse_address(text, "--web", DEFAULT_ADDRESS)


class WebPage:
    """Serves the page until closed.

    Attributes:
        url: what to open; it has the token where one is needed.
        elsewhere: how to open it from another machine, where only this one can; empty where anyone can.
    """

    def __init__(self, address: str, accelerator: Accelerator, source: str) -> None:
        """Start serving.

        Args:
            address: ``HOST:PORT``; port 0 takes any that is free. Beyond loopback a token is asked of visitors.
            accelerator: what the page says ran the network.
            source: the camera's name, for the page's head.

        Raises:
            UsageError: not an address. EnvironmentMissing: it cannot be listened on.
        """
        host, port = parse_address(address)
        self.board = _Board(accelerator, source)
        token = "" if is_loopback(host) else web_server.choose_token()
        try:
            self._server = _Server(host, port, self.board, token)
        except EnvironmentMissing as error:
            raise EnvironmentMissing(f"--web {error}", "choose another: --web HOST:PORT") from error
        self.url = self._server.url()
        self.elsewhere = _from_elsewhere(self._server.port) if is_loopback(host) else ""
        self._server.start()

    def put(self, result: Result, picture: Picture) -> None:
        """Leave the newest result here; returns at once."""
        self.board.put(result, picture)

    def notice(self, notice: Notice) -> None:
        """Tell the visitors of a fault or its end."""
        self.board.event(notice.kind, notice.text)

    def close(self) -> None:
        """Stop serving; open connections end."""
        self.board.close()
        self._server.close()


def _from_elsewhere(port: int) -> str:
    address = os.environ.get("SSH_CONNECTION", "").split(" ")  # whose third word is where the user came in
    host = clean(address[2]) if len(address) == 4 else socket.gethostname()
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name
        user = "USER"
    tunnel = f"ssh -L {port}:localhost:{port} {user}@{host}"
    return f"from another machine: {tunnel}, then open that address there; or --web 0.0.0.0:{port}"


class _Board:
    """The newest result, and the last points and events, each with a number that counts up."""

    def __init__(self, accelerator: Accelerator, source: str) -> None:
        self.head = {"accelerator": str(accelerator), "source": source}
        self.changed = threading.Condition()
        self.closed = False
        self._points: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_POINTS)
        self._events: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_EVENTS)
        self._number = 0
        self._picture: tuple[int, Picture] | None = None
        self._encoding = threading.Lock()
        self._encoded: tuple[int, bytes] = (0, b"")

    def put(self, result: Result, picture: Picture) -> None:
        point = {
            "index": result.frame.index,
            "time": time.time(),
            "label": result.label,
            "score": round(result.score, 4),
            "latency_ms": round(result.stages_ms["end_to_end"], 2),
            "inference_ms": round(result.stages_ms["inference"], 2),
            "fps": round(result.fps, 2),
        }
        with self.changed:
            self._number += 1
            self._points.append((self._number, point))
            self._picture = (self._number, picture)
            if result.changed:
                text = f"{result.label} ({result.score:.0%})"
                self._events.append((self._number, {"time": time.time(), "kind": "answer", "text": text}))
            self.changed.notify_all()

    def event(self, kind: str, text: str) -> None:
        with self.changed:
            self._number += 1
            self._events.append((self._number, {"time": time.time(), "kind": kind, "text": text}))
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def news(self, since: int) -> tuple[int, dict[str, Any]] | None:
        """Wait for points or events after number ``since``; None when nothing came for a while, or at the end."""
        with self.changed:
            self.changed.wait_for(lambda: self._number > since or self.closed, timeout=1.0)
            if self.closed or self._number <= since:
                return None
            points = [point for number, point in self._points if number > since]
            events = [event for number, event in self._events if number > since]
            return self._number, {"points": points, "events": events}

    def jpeg(self, since: int) -> tuple[int, bytes] | None:
        """Wait for a picture after number ``since``, draw and encode it; None when none came for a while."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or (self._picture or (0,))[0] > since, timeout=1.0)
            if self.closed or not self._picture or self._picture[0] <= since:
                return None
            number, picture = self._picture
        with self._encoding:  # once for all who watch
            if self._encoded[0] < number:
                whole, data = cv2.imencode(".jpg", picture(), [cv2.IMWRITE_JPEG_QUALITY, 80])
                self._encoded = (number, data.tobytes() if whole else b"")
            return self._encoded


class _Server(web_server.Server):
    def __init__(self, host: str, port: int, board: _Board, token: str) -> None:
        self.board = board
        self.page = Path(__file__).with_name("web.html").read_bytes()
        self.watchers = {kind: threading.BoundedSemaphore(MAX_WATCHERS) for kind in ("/stream", "/events")}
        super().__init__(host, port, _Visit, token)


class _Visit(web_server.Handler):
    server: _Server

    def get(self, path: str) -> None:
        if path == "/":
            self._page()
        elif path in self.server.watchers:
            seat = self.server.watchers[path]
            if not seat.acquire(blocking=False):
                self.send_error(503, "Too many are watching")
                return
            try:
                self._pictures() if path == "/stream" else self._numbers()
            finally:
                seat.release()
        else:
            self.send_error(404)

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        own = "default-src 'none'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
        self.policy = f"{own}; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
        self.send_bytes(self.server.page.replace(b"NONCE", nonce.encode()), "text/html; charset=utf-8")

    def _pictures(self) -> None:
        self.send_response(200)
        self.end_head("multipart/x-mixed-replace; boundary=frame")
        # Without this the kernel would queue seconds of old pictures for a slow client.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        number = 0
        while not self.server.board.closed:
            began = time.monotonic()
            newer = self.server.board.jpeg(number)
            if newer is None:
                if self._has_left():
                    return
                continue
            number, jpeg = newer
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")
            time.sleep(max(0.0, _PICTURE_EVERY_S - (time.monotonic() - began)))

    def _has_left(self) -> bool:
        """Whether the visitor has closed the connection, which nothing is sent over just now."""
        return bool(select.select([self.connection], [], [], 0)[0]) and not self.connection.recv(1, socket.MSG_PEEK)

    def _numbers(self) -> None:
        self.send_response(200)
        self.end_head("text/event-stream")
        self._tell(self.server.board.head)
        number = 0
        while not self.server.board.closed:
            newer = self.server.board.news(number)
            if newer is None:
                self.wfile.write(b": still here\n\n")  # finds out whether the visitor is
                continue
            number, news = newer
            self._tell(news)
            time.sleep(_NUMBERS_EVERY_S)

    def _tell(self, record: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(record)}\n\n".encode())
