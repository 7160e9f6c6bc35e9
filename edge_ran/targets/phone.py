"""A phone whose browser is the device: how its page is reached."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator

from edge_ran.errors import EnvironmentMissing
from edge_ran.phone.serve import DEFAULT_ADDRESS, Address, Serving
from edge_ran.targets.adb import Adb
from edge_ran.targets.address import adb_serial
from edge_ran.web_server import parse_address

USB_ADDRESS = "127.0.0.1:0"  # a phone on USB calls it localhost, which its browser trusts without a certificate
_ANSWER_S = 10.0


def place(address: str, adb: str) -> tuple[str, int]:
    """Return where to listen: ``address``, or this machine alone for a phone on USB. Raises UsageError."""
    if adb:
        adb_serial(adb)
        return parse_address(USB_ADDRESS, "--address", USB_ADDRESS)
    return parse_address(address, "--address", DEFAULT_ADDRESS)


@contextlib.contextmanager
def reached(serving: Serving, adb: str, path: str = "/") -> Iterator[Address]:
    """Yield the address that the phone opens; while the block runs, a phone on USB has it as its own localhost.

    Args:
        serving: on this machine alone where ``adb`` is given.
        adb: ``adb:SERIAL`` of a phone on USB, which opens the page by itself; "" for one that scans a code.
        path: what a phone on USB opens there.

    Raises:
        EnvironmentMissing: no adb, no such phone, or it refuses.
    """
    if not adb:
        yield serving.address
        return
    client, port = Adb(), serving.server.port
    serial = client.choose(adb_serial(adb))
    try:
        done = client.run(["-s", serial, "reverse", f"tcp:{port}", f"tcp:{port}"], _ANSWER_S)
    except TimeoutError:
        raise EnvironmentMissing(f"{serial} does not answer adb reverse", "unplug it and plug it in again") from None
    if done.status:
        what = " ".join(done.lines)[:200]
        raise EnvironmentMissing(f"{serial} does not take adb reverse: {what}", "edge-ran devices")
    url = f"http://localhost:{port}{path}"
    try:
        with contextlib.suppress(TimeoutError):  # the address is printed: it can be opened by hand
            view = f"am start -a android.intent.action.VIEW -d {shlex.quote(url)}"
            client.run(["-s", serial, "shell", view], _ANSWER_S)
        yield Address(url, "")
    finally:
        with contextlib.suppress(TimeoutError):  # what was measured counts, and the port leads to nobody
            client.run(["-s", serial, "reverse", "--remove", f"tcp:{port}"], _ANSWER_S)
