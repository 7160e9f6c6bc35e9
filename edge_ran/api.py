"""The functions of the public Python API that no module below has as they are; ``edge_ran`` names them all.

They have few arguments and keep their meaning, while the modules below may change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from edge_ran import catalogue, records
from edge_ran.errors import InputError
from edge_ran.files import read_bytes, write_text
from edge_ran.host_packages import host_packages
from edge_ran.runs import default_run, open_run, tflite_path

if TYPE_CHECKING:
    from edge_ran.bench import Bench, Plan
    from edge_ran.card import Overrides
    from edge_ran.classifier import Classifier, Prediction
    from edge_ran.evaluate import EvalReport
    from edge_ran.runtime import RuntimeOptions

_R = TypeVar("_R")


def classify_folder(classifier: Classifier, folder: Path | str) -> Iterator[tuple[Path, tuple[Prediction, ...]]]:
    """Classify every picture of a folder, in the order of their names.

    Args:
        classifier: an open ``Classifier``.
        folder: a folder with pictures; sub-folders are not read. Pictures that cannot be read are left out.

    Yields:
        The picture's path, and every class with its score, the most probable first.

    Raises:
        InputError: there is no picture.
    """
    from edge_ran.camera import open_source

    source = open_source(str(folder))
    try:
        for frame in source:
            yield Path(frame.name), classifier.classify(frame.image)
    finally:
        source.close()


def measure_accuracy(
    model: Path | str,
    data: Path | str,
    *,
    split: str = "auto",
    options: RuntimeOptions | None = None,
    overrides: Overrides | None = None,
) -> EvalReport:
    """Measure the accuracy of a ``.tflite`` on labelled pictures, as `edge-ran evaluate` does.

    Args:
        model: a ``.tflite``.
        data: class folders with pictures or clips, a CSV manifest, or an ``.npz``.
        split: ``train``, ``val``, ``test``, ``all``, or ``auto``: the first found of test, val, all.
        options: the accelerator; None = the CPU with all cores.
        overrides: classes and preprocessing of a model without metadata.

    Raises:
        InputError: the model or the data cannot be used.
        EnvironmentMissing: no runtime or no accelerator.
    """
    from edge_ran import dataset
    from edge_ran.evaluate import evaluate

    return evaluate(Path(model), dataset.load(Path(data)), split=split, options=options, overrides=overrides)


def convert(
    run: Path | str | None = None,
    precision: str = "int8",
    output: Path | str | None = None,
    *,
    calibration: Path | str | None = None,
    force: bool = False,
) -> Path:
    """Convert a run folder to a ``.tflite``, as `edge-ran convert` does. Needs ``edge-ran[host]``.

    Args:
        run: a run folder; None = the newest one under ``runs/``, else the network that ships with edge-ran.
        precision: a converter's name, such as ``int8``, ``fp16`` or ``fp32``, or its TOML file.
        output: the file to write; None = ``RUN/PRECISION.tflite``.
        calibration: a folder of pictures for the ranges of quantised activations; None = as `edge-ran convert` chooses.
        force: replace a file that exists.

    Returns:
        The file.

    Raises:
        OutputExists: it exists and ``force`` is False.
        InputError: the run or the pictures cannot be used. UsageError: no such precision.
        EnvironmentMissing: ``edge-ran[host]`` is not installed.
    """
    with host_packages("convert"):
        from edge_ran.host.convert import convert as convert_run

    folder = open_run(run).path if run is not None else default_run(Path.cwd())
    how = catalogue.converter(precision)
    target = Path(output) if output is not None else tflite_path(folder, how.name, Path.cwd())
    convert_run(folder, how, target, calibration=Path(calibration) if calibration else None, force=force)
    return target


def benchmark(*models: Path | str, options: RuntimeOptions | None = None, plan: Plan | None = None) -> Bench:
    """Measure the latency of one or more ``.tflite`` files, in turns, as `edge-ran benchmark` does.

    Args:
        models: the files; the others are compared with the first.
        options: the accelerator; None = the CPU with all cores.
        plan: how many runs and how long; None = as `edge-ran benchmark` without options.

    Raises:
        InputError: a model cannot be used. EnvironmentMissing: no runtime or no accelerator.
    """
    from edge_ran import bench
    from edge_ran.runtime import RuntimeOptions

    subjects = [bench.BenchModel(Path(model), options or RuntimeOptions()) for model in models]
    return bench.benchmark(subjects, plan)


def write_record(record: Any, path: Path | str) -> None:
    """Write a result as the JSON that `--json` prints, with its schema version. The file appears whole or not at all.

    Args:
        record: any result of edge-ran that is a dataclass: ``EvalReport``, ``Bench``, ``Summary``, …
        path: the file; an existing one is replaced.

    Raises:
        InputError: it is a stream's ``Result``, which has the frame, and no record before it is told the accelerator.
    """
    from edge_ran.bench import Bench
    from edge_ran.stream import Result

    if isinstance(record, Result):
        remedy = "edge_ran.write_record(result.record(stream.accelerator), path)"
        raise InputError("a Result is no record", remedy)
    found = record.result if isinstance(record, Bench) else record
    write_text(Path(path), json.dumps(records.document(found), indent=1, allow_nan=False) + "\n")


def read_record(kind: type[_R], path: Path | str) -> _R:
    """Read a result that ``write_record`` or `--json` wrote.

    Args:
        kind: its class.
        path: the file.

    Raises:
        InputError: it cannot be read, or is not such a record of this schema version.
    """
    from edge_ran import bench

    try:
        value = json.loads(read_bytes(Path(path), "record"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON", "write it with --json, or with edge_ran.write_record") from error
    # One model's has the form of its report.
    found: Any = (
        bench.read_bench(value, str(path)) if kind is bench.Bench else records.read_document(kind, value, str(path))
    )
    return cast(_R, found)
