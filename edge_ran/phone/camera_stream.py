"""The frames that a phone's camera sees, classified by its page, as a stream of results on this machine.

The page sends each frame's outputs, and the frame itself as JPEG where somebody here wants pictures. Answers, smoothing
and everything that results are written to are made here, as for a camera of this machine.
"""

from __future__ import annotations

import base64
import binascii
import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ran.camera import Frame, Gap, Limits, Notice
from edge_ran.classifier import Classifier
from edge_ran.errors import CameraError, EnvironmentMissing, InputError
from edge_ran.graph import TensorSpec
from edge_ran.phone.messages import FramesDone, PageAccelerator, PageFrame
from edge_ran.phone.sessions import Session
from edge_ran.picture import decode_picture
from edge_ran.preprocess import quantise
from edge_ran.runtime import Accelerator
from edge_ran.stream.decide import Decider
from edge_ran.stream.pipeline import Result, Summary, Tally, check_numbers, ended_by

_TICK_S = 0.1
_CLOSING_S = 3.0  # for the page to hear that nobody wants more
_LONGEST_SIDE = 16_384  # pixels, of a camera
_STAGES = ("preprocess", "inference", "end_to_end")


@dataclass(frozen=True)
class _Arrival:
    frame: PageFrame
    at: float  # ``time.monotonic``


class PhoneStream:
    """Iterate over it for results, as over ``stream.Stream``. ``listeners`` are told of faults."""

    name: str = "the phone's camera"
    live: bool = True
    source_fps: float = 0.0

    def __init__(
        self,
        classifier: Classifier,
        session: Session,
        accelerator: Callable[[PageAccelerator], Accelerator],
        *,
        pictures: bool,
        camera: str = "",
        decide: Decider | None = None,
        top_k: int = 3,
        limits: Limits | None = None,
        max_frames: int = 0,
        duration_s: float = math.inf,
        notify: Callable[[Notice], None] = lambda notice: None,
        stop: threading.Event | None = None,
    ) -> None:
        """Have the page open its camera.

        Args:
            classifier: of the file that the page runs; makes scores of its outputs. Stays the caller's to close.
            session: of the page, which has come.
            accelerator: makes a record's accelerator of what the page tells.
            pictures: whether frames are to be sent as well.
            camera: ``front``; anything else is the one on the back.
            decide, top_k, max_frames, duration_s, notify, stop: as for ``stream.Stream``.
            limits: ``stall_s`` without frames is told, ``reconnect_s`` more ends the run.

        Raises:
            UsageError: a number is out of range.
        """
        check_numbers(top_k, max_frames, duration_s)
        self._classifier, self._session, self._accelerator_of = classifier, session, accelerator
        self._max_frames, self._duration_s, self._limits = max_frames, duration_s, limits or Limits()
        self._stop = stop or threading.Event()
        self.listeners = [notify]
        assert session.hello is not None
        self.accelerator = accelerator(session.hello.accelerator)
        self._tally = Tally(classifier, decide, top_k)
        self._arrivals: queue.Queue[_Arrival] = queue.Queue()
        self._captured, self._dropped, self._gaps = 0, Counter[str](), list[Gap]()
        self._idle: Callable[[], None] = lambda: None
        self._closed = False
        self._done: Future[FramesDone] = Future()
        threading.Thread(target=self._work, args=(pictures, camera), name="edge-ran phone", daemon=True).start()

    def __iter__(self) -> Iterator[Result]:
        """Yield a result for every frame that arrives.

        Raises:
            CameraError: no more frames arrive.
            EnvironmentMissing: the page's camera cannot be opened, or what it sends are no answers.
        """
        tally = self._tally
        until = tally.began_at + self._duration_s
        while not self._max_frames or tally.classified < self._max_frames:
            arrival = self._next(until)
            if arrival is None:
                break
            if (result := self._result(arrival)) is not None:
                yield result
        tally.ended_by = ended_by(self._stop, bool(self._max_frames and tally.classified >= self._max_frames), until)

    def took(self, stage: str, milliseconds: float) -> None:
        """Note a time of a stage, such as ``draw``, for the summary; from any thread."""
        self._tally.took(stage, milliseconds)

    def when_idle(self, call: Callable[[], None]) -> None:
        """Have the thread that iterates call this, about ten times a second, while no frame comes."""
        self._idle = call

    def close(self) -> None:
        """Tell the page to stop. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._tally.end()
        until = time.monotonic() + _CLOSING_S
        while not self._done.done() and time.monotonic() < until:
            time.sleep(_TICK_S / 2)

    def __enter__(self) -> PhoneStream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def summary(self) -> Summary:
        """Return the run in numbers; complete after ``close``."""
        left = self._captured - self._tally.classified - self._dropped.total()
        dropped = {**self._dropped, **({"at_end": left} if left else {})}
        return self._tally.summary(self.name, self._captured, dropped, self._gaps, self.accelerator)

    def _work(self, pictures: bool, camera: str) -> None:
        part, words = (PageFrame, self._arrived), {"pictures": pictures, "camera": camera}
        try:
            self._done.set_result(
                self._session.ask(FramesDone, "run", math.inf, silence_s=math.inf, part=part, **words)
            )
        except Exception as error:  # for the thread that iterates
            self._done.set_exception(error)

    def _arrived(self, frame: PageFrame) -> bool:
        """Take a frame, in a thread of the server. The page sends the next one when this one was answered."""
        if self._closed or self._stop.is_set():
            return False
        self._captured += 1
        self._arrivals.put(_Arrival(frame, time.monotonic()))
        return True

    def _next(self, until: float) -> _Arrival | None:
        """Return the newest frame; None when the run is to end."""
        last, told = time.monotonic(), False
        while not self._stop.is_set() and (now := time.monotonic()) < until:
            try:
                arrival = self._arrivals.get(timeout=min(_TICK_S, until - now))
            except queue.Empty:
                self._idle()
                if self._done.done():
                    self._done.result()  # raises what went wrong
                    return None
                told = self._watch(time.monotonic() - last, told)
                continue
            while not self._arrivals.empty():
                self._dropped["superseded"] += 1
                arrival = self._arrivals.get()
            if told:
                self._gaps.append(Gap("stalled", last, arrival.at - last))
                self._notify("back", f"{self.name} is back after {arrival.at - last:.1f} s")
            return arrival
        return None

    def _watch(self, silent_s: float, told: bool) -> bool:
        limits = self._limits
        if silent_s > limits.stall_s + limits.reconnect_s:
            what = f"{self.name} was lost for good: nothing came for {silent_s:.0f} s"
            raise CameraError(what, "keep the page in front, the screen on; --reconnect forever keeps on waiting")
        if silent_s > limits.stall_s and not told:
            self._notify("stalled", f"{self.name} has sent nothing for {limits.stall_s:g} s: is its page in front?")
            return True
        return told

    def _notify(self, kind: str, text: str) -> None:
        for listener in self.listeners:
            listener(Notice(kind, text, time.monotonic()))

    def _result(self, arrival: _Arrival) -> Result | None:
        told = arrival.frame
        outputs = as_outputs(told.outputs, self._classifier.runtime.outputs)
        stages = {name: ms for name in _STAGES if 0 <= (ms := told.stages_ms.get(name, 0.0)) < 1e6}
        try:
            image = _image(told)
        except InputError as error:
            self._dropped["corrupt"] += 1
            self._notify("corrupt", f"{error}; it is not classified")
            return None
        self.accelerator = self._accelerator_of(told.accelerator)
        captured_at = arrival.at - stages.pop("end_to_end", 0.0) / 1e3
        index, at_s = self._tally.classified + self._dropped["corrupt"], captured_at - self._tally.began_at
        scores = self._classifier.take(outputs)
        return self._tally.result(
            Frame(image, index, captured_at, max(0.0, at_s)),
            scores,
            {"capture": 0.0, **stages, **self._classifier.stages_ms},
        )


def as_outputs(told: tuple[tuple[float, ...], ...], tensors: tuple[TensorSpec, ...]) -> list[NDArray[np.generic]]:
    """Return real values, which a page tells, as the runtime's outputs: in their shapes and types.

    Raises:
        EnvironmentMissing: they are not as many as the outputs have.
    """
    if [len(one) for one in told] != [math.prod(tensor.shape) for tensor in tensors]:
        raise EnvironmentMissing("the phone sent answers of another size", "open the page again")
    return [
        quantise(np.asarray(one, np.float32), tensor).reshape(tensor.shape)
        for one, tensor in zip(told, tensors, strict=True)
    ]


def _image(told: PageFrame) -> NDArray[np.uint8]:
    """The frame, (H, W, 3) BGR; black and without memory of its own where no picture was sent."""
    if not (0 < told.width <= _LONGEST_SIDE and 0 < told.height <= _LONGEST_SIDE):
        raise InputError(f"the phone tells of a picture of {told.width}x{told.height} pixels")
    if not told.picture:
        return np.broadcast_to(np.zeros(1, np.uint8), (told.height, told.width, 3))
    try:
        data = base64.b64decode(told.picture, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the phone sent a picture that is none") from error
    image = decode_picture(data, "of the phone")
    if image.shape[:2] != (told.height, told.width):
        raise InputError("the phone sent a picture of another size than it tells")
    return image
