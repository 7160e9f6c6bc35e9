"""The names of classes that folders or a manifest call by numbers or codes, out of a file beside them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from edge_ran import files
from edge_ran.dataset.samples import Sample
from edge_ran.errors import InputError
from edge_ran.labels import clean_label, decode_labels, decode_text, names_by_number

# Files that may hold names of classes.
_MAY_NAME = re.compile(r"(class|label|categor|name|map|disease|words|synset|wnid|index)", re.IGNORECASE)
_SUFFIXES = (".json", ".txt", ".csv", ".tsv", ".names", ".pbtxt", ".yaml", ".yml")
_CODE = re.compile(r"[A-Za-z]{0,3}\d{1,9}")  # 7, c7, n01440764
_WORDNET = re.compile(r"n\d{8}")
_UP = 3  # folders: LOC_synset_mapping.txt lies beside ILSVRC/Data/CLS-LOC
_MOST_BYTES = 1 << 23  # words.txt of ImageNet has 2.7 MB
_MOST_UNUSED = 2  # names for each number that occurs; more, and the file is about something else


def named_by_code(source: Path, samples: Sequence[Sample]) -> tuple[list[Sample], dict[str, str], list[str]]:
    """Return the samples with the names of their classes, the codes by name, and a note, where ``names_beside`` finds.

    Args:
        source: as ``names_beside`` takes it.
        samples: with codes for classes.
    """
    names, told = names_beside(source, {sample.label for sample in samples})
    if not names:
        return list(samples), {}, []
    first = min(names, key=lambda code: (len(code), code))
    note = f"the names of the classes are from {told} beside {source.name}: {first} is {names[first]!r}"
    named = [dataclasses.replace(sample, label=names[sample.label]) for sample in samples]
    return named, {name: code for code, name in names.items()}, [note]


def names_beside(source: Path, labels: Collection[str]) -> tuple[dict[str, str], str]:
    """Return the names of the classes that a source calls by numbers or codes, and the file that tells them.

    As Kaggle's cassava leaves (``label_num_to_disease_map.json``), CUB-200-2011 and Caffe's lists (``classes.txt``),
    Oxford's flowers (``cat_to_name.json``) and ImageNet have it (``words.txt``, ``LOC_synset_mapping.txt``,
    ``imagenet_class_index.json``). The file's own numbers count; where they are not those of the source, or there are
    none, the first name is that of the lowest number, 0 or 1. Where two files give other names, none is taken.

    Args:
        source: the file that lists the pictures, or the folder of the class folders.
        labels: the classes in it.

    Returns:
        the name of each label, and the file's name; both empty where there is none.
    """
    if len(labels) < 2 or not all(map(_CODE.fullmatch, labels)):
        return {}, ""
    is_wordnet = all(map(_WORDNET.fullmatch, labels))
    above = source.absolute().parents
    folders = [source.parent] if source.is_file() else [source, above[0]]
    if is_wordnet:
        folders = [*folders, *above[len(folders) - 1 :][:_UP]]
    for folder in dict.fromkeys(folders):
        found = {}
        for path in sorted(_files_in(folder)):
            may_name = path != source and path.suffix.lower() in _SUFFIXES and _MAY_NAME.search(path.stem)
            if may_name and (names := _fitting(path, labels)):
                found[path.name] = names
        if found and (is_wordnet or all(names == next(iter(found.values())) for names in found.values())):
            return next(iter(found.values())), next(iter(found))
    return {}, ""


def _files_in(folder: Path) -> Iterable[Path]:
    with contextlib.suppress(OSError):  # a folder above may be closed to us
        return [path for path in folder.iterdir() if path.is_file() and path.stat().st_size <= _MOST_BYTES]
    return []


def _fitting(path: Path, labels: Collection[str]) -> dict[str, str]:
    """The names in a file by the source's labels; nothing where they cannot be meant."""
    try:
        data = files.read_bytes(path, "label file")
        if all(label.isdigit() for label in labels):
            names = _of_numbers(decode_labels(data, str(path)), {int(label) for label in labels})
            return {label: names[int(label)] for label in labels} if names else {}
        return _of_codes(decode_text(data, str(path), str(path)), labels)
    except InputError:
        return {}


def _of_numbers(listed: Collection[str], numbers: Collection[int]) -> dict[int, str]:
    """The names of a list by number."""
    listed = tuple(listed)
    names = names_by_number(listed)
    if not names.keys() >= set(numbers):
        first = 1 if 0 not in numbers and max(numbers) == len(listed) else 0
        names = dict(enumerate([names[number] for number in sorted(names)] or listed, first))
    plain = {name for name in names.values() if name and not re.fullmatch(r"[\d. ]+", name)}
    is_fit = names.keys() >= set(numbers) and len(plain) == len(names) <= _MOST_UNUSED * len(numbers)
    return names if is_fit else {}


def _of_codes(text: str, labels: Collection[str]) -> dict[str, str]:
    """The names of a text that tells one for each code, a line each or in JSON; of synonyms the first, if it is one's.

    Nothing unless each label has one of its own.
    """
    pairs = _pairs_of_json(text) if text.lstrip()[:1] in ("{", "[") else list(map(_pair, text.splitlines()))
    wanted = set(labels)
    whole = {code: clean_label(name) for code, name in reversed(pairs) if code in wanted and name.strip()}
    if whole.keys() != wanted or len({*whole.values()}) < len(wanted):
        return {}
    firsts = {code: name.partition(",")[0].strip() for code, name in whole.items()}
    counts = Counter(firsts.values())
    return {code: first if first and counts[first] == 1 else whole[code] for code, first in firsts.items()}


def _pair(line: str) -> tuple[str, str]:
    """The code and the name in a line: ``n01440764 tench, Tinca``, ``n02119789 1 kit_fox``, ``n0, howler, 26``."""
    found = re.match(r"[\s\"']*([A-Za-z]{1,3}\d{1,9})\b[\"']?(\s*[,;]|[\s:=]+)(.*)", line)
    if not found:
        return "", ""
    cells = found[3].split("\t")
    if found[2].strip() in (",", ";"):
        with contextlib.suppress(csv.Error):
            cells = next(csv.reader([found[3]], delimiter=found[2].strip(), skipinitialspace=True), [])
    named = (re.sub(r"^\d+\s+", "", cell.strip()) for cell in cells)
    return found[1], next((cell for cell in named if re.search(r"[^\W\d]", cell)), "")


def _pairs_of_json(text: str) -> list[tuple[str, str]]:
    """The codes and names of ``{"n01440764": "tench"}`` and ``{"0": ["n01440764", "tench"]}``."""
    with contextlib.suppress(ValueError, RecursionError):
        told = json.loads(text)
        items = list(told.items()) if isinstance(told, dict) else []
        pairs = [value if isinstance(value, list) and len(value) == 2 else [key, value] for key, value in items]
        return [(str(code), name) for code, name in pairs if isinstance(name, str)]
    return []
