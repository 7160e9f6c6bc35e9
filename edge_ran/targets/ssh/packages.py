"""What a board must have installed, what of it is missing, and this package's code as it is sent."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path

import edge_ran
from edge_ran import catalogue
from edge_ran.errors import EnvironmentMissing
from edge_ran.python_command import pip

# What the code needs there besides a runtime: module, and what pip calls it.
NEEDED = (
    ("numpy", "numpy"),
    ("cv2", "opencv-python-headless"),
    ("PIL", "pillow"),
    ("flatbuffers", "flatbuffers"),
    ("tflite", "tflite"),
    ("typer", "typer"),
    ("rich", "rich"),
)
RUNTIMES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))
NAMES = {"ai-edge-litert": "litert"}
# The device needs no training code, and gets the network that it is to run by itself.
LEFT_OUT = ("host", "shipped", "__pycache__")


@dataclass(frozen=True)
class Installed:
    """What the agent says of its board; ``missing`` are pip's names, ``runtime`` is (pip's name, version)."""

    system: str
    architecture: str
    python: str
    cache: str
    missing: tuple[str, ...]
    runtime: tuple[str, str] | None = None

    @property
    def lacks(self) -> tuple[str, ...]:
        """What must be installed before edge-ran can run there."""
        return self.missing if self.runtime else (*self.missing, "a runtime (ai-edge-litert or tflite-runtime)")

    @property
    def runtime_name(self) -> str:
        """The runtime and its version, as results call it; empty without one."""
        return " ".join((NAMES.get(self.runtime[0], self.runtime[0]), self.runtime[1])) if self.runtime else ""


def requirements(runtime: str) -> list[str]:
    """Return what pip must install on a device for ``runtime``, as this edge-ran's own package says."""
    try:
        lines = importlib.metadata.requires("edge-ran") or []
    except importlib.metadata.PackageNotFoundError:
        lines = []
    plain = [line for line in lines if "extra ==" not in line]
    if runtime == "tflite-runtime":
        extra = [line.partition(";")[0].strip() for line in lines if re.search(r"extra == .tflite-runtime.", line)]
        plain = [line for line in plain if not line.startswith("ai-edge-litert")] + extra
    if not plain:
        raise EnvironmentMissing("edge-ran does not know what it needs: it is not installed", pip("install edge-ran"))
    return plain


def own_code() -> tuple[str, dict[str, Path]]:
    """The package as the device needs it, with the folders of data inside, as in the wheel."""
    package = Path(edge_ran.__file__).resolve().parent
    members = {}
    for root, at in [(package, "edge_ran"), *((catalogue.folder(n), f"edge_ran/{n}") for n in catalogue.FOLDERS)]:
        for path in root.rglob("*"):
            inside = path.relative_to(root)
            if path.is_file() and not set(LEFT_OUT) & set(inside.parts):
                members[f"{at}/{inside.as_posix()}"] = path
    return "edge-ran's code", members
