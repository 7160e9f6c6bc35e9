"""THE one definition of frame -> pixels, for training, calibration, evaluation and the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran.card import InputSpec
from edge_ran.errors import InputError

if TYPE_CHECKING:
    from edge_ran.graph import TensorSpec


_OPENCV_LOOKS_UP = ("float32", "uint8", "int8", "int16")
_DTYPES = (*_OPENCV_LOOKS_UP, "float16", "float64", "uint16", "int32", "uint32", "int64")
NEARLY_TIED = 2**-10  # of a step: what lies so near below a half goes upwards, for float32's noise must not decide


def fit_pixels(frame: NDArray[np.uint8], spec: InputSpec, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Fit a frame to the network's size and colour order.

    Args:
        frame: (H, W, 3) uint8 in BGR order, as cameras and ``picture.read_picture`` give it.
        spec: the network's input.
        out: where to write, (spec.height, spec.width, 3) uint8; None = a new array.

    Returns:
        (spec.height, spec.width, 3) uint8 in ``spec.color`` order; ``out`` where it was given.

    Raises:
        InputError: it is no such frame.
    """
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        remedy = "read it with edge_ran.read_picture, or convert it with cv2.cvtColor to BGR"
        raise InputError(f"a frame is (H, W, 3) uint8, not {frame.shape} {frame.dtype}", remedy)
    if spec.is_open:
        raise ValueError("the network's input has no size")
    left, top, width, height = seen(frame.shape[1], frame.shape[0], spec)
    frame = frame[top : top + height, left : left + width]
    frame = _halved(frame, spec)
    height, width = frame.shape[:2]
    out = np.empty((spec.height, spec.width, 3), np.uint8) if out is None else out
    resized = (height, width) != (spec.height, spec.width)
    if resized:
        # Averaging over the covered pixels avoids aliasing when shrinking; it is nearest neighbour when enlarging.
        shrinking = spec.height < height or spec.width < width
        method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
        target = None if spec.color == "rgb" else out
        frame = np.asarray(cv2.resize(frame, (spec.width, spec.height), target, interpolation=method), np.uint8)
    if spec.color == "rgb":
        cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, out)  # 30 times quicker than NumPy's [::-1]
    elif not resized:
        out[:] = frame
    return out


def seen(width: int, height: int, spec: InputSpec) -> tuple[int, int, int, int]:
    """Return the part of a frame of that size that the network sees: left, top, width, height in the frame's pixels."""
    if spec.fit != "crop" or spec.is_open:
        return 0, 0, width, height
    aspect = spec.width / spec.height
    inner_width = min(width, max(1, round(height * aspect)))
    inner_height = min(height, max(1, round(width / aspect)))
    return (width - inner_width) // 2, (height - inner_height) // 2, inner_width, inner_height


def normalise(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """(..., 3) uint8 pixels -> (..., 3) float32, (pixel - mean) / std."""
    centred = np.subtract(pixels, np.array(spec.mean, np.float32), dtype=np.float32)
    return np.divide(centred, np.array(spec.std, np.float32), out=centred)


def quantise(values: NDArray[np.float32], tensor: TensorSpec) -> NDArray[Any]:
    """Real values -> the tensor's dtype: value / scale + zero_point, rounded, clipped to the dtype, never wrapping.

    Ties go upwards: with the usual mean of 127.5 every pixel is one, and to the even would make one of each two.

    A tensor without a scale takes the values as they are: floats, and integers that the network itself scales.
    """
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    steps = np.floor(values.astype(np.float64) / (tensor.scale or 1.0) + 0.5 + NEARLY_TIED) + tensor.zero_point
    stored: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(dtype)
    return stored


def numbers(spec: InputSpec, tensor: TensorSpec) -> NDArray[Any]:
    """What the input holds for each value of a pixel in each channel: (256, 3) in the tensor's dtype."""
    pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    return quantise(normalise(pixels, spec), tensor)


def dequantise(values: NDArray[Any], tensor: TensorSpec) -> NDArray[np.float32]:
    """The tensor's dtype -> real values, float32."""
    if tensor.scale <= 0:
        return values.astype(np.float32)
    return ((values.astype(np.float64) - tensor.zero_point) * tensor.scale).astype(np.float32)


class Preprocessor:
    """Frame -> the array that a runtime's input takes.

    A pixel has 256 values, so normalising and quantising are one table a channel: ``normalise`` and ``quantise`` of
    0..255, looked up for the fitted pixels. The result is theirs exactly.
    """

    def __init__(self, spec: InputSpec, tensor: TensorSpec) -> None:
        """Make the table.

        Args:
            spec: what the model's card says of its input.
            tensor: the runtime's input: (1, spec.height, spec.width, 3), or another form that ``tensor.picture`` knows.

        Raises:
            InputError: the tensor is not of that size, its dtype holds no pixels, or it is grey and the mean or std is
                not the same for all colours.
        """
        if spec.is_open:
            raise InputError("the model takes pictures of any size, and names none", "choose one: --input-size 224x224")
        picture = tensor.picture
        if picture is None or (picture.height, picture.width) != (spec.height, spec.width):
            raise InputError(f"the input is {tensor.shape}, the card says {(1, spec.height, spec.width, 3)}")
        if tensor.dtype not in _DTYPES:
            raise InputError(f"an input of {tensor.dtype} cannot be made from pixels", "convert it with --io uint8")
        if picture.channels == 1 and (len({*spec.mean}), len({*spec.std})) != (1, 1):
            raise InputError("the input is grey, and the mean or std differs by colour", "give one number: --mean 128")
        self.spec, self.tensor, self._picture = spec, tensor, picture
        self._table = numbers(spec, tensor)[:, None, :]  # (256, 1, 3)
        pixels = np.arange(256)[:, None]
        self._pixels_as_they_are = tensor.dtype == "uint8" and bool((self._table[:, 0] == pixels).all())

    def __call__(self, frame: NDArray[np.uint8], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Fit, normalise and quantise a frame.

        Args:
            frame: (H, W, 3) uint8 BGR of any size.
            out: where to write, of the result's shape and dtype; None = a new array.

        Returns:
            the tensor's shape and dtype, as a rule (1, height, width, 3); ``out`` where it was given.
        """
        if out is None:
            out = np.empty(self.tensor.shape, self.tensor.dtype)
        elif out.shape != self.tensor.shape or out.dtype != self.tensor.dtype:
            raise ValueError(f"out is {out.shape} {out.dtype}, not {self.tensor.shape} {self.tensor.dtype}")
        if not self._picture.is_usual:
            return self._in_another_form(fit_pixels(frame, self.spec), out)
        if self._pixels_as_they_are:
            fit_pixels(frame, self.spec, out[0])
        elif self.tensor.dtype in _OPENCV_LOOKS_UP:
            cv2.LUT(fit_pixels(frame, self.spec), self._table, dst=out[0])
        else:
            out[0] = self._looked_up(fit_pixels(frame, self.spec))
        return out

    def _in_another_form(self, pixels: NDArray[np.uint8], out: NDArray[Any]) -> NDArray[Any]:
        """Grey, without a dimension of channels, or with it before height and width."""
        if self._picture.channels == 1:
            to_grey = cv2.COLOR_RGB2GRAY if self.spec.color == "rgb" else cv2.COLOR_BGR2GRAY
            pixels = np.asarray(cv2.cvtColor(pixels, to_grey), np.uint8)[:, :, None]
        values = self._looked_up(pixels)
        out[:] = (values.transpose(2, 0, 1) if self._picture.channels_first else values).reshape(out.shape)
        return out

    def _looked_up(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        return np.stack([self._table[pixels[:, :, c], 0, c] for c in range(pixels.shape[2])], axis=2)


def _halved(frame: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Average 2x2 pixels into one while that leaves at least twice the network's size.

    INTER_AREA's general way is ten times slower than its way of halving: 5 ms against 0.4 for a picture of 1920x1080
    and a network of 56x56. The pictures differ by 0.3 of 255 in the mean, where edges cross the network's pixels.
    """
    while (
        frame.shape[0] >= 4 * spec.height
        and frame.shape[1] >= 4 * spec.width
        and frame.shape[0] % 2 == frame.shape[1] % 2 == 0
    ):
        half = frame.shape[1] // 2, frame.shape[0] // 2
        frame = np.asarray(cv2.resize(frame, half, interpolation=cv2.INTER_AREA), np.uint8)
    return frame
