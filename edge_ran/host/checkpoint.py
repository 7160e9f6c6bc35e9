"""The checkpoint of a training run: one file, replaced atomically, that holds all that the rest of the run depends on.

``checkpoint.npz`` has every weight, every optimiser variable and a JSON record; ``best.npz`` the weights of the best
epoch so far; ``metrics.csv`` the history, for people.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import records
from edge_ran.errors import InputError
from edge_ran.files import atomic_path, write_text
from edge_ran.runs import BEST, CHECKPOINT, METRICS

_AGAIN = "start the run again with --force"


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. ``top1`` and ``validation_top1`` are 0..1; validation values are None without a validation part.

    ``validation_balanced`` is the mean recall of the classes, 0..1, where it chooses the best epoch."""

    epoch: int
    loss: float
    top1: float
    learning_rate: float
    images_per_s: float
    validation_loss: float | None = None
    validation_top1: float | None = None
    validation_balanced: float | None = None

    def numbers(self) -> dict[str, float]:
        """Return what was measured, by name, for a table or a plot."""
        return {name: value for name, value in records.to_dict(self).items() if value is not None}


@dataclass
class State:
    """Where a run stands: what a checkpoint holds beside the weights.

    ``margin`` is what an epoch's accuracy must exceed that of epoch 0 by, 0..1."""

    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    best_epoch: int = -1
    best_top1: float = -1.0
    best_loss: float | None = None
    seconds: float = 0.0
    margin: float = 0.0

    def numbers(self) -> list[float]:
        """Return the fields as numbers, for ``of_numbers``; a ``best_loss`` that is not there is infinite."""
        return [float("inf") if value is None else float(value) for value in dataclasses.astuple(self)]

    @classmethod
    def of_numbers(cls, numbers: NDArray[np.float64]) -> State:
        """Return the state that ``numbers`` tells."""
        step, loss_sum, correct, best_epoch, best_top1, best_loss, seconds, margin = map(float, numbers)
        known = best_loss if np.isfinite(best_loss) else None
        return cls(int(step), loss_sum, correct, int(best_epoch), best_top1, known, seconds, margin)

    def is_better(self, top1: float, loss: float) -> bool:
        """Whether an epoch with these validation values is at least as good as the best one so far.

        Where that is epoch 0, better by more than ``margin``.
        """
        if self.best_epoch == 0:
            return top1 > self.best_top1 + self.margin
        best_loss = float("inf") if self.best_loss is None else self.best_loss
        return (top1, -loss) >= (self.best_top1, -best_loss)


def save(folder: Path, variables: list[Any], state: State, history: Sequence[EpochRecord], identity: str) -> None:
    """Write the checkpoint. Raises EnvironmentMissing when the disk is full; the last one is then as it was."""
    record = {
        "state": dataclasses.asdict(state),
        "history": [one.numbers() for one in history],
        "identity": identity,
    }
    save_arrays(folder / CHECKPOINT, variables, np.frombuffer(json.dumps(record).encode(), np.uint8))


def save_arrays(path: Path, variables: list[Any], record: NDArray[np.uint8] | None = None) -> None:
    """Write the values of variables, and perhaps a record, as an ``.npz``, atomically."""
    arrays = {f"v{i}": np.asarray(v) for i, v in enumerate(variables)}
    if record is not None:
        arrays["record"] = record
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]  # the names never collide with savez's own


def restore(folder: Path, variables: list[Any], identity: str) -> tuple[State, list[EpochRecord]]:
    """Put the checkpoint's values into the variables; without a checkpoint a run stands at its beginning.

    Raises:
        InputError: the checkpoint is damaged, or of a run with another ``identity``.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return State(), []
    try:
        with path.open("rb") as file, np.load(file) as arrays:  # NumPy leaves a damaged file open
            record = json.loads(arrays["record"].tobytes(), parse_constant=lambda _: None)
            if record["identity"] != identity:
                raise _OtherRun(
                    f"{path} is of a run with other data or settings", "resume with the same ones, or start a new run"
                )
            state = records.read(State, record["state"], "state")
            history = records.read(tuple[EpochRecord, ...], record["history"], "history")
            assign(variables, arrays)
            return state, list(history)
    except _OtherRun:
        raise
    except Exception as error:  # a damaged archive raises whatever zipfile, json or NumPy think of it
        raise InputError(f"{path} is damaged: {error}", "remove it to start the run again") from error


def restore_best(folder: Path, variables: list[Any]) -> None:
    """Put the weights of the best epoch into the variables. Raises InputError: they are not there, or damaged."""
    path = folder / BEST
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            assign(variables, arrays)
    except FileNotFoundError as error:
        raise InputError(f"{path}, the weights of the best epoch, is gone", _AGAIN) from error
    except Exception as error:  # as in ``restore``
        raise InputError(f"{path}, the weights of the best epoch, is damaged: {error}", _AGAIN) from error


def assign(variables: list[Any], arrays: Any) -> None:
    """Set every variable to the array that ``save_arrays`` made of it."""
    for i, variable in enumerate(variables):
        variable.assign(arrays[f"v{i}"])


def write_metrics(folder: Path, history: Sequence[EpochRecord]) -> None:
    """Write ``metrics.csv``, a line for each epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0].numbers()))
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in record.numbers().items()} for record in history)
    write_text(folder / METRICS, text.getvalue())


class _OtherRun(InputError):
    """The checkpoint is whole, and belongs to another run."""
