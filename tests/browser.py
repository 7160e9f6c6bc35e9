"""A real headless Chromium with a software GPU and a camera that plays a file, for the tests of the phone's page."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

# Without the flags for background networking it looks up its maker's hosts at each start.
WORDS = (
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader",
    "--use-fake-device-for-media-stream", "--window-size=400,400",
)  # fmt: skip
PATIENCE_S = 90.0


class _Files(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".wasm": "application/wasm",
        ".js": "text/javascript",
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=600")  # as GitHub Pages says
        super().end_headers()

    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        if not self.server.is_gone:  # connections that a browser opened beforehand outlive the server
            # Python compares whole seconds: a file that a test writes twice within one would count as not modified.
            del self.headers["If-Modified-Since"]
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    is_gone = False


@contextmanager
def static_server(folder: Path) -> Iterator[str]:
    """Serve a folder as any static host would; yields its address."""
    server = _Server(("127.0.0.1", 0), functools.partial(_Files, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.is_gone = True
        server.shutdown()
        server.server_close()


@contextmanager
def chromium(profile: Path, camera: Path | None = None, allow: bool = True, *words: str) -> Iterator[Any]:
    """Yield a Selenium driver. ``camera`` is a .y4m; ``allow`` answers the browser's question for the camera."""
    webdriver = pytest.importorskip("selenium.webdriver")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("needs a browser: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    source = (f"--use-file-for-fake-video-capture={camera}",) if camera else ()
    answer = ("--use-fake-ui-for-media-stream",) if allow else ("--deny-permission-prompts",)
    for word in (*WORDS, *source, *answer, *words, f"--user-data-dir={profile}"):
        options.add_argument(word)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        browser.set_script_timeout(PATIENCE_S)
        yield browser
    finally:
        browser.quit()


def wait_for(browser: Any, what: str) -> dict[str, str]:
    """Wait until ``document.body`` has ``data-what``, or has failed; returns all its data."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        data: dict[str, str] = browser.execute_script("return {...document.body?.dataset}")
        if what in data or "failed" in data:
            return data
        time.sleep(0.1)
    raise AssertionError(f"no {what} after {PATIENCE_S:.0f} s: {data}")


def wait_until(browser: Any, condition: str) -> None:
    """Wait until the JavaScript expression is true in the page."""
    until = time.monotonic() + PATIENCE_S
    while not browser.execute_script(f"try {{ return Boolean({condition}); }} catch {{ return false; }}"):
        assert time.monotonic() < until, f"not within {PATIENCE_S:.0f} s: {condition}"
        time.sleep(0.1)


def write_y4m(path: Path, frame: NDArray[np.uint8], frames: int = 10) -> None:
    """Write a still (H, W, 3) BGR picture as an uncompressed video that Chromium plays as a camera."""
    import cv2

    height, width = frame.shape[:2]
    planes = cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes()
    head = f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420mpeg2\n".encode()
    path.write_bytes(head + b"".join(b"FRAME\n" + planes for _ in range(frames)))


def change(file: Path, old: str, new: str) -> None:
    """Change words of a script, which must be there."""
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")
