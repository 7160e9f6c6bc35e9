"""How the pixels of a picture lie in a network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PictureShape:
    """A tensor that holds one picture: ``height`` x ``width`` pixels of ``channels`` numbers, 3 (colours) or 1 (grey).

    ``axes`` are the dimensions of height, width and channels; that of the channels is None where there is none, as
    in (1, 28, 28). ``rank`` is the number of dimensions. All others have one element.
    """

    height: int
    width: int
    channels: int
    axes: tuple[int, int, int | None]
    rank: int

    @property
    def is_usual(self) -> bool:
        """Whether it is (1, height, width, 3)."""
        return self.channels == 3 and self.axes[2] == 3

    @property
    def channels_first(self) -> bool:
        """Whether it is (1, channels, height, width), as PyTorch has it."""
        return self.axes[2] == 1

    def sized(self, height: int, width: int) -> tuple[int, ...]:
        """The shape of such a tensor for a picture of another size."""
        shape = [1] * self.rank
        for axis, size in zip(self.axes, (height, width, self.channels), strict=True):
            if axis is not None:
                shape[axis] = size
        return tuple(shape)


def picture_shape(shape: Sequence[int], open_axes: Sequence[int] = ()) -> PictureShape | None:
    """Tell how a picture lies in a tensor; None where that can be no picture.

    Args:
        shape: the tensor's; dimensions in ``open_axes`` may hold a placeholder.
        open_axes: the dimensions that the file leaves open.
    """
    if len(shape) not in (3, 4) or min(shape) < 1 or shape[0] != 1:
        return None
    if len(shape) == 3:
        return PictureShape(shape[1], shape[2], 1, (1, 2, None), 3)
    for channels in (3, 1):  # colours before grey, the channels last before first
        for axis, sides in ((3, (1, 2)), (1, (2, 3))):
            if shape[axis] == channels and axis not in open_axes:
                return PictureShape(shape[sides[0]], shape[sides[1]], channels, (*sides, axis), 4)
    return None
