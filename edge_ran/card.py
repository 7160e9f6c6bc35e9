"""What a model says of itself: labels, input, training, calibration, accuracy, versions.

The card is JSON. A run folder holds it as ``card.json``; a ``.tflite`` carries it as an associated file of the standard
TFLite metadata, beside ``labels.txt``. Cards come with model files, so they are untrusted: every field is checked.
"""

from __future__ import annotations

import dataclasses
import json
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_ran import records
from edge_ran.architecture import Architecture
from edge_ran.errors import InputError, UsageError
from edge_ran.printable import many
from edge_ran.recipe import FITS, Recipe

SCHEMA_VERSION = 1
COLORS = ("rgb", "bgr")
_MOST_DIGITS = 18  # of a whole number; larger ones are none that a float or a file of ours could hold


@dataclass(frozen=True)
class InputSpec:
    """How a frame becomes the network's input: fit to (height, width), order the colours, (pixel - mean) / std.

    The defaults map pixel p to (p - 128) / 128, so that an int8 input of scale 1/128 is exactly p - 128.
    ``fit`` is ``stretch`` (whole frame, aspect ratio given up; what MediaPipe Tasks does) or ``crop`` (largest centred
    rectangle of the input's aspect ratio). 0 x 0 pixels: the network takes any size, and none is chosen.
    """

    height: int
    width: int
    mean: tuple[float, ...] = (128.0, 128.0, 128.0)
    std: tuple[float, ...] = (128.0, 128.0, 128.0)
    color: str = "rgb"
    fit: str = "stretch"

    def __post_init__(self) -> None:
        sides = self.height, self.width
        if not all(isinstance(side, int) and 0 <= side <= 8192 for side in sides) or (0 in sides and any(sides)):
            raise InputError(f"card: input size {self.height}x{self.width} is outside 1..8192 pixels")
        numbers = (*self.mean, *self.std)
        if (len(self.mean), len(self.std)) != (3, 3) or not (all(map(math.isfinite, numbers)) and min(self.std) > 0):
            raise InputError("card: mean and std need three numbers each, std above 0")
        if self.color not in COLORS or self.fit not in FITS:
            raise InputError(f"card: color {self.color!r} or fit {self.fit!r} is unknown")

    @property
    def is_open(self) -> bool:
        """Whether no size is chosen."""
        return self.height == 0


@dataclass(frozen=True)
class Overrides:
    """What a user says of a model's classes and input, for a file without metadata or with wrong metadata.

    ``labels`` are one for each output, ``mean`` and ``std`` in pixel units (0..255) in the input's colour order,
    ``input_size`` is (height, width) in pixels, ``color`` ``rgb`` or ``bgr``. None: as the metadata says.
    ``labels_file`` is where the labels were read, for messages.

    Raises:
        UsageError: ``mean`` or ``std`` is for pixels from 0 to 1.
    """

    labels: tuple[str, ...] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    input_size: tuple[int, int] | None = None
    color: str | None = None
    labels_file: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        check_units(self.mean, self.std)


def check_units(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Raise UsageError where these are for pixels from 0 to 1, as PyTorch writes them; here they go from 0 to 255."""
    given = {"--mean": tuple(mean or ()), "--std": tuple(std or ())}
    small = [option for option, numbers in given.items() if numbers and 0 < max(numbers) < 1]
    if not small:
        return
    if "--mean" in small and max(given["--std"] or (1.0,)) == 1:  # left out, it is that of pixels divided by 255
        given["--std"] = given["--std"] or (1.0,)
        small.append("--std")
    right = {option: [255 * n if option in small else n for n in numbers] for option, numbers in given.items()}
    said, remedy = (
        " ".join(f"{option} {','.join(f'{n:g}' for n in numbers)}" for option, numbers in words.items() if numbers)
        for words in ({"--mean": mean, "--std": std}, right)
    )
    raise UsageError(f"{said} is for pixels from 0 to 1; here they go from 0 to 255", remedy)


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy (0..1, None = not measured) on ``images`` pictures of a data set's ``split``.

    ``of`` says what was measured, where it is not the model that carries the card.
    """

    dataset: str = ""
    split: str = ""
    images: int = 0
    top1: float | None = None
    of: str = ""

    def __post_init__(self) -> None:
        if self.images < 0 or not 0 <= (self.top1 or 0) <= 1:
            raise InputError(f"card: top-1 {self.top1} of {many(self.images, 'image')} cannot be")

    def __str__(self) -> str:
        """Name the pictures: data set, split and number."""
        return f"{self.dataset or 'unknown pictures'}, {self.split or 'unknown'} split, {many(self.images, 'image')}"


@dataclass(frozen=True)
class Calibration:
    """What the ranges of quantised activations were measured on: ``pictures`` pictures of ``source``.

    ``kind`` is ``shipped`` (the pictures that come with edge-ran), ``folder`` (given by the user), ``training`` (the
    run's own training pictures) or ``quantisation-aware training``; empty where nothing was calibrated, and in cards
    of older versions.
    """

    source: str = ""
    pictures: int = 0
    kind: str = ""


@dataclass(frozen=True)
class Quantisation:
    """How `quantize` fine-tuned the network. ``kept`` says which weights were kept: ``fine-tuned`` or ``calibrated``.

    ``float_top1`` is the float network's top-1, 0..1; ``float_layers`` are the layers that stay in float.
    """

    recipe: Recipe | None = None
    seed: int = 0
    kept: str = ""
    float_top1: float | None = None
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Imported:
    """Where a network comes from that another script trained: its file, what wrote it, and how it was translated.

    ``keras`` is the version of Keras that saved it, ``preprocessing`` the name of how its pixels are scaled.
    """

    file: str = ""
    sha256: str = ""
    keras: str = ""
    preprocessing: str = ""
    passes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingSet:
    """The labelled pictures that a network was trained on.

    ``split_by`` is ``group`` or ``picture``; ``skipped`` counts unreadable pictures that were left out; ``sha256`` is
    that of all pixels and labels; ``pictures`` knows the training pictures by content, as ``dataset.sketch`` makes it.
    ``none_images`` counts the pictures of none of the classes.
    """

    dataset: str = ""
    split_by: str = ""
    validation_fraction: float = 0.1
    skipped: int = 0
    sha256: str = ""
    train_images: int = 0
    val_images: int = 0
    test_images: int = 0
    pictures: str = ""
    none_images: int = 0


@dataclass(frozen=True)
class Training(TrainingSet):
    """What the network was trained on, and how.

    ``precision`` is that of the arithmetic in training. ``description`` and ``author`` come from metadata that other
    tools wrote.
    """

    recipe: Recipe | None = None
    seed: int = 0
    best_epoch: int = 0
    precision: str = ""
    quantisation: Quantisation | None = None
    imported: Imported | None = None
    description: str = ""
    author: str = ""


@dataclass(frozen=True)
class Versions:
    """Versions of what made the model; ``model`` is its own, where other tools' metadata gives one."""

    edge_ran: str = ""
    tensorflow: str = ""
    tf_keras: str = ""
    python: str = ""
    model: str = ""


@dataclass(frozen=True)
class ModelCard:
    """Everything known of a model.

    ``network`` is the architecture's name, ``options`` the architecture, None where it is not one of ours;
    ``precision`` is the converter's name or ``float32`` for a run folder; ``temperature`` divides the log-probabilities
    to calibrate confidence (1 = as trained). ``masks`` are the attention modules whose soft masks a ``.tflite`` gives
    after its scores, an output each. ``task`` is what the model is for: ``classifier``, or what foreign metadata says
    instead (``embedder``, ``detector``, ``segmenter``). ``assumes_scaling``: foreign metadata do not say how pixels are
    scaled for a float input; what ``input`` says is a guess.

    Raises:
        InputError: a text holds a control character, or the temperature is not above 0.
    """

    name: str
    labels: tuple[str, ...]
    input: InputSpec
    network: str = ""
    options: Architecture | None = None
    precision: str = "float32"
    training: Training = field(default_factory=Training)
    calibration: Calibration = field(default_factory=Calibration)
    accuracy: Accuracy = field(default_factory=Accuracy)
    versions: Versions = field(default_factory=Versions)
    rewrites: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    temperature: float = 1.0
    license: str = ""
    task: str = "classifier"
    assumes_scaling: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError(f"card: temperature {self.temperature} is not above 0")
        for text in _texts(records.to_dict(self)):
            # They reach terminals and labels.txt, one per line. Cs: half a character, which no file can hold.
            if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
                raise InputError(f"card: {text[:40]!r} holds a control character")

    def to_json(self) -> str:
        """Return the card as ``card.json`` holds it."""
        fields = {name: value for name, value in records.to_dict(self).items() if value is not None}
        return json.dumps({"schema_version": SCHEMA_VERSION, **fields}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelCard:
        """Read a card.

        Raises:
            InputError: it is not JSON, of a newer schema, or a field has the wrong type.
        """
        try:
            record = json.loads(text, parse_constant=lambda _: None, parse_float=_finite, parse_int=_whole)
            json.dumps(record, ensure_ascii=False).encode()  # half a character in it would break whoever prints it
            version = record["schema_version"]
            if version != SCHEMA_VERSION:
                raise InputError(f"the card has schema version {version!r:.20}, this edge-ran reads {SCHEMA_VERSION}")
            unknown = set(record["input"]) - {f.name for f in dataclasses.fields(InputSpec)}
            if unknown:  # left out, the network would be given other numbers than it was trained on
                raise InputError(f"its input has {min(unknown)!r:.20}, which this edge-ran does not know")
            return records.read(cls, _as_of_now(record), "card")
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, InputError) as error:
            what = " ".join(str(error).split())[:120]
            raise InputError(f"the model's card cannot be read: {what}", "convert the model again") from error


def _whole(number: str) -> int:
    if len(number) > _MOST_DIGITS:
        raise ValueError(f"{number[:_MOST_DIGITS]}... is out of range")
    return int(number)


def _as_of_now(record: dict[str, Any]) -> dict[str, Any]:
    """Return a card as it would be written now: older versions left records empty, and wrote ``edge-ran``, too."""
    found = dict(record)
    if not found.get("options"):
        found.pop("options", None)
    versions = found.get("versions")
    if isinstance(versions, dict) and "edge-ran" in versions:  # of the conversion, which came last
        found["versions"] = {**versions, "edge_ran": versions["edge-ran"]}
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _finite(number: str) -> float | None:
    """NaN and infinity, say of a training that diverged, become null: JSON has no word for them."""
    return value if math.isfinite(value := float(number)) else None
