"""`edge-ran devices`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ran.cli.app import (
    Json,
    Quiet,
    app,
    emit,
    say,
)
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.catalogue import DeviceSpec
    from edge_ran.targets import Probe


@app.command()
def devices(
    name: Annotated[
        str | None, typer.Argument(help="One device: a name, a TOML file, ssh://user@host[:port] or adb:SERIAL.")
    ] = None,
    probe: Annotated[bool, typer.Option(help="Look which of them answer, and what they are.")] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 5.0,
    clean: Annotated[bool, typer.Option("--clean", help="Remove what edge-ran keeps on the device named.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the devices that are known: where each is, what suits it, and what answers."""
    from edge_ran import catalogue, targets

    found = [targets.resolve(name)] if name else [*catalogue.devices(), *(targets.connected() if probe else [])]
    if clean:
        if name is None or found[0].target == "local":
            raise UsageError("--clean needs a device other than this machine", "edge-ran devices NAME --clean")
        with targets.open_target(found[0]) as target:
            freed = target.clean()
        emit(json, {"freed_bytes": freed}, lambda: f"{found[0].name}: {freed / 1e6:.1f} MB removed")
        return
    if probe and not quiet and any(spec.target != "local" for spec in found):
        say("looking which of them answer; --no-probe does not")
    answers = targets.probe_all(found, timeout) if probe else [None] * len(found)
    record = {
        "schema_version": 1,
        "devices": [
            {**dataclasses.asdict(spec), "probe": answer and dataclasses.asdict(answer)}
            for spec, answer in zip(found, answers, strict=True)
        ],
    }
    emit(json, record, lambda: _devices_text(found, answers))


def _devices_text(found: Sequence[DeviceSpec], answers: Sequence[Probe | None]) -> str:
    rows = [
        ("NAME", "ACCELERATOR", "CONVERTER", "CHOSEN BY", "THREADS", "TARGET", ""),
        *(
            (
                d.name, d.accelerator, d.converter, "measurement" if d.measured else "data sheet",
                str(d.threads or "all"), d.target, d.summary,
            )
            for d in found
        ),
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    lines = ["  ".join([*(f"{c:<{w}}" for c, w in zip(row, widths, strict=False)), row[6]]).rstrip() for row in rows]
    if told := [(spec.name, answer) for spec, answer in zip(found, answers, strict=True) if answer is not None]:
        lines.append("")
        for name, answer in told:
            lines.append(f"{name:<{widths[0]}}  {'answers' if answer.answers else '-      '}  {answer}")
            if answer.remedy and (answer.answers or len(told) == 1):
                lines.append(f"{'':<{widths[0]}}           -> {answer.remedy}")
    return "\n".join(lines)
