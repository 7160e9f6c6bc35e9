"""`train --from`: which network gives the first weights, and whether they fit the one that is to be trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from edge_ran import runs
from edge_ran.architecture import Architecture
from edge_ran.errors import InputError
from edge_ran.files import sha256

AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class Start:
    """Where the weights come from: the run's folder, what to call it, and the SHA-256 of its network."""

    folder: Path
    name: str
    sha256: str


def first_weights(wanted: str, architecture: Architecture) -> str:
    """Return ``wanted``; for ``auto`` the name of the shipped network of this architecture, or ``none``."""
    if wanted != AUTO:
        return wanted
    folder = runs.shipped(architecture.name)
    return NONE if folder is None or _difference(folder, architecture) else architecture.name


def find(wanted: str, architecture: Architecture) -> Start | None:
    """Return where the weights are, or None where the network starts from nothing.

    Args:
        wanted: ``auto``, ``none``, the name of a shipped network, or a run folder.
        architecture: of the network to train; its classes and input size may differ from those of the start.

    Raises:
        InputError: there is no such run, it is of another architecture, or it is quantised.
    """
    wanted = first_weights(wanted, architecture)
    if wanted == NONE:
        return None
    folder = runs.named(Path(wanted))
    if difference := _difference(folder, architecture):
        raise InputError(f"--from {wanted} does not fit: {difference}", "give a float run of the same --network")
    name = f"{folder.name} (ships with edge-ran)" if runs.RunFolder(folder).is_shipped else wanted
    return Start(folder, name, sha256(runs.RunFolder(folder).model_path))


def _difference(folder: Path, architecture: Architecture) -> str:
    """What keeps a run's weights from fitting, or an empty string."""
    run = runs.open_run(folder)
    card = run.card()
    if card.network != architecture.name:
        return f"its network is {card.network or card.name}, not {architecture.name}"
    if run.ranges_path.is_file():
        return "it is a quantised network, whose layers are merged"
    if card.options is None:
        return "its card does not give its architecture"
    same = dataclasses.replace(card.options, classes=architecture.classes, input_size=architecture.input_size)
    changed = [f.name for f in dataclasses.fields(same) if getattr(same, f.name) != getattr(architecture, f.name)]
    return f"its {', '.join(changed).replace('_', ' ')} is another" if changed else ""
