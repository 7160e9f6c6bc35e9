"""How an HTTP camera is asked: within a time, and with its password."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Any

from edge_ran.camera.address import WRITTEN, is_near, remedy_of_address, without_password
from edge_ran.errors import CameraError


def request(url: str, timeout_s: float) -> Any:
    address, handlers = url, list[urllib.request.BaseHandler]()
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:  # it repeats what it takes for the port
        what = f"{without_password(url)} is not an address"
        raise CameraError(what, WRITTEN) from None
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
        if is_near(parts.hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(address, headers={"User-Agent": "edge-ran"})
        with _Deadline(timeout_s) as deadline:
            return urllib.request.build_opener(*handlers, *deadline.handlers).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        raise CameraError(
            f"{without_password(url)} answers {error.code} {error.reason}",
            remedy_of_address(url, _remedy_of_status(url, error.code)),
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            what = f"{without_password(url)} has a certificate that this machine does not trust"
            remedy = "take its http:// or rtsp:// address, or name its own certificate: SSL_CERT_FILE=camera.pem"
            raise CameraError(what, remedy) from error
        raise CameraError(f"{without_password(url)} does not answer: {reason}", remedy_of_address(url)) from error


def _remedy_of_status(url: str, status: int) -> str:
    parts = urllib.parse.urlsplit(url)
    if status == 401 and not parts.username:
        place = parts.netloc + parts.path
        return f"give its user and password: {parts.scheme}://USER:PASSWORD@{without_password(place)}"
    if status in (429, 503):
        return "the camera is busy or starting: close other programs that watch it, and try again"
    return "check the address and password" if status in (401, 403) else "check the address"


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
