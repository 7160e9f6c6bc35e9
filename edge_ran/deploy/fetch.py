"""Pictures that boards have recorded come here, for the next training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge_ran import files
from edge_ran.catalogue import DeviceSpec
from edge_ran.deploy.remote import Remote
from edge_ran.errors import EnvironmentMissing
from edge_ran.targets.sanitize import clean

LARGEST_BYTES = 1 << 26
BATCH = 50  # files that are removed there at a time

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fetched:
    """What came from a board: files that are new here, and how many were removed there."""

    device: str
    folder: str
    files: int
    size_bytes: int
    removed: int


@dataclass(frozen=True)
class _Recorded:
    files: tuple[tuple[str, int, str], ...]  # name, bytes, SHA-256


@dataclass(frozen=True)
class _Forgotten:
    removed: int


def fetch(spec: DeviceSpec, folder: Path, keep: bool = False, progress: Progress | None = None) -> Fetched:
    """Bring a board's recorded pictures to ``folder/LABEL/DEVICE-CLIP/NAME.jpg``, as ``train`` reads them.

    It may be stopped at any time and goes on where it was. A picture is removed there when it is whole here. Where
    another picture has that name already, it comes to ``NAME-DIGEST.jpg``: a board whose clock was set back, or another
    board, may use a name again.

    Args:
        spec: the board.
        folder: where to.
        keep: leave the pictures there as well.
        progress: called with (pictures done, pictures).

    Raises:
        EnvironmentMissing: the board is lost, a picture is not what it said, or ``folder`` cannot be written to.
    """
    files.check_output_folder(folder)
    new, size, removed = 0, 0, 0
    with Remote(spec, lambda line: None) as remote:
        listed = remote.session.ask_for_data("records", _Recorded, timeout_s=600).files
        done: list[list[str]] = []
        for place, (name, length, digest) in enumerate(listed, start=1):
            target = _place(folder, spec.name, name)
            is_here = _holds(target, digest)
            if target.exists() and not is_here:
                target = target.with_name(f"{target.stem}-{digest[:12]}{target.suffix}")
                is_here = _holds(target, digest)
            if not is_here:
                data = _receive(remote, name, length)
                if data is None:
                    continue
                if hashlib.sha256(data).hexdigest() != digest:
                    raise EnvironmentMissing(f"{spec.name}: {clean(name)} did not come whole", "try again")
                files.write_bytes(target, data)
                new, size = new + 1, size + len(data)
            done.append([name, digest])
            if not keep and len(done) == BATCH:
                removed += _forget(remote, done)
            if progress:
                progress(place, len(listed))
        if not keep and done:
            removed += _forget(remote, done)
    return Fetched(spec.name, str(folder), new, size, removed)


def _forget(remote: Remote, done: list[list[str]]) -> int:
    removed = remote.session.ask("forget", _Forgotten, {"files": done}).removed
    done.clear()
    return removed


def _receive(remote: Remote, name: str, length: int) -> bytes | None:
    """Return a picture's bytes; None: it was removed there since it was listed, as the oldest are."""
    data = bytearray()

    def take(block: bytes) -> None:
        data.extend(block)
        if len(data) > min(length, LARGEST_BYTES):
            raise EnvironmentMissing(f"{remote.spec.name} sent more than it announced", "see what runs there")

    answer = remote.session.request("send", {"name": name}, {b"D": take}, 120)
    return None if answer.get("gone") else bytes(data)


def _holds(target: Path, digest: str) -> bool:
    return target.is_file() and files.sha256(target) == digest


def _place(folder: Path, device: str, name: str) -> Path:
    """Where a recorded picture comes to; its name is the board's word, and must not lead elsewhere."""
    parts = PurePosixPath(clean(name)).parts
    if len(parts) != 3 or any(part in ("..", ".", "") or "\\" in part or part.startswith("/") for part in parts):
        raise EnvironmentMissing(
            f"{device} has a picture with an invalid name: {clean(name)[:80]!r}", "remove it there"
        )
    label, clip, file = parts
    return folder / label / f"{''.join(c if c.isalnum() or c in '-_.' else '_' for c in device)}-{clip}" / file
