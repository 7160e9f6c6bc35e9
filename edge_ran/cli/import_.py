"""`edge-ran import`, and what lets other verbs take such a file directly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edge_ran.cli.app import host_packages
from edge_ran.cli.model_options import parse_triple
from edge_ran.cli.option_groups import verb
from edge_ran.cli.options import OutputOptions
from edge_ran.cli.render import emit
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.host.importing.importer import Answers


@dataclass(frozen=True)
class AnswersOptions:
    """What the file does not say; ``answers`` reads them."""

    PANEL: ClassVar[str] = "What the file does not say"

    labels: Annotated[
        str | None, typer.Option(metavar="FILE", help="The classes, one per line; or the word numbers.")
    ] = None
    preprocessing: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="tf, torch, caffe (as keras.applications), unit 0..1, raw 0..255."),
    ] = None
    mean: Annotated[
        str,
        typer.Option(metavar="M[,M,M]", help="Instead: (pixel - mean) / std, pixels 0..255, in the order of --color."),
    ] = ""
    std: Annotated[str, typer.Option(metavar="S[,S,S]", help="See --mean.")] = ""
    scale: Annotated[float | None, typer.Option(help="Instead of --std: 1 / std.")] = None
    color: Annotated[str | None, typer.Option(metavar="rgb|bgr", help="Order of the colours.")] = None
    fit: Annotated[str, typer.Option(metavar="stretch|crop", help="How a frame is fitted to the input.")] = "stretch"
    input_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the picture, for a network that takes any.")
    ] = None
    architecture: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="For weights alone: what model.to_json() gave.")
    ] = None
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="For weights alone of one of edge-ran's networks: indoor56, …")
    ] = None
    upsampling: Annotated[str, typer.Option(help="With --network: nearest or bilinear.")] = "nearest"
    head: Annotated[
        str | None, typer.Option(metavar="LAYER", help="The output to take, of a network with several.")
    ] = None
    lambda_: Annotated[
        list[str] | None,
        typer.Option("--lambda", metavar="LAYER=EXPRESSION", help="What a Lambda layer computes, such as '1 + x'."),
    ] = None

    def check(self) -> None:
        """Raise UsageError for a word that is none of an option's; TensorFlow is not needed to see it."""
        if self.fit not in ("stretch", "crop"):
            raise UsageError(f"--fit {self.fit!r} is unknown", "--fit stretch or crop")

    def answers(self) -> Answers:
        """Return them as the importer takes them. Raises UsageError."""
        from edge_ran.host.importing.importer import Answers
        from edge_ran.host.importing.lambdas import parse

        lambdas = {}
        for text in self.lambda_ or []:
            layer, equals, expression = text.partition("=")
            if not (layer and equals):
                raise UsageError(f"--lambda {text!r} is not LAYER=EXPRESSION", "for instance --lambda 'lambda_1=1 + x'")
            lambdas[layer.strip()] = parse(expression)
        return Answers(
            labels=self.labels,
            preprocessing=self.preprocessing,
            mean=parse_triple("--mean", self.mean) or (),
            std=parse_triple("--std", self.std) or (),
            scale=self.scale,
            color=self.color,
            fit=self.fit,
            input_size=self.input_size,
            architecture=self.architecture,
            network=self.network,
            upsampling=self.upsampling,
            lambdas=lambdas,
            head=self.head,
        )


@verb
def import_(
    model: Annotated[Path, typer.Argument(help="A .h5 or .keras file of Keras 2 or 3; nothing of it is run.")],
    *,
    run: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder to write.", show_default="runs/NAME")
    ] = None,
    check_on: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Labelled pictures: try the ways to scale pixels on them.")
    ] = None,
    expect: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Recorded inputs and outputs that it must reproduce.")
    ] = None,
    answers: AnswersOptions,
    output: OutputOptions,
) -> None:
    """Make a run folder from a network that another script trained, and compare both on pictures."""
    from edge_ran.cli.render import importing as render
    from edge_ran.files import check_output_folder
    from edge_ran.runs import RUNS

    answers.check()
    run = run or Path(RUNS) / (model.name.split(".")[0] or "imported")
    check_output_folder(run)
    with host_packages("import"):
        from edge_ran.host.importing.importer import import_network
    report = import_network(model, run, answers.answers(), check_on=check_on, expect=expect, force=output.force)
    emit(output.json, report, render.imported)
