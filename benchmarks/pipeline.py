"""From a clip or camera to answers: edge-ran's pipeline beside a plain OpenCV loop, MediaPipe Tasks and Ultralytics.

    python benchmarks/pipeline.py CLIP [--model M] [--rounds 7] [--json]
        [--mediapipe PYTHON] [--ultralytics PYTHON --ultralytics-model M]

Every contender gets the same clip and the same .tflite (with its card inside, so that the others can read it), opened
once, and plays it as fast as possible, one after the other in turns, so that a machine that other programs use disturbs
all of them alike; what counts is the ratio within a round. MediaPipe and Ultralytics need packages that do not go with
ours: name the Python of an environment that has them. Ultralytics takes int8 or float inputs only, so it gets a file of
its own: the same network, converted with ``--io int8``; a ``metadata.json`` is put into a copy, as its export does. (It
feeds pixels as 0..1, whatever the network was trained with: its speed counts here, not its answers.)

Afterwards, with a camera that is clocked: the share of the camera's rate that is classified when the camera is the
slower part, the share of the inference-only rate when the network is (with a camera a quarter faster than it), and the
age of an answer in both, against a loop that reads, classifies, reads. Where fitting a frame costs as much as a small
network, the inference-only rate is out of reach of anything that takes frames: "of every core" is the share of what the
processor gives at most, each core fitting and inferring frames of its own, one after the other, on one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

Play = Callable[[Path], int]  # plays a clip through an opened model and returns the number of frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_ran.camera import Frame
    from edge_ran.classifier import Classifier

    Pictures = Sequence[NDArray[np.uint8]]

HERE = Path(__file__).resolve()


def plain_loop(model: Path) -> Play:
    """What a tutorial shows: read, resize, run, read."""
    from edge_ran.classifier import Classifier

    classifier = Classifier(model)

    def play(clip: Path) -> int:
        video, frames = cv2.VideoCapture(str(clip)), 0
        while (read := video.read())[0]:
            classifier.classify(np.asarray(read[1], np.uint8))
            frames += 1
        return frames

    return play


def ours(model: Path) -> Play:
    from edge_ran.camera import open_source
    from edge_ran.classifier import Classifier
    from edge_ran.stream import Stream

    classifier = Classifier(model)

    def play(clip: Path) -> int:
        with Stream(classifier, lambda: open_source(str(clip)), realtime=False, parallel=0) as stream:
            return sum(1 for _ in stream)

    return play


def mediapipe_loop(model: Path) -> Play:
    """MediaPipe's own example for videos, in its video mode."""
    import mediapipe as mp
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=str(model)),
        running_mode=vision.RunningMode.VIDEO,
        max_results=3,
    )
    classifier = vision.ImageClassifier.create_from_options(options)
    shown = 0  # its clock may not go back

    def play(clip: Path) -> int:
        nonlocal shown
        video, frames = cv2.VideoCapture(str(clip)), 0
        while (read := video.read())[0]:
            rgb = cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
            classifier.classify_for_video(mp.Image(image_format=mp.ImageFormat.SRGB, data=rgb), (shown + frames) * 40)
            frames += 1
        shown += frames
        return frames

    return play


def ultralytics_loop(model: Path) -> Play:
    """Ultralytics' own loop over a video, its results taken one by one so that they do not pile up."""
    from ultralytics import YOLO

    network = YOLO(str(model), task="classify")
    side = int(model.stem.rpartition("_")[2])

    def play(clip: Path) -> int:
        return sum(1 for _ in network.predict(str(clip), stream=True, imgsz=side, verbose=False, device="cpu"))

    return play


CONTENDERS: dict[str, Callable[[Path], Play]] = {
    "edge-ran": ours,
    "opencv loop": plain_loop,
    "mediapipe": mediapipe_loop,
    "ultralytics": ultralytics_loop,
}


def timed(play: Play, clip: Path) -> tuple[float, float]:
    """Milliseconds a frame, and those of processor time, the clip's opening included."""
    began, worked = time.perf_counter(), time.process_time()
    frames = play(clip)
    return (time.perf_counter() - began) * 1e3 / frames, (time.process_time() - worked) * 1e3 / frames


class Peer:
    """A contender in a process of its own, warmed up, that runs a round for each line it is sent."""

    def __init__(self, name: str, python: str, model: Path, clip: Path) -> None:
        words = [python, str(HERE), str(clip), "--model", str(model), "--serve", name]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def round(self) -> tuple[float, float]:
        assert self._process.stdin
        print(file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> tuple[float, float]:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("ms "):
                wall_ms, cpu_ms = line[3:].split()
                return float(wall_ms), float(cpu_ms)
        raise SystemExit(f"the other process ended with {self._process.wait()}; its words are above")


class Clocked:
    """A live camera for measuring: hands out the pictures of a clip, ``fps`` a second, whether they are read or not."""

    live, name = True, "clocked"

    def __init__(self, images: Pictures, fps: float) -> None:
        self.fps = fps
        self._images, self._index = images, -1
        self._began = time.monotonic()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            yield self.read()

    def read(self) -> Frame:
        from edge_ran.camera import Frame

        # The next picture that is not yet there; those that nobody waited for are gone, as with a camera.
        index = max(self._index + 1, int((time.monotonic() - self._began) * self.fps) + 1)
        time.sleep(max(0.0, self._began + index / self.fps - time.monotonic()))
        self._index = index
        taken = self._began + index / self.fps
        return Frame(self._images[index % len(self._images)], index, taken, index / self.fps)

    def close(self) -> None:
        """Nothing to give back."""


def alone(classifier: Classifier, image: NDArray[np.uint8], seconds: float) -> float:
    """Inferences a second, one after the other on one prepared picture: what no pipeline can exceed."""
    x = classifier.prepare(image)
    began, runs = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        classifier.runtime.run(x)
        runs += 1
    return runs / (time.perf_counter() - began)


def on_every_core(model: Path, images: Pictures, seconds: float) -> float:
    """Frames a second when each core fits and infers frames of its own, with nothing to wait for between them."""
    from edge_ran.classifier import Classifier
    from edge_ran.machine import available_cores
    from edge_ran.runtime import RuntimeOptions

    until = time.perf_counter() + seconds

    def work(classifier: Classifier) -> int:
        count = 0
        while time.perf_counter() < until:
            classifier.runtime.run(classifier.prepare(images[count % len(images)]))
            count += 1
        return count

    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        one = RuntimeOptions(threads=1)
        classifiers = [stack.enter_context(Classifier(model, one)) for _ in range(available_cores())]
        until = time.perf_counter() + seconds
        return sum(pool.map(work, classifiers)) / seconds


def pipelined(classifier: Classifier, images: Pictures, fps: float, seconds: float) -> tuple[float, float, float]:
    """Our pipeline on a clocked camera: results a second, their median age in milliseconds, how busy the cores are."""
    from edge_ran.camera import Limits
    from edge_ran.machine import available_cores
    from edge_ran.stream import Stream

    limits = Limits(frozen_s=0)
    with Stream(classifier, lambda: Clocked(images, fps), parallel=0, limits=limits, duration_s=seconds) as stream:
        began, worked = time.perf_counter(), time.process_time()
        count = sum(1 for _ in stream)
        busy = (time.process_time() - worked) / (time.perf_counter() - began) / available_cores()
    summary = stream.summary()
    assert summary.captured == summary.classified + sum(summary.dropped.values())
    assert summary.latency
    return count / summary.seconds, summary.latency.p50_ms, busy


def looped(classifier: Classifier, images: Pictures, fps: float, seconds: float) -> tuple[float, float]:
    """The same of a loop that reads, classifies, reads."""
    camera, began, ages = Clocked(images, fps), time.monotonic(), []
    while time.monotonic() - began < seconds:
        frame = camera.read()
        classifier.classify(frame.image)
        ages.append((time.monotonic() - frame.captured_at) * 1e3)
    return len(ages) / (time.monotonic() - began), statistics.median(ages)


def clocked(model: Path, images: Pictures, fps: float, seconds: float, rounds: int, threads: int) -> dict[str, float]:
    """Rounds of: the network alone, our pipeline, a plain loop, the network alone again; medians of the ratios.

    ``fps`` 0 clocks the camera a quarter faster than the network. The limit is the camera's rate or the network's
    (mean of before and after), whichever is lower.
    """
    from edge_ran.classifier import Classifier
    from edge_ran.runtime import RuntimeOptions

    rows = []
    with Classifier(model, RuntimeOptions(threads=threads)) as classifier:
        alone(classifier, images[0], 0.5)
        for _ in range(rounds):
            before = alone(classifier, images[0], seconds)
            rate = fps or 1.25 * before
            ours, age, busy = pipelined(classifier, images, rate, seconds)
            plain, plain_age = looped(classifier, images, rate, seconds)
            after = alone(classifier, images[0], seconds)
            limit, cores = min(rate, (before + after) / 2), on_every_core(model, images, seconds)
            ratios = (ours / limit, plain / limit, age, plain_age, after / before, ours / min(rate, cores), busy)
            rows.append((limit, *ratios))
    columns = list(zip(*rows, strict=True))
    ages = ("edge_ran_age_ms", "opencv_loop_age_ms")
    names = ("limit_fps", "edge_ran", "opencv_loop", *ages, "alone_again", "of_every_core", "busy")
    middle = {name: statistics.median(column) for name, column in zip(names, columns, strict=True)}
    return {**middle, "edge_ran_lowest": min(columns[1]), "edge_ran_highest": max(columns[1])}


def with_card(model: Path, folder: Path) -> Path:
    """The model, with a card inside if it has none: MediaPipe and Ultralytics cannot open it without."""
    from edge_ran.card import InputSpec, ModelCard
    from edge_ran.graph import attach_card, read_card, read_graph

    if read_card(model):
        return model
    graph = read_graph(model)
    labels = tuple(f"class {index}" for index in range(graph.outputs[0].shape[-1]))
    height, width = graph.inputs[0].shape[1:3]
    target = folder / "with_card.tflite"
    target.write_bytes(attach_card(model.read_bytes(), ModelCard(model.stem, labels, InputSpec(height, width))))
    return target


def for_ultralytics(model: Path, folder: Path) -> Path:
    """A copy with the metadata that Ultralytics' export writes; the name tells the side of the input."""
    from edge_ran.graph import read_card, read_graph

    graph, card = read_graph(model), read_card(model)
    side, classes = graph.inputs[0].shape[1], graph.outputs[0].shape[-1]
    labels = card.labels if card else tuple(f"class {index}" for index in range(classes))
    metadata = {
        **{"task": "classify", "batch": 1, "stride": 1, "channels": 3, "imgsz": [side, side], "args": {}},
        "names": dict(enumerate(labels)),
    }
    target = folder / f"for_ultralytics_{side}.tflite"
    target.write_bytes(model.read_bytes())
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr("metadata.json", json.dumps(metadata))
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--model", type=Path, help="default: the newest run's, else the shipped one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each clocked measurement; 0 leaves them out")
    parser.add_argument("--fps", type=float, default=30.0, help="of the clocked camera that is slower than the network")
    parser.add_argument("--threads", type=int, default=0, help="of the network in clocked measurements; 0 = every core")
    parser.add_argument("--mediapipe", metavar="PYTHON")
    parser.add_argument("--ultralytics", metavar="PYTHON")
    parser.add_argument("--ultralytics-model", type=Path, help="the same network with an int8 or float32 input")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    if arguments.serve:
        play = CONTENDERS[arguments.serve](arguments.model)
        print("ms", *timed(play, arguments.clip), flush=True)
        for _ in sys.stdin:
            print("ms", *timed(play, arguments.clip), flush=True)
        return

    with tempfile.TemporaryDirectory() as folder:
        if arguments.model is None:
            from edge_ran.runs import default_tflite

            arguments.model = default_tflite(Path.cwd())
        model = with_card(arguments.model, Path(folder))
        pythons = {"edge-ran": sys.executable, "opencv loop": sys.executable}
        pythons |= {n: p for n in ("mediapipe", "ultralytics") if (p := getattr(arguments, n))}
        models = dict.fromkeys(pythons, model)
        if arguments.ultralytics:
            models["ultralytics"] = for_ultralytics(arguments.ultralytics_model or model, Path(folder))
        peers = {name: Peer(name, python, models[name], arguments.clip) for name, python in pythons.items()}
        peers["edge-ran again"] = Peer("edge-ran", sys.executable, model, arguments.clip)  # what chance alone does
        rounds = []
        for number in range(arguments.rounds):
            rounds.append({name: peer.round() for name, peer in peers.items()})
            shown = ", ".join(f"{name} {wall:.2f} ({cpu:.2f})" for name, (wall, cpu) in rounds[-1].items())
            print(f"round {number + 1}, ms a frame (of processor time): {shown}", file=sys.stderr)
        report: dict[str, Any] = {"model": str(arguments.model), "clip": str(arguments.clip), "contenders": {}}
        for name in peers:
            ratios = [r[name][0] / r["edge-ran"][0] for r in rounds]
            report["contenders"][name] = {
                "ms_per_frame": statistics.median(r[name][0] for r in rounds),
                "cpu_ms_per_frame": statistics.median(r[name][1] for r in rounds),
                "times_edge_ran": statistics.median(ratios),
                "lowest": min(ratios),
                "highest": max(ratios),
            }
        if arguments.seconds:
            from edge_ran.camera import open_source

            images = [frame.image for frame in islice(open_source(str(arguments.clip)), 60)]
            for case, fps in (("camera_bound", arguments.fps), ("network_bound", 0.0)):
                report[case] = clocked(model, images, fps, arguments.seconds, arguments.rounds, arguments.threads)

    if arguments.json:
        print(json.dumps(report, indent=1))
        return
    print(f"{'':<16}  ms a frame   of processor time   times edge-ran (lowest to highest round)")
    for name, row in report["contenders"].items():
        print(
            f"{name:<16}  {row['ms_per_frame']:>10.2f}   {row['cpu_ms_per_frame']:>17.2f}   "
            f"{row['times_edge_ran']:.2f} ({row['lowest']:.2f} to {row['highest']:.2f})"
        )
    for case in ("camera_bound", "network_bound"):
        if row := report.get(case):
            print(
                f"{case.replace('_', ' ')}: {row['edge_ran']:.1%} ({row['edge_ran_lowest']:.1%} to "
                f"{row['edge_ran_highest']:.1%}) of {row['limit_fps']:.1f} frames/s, opencv loop "
                f"{row['opencv_loop']:.1%}; edge-ran {row['of_every_core']:.1%} of every core, which were "
                f"{row['busy']:.0%} busy; "
                f"age of an answer {row['edge_ran_age_ms']:.1f} ms, opencv loop "
                f"{row['opencv_loop_age_ms']:.1f} ms; the network alone again {row['alone_again']:.1%}"
            )


if __name__ == "__main__":
    main()
