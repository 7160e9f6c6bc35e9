"""What trials found, kept between starts: small JSON files in the user's cache folder. Deleting the folder is safe.

A record is found again only under everything that it depends on, so that any change forgets it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from edge_ran import __version__, files
from edge_ran.errors import EdgeRanError


def folder() -> Path:
    """Return where records are kept; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/.cache")
    if not os.path.isabs(base):  # nobody's home
        with contextlib.suppress(OSError):
            base = tempfile.gettempdir()
    return Path(base) / "edge-ran" / "trials"


def cache_file(**identity: Any) -> Path:
    """Return the file of the record that depends on ``identity``, on edge-ran and on this Python."""
    text = json.dumps({**identity, "edge_ran": __version__, "python": sys.version}, sort_keys=True)
    return folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def load(file: Path) -> dict[str, Any] | None:
    """Return the record; None where there is none, or a damaged one."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        record = json.loads(file.read_text())
        if isinstance(record, dict):
            return record
    return None


def store(file: Path, record: dict[str, Any]) -> None:
    """Keep a record. A home that cannot be written to costs a trial at every start, nothing else."""
    with contextlib.suppress(EdgeRanError):
        files.write_text(file, json.dumps(record, indent=1))
