"""What a device is asked, and what every kind of device must be able to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edge_ran.card import Overrides
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import EnvironmentMissing
from edge_ran.runtime import RuntimeOptions

if TYPE_CHECKING:
    from edge_ran.bench import Plan


@dataclass(frozen=True)
class Parcel:
    """Some files of a folder, which go to the device together; ``files`` lie below ``root``."""

    root: Path
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Result:
    """A file or folder of this machine that the device's output becomes; ``path`` is where, replaced or added to."""

    path: Path


@dataclass(frozen=True)
class Page:
    """An address of this machine where a page that the device serves on the same port is to be seen."""

    host: str
    port: int


class Unfetched(KeyboardInterrupt):
    """A Ctrl-C that left something there, which is lost; ``error`` says what."""

    def __init__(self, error: EnvironmentMissing) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class Order:
    """What a verb is to do on a device.

    Attributes:
        verb: ``benchmark``, ``sustain``, ``verify``, ``run`` or another that measures.
        models: the ``.tflite`` files, of this machine.
        options: the verb's options that were given, by the name of their parameter (``num_runs``); those that were not
            have the verb's own default. A Path or Parcel is of this machine and must go along, a Result comes back, a
            Page is seen here; a str is as typed, also where it names a file of the device.
        runtime: the options of the runtime, read.
        plan: how long a benchmark is to last, read.
        seconds: how long a sustained run is to last, read.
        overrides: what the models' metadata lacks, read.
        beside: files that lie in the first model's folder and must do so there, too.
    """

    verb: str
    models: tuple[Path, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    plan: Plan | None = None
    beside: tuple[Path, ...] = ()
    seconds: float = 0.0
    overrides: Overrides = field(default_factory=Overrides)


@dataclass(frozen=True)
class Probe:
    """What answers. ``reason`` says in one line why a device cannot be used as it is; it is empty where it can.

    A device may answer and be of no use yet: then ``answers`` is True and ``remedy`` says what to do. ``runtime`` is
    the runtime that would serve, with its version; the fields that a device does not tell are empty.
    """

    answers: bool
    reason: str = ""
    remedy: str = ""
    system: str = ""
    architecture: str = ""
    python: str = ""
    runtime: str = ""

    def __str__(self) -> str:
        told = ", ".join(filter(None, (self.system, self.architecture, self.python, self.runtime)))
        return "; ".join(filter(None, (told, self.reason)))


class Target(Protocol):
    """A device other than this machine. Use it as a context manager, or call ``close``.

    Whatever a device says is untrusted: strings that reach the user have no control characters.
    """

    spec: DeviceSpec

    def probe(self, timeout_s: float) -> Probe:
        """Look whether it answers, within about ``timeout_s`` seconds. Raises nothing for one that does not."""
        ...

    def answer(self, order: Order) -> dict[str, Any]:
        """Carry out ``benchmark`` or ``verify``; return the record that ``--json`` prints where the verb runs locally.

        Raises:
            GateError: a gate was not met there.
            UsageError: this kind of device cannot do that.
            EnvironmentMissing: it cannot be reached, was lost, or lacks something.
        """
        ...

    def follow(self, order: Order, on_line: Callable[[str], None]) -> None:
        """Carry out ``run``; hand on each line of its output, without the line's end.

        Raises as ``answer`` does, and Unfetched after Ctrl-C where a Result of the order did not come here.
        """
        ...

    def clean(self) -> int:
        """Remove everything that edge-ran keeps there between calls; return how many bytes that were."""
        ...

    def close(self) -> None:
        """End what still runs there and leave nothing half-written. May be called twice."""
        ...

    def __enter__(self) -> Target: ...

    def __exit__(self, *exc: object) -> None: ...
