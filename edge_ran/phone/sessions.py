"""Work that a page on a phone does for this machine: it fetches tasks, and sends raw samples and answers back.

All statistics are computed here. What a page sends is a stranger's: every value is read as what it should be.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from edge_ran import records
from edge_ran.errors import EnvironmentMissing, InputError

POLL_S = 10.0  # how long a page's question for work waits for an answer
GONE_S = 45.0  # without a question or a frame for so long, a page is taken to be closed


@dataclass(frozen=True)
class Abilities:
    """What a browser can do."""

    relaxed_simd: bool
    jspi: bool
    webgpu: bool
    isolated: bool


@dataclass(frozen=True)
class CheckResult:
    """How far answers are from the right ones, as ``runtime.agreement.Agreement``."""

    pictures: int
    top1: float
    largest_difference: float
    relative_error: float
    answers_range: float
    masks_difference: float
    is_right: bool


@dataclass(frozen=True)
class PageAccelerator:
    """What runs the network on a page, and why nothing else does."""

    actual: Literal["cpu", "gpu"]
    adapter: str
    reason: str
    is_software: bool
    file: str
    checks: dict[str, CheckResult]
    false_pixels: bool = False


@dataclass(frozen=True)
class Hello:
    """What a page says of the phone and the browser that it is in; a browser may leave things out."""

    user_agent: str
    model: str
    platform: str
    cores: int
    memory_gb: float | None
    abilities: Abilities
    accelerator: PageAccelerator
    load_ms: float


@dataclass(frozen=True)
class Battery:
    """Charge 0..1, and whether it is being charged."""

    level: float
    charging: bool


@dataclass(frozen=True)
class TimedRuns:
    """Samples of inferences back to back, every output read inside the timer; a list for each load of the file."""

    sessions_ms: tuple[tuple[float, ...], ...]
    load_ms: tuple[float, ...]
    first_ms: tuple[float, ...]
    seconds: float
    hidden: bool
    clock_step_ms: float
    battery: tuple[Battery | None, Battery | None]
    accelerator: PageAccelerator


@dataclass(frozen=True)
class PageAnswers:
    """The outputs for the site's check pictures: [picture][output][value], None where there is no such accelerator.

    ``cpu_ms`` and ``gpu_ms`` are medians of a few runs.
    """

    cpu: tuple[tuple[tuple[float, ...], ...], ...] | None
    gpu: tuple[tuple[tuple[float, ...], ...], ...] | None
    cpu_ms: float
    gpu_ms: float | None
    accelerator: PageAccelerator


@dataclass(frozen=True)
class PageFrame:
    """One frame that a phone's camera saw: ``outputs`` [output][value], the picture's size in pixels."""

    index: int
    outputs: tuple[tuple[float, ...], ...]
    stages_ms: dict[str, float]
    width: int
    height: int


@dataclass(frozen=True)
class FramesDone:
    """The end of a run of ``frames`` frames."""

    frames: int


class Session:
    """One page at work. Use ``hello``, then ``ask`` for each task; ``end`` tells the page that all is done."""

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self.came = threading.Event()
        self._tasks: queue.Queue[dict[str, Any]] = queue.Queue()
        self._results: queue.Queue[Any] = queue.Queue()
        self._number = 0
        self._on_frame: Callable[[PageFrame], None] | None = None
        self.seen_at = time.monotonic()

    def ask(
        self,
        kind: type[Any],
        task: str,
        timeout_s: float,
        on_frame: Callable[[PageFrame], None] | None = None,
        **words: Any,
    ) -> Any:
        """Have the page do a task, and return what it found as a ``kind``.

        Raises:
            EnvironmentMissing: the page was closed, did not answer in time, or failed.
            InputError: its answer is not one.
        """
        self._number += 1
        self._on_frame = on_frame
        self._tasks.put({"kind": task, "id": self._number, **words})
        until = time.monotonic() + timeout_s
        while True:
            try:
                told = self._results.get(timeout=0.5)
            except queue.Empty:
                now = time.monotonic()
                if now > until:
                    raise EnvironmentMissing("the phone did not answer in time", "keep the page in front") from None
                if now - self.seen_at > GONE_S and task != "benchmark":
                    raise EnvironmentMissing(
                        "the phone's page was closed", "open it again, and keep it in front"
                    ) from None
                continue
            if told.get("task") != self._number:
                continue  # of a page that was loaded again in the middle
            if isinstance(told.get("error"), str):
                raise EnvironmentMissing(
                    f"the phone could not do it: {told['error'][:200]}", "edge-ran serve shows more"
                )
            return records.read(kind, told, "phone")

    def end(self) -> None:
        """Tell the page that there is no more work."""
        self._tasks.put({"kind": "end", "id": 0})

    def next_task(self) -> dict[str, Any]:
        """Return the page's next task; ``wait`` when there was none for a while."""
        self.seen_at = time.monotonic()
        try:
            return self._tasks.get(timeout=POLL_S)
        except queue.Empty:
            return {"kind": "wait", "id": 0}

    def take(self, what: str, told: dict[str, Any]) -> bool:
        """Take in what the page sent. Returns False where ``what`` is nothing that pages send."""
        self.seen_at = time.monotonic()
        if what == "hello":
            self.hello = records.read(Hello, told, "phone")
            self.came.set()
        elif what == "frame":
            frame = records.read(PageFrame, told, "phone")
            if self._on_frame:
                self._on_frame(frame)
        elif what == "result":
            self._results.put(told)
        else:
            return False
        return True


class Sessions:
    """The sessions of a server, by their names, which are as hard to guess as a token."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self) -> tuple[str, Session]:
        """Make a session. Returns its name, for the address, and the session."""
        name, session = secrets.token_urlsafe(9), Session()
        with self._lock:
            self._sessions[name] = session
        return name, session

    def next_task(self, name: str) -> dict[str, Any] | None:
        """Return the next task of the session called ``name``; None where there is no such session."""
        session = self._find(name)
        return session.next_task() if session else None

    def take(self, name: str, what: str, body: bytes) -> bool:
        """Give the session what its page sent. Raises InputError where it is not what it should be."""
        session = self._find(name)
        if session is None:
            return False
        try:
            told = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InputError("a page sent what is no JSON") from error
        if not isinstance(told, dict):
            raise InputError("a page sent what is no record")
        return session.take(what, told)

    def _find(self, name: str) -> Session | None:
        with self._lock:
            return self._sessions.get(name)


def facts(hello: Hello) -> dict[str, str]:
    """Return what is known of the phone, in words, for a report."""
    memory = f"{hello.memory_gb:g} GB" if hello.memory_gb else ""
    shown = {**dataclasses.asdict(hello), "memory": memory}
    return {key: str(shown[key]) for key in ("model", "platform", "user_agent", "memory") if shown[key]}
