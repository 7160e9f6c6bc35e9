"""An ``.npz`` of labelled images."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import npz
from edge_ran.dataset.samples import NO_LABELS, Sample, split_name
from edge_ran.errors import InputError
from edge_ran.labels import clean_label
from edge_ran.python_command import python

_IMAGES = ("x", "images", "image", "imgs", "data", "pixels")
_LABELS = ("y", "labels", "label", "targets", "target")
_NAMES = ("labels", "label_names", "class_names", "classes")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "test": "test"}


@dataclass(frozen=True)
class _Part:
    """The names of two arrays that belong together, and the split that these names tell."""

    x: str
    y: str
    split: str = ""


def from_arrays(source: Path) -> list[Sample]:
    """List the images of an ``.npz``: ``x`` and ``y``, or in parts: ``x_train`` and ``y_train``, ``train_images``, …

    Raises:
        InputError: it is no such file; its arrays are of other shapes or types.
    """
    there = npz.names(source)
    parts = _parts(there)
    if not parts:
        missing = next((name for name in ("x", "y") if name not in there), "x")
        what = f"{source} has no array {missing!r}"
        raise InputError(
            what, f"it has: {', '.join(there) or 'nothing'}; numpy.savez('data.npz', x=…, y=…) names them so"
        )
    called = next((name for name in _NAMES if name in there and name not in {part.y for part in parts}), "")
    arrays = npz.read(source, (*(part.y for part in parts), *filter(None, [called]), "group", "split"))
    groups, splits = arrays.get("group"), arrays.get("split")
    if called and arrays[called].ndim != 1:
        raise InputError(f"{source}: {called} must be (classes,), not {arrays[called].shape}")
    lengths = list(map(len, _pixels(source, parts)))
    values = [_flat(arrays[part.y]) for part in parts]
    count = sum(lengths)
    if any(y.shape != (length,) for y, length in zip(values, lengths, strict=True)) or any(
        a is not None and a.shape != (count,) for a in (groups, splits)
    ):
        what = f"{source}: {parts[0].y}, group and split must be ({count},), one value for each image of {parts[0].x}"
        raise InputError(what, f"{parts[0].y} is {arrays[parts[0].y].shape}: save both again, of the same images")
    y = np.concatenate([_texts(source, part.y, array) for part, array in zip(parts, values, strict=True)])
    labels = _labels(source, y, arrays[called] if called else None)
    groups, splits = (_texts(source, name, arrays[name]) if name in arrays else None for name in ("group", "split"))
    told = [part.split for part, length in zip(parts, lengths, strict=True) for _ in range(length)]
    return [
        Sample(
            source,
            labels[row],
            str(groups[row]) if groups is not None else "",
            split_name(str(splits[row]), f"{source}, row {row}") if splits is not None else told[row],
            row,
        )
        for row in range(count)
    ]


def open_arrays(samples: Iterable[Sample]) -> dict[Path, NDArray[np.uint8]]:
    """Return the pixels, (N, H, W, 3) uint8 RGB, of each ``.npz`` that has one of these samples."""
    paths = {s.path for s in samples if s.row >= 0 and s.path.suffix.lower() == ".npz"}
    parts = {path: _pixels(path, _parts(npz.names(path))) for path in paths}
    return {path: ones[0] if len(ones) == 1 else np.concatenate(ones) for path, ones in parts.items()}


def _parts(names: Sequence[str]) -> list[_Part]:
    """The arrays of images and labels, as Keras's ``mnist.npz`` and MedMNIST call them, in the order of the splits."""
    known = {name.lower().replace("_", ""): name for name in names}
    found: list[_Part] = []
    for word, split in ("", ""), *_SPLITS.items():
        x, y = (
            [known[key] for one in ends for key in (one + word, word + one) if key in known]
            for ends in (_IMAGES, _LABELS)
        )
        if x and y and split not in {part.split for part in found}:
            found.append(_Part(x[0], y[0], split))
        if found and not word:  # one set, not divided by names
            return found
    return found


def _flat(y: NDArray[Any]) -> NDArray[Any]:
    """Labels of one value each: (N, 1) as Keras's CIFAR-10 and MedMNIST have them, or a 1 in the class's column."""
    if y.ndim == 2 and y.shape[1] == 1:
        return y[:, 0]
    if y.ndim == 2 and len(y) and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
        return np.asarray(y.argmax(axis=1))
    return y


def _texts(source: Path, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """An array whose texts are no bytes: h5py and older Pythons write them so."""
    if array.dtype.kind != "S":
        return array
    try:
        return np.asarray(np.char.decode(array, "utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: {name} holds bytes that are not UTF-8 text", "save it as text") from error


def _labels(source: Path, y: NDArray[Any], names: NDArray[Any] | None) -> list[str]:
    """The label of each image. Raises InputError where one has none, or is no place in ``names``."""
    if y.dtype.kind == "f" and (y == np.rint(y)).all() and np.abs(y).max() < 1 << 53:  # pandas, where some are missing
        y = y.astype(np.int64)
    if names is None:
        labels = [clean_label(str(value)) for value in y]
    elif not (np.issubdtype(y.dtype, np.integer) and y.min() >= 0 and y.max() < len(names)):
        raise InputError(f"{source}: y must be whole numbers from 0 to {len(names) - 1}, places in labels")
    else:
        used = np.unique(y)
        known = dict(zip(used.tolist(), map(clean_label, map(str, _texts(source, "labels", names[used]))), strict=True))
        labels = [known[number] for number in y.tolist()]
    nothing = NO_LABELS if names is None else {""}  # a class of a list may be called "null"
    if (row := next((row for row, label in enumerate(labels) if label.lower() in nothing), None)) is not None:
        raise InputError(f"{source}, row {row}: the image has no label", "leave such images out of all arrays")
    return labels


def _pixels(source: Path, parts: Sequence[_Part]) -> list[NDArray[np.uint8]]:
    """The pixels of each part, (N, H, W, 3). Raises InputError unless they are such, of one size."""
    arrays = npz.read(source, [part.x for part in parts])
    pixels = [_checked(source, part.x, arrays[part.x]) for part in parts]
    if len({one.shape[1:] for one in pixels}) > 1:
        raise InputError(f"{source}: its parts have pictures of other sizes", "save each part in a file of its own")
    return pixels


def _checked(source: Path, name: str, x: NDArray[Any]) -> NDArray[np.uint8]:
    if x.dtype != np.uint8 or not (x.ndim == 3 or (x.ndim == 4 and x.shape[3] in (1, 3))) or not x.size:
        raise InputError(
            f"{source}: {name} must be (N, H, W, 3) uint8, not {x.shape} {x.dtype}", _mending(source, name, x)
        )
    x = x[..., None] if x.ndim == 3 else x
    return np.broadcast_to(x, (*x.shape[:3], 3))


def _mending(source: Path, name: str, x: NDArray[Any]) -> str:
    """The command that makes such pixels of what can be meant: colours first, numbers from 0 to 1 or from -1 to 1."""
    is_first = x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 3)
    if not x.size or x.ndim not in (3, 4) or not (is_first or x.ndim == 3 or x.shape[3] in (1, 3)):
        return "save pictures of one size, (N, height, width, 3) or (N, height, width), as numbers from 0 to 255"
    least, most = float(x.min()), float(x.max())
    steps = ["x.transpose(0, 2, 3, 1)"] if is_first else ["x"]
    if x.dtype != np.uint8:
        if not ((least >= -1 and most <= 1) or (least >= 0 and most <= 255)):
            return "save its pixels as whole numbers from 0 to 255"
        scale = "" if most > 1 else "*255" if least >= 0 else "*127.5+127.5"
        steps.append(f"{scale}).round().astype('uint8')")
    expression = "(" + "".join(steps) if len(steps) > 1 else steps[0]
    new = str(source.with_name(f"{source.stem}-uint8.npz"))
    load = f"import numpy; d = dict(numpy.load({str(source)!r})); x = d[{name!r}]"
    code = f"{load}; d[{name!r}] = {expression}; numpy.savez({new!r}, **d)"
    return f"{python(code)}, then give {shlex.quote(new)}"
