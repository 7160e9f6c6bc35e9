"""What a model says of itself: labels, input, training, calibration, accuracy, versions.

The card is JSON. A run folder holds it as ``card.json``; a ``.tflite`` carries it as an associated file of the standard
TFLite metadata, beside ``labels.txt``. Cards come with model files, so they are untrusted: every field is checked.
"""

from __future__ import annotations

import dataclasses
import json
import math
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from edge_ran.errors import InputError

SCHEMA_VERSION = 1
COLORS = ("rgb", "bgr")
_MOST_DIGITS = 18  # of a whole number; larger ones are none that a float or a file of ours could hold
FITS = ("stretch", "crop")


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
    """

    labels: tuple[str, ...] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    input_size: tuple[int, int] | None = None
    color: str | None = None


@dataclass(frozen=True)
class ModelCard:
    """Everything known of a model. ``training``, ``calibration``, ``accuracy`` and ``versions`` are free-form records.

    ``network`` is the architecture's name, ``options`` its other settings; ``precision`` is the converter's name or
    ``float32`` for a run folder; ``accuracy`` has ``top1`` (0..1), ``images``, ``dataset`` and ``split``;
    ``temperature`` divides the log-probabilities to calibrate confidence (1 = as trained). ``masks`` are the attention
    modules whose soft masks a ``.tflite`` gives after its scores, an output each. ``task`` is what the model is for:
    ``classifier``, or what foreign metadata says instead (``embedder``, ``detector``, ``segmenter``).
    """

    name: str
    labels: tuple[str, ...]
    input: InputSpec
    network: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    training: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    rewrites: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    temperature: float = 1.0
    license: str = ""
    task: str = "classifier"

    def __post_init__(self) -> None:
        texts = [self.name, self.network, self.precision, self.license, self.task]
        texts += [*self.labels, *self.rewrites, *self.masks]
        records = (self.options, self.training, self.calibration, self.accuracy, self.versions)
        number = isinstance(self.temperature, (int, float)) and math.isfinite(self.temperature)
        if not (all(isinstance(t, str) for t in texts) and all(isinstance(r, dict) for r in records) and number):
            raise InputError("card: a field has the wrong type")
        if self.temperature <= 0:
            raise InputError(f"card: temperature {self.temperature} is not above 0")
        for text in texts:
            # They reach terminals and labels.txt, one a line. Cs: half a character, which no file can hold.
            if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
                raise InputError(f"card: {text!r} holds a control character")

    def to_json(self) -> str:
        return json.dumps({"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelCard:
        """Read a card.

        Raises:
            InputError: it is not JSON, of a newer schema, or a field has the wrong type.
        """
        try:
            record = json.loads(text, parse_constant=lambda _: None, parse_float=_finite, parse_int=_whole)
            json.dumps(record, ensure_ascii=False).encode()  # half a character in it would break whoever prints it
            version = record.pop("schema_version")
            if version != SCHEMA_VERSION:
                raise InputError(f"the card has schema version {version!r:.20}, this edge-ran reads {SCHEMA_VERSION}")
            known = {f.name for f in dataclasses.fields(cls)}
            record = {key: value for key, value in record.items() if key in known}
            spec = dict(record.pop("input"))
            spec["mean"] = tuple(float(v) for v in spec["mean"])
            spec["std"] = tuple(float(v) for v in spec["std"])
            labels, rewrites, masks = record.pop("labels"), record.pop("rewrites", []), record.pop("masks", [])
            if not all(isinstance(texts, list) for texts in (labels, rewrites, masks)):
                raise TypeError("labels, rewrites and masks must be lists")
            record |= {"labels": tuple(labels), "rewrites": tuple(rewrites), "masks": tuple(masks)}
            return cls(**record, input=InputSpec(**spec))
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            what = " ".join(str(error).split())[:120]
            raise InputError(f"the model's card cannot be read: {what}", "convert the model again") from error


def _whole(number: str) -> int:
    if len(number) > _MOST_DIGITS:
        raise ValueError(f"{number[:_MOST_DIGITS]}... is out of range")
    return int(number)


def _finite(number: str) -> float | None:
    """NaN and infinity, say of a training that diverged, become null: JSON has no word for them."""
    return value if math.isfinite(value := float(number)) else None
