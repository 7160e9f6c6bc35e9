"""Options that describe a model: what a ``.tflite`` does not say of itself, and the shape of a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.card import Overrides


@dataclass(frozen=True)
class MetadataOptions:
    """What a model without metadata does not say of itself; overrides metadata that is wrong."""

    PANEL: ClassVar[str] = "Model without metadata, or with wrong metadata"

    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="The model's classes, one per line.")
    ] = None
    mean: Annotated[
        str,
        typer.Option(
            "--mean",
            metavar="M[,M,M]",
            help="Input = (pixel - mean) / std, pixels 0..255.",
        ),
    ] = ""
    std: Annotated[
        str, typer.Option("--std", metavar="S[,S,S]", help="As --mean: one, or three in --color's order.")
    ] = ""
    input_size: Annotated[
        str,
        typer.Option("--input-size", metavar="HEIGHTxWIDTH", help="Size of an input that can be resized, in pixels."),
    ] = ""
    color: Annotated[str, typer.Option("--color", metavar="rgb|bgr", help="Order of the input's channels.")] = ""

    def overrides(self) -> Overrides:
        """Return what was given, read and checked. Raises UsageError or InputError."""
        from edge_ran.card import COLORS, Overrides
        from edge_ran.model_interface import read_labels

        if self.color and self.color not in COLORS:
            raise UsageError(f"--color {self.color!r} is unknown", f"choose one of: {', '.join(COLORS)}")
        std = parse_triple("--std", self.std)
        if std is not None and min(std) <= 0:
            raise UsageError(f"--std {self.std!r} is not above 0", "for instance --std 128,128,128")
        return Overrides(
            labels=read_labels(self.labels) if self.labels else None,
            mean=parse_triple("--mean", self.mean),
            std=std,
            input_size=parse_size("--input-size", self.input_size),
            color=self.color or None,
            labels_file=str(self.labels or ""),
        )

    def say_notes(self, *models: Path) -> None:
        """Say what is not as usual in these files, such as a scaling that none of them tells. Raises InputError."""
        from edge_ran.cli.app import say
        from edge_ran.model_interface import read_interface

        for note in dict.fromkeys(note for model in models for note in read_interface(model, self.overrides()).notes):
            say(note)


@dataclass(frozen=True)
class NetworkOptions:
    """The options of a network, for ``train`` and ``inspect``; they are what ``architecture.configure`` takes."""

    PANEL: ClassVar[str] = "Network"

    input_size: Annotated[
        int | None, typer.Option(help="Side of the square input in pixels.", show_default="the network's own")
    ] = None
    width: Annotated[float, typer.Option(help="Factor on the number of channels.")] = 1.0
    attention: Annotated[str, typer.Option(help="mixed, channel or spatial.")] = "mixed"
    learning: Annotated[str, typer.Option(help="residual (1+M)T or naive MT.")] = "residual"
    mask: Annotated[bool, typer.Option(help="Soft mask branches, or the trunk alone.")] = True
    upsampling: Annotated[str, typer.Option(help="bilinear or nearest.")] = "bilinear"
    mask_tail: Annotated[str | None, typer.Option(help="paper or linear.", show_default="the network's own")] = None
    shortcut: Annotated[str, typer.Option(help="identity or projection.")] = "identity"


def parse_triple(option: str, text: str) -> tuple[float, float, float] | None:
    """Read ``128`` or ``123.7,116.3,103.5``, also as ``[123.7, 116.3, 103.5]``; None for an empty text.

    Raises:
        UsageError: it is not one number or three.
    """
    if not text:
        return None
    try:
        numbers = [float(part) for part in text.strip("[]() ").replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(abs(number) < float("inf") for number in numbers):
        raise UsageError(f"{option} {text!r} is not one number or three", f"for instance {option} 128,128,128")
    return numbers[0], numbers[1], numbers[2]


def parse_size(option: str, text: str) -> tuple[int, int] | None:
    """Read ``224`` or ``224x320`` as (height, width) in pixels; None for an empty text. Raises UsageError."""
    if not text:
        return None
    parts = text.lower().split("x")
    numbers = [int(part) if part.isascii() and part.isdigit() else 0 for part in parts]
    if len(numbers) == 1:
        numbers *= 2
    if len(numbers) != 2 or not all(0 < number <= 8192 for number in numbers):
        raise UsageError(f"{option} {text!r} is not a size of 1 to 8192 pixels", f"for instance {option} 224x224")
    return numbers[0], numbers[1]
