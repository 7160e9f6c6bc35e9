"""The server that strangers may reach: who is let in, and what one visitor can cost another."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import wait_for

from edge_ran import web_server
from edge_ran.errors import EnvironmentMissing, InputError, UsageError
from edge_ran.phone import certificate
from edge_ran.web_server import Handler, Server, is_loopback, parse_address


class Echo(Handler):
    def get(self, path: str) -> None:
        if path == "/large":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)
            self.send_bytes(bytes(1 << 20), "application/octet-stream")
            return
        self.send_json({"path": path})

    def post(self, path: str) -> None:
        try:
            self.send_bytes(self.body(1000), "application/octet-stream")
        except InputError as error:
            self.send_json({"error": str(error)}, 400)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server("127.0.0.1", 0, Echo)
    made.start()
    yield made
    made.close()


@pytest.fixture
def guarded() -> Iterator[Server]:
    made = Server("127.0.0.1", 0, Echo, token="the-token")
    made.start()
    yield made
    made.close()


def ask(server: Server, path: str = "/", data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    words = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", data, words)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            return error.code, error.read()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080", ("0.0.0.0", 8080)),
        ("localhost:1", ("localhost", 1)),
        ("[::1]:9", ("::1", 9)),
        ("host", ("host", 8443)),
        ("0", ("0.0.0.0", 0)),
        ("192.168.1.5", ("192.168.1.5", 8443)),
        ("127.0.0.1:5", ("127.0.0.1", 5)),
        ("pi4", ("pi4", 8443)),
    ],
)
def test_addresses_are_read(text: str, place: tuple[str, int]) -> None:
    assert parse_address(text, "--address", "0.0.0.0:8443") == place


@pytest.mark.parametrize("text", ["a b", "host:99999", "::", "http://x", "123456", "host:"])
def test_what_is_no_address_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="--address"):
        parse_address(text, "--address", "0.0.0.0:8443")


def test_only_loopback_counts_as_this_machine() -> None:
    assert is_loopback("127.0.0.5")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")


def test_a_port_in_use_is_one_line(server: Server) -> None:
    with pytest.raises(EnvironmentMissing, match=f"cannot listen on 127.0.0.1:{server.port}"):
        Server("127.0.0.1", server.port, Echo).start()


def test_a_name_that_points_here_from_elsewhere_is_refused(server: Server) -> None:
    assert ask(server)[0] == 200
    assert ask(server, Host="rebound.example:80")[0] == 403


def test_without_the_token_nothing_is_told(guarded: Server) -> None:
    assert ask(guarded)[0] == 403
    assert ask(guarded, "/?token=other")[0] == 403
    assert ask(guarded, "/x", b"data")[0] == 403
    assert ask(guarded, "/x?token=the-token") == (200, b'{"path": "/x"}')
    assert ask(guarded, "/x", Cookie=f"{guarded.cookie}=the-token")[0] == 200
    assert ask(guarded, "/x", Cookie=f"{guarded.cookie}=other")[0] == 403
    assert ask(guarded, "/x", Authorization="Bearer the-token")[0] == 200


def test_the_token_goes_out_of_the_address_into_a_cookie(guarded: Server) -> None:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *words: object) -> None:
            return None

    opener = urllib.request.build_opener(Stay)
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener.open(f"http://127.0.0.1:{guarded.port}/?token=the-token&session=abc", timeout=20)
    assert caught.value.code == 303
    assert caught.value.headers["Location"] == "/?session=abc"
    cookie = caught.value.headers["Set-Cookie"]
    assert cookie.startswith(f"{guarded.cookie}=the-token; HttpOnly; SameSite=Strict")
    caught.value.close()


def test_two_servers_of_one_machine_leave_each_other_their_visitors(guarded: Server) -> None:
    """A browser's cookies are of a machine, whatever the port."""
    other = Server("127.0.0.1", 0, Echo, token="another-token")
    other.start()
    try:
        visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        for server, query in (
            (guarded, "?token=the-token"),
            (other, "?token=another-token"),
            (guarded, ""),
            (other, ""),
        ):
            with visitor.open(f"http://127.0.0.1:{server.port}/{query}", timeout=20) as answer:
                assert answer.status == 200
    finally:
        other.close()


def test_bodies_are_bounded(server: Server) -> None:
    assert ask(server, "/", b"x" * 1000) == (200, b"x" * 1000)
    assert ask(server, "/", b"x" * 1001)[0] == 400
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n")
        assert b" 400 " in raw.recv(100)


def trickle(server: Server, piece: bytes, pieces: int) -> bytes:
    """Send a body of so many pieces slowly, as long as it is taken; returns the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
        raw.sendall(f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(piece) * pieces}\r\n\r\n".encode())
        for _ in range(pieces):
            if select.select([raw], [], [], 0.05)[0]:
                break
            with contextlib.suppress(OSError):  # closed just now
                raw.sendall(piece)
        return raw.recv(1000)


def test_an_upload_that_goes_on_is_taken_and_one_that_drips_is_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "BODY_S", 0.3)
    monkeypatch.setattr(web_server, "SLOWEST", 10)
    assert b" 200 " in trickle(server, b"x" * 100, 10)
    monkeypatch.setattr(web_server, "SLOWEST", 1e9)
    assert b" 400 " in trickle(server, b"x", 1000)


def test_a_slow_client_gets_the_whole_of_a_large_answer(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    monkeypatch.setattr(Echo, "timeout", 0.7)
    got = 0
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        raw.connect(("127.0.0.1", server.port))
        raw.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while part := raw.recv(1 << 15):
            got += len(part)
            time.sleep(len(part) / 1e6)
    assert got > 1 << 20


def test_a_connection_that_gives_way_in_the_middle_of_its_handshake_is_closed_in_good_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GivesWay(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            server.visit_of(self).end()
            handed.append(self)
            super().do_handshake(block)

    handed: list[ssl.SSLSocket] = []
    unhandled: list[object] = []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)
    tls = certificate.context("127.0.0.1", tmp_path)[0]
    tls.sslsocket_class = GivesWay
    server = Server("127.0.0.1", 0, Echo, tls=tls)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
            assert raw.recv(1) == b""
        wait_for(lambda: not server._visits)
    finally:
        server.close()
    assert [one.fileno() for one in handed] == [-1]
    assert unhandled == []


def test_idle_connections_keep_nobody_out(server: Server) -> None:
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2 * web_server.MAX_CONNECTIONS)]
    try:
        wait_for(lambda: len(server._visits) <= web_server.MAX_CONNECTIONS, web_server.HEAD_S / 2)  # each in turn
        assert ask(server)[0] == 200
    finally:
        for one in idle:
            one.close()


def test_a_head_that_drips_is_ended_by_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "HEAD_S", 1.0)
    server = Server("127.0.0.1", 0, Echo)
    server.start()
    ended = False
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.settimeout(0.2)
            until = time.monotonic() + 30
            while not ended and time.monotonic() < until:
                try:
                    raw.sendall(b"G")
                    ended = raw.recv(1) == b""
                except TimeoutError:
                    continue
                except OSError:
                    ended = True
    finally:
        server.close()
    assert ended
