"""ParityReport that a ``.tflite`` is the network it was made of: answers compared, and layer by layer where they part.

A quantised run is held against its rounding network (``rounding``), any other against the float network. The layers'
values are read out of the file itself: a copy of it names them all as outputs, and runs on the same kernels.
"""

from __future__ import annotations

import dataclasses
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
import tflite
from numpy.typing import NDArray

from edge_ran import dataset, graph, plots
from edge_ran.card import InputSpec
from edge_ran.errors import GateError, InputError
from edge_ran.files import read_bytes
from edge_ran.graph import TensorSpec
from edge_ran.host import rewrites
from edge_ran.host.read_run import read_run
from edge_ran.picture import read_picture
from edge_ran.pictures import is_system_file, pictures_in, spread
from edge_ran.preprocess import Preprocessor, fit_pixels, normalise
from edge_ran.runs import RunFolder
from edge_ran.runtime import open_runtime

LEAST_AGREEMENT = 0.995
LAYER_PICTURES = 8  # enough to tell a wrong layer from rounding; more only takes longer
PARTED_STEPS = 1.0  # a layer off by so many steps on average is wrong: rounding alone stays below
SUBGRAPH_OUTPUTS = 8  # place of the outputs in a SubGraph's table (schema: tensors, inputs, outputs)


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
    """A file held against its network. ``largest_steps`` is in steps of the output's scale (1/256 for float files).

    ``identical`` is the share of the pictures, 0..1, whose every output number is the same; ``layers`` are in the order
    of execution; ``first`` is the first of them that is off by more than rounding, None when none is.
    """

    model: str
    run: str
    reference: str
    pictures: int
    agreement: float
    identical: float
    largest_steps: float
    layers: tuple[LayerDifference, ...]
    first: LayerDifference | None

    @property
    def worst(self) -> tuple[LayerDifference, ...]:
        """The layers, the farthest off first."""
        return tuple(sorted(self.layers, key=lambda layer: -layer.mean_steps))

    def record(self) -> dict[str, Any]:
        """The proof as JSON values, its layers sorted by their difference."""
        layers = [dataclasses.asdict(layer) for layer in self.worst]
        return {"schema_version": 1, **dataclasses.asdict(self), "layers": layers}

    def text(self, most: int = 10) -> str:
        """The proof as a few readable lines."""
        lines = [
            f"{self.model} against the {self.reference} of {self.run}, {self.pictures} pictures: "
            f"top-1 agrees on {self.agreement:.2%}, every number on {self.identical:.2%}, "
            f"largest difference {self.largest_steps:.0f} steps of 1/256"
        ]
        if self.layers:
            lines.append(f"{'steps off: mean':>16} {'largest':>8} {'values':>8}  layer")
        lines += [f"{d.mean_steps:16.4f} {d.max_steps:8.1f} {d.share:8.2%}  {d.layer}" for d in self.worst[:most]]
        if self.first:
            lines.append(f"first to part: operator {self.first.index} {self.first.operator}, layer {self.first.layer}")
        elif self.layers:
            lines.append("no layer parts from the network by more than rounding")
        return "\n".join(lines)

    def draw(self, target: Path) -> None:
        """Draw the mean difference of every layer, the farthest off first."""
        first = self.first.layer if self.first else ""
        plots.layer_differences([(d.layer, d.mean_steps) for d in self.worst], target, Path(self.model).name, first)

    def check(self, least: float = LEAST_AGREEMENT) -> None:
        """Raise GateError when the top-1 agreement is below ``least``."""
        if self.agreement < least:
            where = f"; the first layer to part is {self.first.layer}" if self.first else ""
            raise GateError(
                f"{self.model} agrees with its network on {self.agreement:.2%} of {self.pictures} pictures, "
                f"less than {least:.2%}{where}",
                "convert it again, and compare with --no-rewrite",
            )


def check_parity(run: Path, model: Path, frames: Sequence[NDArray[np.uint8]], *, layers: bool = True) -> ParityReport:
    """Hold a ``.tflite`` against the network in the run folder that it was converted from, on the CPU.

    Args:
        frames: (H, W, 3) uint8 BGR pictures, of any size.
        layers: compare every layer, too, on the first few pictures.

    Raises:
        InputError: the run or the file cannot be read, or the file is of another network.
    """
    network, card = read_run(run)
    spec, made = card.input, graph.read_graph(model)
    if made.inputs[0].shape[1:] != network.input_shape[1:] or made.outputs[0].shape[1:] != network.output_shape[1:]:
        raise InputError(f"{model} is not of the network in {run}: its input or its classes differ", "convert the run")
    rounded = made.outputs[0].scale > 0
    reference, kind = _reference(network, RunFolder(Path(run)), rounded)
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
        reference=kind,
        pictures=len(frames),
        agreement=float((answers.argmax(1) == expected.argmax(1)).mean()),
        identical=float((steps < 1e-3).all(1).mean()),
        largest_steps=float(steps.max()),
        layers=found,
        first=next((layer for layer in found if layer.mean_steps > PARTED_STEPS), None),
    )


def some_frames(source: Path, count: int) -> list[NDArray[np.uint8]]:
    """Read up to ``count`` pictures, evenly spread, of a folder of pictures or of whatever ``dataset.load`` reads.

    Of labelled pictures the test part is taken, where there is one.
    """
    folder = Path(source)
    if folder.is_dir() and not any(child.is_dir() and not is_system_file(child.name) for child in folder.iterdir()):
        return [read_picture(path) for path in spread(pictures_in(folder), count)]
    samples = dataset.load(folder).samples
    tested = tuple(sample for sample in samples if sample.split == "test")
    return list(dataset.frames(spread(tested or samples, count)))


def _reference(network: tf_keras.Model, run: RunFolder, rounded: bool) -> tuple[tf_keras.Model, str]:
    if not (rounded and run.ranges_path.is_file()):
        return rewrites.rewrite(network).model, "float network"
    from edge_ran.host import fake_quant  # tensorflow-model-optimization takes seconds to import

    return fake_quant.fake_quantise(network, fake_quant.load_ranges(run.ranges_path)), "rounding network"


def _network_values(
    model: tf_keras.Model, tensors: list[Any], pixels: NDArray[np.uint8], spec: InputSpec, batch: int = 64
) -> list[NDArray[np.float32]]:
    """The network's values of some of its tensors, (N, …) each."""
    probe = tf_keras.Model(model.input, tensors)
    forward = tf.function(lambda x: tf.nest.flatten(probe(x, training=False)), reduce_retracing=True)
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
    with tempfile.TemporaryDirectory(prefix="edge-ran-") as folder:
        copy = Path(folder) / "layers.tflite"
        copy.write_bytes(_with_outputs(read_bytes(made.path, "model"), tensors))
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
        names = {part for name in tensor.name.split(";") for part in name.split("/")} & places.keys()
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
        values = model.get_layer(f"{mask.module}_gate").input[0]
        found.append((makers[tensor.index], f"{mask.module}_mask, mean", tf.reduce_mean(values, -1, keepdims=True)))
    return found


def _with_outputs(model: bytes, tensors: Sequence[TensorSpec]) -> bytes:
    """Return the file with other tensors as its outputs: a new vector behind its end, and the offset that points there.

    Everything else stays where it is, so that runtimes choose the same kernels.
    """
    table = tflite.Model.GetRootAs(model, 0).Subgraphs(0)._tab
    slot = table.Pos + table.Offset(SUBGRAPH_OUTPUTS)
    end = (len(model) + 3) // 4 * 4
    changed = bytearray(model.ljust(end, b"\0"))
    struct.pack_into("<I", changed, slot, end - slot)
    return bytes(changed) + struct.pack(f"<{1 + len(tensors)}i", len(tensors), *(t.index for t in tensors))
