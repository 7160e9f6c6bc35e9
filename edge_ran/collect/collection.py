"""What `dataset build` says that it made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassCount:
    """Pictures of one class: taken, and left out by reason. ``groups``: clips, visits, and photos that stand alone."""

    label: str
    taken: int
    test: int
    groups: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class Collection:
    """What ``build`` made: ``folder`` with the pictures, the manifest and the contact sheet."""

    folder: str
    manifest: str
    page: str | None
    images: int
    classes: tuple[ClassCount, ...]
    sources: int
    problems: tuple[str, ...]
    ignored: tuple[str, ...] = ()
