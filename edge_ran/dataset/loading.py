"""Lists labelled images of any source, without decoding them."""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_ran.dataset import foreign
from edge_ran.dataset.arrays import from_arrays
from edge_ran.dataset.class_names import named_by_code
from edge_ran.dataset.clips import CLIP_SUFFIXES, clip_rows
from edge_ran.dataset.columns import Columns
from edge_ran.dataset.decoding import readable
from edge_ran.dataset.folder_doubts import doubts
from edge_ran.dataset.folders import from_folder, manifests_in
from edge_ran.dataset.manifest import from_manifest, split_lists
from edge_ran.dataset.names import NOTE, from_names
from edge_ran.dataset.samples import Dataset, Sample
from edge_ran.dataset.tables import MANIFEST_SUFFIXES
from edge_ran.errors import InputError
from edge_ran.files import remedy_of_path
from edge_ran.folder_walk import check_name, walk
from edge_ran.labels import clean_label
from edge_ran.picture import NAMED_SUFFIXES, is_picture
from edge_ran.printable import some


@dataclass(frozen=True)
class Reading:
    """How a source is read; the fields are arguments of ``load``. A run keeps it, to read its pictures again."""

    image_column: str = ""
    label_column: str = ""
    group_column: str = ""
    split_column: str = ""
    labels: tuple[str, ...] = ()
    clip_step_s: float = 1.0

    def load(self, source: Path) -> Dataset:
        """List the labelled images of a source. Raises InputError."""
        return load(
            source,
            image_column=self.image_column,
            label_column=self.label_column,
            group_column=self.group_column,
            split_column=self.split_column,
            labels=self.labels,
            clip_step_s=self.clip_step_s,
        )


def load(
    source: Path,
    *,
    image_column: str = "",
    label_column: str = "",
    group_column: str = "",
    split_column: str = "",
    labels: Sequence[str] = (),
    clip_step_s: float = 1.0,
) -> Dataset:
    """List the labelled images of a source, without decoding them.

    Args:
        source: a folder of class folders (also below ``train/``, ``val/``, ``test/``), whose pictures in a sub-folder
            of a class share that sub-folder as group; a manifest with the columns ``image,label[,group][,split]`` and
            paths relative to it (CSV, JSON, JSON lines, or a list of ``PATH LABEL``), or a folder with one beside its
            pictures, or in each split; or an ``.npz`` with ``x`` (N, H, W, 3) or (N, H, W) uint8 RGB, ``y`` (N,) and
            perhaps ``labels`` (names of the numbers in y), ``group`` and ``split``, also as ``x_train``, ``y_train``, …
            or ``train_images``, ``train_labels``, …; or a folder of pictures that have their class in their names
            (``cat.0.jpg``). Classes that are numbers or codes, n01440764, get the names that a file beside tells.
        image_column, label_column, group_column, split_column: the manifest's columns; empty finds them by the names
            that people give them, and by what is in them (``columns.find_columns``).
        labels: keep these classes only; empty keeps all.
        clip_step_s: seconds between two frames taken from a clip (``.mp4``, ``.mov``, …); a clip is a group.

    Raises:
        InputError: the source is missing, empty, or not of such a form.
    """
    source = Path(source)
    check_name(source)
    if not clip_step_s > 0:  # nor NaN
        raise InputError(f"the step between frames must be above 0 s, not {clip_step_s:g}", "--clip-step 1")
    labels = [clean_label(label) for label in labels]
    ignored: Counter[str] = Counter()
    notes: tuple[str, ...] = ()
    coded: list[Path] = []  # where numbers and codes may stand for classes
    codes: Mapping[str, str] = {}
    columns = Columns(image_column, label_column, group_column, split_column)
    if source.is_dir():
        if tables := split_lists(source, columns) or manifests_in(source):
            read = [(from_manifest(path, columns, clip_step_s), split) for path, split in tables]
            samples = [dataclasses.replace(s, split=s.split or split) for one, split in read for s in one.samples]
            notes = tuple(dict.fromkeys(note for one, _ in read for note in one.notes))
            coded = [path for path, _ in tables]
        elif samples := from_names(source):
            notes = (NOTE.format(name=samples[0].path.name, label=samples[0].label),)
        else:
            samples = from_folder(source, clip_step_s, ignored, labels)
            notes = () if labels else tuple(doubts(source, samples))
            coded = [source]
    elif source.is_file() and source.suffix.lower() in MANIFEST_SUFFIXES:
        manifest = from_manifest(source, columns, clip_step_s)
        samples, notes, coded = list(manifest.samples), manifest.notes, [source]
    elif source.suffix.lower() == ".npz":
        samples = from_arrays(source)
    elif source.exists():
        remedy = foreign.remedy([str(source)]) or "give a folder of class folders, a .csv manifest or a .npz"
        raise InputError(f"{source} is not a data set", remedy)
    else:
        raise InputError(f"no such folder or file: {source}", remedy_of_path(source))
    if coded:
        samples, codes, told = named_by_code(coded, samples)
        notes = (*notes, *told)
    if labels:
        names = {code: name for name, code in codes.items()}
        labels = [names.get(label, label) for label in labels]
        absent = sorted(set(labels) - {s.label for s in samples})
        if absent:
            known = sorted({s.label for s in samples})
            close = difflib.get_close_matches(absent[0].casefold(), {name.casefold(): name for name in known}, n=1)
            same = [name for name in known if close and name.casefold() == close[0]]
            remedy = f"did you mean {same[0]!r}?" if same else f"its classes are {some(known)}"
            if any("," in name for name in known):
                remedy += "; one with a comma stands in quotation marks: --classes '\"a, b\",c'"
            raise InputError(f"{source} has no class {', '.join(map(repr, absent))}", remedy)
        samples = [s for s in samples if s.label in set(labels)]
    found = tuple(sorted({s.label for s in samples}))
    return Dataset(tuple(samples), found, source, tuple(sorted(ignored.items())), notes, codes)


def unlabelled(
    folder: Path, clip_step_s: float = 1.0, *, skip_bad: bool = False
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """List the pictures and clips' frames anywhere below a folder, without labels; a clip is a group.

    Returns:
        The samples, and with ``skip_bad``, which decodes them all, a line for each file that cannot be read and is left
        out.

    Raises:
        InputError: there is no such folder, or nothing in it; with ``skip_bad``: nothing that can be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}", "check the path")
    samples: list[Sample] = []
    for place in walk(folder):
        for path in (place.folder / name for name in place.files):
            if is_picture(path):
                samples.append(Sample(path, ""))
            elif path.suffix.lower() in CLIP_SUFFIXES:
                group = path.relative_to(folder).as_posix()
                samples += [Sample(path, "", group, row=row) for row in clip_rows(path, clip_step_s)]
    if not samples:
        raise InputError(f"{folder} holds no picture and no clip", f"fill it with {NAMED_SUFFIXES}")
    if not skip_bad:
        return tuple(samples), ()
    good, problems = readable(samples)
    if not good:
        raise InputError(f"nothing in {folder} can be read: {problems[0]}", f"fill it with {NAMED_SUFFIXES}")
    return good, problems
