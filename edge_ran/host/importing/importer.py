"""`edge-ran import`: a network that another script trained -> a run folder, proved equal on pictures."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray
from tf_keras import layers

from edge_ran import dataset, layer_names, npz, run_output
from edge_ran.card import Imported, InputSpec, ModelCard, Training
from edge_ran.errors import GateError, InputError, OutputExists
from edge_ran.files import atomic_path, sha256, write_text
from edge_ran.host import model_cards, rewrites
from edge_ran.host.importing import pixels as px
from edge_ran.host.importing.by_name import read_named
from edge_ran.host.importing.configuration import read_graph
from edge_ran.host.importing.ending import end_in_softmax
from edge_ran.host.importing.lambdas import Function
from edge_ran.host.importing.source import Source, open_source, shown
from edge_ran.host.importing.translate import Translated, translate
from edge_ran.host.rewrites import LayerGraph, PassReport
from edge_ran.host.rewrites.proof_pictures import proof_frames
from edge_ran.labels import count_remedy, fitted_labels
from edge_ran.model_interface import read_labels
from edge_ran.printable import many
from edge_ran.runs import RunFolder

PROOF_PICTURES = 8
NUMBERS = "numbers"  # --labels: call the classes 0, 1, 2, …

# Half the numbers' bits round more: of the largest logit, in a network of some tens of layers; and the smallest
# probability that they hold as precisely as others.
_ROUNDING = {"float16": (1e-2, 1e-4), "bfloat16": (5e-2, 1e-7), "": (rewrites.MOST_DIFFERENCE, 1e-7)}


@dataclass(frozen=True)
class Answers:
    """What a file does not say. None and empty: unknown.

    ``labels`` is a file, or ``numbers``; ``lambdas`` what Lambda layers compute, by name; ``head`` the layer of the
    output to take, of several.
    """

    labels: str | None = None
    preprocessing: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float | None = None
    color: str | None = None
    fit: str = "stretch"
    input_size: int | None = None
    architecture: Path | None = None
    network: str | None = None
    upsampling: str = "nearest"
    lambdas: Mapping[str, Function] = field(default_factory=dict)
    head: str | None = None


@dataclass(frozen=True)
class ReadNetwork:
    """A network that was read from another script's file: ``keras`` is the version that wrote it, empty if unknown.

    ``passes`` say how its layers became plain ones; ``gates`` is the number of attention gates among them.
    """

    name: str
    keras: str
    height: int
    width: int
    classes: int
    layers: int
    parameters: int
    passes: tuple[PassReport, ...]
    notes: tuple[str, ...]
    gates: int


@dataclass(frozen=True)
class ImportReport:
    """What ``import_network`` did.

    ``difference`` is the largest change of a logit between the network as its file draws it and the imported one, as a
    share of the largest, on ``pictures`` pictures; ``rewritten_difference`` that of the rewrites that follow.
    ``expected_difference`` compares with recorded outputs. ``trials`` are the ways to scale pixels, the best first.
    """

    run: str
    source: str
    network: ReadNetwork
    preprocessing: str
    pictures: int
    difference: float
    rewritten_difference: float
    rewrites: tuple[PassReport, ...]
    expected_difference: float | None = None
    trials: tuple[px.PixelTrial, ...] = ()


@dataclass(frozen=True)
class NetworkFile:
    """What `inspect` tells of a network's file before it is imported; ``asks`` are the questions that `import` has."""

    path: str
    network: ReadNetwork
    asks: tuple[str, ...]


@dataclass(frozen=True)
class _Network:
    """A network that was read: as its file draws it, and translated."""

    original: LayerGraph
    translated: Translated
    name: str
    notes: list[str]
    half: str  # float16 or bfloat16, where its layers computed in these


def import_network(
    path: Path,
    output: Path,
    answers: Answers,
    *,
    check_on: Path | None = None,
    expect: Path | None = None,
    force: bool = False,
) -> ImportReport:
    """Make a run folder of a network that another script trained.

    Args:
        path: a ``.h5`` or ``.keras`` file of Keras 2 or 3; nothing of it is executed.
        output: the run folder to write.
        answers: what the file does not say.
        check_on: labelled pictures, to find out or check how pixels are scaled.
        expect: an ``.npz`` of recorded ``inputs`` (N, H, W, 3) and ``outputs`` (N, classes) of the original.

    Raises:
        InputError: the file is damaged, hostile or not a classifier of pictures, or something must be told.
        UsageError: the answers contradict each other.
        OutputExists: ``output`` is there and ``force`` was not given.
        GateError: the recorded outputs differ.
    """
    path, output = Path(path), Path(output)
    if output.exists() and not force and (not output.is_dir() or any(output.iterdir())):
        raise OutputExists(f"{output} exists", "add --force to replace it, or choose another name")
    said = px.told(answers.preprocessing, answers.mean, answers.std, answers.scale, answers.color)
    with open_source(path, answers.architecture) as source:
        network = _read(source, answers)
        version = source.keras_version
    original, graph, scaling = network.original, network.translated.graph, network.translated.scaling
    height, width, _ = next(n.shape for n in graph.nodes.values() if n.kind is layers.InputLayer)
    size, classes = InputSpec(height, width, fit=answers.fit), graph.nodes[graph.output].shape[0]
    labels, folder_labels = _labels(answers.labels, classes, path, check_on)
    theirs, ours = built(original, "original", path, is_foreign=True), built(graph, network.name, path)
    if folder_labels:
        network.notes.append(f"labels are the folders of {check_on}, sorted: {', '.join(labels[:5])}, …")
    frames, chosen, trials = _pixels(path, network, theirs, said, answers.color, labels, size, check_on)
    if answers.color is None and chosen.name in ("raw", "given", "unit"):
        network.notes.append("colours are taken to be RGB, as Keras reads pictures; --color bgr for OpenCV's")
    spec = px.input_spec(chosen, scaling, height, width, answers.fit)
    before = px.scaled(frames, chosen, size)
    after = np.asarray(before * np.array(scaling.scale) + np.array(scaling.shift), np.float32)
    moved = _difference(theirs, before, ours, after)
    if not moved <= rewrites.MOST_DIFFERENCE:
        raise InputError(
            f"{path}: the imported network's logits differ by {moved:.1e} of the largest", "please report it"
        )
    expected = None if expect is None else _compare_recorded(theirs, expect, network.half)
    rewritten = rewrites.rewrite(ours, after)
    _write(RunFolder(output), ours, _card(path, network, labels, spec, version, chosen))
    return ImportReport(
        run=str(output),
        source=str(path),
        network=_facts(network, version),
        preprocessing=_described(chosen, spec),
        pictures=len(frames),
        difference=moved,
        rewritten_difference=rewritten.difference,
        rewrites=rewritten.passes,
        expected_difference=expected,
        trials=trials,
    )


def _write(run: RunFolder, model: tf_keras.Model, card: ModelCard) -> None:
    """Write a run folder. An older run there stays until the new network is written, then all of it goes: `convert`
    would measure ranges on its pictures. The card comes last: without it a run is not finished.
    """
    with atomic_path(run.model_path) as fresh:
        model.save(fresh, save_format="keras")
        run_output.clear(run.path)
    write_text(run.card_path, card.to_json())


def _pixels(
    path: Path, network: _Network, theirs: tf_keras.Model, said: px.Pixels | None, color: str | None,
    labels: tuple[str, ...], size: InputSpec, check_on: Path | None,
) -> tuple[list[NDArray[np.uint8]], px.Pixels, tuple[px.PixelTrial, ...]]:  # fmt: skip
    """Return the pictures to prove it on, how their pixels are scaled, and the ways that were tried on them."""
    drawn = px.from_graph(network.translated.scaling)
    chosen = said or (px.in_order(drawn, color) if drawn is not None else None)
    if check_on is None:
        if chosen is None:
            raise px.unknown(path)
        return proof_frames(PROOF_PICTURES), chosen, ()
    frames, truth = _labelled(check_on, labels)
    trials = px.try_all(lambda x: _probabilities(theirs, x), frames, truth, size, said, color)
    network.notes.extend(_doubts(trials, chosen))
    return frames[:PROOF_PICTURES], chosen or px.in_order(px.choose(trials, len(labels), check_on), color), trials


def inspect_network(path: Path) -> NetworkFile:
    """Tell what a network's file holds and what `import` would do with it. Raises InputError as ``import_network``."""
    with open_source(path) as source:
        network, version = _read(source, Answers()), source.keras_version
    known = px.from_graph(network.translated.scaling)
    asks = ("--labels", *(() if known else ("--preprocessing, or --check-on FOLDER of labelled pictures",)))
    return NetworkFile(str(path), _facts(network, version), asks)


def _facts(network: _Network, version: str) -> ReadNetwork:
    graph = network.translated.graph
    height, width, _ = next(n.shape for n in graph.nodes.values() if n.kind is layers.InputLayer)
    return ReadNetwork(
        name=network.name,
        keras=version,
        height=height,
        width=width,
        classes=graph.nodes[graph.output].shape[0],
        layers=len(graph.nodes),
        parameters=sum(weights.size for node in graph.nodes.values() for weights in node.weights),
        passes=network.translated.passes,
        notes=tuple(network.notes),
        gates=sum(layer_names.is_gate(name) for name in graph.nodes),
    )


def _read(source: Source, answers: Answers) -> _Network:
    """Read, translate and end a network in a softmax."""
    size, notes = answers.input_size, list[str]()
    if answers.network is not None:
        if source.config is not None:
            raise InputError(f"{source.path} holds its architecture itself", "leave --network away")
        named = read_named(source, answers.network, size, answers.upsampling)
        original, name = named.graph, named.architecture.name
        notes += named.notes
    else:
        read = read_graph(source, answers.lambdas, None if size is None else (size, size), answers.head)
        original, name = read.graph, _clean(source.path.stem)
        notes += read.notes
        if answers.head is not None:
            notes.append(f"of its outputs, that of layer {answers.head} was taken")
        if read.nested:
            notes.append(f"flattened: {many(read.nested, 'model')} inside it")
        if read.operators:
            notes.append(f"{many(read.operators, 'operator layer')} became plain layers")
    translated = translate(original)
    notes += end_in_softmax(translated.graph, source.loss, source.path)
    half = re.search(r'"(?:mixed_)?(b?float16)"', json.dumps(source.config))  # a layer's dtype, or the policy's name
    if half:
        notes.append(f"its layers computed in {half[1]}; here they compute in float32, as the device does")
    return _Network(original, translated, name, notes, half[1] if half else "")


def built(graph: LayerGraph, name: str, path: Path, *, is_foreign: bool = False) -> tf_keras.Model:
    """Draw a graph that was read. Raises InputError where Keras refuses a setting that passed until here."""
    try:
        return graph.model(name, is_foreign=is_foreign)
    except Exception as error:  # Keras and TensorFlow raise many kinds
        reason = shown(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, 120)
        raise InputError(f"{path} cannot be built: {reason}", "save the network again") from error


def _clean(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)[:60].strip("_-") or "network"


def _labels(labels: str | None, classes: int, path: Path, check_on: Path | None) -> tuple[tuple[str, ...], bool]:
    """Return the labels, and whether they are the folders of the labelled pictures."""
    if labels == NUMBERS:
        return tuple(map(str, range(classes))), False
    if labels is not None:
        found = fitted_labels(read_labels(Path(labels)), (classes,))
        if len(found) != classes:
            what = f"{labels} has {many(len(found), 'label')}, the network {many(classes, 'output')}"
            raise InputError(what, count_remedy(len(found), classes, shlex.quote(labels)))
        return found, False
    if check_on is not None:
        found = dataset.load(check_on).labels
        if len(found) == classes:
            return found, True
        raise InputError(
            f"{check_on} has {many(len(found), 'class')}, the network {classes}", "--labels FILE names them all"
        )
    what = f"{path} does not name its {classes} classes"
    raise InputError(what, f"--labels labels.txt, one per line in the order of its outputs; or --labels {NUMBERS}")


def _labelled(folder: Path, labels: tuple[str, ...]) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    """Some labelled pictures, evenly spread, (H, W, 3) uint8 BGR each, and the places of their labels."""
    samples = dataset.load(folder).in_words_of(labels).samples
    tested = tuple(sample for sample in samples if sample.split in ("test", "val")) or samples
    rows = np.linspace(0, len(tested) - 1, min(px.CHECK_PICTURES, len(tested))).round().astype(int)
    chosen = [tested[row] for row in rows]
    return list(dataset.frames(chosen)), dataset.targets(chosen, labels)


def _doubts(trials: Sequence[px.PixelTrial], chosen: px.Pixels | None) -> list[str]:
    own = next((one for one in trials if chosen is not None and one.name == chosen.name), None)
    if own is None or own.top1 + 0.1 > trials[0].top1:
        return []
    return [
        f"--preprocessing {trials[0].name} is right on {trials[0].top1:.0%} of the pictures, "
        f"{own.name} on {own.top1:.0%}"
    ]


def _probabilities(model: tf_keras.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    if model.output_shape[-1] == 1:  # one sigmoid, or its logit
        found = np.asarray(tf.sigmoid(rewrites.logits(model, x))).reshape(len(x), 1)
        return np.concatenate([1 - found, found], axis=1)
    found = np.asarray(model(x, training=False), np.float32).reshape(len(x), -1)
    if found.min() >= 0 and np.allclose(found.sum(1), 1, atol=1e-3):
        return found
    return np.asarray(tf.nn.softmax(found))


def _difference(
    theirs: tf_keras.Model, before: NDArray[np.float32], ours: tf_keras.Model, after: NDArray[np.float32]
) -> float:
    """The largest difference of logits, as a share of the largest; each network takes its own pixels."""
    first, second = rewrites.logits(theirs, before), rewrites.logits(ours, after)
    first = first.reshape(len(first), -1)
    if first.shape[1] == 1 and second.shape[1] == 2:  # one logit became a softmax of [0, z]
        second = second[:, 1:] - second[:, :1]
    return float(np.abs(first - second).max()) / max(float(np.abs(first).max()), 1e-30)


def _compare_recorded(theirs: tf_keras.Model, path: Path, half: str) -> float:
    """Compare with recorded outputs. Raises GateError where they differ by more than rounding, perhaps of ``half``."""
    most, least = _ROUNDING[half]
    remedy = "np.savez('outputs.npz', inputs=x, outputs=model.predict(x)) where it was trained"
    parts = npz.read(path, ("inputs", "outputs"), remedy)
    if len(parts) < 2 or any(part.dtype.kind not in "fiub" for part in parts.values()):
        raise InputError(f"{path} has no arrays of numbers called inputs and outputs", remedy)
    x, y = parts["inputs"], parts["outputs"]
    if x.ndim == 3:  # of a network of grey pictures without a dimension of channels
        x = x[..., None]
    if x.ndim == 4 and x.shape[-1] == 1:  # of a network of grey pictures
        x = x.repeat(3, axis=-1)
    if x.shape[1:] != theirs.input_shape[1:] or y.shape != (len(x), theirs.output_shape[-1]) or not len(x):
        what = f"{path}: inputs {x.shape} and outputs {y.shape}, the network takes {theirs.input_shape[1:]}"
        raise InputError(what, remedy)
    answers = rewrites.in_batches(theirs, x.astype(np.float32))
    answers, y = answers.reshape(y.shape).astype(np.float64), y.astype(np.float64)
    activation = rewrites.last_layer(theirs).get_config().get("activation")
    is_logit = y.shape[1] == 1 and activation != "sigmoid"
    if not is_logit and y.min() >= 0 and y.max() <= 1 + 1e-6:  # probabilities, which a softmax presses together
        answers, y = (np.log(np.clip(one, least, 1)) for one in (answers, y))
    off = float(np.abs(answers - y).max()) / max(float(np.abs(y).max()), 1e-30)
    if not off <= most:
        what = f"its outputs differ from those recorded in {path} by {off:.1e} of the largest"
        remedy = "check --lambda, --architecture and --upsampling, and that inputs are what the model took"
        raise GateError(what, remedy)
    return off


def _card(
    path: Path, network: _Network, labels: tuple[str, ...], spec: InputSpec, version: str, chosen: px.Pixels
) -> ModelCard:
    imported = Imported(
        file=path.name,
        sha256=sha256(path),
        keras=version,
        preprocessing=chosen.name,
        passes=tuple(f"{one.name} ({one.places})" for one in network.translated.passes),
        notes=tuple(network.notes),
    )
    training = Training(imported=imported)
    return ModelCard(
        network.name, labels, spec, network=network.name, training=training, versions=model_cards.versions()
    )


def _described(chosen: px.Pixels, spec: InputSpec) -> str:
    mean, std = (" ".join(f"{one:.4g}" for one in values) for values in (spec.mean, spec.std))
    return f"{chosen.name}; with the graph's own scaling (pixel - {mean}) / {std}, {spec.color}"
