"""The text of `edge-ran serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_ran.phone.serve import Address


def text(address: Address, code: str) -> str:
    lines = [code, address.url] if code else [address.url]
    if address.fingerprint:
        lines += [
            "  The phone must be in the same network. Its browser warns of the certificate, for it was made on this",
            "  machine: choose Advanced, then Continue. The certificate's SHA-256 begins and ends with",
            f"  {address.fingerprint[:17]} … {address.fingerprint[-17:]}",
        ]
    lines.append("  POST a picture to /classify for JSON. Ctrl-C ends it.")
    return "\n".join(lines)
