"""Networks of keras.applications through `import`, the rewrites, int8, fake quantisation and the GPU: one table.

    python benchmarks/foreign_networks.py PICTURES [--networks MobileNetV2 ...] [--size 128] [--gpu] [--json FILE]

No weights are downloaded. Each network is drawn with random weights; its BatchNormalizations take the statistics of
real pictures, layer by layer, and its last layer is fitted to the pictures' classes by least squares on the features,
so that it tells pictures apart. PICTURES is whatever `edge-ran train` takes, with ten classes or so: CIFAR-10, photos.

The table: the largest change of a logit by the import and by the rewrites; float operators of the calibrated int8 file,
and on how many pictures it has float's top-1; on how many the fake-quantised network and its own file agree, and the
largest difference in steps of 1/256; what LiteRT's GPU says (--gpu; a software GPU needs VK_DRIVER_FILES).
"""

from __future__ import annotations

import argparse
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
FITTED = 400
JUDGED = 200


def drawn(name: str, size: int, pixels: Any, labels: Any, classes: int) -> Any:
    """Draw a network that tells the pictures (N, size, size, 3) uint8 apart; return it."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    kind = getattr(tf_keras.applications, name)
    model = kind(weights=None, input_shape=(size, size, 3), classes=classes)
    x = pixels.astype(np.float32) if name in IN_GRAPH else pixels.astype(np.float32) / 127.5 - 1
    for layer in model.layers:
        if isinstance(layer, tf_keras.layers.Normalization):  # EfficientNet's holds no statistics without its weights
            layer.set_weights([np.zeros_like(layer.get_weights()[0]), np.ones_like(layer.get_weights()[1]), 0])
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(x[:64], training=True)
    last = next(
        layer for layer in reversed(model.layers) if isinstance(layer, (tf_keras.layers.Dense, tf_keras.layers.Conv2D))
    )
    probe = tf_keras.Model(model.input, last.input)
    features = np.concatenate([np.asarray(probe(x[i : i + 32])) for i in range(0, len(x), 32)]).reshape(len(x), -1)
    features = features.astype(np.float64)
    mean = features.mean(0)
    centred = features - mean
    kernel = centred @ centred.T + np.trace(centred @ centred.T) / len(x) * np.eye(len(x))
    # Ridge regression, so strong that only the features' large directions count: small ones are noise, in int8 too.
    weights = centred.T @ np.linalg.solve(kernel, np.eye(classes)[labels] - 1 / classes)
    weights *= 2 / (centred @ weights).std()
    old, bias = last.get_weights()
    last.set_weights([weights.reshape(old.shape), (-mean @ weights).reshape(bias.shape)])
    return model


def measure(name: str, source: Path, size: int, gpu: bool, folder: Path) -> dict[str, Any]:
    from edge_ran import catalogue, dataset, graph
    from edge_ran.card import InputSpec
    from edge_ran.host import fake_quant, networks, rewrites
    from edge_ran.host.convert import flatbuffer
    from edge_ran.host.importing.importer import Answers, import_network
    from edge_ran.preprocess import Preprocessor, fit_pixels, normalise
    from edge_ran.runtime import RuntimeOptions, open_runtime
    from edge_ran.verify import verify

    data = dataset.load(source)
    rows = np.random.default_rng(0).permutation(len(data.samples))[: FITTED + JUDGED]
    samples = [data.samples[row] for row in rows]
    frames, truth = list(dataset.frames(samples)), dataset.targets(samples, data.labels)
    fitted = np.stack([fit_pixels(frame, InputSpec(size, size)) for frame in frames])
    start = time.monotonic()
    model = drawn(name, size, fitted[:FITTED], truth[:FITTED], len(data.labels))
    path = folder / f"{name}.h5"
    model.save(path)
    found: dict[str, Any] = {"network": name, "layers": len(model.layers), "parameters": model.count_params()}
    del model
    answers = Answers("numbers", None if name in IN_GRAPH else "tf")
    report = import_network(path, folder / name, answers)
    found |= {
        "passes": sum(one.places for one in report.passes),
        "import_difference": report.difference,
        "rewrite_difference": report.rewritten_difference,
    }
    path.unlink()
    network = networks.load(folder / name / "model.keras")
    from edge_ran.runs import RunFolder

    spec = RunFolder(folder / name).card().input
    rewritten = rewrites.rewrite(network).model
    judged = frames[FITTED:]
    pixels = np.stack([fit_pixels(frame, spec) for frame in judged])
    values = normalise(pixels, spec)
    float_answers = np.concatenate([np.asarray(rewritten(values[i : i + 20])) for i in range(0, len(values), 20)])
    found["float_top1"] = float((float_answers.argmax(1) == truth[FITTED:]).mean())

    def answer(file: Path) -> Any:
        with open_runtime(file, accelerator="cpu") as runtime:
            prepare = Preprocessor(spec, runtime.input)
            return np.concatenate([runtime.run(prepare(frame))[0].astype(int) + 128 for frame in judged])

    how = catalogue.converter("int8")
    calibrated = folder / f"{name}-int8.tflite"
    calibrated.write_bytes(flatbuffer(rewritten, how, spec, fitted[:100], io="int8"))
    found["float_operators"] = len(graph.read_graph(calibrated).float_operators)
    found["int8_as_float"] = float((answer(calibrated).argmax(1) == float_answers.argmax(1)).mean())
    fake_quant.check(rewritten)
    ranges = fake_quant.calibrate(rewritten, fitted[:100], spec)
    fake_quant.snap(rewritten, ranges)
    rounding = fake_quant.as_deployed(fake_quant.fake_quantise(rewritten, ranges))
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
            (check, *_) = verify(file, RuntimeOptions(), count=4).checks
            one = check.agreement
            found[key] = (
                None if one is None else {"right": check.is_right, "error": one.relative_error, "top1": one.top1}
            )
    found["seconds"] = time.monotonic() - start
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for name in given.networks:
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append(measure(name, given.pictures, given.size, given.gpu, Path(folder)))
            except Exception as error:
                rows.append({"network": name, "error": f"{type(error).__name__}: {error}"})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if given.json:
            given.json.write_text(json.dumps(rows, indent=1))
    print("network            import   rewrite  float ops  int8=float  qat=file  steps  qat float ops  GPU fp32")
    for r in rows:
        if "error" in r:
            print(f"{r['network']:17} {r['error']}")
            continue
        gpu = r.get("gpu_fp32")
        print(
            f"{r['network']:17} {r['import_difference']:8.1e} {r['rewrite_difference']:8.1e} {r['float_operators']:10} "
            f"{r['int8_as_float']:11.1%} {r['qat_agreement']:9.1%} {r['qat_steps']:6.0f} {r['qat_float_operators']:7}  "
            f"{'right' if gpu and gpu['right'] else gpu or '-'}"
        )


if __name__ == "__main__":
    main()
