"""How long converting indoor56 takes: ours, and ``TFLiteConverter.from_keras_model`` on the same Keras model.

    python benchmarks/conversion.py [--rounds 3] [--network indoor56] [--precision fp32 --precision int8] [--json]

Both convert one model with random weights and random BatchNorm statistics (fresh ones let the converter delete
operators), calibrated on the same pictures. Ours includes the rewriting and its check; every conversion runs in a
process of its own, the two in turns, timed without imports and without building the model. Wall-clock time is what a
person waits; processor time tells the same story on a machine that is busy with other things.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

PICTURES = 100  # what TensorFlow's guide recommends at least


def once(way: str, network: str, precision: str) -> tuple[float, float]:
    """Convert in this process; return seconds of wall-clock and of processor time."""
    import functools
    import time

    import tensorflow as tf
    from rewrites import random_network

    from edge_ran import catalogue
    from edge_ran.card import InputSpec
    from edge_ran.host import calibration, rewrites
    from edge_ran.host.flatbuffer import flatbuffer

    model = random_network(network)
    spec, how = InputSpec(*model.input_shape[1:3]), catalogue.converter(precision)
    pixels = calibration.of_folder(None, spec, PICTURES)[0] if how.calibration else None
    started, worked = time.perf_counter(), time.process_time()
    if way == "ours":
        rewritten = rewrites.rewrite(model).model
        flatbuffer(functools.partial(rewritten, training=False), how, spec, pixels)
        return time.perf_counter() - started, time.process_time() - worked
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if how.weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if how.weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if pixels is not None:
        converter.representative_dataset = lambda: calibration.representative(pixels, spec)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(how.io)
    converter.convert()
    return time.perf_counter() - started, time.process_time() - worked


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", default="indoor56")
    parser.add_argument("--precision", action="append", choices=("fp32", "fp16", "dynamic", "int8"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--once", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.once:
        print(json.dumps(once(chosen.once, chosen.network, chosen.precision[0])))
        return
    rows = []
    for precision in chosen.precision or ["fp32", "int8"]:
        taken: dict[str, list[list[float]]] = {"ours": [], "from_keras_model": []}
        for _ in range(chosen.rounds):
            for way, seconds in taken.items():
                command = [sys.executable, __file__, "--once", way, "--network", chosen.network]
                done = subprocess.run(
                    [*command, "--precision", precision], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                seconds.append(json.loads(done.stdout.splitlines()[-1]))
        row: dict[str, object] = {"network": chosen.network, "precision": precision, "rounds": chosen.rounds}
        for i, clock in enumerate(("wall", "processor")):
            ours, theirs = (statistics.median(s[i] for s in seconds) for seconds in taken.values())
            row |= {f"ours_{clock}_s": ours, f"from_keras_model_{clock}_s": theirs, f"{clock}_ratio": theirs / ours}
            if not chosen.json:
                print(
                    f"{chosen.network} {precision:8} {clock:9} ours {ours:6.1f} s   from_keras_model {theirs:6.1f} s   "
                    f"{theirs / ours:.2f} times faster",
                    flush=True,
                )
        rows.append(row)
    if chosen.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
