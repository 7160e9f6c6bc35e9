"""Whether memory stays flat over many loads and many runs, on each accelerator: table, slope, verdict.

    python benchmarks/endurance.py [--cycles 1000] [--runs 10000] [--on cpu,gpu,delegate] [--model m.tflite] [--json]

Each accelerator has a process of its own: first ``--cycles`` times load, run once, close; then one load and ``--runs``
runs. Resident memory, file descriptors and threads are noted twenty times in each; the slope is the least-squares line
through the last three quarters of memory, for what is loaded once and kept comes first. Exit 1 where memory grows
faster than LIMITS, or descriptors or threads grow.

``gpu`` runs without a GPU, too: VK_DRIVER_FILES=/usr/lib/chromium/vk_swiftshader_icd.json. ``delegate`` is the one of
the tests, compiled here. ``--bare`` loads with LiteRT's own classes instead of ours, which tells whose a leak is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_ran.graph import read_graph
from edge_ran.runtime import RuntimeOptions, open_runtime, output_capture

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "tests" / "models" / "float32.tflite"
POINTS = 20
LIMITS = {"cycles": 4.0, "runs": 0.1}  # KiB for each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--on", default="cpu,gpu,delegate")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--bare", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", help=argparse.SUPPRESS)  # in the child: the accelerator
    wanted = parser.parse_args()
    if wanted.alone:
        print(json.dumps(endure(wanted.alone, wanted.model, wanted.cycles, wanted.runs, wanted.bare)))
        return
    found = []
    for accelerator in wanted.on.split(","):
        with tempfile.TemporaryDirectory() as folder:
            library = compile_delegate(Path(folder)) if accelerator == "delegate" else accelerator
            command = [sys.executable, __file__, "--alone", library, "--model", str(wanted.model)]
            command += [
                "--cycles",
                str(wanted.cycles),
                "--runs",
                str(wanted.runs),
                *(["--bare"] if wanted.bare else []),
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append({"accelerator": accelerator, **json.loads(done.stdout)})
        if not wanted.json:
            print(text(found[-1]), flush=True)
    if wanted.json:
        print(json.dumps(found, indent=1))
    sys.exit(0 if all(part["flat"] for one in found for part in (one["cycles"], one["runs"])) else 1)


def endure(accelerator: str, model: Path, cycles: int, runs: int, bare: bool) -> dict[str, Any]:
    """Load and close, then run, and say what became of memory, descriptors and threads."""
    if accelerator in ("cpu", "gpu"):
        options = RuntimeOptions(accelerator, fallback=accelerator == "cpu")
    else:
        options = RuntimeOptions(delegate=Path(accelerator), fallback=True)
    tensor = read_graph(model).inputs[0]
    x = np.zeros(tensor.shape, tensor.dtype)
    load = bare_loader(accelerator, model) if bare else lambda: open_runtime(model, options)

    def cycle() -> None:
        runtime = load()
        runtime.run(x)
        runtime.close()

    loads = watch(cycles, cycle, "cycles")
    runtime = load()
    name = str(getattr(runtime, "accelerator", accelerator))
    repeated = watch(runs, lambda: runtime.run(x), "runs")
    runtime.close()
    return {"on": name, "bare": bare, "cycles": loads, "runs": repeated}


def watch(count: int, step: Callable[[], Any], what: str) -> dict[str, Any]:
    marks = sorted({round(count * i / POINTS) for i in range(POINTS + 1)})
    points = []
    start = time.perf_counter()
    for done in range(count + 1):
        if done in marks:
            points.append({what: done, "rss_kib": rss_kib(), "fds": fds(), "threads": threads()})
        if done < count:
            step()
    late = points[len(points) // 4 :]
    slope = float(np.polyfit([p[what] for p in late], [p["rss_kib"] for p in late], 1)[0]) if count > POINTS else 0.0
    steady = all(late[-1][key] <= late[0][key] for key in ("fds", "threads"))
    return {
        "count": count,
        "seconds": round(time.perf_counter() - start, 1),
        "kib_each": round(slope, 4),
        "flat": steady and slope <= LIMITS[what],
        "points": points,
    }


def bare_loader(accelerator: str, model: Path) -> Callable[[], Any]:
    """What loads with LiteRT's classes alone."""
    from ai_edge_litert import compiled_model, interpreter

    class Classic:
        def __init__(self) -> None:
            delegates = [interpreter.load_delegate(accelerator)] if accelerator != "cpu" else None
            with output_capture.captured():
                self.native = interpreter.Interpreter(str(model), experimental_delegates=delegates, num_threads=2)
                self.native.allocate_tensors()

        def run(self, x: Any) -> Any:
            self.native.set_tensor(self.native.get_input_details()[0]["index"], x)
            self.native.invoke()
            return self.native.get_tensor(self.native.get_output_details()[0]["index"])

        def close(self) -> None:
            del self.native

    class Compiled:
        def __init__(self) -> None:
            kinds = compiled_model.HardwareAccelerator
            with output_capture.captured():
                self.native = compiled_model.CompiledModel.from_file(str(model), kinds.GPU | kinds.CPU)
                self.inputs, self.outputs = self.native.create_input_buffers(0), self.native.create_output_buffers(0)
                self.shape = read_graph(model).outputs[0].shape

        def run(self, x: Any) -> Any:
            with contextless():
                self.inputs[0].write(x)
            self.native.run_by_index(0, self.inputs, self.outputs)
            return self.outputs[0].read(int(np.prod(self.shape)), np.float32)

        def close(self) -> None:
            with output_capture.captured():
                del self.inputs, self.outputs, self.native

    said = threading.Event()

    def contextless() -> Any:
        import contextlib

        if said.is_set():
            return contextlib.nullcontext()
        said.set()
        return output_capture.captured()  # the first write talks

    return Compiled if accelerator == "gpu" else Classic


def rss_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def compile_delegate(folder: Path) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        sys.exit("the delegate needs a C compiler")
    library = folder / "libdelegate.so"
    source = ROOT / "tests" / "delegates" / "delegate.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-DKIND=0", "-o", library, source, "-lm"], check=True)
    return str(library)


def text(found: dict[str, Any]) -> str:
    lines = [f"{found['on']}{', bare' if found['bare'] else ''}"]
    for what in ("cycles", "runs"):
        part = found[what]
        lines.append(f"  {what:>8}  RSS MiB  fds  threads")
        lines += [
            f"  {p[what]:8,}  {p['rss_kib'] / 1024:7.1f}  {p['fds']:3}  {p['threads']:7}" for p in part["points"][::4]
        ]
        verdict = "flat" if part["flat"] else "GROWS"
        lines.append(f"  {verdict}: {part['kib_each']:+.3f} KiB each, {part['count']:,} {what} in {part['seconds']} s")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
