"""Makes the network's inputs ahead, in a thread of its own: while one frame is inferred the next is prepared, and the
one after it captured and decoded.

The inputs are arrays of their own: the runtime's would be read and written at once. Copying one into the runtime's is
0.3 µs for 32x32 and 1.5 µs for 224x224 pixels of a byte (less than asking the runtime for a view to write through);
there is no other copy of a frame.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran.camera import Capture, Frame

_TICK_S = 0.1  # how often a waiting consumer looks at the clock and at ``stop``
_READ_AHEAD = 2  # inputs made of a file's frames
_LEAD = 2.0  # times what preparing took last time: when to begin before the network is expected back


@dataclass(frozen=True)
class Prepared:
    """A frame and the network's input made of it, in ``prepare_ms``."""

    frame: Frame
    x: NDArray[Any]
    prepare_ms: float


class Prefetcher:
    """Takes a capture's frames and prepares them.

    Of a live source the newest frame shall be ready when the network is, and nothing prepared for nothing: on a board
    whose cores the network fills, that would be its time. So the frame is taken shortly before the network, which
    takes about as long as the last time, comes back; if it is late, every newer frame takes the waiting one's place,
    which counts as superseded. A file waits.

    ``idle`` is called now and then, by the thread that waits in ``next``, while nothing comes.
    """

    def __init__(
        self, capture: Capture, prepare: Callable[[NDArray[np.uint8]], NDArray[Any]], stop: threading.Event
    ) -> None:
        """Start; when ``stop`` is set, ``next`` returns None."""
        self._capture, self._prepare, self._stop = capture, prepare, stop
        self.idle: Callable[[], None] = lambda: None
        self._changed = threading.Condition()
        self._waiting: deque[Prepared] = deque()
        self._begun = self._handed_out = self._superseded = self._at_end = 0
        self._failure: Exception | None = None
        self._ended = self._closed = False
        self._wanted = True  # somebody waits in ``next``
        self._left_at, self._away_s = time.monotonic(), 0.0  # when the consumer left, and for how long the last time
        self._prepare_s = 0.0
        self._thread = threading.Thread(target=self._work, name="edge-ran prepare", daemon=True)
        self._thread.start()

    def next(self, until: float = math.inf) -> Prepared | None:
        """Return the newest frame (live) or the next one (file), prepared; wait for it.

        None at the end, when stopped, or when the time ``until`` (``time.monotonic``) has come.

        Raises:
            CameraError: a live source is lost for good.
        """
        with self._changed:
            self._wanted, self._away_s = True, time.monotonic() - self._left_at
            if not self._waiting:
                self._changed.notify_all()
        while not self._stop.is_set() and (now := time.monotonic()) < until:
            with self._changed:
                if self._waiting:
                    self._handed_out += 1
                    self._wanted, self._left_at = False, now
                    self._changed.notify_all()  # there is room for another
                    return self._waiting.popleft()
                if self._failure:
                    raise self._failure
                if self._ended:
                    return None
                something = self._changed.wait(min(_TICK_S, until - now))
            if not something:
                self.idle()
        return None

    @property
    def captured(self) -> int:
        """Frames that arrived; of a file, those that were handed out or could not be read."""
        unused = self._begun - self._handed_out
        return self._capture.captured - (0 if self._capture.live else unused)

    @property
    def dropped(self) -> Counter[str]:
        """Frames that were not handed out, by reason."""
        return self._capture.dropped + Counter(superseded=self._superseded, at_end=self._at_end)

    def close(self) -> None:
        """End the capture and the thread. Live frames that still wait count as dropped."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._capture.close()
        self._thread.join()
        if self._capture.live:
            self._at_end = self._begun - self._handed_out - self._superseded

    def _work(self) -> None:
        try:
            while (frame := self._take()) is not None:
                self._begun += 1
                began = time.perf_counter()
                x = self._prepare(frame.image)
                self._prepare_s = time.perf_counter() - began
                self._put(Prepared(frame, x, self._prepare_s * 1e3))
        except Exception as error:  # the consumer's to hear
            self._failure = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self) -> Frame | None:
        if self._capture.live:
            with self._changed:
                back_at = self._left_at + self._away_s - _LEAD * self._prepare_s
                while not (self._wanted or self._closed) and (left := back_at - time.monotonic()) > 0:
                    self._changed.wait(min(left, _TICK_S))
        return self._capture.next()

    def _put(self, prepared: Prepared) -> None:
        with self._changed:
            if self._capture.live:
                self._superseded += len(self._waiting)
                self._waiting.clear()
            while len(self._waiting) >= _READ_AHEAD and not self._closed:
                self._changed.wait()
            self._waiting.append(prepared)
            self._changed.notify_all()
