"""Opens the FlatBuffer of a ``.tflite`` after checking all of it, as C++ does with ``flatbuffers::Verifier``.

The Python classes generated from tensorflow/lite's schema.fbs (package ``tflite``) read without checks, and so do the
runtimes' loaders, which crash on a wrong offset. Once ``open_model`` has returned, both can be trusted with the file.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import shlex
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tflite

from edge_ran import other_models, zip_archive
from edge_ran.errors import InputError

MODEL_IDENTIFIER = b"TFL3"

# What reading damaged bytes may raise.
DAMAGE = (struct.error, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError)


class GuardedBytes(bytes):
    """Bytes that refuse a slice beyond their end; plain ones shorten it, which hides a file that is cut short."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) and key.stop is not None and key.stop > len(self):
            raise IndexError("a text ends beyond the end of the file")
        return super().__getitem__(key)


@contextlib.contextmanager
def untrusted(path: Path | str) -> Iterator[None]:
    """Turn whatever damaged bytes make a reader raise into one InputError."""
    try:
        yield
    except DAMAGE as error:
        raise InputError(f"{path} is cut short or damaged: {one_line(error)}", "get or convert it again") from error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def open_model(data: bytes, path: Path | str) -> tflite.Model:
    """Return the root of the model, every table, vector and text of which lies inside ``data``.

    Raises:
        InputError: ``data`` is something else, is cut short or is damaged.
    """
    if data[4:8] != MODEL_IDENTIFIER:
        what, remedy = next(
            (said for pattern, *said in _NOT_MODELS if re.match(pattern, data[:1000], re.IGNORECASE)),
            other_models.refusal(path, data[:1000]) or ("is not a .tflite model", "make one: edge-ran convert RUN"),
        )
        raise InputError(f"{path} {what}", _unpacking(path, data) or remedy)
    with untrusted(path):
        model = tflite.Model.GetRootAs(GuardedBytes(data))
        _Verifier(len(data)).table(model)
        return model


MOST_TABLES = 100_000  # in a list of operators, tensors or buffers; the deepest network here has 4,000 operators


# What downloads leave in the place of a model: how it begins, what it is, what helps.
_NOT_MODELS = (
    (rb"version https://git-lfs", "is a pointer of Git LFS, not the model itself", "fetch the model: git lfs pull"),
    (
        rb"\s*<(!doctype|html|\?xml)",
        "is a web page, not a model",
        "download the file, not the page about it",
    ),
    (rb"PK\x03\x04|\x1f\x8b", "is a packed archive", "unpack it; if a .tflite lies in it, give that"),
)


def _unpacking(path: Path | str, data: bytes) -> str:
    """The command that unpacks a zip archive with a model in it; empty where it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inner = next((name for name in archive.namelist() if name.lower().endswith(".tflite")), "")
    except zip_archive.DAMAGE:
        return ""
    folder = os.path.splitext(str(path))[0] + "-unpacked"
    command = f"unzip {shlex.quote(str(path))} -d {shlex.quote(folder)}"
    return f"{command}; then give {shlex.quote(os.path.join(folder, inner))}" if inner else ""


class Budget:
    """How many elements of vectors and bytes of texts may be read of a FlatBuffer."""

    def __init__(self, budget: int) -> None:
        self.budget = budget

    def spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise ValueError("its vectors and texts are larger than the file")


class _Verifier(Budget):
    """Walks over everything that can be reached from the root. A table, vector element or byte of a text costs one of a
    budget of as many as the file has bytes: honest ones do not overlap, so only a hostile file, made to take for ever
    or all memory, runs out.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size
        self.costs: dict[tuple[type, int], int] = {}  # of the tables that were checked

    def table(self, item: Any) -> None:
        """Check a table and all below it; ``item`` is a generated object."""
        key = (item.__class__, item._tab.Pos)
        if key in self.costs:  # a vector may name one table many times; whoever walks over it pays each time
            self.spend(self.costs[key])
            return
        before = self.budget
        self.spend(1)
        self.layout(item._tab)
        scalars_and_tables, vectors, unions = _fields(item.__class__)
        for read in scalars_and_tables:
            self.value(read(item), 1)
        for length, all_, one in vectors:
            count = length(item)
            self.spend(count)
            if all_ is not None:
                all_(item)  # NumPy refuses a view that leaves the buffer
            else:
                for i in range(count):
                    self.value(one(item, i), count)
        for kind, read, members in unions:
            value = read(item)
            if value is None:
                continue
            self.layout(value)
            cls = getattr(tflite, members.get(kind(item), ""), None)
            if cls is not None:  # else a member that a newer schema added
                member = cls()
                member.Init(value.Bytes, value.Pos)
                self.table(member)
        self.costs[key] = before - self.budget

    def value(self, value: Any, count: int) -> None:
        """Check what a field holds, or each of the ``count`` elements of a vector."""
        if isinstance(value, bytes):
            self.spend(len(value))
        elif hasattr(value, "_tab"):
            if count > MOST_TABLES:  # said at once: walking over them takes seconds
                raise ValueError(f"it has a list of more than {MOST_TABLES:,} tables")
            self.table(value)

    def layout(self, table: Any) -> None:
        """Check that a table and the list of its fields' places are inside the file."""
        position = table.Pos
        (back,) = struct.unpack_from("<i", table.Bytes, position)
        fields = position - back
        if not 0 <= fields <= self.size - 4:
            raise ValueError("a table lies outside the file")
        fields_bytes, table_bytes = struct.unpack_from("<HH", table.Bytes, fields)
        if fields_bytes < 4 or fields_bytes % 2 or table_bytes < 4:
            raise ValueError("a table has a wrong size")
        if max(fields + fields_bytes, position + table_bytes) > self.size:
            raise ValueError("a table ends beyond the end of the file")
        places = struct.unpack_from(f"<{fields_bytes // 2 - 2}H", table.Bytes, fields + 4)
        if any(place and not 4 <= place < table_bytes for place in places):
            raise ValueError("a field lies outside its table")


def enumeration(cls: type) -> dict[int, str]:
    """The names of a generated enumeration, by number."""
    return {number: name for name, number in vars(cls).items() if isinstance(number, int)}


_UNIONS = {
    "BuiltinOptions": enumeration(tflite.BuiltinOptions),
    "BuiltinOptions2": enumeration(tflite.BuiltinOptions2),
    "Details": enumeration(tflite.QuantizationDetails),
    "ArraySegments": enumeration(tflite.SparseIndexVector),
    "ArrayIndices": enumeration(tflite.SparseIndexVector),
}


@functools.cache
def _fields(cls: type) -> tuple[list[Any], list[Any], list[Any]]:
    """The accessors of a generated class: of scalars and tables, of vectors, and of unions."""
    methods = {
        name: method
        for name, method in vars(cls).items()
        if hasattr(method, "__code__") and not name.startswith("Init")
    }
    vectors = [name.removesuffix("Length") for name in methods if f"{name.removesuffix('Length')}IsNone" in methods]
    vectors = [name for name in dict.fromkeys(vectors) if f"{name}Length" in methods]
    of_vectors = {f"{name}{suffix}" for name in vectors for suffix in ("", "Length", "AsNumpy", "IsNone")}
    plain = [method for name, method in methods.items() if name not in of_vectors and name not in _UNIONS]
    return (
        plain,
        [(methods[f"{name}Length"], methods.get(f"{name}AsNumpy"), methods[name]) for name in vectors],
        [(methods[f"{name}Type"], methods[name], _UNIONS[name]) for name in methods if name in _UNIONS],
    )
