"""A ``.tflite`` as a classifier of frames: preprocessing, runtime and labels together."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import catalogue
from edge_ran.attention import Look
from edge_ran.card import InputSpec, ModelCard, Overrides
from edge_ran.errors import InputError
from edge_ran.files import read_bytes
from edge_ran.graph import Graph, TensorSpec, add_masks, attach_card, drop_masks, read_card, read_graph
from edge_ran.picture import PICTURE_SUFFIXES, read_picture
from edge_ran.preprocess import Preprocessor, dequantise, seen
from edge_ran.runtime import Runtime, RuntimeOptions, open_runtime

Triple = tuple[float, float, float]
Prepare = Callable[[NDArray[np.uint8]], NDArray[Any]]


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
        path: the file that is run: a temporary copy where ``attention`` needed one.
        options: what was asked of the runtime.
        overrides: what replaces the metadata's word.
        spec: how frames become the input, overrides applied.
        runtime: what runs it; ``runtime.accelerator`` is what was really got.
        attention: whether ``looks`` gives the soft masks.
        stages_ms: ``preprocess``, ``inference`` and ``postprocess`` milliseconds of the last call.
    """

    def __init__(
        self,
        path: Path | str,
        options: RuntimeOptions | None = None,
        overrides: Overrides | None = None,
        *,
        attention: bool = False,
    ) -> None:
        """Load the model.

        Args:
            path: a ``.tflite``.
            options: what is asked of the runtime; None = the CPU with every core.
            overrides: what replaces the metadata's word; None = nothing.
            attention: have the soft masks for ``looks``. Where the file gives none as outputs, a temporary copy does.

        Raises:
            InputError: not a model, not an image classifier, labels that do not match the outputs, or no masks.
            EnvironmentMissing: no runtime, no accelerator.
        """
        path = Path(path)
        graph = read_graph(path)
        self.card = read_card(path)
        check_image_classifier(graph, self.card)
        self.attention, self._folder = attention, None
        if attention and not (self.card and self.card.masks):
            self._folder = tempfile.TemporaryDirectory(prefix="edge-ran-")
            try:
                path = with_masks(path, Path(self._folder.name) / path.name)
            except BaseException:
                self._folder.cleanup()
                raise
            graph, self.card = read_graph(path), read_card(path)
        self.overrides = overrides or Overrides()
        self.labels = _labels(graph, self.card, self.overrides.labels)
        self.spec = input_spec(graph, self.card, self.overrides)
        tensor = graph.inputs[0]
        self.path, self.options = path, options or RuntimeOptions()
        self._preprocess = Preprocessor(self.spec, tensor)
        self._temperature = self.card.temperature if self.card else 1.0
        self._gives_probabilities = gives_probabilities(graph)
        self.runtime: Runtime = open_runtime(path, self.options, lambda: real_inputs(self._preprocess))
        self._input = np.empty(tensor.shape, tensor.dtype)
        self._outputs: list[NDArray[Any]] = []
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
        self._outputs = self.runtime.run(x)
        done = time.perf_counter()
        scores = self._postprocess(self._outputs[0])
        self.stages_ms = {"inference": 1e3 * (done - ready), "postprocess": 1e3 * (time.perf_counter() - done)}
        return scores

    def classify(self, frame: NDArray[np.uint8]) -> tuple[Prediction, ...]:
        """Return every class of the frame, the most probable first; equal scores by index."""
        return self.rank(self.scores(frame))

    @property
    def modules(self) -> tuple[str, ...]:
        """The attention modules whose masks ``looks`` gives, in the order of the network."""
        return self.card.masks if self.card and self.attention else ()

    def looks(self, frame: NDArray[np.uint8]) -> tuple[Look, ...]:
        """Return the soft mask of every attention module, as of the last call, for the frame that it was given."""
        region = seen(frame.shape[1], frame.shape[0], self.spec)
        given = zip(self.modules, self._outputs[1:], self.runtime.outputs[1:], strict=False)
        return tuple(Look(module, dequantise(output[0, :, :, 0], tensor), region) for module, output, tensor in given)

    def rank(self, scores: NDArray[np.float32], top_k: int | None = None) -> tuple[Prediction, ...]:
        """Order (classes,) scores, for instance smoothed ones, the highest first; equal ones by index.

        ``top_k`` of them: of a thousand classes, all take half a millisecond.
        """
        order = np.argsort(-scores, kind="stable")[:top_k]
        return tuple(Prediction(self.labels[i], float(scores[i]), int(i)) for i in order)

    def close(self) -> None:
        """Give the runtime back. May be called twice."""
        self.runtime.close()
        if self._folder:
            self._folder.cleanup()

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


def real_inputs(preprocess: Prepare, pictures: Path | None = None, count: int = 32) -> list[NDArray[Any]]:
    """Return up to ``count`` pictures of a folder, spread evenly over it, as inputs, each (1, H, W, 3).

    Args:
        preprocess: the model's ``Preprocessor``.
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


def check_image_classifier(graph: Graph, card: ModelCard | None = None) -> None:
    """Raise InputError, saying why, unless the graph maps one (1, H, W, 3) picture to one row of class scores.

    Behind the scores it may give the attention masks that its card names, (1, h, w, 1) each, and nothing else.
    """
    remedy = "an image classifier takes one (1, H, W, 3) picture and gives (1, classes)"
    masks = card.masks if card else ()
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 + len(masks):
        what = f"it has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs"
        what += f", its card names {len(masks)} masks" if masks else ""
    else:
        shape = graph.inputs[0].shape
        row = graph.outputs[0].shape
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or min(shape) < 1:
            what = f"its input is {shape}"
        elif row[-1:] < (2,) or set(row[:-1]) - {1}:
            what = f"its output is {row}"
        elif wrong := [t for t in graph.outputs[1:] if len(t.shape) != 4 or (t.shape[0], t.shape[3]) != (1, 1)]:
            what = f"its mask {wrong[0].name} is {wrong[0].shape}"
        else:
            return
    raise InputError(f"{graph.path} is not an image classifier: {what}", remedy)


def with_masks(path: Path, target: Path) -> Path:
    """Write the file with its soft masks as further outputs to ``target``, and return that.

    Raises:
        InputError: it has no masks, or carries no card that could name them.
    """
    model, modules = add_masks(read_bytes(path, "model"), path)
    card = read_card(path)
    if card is None:
        raise InputError(f"{path} carries no card", "edge-ran convert --attention RUN makes a file that does")
    target.write_bytes(attach_card(model, dataclasses.replace(card, masks=modules)))
    return target


@dataclass(frozen=True)
class MaskCost:
    """What ``masks`` masks as outputs cost: median milliseconds of an inference with and without them, of ``pairs``."""

    masks: int
    with_ms: float
    without_ms: float
    pairs: int


def mask_cost(classifier: Classifier, budget_s: float = 1.0, fewest: int = 5) -> MaskCost:
    """Measure what the masks cost a classifier that has them: it and its file without them, in turns.

    Args:
        classifier: opened with ``attention``.
        budget_s: end after so long.
        fewest: pairs of runs, however long they take.
    """
    with tempfile.TemporaryDirectory(prefix="edge-ran-") as folder:
        plain = Path(folder) / classifier.path.name
        plain.write_bytes(drop_masks(read_bytes(classifier.path, "model")))
        actual = classifier.runtime.accelerator.actual
        options = classifier.options
        if options.delegate is None:
            options = dataclasses.replace(options, accelerator=actual)
        with open_runtime(plain, options) as without:
            runtimes = (classifier.runtime, without)
            times_ms: tuple[list[float], list[float]] = ([], [])
            inputs = real_inputs(classifier.prepare, count=8)
            for runtime in runtimes:
                runtime.run(inputs[0])  # compiles what is left to compile
            start, pairs = time.perf_counter(), 0
            while pairs < fewest or time.perf_counter() - start < budget_s:
                x = inputs[pairs % len(inputs)]
                for which in (0, 1) if pairs % 2 else (1, 0):
                    runtimes[which].run(x)  # the other one has taken the caches
                    begun = time.perf_counter()
                    runtimes[which].run(x)
                    times_ms[which].append(1e3 * (time.perf_counter() - begun))
                pairs += 1
    with_ms, without_ms = (float(np.median(times)) for times in times_ms)
    return MaskCost(len(classifier.runtime.outputs) - 1, with_ms, without_ms, pairs)


def input_spec(graph: Graph, card: ModelCard | None = None, overrides: Overrides | None = None) -> InputSpec:
    """How frames become the graph's input: as the card says, replaced by what ``overrides`` says.

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
    given = overrides or Overrides()
    if given.input_size not in (None, tensor.shape[1:3]):
        raise InputError(
            f"{graph.path} takes {spec.height}x{spec.width} pixels, not {given.input_size[0]}x{given.input_size[1]}",
            "leave out --input-size",
        )
    return dataclasses.replace(
        spec, mean=given.mean or spec.mean, std=given.std or spec.std, color=given.color or spec.color
    )


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
    shares: NDArray[np.float32] = powers / powers.sum()
    return shares
