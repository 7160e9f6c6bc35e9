"""`train --budget`: how fast each candidate would be on the device, before anything is trained.

Latency does not depend on the weights, so every candidate is converted with random ones and measured by `benchmark`,
here or on another machine. The one to train is the largest that fits, by multiply-adds; those
that can start from shipped weights come first.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tf_keras

from edge_ran import catalogue, runs, start
from edge_ran.architecture import Architecture
from edge_ran.card import InputSpec, ModelCard
from edge_ran.errors import EnvironmentMissing, GateError, InputError
from edge_ran.files import TemporaryFolder
from edge_ran.graph import attach_card
from edge_ran.host import calibration, convert, networks
from edge_ran.host.flatbuffer import flatbuffer
from edge_ran.runtime.output_capture import captured

CANDIDATES = (  # network, input size, width
    ("edge50", 32, 0.5), ("edge50", 32, 1.0),
    ("places38", 64, 0.5), ("places38", 64, 1.0),
    ("places38", 96, 0.5), ("places38", 96, 1.0),
    ("places38", 128, 1.0),
)  # fmt: skip
RUNS = 50


@dataclass(frozen=True)
class Candidate:
    """One network that was measured: ``median_ms`` of an inference, ``fits`` the budget or not."""

    network: str
    input_size: int
    width: float
    precision: str
    multiply_adds: int
    median_ms: float
    fits: bool


@dataclass(frozen=True)
class BudgetResult:
    """All candidates, the fastest first, and the one to train."""

    device: str
    budget_ms: float
    candidates: tuple[Candidate, ...]
    chosen: Candidate


def choose(
    budget_ms: float,
    device: str,
    shape: Callable[[str, int, float], Architecture],
    *,
    start_from: str = start.AUTO,
    precision: str = "int8",
    candidates: Sequence[tuple[str, int, float]] = CANDIDATES,
    on_stage: Callable[[str], None] = lambda text: None,
) -> BudgetResult:
    """Measure the candidates on a device and return the largest that fits.

    Args:
        budget_ms: most milliseconds that the median inference may take.
        device: what ``--device`` takes; ``local`` is this machine.
        shape: the architecture of a network's name, input size and width, with all else as it will be trained.
        start_from: where the weights will come from, as ``TrainOptions.start``; a run leaves the candidates of its own
            architecture.
        precision: name of a converter.
        candidates: (network, input size, width) of each.
        on_stage: called with a few words on what begins.

    Raises:
        InputError: the weights of ``start_from`` fit no candidate.
        UsageError: an option of the architecture is out of range.
        GateError: none fits.
        EnvironmentMissing: the device cannot be measured on.
    """
    how = catalogue.converter(precision)
    shapes = _startable(start_from, {one: shape(*one) for one in candidates})
    with TemporaryFolder() as folder:
        files, work = [], []
        for (name, size, width), chosen in shapes.items():
            on_stage(f"building {name}, {size} px, width {width:g}")
            file = Path(folder) / f"{name}-{size}-{width:g}.tflite"
            work.append(_build(chosen, how, file))
            files.append(file)
        on_stage(f"measuring {len(files)} networks on {device}")
        medians = _measure(files, device)
    found = [
        Candidate(name, size, width, precision, macs, ms, ms <= budget_ms)
        for (name, size, width), macs, ms in zip(shapes, work, medians, strict=True)
    ]
    found.sort(key=lambda c: c.median_ms)
    fitting = [c for c in found if c.fits]
    if not fitting:
        fastest = found[0]
        raise GateError(
            f"no network fits {budget_ms:g} ms on {device}: the fastest, {fastest.network} at {fastest.input_size} px "
            f"with width {fastest.width:g}, takes {fastest.median_ms:.2f} ms",
            f"--budget {math.ceil(fastest.median_ms * 110) / 100:g}ms, or a faster device",
        )

    def worth(one: Candidate) -> tuple[bool, int]:
        """A network that will start from pretrained weights is worth more than a larger one that will not."""
        chosen = shapes[one.network, one.input_size, one.width]
        return start.first_weights(start_from, chosen) != start.NONE, one.multiply_adds

    return BudgetResult(device, budget_ms, tuple(found), max(fitting, key=worth))


def _startable(
    start_from: str, shapes: dict[tuple[str, int, float], Architecture]
) -> dict[tuple[str, int, float], Architecture]:
    """The candidates that can start from there. Raises InputError: none can, or there is no such run."""
    if start_from in (start.AUTO, start.NONE):
        return shapes
    runs.named(Path(start_from))
    fitting = {}
    for one, chosen in shapes.items():
        with contextlib.suppress(InputError):
            start.find(start_from, chosen)
            fitting[one] = chosen
    if not fitting:
        what = f"--from {start_from} fits none of the networks that --budget measures"
        raise InputError(what, "leave --budget away, and give the --network and the --width of that run")
    return fitting


def _build(chosen: Architecture, how: catalogue.Converter, target: Path) -> int:
    """Write a candidate's file; return its multiply-adds."""
    model, spec = random_network(chosen), InputSpec(chosen.input_size, chosen.input_size)
    with captured():
        pixels = calibration.of_folder(None, spec, 8)[0] if how.calibration else None
        rewritten = convert.rewrite_for(model, how).model
        data = flatbuffer(functools.partial(rewritten, training=False), how, spec, pixels)
    labels = tuple(f"class {i}" for i in range(chosen.classes))
    target.write_bytes(attach_card(data, ModelCard(chosen.name, labels, spec, network=chosen.name)))
    return sum(networks.multiply_adds(model).values())


def random_network(chosen: Architecture) -> tf_keras.Model:
    """Build a network with random BatchNorm statistics: from fresh ones the converter would delete operators."""
    tf_keras.utils.set_random_seed(0)
    model, random = networks.build(chosen), np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [random.uniform(0.5, 1.5, shape), *random.normal(0, 0.3, (2, *shape)), random.uniform(0.5, 2, shape)]
            )
    return model


def _measure(files: Sequence[Path], device: str) -> list[float]:
    """Median milliseconds of each file, measured by `benchmark` in turns, in a process without TensorFlow."""
    words = [sys.executable, "-m", "edge_ran", "benchmark", *map(str, files), "--device", device, "--cpu"]
    words += ["--num-runs", str(RUNS), "--json", "--quiet"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
        raise EnvironmentMissing(
            f"the candidates cannot be measured on {device}: {reason.removeprefix('edge-ran: ')}",
            f"edge-ran devices {device}",
        )
    said = json.loads(done.stdout)
    reports = said if isinstance(said, list) else said.get("models") or said.get("results") or [said]
    return [float(one["latency"]["median_ms"]) for one in reports]
