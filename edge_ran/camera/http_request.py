"""How an HTTP camera is asked: within a time, where it leads to, and with its password."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import re
import socket
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any

from edge_ran.camera.address import WRITTEN, is_near, remedy_of_address, without_password
from edge_ran.errors import CameraError

_HASHES = {"MD5": "md5", "SHA-256": "sha256"}  # of RFC 7616, by the names that it gives them


def request(url: str, timeout_s: float) -> Any:
    """Ask for ``url`` and return the answer, whose body is still to be read.

    Raises:
        CameraError: nobody answers in that time, or not with success.
    """
    address, handlers = url, list[urllib.request.BaseHandler]([_Redirects()])
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:  # it repeats what it takes for the port
        what = f"{without_password(url)} is not an address"
        raise CameraError(what, WRITTEN) from None
    try:
        if parts.username:
            address = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
            secret = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
            handlers.append(_Login(address, *secret))
        if is_near(parts.hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        question = urllib.request.Request(address, headers={"User-Agent": "edge-ran"})
        with _Deadline(timeout_s) as deadline:
            return urllib.request.build_opener(*handlers, *deadline.handlers).open(question, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refused(url, error) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            what = f"{without_password(url)} has a certificate that this machine does not trust"
            remedy = "take its http:// or rtsp:// address, or name its own certificate: SSL_CERT_FILE=camera.pem"
            raise CameraError(what, remedy) from error
        raise CameraError(f"{without_password(url)} does not answer: {reason}", remedy_of_address(url)) from error


def led_to(url: str, where: str) -> str:
    """Return where an address has led to, with its user and password; the address itself where that is elsewhere."""
    if _origin(where) != _origin(url):
        return url
    return urllib.parse.urlunsplit(urllib.parse.urlsplit(where)._replace(netloc=urllib.parse.urlsplit(url).netloc))


def _refused(url: str, error: urllib.error.HTTPError) -> CameraError:
    shown, asked, status = without_password(url), without_password(error.url), f"{error.code} {error.reason}"
    if 300 <= error.code < 400:
        is_http = urllib.parse.urlsplit(error.url).scheme in ("http", "https")
        where = "in circles, or nowhere" if is_http else f"to {asked[:200]}, which is no http:// address"
        what = f"{shown} answers {error.code} and leads {where}"
        return CameraError(what, "open it in a browser, and give the address of the picture or stream itself")
    if _origin(error.url) == _origin(url):
        return CameraError(f"{shown} answers {status}", remedy_of_address(url, _remedy_of_status(url, error.code)))
    # The password is for the address that the user has typed, and for no other.
    remedy = f"if that is the camera: {_with_user(error.url)}" if error.code == 401 else "check the address"
    return CameraError(f"{shown} leads to {asked}, which answers {status}", remedy)


def _remedy_of_status(url: str, status: int) -> str:
    if status == 401 and not urllib.parse.urlsplit(url).username:
        return f"give its user and password: {_with_user(url)}"
    if status in (429, 503):
        return "the camera is busy or starting: close other programs that watch it, and try again"
    return "check the address and password" if status in (401, 403) else "check the address"


def _with_user(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://USER:PASSWORD@{without_password(parts.netloc + parts.path)}"


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port. Raises ValueError where the port is none."""
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Goes where a camera leads, as long as that is HTTP; what it writes there of a user is left out."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if _origin(newurl)[0] not in ("http", "https"):  # ftp://: file:// and others have not come so far
            raise urllib.error.HTTPError(newurl, code, msg, headers, fp)
        parts = urllib.parse.urlsplit(newurl)
        plain = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        return super().redirect_request(req, fp, 302, msg, headers, plain)  # Python 3.10 knows no 308

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Go on to what the answer names."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:  # that is no address
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _User(urllib.request.HTTPPasswordMgr):
    def __init__(self, user: str, password: str) -> None:
        super().__init__()
        # Headers are read and written as Latin-1: this makes UTF-8 of them, also beside what the camera has sent.
        self.secret = user.encode().decode("latin-1"), password.encode().decode("latin-1")

    def find_user_password(self, realm: str, authuri: str) -> tuple[str, str]:
        return self.secret


class _Login(urllib.request.HTTPDigestAuthHandler):
    """Gives user and password when they are asked for, and to no other scheme, host or port than those of the address.

    Of several ways it takes the first Digest that it knows, as RFC 7616 wants it, and Basic where there is none:
    Python's own handlers look at the first header only, and know no SHA-256 before 3.14.
    """

    def __init__(self, address: str, user: str, password: str) -> None:
        self._user = _User(user, password)
        super().__init__(self._user)
        self._address, self._origin = address, _origin(address)

    def http_error_401(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Ask again, once."""
        if req.has_header("Authorization") or _origin(req.full_url) != self._origin:
            return None
        offered = _challenges(headers.get_all("WWW-Authenticate", []))
        digests = (self.get_authorization(req, one) for scheme, one in offered if scheme == "digest" and _is_known(one))
        answer = next((f"Digest {one}" for one in digests if one), "")
        if not answer and any(scheme == "basic" for scheme, _ in offered):
            answer = "Basic " + base64.b64encode(":".join(self._user.secret).encode("latin-1")).decode()
        fp.close()
        if not answer:
            ways = ", ".join(" ".join(filter(None, (scheme, one.get("algorithm")))) for scheme, one in offered)
            what = f"{without_password(self._address)} asks for the password in no way that is known here: {ways[:100]}"
            raise CameraError(what, "allow Basic or Digest in the camera's settings, or take its rtsp:// address")
        req.add_unredirected_header("Authorization", answer)
        return self.parent.open(req, timeout=req.timeout)

    def get_algorithm_impls(self, algorithm: str) -> tuple[Callable[[str], str], Callable[[str, str], str]]:
        """The two functions that a Digest is made with."""

        def hashed(text: str) -> str:
            return hashlib.new(_HASHES[algorithm.upper()], text.encode("latin-1")).hexdigest()

        return hashed, lambda secret, data: hashed(f"{secret}:{data}")


def _is_known(challenge: dict[str, str]) -> bool:
    """Whether a Digest can be answered; what it may be for is reduced to the one kind that Python answers."""
    kinds = re.split(r"[\s,]+", challenge.pop("qop", "").lower())  # as in "auth, auth-int"
    if "auth" in kinds:
        challenge["qop"] = "auth"
    return ("auth" in kinds or kinds == [""]) and challenge.get("algorithm", "MD5").upper() in _HASHES


def _challenges(headers: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The ways in which a password is asked for: the scheme, and its parameters. Each header may have several."""
    found: list[tuple[str, dict[str, str]]] = []
    for item in (item for header in headers for item in urllib.request.parse_http_list(header)):
        if begins := re.fullmatch(r"([\w-]+)(?:\s+([^=\s].*))?", item, re.DOTALL):
            found.append((begins[1].lower(), {}))
            item = begins[2] or ""
        name, equals, value = (part.strip() for part in item.partition("="))
        if equals and found:
            is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
            found[-1][1][name.lower()] = value[1:-1] if is_quoted else value
    return found


class _Deadline:
    """Ends all connections of a request that has no answer by then: one that comes a byte at a time never times out."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(timeout_s, self._end)
        self._timer.daemon = True
        self._is_over = False
        self.handlers = (_Plain(self._connect), _Secure(self._connect))

    def _connect(self, *words: Any, **named: Any) -> socket.socket:
        connected = socket.create_connection(*words, **named)
        self._sockets.append(connected.dup())  # TLS takes the socket itself over before its first byte
        return connected

    def _end(self) -> None:
        self._is_over = True
        for connected in self._sockets:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._timer.cancel()
        for connected in self._sockets:
            connected.close()
        if self._is_over:
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from error


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made, req)

    def _made(self, host: str, **named: Any) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(host, **named)
        connection._create_connection = self._connect  # type: ignore[attr-defined]
        return connection


class _Secure(urllib.request.HTTPSHandler):
    def __init__(self, connect: Callable[..., socket.socket]) -> None:
        super().__init__()
        self._connect = connect

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made, req)

    def _made(self, host: str, **named: Any) -> http.client.HTTPConnection:
        connection = http.client.HTTPSConnection(host, **named)
        connection._create_connection = self._connect  # type: ignore[attr-defined]
        return connection
