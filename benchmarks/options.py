"""Every option of a network as an int8 file: what is in float, what XNNPACK leaves, and whether CPU and GPU agree.

    python benchmarks/options.py [--network indoor56] [--option nearest] [--quantize] [--data PICTURES] [--json]

Random weights, BatchNorm statistics of real pictures (from fresh ones the converter deletes operators), logits spread
as training would spread them. Each option is converted as `convert --int8 --io int8` does; with --quantize after one
epoch of `quantize` on the pictures, too. "agrees" is the file's top-1 against the float network, after `quantize`
against the network with fake quantisation; "GPU" is the GPU's against the CPU's, the relative error of its answers,
and how many operators it gets wrong or leaves when given the CPU's values ("off"): a deep random network multiplies
rounding, so that answers alone do not tell. Without a GPU, SwiftShader shows it:
VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras
from rewrites import random_network

from edge_ran import catalogue, dataset, graph, verify
from edge_ran.card import InputSpec, ModelCard
from edge_ran.dataset import frames
from edge_ran.files import write_text
from edge_ran.host import calibration, convert, networks, parity, quantize
from edge_ran.host.read_run import read_run
from edge_ran.preprocess import fit_pixels, normalise
from edge_ran.recipe import QUANTIZE
from edge_ran.runtime import RuntimeOptions, open_runtime

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "channel": {"attention": "channel"},
    "spatial": {"attention": "spatial"},
    "naive": {"learning": "naive"},
    "no mask": {"mask": False},
    "nearest": {"upsampling": "nearest"},
    "tail paper": {"mask_tail": "paper"},
    "tail linear": {"mask_tail": "linear"},
    "projection": {"shortcut": "projection"},
    "width 0.5": {"width": 0.5},
    "width 1.5": {"width": 1.5},
    "input 64": {"input_size": 64},
    "all at once": {"attention": "spatial", "learning": "naive", "upsampling": "nearest", "shortcut": "projection"},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "edge50": {},
    "indoor56": {},
    "cifar_attention56": {},
    "attention_next56": {"input_size": 64, "classes": 10},  # the network of grouped convolutions
}
MORE_PICTURES = 160  # for quantize: two of each class, at least


def make_run(network: str, options: dict[str, Any], folder: Path) -> Path:
    """Write a run folder of a random network that tells pictures apart, as a trained one does.

    A deep network of random weights multiplies rounding as it multiplies everything. Residual branches weaker than
    their shortcuts, and statistics that are those of its own activations, make it as steady as training does.
    """
    model = random_network(network, **options)
    for layer in model.layers:
        if layer.name.endswith("_conv3"):  # the last of a branch
            layer.set_weights([0.1 * layer.get_weights()[0], *layer.get_weights()[1:]])
    spec = InputSpec(*model.input_shape[1:3])
    images = normalise(calibration.of_folder(None, spec, 60)[0], spec)
    norms = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # the statistics become those of this batch
    model(images, training=True)
    for norm in norms:
        norm.momentum = 0.9
    last = model.get_layer("logits")
    logits = tf_keras.Model(model.input, last.output)(images, training=False).numpy()
    kernel, bias = last.get_weights()
    scale = 2 / logits.std(0)
    last.set_weights([kernel * scale, (bias - logits.mean(0)) * scale])
    labels = tuple(f"class {i}" for i in range(model.output_shape[-1]))
    networks.save(model, folder / "model.keras")
    write_text(folder / "card.json", ModelCard(network, labels, spec, network=network).to_json())
    return folder


def some_pictures(source: Path | None, classes: int, spec: InputSpec, target: Path) -> Path:
    """Write pictures as the labelled set that `quantize` reads; their labels are arbitrary."""
    if source is None:
        pixels, _ = calibration.of_folder(None, spec, MORE_PICTURES)
    else:
        samples = dataset.load(source).samples
        chosen = [samples[i] for i in np.linspace(0, len(samples) - 1, MORE_PICTURES).astype(int)]
        pixels = np.stack([fit_pixels(frame, spec) for frame in frames(chosen)])
    labels = np.array([f"class {i}" for i in range(classes)])
    np.savez(target, x=pixels, y=np.arange(len(pixels)) % classes, labels=labels)
    return target


def facts(network: str, option: str, how: str, run: Path, tflite: Path) -> dict[str, Any]:
    """One row of the table."""
    made = graph.read_graph(tflite)
    pictures = parity.some_frames(catalogue.folder("calibration_data"), 60)
    with open_runtime(tflite, accelerator="cpu") as runtime:
        delegation = runtime.delegation
    record: dict[str, Any] = {
        "network": network,
        "option": option,
        "precision": how,
        "size_mb": made.size_bytes / 1e6,
        "operators": len(made.operators),
        "float_operators": dict(Counter(op.name for op in made.float_operators)),
        "quantize_between_operators": len(made.inner_quantize),
        "outside_xnnpack": dict(Counter(f.operator.name for f in graph.xnnpack_unsupported(made) if f.operator)),
        "xnnpack_operators": delegation.delegated,
        "xnnpack_partitions": delegation.partitions,
        "gpu_warnings": [found.what for found in graph.gpu_warnings(made)],
        "network_agreement": parity.check_parity(run, tflite, pictures, layers=False).agreement,
        "gpu": None,
    }
    check = verify.verify(tflite, RuntimeOptions(), None, 10).checks[0]
    record["gpu_wrong_operators"] = [f"{one.name} {one.output}: {one.what}" for one in check.wrong_operators]
    if check.agreement is None:
        record["gpu_failure"] = check.reason
    else:
        record["gpu"] = dataclasses.asdict(check.agreement)
    return record


def line(row: dict[str, Any]) -> str:
    """A row for people."""

    def names(counts: dict[str, int]) -> str:
        return " ".join(f"{count} {name}" for name, count in counts.items()) or "-"

    on_gpu = row.get("gpu_failure", "")
    if row["gpu"]:
        wrong = len(row["gpu_wrong_operators"])
        agrees, error = row["gpu"]["top1"], row["gpu"]["relative_error"]
        on_gpu = f"{agrees:.0%} of {row['gpu']['pictures']}, {error:.1%}, {wrong} off"
    cells = (
        f"{row['network']:17} {row['option']:11} {row['precision']:8} {row['size_mb']:6.2f} {row['operators']:5}",
        f"{names(row['float_operators']):16} {row['quantize_between_operators']:5}",
        f"{row['xnnpack_operators']:5} in {row['xnnpack_partitions']}",
        f"{names(row['outside_xnnpack']):28} {row['network_agreement']:7.1%}  {on_gpu}",
    )
    return "  ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", action="append", choices=[*NETWORKS], help="these only; may be repeated")
    parser.add_argument("--option", action="append", choices=[*OPTIONS], help="these only; may be repeated")
    parser.add_argument("--quantize", action="store_true", help="also after an epoch of quantize")
    parser.add_argument("--data", type=Path, help="pictures for quantize, as edge-ran train reads them")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = []
    if not chosen.json:
        print(
            f"{'':17} {'':11} {'':8} {'MB':>6} {'ops':>5}  {'in float':16} {'q/dq':>5}  {'XNNPACK':10} "
            f"{'outside of it':28} {'agrees':>7}  GPU",
            flush=True,
        )
    for network in chosen.network or NETWORKS:
        for option in chosen.option or OPTIONS:
            wanted = {**NETWORKS[network], **OPTIONS[option]}
            with tempfile.TemporaryDirectory(prefix="edge-ran-") as name:
                folder = Path(name)
                runs = {"int8": make_run(network, wanted, folder / "float")}
                if chosen.quantize:
                    card = read_run(runs["int8"])[1]
                    pictures = some_pictures(chosen.data, len(card.labels), card.input, folder / "pictures.npz")
                    runs["int8-qat"] = folder / "quantised"
                    how = QUANTIZE.changed(epochs=1, batch_size=32)
                    quantize.quantize(runs["int8"], runs["int8-qat"], pictures, how)
                for precision, run in runs.items():
                    tflite = folder / f"{precision}.tflite"
                    convert.convert(run, catalogue.converter("int8"), tflite, io="int8")
                    rows.append(facts(network, option, precision, run, tflite))
                    if not chosen.json:
                        print(line(rows[-1]), flush=True)
    if chosen.json:
        json.dump(rows, sys.stdout, indent=1)
        print()


if __name__ == "__main__":
    main()
