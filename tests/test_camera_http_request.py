"""HTTP cameras that ask for a password, or lead elsewhere."""

from __future__ import annotations

import base64
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from loopback import jpeg, write_clip

from edge_ran.camera import open_source
from edge_ran.errors import CameraError

PICTURE = jpeg(np.full((24, 32, 3), 80, np.uint8))
USER = "me%40home:p%C3%A4%2F%C5%82@"  # me@home, pä/ł
HASHES = {"MD5": "md5", "SHA-256": "sha256"}


def digest(algorithm: str, more: str = ', qop="auth"') -> str:
    return f'Digest realm="K\u00fcche, 1. Stock"{more}, nonce="n-{algorithm}", algorithm={algorithm}'


BASIC = 'Basic realm="cam"'


class Camera:
    """A server that wants a password, or none without ``challenges``; ``leads`` says where a path leads to."""

    def __init__(self, challenges: Sequence[str] = (), leads: Mapping[str, str] | None = None) -> None:
        self.challenges, self.leads = challenges, leads or {}
        self.heard: list[str] = []  # what was said to let somebody in
        self.body, self.kind = PICTURE, "image/jpeg"
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                said = self.headers.get("Authorization", "")
                camera.heard.append(said)
                where = camera.leads.get(self.path)
                status = 302 if where is not None else 200 if camera.lets_in(said, self.path) else 401
                self.send_response(status)
                if where is not None:
                    self.send_header("Location", where)
                for challenge in camera.challenges if status == 401 else ():
                    self.send_header("WWW-Authenticate", challenge.encode().decode("latin-1"))
                self.send_header("Content-Type", camera.kind)
                self.send_header("Content-Length", str(len(camera.body) if status == 200 else 0))
                self.end_headers()
                if status == 200:
                    self.wfile.write(camera.body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def lets_in(self, said: str, path: str) -> bool:
        """What RFC 7616 and RFC 7617 want to hear."""
        if not self.challenges or said == "Basic " + base64.b64encode("me@home:pä/ł".encode()).decode():
            return True
        asked = dict(re.findall(r'(\w+)=(?:"([^"]*)")', said) + re.findall(r"(nc|qop)=(\w+)", said))
        algorithm = asked.get("nonce", "").removeprefix("n-")
        if not any(f'nonce="n-{algorithm}"' in one for one in self.challenges) or not algorithm:
            return False

        def hashed(text: str) -> str:
            return hashlib.new(HASHES[algorithm.upper()], text.encode()).hexdigest()

        middle = f"{asked['nonce']}:{asked['nc']}:{asked['cnonce']}:auth" if "qop" in asked else asked["nonce"]
        whole = f"{hashed('me@home:Küche, 1. Stock:pä/ł')}:{middle}:{hashed(f'GET:{path}')}"
        return asked["response"] == hashed(whole)


@pytest.fixture
def cameras() -> Iterator[list[Camera]]:
    """What is put there is switched off at the end."""
    made: list[Camera] = []
    yield made
    for one in made:
        one.server.shutdown()
        one.server.server_close()


@pytest.mark.parametrize(
    ("challenges", "answer"),
    [
        ([BASIC], "Basic"),
        ([digest("MD5")], "n-MD5"),
        ([digest("MD5", "")], "n-MD5"),
        ([digest("md5")], "n-md5"),
        ([digest("MD5", ', qop="auth-int, auth"')], "n-MD5"),
        ([digest("SHA-256")], "n-SHA-256"),
        ([digest("SHA-256"), digest("MD5")], "n-SHA-256"),
        ([digest("MD5"), digest("SHA-256")], "n-MD5"),
        ([f"{digest('SHA-512-256')}, {digest('MD5')}"], "n-MD5"),
        ([digest("SHA-512-256"), digest("SHA-256", ', qop="auth-int"'), digest("MD5")], "n-MD5"),
        ([BASIC, digest("MD5")], "n-MD5"),
        (["Negotiate", digest("MD5-sess"), f"NTLM, {BASIC}"], "Basic"),
    ],
)
def test_a_camera_gets_its_password_in_the_way_that_it_asks_for(challenges, answer, cameras: list[Camera]) -> None:
    cameras.append(camera := Camera(challenges))
    open_source(f"http://{USER}{camera.host}/shot.jpg?n=1").read()
    assert camera.heard[0] == ""  # not before it is asked for
    assert answer in camera.heard[1]
    assert len(camera.heard) == 2


def test_a_password_that_is_wrong_missing_or_asked_for_in_an_unknown_way_is_told(cameras: list[Camera]) -> None:
    cameras += [Camera([digest("SHA-256"), BASIC]), Camera(["NTLM", digest("SHA-512-256")])]
    host = f"{cameras[0].host}/shot.jpg"
    helps = f"give its user and password: http://USER:PASSWORD@{host}"
    for wrong, remedy in (("http://me%40home:wrong@", "check the address and password"), ("http://", helps)):
        with pytest.raises(CameraError, match="401") as caught:
            open_source(wrong + host)
        assert caught.value.remedy == remedy
    with pytest.raises(CameraError, match=r"in no way that is known here: ntlm, digest SHA-512-256$") as caught:
        open_source(f"http://{USER}{cameras[1].host}/")
    assert "rtsp://" in caught.value.remedy


@pytest.mark.parametrize("challenge", [BASIC, digest("MD5")])
def test_a_camera_that_leads_to_another_path_keeps_the_password_and_another_place_never_gets_it(
    challenge: str, cameras: list[Camera], tmp_path: Path
) -> None:
    cameras += [Camera([challenge]), Camera([challenge])]
    camera, other = cameras
    here = f"http://{camera.host}"
    camera.leads = {
        "/1": "/img/shot.jpg", "/2": f"{here}/shot.jpg", "/3": f"http://x:y@{camera.host}/shot.jpg",
        "/elsewhere": f"http://{other.host}/shot.jpg", "/name": f"{here.replace('127.0.0.1', 'localhost')}/shot.jpg",
    }  # fmt: skip
    for path in ("/1", "/2", "/3"):
        source = open_source(f"http://{USER}{camera.host}{path}", fps=100)
        assert [int(source.read().image.mean()) for _ in range(2)] == [80, 80]
    camera.heard.clear()
    for path, place in (("/elsewhere", other.host), ("/name", camera.host.replace("127.0.0.1", "localhost"))):
        with pytest.raises(CameraError, match=f"{path} leads to http://{place}/shot.jpg, which answers 401") as caught:
            open_source(f"http://{USER}{camera.host}{path}")
        assert caught.value.remedy == f"if that is the camera: http://USER:PASSWORD@{place}/shot.jpg"
    assert set(camera.heard + other.heard) == {""}
    write_clip(tmp_path / "clip.avi", 3)
    camera.body, camera.kind = (tmp_path / "clip.avi").read_bytes(), "video/x-msvideo"  # which FFmpeg asks for itself
    assert open_source(f"http://{USER}{camera.host}/2").read() is not None


@pytest.mark.parametrize(
    ("leads", "told"),
    [
        ({"/": "/a", "/a": "/"}, "answers 302 and leads in circles, or nowhere"),
        ({"/" + "a" * n: "/" + "a" * (n + 1) for n in range(20)}, "answers 302 and leads in circles, or nowhere"),
        ({"/": "file:///etc/passwd"}, "leads to file:///etc/passwd, which is no http:// address"),
        ({"/": "ftp://x:y@127.0.0.1:1/"}, "leads to ftp://127.0.0.1:1/, which is no http:// address"),
        ({"/": "rtsp://127.0.0.1/a\tb"}, "which is no http:// address"),
        ({"/": "http://127.0.0.1:99999/"}, "does not answer"),
        ({"/": "http://[x"}, "does not answer"),
        ({"/": "http://"}, "leads in circles, or nowhere"),
    ],
)
def test_a_camera_that_leads_nowhere_is_one_line(leads: dict[str, str], told: str, cameras: list[Camera]) -> None:
    cameras.append(camera := Camera(leads=leads))
    with pytest.raises(CameraError) as caught:
        open_source(f"http://{USER}{camera.host}/")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
