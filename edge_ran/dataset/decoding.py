"""Samples -> frames and fitted pixels, on all cores."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import files
from edge_ran.card import InputSpec
from edge_ran.dataset.arrays import open_arrays
from edge_ran.dataset.clips import clip_frames
from edge_ran.dataset.samples import Progress, Sample
from edge_ran.errors import InputError
from edge_ran.picture import read_picture
from edge_ran.preprocess import fit_pixels

CACHE_ABOVE_BYTES = 1 << 30


def pixels(
    samples: Sequence[Sample], spec: InputSpec, *, progress: Progress | None = None, cache: Path | None = None
) -> NDArray[np.uint8]:
    """Decode and fit samples to a network's input, on all cores.

    Args:
        samples: N of them.
        spec: the network's input.
        progress: called with (done, total) from time to time, in the caller's thread.
        cache: a folder; arrays above 1 GiB become a memory-mapped ``.npy`` there, which is used again while neither
            files nor ``spec`` change. Without it everything stays in memory.

    Returns:
        (N, spec.height, spec.width, 3) uint8 in ``spec.color`` order.

    Raises:
        InputError: a picture is unreadable; names the first and says how many.
        EnvironmentMissing: no space left for the cache.
    """
    shape = (len(samples), spec.height, spec.width, 3)
    if cache is None or np.prod(shape, dtype=np.int64) <= CACHE_ABOVE_BYTES:
        out = np.empty(shape, np.uint8)
        _fill(out, samples, spec, progress)
        return out
    target = Path(cache) / f"pixels-{_fingerprint(samples, spec)}.npy"
    if not target.is_file():
        files.sweep_temporaries(target.parent)
        with files.atomic_path(target) as temporary:
            mapped = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            with open(temporary, "rb+") as file:  # a sparse file on a full disk would kill the process with SIGBUS
                if hasattr(os, "posix_fallocate"):  # not on macOS
                    os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            _fill(mapped, samples, spec, progress)
            mapped.flush()
    pixels: NDArray[np.uint8] = np.load(target, mmap_mode="r")
    return pixels


REMEDY = "mend or delete what cannot be read, or skip it aloud with --skip-bad"


def readable(
    samples: Sequence[Sample], *, progress: Progress | None = None
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Decode every sample once; return those that can be read, and one line for each file that cannot."""
    good = np.zeros(len(samples), bool)

    def note(position: int, frame: NDArray[np.uint8]) -> None:
        good[position] = True

    problems = decode(samples, note, progress)
    return tuple(itertools.compress(samples, good)), tuple(problems)


def frames(samples: Sequence[Sample], ahead: int = 16) -> Iterator[NDArray[np.uint8]]:
    """Yield each sample as a frame, (H, W, 3) uint8 BGR, in order; ``ahead`` of them are decoded in the background.

    Raises:
        InputError: a picture is unreadable.
    """
    try:
        yield from _frames(samples, ahead)
    except InputError as error:
        raise InputError(str(error), REMEDY) from error


def _frames(samples: Sequence[Sample], ahead: int) -> Iterator[NDArray[np.uint8]]:
    runs = [list(run) for _, run in itertools.groupby(samples, key=lambda s: (s.path, s.row < 0))]
    arrays = open_arrays(samples)
    pictures = ThreadPoolExecutor(_threads())
    try:
        waiting: list[Any] = []
        for run in runs:
            if run[0].row < 0:
                waiting.append(pictures.submit(read_picture, run[0].path))
                waiting += waiting[-1:] * (len(run) - 1)
                while len(waiting) > ahead:
                    yield waiting.pop(0).result()
                continue
            while waiting:
                yield waiting.pop(0).result()
            yield from _rows(run[0].path, [s.row for s in run], arrays)
        while waiting:
            yield waiting.pop(0).result()
    finally:
        pictures.shutdown(cancel_futures=True)


def _fill(out: NDArray[np.uint8], samples: Sequence[Sample], spec: InputSpec, progress: Progress | None) -> None:
    def put(position: int, frame: NDArray[np.uint8]) -> None:
        out[position] = fit_pixels(frame, spec)

    problems = decode(samples, put, progress)
    if problems:
        count = f"{len(problems)} files cannot be read; the first: " if len(problems) > 1 else ""
        raise InputError(f"{count}{problems[0]}", REMEDY)


def decode(
    samples: Sequence[Sample], use: Callable[[int, NDArray[np.uint8]], None], progress: Progress | None
) -> list[str]:
    """Call ``use(position, frame)`` for every sample, in threads and in any order; return what could not be read."""
    places: dict[Path, list[int]] = defaultdict(list)
    for position, sample in enumerate(samples):
        places[sample.path].append(position)
    arrays = open_arrays(samples)
    # One job decodes one picture or one clip, or a handful of an array's rows.
    jobs = [
        positions[start : start + step]
        for path, positions in places.items()
        for step in [256 if path in arrays else len(positions)]
        for start in range(0, len(positions), step)
    ]

    def work(positions: list[int]) -> tuple[int, str]:
        path = samples[positions[0]].path
        try:
            if samples[positions[0]].row < 0:
                frame = read_picture(path)
                for position in positions:
                    use(position, frame)
            else:
                positions = sorted(positions, key=lambda p: samples[p].row)
                decoded = _rows(path, [samples[p].row for p in positions], arrays)
                for position, frame in zip(positions, decoded, strict=True):
                    use(position, frame)
        except InputError as error:
            return len(positions), str(error)
        return len(positions), ""

    problems, done = [], 0
    pool = ThreadPoolExecutor(_threads())
    try:
        for count, problem in pool.map(work, jobs):
            done += count
            if problem:
                problems.append(problem)
            if progress is not None:
                progress(done, len(samples))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing is left working
    return problems


def _rows(path: Path, rows: list[int], arrays: dict[Path, NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of an array or a clip as BGR, ``rows`` ascending."""
    if path in arrays:
        for row in rows:
            yield np.ascontiguousarray(arrays[path][row, :, :, ::-1])
        return
    yield from clip_frames(path, rows)


def _threads() -> int:
    return max(2, min(8, os.cpu_count() or 1))


def _fingerprint(samples: Iterable[Sample], spec: InputSpec) -> str:
    digest = hashlib.sha256(repr(spec).encode())
    for sample in samples:
        status = sample.path.stat()
        digest.update(f"{sample.path}\0{sample.row}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
