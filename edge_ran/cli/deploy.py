"""`edge-ran deploy`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from edge_ran.cli.app import talk
from edge_ran.cli.command import given
from edge_ran.cli.fleet_options import FleetOptions
from edge_ran.cli.model_options import MetadataOptions
from edge_ran.cli.models import Model, tflite_or_default
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import AcceleratorOptions, OutputOptions
from edge_ran.cli.render import emit
from edge_ran.cli.run_options import AnswerOptions, CameraOptions, ResultOptions

NOT_OF_RUN = (
    "model", "device", "all", "record", "record_limit", "min_agreement", "max_latency", "wait", "group",
    "max_failures", "dry_run", "install", "json", "quiet", "verbose",
)  # fmt: skip
CAMERA = ("camera", "width", "height", "fps", "reconnect", "stall", "frozen")
FOR_EVER = CameraOptions(reconnect="forever")


@dataclass(frozen=True)
class RecordOptions:
    """Which frames the board keeps."""

    record: Annotated[
        str,
        typer.Option(
            "--record", metavar="all|changes|uncertain", help="Which frames to keep as pictures on the board."
        ),
    ] = ""
    record_limit: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Remove the oldest pictures beyond this size.")
    ] = 500


@dataclass(frozen=True)
class RolloutOptions:
    """What a board must do to keep the release, and how many boards are updated at a time."""

    min_agreement: Annotated[
        float,
        typer.Option(min=0, max=100, metavar="%", help="Least agreement with the top-1 of this machine."),
    ] = 98.0
    max_latency: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="MS",
            help="Longest median inference; 0 = any.",
            show_default="the device's budget",
        ),
    ] = None
    wait: Annotated[float, typer.Option(min=1, metavar="S", help="Longest time until it classifies frames.")] = 60.0
    group: Annotated[int, typer.Option(min=1, help="Boards updated at the same time after the first.")] = 4
    max_failures: Annotated[int, typer.Option(min=0, help="Stop when more boards than this refuse it.")] = 0
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run; change nothing.")] = False


@verb
def deploy(
    context: typer.Context,
    model: Model = None,
    *,
    fleet: FleetOptions,
    camera: Annotated[
        CameraOptions, Only("camera", "width", "height", "fps", "reconnect", "stall", "frozen")
    ] = FOR_EVER,
    answers: Annotated[AnswerOptions, Only("threshold", "smoothing")],
    results: Annotated[ResultOptions, Only("web", "label", "on_change")],
    recorded: RecordOptions,
    metadata: MetadataOptions,
    accelerator: AcceleratorOptions,
    install: Annotated[
        bool, typer.Option("--install", help="Let pip install missing packages there, in a folder of its own.")
    ] = False,
    gates: RolloutOptions,
    output: Annotated[OutputOptions, Only("json", "quiet")],
) -> None:
    """Run a model on boards as a service that starts at boot; undo an update that makes it worse."""
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
        record=recorded.record,
        record_limit_bytes=recorded.record_limit * 1_000_000,
        install=install,
        min_agreement=gates.min_agreement / 100,
        max_latency_ms=gates.max_latency,
        wait_s=gates.wait,
    )
    metadata.say_notes(plan.model)
    found = rollout.deploy(
        chosen, plan, talk(output.quiet), group=gates.group, max_failures=gates.max_failures, dry_run=gates.dry_run
    )
    emit(output.json, found, render.rollout)
    if found.exit_code:
        raise typer.Exit(found.exit_code)
