"""What the two official programs print. The words are those of their sources (see benchmark_model.py here)."""

from __future__ import annotations

import pytest

from edge_ran.targets.benchmark_model import Request, read

TFLITE_GPU = """\
INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [/data/local/tmp/m.tflite]
INFO: #threads used for CPU inference: [4]
INFO: Use gpu: [1]
INFO: Loaded model /data/local/tmp/m.tflite
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite delegate for GPU.
INFO: GPU delegate created.
INFO: Loaded OpenCL library with dlopen.
VERBOSE: Replacing 49 out of 49 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions for subgraph 0.
INFO: Initialized OpenCL-based API.
INFO: Created 1 GPU delegate kernels.
INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate.
INFO: The input model file size (MB): 16.1527
INFO: Initialized session in 5664.36ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=2 first=328140 curr=309932 min=309932 max=328140 avg=319036 std=9104 p5=309932 median=328140 p95=328140

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=50 first=307215 curr=309783 min=305938 max=333030 avg=309350 std=4411 p5=306372 median=307968 p95=315711

INFO: Inference timings in us: Init: 5664363, First inference: 328140, Warmup (avg): 319036, Inference (avg): 309350
INFO: Memory footprint delta from the start of the tool (MB): init=375.48 overall=376.5
INFO: Overall peak memory footprint (MB) via periodic monitoring: 401.25"""
LITERT_GPU = """\
INFO: STARTING!
WARN: Unconsumed cmdline flags: --gpu_precision_loss_allowed=true --use_xnnpack=true
INFO: [gpu_environment.cc:237] Created OpenCL device from provided device id and platform id.
VERBOSE: Replacing 58 out of 58 node(s) with delegate (LITERT_CL) node, yielding 1 partitions for subgraph 0 (main).
INFO: The input model file size (MB): 3.2
INFO: Initialized session in 2566.1ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=1 curr=9441 p5=9441 median=9441 p95=9441

INFO: Running benchmark for at least 10 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=10 first=7429 curr=7431 min=7416 max=7448 avg=7430.2 std=9 p5=7416 median=7430 p95=7448

INFO: [benchmark_litert_model.h:90]
========== BENCHMARK RESULTS ==========
INFO: [benchmark_litert_model.h:92] Signature name:       serving_default
INFO: [benchmark_litert_model.h:94] Model initialization: 2566.10 ms
INFO: [benchmark_litert_model.h:96] Warmup (first):       9.44 ms
INFO: [benchmark_litert_model.h:98] Warmup (avg):         9.44 ms (1 runs)
INFO: [benchmark_litert_model.h:100] Inference (avg):      7.43 ms (10 runs)
INFO: [benchmark_litert_model.h:124]
Memory Usage:
INFO: [benchmark_litert_model.h:126] Init footprint:       63.50 MB
INFO: [benchmark_litert_model.h:128] Overall footprint:    64.25 MB
INFO: [benchmark_litert_model.h:135] Peak memory usage not available. (peak_mem_mb <= 0)"""


def test_tensorflow_lite_on_the_gpu():
    found = read(TFLITE_GPU.splitlines())
    assert found.program == "TFLite benchmark_model"
    assert found.times
    assert found.warmup
    assert found.gpu
    assert (found.times.runs, found.times.median_ms, found.times.mean_ms) == (50, 307.968, 309.35)
    assert (found.times.p5_ms, found.times.p95_ms, found.times.std_ms) == (306.372, 315.711, 4.411)
    assert (found.times.min_ms, found.times.max_ms, found.times.first_ms) == (305.938, 333.03, 307.215)
    assert (found.warmup.runs, found.warmup.first_ms, found.init_ms) == (2, 328.14, 5664.363)
    assert (found.init_mb, found.overall_mb, found.peak_mb) == (375.48, 376.5, 401.25)
    assert (found.gpu.name, found.gpu.taken, found.gpu.of, found.gpu.kernels) == ("TfLiteGpuDelegateV2", 49, 49, 1)
    assert found.backend == "OpenCL"
    assert found.includes_output_read, "its Invoke copies the outputs back and waits for them"


def test_litert_on_the_gpu_leaves_the_outputs_there():
    found = read(LITERT_GPU.splitlines())
    assert found.program == "LiteRT benchmark_model"
    assert found.times
    assert found.warmup
    assert found.gpu
    assert (found.times.runs, found.times.median_ms, found.init_ms) == (10, 7.43, 2566.1)
    assert (found.warmup.runs, found.warmup.first_ms, found.warmup.std_ms) == (1, 9.441, 0)
    assert (found.init_mb, found.overall_mb, found.peak_mb) == (63.5, 64.25, None)
    assert (found.gpu.name, found.gpu.taken, found.backend) == ("LITERT_CL", 58, "OpenCL")
    assert not found.includes_output_read
    assert found.unknown_flags == ("--gpu_precision_loss_allowed=true", "--use_xnnpack=true")


def test_litert_on_the_cpu_reads_them():
    found = read(LITERT_GPU.replace("LITERT_CL", "TfLiteXNNPackDelegate").splitlines())
    assert found.gpu is None
    assert found.includes_output_read
    assert found.engine
    assert found.engine.name == "TfLiteXNNPackDelegate"


def test_a_part_on_the_gpu():
    lines = """\
ERROR: Following operations are not supported by GPU delegate:
CUSTOM TFLite_Detection_PostProcess: TFLite_Detection_PostProcess
63 operations will run on the GPU, and the remaining 1 operations will run on the CPU.
VERBOSE: Replacing 63 out of 64 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 2 partitions.
INFO: Initialized OpenGL-based API.
INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 1 delegate \
kernels.
VERBOSE: Replacing 1 out of 2 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions."""
    found = read([*lines.splitlines(), *TFLITE_GPU.splitlines()[14:]])
    assert found.gpu
    assert (found.gpu.taken, found.gpu.of, found.gpu.kernels) == (63, 64, 1)
    assert found.engine is found.gpu
    assert found.left_reason.startswith("CUSTOM TFLite_Detection_PostProcess")
    assert found.backend == "OpenGL"


def test_without_the_line_of_android_the_delegate_is_known_by_its_application():
    found = read([line for line in TFLITE_GPU.splitlines() if not line.startswith("VERBOSE")])
    assert found.gpu
    assert (found.gpu.name, found.gpu.taken, found.gpu.kernels) == ("GPU", None, 1)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("WARN: GPU acceleration is unsupported on this platform.", "GPU acceleration is unsupported on this platform"),
        ("INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by the ", ""),
        (
            "ERROR: TfLiteGpuDelegate Init: eglGetDisplay failed\nERROR: Failed to apply GPU delegate.",
            "TfLiteGpuDelegate Init: eglGetDisplay failed",
        ),
        ("ERROR: Failed to apply GPU delegate.\nERROR: Benchmarking failed.", "Failed to apply GPU delegate"),
    ],
)
def test_no_gpu_is_no_gpu_whatever_was_asked(said: str, reason: str):
    rest = "\n".join(line for line in TFLITE_GPU.splitlines() if "delegate" not in line)
    found = read(f"INFO: Use gpu: [1]\n{said}\n{rest}".splitlines())
    assert found.gpu is None
    assert found.reason == reason


def test_an_old_program_tells_no_median():
    lines = [line.split(" p5=")[0].removeprefix("INFO: ") for line in TFLITE_GPU.splitlines()]
    found = read(lines)
    assert found.times is None
    assert found.is_too_old


def test_all_runs_the_same():
    text = TFLITE_GPU.replace(
        next(line for line in TFLITE_GPU.splitlines() if "count=50" in line).removeprefix("INFO: "),
        "count=50 curr=12(all same) p5=12 median=12 p95=12",
    )
    times = read(text.splitlines()).times
    assert times
    assert (times.runs, times.mean_ms, times.min_ms, times.max_ms, times.std_ms) == (
        50,
        0.012,
        0.012,
        0.012,
        0,
    )


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "count=50",
        "count=0 curr=1 p5=1 median=1 p95=1",
        "count=99999999999999999999 curr=1 p5=1 median=1 p95=1",
        f"count=5 curr=1{'0' * 500} p5=1 median=1 p95=1",
        "count=5 curr=1 p5=1 median=nan p95=1",
        "count=5 curr=1 p5=1 median=1e999 p95=1",
        "count=5 curr=1 p5=1 median=0 p95=1",
        "count=5 curr=1 avg=-3 p5=-1 median=-1 p95=1",
        "count=5 curr=. p5=e median=- p95=+",
    ],
)
def test_nonsense_is_no_time(hostile: str):
    lines = [line for line in TFLITE_GPU.splitlines() if "count=" not in line]
    assert read([f"INFO: {hostile}", f"INFO: {hostile}", *lines]).times is None
    assert read([line.replace("5664363", "9" * 400) for line in TFLITE_GPU.splitlines()]).times is None


def test_flags_serve_both_programs():
    words = Request(num_runs=9, min_secs=0.5, threads=4, gpu=True, gpu_precision="fp32").flags("/data/m.tflite")
    assert {"--graph=/data/m.tflite", "--num_runs=9", "--min_secs=0.5", "--num_threads=4", "--use_gpu=true"} <= {*words}
    assert {"--gpu_precision_loss_allowed=false", "--gpu-precision=fp32"} <= {*words}
    assert {"--use_gpu=false", "--use_xnnpack=true"} <= {*Request().flags("m")}
