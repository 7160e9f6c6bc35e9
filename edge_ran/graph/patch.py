"""A new root in front of a ``.tflite``: whatever changes is written there, whatever stays is shared with the old file.

FlatBuffer offsets point forward, so a new root before the old file can use its tables, and no weight moves in relation
to another. The prefix keeps the alignment of the weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flatbuffers
import numpy as np
import tflite

from edge_ran.errors import InputError
from edge_ran.graph.flatbuffer import MODEL_IDENTIFIER

ALIGNMENT = 16  # of constant tensors in the file; runtimes map them straight into memory
# Field numbers of a Model.
CODES, SUBGRAPHS, DESCRIPTION, BUFFERS, METADATA_BUFFER, METADATA, SIGNATURES = range(1, 8)


class Patch:
    """A root being written in front of ``model``, which ``open_model`` has checked."""

    def __init__(self, model: bytes) -> None:
        """Raises InputError: its weights lie outside the FlatBuffer, where their places would be wrong."""
        self.model = model
        self.old = tflite.Model.GetRootAs(model)
        if any(self.old.Buffers(i).Offset() > 1 for i in range(self.old.BuffersLength())):
            raise InputError("a model with its weights outside the FlatBuffer cannot be changed")
        self.builder = flatbuffers.Builder(4096)
        self.builder.Prep(ALIGNMENT, 0)

    def kept(self, item: Any) -> int:
        """The offset of a table of the old file, a generated object; anew for every use."""
        return -int(item._tab.Pos)  # the builder counts from its end, which is where the old file begins

    def field(self, item: Any, slot: int) -> int:
        """The offset of what a table of the old file has in a field; 0 where it has nothing."""
        table = item._tab
        offset = table.Offset(4 + 2 * slot)
        return -int(table.Indirect(table.Pos + offset)) if offset else 0

    def buffer(self, data: bytes) -> int:
        """Write a Buffer."""
        b = self.builder
        b.StartVector(1, len(data), ALIGNMENT)
        b.head -= len(data)
        b.Bytes[b.head : b.head + len(data)] = data
        return table(b, {0: b.EndVector()})

    def finish(self, changed: dict[int, int]) -> bytes:
        """Return the file whose root has these offsets by field (0: nothing), and everything else of the old root."""
        fields = (CODES, SUBGRAPHS, DESCRIPTION, BUFFERS, METADATA_BUFFER, METADATA, SIGNATURES)
        slots = {slot: self.field(self.old, slot) for slot in fields} | changed
        root = table(self.builder, slots, uint32s={0: self.old.Version()})
        self.builder.Finish(root, MODEL_IDENTIFIER)
        return bytes(self.builder.Output()) + self.model


def table(
    b: flatbuffers.Builder,
    offsets: dict[int, int],
    bytes_: dict[int, int] | None = None,
    uint32s: dict[int, int] | None = None,
) -> int:
    """Write a table with these fields, by field number."""
    b.StartObject(1 + max((*offsets, *(bytes_ or ()), *(uint32s or ())), default=-1))
    for slot, offset in offsets.items():
        b.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, number in (uint32s or {}).items():
        b.PrependUint32Slot(slot, number, 0)
    for slot, number in (bytes_ or {}).items():
        b.PrependUint8Slot(slot, number, 0)
    return int(b.EndObject())


def vector(b: flatbuffers.Builder, offsets: list[int]) -> int:
    """Write a vector of tables."""
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def numbers(b: flatbuffers.Builder, values: Iterable[float], dtype: type) -> int:
    """Write a vector of numbers."""
    return int(b.CreateNumpyVector(np.asarray(list(values), dtype)))
