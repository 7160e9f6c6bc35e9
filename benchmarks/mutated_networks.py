"""Damaged and hostile network files: does `edge-ran import` end each in an answer or in one line?

    python benchmarks/mutated_networks.py [--files 10000] [--seed 0] [--build 20]

Small networks are saved in each format (HDF5 and .keras of Keras 2 and 3), and changed: bytes at random, cut short,
blocks moved, and, in the configuration, values exchanged for others of every kind. Each file is read, translated and
ended as `import` does it; one in --build is also drawn and computed. What counts: an exception that is no InputError,
more than 5 s, more than 1 GB of memory above the start, or a file opened that is not the file itself.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 1 << 31, -(1 << 40), 1e308, float("nan"), "", "same", "relu", "Lambda", "GRU",
    "channels_first", [], {}, [1], [0, 0], [3, 3], [[1, 1], [1, 1]], [None, 8, 8, 3], "/etc/passwd", "\x1b[31m", 0.5,
    ["conv2d", 0, 0], [["conv2d", 0, 0, {}]], 10**30, "x" * 5000,
]  # fmt: skip


def draw(keras: Any) -> Any:
    """A small network with the layers that scripts have."""
    kl = keras.layers
    image = kl.Input((16, 16, 3))
    x = kl.Rescaling(1 / 255)(image)
    x = kl.BatchNormalization()(kl.Conv2D(8, 3, padding="same", activation="relu")(x))
    mask = kl.Activation("sigmoid")(kl.UpSampling2D()(kl.MaxPooling2D()(kl.Conv2D(8, 1)(x))))
    x = kl.Multiply()([kl.Lambda(lambda v: v + 1)(mask), x])
    x = kl.SeparableConv2D(8, 3, activation="swish")(kl.ZeroPadding2D(1)(x)) * 2.0
    x = keras.Sequential([kl.Input((16, 16, 8)), kl.DepthwiseConv2D(3, 2), kl.ReLU(6.0), kl.Dropout(0.5)])(x)
    x = kl.GlobalAveragePooling2D()(kl.Concatenate()([x, kl.AveragePooling2D(2, 1, "same")(x)]))
    return keras.Model(image, kl.Dense(4, activation="softmax")(x))


def mutate_json(text: bytes, rng: random.Random) -> bytes:
    """Exchange some values of a configuration."""
    root = json.loads(text)
    places: list[tuple[Any, Any]] = []
    waiting = [root]
    while waiting:
        item = waiting.pop()
        keys = list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else []
        for key in keys:
            places.append((item, key))
            waiting.append(item[key])
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        item, key = rng.choice(places)
        other, other_key = rng.choice(places)
        try:
            if rng.random() < 0.3:
                item[key] = other[other_key]
            elif rng.random() < 0.2 and isinstance(item, dict):
                del item[key]
            else:
                item[key] = rng.choice(VALUES)
        except (KeyError, IndexError):  # a value within another that was exchanged before
            continue
    try:
        return json.dumps(root).encode()
    except (ValueError, RecursionError):  # a circle
        return text


def mutate_bytes(data: bytes, rng: random.Random, end: int | None = None) -> bytes:
    """Change some bytes, cut the file, or move a block."""
    changed = bytearray(data)
    end = end or len(changed)
    way = rng.random()
    if way < 0.1:
        return bytes(changed[: rng.randrange(len(changed))])
    if way < 0.2:
        size = rng.randrange(1, 512)
        a, b = rng.randrange(end), rng.randrange(end)
        changed[a : a + size] = changed[b : b + size]
        return bytes(changed)
    for _ in range(rng.choice((1, 2, 4, 16))):
        changed[rng.randrange(end)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def mutate(path: Path, target: Path, rng: random.Random) -> None:
    """Write a changed copy of a network's file."""
    data = path.read_bytes()
    if path.suffix == ".h5":
        if rng.random() < 0.4 and (start := data.find(b'{"class_name"')) > 0:
            end = data.find(b"\0", start)
            text = mutate_json(data[start:end], rng)[: end - start].ljust(end - start)
            target.write_bytes(data[:start] + text + data[end:])
        else:
            target.write_bytes(mutate_bytes(data, rng))
        return
    if rng.random() < 0.15:
        target.write_bytes(mutate_bytes(data, rng))
        return
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(["config.json"] * 4 + ["model.weights.h5"])
    change = mutate_json if name == "config.json" else mutate_bytes
    parts[name] = change(parts[name], rng)
    with zipfile.ZipFile(target, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--build", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="folder for the files that count")
    given = parser.parse_args()
    import keras
    import tf_keras

    from edge_ran.errors import InputError
    from edge_ran.host.importing import importer
    from edge_ran.host.importing.source import open_source

    opened: list[str] = []
    watching = False

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if watching and event == "open" and isinstance(args[0], (str, bytes)):
            opened.append(os.fsdecode(args[0]))

    sys.addaudithook(audit)
    counts: collections.Counter[str] = collections.Counter()
    slowest, rng = 0.0, random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = []
        for number, library in ((2, tf_keras), (3, keras)):
            model = draw(library)
            for suffix in ("h5", "keras"):
                paths.append(folder / f"keras{number}.{suffix}")
                model.save(paths[-1])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(given.files):
            source = paths[number % len(paths)]
            target = folder / f"changed{source.suffix}"
            mutate(source, target, rng)
            opened.clear()
            start, watching = time.process_time(), True
            try:
                with open_source(target) as one:
                    network = importer._read(one, importer.Answers())
                if number % given.build == 0:
                    graph = network.translated.graph
                    model = importer.built(graph, "changed", target, is_foreign=True)
                    side = model.input_shape[1]
                    if side * model.input_shape[2] < 1 << 16:
                        model(np.zeros((1, *model.input_shape[1:]), "float32"))
                outcome = "read"
            except InputError as error:
                outcome = "refused"
                if "\n" in f"{error}{error.remedy}" or any(not c.isprintable() for c in f"{error}{error.remedy}"):
                    outcome = "TWO LINES"
            except Exception as error:
                outcome = f"EXCEPTION {type(error).__name__}: {str(error)[:200]}"
            watching = False
            took = time.process_time() - start  # other programs' turns are not its own
            slowest = max(slowest, took)
            # Its own files, and those of the child process that tries it first.
            own = (str(target), f"{tempfile.gettempdir()}/edge-ran-tmp-", "/dev/null")
            strange = [p for p in opened if not (p.startswith(own) or p.endswith((".py", ".pyc", ".so")))]
            if strange:
                outcome = f"OPENED {strange[0]}"
            if took > 5:
                outcome = f"SLOW {took:.1f} s"
            counts[outcome] += 1
            if outcome not in ("read", "refused"):
                print(number, source.name, outcome, flush=True)
                if given.keep:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    (given.keep / f"{number}{source.suffix}").write_bytes(target.read_bytes())
            if number % 250 == 249:
                print(f"{number + 1}: {counts['read']} read, {counts['refused']} refused", file=sys.stderr, flush=True)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{given.files:,} files: {counts['read']:,} read, {counts['refused']:,} refused, slowest {slowest:.2f} s, ")
    print(
        f"memory grew by {grown:.0f} MB at most; {sum(counts.values()) - counts['read'] - counts['refused']} to look at"
    )


if __name__ == "__main__":
    main()
