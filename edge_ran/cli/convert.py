"""`edge-ran convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import host_packages, say
from edge_ran.cli.interrupted import command, on_interrupt
from edge_ran.cli.models import run_of
from edge_ran.cli.option_groups import verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit
from edge_ran.errors import UsageError


@verb
def convert(
    run: Annotated[Path | None, typer.Argument(help="Run folder.", show_default="newest run, else shipped")] = None,
    *,
    int8: Annotated[bool, typer.Option("--int8", help="int8 throughout (the default).")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="float16 weights.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="float32 throughout.")] = False,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="int8 weights, float activations.")] = False,
    int16x8: Annotated[bool, typer.Option("--int16x8", help="int8 weights, int16 activations.")] = False,
    precision: Annotated[str | None, typer.Option(help="The same by name, as in converters/.")] = None,
    converter: Annotated[str | None, typer.Option(metavar="FILE", help="A converter of your own, a TOML file.")] = None,
    device: Annotated[
        str | None, typer.Option("--device", "-d", metavar="DEVICE", help="The converter of this device's description.")
    ] = None,
    calibration_data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures of what the camera sees.", show_default="the run's, or shipped"),
    ] = None,
    io: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="uint8, int8 or float32 input and output.", show_default="the converter's"),
    ] = None,
    rewrite: Annotated[bool, typer.Option(help="Rewrite the graph to an equal one that runs faster.")] = True,
    attention: Annotated[
        bool, typer.Option("--attention", help="Add the soft attention masks as further outputs.")
    ] = False,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file.", show_default="RUN/PRECISION[-attention].tflite")
    ] = None,
    output: OutputOptions,
) -> None:
    """Convert a trained network to a .tflite with embedded labels and preprocessing."""
    from edge_ran import catalogue
    from edge_ran.cli.render import convert as render
    from edge_ran.files import check_output
    from edge_ran.runs import default_run, open_run, tflite_path

    flags = {"int8": int8, "fp16": fp16, "fp32": fp32, "dynamic": dynamic, "int16x8": int16x8}
    of_device = catalogue.device(device).converter if device else None
    named = [name for name, given in flags.items() if given]
    named += [name for name in (precision, converter, of_device) if name]
    if len(set(named)) > 1:
        raise UsageError(f"one precision at a time, not {' and '.join(named)}", "convert once for each of them")
    how = catalogue.converter(named[0] if named else "int8")
    if run is None:
        run = default_run(Path.cwd())
        if not output.quiet:
            say(f"converting {run}")
    run = open_run(run_of(run, output.quiet)).path
    target = target or tflite_path(run, f"{how.name}-attention" if attention else how.name, Path.cwd())
    check_output(target, output.force, (".tflite",))  # before TensorFlow's slow import
    if calibration_data is not None and not how.calibration:
        raise UsageError(f"{how.name} needs no calibration pictures", "leave --calibration-data away")
    with on_interrupt(lambda: ("nothing was written; to start again:", command())):
        with host_packages("convert", output.quiet):
            from edge_ran.host.convert import convert as convert_run
        made = convert_run(
            run, how, target, calibration=calibration_data, io=io, rewrite=rewrite, attention=attention,
            force=output.force, verbose=output.verbose,
        )  # fmt: skip
    emit(output.json, made, render.converted)
