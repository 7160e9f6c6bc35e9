"""Why no connection to a board came about, and what to do."""

from __future__ import annotations

import re

from edge_ran.targets.address import SshAddress


def explain(said: list[str], status: int | None, address: SshAddress, python: str) -> tuple[str, str]:
    """Say in one line why no connection came about, and in another what to do.

    Args:
        said: lines of ssh, and of the shell and Python there.
        status: ssh's exit status; 255 is its own.
        address: where it went.
        python: what was to run there.
    """
    text = "\n".join(said)
    if found := re.search(r"edge-ran-python (\d+\.\d+)", text):
        return f"Python {found[1]} is too old, 3.10 is needed", 'name another in the TOML: python = "/path/to/python3"'
    for pattern, what, remedy in _causes(address):
        if status == 255 and re.search(pattern, text):
            return what, remedy
    if status in (126, 127):
        return (
            f"there is no {python} there",
            'install Python 3.10 or newer, or name it in the TOML: python = "/path/to"',
        )
    last = said[-1][:200] if said else f"ssh ended with status {status}"
    return f"no connection: {last}", f"try: ssh {address}"


def _causes(address: SshAddress) -> tuple[tuple[str, str, str], ...]:
    """What ssh says, as a pattern, what that means, and what to do; the first that fits counts."""
    return (
        ("Could not resolve hostname", f"no host is called {address.host}", "check the name, or ~/.ssh/config"),
        ("Could not request local forwarding|in use", "that port is in use here", "choose another: --web HOST:PORT"),
        ("Connection refused", f"{address.host} refuses connections", "start sshd there, or name its port"),
        (
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            f"{address.host} has another host key than before",
            f"if that is right: ssh-keygen -R {address.host}; then connect once by hand: ssh {address}",
        ),
        (
            "Host key verification failed|host key is known",
            f"the host key of {address.host} is not known",
            f"connect once by hand and look at it: ssh {address}",
        ),
        (
            "no matching (host key type|key exchange method|cipher|MAC) found",
            f"{address.host} has an old ssh that this one does not talk to",
            "update it, or for it in ~/.ssh/config: HostKeyAlgorithms +ssh-rsa and PubkeyAcceptedAlgorithms +ssh-rsa",
        ),
        ("Bad owner or permissions", "ssh refuses its configuration: others may write it", "chmod 600 ~/.ssh/config"),
        ("UNPROTECTED PRIVATE KEY FILE", "ssh refuses a key that others may read", "chmod 600 ~/.ssh/KEY"),
        (
            "Too many authentication failures",
            f"{address.host} was offered too many keys",
            "name its key in ~/.ssh/config: IdentityFile ~/.ssh/KEY, and IdentitiesOnly yes",
        ),
        (
            "Permission denied",
            f"{address.host} takes none of our keys",
            f"ssh-copy-id {address}; or ssh-add, where the key has a passphrase  (neither is ever asked for here)",
        ),
        (
            "timed out|No route to host|Network is unreachable|Host is down",
            f"{address.host} does not answer",
            f"try: ssh {address}",
        ),
        ("Bad configuration|terminating, .* bad", "ssh does not understand its configuration", f"try: ssh {address}"),
    )  # fmt: skip
