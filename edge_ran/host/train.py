"""`edge-ran train`: labelled pictures -> a run folder with a network, its card and its curves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

from edge_ran import __version__, dataset, plots
from edge_ran.card import InputSpec, ModelCard
from edge_ran.catalogue import nearest
from edge_ran.errors import InputError, UsageError
from edge_ran.files import write_text
from edge_ran.host import networks
from edge_ran.host.run_output import RunOutput
from edge_ran.host.training_loop import Examples, Progress, Recipe, fit, fit_temperature, predict, scores

RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        # Rises to a high rate and falls to zero in few epochs (Smith and Topin 2017, arXiv 1708.07120).
        Recipe("one-cycle", 30, 128, 0.2, "one-cycle", warmup=0.2, label_smoothing=0.1),
        Recipe("cosine", 30, 128, 0.1, "cosine", warmup=0.05, label_smoothing=0.1),
        # Section 4.1: batch 64, 0.1 divided by ten at 64 k and 96 k of 160 k steps, decay 1e-4: 205 epochs of CIFAR-10.
        Recipe("paper", 205, 64, 0.1, "step", weight_decay=1e-4),
    )
}
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class TrainReport:
    """What `train` did. Accuracies are 0..1; ``test_top1`` is None where the data has no test split."""

    run: str
    network: str
    parameters: int
    epochs: int
    train_images: int
    validation_images: int
    test_images: int
    validation_top1: float | None
    test_top1: float | None
    precision: str
    seconds: float
    warning: str = ""


@dataclass(frozen=True)
class Data:
    """The three parts of a labelled set, as pixels; ``validation`` and ``test`` may be missing.

    ``warning`` is a line about a split that flatters, or empty.
    """

    labels: tuple[str, ...]
    train: Examples
    validation: Examples | None
    test: Examples | None
    summary: dict[str, Any]
    warning: str = ""


def recipe(name: str, **changes: Any) -> Recipe:
    """Return the preset of that name with the changes that are not None. Raises UsageError."""
    if name not in RECIPES:
        raise UsageError(f"no recipe is called {name!r}", nearest(name, RECIPES))
    return dataclasses.replace(RECIPES[name], **{k: v for k, v in changes.items() if v is not None})


def train(
    source: Path,
    run: Path,
    architecture: networks.Architecture,
    how: Recipe,
    *,
    fit_to: str = "stretch",
    validation_fraction: float = 0.1,
    balance: bool = False,
    precision: str = "float32",
    seed: int = 0,
    resume: bool = False,
    force: bool = False,
    skip_bad: bool = False,
    checkpoint_s: float = 120.0,
    on_load: Callable[[int, int], None] | None = None,
    on_step: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[list[dict[str, float]]], None] | None = None,
) -> TrainReport:
    """Train a network on labelled pictures.

    Args:
        source: whatever ``dataset.load`` reads.
        run: the run folder to write; ``resume`` continues the one that is there.
        validation_fraction: share of the training pictures to choose the best epoch on; whole groups (clips) go to one
            side. Ignored where the data names its own validation split.
        balance: weigh classes by the inverse of their counts.
        precision: ``float32``, ``bfloat16``, or ``auto``: measures both where the processor has bfloat16.

    Raises:
        InputError: the pictures cannot be learnt from; the checkpoint is of another run.
        OutputExists: the run folder is there and neither ``resume`` nor ``force`` was given.
    """
    started = time.monotonic()
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision!r} is unknown", nearest(precision, PRECISIONS))
    output = RunOutput(run, resume, force)
    spec = InputSpec(architecture.input_size, architecture.input_size, fit=fit_to)
    data = read(source, spec, validation_fraction, seed, run, skip_bad, on_load)
    architecture = dataclasses.replace(architecture, classes=len(data.labels))
    settings = {
        "architecture": dataclasses.asdict(architecture),
        "recipe": dataclasses.asdict(how),
        "seed": seed,
        "balance": balance,
        "data": data.summary,
    }
    identity = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    chosen = _precision(output.folder if resume else None, precision, architecture, how)
    tf_keras.utils.set_random_seed(seed)
    model = _build(architecture, chosen)
    output.begin()
    work = output.folder
    write_text(
        work / "settings.json",
        json.dumps({**settings, "precision": chosen, "source": str(Path(source).resolve())}, indent=1),
    )
    weights = _class_weights(data.train.labels, len(data.labels)) if balance else None
    board = tf.summary.create_file_writer(str(work / "tensorboard"))

    def after_epoch(history: list[dict[str, float]]) -> None:
        plots.training_curves(history, work / "curves.png")
        with board.as_default(step=int(history[-1]["epoch"])):
            for name, value in history[-1].items():
                tf.summary.scalar(name, value)
        board.flush()
        if on_epoch:
            on_epoch(history)

    history = fit(
        model,
        data.train,
        data.validation,
        spec,
        how,
        work,
        seed=seed,
        class_weights=weights,
        checkpoint_s=checkpoint_s,
        identity=identity,
        on_step=on_step,
        on_epoch=after_epoch,
    )
    if chosen != "float32":
        trained, model = model, _build(architecture, "float32")
        model.set_weights([np.asarray(w, np.float32) for w in trained.get_weights()])

    validation_top1, temperature = None, 1.0
    if data.validation is not None:
        probabilities = predict(model, data.validation.pixels, spec)
        validation_top1 = scores(probabilities, data.validation.labels)[1]
        temperature = fit_temperature(probabilities, data.validation.labels)
    test_top1 = None
    if data.test is not None:
        test_top1 = scores(predict(model, data.test.pixels, spec), data.test.labels)[1]
    measured = (
        ("test", test_top1, data.test) if test_top1 is not None else ("validation", validation_top1, data.validation)
    )
    accuracy = {}
    if measured[2] is not None:
        accuracy = {
            "dataset": data.summary["dataset"],
            "split": measured[0],
            "images": len(measured[2]),
            "top1": round(float(measured[1] or 0.0), 6),
        }
    card = ModelCard(
        name=f"{architecture.name}-{data.summary['dataset']}",
        labels=data.labels,
        input=spec,
        network=architecture.name,
        options=dataclasses.asdict(architecture),
        training={
            **data.summary,
            "recipe": dataclasses.asdict(how),
            "seed": seed,
            "best_epoch": int(max(history, key=_rank)["epoch"]),
            "precision": chosen,
        },
        accuracy=accuracy,
        temperature=round(temperature, 4),
        versions=versions(),
    )
    networks.save(model, work / "model.keras")
    write_text(work / "card.json", card.to_json())
    board.close()
    output.finish()
    return TrainReport(
        run=str(run),
        network=architecture.name,
        parameters=model.count_params(),
        epochs=how.epochs,
        train_images=len(data.train),
        validation_images=len(data.validation or ()),
        test_images=len(data.test or ()),
        validation_top1=validation_top1,
        test_top1=test_top1,
        precision=chosen,
        seconds=time.monotonic() - started,
        warning=data.warning,
    )


def read(
    source: Path,
    spec: InputSpec,
    validation_fraction: float,
    seed: int,
    cache: Path | None = None,
    skip_bad: bool = False,
    on_load: Callable[[int, int], None] | None = None,
) -> Data:
    """Read and split a labelled set. Raises InputError where there is nothing to learn from."""
    labelled = dataset.load(source)
    if skip_bad:
        good, problems = dataset.readable(labelled.samples, progress=on_load)
        labelled = dataclasses.replace(labelled, samples=good)
    else:
        problems = ()
    chosen = dict(zip(("train", "val"), dataset.split(labelled, validation_fraction, seed), strict=True))
    chosen["test"] = tuple(s for s in labelled.samples if s.split == "test")
    parts: dict[str, Examples | None] = {}
    digest = hashlib.sha256()
    for name, samples in chosen.items():
        if not samples:
            parts[name] = None
            continue
        pixels = dataset.pixels(samples, spec, cache=cache, progress=on_load)
        targets = dataset.targets(samples, labelled.labels).astype(np.int32)
        parts[name] = Examples(pixels, targets)
        digest.update(name.encode() + targets.tobytes())
        for start in range(0, len(pixels), 4096):  # in blocks: a memory-mapped set may be larger than memory
            digest.update(np.ascontiguousarray(pixels[start : start + 4096]).data)
    if parts["train"] is None:
        raise InputError(f"{source} has no pictures to train on", "give a folder with one sub-folder for each class")
    grouped = any(s.group for s in labelled.samples)
    summary = {
        "dataset": Path(source).resolve().stem,
        "split_by": "group" if grouped else "picture",
        "validation_fraction": validation_fraction,
        "skipped": len(problems),
        "sha256": digest.hexdigest(),
    }
    summary |= {f"{name}_images": len(part) if part else 0 for name, part in parts.items()}
    warning = dataset.frame_leak(chosen["train"], parts["train"].pixels)
    return Data(labelled.labels, parts["train"], parts["val"], parts["test"], summary, warning)


def versions() -> dict[str, str]:
    """Versions that decide what a network or a file looks like."""
    return {
        "edge_ran": __version__,
        "tensorflow": tf.__version__,
        "tf_keras": tf_keras.__version__,
        "python": platform.python_version(),
    }


def _rank(record: dict[str, float]) -> tuple[float, float, float]:
    return record.get("validation_top1", 0.0), -record.get("validation_loss", 0.0), record["epoch"]


def _build(architecture: networks.Architecture, precision: str) -> tf_keras.Model:
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        return networks.build(architecture)
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def _class_weights(labels: NDArray[np.int32], classes: int) -> NDArray[np.float32]:
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    return (len(labels) / (classes * counts)).astype(np.float32)


def _precision(resumed: Path | None, wanted: str, architecture: networks.Architecture, how: Recipe) -> str:
    """A resumed run keeps its precision; ``auto`` measures where the processor has bfloat16 at all."""
    settings = resumed / "settings.json" if resumed else None
    if settings and settings.exists() and (settings.parent / "checkpoint.npz").exists():
        return str(json.loads(settings.read_text()).get("precision", "float32"))
    if wanted != "auto":
        return wanted
    if not _has_bfloat16():
        return "float32"
    seconds = {p: _step_seconds(_build(architecture, p), how.batch_size) for p in ("float32", "bfloat16")}
    return min(seconds, key=lambda p: seconds[p])


def _has_bfloat16() -> bool:
    if tf.config.list_physical_devices("GPU"):
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _step_seconds(model: tf_keras.Model, batch: int) -> float:
    optimizer = tf_keras.optimizers.SGD(0.0)
    x = tf.random.stateless_uniform((batch, *model.input_shape[1:]), (0, 0), -1.0, 1.0)

    @tf.function
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.math.log(model(x, training=True) + 1e-7))
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        return loss

    step().numpy()
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        step().numpy()
        times.append(time.perf_counter() - begun)
    return min(times)
