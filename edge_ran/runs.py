"""Run folders, and which model a command takes when none is named.

A run folder holds what one training made: ``card.json``, ``model.keras`` (the float network), ``metrics.csv``,
``curves.png``, the checkpoint, some of its training pictures (``calibration.npz``), and what ``convert`` made of it,
``<precision>.tflite``. One that `quantize` made has ``ranges.json`` as well. Without a name, commands take the newest
run under ``runs/`` of the working folder, else the network that ships inside the package.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_ran.card import ModelCard
from edge_ran.errors import InputError
from edge_ran.files import TEMPORARY_PREFIX, read_bytes
from edge_ran.printable import clean

RUNS = "runs"
# Files of a run that only training and conversion read.
SETTINGS, CHECKPOINT, BEST, METRICS = "settings.json", "checkpoint.npz", "best.npz", "metrics.csv"
CALIBRATION = "calibration.npz"
UNFINISHED = "unfinished"  # in a run's folder: the run that will replace it
SHIPPED = Path(__file__).resolve().parent / "shipped"
DEFAULT = "places38"  # of the shipped networks: before a camera it says what kind of place it sees
SHIPPED_TFLITE = "int8.tflite"
MAKE_ONE = "make one: edge-ran train DATA"
NETWORK_SUFFIXES = (".h5", ".hdf5", ".keras", ".onnx", ".pt", ".pth", ".pb")


@dataclass(frozen=True)
class RunFolder:
    """The files of one run; ``path`` may be any folder, ``open_run`` makes sure that it is a finished run."""

    path: Path

    @property
    def card_path(self) -> Path:
        return self.path / "card.json"

    @property
    def model_path(self) -> Path:
        return self.path / "model.keras"

    @property
    def ranges_path(self) -> Path:
        """Where a quantised run keeps the range of every tensor; a float run has none."""
        return self.path / "ranges.json"

    @property
    def quantised_path(self) -> Path:
        """Where ``quantize`` puts the quantised run, unless told otherwise: beside this one."""
        here = self.path if self.path.name not in ("", "..") else Path(os.path.normpath(self.path.absolute()))
        return here.with_name(f"{here.resolve().name}-qat")

    @property
    def is_finished(self) -> bool:
        """Whether training has come to its end here; a run that was killed has a checkpoint only."""
        return self.card_path.is_file() and self.model_path.is_file()

    @property
    def is_shipped(self) -> bool:
        return self.path.resolve().parent == SHIPPED

    def card(self) -> ModelCard:
        """Read ``card.json``. Raises InputError."""
        return ModelCard.from_json(read_bytes(self.card_path, "card"))

    def training_files(self) -> list[Path]:
        """Return the settings and checkpoints that a training here goes on from, first those of a run that replaces
        this one.
        """
        folders = (self.path / UNFINISHED, self.path)
        return [path for folder in folders for name in (SETTINGS, CHECKPOINT) if (path := folder / name).is_file()]

    def tflites(self) -> list[Path]:
        """Return the ``.tflite`` files that are here, the newest first."""
        found = [path for path in self.path.glob("*.tflite") if not path.name.startswith(TEMPORARY_PREFIX)]
        return sorted(found, key=_age)


def is_network_file(path: Path | str) -> bool:
    """Whether a path is a network that another script may have saved, which `edge-ran import` makes a run of."""
    path = Path(path)
    if path.is_dir():
        return (path / "saved_model.pb").is_file()
    return path.suffix.lower() in NETWORK_SUFFIXES


def shipped(name: str) -> Path | None:
    """Return the folder of the shipped network called ``name``, or None."""
    folder = SHIPPED / name.replace("-", "_")
    return folder if folder.parent == SHIPPED and RunFolder(folder).is_finished else None


def named(path: Path) -> Path:
    """Return ``path``; the folder of a run where it is its network's file, or the shipped network of that name.

    A shipped network counts only where no file here has its name.
    """
    if RunFolder(path.parent).model_path == path and RunFolder(path.parent).is_finished:
        return path.parent
    found = None if path.exists() or path != Path(path.name) else shipped(path.name)
    return found or path


def _to_finish(run: RunFolder) -> str:
    """The command that goes on with a training that was stopped; empty where there is nothing to go on with."""
    begun = next((path for path in run.training_files() if path.name == SETTINGS), None)
    if begun is None:
        return ""
    words = ["train", "DATA"]
    try:
        settings = json.loads(begun.read_bytes())
        data = clean(str(settings["source"]))
        words = ["quantize", "RUN", data] if settings.get("float_network") else ["train", data]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    command = shlex.join(["edge-ran", *words, "--resume", "-o", str(run.path)])
    return f"finish it with the options that it was begun with: {command}"


def _inside(run: RunFolder) -> str:
    """The newest of the finished runs in a folder that is none itself, as a remedy; empty where it holds none."""
    newest = _newest(RunFolder(path) for path in run.path.glob("*") if path.is_dir() and os.access(path, os.X_OK))
    return f"name one of the runs in it; the newest: {shlex.quote(str(newest))}" if newest else ""


def open_run(path: Path | str) -> RunFolder:
    """Return the run in the folder ``path``.

    Raises:
        InputError: there is no such folder, or no finished run in it.
    """
    run = RunFolder(named(Path(path)))
    if run.path.is_file() and is_network_file(path):
        raise InputError(
            f"{path} is a network's file, no run folder", f"make one: edge-ran import {shlex.quote(str(path))}"
        )
    if run.path.suffix == ".tflite" and run.path.is_file():
        raise InputError(f"{path} is converted already: a run folder is needed here, not a .tflite", MAKE_ONE)
    if not run.path.is_dir():
        raise InputError(f"there is no run folder {path}", MAKE_ONE)
    if not run.is_finished:
        missing = " and ".join(p.name for p in (run.card_path, run.model_path) if not p.is_file())
        raise InputError(
            f"{path} is not a finished run: {missing} missing", _to_finish(run) or _inside(run) or MAKE_ONE
        )
    return run


@dataclass(frozen=True)
class FileInfo:
    """A file of a run folder."""

    file: str
    size_bytes: int


@dataclass(frozen=True)
class RunDescription:
    """What ``edge-ran inspect`` says of a run folder; ``tflite`` has the newest file first."""

    run: str
    card: ModelCard
    model: FileInfo
    tflite: tuple[FileInfo, ...]


def describe_run(run: RunFolder) -> RunDescription:
    """Return what ``edge-ran inspect`` says of a run. Raises InputError when its card is damaged."""
    return RunDescription(str(run.path), run.card(), _file_info(run.model_path), tuple(map(_file_info, run.tflites())))


def _file_info(path: Path) -> FileInfo:
    return FileInfo(str(path), path.stat().st_size)


def newest_run(cwd: Path) -> Path | None:
    """Return the run under ``cwd/runs`` that was finished last, or None."""
    return _newest(_runs(cwd))


def default_run(cwd: Path) -> Path:
    """Return the newest run of ``cwd``, else the one that ships. Raises InputError when this package ships none."""
    return newest_run(cwd) or _shipped(RunFolder(SHIPPED / DEFAULT).model_path).parent


def default_tflite(cwd: Path) -> Path:
    """Return the newest ``.tflite`` of the runs of ``cwd``, else the one that ships. Raises InputError without one."""
    found = [path for run in _runs(cwd) for path in run.tflites()]
    return min(found, key=_age, default=None) or _shipped(SHIPPED / DEFAULT / SHIPPED_TFLITE)


def tflite_path(run: Path, precision: str, cwd: Path) -> Path:
    """Return where ``convert`` writes: into the run's own folder, for a shipped one into ``cwd/runs/shipped-NAME``."""
    folder = cwd / RUNS / f"shipped-{run.name}" if RunFolder(run).is_shipped else run
    return folder / f"{precision}.tflite"


def _runs(cwd: Path) -> list[RunFolder]:
    return [RunFolder(path) for path in (Path(cwd) / RUNS).glob("*") if path.is_dir()]


def _newest(found: Iterable[RunFolder]) -> Path | None:
    """The one of these runs that was finished last."""
    finished = [run.path for run in found if run.is_finished]
    return min(finished, key=lambda path: _age(RunFolder(path).model_path), default=None)


def _age(path: Path) -> tuple[int, str]:
    """Sorts the newest first, and by name what was written at the same moment."""
    return -path.stat().st_mtime_ns, str(path)


def _shipped(path: Path) -> Path:
    if not path.is_file():
        raise InputError(
            f"no model is named, there is no run under {RUNS}/, and this installation ships no network",
            "edge-ran train DATA, or name a run folder or a .tflite",
        )
    return path
