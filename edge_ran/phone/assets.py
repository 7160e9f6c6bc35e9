"""LiteRT.js, the runtime that the site brings to a browser: pinned packages of the npm registry, kept in a folder.

The packages are large (26 MB unpacked), so they are no part of edge-ran's wheel. ``npm pack`` fetches them;
``unpack`` takes them only with the hashes below and puts what a site needs into the user's cache folder, or into the
data package ``edge_ran_web`` that ``scripts/web_runtime.py`` builds; that script also tells how to renew the pin.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tarfile
from pathlib import Path

from edge_ran.errors import EnvironmentMissing, InputError
from edge_ran.files import atomic_folder, home, read_bytes

VERSION = "2.5.3"
# Of the tarballs, as `npm pack` leaves them.
TARBALLS = {
    f"litertjs-core-{VERSION}.tgz": "a97660833e9e7e1063c95e12016718881240b14f7438728a2f62785e912d30fd",
    f"litertjs-wasm-utils-{VERSION}.tgz": "ce2a1f8379c067be49e59752e5a7f40db6be09f6e497f0f11e59f17b515366a7",
}
BUILDS = ("", "_compat", "_jspi")  # with relaxed SIMD, without it, and with JSPI for integer io on a GPU
FILES = (
    "index.js",
    "wasm-utils.js",
    *(f"litert_wasm{build}_internal.{kind}" for build in BUILDS for kind in ("js", "wasm")),
)
REMEDY = f"npm pack @litertjs/core@{VERSION} @litertjs/wasm-utils@{VERSION}, then add --web-runtime ."
_IMPORT = b'"@litertjs/wasm-utils"'  # the one line that a browser without a bundler does not understand


def find(given: Path | None = None) -> Path:
    """Return the folder that holds ``FILES``: out of the tarballs in ``given``, the data package, or the cache.

    Raises:
        EnvironmentMissing: they are nowhere.
        InputError: ``given`` lacks a tarball, or one is not the pinned one.
    """
    if given is not None:
        unpack(given, cache())
    package = importlib.util.find_spec("edge_ran_web")
    places = [Path(place) for place in (package.submodule_search_locations or []) if package] if package else []
    for folder in (*places, cache()):
        if all((folder / name).is_file() for name in FILES):
            return folder
    raise EnvironmentMissing(f"the web runtime (LiteRT.js {VERSION}) is not here", REMEDY)


def cache() -> Path:
    """Return where ``unpack`` keeps the runtime for this user."""
    base = os.environ.get("XDG_CACHE_HOME") or str(home() / ".cache")
    return Path(base) / "edge-ran" / f"litertjs-{VERSION}"


def unpack(source: Path, target: Path) -> None:
    """Take what a site needs out of the two tarballs in ``source``, whole or not at all.

    Raises:
        InputError: a tarball is missing or has another hash than the pinned one.
    """
    for name, wanted in TARBALLS.items():
        found = hashlib.sha256(read_bytes(source / name, "tarball")).hexdigest()
        if found != wanted:
            raise InputError(f"{source / name} is not the pinned package: its SHA-256 is {found}", REMEDY)
    core_path, utils_path = (source / name for name in TARBALLS)
    with atomic_folder(target) as fresh, tarfile.open(core_path) as core, tarfile.open(utils_path) as utils:
        index = _member(core, "package/dist/index.js")
        if index.count(_IMPORT) != 1:
            raise InputError(f"LiteRT.js {VERSION} imports its utilities in another way", "see CONTRIBUTING.md")
        (fresh / "index.js").write_bytes(index.replace(_IMPORT, b'"./wasm-utils.js"'))
        (fresh / "wasm-utils.js").write_bytes(_member(utils, "package/dist/index.js"))
        for name in FILES[2:]:
            (fresh / name).write_bytes(_member(core, f"package/wasm/{name}"))


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, name  # the hash says that it is there
    return file.read()
