"""One page of what a classifier does on labelled pictures: by class, by group, its worst errors, its confidence.

`evaluate --html` writes it of a ``.tflite``, `train` of the network that it has just trained.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import attention, dataset, plots, report
from edge_ran.classifier import Classifier
from edge_ran.dataset import Sample
from edge_ran.errors import EdgeRanError
from edge_ran.evaluate import EvalReport
from edge_ran.intervals import wilson
from edge_ran.stream.decide import Decider
from edge_ran.unknown import UnknownReport

SMOOTHING = 0.8  # what `run --smoothing` is recommended with
FRAME_S = 0.1  # frames of a group count as consecutive frames of a camera, so far apart
WORST = 24
MOST_GROUPS = 60
SIDE = 144

Look = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class Answers:
    """What a classifier said of N labelled pictures: ``scores`` (N, classes) 0..1 in the order of ``labels``."""

    labels: tuple[str, ...]
    scores: NDArray[np.float32]
    samples: tuple[Sample, ...]

    @property
    def truth(self) -> NDArray[np.int64]:
        return dataset.targets(self.samples, self.labels)

    @property
    def predicted(self) -> NDArray[np.int64]:
        return np.asarray(self.scores.argmax(1), np.int64)

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.predicted == self.truth)


@dataclass(frozen=True)
class Clip:
    """One clip or visit: ``frames`` in order, the share that is right alone and after smoothing (both 0..1), and
    whether its most frequent smoothed answer is right."""

    group: str
    label: str
    frames: int
    alone: float
    smoothed: float
    whole: bool


def write(found: EvalReport, target: Path) -> None:
    """Write the page of an evaluation to ``target``, atomically.

    Raises:
        EnvironmentMissing: jinja2 or matplotlib is missing, or the disk is full.
    """
    answers = Answers(found.labels, found.scores, found.samples)
    low, high = found.top1_interval
    with _looking(Path(found.model)) as look:
        page = make(
            f"{Path(found.model).name} on {Path(found.source).name}",
            f"{found.images:,} pictures ({found.split}), on {found.accelerator.actual} with {found.runtime}.",
            answers,
            tiles=(report.Tile(f"{found.ms_per_image:.2f} ms", "a picture, all stages"),),
            interval=(low, high, found.interval),
            unknown=found.unknown,
            notes=found.warnings,
            look=look,
        )
    report.write(page, target)


class _looking:
    """A context that gives a function to lay the soft masks over a frame, or None where the model has no masks."""

    def __init__(self, model: Path) -> None:
        self.model = model
        self.classifier: Classifier | None = None

    def __enter__(self) -> Look | None:
        try:
            self.classifier = Classifier(self.model, attention=True)
        except EdgeRanError:
            return None
        return self._tinted

    def __exit__(self, *exc: object) -> None:
        if self.classifier:
            self.classifier.close()

    def _tinted(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        assert self.classifier is not None
        self.classifier.scores(frame)
        shown = frame.copy()
        attention.tint(shown, attention.chosen(self.classifier.looks(frame), attention.MEAN))
        return shown


def make(
    title: str,
    lead: str,
    answers: Answers,
    *,
    tiles: tuple[report.Tile, ...] = (),
    interval: tuple[float, float, str] | None = None,
    unknown: UnknownReport | None = None,
    history: Sequence[Mapping[str, float]] = (),
    notes: Sequence[str] = (),
    look: Look | None = None,
) -> report.Report:
    """Return the page.

    Args:
        title, lead: its head.
        answers: what was said of the pictures.
        tiles: further figures for its head.
        interval: 95 % interval of top-1 and how it was got; None takes Wilson's.
        unknown: what pictures of no class gave.
        history: one record an epoch, of a training.
        notes: sentences to read before the figures.
        look: lays the soft masks over a frame, (H, W, 3) uint8 BGR.
    """
    right, truth = answers.right, answers.truth
    top1 = float(right.mean())
    low, high, how = interval or (*wilson(int(right.sum()), len(right)), "Wilson")
    recalls = [float(right[truth == i].mean()) for i in range(len(answers.labels)) if (truth == i).any()]
    head = (
        report.Tile(f"{top1:.1%}", f"top-1 (95 %: {low:.1%} to {high:.1%}, {how})"),
        report.Tile(f"{np.mean(recalls):.1%}", "balanced: mean recall of the classes"),
        *tiles,
    )
    sections = [
        *([report.Section("Before you read", "\n".join(notes))] if notes else []),
        *([_curves(history)] if history else []),
        _by_class(answers),
        *_by_group(answers),
        *_worst(answers, look),
        _confidence(answers),
        *([_unknown(unknown)] if unknown else []),
    ]
    return report.Report(title, lead, head, tuple(sections))


def sequences(answers: Answers) -> list[Clip]:
    """Judge every group of two frames and more as a clip, its pictures in the order of their names and rows."""
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, sample in enumerate(answers.samples):
        if sample.group:
            members[sample.group, sample.label].append(index)
    found, truth = [], answers.truth
    for (group, label), indices in sorted(members.items()):
        if len(indices) < 2:
            continue
        indices.sort(key=lambda i: (str(answers.samples[i].path), answers.samples[i].row))
        decide = Decider(SMOOTHING)
        said = np.array([decide(answers.scores[i], FRAME_S * at)[1] for at, i in enumerate(indices)])
        true = truth[indices[0]]
        found.append(
            Clip(
                group,
                label,
                len(indices),
                float(answers.right[indices].mean()),
                float((said == true).mean()),
                bool(np.bincount(said).argmax() == true),
            )
        )
    return found


def _curves(history: Sequence[Mapping[str, float]]) -> report.Section:
    return report.Section("Training", parts=(report.drawing(partial(plots.training_curves, history)),))


def _by_class(answers: Answers) -> report.Section:
    truth, predicted, right, classes = answers.truth, answers.predicted, answers.right, len(answers.labels)
    confusion = np.bincount(classes * truth + predicted, minlength=classes**2).reshape(classes, classes)
    rows = []
    for index, label in enumerate(answers.labels):
        mine, taken = truth == index, predicted == index
        if not mine.any():
            rows.append((label, 0, None, "", float(right[taken].mean()) if taken.any() else None, ""))
            continue
        hits = int(right[mine].sum())
        low, high = wilson(hits, int(mine.sum()))
        row = confusion[index].copy()
        row[index] = 0
        other = answers.labels[int(row.argmax())] if row.any() else ""
        precision = float(right[taken].mean()) if taken.any() else None
        rows.append((label, int(mine.sum()), hits / mine.sum(), f"{low:.1%} to {high:.1%}", precision, other))
    columns = ("class", "pictures", "recall", "95 %", "precision", "most taken for")
    table = report.Table(columns, tuple(rows), ("", ",", ".1%", "", ".1%"), ("recall",))
    drawn = report.drawing(partial(plots.confusion, confusion, answers.labels), follow=False)
    return report.Section("Classes", parts=(drawn, table))


def _by_group(answers: Answers) -> list[report.Section]:
    found = sequences(answers)
    if not found:
        return []
    frames = np.array([s.frames for s in found])
    alone, smoothed = (float(np.average([getattr(s, k) for s in found], weights=frames)) for k in ("alone", "smoothed"))
    whole = float(np.mean([s.whole for s in found]))
    text = (
        f"{len(found)} clips or visits. Frame by frame {alone:.1%} are right; as run --smoothing {SMOOTHING:g} would "
        f"say it, {smoothed:.1%}; the most frequent answer is right for {whole:.1%} of the clips."
    )
    worst = sorted(found, key=lambda s: (s.alone, s.group))
    rows = []
    for one in worst[:MOST_GROUPS]:
        low, high = wilson(round(one.alone * one.frames), one.frames)
        verdict = "right" if one.whole else "wrong"
        rows.append((one.group, one.label, one.frames, one.alone, f"{low:.1%} to {high:.1%}", one.smoothed, verdict))
    columns = ("clip or visit", "class", "frames", "alone", "95 %", "smoothed", "as a whole")
    note = f"The worst {MOST_GROUPS} of {len(found)}." if len(found) > MOST_GROUPS else "The worst first."
    table = report.Table(columns, tuple(rows), ("", "", ",", ".1%", "", ".1%"), ("alone",), note)
    return [report.Section("Clips and visits", text, (table,))]


def _worst(answers: Answers, look: Look | None) -> list[report.Section]:
    """The wrong answers with the highest scores, each picture with the soft masks over it."""
    confidence = answers.scores.max(1)
    wrong = np.flatnonzero(~answers.right)
    chosen = sorted(wrong[np.argsort(-confidence[wrong], kind="stable")[:WORST]].tolist())
    if not chosen:
        return []
    frames = dict(zip(chosen, dataset.frames([answers.samples[i] for i in chosen]), strict=True))
    pictures = []
    for index in sorted(chosen, key=lambda i: -confidence[i]):
        frame = frames[index]
        shown = frame if look is None else np.hstack([frame, look(frame)])
        said = f"{answers.labels[answers.predicted[index]]} {confidence[index]:.0%}"
        title = f"{answers.samples[index].label}: {answers.samples[index].path.name}"
        pictures.append(report.picture(_framed(shown), title, said, "bad", side=SIDE * (1 if look is None else 2)))
    text = "The wrong answers with the highest scores" + ("" if look is None else "; on the right where it looks") + "."
    return [report.Section("Most confidently wrong", text, (report.Strip(tuple(pictures)),))]


def _framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge what is smaller than the page shows it, so that single pixels can be seen."""
    factor = SIDE // max(1, picture.shape[0])
    if factor < 2:
        return picture
    size = (picture.shape[1] * factor, picture.shape[0] * factor)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _confidence(answers: Answers) -> report.Section:
    confidence = answers.scores.max(1)
    drawn = report.drawing(partial(plots.reliability, confidence, answers.right))
    rows = []
    for least in (0.0, 0.5, 0.7, 0.8, 0.9, 0.95):
        kept = confidence >= least
        if kept.any():
            rows.append((least, float(kept.mean()), float(answers.right[kept].mean())))
    columns = ("--threshold", "pictures answered", "top-1 of these")
    table = report.Table(columns, tuple(rows), (".2f", ".1%", ".1%"))
    text = "A score of 80 % should be right in 80 % of the cases; below the line it promises too much."
    return report.Section("Calibration", text, (drawn, table))


def _unknown(found: UnknownReport) -> report.Section:
    low, high = found.false_alarms_interval
    rows = (
        ("pictures of no class", f"{found.images:,}"),
        ("AUROC", f"{found.auroc:.3f}"),
        ("--threshold", f"{found.threshold:.4f}"),
        ("known pictures kept", f"{found.kept:.1%}"),
        ("top-1 of these", f"{found.kept_top1:.1%}"),
        ("unknown pictures let through", f"{found.false_alarms:.1%} (95 %: {low:.1%} to {high:.1%})"),
    )
    return report.Section("Unknown places", f"Pictures of {found.source}.", (report.Table(("", ""), rows),))
