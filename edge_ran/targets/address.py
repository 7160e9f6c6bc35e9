"""Where a device is: the addresses that ``--device`` and a device's TOML take."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_ran.camera.address import without_password
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import UsageError

# A name that begins with "-" would be an option for ssh or adb.
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]"
# As adb lists them: of USB, host:port, [IPv6]:port, and of mDNS, which numbers a second one: "adb-R5CT-Xy (2)._adb-…".
SERIAL = r"[A-Za-z0-9_\[][A-Za-z0-9._:%\[\]-]*(?: \([0-9]{1,3}\)[A-Za-z0-9._-]*)?"
# Where a page listens: a phone's browser is outside, this machine's own is not.
BROWSERS = {"phone": ("0.0.0.0", 8443), "browser": ("127.0.0.1", 0)}
EXAMPLES = (
    "write local, ssh://user@host[:port], adb:SERIAL, phone, phone:adb, browser, "
    "a name of `edge-ran devices` or a .toml"
)


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
    shown = without_password(target)
    secret = ", which asks for a password itself" if shown != target and re.match(r"\w+://[^/@]*:", target) else ""
    if not found or not 0 <= port <= 65535 or found[3] in ("0", ""):
        raise UsageError(
            f"{shown!r} is not an address for ssh{secret}", "for instance ssh://pi@raspberrypi.local or ssh://host:22"
        )
    return SshAddress(found[2].strip("[]"), found[1] or "", port)


def shown_host(host: str) -> str:
    """Return the host as it stands before ``:port``: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def adb_serial(target: str) -> str:
    """Read ``adb:SERIAL``; the serial is empty for the only phone there is. Raises UsageError."""
    serial = target.removeprefix("adb:")
    if not target.startswith("adb:") or not re.fullmatch(f"(?:{SERIAL})?", serial) or len(serial) > 128:
        raise UsageError(
            f"{target!r} is not an address for adb", "adb:SERIAL, as `adb devices` shows it; adb: is the only"
        )
    return serial


def is_browser(target: str) -> bool:
    """Whether it is a page that somebody opens: ``phone``, ``phone:PORT``, ``phone:adb:SERIAL`` or ``browser``."""
    return target.partition(":")[0] in BROWSERS


def browser_adb(target: str) -> str:
    """Return the ``adb:SERIAL`` in ``phone:adb:SERIAL``; "" for a page that is reached through a network."""
    usb = re.fullmatch(r"phone:(adb(?::.*)?)", target)
    return f"adb:{usb[1].removeprefix('adb').removeprefix(':')}" if usb else ""


def browser_place(target: str) -> tuple[str, int]:
    """Return the host and port that the page of a browser listens on. Raises UsageError."""
    if usb := browser_adb(target):
        adb_serial(usb)
        return BROWSERS["browser"]  # the phone calls this machine its localhost, which needs no certificate
    found = re.fullmatch(r"(phone|browser)(?::(\d{1,5}))?", target)
    if not found or int(found[2] or 0) > 65535:
        raise UsageError(f"{target!r} is no browser", "write phone, phone:PORT, phone:adb, phone:adb:SERIAL or browser")
    host, port = BROWSERS[found[1]]
    return host, int(found[2] or port)


def check(spec: DeviceSpec) -> None:
    """Raise UsageError unless the device's target can be read."""
    if spec.target.startswith("ssh:"):
        ssh_address(spec.target)
    elif is_browser(spec.target):
        browser_place(spec.target)
    elif spec.target.startswith("adb:"):
        adb_serial(spec.target)
    elif spec.target != "local":
        raise UsageError(f"{spec.name}: target {spec.target!r} is unknown", EXAMPLES)
