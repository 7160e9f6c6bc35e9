"""A trained network -> one ``.tflite`` file that explains itself.

The graph is rewritten (``deploy``), traced once at batch 1, frozen, and handed to the converter as it is: the way
through ``TFLiteConverter.from_keras_model`` traces and saves a SavedModel that nobody needs, and takes several times
longer (``benchmarks/conversion.py``).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran import __version__, catalogue, graph, runs
from edge_ran.card import InputSpec, ModelCard
from edge_ran.catalogue import Converter
from edge_ran.errors import InputError, UsageError
from edge_ran.files import refuse_existing, write_bytes
from edge_ran.host import networks, overflow, rewrites
from edge_ran.host.rewrites.proof_pictures import proof_images
from edge_ran.picture import PICTURE_SUFFIXES, read_picture
from edge_ran.preprocess import fit_pixels, normalise
from edge_ran.runtime import first_load
from edge_ran.runtime.output_capture import captured

FEW_PICTURES = 20  # fewer give unsteady ranges; worth a note
COARSE_LOGITS = 1.0  # a sigmoid moves by a quarter in such a step
FLAT_LEVELS = 8  # a picture whose pixels span fewer levels shows nothing
SMALLEST_SHARE = 4  # a picture may be enlarged so many times, no more: blur would narrow the ranges

Network = Callable[[tf.Tensor], tf.Tensor]

# (weights, activations) that runtimes have kernels for.
_KINDS = (
    ("float32", "float32"),
    ("float16", "float32"),
    ("int8", "float32"),
    ("int8", "int8"),
    ("int8", "int16"),
)


@dataclass(frozen=True)
class Conversion:
    """What ``convert`` made: the file, its operators, and how the graph was rewritten on the way."""

    path: Path
    network: str
    precision: str
    activations: str
    io: str
    size_bytes: int
    seconds: float
    passes: tuple[rewrites.PassReport, ...]
    difference: float
    operators: dict[str, int]
    float_operators: tuple[str, ...]
    calibration: dict[str, Any]
    masks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The conversion as JSON values."""
        return {**dataclasses.asdict(self), "path": str(self.path)}

    def text(self) -> str:
        """The conversion as a few readable lines."""
        lines = [
            f"{self.path}  {self.size_bytes / 1e6:.2f} MB  {self.network} as {self.precision}, "
            f"{self.io} input and output, {self.seconds:.1f} s"
        ]
        lines += [f"  {p.places:3d} x {p.name}" for p in self.passes]
        if self.passes:
            lines.append(f"      together they moved the logits by {self.difference:.1e} of the largest")
        lines.append(f"  {_counted(self.operators)}")
        if self.activations != "float32" and self.float_operators:
            lines.append(f"  still in float: {_counted(Counter(self.float_operators))}")
        if self.calibration:
            pictures = self.calibration.get("pictures")
            lines.append(f"  ranges from {f'{pictures} pictures of ' if pictures else ''}{self.calibration['source']}")
        if self.masks:
            lines.append(f"  soft masks as outputs beside the scores: {', '.join(self.masks)}")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def convert(
    run: Path,
    how: Converter,
    output: Path,
    *,
    calibration: Path | None = None,
    io: str | None = None,
    rewrite: bool = True,
    attention: bool = False,
    force: bool = False,
    verbose: bool = False,
) -> Conversion:
    """Convert a run folder's network to ``output``.

    Args:
        run: folder with ``card.json`` and ``model.keras``.
        how: the converter, from ``catalogue.converter``.
        calibration: folder of pictures for quantised activations; None takes ``calibration_data/``.
        io: type of input and output, ``float32``, ``uint8`` or ``int8``; None takes the converter's.
        rewrite: False leaves the trained graph as it is, to see the difference.
        attention: give the soft masks as further outputs (``graph.masks``); the scores stay the same, bit by bit.

    Raises:
        OutputExists: ``output`` is there and ``force`` is False.
        UsageError: settings that contradict each other.
        InputError: the run, its weights or the calibration pictures are not what they should be.
        EnvironmentMissing: the disk is full.
    """
    started = time.perf_counter()
    refuse_existing(output, force)
    io = io or how.io
    _check_settings(how, io)
    if calibration is not None and not how.calibration:
        raise UsageError(f"{how.name} needs no calibration pictures", "leave --calibration-data away")
    model, card = read_run(run)
    if attention and not any(layer.name.endswith("_gate") for layer in model.layers):
        raise InputError(f"{run} has no attention masks: it was trained with --no-mask", "leave --attention away")
    ranges = runs.RunFolder(Path(run)).ranges_path
    learnt = how.activations == "int8" and ranges.is_file()
    if learnt and calibration is not None:
        raise UsageError(f"{run} learnt its ranges in training", "leave --calibration-data away")
    if learnt and not rewrite:
        raise UsageError(
            f"{run} was rewritten before it was quantised in training", "convert the float run it came from"
        )
    pixels: NDArray[np.uint8] | None = None
    calibrated: dict[str, Any] = {}
    if learnt:
        calibrated = {"source": "quantisation-aware training"}
    elif how.calibration:
        pixels, calibrated = calibration_pixels(calibration, card.input, how.calibration)

    passes: tuple[rewrites.PassReport, ...] = ()
    difference = 0.0
    with captured(show=verbose):
        if learnt:
            network = _rounding(model, ranges)
        else:
            if rewrite:
                rewritten = rewrite_for(model, how, proof_images(card.input))
                model, passes, difference = rewritten.model, rewritten.passes, rewritten.difference
            if pixels is not None:
                overflow.check_activations(model, pixels, card.input)
            network = functools.partial(model, training=False)
        data = flatbuffer(network, how, card.input, pixels, io=io)
    masks: tuple[str, ...] = ()
    if attention:
        data, masks = graph.add_masks(data, run)
    versions = {**card.versions, "edge-ran": __version__, "tensorflow": tf.__version__}
    accuracy = {**card.accuracy, "of": "the network before conversion"} if card.accuracy else {}
    card = dataclasses.replace(
        card,
        precision=how.name,
        calibration=calibrated,
        accuracy=accuracy,
        versions=versions,
        rewrites=(*card.rewrites, *(f"{p.name} ({p.places})" for p in passes)),
        masks=masks,
    )
    data = graph.attach_card(data, card)
    write_bytes(output, data)
    made = graph.read_graph(output)
    first_load.trust(hashlib.sha256(data).hexdigest())
    notes = []
    if calibrated.get("pictures", FEW_PICTURES) < FEW_PICTURES:
        notes.append(f"{calibrated['pictures']} calibration pictures are few; 100 or more give steadier ranges")
    steps = [o.inputs[0].scale for o in made.operators if o.name == "LOGISTIC" and o.inputs[0].scale > COARSE_LOGITS]
    if steps and not learnt:
        # Masks whose last convolution has grown without bounds: only what lies within ±8 makes a difference to them.
        notes.append(
            f"{len(steps)} of the soft masks get their numbers in steps of {max(steps):.2g}, too coarse for a sigmoid: "
            "edge-ran evaluate tells what that costs, edge-ran quantize fine-tunes the network to it"
        )
    return Conversion(
        path=output,
        network=card.network or card.name,
        precision=how.name,
        activations=how.activations,
        io=io,
        size_bytes=len(data),
        seconds=time.perf_counter() - started,
        passes=passes,
        difference=difference,
        operators=made.operator_counts,
        float_operators=tuple(op.name for op in made.float_operators),
        calibration=calibrated,
        masks=masks,
        notes=tuple(notes),
    )


def _counted(names: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(names.items()))


def read_run(run: Path) -> tuple[tf_keras.Model, ModelCard]:
    """Return a run folder's network and card.

    Raises:
        InputError: it is no run folder, its files are damaged, or they do not belong together.
    """
    if Path(run).suffix == ".tflite":
        raise InputError(f"{run} is converted already", "give the run folder that it was made from")
    if not Path(run).exists() and str(run).replace("-", "_") in networks.NETWORKS:
        raise InputError(f"{run} is a network, not a run", f"train it first: edge-ran train DATA --network {run}")
    folder = runs.open_run(run)
    card, model = folder.card(), networks.load(folder.model_path)
    spec, classes = card.input, model.output_shape[-1]
    if model.input_shape[1:] != (spec.height, spec.width, 3):
        raise InputError(f"{run}: the card says {spec.height}x{spec.width}, the network takes {model.input_shape[1:]}")
    if classes != len(card.labels):
        raise InputError(f"{run}: {len(card.labels)} labels for a network of {classes} outputs", "train it again")
    for layer in model.layers:
        if not all(np.isfinite(w).all() for w in layer.get_weights()):
            what = f"{run}: layer {layer.name} has weights that are NaN or infinite"
            raise InputError(what, "its training diverged: train again with a lower learning rate")
    return model, card


def rewrite_for(model: tf_keras.Model, how: Converter, images: NDArray[np.float32] | None = None) -> rewrites.Rewritten:
    """Rewrite a network for a converter's arithmetic."""
    rewritten = rewrites.rewrite(model, images)
    return rewrites.for_floats(rewritten, images) if how.weights != "int8" else rewritten


def flatbuffer(
    network: Network, how: Converter, spec: InputSpec, pixels: NDArray[np.uint8] | None = None, *, io: str | None = None
) -> bytes:
    """Convert a network in memory as it stands, and return the ``.tflite`` file's bytes, without a card.

    Args:
        network: (1, H, W, 3) float32 -> (1, classes) float32; a Keras model, or any function TensorFlow can trace.
        pixels: (n, H, W, 3) uint8 calibration pictures; None where activations stay float, or where the network
            holds fake-quantisation operators.

    Raises:
        UsageError: the settings contradict each other.
        InputError: the converter refuses the network.
    """
    io = io or how.io
    _check_settings(how, io)
    image = tf.TensorSpec((1, spec.height, spec.width, 3), tf.float32, name="image")  # browsers refuse a batch of -1
    traced = tf.function(lambda image: network(image), autograph=False).get_concrete_function(image)
    if how.activations == "float32" or pixels is not None:
        output = traced.graph.outputs[0].op.name
        converter = tf.compat.v1.lite.TFLiteConverter(
            _frozen(traced), None, None, input_arrays_with_shape=[(image.name, image.shape)], output_arrays=[output]
        )
    else:  # the interface above does not carry integer inputs through fake quantisation
        converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    if (how.weights, how.activations) != ("float32", "float32"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if how.weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if how.activations != "float32":
        sets = tf.lite.OpsSet
        integer = {
            "int8": sets.TFLITE_BUILTINS_INT8,
            "int16": sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        }
        # The float operators are for the normalisations of channel and spatial attention, which have no integer form.
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(io)
        if pixels is not None:
            converter.target_spec.supported_ops = [integer[how.activations], sets.TFLITE_BUILTINS]
            converter.representative_dataset = lambda: representative(pixels, spec)
    try:
        return converter.convert()
    except Exception as error:  # ConverterError, ValueError or RuntimeError, by the stage that failed
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"the converter refuses {how.name}: {reason}", "-v shows its whole log") from error


def _frozen(traced: Any) -> tf.compat.v1.GraphDef:
    """Return a concrete function's graph with its variables as constants.

    The converter's own way from a concrete function to this graph imports and prunes it several times, and takes as
    long as the conversion itself.
    """
    variables = {id(variable.handle): variable for variable in traced.graph.variables}
    values = {
        inner.op.name: variables[id(outer)].numpy() if inner.dtype == tf.resource else outer.numpy()
        for outer, inner in traced.graph.captures
    }
    handles = {inner.op.name for _, inner in traced.graph.captures if inner.dtype == tf.resource}
    drawn = traced.graph.as_graph_def()
    frozen = tf.compat.v1.GraphDef(versions=drawn.versions, library=drawn.library)
    for node in drawn.node:
        source = node.input[0] if node.op == "ReadVariableOp" else node.name
        if node.name in handles:
            continue
        if source not in values:
            frozen.node.add().CopyFrom(node)
            continue
        constant = frozen.node.add(name=node.name, op="Const")
        constant.attr["dtype"].CopyFrom(node.attr["dtype"])
        constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values[source]))
    return frozen


def _check_settings(how: Converter, io: str) -> None:
    if (how.weights, how.activations) not in _KINDS:
        known = ", ".join(f"{weights}/{activations}" for weights, activations in _KINDS)
        what = f"converter {how.name}: no runtime has kernels for {how.weights} weights, {how.activations} activations"
        raise InputError(what, f"choose one of: {known}")
    if (how.activations == "float32") != (how.calibration == 0):
        what = f"converter {how.name}: {how.activations} activations with calibration = {how.calibration}"
        raise InputError(what, "quantised activations need calibration pictures, float ones none")
    if io not in catalogue.IO_TYPES:
        raise UsageError(f"--io {io!r} is unknown", catalogue.nearest(io, catalogue.IO_TYPES))
    if how.activations != "int8" and io != "float32":
        raise UsageError(f"{how.name} computes in {how.activations}: its input cannot be {io}", "--io float32")


def _rounding(model: tf_keras.Model, ranges: Path) -> Network:
    """The function that a quantisation-aware run's integer file computes."""
    from edge_ran.host import fake_quant  # tensorflow-model-optimization takes seconds to import

    return fake_quant.as_deployed(fake_quant.fake_quantise(model, fake_quant.load_ranges(ranges), for_converter=True))


def calibration_pixels(source: Path | None, spec: InputSpec, count: int) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Read up to ``count`` pictures of a folder, evenly spread over its sorted files, fitted to the network's input.

    Returns:
        (n, H, W, 3) uint8 pixels, and the record for the card: ``source``, ``pictures``.

    Raises:
        InputError: fewer than two different pictures, all of one colour, too small, or one that cannot be read.
    """
    own = source is not None
    folder = Path(source) if source is not None else catalogue.folder("calibration_data")
    remedy = "give --calibration-data a folder of pictures of what the camera sees"
    if not folder.is_dir():
        raise InputError(f"calibration pictures: {folder} is not a folder", remedy)
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise InputError(f"{folder} holds no pictures ({', '.join(PICTURE_SUFFIXES)})", remedy)
    paths = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]
    pixels = np.empty((len(paths), spec.height, spec.width, 3), np.uint8)
    for i, path in enumerate(paths):
        picture = read_picture(path)
        height, width = picture.shape[:2]
        if height * SMALLEST_SHARE < spec.height or width * SMALLEST_SHARE < spec.width:
            raise InputError(
                f"calibration picture {path} is {width}x{height}, too small for an input of {spec.width}x{spec.height}",
                remedy,
            )
        pixels[i] = fit_pixels(picture, spec)
    if len(paths) == 1:
        raise InputError(f"{folder} holds one picture: every range of the network would hang on it", remedy)
    if all(np.ptp(p.reshape(-1, 3), axis=0).max() < FLAT_LEVELS for p in pixels):
        raise InputError(f"the pictures in {folder} are of one colour each (black?): nothing to calibrate on", remedy)
    if (pixels == pixels[0]).all():
        raise InputError(f"{folder} holds {len(paths)} times the same picture", remedy)
    return pixels, {"source": folder.name if own else "calibration_data", "pictures": len(paths)}


def representative(pixels: NDArray[np.uint8], spec: InputSpec) -> Iterator[list[NDArray[np.float32]]]:
    """Yield (1, H, W, 3) float32 pictures; one of them has a black and a white corner.

    So the input's range is that of all pixels, 0 to 255, whatever the pictures hold: with the default normalisation
    the int8 input is exactly pixel - 128 (scale 1/128, zero point 0).
    """
    framed = pixels[len(pixels) // 2].copy()
    framed[0, 0], framed[-1, -1] = 0, 255
    for picture in (framed, *pixels):
        yield [normalise(picture[None], spec)]
