"""`edge-ran deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import talk
from edge_ran.cli.command import given
from edge_ran.cli.fleet_options import FleetOptions
from edge_ran.cli.models import tflite_or_default
from edge_ran.cli.options import AcceleratorOptions, MetadataOptions, Only, OutputOptions, verb
from edge_ran.cli.render import emit
from edge_ran.cli.run_options import AnswerOptions, CameraOptions, ResultOptions

NOT_OF_RUN = (
    "model", "device", "all", "record", "record_limit", "min_agreement", "max_latency", "wait", "group",
    "max_failures", "dry_run", "install", "json", "quiet", "verbose",
)  # fmt: skip
CAMERA = ("camera", "width", "height", "fps", "reconnect", "stall", "frozen")
FOR_EVER = CameraOptions(reconnect="forever")


@verb
def deploy(
    context: typer.Context,
    model: Annotated[Path | None, typer.Argument(help="A .tflite or a run folder.", show_default="the default")] = None,
    *,
    fleet: FleetOptions,
    camera: Annotated[
        CameraOptions, Only("camera", "width", "height", "fps", "reconnect", "stall", "frozen")
    ] = FOR_EVER,
    answers: Annotated[AnswerOptions, Only("threshold", "smoothing")],
    results: Annotated[ResultOptions, Only("web", "label", "on_change")],
    record: Annotated[
        str, typer.Option("--record", metavar="all|changes|uncertain", help="Keep such frames on the board.")
    ] = "",
    record_limit: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Remove the oldest pictures beyond this.")
    ] = 500,
    metadata: MetadataOptions,
    accelerator: AcceleratorOptions,
    install: Annotated[
        bool, typer.Option("--install", help="Let pip install missing packages there, in a folder of its own.")
    ] = False,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=100, metavar="%", help="Pictures on which the top-1 must be this machine's.")
    ] = 98.0,
    max_latency: Annotated[
        float | None,
        typer.Option(min=0, metavar="MS", help="Median inference there; 0 = any.", show_default="the device's budget"),
    ] = None,
    wait: Annotated[float, typer.Option(min=1, metavar="S", help="Time until it classifies frames.")] = 60.0,
    group: Annotated[int, typer.Option(min=1, help="Boards at the same time, after the first.")] = 4,
    max_failures: Annotated[int, typer.Option(min=0, help="Stop when more boards than this refuse it.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run; change nothing.")] = False,
    output: Annotated[OutputOptions, Only("json", "quiet")],
) -> None:
    """Run a model on boards as a service that starts at boot; return to the previous release if it is worse."""
    from edge_ran.cli.render import deploy as render
    from edge_ran.deploy import rollout
    from edge_ran.deploy.release import Plan, local_files

    chosen = fleet.chosen(only_named=True)
    options = local_files(given(context, *NOT_OF_RUN))
    camera.limits()
    answers.decider()
    plan = Plan(
        model=tflite_or_default(model),
        options=options,
        runtime=accelerator.runtime(),
        overrides=metadata.overrides(),
        record=record,
        record_limit_bytes=record_limit * 1_000_000,
        install=install,
        min_agreement=min_agreement / 100,
        max_latency_ms=max_latency,
        wait_s=wait,
    )
    found = rollout.deploy(chosen, plan, talk(output.quiet), group=group, max_failures=max_failures, dry_run=dry_run)
    emit(output.json, found, render.rollout)
    if found.exit_code:
        raise typer.Exit(found.exit_code)
