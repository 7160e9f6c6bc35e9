"""Which candidates become pictures of a data set, and in which split; what is doubtful about them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from edge_ran.collect.candidates import Candidate, Choice
from edge_ran.dataset.samples import LOOSE
from edge_ran.picture import HEIF_SUFFIXES
from edge_ran.printable import many
from edge_ran.python_command import pip

_CLIPS = "install 'edge-ran[clips]'"
THIN = 20  # a class with fewer pictures is called thin


def leave_out_alike(candidates: Sequence[Candidate], choice: Choice) -> list[Candidate]:
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


def split(judged: Sequence[Candidate], fraction: float, seed: int) -> list[Candidate]:
    """Give whole groups to the test split, until every class has some there; each class keeps some for training."""
    taken = [c for c in judged if not c.reason]
    counts: dict[str, Counter[str]] = defaultdict(Counter)  # group -> pictures by class
    for candidate in taken:
        counts[candidate.unit][candidate.label] += 1
    everything = Counter(c.label for c in taken)
    held: set[str] = set()
    test: Counter[str] = Counter()
    names = sorted(counts)
    names = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    place = {name: i for i, name in enumerate(names)}
    alike: dict[frozenset[tuple[str, int]], list[str]] = defaultdict(list)  # by their counts: only the next can be best
    for name in reversed(names):
        alike[frozenset(counts[name].items())].append(name)

    def distance(extra: Counter[str]) -> float:
        return sum(abs((test[label] + extra[label]) / count - fraction) for label, count in everything.items())

    while fraction:
        following = sorted((same[-1] for same in alike.values() if same), key=place.__getitem__)
        free = [n for n in following if all(test[k] + v < everything[k] for k, v in counts[n].items())]
        lacking = [n for n in free if any(not test[label] for label in counts[n])]
        best = min(lacking or free, key=lambda n: distance(counts[n]), default=None)
        if best is None or (not lacking and distance(counts[best]) >= distance(Counter())):
            break
        held.add(best)
        test += counts[best]
        alike[frozenset(counts[best].items())].pop()
    return [replace(c, split="" if c.reason else "test" if c.unit in held else "train") for c in judged]


def problems_of(judged: Sequence[Candidate], ignored: Counter[str], choice: Choice) -> Iterator[str]:
    taken = [c for c in judged if not c.reason]
    counts = Counter(c.label for c in taken)
    if len(counts) == 1:
        yield f"one class only, {min(counts)!r}: train needs two; add a folder for each other class"
    for label, count in sorted(counts.items()):
        if count < THIN:
            yield f"class {label!r} is thin: {many(count, 'picture')}; film it longer, or from more places"
    for label in sorted(counts):
        if len({c.unit for c in taken if c.label == label}) < 2:
            yield f"class {label!r} comes from one clip or visit: nothing can be held out of it honestly"
    if not any(c.split == "test" for c in taken) and choice.test_fraction:
        yield "there is no test split: it needs two clips or visits of every class"
    twins = list(_twins(taken, choice.difference))
    for kind in ("in two splits", "under two labels"):
        pairs = [f"{a.source} at {a.time_s:.1f} s and {b.source} at {b.time_s:.1f} s" for k, a, b in twins if k == kind]
        if pairs:
            yield f"{many(len(pairs), 'pair')} of near-duplicates {kind}, the first: {pairs[0]}"
    for ending, count in sorted(ignored.items()):
        if ending.startswith(LOOSE.partition("{}")[0]):
            yield f"{ending} were ignored: {count}"
            continue
        hint = f"; for these: {pip(_CLIPS)}" if ending in HEIF_SUFFIXES else ""
        yield f"{many(count, 'file')} ending in {ending} {'was' if count == 1 else 'were'} ignored{hint}"


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
