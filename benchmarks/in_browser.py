"""A browser beside Python on the same machine: the same file, one thread, `edge-ran benchmark` for both.

    python benchmarks/in_browser.py [FILE ...] [--rounds 3] [--kept FOLDER]

FILE: `.tflite` files with float or uint8 inputs; the shipped int8 network without one. A round measures each file with
`edge-ran benchmark FILE --cpu --threads 1` and with `edge-ran benchmark FILE --cpu --device browser` in a headless
Chromium, one after the other, and lets `edge-ran compare` read both records. The ratio is the browser's time by
Python's, of the medians and of the p5, which other processes disturb less. `--kept` keeps the records.

WebAssembly has vectors of 128 bits; native code takes what the processor has. How much of a ratio that explains is
measured as well: a single float32 convolution, which is one kernel of the same library (XNNPACK) in both, as a file of
its own. Where the network's ratio is the convolution's, the difference is that of the kernels.
"""

from __future__ import annotations

import argparse
import base64
import json
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from browser import chromium, static_server  # noqa: E402

from edge_ran import machine  # noqa: E402
from edge_ran.bench import convolution, read_report  # noqa: E402
from edge_ran.latency import LatencyStats  # noqa: E402
from edge_ran.phone.site import export_site  # noqa: E402
from edge_ran.runs import SHIPPED, SHIPPED_TFLITE  # noqa: E402
from edge_ran.runtime import interpreter  # noqa: E402

# A convolution in the page: the shortest of many runs, as bench.convolution takes it here.
CONVOLUTION = """
const [base, text, shape, done] = arguments;
(async () => {
  self.Module = { locateFile: (name) => `${base}litert/${name}` };
  self.litert ??= await import(`${base}litert/index.js`);
  self.loaded ??= self.litert.loadLiteRt(`${base}litert/litert_wasm_internal.js`);
  await self.loaded;
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const model = await litert.loadAndCompile(bytes, { accelerator: "wasm" });
  const x = new litert.Tensor(new Float32Array(shape.reduce((a, b) => a * b)).fill(0.5), shape);
  let best = Infinity;
  for (let i = 0; i < 60; i++) {
    const began = performance.now();
    const [y] = await model.run(x);
    await y.data();
    best = Math.min(best, performance.now() - began);
    y.delete();
  }
  done(best);
})().catch((error) => done(error.message));
"""


def edge_ran(folder: Path, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edge_ran", *map(str, words)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> str:
    text, errors = process.communicate(timeout=600)
    if process.returncode:
        sys.exit(errors)
    return text


def measured_here(folder: Path, file: Path, record: Path) -> None:
    finished(edge_ran(folder, "benchmark", file, "--cpu", "--threads", 1, "--result-json", record, "-f"))


def measured_in(browser: Any, folder: Path, file: Path, record: Path) -> None:
    words = ("benchmark", file, "--cpu", "--device", "browser", "--result-json", record, "-f")
    process = edge_ran(folder, *words)
    assert process.stderr
    for line in process.stderr:
        if found := re.match(r"open (\S+)", line):
            browser.get(found[1])
            break
    finished(process)
    browser.get("about:blank")


def kernels(browser: Any, url: str) -> list[float]:
    """Print the convolutions, and return their ratios."""
    package = interpreter.package()
    module, ratios = interpreter.load(package), []
    for one in convolution.CANDIDATES:
        data = convolution.build(one, is_int8=False)
        here_ms = 1e3 * convolution._best_seconds(module, data)
        shape = [1, one.side, one.side, one.channels]
        there_ms = browser.execute_async_script(CONVOLUTION, url, base64.b64encode(data).decode(), shape)
        if not isinstance(there_ms, (int, float)):
            sys.exit(f"the convolution does not run in the browser: {there_ms}")
        gmacs = [one.multiply_adds / ms / 1e6 for ms in (here_ms, there_ms)]
        ratios.append(there_ms / here_ms)
        print(f"{one!s:<36} {gmacs[0]:8.1f} {gmacs[1]:8.1f} GMAC/s  {ratios[-1]:6.2f}")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kept", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    files = [path.resolve() for path in options.files] or [Path(str(SHIPPED / "edge50" / SHIPPED_TFLITE))]
    with tempfile.TemporaryDirectory(prefix="edge-ran-") as temporary:
        folder = options.kept.resolve() if options.kept else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{machine.cpu_name()}, {platform.system()}, {time.strftime('%Y-%m-%d')}")
        with chromium(Path(temporary) / "profile") as browser:
            print(browser.execute_script("return navigator.userAgent"), "\n")
            print(f"{'float32 convolution, one thread':<36} {'Python':>8} {'browser':>8}         {'ratio':>6}")
            site = export_site(files[:1], Path(temporary) / "site")
            with static_server(site.folder) as url:
                browser.get(f"{url}manifest.webmanifest")
                expected = kernels(browser, url)
            print(f"\n{'network':<30} {'':<6} {'Python':>8} {'browser':>8} ms      {'ratio':>6}")
            for number, file in enumerate(files):
                measure(browser, folder, file, number, options.rounds)
    print(f"\nThe convolutions take {min(expected):.1f} to {max(expected):.1f} times as long in the browser.")


def measure(browser: Any, folder: Path, file: Path, number: int, rounds: int) -> None:
    """Measure a file in turns, and print its lines and what `compare` says of the last round."""
    here, there = folder / f"{number}-python.json", folder / f"{number}-browser.json"
    found: list[tuple[LatencyStats, LatencyStats]] = []
    for _ in range(rounds):
        measured_here(folder, file, here)
        measured_in(browser, folder, file, there)
        found.append((read_report(here).latency, read_report(there).latency))
    name = f"{file.parent.name}/{file.name}"[-30:]
    for what in ("p50_ms", "p5_ms"):
        times = [(getattr(one, what), getattr(other, what)) for one, other in found]
        ratios = sorted(other / one for one, other in times)
        python_ms, browser_ms = (statistics.median(kept) for kept in zip(*times, strict=True))
        print(
            f"{name:<30} {what:<6} {python_ms:8.3f} {browser_ms:8.3f}         {statistics.median(ratios):6.2f}", end=""
        )
        print(f"  rounds {ratios[0]:.2f} to {ratios[-1]:.2f}")
    compared = json.loads(finished(edge_ran(folder, "compare", here, there, "--json")))
    print(f"  compare: ratio {compared['ratio']:.2f}, {compared['low']:.2f} to {compared['high']:.2f}")
    for line in (*compared["cautions"], *compared["doubts"]):
        print(f"  compare: {line}")


if __name__ == "__main__":
    main()
