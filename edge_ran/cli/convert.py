"""`edge-ran convert`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_ran import records
from edge_ran.cli.app import (
    Force,
    Json,
    Quiet,
    Verbose,
    app,
    emit,
    host_packages,
    say,
)
from edge_ran.cli.import_ import run_of
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.card import Calibration
    from edge_ran.host.convert import ConvertResult


@app.command()
def convert(
    run: Annotated[Path | None, typer.Argument(help="Run folder.", show_default="newest run, else shipped")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="int8 throughout (what no flag means).")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="float16 weights.")] = False,
    fp32: Annotated[bool, typer.Option("--fp32", help="float32 throughout.")] = False,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="int8 weights, float activations.")] = False,
    int16x8: Annotated[bool, typer.Option("--int16x8", help="int8 weights, int16 activations.")] = False,
    precision: Annotated[str | None, typer.Option(help="The same by name, as in converters/.")] = None,
    converter: Annotated[str | None, typer.Option(metavar="FILE", help="A converter of your own, a TOML file.")] = None,
    calibration_data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Pictures of what the camera sees.", show_default="shipped")
    ] = None,
    io: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="uint8, int8 or float32 input and output.", show_default="its own"),
    ] = None,
    rewrite: Annotated[bool, typer.Option(help="Rewrite the graph into the equal one that runs best.")] = True,
    attention: Annotated[
        bool, typer.Option("--attention", help="Give the soft attention masks, too, as further outputs.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file.", show_default="RUN/PRECISION[-attention].tflite"),
    ] = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Convert a trained network to one .tflite with embedded labels and preprocessing."""
    from edge_ran import catalogue
    from edge_ran.files import refuse_existing
    from edge_ran.runs import default_run, tflite_path

    flags = {"int8": int8, "fp16": fp16, "fp32": fp32, "dynamic": dynamic, "int16x8": int16x8}
    named = [name for name, given in flags.items() if given] + [name for name in (precision, converter) if name]
    if len(set(named)) > 1:
        raise UsageError(f"one precision at a time, not {' and '.join(named)}", "run edge-ran convert once for each")
    how = catalogue.converter(named[0] if named else "int8")
    if run is None:
        run = default_run(Path.cwd())
        if not quiet:
            say(f"converting {run}")
    run = run_of(run, quiet)
    output = output or tflite_path(run, f"{how.name}-attention" if attention else how.name, Path.cwd())
    refuse_existing(output, force)  # before TensorFlow's slow import
    with host_packages("convert", quiet):
        from edge_ran.host.convert import convert as convert_run
    made = convert_run(
        run, how, output, calibration=calibration_data, io=io, rewrite=rewrite, attention=attention, force=force,
        verbose=verbose,
    )  # fmt: skip
    emit(json, records.document(made), lambda: _convert_text(made))


def _convert_text(result: ConvertResult) -> str:
    lines = [
        f"{result.path}  {result.size_bytes / 1e6:.2f} MB  {result.network} as {result.precision}, "
        f"{result.io} input and output, {result.seconds:.1f} s"
    ]
    lines += [f"  {p.places:3d} x {p.name}" for p in result.passes]
    if result.passes:
        lines.append(f"      largest relative change of the logits by all of them: {result.difference:.1e}")
    lines.append(f"  {_counted(result.operators)}")
    if result.activations != "float32" and result.float_operators:
        lines.append(f"  still in float: {_counted(Counter(result.float_operators))}")
    if result.calibration.source:
        lines.append(f"  ranges from {_calibration_text(result.calibration)}")
    if result.masks:
        lines.append(f"  soft masks as outputs beside the scores: {', '.join(result.masks)}")
    return "\n".join(lines + [f"  note: {note}" for note in result.notes])


def _calibration_text(used: Calibration) -> str:
    pictures = f"{used.pictures} pictures of {used.source}" if used.pictures else used.source
    kinds = {
        "shipped": f"{pictures} (shipped with edge-ran)",
        "training": f"{pictures} (training pictures of the run)",
        "quantisation-aware training": f"quantisation-aware training, {pictures}",
    }
    return kinds.get(used.kind, pictures)


def _counted(names: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(names.items()))
