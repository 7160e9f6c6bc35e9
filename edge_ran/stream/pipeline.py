"""A pipeline, not a loop: while one frame is inferred, the next is preprocessed and the one after captured and decoded.

Capture and preprocessing have a thread each, inference is the caller's; OpenCV and the CPU runtime let other threads
run while they work, so the stages overlap although this is Python. A light network has frames in parallel instead.
"""

from __future__ import annotations

import functools
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ran.attention import Look, MaskSummary
from edge_ran.camera import Capture, Frame, FrameSource, Gap, Limits, Notice, open_source
from edge_ran.classifier import Classifier, MaskCost, Prediction
from edge_ran.errors import InputError, UsageError
from edge_ran.latency import LatencyStats
from edge_ran.runtime import Accelerator
from edge_ran.stream.decide import UNKNOWN, Decider
from edge_ran.stream.parallel import Parallel, Scored, workers
from edge_ran.stream.prefetch import Prefetcher, Prepared

STAGES = ("capture", "preprocess", "inference", "postprocess", "end_to_end")
DRAWN = ("attention", "draw", "tint")  # stages that only some runs have
MOST_PARALLEL = 64  # frames; each has an interpreter's memory
FEWEST_FRAMES = 100  # for fewer it is not worth finding out whether frames in parallel are faster
_LONGEST_TIMEOUT_S = 86_400.0  # sockets take no infinite time, and OpenCV counts milliseconds in 32 bits
_KEPT_TIMES = 1 << 16  # percentiles are of the last so many frames: memory stays flat over days


@dataclass(frozen=True)
class Result:
    """What became of one frame.

    ``predictions`` are the most probable classes after smoothing, best first; ``label`` is the answer, or "unknown",
    and ``score`` its probability (of an unknown: the best class's); ``changed`` says that the answer is a new one.
    ``stages_ms`` has ``capture`` (decoding), ``preprocess``, ``inference``, ``postprocess`` and ``end_to_end``: from
    the picture's arrival to this result, waiting included. ``fps`` is the present rate of results. ``looks`` are the
    soft masks of a run with ``--attention``, and ``attention`` among the stages is the time that reading them took.
    """

    frame: Frame
    predictions: tuple[Prediction, ...]
    label: str
    score: float
    changed: bool
    stages_ms: dict[str, float]
    fps: float
    looks: tuple[Look, ...] = ()

    def record(self, accelerator: Accelerator) -> FrameRecord:
        """Return what `run --json` writes of it."""
        frame = self.frame
        return FrameRecord(
            index=frame.index,
            captured_at=time.time() - (time.monotonic() - frame.captured_at),
            timestamp=frame.timestamp,
            picture=frame.name or None,
            label=self.label,
            score=self.score,
            changed=self.changed,
            predictions=self.predictions,
            attention=tuple(look.summary() for look in self.looks) or None,
            stages_ms={stage: round(value, 4) for stage, value in self.stages_ms.items()},
            accelerator=accelerator,
        )


@dataclass(frozen=True)
class FrameRecord:
    """The line of `run --json` for a frame; the fields are as in ``Result``.

    ``captured_at`` is Unix time in seconds, ``timestamp`` the place in the source's own time in seconds, ``picture``
    the picture's file, None for a video or camera. ``attention`` has each soft mask in the order of the network, None
    without ``--attention``.
    """

    index: int
    captured_at: float
    timestamp: float
    picture: str | None
    label: str
    score: float
    changed: bool
    predictions: tuple[Prediction, ...]
    attention: tuple[MaskSummary, ...] | None
    stages_ms: dict[str, float]
    accelerator: Accelerator


@dataclass(frozen=True)
class Summary:
    """What `run --summary FILE` writes, a run in numbers: ``captured`` = ``classified`` + the sum of
    ``dropped``, whose keys are the reasons.

    ``fps`` counts everything, capture included; ``latency`` is capture to result and ``stages_ms`` the median of each
    stage, both of the last 65,536 frames; ``ended_by`` is ``end``, ``frames``, ``duration``, ``stop`` or ``fault``.
    ``masks`` is what the soft masks of ``--attention`` cost the inference; among the stages, ``attention`` is reading
    them, ``draw`` drawing a picture for whoever wants it, and ``tint`` the masks' part of that. ``parallel`` is how
    many frames were classified at the same time.
    """

    source: str
    captured: int
    classified: int
    dropped: dict[str, int]
    seconds: float
    fps: float
    latency: LatencyStats | None
    stages_ms: dict[str, float]
    gaps: tuple[Gap, ...]
    accelerator: Accelerator
    ended_by: str
    masks: MaskCost | None = None
    parallel: int = 1


class Stream:
    """Iterate over it for results. Use it as a context manager, or call ``close``; then ask for the ``summary``.

    ``listeners`` are told of faults, from any thread; they must return at once.
    """

    def __init__(
        self,
        classifier: Classifier,
        source: str | Callable[[], FrameSource],
        *,
        width: int = 0,
        height: int = 0,
        fps: float = 0.0,
        decide: Decider | None = None,
        top_k: int = 3,
        realtime: bool = True,
        parallel: int = 1,
        limits: Limits | None = None,
        max_frames: int = 0,
        duration_s: float = math.inf,
        notify: Callable[[Notice], None] = lambda notice: None,
        stop: threading.Event | None = None,
        masks: MaskCost | None = None,
    ) -> None:
        """Open the source.

        Args:
            classifier: what classifies; stays the caller's to close.
            source: as ``camera.open_source`` takes it: ``0``, ``/dev/video0``, a URL, a video, a folder of pictures.
                Or a function that opens a source of your own, now and whenever it was lost.
            width: of a camera's frames in pixels; 0 = the camera's own.
            height: likewise.
            fps: frame rate of a camera, or to play a file at; 0 = its own.
            decide: smoothing and the threshold of "unknown"; None = each frame for itself.
            top_k: predictions of a result.
            realtime: play files at their own rate.
            parallel: frames that are classified at the same time, each by an interpreter of its own on the CPU; 0 =
                one for each core where the network is so light that this is faster, which is measured first.
            limits: when a live source counts as faulty, and for how long to try again.
            max_frames: end after this many results; 0 = no limit.
            duration_s: end after this many seconds.
            notify: told of faults, from any thread; must return at once.
            stop: set it to end the run.
            masks: what the soft masks cost, for the summary.

        Raises:
            CameraError, InputError, UsageError: the source cannot be opened, or a number is out of range.
            UsageError: frames in parallel with soft masks, or not on the CPU.
        """
        check_numbers(top_k, max_frames, duration_s, parallel)
        self._classifier, self._max_frames, self._duration_s = classifier, max_frames, duration_s
        self._stop, self._masks = stop or threading.Event(), masks
        self.listeners = [notify]
        limits = limits or Limits()
        opener: Callable[[], FrameSource]
        if isinstance(source, str):
            # A little more patience in the driver than in the watchdog, so that a read that hangs ends by itself.
            timeout_s = min(limits.stall_s, _LONGEST_TIMEOUT_S) + 1
            opener = functools.partial(open_source, source, width, height, fps, timeout_s=timeout_s)
        else:
            opener = source
        self._capture = Capture(
            opener, realtime=realtime, limits=limits, notify=self._notify, stop=self._stop,
            patience_s=duration_s or math.inf,
        )  # fmt: skip
        self._ahead = self._frames(parallel, realtime)
        self.name, self.live, self.source_fps = self._capture.name, self._capture.live, self._capture.fps
        self._tally = Tally(classifier, decide, top_k)  # its clock starts when the source is open

    def __iter__(self) -> Iterator[Result]:
        """Yield a result for every frame that is classified.

        Raises:
            CameraError: a live source is lost for good.
            InputError: a file of which not one frame can be read, or a network that gives no numbers.
        """
        tally = self._tally
        until = tally.began_at + self._duration_s
        while not self._max_frames or tally.classified < self._max_frames:
            ready = self._ahead.next(until)
            if ready is None:
                break
            yield self._classify(ready)
        tally.ended_by = ended_by(self._stop, bool(self._max_frames and tally.classified >= self._max_frames), until)
        if tally.ended_by == "end" and not tally.classified:
            raise InputError(f"not one frame of {self.name} can be read", "check the file")

    def _frames(self, parallel: int, realtime: bool) -> Prefetcher | Parallel:
        capture = self._capture
        expected = min(count for count in (capture.frames_announced, self._max_frames, 1 << 30) if count)
        if not parallel and expected < FEWEST_FRAMES:
            parallel = 1
        try:
            several = workers(self._classifier, parallel, live=capture.live or (realtime and capture.fps > 0))
        except BaseException:
            capture.close()
            raise
        self._parallel = len(several) or 1
        if several:
            return Parallel(capture, several, self._stop)
        return Prefetcher(capture, self._classifier.prepare, self._stop)

    def _classify(self, ready: Prepared | Scored) -> Result:
        frame = ready.frame
        if isinstance(ready, Scored):
            scores, stages_ms = ready.scores, ready.stages_ms
        else:
            scores = self._classifier.infer(ready.x)
            stages_ms = {"preprocess": ready.prepare_ms, **self._classifier.stages_ms}
        return self._tally.result(frame, scores, {"capture": frame.capture_ms, **stages_ms})

    @property
    def accelerator(self) -> Accelerator:
        """What runs the network."""
        return self._classifier.runtime.accelerator

    def took(self, stage: str, milliseconds: float) -> None:
        """Note a time of a stage, such as ``draw``, for the summary; from any thread."""
        self._tally.took(stage, milliseconds)

    def _notify(self, notice: Notice) -> None:
        for listener in self.listeners:
            listener(notice)

    def when_idle(self, call: Callable[[], None]) -> None:
        """Have the thread that iterates call this, about ten times a second, while no frame comes."""
        self._ahead.idle = call

    def close(self) -> None:
        """End the capture. May be called twice."""
        self._tally.end()
        self._ahead.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def summary(self) -> Summary:
        """Return the run in numbers; complete after ``close``."""
        dropped = {reason: count for reason, count in self._ahead.dropped.items()}
        return self._tally.summary(
            self.name, self._ahead.captured, dropped, self._capture.gaps, self.accelerator, self._masks, self._parallel
        )


class Tally:
    """Makes results of scores, and keeps the numbers of a run for its summary.

    Attributes:
        classified: results until now.
        began_at: when it was made, ``time.monotonic``.
        ended_by: as in ``Summary``.
    """

    def __init__(self, classifier: Classifier, decide: Decider | None, top_k: int) -> None:
        """Take what ranks scores, what makes an answer of them (None: each frame for itself), predictions a result."""
        self._classifier, self._decide, self._top_k = classifier, decide or Decider(), top_k
        self._times = {stage: _Times() for stage in (*STAGES, *DRAWN)}
        self.classified = 0
        self.began_at = time.monotonic()
        self.ended_by = "fault"
        self._ended_at: float | None = None
        self._last_result_at, self._interval_s = 0.0, 0.0

    def result(self, frame: Frame, scores: NDArray[np.float32], before_ms: dict[str, float]) -> Result:
        """Return what became of a frame.

        Args:
            frame: whose scores these are; the classifier was asked for no others since.
            scores: (classes,) float32.
            before_ms: the stages up to now.

        Raises:
            InputError: a score is not a number.
        """
        inferred_at = time.perf_counter()
        if not np.isfinite(scores).all():
            raise InputError(
                "the network's output is not a number", "convert it again; if that does not help, train it again"
            )
        smoothed, answer, changed = self._decide(scores, frame.captured_at)
        predictions = self._classifier.rank(smoothed, self._top_k)
        decided_at = time.perf_counter()
        looks = self._classifier.looks(frame.image)
        attention = {"attention": (time.perf_counter() - decided_at) * 1e3} if looks else {}
        now = time.monotonic()
        stages_ms = {
            **before_ms,
            "postprocess": before_ms.get("postprocess", 0.0) + (decided_at - inferred_at) * 1e3,
            **attention,
            "end_to_end": (now - frame.captured_at) * 1e3,
        }
        for stage, milliseconds in stages_ms.items():
            self.took(stage, milliseconds)
        self.classified += 1
        label = "unknown" if answer == UNKNOWN else self._classifier.labels[answer]
        score = predictions[0].score if answer == UNKNOWN else float(smoothed[answer])
        return Result(frame, predictions, label, score, changed, stages_ms, self._rate(now), looks)

    def took(self, stage: str, milliseconds: float) -> None:
        """Note a time of a stage, from any thread."""
        self._times[stage].add(milliseconds)

    def _rate(self, now: float) -> float:
        interval, self._last_result_at = now - self._last_result_at, now
        if self.classified < 2:
            return 0.0
        # The mean of the first intervals, then one that forgets over about twenty.
        weight = max(0.05, 1 / (self.classified - 1))
        self._interval_s += weight * (interval - self._interval_s)
        return 1 / self._interval_s if self._interval_s > 0 else 0.0

    def end(self) -> None:
        """Stop the clock; may be called twice."""
        if self._ended_at is None:
            self._ended_at = time.monotonic()

    def summary(
        self,
        source: str,
        captured: int,
        dropped: dict[str, int],
        gaps: Iterable[Gap],
        accelerator: Accelerator,
        masks: MaskCost | None = None,
        parallel: int = 1,
    ) -> Summary:
        """Return the run in numbers."""
        seconds = (self._ended_at or time.monotonic()) - self.began_at
        latency = self._times["end_to_end"].kept()
        return Summary(
            source=source,
            captured=captured,
            classified=self.classified,
            dropped=dropped,
            seconds=seconds,
            fps=self.classified / seconds if seconds > 0 else 0.0,
            latency=LatencyStats.from_ms(latency.tolist()) if latency.size else None,
            stages_ms={stage: float(np.median(t.kept())) for stage, t in self._times.items() if t.kept().size},
            gaps=tuple(gaps),
            accelerator=accelerator,
            ended_by=self.ended_by,
            masks=masks,
            parallel=parallel,
        )


def check_numbers(top_k: int, max_frames: int, duration_s: float, parallel: int = 1) -> None:
    """Raise UsageError where a number of a run is out of range."""
    if not 0 <= parallel <= MOST_PARALLEL:
        raise UsageError(f"--parallel {parallel} is not a number from 0 to {MOST_PARALLEL}", "0 chooses")
    if top_k < 1 or max_frames < 0 or duration_s <= 0:
        raise UsageError("--top-k must be 1 or more, --max-frames 0 or more, --duration more than 0")


def ended_by(stop: threading.Event, all_frames: bool, until: float) -> str:
    """Return what ended a run, as in ``Summary``; ``all_frames``: there are as many results as were asked for."""
    if stop.is_set():
        return "stop"
    if all_frames:
        return "frames"
    return "duration" if time.monotonic() >= until else "end"


class _Times:
    """The last ``_KEPT_TIMES`` times of a stage, milliseconds, in memory that does not grow."""

    def __init__(self) -> None:
        self._ring = np.full(_KEPT_TIMES, np.nan, np.float32)  # taken now, not page by page
        self._count = 0

    def add(self, milliseconds: float) -> None:
        self._ring[self._count % _KEPT_TIMES] = milliseconds
        self._count += 1

    def kept(self) -> NDArray[np.float32]:
        return self._ring[: min(self._count, _KEPT_TIMES)]
