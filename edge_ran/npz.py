"""NumPy archives of unknown origin: sizes are bounded before anything is unpacked, every fault is one line."""

from __future__ import annotations

import math
import tokenize
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import files, zip_archive
from edge_ran.errors import InputError

_LEAST_LIMIT_BYTES = 1 << 28  # a small archive may unpack to so much
_UNPACKED_PER_BYTE = 32  # drawings compress well; a thousand to one is a file that is made to fill memory
_LONGEST_HEADER = 1 << 16
_REMEDY = "save it with numpy.savez(FILE, x=…, y=…)"


def read(path: Path, names: Sequence[str], remedy: str = _REMEDY) -> dict[str, NDArray[Any]]:
    """Return the arrays of these names that an ``.npz`` has. No array may hold Python objects.

    Args:
        path: the file.
        names: of the arrays, without ``.npy``.
        remedy: how such a file is written.

    Raises:
        InputError: it is no ``.npz``, is damaged, or unpacks to far more than it has bytes.
    """
    files.check_regular(path)
    try:
        limit = max(_LEAST_LIMIT_BYTES, _UNPACKED_PER_BYTE * path.stat().st_size)
        found: dict[str, NDArray[Any]] = {}
        with zipfile.ZipFile(path) as archive:
            listed = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            for name in names:
                if name not in listed:
                    continue
                zip_archive.check_method(listed[name], path)
                with archive.open(listed[name]) as file:
                    claimed_bytes = _claimed_bytes(file)
                limit -= claimed_bytes
                if limit < 0:
                    raise InputError(f"{path}: {name} unpacks to {claimed_bytes / 1e9:.1f} GB", remedy)
                with archive.open(listed[name]) as file:  # reads no more than the header claims
                    found[name] = np.lib.format.read_array(file, allow_pickle=False, max_header_size=_LONGEST_HEADER)
                    file.read(1)  # the end, where the checksum is compared
    except zip_archive.DAMAGE as error:
        what = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path} is not an .npz file, or is damaged: {what}", remedy) from error
    return found


def names(path: Path) -> tuple[str, ...]:
    """Return the names of the arrays that an ``.npz`` claims to have. Raises InputError as ``read`` does."""
    files.check_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(entry.filename.removesuffix(".npy") for entry in archive.infolist()[:100])
    except zip_archive.DAMAGE as error:
        raise InputError(f"{path} is not an .npz file", _REMEDY) from error


def _claimed_bytes(file: IO[bytes]) -> int:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = reader(file, max_header_size=_LONGEST_HEADER)
    except (
        SyntaxError,
        tokenize.TokenError,
        MemoryError,
    ) as error:  # NumPy parses it as Python; MemoryError: its depth
        raise ValueError("its header cannot be parsed") from error
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if any(side < 0 for side in shape):
        raise ValueError(f"its shape is {shape}")
    # Nothing takes no bytes: each of 10^12 names without letters, or of rows without numbers, becomes an object later.
    return math.prod(max(side, 1) for side in shape) * max(dtype.itemsize, 1)
