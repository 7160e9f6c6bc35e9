"""Huge pages for the weights that a runtime has packed: 2 MB pages instead of 4 kB ones.

Every inference reads all weights once. In pages of 4 kB they outgrow the processor's address cache, and each page costs
a walk through the page tables, two nested ones in a virtual machine. Where a load lies in physical memory decides which
pages evict each other from the caches, so that loads of one file differ; in huge pages, half as much (14 loads each of
`indoor56` in int8, Zen 4). `benchmarks/engines.py` shows what the pages are worth.

Neither runtime asks for huge pages, so this does, for what appeared in memory while a model was loaded, and for the
heap, which hands out again what was freed before. Resident memory stays the same: only what is resident already is
gathered. Linux only; where the administrator set transparent huge pages to ``never``, nothing is done.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from edge_ran.machine import PROC, SYS

MADV_HUGEPAGE = 14  # <asm-generic/mman-common.h>, the same on every architecture that has them
MADV_COLLAPSE = 25  # since Linux 6.1: at once; before, the kernel gathers them when it finds the time
RESIDENT = 0.9  # of a huge page's range: what is mostly empty, such as a thread's stack, would grow

Range = tuple[int, int]  # addresses, from and up to


@contextmanager
def gathered() -> Iterator[None]:
    """Move what appears in memory within the ``with`` statement to huge pages, at its end."""
    size = page_size()
    before = _mappings("") if size else []
    yield
    for start, end in _new(_mappings("", "[heap]"), before) if size else ():
        _gather(-(-start // size) * size, end // size * size, size)


def page_size() -> int:
    """Return the size of a huge page in bytes; 0 where a process cannot have any."""
    folder = SYS / "kernel" / "mm" / "transparent_hugepage"
    try:
        if "[never]" in (folder / "enabled").read_text():
            return 0
        return int((folder / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return 0


def _mappings(*names: str) -> list[Range]:
    """What this process may write and shares with nobody, by address: the mappings of these names; "" has no name."""
    found = []
    try:
        with open(PROC / "self" / "maps") as lines:
            for line in lines:
                addresses, rights, *_, name = [*line.split(), ""][:6]
                if rights == "rw-p" and name in names:
                    start, end = (int(address, 16) for address in addresses.split("-"))
                    found.append((start, end))
    except OSError:
        pass
    return found


def _new(after: list[Range], before: list[Range]) -> Iterator[Range]:
    """Yield what of ``after`` is not in ``before``: the kernel makes one mapping of neighbours."""
    for start, end in after:
        for old_start, old_end in before:
            if start < old_end and old_start < end:
                if start < old_start:
                    yield start, old_start
                start = old_end
        if start < end:
            yield start, end


def _gather(start: int, end: int, size: int) -> None:
    if start >= end:
        return
    libc, page = ctypes.CDLL(None), os.sysconf("SC_PAGE_SIZE")
    resident = (ctypes.c_ubyte * ((end - start) // page))()
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if libc.mincore(start, end - start, resident):
        return
    each = size // page
    for place in range(0, len(resident), each):
        if sum(state & 1 for state in resident[place : place + each]) >= RESIDENT * each:
            # An old kernel refuses the second, and one without a free huge page either: small ones serve as well.
            libc.madvise(start + place * page, size, MADV_HUGEPAGE)
            libc.madvise(start + place * page, size, MADV_COLLAPSE)
