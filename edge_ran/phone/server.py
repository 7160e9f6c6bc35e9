"""Serves a site to browsers, classifies pictures for programs, and hands work to phones that opened the page.

``GET /`` is the site, ``POST /classify`` takes a picture and gives the record that ``edge-ran run --json`` prints for a
frame. ``/api/session/ID/…`` is how a page fetches tasks and sends what it found (``edge_ran.phone.sessions``).
"""

from __future__ import annotations

import mimetypes
import threading
import time
from pathlib import Path
from typing import Any

from edge_ran import records
from edge_ran.classifier import Classifier
from edge_ran.errors import EdgeRanError
from edge_ran.phone.sessions import Sessions
from edge_ran.picture import decode_picture
from edge_ran.stream.pipeline import FrameRecord
from edge_ran.web_server import Handler, Server

MAX_PICTURE_BYTES = 24 << 20
MAX_RECORD_BYTES = 64 << 20
MAX_WAITING = 8  # pictures that wait for the network; more are told to come again
TYPES = {".js": "text/javascript", ".wasm": "application/wasm", ".webmanifest": "application/manifest+json"}
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class PhoneServer(Server):
    """A server for one site; ``classifier`` answers ``/classify``, ``sessions`` the pages that work for us."""

    def __init__(
        self, address: tuple[str, int], site: Path, classifier: Classifier | None, token: str = "", tls: Any = None
    ) -> None:
        """Listen. Raises EnvironmentMissing as ``Server`` does.

        Args:
            address: host and port.
            site: the folder that ``site.export_site`` made.
            classifier: what answers ``/classify``; None = nothing does.
            token: what visitors must show.
            tls: an ``ssl.SSLContext``; None = plain HTTP.
        """
        self.site = site.resolve()
        self.files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
        self.classifier, self.sessions = classifier, Sessions()
        self.classifying = threading.Lock()
        self.waiting = threading.BoundedSemaphore(MAX_WAITING)
        self.count = 0
        super().__init__(*address, _PhoneHandler, token, tls)


class _PhoneHandler(Handler):
    server: PhoneServer
    policy = POLICY

    def get(self, path: str) -> None:
        if path.startswith("/api/session/"):
            self._session(path, None)
            return
        name = path.lstrip("/") or "index.html"
        if name not in self.server.files:  # only what the site has: no path is put together from a request
            self.send_error(404)
            return
        suffix = Path(name).suffix
        kind = TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        self.send_bytes((self.server.site / name).read_bytes(), kind)

    def post(self, path: str) -> None:
        try:
            if path == "/classify":
                self._classify()
            elif path.startswith("/api/session/") and self.server.sessions.knows(path.split("/")[3]):
                self._session(path, self.body(MAX_RECORD_BYTES))
            else:
                self.send_error(404)
        except EdgeRanError as error:
            self.send_json({"error": str(error), "remedy": error.remedy}, 400)

    def _classify(self) -> None:
        if self.server.classifier is None:
            self.send_error(404)
            return
        data = self.body(MAX_PICTURE_BYTES)
        if self.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
            what = "the picture lies in a form; the body must be the picture alone"
            self.send_json({"error": what, "remedy": "curl -X POST -T PICTURE ADDRESS/classify"}, 400)
            return
        if not self.server.waiting.acquire(blocking=False):
            self.send_json({"error": "too many pictures are waiting", "remedy": "send it again in a second"}, 503)
            return
        try:
            frame = decode_picture(data, "of the request")
            with self.server.classifying:
                record = self._record(frame)
        finally:
            self.server.waiting.release()
        self.send_json(record)

    def _record(self, frame: Any) -> dict[str, Any]:
        classifier = self.server.classifier
        assert classifier is not None
        began = time.perf_counter()
        ranked = classifier.classify(frame)
        stages = {**classifier.stages_ms, "end_to_end": 1e3 * (time.perf_counter() - began)}
        index, self.server.count = self.server.count, self.server.count + 1
        now = time.time()
        return records.document(
            FrameRecord(
                index=index,
                captured_at=now,
                timestamp=now,
                picture=None,
                label=ranked[0].label,
                score=ranked[0].score,
                changed=False,
                predictions=ranked[:5],
                attention=None,
                stages_ms=stages,
                accelerator=classifier.runtime.accelerator,
            )
        )

    def _session(self, path: str, body: bytes | None) -> None:
        _, _, _, name, *rest = path.split("/")
        what = "/".join(rest)
        if body is None and what == "task":
            task = self.server.sessions.next_task(name)
            self.send_json(task) if task is not None else self.send_error(404)
            return
        answer = self.server.sessions.take(name, what, body) if body is not None else None
        self.send_json(answer) if answer is not None else self.send_error(404)
