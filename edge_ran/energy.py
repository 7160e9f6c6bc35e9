"""The energy that a device says it uses: counters of processor packages, or sensors of the power that a board draws.

Everything is read from Linux's /sys. A counter (RAPL, amd_energy) tells joules; a sensor tells the watts of some
moments ago, which times the seconds are joules. Both hold everything that they feed, at rest as well, so a figure needs
a machine that does nothing else. Most counters are for root only, and what cannot be read is not there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Chips that measure what a board or machine draws; a graphics card's or a disk's own sensor would be something else.
METERS = ("ina", "ltc29", "pac19", "power_meter")
WHOLE = ("VDD_IN", "POM_5V_IN")  # the channel that feeds all others, where a board (Jetson) measures several


@dataclass(frozen=True)
class Counter:
    """A counter of microjoules that begins anew after ``span`` of them; 0 = never."""

    path: Path
    span: int


@dataclass(frozen=True)
class Sensor:
    """What tells the energy: counters, or one channel of power. ``files`` are microwatts, or millivolts and
    milliamperes."""

    name: str
    counters: tuple[Counter, ...] = ()
    files: tuple[Path, ...] = ()


def find(sys: Path = Path("/sys")) -> Sensor | None:
    """Return what tells this device's energy and can be read, counters before power; None where nothing does."""
    return next(_sensors(sys), None)


class Meter:
    """Adds up energy between each ``start`` and ``stop``. ``joules`` is None without a sensor, and after a time that
    could not be read: a sum without it would be too small."""

    def __init__(self, sensor: Sensor | None) -> None:
        self._sensor = sensor
        self.joules: float | None = None
        self._is_whole = sensor is not None
        self._counts: list[int | None] = []
        self._begun = 0.0

    def start(self) -> None:
        """Begin to count."""
        if self._sensor:
            self._counts, self._begun = [_number(c.path) for c in self._sensor.counters], time.perf_counter()

    def stop(self) -> None:
        """Add what was used since ``start``."""
        if not self._sensor or not self._is_whole:
            return
        seconds = time.perf_counter() - self._begun
        if self._sensor.counters:
            used = self._counted(self._sensor.counters)
        else:
            watts = _watts(self._sensor.files)
            used = None if watts is None else watts * seconds
        self._is_whole = used is not None
        self.joules = None if used is None else (self.joules or 0.0) + used

    def _counted(self, counters: tuple[Counter, ...]) -> float | None:
        """Joules since ``start``; None where a counter could not be read."""
        used = 0.0
        for counter, before in zip(counters, self._counts, strict=True):
            now = _number(counter.path)
            if now is None or before is None:
                return None
            used += (now - before + (counter.span if now < before else 0)) / 1e6
        return used


def _sensors(sys: Path) -> Iterator[Sensor]:
    packages = [
        (_text(zone / "name") or zone.name, Counter(zone / "energy_uj", _number(zone / "max_energy_range_uj") or 0))
        for zone in sorted((sys / "class/powercap").glob("intel-rapl:*"))
        if zone.name.count(":") == 1 and _number(zone / "energy_uj") is not None  # packages, not their parts again
    ]
    # A board's own zone ("psys") holds the packages, too.
    if packages := [p for p in packages if p[0] == "psys"] or packages:
        yield Sensor(f"RAPL {' + '.join(name for name, _ in packages)}", tuple(counter for _, counter in packages))
    chips = sorted((sys / "class/hwmon").glob("hwmon*"))
    for chip in chips:
        sockets = [
            path
            for path in sorted(chip.glob("energy*_input"))
            if _text(_beside(path, "label")).startswith("Esocket") and _number(path) is not None
        ]
        if sockets:
            yield Sensor(f"{_text(chip / 'name')} sockets", tuple(Counter(path, 0) for path in sockets))
    for chip in chips:
        if _text(chip / "name").startswith(METERS):
            yield from _channels(chip)


def _channels(chip: Path) -> Iterator[Sensor]:
    """A chip's channel of power that holds the others, or its first."""
    found: list[tuple[str, tuple[Path, ...]]] = []
    for path in sorted((*chip.glob("power*_average"), *chip.glob("power*_input"))):
        found.append((_text(_beside(path, "label")), (path,)))
    for volts in sorted(chip.glob("in*_input")):
        amperes = volts.with_name(volts.name.replace("in", "curr", 1))
        if amperes.exists():
            found.append((_text(_beside(volts, "label")), (volts, amperes)))
    usable = [(label, files) for label, files in found if _watts(files)]
    for label, files in sorted(usable, key=lambda one: WHOLE.index(one[0]) if one[0] in WHOLE else len(WHOLE))[:1]:
        yield Sensor(" ".join(filter(None, (_text(chip / "name"), label))), files=files)


def _watts(files: tuple[Path, ...]) -> float | None:
    numbers = [_number(path) for path in files]
    if any(n is None for n in numbers):
        return None
    first, *others = (float(n) for n in numbers if n is not None)
    return first * others[0] / 1e6 if others else first / 1e6


def _beside(path: Path, what: str) -> Path:
    """``power1_input`` -> ``power1_label``."""
    return path.with_name(f"{path.name.partition('_')[0]}_{what}")


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
