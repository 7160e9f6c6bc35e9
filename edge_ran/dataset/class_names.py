"""The names of classes that folders or a manifest call by numbers or codes, out of a file beside them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from edge_ran import files
from edge_ran.dataset.samples import Sample
from edge_ran.errors import InputError
from edge_ran.labels import clean_label, decode_text, labels_and_first, names_by_number
from edge_ran.picture import CLIP_SUFFIXES, PICTURE_SUFFIXES

# Files that may hold names of classes.
_MAY_NAME = re.compile(r"(class|label|categor|name|map|disease|words|synset|wnid|index)", re.IGNORECASE)
_SUFFIXES = (".json", ".txt", ".csv", ".tsv", ".names", ".pbtxt", ".yaml", ".yml")
_CODE = re.compile(r"[A-Za-z]{0,3}\d{1,9}")  # 7, c7, n01440764
_WORDNET = re.compile(r"n\d{8}")
_UP = 3  # folders: LOC_synset_mapping.txt lies beside ILSVRC/Data/CLS-LOC
_MOST_BYTES = 1 << 23  # words.txt of ImageNet has 2.7 MB
_PICTURE = re.compile(rf"\S({'|'.join(map(re.escape, (*PICTURE_SUFFIXES, *CLIP_SUFFIXES)))})(\s|$)", re.IGNORECASE)
_MOST_UNUSED = 2  # names for each number that occurs; more, and the file is about something else


def named_by_code(sources: Sequence[Path], samples: Sequence[Sample]) -> tuple[list[Sample], dict[str, str], list[str]]:
    """Return the samples with the names of their classes, the codes by name, and notes, where ``names_beside`` finds.

    Args:
        sources: as ``names_beside`` takes them.
        samples: with codes for classes; all of them, for each split may lack some of the classes.
    """
    ways, told = names_beside(sources, {sample.label for sample in samples})
    if not ways:
        return list(samples), {}, []
    names, beside = ways[0], f"{told} beside {sources[0].name}"
    if len(ways) > 1:
        note = (
            f"the classes keep their numbers, as {beside} may count from 0 or from 1; begin its lines with the numbers"
        )
        return list(samples), {}, [note]
    first = min(names, key=lambda code: (len(code), code))
    note = f"the names of the classes are from {beside}: {first} is {names[first]!r}"
    named = [dataclasses.replace(sample, label=names[sample.label]) for sample in samples]
    return named, {name: code for code, name in names.items()}, [note]


def names_beside(sources: Sequence[Path], labels: Collection[str]) -> tuple[list[dict[str, str]], str]:
    """Return the names of the classes that a source calls by numbers or codes, and the file that tells them.

    As Kaggle's cassava leaves (``label_num_to_disease_map.json``), CUB-200-2011 and Caffe's lists (``classes.txt``),
    Oxford's flowers (``cat_to_name.json``) and ImageNet have it (``words.txt``, ``LOC_synset_mapping.txt``,
    ``imagenet_class_index.json``). The file's own numbers count; where they are not those of the source, or there are
    none, the first name is that of 0 or 1: of 0 where that occurs, of 1 where the number of the names does. Where two
    files give other names, none is taken.

    Args:
        sources: the files that list the pictures, or the folder of the class folders.
        labels: the classes in them.

    Returns:
        the name of each label, and the file's name; both empty where there is none. Two ways to name them where
        nothing tells whether the file counts from 0 or from 1.
    """
    if len(labels) < 2 or not all(map(_CODE.fullmatch, labels)):
        return [], ""
    is_wordnet = all(map(_WORDNET.fullmatch, labels))
    above = sources[0].absolute().parents
    is_list = sources[0].is_file()
    places = [list(dict.fromkeys(one.parent for one in sources))] if is_list else [[sources[0]], [above[0]]]
    if is_wordnet:
        places += [[one] for one in above[1 : _UP + 1]]
    for folders in places:
        paths = [path for folder in folders for path in sorted(_files_in(folder)) if path not in sources]
        named = [path for path in paths if path.suffix.lower() in _SUFFIXES and _MAY_NAME.search(path.stem)]
        found = [(path.name, ways) for path in named if (ways := _fitting(path, labels))]
        for told, first in found[:1]:
            same = [names for names in first if is_wordnet or all(names in ways for _, ways in found)]
            if same:
                return same, told
    return [], ""


def _files_in(folder: Path) -> Iterable[Path]:
    with contextlib.suppress(OSError):  # a folder above may be closed to us
        return [path for path in folder.iterdir() if path.is_file() and path.stat().st_size <= _MOST_BYTES]
    return []


def _fitting(path: Path, labels: Collection[str]) -> list[dict[str, str]]:
    """The names in a file by the source's labels, in each way to read them; nothing where they cannot be meant."""
    try:
        data = files.read_bytes(path, "label file")
        if all(label.isdigit() for label in labels):
            ways = _of_numbers(*labels_and_first(data, str(path)), {int(label) for label in labels})
            named = [{label: names[int(label)] for label in labels} for names in ways]
        else:
            named = list(filter(None, [_of_codes(decode_text(data, str(path), str(path)), labels)]))
    except InputError:
        return []
    # A list of pictures, whose labels are the numbers.
    return [names for names in named if not any(map(_PICTURE.search, names.values()))]


def _of_numbers(listed: Sequence[str], first: int | None, numbers: Collection[int]) -> list[dict[int, str]]:
    """The names of a list by number, in each way that fits."""
    own = names_by_number(listed) if first is None else dict(enumerate(listed, first))
    ways = [own]
    if not own.keys() >= set(numbers):
        ways = [dict(enumerate([own[number] for number in sorted(own)] or listed, start)) for start in (0, 1)]
    return [names for names in ways if names.keys() >= set(numbers) and _may_be_classes(names, len(numbers))]


def _may_be_classes(names: Mapping[int, str], used: int) -> bool:
    plain = {name for name in names.values() if name and not re.fullmatch(r"[\d. ]+", name)}
    return len(plain) == len(names) <= _MOST_UNUSED * used


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
