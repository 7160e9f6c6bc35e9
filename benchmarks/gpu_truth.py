"""How long an inference on the GPU takes, told by LiteRT's own litert-benchmark, by edge-ran and by the wall clock.

    python benchmarks/gpu_truth.py MODEL.tflite [--runs 30] [--json]

litert-benchmark stops its clock when the call returns, which may be when the work is only queued; edge-ran when every
output has been read. The judge is neither: the time from before the first of N runs to after the last output of the
last one, divided by N. Without a GPU, Debian's SwiftShader shows it:
VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from edge_ran.errors import EdgeRanError
from edge_ran.runtime import open_runtime


def litert_ms(model: Path, runs: int) -> float:
    """The median that litert-benchmark prints."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        words = ["--model", model, "--use_gpu", "--no_cpu", "--warmup_runs", 3, "--num_runs", runs]
        tool = Path(sys.executable).with_name("litert-benchmark")
        subprocess.run([tool, *map(str, words), "--result_json", str(result)], check=True, capture_output=True)
        return float(json.loads(result.read_text())["latency"]["median_ms"])


def ours_ms(model: Path, runs: int) -> tuple[float, float, str]:
    """Our median, wall-clock time divided by runs, and the adapter."""
    with open_runtime(model, accelerator="gpu", fallback=False) as runtime:
        x = np.zeros(runtime.input.shape, runtime.input.dtype)
        for _ in range(3):
            runtime.run(x)
        times_ms = []
        start = time.perf_counter()
        for _ in range(runs):
            before = time.perf_counter()
            runtime.run(x)
            times_ms.append(1e3 * (time.perf_counter() - before))
        wall_ms = 1e3 * (time.perf_counter() - start) / runs
        return float(np.median(times_ms)), wall_ms, str(runtime.accelerator)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    try:
        ours, wall, adapter = ours_ms(wanted.model, wanted.runs)
    except EdgeRanError as error:
        sys.exit(f"{error}\n  {error.remedy}")
    theirs = litert_ms(wanted.model, wanted.runs)
    record: dict[str, Any] = {
        "adapter": adapter,
        "runs": wanted.runs,
        "wall_ms_per_run": wall,
        "edge_ran_median_ms": ours,
        "litert_benchmark_median_ms": theirs,
        "edge_ran_over_wall": ours / wall,
        "wall_over_litert_benchmark": wall / theirs,
    }
    if wanted.json:
        print(json.dumps(record, indent=1))
    else:
        print(f"{wanted.model.name} on {adapter}, {wanted.runs} runs")
        print(f"wall clock        {wall:9.2f} ms a run")
        print(f"edge-ran          {ours:9.2f} ms median, {ours / wall:.2f} of the wall clock's")
        print(f"litert-benchmark  {theirs:9.2f} ms median, {theirs / wall:.3g} of the wall clock's")


if __name__ == "__main__":
    main()
