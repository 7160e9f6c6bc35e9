"""An ``.npz`` of labelled images."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import npz
from edge_ran.dataset.samples import Sample, split_name
from edge_ran.errors import InputError
from edge_ran.labels import clean_label


def from_arrays(source: Path) -> list[Sample]:
    arrays = npz.read(source, ("x", "y", "labels", "group", "split"))
    for wanted in ("x", "y"):
        if wanted not in arrays:
            raise InputError(
                f"{source} has no array {wanted!r}", f"it has: {', '.join(npz.names(source)) or 'nothing'}"
            )
    y, groups, splits = arrays["y"], arrays.get("group"), arrays.get("split")
    if "labels" in arrays and arrays["labels"].ndim != 1:
        raise InputError(f"{source}: labels must be (classes,), not {arrays['labels'].shape}")
    names = [clean_label(str(name)) for name in arrays["labels"]] if "labels" in arrays else None
    count = len(_pixels_of(source, arrays))
    if y.ndim != 1 or len(y) != count or any(a is not None and a.shape != (count,) for a in (groups, splits)):
        raise InputError(f"{source}: y, group and split must be ({count},), one value for each image of x")
    if names is not None and not (np.issubdtype(y.dtype, np.integer) and y.min() >= 0 and y.max() < len(names)):
        raise InputError(f"{source}: y must be whole numbers from 0 to {len(names) - 1}, places in labels")
    return [
        Sample(
            source,
            names[int(y[row])] if names is not None else clean_label(str(y[row])),
            str(groups[row]) if groups is not None else "",
            split_name(str(splits[row]), f"{source}, row {row}") if splits is not None else "",
            row,
        )
        for row in range(count)
    ]


def _pixels_of(source: Path, arrays: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    x = arrays["x"]
    if x.dtype != np.uint8 or not (x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (1, 3))) or not x.size:
        raise InputError(f"{source}: x must be (N, H, W, 3) uint8, not {x.shape} {x.dtype}")
    x = x[..., None] if x.ndim == 3 else x
    return np.broadcast_to(x, (*x.shape[:3], 3))


def open_arrays(samples: Iterable[Sample]) -> dict[Path, NDArray[np.uint8]]:
    opened = {}
    for path in {s.path for s in samples if s.row >= 0 and s.path.suffix.lower() == ".npz"}:
        opened[path] = _pixels_of(path, npz.read(path, ("x",)))
    return opened
