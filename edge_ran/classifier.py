"""A ``.tflite`` as a classifier of frames: preprocessing, runtime and labels together."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran.attention import Look
from edge_ran.card import Overrides
from edge_ran.errors import InputError
from edge_ran.files import TemporaryFolder, read_bytes, write_bytes
from edge_ran.graph import add_masks, attach_card, drop_masks, read_card
from edge_ran.model_interface import check_size, read_interface
from edge_ran.picture import read_picture
from edge_ran.pictures import some_pictures
from edge_ran.preprocess import Preprocessor, dequantise, seen
from edge_ran.runtime import Runtime, RuntimeOptions, open_runtime

LONGEST_SIDE = 1024  # pixels, of a picture for a network that takes any size: memory grows with it
NOT_FINITE_REMEDY = "train or convert it again; on a GPU try --gpu-precision fp32"

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
        place: that of the scores among the outputs.
        temperature: divides the logits before they become probabilities; the card's, unless another one is set.
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
        interface = read_interface(path, overrides)
        self.attention, self._folder = attention, None
        if attention and not (interface.card and interface.card.masks):
            self._folder = TemporaryFolder()
            try:
                path = with_masks(path, Path(self._folder.name) / path.name)
                interface = read_interface(path, overrides)
            except BaseException:
                self._folder.cleanup()
                raise
        self.labels, self.card, self.spec = interface.labels, interface.card, interface.spec
        self.path, self.options = path, options or RuntimeOptions()
        self.overrides = overrides or Overrides()
        self.temperature = self.card.temperature if self.card else 1.0
        self._gives_probabilities = interface.gives_probabilities
        self._tensor, self._graph_notes, self.place = interface.tensor, interface.notes, interface.place
        self._preprocess = None if self.spec.is_open else Preprocessor(self.spec, self._tensor)
        shape = self._tensor.shape if self._tensor.open_axes else ()
        self.runtime: Runtime = open_runtime(interface.graph, self.options, lambda: real_inputs(self.prepare), shape)
        self._input = None if self.spec.is_open else np.empty(self._tensor.shape, self._tensor.dtype)
        self._outputs: list[NDArray[Any]] = []
        self.stages_ms: dict[str, float] = {}

    def check_size(self) -> None:
        """Raise InputError unless every picture goes in at one size, as a measurement of time needs it."""
        check_size(self.spec, self.path)

    @property
    def gives_probabilities(self) -> bool:
        """Whether the network's outputs are probabilities, not logits, as far as the graph and its answers tell."""
        return self._gives_probabilities is not False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of how this file is run, in sentences."""
        if not self.spec.is_open:
            return self._graph_notes
        return (
            f"{self.path.name} leaves the size of its input open: pictures keep their own, up to {LONGEST_SIDE} "
            "pixels; --input-size HEIGHTxWIDTH gives them the size that it was trained with",
            *self._graph_notes,
        )

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
        if self._preprocess is None:
            return self._at_own_size(frame)
        return self._preprocess(frame, out)

    def infer(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return ``scores`` for what ``prepare`` made; ``stages_ms`` then has no ``preprocess``.

        Raises:
            InputError: an answer is not a finite number.
        """
        ready = time.perf_counter()
        outputs = self.runtime.run(x)
        inference_ms = 1e3 * (time.perf_counter() - ready)
        scores = self.take(outputs)
        self.stages_ms = {"inference": inference_ms, **self.stages_ms}
        return scores

    def take(self, outputs: list[NDArray[Any]]) -> NDArray[np.float32]:
        """Return ``scores`` for outputs in the form of ``runtime.outputs``, which another device may have computed.

        ``stages_ms`` then has ``postprocess`` only.

        Raises:
            InputError: an answer is not a finite number.
        """
        began = time.perf_counter()
        self._outputs = outputs
        scores = self._postprocess(outputs[self.place])
        self.stages_ms = {"postprocess": 1e3 * (time.perf_counter() - began)}
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

    def _at_own_size(self, frame: NDArray[np.uint8]) -> NDArray[Any]:
        shrunk = min(1.0, LONGEST_SIDE / max(frame.shape[:2]))
        height, width = (max(1, round(side * shrunk)) for side in frame.shape[:2])
        spec = dataclasses.replace(self.spec, height=height, width=width)
        picture = self._tensor.picture
        assert picture is not None
        return Preprocessor(spec, dataclasses.replace(self._tensor, shape=picture.sized(height, width)))(frame)

    def _postprocess(self, output: NDArray[Any]) -> NDArray[np.float32]:
        tensor = self.runtime.outputs[self.place]
        values = dequantise(output.reshape(-1), tensor)
        if not np.isfinite(values).all():
            raise InputError(f"{self.path} gives answers that are not finite numbers", NOT_FINITE_REMEDY)
        if len(values) == 1:
            return self._of_two(float(values[0]))
        if self._gives_probabilities is None and not _is_distribution(values, tensor.scale):
            self._gives_probabilities = False  # one such answer tells; until then they look like probabilities
        if self._gives_probabilities is False:
            return _softmax(values / np.float32(self.temperature))
        if self.temperature == 1.0:
            return values
        # A quantised probability of 0 is anything below half a step.
        values = np.log(np.maximum(values, tensor.scale / 2 if tensor.scale > 0 else 1e-12))
        return _softmax(values / np.float32(self.temperature))

    def _of_two(self, value: float) -> NDArray[np.float32]:
        """The probabilities of two classes, of which the network gives that of the second, or its logit."""
        if self._gives_probabilities is None and not 0 <= value <= 1:
            self._gives_probabilities = False
        if self._gives_probabilities is False:
            return _softmax(np.array([0.0, value / self.temperature], np.float32))
        return np.array([1 - value, value], np.float32)


def real_inputs(preprocess: Prepare, pictures: Path | None = None, count: int = 32) -> list[NDArray[Any]]:
    """Return up to ``count`` pictures of a folder, spread evenly over it, as inputs, each (1, H, W, 3).

    Args:
        preprocess: the model's ``Preprocessor``.
        pictures: a folder, looked into at any depth; None takes the pictures that ship.

    Raises:
        InputError: there is no readable picture.
    """
    return [preprocess(read_picture(path)) for path in some_pictures(pictures, count)]


def with_masks(path: Path, target: Path) -> Path:
    """Write the file with its soft masks as further outputs to ``target``, and return that.

    Raises:
        InputError: it has no masks, or has no card that could name them.
    """
    model, modules = add_masks(read_bytes(path, "model"), path)
    card = read_card(path)
    if card is None:
        raise InputError(f"{path} has no card", "make a file that does: edge-ran convert --attention RUN")
    write_bytes(target, attach_card(model, dataclasses.replace(card, masks=modules)))
    return target


@dataclass(frozen=True)
class MaskCost:
    """What ``masks`` masks as outputs cost: median milliseconds of an inference with and without them, of ``pairs``."""

    masks: int
    with_ms: float
    without_ms: float
    pairs: int


def mask_cost(classifier: Classifier, budget_s: float = 1.0, fewest: int = 5) -> MaskCost | None:
    """Measure what the masks cost a classifier that has them: it and its file without them, in turns.

    None where the file without them does not run on the same accelerator: the times would tell nothing.

    Args:
        classifier: opened with ``attention``.
        budget_s: end after so long.
        fewest: pairs of runs, however long they take.
    """
    with TemporaryFolder() as folder:
        plain = Path(folder) / classifier.path.name
        write_bytes(plain, drop_masks(read_bytes(classifier.path, "model")))
        got = classifier.runtime.accelerator
        with open_runtime(plain, classifier.options.settled(got)) as without:
            if not without.accelerator.is_that_of(got):
                return None
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


def _is_distribution(values: NDArray[np.float32], scale: float) -> bool:
    """Whether (classes,) scores are probabilities that sum to 1, as far as rounding to ``scale`` lets one see."""
    off = 0.01 + scale * len(values) / 2
    return bool(values.min() >= -1e-6 and abs(float(values.sum()) - 1) <= min(off, 0.3))


def _softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(values - values.max())
    shares: NDArray[np.float32] = powers / powers.sum()
    return shares
