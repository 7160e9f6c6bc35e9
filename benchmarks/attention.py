"""What seeing why costs: inference with the soft masks as outputs and without, reading them, and drawing them.

    python benchmarks/attention.py [MODEL.tflite …] [--threads 1] [--json]

Three files of each model are measured in turns, loaded anew six times: as it is, a copy of that (what differs between
those two is the measurement's own error), and with its masks. Reading is turning the outputs into numbers with places
in the frame, summarising what ``run --json`` says of them; tinting is laying a mask over a picture of that size. The
default is the network that ships.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_ran import catalogue, records
from edge_ran.attention import chosen, tint
from edge_ran.bench import BenchModel, Plan, benchmark
from edge_ran.classifier import Classifier, with_masks
from edge_ran.picture import read_picture
from edge_ran.runs import SHIPPED, SHIPPED_TFLITE
from edge_ran.runtime import RuntimeOptions

SIZES = ((640, 480), (1920, 1080))


def median_ms(work: Callable[[], Any], runs: int = 200) -> float:
    """Median milliseconds of one call, after a tenth as many to warm up."""
    times = []
    for _ in range(runs + runs // 10):
        begun = time.perf_counter()
        work()
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times[runs // 10 :])


def measure(model: Path, threads: int) -> dict[str, Any]:
    """All figures of one model."""
    options = RuntimeOptions(accelerator="cpu", threads=threads)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.tflite" for name in ("plain", "again", "masks")}
        for name in ("plain", "again"):
            shutil.copyfile(model, files[name])
        with_masks(model, files["masks"])
        found = benchmark([BenchModel(path, options, name) for name, path in files.items()], Plan(300, min_secs=2))
        frame = read_picture(catalogue.folder("calibration_data") / "chelsea-00.jpg")
        with Classifier(files["masks"], options, attention=True) as classifier:
            classifier.scores(frame)
            looks = classifier.looks(frame)
            reading = median_ms(lambda: classifier.looks(frame))
            summarising = median_ms(lambda: [records.to_dict(look) for look in looks])
            tinting = {}
            for width, height in SIZES:
                picture = np.asarray(cv2.resize(frame, (width, height)), np.uint8)
                large = classifier.looks(picture)

                def work(picture: Any = picture, large: Any = large) -> None:
                    tint(picture, chosen(large, "mean"))

                tinting[f"{width}x{height}"] = median_ms(work, 100)
    again, masks = found.ratios
    return {
        "model": str(model),
        "masks": len(looks),
        "plain_ms": found.reports[0].latency.p50_ms,
        "masks_ms": found.reports[2].latency.p50_ms,
        "ratio": [masks.ratio, masks.low, masks.high],
        "ratio_of_the_copy": [again.ratio, again.low, again.high],
        "reliable": all(report.validity.reliable for report in found.reports),
        "reading_ms": reading,
        "summarising_ms": summarising,
        "tinting_ms": tinting,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, default=[SHIPPED / "edge50" / SHIPPED_TFLITE])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = [measure(model, given.threads) for model in given.models]
    if given.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        (ratio, low, high), copy = row["ratio"], row["ratio_of_the_copy"]
        print(f"{row['model']}, {given.threads} threads{'' if row['reliable'] else ', a busy machine'}")
        print(f"  inference  {row['plain_ms']:.3f} ms, {row['masks_ms']:.3f} ms with {row['masks']} masks")
        print(f"  ratio      {ratio:.3f} (95 %: {low:.3f} to {high:.3f}); of a copy of the file {copy[0]:.3f}")
        print(f"  reading    {row['reading_ms']:.3f} ms, as numbers for --json {row['summarising_ms']:.3f} ms")
        print("  tinting    " + ", ".join(f"{size} {ms:.2f} ms" for size, ms in row["tinting_ms"].items()))


if __name__ == "__main__":
    main()
