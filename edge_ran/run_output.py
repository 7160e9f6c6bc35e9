"""The folder that a run is written to. A run that is there already stays until the new one is whole.

With ``--force`` the new run is written to ``RUN/unfinished`` and moved up when its network and card are there: until
then the old one can be used, and neither a mistyped path nor a training that diverges or is killed costs anything.
``--resume`` goes on wherever the last run was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from edge_ran.errors import InputError, OutputExists
from edge_ran.files import TEMPORARY_PREFIX, check_output_folder, sole_writer
from edge_ran.runs import BEST, CALIBRATION, CHECKPOINT, METRICS, SETTINGS, UNFINISHED, RunFolder

CACHED_PIXELS = "pixels-*.npy"
_CARD = "card.json"
_OWN = (
    SETTINGS,
    CALIBRATION,
    CHECKPOINT,
    BEST,
    "model.keras",
    "ranges.json",
    METRICS,
    "curves.png",
    "report.html",
    "tensorboard",
)


class RunOutput:
    """Where a run is written: ``folder`` is ``run`` itself, or a folder in it while an older run is there."""

    def __init__(self, run: Path, resume: bool, force: bool) -> None:
        """Make sure that a run may be written to ``run``; change nothing there.

        Raises:
            InputError: there is nothing to resume.
            OutputExists: there is a run, or something else, and ``force`` was not given.
            EnvironmentMissing: the folder cannot be written to.
        """
        self.run, self.folder, self._starts_again = Path(run), Path(run), False
        self._resume, self._force = resume, force
        check_output_folder(self.run)
        inner = self.run / UNFINISHED
        if (inner / _CARD).is_file():  # it was whole, and the moving up was cut short
            _move_up(inner, self.run)
        holds_a_run = (self.run / SETTINGS).exists() or (self.run / _CARD).exists()
        if resume:
            self.folder = inner if (inner / SETTINGS).exists() else self.run
            if not (self.folder / SETTINGS).exists():
                raise InputError(f"{run} is not a run that can be resumed", "start it without --resume")
        elif holds_a_run:
            if not force:
                raise OutputExists(f"{run} holds a run", "add --resume to continue it, --force to start it again")
            self.folder, self._starts_again = inner, True
        elif self.run.exists() and not (self.run.is_dir() and all(map(_is_leftover, self.run.iterdir()))):
            raise OutputExists(f"{run} exists and is not a run folder", "choose another --output")

    @property
    def name(self) -> str:
        """The run's name, also while it is written to a folder in it."""
        return self.run.resolve().name

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """Empty the folder of an earlier try, and keep other commands away. To be entered when data and network are
        there, and nothing but time can stop the new run.

        Raises:
            OutputExists: another command is writing to the run, or has since this looked.
        """
        with sole_writer(self.run):
            if RunOutput(self.run, self._resume, self._force).folder != self.folder:
                raise OutputExists(f"another command has written to {self.run}", "choose another --output")
            if self._starts_again:
                shutil.rmtree(self.folder, ignore_errors=True)
            yield

    def finish(self, cached: Collection[str] = ()) -> None:
        """Put the new run, which is whole, in the place of the old one.

        ``cached`` are the names of the files that hold its pixels; those of other pictures, a gigabyte each, go.
        """
        if self.folder != self.run:
            _move_up(self.folder, self.run)
            self.folder = self.run
            for path in self.run.glob(CACHED_PIXELS):
                if path.name not in cached:
                    _remove(path)


def check(run: Path, resume: bool, force: bool) -> None:
    """Raise as ``RunOutput`` and ``begun`` do where a run cannot be written to ``run`` now."""
    RunOutput(run, resume, force)
    if run.is_dir():
        with sole_writer(run):
            pass


def clear(run: Path) -> None:
    """Remove whatever an earlier run, or what was made of it, left in a folder; its card first, see ``_move_up``."""
    for path in (*(run / name for name in (_CARD, *_OWN, UNFINISHED)), *run.glob(CACHED_PIXELS)):
        _remove(path)
    for path in RunFolder(run).tflites():
        _remove(path)


def _is_leftover(path: Path) -> bool:
    """Whether a run that was killed while it read its pictures left this behind."""
    return path.match(CACHED_PIXELS) or path.name.startswith(TEMPORARY_PREFIX) or path.name == UNFINISHED


def _move_up(inner: Path, run: Path) -> None:
    """Replace a run by the whole one in ``inner``. The card goes last: without it a run is not finished, and whoever
    comes next goes on from here.
    """
    if (run / _CARD).exists():  # else this was begun before, and what is here may be the new run's
        for path in RunFolder(run).tflites():  # of the old network: verbs would take them for the new one's
            _remove(path)
        for name in (*(name for name in _OWN if not (inner / name).exists()), _CARD):
            _remove(run / name)
    for path in sorted(inner.iterdir(), key=lambda path: path.name == _CARD):
        if path.is_dir():
            _remove(run / path.name)
        os.replace(path, run / path.name)
    with contextlib.suppress(OSError):
        inner.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
