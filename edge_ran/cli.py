"""The command line: each verb parses, calls one function, prints. Heavy imports stay inside the verbs."""

from __future__ import annotations

import contextlib
import json as jsonlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer

from edge_ran import __version__
from edge_ran.errors import EdgeRanError, EnvironmentMissing

app = typer.Typer(
    name="edge-ran",
    help="Train, quantise, convert, run and benchmark residual attention networks on small devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an output that exists.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show runtime chatter, and tracebacks of errors.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edge-ran {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. The only place where an EdgeRanError becomes lines on stderr and an exit code."""
    verbose = "-v" in sys.argv or "--verbose" in sys.argv
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app()  # typer itself turns a usage error into exit code 2 and Ctrl-C into 130
    except EdgeRanError as error:
        if verbose:
            traceback.print_exc()
        _complain(str(error), error.remedy)
        sys.exit(error.exit_code)


def _complain(what: str, remedy: str) -> None:
    print(f"edge-ran: {what}", file=sys.stderr)
    if remedy:
        print(f"  {remedy}", file=sys.stderr)


def _print(json: bool, record: dict[str, Any], text: Callable[[], str]) -> None:
    """Print the record as JSON or the text for people."""
    typer.echo(jsonlib.dumps(record, indent=1, allow_nan=False) if json else text())


@contextlib.contextmanager
def _host_packages(verb: str) -> Iterator[None]:
    """Turn a missing TensorFlow into one line, for the verbs that need it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("tensorflow", "tf_keras", "tensorflow_model_optimization"):
            raise
        raise EnvironmentMissing(f"{verb} needs {error.name}", "pip install 'edge-ran[host]'") from error


# ---------------------------------------------------------------------------------------------------- inspect


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="A network's name, a run folder or a .tflite file.")],
    json: Json = False,
) -> None:
    """Tell what a network or a model file is made of."""


if __name__ == "__main__":
    main()
