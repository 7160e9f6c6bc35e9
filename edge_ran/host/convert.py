"""`edge-ran convert`: a trained network -> one ``.tflite`` file with embedded labels, preprocessing and card."""

from __future__ import annotations

import functools
import hashlib
import shlex
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tf_keras
from numpy.typing import NDArray

from edge_ran import graph, layer_names
from edge_ran.card import Calibration, InputSpec, ModelCard
from edge_ran.catalogue import Converter
from edge_ran.errors import InputError, UsageError
from edge_ran.files import refuse_existing, sha256, write_bytes
from edge_ran.host import model_cards, overflow, rewrites
from edge_ran.host.calibration import FEW, choose
from edge_ran.host.flatbuffer import Network, check_settings, flatbuffer
from edge_ran.host.read_run import read_run
from edge_ran.host.rewrites import PassReport
from edge_ran.host.rewrites.proof_pictures import proof_images
from edge_ran.preprocess import numbers
from edge_ran.runs import RunFolder, named
from edge_ran.runtime import first_load
from edge_ran.runtime.output_capture import captured

_LARGEST_FACTOR = 256.0  # of an int8 layer's sums: for a larger one XNNPACK runs no operator of the file
COARSE_LOGITS = 1.0  # a sigmoid moves by a quarter in such a step


@dataclass(frozen=True)
class ConvertResult:
    """What `convert` made: the file, its operators, and how the graph was rewritten on the way.

    ``difference`` is the largest change of a logit by all rewriting ``passes``, as a share of the largest logit.
    ``activations`` is the arithmetic (``float32``, ``int8``, ``int16``), ``io`` the type of input and output.
    """

    path: Path
    network: str
    precision: str
    activations: str
    io: str
    size_bytes: int
    seconds: float
    passes: tuple[PassReport, ...]
    difference: float
    operators: dict[str, int]
    float_operators: tuple[str, ...]
    calibration: Calibration = field(default_factory=Calibration)
    masks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Options:
    """How to convert; the arguments of ``convert`` with the same names."""

    how: Converter
    calibration: Path | None
    io: str
    rewrite: bool
    attention: bool


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
) -> ConvertResult:
    """Convert a run folder's network to ``output``.

    Args:
        run: folder with ``card.json`` and ``model.keras``.
        how: the converter, from ``catalogue.converter``.
        calibration: folder of pictures for quantised activations; None takes the run's own training pictures, or those
            that ship where it keeps none.
        io: type of input and output, ``float32``, ``uint8`` or ``int8``; None takes the converter's.
        rewrite: False leaves the trained graph as it is, to see the difference.
        attention: give the soft masks as further outputs (``graph.masks``); the scores stay the same, bit by bit.
        force: replace ``output`` where it is there.
        verbose: show what TensorFlow's converter prints.

    Raises:
        OutputExists: ``output`` is there and ``force`` is False.
        UsageError: settings that contradict each other.
        InputError: the run, its weights or the calibration pictures are not what they should be.
        EnvironmentMissing: the disk is full.
    """
    started = time.perf_counter()
    refuse_existing(output, force)
    options = _Options(how, calibration, io or how.io, rewrite, attention)
    source = _read_and_check(Path(run), options)
    with captured(show=verbose):
        network, passes, difference = _network(source, options)
        data = flatbuffer(network, how, source.card.input, source.pixels, io=options.io)
    masks: tuple[str, ...] = ()
    if options.attention:
        data, masks = graph.add_masks(data, run)
    rewritten = [f"{p.name} ({p.places})" for p in passes]
    card = model_cards.converted(source.card, how.name, calibration=source.calibration, rewrites=rewritten, masks=masks)
    data = graph.attach_card(data, card)
    made = graph.parse_graph(data, str(output))
    check_scales(made, [layer.name for layer in source.model.layers], source.run)
    write_bytes(output, data)
    first_load.trust(hashlib.sha256(data).hexdigest())
    return ConvertResult(
        path=output,
        network=card.network or card.name,
        precision=how.name,
        activations=how.activations,
        io=options.io,
        size_bytes=len(data),
        seconds=time.perf_counter() - started,
        passes=passes,
        difference=difference,
        operators=made.operator_counts,
        float_operators=tuple(op.name for op in made.float_operators),
        calibration=source.calibration,
        masks=masks,
        notes=_notes(source, made),
    )


@dataclass(frozen=True)
class _Source:
    """What is converted. ``ranges`` is the file of ranges that were learnt in training, ``pixels`` (n, H, W, 3) uint8
    are calibration pictures; each is None where it is not needed."""

    run: Path
    digest: str
    model: tf_keras.Model
    card: ModelCard
    ranges: Path | None
    pixels: NDArray[np.uint8] | None
    calibration: Calibration


def _read_and_check(run: Path, options: _Options) -> _Source:
    how = options.how
    check_settings(how, options.io)
    if options.calibration is not None and not how.calibration:
        raise UsageError(f"{how.name} needs no calibration pictures", "leave --calibration-data away")
    digest = _digest(run)
    model, card = _read_once(run, digest)
    if options.attention and not any(layer_names.module_of_gate(layer.name) for layer in model.layers):
        raise InputError(f"{run} has no attention masks: it was trained with --no-mask", "leave --attention away")
    ranges = RunFolder(run).ranges_path
    if how.activations == "int8" and ranges.is_file():
        if options.calibration is not None:
            raise UsageError(f"{run} learnt its ranges in training", "leave --calibration-data away")
        if not options.rewrite:
            raise UsageError(
                f"{run} was rewritten before it was quantised in training", "convert the float run it came from"
            )
        learnt = Calibration(card.calibration.source, card.calibration.pictures, "quantisation-aware training")
        return _Source(run, digest, model, card, ranges, None, learnt)
    if not how.calibration:
        return _Source(run, digest, model, card, None, None, Calibration())
    pixels, used = choose(options.calibration, run, card, how.calibration)
    return _Source(run, digest, model, card, None, pixels, used)


def check_scales(made: graph.Graph, layers: Collection[str], run: Path) -> None:
    """Raise InputError where a layer is 0 on all calibration pictures: with such a scale XNNPACK runs no operator.

    Args:
        made: the file.
        layers: the names of the network's.
        run: the network's run folder.
    """
    for op in made.operators:
        if op.name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        read, weights, written = op.inputs[0], op.inputs[1], op.outputs[0]
        if written.scale and read.scale * weights.largest_scale >= _LARGEST_FACTOR * written.scale:
            name = min(layer_names.layers_of_tensor(written.name) & set(layers), default=written.name)
            what = f"layer {name} is 0 for every calibration picture: int8 has no scale for it"
            learn = f"edge-ran quantize {shlex.quote(str(run))} PICTURES"
            raise InputError(what, f"convert with --fp16; or give it one: {learn}")


def _digest(run: Path) -> str:
    """A digest of a run's files; "" where ``read_run`` will say what is wrong with them."""
    folder = RunFolder(named(run))
    return "".join(map(sha256, (folder.card_path, folder.model_path))) if folder.is_finished else ""


# One network is often converted to several precisions. Nothing here changes what these two return.
@functools.lru_cache(maxsize=1)
def _read_once(run: Path, digest: str) -> tuple[tf_keras.Model, ModelCard]:
    return read_run(run)


@functools.lru_cache(maxsize=1)
def _rewritten_once(run: Path, digest: str) -> rewrites.Rewritten:
    model, card = _read_once(run, digest)
    return rewrites.rewrite(model, proof_images(card.input))


def _network(source: _Source, options: _Options) -> tuple[Network, tuple[PassReport, ...], float]:
    """Return the function to convert, the passes that rewrote it, and how far they moved its logits."""
    if source.ranges is not None:
        from edge_ran.host import fake_quant  # tensorflow-model-optimization takes seconds to import

        ranges = fake_quant.load_ranges(source.ranges)
        quantised = fake_quant.fake_quantise(source.model, ranges, for_converter=True)
        return fake_quant.as_deployed(quantised), (), 0.0
    model, difference = source.model, 0.0
    passes: tuple[PassReport, ...] = ()
    if options.rewrite:
        images = proof_images(source.card.input)
        rewritten = _for_converter(_rewritten_once(source.run, source.digest), options.how, images)
        model, passes, difference = rewritten.model, rewritten.passes, rewritten.difference
    if source.pixels is not None:
        overflow.check_activations(model, source.pixels, source.card.input)
    return functools.partial(model, training=False), passes, difference


def rewrite_for(model: tf_keras.Model, how: Converter, images: NDArray[np.float32] | None = None) -> rewrites.Rewritten:
    """Rewrite a network for a converter's arithmetic; ``images`` are those that ``rewrites.rewrite`` measures on."""
    return _for_converter(rewrites.rewrite(model, images), how, images)


def _for_converter(
    rewritten: rewrites.Rewritten, how: Converter, images: NDArray[np.float32] | None
) -> rewrites.Rewritten:
    return rewrites.for_floats(rewritten, images) if how.weights != "int8" else rewritten


def _notes(source: _Source, made: graph.Graph) -> tuple[str, ...]:
    notes = []
    used = source.calibration
    if source.pixels is not None and used.pictures < FEW:
        notes.append(f"{used.pictures} calibration pictures are few; 100 or more give steadier ranges")
    steps = [o.inputs[0].scale for o in made.operators if o.name == "LOGISTIC" and o.inputs[0].scale > COARSE_LOGITS]
    if steps and source.ranges is None:
        # Masks whose last convolution has grown without bounds: only what lies within ±8 makes a difference to them.
        notes.append(
            f"{len(steps)} of the soft masks get their numbers in steps of {max(steps):.2g}, too coarse for a sigmoid "
            "(trainings of today bound them); what that costs: edge-ran evaluate MODEL DATA; to fine-tune the network "
            "to it: edge-ran quantize RUN DATA"
        )
    if made.inputs[0].dtype in ("uint8", "int8") and (levels := _levels_apart(source.card.input, made.inputs[0])) > 1:
        notes.append(
            f"the {made.inputs[0].dtype} input is up to {levels} of 255 from the pixel, by its mean and std: an app "
            "must feed round((pixel - mean) / std / scale) + zero point"
        )
    return tuple(notes)


def _levels_apart(spec: InputSpec, tensor: graph.TensorSpec) -> int:
    """How far a quantised input's numbers are from the pixels, counted from the lowest number that it holds."""
    apart = numbers(spec, tensor).astype(int) - np.iinfo(tensor.dtype).min - np.arange(256)[:, None]
    return int(np.abs(apart).max())
