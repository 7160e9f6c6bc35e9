"""One trained network through our runtime and its peers, in turns within one run: times, ratios, answers compared.

    python benchmarks/engines.py [--engine NAME=PYTHON ...] [--network edge50 indoor56 …] [--run NETWORK=RUN ...]
                                 [--precision fp32 int8] [--threads 1 2] [--sessions 5] [--rounds 6]
                                 [--labelled NETWORK=DATA ...] [--made FOLDER] [--clock processor] [--operators]
                                 [--json]

Networks: ``edge50`` and ``places38`` ship, trained. ``indoor56``, ImageNet's ``attention56``, with the paper's mask
tail and with a linear one, and the paper's networks for CIFAR-10 (``scripts/cifar`` trains them) have random weights
and random BatchNorm statistics (from fresh ones converters delete operators), unless ``--run`` names a run folder that
holds a trained one: the answers of random networks hang on every rounding.
Peers get them the way their users would: tf2onnx from the Keras graph as it was trained, each one's own post-training
quantiser with half of the calibration pictures; and, to tell the engine from the graph, from our rewritten graph as
well. tflite-runtime, and OpenVINO once more, get our files.

A peer needs packages that do not go with ours: ``--engine NAME=PYTHON`` names the Python of an environment that has
them (tflite-runtime: NumPy below 2; onnxruntime, onnx and sympy; openvino and nncf; ncnn and pnnx; MNN), and ``--engine
tf2onnx=PYTHON`` one with tf2onnx and TensorFlow. What is missing is said, and the rest goes on. ``--made`` keeps the
converted networks for the next time.

A session starts a process for each engine, since two loads of one file differ by up to 5 % for as long as they live;
within it all take short turns in random order. A ratio is a peer's time by ours within a round: above 1 we are faster.
The median is over all rounds, the two numbers beside it are the lowest and the highest session. "edge-ran again" is the
same thing twice: what its ratio differs from 1 is chance; "small pages" is ours without huge memory pages. Answers are
compared on pictures that calibrated nothing: float32 with ours; int8 with the float32 network's, as every quantiser
rounds otherwise. An engine that agrees with it on clearly fewer pictures than ours does is flagged and never called the
fastest. ``--labelled`` names labelled pictures of a trained network's classes (class folders, CSV, .npz; their test
split where there is one): then each engine's accuracy on up to 2,000 of them stands beside its time, and decides
instead: an engine that classifies clearly fewer of the same pictures correctly is flagged.

``--operators`` adds where the time goes: milliseconds by kind of operator, as each engine's own profiler tells them,
ours as ``edge-ran profile`` does. Profiling costs time of its own: a column's sum is somewhat above the latency.

On a machine that others use, too, ``--clock processor --threads 1`` counts the time that a process had a processor:
work of others still takes caches and memory from it, but no longer counts as its own.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from engine_peers import ENGINES

from edge_ran import machine, records, runs
from edge_ran.bench.limit import throughput

HERE = Path(__file__).resolve().parent
# Name here: network, options. A linear mask tail is what the rewrites merge and move before the upsampling.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "edge50": ("edge50", {}),
    "places38": ("places38", {}),
    "indoor56": ("indoor56", {}),
    "attention56": ("attention56", {}),
    "attention56-linear": ("attention56", {"mask_tail": "linear"}),
    "cifar_attention56": ("cifar_attention56", {}),
    "cifar_attention92": ("cifar_attention92", {}),
}
SHIPPED = {name: folder for name in NETWORKS if (folder := runs.shipped(name))}
OURS, AGAIN = "edge-ran", "edge-ran again"
TURN_MS = 100.0
PAUSE_S = 0.02  # thread pools go on spinning for a while after a turn and would take the next one's processor
FED = 8  # pictures that are run in turn
SAME_ANSWER = 1e-3  # of a probability, for float32
FEWER_RIGHT = 0.05  # int8: so many pictures less than ours, of those that agree with the float32 network
LABELLED = 2000  # labelled pictures at most
DEVIATIONS = 2.0  # by so many standard deviations fewer right answers than ours are no chance


class Worker:
    """An engine in a process of its own; ``ask`` sends it a line, ``answer`` waits for what it says."""

    def __init__(self, engine: str, python: str) -> None:
        words = [python, str(HERE / "engine_peers.py"), engine]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, do: str, **what: Any) -> None:
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # ``answer`` tells
            print(json.dumps({"do": do, **what}), file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": f"its process ended with {self.process.wait()}"}

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.close()
            self.process.wait(timeout=10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


@dataclass
class Contender:
    """An engine with one form of a network: what was made of it, what it answered, how long it took."""

    name: str
    engine: str
    python: str
    path: str
    probabilities: Any
    usual: bool  # whether that is how its users would get it
    right: Any = None  # (pictures,) whether it classifies each labelled picture correctly; None: there are none
    rounds: list[list[float]] = field(default_factory=list)  # a median for each round, in a list for each session


def make_sources(
    network: str, run: Path | None, folder: Path, tf2onnx: str, note: Callable[[str], None]
) -> dict[str, Any]:
    """Write the sources that engines start from, once; return what is known of the network."""
    record = folder / "network.json"
    if record.exists():
        return json.loads(record.read_text())
    from rewrites import random_network

    from edge_ran import catalogue, runs
    from edge_ran.host import convert, networks, rewrites
    from edge_ran.host.flatbuffer import flatbuffer
    from edge_ran.host.read_run import read_run
    from edge_ran.picture import read_picture
    from edge_ran.pictures import shipped_pictures
    from edge_ran.preprocess import fit_pixels, normalise
    from edge_ran.runtime.output_capture import captured

    run = run or SHIPPED.get(network)
    if run is not None:
        model, card = read_run(run)
        spec = card.input
    else:
        from edge_ran.card import InputSpec

        name, options = NETWORKS[network]
        model = random_network(name, **options)
        spec = InputSpec(*model.input_shape[1:3])
    pixels = np.stack([fit_pixels(read_picture(path), spec) for path in shipped_pictures()])
    if run is None:
        tell_apart(model, normalise(pixels, spec))
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "fed.npy", pixels[1 : 2 * FED : 2])
    np.save(folder / "compared.npy", pixels[1::2])
    for form, chosen in (("as trained", model), ("rewritten", rewrites.rewrite(model).model)):
        (folder / form).mkdir(exist_ok=True)
        np.save(folder / form / "calibration.npy", pixels[::2])
        saved, onnx = folder / form / "saved_model", folder / form / "network.onnx"
        save(chosen, saved)
        words = ["--saved-model", str(saved), "--output", str(onnx), "--opset", "17", "--inputs-as-nchw", "image"]
        done = subprocess.run([tf2onnx, "-m", "tf2onnx.convert", *words], capture_output=True, text=True)
        if done.returncode:
            note(f"without ONNX, {form}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
        shutil.rmtree(saved)
    ours = folder / "our file"
    ours.mkdir(exist_ok=True)
    for precision in ("fp32", "int8"):
        if run is not None and run == SHIPPED.get(network) and precision == "int8":
            shutil.copy(run / runs.SHIPPED_TFLITE, ours / "int8.tflite")
            continue
        how = catalogue.converter(precision)
        network_ours = functools.partial(convert.rewrite_for(model, how).model, training=False)
        with captured():
            data = flatbuffer(network_ours, how, spec, pixels[::2] if how.calibration else None)
        (ours / f"{precision}.tflite").write_bytes(data)
    known = {
        "network": network,
        "trained": run is not None,
        "multiply_adds": sum(networks.multiply_adds(model).values()),
    }
    if len(list(folder.glob("*/network.onnx"))) == 2:  # else another tf2onnx may come
        record.write_text(json.dumps(known))
    return known


def write_labelled(run: Path, data: Path, folder: Path) -> int:
    """Write labelled pictures of a run's classes, evenly chosen, as pixels of its size and the true class of each.

    Returns:
        how many.
    """
    from edge_ran import dataset, runs
    from edge_ran.preprocess import fit_pixels

    card, images = runs.open_run(run).card(), dataset.load(data).samples
    samples = [one for one in images if one.split == "test"] or list(images)
    chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, min(LABELLED, len(samples))).astype(int)]
    np.save(folder / "truth.npy", dataset.targets(chosen, card.labels))
    np.save(folder / "labelled.npy", np.stack([fit_pixels(frame, card.input) for frame in dataset.frames(chosen)]))
    return len(chosen)


def tell_apart(model: Any, pictures: Any) -> None:
    """Centre and scale a random network's logits, so that it sees a difference between pictures.

    As they come they lie hundreds apart, every picture is of the same class with certainty, and any engine agrees.
    """
    import tf_keras

    (dense,) = (layer for layer in model.layers if isinstance(layer, tf_keras.layers.Dense))
    features = tf_keras.Model(model.input, dense.input).predict(pictures, batch_size=8, verbose=0)
    kernel = dense.get_weights()[0]
    logits = features @ kernel
    scale = 2 / (logits - logits.mean(0)).std()
    dense.set_weights([kernel * scale, -logits.mean(0) * scale])


def save(model: Any, folder: Path) -> None:
    """Write a Keras network as a SavedModel of one function: (1, H, W, 3) float32 -> probabilities."""
    import tensorflow as tf

    from edge_ran.runtime.output_capture import captured

    module = tf.Module()
    module.weights = model.variables
    module.network = tf.function(lambda image: {"probabilities": model(image, training=False)}, autograph=False)
    image = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32, name="image")
    with captured():
        tf.saved_model.save(module, str(folder), signatures=module.network.get_concrete_function(image))


def contenders(
    folder: Path, precision: str, engines: Sequence[str], pythons: dict[str, str], note: Callable[[str], None]
) -> list[Contender]:
    """Let every engine prepare the network and answer for the pictures that calibrated nothing; ours comes first.

    Who cannot is said to be missing.
    """
    found = []
    for engine in engines:
        kind = ENGINES[engine]
        for form in kind.forms:
            name, python = f"{engine}, {form}" if len(kind.forms) > 1 else engine, pythons.get(engine, sys.executable)
            with Worker(engine, python) as worker:
                worker.ask("make", source=str(folder / form), precision=precision)
                made = worker.answer()
                right, labelled = None, folder / "labelled.npy"
                for pixels in (labelled, folder / "compared.npy") if labelled.exists() else (folder / "compared.npy",):
                    for do in ("load", "answer"):
                        if "failed" not in made:
                            worker.ask(do, path=made["path"], threads=1, pixels=str(pixels))
                            made |= worker.answer()
                    if pixels == labelled and "failed" not in made:
                        right = np.array(made["probabilities"]).argmax(1) == np.load(folder / "truth.npy")
            if "failed" in made:
                note(f"without {name}: {made['failed']}")
            else:
                usual, answers = form == kind.forms[0], np.array(made["probabilities"])
                found.append(Contender(name, engine, python, made["path"], answers, usual, right))
    return [found[0], dataclasses.replace(found[0], name=AGAIN, rounds=[]), *found[1:]]


def session(all_: list[Contender], folder: Path, threads: int, rounds: int, clock: str) -> None:
    """Start everyone anew and let them take turns."""
    workers = [Worker(one.engine, one.python) for one in all_]
    try:
        for one, worker in zip(all_, workers, strict=True):
            worker.ask("load", path=one.path, threads=threads, pixels=str(folder / "fed.npy"))
            one.rounds.append([])
        runs = [max(1, min(200, round(TURN_MS / worker.answer()["warm"]))) for worker in workers]
        order = list(range(len(all_)))
        for _ in range(rounds):
            random.shuffle(order)
            for place in order:
                time.sleep(PAUSE_S)
                workers[place].ask("time", runs=runs[place], clock=clock)
                all_[place].rounds[-1].append(float(np.median(workers[place].answer()["ms"])))
    finally:
        for worker in workers:
            worker.__exit__()


def row(one: Contender, ours: Contender, reference: Any, precision: str) -> dict[str, Any]:
    """What is said of a contender: ratios above 1 say that ours is faster."""
    by_session = [np.array(mine) / np.array(other) for mine, other in zip(one.rounds, ours.rounds, strict=True)]
    medians = [float(np.median(ratios)) for ratios in by_session]

    def agreement(probabilities: Any) -> float:
        return float((probabilities.argmax(1) == reference.argmax(1)).mean())

    same, ours_same = agreement(one.probabilities), agreement(ours.probabilities)
    difference = float(np.abs(one.probabilities - reference).max())
    if precision == "fp32":
        differs = difference > SAME_ANSWER
    elif one.right is None:
        differs = same < ours_same - FEWER_RIGHT
    else:
        differs = is_less_accurate(one.right, ours.right)
    return {
        "engine": one.name,
        "usual": one.usual,
        "median_ms": float(np.median(np.concatenate(one.rounds))),
        "ratio": float(np.median(np.concatenate(by_session))),
        "lowest": min(medians),
        "highest": max(medians),
        "agreement": same,
        "accuracy": None if one.right is None else float(one.right.mean()),
        "largest_difference": difference,
        "differs": bool(differs),
    }


def is_less_accurate(right: Any, ours: Any) -> bool:
    """Whether clearly fewer of the same pictures are classified correctly (McNemar's test on those that differ)."""
    lost, won = int((ours & ~right).sum()), int((right & ~ours).sum())
    return lost - won > DEVIATIONS * (lost + won) ** 0.5


def text(case: dict[str, Any]) -> str:
    """A case as a table."""
    lines = [
        f"{case['network']} {case['precision']}, {case['threads']} thread{'s' * (case['threads'] > 1)}, "
        f"{case['clock']} time",
        f"  {'':<24} median ms  times ours (sessions)     GMAC/s  of limit  accuracy  top-1 same  differs by",
    ]
    for r in case["rows"]:
        percent = "-" if r["percent_of_limit"] is None else f"{r['percent_of_limit']:.0f} %"
        accuracy = "-" if r["accuracy"] is None else f"{r['accuracy']:.2%}"
        flag = "  DIFFERENT ANSWERS" if r["accuracy"] is None or case["precision"] == "fp32" else "  LESS ACCURATE"
        lines.append(
            f"  {r['engine']:<24} {r['median_ms']:9.3f}  {r['ratio']:5.2f} ({r['lowest']:.2f} to {r['highest']:.2f})"
            f"  {r['gmacs_per_s']:9.1f}  {percent:>8}  {accuracy:>8}  {r['agreement']:9.0%}"
            f"  {r['largest_difference']:10.1e}{flag if r['differs'] else ''}"
        )
    peers = [r for r in case["rows"] if not r["differs"] and not r["engine"].startswith(OURS)]
    for words, some in (("as its users get it", [r for r in peers if r["usual"]]), ("in any form", peers)):
        if some:
            fastest = min(some, key=lambda r: r["ratio"])
            lines.append(f"  fastest peer {words}: {fastest['engine']}, {fastest['ratio']:.2f} times our time")
    return "\n".join(lines)


def kinds_of(all_: list[Contender], folder: Path, threads: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds by kind of operator for each engine whose profiler can be asked."""
    found = {}
    for one in all_:
        if one.name != AGAIN:
            with Worker(one.engine, one.python) as worker:
                worker.ask("kinds", path=one.path, threads=threads, pixels=str(folder / "fed.npy"))
                told = worker.answer()
            if "failed" in told:
                note(f"no operators of {one.name}: {told['failed']}")
            else:
                found[one.name] = told["kinds"]
    return found


def operators_text(found: dict[str, Any]) -> str:
    """A table: a row for each kind of operator, a column for each engine."""
    kinds = [kind for kind in next(iter(found.values())) if any(column[kind] > 0 for column in found.values())]
    lines = ["  ms by kind of operator      " + "".join(f"{name:>24}" for name in found)]
    lines += [f"  {kind:<28}" + "".join(f"{column[kind]:24.3f}" for column in found.values()) for kind in kinds]
    lines.append(f"  {'sum':<28}" + "".join(f"{sum(column.values()):24.3f}" for column in found.values()))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", nargs="+", action="extend", default=[], metavar="NAME=PYTHON")
    parser.add_argument("--network", nargs="+", default=[*NETWORKS], choices=[*NETWORKS])
    parser.add_argument("--run", nargs="+", action="extend", default=[], metavar="NETWORK=RUN")
    parser.add_argument("--labelled", nargs="+", action="extend", default=[], metavar="NETWORK=DATA")
    parser.add_argument("--precision", nargs="+", default=("fp32", "int8"), choices=("fp32", "int8"))
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--sessions", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--made", type=Path, metavar="FOLDER", help="where converted networks are kept")
    parser.add_argument("--only-make", action="store_true", help="convert, compare answers, measure nothing")
    parser.add_argument("--clock", default="wall", choices=("wall", "processor"))
    parser.add_argument("--operators", action="store_true", help="also where each engine's time goes")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    pythons = dict(pair.split("=", 1) for pair in chosen.engine)
    trained = dict(pair.split("=", 1) for pair in chosen.run)
    labelled = dict(pair.split("=", 1) for pair in chosen.labelled)
    if chosen.clock == "processor" and list(chosen.threads) != [1]:
        parser.error("--clock processor adds up threads' times: give --threads 1")
    if unknown := set(pythons) - {*ENGINES, "tf2onnx"}:
        parser.error(f"no engine is called {', '.join(unknown)}")
    if unknown := set(trained) - {*chosen.network}:
        parser.error(f"--run: {', '.join(unknown)} is not measured")

    if without := set(labelled) - {*trained, *SHIPPED}:
        parser.error(f"--labelled: {', '.join(without)} is not trained, add --run {min(without)}=RUN")

    def note(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    cases = []
    with tempfile.TemporaryDirectory() as scratch:
        for network in chosen.network:
            folder = (chosen.made or Path(scratch)).resolve() / network
            note(f"{network}: making what engines start from")
            run = Path(trained[network]) if network in trained else None
            known = make_sources(network, run, folder, pythons.get("tf2onnx", sys.executable), note)
            if network in labelled:
                pictures = write_labelled(run or SHIPPED[network], Path(labelled[network]), folder)
                note(f"{network}: accuracy on {pictures:,} labelled pictures")
            reference = contenders(folder, "fp32", [OURS], pythons, note)[0].probabilities
            for precision in chosen.precision:
                all_ = contenders(folder, precision, list(ENGINES), pythons, note)
                if chosen.only_make:
                    continue
                for threads in chosen.threads:
                    for one in all_:
                        one.rounds = []
                    for number in range(chosen.sessions):
                        note(f"{network} {precision}, {threads} threads, session {number + 1} of {chosen.sessions}")
                        session(all_, folder, threads, chosen.rounds, chosen.clock)
                    rows = [row(one, all_[0], reference, precision) for one in all_]
                    for r in rows:
                        speed = throughput(known["multiply_adds"], r["median_ms"], precision, threads, True)
                        r |= {"gmacs_per_s": speed.gmacs_per_s, "percent_of_limit": speed.percent_of_limit}
                    case = {**known, "precision": precision, "threads": threads, "clock": chosen.clock, "rows": rows}
                    if chosen.operators:
                        case["operators_ms"] = kinds_of(all_, folder, threads, note)
                    cases.append(case)
                    if not chosen.json:
                        print(text(case), flush=True)
                        if chosen.operators:
                            print(operators_text(case["operators_ms"]), flush=True)
                        print(flush=True)
    if chosen.json:
        print(json.dumps({"machine": records.to_dict(machine.identity()), "cases": cases}, indent=1))


if __name__ == "__main__":
    main()
