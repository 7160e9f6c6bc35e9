"""Making a data set from its sources: read, choose, split, write; the folder appears whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edge_ran import report
from edge_ran.collect import contact_sheet
from edge_ran.collect.candidates import Candidate, Choice, candidates_of, files_in, need_imagehash
from edge_ran.collect.collection import ClassCount, Collection
from edge_ran.collect.selection import leave_out_alike, problems_of, split
from edge_ran.collect.spool import Spool, spool_in
from edge_ran.dataset import Progress
from edge_ran.errors import InputError, OutputExists
from edge_ran.files import atomic_folder, check_output_folder, check_replaced_folder, write_bytes, write_text
from edge_ran.recipe import check_seed

MANIFEST, PAGE = "manifest.csv", "contact-sheet.html"
COLUMNS = ("image", "label", "group", "split", "visit", "source", "time_s", "sharpness")


def build(
    sources: Sequence[Path],
    output: Path,
    choice: Choice | None = None,
    *,
    page: bool = True,
    force: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Collection:
    """Write a data set to ``output``, which appears whole or not at all.

    Args:
        sources: folders of class folders with clips and photos.
        choice: what to take.
        page: also write the contact sheet (needs the extra ``report``).
        force: replace an ``output`` that an earlier call made.
        seed: decides which groups the test split holds.
        progress: called with (files read, files).

    Raises:
        InputError: a source without class folders, a clip that cannot be read, a class without a sharp frame.
        UsageError: the seed is out of range, or what is read lies in ``output``, which would be replaced.
        OutputExists: ``output`` is there.
        EnvironmentMissing: a package is missing, or the disk is full.
    """
    choice = choice or Choice()
    check_seed(seed)
    need_imagehash()
    if page:
        report.check()
    _refuse(output, force)
    found, ignored = files_in(sources)
    check_replaced_folder(output, (*sources, *(path for _, _, path in found)))
    with atomic_folder(output) as temporary, spool_in(temporary) as spool:
        judged = _judged(found, choice, seed, spool, progress)
        problems = tuple(problems_of(judged, ignored, choice))
        _write(judged, temporary)
        collection = _summary(judged, output, len(found), problems, ignored, page)
        if page:
            report.write(contact_sheet.page_of(judged, collection, choice), temporary / PAGE)
    return collection


def _judged(
    found: Sequence[tuple[str, str, Path]], choice: Choice, seed: int, spool: Spool, progress: Progress | None
) -> list[Candidate]:
    """The candidates of all files, with the reasons why some are left out, and the splits of the others."""
    candidates: list[Candidate] = []
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        # One after the other in the order of the files, so that the same sources give the same data set.
        parts = pool.map(lambda one: candidates_of(one[0], one[1], one[2], choice, spool), found)
        for done, part in enumerate(parts, 1):
            candidates += part
            if progress:
                progress(done, len(found))
    judged = leave_out_alike(candidates, choice)
    for label in sorted({label for label, _, _ in found}):
        if not any(c.label == label and not c.reason for c in judged):
            clips = sorted({str(c.source) for c in judged if c.label == label})
            raise InputError(
                f"class {label!r} has no sharp frame: {clips[0] if clips else 'no picture'}",
                "film it again with a calm hand and more light, or lower --sharpness",
            )
    return split(judged, choice.test_fraction, seed)


def _refuse(output: Path, force: bool) -> None:
    check_output_folder(output)
    if output.exists() and not force:
        raise OutputExists(f"{output} exists", "add --force to replace it, or choose another name")
    if output.exists() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise OutputExists(f"{output} is not a data set that this command made", "choose another --output")


def _plain(text: str) -> str:
    return re.sub(r"[^\w-]+", "-", text).strip("-")


def _write(judged: Sequence[Candidate], folder: Path) -> None:
    """Write the pictures that are taken and the manifest."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for index, one in enumerate(judged):
        if one.reason:
            continue
        parts = [_plain(one.visit), _plain(one.source.stem), f"{one.time_s * 1000:07.0f}", f"{index:05d}"]
        name = f"{one.label}/{'_'.join(p for p in parts if p)}.jpg"
        (folder / one.label).mkdir(exist_ok=True)
        write_bytes(folder / name, one.jpeg.read())
        row = (
            name,
            one.label,
            one.group,
            one.split,
            one.visit,
            one.source,
            f"{one.time_s:.3f}",
            f"{one.sharpness:.1f}",
        )
        writer.writerow(row)
    write_text(folder / MANIFEST, text.getvalue())


def _summary(
    judged: Sequence[Candidate],
    output: Path,
    sources: int,
    problems: tuple[str, ...],
    ignored: Counter[str],
    page: bool,
) -> Collection:
    classes = []
    for label in sorted({c.label for c in judged}):
        mine = [c for c in judged if c.label == label]
        taken = [c for c in mine if not c.reason]
        classes.append(
            ClassCount(
                label,
                len(taken),
                sum(c.split == "test" for c in taken),
                len({c.unit for c in taken}),
                dict(sorted(Counter(c.reason for c in mine if c.reason).items())),
            )
        )
    return Collection(
        folder=str(output),
        manifest=str(output / MANIFEST),
        page=str(output / PAGE) if page else None,
        images=sum(c.taken for c in classes),
        classes=tuple(classes),
        sources=sources,
        problems=problems,
        ignored=tuple(sorted(ignored)),
    )
