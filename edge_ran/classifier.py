"""A ``.tflite`` as a classifier of frames: preprocessing, runtime and labels together."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import catalogue
from edge_ran.card import InputSpec, ModelCard
from edge_ran.dataset import PICTURE_SUFFIXES, read_picture
from edge_ran.errors import InputError
from edge_ran.files import read_bytes
from edge_ran.graph import Graph, TensorSpec, read_card, read_graph
from edge_ran.preprocess import Preprocessor, dequantise
from edge_ran.runtime import Runtime, RuntimeOptions, open_runtime

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Prediction:
    """One class of a frame; ``score`` is its probability, 0..1, ``index`` its place among the outputs."""

    label: str
    score: float
    index: int


class Classifier:
    """Frames in, labels out. Use it as a context manager, or call ``close``.

    Attributes:
        labels: one for each output.
        card: what the file says of itself; None for a file without metadata.
        spec: how frames become the input, overrides applied.
        runtime: what runs it; ``runtime.accelerator`` is what was really got.
        stages_ms: ``preprocess``, ``inference`` and ``postprocess`` milliseconds of the last call.
    """

    def __init__(
        self,
        path: Path | str,
        options: RuntimeOptions | None = None,
        *,
        labels: Sequence[str] | None = None,
        mean: Triple | None = None,
        std: Triple | None = None,
    ) -> None:
        """Load the model.

        Args:
            path: a ``.tflite``.
            options: what is asked of the runtime; None = the CPU with every core.
            labels: take the place of the card's, one for each output.
            mean: takes the place of the card's, in pixel units (0..255), in the card's colour order.
            std: likewise.

        Raises:
            InputError: not a model, not an image classifier, or labels that do not match the outputs.
            EnvironmentMissing: no runtime, no accelerator.
        """
        path = Path(path)
        graph = read_graph(path)
        check_image_classifier(graph)
        self.card = read_card(path)
        self.labels = _labels(graph, self.card, labels)
        self.spec = input_spec(graph, self.card, mean, std)
        tensor = graph.inputs[0]
        self._preprocess = Preprocessor(self.spec, tensor)
        self._temperature = self.card.temperature if self.card else 1.0
        self._gives_probabilities = gives_probabilities(graph)
        self.runtime: Runtime = open_runtime(path, options or RuntimeOptions(), lambda: real_inputs(self._preprocess))
        self._input = np.empty(tensor.shape, tensor.dtype)
        self.stages_ms: dict[str, float] = {}

    def scores(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probability of every class.

        Args:
            frame: (H, W, 3) uint8 BGR of any size.

        Returns:
            (classes,) float32 in 0..1. They sum to 1, up to the output's quantisation step, unless the network ends in
            a sigmoid for each class.
        """
        start = time.perf_counter()
        x = self.prepare(frame, self._input)
        preprocess_ms = 1e3 * (time.perf_counter() - start)
        scores = self.infer(x)
        self.stages_ms = {"preprocess": preprocess_ms, **self.stages_ms}
        return scores

    def prepare(self, frame: NDArray[np.uint8], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the network's input for a frame. May run in another thread beside ``infer``, with its own ``out``."""
        return self._preprocess(frame, out)

    def infer(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return ``scores`` for what ``prepare`` made; ``stages_ms`` then has no ``preprocess``."""
        ready = time.perf_counter()
        output = self.runtime.run(x)[0]
        done = time.perf_counter()
        scores = self._postprocess(output)
        self.stages_ms = {"inference": 1e3 * (done - ready), "postprocess": 1e3 * (time.perf_counter() - done)}
        return scores

    def classify(self, frame: NDArray[np.uint8]) -> tuple[Prediction, ...]:
        """Return every class of the frame, the most probable first; equal scores by index."""
        return self.rank(self.scores(frame))

    def rank(self, scores: NDArray[np.float32], top_k: int | None = None) -> tuple[Prediction, ...]:
        """Order (classes,) scores, for instance smoothed ones, the highest first; equal ones by index.

        ``top_k`` of them: of a thousand classes, all take half a millisecond.
        """
        order = np.argsort(-scores, kind="stable")[:top_k]
        return tuple(Prediction(self.labels[i], float(scores[i]), int(i)) for i in order)

    def close(self) -> None:
        """Give the runtime back. May be called twice."""
        self.runtime.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _postprocess(self, output: NDArray[Any]) -> NDArray[np.float32]:
        tensor = self.runtime.outputs[0]
        values = dequantise(output.reshape(-1), tensor)
        if self._gives_probabilities and self._temperature == 1.0:
            return values
        if self._gives_probabilities:
            # A quantised probability of 0 is anything below half a step.
            values = np.log(np.maximum(values, tensor.scale / 2 if tensor.scale > 0 else 1e-12))
        return _softmax(values / np.float32(self._temperature))


def real_inputs(preprocess: Preprocessor, pictures: Path | None = None, count: int = 32) -> list[NDArray[Any]]:
    """Return up to ``count`` pictures of a folder, spread evenly over it, as inputs, each (1, H, W, 3).

    Args:
        preprocess: the model's.
        pictures: a folder, looked into at any depth; None takes ``calibration_data/``.

    Raises:
        InputError: there is no readable picture.
    """
    return [preprocess(read_picture(path)) for path in spread(pictures or catalogue.folder("calibration_data"), count)]


def spread(folder: Path, count: int) -> list[Path]:
    """Return up to ``count`` of a folder's pictures, spread evenly over it. Raises InputError when there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not found:
        raise InputError(f"no pictures in {folder}", "put some there: PNG, JPEG, WebP or BMP")
    return found[:: max(1, len(found) // count)][:count]


def check_image_classifier(graph: Graph) -> None:
    """Raise InputError, saying why, unless the graph maps one (1, H, W, 3) picture to one row of class scores."""
    remedy = "an image classifier takes one (1, H, W, 3) picture and gives (1, classes)"
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        what = f"it has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
    else:
        shape = graph.inputs[0].shape
        row = graph.outputs[0].shape
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or min(shape) < 1:
            what = f"its input is {shape}"
        elif row[-1:] < (2,) or set(row[:-1]) - {1}:
            what = f"its output is {row}"
        else:
            return
    raise InputError(f"{graph.path} is not an image classifier: {what}", remedy)


def input_spec(
    graph: Graph, card: ModelCard | None = None, mean: Triple | None = None, std: Triple | None = None
) -> InputSpec:
    """How frames become the graph's input: the card's word, overridden by ``mean`` and ``std``.

    A file without a card gets RGB stretched to its input. A quantised input then takes the pixels as they are (uint8)
    or less 128 (int8), whatever its scale, and a float input (pixel - 128) / 128.
    """
    tensor = graph.inputs[0]
    spec = card.input if card else InputSpec(tensor.shape[1], tensor.shape[2], *_plain_pixels(tensor))
    if (spec.height, spec.width) != tensor.shape[1:3]:
        raise InputError(
            f"{graph.path}: its card says {spec.height}x{spec.width} pixels, its input is {tensor.shape}",
            "convert it again",
        )
    return dataclasses.replace(spec, mean=mean or spec.mean, std=std or spec.std)


def gives_probabilities(graph: Graph) -> bool:
    """Whether the last operator that computes is a softmax or a sigmoid; otherwise the outputs are logits."""
    borders = ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "CAST")
    last = next((operator for operator in reversed(graph.operators) if operator.name not in borders), None)
    return last is not None and last.name in ("SOFTMAX", "LOGISTIC")


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a label file: one label a line, UTF-8; empty lines at the end do not count.

    Raises:
        InputError: it cannot be read, or is not text.
    """
    try:
        lines = read_bytes(Path(path), "label file").decode("utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"label file {path} is not UTF-8 text", "one label a line") from error
    return tuple(line.strip() for line in lines)


def _plain_pixels(tensor: TensorSpec) -> tuple[Triple, Triple]:
    if tensor.scale <= 0:
        return (128.0, 128.0, 128.0), (128.0, 128.0, 128.0)
    zero = tensor.zero_point + (128 if tensor.dtype == "int8" else 0)
    return (float(zero),) * 3, (1 / tensor.scale,) * 3


def _labels(graph: Graph, card: ModelCard | None, given: Sequence[str] | None) -> tuple[str, ...]:
    classes = graph.outputs[0].shape[-1]
    labels = tuple(given if given is not None else card.labels if card else ())
    if not labels and given is None:
        return tuple(str(index) for index in range(classes))
    if len(labels) != classes:
        whose = "given" if given is not None else "in its card"
        raise InputError(
            f"{graph.path} has {classes} outputs, but {len(labels)} labels are {whose}", "--labels FILE, one a line"
        )
    return labels


def _softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(values - values.max())
    return powers / powers.sum()
