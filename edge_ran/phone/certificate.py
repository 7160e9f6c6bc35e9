"""The certificate of a server on the local network: a browser opens cameras and GPUs over https only.

It is made here, signed by itself, for this machine's addresses, and kept for a year, so that a phone's owner accepts it
once. A browser warns of it, for nobody vouches for it; the terminal says what that warning means.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import tempfile
from pathlib import Path

from edge_ran.errors import EnvironmentMissing
from edge_ran.files import atomic_path
from edge_ran.python_command import pip

DAYS = 365  # iOS takes 825 at most
_RENEW_BEFORE = datetime.timedelta(days=30)


def context(host: str, folder: Path) -> tuple[ssl.SSLContext, str]:
    """Return what a server needs for https, and the certificate's SHA-256 as browsers show it.

    Args:
        host: the name or address that the certificate is for.
        folder: where key and certificate are kept, readable by their owner only.

    Raises:
        EnvironmentMissing: the package cryptography is missing, or the folder cannot be written to.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
    except ModuleNotFoundError as error:
        raise EnvironmentMissing("https needs the package cryptography", pip("install 'edge-ran[phone]'")) from error
    path = folder / f"{host.replace(':', '_')}.pem"
    if not _is_valid(path):
        _keep(path, _make(host))
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(path)
    digest = certificate.fingerprint(hashes.SHA256()).hex().upper()
    return made, ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def keep_folder() -> Path:
    """Return where certificates are kept for this user."""
    base = os.environ.get("XDG_DATA_HOME")
    try:
        return Path(base or Path.home() / ".local" / "share") / "edge-ran" / "certificates"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / f"edge-ran-{os.getuid()}" / "certificates"


def _keep(path: Path, pem: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_path(path, private=True) as temporary:
            temporary.write_bytes(pem)
    except (OSError, EnvironmentMissing) as error:
        remedy = "set XDG_DATA_HOME to a folder that can be written to"
        raise EnvironmentMissing(f"a certificate cannot be kept: {error}", remedy) from error


def _is_valid(path: Path) -> bool:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc) > _RENEW_BEFORE


def _make(host: str) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge-ran on this machine")])
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        named: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        named = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(x509.SubjectAlternativeName([named]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return secret + certificate.public_bytes(serialization.Encoding.PEM)
