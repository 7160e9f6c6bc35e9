"""Attack edge-ran with mutated files, and count what went wrong: `python scripts/fuzz.py --help`.

Seeds are networks, pictures and clips of this checkout; each case changes some bytes of one, cuts it, repeats a piece
or puts large numbers in. Cases run in batches in child processes. Whatever is not an answer or one error line of
edge-ran is kept, with its bytes, in --keep: a traceback, a signal, a control character in an error, more than
--most-seconds of processor time, more than --most-mb of memory besides the process's own, or no end.

What runs: `tflite` the readers (graph, card, description, masks), `runtime` the CPU's first load, `keras` the reader
of run folders, `pictures` the reader of pictures, `clips` the camera's reader, `npz`, `csv` and `manifests` the data
sets, `labels` the reader of labels, `records` that of cards, devices, converters, releases and records of `benchmark`,
`names` folders of pictures with names of any kind.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_texts

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("tflite", "runtime", "keras", "pictures", "clips", "npz", "csv", *fuzz_texts.KINDS)
COUNTS = (100_000, 2_000, 5_000, 5_000, 200, 2_000, 2_000, 10_000, 10_000, 10_000, 5_000)
NAMED = ("a.png", "b.png", "c,d.png")  # pictures of the manifests
SEEDS = "seeds.pickle"
LARGE = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with one to eight changes."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        if not changed:
            break
        at, how = chance.randrange(len(changed)), chance.random()
        if how < 0.4:
            changed[at] = chance.randrange(256)
        elif how < 0.6:
            changed[at] ^= 1 << chance.randrange(8)
        elif how < 0.8:
            number = chance.choice(LARGE).to_bytes(4, "little")
            changed[at : at + 4] = number[: len(changed) - at]
        elif how < 0.87:
            del changed[at:]
        elif how < 0.94:
            del changed[at : at + chance.randrange(1, 64)]
        else:
            changed[at:at] = changed[at : at + chance.randrange(1, 64)]
    return bytes(changed)


def mutated_keras(data: bytes, chance: random.Random) -> bytes:
    """Change a value of the configuration, or bytes of the weights, of a Keras archive, and pack it again."""
    if chance.random() < 0.2:
        return mutated(data, chance)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    if chance.random() < 0.5:
        parts["model.weights.h5"] = mutated(parts["model.weights.h5"], chance)
    else:
        config = json.loads(parts["config.json"])
        places = list(fuzz_texts.places(config))
        for _ in range(chance.choice((1, 1, 2, 3))):
            holder, key = chance.choice(places)
            values: tuple[Any, ...] = (
                None,
                -1,
                0,
                1 << 20,
                1 << 31,
                10**30,
                1e308,
                "",
                "image",
                "\ud800",
                [],
                {},
                True,
                holder[key],
            )
            holder[key] = chance.choice(values)
        parts["config.json"] = json.dumps(config).encode()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return file.getvalue()


def seeds(kind: str) -> list[tuple[str, bytes]]:
    """Return the names and bytes of what is mutated."""
    files: list[Path] = []
    if kind in ("tflite", "runtime"):
        files = [*sorted((ROOT / "tests" / "models").glob("*.tflite"))]
        files = [path for path in files if path.stat().st_size < 100_000]
    elif kind == "pictures":
        import cv2
        import numpy as np

        made = np.random.default_rng(0).integers(0, 255, (24, 32, 3)).astype(np.uint8)
        grey, clear = made[..., 0], np.dstack([made, made[..., 0]])
        return [
            (f"seed{i}{suffix}", cv2.imencode(suffix, picture)[1].tobytes())
            for suffix in (".png", ".jpg", ".webp", ".bmp", ".tif", ".ppm", ".pgm")
            for i, picture in enumerate((made, grey, clear if suffix in (".png", ".webp") else made))
            if suffix not in (".ppm", ".pgm") or (suffix == ".pgm") == (picture is grey)
        ]
    elif kind == "npz":
        import numpy as np

        file = io.BytesIO()
        np.savez(file, x=np.zeros((6, 8, 8, 3), np.uint8), y=np.arange(6) % 2, labels=np.array(["a", "b"]))
        packed = io.BytesIO()
        np.savez_compressed(packed, x=np.zeros((6, 8, 8, 3), np.uint8), y=np.array(list("ababab")))
        return [("seed.npz", file.getvalue()), ("packed.npz", packed.getvalue())]
    elif kind == "csv":
        text = 'image,label,group,split\n{},one,g,train\n{},two,h,val\n"{}",one,,test\n'.format(*NAMED)
        return [("seed.csv", text.encode()), ("bom.csv", b"\xef\xbb\xbf" + text.replace(",", ";").encode())]
    elif kind == "clips":
        return _clips()
    elif kind == "keras":
        return [("model.keras", _small_network())]
    elif kind in fuzz_texts.KINDS:
        return fuzz_texts.seeds(kind)
    return [(path.name, path.read_bytes()) for path in files]


def _clips() -> list[tuple[str, bytes]]:
    import cv2
    import numpy as np

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix, codec in ((".avi", "MJPG"), (".mp4", "mp4v")):
            path = Path(folder) / f"seed{suffix}"
            writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
            for i in range(8):
                writer.write(np.full((48, 64, 3), 20 * i, np.uint8))
            writer.release()
            found.append((path.name, path.read_bytes()))
    return found


def _small_network() -> bytes:
    import tf_keras  # noqa: TID251 (a seed is a network's file)

    from edge_ran.host import networks

    layers = tf_keras.layers
    image = layers.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="r")(layers.BatchNormalization(name="b")(layers.Conv2D(4, 3, name="c")(image)))
    x = layers.Dense(3, name="d")(layers.GlobalAveragePooling2D(name="g")(layers.Add(name="a")([x, x])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        networks.save(tf_keras.Model(image, layers.Activation("softmax", name="p")(x)), path)
        return path.read_bytes()


def user(kind: str) -> Callable[[Path], object]:
    """Return what reads a file of this kind as the product does."""
    if kind == "tflite":
        from edge_ran import graph

        def read(path: Path) -> object:
            found = graph.read_graph(path)
            graph.read_card(path)
            graph.describe(path, every_operator=True)
            return graph.find_masks(found)

        return read
    if kind == "runtime":
        from edge_ran.runtime import open_runtime

        return lambda path: open_runtime(path, accelerator="cpu", threads=1).close()
    if kind == "keras":
        from edge_ran.host import networks

        return networks.load
    if kind == "pictures":
        from edge_ran.picture import has_more_frames, read_picture

        return lambda path: (has_more_frames(path), read_picture(path))
    if kind == "clips":
        from edge_ran import dynamic_range
        from edge_ran.camera import open_source

        def play(path: Path) -> object:
            dynamic_range.transfer(path)
            source = open_source(str(path))
            try:
                return sum(1 for _, _ in zip(range(50), source, strict=False))
            finally:
                source.close()

        return play
    if kind in fuzz_texts.KINDS:
        return fuzz_texts.user(kind)
    from edge_ran import dataset

    return dataset.load


def serve(kind: str, folder: Path, first: int, count: int, seed: int) -> None:
    """Read mutated files, in the child. Tells the number before each, and a line after each that went wrong."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    from edge_ran.errors import EdgeRanError
    from edge_ran.printable import clean, one_line

    given, use = pickle.loads((folder / SEEDS).read_bytes()), user(kind)
    for name in NAMED if kind == "csv" else ():
        (folder / name).write_bytes(b"a picture, which nobody opens")
    for number in range(first, first + count):
        name, data = case(kind, given, number, seed)
        path = folder / name
        path.write_bytes(data)
        print(number, flush=True)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # forgets the highest memory so far
        before_mb = _memory_mb("VmRSS")
        began, what = _processor_s(), "read"
        try:
            use(path)
        except EdgeRanError as error:
            said = one_line(str(error))
            what = "refused" if clean(said) == said else f"CONTROL {said!r}"
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1]
            what = f"TRACEBACK {type(error).__name__} at {Path(line.filename).name}:{line.lineno}"
        peak_mb = _memory_mb("VmHWM") - before_mb
        print(f"= {_processor_s() - began:.2f} {peak_mb:.0f} {what}", flush=True)
    os._exit(0)


def _processor_s() -> float:
    """Of this process and its children: at low priority, wall time says nothing."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def run(kind: str, count: int, options: argparse.Namespace) -> Counter[str]:
    """Attack with ``count`` cases of a kind; return what came of them."""
    found, number, slowest_s, peak_mb = Counter[str](), 0, 0.0, 0.0
    given = seeds(kind)  # once: a network's weights are random, and a record's figures are measured
    until = time.monotonic() + options.secs if options.secs else float("inf")
    while number < count and time.monotonic() < until:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            (Path(name) / SEEDS).write_bytes(pickle.dumps(given))
            step = min(options.batch, count - number)
            words = [sys.executable, __file__, "--serve", kind, name, str(number), str(step), str(options.seed)]
            child = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            assert child.stdout is not None
            done = number
            with contextlib.closing(child.stdout):
                # Signals and not threads: a batch that hangs must not hang this.
                signal.signal(signal.SIGALRM, lambda *_, child=child: child.kill())
                signal.alarm(options.start_secs)
                for line in child.stdout:
                    if line.startswith("= "):
                        _, seconds, mb, what = line.rstrip("\n").split(" ", 3)
                        slowest_s, peak_mb = max(slowest_s, float(seconds)), max(peak_mb, float(mb))
                        if float(seconds) > options.most_seconds:
                            what = f"SLOW {float(seconds):.0f} s, then {what}"
                        if float(mb) > options.most_mb:
                            what = f"LARGE {mb} MB, then {what}"
                        found[what] += 1
                        if what.split()[0].isupper():
                            _keep(options, kind, given, done, what)
                        done += 1
                    else:
                        done = int(line)
                    signal.alarm(options.hang_secs)
                signal.alarm(0)
            status = child.wait()
            if status:
                what = f"SIGNAL {signal.Signals(-status).name if status < 0 else status}"
                found[what] += 1
                _keep(options, kind, given, done, what)
                done += 1
            number = max(done, number + 1)
    bad = {what: times for what, times in found.items() if what.split()[0].isupper()}
    print(f"{kind}: {number:,} cases, slowest {slowest_s:.1f} s, most memory {peak_mb:.0f} MB; "
          f"{found['read']:,} read, {found['refused']:,} refused, {sum(bad.values()):,} wrong", flush=True)  # fmt: skip
    for what, times in sorted(bad.items()):
        print(f"  {times} x {what}", flush=True)
    return Counter(bad)


def case(kind: str, given: list[tuple[str, bytes]], number: int, seed: int) -> tuple[str, bytes]:
    """Return the name and the bytes of one case: the same each time."""
    chance = random.Random(f"{seed} {kind} {number}")
    name, data = chance.choice(given)
    if kind in fuzz_texts.KINDS and chance.random() < 0.8:
        return name, fuzz_texts.mutated_text(name, data, chance)
    return name, (mutated_keras if kind == "keras" else mutated)(data, chance)


def _keep(options: argparse.Namespace, kind: str, given: list[tuple[str, bytes]], number: int, what: str) -> None:
    folder = options.keep
    folder.mkdir(parents=True, exist_ok=True)
    name, data = case(kind, given, number, options.seed)
    (folder / f"{kind}-{number}-{name}").write_bytes(data)
    with open(folder / "found.txt", "a") as file:
        file.write(f"{kind}-{number} {what}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, count in zip(KINDS, COUNTS, strict=True):
        parser.add_argument(f"--{kind}", type=int, default=count, metavar="N", help=f"cases, {count:,} without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--secs", type=float, default=0, help="for each kind, at most; 0 = until all are done")
    parser.add_argument("--batch", type=int, default=500, help="cases of one child process")
    parser.add_argument("--most-seconds", type=float, default=5.0)
    parser.add_argument("--most-mb", type=float, default=1024)
    parser.add_argument("--hang-secs", type=int, default=60, help="a case of so long is ended")
    parser.add_argument("--start-secs", type=int, default=180, help="for the child to begin")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-found"), help="where wrong ones are kept")
    options = parser.parse_args()
    wrong = sum((run(kind, getattr(options, kind), options) for kind in KINDS if getattr(options, kind)), Counter())
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
    main()
