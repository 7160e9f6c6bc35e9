"""`edge-ran train`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ran.cli.app import host_packages, say
from edge_ran.cli.data_options import LabelledData, ManifestOptions
from edge_ran.cli.interrupted import resumable
from edge_ran.cli.model_options import NetworkOptions
from edge_ran.cli.option_groups import verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.progress import training_progress
from edge_ran.cli.render import emit
from edge_ran.cli.train_options import BudgetOptions, RecipeOptions, TrainingOptions, WorkerOptions

if TYPE_CHECKING:
    from edge_ran.architecture import Architecture
    from edge_ran.host.latency_budget import Candidate


@verb
def train(
    data: LabelledData,
    *,
    run: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to write.", show_default="runs/DATA-NETWORK")
    ] = None,
    network: Annotated[str, typer.Option(help="A network's name, see edge-ran inspect.")] = "places38",
    recipe: Annotated[
        str | None, typer.Option(help="transfer, one-cycle, cosine, paper.", show_default="by --from")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output after it stopped.")] = False,
    training: TrainingOptions,
    budget: BudgetOptions,
    several: WorkerOptions,
    changes: RecipeOptions,
    manifest: ManifestOptions,
    architecture: NetworkOptions,
    output: OutputOptions,
) -> None:
    """Train a network on labelled pictures or clips."""
    from edge_ran.architecture import configure
    from edge_ran.cli.render import train as render
    from edge_ran.recipe import preset
    from edge_ran.run_output import check
    from edge_ran.start import NONE, first_weights

    manifest.check(data)
    instead: dict[str, str] = {}
    crew = several.workers_of(has_budget=bool(budget.budget or budget.device))
    if limit_ms := budget.limit_ms():
        training.options(training.start)  # refuses what is out of range before anything is measured, as does this:
        preset(recipe or "transfer").changed(**dataclasses.asdict(changes))
        found = _within(limit_ms, budget.device or "local", architecture, training.start, manifest, data, output.quiet)
        network, size, width = found.network, found.input_size, found.width
        architecture = dataclasses.replace(architecture, input_size=size, width=width)
        instead = {"--network": network, "--input-size": str(size), "--width": f"{width:g}"}
    chosen = configure(network, **dataclasses.asdict(architecture))
    begun = first_weights(training.start, chosen)
    how = preset(recipe or ("one-cycle" if begun == NONE else "transfer")).changed(**dataclasses.asdict(changes))
    options = training.options(begun)
    run = run or Path("runs") / f"{data.resolve().stem}-{chosen.name}"
    if crew is None or crew.is_first:
        check(run, resume, output.force)  # refuses what is there before TensorFlow, which takes seconds, is loaded
    with resumable(run, instead, output.force):
        with host_packages("train", output.quiet):
            from edge_ran.host.train import train as fit_network
        with training_progress(output.quiet) as callbacks:
            result = fit_network(
                data,
                run,
                chosen,
                how,
                options,
                reading=manifest.reading(),
                resume=resume,
                force=output.force,
                workers=crew,
                callbacks=callbacks,
            )
    emit(output.json, result, render.trained)
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _within(
    limit_ms: float,
    device: str,
    architecture: NetworkOptions,
    start: str,
    manifest: ManifestOptions,
    data: Path,
    quiet: bool,
) -> Candidate:
    """Measure the candidates with the options of the network, show the table, and return the one to train."""
    from edge_ran.architecture import configure
    from edge_ran.cli.render.train import candidates

    classes = len(manifest.load(data).labels)

    def shape(network: str, size: int, width: float) -> Architecture:
        options = dataclasses.replace(architecture, input_size=size, width=width)
        return configure(network, classes=classes, **dataclasses.asdict(options))

    with host_packages("train --budget", quiet):
        from edge_ran.host import latency_budget
    note = (lambda text: None) if quiet else say
    found = latency_budget.choose(limit_ms, device, shape, start_from=start, on_stage=note)
    print(candidates(found), file=sys.stderr)
    return found.chosen
