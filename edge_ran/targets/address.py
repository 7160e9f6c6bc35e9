"""From the words of ``--device`` to a device."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edge_ran import catalogue
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import EdgeRanError, EnvironmentMissing, UsageError
from edge_ran.runtime import interpreter
from edge_ran.targets.target import Probe, Target

# A name that begins with "-" would be an option for ssh or adb.
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]"
_SERIAL = r"[A-Za-z0-9_][A-Za-z0-9_.:\[\]-]*"
EXAMPLES = "write local, ssh://user@host[:port], adb:SERIAL, a name of `edge-ran devices` or a path to a .toml"


@dataclass(frozen=True)
class SshAddress:
    """Where ssh goes. An empty ``user`` and a ``port`` of 0 are left to ssh's own configuration."""

    host: str
    user: str = ""
    port: int = 0

    def __str__(self) -> str:
        """As people type it after ``ssh``."""
        port = f"-p {self.port} " if self.port else ""
        return f"{port}{self.user}@{self.host}" if self.user else f"{port}{self.host}"


def ssh_address(target: str) -> SshAddress:
    """Read ``ssh://[user@]host[:port]``; an IPv6 address stands in brackets. Raises UsageError."""
    found = re.fullmatch(rf"ssh://(?:({_USER})@)?({_HOST})(?::([0-9]{{1,5}}))?/?", target)
    port = int(found[3] or 0) if found else -1
    if not found or not 0 <= port <= 65535 or found[3] in ("0", ""):
        raise UsageError(
            f"{target!r} is no address for ssh", "for instance ssh://pi@raspberrypi.local or ssh://host:22"
        )
    return SshAddress(found[2].strip("[]"), found[1] or "", port)


def adb_serial(target: str) -> str:
    """Read ``adb:SERIAL``; the serial is empty for the only phone there is. Raises UsageError."""
    serial = target.removeprefix("adb:")
    if not target.startswith("adb:") or not re.fullmatch(f"(?:{_SERIAL})?", serial):
        raise UsageError(f"{target!r} is no address for adb", "adb:SERIAL, as `adb devices` shows it; adb: is the only")
    return serial


def resolve(device: str) -> DeviceSpec:
    """Return the device meant by ``--device``: an address, a name of the catalogue, or a TOML file.

    Raises:
        UsageError: it is none of these.
        InputError: the TOML file is wrong.
    """
    if device.startswith(("ssh://", "adb:")):
        spec = DeviceSpec(device, device, "auto", "int8", target=device)
    elif "://" in device or not device:
        raise UsageError(f"--device {device!r} is no device", EXAMPLES)
    else:
        spec = catalogue.device(device)
    check(spec)
    return spec


def check(spec: DeviceSpec) -> None:
    """Raise UsageError unless the device's target can be read."""
    if spec.target.startswith("ssh:"):
        ssh_address(spec.target)
    elif spec.target.startswith("adb:"):
        adb_serial(spec.target)
    elif spec.target != "local":
        raise UsageError(f"{spec.name}: target {spec.target!r} is unknown", EXAMPLES)


def probe_all(specs: Sequence[DeviceSpec], timeout_s: float) -> list[Probe]:
    """Look which devices answer, all at the same time, each address once; in their order."""
    addresses = {(spec.target, spec.python): spec for spec in specs}
    with ThreadPoolExecutor(max_workers=max(1, len(addresses))) as pool:
        found = dict(zip(addresses, pool.map(lambda spec: _probe(spec, timeout_s), addresses.values()), strict=True))
    return [found[spec.target, spec.python] for spec in specs]


def _probe(spec: DeviceSpec, timeout_s: float) -> Probe:
    try:
        if spec.target == "local":
            return _this_machine()
        with open_target(spec) as target:
            return target.probe(timeout_s)
    except EdgeRanError as error:
        return Probe(False, str(error), error.remedy)


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
        raise UsageError(f"{spec.name}: devices over adb are not implemented yet", "use one over ssh")
    raise UsageError(f"{spec.name}: devices over ssh are not implemented yet", "copy the model there by hand")
