"""The boards that the verbs of a deployment are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

if TYPE_CHECKING:
    from edge_ran.deploy.boards import Board


@dataclass(frozen=True)
class FleetOptions:
    """Which boards; ``chosen`` resolves them."""

    PANEL: ClassVar[str] = "Boards"

    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device", "-d", metavar="DEVICE", help="ssh://user@host[:port], NAME or FILE.toml; may be repeated."
        ),
    ] = None
    all: Annotated[bool, typer.Option("--all", help="Every board that this machine has deployed to.")] = False

    def chosen(self, only_named: bool = False) -> list[tuple[str, Board]]:
        """Return them; with ``only_named``, none is meant unless it is named or ``--all`` is given."""
        from edge_ran.deploy import boards
        from edge_ran.errors import UsageError

        if only_named and not self.device and not self.all:
            raise UsageError("no board is named", "add --device NAME, or --all")
        return boards.chosen(self.device or [], self.all)
