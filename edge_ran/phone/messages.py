"""What a page on a phone tells this machine, as records. It is a stranger's: ``records.read`` takes each value as what
it should be, or refuses it. Times in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Abilities:
    """What a browser can do."""

    relaxed_simd: bool
    jspi: bool
    webgpu: bool
    isolated: bool


@dataclass(frozen=True)
class CheckResult:
    """How far answers are from the right ones, as ``runtime.agreement.Agreement``."""

    pictures: int
    top1: float
    largest_difference: float
    relative_error: float
    answers_range: float
    masks_difference: float
    is_right: bool


@dataclass(frozen=True)
class PageAccelerator:
    """What runs the network on a page, and why nothing else does.

    ``is_broken``: the page refused a GPU that is there, or left it: it was wrong, crashed or hung.
    """

    actual: Literal["cpu", "gpu"]
    adapter: str
    reason: str
    is_software: bool
    file: str
    checks: dict[str, CheckResult]
    false_pixels: bool = False
    is_broken: bool = False


@dataclass(frozen=True)
class Hello:
    """What a page says of the phone and the browser that it is in; a browser may leave things out."""

    user_agent: str
    model: str
    platform: str
    cores: int
    memory_gb: float | None
    abilities: Abilities
    accelerator: PageAccelerator
    load_ms: float


@dataclass(frozen=True)
class Battery:
    """Charge 0..1, and whether it is being charged."""

    level: float
    charging: bool


@dataclass(frozen=True)
class TimedRuns:
    """Samples of inferences back to back, every output read inside the timer; a list for each load of the file."""

    sessions_ms: tuple[tuple[float, ...], ...]
    load_ms: tuple[float, ...]
    first_ms: tuple[float, ...]
    seconds: float
    hidden: bool
    clock_step_ms: float
    battery: tuple[Battery | None, Battery | None]
    accelerator: PageAccelerator


@dataclass(frozen=True)
class PageAnswers:
    """The outputs for the site's check pictures: [picture][output][value], None where there is no such accelerator.

    ``cpu_ms`` and ``gpu_ms`` are medians of a few runs.
    """

    cpu: tuple[tuple[tuple[float, ...], ...], ...] | None
    gpu: tuple[tuple[tuple[float, ...], ...], ...] | None
    cpu_ms: float
    gpu_ms: float | None
    accelerator: PageAccelerator


@dataclass(frozen=True)
class PageFrame:
    """One frame that a phone's camera saw: ``outputs`` [output][value], the picture's size in pixels.

    ``stages_ms`` has ``preprocess``, ``inference`` and ``end_to_end``: from the picture's arrival in the page to this
    message. ``picture`` is the frame as JPEG in base64, "" where none was asked for.
    """

    outputs: tuple[tuple[float, ...], ...]
    stages_ms: dict[str, float]
    width: int
    height: int
    accelerator: PageAccelerator
    picture: str = ""


@dataclass(frozen=True)
class FramesDone:
    """The end of a run of ``frames`` frames."""

    frames: int


@dataclass(frozen=True)
class PageWindow:
    """A stretch of a sustained run: its number from 0, when it ended, and the time of every inference in it."""

    index: int
    at_s: float
    samples_ms: tuple[float, ...]
    hidden: bool
    battery: Battery | None


@dataclass(frozen=True)
class SustainDone:
    """The end of a sustained run, and what ran it."""

    accelerator: PageAccelerator
