"""The two catalogues that a person reads: ``converters/*.toml`` and ``devices/*.toml``.

A name is looked up inside the installed package first, then beside a source checkout; a path to a TOML file of one's
own works wherever a name does.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge_ran.errors import InputError, UsageError
from edge_ran.errors import nearest as nearest
from edge_ran.python_command import pip

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

WEIGHTS = ("float32", "float16", "int8")
ACTIVATIONS = ("float32", "int8", "int16")
IO_TYPES = ("float32", "uint8", "int8")
FOLDERS = ("converters", "devices", "calibration_data")
ACCELERATORS = ("auto", "gpu", "cpu")


@dataclass(frozen=True)
class Converter:
    """One way to turn a network into a ``.tflite`` (``converters/<name>.toml``).

    ``calibration`` is the number of pictures that quantised activations need (0 = none); ``max_drop`` the percentage
    points of top-1 that a file may lose and still be recommended by `sweep`.
    """

    name: str
    summary: str
    weights: str
    activations: str
    io: str
    calibration: int
    max_drop: float

    def __post_init__(self) -> None:
        _one_of(self.name, "weights", self.weights, WEIGHTS)
        _one_of(self.name, "activations", self.activations, ACTIVATIONS)
        _one_of(self.name, "io", self.io, IO_TYPES)
        if self.calibration < 0 or self.max_drop < 0:
            raise InputError(f"converter {self.name}: calibration and max_drop must not be negative")


@dataclass(frozen=True)
class DeviceSpec:
    """One device (``devices/<name>.toml``): where it is and what suits it.

    ``target`` is ``local``, ``ssh://user@host[:port]`` or ``adb:SERIAL``; ``threads`` 0 means all cores;
    ``latency_budget_ms`` is the longest median inference that `deploy` accepts there, and what `train --device` trains
    for; 0 means none; ``camera`` is any source that ``run --camera`` takes; ``python`` is the
    interpreter to use there, over ssh; ``measured`` is what a sweep said on it, empty where accelerator and converter
    are chosen by its data sheet.
    """

    name: str
    summary: str
    accelerator: str
    converter: str
    threads: int = 0
    camera: str = "0"
    latency_budget_ms: float = 0.0
    target: str = "local"
    runtime: str = "litert"
    python: str = "python3"
    benchmark_binary: str = ""
    measured: str = ""

    def __post_init__(self) -> None:
        _one_of(self.name, "accelerator", self.accelerator, ACCELERATORS)
        _one_of(self.name, "runtime", self.runtime, ("litert", "tflite-runtime"))
        if self.threads < 0 or self.latency_budget_ms < 0:
            raise InputError(f"device {self.name}: threads and latency_budget_ms must not be negative")


Entry = TypeVar("Entry", Converter, DeviceSpec)


def converter(name: str) -> Converter:
    """Return the converter of that name, or of that TOML file. Raises UsageError or InputError."""
    return _entry("converters", name, Converter)


def device(name: str) -> DeviceSpec:
    """Return the device of that name, or of that TOML file. Raises UsageError or InputError."""
    return _entry("devices", name, DeviceSpec)


def converters() -> list[Converter]:
    """Return every converter of the catalogue, by name."""
    return [converter(path.stem) for path in sorted(folder("converters").glob("*.toml"))]


def devices() -> list[DeviceSpec]:
    """Return every device of the catalogue, by name."""
    return [device(path.stem) for path in sorted(folder("devices").glob("*.toml"))]


def folder(name: str) -> Path:
    """Return one of the data ``FOLDERS``: in the package, else beside it."""
    package = Path(__file__).resolve().parent
    for candidate in (package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise InputError(f"the folder {name}/ is missing from this installation", pip("install --force-reinstall edge-ran"))


def _entry(kind: str, name: str, cls: type[Entry]) -> Entry:
    path = Path(name)
    if path.suffix != ".toml":
        known = sorted(p.stem for p in folder(kind).glob("*.toml"))
        if name not in known:
            raise UsageError(f"no {kind[:-1]} is called {name!r}", nearest(name, known))
        path = folder(kind) / f"{name}.toml"
    try:
        record: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}", f"compare it with {folder(kind)}") from error
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name != "name"}
    for key, value in record.items():
        if key not in fields:
            raise InputError(f"{path}: unknown key {key!r}", nearest(key, fields))
        # Under "from __future__ import annotations" a field's type is its source text.
        wanted: tuple[type, ...] = {"str": (str,), "int": (int,), "float": (int, float)}[str(fields[key].type)]
        unfit = isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value))
        if unfit or not isinstance(value, wanted):
            raise InputError(f"{path}: {key} must be {fields[key].type}, not {value!r}")
    missing = [f.name for f in fields.values() if f.default is dataclasses.MISSING and f.name not in record]
    if missing:
        raise InputError(f"{path}: missing {', '.join(missing)}", f"see the README in {folder(kind)}")
    return cls(name=path.stem, **record)


def _one_of(name: str, key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"{name}: {key} {value!r} is unknown", nearest(value, allowed))
