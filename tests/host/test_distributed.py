"""Two real processes on loopback train as one does with the same global batch; a lost one ends all; resuming."""

from __future__ import annotations

import csv
import dataclasses
import os
import shutil
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import processes
import pytest
from ports import free_port

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tensorflow as tf

from edge_ran.architecture import Architecture, Stage
from edge_ran.errors import EdgeRanError, EnvironmentMissing, InputError
from edge_ran.host import distributed, networks
from edge_ran.host.checkpoint import EpochRecord
from edge_ran.host.distributed import Crew
from edge_ran.host.train import train
from edge_ran.host.training_loop import Callbacks, Progress
from edge_ran.recipe import Recipe, TrainOptions
from edge_ran.workers import from_words

# The sums of two workers are added in another order than one process adds them; nothing else may differ.
TOLERANCE = 2e-3

TINY = Architecture("tiny", 16, 3, 3, 8, 1, 2, (Stage(16, 8, 1, 1, 1),), (), 0, 1, 0, mask_pool=2)
HOW = Recipe(
    "quick", 3, 6, 0.05, "one-cycle", warmup=0.2, mixup=0.2, label_smoothing=0.1, average=0.9, mask_penalty=1e-3
)
OPTIONS = TrainOptions(validation_fraction=0.25, checkpoint_s=0.0)


def work(heard: Connection, data: Path, run: Path, addresses: str, worker: int, resume: bool) -> None:
    """Tell of each step; of two workers the second one is killed in the second epoch, unless it resumes."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

    def on_step(progress: Progress) -> None:
        heard.send(progress.step)
        if progress.step == 4 and worker == 1 and not resume:
            threading.Event().wait()

    options = {"resume": resume, "workers": from_words(addresses, worker), "callbacks": Callbacks(on_step=on_step)}
    try:
        train(data, run, TINY, HOW, OPTIONS, **options)
    except EdgeRanError as error:
        heard.send((str(error), error.remedy))


def free_addresses(count: int) -> str:
    return ",".join(f"127.0.0.1:{free_port()}" for _ in range(count))


def losses(run: Path) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def weights(run: Path) -> list[np.ndarray]:
    return networks.load(run / "model.keras").get_weights()


def test_more_workers_go_on_in_the_precision_that_a_run_was_begun_in(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one alone has the run, and tells the others."""

    def stop(history: Sequence[EpochRecord]) -> None:
        raise KeyboardInterrupt

    run, hosts, built = tmp_path / "run", free_addresses(2), list[str]()
    options = dataclasses.replace(OPTIONS, precision="bfloat16")
    with pytest.raises(KeyboardInterrupt):
        train(pictures, run, TINY, HOW, options, callbacks=Callbacks(on_epoch=stop))

    def build(precision: str, architecture: Architecture) -> None:
        built.append(precision)
        raise InputError("seen")

    monkeypatch.setattr("edge_ran.host.train.build_with", build)
    scratch = SimpleNamespace(name=tmp_path / "scratch")  # a folder that nobody closes would warn
    monkeypatch.setattr("edge_ran.host.train.TemporaryFolder", lambda parent: scratch)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: None)

    def go_on(worker: int) -> None:
        with pytest.raises(InputError, match="seen"):
            train(pictures, run, TINY, HOW, OPTIONS, resume=True, workers=from_words(hosts, worker))

    other = threading.Thread(target=go_on, args=(1,))
    other.start()
    go_on(0)
    other.join()
    assert built == ["bfloat16", "bfloat16"]


def test_only_the_end_of_a_connection_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = from_words(free_addresses(2), 0)
    assert workers is not None

    def used_before() -> None:
        raise RuntimeError("Collective ops must be configured at program startup")

    monkeypatch.setattr(distributed, "meet", lambda *_: None)
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", used_before)
    with pytest.raises(EnvironmentMissing, match="cannot connect with the others: Collective ops must") as caught:
        Crew(workers, "same")
    assert "a process that has not used TensorFlow" in caught.value.remedy
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: None)
    crew = Crew(workers, "same")
    with pytest.raises(EnvironmentMissing, match="lost another worker"), crew.connected():
        raise tf.errors.UnavailableError(None, None, "gone")
    with pytest.raises(tf.errors.ResourceExhaustedError), crew.connected():
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")


def test_two_workers_train_as_one_and_go_on_after_one_was_lost(pictures: Path, tmp_path: Path) -> None:
    """One test of several runs, for each process costs seconds of imports."""
    run, hosts = tmp_path / "run", free_addresses(2)
    (first, of_first), (second, of_second) = (
        processes.start(work, pictures, run, hosts, worker, False) for worker in (0, 1)
    )
    while of_second.recv() < 4:
        pass
    second.kill()
    *_, (what, remedy) = processes.said(of_first)
    first.join()
    second.join()
    assert what.startswith("worker 0 lost another worker (127.0.0.1:")
    assert "--resume" in remedy
    assert not (run / "card.json").exists()
    one = shutil.copytree(run, tmp_path / "one")

    hosts = free_addresses(2)
    both = [processes.start(work, pictures, run, hosts, worker, True) for worker in (1, 0)]
    train(pictures, tmp_path / "alone", TINY, HOW, OPTIONS)  # meanwhile
    train(pictures, one, TINY, HOW, OPTIONS, resume=True)  # what two began, one finishes
    for _, steps in both:
        assert processes.said(steps)[-1] == 9
    for folder in (run, one):
        np.testing.assert_allclose(losses(folder), losses(tmp_path / "alone"), rtol=TOLERANCE)
        for ours, theirs in zip(weights(folder), weights(tmp_path / "alone"), strict=True):
            # Several workers divide a batch's variance by its 96 values, one process by 95.
            np.testing.assert_allclose(ours, theirs, atol=0.01, rtol=0.02)
    assert len(list(tmp_path.glob("edge-ran-tmp-*"))) == 1  # the killed worker's, for pixels; swept ten minutes later
