"""The reference script's network of 35,229,260 parameters, in every form of file: imported, converted, quantised, run.

    python benchmarks/reference_forms.py [--width 1.0] [--deploy] [--forms 2lambda.h5 ...]

It is rebuilt in Keras 2 and 3 from its description (tests/host/reference_network.py), with random weights and
statistics, and saved in each format, with the Lambda of its attention and with an operator in its place. Each file is
imported and compared with the outputs of the network that wrote it. --deploy converts one of them to fp32, fp16 and
int8, fine-tunes it in int8 arithmetic for an epoch on a few pictures, and compares every file with its network, on the
CPU, and with the GPU (a software GPU needs VK_DRIVER_FILES).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "host"))

import numpy as np

CLASSES = 76
# File's name -> Keras's major version, form of 1 + M, and how it is saved.
FORMS = {
    f"{version}{form}{suffix}": (version, form, suffix)
    for version, suffixes in (
        (2, (".h5", ".plain.h5", ".keras", ".weights.h5", ".legacy.h5", ".json.h5")),
        (3, (".h5", ".keras", ".weights.h5")),
    )
    for form in ("lambda", "operator")
    for suffix in suffixes
}


def write(model: Any, path: Path, suffix: str) -> None:
    """Save a network: with its optimiser's state, without, weights alone in either layout, or with its JSON."""
    if suffix == ".legacy.h5":
        model.save_weights(path, save_format="h5")
    elif suffix == ".weights.h5":
        model.save_weights(path)
    elif suffix == ".json.h5":
        model.save_weights(path, save_format="h5")
        path.with_suffix(".json").write_text(model.to_json())
    elif suffix == ".h5":
        model.compile("adam", "categorical_crossentropy")
        model.optimizer.learning_rate = 0.0  # the state is what is wanted; a step would answer each picture the same
        size, classes = model.input_shape[1], model.output_shape[1]
        model.train_on_batch(np.zeros((1, size, size, 3), np.float32), np.eye(classes, dtype=np.float32)[:1])
        model.save(path)
    elif suffix == ".plain.h5":
        model.save(path, include_optimizer=False)
    else:
        model.save(path)


def tell_apart(keras: Any, model: Any) -> None:
    """Let the logits vary by 2 around 0 from picture to picture: else each softmax is 1 for the same class."""
    from edge_ran import catalogue
    from edge_ran.card import InputSpec
    from edge_ran.host import parity
    from edge_ran.preprocess import fit_pixels

    last, size = model.layers[-1], InputSpec(*model.input_shape[1:3])
    frames = parity.some_frames(catalogue.folder("calibration_data"), 32)
    x = np.stack([fit_pixels(frame, size) for frame in frames]).astype(np.float32) / 127.5 - 1
    features = np.asarray(keras.Model(model.input, last.input)(x, training=False))
    kernel, _ = last.get_weights()
    kernel = kernel * (2 / (features @ kernel).std(0))
    last.set_weights([kernel, -(features @ kernel).mean(0)])


def import_form(name: str, width: float, folder: Path) -> Path:
    """Write a form, import it, print what came out; return the run folder."""
    import keras
    import tf_keras
    from reference_network import reference

    from edge_ran.host.importing.importer import Answers, import_network

    version, form, suffix = FORMS[name]
    model = reference(tf_keras if version == 2 else keras, width=width, classes=CLASSES, form=form)
    tell_apart(tf_keras if version == 2 else keras, model)
    path = folder / name
    write(model, path, suffix)
    size_mb = path.stat().st_size / 1e6
    x = np.random.default_rng(1).uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    np.savez(folder / "x.npz", inputs=x, outputs=np.asarray(model(x, training=False)))
    parameters = model.count_params()
    start = time.monotonic()
    by_name = suffix in (".weights.h5", ".legacy.h5")
    answers = Answers(
        "numbers",
        "tf",
        network="indoor56" if by_name else None,
        architecture=path.with_suffix(".json") if suffix == ".json.h5" else None,
    )
    run = folder / f"run-{name}"
    found = import_network(path, run, answers, expect=folder / "x.npz")
    path.unlink()
    print(
        f"{name:22} {size_mb:6.1f} MB, {parameters:,} parameters, {time.monotonic() - start:5.1f} s: against the writer"
        f" {found.expected_difference:.1e}, import {found.difference:.1e}, rewrites {found.rewritten_difference:.1e}, "
        f"{found.network.gates} gates",
        flush=True,
    )
    return run


def deploy(run: Path, folder: Path) -> None:
    """Convert to each precision, quantise, and compare each file with its network and the GPU with the CPU."""
    from edge_ran import catalogue
    from edge_ran.host import parity
    from edge_ran.host.convert import convert
    from edge_ran.host.quantize import quantize
    from edge_ran.recipe import QUANTIZE
    from edge_ran.runtime import RuntimeOptions
    from edge_ran.verify import verify

    frames = parity.some_frames(catalogue.folder("calibration_data"), 32)
    random, y = np.random.default_rng(0), np.arange(4 * CLASSES) % CLASSES
    pictures = folder / "pictures.npz"
    labels = np.array([str(number) for number in range(CLASSES)])
    x = random.integers(0, 256, (len(y), 32, 32, 3), np.uint8)
    np.savez(pictures, x=x, y=y, labels=labels)
    learnt = folder / "learnt"
    quantize(run, learnt, pictures, QUANTIZE.changed(epochs=1, batch_size=32))
    for name, source, precision in (
        ("fp32", run, "fp32"),
        ("fp16", run, "fp16"),
        ("int8", run, "int8"),
        ("int8 learnt", learnt, "int8"),
    ):
        target = folder / f"{name.replace(' ', '-')}.tflite"
        made = convert(source, catalogue.converter(precision), target, attention=precision == "int8")
        found = parity.check_parity(source, target, frames, layers=False)
        (check, *_) = verify(target, RuntimeOptions(), count=8).checks
        print(
            f"{name}: {made.size_bytes / 1e6:.1f} MB, {len(made.float_operators)} float operators, {len(made.masks)} "
            f"masks; agrees with its {found.reference} on {found.agreement:.1%} of {found.pictures} pictures, "
            f"{found.identical:.1%} identical; GPU {'right' if check.is_right else 'WRONG'}: "
            f"{check.agreement or check.reason}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--deploy", action="store_true")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    given = parser.parse_args()
    run = None
    with tempfile.TemporaryDirectory() as name:
        for form in given.forms:
            run = import_form(form, given.width, Path(name))
        if given.deploy and run is not None:
            deploy(run, Path(name))


if __name__ == "__main__":
    main()
