"""`edge-ran rollback`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from edge_ran.cli.app import talk
from edge_ran.cli.fleet_options import FleetOptions
from edge_ran.cli.interrupted import command, on_interrupt
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit


@verb
def rollback(
    fleet: FleetOptions,
    output: Annotated[OutputOptions, Only("json", "quiet")],
    wait: Annotated[float, typer.Option(min=1, metavar="S", help="Longest time until it classifies frames.")] = 60.0,
) -> None:
    """Return to the previous release on boards."""
    from edge_ran.cli.render import deploy as render
    from edge_ran.deploy import fleet as boards

    chosen, begun = fleet.chosen(only_named=True), set[str]()
    with on_interrupt(lambda: _left([device for device, _ in chosen], begun)):
        found = boards.roll_back(chosen, talk(output.quiet), wait, begun)
    emit(output.json, found, render.rolled_back)
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _left(devices: Sequence[str], begun: set[str]) -> tuple[str, ...]:
    """What Ctrl-C leaves, and what to type. A board that has gone back would go further back, so it is not named."""
    told = [word for device in devices if device in begun for word in ("--device", device)]
    rest = [word for device in devices if device not in begun for word in ("--device", device)]
    if not told:
        return ("every board runs the release that it had; to start again:", command())
    see = shlex.join(["edge-ran", "status", *told])
    what = f"{_names(told)} may have gone back"
    if not rest:
        return (f"{what}; to see which release runs:", see)
    again = command(*rest, leave_out=("--all",), leave_out_with_value=("--device", "-d"))
    return (f"{what}, {_names(rest)} has not; to see which release runs, and to go on:", see, again)


def _names(words: Sequence[str]) -> str:
    return ", ".join(words[1::2])
