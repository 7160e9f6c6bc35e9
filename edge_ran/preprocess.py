"""THE one definition of frame -> pixels, for training, calibration, evaluation and the device."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran.card import InputSpec


def fit_pixels(frame: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Fit a frame to the network's size and colour order.

    Args:
        frame: (H, W, 3) uint8 in BGR order, as cameras and ``dataset.read_picture`` give it.
        spec: the network's input.

    Returns:
        (spec.height, spec.width, 3) uint8 in ``spec.color`` order.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"a frame is (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
    if spec.fit == "crop":
        frame = _centre(frame, spec.width / spec.height)
    height, width = frame.shape[:2]
    if (height, width) != (spec.height, spec.width):
        # Averaging over the covered pixels avoids aliasing when shrinking; it is nearest neighbour when enlarging.
        shrinking = spec.height < height or spec.width < width
        method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        frame = np.asarray(cv2.resize(frame, (spec.width, spec.height), interpolation=method), np.uint8)
    return np.ascontiguousarray(frame[:, :, ::-1] if spec.color == "rgb" else frame)


def normalise(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """(..., 3) uint8 pixels -> (..., 3) float32, (pixel - mean) / std."""
    centred = np.subtract(pixels, np.array(spec.mean, np.float32), dtype=np.float32)
    return np.divide(centred, np.array(spec.std, np.float32), out=centred)


def _centre(frame: NDArray[np.uint8], aspect: float) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    crop_width = min(width, max(1, round(height * aspect)))
    crop_height = min(height, max(1, round(width / aspect)))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return frame[top : top + crop_height, left : left + crop_width]
