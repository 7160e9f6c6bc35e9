"""A frame, and what a source of frames is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_ran.errors import InputError


@dataclass(frozen=True)
class Frame:
    """One picture.

    ``image`` is (H, W, 3) uint8 BGR, upright; ``index`` counts from 0 without holes as pictures arrive;
    ``captured_at`` is when it arrived (seconds, ``time.monotonic``); ``timestamp`` its place in the source's own time
    (seconds); ``capture_ms`` what decoding took; ``name`` the picture's file, if it has one of its own.
    """

    image: NDArray[np.uint8]
    index: int
    captured_at: float
    timestamp: float
    capture_ms: float = 0.0
    name: str = ""


class FrameSource(Protocol):
    """``name`` is what the user typed; a ``live`` source goes on whether or not it is read; ``fps`` 0 is unknown."""

    name: str
    live: bool
    fps: float

    def read(self) -> Frame | None:
        """Return the next frame, or None at the end of a source that has one.

        Raises:
            InputError: this one picture is broken; the next may be whole.
            CameraError: a live source is lost.
        """

    def close(self) -> None:
        """Give the device, connection or file back. May be called twice."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame that can be read, to the end."""
        while True:
            with contextlib.suppress(InputError):
                frame = self.read()
                if frame is None:
                    return
                yield frame
