"""A release on the board, before it counts: does it answer as on the host, and how long does it take?

``python -m edge_ran.deploy.acceptance FOLDER`` prints one JSON object.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_ran import records
from edge_ran.deploy.layout import AT_RELEASE, AT_STORE, read_json
from edge_ran.deploy.release import Release
from edge_ran.errors import RELAY, EdgeRanError
from edge_ran.graph import read_graph
from edge_ran.latency import LatencyStats
from edge_ran.runtime import Accelerator, open_runtime
from edge_ran.runtime.agreement import Agreement, compare_all

WARMUP_RUNS, FEWEST_RUNS, LEAST_S, MOST_S = 5, 50, 1.0, 20.0


@dataclass(frozen=True)
class Acceptance:
    """How a release did: ``agreement`` with the host's answers, ``latency`` of an inference on its accelerator."""

    agreement: Agreement
    latency: LatencyStats
    accelerator: Accelerator


def accept(folder: Path) -> Acceptance:
    """Run the release in ``folder``.

    Raises:
        EdgeRanError: the model cannot be loaded or run on the accelerator that the release asks for.
    """
    release = records.read(Release, read_json(folder / "release.json"), "release")

    def placed(path: str) -> Path:
        return Path(path.replace(AT_RELEASE, str(folder)).replace(AT_STORE, str(folder.parents[1] / "store")))

    with np.load(placed(release.answers), allow_pickle=False) as answers:
        graph = dataclasses.replace(read_graph(placed(release.model)), scores=int(answers["scores"]))
        inputs = list(answers["inputs"])
        outputs = [answers[f"output{i}"] for i in range(len(graph.outputs))]
    reference = [[output[place] for output in outputs] for place in range(len(inputs))]
    shape = inputs[0].shape if graph.inputs[0].open_axes else ()
    with open_runtime(graph, release.runtime, lambda: inputs, shape) as runtime:
        got = [runtime.run(x) for x in inputs]
        agreement = compare_all(reference, got, graph.outputs, scores=graph.scores)
        for x in inputs[:WARMUP_RUNS]:
            runtime.run(x)
        times: list[float] = []
        began = time.perf_counter()
        while (spent := time.perf_counter() - began) < MOST_S and (len(times) < FEWEST_RUNS or spent < LEAST_S):
            at = time.perf_counter()
            runtime.run(inputs[len(times) % len(inputs)])
            times.append((time.perf_counter() - at) * 1e3)
        return Acceptance(agreement, LatencyStats.from_ms(times), runtime.accelerator)


def main() -> int:
    """Print what was found, or the error for whoever asked."""
    try:
        print(json.dumps(records.document(accept(Path(sys.argv[1]))), allow_nan=False))
    except EdgeRanError as error:
        word = RELAY if RELAY in os.environ else "error"
        print(f"{word}:{json.dumps({'what': str(error), 'remedy': error.remedy})}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
