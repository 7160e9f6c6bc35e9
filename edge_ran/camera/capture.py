"""Keeps a source alive and its frames fresh.

A thread of its own reads the source. Of a live source only the newest frame waits to be taken; older ones are counted
as dropped. Of a file every frame is kept, at its own pace or as fast as they are taken.

Faults of live sources, each said once, and once more when it is over:

| kind      | what is seen                                          | what is done                                    |
|-----------|-------------------------------------------------------|-------------------------------------------------|
| lost      | the driver or connection says so                      | opened again, waiting longer each time          |
| stalled   | nothing arrives for ``stall_s``, whoever is hanging   | left behind (a hung read cannot be stopped), and |
|           |                                                       | opened again                                    |
| frozen    | the same picture, bit by bit, for ``frozen_s``        | not handed out; opened again after ``stall_s``  |
| corrupt   | a picture that cannot be decoded                      | the same                                        |
| black     | nothing but black                                     | the same, but never given up: it may be night   |

A fault that outlasts ``reconnect_s`` is final: ``next`` raises CameraError. A live picture that did not arrive, or
arrived broken, is never handed out.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ran.camera.frame import Frame, FrameSource
from edge_ran.camera.mjpeg import OtherStream
from edge_ran.errors import CameraError, EdgeRanError, InputError
from edge_ran.printable import many

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
_LONGEST_LOOK_S = 60.0  # between two reopenings of a camera that does send, but nothing of use
_READ_AHEAD = 2  # frames of a file
_GAPS_KEPT = 1000  # a camera with a loose contact must not fill the memory
_SILENT = ("lost", "stalled")  # nothing arrives; in the other faults something does, but nothing of use
_TICK_S = 0.1  # how often a waiting consumer looks at the clock and at ``stop``


@dataclass(frozen=True)
class Limits:
    """Patience, in seconds. ``frozen_s`` 0 lets a picture stand still; ``reconnect_s`` inf never gives up."""

    stall_s: float = 5.0
    frozen_s: float = 10.0
    reconnect_s: float = 30.0


@dataclass(frozen=True)
class Notice:
    """Something to say once. ``kind`` is a fault of the table above, ``back``, ``resolution`` or ``short``."""

    kind: str
    text: str
    at: float


@dataclass(frozen=True)
class Gap:
    """A time without pictures: what kind of fault, from when (``time.monotonic``) and for how long, seconds."""

    kind: str
    began_at: float
    seconds: float


@dataclass
class _Trouble:
    kind: str
    since: float  # the last good moment
    noticed_at: float  # from here on patience runs out
    attempts: int
    black: bool = False  # what came last


class Capture:
    """Reads a source in its own thread.

    Args:
        open_source: opens the source; called again whenever it was lost.
        realtime: play files at their own pace; else as fast as frames are taken.
        limits: when a live source counts as faulty, and for how long to try again.
        notify: told of every notice, from any thread; must return at once.
        stop: when set, ``next`` returns None.
        patience_s: a source that has not opened by then is given up.

    Raises:
        CameraError, InputError, UsageError: the source cannot be opened the first time, or ``stop`` was set meanwhile.
    """

    def __init__(
        self,
        open_source: Callable[[], FrameSource],
        *,
        realtime: bool = True,
        limits: Limits | None = None,
        notify: Callable[[Notice], None] = lambda notice: None,
        stop: threading.Event | None = None,
        patience_s: float = math.inf,
    ) -> None:
        self._open, self._limits, self._notify = open_source, limits or Limits(), notify
        self._stop = stop or threading.Event()
        source = _opened(open_source, self._stop, patience_s)
        self.name, self.live, self.fps = source.name, source.live, source.fps
        self.frames_announced: int = getattr(source, "frames_announced", 0)  # of a file; 0 = unknown
        self._size_asked: tuple[int, int] = getattr(source, "size_asked", (0, 0))
        self.captured = 0
        self.dropped: Counter[str] = Counter()
        self.gaps: deque[Gap] = deque(maxlen=_GAPS_KEPT)
        self._realtime = realtime and not source.live and source.fps > 0
        self._eye = _Eye(self._limits.frozen_s)
        self._changed = threading.Condition()
        self._waiting: deque[Frame] = deque()
        self._arrivals = 0
        self._shape: tuple[int, ...] = ()
        self._trouble: _Trouble | None = None
        # A camera that is asked for a picture every few seconds is silent in between.
        self._stall_s = self._limits.stall_s + (1 / source.fps if source.live and 0 < source.fps < 1 else 0.0)
        self._recovered_at, self._attempts_before = -1e9, 0
        self._failure: EdgeRanError | None = None
        self._ended = self._closed = False
        self._generation = 0
        self._reading = True
        self._last_arrival = self._opened_at = time.monotonic()
        self._began_at: float | None = None  # when the first frame of a file was due
        self._thread = self._start(source)

    # ------------------------------------------------------------------------------- the consumer's side

    def next(self, until: float = math.inf) -> Frame | None:
        """Return the newest frame (live) or the next one (file); wait for it.

        None at the end, when stopped, or when the time ``until`` (``time.monotonic``) has come.

        Raises:
            CameraError: a live source is lost for good.
        """
        with self._changed:
            while not self._waiting:
                if self._failure:
                    raise self._failure
                if self._ended or self._closed or self._stop.is_set():
                    return None
                now = time.monotonic()
                if now >= until:
                    return None
                self._watch(now)
                self._changed.wait(min(_TICK_S, until - now))
            if self._stop.is_set() or time.monotonic() >= until:
                return None
            frame = self._waiting.popleft()
            if not self.live:
                self.captured += 1
                self._changed.notify_all()  # there is room for another
            return frame

    @property
    def has_frame(self) -> bool:
        """Whether a frame waits, so that ``next`` returns at once."""
        return bool(self._waiting)

    def close(self) -> None:
        """End the thread and give the source back. The frame that still waits counts as dropped."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            if self.live and self._waiting:
                self.dropped["at_end"] += len(self._waiting)
            self._waiting.clear()
            self._end_trouble(time.monotonic(), "")
            self._changed.notify_all()
        self._thread.join(1.0)  # a hung read is left behind; the thread is a daemon

    def _watch(self, now: float) -> None:
        """Notice a silence, and the end of patience. Called with the lock held."""
        if not self.live:
            return
        if self._reading and now - self._last_arrival > self._stall_s:
            what = f"{self.name} has sent nothing for {self._stall_s:g} s"
            self._begin_trouble("stalled", what, self._last_arrival)
            self._thread = self._start(None)
        trouble = self._trouble
        if trouble and not trouble.black and now - trouble.noticed_at > self._limits.reconnect_s:
            what = f"{self.name} was lost for good: {trouble.kind}, and not back within {self._limits.reconnect_s:g} s"
            still = "; a picture that may stand still: --frozen 0" if trouble.kind == "frozen" else ""
            self._failure = CameraError(what, f"check the camera; --reconnect forever keeps on trying{still}")
            self._generation += 1

    # --------------------------------------------------------------------------------- the reader's side

    def _start(self, source: FrameSource | None) -> threading.Thread:
        self._generation += 1
        self._reading = source is not None
        thread = threading.Thread(
            target=self._work, args=(self._generation, source), name="edge-ran capture", daemon=True
        )
        thread.start()
        return thread

    def _current(self, generation: int) -> bool:
        return generation == self._generation and not self._closed and not self._stop.is_set()

    def _work(self, generation: int, source: FrameSource | None) -> None:
        try:
            while self._current(generation):
                source = source or self._reopen(generation)
                if source is None:
                    return
                if not self._read_one(generation, source):
                    source.close()
                    source = None
                    if not self.live:
                        return
        except Exception as error:  # a fault of ours must not look like a silent camera
            with self._changed:
                self._failure = CameraError(f"reading {self.name} failed: {error!r}", "please report this")
                self._changed.notify_all()
        finally:
            if source is not None:
                source.close()

    def _read_one(self, generation: int, source: FrameSource) -> bool:
        """Read a frame and hand it on. False: the source is of no more use."""
        try:
            frame = source.read()
        except InputError as error:
            return self._receive(generation, None, str(error))
        except OtherStream as error:
            with self._changed:
                if self._current(generation):
                    self._failure = error
                    self._changed.notify_all()
            return False
        except CameraError as error:
            with self._changed:
                if self._current(generation):
                    self._reading = False
                    self._begin_trouble("lost", str(error), time.monotonic())
            return False
        if frame is None:
            self._finish()
            return False
        if self._realtime:
            frame = self._wait_until_due(frame)
        return self._receive(generation, frame, "")

    def _receive(self, generation: int, frame: Frame | None, what: str) -> bool:
        now = time.monotonic()
        with self._changed:
            if not self._current(generation):
                return False
            index, self._arrivals = self._arrivals, self._arrivals + 1
            self._last_arrival = now
            flaw = "corrupt" if frame is None else self._eye.flaw(frame.image, now) if self.live else ""
            if self.live or flaw:
                self.captured += 1
            if frame is None or flaw:
                return self._refuse(flaw, what, now)
            self._end_trouble(now, f"{self.name} is back")
            self._note_shape(frame, now)
            frame = dataclasses.replace(frame, index=index)
            if self.live:
                self.dropped["superseded"] += len(self._waiting)
                self._waiting.clear()
            while len(self._waiting) >= _READ_AHEAD and self._current(generation):
                self._changed.wait(_TICK_S)
            self._waiting.append(frame)
            self._changed.notify_all()
            return True

    def _refuse(self, flaw: str, what: str, now: float) -> bool:
        """Count a frame that is of no use. False: open the source again. Called with the lock held."""
        self.dropped[flaw] += 1
        if not self.live:
            self._notify(Notice(flaw, f"{what}; left out", now))
            return True
        texts = {
            "black": f"{self.name} sends black pictures; they are not classified",
            "frozen": f"{self.name} has sent the same picture for {self._limits.frozen_s:g} s; it is not classified",
            "corrupt": f"{what}; it is not classified",
        }
        self._begin_trouble(flaw, texts[flaw], now)
        assert self._trouble
        # Something does arrive: reopening may help, but less and less often.
        patience = min(_LONGEST_LOOK_S, self._limits.stall_s * 2 ** min(self._trouble.attempts, 8))
        if now - max(self._trouble.since, self._opened_at) < patience:
            return True
        self._reading = False
        return False

    def _reopen(self, generation: int) -> FrameSource | None:
        while True:
            with self._changed:
                if self._trouble is None:  # cannot be: every reopening has a reason
                    return None
                wait = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self._trouble.attempts, 8))
                self._trouble.attempts += 1
                until = time.monotonic() + wait
                while (left := until - time.monotonic()) > 0 and self._current(generation):
                    self._changed.wait(min(left, _TICK_S))
                if not self._current(generation):
                    return None
            try:
                source = self._open()
            except EdgeRanError as error:
                with self._changed:
                    if self._current(generation):  # one that sent black pictures may be gone now
                        self._begin_trouble("lost", str(error), time.monotonic())
                continue
            with self._changed:
                if self._current(generation):
                    self._last_arrival = self._opened_at = time.monotonic()
                    self._reading = True
                    return source
            source.close()
            return None

    def _wait_until_due(self, frame: Frame) -> Frame:
        now = time.monotonic()
        if self._began_at is None:  # the first that could be read
            self._began_at = now - frame.timestamp
        due = self._began_at + frame.timestamp
        with self._changed:
            while (left := due - time.monotonic()) > 0 and not self._closed and not self._stop.is_set():
                self._changed.wait(min(left, _TICK_S))
        # As if a camera had taken it, and decoding had come after.
        return dataclasses.replace(frame, captured_at=time.monotonic() - frame.capture_ms / 1e3)

    def _finish(self) -> None:
        if self._arrivals < 0.9 * self.frames_announced:
            text = f"{self.name} ends after {self._arrivals} of {many(self.frames_announced, 'frame')}: is it damaged?"
            self._notify(Notice("short", text, time.monotonic()))
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # ------------------------------------------------------------------- faults; the lock is held in all of these

    def _begin_trouble(self, kind: str, text: str, since: float) -> None:
        now, before = time.monotonic(), self._trouble
        if before and (before.kind in _SILENT) == (kind in _SILENT):
            if before.black and kind != "black":
                before.noticed_at = now  # a night is no time without a camera
            before.black = kind == "black"
            return  # said already; a camera in trouble may show it in turns
        if before:  # what was black has now gone, or what was lost sends again, but nothing of use
            self.gaps.append(Gap(before.kind, before.since, now - before.since))
            noticed_at, attempts = (now if before.black else before.noticed_at), before.attempts
        else:
            # A camera that comes and goes is given more rest each time.
            again = now - self._recovered_at < self._limits.stall_s
            noticed_at, attempts = now, self._attempts_before if again else 0
        self._trouble = _Trouble(kind, since, noticed_at, attempts, black=kind == "black")
        self._notify(Notice(kind, text, now))

    def _end_trouble(self, now: float, text: str) -> None:
        trouble, self._trouble = self._trouble, None
        if not trouble:
            return
        self.gaps.append(Gap(trouble.kind, trouble.since, now - trouble.since))
        self._recovered_at, self._attempts_before = now, trouble.attempts
        if text:
            self._notify(Notice("back", f"{text} after {now - trouble.since:.1f} s", now))

    def _note_shape(self, frame: Frame, now: float) -> None:
        shape = frame.image.shape
        (wide, high), (height, width) = self._size_asked, shape[:2]
        if not self._shape and ((wide and wide != width) or (high and high != height)):
            text = f"{self.name} gives {width}x{height}, not {wide or width}x{high or height} as asked"
            self._notify(Notice("resolution", text, now))
        if self.live and self._shape and shape != self._shape:
            height_before, width_before = self._shape[:2]
            text = f"{self.name} changed from {width_before}x{height_before} to {width}x{height}"
            self._notify(Notice("resolution", text, now))
        self._shape = shape


def _opened(open_source: Callable[[], FrameSource], stop: threading.Event, patience_s: float) -> FrameSource:
    """Open the source in a thread of its own: an address that does not answer must not hold up ``stop`` or Ctrl-C."""
    if sys.platform == "darwin":  # where only the main thread may ask the user for the camera
        return open_source()
    opening: Future[FrameSource] = Future()

    def work() -> None:
        try:
            opening.set_result(open_source())
        except BaseException as error:
            opening.set_exception(error)

    def give_back(late: Future[FrameSource]) -> None:
        if not late.exception():
            late.result().close()

    threading.Thread(target=work, name="edge-ran open", daemon=True).start()
    until = time.monotonic() + patience_s
    try:
        while not wait([opening], _TICK_S).done:
            if time.monotonic() > until:
                raise CameraError(f"the camera did not answer within {patience_s:g} s", "check the address and network")
            if stop.is_set():
                raise CameraError("stopped before the camera answered")
    except BaseException:
        opening.add_done_callback(give_back)
        raise
    return opening.result()


class _Eye:
    """Tells pictures that show nothing: black ones, and one that stands still bit by bit."""

    def __init__(self, frozen_s: float) -> None:
        self._frozen_s = frozen_s
        self._image: NDArray[np.uint8] | None = None
        self._changed_at = 0.0

    def flaw(self, image: NDArray[np.uint8], now: float) -> str:
        """Return ``black``, ``frozen`` or an empty string."""
        before, self._image = self._image, image
        # A real sensor is never twice the same: almost always one row alone settles it.
        middle = image.shape[0] // 2
        same = (
            before is not None
            and before.shape == image.shape
            and before[middle].tobytes() == image[middle].tobytes()
            and np.array_equal(before, image)
        )
        if not same:
            self._changed_at = now
        step = max(1, min(image.shape[:2]) // 32)
        grid = image[::step, ::step]
        row = grid[len(grid) // 2]  # here, too: enough bright pixels in one row settle it
        if all(np.count_nonzero(part > 20) * 100 < grid.size for part in (row, grid)):
            return "black"  # 99 % is darker than a sensor's own noise
        return "frozen" if self._frozen_s and now - self._changed_at > self._frozen_s else ""
