"""A model's card inside its ``.tflite``, as standard TFLite metadata (metadata_schema.fbs, identifier M001).

It is what MediaPipe Tasks and LiteRT's tools read: a FlatBuffer under the name ``TFLITE_METADATA`` that describes the
tensors, and a zip archive appended to the file that holds ``labels.txt`` and, for us, ``edge_ran_card.json``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import tflite

from edge_ran import zip_archive
from edge_ran.card import InputSpec, ModelCard, Training, Versions
from edge_ran.errors import InputError
from edge_ran.files import read_bytes
from edge_ran.graph import patch
from edge_ran.graph.flatbuffer import DAMAGE, MODEL_IDENTIFIER, Budget, GuardedBytes, open_model, untrusted
from edge_ran.graph.patch import Patch, numbers, table, vector
from edge_ran.graph.structure import FLOATS, Graph, TensorSpec, parse_graph, plain_pixels, text
from edge_ran.graph.yolo_metadata import yolo_card
from edge_ran.labels import decode_labels, fitted_labels
from edge_ran.printable import many

METADATA_IDENTIFIER = b"M001"
METADATA_NAME = "TFLITE_METADATA"
CARD_FILE = "edge_ran_card.json"
LABELS_FILE = "labels.txt"
_MOST_CARD_BYTES = 1 << 24  # of all packed files, unpacked: a million labels; a small archive may hold terabytes
_MOST_READ = 4  # times the size of the metadata, in texts: a text is read twice, and writers may share short ones
_ZIP_DAMAGE = (*DAMAGE, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError)


def attach_card(model: bytes, card: ModelCard) -> bytes:
    """Return ``model`` with ``card`` inside, in place of any that it had; its weights are the same bytes.

    Raises:
        InputError: the model is damaged, has more than one input, or other outputs than the card's labels and masks.
    """
    graph = parse_graph(model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 + len(card.masks):
        wanted = f"1 output and {len(card.masks)} masks" if card.masks else "1 output"
        raise InputError(f"a classifier has 1 input and {wanted}, not {len(graph.inputs)} and {len(graph.outputs)}")
    classes = graph.outputs[0].shape[-1] if graph.outputs[0].shape else 1
    if classes != len(card.labels):
        raise InputError(f"the card has {many(len(card.labels), 'label')}, the model {many(classes, 'output')}")
    model = _prepend_metadata(model[: _archive_start(model)], _metadata(card))
    archive = io.BytesIO(model)
    with zipfile.ZipFile(archive, "a") as packed:  # stored, not deflated: readers map the file and look in
        packed.writestr(zipfile.ZipInfo(LABELS_FILE), "".join(f"{label}\n" for label in card.labels))
        packed.writestr(zipfile.ZipInfo(CARD_FILE), card.to_json())
    return archive.getvalue()


def read_card(path: Path | str, labels: Sequence[str] | None = None) -> ModelCard | None:
    """Return what the ``.tflite`` says of itself: our card, else one made from what other tools wrote, else None.

    None also where foreign metadata belongs to something else than a model of pictures.

    Args:
        path: the file.
        labels: take the place of the labels inside, which are then not read.

    Raises:
        InputError: the file or its card is damaged.
    """
    data = read_bytes(Path(path), "model")
    files = _packed_files(data, path) if data[4:8] == MODEL_IDENTIFIER else {}
    if CARD_FILE in files:  # it says all, and needs no look at the FlatBuffer
        card = ModelCard.from_json(files[CARD_FILE])
        return card if labels is None else dataclasses.replace(card, labels=tuple(labels))
    model = open_model(data, path)
    with untrusted(path):
        metadata, graph = _standard_metadata(model), parse_graph(data, path)
        if card_of_yolo := yolo_card(graph, files, labels):  # beside which the standard metadata are empty
            return card_of_yolo
        found = _foreign_card(metadata, graph, files, labels) if metadata else None
        if found is not None and found.labels:
            return found
        named = yolo_card(graph, files, labels, needs_task=False)
        return dataclasses.replace(found, labels=named.labels) if found and named else found or named


def _standard_metadata(model: tflite.Model) -> _Table | None:
    """The root of the standard metadata, if the file has it."""
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == METADATA_NAME.encode():
            if entry.Buffer() >= model.BuffersLength():
                raise ValueError("its metadata is missing")
            raw = GuardedBytes(model.Buffers(entry.Buffer()).DataAsNumpy())
            if raw[4:8] != METADATA_IDENTIFIER:
                raise ValueError("its metadata is of an unknown kind")
            root = flatbuffers.table.Table(raw, int.from_bytes(raw[:4], "little"))
            return _Table(root, Budget(_MOST_READ * len(raw)))
    return None


def _foreign_card(
    metadata: _Table, graph: Graph, files: dict[str, bytes], given: Sequence[str] | None
) -> ModelCard | None:
    subgraphs = metadata.tables(3)
    inputs, outputs = (subgraphs[0].tables(2), subgraphs[0].tables(3)) if subgraphs else ([], [])
    if not inputs or not outputs or len(graph.inputs) != 1:
        return None
    image = graph.inputs[0]
    if image.picture is None:
        return None
    names = [one.string(0) for one in outputs[0].tables(6) if one.byte(2) == 2]  # TENSOR_AXIS_LABELS
    labels = tuple(given) if given is not None else _labels(names, files, graph)
    height, width = _size(inputs[0], image)
    told = _told_normalisation(inputs[0])
    mean, std = _normalisation(told, image)
    return ModelCard(
        name=metadata.string(0) or graph.path.stem,
        labels=labels,
        input=InputSpec(height, width, mean, std),
        precision=graph.precision,
        training=Training(description=_one_line(metadata.string(1)), author=_one_line(metadata.string(4))),
        versions=Versions(model=_one_line(metadata.string(2))),
        license=metadata.string(5),
        task=_task(outputs, [metadata.string(0), metadata.string(1)], bool(labels)),
        assumes_scaling=told is None and image.dtype in FLOATS,
    )


def _labels(names: list[str], files: dict[str, bytes], graph: Graph) -> tuple[str, ...]:
    if not names:
        return ()
    first = names[0]  # the others are translations
    if first not in files:
        raise InputError(f"{graph.path}: its {first} is missing, it is cut short", "get it again, or add --labels FILE")
    return fitted_labels(decode_labels(files[first], f"{graph.path}: the label file {first} in it"), graph.widths)


def _size(described: _Table, image: TensorSpec) -> tuple[int, int]:
    """Height and width: the tensor's; where that leaves them open, those that the metadata recommends, else 0 x 0."""
    picture = image.picture
    if picture is not None and not {*picture.axes[:2]} & {*image.open_axes}:
        return picture.height, picture.width
    content = described.table(3)
    properties = content.table(1) if content is not None and content.byte(0) == 2 else None
    size = properties.table(1) if properties is not None else None
    width, height = (size.uint32(0), size.uint32(1)) if size is not None else (0, 0)
    return (height, width) if height and width else (0, 0)


# Words of a model's name and description that tell what it is for, where it says so in no other way.
_TASKS = (
    ("embedder", re.compile(r"embed|feature[ _-]?(vector|extract)", re.IGNORECASE)),
    ("detector", re.compile(r"detect", re.IGNORECASE)),
    ("segmenter", re.compile(r"segment", re.IGNORECASE)),
)


def _task(outputs: list[_Table], words: list[str], has_labels: bool) -> str:
    kinds = {content.byte(0) for output in outputs if (content := output.table(3)) is not None}
    if 3 in kinds:  # BoundingBoxProperties
        return "detector"
    if 2 in kinds:  # ImageProperties
        return "segmenter"
    said = " ".join([*words, *(output.string(slot) for output in outputs for slot in (0, 1))])
    if has_labels or re.search("classif", said, re.IGNORECASE):
        return "classifier"
    return next((task for task, pattern in _TASKS if pattern.search(said)), "classifier")


def _one_line(text: str) -> str:
    return " ".join(text.split())


_MeanStd = tuple[tuple[float, ...], tuple[float, ...]]


def _told_normalisation(described: _Table) -> _MeanStd | None:
    """The mean and standard deviation that an input's NormalizationOptions give, else those of the range it holds."""
    for unit in described.tables(4):
        options = unit.table(1)
        if unit.byte(0) == 1 and options is not None:
            mean, std = options.floats(0), options.floats(1)  # one number stands for all channels
            return mean * (3 if len(mean) == 1 else 1), std * (3 if len(std) == 1 else 1)
    stats = described.table(5)
    highest, lowest = (stats.floats(0), stats.floats(1)) if stats is not None else ((), ())
    if (
        not highest
        or len(highest) != len(lowest)
        or not all(0 < h - low < 1e9 for h, low in zip(highest, lowest, strict=True))
    ):
        return None
    std = tuple(255 / (h - low) for h, low in zip(highest, lowest, strict=True))
    mean = tuple(-low * s for low, s in zip(lowest, std, strict=True))
    return mean * (3 if len(mean) == 1 else 1), std * (3 if len(std) == 1 else 1)


def _normalisation(told: _MeanStd | None, image: TensorSpec) -> _MeanStd:
    """How pixels become the input, as the readers that the metadata was made for do it.

    Task Library and MediaPipe normalise float inputs only, and give a uint8 input the pixels as they are. They take no
    int8 input: there the metadata count where they fit the tensor's own range, else they were meant for the network
    before it was quantised.
    """
    if image.dtype in FLOATS or (image.dtype == "int16" and image.scale):
        return told or ((0.0,) * 3, (1.0,) * 3)
    return told if told and _fits(told, image) else plain_pixels(image)


def _fits(given: _MeanStd, image: TensorSpec) -> bool:
    """Whether the normalised pixels span the range of an int8 input, to a tenth of it."""
    if image.dtype != "int8" or not image.scale or not all(given[1]):
        return False
    low, high = ((limit - image.zero_point) * image.scale for limit in (-128, 127))
    ends = [[(pixel - m) / s for m, s in zip(*given, strict=False)] for pixel in (0, 255)]
    return abs(min(ends[0]) - low) <= 0.1 * (high - low) >= abs(max(ends[1]) - high)


def _packed_files(data: bytes, path: Path | str) -> dict[str, bytes]:
    """The associated files in the archive at the end, by name; empty where there is none."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return {}
    return zip_archive.unpack(io.BytesIO(data), None, _MOST_CARD_BYTES, f"{path}: the archive at its end")


def _archive_start(model: bytes) -> int:
    """Where the archive at the end begins, else the length of the file."""
    with contextlib.suppress(*_ZIP_DAMAGE), zipfile.ZipFile(io.BytesIO(model)) as packed:
        return min((entry.header_offset for entry in packed.infolist()), default=len(model))
    return len(model)


def _metadata(card: ModelCard) -> bytes:
    """The card as standard metadata: a ModelMetadata FlatBuffer. Numbers are the schema's field numbers."""
    b = flatbuffers.Builder(1024)
    inputs, outputs = [_described_input(b, card.input)], [_described_probabilities(b), *_described_masks(b, card)]
    subgraph = table(b, {2: vector(b, inputs), 3: vector(b, outputs)})
    root = table(
        b,
        {
            0: b.CreateString(card.name),
            1: b.CreateString(f"Image classifier {card.network}, {card.precision}".replace(" ,", ",")),
            3: vector(b, [subgraph]),
            5: b.CreateString(card.license),
            6: vector(b, [_associated(b, CARD_FILE, "Everything known of the model, as JSON", 1)]),
            7: b.CreateString("1.0.0"),
        },
    )
    b.Finish(root, METADATA_IDENTIFIER)
    return bytes(b.Output())


def _described_input(b: flatbuffers.Builder, spec: InputSpec) -> int:
    lowest = [(0 - m) / s for m, s in zip(spec.mean, spec.std, strict=True)]
    highest = [(255 - m) / s for m, s in zip(spec.mean, spec.std, strict=True)]
    rgb = 1 if spec.color == "rgb" else 0  # the schema knows RGB and GRAYSCALE only; 0 is unknown
    size = table(b, {}, uint32s={0: spec.width, 1: spec.height})
    image = table(b, {1: size}, bytes_={0: rgb})
    normalise = table(b, {1: table(b, {0: _floats(b, spec.mean), 1: _floats(b, spec.std)})}, bytes_={0: 1})
    return table(
        b,
        {
            0: b.CreateString("image"),
            1: b.CreateString(f"{spec.color.upper()} picture of {spec.height} x {spec.width} pixels"),
            3: table(b, {1: image}, bytes_={0: 2}),
            4: vector(b, [normalise]),
            5: table(b, {0: _floats(b, highest), 1: _floats(b, lowest)}),
        },
    )


def _described_probabilities(b: flatbuffers.Builder) -> int:
    return table(
        b,
        {
            0: b.CreateString("probability"),
            1: b.CreateString("Probability of each label"),
            3: _features(b),
            5: table(b, {0: _floats(b, [1]), 1: _floats(b, [0])}),
            6: vector(b, [_associated(b, LABELS_FILE, "Labels in the order of the outputs", 2)]),
        },
    )


def _described_masks(b: flatbuffers.Builder, card: ModelCard) -> list[int]:
    return [
        table(
            b,
            {
                0: b.CreateString(f"mask_{place}"),
                1: b.CreateString(f"Soft attention mask of {module.replace('_', ' ')}, mean over the channels"),
                3: _features(b),
            },
        )
        for place, module in enumerate(card.masks, 1)
    ]


def _associated(b: flatbuffers.Builder, name: str, description: str, kind: int) -> int:
    return table(b, {0: b.CreateString(name), 1: b.CreateString(description)}, bytes_={2: kind})


def _features(b: flatbuffers.Builder) -> int:
    return table(b, {1: table(b, {})}, bytes_={0: 1})


def _floats(b: flatbuffers.Builder, values: Iterable[float]) -> int:
    return numbers(b, values, np.float32)


def _prepend_metadata(model: bytes, metadata: bytes) -> bytes:
    """Return ``model`` with a new root in front that has ``metadata`` besides everything that the old root has."""
    front = Patch(model)
    b, old = front.builder, front.old
    buffer, name = front.buffer(metadata), b.CreateString(METADATA_NAME)
    entry = table(b, {0: name}, uint32s={1: old.BuffersLength()})
    entries = [old.Metadata(i) for i in range(old.MetadataLength())]
    kept = [front.kept(e) for e in entries if e.Name() != METADATA_NAME.encode()]
    buffers = [front.kept(old.Buffers(i)) for i in range(old.BuffersLength())]
    return front.finish({patch.BUFFERS: vector(b, [*buffers, buffer]), patch.METADATA: vector(b, [*kept, entry])})


class _Table:
    """A table of the metadata schema; fields by number."""

    def __init__(self, raw: Any, texts: Budget) -> None:
        self.raw = raw
        self.texts = texts  # of the whole metadata: many tables may name one text

    def offset(self, slot: int) -> int:
        return int(self.raw.Offset(4 + 2 * slot))

    def byte(self, slot: int) -> int:
        return (
            int(self.raw.Get(flatbuffers.number_types.Uint8Flags, self.raw.Pos + o)) if (o := self.offset(slot)) else 0
        )

    def uint32(self, slot: int) -> int:
        flags = flatbuffers.number_types.Uint32Flags
        return int(self.raw.Get(flags, self.raw.Pos + o)) if (o := self.offset(slot)) else 0

    def string(self, slot: int) -> str:
        if not (o := self.offset(slot)):
            return ""
        raw = self.raw.String(self.raw.Pos + o)
        self.texts.spend(len(raw))
        return text(raw)

    def table(self, slot: int) -> _Table | None:
        return self.at(self.raw.Indirect(self.raw.Pos + o)) if (o := self.offset(slot)) else None

    def tables(self, slot: int) -> list[_Table]:
        o = self.offset(slot)
        count = self.raw.VectorLen(o) if o else 0
        if count > 1000:
            raise ValueError("its metadata has a vector of more than 1000 tables")
        return [self.at(self.raw.Indirect(self.raw.Vector(o) + 4 * i)) for i in range(count)]

    def floats(self, slot: int) -> tuple[float, ...]:
        o = self.offset(slot)
        return tuple(self.raw.GetVectorAsNumpy(flatbuffers.number_types.Float32Flags, o).tolist()) if o else ()

    def at(self, position: int) -> _Table:
        return _Table(flatbuffers.table.Table(self.raw.Bytes, position), self.texts)
