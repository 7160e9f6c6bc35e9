"""`serve` and `export`: the site, the picture's way to JSON, the certificate, the QR code, and work for pages."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from schemas import valid_record

from edge_ran import catalogue, web_server
from edge_ran.card import Overrides
from edge_ran.classifier import Classifier
from edge_ran.cli import main
from edge_ran.errors import EnvironmentMissing, InputError, OutputExists, UsageError
from edge_ran.graph import TensorSpec
from edge_ran.phone import assets, certificate, site
from edge_ran.phone.camera_stream import PhoneStream, as_outputs
from edge_ran.phone.messages import PageWindow, TimedRuns
from edge_ran.phone.serve import Serving, qr_code, serving
from edge_ran.phone.server import MAX_RECORD_BYTES
from edge_ran.phone.sessions import Invitation, Session, Sessions
from edge_ran.phone.site import SiteOptions, export_site
from edge_ran.picture import read_picture
from edge_ran.preprocess import dequantise, fit_pixels
from edge_ran.python_command import pip
from edge_ran.runs import SHIPPED, SHIPPED_TFLITE
from edge_ran.runtime import Accelerator, RuntimeOptions
from edge_ran.stream import StreamOptions, run_stream

SHIPPED_FILE = Path(str(SHIPPED / "edge50" / SHIPPED_TFLITE))


@pytest.fixture(scope="module")
def web_runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A stand-in for the web runtime: these tests start no browser."""
    cache = tmp_path_factory.mktemp("cache")
    folder = cache / "edge-ran" / f"litertjs-{assets.VERSION}"
    folder.mkdir(parents=True)
    for name in assets.FILES:
        (folder / name).write_bytes(b"// " + name.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setenv("XDG_DATA_HOME", str(cache))
        yield


@pytest.fixture(scope="module")
def local(web_runtime: None) -> Iterator[Serving]:
    with serving([SHIPPED_FILE], ("127.0.0.1", 0)) as served:
        yield served


def post(url: str, data: bytes, **words: Any) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30, **words) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            return error.code, json.loads(error.read())


def picture(name: str = "chelsea-00.jpg") -> Path:
    return Path(str(catalogue.folder("calibration_data") / name))


def test_a_picture_in_a_form_is_told_how_to_come(local: Serving) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + picture().read_bytes() + b"\r\n--x--\r\n"
    asked = urllib.request.Request(
        f"{local.address.url}classify", body, {"Content-Type": "multipart/form-data; boundary=x"}
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked, timeout=30)
    assert caught.value.code == 400
    assert "curl -X POST -T PICTURE" in json.loads(caught.value.read())["remedy"]
    caught.value.close()


def test_a_posted_picture_gets_the_record_of_a_frame(local: Serving) -> None:
    status, record = post(f"{local.address.url}classify", picture().read_bytes())
    with Classifier(SHIPPED_FILE) as classifier:
        right = classifier.classify(read_picture(picture()))
    assert status == 200
    assert record["schema_version"] == 1
    assert record["label"] == right[0].label
    assert record["predictions"][0] == {"label": right[0].label, "score": right[0].score, "index": right[0].index}
    assert set(record["stages_ms"]) >= {"preprocess", "inference", "end_to_end"}


@pytest.mark.parametrize("body", [b"", b"no picture", b"\xff\xd8\xff" + b"\0" * 100], ids=["empty", "text", "torn"])
def test_what_is_no_picture_is_a_line_of_json(local: Serving, body: bytes) -> None:
    status, record = post(f"{local.address.url}classify", body)
    assert status == 400
    assert record["error"]


def test_a_picture_that_would_fill_the_memory_is_refused(local: Serving) -> None:
    head = b"IHDR" + struct.pack(">II5B", 60_000, 60_000, 8, 2, 0, 0, 0)
    _, small = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
    data = small.tobytes()
    claims = data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
    status, record = post(f"{local.address.url}classify", claims)
    assert status == 400
    assert "pixels" in record["error"]


def test_many_clients_at_once_are_answered_or_told_to_come_again(local: Serving) -> None:
    body, found = picture().read_bytes(), []
    threads = [
        threading.Thread(target=lambda: found.append(post(f"{local.address.url}classify", body)[0])) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) <= {200, 503}
    assert 200 in found


def test_only_files_of_the_site_are_served(local: Serving) -> None:
    url = local.address.url
    with urllib.request.urlopen(f"{url}config.json", timeout=20) as answer:
        assert json.loads(answer.read())["labels"][0] == "airplane"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    for path in ("../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "model", "nothing.js"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{url}{path}", timeout=20)
        assert caught.value.code == 404
        caught.value.close()


def test_beyond_this_machine_it_is_https_with_a_token_and_its_own_certificate(web_runtime: None) -> None:
    with serving([SHIPPED_FILE], ("0.0.0.0", 0)) as served:
        address = served.address
        valid_record("serve", address)
        assert address.url.startswith("https://")
        assert "?token=" in address.url
        port = served.server.port
        plain = ssl.create_default_context()
        with pytest.raises(urllib.error.URLError):  # nobody vouches for it
            urllib.request.urlopen(f"https://127.0.0.1:{port}/", timeout=20, context=plain)
        trusting = ssl._create_unverified_context()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"https://127.0.0.1:{port}/config.json", timeout=20, context=trusting)
        assert caught.value.code == 403
        caught.value.close()  # it holds the connection
        url = f"https://127.0.0.1:{port}/classify?{address.url.partition('?')[2]}"
        assert post(url, picture().read_bytes(), context=trusting)[0] == 200
        pem = ssl.get_server_certificate(("127.0.0.1", port))
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        digest = x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256())
        assert address.fingerprint.replace(":", "").lower() == digest.hex()


def test_a_client_that_says_nothing_over_tls_keeps_nobody_waiting(web_runtime: None) -> None:
    with serving([SHIPPED_FILE], ("0.0.0.0", 0)) as served:
        silent = [socket.create_connection(("127.0.0.1", served.server.port)) for _ in range(5)]
        url = f"https://127.0.0.1:{served.server.port}/classify?{served.address.url.partition('?')[2]}"
        assert post(url, picture().read_bytes(), context=ssl._create_unverified_context())[0] == 200
        for one in silent:
            one.close()


def test_the_certificate_is_kept_readable_by_its_owner_only(tmp_path: Path) -> None:
    _, first = certificate.context("192.0.2.7", tmp_path)
    _, second = certificate.context("192.0.2.7", tmp_path)
    assert first == second
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    kept.write_text("damaged")
    assert certificate.context("192.0.2.7", tmp_path)[1] != first


def test_the_qr_code_of_the_terminal_decodes_to_the_address() -> None:
    address = "https://192.0.2.7:8443/?token=" + "x" * 22
    rows = [line for line in qr_code(address).splitlines() if line.strip()]
    halves = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}
    dots = [[halves[c][half] for c in row] for row in rows for half in (0, 1)]
    image = np.kron(np.array(dots, np.uint8), np.ones((8, 8), np.uint8))
    found, _, _ = cv2.QRCodeDetector().detectAndDecode(image)
    assert found == address


def test_a_site_is_whole_or_not_there(
    web_runtime: None, test_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export_site([SHIPPED_FILE], tmp_path / "site")
    valid_record("export", made)
    assert set(made.files) == {p.relative_to(made.folder).as_posix() for p in made.folder.rglob("*") if p.is_file()}
    worker = (made.folder / "sw.js").read_text("utf-8")
    assert made.version in worker
    assert '"model/int8.tflite"' in worker
    with pytest.raises(OutputExists):
        export_site([SHIPPED_FILE], tmp_path / "site")
    assert export_site([SHIPPED_FILE], tmp_path / "site", force=True).version == made.version
    monkeypatch.chdir(tmp_path / "site")
    with pytest.raises(UsageError, match="that this command runs in"):
        export_site([SHIPPED_FILE], Path("."), force=True)
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputExists, match="no site"):
        export_site([SHIPPED_FILE], tmp_path / "mine", force=True)
    with pytest.raises(InputError, match="int8"):
        export_site(
            [test_models / "int8.tflite"], tmp_path / "other", SiteOptions(overrides=Overrides(("a", "b", "c")))
        )
    assert {p.name for p in tmp_path.iterdir()} == {"site", "mine"}


def test_a_model_is_served_by_a_name_that_an_address_can_have(web_runtime: None, tmp_path: Path) -> None:
    (tmp_path / "50%25 #1?.tflite").write_bytes(SHIPPED_FILE.read_bytes())
    made = export_site([tmp_path / "50%25 #1?.tflite"], tmp_path / "site")
    assert made.models == ("model/50_25 _1_.tflite",)


@pytest.mark.parametrize("quantised", ["uint8.tflite", "int8_float_io.tflite"])
def test_the_cpu_gets_the_int8_file_and_a_gpu_the_float_one_in_either_order(
    web_runtime: None, test_models: Path, tmp_path: Path, quantised: str
) -> None:
    models = [test_models / "float16.tflite", test_models / quantised]
    same = Overrides(("a", "b", "c"), (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
    for number, order in enumerate((models, models[::-1])):
        export_site(order, tmp_path / str(number), SiteOptions(overrides=same))
        files = json.loads((tmp_path / str(number) / "config.json").read_text("utf-8"))["files"]
        assert [one["runs_on"] for one in files] == [["wasm"], ["wasm", "webgpu"]]
        assert [Path(one["path"]).name for one in files] == [quantised, "1-float16.tflite"]
    with serving(models, ("127.0.0.1", 0), SiteOptions(overrides=same)) as served:
        assert served.server.classifier.path.name == quantised


@pytest.mark.parametrize(
    ("name", "labels", "what"),
    [
        ("uint8.tflite", None, "no labels"),
        ("two_inputs.tflite", None, "one input"),
        ("any_batch.tflite", ("a", "b", "c"), "batch"),
        ("float16_io.tflite", ("a", "b", "c"), "cannot read or write float16"),
    ],
)
def test_files_that_browsers_cannot_run_are_one_line(
    web_runtime: None, test_models: Path, tmp_path: Path, name: str, labels: tuple[str, ...] | None, what: str
) -> None:
    with pytest.raises(InputError, match=what):
        export_site([test_models / name], tmp_path / "site", SiteOptions(overrides=Overrides(labels)))
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_too_large_for_a_browser_is_one_line(
    web_runtime: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "LARGEST_MODEL_BYTES", 1000)
    with pytest.raises(InputError, match=r"more than a phone's browser takes"):
        export_site([SHIPPED_FILE], tmp_path / "site")
    assert not list(tmp_path.iterdir())


def edge_ran(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """The command, as typed; what it says in vain would be more than a line and a remedy."""
    command = [sys.executable, "-m", "edge_ran", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **more}, timeout=60)


def test_a_port_in_use_is_one_line_and_a_remedy(web_runtime: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = edge_ran("serve", SHIPPED_FILE, "--address", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 3
    what, remedy = done.stderr.splitlines()
    assert "cannot listen on 127.0.0.1" in what
    assert "0 takes any that is free" in remedy


@pytest.mark.parametrize(
    ("package", "words", "what"),
    [
        ("segno", ("--device", "phone:0"), "a QR code needs the package segno"),
        ("cryptography", ("--device", "phone:0"), "https needs the package cryptography"),
    ],
)
def test_a_missing_library_is_one_line_and_what_to_install(
    web_runtime: None, tmp_path: Path, package: str, words: tuple[str, ...], what: str
) -> None:
    (tmp_path / package).mkdir()  # stands before the real one, and cannot be imported
    code = f"raise ModuleNotFoundError(name={package!r})"
    (tmp_path / package / "__init__.py").write_text(code, encoding="utf-8")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = edge_ran("benchmark", SHIPPED_FILE, *words, PYTHONPATH=path)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [f"edge-ran: {what}", "  " + pip("install 'edge-ran[phone]'")]


def test_without_a_network_one_line_says_so(web_runtime: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "own_addresses", lambda: ())
    with (
        pytest.raises(EnvironmentMissing, match="in no network that a phone could reach") as caught,
        serving([SHIPPED_FILE], ("0.0.0.0", 0)),
    ):
        pass
    assert "--adb" in caught.value.remedy


def test_a_body_that_drips_keeps_nobody_waiting_and_is_given_up(
    local: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "BODY_S", 1.0)
    host, port = "127.0.0.1", local.server.port
    head = f"POST /classify HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n\r\n".encode()
    slow = [socket.create_connection((host, port)) for _ in range(10)]
    try:
        for one in slow:
            one.sendall(head + b"x")
        assert post(f"{local.address.url}classify", picture().read_bytes())[0] == 200  # meanwhile
        one = slow[0]
        one.settimeout(0.2)
        answer, until = b"", time.monotonic() + 30
        while not answer and time.monotonic() < until:
            try:
                one.sendall(b"x")
                answer = one.recv(100)
            except TimeoutError:
                continue
            except OSError:  # it was ended before it had read everything
                answer = b"ended"
        assert answer
    finally:
        for one in slow:
            one.close()


def test_a_stranger_learns_of_no_session_and_a_huge_record_is_refused(local: Serving) -> None:
    url = f"{local.address.url}api/session/"
    for what in ("hello", "result", "part"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(f"{url}guessed/{what}", b"{}"), timeout=20)
        assert caught.value.code == 404
        caught.value.close()
    known = local.server.sessions.invite().name
    for name, status in (("guessed", b" 404 "), (known, b" 400 ")):
        length = MAX_RECORD_BYTES + 1
        head = f"POST /api/session/{name}/part HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", local.server.port)) as raw:
            raw.sendall(head.encode())
            assert status in raw.recv(100)


def test_an_app_can_be_checked_with_the_files_that_docs_apps_names(web_runtime: None, tmp_path: Path) -> None:
    check = export_site([SHIPPED_FILE], tmp_path / "site").folder / "check"
    pixels = np.fromfile(check / "pixels.u8", np.uint8).reshape(8, 32, 32, 3)
    answers = np.fromfile(check / "0.f32", "<f4").reshape(8, -1)
    frame = read_picture(check / "probe.png")
    with Classifier(SHIPPED_FILE) as classifier:
        assert np.fromfile(check / "probe.u8", np.uint8).tobytes() == pixels[0].tobytes()
        assert fit_pixels(frame, classifier.spec).tobytes() == pixels[0].tobytes()
        for fitted, right in zip(pixels, answers, strict=True):
            (output,) = classifier.runtime.run(fitted[None])
            assert dequantise(output, classifier.runtime.outputs[0]).ravel().tolist() == right.tolist()


def test_only_the_pinned_web_runtime_is_taken(tmp_path: Path) -> None:
    for name in assets.TARBALLS:
        (tmp_path / name).write_bytes(b"another package")
    with pytest.raises(InputError, match="is not the pinned package"):
        assets.unpack(tmp_path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_without_the_web_runtime_one_line_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(EnvironmentMissing, match=r"LiteRT\.js") as caught:
        assets.find()
    assert "npm pack @litertjs/core@" in caught.value.remedy


def test_export_without_a_kind_is_a_usage_error() -> None:
    done = subprocess.run([sys.executable, "-m", "edge_ran", "export"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "edge-ran export --web" in done.stderr


ACCELERATOR = {"actual": "cpu", "adapter": "", "reason": "", "is_software": False, "file": "", "checks": {}}
HELLO = {
    "user_agent": "Chrome/140", "model": "a phone", "platform": "", "cores": 4, "memory_gb": None, "load_ms": 1,
    "abilities": dict.fromkeys(("relaxed_simd", "jspi", "webgpu", "isolated"), False), "accelerator": ACCELERATOR,
}  # fmt: skip
TIMES = {"sessions_ms": [[1.0, 2.0]], "load_ms": [5], "first_ms": [3], "seconds": 1, "clock_step_ms": 0.1}
TIMED = {**TIMES, "hidden": False, "accelerator": ACCELERATOR, "battery": [None, {"level": 0.5, "charging": True}]}


def come(sessions: Sessions, invitation: Invitation) -> tuple[str, Session]:
    answer = sessions.take(invitation.name, "hello", json.dumps(HELLO).encode())
    assert answer is not None
    session = invitation.sessions[[one.name for one in invitation.sessions].index(answer["session"])]
    return session.name, session


def asking(session: Session, found: list[Any], **words: Any) -> threading.Thread:
    def ask() -> None:
        try:
            found.append(session.ask(TimedRuns, "benchmark", 30, runs=3, **words))
        except EnvironmentMissing as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_page_gets_its_tasks_and_what_it_sends_is_checked() -> None:
    sessions, found = Sessions(), list[Any]()
    name, session = come(sessions, sessions.invite())
    thread = asking(session, found)
    task = sessions.next_task(name)
    assert task is not None
    assert (task["kind"], task["runs"]) == ("benchmark", 3)
    assert sessions.next_task("another") is None
    right = {"task": task["id"], **TIMED}
    for wrong in (b"[1]", b"not", b"[" * 100_000):
        with pytest.raises(InputError):
            sessions.take(name, "result", wrong)
    assert sessions.take(name, "nonsense", b"{}") is None
    assert sessions.take("another", "result", json.dumps(right).encode()) is None
    assert sessions.take(name, "result", json.dumps({**right, "task": 99}).encode()) == {}  # of a task before
    assert sessions.take(name, "part", json.dumps({"task": task["id"], "part": {}}).encode()) == {"go_on": False}
    assert sessions.take(name, "result", json.dumps(right).encode()) == {}
    thread.join(30)
    assert found[0].sessions_ms == ((1.0, 2.0),)
    assert found[0].battery[1].level == 0.5
    with pytest.raises(InputError):
        sessions.take(name, "hello", json.dumps({**HELLO, "cores": "x"}).encode())


def test_a_page_that_was_loaded_again_in_the_middle_gets_its_task_again() -> None:
    sessions, found = Sessions(), list[Any]()
    name, session = come(sessions, sessions.invite())
    thread = asking(session, found)
    task = sessions.next_task(name)
    assert task is not None
    assert sessions.take(name, "hello", json.dumps(HELLO).encode()) == {"session": name}  # loaded again
    assert sessions.next_task(name) == task
    assert sessions.take(name, "result", json.dumps({"task": task["id"], **TIMED}).encode()) == {}
    thread.join(30)
    assert found[0].seconds == 1
    session.end()
    assert (sessions.next_task(name) or {})["kind"] == "end"


def test_a_part_that_is_sent_again_because_its_answer_was_lost_is_taken_once() -> None:
    sessions, windows = Sessions(), list[PageWindow]()
    name, session = come(sessions, sessions.invite())
    thread = asking(session, [], part=(PageWindow, lambda window: bool(windows.append(window)) or len(windows) < 2))
    task = sessions.next_task(name) or {}
    window = {"index": 0, "at_s": 1.0, "samples_ms": [1.0], "hidden": False, "battery": None}

    def send(part_name: str) -> dict[str, Any] | None:
        return sessions.take(name, "part", json.dumps({"task": task["id"], "name": part_name, "part": window}).encode())

    assert [send(one) for one in ("a 1", "a 1", "a 2")] == [{"go_on": True}, {"go_on": True}, {"go_on": False}]
    assert len(windows) == 2
    sessions.take(name, "result", json.dumps({"task": task["id"], **TIMED}).encode())
    thread.join(30)


def test_what_a_page_could_not_do_is_one_line() -> None:
    sessions, found = Sessions(), list[Any]()
    name, session = come(sessions, sessions.invite())
    thread = asking(session, found)
    task = sessions.next_task(name) or {}
    assert sessions.take(name, "result", json.dumps({"task": task["id"], "error": "no\x1b[2J camera"}).encode()) == {}
    thread.join(30)
    assert isinstance(found[0], EnvironmentMissing)
    assert str(found[0]) == "the phone could not do it: no camera"
    closed = asking(session, found, silence_s=0.1)
    closed.join(30)
    assert "page was closed" in str(found[1])


def test_each_phone_gets_a_session_and_no_more_phones_than_were_invited() -> None:
    sessions = Sessions()
    two = sessions.invite(2)
    first, second = come(sessions, two)[0], come(sessions, two)[0]
    assert first != second
    assert sessions.take(two.name, "hello", json.dumps(HELLO).encode()) is None
    assert sessions.take(two.name, "result", b"{}") is None
    assert [one.name for one in (two.next(1), two.next(1)) if one] == [first, second]
    assert two.next(0.01) is None


def test_the_place_of_a_phone_that_is_done_goes_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_ran.phone.sessions.GONE_S", -1.0)  # each page counts as gone
    sessions = Sessions()
    two = sessions.invite(2)
    (done, first), (_, second) = come(sessions, two), come(sessions, two)
    first.end()
    third = {**HELLO, "model": "third"}
    assert sessions.take(two.name, "hello", json.dumps(third).encode()) == {"session": second.name}
    assert [one.hello.model for one in (first, second) if one.hello] == [HELLO["model"], "third"]
    assert first.name == done
    second.end()
    assert sessions.take(two.name, "hello", json.dumps(third).encode()) is None


def test_a_page_that_cannot_start_is_told_and_uses_a_place() -> None:
    sessions = Sessions()
    two = sessions.invite(2)
    for _ in range(3):  # more than there are places
        assert sessions.take(two.name, "failed", json.dumps({"error": "no\x1b[2J worker"}).encode()) == {}
    for _ in range(2):
        with pytest.raises(EnvironmentMissing, match=r"^the phone's page could not start: no worker$"):
            two.next(1)
    assert two.next(0.01) is None
    assert sessions.take(two.name, "hello", json.dumps(HELLO).encode()) is None


def test_a_single_place_goes_to_the_newest_page_and_what_the_page_before_sends_is_not_taken() -> None:
    sessions, found, waited = Sessions(), list[Any](), list[Any]()
    invitation = sessions.invite()
    first, session = come(sessions, invitation)
    waiting = threading.Thread(target=lambda: waited.append(sessions.next_task(first)))
    waiting.start()
    second, same = come(sessions, invitation)
    waiting.join(30)
    assert same is session
    assert first != second
    assert waited == [None]
    assert not sessions.knows(first)
    thread = asking(session, found)
    task = sessions.next_task(second) or {}
    for what, told in (("result", {"task": task["id"], **TIMED, "seconds": 9}), ("hello", HELLO)):
        assert sessions.take(first, what, json.dumps(told).encode()) is None
    assert sessions.take(second, "result", json.dumps({"task": task["id"], **TIMED}).encode()) == {}
    thread.join(30)
    assert [one.seconds for one in found] == [1]


def test_a_window_here_shows_what_the_phone_sees_and_answers_while_it_sends_nothing(
    labelled_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, sessions, stop = list[Any](), Sessions(), threading.Event()
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT5")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", lambda title, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: ord("q") if len(shown) >= 3 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda title, what: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    name, session = come(sessions, sessions.invite())
    jpeg = base64.b64encode(cv2.imencode(".jpg", np.full((240, 320, 3), 200, np.uint8))[1].tobytes()).decode()

    def page() -> None:
        task = sessions.next_task(name) or {}
        frame = {"outputs": [[0.1, 0.8, 0.1]], "stages_ms": {}, "width": 320, "height": 240, "picture": jpeg}
        part = {"task": task["id"], "name": "1", "part": {**frame, "accelerator": ACCELERATOR}}
        sessions.take(name, "part", json.dumps(part).encode())
        stop.wait(30)
        sessions.take(name, "result", json.dumps({"task": task["id"], "frames": 1}).encode())

    with Classifier(labelled_model("float32"), RuntimeOptions(accelerator="cpu")) as classifier:
        here = Accelerator("cpu", "cpu")
        stream = PhoneStream(classifier, session, lambda told: here, pictures=True, stop=stop, duration_s=30)
        threading.Thread(target=page, daemon=True).start()
        found = list[Any]()
        run_stream(stream, here, StreamOptions(show=True), stop=stop, on_result=found.append, complain=print)
    assert [one.label for one in found] == ["green"]
    assert stop.is_set()  # by q, after the phone's last frame
    assert len(shown) == 3
    assert shown[0].shape == (240, 320, 3)
    assert shown[0].mean() > 100


def test_what_a_phone_tells_becomes_the_outputs_of_the_runtime() -> None:
    tensor = TensorSpec("scores", (1, 2), "uint8", 1 / 256, 0)
    (output,) = as_outputs(((0.5, 3.0),), (tensor,))
    assert output.dtype == np.uint8
    assert output.tolist() == [[128, 255]]
    with pytest.raises(EnvironmentMissing, match="another size"):
        as_outputs(((0.5,),), (tensor,))


def test_export_says_what_it_assumes(
    tmp_path: Path, test_models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    words = ["export", "--web", str(test_models / "float32.tflite"), "--labels", str(tmp_path / "labels.txt")]
    monkeypatch.setattr(sys, "argv", ["edge-ran", *words, "-o", str(tmp_path / "site")])
    with pytest.raises(SystemExit):  # 3 without the web runtime
        main()
    assert "float32.tflite does not say how pixels are scaled: (pixel - 128) / 128" in capsys.readouterr().err
