"""Real pictures to compare two networks on: what random numbers do not reach, a picture's smooth areas do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_ran.card import InputSpec
from edge_ran.picture import read_picture
from edge_ran.pictures import some_pictures
from edge_ran.preprocess import fit_pixels, normalise


def proof_frames(count: int) -> list[NDArray[np.uint8]]:
    """Return some of the pictures that ship, evenly spread: (H, W, 3) uint8 BGR each."""
    return [read_picture(path) for path in some_pictures(None, count)]


def proof_images(spec: InputSpec, count: int = 4) -> NDArray[np.float32]:
    """Return some of the pictures that ship as a network takes them, (count, height, width, 3) float32."""
    return normalise(np.stack([fit_pixels(frame, spec) for frame in proof_frames(count)]), spec)
