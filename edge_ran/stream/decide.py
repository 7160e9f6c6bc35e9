"""From the scores of single frames to an answer that does not flicker."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ran.errors import UsageError

UNKNOWN = -1
_FORGET_AFTER_S = 2.0  # older evidence says nothing of what the camera sees now


class Decider:
    """Smooths scores over time, holds on to an answer, and says "unknown" when no class is likely enough.

    The smoothed scores are ``smoothing`` * before + (1 - ``smoothing``) * now. While ``smoothing`` is above 0 another
    class takes over only when it leads by ``margin``, and an unknown ends only at ``threshold + margin``.
    """

    def __init__(self, smoothing: float = 0.0, threshold: float = 0.0, margin: float = 0.05) -> None:
        """Set the rules.

        Args:
            smoothing: 0 (each frame for itself) up to, not including, 1.
            threshold: the least score of an answer, 0..1; 0 always answers.
            margin: 0..1.

        Raises:
            UsageError: out of these ranges.
        """
        if not 0 <= smoothing < 1:
            raise UsageError(f"--smoothing {smoothing:g} is not in 0 <= smoothing < 1", "0.8 is a good start")
        if not (0 <= threshold <= 1 and 0 <= margin <= 1):
            what = f"the margin {margin}" if 0 <= threshold <= 1 else f"--threshold {threshold:g}"
            raise UsageError(f"{what} is no score from 0 to 1", "for instance --threshold 0.5")
        self.smoothing, self.threshold = smoothing, threshold
        self._margin = margin if smoothing else 0.0
        self._scores: NDArray[np.float32] | None = None
        self._answer: int | None = None
        self._last = 0.0

    def __call__(self, scores: NDArray[np.float32], at: float) -> tuple[NDArray[np.float32], int, bool]:
        """Take in a frame's scores.

        Args:
            scores: (classes,) float32, 0..1.
            at: when the frame was captured, seconds.

        Returns:
            The smoothed scores (classes,), the answer's index or ``UNKNOWN``, and whether the answer changed; the very
            first answer is a change.
        """
        if self._scores is None or not self.smoothing or at - self._last > _FORGET_AFTER_S:
            smoothed = scores
        else:
            smoothed = self.smoothing * self._scores + (1 - self.smoothing) * scores
        self._scores, self._last = smoothed, at
        answer = self._choose(smoothed)
        changed = answer != self._answer
        self._answer = answer
        return smoothed, answer, changed

    def _choose(self, scores: NDArray[np.float32]) -> int:
        best, before = int(np.argmax(scores)), self._answer
        if before is None:
            return best if scores[best] >= self.threshold else UNKNOWN
        if before == UNKNOWN:
            return best if scores[best] >= min(1.0, self.threshold + self._margin) else UNKNOWN
        if best != before and scores[best] < scores[before] + self._margin:
            best = before
        return best if scores[best] >= self.threshold else UNKNOWN
