"""``settings.json``, the first file of a run folder: what the run was started with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from edge_ran import records
from edge_ran.architecture import Architecture
from edge_ran.card import TrainingSet
from edge_ran.dataset import Reading
from edge_ran.errors import InputError
from edge_ran.files import read_bytes, write_text
from edge_ran.recipe import Recipe
from edge_ran.runs import SETTINGS


@dataclass(frozen=True)
class RunSettings:
    """What decides the result of a run, and where its pictures were.

    ``architecture`` and ``balance`` are those of `train`, ``float_network`` (SHA-256 of the network's file) is that of
    `quantize`; each is None for the other one. ``start`` and ``teacher`` are the SHA-256 of the network that gave the
    initial weights and of the teacher, None without. ``precision`` is the arithmetic in training, ``reading`` how the
    pictures were read.
    """

    recipe: Recipe
    seed: int
    data: TrainingSet
    source: str
    architecture: Architecture | None = None
    balance: bool | None = None
    float_network: str | None = None
    start: str | None = None
    teacher: str | None = None
    precision: str | None = None
    reading: Reading = field(default_factory=Reading)

    @property
    def identity(self) -> str:
        """What must be equal in a run and its continuation, as 64 hexadecimal digits: not paths, not the precision."""
        fixed = {
            k: v
            for k, v in records.to_dict(self).items()
            if v is not None and k not in ("source", "precision", "reading")
        }
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()

    @property
    def built(self) -> tuple[Architecture, str]:
        """The architecture and the precision of a run of `train`. Raises InputError: it is one of `quantize`."""
        if self.architecture is None or self.precision is None:
            raise InputError("these are the settings of a run of quantize", "give the run of train")
        return self.architecture, self.precision

    def write(self, run: Path) -> None:
        """Write the settings to the run's folder, atomically."""
        said = {name: value for name, value in records.to_dict(self).items() if value is not None}
        write_text(run / SETTINGS, json.dumps(said, indent=1))


def read_settings(run: Path) -> RunSettings:
    """Return the settings of the run in a folder.

    Raises:
        InputError: there are none, or they are damaged.
    """
    path = run / SETTINGS
    try:
        return records.read(RunSettings, json.loads(read_bytes(path, "settings")), "settings")
    except (ValueError, RecursionError, InputError) as error:
        raise InputError(f"{path} cannot be read: {error}", "start the run again with --force") from error


def check_resumed(run: Path, settings: RunSettings) -> None:
    """Make sure that a run goes on with what it was started with, before anything of it is replaced.

    Raises:
        InputError: it was started with other data or settings, or does not say with which.
    """
    if read_settings(run).identity != settings.identity:
        what = f"{run} is of a run with other data or settings"
        raise InputError(what, "resume with the same ones, or start a new run")
