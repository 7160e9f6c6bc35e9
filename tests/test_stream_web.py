"""The live page: what it serves, whom it lets in, and that no visitor is felt by the pipeline."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
import pytest
from browser import chromium, wait_until
from loopback import MjpegServer, jpeg, number_of, numbered, wait_for

from edge_ran import web_server
from edge_ran.camera import Frame, Notice
from edge_ran.classifier import Prediction
from edge_ran.cli.app import spell_out
from edge_ran.errors import EnvironmentMissing, UsageError
from edge_ran.runtime import Accelerator
from edge_ran.stream.pipeline import Result
from edge_ran.stream.web import MAX_WATCHERS, WebPage, is_loopback, parse_address
from edge_ran.web_server import MAX_CONNECTIONS

GPU = Accelerator("gpu", "gpu", "Mali-G610")


def result(index: int, label: str = "cat", changed: bool = False) -> Result:
    stages = dict.fromkeys(("capture", "preprocess", "inference", "postprocess", "end_to_end"), 2.5)
    frame = Frame(numbered(index, 320, 240), index, 0.0, 0.0)
    return Result(frame, (Prediction(label, 0.75, 0),), label, 0.75, changed, stages, 25.0)


@pytest.fixture
def page() -> Iterator[WebPage]:
    opened = WebPage("127.0.0.1:0", GPU, "<b>cam</b>")
    yield opened
    opened.close()


def address_of(page: WebPage) -> tuple[str, int]:
    return page._server.server_address[:2]


def get(page: WebPage, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*address_of(page), timeout=20)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def put(page: WebPage, index: int, **more) -> None:
    page.put(result(index, **more), lambda: numbered(index, 320, 240))


def events(response: http.client.HTTPResponse) -> Iterator[dict]:
    while line := response.readline():
        if line.startswith(b"data: "):
            yield json.loads(line[6:])


def part(response: http.client.HTTPResponse) -> np.ndarray:
    length = 0
    while line := response.readline().strip():
        if line.lower().startswith(b"content-length"):
            length = int(line.split(b":")[1])
    data = response.read(length)
    response.readline()
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_addresses() -> None:
    assert parse_address("0.0.0.0:81") == ("0.0.0.0", 81)
    assert parse_address("9000") == ("127.0.0.1", 9000)
    assert parse_address(":9000") == ("127.0.0.1", 9000)
    assert parse_address("board.local") == ("board.local", 8080)
    assert parse_address("[::1]:9000") == ("::1", 9000)
    for wrong in ("a b:1", "host:99999", "host:port", "1:2:3"):
        with pytest.raises(UsageError):
            parse_address(wrong)
    assert [is_loopback(h) for h in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "192.168.0.7", "board")] == [
        *(True, True, True, False, False, False)
    ]


def test_a_bare_web_gets_its_address() -> None:
    default = "--web=127.0.0.1:8080"
    assert spell_out(["run", "--web"]) == ["run", default]
    assert spell_out(["run", "--web", "--json"]) == ["run", default, "--json"]
    assert spell_out(["run", "--web", "m.tflite"]) == ["run", default, "m.tflite"]
    for given in ("8081", "0.0.0.0", "0.0.0.0:80", ":80", "board.local:80", "[::1]:80", "localhost"):
        assert spell_out(["run", "--web", given, "m.tflite"]) == ["run", "--web", given, "m.tflite"]


def test_a_bare_attention_is_the_mean_of_the_masks_and_other_verbs_have_their_own() -> None:
    assert spell_out(["run", "--attention"]) == ["run", "--attention=mean"]
    assert spell_out(["run", "--attention", "m.tflite"]) == ["run", "--attention=mean", "m.tflite"]
    for words in (["run", "--attention", "2", "--web=1"], ["run", "--attention", "mean"], ["run", "--attention=2"]):
        assert spell_out(words) == words
    for words in (["train", "x", "--attention", "channel"], ["convert", "--attention"]):
        assert spell_out(words) == words


def test_the_page_allows_no_script_but_its_own(page: WebPage) -> None:
    response = get(page, "/")
    body = response.read().decode()
    assert response.status == 200
    policy = response.headers["Content-Security-Policy"]
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)
    assert nonce
    assert "default-src 'none'" in policy
    assert body.count(f'nonce="{nonce[1]}"') == 2  # one script, one style
    assert not re.search(r"https?://", body)  # nothing from elsewhere: a board may have no internet
    assert get(page, "/nothing").status == 404


def test_pictures_are_the_newest_and_numbers_are_complete(page: WebPage) -> None:
    put(page, 0)
    stream = get(page, "/stream")
    assert number_of(part(stream)) == 0
    for index in range(1, 40):
        put(page, index)
    put(page, 40, label="dog", changed=True)
    page.notice(Notice("lost", "the camera <i>went</i>", 0.0))
    wait_for(lambda: number_of(part(stream)) == 40)
    told = events(get(page, "/events"))
    assert next(told) == {"accelerator": "gpu (Mali-G610)", "source": "<b>cam</b>"}
    news = next(told)
    assert [p["index"] for p in news["points"]] == list(range(41))
    assert news["points"][0] | {"time": 0} == {
        **{"index": 0, "time": 0, "label": "cat", "score": 0.75, "latency_ms": 2.5, "inference_ms": 2.5, "fps": 25.0}
    }
    assert [(e["kind"], e["text"]) for e in news["events"]] == [
        ("answer", "dog (75%)"),
        ("lost", "the camera <i>went</i>"),
    ]
    put(page, 41)
    assert [p["index"] for p in next(told)["points"]] == [41]


def test_nothing_is_drawn_while_nobody_looks(page: WebPage) -> None:
    drawn = []
    for index in range(20):
        page.put(result(index), lambda index=index: drawn.append(index) or numbered(index))
    assert not drawn
    part(get(page, "/stream"))
    assert drawn == [19]


def test_visitors_are_bounded(page: WebPage) -> None:
    put(page, 0)
    watching = [get(page, "/stream") for _ in range(MAX_WATCHERS)]
    assert {r.status for r in watching} == {200}
    assert get(page, "/stream").status == 503
    assert get(page, "/events").status == 200
    crowd = []
    for _ in range(60):
        crowd.append(socket.create_connection(address_of(page), timeout=5))
    wait_for(lambda: _is_closed(crowd[0]))  # the oldest give way
    wait_for(lambda: threading.active_count() < MAX_CONNECTIONS + 8)
    for one in crowd:
        one.close()


def test_who_leaves_while_no_pictures_come_gives_the_seat_back(page: WebPage) -> None:
    put(page, 0)
    for _ in range(MAX_WATCHERS):
        get(page, "/stream").close()
    seats = page._server.watchers["/stream"]
    wait_for(lambda: seats._value == MAX_WATCHERS)


def _is_closed(one: socket.socket) -> bool:
    one.settimeout(0.2)
    try:
        return one.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_client_that_takes_nothing_does_not_slow_the_pipeline(page: WebPage) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), np.uint8)
    with socket.create_connection(address_of(page)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        page.put(result(0), lambda: noise)
        wait_for(lambda: page._server.watchers["/stream"]._value == MAX_WATCHERS - 1)
        time.sleep(0.5)  # its thread now hangs in a send
        one = result(0)
        for _ in range(500):
            page.put(one, lambda: noise)
        assert page._server.watchers["/stream"]._value == MAX_WATCHERS - 1  # it hangs on: no put waited for its end
        page.put(one, lambda: noise[::2])
        other = get(page, "/stream")
        assert part(other).shape == (540, 1920, 3)


def test_another_name_for_this_machine_is_refused(page: WebPage) -> None:
    port = address_of(page)[1]
    for host, status in ((f"127.0.0.1:{port}", 200), (f"localhost:{port}", 200), ("evil.example", 403), ("", 403)):
        assert get(page, "/", Host=host).status == status


def test_beyond_loopback_a_token_is_asked() -> None:
    page = WebPage("0.0.0.0:0", GPU, "cam")
    try:
        token = page.url.partition("?token=")[2]
        assert len(token) >= 20
        put(page, 0)
        for path in ("/", "/stream", "/events", "/?token=wrong", f"/?token={token[:-1]}"):
            assert get(page, path).status == 403
        first = get(page, f"/?token={token}")
        cookie = first.headers["Set-Cookie"]
        assert (first.status, first.headers["Location"]) == (303, "/")
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        for path in ("/", "/stream", "/events"):
            assert get(page, path, Cookie=cookie.split(";")[0]).status == 200
        assert get(page, f"/stream?token={token}").status == 200
        assert get(page, "/", Cookie=f"{cookie.partition('=')[0]}=wrong").status == 403
    finally:
        page.close()


@pytest.mark.parametrize("every", ["0.0.0.0", "[::]"])
def test_an_address_that_can_be_opened_is_told(every: str) -> None:
    try:
        page = WebPage(f"{every}:0", GPU, "cam")
    except EnvironmentMissing:
        pytest.skip("no IPv6 here")
    try:
        url = urllib.parse.urlsplit(page.url)
        assert url.hostname not in ("0.0.0.0", "::", None)
        assert url.query.startswith("token=")
    finally:
        page.close()


def test_a_port_that_is_taken_is_one_clear_line(page: WebPage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(EnvironmentMissing, match="cannot listen"):
        WebPage(f"127.0.0.1:{taken.getsockname()[1]}", GPU, "cam")


def test_idle_connections_keep_nobody_out(page: WebPage) -> None:
    """Whoever connects and says nothing gives way, the oldest first."""
    idle = [socket.create_connection(address_of(page)) for _ in range(MAX_CONNECTIONS + 8)]
    try:
        assert get(page, "/").status == 200
    finally:
        for connection in idle:
            connection.close()


def test_closing_ends_every_connection() -> None:
    page = WebPage("127.0.0.1:0", GPU, "cam")
    put(page, 0)
    stream, told = get(page, "/stream"), get(page, "/events")
    part(stream)
    page.close()
    assert stream.read() is not None  # returns: the end of the stream
    assert told.read() is not None


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile"), None, True, "--window-size=1200,800") as driver:
        yield driver


@contextmanager
def feeding(page: WebPage, width: int = 320) -> Iterator[None]:
    """Give the page pictures of one colour: a cat for a while, then a dog, and a notice."""
    stop = threading.Event()

    def feed() -> None:
        index = 0
        while not stop.wait(0.04):
            label, changed = ("dog", index == 20) if index >= 20 else ("cat", index == 0)
            page.put(result(index, label, changed), lambda: np.full((240, width, 3), (40, 200, 90), np.uint8))
            if index == 25:
                page.notice(Notice("black", "sends <u>black</u>", 0.0))
            index += 1

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield
    finally:
        stop.set()
        feeder.join()


@pytest.mark.browser
def test_in_a_real_browser(browser: Any, page: WebPage) -> None:
    with feeding(page):
        browser.get(page.url)
        wait_until(browser, "document.getElementById('answer').textContent === 'dog'")
        wait_until(browser, "document.getElementById('events').textContent.includes('sends')")
        wait_until(browser, "document.getElementById('live').naturalWidth === 320")
        wait_until(browser, "document.getElementById('lost').hidden")
        shown = browser.page_source
        image = cv2.imdecode(np.frombuffer(browser.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)
    assert "gpu (Mali-G610)" in shown
    assert "&lt;b&gt;cam&lt;/b&gt;" in shown  # a name is text, never markup
    assert "sends &lt;u&gt;black&lt;/u&gt;" in shown
    assert "p50 2.5, p99 2.5 ms" in shown
    assert "5 ms</small>" in shown
    left = image[20:400, 30:600].reshape(-1, 3)
    assert np.mean(np.abs(left.astype(int) - (40, 200, 90)).max(axis=1) < 30) > 0.9  # the live picture is there


@pytest.mark.browser
def test_the_page_shows_pictures_again_after_its_stream_broke(browser: Any) -> None:
    page = WebPage("127.0.0.1:0", GPU, "cam")
    try:
        with feeding(page):
            browser.get(page.url)
            wait_until(browser, "document.getElementById('live').naturalWidth === 320")
    finally:
        page.close()
    wait_until(browser, "document.getElementById('lost').textContent === 'not connected'")
    page = WebPage(f"127.0.0.1:{urllib.parse.urlsplit(page.url).port}", GPU, "cam")  # the run is started again
    try:
        with feeding(page, width=160):
            wait_until(browser, "document.getElementById('live').naturalWidth === 160")
    finally:
        page.close()


@pytest.mark.browser
def test_the_page_that_got_no_seat_shows_pictures_when_one_is_free(browser: Any, page: WebPage) -> None:
    with feeding(page):
        watching = [get(page, "/stream") for _ in range(MAX_WATCHERS)]
        browser.get(page.url)
        wait_until(browser, "document.getElementById('answer').textContent === 'dog'")
        assert browser.execute_script("return document.getElementById('live').naturalWidth") == 0
        for one in watching:
            one.close()
        wait_until(browser, "document.getElementById('live').naturalWidth === 320")


def test_run_serves_the_page_with_the_masks_and_ends_it(labelled_model) -> None:
    with MjpegServer(lambda n: jpeg(numbered(n, 320, 240)), fps=20) as server:
        words = ["run", str(labelled_model("attention")), "--camera", server.url, "--json", "--attention", "--web=:0"]
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_ran", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            told_where = (re.search(r"watch at http://127\.0\.0\.1:(\d+)/", line) for line in process.stderr)
            url = next(match for match in told_where if match)
            connection = http.client.HTTPConnection("127.0.0.1", int(url[1]), timeout=30)
            connection.request("GET", "/events")
            told = events(connection.getresponse())
            assert next(told)["source"] == server.url
            assert next(told)["points"]
            assert len(json.loads(process.stdout.readline())["attention"]) == 2
            other = http.client.HTTPConnection("127.0.0.1", int(url[1]), timeout=30)
            other.request("GET", "/stream")
            # The noise is grey on the whole, the mask's colours are not.
            noise, seen = (
                cv2.resize(picture[80:120, 200:], (6, 2), interpolation=cv2.INTER_AREA).astype(int)
                for picture in (numbered(0, 320, 240), part(other.getresponse()))
            )
            assert np.ptp(noise, axis=2).mean() < 10 < 25 < np.ptp(seen, axis=2).mean()
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_token_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(web_server.TOKEN, "kitchen-camera_1")
    page = WebPage("0.0.0.0:0", Accelerator("cpu", "cpu"), "cam")
    try:
        assert page.url.endswith("/?token=kitchen-camera_1")
        assert page.elsewhere == ""  # anyone can open it
        port = int(page.url.rpartition(":")[2].partition("/")[0])
        for token, status in (("kitchen-camera_1", 303), ("kitchen-camera_2", 403)):
            visit = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            visit.request("GET", f"/?token={token}")
            assert visit.getresponse().status == status
    finally:
        page.close()
    for bad in ("short", "with spaces in it", "umlaut-ä-umlaut", "quote'quote'quote"):
        monkeypatch.setenv(web_server.TOKEN, bad)
        with pytest.raises(UsageError, match="EDGE_RAN_WEB_TOKEN is no token"):
            WebPage("0.0.0.0:0", Accelerator("cpu", "cpu"), "cam")
    WebPage("127.0.0.1:0", Accelerator("cpu", "cpu"), "cam").close()  # which needs none
    monkeypatch.setenv(web_server.TOKEN, "")
    assert len(web_server.choose_token()) >= 20
    assert web_server.choose_token() != web_server.choose_token()


def test_how_to_open_the_page_from_another_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 50000 192.0.2.1 22")
    monkeypatch.setenv("LOGNAME", "pi")
    page = WebPage("127.0.0.1:0", Accelerator("cpu", "cpu"), "cam")
    page.close()
    port = page.url.rpartition(":")[2].strip("/")
    ssh = f"ssh -L {port}:localhost:{port} pi@192.0.2.1"
    assert page.elsewhere == f"from another machine: {ssh}, then open that address there; or --web 0.0.0.0:{port}"
