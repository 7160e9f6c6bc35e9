"""Whether the figures of ``edge-ran benchmark`` can be believed, tried on this machine.

    python benchmarks/validity.py [--model M ...] [--accelerator cpu gpu] [--repeats 5] [--tries 20] [--json]

Two trials, through the command as a user types it:

1. The median against wall-clock time divided by runs, ``--repeats`` times a model and accelerator: once with the
   report's own account (which holds what lies between the runs), once with a plain loop in a process of its own before
   and after each, timed from outside by another clock. The figure is good when both are within 3 %.
2. A/A: the same file against itself, ``--tries`` times; how often a difference is claimed where none is. One of 20 is
   what an interval of 95 % may.

Work of others makes the mean larger than the median, which is then the truth: the report says so itself, in its notes
and in its reasons why it is not reliable. So only those repeats count in which other processes kept less than a tenth
of a core busy, and how many those were is said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LOOP_S = 2.0
QUIET = 0.1  # cores
WITHIN = 0.03


def benchmark(models: list[Path], accelerator: str, threads: int, *words: str) -> dict[str, Any]:
    """What the command says of the models."""
    options = ["--accelerator", accelerator, "--threads", str(threads), "--json", "--quiet", *words]
    command = [sys.executable, "-m", "edge_ran", "benchmark", *map(str, models), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return json.loads(done.stdout)


def loop(model: Path, accelerator: str, threads: int) -> float:
    """Milliseconds a run of a plain loop, by the clock on the wall."""
    import numpy as np

    from edge_ran.runtime import open_runtime

    with open_runtime(model, accelerator=accelerator, threads=threads, fallback=False) as runtime:
        x = np.zeros([max(1, n) for n in runtime.input.shape], runtime.input.dtype)
        begun = time.time()
        while time.time() - begun < LOOP_S / 4:
            runtime.run(x)
        count, begun = 0, time.time()
        while time.time() - begun < LOOP_S:
            runtime.run(x)
            count += 1
        return (time.time() - begun) * 1e3 / count


def outside(model: Path, accelerator: str, threads: int) -> float:
    """``loop`` in a process of its own, as its memory lies elsewhere each time."""
    words = [sys.executable, __file__, "--loop", "--model", str(model), "--accelerator", accelerator]
    done = subprocess.run([*words, "--threads", str(threads)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return float(done.stdout.splitlines()[-1])


def against_the_wall(model: Path, accelerator: str, threads: int, repeats: int) -> dict[str, Any]:
    """Trial 1 for one model."""
    own, plain, medians, before = [], [], [], outside(model, accelerator, threads)
    for _ in range(repeats):
        report = benchmark([model], accelerator, threads, "--min-secs", "2")
        after = outside(model, accelerator, threads)
        median, busy = report["latency"]["median_ms"], report["conditions"]["others_busy"] or 0.0
        ratios = report["timing"]["wall_per_run_ms"] / median, (before + after) / 2 / median
        before = after
        print(f"{median:.4g} ms, wall {ratios[0]:.3f}, loop {ratios[1]:.3f}, others {busy} cores", file=sys.stderr)
        if busy < QUIET:
            medians.append(median)
            own.append(ratios[0])
            plain.append(ratios[1])
    found: dict[str, Any] = {"model": model.name, "accelerator": accelerator, "repeats": repeats, "quiet": len(own)}
    if own:
        found |= {
            "median_ms": statistics.median(medians),
            "wall_by_median": statistics.median(own),
            "wall_by_median_range": [min(own), max(own)],
            "loop_by_median": statistics.median(plain),
            "loop_by_median_range": [min(plain), max(plain)],
            "within_3_percent": sum(abs(ratio - 1) <= WITHIN for ratio in own),
        }
    return found


def against_itself(model: Path, accelerator: str, threads: int, tries: int) -> dict[str, Any]:
    """Trial 2 for one model."""
    ratios = []
    for number in range(tries):
        (ratio,) = benchmark([model, model], accelerator, threads)["ratios"]
        ratios.append(ratio)
        print(f"try {number + 1}: {ratio['ratio']:.4f} ({ratio['low']:.4f} to {ratio['high']:.4f})", file=sys.stderr)
    return {
        "model": model.name,
        "accelerator": accelerator,
        "tries": tries,
        "no_difference": sum(not ratio["different"] for ratio in ratios),
        "one_in_interval": sum(ratio["low"] <= 1 <= ratio["high"] for ratio in ratios),
        "ratios": [[ratio[key] for key in ("ratio", "low", "high")] for ratio in ratios],
        "median_width": statistics.median(ratio["high"] - ratio["low"] for ratio in ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, nargs="+", help="default: the shipped one")
    parser.add_argument("--accelerator", nargs="+", default=["cpu"], choices=("cpu", "gpu"))
    parser.add_argument("--repeats", type=int, default=5, help="0 leaves the first trial out")
    parser.add_argument("--tries", type=int, default=20, help="0 leaves the second trial out")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--loop", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.model is None:
        from edge_ran.runs import SHIPPED, SHIPPED_TFLITE

        chosen.model = [SHIPPED / "edge50" / SHIPPED_TFLITE]
    if chosen.loop:
        print(loop(chosen.model[0], chosen.accelerator[0], chosen.threads))
        return
    walls, selves = [], []
    for model in chosen.model:
        for accelerator in chosen.accelerator:
            if chosen.repeats:
                walls.append(against_the_wall(model, accelerator, chosen.threads, chosen.repeats))
            if chosen.tries:
                selves.append(against_itself(model, accelerator, chosen.threads, chosen.tries))
    if chosen.json:
        print(json.dumps({"against_the_wall": walls, "against_itself": selves}, indent=1))
        return
    for row in walls:
        print(f"{row['model']} on {row['accelerator']}: {row['quiet']} of {row['repeats']} repeats were quiet", end="")
        if row["quiet"]:
            low, high = row["wall_by_median_range"]
            first, last = row["loop_by_median_range"]
            print(
                f"; median {row['median_ms']:.4g} ms; wall-clock time a run is {row['wall_by_median']:.3f} times that "
                f"({low:.3f} to {high:.3f}), within 3 % in {row['within_3_percent']}; a plain loop outside "
                f"{row['loop_by_median']:.3f} ({first:.3f} to {last:.3f})",
                end="",
            )
        print()
    for row in selves:
        print(
            f"{row['model']} on {row['accelerator']} against itself: no difference in {row['no_difference']} of "
            f"{row['tries']} tries, 1 in the interval in {row['one_in_interval']}; "
            f"the interval is {row['median_width']:.1%} wide"
        )


if __name__ == "__main__":
    main()
