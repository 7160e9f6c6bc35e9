"""`edge-ran verify`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import believing, host_packages, suited, talk
from edge_ran.cli.command import given
from edge_ran.cli.model_options import MetadataOptions
from edge_ran.cli.models import Model, run_of, tflite_or_default
from edge_ran.cli.option_groups import Only, verb
from edge_ran.cli.options import ON_CPU, AcceleratorOptions, AnyDeviceOptions, OutputOptions
from edge_ran.cli.progress import progress_bar
from edge_ran.cli.render import emit
from edge_ran.errors import UsageError


@verb
def verify(
    context: typer.Context,
    model: Model = None,
    *,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Pictures to compare on, instead of the calibration pictures."),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures at most.")] = 32,
    network: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Compare the file, else this run's newest, with its network, by layer."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --network: draw the layers (.png, .svg, .pdf).")
    ] = None,
    metadata: MetadataOptions,
    device: AnyDeviceOptions,
    accelerator: Annotated[AcceleratorOptions, Only("threads", "delegate", "delegate_option")] = ON_CPU,
    output: OutputOptions,
) -> None:
    """Compare each accelerator's outputs with the CPU's; name the operators that an accelerator computes wrongly."""
    from edge_ran import records, targets
    from edge_ran.cli.render import verify as render
    from edge_ran.pictures import some_pictures
    from edge_ran.verify import Verification, gate
    from edge_ran.verify import verify as compare

    spec = targets.resolve(device.device)
    if network is not None:
        if spec.target != "local":
            raise UsageError("--network needs the run and TensorFlow, which are here", "leave out --device")
        run = run_of(network)
        _verify_network(run, tflite_or_default(model or run), images, count, plot, output)
        return
    wanted = given(context, "model", "device", "install", "json", "force", "quiet")
    threads = suited(spec, wanted).threads  # not its accelerator: each is compared with the CPU
    options, path = accelerator.runtime(output.verbose), tflite_or_default(model)
    options = dataclasses.replace(options, threads=threads or options.threads)
    if spec.target == "local":
        with progress_bar("searching operators", output.quiet) as progress:
            found = compare(path, options, images, count, progress, metadata.overrides())
    else:
        if threads:
            wanted["threads"] = threads
        if metadata.labels:
            wanted["labels"] = metadata.labels
        if images is not None:
            wanted["images"] = targets.Parcel(images, tuple(some_pictures(images, count)))
        with targets.open_target(spec, talk(output.quiet), device.install) as target:
            record = target.answer(targets.Order("verify", (path,), wanted, options, overrides=metadata.overrides()))
        with believing(spec):
            found = records.read_document(Verification, record, "verification")
    emit(output.json, found, render.verification)
    gate(found)


def _verify_network(
    run: Path, model: Path, images: Path | None, count: int, plot: Path | None, output: OutputOptions
) -> None:
    from edge_ran import catalogue, plots
    from edge_ran.cli.render import verify as render
    from edge_ran.files import check_output

    if plot:
        check_output(plot, output.force)
        plots.check_target(plot)
    with host_packages("verify --network", output.quiet):
        from edge_ran.host import parity
    found = parity.check_parity(run, model, parity.some_frames(images or catalogue.folder("calibration_data"), count))
    emit(output.json, found, render.parity)
    if plot:
        parity.draw(found, plot)
    parity.check(found)
