"""The main job end to end, on what every installation has: the shipped network and the calibration pictures.

Convert, compare, classify a clip, benchmark, and show the results on one page.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import __version__, catalogue, dataset, evaluate, plots, records, report, runs
from edge_ran.attention import Look, tint
from edge_ran.bench import Bench, BenchModel, Plan, benchmark
from edge_ran.camera import open_source
from edge_ran.card import ModelCard
from edge_ran.classifier import Classifier
from edge_ran.dataset import Dataset
from edge_ran.errors import InputError
from edge_ran.files import atomic_path, check_output
from edge_ran.graph import find_masks, read_graph
from edge_ran.host.convert import ConvertResult, convert
from edge_ran.picture import read_picture
from edge_ran.pictures import shipped_pictures, spread
from edge_ran.python_command import pip
from edge_ran.report import Commands, Report, Section, Strip, Table, Tile
from edge_ran.stream import Decider, Result, Stream, Summary

PRECISIONS = ("fp32", "fp16", "int8")  # the first is what the others are held against
MOST_COMPARED = 200  # pictures
CLIP_PICTURES, CLIP_SECONDS_EACH, CLIP_FPS, CLIP_SIZE = 12, 0.8, 15, (320, 240)
MASKED = 7  # pictures with masks
SHOWN = 14  # pictures in a strip: two rows on a wide page

Note = Callable[[str], None]


@dataclass(frozen=True)
class File:
    """One converted file and its figures.

    ``agreement`` is the share of calibration pictures, 0..1, whose top-1 class is the first file's; ``difference`` the
    largest difference of a probability; ``reliable`` whether the times are; ``top1`` is None without labelled pictures.
    """

    precision: str
    path: str
    size_bytes: int
    convert_s: float
    agreement: float
    difference: float
    median_ms: float
    p90_ms: float | None
    reliable: bool
    top1: float | None


@dataclass(frozen=True)
class DemoReport:
    """Where the page is, and its figures; ``top1_images`` is 0 when no labelled pictures were given."""

    report: str
    clip: str
    network: str
    files: tuple[File, ...]
    pictures: int
    top1_images: int
    clip_frames: int
    clip_fps: float
    seconds: float


@dataclass(frozen=True)
class _Compared:
    """The calibration pictures and what every file answers: ``scores`` by precision, (N, classes)."""

    paths: list[Path]
    frames: list[NDArray[np.uint8]]
    labels: tuple[str, ...]
    scores: dict[str, NDArray[np.float32]]

    def answers(self, precision: str) -> NDArray[np.int64]:
        return np.argmax(self.scores[precision], axis=1)

    def agreement(self, precision: str) -> float:
        return float((self.answers(precision) == self.answers(PRECISIONS[0])).mean())

    def difference(self, precision: str) -> float:
        return float(np.abs(self.scores[precision] - self.scores[PRECISIONS[0]]).max())


def demo(
    folder: Path,
    *,
    run: Path | None = None,
    data: Path | None = None,
    plan: Plan | None = None,
    force: bool = False,
    note: Note = lambda text: None,
) -> DemoReport:
    """Convert, compare, classify and benchmark; leave the ``.tflite`` files, a clip and ``report.html`` in ``folder``.

    Args:
        folder: where to write; made when it is not there.
        run: the network's run folder; None = the one that ships.
        data: labelled pictures with the network's classes, for top-1; None shows the accuracy in the card.
        plan: how long to benchmark.
        note: called with a few words on what begins now.

    Raises:
        EnvironmentMissing: matplotlib or jinja2 is missing, or no space is left.
        InputError: no network, no pictures, or labelled pictures of other classes.
        OutputExists: a file that is written is there and ``force`` is False.
    """
    began = time.perf_counter()
    report.check()
    page, clip = folder / "report.html", folder / "clip.avi"
    for file in (page, clip, *(folder / f"{precision}.tflite" for precision in PRECISIONS)):
        check_output(file, force)
    run = run or runs.open_run(runs.SHIPPED / runs.DEFAULT).path
    labelled = dataset.load(data) if data else None
    made = {}
    for precision in PRECISIONS:
        note(f"converting to {precision}")
        made[precision] = convert(run, catalogue.converter(precision), folder / f"{precision}.tflite", force=True)
    note("comparing their outputs")
    compared = _compare(made)
    evaluated = _evaluate(made, data, labelled, note) if labelled else {}
    note("classifying a clip")
    make_clip(compared.frames, clip)
    results, summary = _watch(made["int8"].path, clip)
    note("benchmarking")
    models = [BenchModel(conversion.path, name=precision) for precision, conversion in made.items()]
    timed = benchmark(models, plan or Plan(num_runs=200, min_secs=2, max_secs=20))
    files = _files(made, compared, timed, evaluated)
    note("writing the page")
    card = runs.open_run(run).card()
    looks = _looks(made["int8"].path, spread(compared.frames, SHOWN)[:MASKED])
    seen = _Seen(card, files, compared, looks, evaluated.get("int8"), results, summary, timed, made["int8"])
    report.write(_page(seen, seconds=time.perf_counter() - began), page)
    return DemoReport(
        report=str(page),
        clip=str(clip),
        network=seen.card.name,
        files=files,
        pictures=len(compared.frames),
        top1_images=evaluated["int8"].images if evaluated else 0,
        clip_frames=summary.classified,
        clip_fps=summary.fps,
        seconds=time.perf_counter() - began,
    )


def _evaluate(
    made: dict[str, ConvertResult], data: Path | None, labelled: Dataset, note: Note
) -> dict[str, evaluate.EvalReport]:
    found = {}
    for precision, conversion in made.items():
        note(f"evaluating {precision} on {data}")
        found[precision] = evaluate.evaluate(conversion.path, labelled)
    return found


def _files(
    made: dict[str, ConvertResult], compared: _Compared, timed: Bench, evaluated: dict[str, evaluate.EvalReport]
) -> tuple[File, ...]:
    return tuple(
        File(
            precision=precision,
            path=str(conversion.path),
            size_bytes=conversion.size_bytes,
            convert_s=conversion.seconds,
            agreement=compared.agreement(precision),
            difference=compared.difference(precision),
            median_ms=measured.latency.p50_ms,
            p90_ms=measured.latency.p90_ms,
            reliable=measured.validity.reliable,
            top1=evaluated[precision].top1 if evaluated else None,
        )
        for (precision, conversion), measured in zip(made.items(), timed.reports, strict=True)
    )


def make_clip(frames: Sequence[NDArray[np.uint8]], target: Path) -> None:
    """Write a clip (Motion JPEG, which every OpenCV writes and reads): each picture for 0.8 s, slowly zoomed into.

    Args:
        frames: (H, W, 3) uint8 BGR pictures of any size.
        target: an ``.avi``.
    """
    width, height = CLIP_SIZE
    steps = round(CLIP_SECONDS_EACH * CLIP_FPS)
    with atomic_path(target) as temporary:
        writer = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"MJPG"), CLIP_FPS, CLIP_SIZE)
        if not writer.isOpened():
            raise InputError(f"OpenCV cannot write a video to {target}")
        for frame in spread(frames, CLIP_PICTURES):
            filled = _fill(frame, width, height)
            for step in range(steps):
                margin = 0.12 * step / steps
                left, top = round(width * margin / 2), round(height * margin / 2)
                writer.write(cv2.resize(filled[top : height - top, left : width - left], CLIP_SIZE))
        writer.release()


def _fill(frame: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """The largest centred part of a frame with the aspect ratio of (width, height), at that size."""
    factor = max(width / frame.shape[1], height / frame.shape[0])
    size = (max(width, round(frame.shape[1] * factor)), max(height, round(frame.shape[0] * factor)))
    large = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.asarray(large[top : top + height, left : left + width], np.uint8)


def _compare(made: dict[str, ConvertResult]) -> _Compared:
    paths = spread(shipped_pictures(), MOST_COMPARED)
    if not paths:
        raise InputError("calibration_data/ holds no pictures", pip("install --force-reinstall edge-ran"))
    frames = [read_picture(path) for path in paths]
    scores: dict[str, NDArray[np.float32]] = {}
    labels: tuple[str, ...] = ()
    for precision, conversion in made.items():
        with Classifier(conversion.path) as classifier:
            labels = classifier.labels
            scores[precision] = np.stack([classifier.scores(frame) for frame in frames])
    return _Compared(paths, frames, labels, scores)


def _looks(model: Path, frames: Sequence[NDArray[np.uint8]]) -> list[tuple[NDArray[np.uint8], tuple[Look, ...]]]:
    """The frames with their soft masks, none where the network has no masks."""
    if not find_masks(read_graph(model)):
        return []
    with Classifier(model, attention=True) as classifier:
        return [(frame, classifier.looks(frame)) for frame in frames if classifier.scores(frame).size]


def _watch(model: Path, clip: Path) -> tuple[list[Result], Summary]:
    with Classifier(model) as classifier:
        with Stream(
            classifier, lambda: open_source(str(clip)), decide=Decider(smoothing=0.5), realtime=False
        ) as stream:
            results = list(stream)
        return results, stream.summary()


@dataclass(frozen=True)
class _Seen:
    """What the page shows."""

    card: ModelCard
    files: tuple[File, ...]
    compared: _Compared
    looks: list[tuple[NDArray[np.uint8], tuple[Look, ...]]]  # frames with their masks; empty without
    evaluated: evaluate.EvalReport | None  # of int8
    results: list[Result]
    summary: Summary
    timed: Bench
    int8: ConvertResult


def _page(seen: _Seen, seconds: float) -> Report:
    first, last = seen.files[0], seen.files[-1]
    times = 1 / seen.timed.ratios[-1].ratio
    tiles = (
        Tile(
            f"{last.median_ms:.{2 if last.median_ms < 10 else 3}g} ms",
            f"an inference as int8, {times:.1f} times fp32's speed" + ("" if last.reliable else " (on a busy machine)"),
        ),
        Tile(
            f"{last.size_bytes / 1e6:.2f} MB",
            f"as int8, {first.size_bytes / last.size_bytes:.1f} times smaller than fp32",
        ),
        Tile(
            f"{last.agreement:.1%}",
            f"of {len(seen.compared.frames)} pictures get the same top-1 class from int8 as from fp32",
        ),
        Tile(f"{seen.summary.fps:.0f} /s", "frames of a clip with int8, decoding included"),
    )
    return Report(
        title=f"{seen.card.name} on this device",
        lead=f"The network {seen.card.network} with {len(seen.card.labels)} classes, converted three ways, compared, "
        f"run on a clip and timed by edge-ran {__version__}.",
        tiles=tiles,
        sections=(
            _files_section(seen),
            _accuracy_section(seen),
            _pictures_section(seen),
            *([_masks_section(seen)] if seen.looks else []),
            _clip_section(seen),
            _making_section(seen),
            _machine_section(seen),
            Section("Again", "The same, one step at a time:", (Commands(COMMANDS),)),
        ),
        footer=f"Made by edge-ran {__version__} in {seconds:.0f} s. This page links to nothing; keep it or send it.",
    )


COMMANDS = """\
edge-ran convert --int8 -o m.tflite
edge-ran inspect m.tflite
edge-ran benchmark m.tflite
edge-ran run m.tflite --camera 0
edge-ran train PICTURES        # your own classes: one folder of pictures each"""


def _files_section(seen: _Seen) -> Section:
    columns = (
        "file",
        "size, MB",
        "converted in, s",
        "same top-1 as fp32",
        "largest difference",
        "median, ms",
        "p90, ms",
    )
    rows: list[tuple[Any, ...]] = [
        (Path(f.path).name, f.size_bytes / 1e6, f.convert_s, f.agreement, f.difference, f.median_ms, f.p90_ms)
        for f in seen.files
    ]
    formats = ("", ".2f", ".1f", ".1%", ".3f", ".2f", ".2f")
    unreliable = {r.name: "; ".join(r.validity.reasons) for r in seen.timed.reports}
    cautions = [f"{name} is not reliable: {reasons}." for name, reasons in unreliable.items() if reasons]
    one = seen.timed.reports[0]
    note = (
        f"Inferences one after another, the files in turns, on the {one.accelerator.actual.upper()} with "
        f"{one.runtime.threads} threads; every output is read inside the timer. Differences are of probabilities. "
    ) + " ".join(cautions)
    samples = {r.name: r.samples_ms for r in seen.timed.reports}
    return Section(
        "One network, three files",
        "fp32 is the reference; fp16 halves the file; int8 computes in whole numbers throughout.",
        (
            Table(columns, tuple(rows), formats, ("size, MB", "median, ms"), note),
            report.drawing(partial(plots.latency_histogram, samples), "How long every single inference took."),
        ),
    )


def _accuracy_section(seen: _Seen) -> Section:
    accuracy, result = seen.card.accuracy, seen.evaluated
    if not result:
        if accuracy.top1 is None:
            return Section("Accuracy", "The model card has no accuracy, and no labelled pictures were given (--data).")
        return Section(
            "Accuracy",
            "Not measured here: no labelled pictures were given (--data). The network's card says "
            f"{accuracy.top1:.2%} top-1 on {accuracy}.",
        )
    rows = tuple((Path(f.path).name, f.top1) for f in seen.files)
    low, high = result.top1_interval
    confusion = partial(plots.confusion, result.confusion, result.labels, title="int8: confusion, % of each true class")
    return Section(
        "Accuracy",
        f"{result.images:,} labelled pictures of {result.source}, {result.split} split. The true accuracy of the int8 "
        f"file lies between {low:.1%} and {high:.1%} with 95 % confidence.",
        (Table(("file", "top-1"), rows, ("", ".2%")), report.drawing(confusion, follow=False)),
    )


def _pictures_section(seen: _Seen) -> Section:
    compared, labels = seen.compared, seen.compared.labels
    int8, reference = compared.answers("int8"), compared.answers(PRECISIONS[0])
    pictures = []
    for i in spread(range(len(compared.frames)), SHOWN):
        same = int8[i] == reference[i]
        note = "fp32 says so, too" if same else f"fp32: {labels[reference[i]]}"
        score = compared.scores["int8"][i, int8[i]]
        pictures.append(
            report.picture(compared.frames[i], f"{labels[int8[i]]} {score:.0%}", note, "good" if same else "bad")
        )
    return Section(
        "The calibration pictures",
        "They stand for what a camera sees and are not of the network's classes, so its classes here do not "
        "measure accuracy: they show whether the files agree.",
        (Strip(tuple(pictures)),),
    )


def _masks_section(seen: _Seen) -> Section:
    pictures = [report.picture(frame, "picture") for frame, _ in seen.looks]
    for of_module in zip(*(looks for _, looks in seen.looks), strict=True):
        title = of_module[0].module.replace("_module", ", module ").replace("stage", "stage ")
        for (frame, _), look in zip(seen.looks, of_module, strict=True):
            tint(tinted := frame.copy(), look)
            pictures.append(report.picture(tinted, title))
    return Section(
        "Where it looks",
        "Each attention module multiplies its trunk by one plus a soft mask. This is the mask's mean over the "
        "channels, as the int8 file computes it, from violet (lowest in the picture) to yellow (highest).",
        (Strip(tuple(pictures)),),
    )


def _clip_section(seen: _Seen) -> Section:
    step = round(CLIP_SECONDS_EACH * CLIP_FPS)
    middle = [r for r in seen.results if r.frame.index % step == step // 2]
    strip = Strip(
        tuple(report.picture(r.frame.image, f"{r.label} {r.score:.0%}", f"frame {r.frame.index}") for r in middle),
        "Answers are smoothed over about two frames, as with run --smoothing 0.5.",
    )
    stages = {name: ms for name, ms in seen.summary.stages_ms.items() if name != "end_to_end"}
    return Section(
        "A clip, frame by frame",
        f"{seen.summary.classified} of {seen.summary.captured} frames of clip.avi, made of the calibration pictures, "
        f"as fast as possible: {seen.summary.fps:.0f} frames a second with the int8 file, decoding included.",
        (strip, report.drawing(partial(plots.shares, stages, title="median of each stage of a frame"))),
    )


def _making_section(seen: _Seen) -> Section:
    passes = tuple((p.name.replace("_", " "), p.places) for p in seen.int8.passes)
    known = {key: value for key, value in records.to_dict(seen.card.training).items() if value}
    training = tuple((key.replace("_", " "), _shown(value)) for key, value in known.items())
    operators = ", ".join(f"{n} {name}" for name, n in sorted(seen.int8.operators.items()))
    calibration = seen.int8.calibration
    text = f"Operators of the int8 file: {operators}."
    if calibration.source:
        pictures = f"{calibration.pictures} pictures of " if calibration.pictures else ""
        text += f" Its ranges come from {pictures}{calibration.source}."
    tables = (
        Table(("rewriting of the graph before conversion", "places"), passes),
        Table(("training, from the model card", ""), training),
    )
    return Section("How it was made", text, tuple(table for table in tables if table.rows))


def _shown(value: Any) -> str:
    """A value of the card as text: a record becomes a list of its fields that are not zero or empty."""
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{key.replace('_', ' ')} {_shown(inner)}" for key, inner in value.items() if inner)


def _machine_section(seen: _Seen) -> Section:
    one = seen.timed.reports[0]
    environment = records.to_dict(one.environment)
    facts = {k.replace("_", " "): v for k, v in environment.items() if v is not None}
    facts["runtime"] = f"{one.runtime.name} {one.runtime.version}, {one.runtime.threads} threads"
    facts["accelerator"] = str(one.accelerator)
    busy = one.conditions.others_busy
    if busy is not None:
        facts["other processes meanwhile"] = f"{busy:g} cores busy"
    return Section("This machine", "", (Table(("", ""), tuple((k, str(v)) for k, v in facts.items())),))
