"""Parity of a ``.tflite`` with the network it was made of: outputs and layers compared, to find the first that differs.

The file of a quantised run is compared with its network with fake quantisation (``fake_quant``), any other with the
float network. The layers' values are read from the file itself: a copy of it has them all as outputs.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran import dataset, graph, layer_names, plots
from edge_ran.card import InputSpec, ModelCard, Training
from edge_ran.errors import GateError, InputError
from edge_ran.files import TemporaryFolder, read_bytes
from edge_ran.folder_walk import folders_in
from edge_ran.graph import TensorSpec
from edge_ran.graph.subgraph import computing, cut
from edge_ran.host import rewrites
from edge_ran.host.read_run import read_run
from edge_ran.host.rewrites.proof_pictures import proof_images
from edge_ran.picture import read_picture
from edge_ran.pictures import pictures_in, spread
from edge_ran.preprocess import Preprocessor, fit_pixels, normalise
from edge_ran.printable import many
from edge_ran.runs import RunFolder
from edge_ran.runtime import open_runtime

LEAST_AGREEMENT = 0.995
LAYER_PICTURES = 8  # enough to tell a wrong layer from rounding; more only takes longer
DIFFERING_STEPS = 1.0  # a layer off by so many steps on average is wrong: rounding alone stays below
# What a file is compared with.
FLOAT, FAKE_QUANTISED = "float network", "network with fake quantisation"


@dataclass(frozen=True)
class LayerDifference:
    """How far one operator's output is from the network's, in steps: of its scale, or 1/255 of its range in float.

    ``share`` is the part of the values, 0..1, that are off by more than half a step.
    """

    index: int
    operator: str
    layer: str
    max_steps: float
    mean_steps: float
    share: float


@dataclass(frozen=True)
class ParityReport:
    """A file compared with its network. ``largest_steps`` is in steps of the output's scale (1/256 for float files).

    ``precision`` is the file's, ``is_quantised`` whether its output is. ``agreement`` is the share of equal top-1
    answers, 0..1, ``identical`` that of pictures whose every output number is equal. ``layers`` are in the order of
    execution; ``first`` is the first of them that differs by more than rounding, None if none does.
    """

    model: str
    run: str
    precision: str
    is_quantised: bool
    reference: str
    pictures: int
    agreement: float
    identical: float
    largest_steps: float
    layers: tuple[LayerDifference, ...]
    first: LayerDifference | None

    @property
    def worst(self) -> tuple[LayerDifference, ...]:
        """The layers, the largest difference first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.mean_steps))


def draw(found: ParityReport, target: Path) -> None:
    """Draw the mean difference of every layer, the largest first."""
    first = found.first.layer if found.first else ""
    plots.layer_differences([(d.layer, d.mean_steps) for d in found.worst], target, Path(found.model).name, first)


def check(found: ParityReport, least: float = LEAST_AGREEMENT) -> None:
    """Raise GateError if the top-1 agreement is below ``least``, 0..1; its remedy is the command that helps."""
    if found.agreement >= least:
        return
    where = f"; first differing layer: {found.first.layer}" if found.first else ""
    raise GateError(
        f"{found.model} agrees with its network on {found.agreement:.2%} of {many(found.pictures, 'picture')}, "
        f"less than {least:.2%}{where}",
        _remedy(found),
    )


def _remedy(found: ParityReport) -> str:
    run, model = shlex.quote(str(found.run)), shlex.quote(str(found.model))
    if found.is_quantised and found.reference == FLOAT:  # the differences are those of int8 without fine-tuning
        return f"edge-ran quantize {run}"
    convert = f"edge-ran convert --force --precision {found.precision} {run} -o {model}"
    return convert if found.reference == FAKE_QUANTISED else f"{convert} --no-rewrite"


def check_parity(run: Path, model: Path, frames: Sequence[NDArray[np.uint8]], *, layers: bool = True) -> ParityReport:
    """Compare a ``.tflite`` with the network in the run folder that it was converted from, on the CPU.

    Args:
        frames: (H, W, 3) uint8 BGR pictures, of any size.
        layers: compare every layer, too, on the first few pictures.

    Raises:
        InputError: the run or the file cannot be read, or the file is of another network.
    """
    network, card = read_run(run)
    spec, made = card.input, graph.read_graph(model)
    if made.inputs[0].shape[1:] != network.input_shape[1:] or made.outputs[0].shape[1:] != network.output_shape[1:]:
        raise _of_another(model, run, "its input or its classes differ")
    made_card = graph.read_card(model)
    if made_card and not _may_be_of(made_card, card):
        raise _of_another(model, run, "its card tells of another training")
    rounded = made.precision == "int8" or made.outputs[0].scale > 0  # behind a DEQUANTIZE lie the same numbers
    reference, kind = _reference(network, RunFolder(Path(run)), rounded, made_card.rewrites if made_card else ())
    pixels = np.stack([fit_pixels(frame, spec) for frame in frames])
    answers, *_ = _file_values(model, made.outputs, frames, spec)
    (expected,) = _network_values(reference, [reference.output], pixels, spec)
    if rounded:  # as the file's output is, so that ties fall to the first class in both
        expected = (np.clip(np.round(expected * 256), 0, 255) / 256).astype(np.float32)
    steps = np.abs(answers - expected) * 256
    found = _layers(reference, made, frames[:LAYER_PICTURES], pixels[:LAYER_PICTURES], spec) if layers else ()
    return ParityReport(
        model=str(model),
        run=str(run),
        precision=made_card.precision if made_card else made.precision,
        is_quantised=rounded,
        reference=kind,
        pictures=len(frames),
        agreement=float((answers.argmax(1) == expected.argmax(1)).mean()),
        identical=float((steps < 1e-3).all(1).mean()),
        largest_steps=float(steps.max()),
        layers=found,
        first=next((layer for layer in found if layer.mean_steps > DIFFERING_STEPS), None),
    )


def _of_another(model: Path, run: Path, why: str) -> InputError:
    what = f"{model} is not of the network in {run}: {why}"
    return InputError(what, f"edge-ran convert {shlex.quote(str(run))}; then give the file that this makes")


def _may_be_of(made: ModelCard, card: ModelCard) -> bool:
    """Whether a file's card and a run's tell of the same training, or one of them of none."""

    def told(training: Training) -> list[object]:
        data, imported = training.sha256, training.imported
        trained = (data, training.seed, training.recipe, training.best_epoch) if data else None
        return [trained, imported.sha256 if imported else None]

    pairs = zip(told(made.training), told(card.training), strict=True)
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def some_frames(source: Path, count: int) -> list[NDArray[np.uint8]]:
    """Read up to ``count`` pictures, evenly spread, of a folder of pictures or of whatever ``dataset.load`` reads.

    Of labelled pictures the test part is taken, where there is one.
    """
    folder = Path(source)
    if folder.is_dir() and not folders_in(folder):
        return [read_picture(path) for path in spread(pictures_in(folder), count)]
    samples = dataset.load(folder).samples
    tested = tuple(sample for sample in samples if sample.split == "test")
    return list(dataset.frames(spread(tested or samples, count)))


def _reference(
    network: tf_keras.Model, run: RunFolder, rounded: bool, done: Sequence[str]
) -> tuple[tf_keras.Model, str]:
    """The network to compare with; ``done`` are the rewrites that made the file, each with its number of places."""
    if not (rounded and run.ranges_path.is_file()):
        without = [name for name in rewrites.MOVING if not any(one.startswith(f"{name} (") for one in done)]
        return rewrites.rewrite(network, proof_images(run.card().input), without=without).model, FLOAT
    from edge_ran.host import fake_quant  # tensorflow-model-optimization takes seconds to import

    return fake_quant.fake_quantise(network, fake_quant.load_ranges(run.ranges_path), exact=True), FAKE_QUANTISED


def _network_values(
    model: tf_keras.Model, tensors: list[Any], pixels: NDArray[np.uint8], spec: InputSpec, batch: int = 64
) -> list[NDArray[np.float32]]:
    """The network's values of some of its tensors, (N, …) each."""
    probe = tf_keras.Model(model.input, tensors)
    forward = tf.function(lambda x: tf.nest.flatten(probe(x, training=False)), reduce_retracing=True, autograph=False)
    parts = [forward(normalise(pixels[i : i + batch], spec)) for i in range(0, len(pixels), batch)]
    return [np.concatenate([part[i].numpy() for part in parts]) for i in range(len(tensors))]


def _file_values(
    path: Path, tensors: Sequence[TensorSpec], frames: Sequence[NDArray[np.uint8]], spec: InputSpec
) -> list[NDArray[np.float32]]:
    """Real values, (N, …) float32, of the outputs of the file at ``path``, which are ``tensors``."""
    values: list[list[NDArray[np.float32]]] = [[] for _ in tensors]
    with open_runtime(path, accelerator="cpu") as runtime:
        prepare = Preprocessor(spec, runtime.input)
        for frame in frames:
            for found, tensor, output in zip(values, tensors, runtime.run(prepare(frame)), strict=True):
                real = output.astype(np.float32)
                found.append((real - tensor.zero_point) * np.float32(tensor.scale) if tensor.scale else real)
    return [np.concatenate(found) for found in values]


def _layers(
    reference: tf_keras.Model,
    made: graph.Graph,
    frames: Sequence[NDArray[np.uint8]],
    pixels: NDArray[np.uint8],
    spec: InputSpec,
) -> tuple[LayerDifference, ...]:
    named = [(operator, layer.name, layer.output) for operator, layer in _layers_of(made, reference)]
    named += _masks_of(made, reference)
    tensors = [operator.outputs[0] for operator, *_ in named]
    with TemporaryFolder() as folder:
        copy = Path(folder) / "layers.tflite"
        copy.write_bytes(cut(read_bytes(made.path, "model"), made, computing(made), tuple(tensors)))
        actual = _file_values(copy, tensors, frames, spec)
    expected = _network_values(reference, [output for *_, output in named], pixels, spec)
    found = []
    for (operator, layer, _), tensor, ours, theirs in zip(named, tensors, expected, actual, strict=True):
        step = tensor.scale or max(float(np.ptp(ours)) / 255, 1e-9)
        steps = np.abs(theirs - ours) / step
        found.append(
            LayerDifference(
                index=operator.index,
                operator=operator.name,
                layer=layer,
                max_steps=float(steps.max()),
                mean_steps=float(steps.mean()),
                share=float((steps > 0.5).mean()),
            )
        )
    return tuple(found)


def _layers_of(made: graph.Graph, model: tf_keras.Model) -> list[tuple[graph.Operator, Any]]:
    """Pair operators with the layers whose output they write: the converter names tensors after what it fused."""
    places = {layer.name: number for number, layer in enumerate(model.layers)}
    pairs: dict[str, tuple[graph.Operator, Any]] = {}
    for operator in made.operators:
        tensor = operator.outputs[0]
        names = layer_names.layers_of_tensor(tensor.name) & places.keys()
        shaped = [name for name in names if model.get_layer(name).output.shape[1:] == tensor.shape[1:]]
        if shaped:
            layer = max(shaped, key=lambda name: places[name])
            pairs.pop(layer, None)  # of a layer of several operators, the last one writes its output
            pairs[layer] = operator, model.get_layer(layer)
    return list(pairs.values())


def _masks_of(made: graph.Graph, model: tf_keras.Model) -> list[tuple[graph.Operator, str, Any]]:
    """The operators that write a mask's mean as an output, each with the network's."""
    makers = {operator.outputs[0].index: operator for operator in made.operators}
    masks = zip(graph.find_masks(made), made.outputs[1:], strict=False)
    found = []
    for mask, tensor in masks:
        values = model.get_layer(layer_names.gate(mask.module)).input[0]
        found.append((makers[tensor.index], f"{mask.module}_mask, mean", tf.reduce_mean(values, -1, keepdims=True)))
    return found
