"""Huge pages are the kernel's to give: where this machine has none, the tests skip and say so."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_ran import runs
from edge_ran.machine import PROC, SYS
from edge_ran.runtime import huge_pages, open_runtime

MB = 1 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has transparent huge pages")


def kilobytes(memory: mmap.mmap) -> int:
    """Kilobytes in huge pages of the mappings that memory is in."""
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    inside, sum_kb = False, 0
    for line in (PROC / "self" / "smaps").read_text().splitlines():
        if header := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(header[1], 16) < start + len(memory) and start < int(header[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            sum_kb += int(line.split()[1])
    return sum_kb


def resident_pages(memory: mmap.mmap) -> int:
    """Pages of this memory alone that are resident: its mapping may hold neighbours that come and go."""
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    found = (ctypes.c_ubyte * (len(memory) // mmap.PAGESIZE))()
    assert not ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(memory)), found)
    return sum(state & 1 for state in found)


def anonymous(size: int, filled: float) -> mmap.mmap:
    """Memory of which a part is resident, in small pages unless the kernel gives everybody huge ones."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[: int(filled * size)] = b"x" * int(filled * size)
    return memory


@pytest.fixture
def huge() -> None:
    if not huge_pages.page_size():
        pytest.skip("this kernel gives no transparent huge pages")
    if "[madvise]" not in (SYS / "kernel/mm/transparent_hugepage/enabled").read_text():
        pytest.skip("this kernel gives huge pages without being asked")
    if tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 1):
        pytest.skip("this kernel has no MADV_COLLAPSE (Linux 6.1)")


def test_what_appears_within_lies_in_huge_pages_and_what_was_there_does_not(huge: None) -> None:
    old = anonymous(8 * MB, 1)
    with huge_pages.gathered():
        new = anonymous(16 * MB, 1)  # the kernel may make one mapping of both
    assert 12 * 1024 <= kilobytes(new) <= 16 * 1024
    assert bytes(new[:8]) == b"x" * 8
    with huge_pages.gathered():
        pass
    del new
    assert kilobytes(old) == 0


def test_memory_that_is_mostly_untouched_does_not_become_resident(huge: None) -> None:
    with huge_pages.gathered():
        empty = anonymous(16 * MB, 0.2)
        resident = resident_pages(empty)
    assert 0 < resident_pages(empty) <= resident < 0.3 * 16 * MB / mmap.PAGESIZE
    assert kilobytes(empty) < 4 * 1024


def test_the_administrators_word_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "kernel" / "mm" / "transparent_hugepage"
    folder.mkdir(parents=True)
    (folder / "hpage_pmd_size").write_text("2097152\n")
    monkeypatch.setattr(huge_pages, "SYS", tmp_path)
    for word, size in (("always [madvise] never", 2 * MB), ("always madvise [never]", 0)):
        (folder / "enabled").write_text(word)
        assert huge_pages.page_size() == size
    with huge_pages.gathered():
        new = anonymous(8 * MB, 1)
    assert kilobytes(new) == 0


def test_a_kernel_without_them_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "SYS", tmp_path)
    monkeypatch.setattr(huge_pages, "PROC", tmp_path)
    assert huge_pages.page_size() == 0
    with huge_pages.gathered():
        pass


def test_a_model_is_loaded_into_huge_pages_and_answers_the_same(huge: None) -> None:
    program = """
import ctypes, sys, numpy as np
if sys.argv[1] == "small":
    ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
from edge_ran import runs
from edge_ran.runtime import open_runtime
with open_runtime(runs.SHIPPED / "edge50" / runs.SHIPPED_TFLITE, threads=1) as runtime:
    x = np.random.default_rng(0).integers(0, 256, runtime.input.shape).astype(runtime.input.dtype)
    (y,) = runtime.run(x)
with open("/proc/self/smaps_rollup") as lines:
    (line,) = (line for line in lines if line.startswith("AnonHugePages"))
print(line.split()[1], y.tolist())
"""
    found = {}
    for size in ("huge", "small"):
        done = subprocess.run([sys.executable, "-c", program, size], capture_output=True, text=True, check=True)
        kb, _, answer = done.stdout.strip().partition(" ")
        found[size] = int(kb), answer
    assert found["huge"][0] > 0
    assert found["small"][0] == 0
    assert found["huge"][1] == found["small"][1]


def test_loading_and_closing_again_and_again_keeps_memory_where_it_is() -> None:
    def resident_kb() -> int:
        return int((PROC / "self" / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    x = np.zeros((1, 32, 32, 3), np.uint8)
    seen = []
    for _ in range(30):
        with open_runtime(runs.SHIPPED / "edge50" / runs.SHIPPED_TFLITE, threads=1) as runtime:
            runtime.run(x)
        seen.append(resident_kb())
    assert seen[-1] - seen[9] < 4 * 1024
