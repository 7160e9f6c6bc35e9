"""Data that other programs keep in their own containers: what it is, and how its pictures come out of it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from edge_ran.dataset import array_commands

AS_ARRAYS = (
    "save the pixels, (pictures, height, width) or with 3 colours behind, uint8, and the labels as an .npz: "
    "numpy.savez('data.npz', x=pixels, y=labels)"
)
_AS_PICTURES = "read it with that program, and save each picture as CLASS/NUMBER.jpg"
# By the ending of a file's name, in lower case: what it is, and what to do.
_KINDS = {
    (".parquet", ".arrow"): (
        "a table of Hugging Face's datasets",
        "read it there (datasets.load_dataset), and save each picture as CLASS/NUMBER.jpg",
    ),
    (".tfrecord", ".tfrecords", ".record"): ("TensorFlow's records", _AS_PICTURES),
    (".yaml", ".yml"): ("a description of a data set", "give the folder that holds its pictures"),
    (".xml",): (
        "an annotation file of CVAT or Pascal VOC",
        "if it is CVAT's and has a tag for each picture, give it: edge-ran dataset {name}",
    ),
    (".xlsx", ".xls", ".ods", ".numbers"): ("a spreadsheet", "save it as CSV, with the columns image,label"),
    (".zip",): ("an archive", "unpack it first: unzip {name} -d {folder}"),
    (".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".tbz2", ".txz"): (
        "an archive",
        "unpack it first: tar xf {name} -C {folder}",
    ),
    ("-ubyte.gz",): ("MNIST's bytes", AS_ARRAYS),
    (".gz", ".7z", ".rar", ".xz", ".bz2", ".zst"): ("packed", "unpack it first"),
    ("data_batch_1", "test_batch"): ("CIFAR as Python pickles it", AS_ARRAYS),
    (".npy", ".bin", ".pkl", ".pickle", ".h5", ".hdf5", "-ubyte"): ("an array of another program", AS_ARRAYS),
    (".mat",): (
        "a file of MATLAB",
        "read it with scipy.io.loadmat, and list the pictures with their classes in {folder}/list.csv: image,label",
    ),
    (".mdb", ".lmdb", ".rec", ".beton", ".cbor"): ("the container of another program", _AS_PICTURES),
    (
        ".dcm",
        ".dicom",
        ".nii",
        ".dng",
        ".cr2",
        ".cr3",
        ".nef",
        ".arw",
        ".jxl",
        ".jp2",
        ".j2k",
        ".tga",
        ".psd",
        ".exr",
    ): (
        "a picture in a form that is not read",
        "convert it to PNG or JPEG",
    ),
}

# For a shell: whether the file $0 begins as JPEG or PNG does. ``od`` is everywhere, ``file`` is not.
_IS_PICTURE = 'od -An -tx1 -N4 "$0" | grep -Eq "^ *(ff +d8 +ff|89 +50 +4e +47)"'


def begins_as_picture(name: str | Path) -> bool:
    """Whether a file begins as JPEG or PNG does."""
    try:
        with open(name, "rb") as file:
            return file.read(8).startswith((b"\xff\xd8\xff", b"\x89PNG"))
    except OSError:
        return False


def naming(data: Path) -> str:
    """The command that gives the pictures without an ending in a folder one.

    What Git and desktops keep in hidden folders stays, and so do a README and a picture of the new name.
    """
    below = f"find {shlex.quote(str(data))} -mindepth 1 -name '.*' -prune -o -type f ! -name '*.*'"
    return f"{below} -exec sh -c {shlex.quote(_IS_PICTURE)} {{}} ';' -exec mv -n {{}} {{}}.jpg ';'"


def remedy(names: Iterable[str], data: Path | None = None) -> str:
    """Return what to do with the first of these files that is of a known kind; empty where none is.

    Args:
        names: paths of files.
        data: the folder that is read: no advice renames files outside it, or any where there is none.
    """
    for name in sorted(names):
        if data and "." not in os.path.basename(name) and begins_as_picture(name):
            return f"{os.path.basename(name)} is a picture whose name has no ending: {naming(data)}"
        for endings, (what, how) in _KINDS.items():
            if name.lower().endswith(endings):
                if how == AS_ARRAYS and (made := array_commands.of_file(name)):
                    return f"{os.path.basename(name)} is {what}: {made}"
                command = how.format(name=shlex.quote(name), folder=shlex.quote(os.path.dirname(name) or "."))
                return f"{os.path.basename(name)} is {what}: {command}"
    return ""
