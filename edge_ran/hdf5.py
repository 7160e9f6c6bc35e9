"""Attributes of HDF5 files that others wrote.

Where a damaged file names its texts by a heap that leads in circles, HDF5's library reads without end. So a file is
read once in a child process, which has a few seconds of processor time.
"""

from __future__ import annotations

import contextlib
import io
import math
import time
import zipfile
from pathlib import Path
from typing import Any

from edge_ran.errors import InputError
from edge_ran.runtime import child_process

MOST_BYTES = 1 << 25
_MOST_ATTRIBUTES = 10_000
_PROCESSOR_S, _WAIT_S = 3, 60.0


def check(path: Path, member: str = "") -> None:
    """Read every attribute in a child process; ``member`` names the HDF5 file in an archive.

    Raises:
        InputError: HDF5's library crashes, or comes to no end. Attributes that cannot be read pass: whoever reads
            them says so.
    """
    try:
        child_process.ask("edge_ran.hdf5:try_attributes", {"path": str(path.resolve()), "member": member}, _WAIT_S)
    except child_process.ChildFailed as error:
        ends = "reads it without end" if "SIGXCPU" in str(error) else error
        raise InputError(f"{path} is damaged: HDF5's library {ends}", "save the network again") from error


def try_attributes(path: str, member: str) -> dict[str, Any]:
    """Answer ``check``, in the child."""
    import h5py

    data: Any = path
    if member:
        with zipfile.ZipFile(path) as archive:
            data = io.BytesIO(archive.read(member))
    with contextlib.suppress(ImportError, ValueError):  # Windows has none: there the parent's patience ends it
        import resource

        spent = math.ceil(time.process_time())  # a large archive takes long to unpack
        resource.setrlimit(resource.RLIMIT_CPU, (spent + _PROCESSOR_S, spent + _PROCESSOR_S + 2))

    def read(name: str, item: Any) -> None:
        for key in item.attrs:
            with contextlib.suppress(Exception):  # whatever is raised, is raised again where it is needed
                attribute(item, key)

    with contextlib.suppress(Exception), h5py.File(data, "r") as file:
        read("/", file)
        file.visititems(read)
    return {}


def attribute(group: Any, name: str) -> Any:
    """Return an attribute, None where it is not there. Raises ValueError where it claims more than it can hold."""
    import h5py

    key = name.encode()
    if not h5py.h5a.exists(group.id, key):
        return None
    found = h5py.h5a.open(group.id, key)
    count = found.get_space().get_simple_extent_npoints()
    if count > _MOST_ATTRIBUTES or (count and found.get_storage_size() > MOST_BYTES):
        raise ValueError(f"attribute {name} is too large")
    return group.attrs[name]


def text(value: Any) -> str:
    """Return an attribute as text; empty where it is none."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else ""


def names(group: Any, name: str) -> list[str]:
    """Return an attribute that is a list of names; long ones are split into ``name0``, ``name1``, …"""
    import numpy as np

    parts = [attribute(group, name)]
    if parts[0] is None:
        parts, number = [], 0
        while number < _MOST_ATTRIBUTES and (part := attribute(group, f"{name}{number}")) is not None:
            parts.append(part)
            number += 1
    found = [text(one) for part in parts for one in np.asarray(part).reshape(-1).tolist()]
    return [one for one in found if one]
