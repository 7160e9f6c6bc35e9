"""What goes into an image classifier's file and what comes out: size, normalisation, labels, probabilities.

The file tells it in its card or in foreign metadata; what the user says besides, ``Overrides``, goes before.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_ran.card import InputSpec, ModelCard, Overrides
from edge_ran.errors import InputError
from edge_ran.files import read_bytes
from edge_ran.graph import Graph, Operator, TensorSpec, plain_pixels, read_card, read_graph
from edge_ran.graph.structure import FLOATS
from edge_ran.labels import count_remedy, decode_labels, fitted_labels, numbered_labels
from edge_ran.preprocess import normalise, quantise
from edge_ran.printable import many

MOST_CLIPPED = 0.25  # of a pixel's 256 values, beyond what a quantised input holds, before a normalisation is refused
MOST_CLASSES = 1 << 20  # a file of 300 bytes may claim a billion, each of which would get a name
MOST_NAMED = 6  # outputs, in an error line
_LABELS = re.compile(r"(.*[_-])?(labels?|classes|label_?map|class_names)([_-].*)?\.(txt|json|pbtxt|csv)", re.IGNORECASE)
FEWEST_LEVELS = 32  # of them that an input must tell apart


@dataclass(frozen=True)
class ModelInterface:
    """One image classifier's input and output.

    ``graph`` has the shape of the input that is run with, where one is known; ``card`` is None for a file without
    metadata; ``spec`` tells how frames become the input; ``names`` are the labels, as given or found, None where there
    are none; ``gives_probabilities`` is None where the graph alone does not tell whether the scores are probabilities
    or logits. ``place`` is that of the scores among the graph's outputs. ``assumes_scaling``: nobody says how
    pixels are scaled for its float input. ``labels_file`` is where given names were read.
    """

    graph: Graph
    card: ModelCard | None
    spec: InputSpec
    names: tuple[str, ...] | None
    gives_probabilities: bool | None
    place: int = 0
    assumes_scaling: bool = False
    labels_file: str = ""

    @property
    def tensor(self) -> TensorSpec:
        """The input."""
        return self.graph.inputs[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """One label for each class: its number where there are no names. Raises InputError for a wrong count.

        A network that gives one number, the probability of the second of two classes, has two labels.
        """
        classes = max(2, self.graph.outputs[self.place].shape[-1])
        if self.names is None:
            return tuple(str(index) for index in range(classes))
        if len(self.names) == self.graph.outputs[self.place].shape[-1] == 1:
            return (f"not {self.names[0]}", self.names[0])
        if len(self.names) < classes and (numbered := numbered_labels(self.names, classes)):
            return numbered
        if len(self.names) != classes:
            what = (
                f"{self.graph.path} has {many(classes, 'output')}, but {many(len(self.names), 'label')} given or in it"
            )
            raise InputError(what, count_remedy(len(self.names), classes, shlex.quote(self.labels_file or "LABELS")))
        return self.names

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not as usual in the file, in sentences for the user."""
        found, picture, scores = [], self.tensor.picture, self.graph.outputs[self.place]
        if picture is not None and picture.channels == 1:
            found.append(f"{self.graph.path.name} takes grey pictures: colours are made grey")
        if len(self.graph.outputs) > 1 and not (self.card and self.card.masks):
            found.append(
                f"of the {many(len(self.graph.outputs), 'output')} of {self.graph.path.name}, {scores.name} is taken"
            )
        if self.names is None and (beside := _labels_beside(self.graph.path)):
            found.append(f"{self.graph.path.name} names no classes; {beside.name} lies beside it: --labels {beside}")
        if self.assumes_scaling:
            mean, std = self.spec.mean[0], self.spec.std[0]
            scaling = f"(pixel - {mean:g}) / {std:g}" if (mean, std) != (0, 1) else "0 to 255 as they are"
            found.append(f"{self.graph.path.name} does not say how pixels are scaled: {scaling}, or --mean and --std")
        return tuple(found)


def read_interface(path: Path | str, overrides: Overrides | None = None) -> ModelInterface:
    """Read what goes into a ``.tflite`` and what comes out.

    Raises:
        InputError: not a model, not an image classifier, or ``overrides`` does not fit it.
    """
    overrides, graph = overrides or Overrides(), read_graph(path)
    if overrides.labels is not None:
        overrides = dataclasses.replace(overrides, labels=fitted_labels(overrides.labels, graph.widths))
    card = read_card(path, overrides.labels)
    place = check_image_classifier(graph, card, overrides.labels)
    spec = input_spec(graph, card, overrides)
    picture = graph.inputs[0].picture
    if _open_sides(graph.inputs[0]) and not spec.is_open and picture is not None:
        graph = graph.with_input_shape(picture.sized(spec.height, spec.width))
    names = overrides.labels if overrides.labels is not None else (card.labels if card else ()) or None
    told = overrides.mean is not None or overrides.std is not None
    assumed = not told and (card.assumes_scaling if card else graph.inputs[0].dtype in FLOATS)
    gives = gives_probabilities(graph, place)
    graph = dataclasses.replace(graph, scores=place)
    return ModelInterface(graph, card, spec, names, gives, place, assumed, overrides.labels_file)


def check_image_classifier(graph: Graph, card: ModelCard | None = None, labels: Sequence[str] | None = None) -> int:
    """Return the place of the class scores among the outputs of a graph that maps one picture to them.

    The picture is (1, H, W, 3), or lies in the input as ``TensorSpec.picture`` tells. The scores are a row of two or
    more, or one number: the probability of the second of two classes. Behind the scores there may be the attention
    masks that the card names, (1, h, w, 1) each. Of several other outputs, the one that fits the labels is taken.

    Raises:
        InputError: it is no such graph, and why.
    """
    remedy = "an image classifier takes one picture, (1, H, W, 3), and gives (1, classes)"
    masks = card.masks if card else ()
    names = labels if labels is not None else (card.labels if card else ())
    if len(graph.inputs) != 1 or not graph.outputs or (masks and len(graph.outputs) != 1 + len(masks)):
        what = f"it has {many(len(graph.inputs), 'input')} and {many(len(graph.outputs), 'output')}"
        what += f", its card names {len(masks)} masks" if masks else ""
    elif card and card.task != "classifier":
        what = f"its metadata say that it is a{'n' if card.task[:1] in 'aeiou' else ''} {card.task}"
        remedy = "if it is a classifier all the same, name its classes: --labels FILE"
    elif graph.inputs[0].picture is None:
        what = f"its input is {graph.inputs[0].shape}"
    elif len(graph.outputs) > 1 and not masks:
        place = _place_of_scores(graph, len(names))
        if (classes := graph.outputs[place].shape[-1]) <= MOST_CLASSES:
            return place
        what = f"its output {place} has {classes:,} classes, more than {MOST_CLASSES:,}"
    else:
        row = graph.outputs[0].shape
        if not _is_row(graph.outputs[0]):
            what = "its output grows with the picture" if _open_places(graph.outputs[0]) else f"its output is {row}"
        elif row[-1] == 1 and not _is_of_two(graph, 0, len(names)):
            what, remedy = f"its output is {row}", "if it is one of two classes, name both: --labels FILE"
        elif row[-1] > MOST_CLASSES:
            what = f"its output has {row[-1]:,} classes, more than {MOST_CLASSES:,}"
        elif wrong := [t for t in graph.outputs[1:] if len(t.shape) != 4 or (t.shape[0], t.shape[3]) != (1, 1)]:
            what = f"its mask {wrong[0].name} is {wrong[0].shape}"
        else:
            return 0
    raise InputError(f"{graph.path} is not an image classifier: {what}", remedy)


def _is_row(tensor: TensorSpec) -> bool:
    """Whether it is one row of numbers: no places of a maximum."""
    row = tensor.shape
    single = not set(row[:-1]) - {1} and not _open_places(tensor)
    return bool(row) and row[-1] > 0 and single and (row[-1] > 1 or tensor.dtype not in _COUNTS)


def _open_places(tensor: TensorSpec) -> tuple[int, ...]:
    """Which axes the file leaves open, of those between the batch and the numbers of one place."""
    return tuple(axis for axis in tensor.open_axes if 0 < axis < len(tensor.shape) - 1)


def _is_of_two(graph: Graph, place: int, names: int) -> bool:
    """Whether an output of one number is the score of one of two classes: by its operator, or its labels."""
    maker = _origin(graph, graph.outputs[place])
    return maker in ("LOGISTIC", *_LOGITS[:3]) if not names else names <= 2 and maker != "SOFTMAX"


def _place_of_scores(graph: Graph, names: int) -> int:
    """Which of several outputs holds the scores: as many as there are names, or the only probabilities.

    Raises:
        InputError: none does, or more than one.
    """
    rows = [place for place, tensor in enumerate(graph.outputs) if _is_row(tensor) and not _gives_boxes(graph)]
    widths = {place: graph.outputs[place].shape[-1] for place in rows}
    fitting = [p for p in rows if widths[p] == names or (widths[p] == 1 and names == 2)] if names else rows
    certain = [p for p in fitting if gives_probabilities(graph, p) and (names or widths[p] > 1)]
    chosen = fitting if names and len(fitting) == 1 else certain
    if len(chosen) == 1:
        return chosen[0]
    outputs = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in graph.outputs[:MOST_NAMED])
    what = f"{graph.path} is not an image classifier: it has {many(len(graph.outputs), 'output')}: {outputs}"
    if _gives_boxes(graph):
        raise InputError(what, "it is a detector: its outputs are boxes, classes and scores; give a classifier")
    if not names and len({widths[p] for p in certain}) > 1:
        raise InputError(what, "name the classes of the one that counts: --labels FILE, one per line")
    raise InputError(what, "make a file that gives the scores alone: tf.keras.Model(model.input, model.outputs[0])")


def _gives_boxes(graph: Graph) -> bool:
    """Whether the outputs are boxes, (1, N, 4), with (1, N) scores: a detector as the Object Detection API makes it."""
    shapes = [output.shape for output in graph.outputs]
    return any(len(shape) == 3 and shape[2] == 4 and shape[:2] in shapes for shape in shapes)


def input_spec(graph: Graph, card: ModelCard | None = None, overrides: Overrides | None = None) -> InputSpec:
    """How frames become the graph's input: the card's word, after that of ``overrides``.

    A file without a card gets RGB stretched to its input, and pixels as ``plain_pixels`` says. A network that takes any
    size gets the one that ``overrides`` or the card names, else none: 0 x 0.

    Raises:
        InputError: the card or ``overrides`` does not fit the graph.
    """
    tensor, overrides = graph.inputs[0], overrides or Overrides()
    picture = tensor.picture
    if picture is None:
        raise InputError(f"{graph.path} takes no picture: its input is {tensor.shape}")
    own = picture.height, picture.width
    is_open = _open_sides(tensor)
    if card:
        spec = card.input
    else:
        height, width = (0, 0) if is_open else own
        spec = InputSpec(height, width, *plain_pixels(tensor))
    if not is_open and (spec.height, spec.width) != own:
        raise InputError(
            f"{graph.path}: its card says {spec.height}x{spec.width} pixels, its input is {tensor.shape}",
            "convert it again",
        )
    if overrides.input_size is not None:
        wanted = zip(picture.axes, overrides.input_size, strict=False)
        if not all(axis in is_open or (axis is not None and tensor.shape[axis] == size) for axis, size in wanted):
            raise InputError(f"{graph.path} takes {own[0]}x{own[1]} pixels and no other size", "leave --input-size out")
        spec = dataclasses.replace(spec, height=overrides.input_size[0], width=overrides.input_size[1])
    if spec.is_open and len(is_open) == 1:
        raise InputError(f"{graph.path} leaves one side of its input open: {tensor.shape}", "--input-size HEIGHTxWIDTH")
    spec = dataclasses.replace(spec, color=overrides.color or spec.color)
    if overrides.mean is None and overrides.std is None:
        return spec
    spec = dataclasses.replace(spec, mean=overrides.mean or spec.mean, std=overrides.std or spec.std)
    _check_normalisation(spec, tensor, graph.path)
    return spec


def check_size(spec: InputSpec, path: Path) -> None:
    """Raise InputError unless every picture goes in at one size, as a measurement of time needs it."""
    if spec.is_open:
        raise InputError(f"{path} takes pictures of any size, and names none", "choose one: --input-size 224x224")


def of_one_size(graph: Graph, card: ModelCard | None = None, overrides: Overrides | None = None) -> Graph:
    """Return a graph with the size of input that ``overrides`` or its card name, where the file leaves it open.

    Raises:
        InputError: neither names one, the file takes another one, or its input is no picture.
    """
    if not graph.has_open_size and (overrides is None or overrides.input_size is None):
        return graph
    picture = graph.inputs[0].picture
    if picture is None and graph.has_open_size:
        raise InputError(f"{graph.path} takes no picture, and leaves the size of its input open", "convert it with one")
    spec = input_spec(graph, card, overrides)
    check_size(spec, graph.path)
    return graph.with_input_shape(picture.sized(spec.height, spec.width)) if picture else graph


def gives_probabilities(graph: Graph, place: int = 0) -> bool | None:
    """Tell from the graph whether its scores are probabilities, True, or logits, False; None where it does not tell.

    True where they come from a softmax or a sigmoid and are then at most reshaped, clipped, picked or averaged, and
    where they are quantised to 0..1.
    """
    scores = graph.outputs[place]
    if scores.scale and scores.dtype in ("int8", "uint8"):
        lowest, highest = ((end - scores.zero_point) * scores.scale for end in _limits(scores.dtype))
        if lowest == 0 and 0.9 < highest <= 1.01:
            return True
    maker = _origin(graph, scores)
    return {"SOFTMAX": True, "LOGISTIC": True, **dict.fromkeys(_LOGITS, False)}.get(maker)


def _origin(graph: Graph, scores: TensorSpec) -> str:
    """The operator that computes an output, behind those that keep probabilities; empty where it cannot be told."""
    makers: dict[int, Operator] = {tensor.index: op for op in graph.operators for tensor in op.outputs}
    maker = makers.get(scores.index)
    while maker is not None and maker.name in _KEEPS_PROBABILITIES:
        computed = [tensor for tensor in maker.inputs if not tensor.constant]
        maker = makers.get(computed[0].index) if len(computed) == 1 else None
    return maker.name if maker is not None else ""


def _labels_beside(path: Path) -> Path | None:
    """The one file in a model's folder that is called as a list of its labels; None where there is none, or several."""
    with contextlib.suppress(OSError):
        found = [one for one in path.parent.iterdir() if _LABELS.fullmatch(one.name) and one.is_file()]
        return found[0] if len(found) == 1 else None
    return None


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a label file, as ``labels.decode_labels`` does. Raises InputError: it cannot be read, or is not text."""
    if "," in Path(path).name and not Path(path).exists():
        names = " ".join(shlex.quote(name.strip()) for name in str(path).split(","))
        remedy = f"one per line, in a file: printf '%s\\n' {names} > labels.txt; then --labels labels.txt"
        raise InputError(f"there is no label file {path}", remedy)
    return decode_labels(read_bytes(Path(path), "label file"), f"label file {path}", str(path))


# Operators whose output holds probabilities when their one computed input does.
_KEEPS_PROBABILITIES = {
    *("QUANTIZE", "DEQUANTIZE", "CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE"),
    *("SLICE", "STRIDED_SLICE", "GATHER", "MEAN", "REDUCE_MAX", "MINIMUM", "MAXIMUM", "RELU_0_TO_1"),
}
_LOGITS = ("FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL", "LOG_SOFTMAX")
_COUNTS = ("int32", "int64", "uint32", "bool")  # of an output of one number: no score


def _limits(dtype: str) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _open_sides(tensor: TensorSpec) -> tuple[int, ...]:
    """Which of height (1) and width (2) the file leaves open."""
    picture = tensor.picture
    return tuple(axis for axis in tensor.open_axes if picture is not None and axis in picture.axes[:2])


def _check_normalisation(spec: InputSpec, tensor: TensorSpec, path: Path) -> None:
    """Refuse a mean and std after which a quantised or integer input could not tell pixels apart."""
    if np.dtype(tensor.dtype).kind == "f":
        return
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    values = normalise(levels, spec).astype(np.float64) / (tensor.scale or 1.0) + tensor.zero_point
    lowest, highest = _limits(tensor.dtype)
    clipped = ((values < lowest - 2) | (values > highest + 2)).mean(0).max()
    kept = min(len(np.unique(channel)) for channel in quantise(normalise(levels, spec), tensor).T)
    if clipped > MOST_CLIPPED or kept < FEWEST_LEVELS:
        raise InputError(
            f"{path}: this mean and std map pixels out of what its {tensor.dtype} input holds",
            "leave --mean and --std out: such an input mostly takes pixels as they are",
        )
