"""Addresses of cameras: whether one is near, how it may be printed, and what helps where it does not answer."""

from __future__ import annotations

import ipaddress
import re

OF_PHONES = ("back", "front")  # what a phone's cameras are called


def is_near(host: str) -> bool:
    """Whether a host is in this network: a proxy, which the environment names, is the way to others."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith((".local", ".lan", ".home.arpa"))
    return address.is_private or address.is_loopback or address.is_link_local


WRITTEN = "in a user's name or password, write / as %2F, # as %23, ? as %3F and % as %25"
# Cheap cameras take the password in the path or query: ?user=admin&pwd=…, /user=admin_password=…_channel=1.
_SECRET = re.compile(
    r"((?:pass(?:word|wd)?|pas|pwd|psw|token|secret|key|auth|sig(?:nature)?|sid|session(?:id)?)=)[^&#/\s]+",
    re.IGNORECASE,
)


def remedy_of_address(url: str, otherwise: str = "check the address, user and network") -> str:
    """What helps where an address does not answer: to write its password by the rules, else ``otherwise``."""
    rest = url.partition("://")[2]
    user = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[0]
    return WRITTEN if _is_torn(rest) or re.search(r"%(?![0-9A-Fa-f]{2})", user) else otherwise


def _is_torn(rest: str) -> bool:
    """Whether what follows ``://`` names a user, and has a second ``@`` before what looks like the host.

    Then a ``/``, ``#`` or ``?`` of the password, not written as the rules want it, would be taken for the host's end.
    """
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    behind = rest[len(host) :].rpartition("@")
    return ":" in host.partition("@")[0] and bool(behind[1]) and re.match(_HOST, behind[2]) is not None


_HOST = re.compile(r"([\w-]+(\.[\w-]+)+|localhost|\[[0-9a-fA-F:.]+\])(:\d+)?([/?#]|$)|[\w-]+:\d+([/?#]|$)")


def without_password(url: str) -> str:
    """The address as it may be printed: user and password of ``rtsp://user:password@host`` left out.

    Passwords with an ``@`` or, against the rules, a ``/`` in them are left out whole, and so is the value of what looks
    like a password in the path or query. A path of this machine stays as it is.
    """
    scheme, is_url, rest = url.partition("://")
    if is_url and _is_torn(rest):
        rest = rest.rpartition("@")[2]
    if not is_url:
        # The scheme is left out by mistake: user:password@host. A path of this machine has no such beginning.
        return re.sub(r"^[^/\s@]+:[^\s@]*@(?=[\w.\[])", "", url)
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in host:
        rest = host.rpartition("@")[2] + rest[len(host) :]
    elif "@" in rest and not re.fullmatch(r"[^:]*|\[.*\](:\d*)?|[^:]*:\d*", host):  # no port: a password's beginning
        rest = rest.rpartition("@")[2]
    return scheme + is_url + _SECRET.sub(r"\1…", rest)
