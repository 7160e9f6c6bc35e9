"""How right a ``.tflite`` is on labelled images, on this device and without TensorFlow."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ran import dataset, intervals, records
from edge_ran.card import Overrides
from edge_ran.classifier import Classifier
from edge_ran.dataset import Dataset, Progress, Sample
from edge_ran.dataset.sketch import Overlap, overlap, picture_hash
from edge_ran.errors import GateError, InputError, UsageError
from edge_ran.files import write_text
from edge_ran.graph import read_card
from edge_ran.preprocess import fit_pixels
from edge_ran.printable import some
from edge_ran.runtime import Accelerator, RuntimeOptions
from edge_ran.unknown import UnknownReport, auroc, false_alarms, threshold_keeping


@dataclass(frozen=True)
class ClassReport:
    """One class: ``images`` of it, ``recall`` of them found, ``precision`` of what was taken for it; each 0..1, None
    where there is nothing to divide by."""

    images: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class EvalReport:
    """What ``evaluate`` found. Accuracies are 0..1, drops percentage points (above 0: worse than what it is held to).

    ``top1_interval`` holds the true accuracy with 95 % confidence: Wilson's, or from resampling whole groups where the
    images have groups (module ``intervals``), for frames of one clip are not independent; ``interval`` says which.
    ``top5`` is None below six classes. ``balanced`` is the mean recall of the classes. ``calibration_error`` is the
    mean distance between confidence and accuracy over fifteen bins (Guo et al. 2017), at the ``temperature`` of the
    model's card, which ``run --threshold`` goes by, too. ``confusion`` counts true classes in rows.
    ``agreement`` is the share of equal top-1 answers of model and reference; ``drop_points`` is against the reference,
    else against the accuracy in the model's card; ``drop_interval`` (reference only) holds the true drop with 95 %.
    """

    model: str
    source: str
    split: str
    images: int
    top1: float
    top1_interval: tuple[float, float]
    interval: str
    top5: float | None
    balanced: float
    calibration_error: float
    temperature: float
    per_class: dict[str, ClassReport]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    accelerator: Accelerator
    runtime: str
    ms_per_image: float
    stages_ms: dict[str, float]
    reference: str | None = None
    reference_top1: float | None = None
    agreement: float | None = None
    drop_points: float | None = None
    drop_interval: tuple[float, float] | None = None
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unknown: UnknownReport | None = None
    scores: NDArray[np.float32] = field(
        default_factory=lambda: np.empty((0, 0), np.float32), repr=False, metadata=records.internal()
    )
    samples: tuple[Sample, ...] = field(default=(), repr=False, metadata=records.internal())


def evaluate(
    model: Path,
    data: Dataset,
    *,
    split: str = "auto",
    options: RuntimeOptions | None = None,
    overrides: Overrides | None = None,
    reference: Path | None = None,
    max_drop: float | None = None,
    skip_bad: bool = False,
    unknown: Path | None = None,
    progress: Progress | None = None,
) -> EvalReport:
    """Classify labelled images one by one, as a camera's frames would be, and count.

    Args:
        model: a ``.tflite``.
        data: the images; its classes must be among the model's, by name.
        split: ``train``, ``val``, ``test`` or ``all``; ``auto`` is the test split, else the validation split, else all.
        options: what is asked of the runtime.
        overrides: what replaces the metadata's word; a reference without metadata takes it, too.
        reference: another ``.tflite`` to compare with on the same images, on the CPU.
        max_drop: what the caller will pass to ``check_drop``; refused at once when there is nothing to hold against.
        skip_bad: leave unreadable images out and list them in ``skipped``, instead of refusing.
        unknown: a folder of pictures and clips of none of the classes, to measure what a threshold is worth.
        progress: called with (done, total).

    Raises:
        InputError: not an image classifier, unknown classes, unreadable images.
        UsageError: ``max_drop`` without a reference and without an accuracy in the card.
        EnvironmentMissing: no runtime, no accelerator.
    """
    chosen, samples = _part(data, split)
    strangers, unread = dataset.unlabelled(unknown, skip_bad=skip_bad) if unknown else ((), ())
    with ExitStack() as stack:
        classifier = stack.enter_context(Classifier(model, options, overrides))
        other = stack.enter_context(_open_reference(reference, overrides)) if reference else None
        held_to_card = max_drop is not None and other is None
        _check_pair(classifier, other, held_to_card)
        samples, truth, skipped = _targets(data, samples, classifier, skip_bad)
        seen = _classify(classifier, other, samples, progress)
        strange = np.array([classifier.scores(frame).max() for frame in dataset.frames(strangers)], np.float32)
    labels, order = classifier.labels, np.argsort(-seen.scores, axis=1, kind="stable")  # as Classifier ranks them
    answers, right = order[:, 0], order[:, 0] == truth
    interval, how = intervals.of_accuracy(right, [sample.group for sample in samples])
    confusion, per_class = _count(truth, answers, labels)
    compared = _compare(seen.reference_answers, answers, truth, samples)
    top1, card_top1 = float(right.mean()), _card_top1(classifier)
    against_card = None if card_top1 is None else 100 * (card_top1 - top1)
    return EvalReport(
        model=str(model),
        source=str(data.source),
        split=chosen,
        images=len(samples),
        top1=top1,
        top1_interval=interval,
        interval=how,
        top5=float((order[:, :5] == truth[:, None]).any(1).mean()) if len(labels) > 5 else None,
        balanced=float(np.mean([c.recall for c in per_class.values() if c.recall is not None])),
        calibration_error=_calibration_error(seen.scores[np.arange(len(samples)), answers], right),
        temperature=classifier.card.temperature if classifier.card else 1.0,
        per_class=per_class,
        labels=labels,
        confusion=tuple(map(tuple, confusion.tolist())),
        accelerator=seen.accelerator,
        runtime=seen.runtime,
        ms_per_image=sum(seen.stages_ms.values()),
        stages_ms=seen.stages_ms,
        reference=str(reference) if reference else None,
        reference_top1=compared.top1 if compared else None,
        agreement=compared.agreement if compared else None,
        drop_points=compared.drop_points if compared else against_card,
        drop_interval=compared.drop_interval if compared else None,
        skipped=(*skipped, *unread),
        warnings=tuple(_warnings(classifier, data, chosen, samples, seen.known, held_to_card)),
        unknown=_unknown(unknown, strange, seen.scores.max(1), right) if unknown else None,
        scores=seen.scores,
        samples=samples,
    )


def check_drop(report: EvalReport, max_drop: float) -> None:
    """Raise GateError when the model is more than ``max_drop`` percentage points worse than what it is held to."""
    if report.drop_points is None:
        raise UsageError("there is no accuracy that --max-drop could compare with", "give --reference OTHER.tflite")
    rounding = 1e-9 if report.reference else 6e-5  # points: a card's accuracy has six digits
    if report.drop_points > max_drop + rounding:
        against = report.reference or "its card"
        raise GateError(
            f"accuracy is {report.drop_points:.2f} points below {against}, {max_drop:g} are allowed",
            "calibrate with more pictures, or quantise with awareness (edge-ran quantize)",
        )


def write_predictions(report: EvalReport, target: Path) -> None:
    """Write a CSV with a line an image: ``image, row, label, predicted, score, right``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "row", "label", "predicted", "score", "right"))
    truth = dataset.targets(report.samples, report.labels)
    for sample, scores, true in zip(report.samples, report.scores, truth, strict=True):
        best = _first(scores)
        row = "" if sample.row < 0 else sample.row
        writer.writerow((sample.path, row, sample.label, report.labels[best], f"{scores[best]:.4f}", int(best == true)))
    write_text(target, text.getvalue())


def _open_reference(path: Path, overrides: Overrides | None) -> Classifier:
    if overrides is not None and read_card(path) is not None:
        overrides = Overrides(labels=overrides.labels)
    return Classifier(path, overrides=overrides)


def _part(data: Dataset, split: str) -> tuple[str, tuple[Sample, ...]]:
    if split != "auto":
        return split, data.part(split)
    there = {s.split for s in data.samples}
    chosen = next((name for name in ("test", "val") if name in there), "all")
    return chosen, data.part(chosen)


def _card_top1(classifier: Classifier) -> float | None:
    return classifier.card.accuracy.top1 if classifier.card else None


def _check_pair(classifier: Classifier, other: Classifier | None, held_to_card: bool) -> None:
    """Raise where there is nothing to hold the accuracy against, or classes that cannot be compared."""
    if held_to_card and _card_top1(classifier) is None:
        what = f"{classifier.path} has no accuracy in its card for --max-drop to compare with"
        raise UsageError(what, "give --reference OTHER.tflite")
    if other is not None and other.labels != classifier.labels:
        what = f"{classifier.path} and {other.path} have different classes"
        raise InputError(what, "compare models of the same classes")


def _targets(
    data: Dataset, samples: tuple[Sample, ...], classifier: Classifier, skip_bad: bool
) -> tuple[tuple[Sample, ...], NDArray[np.int64], tuple[str, ...]]:
    """The images, without those that cannot be read if ``skip_bad``; their classes; a line for each one left out."""
    try:
        samples = replace(data, samples=samples).in_words_of(classifier.labels).samples
        truth = dataset.targets(samples, classifier.labels)
    except InputError as error:  # the model names none: perhaps a file beside it does
        note = next((note for note in classifier.notes if " --labels " in note), error.remedy)
        if note == error.remedy and classifier.labels == tuple(map(str, range(len(classifier.labels)))):
            note = f"{error.remedy}; the file names no classes: --labels FILE, one a line in the order of its outputs"
        raise InputError(str(error), note) from error
    if not skip_bad:
        return samples, truth, ()
    good, skipped = dataset.readable(samples)
    if not good:
        raise InputError(f"none of {data.source}'s images can be read", skipped[0])
    kept = set(map(id, good))
    return good, truth[[id(sample) in kept for sample in samples]], skipped


@dataclass(frozen=True)
class _Seen:
    """What a classifier says of every image: ``scores`` (images, classes), and what it took and ran on."""

    scores: NDArray[np.float32]
    reference_answers: NDArray[np.int64] | None  # (images,)
    stages_ms: dict[str, float]  # means
    known: Overlap | None  # with the pictures that it was trained on
    accelerator: Accelerator
    runtime: str


def _classify(
    classifier: Classifier, other: Classifier | None, samples: Sequence[Sample], progress: Progress | None
) -> _Seen:
    scores = np.empty((len(samples), len(classifier.labels)), np.float32)
    reference_answers = None if other is None else np.empty(len(samples), np.int64)
    places = np.array([classifier.labels.index(label) for label in classifier.labels])
    stages_ms: dict[str, float] = defaultdict(float)
    trained_on = classifier.card.training.pictures if classifier.card and not classifier.spec.is_open else ""
    hashes: list[int] = []
    for index, frame in enumerate(dataset.frames(samples)):
        scores[index] = _by_name(classifier.scores(frame), places)
        for stage, ms in classifier.stages_ms.items():
            stages_ms[stage] += ms / len(samples)
        if other is not None and reference_answers is not None:
            reference_answers[index] = _first(_by_name(other.scores(frame), places))
        if trained_on:
            hashes.append(picture_hash(fit_pixels(frame, classifier.spec)))
        if progress is not None:
            progress(index + 1, len(samples))
    return _Seen(
        scores=scores,
        reference_answers=reference_answers,
        stages_ms=dict(stages_ms),
        known=overlap(trained_on, hashes) if trained_on else None,
        accelerator=classifier.runtime.accelerator,
        runtime=f"{classifier.runtime.name} {classifier.runtime.version}",
    )


def _by_name(scores: NDArray[np.float32], places: NDArray[np.intp]) -> NDArray[np.float32]:
    """Scores of a frame, (classes,): outputs of one name are one class, the first of them, with the highest score."""
    found = np.zeros_like(scores)
    np.maximum.at(found, places, scores)
    return found


def _first(scores: NDArray[np.float32]) -> int:
    return int(np.argmax(scores))  # the first of equal ones, as Classifier ranks them


def _count(
    truth: NDArray[np.int64], answers: NDArray[np.intp], labels: Sequence[str]
) -> tuple[NDArray[np.intp], dict[str, ClassReport]]:
    """The confusion matrix, true classes in rows, and what it says of each class."""
    classes = len(labels)
    cells = (classes * truth + answers).astype(np.intp)  # bincount takes no 64-bit integers on a 32-bit board
    confusion = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    return confusion, {label: _class_report(confusion, labels.index(label)) for label in labels}


def _class_report(confusion: NDArray[np.intp], index: int) -> ClassReport:
    hits, images, taken = int(confusion[index, index]), int(confusion[index].sum()), int(confusion[:, index].sum())
    return ClassReport(images, hits / images if images else None, hits / taken if taken else None)


@dataclass(frozen=True)
class _Comparison:
    """How the model compares with the reference on the same images."""

    top1: float  # of the reference
    agreement: float
    drop_points: float
    drop_interval: tuple[float, float]


def _compare(
    reference: NDArray[np.int64] | None, answers: NDArray[np.intp], truth: NDArray[np.int64], samples: Sequence[Sample]
) -> _Comparison | None:
    if reference is None:
        return None
    groups = [sample.group for sample in samples]
    drop, interval = intervals.of_drop(reference == truth, answers == truth, groups)
    return _Comparison(float((reference == truth).mean()), float((reference == answers).mean()), drop, interval)


def _unknown(
    source: Path, strange: NDArray[np.float32], known: NDArray[np.float32], right: NDArray[np.bool_]
) -> UnknownReport:
    least = threshold_keeping(known)
    passed = false_alarms(strange, least)
    return UnknownReport(
        source=str(source),
        images=len(strange),
        auroc=auroc(known, strange),
        kept=float((known >= least).mean()),
        threshold=least,
        false_alarms=float(passed.mean()),
        false_alarms_interval=intervals.wilson(int(passed.sum()), len(passed)),
        kept_top1=float(right[known >= least].mean()),
    )


def _calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_], bins: int = 15) -> float:
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(place, confidence, bins) - np.bincount(place, right, bins)
    return float(np.abs(gap).sum() / len(right))


def _warnings(
    classifier: Classifier,
    data: Dataset,
    split: str,
    samples: Sequence[Sample],
    known: Overlap | None,
    held_to_card: bool,
) -> list[str]:
    """What to know beside the accuracy; ``samples`` are the images that were judged, in the model's words."""
    found = list(classifier.notes)
    shown = {sample.label for sample in samples}
    renamed = dataset.renamed(shown, classifier.labels)
    if renamed:
        pairs = [f"{label!r} as the model's {own!r}" for label, own in sorted(renamed.items())]
        found.append(f"classes were taken by their letters: {', '.join(pairs[:3])}{', …' if pairs[3:] else ''}")
    absent = sorted(set(classifier.labels) - shown - set(renamed.values()))
    if absent:
        found.append(f"no image shows {some(absent)}: the accuracy says nothing of them")
    if held_to_card and classifier.card:
        of = classifier.card.accuracy
        found.append(f"the card's accuracy is of {of}: a drop against it means something on the same images only")
    if split == "train":
        found.append("these are training images: the accuracy on others is lower")
    elif known is not None and known.known:
        found.append(f"{known} are training images, by their content: the accuracy on others is lower")
    found += dataset.ignored_notes(data)
    if twice := sorted(label for label, count in Counter(classifier.labels).items() if count > 1):
        found.append(f"several outputs have one name and count as one class: {', '.join(twice[:5])}")
    accelerator = classifier.runtime.accelerator
    if accelerator.fallback_reason:
        found.append(f"ran on {accelerator}")
    if accelerator.warning:
        found.append(f"ran on {accelerator}: {accelerator.warning}")
    return found
