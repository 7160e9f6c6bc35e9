"""What a model says of itself: labels, input, training, calibration, accuracy, versions.

The card is JSON. A run folder holds it as ``card.json``; a ``.tflite`` carries it as an associated file of the standard
TFLite metadata, beside ``labels.txt``. Cards come with model files, so they are untrusted: every field is checked.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from edge_ran.errors import InputError

SCHEMA_VERSION = 1
COLORS = ("rgb", "bgr")
FITS = ("stretch", "crop")


@dataclass(frozen=True)
class InputSpec:
    """How a frame becomes the network's input: fit to (height, width), order the colours, (pixel - mean) / std.

    The defaults map pixel p to (p - 128) / 128, so that an int8 input of scale 1/128 is exactly p - 128.
    ``fit`` is ``stretch`` (whole frame, aspect ratio given up; what MediaPipe Tasks does) or ``crop`` (largest centred
    rectangle of the input's aspect ratio).
    """

    height: int
    width: int
    mean: tuple[float, ...] = (128.0, 128.0, 128.0)
    std: tuple[float, ...] = (128.0, 128.0, 128.0)
    color: str = "rgb"
    fit: str = "stretch"

    def __post_init__(self) -> None:
        if not (0 < self.height <= 8192 and 0 < self.width <= 8192):
            raise InputError(f"card: input size {self.height}x{self.width} is outside 1..8192 pixels")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            raise InputError("card: mean and std need three numbers each, std above 0")
        if self.color not in COLORS or self.fit not in FITS:
            raise InputError(f"card: color {self.color!r} or fit {self.fit!r} is unknown")


@dataclass(frozen=True)
class ModelCard:
    """Everything known of a model. ``training``, ``calibration``, ``accuracy`` and ``versions`` are free-form records.

    ``network`` is the architecture's name, ``options`` its other settings; ``precision`` is the converter's name or
    ``float32`` for a run folder; ``accuracy`` has ``top1`` (0..1), ``images``, ``dataset`` and ``split``;
    ``temperature`` divides the log-probabilities to calibrate confidence (1 = as trained).
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
    temperature: float = 1.0
    license: str = ""

    def to_json(self) -> str:
        return json.dumps({"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelCard:
        """Read a card.

        Raises:
            InputError: it is not JSON, of a newer schema, or a field has the wrong type.
        """
        try:
            record = json.loads(text)
            version = record.pop("schema_version")
            if version != SCHEMA_VERSION:
                raise InputError(f"the card has schema version {version}, this edge-ran reads {SCHEMA_VERSION}")
            known = {f.name for f in dataclasses.fields(cls)}
            record = {key: value for key, value in record.items() if key in known}
            spec = dict(record.pop("input"))
            spec["mean"] = tuple(float(v) for v in spec["mean"])
            spec["std"] = tuple(float(v) for v in spec["std"])
            labels = tuple(record.pop("labels"))
            rewrites = tuple(record.pop("rewrites", ()))
            card = cls(labels=labels, input=InputSpec(**spec), rewrites=rewrites, **record)
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"the model's card cannot be read: {error}", "convert the model again") from error
        card._check()
        return card

    def _check(self) -> None:
        texts = (self.name, self.network, self.precision, self.license, *self.labels, *self.rewrites)
        records = (self.options, self.training, self.calibration, self.accuracy, self.versions)
        numeric = isinstance(self.temperature, (int, float)) and self.temperature > 0
        if not (all(isinstance(t, str) for t in texts) and all(isinstance(r, dict) for r in records) and numeric):
            raise InputError("the model's card has a field of the wrong type", "convert the model again")
