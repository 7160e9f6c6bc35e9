"""What loading costs, and what LiteRT's own caches would save of it: the GPU's programs, the CPU's packed weights.

    python benchmarks/cold_start.py MODEL.tflite [--rounds 5] [--json]

Every figure is of a fresh process, in turns. ``python`` is LiteRT's CompiledModel as its Python package offers it;
``C`` the same through the C interface of the same library, which alone can name a folder for compiled GPU programs
(``serialization_dir``, ``model_cache_key``, ``serialize_program_cache``); ``C, programs kept`` reads them from an
earlier process, which LiteRT confirms ("from serialized data"). The CPU's packed weights
(``xnnpack_weight_cache_path``) need no C. A Vulkan driver may keep programs as well; Mesa's and NVIDIA's do,
SwiftShader does not.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from edge_ran.runtime import output_capture

CPU, GPU = 1, 2  # LiteRtHwAccelerators
RUNTIME_FOLDER, TEXT = 22, 8  # LiteRtEnvOptionTag, LiteRtAnyType
CONFIRMED = "Initialized InferenceContext from serialized data"


class AnyValue(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("value", ctypes.c_void_p))


class Option(ctypes.Structure):
    _fields_ = (("tag", ctypes.c_int), ("value", AnyValue))


def load_by_c(model: str, cache: str) -> None:
    """Compile the model for the GPU through LiteRT's C interface, with a folder for its programs or without."""
    import ai_edge_litert

    folder = Path(ai_edge_litert.__file__).parent
    litert, libc = ctypes.CDLL(str(folder / "libLiteRt.so")), ctypes.CDLL(None)

    def call(name: str, *words: Any) -> None:
        if status := getattr(litert, name)(*words):
            raise RuntimeError(f"{name}: status {status}")

    handles = [ctypes.c_void_p() for _ in range(5)]
    environment, loaded, options, opaque, compiled = handles
    text = ctypes.create_string_buffer(str(folder).encode())
    chosen = (Option * 1)(Option(RUNTIME_FOLDER, AnyValue(TEXT, ctypes.cast(text, ctypes.c_void_p))))
    call("LiteRtCreateEnvironment", 1, chosen, ctypes.byref(environment))
    call("LiteRtCreateModelFromFile", environment, model.encode(), ctypes.byref(loaded))
    call("LiteRtCreateOptions", ctypes.byref(options))
    call("LiteRtSetOptionsHardwareAccelerators", options, CPU | GPU)
    if cache:
        toml = f'serialization_dir = "{cache}"\nmodel_cache_key = "model"\nserialize_program_cache = true\n'
        libc.strdup.restype = ctypes.c_void_p
        payload, free = libc.strdup(toml.encode()), ctypes.cast(libc.free, ctypes.c_void_p)
        call("LiteRtCreateOpaqueOptions", b"gpu_options", ctypes.c_void_p(payload), free, ctypes.byref(opaque))
        call("LiteRtAddOpaqueOptions", options, opaque)
    call("LiteRtCreateCompiledModel", environment, loaded, options, ctypes.byref(compiled))


def load_by_python(model: str, accelerator: str, cache: str) -> None:
    from ai_edge_litert import compiled_model as litert

    kinds = litert.HardwareAccelerator
    cpu = litert.CpuOptions(num_threads=2, **({"xnnpack_weight_cache_path": cache} if cache else {}))
    wanted = kinds.GPU | kinds.CPU if accelerator == "gpu" else kinds.CPU
    loaded.append(litert.CompiledModel.from_file(model, options=litert.Options(wanted, cpu_options=cpu)))


loaded: list[Any] = []  # until the process ends, for destroying is not loading


def alone(way: str, model: str, cache: str) -> None:
    """Load once and print milliseconds, in a process of its own."""
    import ai_edge_litert.compiled_model  # noqa: F401  importing is not loading

    failure = ""
    with output_capture.captured() as said:
        start = time.perf_counter()
        try:
            load_by_c(model, cache) if way == "c" else load_by_python(model, way, cache)
        except Exception as error:
            failure = " ".join(str(error).split())
        ms = 1e3 * (time.perf_counter() - start)
    found = {"ms": ms, "confirmed": CONFIRMED in said.text, "failure": failure}
    print(json.dumps(found), flush=True)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            "gpu, python": ("gpu", ""),
            "gpu, C": ("c", ""),
            "gpu, C, again": ("c", ""),  # how far two of the same are apart
            "gpu, C, programs kept": ("c", folder),
            "cpu, python": ("cpu", ""),
            "cpu, python, weights kept": ("cpu", f"{folder}/weights"),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        confirmed = failure = ""
        for turn in range(wanted.rounds + 1):
            for name, (way, cache) in ways.items():
                command = [sys.executable, __file__, "--alone", way, str(wanted.model), cache]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(done.stdout)
                if found["failure"]:
                    failure = f"{name}: {found['failure']}"
                    continue
                if turn:  # the first fills the caches
                    times[name].append(found["ms"])
                if found["confirmed"] and cache:
                    confirmed = "LiteRT confirms that it read the programs kept"
        kept_mb = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
    medians = {name: statistics.median(ms) for name, ms in times.items() if ms}
    record = {"model": str(wanted.model), "median_ms": medians, "kept_mb": kept_mb, "note": confirmed or failure}
    if wanted.json:
        print(json.dumps(record, indent=1))
        return
    for name, ms in medians.items():
        low, high = min(times[name]), max(times[name])
        print(f"{name:<27} {ms:8.1f} ms  ({low:.1f} to {high:.1f})")
    print(f"{kept_mb:.1f} MB kept; {record['note'] or 'nothing says that programs kept were read'}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--alone"]:
        alone(*sys.argv[2:])
    main()
