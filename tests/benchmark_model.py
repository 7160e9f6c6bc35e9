"""A stand-in for the official ``benchmark_model``, which no package registry has.

It runs the model with LiteRT, on the CPU (XNNPACK; the plain kernels where a GPU is asked for), and prints what the two
genuine programs print. The words and their order are those of LiteRT's repository of August 2026 (f677904):
tflite/tools/benchmark/{benchmark_model,benchmark_tflite_model}.cc, tflite/core/subgraph.cc,
tflite/tools/delegates/gpu_delegate_provider.cc, litert/tools/benchmark_litert_model.h, and of TensorFlow's
core/util/stats_calculator.h.

``CONFIG`` is put before this text where it is made a program: ``style`` is ``tflite`` or ``litert``, ``gpu`` what its
GPU is like, ``wrong`` an operator, or the number of an output, that its GPU gets wrong, ``haste`` what the seconds
asked for are divided by, ``mute`` a GPU whose answers are not written.
"""

import os
import signal
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

CONFIG = globals().get("CONFIG", {})
STYLE, GPU, WRONG = CONFIG.get("style", "tflite"), CONFIG.get("gpu", "full"), CONFIG.get("wrong", "")
HASTE = CONFIG.get("haste", 20)
KNOWN = {
    "graph", "num_runs", "warmup_runs", "min_secs", "max_secs", "warmup_min_secs", "num_threads", "use_gpu",
    "report_peak_memory_footprint", "verbose",
}  # fmt: skip
KNOWN |= {
    "tflite": {"use_xnnpack", "gpu_precision_loss_allowed", "input_layer", "input_layer_shape",
               "input_layer_value_files", "output_filepath"},
    "litert": {"use_cpu", "gpu-precision", "require_full_delegation"},
}[STYLE]  # fmt: skip
KNOWN -= set(CONFIG.get("unknown", ()))


def log(severity, text):
    print(f"{severity}: {text}", file=sys.stderr if severity in ("ERROR", "FATAL") else sys.stdout, flush=True)


def litert_log(text, line=94):
    print(f"INFO: [benchmark_litert_model.h:{line}] {text}", file=sys.stderr, flush=True)


def us(value):
    return f"{value:.6g}"  # as C++ streams print a double


def stat(times):
    if min(times) == max(times):
        line = f"count={len(times)} curr={times[-1]}" + ("(all same)" if len(times) > 1 else "")
    else:
        line = (
            f"count={len(times)} first={times[0]} curr={times[-1]} min={min(times)} max={max(times)} "
            f"avg={us(np.mean(times))} std={int(np.std(times))}"
        )
    if not CONFIG.get("old"):
        ordered = sorted(times)
        line += "".join(
            f" {name}={ordered[len(times) * p // 100]}" for name, p in (("p5", 5), ("median", 50), ("p95", 95))
        )
    log("INFO", line + "\n")


def fail(text):
    log("ERROR", text)
    log("ERROR", "Benchmarking failed.")
    sys.exit(1)


def main():
    log("INFO", "STARTING!")
    if crash := CONFIG.get("crash"):
        os.kill(os.getpid(), crash)
    options, unconsumed = {}, []
    for word in sys.argv[1:]:
        name, _, value = word.removeprefix("--").partition("=")
        if name in KNOWN:
            options[name] = value
        else:
            unconsumed.append(word)
    if unconsumed:
        log("WARN", f"Unconsumed cmdline flags: {' '.join(unconsumed)}")
    log("INFO", "Log parameter values verbosely: [0]")
    log("INFO", f"Min num runs: [{options['num_runs']}]")
    log("INFO", f"Graph: [{options['graph']}]")
    for line in CONFIG.get("says", ()):
        print(line, flush=True)
    on_gpu = options.get("use_gpu") == "true"
    begun = time.perf_counter()
    if not os.path.exists(options["graph"]):
        fail(f"Failed to load model {options['graph']}")
    interpreter = Interpreter(
        options["graph"],
        num_threads=max(1, int(options["num_threads"])),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        if on_gpu
        else OpResolverType.AUTO,
    )
    nodes = [op["op_name"] for op in interpreter._get_ops_details() if op["op_name"] != "DELEGATE"]
    for shape, detail in zip(
        options.get("input_layer_shape", "").split(":"), interpreter.get_input_details(), strict=False
    ):
        if shape:
            interpreter.resize_tensor_input(detail["index"], [int(n) for n in shape.split(",")])
    interpreter.allocate_tensors()
    log("INFO", f"Loaded model {options['graph']}")
    log("INFO", "Initialized TensorFlow Lite runtime.")
    applied = apply(on_gpu, len(nodes))
    init_us = int((time.perf_counter() - begun) * 1e6)
    log("INFO", f"The input model file size (MB): {os.path.getsize(options['graph']) / 1e6:g}")
    log("INFO", f"Initialized session in {init_us / 1e3:g}ms.")
    feed(interpreter, options)
    times = {}
    for name, least, secs in (("warmup", "warmup_runs", "warmup_min_secs"), ("runs", "num_runs", "min_secs")):
        count, secs, most = int(options[least]), options[secs], options["max_secs"]
        log("INFO", f"Running benchmark for at least {count} iterations and at least {secs} seconds but terminate if "
            f"exceeding {most} seconds.")  # fmt: skip
        times[name], start, took = [], time.perf_counter(), 0.0
        while (len(times[name]) < count or took < float(secs) / HASTE) and took <= float(most):
            before = time.perf_counter()
            interpreter.invoke()
            times[name].append(max(1, int((time.perf_counter() - before) * 1e6)))
            took = time.perf_counter() - start
        stat(times[name])
    warmup, runs = times["warmup"], times["runs"]
    if STYLE == "litert":
        print("INFO: [benchmark_litert_model.h:90] \n========== BENCHMARK RESULTS ==========", file=sys.stderr)
        litert_log(f"Model initialization: {init_us / 1e3:.2f} ms")
        litert_log(f"Warmup (first):       {warmup[0] / 1e3:.2f} ms", 96)
        litert_log(f"Warmup (avg):         {np.mean(warmup) / 1e3:.2f} ms ({len(warmup)} runs)", 98)
        litert_log(f"Inference (avg):      {np.mean(runs) / 1e3:.2f} ms ({len(runs)} runs)", 100)
        litert_log("\nMemory Usage:", 124)
        litert_log("Init footprint:       4.25 MB", 126)
        litert_log("Overall footprint:    5.50 MB", 128)
        litert_log("Peak memory usage not available. (peak_mem_mb <= 0)", 135)
        return
    log("INFO", f"Inference timings in us: Init: {init_us}, First inference: {warmup[0]}, Warmup (avg): "
        f"{us(np.mean(warmup))}, Inference (avg): {us(np.mean(runs))}")  # fmt: skip
    log("INFO", "Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the "
        "actual memory footprint of the model at runtime. Take the information at your discretion.")  # fmt: skip
    log("INFO", "Memory footprint delta from the start of the tool (MB): init=4.25 overall=5.5")
    if (path := options.get("output_filepath")) and not (on_gpu and CONFIG.get("mute")):
        with open(path, "wb") as file:
            for place, detail in enumerate(interpreter.get_output_details()):
                value = interpreter.get_tensor(detail["index"])
                file.write((np.flip(value) if applied and WRONG in (*nodes, place) else value).tobytes())


def replacing(taken, count, name):
    log("VERBOSE", f"Replacing {taken} out of {count} node(s) with delegate ({name}) node, yielding "
        f"{1 + (taken < count)} partitions for subgraph 0 (main).")  # fmt: skip


def refusing(taken, count):
    some = f"{taken} operations will run on the GPU, and the remaining {count - taken}"
    none = f"No operations will run on the GPU, and all {count}"
    log("ERROR", "Following operations are not supported by GPU delegate:\nSOFTMAX: OP is supported, but tensor type/"
        f"shape isn't compatible.\n{some if taken else none} operations will run on the CPU.")  # fmt: skip


def apply(on_gpu, count):
    """Say what the delegates say; return whether the GPU took it."""
    executed = "delegate, and the model graph will be"
    if not on_gpu:
        log("INFO", "Created TensorFlow Lite XNNPACK delegate for CPU.")
        replacing(count, count, "TfLiteXNNPackDelegate")
        if STYLE == "tflite":
            log("INFO", f"Explicitly applied XNNPACK {executed} completely executed by the delegate.")
        return False
    if STYLE == "litert":
        if GPU != "full":
            return apply(False, count)  # it falls back without a word
        log("INFO", "[gpu_environment.cc:237] Created OpenCL device from provided device id and platform id.")
        replacing(count, count, "LITERT_CL")
        return True
    if GPU == "unsupported":
        log("WARN", "GPU acceleration is unsupported on this platform.")
        return apply(False, count)
    log("INFO", "Created TensorFlow Lite delegate for GPU.")
    log("INFO", "GPU delegate created.")
    if GPU == "crashes":
        os.kill(os.getpid(), signal.SIGSEGV)
    if GPU == "hangs":
        time.sleep(600)
    if GPU == "fails":
        log("ERROR", "TfLiteGpuDelegate Init: Can not open OpenCL library on this device - dlopen failed")
        fail("Failed to apply GPU delegate.")
    log("INFO", "Loaded OpenCL library with dlopen.")
    if GPU == "none":
        refusing(0, count)
        log("INFO", "Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.")
        return False
    taken = count - 1 if GPU == "partial" else count
    if taken < count:
        refusing(taken, count)
    replacing(taken, count, "TfLiteGpuDelegateV2")
    log("INFO", "Initialized OpenCL-based API.")
    log("INFO", "Created 1 GPU delegate kernels.")
    share = "completely executed by the delegate." if taken == count else "partially executed by the delegate w/ 1"
    log("INFO", f"Explicitly applied GPU {executed} {share}" + ("" if taken == count else " delegate kernels."))
    return True


def feed(interpreter, options):
    files = dict(pair.split(":") for pair in options.get("input_layer_value_files", "").split(",") if pair)
    for name, detail in zip(
        options.get("input_layer", "").split(",") + [""] * 9, interpreter.get_input_details(), strict=False
    ):
        shape, dtype = [max(1, n) for n in detail["shape"]], detail["dtype"]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if name in files:
            with open(files[name], "rb") as file:
                data = file.read()
            if len(data) != size:
                log("FATAL", f"The size of {files[name]} is {len(data)} bytes. It should be {size} bytes.")
                os.abort()
        else:
            data = np.random.default_rng().integers(0, 100, shape).astype(dtype).tobytes()
        interpreter.set_tensor(detail["index"], np.frombuffer(data, dtype).reshape(shape))


if __name__ == "__main__":
    main()
