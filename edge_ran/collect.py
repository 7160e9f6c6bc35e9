"""From clips and photos to a data set: sharp, different frames, grouped by clip and visit, with a manifest.

A source is a folder of class folders. Sub-folders of a class are visits (another day, another light); of several
sources each is a visit, too. Of every ``step_s`` seconds of a clip the sharpest frame is a candidate; a candidate is
left out when it is blurred or looks like one that was taken before it from the same class.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import dataset, report
from edge_ran.dataset import CLIP_SUFFIXES, Progress
from edge_ran.errors import EnvironmentMissing, InputError, OutputExists, UsageError
from edge_ran.files import atomic_folder, check_output_folder, write_bytes, write_text
from edge_ran.folder_walk import folders_in, walk
from edge_ran.labels import clean_label
from edge_ran.picture import HEIF_SUFFIXES, eight_bit_bgr, is_picture, read_picture

MANIFEST, PAGE = "manifest.csv", "contact-sheet.html"
COLUMNS = ("image", "label", "group", "split", "visit", "source", "time_s", "sharpness")
SHARPNESS_SIDE = 320  # pixels of the longer side at which sharpness is measured: grain of a large sensor does not count
LOOKS_A_SECOND = 6  # frames of a clip that are measured; a hand's shake lasts a few tenths of a second
ON_THE_PAGE = 24  # pictures of a class that the contact sheet shows, of each kind
THIN = 20  # a class with fewer pictures is called thin
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Choice:
    """What is taken. ``sharpness`` is the least variance of the Laplacian (8-bit brightness, longer side 320 pixels);
    a frame must also reach ``relative_sharpness`` of its clip's median. ``difference`` is the least number of
    differing bits, of 64, of the perceptual hashes of two pictures of a class. ``side`` is the longest side written."""

    step_s: float = 1.0
    sharpness: float = 12.0
    relative_sharpness: float = 0.35
    difference: int = 8
    side: int = 640
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        for flag, value, low, high in (
            ("step", self.step_s, 0.04, 3600.0),
            ("sharpness", self.sharpness, 0.0, 1e6),
            ("difference", self.difference, 0, 32),
            ("side", self.side, 32, 8192),
            ("test-fraction", self.test_fraction, 0.0, 0.9),
        ):
            if not low <= value <= high:
                raise UsageError(f"--{flag} {value:g} is outside {low:g}..{high:g}", f"leave --{flag} away")


@dataclass(frozen=True)
class Candidate:
    """One frame that was looked at: ``time_s`` in its clip (0 for a photo), ``reason`` why it is left out, or empty."""

    label: str
    visit: str
    source: Path
    time_s: float
    sharpness: float
    bits: int
    jpeg: bytes = field(repr=False)
    reason: str = ""
    split: str = ""

    @property
    def group(self) -> str:
        """The visit, else the clip, which is of one class; a photo without a visit stands alone."""
        is_clip = self.source.suffix.lower() in CLIP_SUFFIXES
        return self.visit or (f"{self.label}/{self.source.name}" if is_clip else "")


@dataclass(frozen=True)
class ClassCount:
    """Pictures of one class: taken, and left out by reason."""

    label: str
    taken: int
    test: int
    groups: int
    left_out: dict[str, int]


@dataclass(frozen=True)
class Collection:
    """What ``build`` made: ``folder`` with the pictures, the manifest and the contact sheet."""

    folder: str
    manifest: str
    page: str | None
    images: int
    classes: tuple[ClassCount, ...]
    sources: int
    problems: tuple[str, ...]
    ignored: tuple[str, ...] = ()


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
        OutputExists: ``output`` is there.
        EnvironmentMissing: a package is missing, or the disk is full.
    """
    choice = choice or Choice()
    _imagehash()
    if page:
        report.check()
    _refuse(output, force)
    found, ignored = _files(sources)
    candidates: list[Candidate] = []
    with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
        # One after the other in the order of the files, so that the same sources give the same data set.
        for done, part in enumerate(pool.map(lambda one: _look(one[0], one[1], one[2], choice), found), 1):
            candidates += part
            if progress:
                progress(done, len(found))
    judged = _judge(candidates, choice)
    for label in sorted({label for label, _, _ in found}):
        if not any(c.label == label and not c.reason for c in judged):
            clips = sorted({str(c.source) for c in judged if c.label == label})
            raise InputError(
                f"class {label!r} has no sharp frame: {clips[0] if clips else 'no picture'}",
                "film it again with a calm hand and more light, or lower --sharpness",
            )
    judged = _divide(judged, choice.test_fraction, seed)
    problems = tuple(_problems(judged, ignored, choice))
    with atomic_folder(output) as temporary:
        names = _write(judged, temporary)
        collection = _summary(judged, output, len(found), problems, ignored, page)
        if page:
            report.write(_page(judged, names, collection, choice), temporary / PAGE)
    return collection


def _refuse(output: Path, force: bool) -> None:
    if output.exists() and not force:
        raise OutputExists(f"{output} exists", "add --force to replace it, or choose another name")
    if output.exists() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise OutputExists(f"{output} is not a data set that this command made", "choose another --output")
    check_output_folder(output)


def _imagehash() -> Any:
    try:
        import imagehash
    except ModuleNotFoundError as error:
        raise EnvironmentMissing(
            f"a data set from clips needs {error.name}", "pip install 'edge-ran[clips]'"
        ) from error
    return imagehash


def _files(sources: Sequence[Path]) -> tuple[list[tuple[str, str, Path]], Counter[str]]:
    """(label, visit, file) of every clip and photo, in a fixed order; and what was ignored, by name ending."""
    ignored: Counter[str] = Counter()
    found: list[tuple[str, str, Path]] = []
    for source in sources:
        if not source.is_dir():
            raise InputError(f"no such folder: {source}", "give folders of class folders: FOLDER/CLASS/CLIP.mp4")
        before = len(found)
        for folder in folders_in(source):
            for place in walk(folder):
                visit = place.folder.relative_to(folder).as_posix().removeprefix(".")
                if len(sources) > 1:
                    visit = f"{source.name}/{visit}".rstrip("/")
                for name in place.files:
                    suffix = Path(name).suffix.lower()
                    if is_picture(name) or suffix in CLIP_SUFFIXES:
                        found.append((clean_label(folder.name), visit, place.folder / name))
                    else:
                        ignored[suffix or name] += 1
        if len(found) == before:
            raise InputError(
                f"{source} holds no class folder with clips or photos", f"lay it out as {source}/CLASS/CLIP.mp4"
            )
    return found, ignored


def _look(label: str, visit: str, path: Path, choice: Choice) -> list[Candidate]:
    """The candidates of one file, each with its sharpness and hash."""
    if path.suffix.lower() not in CLIP_SUFFIXES:
        frame = read_picture(path)
        return [_candidate(label, visit, path, 0.0, _sharpness(frame), frame, choice)]
    candidates = [
        _candidate(label, visit, path, time_s, sharpness, frame, choice)
        for time_s, sharpness, frame in _sharpest(path, choice.step_s)
    ]
    typical = float(np.median([c.sharpness for c in candidates]))
    least = choice.relative_sharpness * typical
    return [replace(c, reason=c.reason or ("blurred" if c.sharpness < least else "")) for c in candidates]


def _sharpest(path: Path, step_s: float) -> Iterator[tuple[float, float, NDArray[np.uint8]]]:
    """The sharpest frame of every ``step_s`` seconds, by the clip's own time stamps: phones film at a varying rate."""
    best: tuple[float, float, NDArray[np.uint8]] | None = None
    step, looked, any_frame = 0, -1e9, False
    with dataset.clip(path) as capture:
        fps = capture.get(cv2.CAP_PROP_FPS)
        fps = fps if 0 < fps < 1e4 else 30.0
        count = 0
        while capture.grab():
            time_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if count and time_s <= 0:  # a container without time stamps
                time_s = count / fps
            count += 1
            if time_s - looked < 1 / LOOKS_A_SECOND - 1e-6:
                continue
            decoded, raw = capture.retrieve()
            if not decoded:
                continue
            frame = eight_bit_bgr(np.asarray(raw), path)
            looked, any_frame = time_s, True
            if best is not None and time_s >= (step + 1) * step_s:
                yield best
                best = None
            if best is None:
                step = int(time_s / step_s)
            sharpness = _sharpness(frame)
            if best is None or sharpness > best[1]:
                best = (time_s, sharpness, frame)
    if not any_frame:
        raise InputError(f"clip {path} holds no frame that can be read", "copy it again, or convert it to .mp4")
    if best is not None:
        yield best


def _sharpness(frame: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the brightness (Pech-Pacheco et al. 2000), at a longer side of 320 pixels."""
    grey = cv2.cvtColor(_shrunk(frame, SHARPNESS_SIDE), cv2.COLOR_BGR2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var())


def _shrunk(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    factor = side / max(frame.shape[:2])
    if factor >= 1:
        return frame
    size = (max(1, round(frame.shape[1] * factor)), max(1, round(frame.shape[0] * factor)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _candidate(
    label: str, visit: str, path: Path, time_s: float, sharpness: float, frame: NDArray[np.uint8], choice: Choice
) -> Candidate:
    from PIL import Image

    small = _shrunk(frame, choice.side)
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    pattern = _imagehash().phash(Image.fromarray(np.ascontiguousarray(_shrunk(frame, SHARPNESS_SIDE)[..., ::-1])))
    bits = int("".join("1" if bit else "0" for bit in pattern.hash.ravel()), 2)
    reason = "blurred" if sharpness < choice.sharpness else ""
    return Candidate(label, visit, path, time_s, sharpness, bits, jpeg.tobytes(), reason)


def _judge(candidates: Sequence[Candidate], choice: Choice) -> list[Candidate]:
    """Leave out what looks like a picture of the same class that was taken before."""
    taken: dict[str, list[int]] = defaultdict(list)
    judged = []
    for candidate in candidates:
        reason = candidate.reason
        if not reason:
            same = taken[candidate.label]
            if any((candidate.bits ^ other).bit_count() < choice.difference for other in same):
                reason = "alike"
            else:
                same.append(candidate.bits)
        judged.append(replace(candidate, reason=reason))
    return judged


def _divide(judged: Sequence[Candidate], fraction: float, seed: int) -> list[Candidate]:
    """Give whole groups to the test split, until every class has some there; each class keeps some for training."""
    taken = [c for c in judged if not c.reason]
    counts: dict[str, Counter[str]] = defaultdict(Counter)  # group -> pictures by class
    for candidate in taken:
        counts[candidate.group or str(candidate.source)][candidate.label] += 1
    everything = Counter(c.label for c in taken)
    held: set[str] = set()
    test: Counter[str] = Counter()
    names = sorted(counts)
    names = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]

    def distance(extra: Counter[str]) -> float:
        return sum(abs((test + extra)[label] / count - fraction) for label, count in everything.items())

    while fraction:
        free = [n for n in names if n not in held and all(test[k] + v < everything[k] for k, v in counts[n].items())]
        lacking = [n for n in free if any(not test[label] for label in counts[n])]
        best = min(lacking or free, key=lambda n: distance(counts[n]), default=None)
        if best is None or (not lacking and distance(counts[best]) >= distance(Counter())):
            break
        held.add(best)
        test += counts[best]
    return [
        replace(c, split="" if c.reason else "test" if (c.group or str(c.source)) in held else "train") for c in judged
    ]


def _problems(judged: Sequence[Candidate], ignored: Counter[str], choice: Choice) -> Iterator[str]:
    taken = [c for c in judged if not c.reason]
    counts = Counter(c.label for c in taken)
    for label, count in sorted(counts.items()):
        if count < THIN:
            yield f"class {label!r} is thin: {count} pictures; film it longer, or from more places"
    for label in sorted(counts):
        if len({c.group or str(c.source) for c in taken if c.label == label}) < 2:
            yield f"class {label!r} comes from one clip or visit: nothing can be held out of it honestly"
    if not any(c.split == "test" for c in taken) and choice.test_fraction:
        yield "there is no test split: it needs two clips or visits of every class"
    twins = list(_twins(taken, choice.difference))
    for kind in ("in two splits", "under two labels"):
        pairs = [f"{a.source} at {a.time_s:.1f} s and {b.source} at {b.time_s:.1f} s" for k, a, b in twins if k == kind]
        if pairs:
            yield f"{len(pairs)} pairs of near-duplicates {kind}, the first: {pairs[0]}"
    for ending, count in sorted(ignored.items()):
        hint = "; for these: pip install 'edge-ran[clips]'" if ending in HEIF_SUFFIXES else ""
        yield f"{count} files ending in {ending} were ignored{hint}"


def _twins(taken: Sequence[Candidate], difference: int) -> Iterator[tuple[str, Candidate, Candidate]]:
    bits = np.array([c.bits for c in taken], np.uint64)
    for index, one in enumerate(taken[:-1]):
        words = (bits[index + 1 :] ^ bits[index]).view(np.uint8).reshape(-1, 8)
        near = np.unpackbits(words, axis=1).sum(1) < difference
        for other in (taken[index + 1 + int(i)] for i in np.flatnonzero(near)):
            if one.label != other.label:
                yield "under two labels", one, other
            elif one.split != other.split:
                yield "in two splits", one, other


def _plain(text: str) -> str:
    return re.sub(r"[^\w-]+", "-", text).strip("-")


def _write(judged: Sequence[Candidate], folder: Path) -> dict[int, str]:
    """Write the pictures that are taken and the manifest; return the name of each by its place in ``judged``."""
    text, names = io.StringIO(), {}
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for index, one in enumerate(judged):
        if one.reason:
            continue
        parts = [_plain(one.visit), _plain(one.source.stem), f"{one.time_s * 1000:07.0f}", f"{index:05d}"]
        name = f"{one.label}/{'_'.join(p for p in parts if p)}.jpg"
        (folder / one.label).mkdir(exist_ok=True)
        write_bytes(folder / name, one.jpeg)
        names[index] = name
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
    return names


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
                len({c.group for c in taken}),
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


def _page(judged: Sequence[Candidate], names: dict[int, str], found: Collection, choice: Choice) -> report.Report:
    table = report.Table(
        ("class", "taken", "of these test", "clips or visits", "blurred", "alike"),
        tuple(
            (c.label, c.taken, c.test, c.groups, c.left_out.get("blurred", 0), c.left_out.get("alike", 0))
            for c in found.classes
        ),
        bars=("taken",),
    )
    sections = [report.Section("Classes", "\n".join(found.problems), (table,))]
    for count in found.classes:
        mine = [(i, c) for i, c in enumerate(judged) if c.label == count.label]
        taken = [(i, c) for i, c in mine if not c.reason]
        left = [(i, c) for i, c in mine if c.reason]
        parts = [_strip(taken, f"{len(taken)} taken")]
        if left:
            parts.append(_strip(left, f"{len(left)} left out"))
        sections.append(report.Section(count.label, "", tuple(parts)))
    return report.Report(
        title=f"Contact sheet: {Path(found.folder).name}",
        lead=f"{found.images} pictures of {len(found.classes)} classes from {found.sources} clips and photos.",
        tiles=(
            report.Tile(f"{found.images:,}", "pictures taken"),
            report.Tile(f"{sum(bool(c.reason) for c in judged):,}", "left out"),
            report.Tile(f"{len(found.problems)}", "problems"),
        ),
        sections=tuple(sections),
        footer=f"Least sharpness {choice.sharpness:g}, least difference {choice.difference} of 64 bits, "
        f"a candidate every {choice.step_s:g} s.",
    )


def _strip(chosen: Sequence[tuple[int, Candidate]], note: str) -> report.Strip:
    """At most ``ON_THE_PAGE`` of them, evenly spread."""
    shown = [chosen[round(i)] for i in np.linspace(0, len(chosen) - 1, min(len(chosen), ON_THE_PAGE))]
    pictures = []
    for _, one in shown:
        frame = cv2.imdecode(np.frombuffer(one.jpeg, np.uint8), cv2.IMREAD_COLOR)
        title = (
            f"{one.source.name} {one.time_s:.1f} s" if one.source.suffix.lower() in CLIP_SUFFIXES else one.source.name
        )
        what = one.reason or one.split
        mood = "bad" if one.reason else "good" if one.split == "test" else ""
        pictures.append(
            report.picture(np.asarray(frame, np.uint8), title, f"{what}, {one.sharpness:.0f}", mood, side=112)
        )
    more = f", {len(shown)} of them shown" if len(shown) < len(chosen) else ""
    return report.Strip(tuple(pictures), f"{note}{more}; below each: its split or why not, and its sharpness")
