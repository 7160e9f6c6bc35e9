"""The words that start ssh on this machine, and by it the agent on the board."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import Any

from edge_ran.catalogue import DeviceSpec
from edge_ran.targets.address import SshAddress, shown_host
from edge_ran.targets.target import Page

CONNECT_S = 10.0


def command(
    spec: DeviceSpec, address: SshAddress, timeout_s: float, size: int, pages: Sequence[Page] = ()
) -> list[str]:
    """Return the words that start ssh, and by it Python, which reads ``size`` bytes of program.

    ``EDGE_RAN_SSH_CONFIG`` names another file than ``~/.ssh/config``.
    """
    options: dict[str, Any] = {
        "BatchMode": "yes",  # a password could only be asked for on a terminal
        "ConnectTimeout": max(1, round(min(timeout_s, CONNECT_S))),
        "ServerAliveInterval": 5,
        "ServerAliveCountMax": 3,
        "ControlMaster": "no",  # a master of the user's is used; ours would stay behind
        "RemoteCommand": "none",
        "PermitLocalCommand": "no",
        "LogLevel": "ERROR",
    }
    if pages:
        options["ControlPath"] = "none"  # what a master forwards, it would forward for ever
    words = ["ssh", "-T", "-a", "-x", *(f"-o{key}={value}" for key, value in options.items())]
    if config := os.environ.get("EDGE_RAN_SSH_CONFIG"):
        words += ["-F", config]
    for page in pages:
        words += ["-oExitOnForwardFailure=yes", "-L", f"{shown_host(page.host)}:{page.port}:127.0.0.1:{page.port}"]
    if address.port:
        words += ["-p", str(address.port)]
    if address.user:
        words += ["-l", address.user]
    start = (
        'import sys; sys.version_info < (3, 10) and sys.exit("edge-ran-python %d.%d" % sys.version_info[:2]); '
        f'exec(compile(sys.stdin.buffer.read({size}), "edge-ran", "exec"), {{"__name__": "__main__"}})'
    )
    home, python = ("~/", spec.python[2:]) if spec.python.startswith("~/") else ("", spec.python)
    return [*words, "--", address.host, f"exec {home}{shlex.quote(python)} -I -u -c {shlex.quote(start)}"]
