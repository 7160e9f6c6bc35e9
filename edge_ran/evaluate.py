"""How right a ``.tflite`` is on labelled images, on this device and without TensorFlow."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_ran import dataset, records
from edge_ran.card import Overrides
from edge_ran.classifier import Classifier
from edge_ran.dataset import Dataset, Progress, Sample
from edge_ran.dataset.sketch import Overlap, overlap, picture_hash
from edge_ran.errors import GateError, InputError, UsageError
from edge_ran.files import write_text
from edge_ran.graph import read_card
from edge_ran.preprocess import fit_pixels
from edge_ran.runtime import Accelerator, RuntimeOptions
from edge_ran.unknown import UnknownReport, auroc, false_alarms, threshold_keeping

Z95 = 1.959964  # 95 % of a normal distribution lie within so many standard deviations


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
    images have groups, for frames of one clip are not independent; ``interval`` says which. ``top5`` is None below six
    classes. ``balanced`` is the mean recall of the classes. ``calibration_error`` is the mean distance between
    confidence and accuracy over fifteen bins (Guo et al. 2017), at the ``temperature`` of the model's card, which
    ``run --threshold`` goes by, too. ``confusion`` counts true classes in rows.
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
    strangers = dataset.unlabelled(unknown) if unknown else ()
    with ExitStack() as stack:
        classifier = stack.enter_context(Classifier(model, options, overrides))
        other = stack.enter_context(_open_reference(reference, overrides)) if reference else None
        card_top1 = classifier.card.accuracy.top1 if classifier.card else None
        if max_drop is not None and other is None and card_top1 is None:
            raise UsageError(f"{model} carries no accuracy to hold --max-drop against", "give --reference OTHER.tflite")
        if other is not None and other.labels != classifier.labels:
            raise InputError(f"{model} and {reference} have different classes", "compare models of the same classes")
        truth = dataset.targets(samples, classifier.labels)
        skipped: tuple[str, ...] = ()
        if skip_bad:
            good, skipped = dataset.readable(samples)
            kept = set(map(id, good))
            truth = truth[[id(s) in kept for s in samples]]
            samples = good
            if not samples:
                raise InputError(f"none of {data.source}'s images can be read", skipped[0])
        scores = np.empty((len(samples), len(classifier.labels)), np.float32)
        reference_answers = np.empty(len(samples), np.int64)
        stages: dict[str, float] = defaultdict(float)
        trained_on = classifier.card.training.pictures if classifier.card and not classifier.spec.is_open else ""
        hashes: list[int] = []
        for index, frame in enumerate(dataset.frames(samples)):
            scores[index] = classifier.scores(frame)
            for stage, ms in classifier.stages_ms.items():
                stages[stage] += ms / len(samples)
            if other is not None:
                reference_answers[index] = _first(other.scores(frame))
            if trained_on:
                hashes.append(picture_hash(fit_pixels(frame, classifier.spec)))
            if progress is not None:
                progress(index + 1, len(samples))
        known = overlap(trained_on, hashes) if trained_on else None
        strange = np.array([classifier.scores(frame).max() for frame in dataset.frames(strangers)], np.float32)
        accelerator = classifier.runtime.accelerator
        runtime = f"{classifier.runtime.name} {classifier.runtime.version}"

    # Outputs of one name are one class, the first of them; equal scores by index, as Classifier ranks them.
    first = np.array([classifier.labels.index(label) for label in classifier.labels])
    order = first[np.argsort(-scores, axis=1, kind="stable")]
    answers = order[:, 0]
    right = answers == truth
    top1 = float(right.mean())
    groups = [s.group or f"image {i}" for i, s in enumerate(samples)]
    grouped = 1 < len(set(groups)) < len(groups)
    classes = len(classifier.labels)
    cells = (classes * truth + answers).astype(np.intp)  # bincount takes no 64-bit integers on a 32-bit board
    confusion = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    per_class = {label: _class_report(confusion, classifier.labels.index(label)) for label in classifier.labels}
    recalls = [c.recall for c in per_class.values() if c.recall is not None]
    drop, drop_interval = None, None
    if other is not None:
        reference_right = reference_answers == truth
        drop, drop_interval = _paired_drop(reference_right, right)
    elif card_top1 is not None:
        drop = 100 * (card_top1 - top1)
    return EvalReport(
        model=str(model),
        source=str(data.source),
        split=chosen,
        images=len(samples),
        top1=top1,
        top1_interval=_by_group(right, groups) if grouped else wilson(int(right.sum()), len(right)),
        interval="groups resampled" if grouped else "Wilson",
        top5=float((order[:, :5] == truth[:, None]).any(1).mean()) if classes > 5 else None,
        balanced=float(np.mean(recalls)),
        calibration_error=_calibration_error(scores[np.arange(len(scores)), answers], right),
        temperature=classifier.card.temperature if classifier.card else 1.0,
        per_class=per_class,
        labels=classifier.labels,
        confusion=tuple(map(tuple, confusion.tolist())),
        accelerator=accelerator,
        runtime=runtime,
        ms_per_image=sum(stages.values()),
        stages_ms=dict(stages),
        reference=str(reference) if reference else None,
        reference_top1=float(reference_right.mean()) if other is not None else None,
        agreement=float((reference_answers == answers).mean()) if other is not None else None,
        drop_points=drop,
        drop_interval=drop_interval,
        skipped=skipped,
        warnings=tuple(_warnings(classifier, data, chosen, known, max_drop is not None and other is None)),
        unknown=_unknown(unknown, strange, scores.max(1), right) if unknown else None,
        scores=scores,
        samples=samples,
    )


def check_drop(report: EvalReport, max_drop: float) -> None:
    """Raise GateError when the model is more than ``max_drop`` percentage points worse than what it is held to."""
    if report.drop_points is None:
        raise UsageError("there is no accuracy to hold --max-drop against", "give --reference OTHER.tflite")
    if report.drop_points > max_drop + 1e-9:
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
    for sample, scores in zip(report.samples, report.scores, strict=True):
        best = _first(scores)
        row = "" if sample.row < 0 else sample.row
        predicted = report.labels[best]
        writer.writerow(
            (sample.path, row, sample.label, predicted, f"{scores[best]:.4f}", int(predicted == sample.label))
        )
    write_text(target, text.getvalue())


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval (Wilson 1927) of a proportion of ``hits`` among ``count`` > 0."""
    p, z2 = hits / count, Z95**2
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(p * (1 - p) / count + z2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


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


def _first(scores: NDArray[np.float32]) -> int:
    return int(np.argmax(scores))  # the first of equal ones, as Classifier ranks them


def _class_report(confusion: NDArray[np.int64], index: int) -> ClassReport:
    hits, images, taken = int(confusion[index, index]), int(confusion[index].sum()), int(confusion[:, index].sum())
    return ClassReport(images, hits / images if images else None, hits / taken if taken else None)


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
        false_alarms_interval=wilson(int(passed.sum()), len(passed)),
        kept_top1=float(right[known >= least].mean()),
    )


def _by_group(right: NDArray[np.bool_], groups: Sequence[str]) -> tuple[float, float]:
    """95 % interval of the accuracy by drawing whole groups with replacement (cluster bootstrap)."""
    names = sorted(set(groups))
    place = np.searchsorted(names, groups)
    hits, sizes = np.bincount(place, right, len(names)), np.bincount(place, minlength=len(names))
    random = np.random.default_rng(0)
    draws = (random.integers(len(names), size=len(names)) for _ in range(1000))
    low, high = np.percentile([hits[drawn].sum() / sizes[drawn].sum() for drawn in draws], [2.5, 97.5])
    return float(low), float(high)


def _paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> tuple[float, tuple[float, float]]:
    """Points lost, and their 95 % interval, from the images that only one of the two gets right."""
    count, lost, won = len(before), int((before & ~after).sum()), int((~before & after).sum())
    drop = (lost - won) / count
    half = Z95 * math.sqrt(max(0.0, lost + won - (lost - won) ** 2 / count)) / count
    return 100 * drop, (100 * (drop - half), 100 * (drop + half))


def _calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_], bins: int = 15) -> float:
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(place, confidence, bins) - np.bincount(place, right, bins)
    return float(np.abs(gap).sum() / len(right))


def _warnings(
    classifier: Classifier, data: Dataset, split: str, known: Overlap | None, held_to_card: bool
) -> list[str]:
    found = list(classifier.notes)
    absent = sorted(set(classifier.labels) - set(data.labels))
    if absent:
        names = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        found.append(f"no image shows {names}: the accuracy says nothing of them")
    if held_to_card and classifier.card:
        of = classifier.card.accuracy
        found.append(f"the card's accuracy is of {of}: a drop against it means something on the same images only")
    if split == "train":
        found.append("these are training images: the accuracy flatters")
    elif known is not None and known.known:
        found.append(f"{known} are training images, by their content: the accuracy flatters")
    found += dataset.ignored_notes(data)
    if twice := sorted(label for label, count in Counter(classifier.labels).items() if count > 1):
        found.append(f"several outputs have one name and count as one class: {', '.join(twice[:5])}")
    accelerator = classifier.runtime.accelerator
    if accelerator.fallback_reason:
        found.append(f"ran on {accelerator}")
    if accelerator.warning:
        found.append(f"ran on {accelerator}: {accelerator.warning}")
    return found
