"""The commands that make an ``.npz`` of pixels that others keep as tables, pickles or bytes: MNIST, CIFAR, FER2013."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Sequence

from edge_ran.python_command import python

_LABELS = ("label", "labels", "class", "target", "y", "emotion", "letter")
_USAGE = "{'Training': 'train', 'PublicTest': 'val', 'PrivateTest': 'test'}"  # as FER2013 calls its parts


def of_table(path: str, first: Sequence[str], second: Sequence[str]) -> str:
    """The command for a table of pixels; empty where its form is not known.

    Args:
        path: the table.
        first: its first line: the names of its columns.
        second: its second line.
    """
    names = [name.strip().lower() for name in first]
    label = next((names.index(name) for name in _LABELS if name in names), None)
    if label is None:
        return ""
    if "pixels" in names:  # all of them in one cell
        count = len(second[names.index("pixels")].split())
        form = _form(count)
        cells = f"n.array([r[{first[names.index('pixels')]!r}].split() for r in t], 'uint8')"
        splits = f", split=[{_USAGE}.get(r['Usage'], '') for r in t]" if "Usage" in first else ""
        code = (
            f"import csv, pathlib, numpy as n; f = pathlib.Path({path!r}); "
            "t = list(csv.DictReader(f.read_text().splitlines())); "
            f"n.savez(NEW, x={cells}{form}, y=[r[{first[label]!r}] for r in t]{splits})"
        )
        return _command(code, path) if form else ""
    form = _form(len(second) - 1)
    code = (
        f"import numpy as n; t = n.loadtxt({path!r}, delimiter=',', skiprows=1, dtype=int); "
        f"n.savez(NEW, x=n.delete(t, {label}, 1).astype('uint8'){form}, y=t[:, {label}])"
    )
    return _command(code, path) if form and len(names) == len(second) else ""


def of_file(path: str) -> str:
    """The command for a batch of CIFAR as Python pickles it, or MNIST's bytes; empty where it is neither."""
    folder, name = os.path.split(path)
    if re.fullmatch(r"(data_batch_\d|test_batch)", name):
        every = os.path.join(folder, "*_batch*")
        code = (
            f"import glob, pathlib, pickle, numpy as n; p = sorted(glob.glob({every!r})); "
            "b = [pickle.loads(pathlib.Path(f).read_bytes(), encoding='latin1') for f in p]; "
            "n.savez(NEW, x=n.concatenate([d['data'] for d in b]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), "
            "y=n.concatenate([d['labels'] for d in b]), "
            "split=n.concatenate([[{True: 'test', False: 'train'}[f.endswith('test_batch')]] * len(d['data']) "
            "for f, d in zip(p, b)]))"
        )
        warning = " (a pickle can run code when it is read: only one from a source that you trust)"
        return _command(code, os.path.join(folder, "cifar")) + warning
    found = re.fullmatch(r"(.*)-(?:images|labels)([-.])idx[13]-ubyte(\.gz)?", name)
    if not found:
        return ""
    images, labels = (
        os.path.join(folder, f"{found[1]}-{kind}{found[2]}idx{sides}-ubyte{found[3] or ''}")
        for kind, sides in (("images", 3), ("labels", 1))
    )
    read = "gzip.decompress(pathlib.Path({!r}).read_bytes())" if found[3] else "pathlib.Path({!r}).read_bytes()"
    code = (
        f"import gzip, pathlib, numpy as n; a = {read.format(images)}; b = {read.format(labels)}; "
        "s = n.frombuffer(a, '>i4', 4)[1:]; n.savez(NEW, x=n.frombuffer(a, 'uint8', offset=16).reshape(s), "
        "y=n.frombuffer(b, 'uint8', offset=8))"
    )
    return _command(code, os.path.join(folder, found[1]))


def _form(count: int) -> str:
    """The call that makes square pictures of so many numbers, grey or of three colours; empty where there are none."""
    for channels in (1, 3):
        side = math.isqrt(count // channels)
        if side > 1 and side * side * channels == count:
            return f".reshape(-1, {side}, {side}" + (", 3)" if channels > 1 else ")")
    return ""


def _command(code: str, path: str) -> str:
    new = f"{os.path.splitext(path)[0]}.npz"
    return f"{python(code.replace('NEW', repr(new)))}, then give {shlex.quote(new)}"
