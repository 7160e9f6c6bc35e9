"""From the words of ``--device`` to a device that can be asked; the list of those that are known.

Each kind of device is imported where it is opened: most commands ask none.
"""

from __future__ import annotations

import dataclasses
import platform
import re
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edge_ran import catalogue
from edge_ran.camera.address import without_password
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import EdgeRanError, EnvironmentMissing, UsageError
from edge_ran.runtime import interpreter
from edge_ran.targets.address import EXAMPLES, check, is_browser
from edge_ran.targets.target import Probe, Target


def resolve(device: str) -> DeviceSpec:
    """Return the device meant by ``--device``: an address, a name of the catalogue, or a TOML file.

    Raises:
        UsageError: it is none of these.
        InputError: the TOML file is wrong.
    """
    if device.startswith(("ssh://", "adb:")) or is_browser(device):
        spec = DeviceSpec(device, device, "auto", "int8", target=device)
    elif "://" in device or not device or without_password(device) != device:
        raise UsageError(f"--device {without_password(device)!r} is no device", EXAMPLES)
    elif re.search(r"@|\.local$|^\d+(\.\d+){3}$", device):
        raise UsageError(f"no device is called {device!r}", f"over ssh: --device ssh://{shlex.quote(device)}")
    elif device.lower() in ("adb", "ssh", "usb", "android", "serial"):
        raise UsageError(f"no device is called {device!r}", EXAMPLES)
    else:
        spec = catalogue.device(device)
    check(spec)
    return spec


@dataclass(frozen=True)
class DeviceReport:
    """A device as its description has it, without passwords; ``probe`` is what it answered, None: it was not asked."""

    name: str
    summary: str
    accelerator: str
    converter: str
    threads: int
    camera: str
    latency_budget_ms: float
    target: str
    runtime: str
    python: str
    benchmark_binary: str
    measured: str
    probe: Probe | None = None


@dataclass(frozen=True)
class DeviceList:
    """What ``edge-ran devices`` prints."""

    devices: tuple[DeviceReport, ...]


@dataclass(frozen=True)
class Cleaned:
    """What ``edge-ran devices --clean`` removed."""

    device: str
    freed_bytes: int


def list_devices(
    name: str | None, timeout_s: float | None, say: Callable[[str], None] = lambda line: None
) -> DeviceList:
    """Describe the device of that name, or every device of the catalogue and every phone that is connected.

    Args:
        name: as ``--device`` takes it.
        timeout_s: how long to wait for an answer; None asks none of them.
        say: told that this takes a while.

    Raises:
        UsageError: there is no such device.
    """
    from edge_ran.targets.android import connected

    asks = timeout_s is not None
    specs = [resolve(name)] if name else [*catalogue.devices(), *(connected() if asks else [])]
    if asks and any(spec.target != "local" for spec in specs):
        say("asking which of them answer; --no-probe leaves that out")
    probes = [None] * len(specs) if timeout_s is None else probe_all(specs, timeout_s)
    return DeviceList(
        tuple(
            DeviceReport(**{**dataclasses.asdict(spec), "camera": without_password(spec.camera)}, probe=probe)
            for spec, probe in zip(specs, probes, strict=True)
        )
    )


def clean(name: str | None) -> Cleaned:
    """Remove everything that edge-ran keeps on a device between calls.

    Raises:
        UsageError: none is named, or it is this machine.
        EnvironmentMissing: it cannot be reached.
    """
    spec = resolve(name) if name else None
    if spec is None or spec.target == "local":
        raise UsageError("--clean needs a device other than this machine", "edge-ran devices NAME --clean")
    with open_target(spec) as target:
        return Cleaned(spec.name, target.clean())


def probe_all(specs: Sequence[DeviceSpec], timeout_s: float) -> list[Probe]:
    """Look which devices answer, all at the same time; in their order."""
    with ThreadPoolExecutor(max_workers=max(1, len(specs))) as pool:
        return list(pool.map(lambda spec: _probe(spec, timeout_s), specs))


def _probe(spec: DeviceSpec, timeout_s: float) -> Probe:
    try:
        if spec.target == "local":
            return _this_machine()
        with open_target(spec) as target:
            return target.probe(timeout_s)
    except EdgeRanError as error:
        return Probe(False, str(error).removeprefix(f"{spec.name}: "), error.remedy)


def _this_machine() -> Probe:
    python, system = f"Python {platform.python_version()}", f"{platform.system()} {platform.release()}"
    try:
        package = interpreter.package()
    except EnvironmentMissing as error:
        return Probe(True, str(error), error.remedy, system, platform.machine(), python)
    return Probe(True, "", "", system, platform.machine(), python, f"{package.name} {package.version}")


def open_target(spec: DeviceSpec, say: Callable[[str], None] = lambda line: None, install: bool = False) -> Target:
    """Return a device that is not this machine; nothing is connected yet.

    Args:
        spec: as ``resolve`` gives it.
        say: told each line of progress, free of control characters.
        install: whether packages that it lacks may be installed there.
    """
    check(spec)
    if spec.target.startswith("adb:"):
        if install:
            raise UsageError("--install is for boards over ssh: a phone needs no Python", "leave it out")
        from edge_ran.targets.android import AndroidTarget

        return AndroidTarget(spec, say)
    if spec.target == "local":
        raise UsageError(f"{spec.name} is this machine", "leave out --device")
    if is_browser(spec.target):
        if install:
            raise UsageError("--install is for boards over ssh: a browser needs no Python", "leave it out")
        from edge_ran.targets.browser import BrowserTarget

        return BrowserTarget(spec, say)
    from edge_ran.targets.ssh import SshTarget

    return SshTarget(spec, say, install)
