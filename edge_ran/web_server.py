"""An HTTP or HTTPS server that strangers may reach: a token, a check of the name, bounded connections and bodies.

A client has ``HEAD_S`` seconds for its whole request head, not for each byte. A body or an answer takes as long as a
slow phone needs, but not for ever. When every place is taken, the oldest connection that has shown no token gives way
to a new one, so that idle sockets keep nobody out.
"""

from __future__ import annotations

import contextlib
import hmac
import http.cookies
import http.server
import ipaddress
import json
import os
import re
import secrets
import socket
import ssl
import threading
import time
import urllib.parse
from typing import Any

from edge_ran.errors import EnvironmentMissing, InputError, UsageError

MAX_CONNECTIONS = 64
HEAD_S = 10.0
BODY_S = 60.0  # for a request's body, and longer while it comes at SLOWEST bytes a second
SLOWEST = 8192
_PIECE = 1 << 16  # bytes of an answer, each of which has HEAD_S seconds
COOKIE = "edge-ran"
TOKEN = "EDGE_RAN_WEB_TOKEN"  # a variable of the environment, which no other user of the machine can read


def parse_address(text: str, option: str, default: str) -> tuple[str, int]:
    """Read ``HOST:PORT``, ``PORT``, ``HOST`` or ``[IPv6]:PORT``; what is left out is taken from ``default``.

    Raises:
        UsageError: it is none of these.
    """
    # Digits alone are a port; what has anything else in it is a host, even one that ends in digits.
    host_and_port = (
        r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]\s]*[^:\[\]\s\d][^:\[\]\s]*))(?::(?P<port>\d{1,5}))?"
    )
    match = re.fullmatch(rf"(?::?(?P<alone>\d{{1,5}})|{host_and_port})", text.strip())
    usual_host, _, usual_port = default.rpartition(":")
    host = (match["six"] or match["host"] or usual_host) if match else ""
    port = int(match["alone"] or match["port"] or usual_port) if match else 0
    if not match or port > 65535:
        raise UsageError(f"{option} {text!r} is not an address", f"for instance {option} {default}")
    return host, port


def choose_token() -> str:
    """Return what visitors must show: the token in the environment, which outlasts a restart, else a fresh one.

    Raises:
        UsageError: the one in the environment is short, or cannot stand in an address.
    """
    token = os.environ.get(TOKEN, "").strip()
    if token and not re.fullmatch(r"[A-Za-z0-9_-]{12,200}", token):
        raise UsageError(f"{TOKEN} is no token", "give it 12 or more letters, digits, - and _")
    return token or secrets.token_urlsafe(16)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def reached_at(host: str) -> str:
    """Return the address by which others reach this machine, where it listens on every address; else ``host``.

    Without a network it is this machine's name.
    """
    if host not in ("0.0.0.0", "::"):
        return host
    found = [address for address in own_addresses() if (":" in address) == (":" in host)]
    return found[0] if found else socket.gethostname()


def own_addresses() -> tuple[str, ...]:
    """Return the addresses by which other machines may reach this one, the likeliest first."""
    found = []
    for family, outside in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        # Addresses of documentation: nothing is sent there, but the system says from where it would be.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((outside, 9))
            found.append(str(probe.getsockname()[0]))
    with contextlib.suppress(OSError):  # a network without a way out, such as a hot spot of this machine
        found += [str(one[4][0]) for one in socket.getaddrinfo(socket.gethostname(), None)]
    return tuple(dict.fromkeys(one for one in found if not is_loopback(one)))


class Server(http.server.ThreadingHTTPServer):
    """Serves with ``handler`` until ``close``; ``start`` returns at once.

    Attributes:
        token: what a visitor must show; "" = none, and then only names of this machine are answered.
        scheme: ``http`` or ``https``.
        cookie: the name of the cookie that keeps the token. It is this server's alone: a browser sends all cookies of a
            machine to each of its ports, and lets no http page replace a cookie of an https page.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = MAX_CONNECTIONS  # a connection that finds the queue full is tried again a second later

    def __init__(
        self, host: str, port: int, handler: type[Handler], token: str = "", tls: ssl.SSLContext | None = None
    ) -> None:
        """Listen on ``host`` and ``port``; port 0 takes any that is free.

        Raises:
            EnvironmentMissing: it cannot be listened on.
        """
        self.token, self._tls = token, tls
        self.scheme = "https" if tls else "http"
        self.names = {"localhost", "127.0.0.1", "::1", host}
        self._lock = threading.Lock()
        self._visits: dict[Any, _Visit] = {}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), handler)
        except OSError as error:
            what = f"cannot listen on {host}:{port}: {error.strerror or error}"
            raise EnvironmentMissing(what, "choose another port; 0 takes any that is free") from error
        self.port = int(self.server_address[1])
        self.cookie = f"{COOKIE}-{self.scheme}-{self.port}"
        self._closing = threading.Event()
        self._serving = [
            threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="server", daemon=True),
            threading.Thread(target=self._end_late_visits, name="server's clock", daemon=True),
        ]

    def start(self) -> None:
        """Serve, in threads of the server's own."""
        for thread in self._serving:
            thread.start()

    def close(self) -> None:
        """Stop; open connections end."""
        self._closing.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            for visit in self._visits.values():
                visit.end()
        for thread in self._serving:
            if thread.is_alive():
                thread.join(1.0)

    def url(self, path: str = "/") -> str:
        """Return what to open from outside, with the token where one is needed."""
        host = reached_at(str(self.server_address[0]))
        shown = f"[{host}]" if ":" in host else host
        query = f"?token={self.token}" if self.token else ""
        return f"{self.scheme}://{shown}:{self.port}{path}{query}"

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            visits = [visit for visit in self._visits.values() if not visit.has_ended]
            if len(visits) >= MAX_CONNECTIONS:
                strangers = [visit for visit in visits if not visit.is_known]
                if not strangers:
                    self.shutdown_request(request)
                    return
                min(strangers, key=lambda visit: visit.began).end()
            self._visits[request] = _Visit(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            request.settimeout(HEAD_S)
            if self._tls is not None:
                # The handshake is in this thread: a client that says nothing must not keep the others waiting.
                with self._lock:
                    secure = self._tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                    self._visits[secure] = visit = self._visits.pop(request)
                    visit.socket = request = secure
                request.do_handshake()
            super().process_request_thread(request, client_address)
        except OSError:
            self.shutdown_request(request)
        finally:
            with self._lock:
                self._visits.pop(request, None)

    def visit_of(self, request: Any) -> _Visit:
        """Return what is known of a connection."""
        with self._lock:
            return self._visits.get(request) or _Visit(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a visitor who leaves in the middle is no one's business

    def _end_late_visits(self) -> None:
        while not self._closing.wait(0.5):
            now = time.monotonic()
            with self._lock:
                for visit in self._visits.values():
                    if now > visit.deadline:
                        visit.end()


class _Visit:
    """A connection, from when it was accepted: until ``deadline`` it must have made its request."""

    def __init__(self, connection: Any) -> None:
        self.socket = connection
        self.began = time.monotonic()
        self.deadline = self.began + HEAD_S
        self.is_known = self.has_ended = False

    def end(self) -> None:
        self.has_ended = True
        # Not SSLSocket's own shutdown, which takes the TLS away from the thread that uses it.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)


class Handler(http.server.BaseHTTPRequestHandler):
    """What subclasses answer: ``get`` and ``post``, called for visitors with the token only."""

    server: Server
    timeout = HEAD_S
    server_version, sys_version = "edge-ran", ""
    policy = "default-src 'none'"

    def get(self, path: str) -> None:
        """Answer GET ``path``, without its query."""
        self.send_error(404)

    def post(self, path: str) -> None:
        """Answer POST ``path``."""
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(self.get)

    def do_POST(self) -> None:
        self._answer(self.post)

    def _answer(self, how: Any) -> None:
        visit = self.server.visit_of(self.connection)
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if not self._is_welcome():
            return
        visit.is_known, visit.deadline = True, float("inf")
        with contextlib.suppress(OSError):
            how(path)

    def _is_welcome(self) -> bool:
        url = urllib.parse.urlsplit(self.path)
        if not self.server.token:
            # A page elsewhere may point a name of its own at this machine, and act through the visitor's browser;
            # that request carries the name.
            name = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
            if name not in self.server.names:
                self.send_error(403, "Not by this name")
                return False
            return True
        given = urllib.parse.parse_qs(url.query).get("token", [""])[0]
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        cookies = http.cookies.SimpleCookie()
        with contextlib.suppress(http.cookies.CookieError):
            cookies.load(self.headers.get("Cookie", ""))
        kept = cookies[self.server.cookie].value if self.server.cookie in cookies else ""
        token = self.server.token.encode()
        if not any(hmac.compare_digest(text.encode(), token) for text in (given, bearer, kept)):
            self.send_error(403, "Open the address with its token, as printed")
            return False
        if given and self.command == "GET" and url.path == "/":  # out of the address, into a cookie
            rest = urllib.parse.urlencode([(k, v) for k, v in urllib.parse.parse_qsl(url.query) if k != "token"])
            self.send_response(303)
            self.send_header("Location", f"/?{rest}" if rest else "/")
            secure = "; Secure" if self.server.scheme == "https" else ""
            keep = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/{secure}"
            self.send_header("Set-Cookie", keep)
            self.end_head("text/plain", 0)
            return False
        return True

    def end_head(self, kind: str, length: int | None = None) -> None:
        """End the answer's head, with what keeps browsers from doing more than they are told."""
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Security-Policy", self.policy)
        self.end_headers()

    def send_bytes(self, data: bytes, kind: str, status: int = 200) -> None:
        """Answer with ``data``."""
        self.send_response(status)
        self.end_head(kind, len(data))
        for at in range(0, len(data), _PIECE):  # the time limit is one of a write, however long that is
            self.wfile.write(data[at : at + _PIECE])

    def send_json(self, record: Any, status: int = 200) -> None:
        """Answer with a record."""
        self.send_bytes(json.dumps(record, allow_nan=False).encode(), "application/json", status)

    def body(self, most_bytes: int) -> bytes:
        """Read the request's body.

        Raises:
            InputError: it has no length, is longer than ``most_bytes``, or did not arrive in time.
        """
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,12}", length) or int(length) > most_bytes:
            raise InputError(f"a body of at most {most_bytes} bytes is needed, with its Content-Length")
        began, data = time.monotonic(), bytearray()
        while len(data) < int(length):
            late = time.monotonic() > began + BODY_S + len(data) / SLOWEST
            if late or not (part := self.rfile.read1(min(1 << 16, int(length) - len(data)))):
                raise InputError("the body did not arrive")
            data += part
        return bytes(data)
