"""Networks of keras.applications through `import`, the rewrites, int8, fake quantisation and the GPU: one table.

    python benchmarks/foreign_networks.py PICTURES [--networks MobileNetV2 ...] [--size 96] [--gpu] [--quick]

No weights are downloaded. Each network is drawn with random weights and takes the statistics of real pictures; where
shortcuts carry the picture through, its ReLUs are mostly open, so that a step of int8 does not grow from layer to layer
as in a network of noise; its last layer is fitted to the pictures' classes by least squares on the features. PICTURES
is whatever `edge-ran train` takes, with ten classes or so: CIFAR-10, photos.

The table: top-1 of the float network; the largest change of a logit by the import and by the rewrites; float operators
of the calibrated int8 file, and on how many pictures it has float's top-1; the same of the file with learnt ranges
(measured ones here: nothing is trained); on how many pictures the network with fake quantisation and this file have the
same top-1, and the largest difference in steps of 1/256; what LiteRT's GPU says of the float and of the calibrated file
(--gpu; a software GPU needs VK_DRIVER_FILES). --quick takes fewer pictures and the three smallest networks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

NETWORKS = (
    "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "ResNet50", "ResNet50V2", "DenseNet121", "Xception",
    "InceptionV3", "VGG16",
)  # fmt: skip
IN_GRAPH = ("MobileNetV3Small", "EfficientNetB0")  # they scale their pictures themselves
# Linear enough with open ReLUs, and shortcuts carry the picture through: others would answer each picture the same,
# and float32's noise would be all that is left of it.
OPEN = ("MobileNetV2", "MobileNetV3Small", "ResNet50", "ResNet50V2")
QUICK = ("MobileNetV2", "MobileNetV3Small", "EfficientNetB0")
CALIBRATED, STATISTICS, GPU = 50, 64, 8  # pictures


@dataclasses.dataclass(frozen=True)
class Sample:
    """Pictures: their number to fit the last layer and to judge, frames (H, W, 3) uint8 BGR, and places of labels."""

    fitted: int
    frames: list[Any]
    truth: Any
    labels: tuple[str, ...]


def sample(source: Path, fitted: int, judged: int) -> Sample:
    from edge_ran import dataset

    data = dataset.load(source)
    rows = np.random.default_rng(0).permutation(len(data.samples))[: fitted + judged]
    samples = [data.samples[row] for row in rows]
    return Sample(fitted, list(dataset.frames(samples)), dataset.targets(samples, data.labels), data.labels)


def drawn(name: str, size: int, pixels: Any, labels: Any, classes: int) -> Any:
    """Draw a network that tells the pictures (N, size, size, 3) uint8 apart; return it."""
    import tf_keras

    kl = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    model = getattr(tf_keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=classes)
    x = pixels.astype(np.float32) if name in IN_GRAPH else pixels.astype(np.float32) / 127.5 - 1
    for layer in model.layers:
        if isinstance(layer, kl.Normalization) and layer.weights:  # EfficientNet's holds no statistics of its own
            layer.set_weights([np.zeros_like(layer.get_weights()[0]), np.ones_like(layer.get_weights()[1]), 0])
    last = next(layer for layer in reversed(model.layers) if isinstance(layer, (kl.Dense, kl.Conv2D)))
    probe = tf_keras.Model(model.input, last.input)
    take_statistics(model, x[:STATISTICS], 1.0 if name in OPEN else 0.0)
    features = np.concatenate([np.asarray(probe(x[i : i + 32])) for i in range(0, len(x), 32)])
    features = features.reshape(len(x), -1).astype(np.float64)
    mean = features.mean(0)
    centred = features - mean
    gram = centred @ centred.T
    # Ridge regression, strong enough that small directions of the features do not count: in int8 they are noise.
    kernel = gram + 0.2 * np.trace(gram) / len(x) * np.eye(len(x))
    weights = centred.T @ np.linalg.solve(kernel, np.eye(classes)[labels] - 1 / classes)
    weights *= 2 / (centred @ weights).std()
    old, _ = last.get_weights()
    last.set_weights([weights.reshape(old.shape), -mean @ weights])
    return model


def take_statistics(model: Any, x: Any, opening: float) -> None:
    """Let each layer's outputs before its ReLU have deviation 1 and mean ``opening`` on pictures ``x``."""
    import tf_keras

    norms = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum, norm.epsilon = 0.0, 1e-5  # small numbers, too, get a deviation of 1
        norm.beta.assign(np.full(norm.beta.shape, opening))
    if norms:
        model(x, training=True)
        return
    for layer in model.layers[1:-1]:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.activation = tf_keras.activations.linear
            out = np.asarray(layer(x))
            axes = tuple(range(out.ndim - 1))
            deviation = out.std(axes) + 1e-6
            layer.set_weights([kernel / deviation, (bias - out.mean(axes)) / deviation + opening])
            layer.activation = tf_keras.activations.relu
        x = layer(x)


def measure(name: str, pictures: Sample, size: int, gpu: bool, folder: Path) -> dict[str, Any]:
    from edge_ran import catalogue, graph
    from edge_ran.card import InputSpec, Overrides
    from edge_ran.host import fake_quant, networks, rewrites
    from edge_ran.host.flatbuffer import flatbuffer
    from edge_ran.host.importing.importer import Answers, import_network
    from edge_ran.model_interface import read_interface
    from edge_ran.preprocess import Preprocessor, fit_pixels, normalise
    from edge_ran.runs import RunFolder
    from edge_ran.runtime import RuntimeOptions, open_runtime, trial

    count, frames, truth = pictures.fitted, pictures.frames, pictures.truth
    fitted = np.stack([fit_pixels(frame, InputSpec(size, size)) for frame in frames])
    start = time.monotonic()
    model = drawn(name, size, fitted[:count], truth[:count], len(pictures.labels))
    path = folder / f"{name}.h5"
    model.save(path)
    found: dict[str, Any] = {"network": name, "layers": len(model.layers), "parameters": model.count_params()}
    del model
    answers = Answers("numbers", None if name in IN_GRAPH else "tf")
    report = import_network(path, folder / name, answers)
    found |= {
        "passes": sum(one.places for one in report.network.passes),
        "import_difference": report.difference,
        "rewrite_difference": report.rewritten_difference,
    }
    path.unlink()
    network = networks.load(folder / name / "model.keras")
    spec = RunFolder(folder / name).card().input
    rewritten = rewrites.rewrite(network, normalise(fitted[:4], spec)).model
    judged = frames[count:]
    pixels = np.stack([fit_pixels(frame, spec) for frame in judged])
    values = normalise(pixels, spec)
    float_answers = np.concatenate([np.asarray(rewritten(values[i : i + 20])) for i in range(0, len(values), 20)])
    found["float_top1"] = float((float_answers.argmax(1) == truth[count:]).mean())

    def answer(file: Path) -> Any:
        with open_runtime(file, accelerator="cpu") as runtime:
            prepare = Preprocessor(spec, runtime.input)
            return np.concatenate([runtime.run(prepare(frame))[0].astype(int) + 128 for frame in judged])

    how = catalogue.converter("int8")
    calibrated = folder / f"{name}-int8.tflite"
    calibrated.write_bytes(flatbuffer(rewritten, how, spec, fitted[:CALIBRATED], io="int8"))
    found["float_operators"] = len(graph.read_graph(calibrated).float_operators)
    found["int8_as_float"] = float((answer(calibrated).argmax(1) == float_answers.argmax(1)).mean())
    fake_quant.check(rewritten)
    ranges = fake_quant.calibrate(rewritten, fitted[:CALIBRATED], spec)
    fake_quant.snap(rewritten, ranges)
    rounding = fake_quant.as_deployed(fake_quant.fake_quantise(rewritten, ranges, exact=True))
    expected = np.concatenate([np.asarray(rounding(values[i : i + 10])) for i in range(0, len(values), 10)])
    expected = np.round(expected * 256)
    learnt = folder / f"{name}-qat.tflite"
    for_file = fake_quant.as_deployed(fake_quant.fake_quantise(rewritten, ranges, for_converter=True))
    learnt.write_bytes(flatbuffer(for_file, how, spec, io="int8"))
    made, got = graph.read_graph(learnt), answer(learnt)
    found |= {
        "qat_float_operators": len(made.float_operators),
        "qat_agreement": float((got.argmax(1) == expected.argmax(1)).mean()),
        "qat_steps": float(np.abs(got - expected).max()),
        "qat_as_float": float((got.argmax(1) == float_answers.argmax(1)).mean()),
        "qat_bytes": learnt.stat().st_size,
    }
    if gpu:
        whole = folder / f"{name}-fp32.tflite"
        whole.write_bytes(flatbuffer(rewritten, catalogue.converter("fp32"), spec))
        for key, file in (("gpu_fp32", whole), ("gpu_int8", calibrated)):
            interface = read_interface(file, Overrides())
            prepare = Preprocessor(spec, interface.tensor)
            options = RuntimeOptions(accelerator="gpu", gpu_precision="fp32")
            one = trial.attempt(interface.graph, options, [prepare(frame) for frame in judged[:GPU]]).agreement
            found[key] = None if one is None else {"right": one.is_right, "error": one.relative_error, "top1": one.top1}
    found["seconds"] = time.monotonic() - start
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--networks", nargs="+")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    pictures = sample(given.pictures, *((150, 50) if given.quick else (200, 200)))
    rows = []
    for name in given.networks or (QUICK if given.quick else NETWORKS):
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append(measure(name, pictures, given.size, given.gpu, Path(folder)))
            except Exception as error:
                rows.append({"network": name, "error": f"{type(error).__name__}: {error}"})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if given.json:
            given.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The measurements as a table of Markdown."""
    names = "network, top-1, import, rewrites, float operators, int8 = float, learnt = float, network = file, "
    names += "steps, MB, GPU fp32, GPU int8"
    lines = ["| " + " | ".join(names.split(", ")) + " |", "|" + "---|" * len(names.split(", "))]
    for r in rows:
        if "error" in r:
            lines.append(f"| {r['network']} | {r['error']} |")
            continue
        gpus = [r.get(key) for key in ("gpu_fp32", "gpu_int8")]
        said = ["-" if one is None else f"{'right' if one['right'] else 'WRONG'}, {one['error']:.1e}" for one in gpus]
        lines.append(
            f"| {r['network']} | {r['float_top1']:.1%} | {r['import_difference']:.0e} | {r['rewrite_difference']:.0e} "
            f"| {r['float_operators']} and {r['qat_float_operators']} | {r['int8_as_float']:.1%} "
            f"| {r['qat_as_float']:.1%} | {r['qat_agreement']:.1%} | {r['qat_steps']:.0f} | {r['qat_bytes'] / 1e6:.1f} "
            f"| {' | '.join(said)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
