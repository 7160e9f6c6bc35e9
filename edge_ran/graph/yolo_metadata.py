"""What Ultralytics' exporter packs at the end of a ``.tflite``: the classes, what the network is for, its input size.

A dictionary of ``names`` (number -> class), ``task``, ``imgsz`` and more, as JSON in ``metadata.json``, and from older
versions as Python's own writing in ``temp_meta.txt``. The exporter says nothing of pixels: its classifiers take
0..1, of the largest centred square (``ultralytics.data.augment.classify_transforms``). YOLOv5 writes ``names`` without
``task`` into ``meta.txt``, and other programs do the same: there the classes are known, and nothing else.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence

from edge_ran.card import InputSpec, ModelCard, Training, Versions
from edge_ran.graph.structure import FLOATS, Graph, plain_pixels
from edge_ran.labels import clean_label

_FILES = ("metadata.json", "temp_meta.txt", "meta.txt")
_TASKS = {"classify": "classifier", "detect": "detector", "segment": "segmenter", "pose": "detector", "obb": "detector"}
# A million characters of class names. Python 3.10 crashes on a long sum, as its parser's trees are as deep.
_MOST_BYTES, _MOST_PYTHON_BYTES = 1 << 20, 1 << 16


def yolo_card(
    graph: Graph, files: Mapping[str, bytes], given: Sequence[str] | None, needs_task: bool = True
) -> ModelCard | None:
    """Return a card of what the exporter packed; None where the file is not one of Ultralytics'.

    Args:
        graph: the network.
        files: what is packed at the file's end, by name.
        given: labels that take the place of those inside.
        needs_task: whether it must say what the network is for; without that, only the names count.

    Raises:
        InputError: a name or size in it cannot be one.
    """
    said = next((_read(files[name]) for name in _FILES if name in files), {})
    names, task = said.get("names"), said.get("task", None if needs_task else "classify")
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not isinstance(task, str) or len(graph.inputs) != 1:
        return None
    image = graph.inputs[0]
    if len(image.shape) != 4 or image.shape[3] != 3:
        return None
    height, width = (0, 0) if {1, 2} & set(image.open_axes) else image.shape[1:3]
    known = "task" in said
    size = InputSpec(height, width, (0.0,) * 3, (255.0,) * 3, fit="crop")
    return ModelCard(
        name=_line(said.get("description")) or graph.path.stem,
        labels=tuple(given) if given is not None else _labels(names),
        input=size if known else InputSpec(height, width, *plain_pixels(image)),
        assumes_scaling=not known and image.dtype in FLOATS,
        precision=graph.precision,
        training=Training(author=_line(said.get("author"))),
        versions=Versions(model=_line(said.get("version"))),
        license=_line(said.get("license")),
        task=_TASKS.get(task, clean_label(task)),
    )


def _read(data: bytes) -> dict[str, object]:
    """The dictionary, as JSON or as Python writes it; empty where it is neither."""
    for parse, most in ((json.loads, _MOST_BYTES), (ast.literal_eval, _MOST_PYTHON_BYTES)):
        if len(data) > most:
            continue
        try:
            said = parse(data.decode())
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        return said if isinstance(said, dict) else {}
    return {}


def _labels(names: dict[object, object]) -> tuple[str, ...]:
    """The classes by their numbers, which JSON writes as texts; none where a number is missing."""
    numbered = {str(number): clean_label(str(name)) for number, name in names.items()}
    ordered = [numbered.get(str(number)) for number in range(len(numbered))]
    return tuple(name for name in ordered if name is not None) if None not in ordered else ()


def _line(said: object) -> str:
    return " ".join(said.split()) if isinstance(said, str) else ""
