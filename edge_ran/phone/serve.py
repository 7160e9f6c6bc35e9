"""A site served from this machine for as long as it is wanted, and what to scan or open to get there."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edge_ran import web_server
from edge_ran.classifier import Classifier
from edge_ran.errors import EnvironmentMissing
from edge_ran.files import TemporaryFolder
from edge_ran.phone import certificate
from edge_ran.phone.server import PhoneServer
from edge_ran.phone.site import SiteOptions, cpu_first, export_site
from edge_ran.python_command import pip
from edge_ran.runtime import RuntimeOptions
from edge_ran.web_server import choose_token, is_loopback, reached_at

DEFAULT_ADDRESS = "0.0.0.0:8443"


@dataclass(frozen=True)
class Address:
    """Where a page is: what to open, and the certificate's SHA-256 as browsers show it, "" for plain HTTP."""

    SCHEMA_VERSION: ClassVar[int] = 1

    url: str
    fingerprint: str


@dataclass(frozen=True)
class Serving:
    """A server that runs; the address has the token."""

    address: Address
    server: PhoneServer

    def session_url(self, name: str) -> str:
        """Return the address at which a page works for this machine in the session called ``name``."""
        return f"{self.address.url}{'&' if '?' in self.address.url else '?'}session={name}"


@contextlib.contextmanager
def serving(
    models: Sequence[Path],
    address: tuple[str, int],
    options: SiteOptions | None = None,
    *,
    runtime: RuntimeOptions | None = None,
    web_runtime: Path | None = None,
) -> Iterator[Serving]:
    """Serve the models' site while the block runs.

    Beyond loopback it is https, with a token that visitors must show; on loopback plain HTTP, which browsers trust.

    Args:
        models: as for ``site.export_site``; that for the CPU also answers ``POST /classify``.
        address: host and port; port 0 takes any that is free.
        options: how the page answers.
        runtime: what runs ``/classify``; None = the CPU.
        web_runtime: a folder with LiteRT.js's tarballs.

    Raises:
        InputError: browsers cannot run a model.
        EnvironmentMissing: no web runtime, no cryptography, no network, or the address is taken.
    """
    options = options or SiteOptions()
    for_cpu = cpu_first(models)[0].path
    host, port = address
    outside = not is_loopback(host)
    if outside and not web_server.own_addresses():
        raise EnvironmentMissing(
            "this machine is in no network that a phone could reach",
            "join one, or with a phone on USB: edge-ran serve --adb adb:",
        )
    tls, fingerprint = certificate.context(reached_at(host), certificate.keep_folder()) if outside else (None, "")
    with (
        TemporaryFolder() as folder,
        Classifier(for_cpu, runtime or RuntimeOptions(accelerator="cpu"), overrides=options.overrides) as classifier,
    ):
        site = export_site(models, Path(folder) / "site", options, web_runtime=web_runtime)
        token = choose_token() if outside else ""
        server = PhoneServer((host, port), site.folder, classifier, token, tls)
        server.start()
        try:
            yield Serving(Address(server.url(), fingerprint), server)
        finally:
            server.close()


def qr_code(text: str) -> str:
    """Return ``text`` as a QR code for a terminal, two modules a character, dark on light.

    Raises:
        EnvironmentMissing: the package segno is missing.
    """
    try:
        import segno
    except ModuleNotFoundError as error:
        raise EnvironmentMissing("a QR code needs the package segno", pip("install 'edge-ran[phone]'")) from error
    drawn = io.StringIO()
    segno.make(text, error="l").terminal(drawn, compact=True)
    return drawn.getvalue()
