"""Several frames at the same time, each with an interpreter of its own, for networks so light that more threads for
one frame do not make it much faster.

Each worker takes a frame, prepares and infers it; the results come in the order in which the frames were taken. The
thread that waits for results is a worker, too: handing a frame to another thread costs about as much as preparing it.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran.camera import Capture, Frame
from edge_ran.classifier import Classifier, real_inputs
from edge_ran.errors import UsageError
from edge_ran.machine import available_cores

_TICK_S = 0.1  # how often a waiting consumer looks at the clock and at ``stop``
_AHEAD = 2  # frames for each worker that are taken and not handed out: a late one must not stop the others
_LIGHT_MS = 5.0  # an inference on every core that takes longer than this gains little from company
_PAIRS = 9
# One thread may take so many times as long as all cores together. Of a live source the newest answer counts, so it may
# hardly come later; of a file the sum counts, and threads that share one frame use less than 80 % of each core.
_SLOWER_LIVE, _SHARE_OF_FILES = 1.25, 0.8


@dataclass(frozen=True)
class Scored:
    """A frame, (classes,) float32 scores of it, and the stages from ``preprocess`` to ``postprocess``."""

    frame: Frame
    scores: NDArray[np.float32]
    stages_ms: dict[str, float]


class Parallel:
    """Takes a capture's frames and classifies as many at the same time as there are classifiers, which it owns.

    Of a live source every frame is the newest when it is taken. None is taken while the consumer is busy with a
    result, and a result that was ready long before the consumer came back gives way to a newer frame: both count as
    superseded.

    ``idle`` is called now and then, by the thread that waits in ``next``, while nothing comes.
    """

    def __init__(self, capture: Capture, classifiers: Sequence[Classifier], stop: threading.Event) -> None:
        """Start; when ``stop`` is set, ``next`` returns None."""
        self._capture, self._classifiers, self._stop = capture, classifiers, stop
        self.idle: Callable[[], None] = lambda: None
        self._turn = threading.Lock()  # of the worker that takes the next frame
        self._changed = threading.Condition()
        self._done: dict[int, Scored | Exception] = {}  # by the number in which they were taken
        self._received = self._superseded = self._handed_out = 0
        self._taken = self._wanted = 0  # the numbers of the frame that is taken next, and of the result that is next
        self._left_at = time.monotonic()  # when the consumer left
        self._consumer_waits = self._ended = self._closed = False
        self._failure: Exception | None = None
        self._threads = [
            threading.Thread(target=self._work, args=(one,), name="edge-ran classify", daemon=True)
            for one in classifiers[1:]
        ]
        for thread in self._threads:
            thread.start()

    def next(self, until: float = math.inf) -> Scored | None:
        """Return the next frame's scores, in the order in which the frames came; wait for them.

        None at the end, when stopped, or when the time ``until`` (``time.monotonic``) has come.

        Raises:
            CameraError: a live source is lost for good.
            InputError: an answer is not a finite number.
        """
        self._come_back()
        try:
            while not self._stop.is_set() and (now := time.monotonic()) < until:
                with self._changed:
                    if (found := self._done.pop(self._wanted, None)) is not None:
                        self._wanted += 1
                        if isinstance(found, Exception):
                            raise found
                        self._handed_out += 1
                        return found
                    if self._ended and self._wanted == self._taken:
                        if self._failure:
                            raise self._failure
                        return None
                if self._capture.has_frame and self._may_take() and self._turn.acquire(blocking=False):
                    self._classify(self._classifiers[0])
                    continue
                with self._changed:
                    something = (
                        self._wanted in self._done or self._ended or self._changed.wait(min(_TICK_S, until - now))
                    )
                if not something:
                    self.idle()
            return None
        finally:
            with self._changed:
                self._consumer_waits, self._left_at = False, time.monotonic()
                self._changed.notify_all()

    @property
    def captured(self) -> int:
        """Frames that arrived; of a file, those that were handed out or could not be read."""
        return self._capture.captured - (0 if self._capture.live else self._unused)

    @property
    def dropped(self) -> Counter[str]:
        """Frames that were not handed out, by reason."""
        at_end = self._unused if self._closed and self._capture.live else 0
        return self._capture.dropped + Counter(superseded=self._superseded, at_end=at_end)

    @property
    def _unused(self) -> int:
        return self._received - self._superseded - self._handed_out

    def close(self) -> None:
        """End the capture and the threads, close the classifiers. Live frames in work count as dropped."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._capture.close()
        for thread in self._threads:
            thread.join()
        for one in self._classifiers:
            one.close()

    def _come_back(self) -> None:
        with self._changed:
            self._consumer_waits = True
            away_ms = (time.monotonic() - self._left_at) * 1e3
            while self._capture.live and self._capture.has_frame:
                ready = self._done.get(self._wanted)
                if not isinstance(ready, Scored) or sum(ready.stages_ms.values()) > away_ms:
                    break
                del self._done[self._wanted]
                self._wanted += 1
                self._superseded += 1
            self._changed.notify_all()

    def _may_take(self) -> bool:
        wanted = self._consumer_waits or not self._capture.live
        return wanted and self._taken - self._wanted < _AHEAD * len(self._classifiers)

    def _work(self, classifier: Classifier) -> None:
        while True:
            with self._changed:
                while not (self._may_take() or self._ended or self._closed):
                    self._changed.wait()
                if self._ended or self._closed:
                    return
            self._turn.acquire()
            self._classify(classifier)

    def _classify(self, classifier: Classifier) -> None:
        """Take a frame and classify it. ``_turn`` is held, and given back as soon as the frame is taken."""
        try:
            try:
                frame = self._take()
                number = self._taken
                self._taken += frame is not None
            finally:
                self._turn.release()
        except Exception as error:  # the consumer's to hear
            self._end(error)
            return
        if frame is None:
            self._end(None)
            return
        found: Scored | Exception
        try:
            scores = classifier.scores(frame.image)
            found = Scored(frame, scores, classifier.stages_ms)
        except Exception as error:  # likewise
            found = error
        with self._changed:
            self._done[number] = found
            self._changed.notify_all()

    def _take(self) -> Frame | None:
        frame = self._capture.next()
        if frame is None:
            return None
        self._received += 1
        if not self._capture.live or self._consumer_waits:
            return frame
        with self._changed:
            while not (self._consumer_waits or self._closed):
                self._changed.wait()
        if self._capture.has_frame and (newer := self._capture.next()) is not None:
            self._received += 1
            self._superseded += 1
            return newer
        return frame

    def _end(self, failure: Exception | None) -> None:
        with self._changed:
            self._failure = self._failure or failure
            self._ended = True
            self._changed.notify_all()


def workers(classifier: Classifier, parallel: int, *, live: bool) -> list[Classifier]:
    """Return the classifiers of frames in parallel, or none where one frame after the other is right.

    Args:
        classifier: as it was opened.
        parallel: how many frames at the same time; 0 = as many as there are cores, where the network is so light
            that one thread is about as fast as all of them. That is measured here, in about 0.1 s.
        live: the newest answer counts, not the sum of answers.

    Raises:
        UsageError: more than one frame is asked for, and the classifier cannot do that.
    """
    obstacle = _obstacle(classifier)
    if parallel > 1:
        if obstacle:
            raise UsageError(f"--parallel {parallel} is not possible {obstacle}", "leave --parallel out")
        threads = classifier.options.threads or max(1, available_cores() // parallel)
        return _opened(classifier, parallel, threads)
    cores = available_cores()
    if parallel == 1 or obstacle or classifier.options.threads or classifier.spec.is_open or cores == 1:
        return []
    x = real_inputs(classifier.prepare, count=1)[0]
    if min(_inference_ms(classifier, x) for _ in range(3)) > _LIGHT_MS:
        return []
    alone = _opened(classifier, 1, 1)
    pairs = [(_inference_ms(alone[0], x), _inference_ms(classifier, x)) for _ in range(_PAIRS)]
    slower = statistics.median(one / every for one, every in pairs)
    if slower > (_SLOWER_LIVE if live else _SHARE_OF_FILES * cores):
        alone[0].close()
        return []
    return alone + _opened(classifier, cores - 1, 1)


def _obstacle(classifier: Classifier) -> str:
    """What keeps several interpreters from sharing the work, in words; empty if nothing does."""
    if classifier.attention:
        return "with --attention"
    actual = classifier.runtime.accelerator.actual
    if actual != "cpu":
        return f"on the {actual.upper() if actual == 'gpu' else actual}: it takes one frame at a time"
    return ""


def _opened(classifier: Classifier, count: int, threads: int) -> list[Classifier]:
    options = dataclasses.replace(classifier.options, accelerator="cpu", threads=threads)
    return [Classifier(classifier.path, options, classifier.overrides) for _ in range(count)]


def _inference_ms(classifier: Classifier, x: NDArray[Any]) -> float:
    began = time.perf_counter()
    classifier.runtime.run(x)
    return (time.perf_counter() - began) * 1e3
