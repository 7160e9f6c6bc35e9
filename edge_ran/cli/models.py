"""Which file or run folder a verb uses: the one named, the newest, or the shipped one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from edge_ran.cli.app import host_packages, say
from edge_ran.errors import InputError, UsageError

_ASKED = re.compile(r"--(lambda|head|input-size|architecture|network)[ =]('[^']*'|\S+)(?<![,;])")

Model = Annotated[
    Path | None, typer.Argument(help="A .tflite or a run folder.", show_default="newest run, else shipped")
]


def tflite_or_default(model: Path | None, pictures: Path | None = None) -> Path:
    """The file to run: the one named, the newest of the run folder named, or the default, which stderr is told.

    ``pictures`` are labelled ones, see ``run_of``.
    """
    from edge_ran import other_models
    from edge_ran.runs import RunFolder, default_tflite, is_network_file, named

    model = named(model) if model else None
    if model is not None and is_network_file(model):  # of another script
        return tflite_of(model, pictures)
    if model is not None and model.is_dir():
        found = RunFolder(model).tflites()
        if not found:
            found_else = None if RunFolder(model).is_finished else other_models.in_folder(model)
            what, remedy = found_else or ("holds no .tflite", f"edge-ran convert --int8 {shlex.quote(str(model))}")
            raise InputError(f"{model} {what}", remedy)
        return found[0]
    if model is not None:
        return model
    chosen = default_tflite(Path.cwd())
    say(f"using {chosen}")
    return chosen


def run_of(model: Path, quiet: bool = False, pictures: Path | None = None) -> Path:
    """Return a run folder for what a verb was given: itself, or, for another script's file, what `import` makes of it.

    The run is ``runs/NAME``; one that is there already, of the same file, is taken as it is. ``pictures`` are labelled
    ones that the verb works on: they name the classes, and tell how pixels are scaled where the file does not.

    Raises:
        InputError: the file leaves something open: its error names the `edge-ran import` that answers it.
    """
    from edge_ran.runs import RUNS, RunFolder, is_network_file, named

    model = named(model)
    if not is_network_file(model):
        return model
    if not model.exists():
        raise InputError(f"there is no file {model}", "check the path")
    run = RunFolder(Path(RUNS) / (model.name.split(".")[0] or "imported"))
    again = shlex.join(["edge-ran", "import", str(model), "-o", str(run.path)])
    check_on = "" if pictures is None else f" --check-on {shlex.quote(str(pictures))}"
    if run.is_finished and _imported_from(run.path, model):
        if pictures is not None and run.card().labels == tuple(map(str, range(len(run.card().labels)))):
            what = f"{run.path} was imported from {model} with numbers for its classes, which {pictures} names"
            raise InputError(what, f"{again}{check_on} --force")
        return run.path
    with host_packages("import"):
        from edge_ran.host.importing.importer import NUMBERS, Answers, import_network
    report = None
    try:
        labels = NUMBERS if pictures is None else None
        report = import_network(model, run.path, Answers(labels=labels), check_on=pictures)
    except UsageError as error:
        if asked := _ASKED.search(error.remedy):  # an option of import that the verb itself lacks
            option = re.sub(r"=.*'", "=EXPRESSION'", asked[0])  # of a Lambda layer the remedy shows an example
            answers = ["--labels", NUMBERS] if pictures is None else ["--check-on", shlex.quote(str(pictures))]
            raise InputError(str(error), " ".join([again, option, *answers])) from error
        if not any(option in error.remedy for option in ("--labels", "--preprocessing")):
            raise
        if pictures is not None:
            remedy = f"{again}{check_on} --labels FILE --preprocessing tf"
            raise InputError(f"{error}; {error.remedy}", remedy) from error
        remedy = f"{again} --check-on FOLDER (of labelled pictures)"
        raise InputError(str(error), f"{remedy}, or with --labels FILE --preprocessing tf") from error
    if not quiet:
        names = f"named as the folders of {pictures}"
        if pictures is None:
            names = f"by number; to name them: {again} --force --labels FILE"
        classes = report.network.classes
        say(f"imported {model} to {run.path}, pixels {report.preprocessing}; its {classes} classes {names}")
    return run.path


def tflite_of(model: Path, pictures: Path | None = None) -> Path:
    """Return the float file of another script's network: imported and converted to fp32 unless that was done before."""
    from edge_ran import catalogue
    from edge_ran.runs import RunFolder

    run = RunFolder(run_of(model, pictures=pictures))
    target = run.path / "fp32.tflite"
    if not target.is_file() or target.stat().st_mtime_ns < run.model_path.stat().st_mtime_ns:
        with host_packages("convert"):
            from edge_ran.host.convert import convert
        convert(run.path, catalogue.converter("fp32"), target, force=True)
        say(f"converted it to {target}; for the integer file: edge-ran convert --int8 {run.path}")
    return target


def _imported_from(run: Path, model: Path) -> bool:
    from edge_ran.files import sha256
    from edge_ran.runs import RunFolder

    imported = RunFolder(run).card().training.imported
    return imported is not None and model.is_file() and imported.sha256 == sha256(model)
