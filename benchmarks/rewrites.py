"""What the rewrites are worth: a network (ImageNet's attention56, a linear mask tail) rewritten, and as it was trained.

    python benchmarks/rewrites.py [--rounds 30] [--network attention56] [--mask-tail linear]
        [--without PASS] [--json]

Random weights and random BatchNorm statistics, one thread, XNNPACK. Three interpreters take turns within a round: the
rewritten file, the plain one, and the plain one again (A/A: what the machine itself makes of two equal things). The
ratio is the median over rounds of plain / rewritten; the A/A ratio shows how far it can be trusted. ``--without`` shows
what one pass is worth: "plain" is then the network with all others, such as "shift carried by additions".
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from typing import Any

import numpy as np
import tf_keras

from edge_ran import catalogue
from edge_ran.architecture import MASK_TAILS, configure
from edge_ran.card import InputSpec
from edge_ran.host import calibration, convert, latency_budget, rewrites
from edge_ran.host.flatbuffer import flatbuffer
from edge_ran.runtime import open_runtime
from edge_ran.runtime.output_capture import captured


def random_network(name: str, **options: Any) -> tf_keras.Model:
    """Build a network by name with random BatchNorm statistics; from fresh ones the converter deletes operators."""
    return latency_budget.random_network(configure(name, **options))


def files(network: str, mask_tail: str, without: str | None, folder: str) -> dict[tuple[str, str], str]:
    """(precision, form) -> path of a file; "plain" is without any pass, or with all but ``without``."""
    model = random_network(network, mask_tail=mask_tail)
    spec, made = InputSpec(*model.input_shape[1:3]), {}
    pixels = calibration.of_folder(None, spec, 8)[0]  # speed does not depend on the ranges
    for precision in ("fp32", "int8"):
        how = catalogue.converter(precision)
        rewritten = convert.rewrite_for(model, how)
        print(precision, *(f"{r.places:4d} x {r.name}" for r in rewritten.passes), sep="\n", file=sys.stderr)
        print(f"     logits moved by {rewritten.difference:.1e} of the largest", file=sys.stderr)
        plain = rewrites.rewrite(model, without=(without,)).model if without else model
        for form, chosen in (("rewritten", rewritten.model), ("plain", plain)):
            path = f"{folder}/{precision}-{form}.tflite"
            with captured(), open(path, "wb") as file:
                call = functools.partial(chosen, training=False)
                file.write(flatbuffer(call, how, spec, pixels if how.calibration else None))
            made[precision, form] = path
    return made


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--network", default="attention56")
    parser.add_argument("--mask-tail", default="linear", choices=MASK_TAILS)
    parser.add_argument("--without", metavar="PASS", choices=[name for name, _ in rewrites.PASSES])
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        made = files(chosen.network, chosen.mask_tail, chosen.without, folder)
        for precision in ("fp32", "int8"):
            order = ("rewritten", "plain", "plain")
            runtimes = [open_runtime(made[precision, form], threads=1) for form in order]
            given = runtimes[0].input
            random = np.random.default_rng(0)
            x = (random.integers(0, 256, given.shape) / (128 if given.dtype == "float32" else 1)).astype(given.dtype)
            times: list[list[float]] = [[] for _ in runtimes]
            for turn in range(chosen.rounds + 2):
                for place in np.roll(range(3), turn):  # nobody always comes first
                    started = time.perf_counter()
                    runtimes[place].run(x)
                    if turn >= 2:
                        times[place].append((time.perf_counter() - started) * 1e3)
            ours, plain, again = np.array(times)
            row = {
                "network": chosen.network,
                "mask_tail": chosen.mask_tail,
                "without": chosen.without,
                "precision": precision,
                "rewritten_ms": float(np.median(ours)),
                "plain_ms": float(np.median(plain)),
                "ratio": float(np.median((plain + again) / 2 / ours)),
                "control_ratio": float(np.median(plain / again)),
                "ratio_of_minima": float(min(plain.min(), again.min()) / ours.min()),
            }
            rows.append(row)
            if not chosen.json:
                other = f"without {chosen.without!r}" if chosen.without else "plain"
                print(
                    f"{chosen.network} {precision}: rewritten {row['rewritten_ms']:.1f} ms, "
                    f"{other} {row['plain_ms']:.1f} ms, {row['ratio']:.3f} times faster "
                    f"(of minima {row['ratio_of_minima']:.3f}; A/A control {row['control_ratio']:.3f})"
                )
    if chosen.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
