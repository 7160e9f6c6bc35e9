"""How much arithmetic a network does a second, beside the most that this machine was seen to do."""

from __future__ import annotations

import functools

from edge_ran import machine
from edge_ran.bench import convolution
from edge_ran.bench.figures import Throughput

# Files whose products are of 8-bit numbers; those of all others are of 32-bit floats, fp16 weights unpacked.
INT8 = frozenset({"int8", "dynamic", "mixed", "int16x8"})


def throughput(multiply_adds: int, median_ms: float, precision: str, threads: int, on_cpu: bool) -> Throughput:
    """Return inferences and 10^9 multiply-adds a second, beside the limit of this machine's processor.

    The limit is the fastest kernel of ``fastest_kernel`` on one core, times the cores that the threads can keep busy;
    None on another accelerator.
    """
    gmacs = multiply_adds / median_ms / 1e6 if multiply_adds else None
    kernel = fastest_kernel(precision in INT8) if on_cpu and multiply_adds else None
    if kernel is None:
        return Throughput(1e3 / median_ms, gmacs)
    per_core, name = kernel
    return Throughput(1e3 / median_ms, gmacs, per_core * min(threads, machine.available_cores()), name)


@functools.cache
def fastest_kernel(is_int8: bool) -> tuple[float, str] | None:
    """Measure large products on one core: convolutions of the runtime and, in float32, NumPy's matrix product.

    Returns:
        10^9 multiply-adds a second of the fastest one, and what it is called; None where none could be measured.
    """
    found = [convolution.fastest(is_int8)]
    if not is_int8 and (blas := machine.peak_gmacs()) is not None:
        found.append((blas, "NumPy's matrix product"))
    return max((one for one in found if one is not None), default=None)
