"""Knows the pictures that a network was trained on by their content, in a few kilobytes.

Of all pictures' hashes, 64 bits each, the smallest are kept (a bottom-k sketch, Cohen and Kaplan 2007). Of any other
set, the pictures whose hashes lie below the largest one kept can be told for certain: an even sample of that set.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_ran.errors import InputError
from edge_ran.printable import many

MOST_HASHES = 2048  # 16 KB, 22 KB as text in a card


@dataclass(frozen=True)
class Overlap:
    """Of ``pictures`` in a set, ``tested`` could be told, and ``known`` of these are among those of the sketch."""

    pictures: int
    tested: int
    known: int

    def __str__(self) -> str:
        if self.tested == self.pictures:
            return f"{self.known:,} of the {many(self.pictures, 'image')}"
        return f"about {self.known / self.tested:.0%} of the {many(self.pictures, 'image')} (of {self.tested:,} tested)"


def picture_hash(pixels: NDArray[np.uint8]) -> int:
    """Return 64 bits of a picture as it goes into a network, (height, width, 3) uint8."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=8).digest(), "big")


def sketch(pictures: Iterable[NDArray[np.uint8]]) -> str:
    """Return the sketch of pictures, each (height, width, 3) uint8, as text."""
    smallest = sorted({picture_hash(one) for one in pictures})[:MOST_HASHES]
    return _written(smallest)


def union(text: str, other: str) -> str:
    """Return the sketch of the pictures of two sketches; an empty text is one of no pictures.

    Raises:
        InputError: a text is no sketch.
    """
    return _written(sorted(_read(text) | _read(other))[:MOST_HASHES])


def overlap(text: str, hashes: Iterable[int]) -> Overlap:
    """Return how many pictures of a set, given by their hashes, are among those of a sketch.

    Raises:
        InputError: the text is no sketch.
    """
    kept = _read(text)
    found = list(hashes)
    highest = max(kept) if len(kept) == MOST_HASHES else 1 << 64
    tested = [one for one in found if one <= highest]
    return Overlap(len(found), len(tested), sum(one in kept for one in tested))


def _written(smallest: list[int]) -> str:
    return base64.b64encode(np.array(smallest, ">u8").tobytes()).decode()


def _read(text: str) -> set[int]:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the card's sketch of the training pictures cannot be read") from error
    if len(data) % 8 or len(data) > 8 * MOST_HASHES:
        raise InputError("the card's sketch of the training pictures cannot be read")
    return set(np.frombuffer(data, ">u8").tolist())
