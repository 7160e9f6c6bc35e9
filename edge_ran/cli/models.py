"""Which file or run folder a verb uses: the one named, the newest, or the shipped one."""

from __future__ import annotations

from pathlib import Path

from edge_ran.cli.app import host_packages, say
from edge_ran.errors import InputError, UsageError


def tflite_or_default(model: Path | None) -> Path:
    """The file to run: the one named, the newest of the run folder named, or the default, which stderr is told."""
    from edge_ran.runs import RunFolder, default_tflite, is_network_file, named

    model = named(model) if model else None
    if model is not None and is_network_file(model):  # of another script
        return tflite_of(model)
    if model is not None and model.is_dir():
        found = RunFolder(model).tflites()
        if not found:
            raise InputError(f"{model} holds no .tflite", f"edge-ran convert --int8 {model}")
        return found[0]
    if model is not None:
        return model
    chosen = default_tflite(Path.cwd())
    say(f"using {chosen}")
    return chosen


def run_of(model: Path, quiet: bool = False) -> Path:
    """Return a run folder for what a verb was given: itself, or, for another script's file, what `import` makes of it.

    The run is ``runs/NAME``; one that is there already, of the same file, is taken as it is.

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
    if run.is_finished and _imported_from(run.path, model):
        return run.path
    with host_packages("import"):
        from edge_ran.host.importing.importer import NUMBERS, Answers, import_network
    report = None
    try:
        report = import_network(model, run.path, Answers(labels=NUMBERS))
    except UsageError as error:
        if not error.remedy.startswith("--"):
            raise
        remedy = f"edge-ran import {model} -o {run.path} --check-on FOLDER (of labelled pictures)"
        raise InputError(str(error), f"{remedy}, or with --labels FILE --preprocessing tf") from error
    if not quiet:
        say(
            f"imported {model} to {run.path}, its {report.classes} classes by number; to name them: "
            f"edge-ran import {model} -o {run.path} --force --labels FILE"
        )
    return run.path


def tflite_of(model: Path) -> Path:
    """Return the float file of another script's network: imported and converted to fp32 unless that was done before."""
    from edge_ran import catalogue
    from edge_ran.runs import RunFolder

    run = RunFolder(run_of(model))
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
