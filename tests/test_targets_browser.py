"""A browser as a device: what a real Chromium measures and answers becomes the record that every device gives."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from adb_device import Device
from browser import change, chromium, wait_for, write_y4m
from test_phone_server import HELLO, TIMED

from edge_ran import catalogue, records
from edge_ran.bench import Bench, Plan, read_bench, read_sustained
from edge_ran.card import InputSpec, ModelCard
from edge_ran.catalogue import DeviceSpec
from edge_ran.classifier import Classifier
from edge_ran.cli import main
from edge_ran.errors import EnvironmentMissing, GateError, InputError, UsageError
from edge_ran.graph import attach_card
from edge_ran.phone import assets, serve
from edge_ran.phone.messages import Hello, TimedRuns
from edge_ran.phone.sessions import Session
from edge_ran.phone.site import Site, SiteOptions, export_site
from edge_ran.picture import read_picture
from edge_ran.runs import SHIPPED, SHIPPED_TFLITE
from edge_ran.runtime import RuntimeOptions
from edge_ran.targets import Order, browser_records
from edge_ran.targets import browser as target
from edge_ran.targets import phone as phone_page
from edge_ran.targets.adb import Done
from edge_ran.targets.address import browser_place as place
from edge_ran.targets.browser import BrowserTarget
from edge_ran.targets.browser_records import browser_name
from edge_ran.verify import Verification, gate

MODEL = Path(str(SHIPPED / "edge50" / SHIPPED_TFLITE))
SPEC = DeviceSpec("browser", "a browser", "auto", "int8", target="browser")


@pytest.fixture(scope="module")
def browser(cat: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    try:
        assets.find()
    except EnvironmentMissing as error:
        pytest.skip(f"{error}: python scripts/web_runtime.py")
    # The phone's owner accepts the certificate once; this flag does it here.
    with chromium(tmp_path_factory.mktemp("profile"), cat, True, "--ignore-certificate-errors") as driver:
        yield driver


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that sees a cat, 320x240."""
    picture = read_picture(Path(str(catalogue.folder("calibration_data") / "chelsea-00.jpg")))
    path = tmp_path_factory.mktemp("camera") / "cat.y4m"
    write_y4m(path, np.asarray(cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA), np.uint8))
    return path


def asked(visit: Callable[[str], None], order: Order, said: list[str] | None = None) -> dict[str, Any]:
    """Ask the target, and open the address that it says as a person would; ``said`` gets its lines."""
    addresses: list[str] = []
    found: list[Any] = []
    told = threading.Event()

    def say(line: str) -> None:
        (said if said is not None else []).append(line)
        if line.startswith("open "):
            addresses.append(line.removeprefix("open "))
            told.set()

    def work() -> None:
        try:
            with BrowserTarget(SPEC, say) as target:
                found.append(target.answer(order))
        except Exception as error:
            found.append(error)

    working = threading.Thread(target=work)
    working.start()
    assert told.wait(60)
    visit(addresses[0])
    working.join(240)
    if isinstance(found[0], Exception):
        raise found[0]
    record: dict[str, Any] = found[0]
    return record


@pytest.mark.browser
def test_a_browser_gives_the_report_that_every_device_gives(browser: Any) -> None:
    plan = Plan(num_runs=60, warmup_runs=2, min_secs=0.1, max_secs=20.0)
    order = Order("benchmark", (MODEL,), {}, RuntimeOptions(accelerator="cpu"), plan)
    (report,) = read_bench(asked(browser.get, order)).reports
    assert report.accelerator.actual == "cpu"
    assert report.accelerator.adapter == "WebAssembly (default)"
    assert report.timing.sessions == 6
    assert report.latency.runs == len(report.samples_ms) >= 60
    assert report.timing.includes_output_read
    assert report.environment.os.startswith(("Chrome", "HeadlessChrome"))
    assert report.model.sha256


@pytest.mark.browser
def test_verify_compares_the_browsers_answers_with_this_machines(browser: Any) -> None:
    record = asked(browser.get, Order("verify", (MODEL,), {}, RuntimeOptions(accelerator="gpu")))
    cpu, gpu = record["checks"]
    assert (cpu["accelerator"], gpu["accelerator"]) == ("cpu", "gpu")
    assert cpu["agreement"]["top1"] == 1.0
    assert gpu["is_software"]


@contextlib.contextmanager
def command(folder: Path, *words: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start edge-ran as typed; yields it and the address that it tells people to open."""
    line = [sys.executable, "-m", "edge_ran", *map(str, words)]
    with open(folder / "stderr", "w", encoding="utf-8") as errors:
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder)
    try:
        until = time.monotonic() + 60
        while not (found := re.search(r"^open (\S+)$", (folder / "stderr").read_text("utf-8"), re.MULTILINE)):
            assert process.poll() is None, (folder / "stderr").read_text("utf-8")
            assert time.monotonic() < until
            time.sleep(0.1)
        yield process, found[1]
    finally:
        process.kill()
        process.wait()


@pytest.mark.browser
def test_run_tells_and_keeps_here_what_the_phones_camera_sees(browser: Any, cat: Path, tmp_path: Path) -> None:
    told = [sys.executable, "-c", "import sys; open('changes', 'a').write(sys.argv[1] + ' ')", "{label}"]
    words = ["--json", "--cpu", "--max-frames", "6", "--record", "kept", "--summary", "summary.json"]
    with command(tmp_path, "run", MODEL, "--device", "phone:0", *words, "--on-change", shlex.join(told)) as (
        process,
        url,
    ):
        assert url.startswith("https://")
        assert "token=" in url
        browser.get(url)
        lines, _ = process.communicate(timeout=90)
        errors = (tmp_path / "stderr").read_text("utf-8")
        assert process.returncode == 0, errors
    assert "█" in errors  # the QR code
    records = [json.loads(line) for line in lines.splitlines()]
    _, frame = cv2.VideoCapture(str(cat)).read()
    with Classifier(MODEL) as classifier:
        right = classifier.classify(np.asarray(frame, np.uint8))[0]
        kept = sorted((tmp_path / "kept" / right.label).rglob("*.jpg"))
        again = [classifier.classify(read_picture(path))[0].label for path in kept]
    assert [record["label"] for record in records] == [right.label] * 6
    assert [record["index"] for record in records] == list(range(6))
    assert abs(records[0]["score"] - right.score) < 0.08  # its decoder's colours differ by 3 of 255
    assert records[0]["accelerator"]["adapter"] == "WebAssembly (default)"
    assert records[0]["stages_ms"]["inference"] > 0
    assert set(again) == {right.label}
    assert len(again) >= 3  # what cannot be drawn in time is left out
    assert (tmp_path / "changes").read_text("utf-8") == f"{right.label} "
    summary = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    assert (summary["classified"], summary["ended_by"]) == (6, "frames")
    assert summary["captured"] == summary["classified"] + sum(summary["dropped"].values())


@pytest.mark.browser
def test_run_ends_by_its_time_and_says_what_the_phone_could_not_do(browser: Any, tmp_path: Path) -> None:
    watching = """
    const devices = navigator.mediaDevices, open = devices.getUserMedia.bind(devices);
    devices.getUserMedia = (wanted) => {
      document.body.dataset.facing = wanted.video.facingMode.ideal;
      return open(wanted);
    };
    """
    made = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": watching})
    words = ["--camera", "front", "--duration", "1s"]
    try:
        with command(tmp_path, "run", MODEL, "--device", "browser", "--cpu", *words) as (process, url):
            browser.get(url)
            lines, _ = process.communicate(timeout=90)
            assert process.returncode == 0
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)
    assert "WebAssembly" in lines
    assert wait_for(browser, "facing")["facing"] == "user"
    # This browser allows every camera; the one of tests/test_phone_browser.py that allows none is another.
    refusing = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); }"
    made = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refusing})
    try:
        with command(tmp_path, "run", MODEL, "--device", "browser", "--cpu") as (process, url):
            browser.get(url)
            process.communicate(timeout=90)
            assert process.returncode == 3
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)
    said = (tmp_path / "stderr").read_text("utf-8")
    assert "the phone could not do it: The camera was not allowed" in said


@pytest.mark.browser
def test_a_phone_on_usb_opens_the_page_itself(browser: Any, phone: Device, tmp_path: Path) -> None:
    phone.tool("am", "exit 0")
    device = f"phone:adb:{phone.serial}"
    with command(tmp_path, "run", MODEL, "--device", device, "--cpu", "--max-frames", "2") as (process, url):
        port = urlsplit(url).port
        assert url.startswith(f"http://localhost:{port}/?session=")
        assert phone.reversed == [f"tcp:{port};tcp:{port}"]
        (opened,) = (words for words in map(shlex.split, phone.shells) if words[:2] == ["am", "start"])
        assert opened[2:] == ["-a", "android.intent.action.VIEW", "-d", url]
        browser.get(url)
        lines, _ = process.communicate(timeout=90)
        assert process.returncode == 0, (tmp_path / "stderr").read_text("utf-8")
    assert len(lines.splitlines()) == 2
    assert phone.reversed == []
    assert "█" not in (tmp_path / "stderr").read_text("utf-8")


@pytest.mark.parametrize("hangs", ["reverse", "shell", "--remove"])
def test_an_adb_that_hangs_takes_no_result_away(hangs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging:
        def choose(self, serial: str) -> str:
            return serial

        def run(self, words: list[str], timeout_s: float) -> Done:
            if hangs in words:
                raise TimeoutError
            return Done(0, ())

    monkeypatch.setattr(phone_page, "Adb", Hanging)
    served: Any = SimpleNamespace(server=SimpleNamespace(port=8080))
    refused = pytest.raises(EnvironmentMissing, match="X does not answer adb reverse")
    with refused if hangs == "reverse" else contextlib.nullcontext(), phone_page.reached(served, "adb:X") as where:
        assert where.url == "http://localhost:8080/"


def test_a_phone_on_usb_is_no_several_phones() -> None:
    spec = DeviceSpec("phone:adb", "a phone", "auto", "int8", target="phone:adb")
    with BrowserTarget(spec) as target, pytest.raises(UsageError, match="phone:adb is one phone"):
        target.answer(Order("benchmark", (MODEL,), {"phones": 2}))


@pytest.mark.browser
def test_two_phones_at_once_make_one_table(browser: Any, tmp_path: Path) -> None:
    words = ["--phones", "2", "--cpu", "--num-runs", "60", "--min-secs", "0.1", "--result-json", "both.json"]
    with (
        chromium(tmp_path / "profile") as other,
        command(tmp_path, "benchmark", MODEL, "--device", "browser", *words) as (process, url),
    ):
        browser.get(url)
        other.get(url)
        table, _ = process.communicate(timeout=180)
        assert process.returncode == 0, (tmp_path / "stderr").read_text("utf-8")
    found = read_bench(json.loads((tmp_path / "both.json").read_text("utf-8")))
    first, second = found.reports
    assert first.device != second.device
    assert second.device.endswith("(2)")
    assert found.ratios[0].baseline == first.device
    assert first.samples_ms != second.samples_ms
    assert all(line in table for line in (first.device, second.device, "median ms"))


@pytest.mark.browser
def test_a_sustained_run_comes_back_in_windows(browser: Any) -> None:
    order = Order("sustain", (MODEL,), {}, RuntimeOptions(accelerator="cpu"), seconds=2.0)
    found = read_sustained(asked(browser.get, order))
    assert len(found.windows) == 4
    assert found.seconds == pytest.approx(2.0, abs=1.0)
    assert all(window.runs > 1 for window in found.windows)
    assert found.accelerator.adapter == "WebAssembly (default)"
    assert found.runtime.name == "LiteRT.js"
    battery = found.windows[0].conditions
    assert battery.battery_after is None or 0 <= battery.battery_after <= 1


@pytest.mark.browser
def test_a_page_that_is_loaded_again_in_the_middle_measures_again(browser: Any) -> None:
    def visit(url: str) -> None:
        browser.get(url)
        wait_for(browser, "measured")
        before = wait_for(browser, "session")["session"]
        browser.refresh()
        assert wait_for(browser, "session")["session"] == before

    plan = Plan(num_runs=600, warmup_runs=2, min_secs=3.0, max_secs=20.0)
    record = asked(visit, Order("benchmark", (MODEL,), {}, RuntimeOptions(accelerator="cpu"), plan))
    (report,) = read_bench(record).reports
    assert report.timing.sessions == 6
    assert report.latency.runs == len(report.samples_ms) >= 600


OTHER_BROWSERS = {
    "firefox": (("firefox-esr", "firefox"), ("--headless", "--no-remote", "--profile", "HOME")),
    "webkit": (("/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser",), ()),  # without relaxed SIMD: the compat build
}


@pytest.mark.browser
@pytest.mark.parametrize("name", OTHER_BROWSERS)
def test_other_browsers_answer_bit_for_bit_on_their_cpu(browser: Any, name: str, tmp_path: Path) -> None:
    programs, words = OTHER_BROWSERS[name]
    program = next(filter(None, map(shutil.which, programs)), None)
    screen = [] if name == "firefox" else ["xvfb-run", "-a"]
    if program is None or (screen and not shutil.which(screen[0])):
        pytest.skip(f"needs {name}: apt install firefox-esr webkit2gtk-driver xvfb")
    home = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "LIBGL_ALWAYS_SOFTWARE": "1"}
    environment = {**os.environ, **home, "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1"}  # root has no sandbox
    started: list[subprocess.Popen[bytes]] = []

    def visit(url: str) -> None:
        command = [*screen, program, *(str(tmp_path) if word == "HOME" else word for word in words), url]
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True))

    said: list[str] = []
    try:
        record = asked(visit, Order("verify", (MODEL,), {}, RuntimeOptions()), said)
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    cpu, gpu = record["checks"]
    assert cpu["agreement"]["top1"] == 1.0
    assert cpu["agreement"]["largest_difference"] == 0
    assert cpu["adapter"] == ("WebAssembly (default)" if name == "firefox" else "WebAssembly (compat)")
    assert "WebGPU" in gpu["reason"]
    assert not any("changes the pixels" in line for line in said)  # a known picture gave the same input


@pytest.fixture
def strided(test_models: Path, tmp_path: Path) -> Path:
    """A file that GPUs get wrong."""
    card = ModelCard("strided", ("one", "two", "three"), InputSpec(16, 16))
    model = tmp_path / "strided.tflite"
    model.write_bytes(attach_card((test_models / "int8_strided_float_io.tflite").read_bytes(), card))
    return model


@pytest.mark.browser
def test_a_strict_gpu_that_the_page_refuses_is_a_gate(browser: Any, strided: Path) -> None:
    options = RuntimeOptions(accelerator="gpu", fallback=False)
    with pytest.raises(GateError, match="the GPU was asked for, but"):
        asked(browser.get, Order("benchmark", (strided,), {}, options, Plan(num_runs=6, max_secs=5.0)))


@pytest.mark.browser
def test_a_gpu_that_the_page_finds_wrong_does_not_pass_verify(browser: Any, strided: Path) -> None:
    found = records.read_document(Verification, asked(browser.get, Order("verify", (strided,))), "verification")
    cpu, gpu = found.checks
    assert cpu.is_right
    assert "its answers are wrong" in gpu.reason
    assert gpu.is_broken
    with pytest.raises(GateError, match="breaks gpu"):
        gate(found)


# A worker whose GPU serves until its times are known, and then hangs.
HANGING = """
let gpu = false, timed = false;
const load = verbs.load, time = verbs.time, right = infer;
verbs.load = (asked) => { gpu = asked.accelerator === "webgpu"; return load(asked); };
verbs.time = async (asked) => { const found = await time(asked); timed = gpu; return found; };
infer = (fitted) => (timed ? new Promise(() => {}) : right(fitted));
"""


@pytest.mark.browser
def test_a_gpu_that_hangs_after_the_pages_own_check_does_not_pass_verify(
    browser: Any, labelled_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(*words: Any, **more: Any) -> Site:
        site = export_site(*words, **more)
        with open(site.folder / "worker.js", "a", encoding="utf-8") as file:
            file.write(HANGING)
        change(site.folder / "engine.js", "RUN_MS = 8_000", "RUN_MS = 1_000")
        return site

    monkeypatch.setattr(serve, "export_site", export)
    order = Order("verify", (labelled_model("float32"),), {}, RuntimeOptions(accelerator="gpu"))
    found = records.read_document(Verification, asked(browser.get, order), "verification")
    cpu, gpu = found.checks
    assert cpu.is_right
    assert (gpu.is_broken, gpu.reason) == (True, "the GPU is no longer used: no answer within 1 s")
    with pytest.raises(GateError, match="breaks gpu"):
        gate(found)


@pytest.mark.browser
def test_a_page_that_cannot_start_is_told_at_once(browser: Any) -> None:
    made = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": "delete self.Worker"})
    try:
        with pytest.raises(EnvironmentMissing, match="page could not start: Worker is not defined"):
            asked(browser.get, Order("benchmark", (MODEL,)))
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", made)


def test_a_phone_that_fails_costs_the_others_no_figures() -> None:
    hello = records.read(Hello, HELLO, "phone")
    report = browser_records.report(MODEL, RuntimeOptions(), Plan(), hello, records.read(TimedRuns, TIMED, "phone"))
    jobs = []
    for model, error in (("one", None), ("two", GateError("no GPU", "leave it out")), ("one", InputError("no record"))):
        session, job = Session(model), Future[Bench]()
        session.hello = dataclasses.replace(hello, model=model)
        job.set_exception(error) if error else job.set_result(Bench((report,)))
        jobs.append((session, job))
    found = target._table(jobs, [])
    assert [one.device for one in found.reports] == ["one"]
    two, again = found.failed
    assert (two.device, two.reason, two.is_gate) == ("two", "no GPU", True)
    assert (again.device, again.reason, again.is_gate) == ("one (3)", "no record", False)
    with pytest.raises(GateError, match="no GPU"):  # none is left
        target._table(jobs[1:], [])


def test_a_row_has_the_name_of_the_phone_that_had_the_place_last() -> None:
    hello = records.read(Hello, HELLO, "phone")
    report = browser_records.report(MODEL, RuntimeOptions(), Plan(), hello, records.read(TimedRuns, TIMED, "phone"))
    session, job = Session("a name"), Future[Bench]()
    session.hello = dataclasses.replace(hello, model="the first")

    def measure() -> None:
        session.hand_on(dataclasses.replace(hello, model="the second"))
        job.set_result(Bench((report,)))

    threading.Timer(0.2, measure).start()
    assert [one.device for one in target._table([(session, job)], []).reports] == ["the second"]


def test_a_phones_report_is_advised_what_a_phone_can_do() -> None:
    hello, timed = records.read(Hello, HELLO, "phone"), records.read(TimedRuns, TIMED, "phone")
    wide = dataclasses.replace(timed, sessions_ms=tuple((float(n), float(n + 9)) * 20 for n in range(1, 7)))
    report = browser_records.report(MODEL, RuntimeOptions(), Plan(), hello, wide)
    (doubt,) = (one for one in report.validity.reasons if "the median is known to" in one)
    assert doubt.endswith("only: more --num-runs")


def test_the_phones_screen_answers_by_the_numbers_of_run(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[SiteOptions] = []

    def serving(models: Any, place: Any, options: SiteOptions) -> None:
        given.append(options)
        raise EnvironmentMissing("enough")

    monkeypatch.setattr(target, "serving", serving)
    words = ["run", str(MODEL), "--device", "browser", "--smoothing", "0.5", "--threshold", "0.3"]
    monkeypatch.setattr(sys, "argv", ["edge-ran", *words])
    with pytest.raises(SystemExit):
        main()
    assert [(one.smoothing, one.threshold) for one in given] == [(0.5, 0.3)]


@pytest.mark.parametrize(
    ("order", "what"),
    [
        (Order("benchmark", (MODEL, MODEL)), "one model at a time"),
        (Order("benchmark", (MODEL,), {}, RuntimeOptions(threads=2)), "--threads"),
        (Order("benchmark", (MODEL,), {"images": "folder"}), "--images"),
        (Order("benchmark", (MODEL,), {}, RuntimeOptions(), Plan(until=0.02)), "--until is not possible"),
        (Order("benchmark", (MODEL,), {"phones": 17}), "--phones 17"),
        (Order("sustain", (MODEL,)), "a time above 0"),
        (Order("profile", (MODEL,), {}, RuntimeOptions(threads=1)), "profile is not possible in a browser"),
    ],
)
def test_what_a_browser_cannot_do_is_one_line(order: Order, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        BrowserTarget(SPEC).answer(order)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("run", "--device", "phone", "--camera", "0"), "--camera 0 is no camera of a phone"),
        (("run", "--device", "phone", "--no-realtime"), "--no-realtime is not possible on a phone"),
        (("run", "--device", "phone", "--install"), "--install is for boards"),
        (("benchmark", "--phones", "2"), "--phones is for phones that scan one code"),
        (("benchmark", "--device", "phone", "--phones", "2", "--baseline", "x.json"), "--baseline is for one model"),
    ],
)
def test_options_that_a_phone_has_not_are_refused_in_one_line(words: tuple[str, ...], what: str) -> None:
    done = subprocess.run([sys.executable, "-m", "edge_ran", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert what in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 2


def test_places_and_names() -> None:
    assert place("phone") == ("0.0.0.0", 8443)
    assert place("phone:9000") == ("0.0.0.0", 9000)
    assert place("browser") == place("phone:adb") == place("phone:adb:R5CT") == ("127.0.0.1", 0)
    for wrong in ("phone:99999", "phone:adb:-s", "browser:adb"):
        with pytest.raises(UsageError):
            place(wrong)
    agent = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/130.0.0.0 Mobile Safari/537.36"
    assert browser_name(agent) == "Chrome 130"
    assert (
        browser_name("Mozilla/5.0 (iPhone) AppleWebKit/605 (KHTML, like Gecko) Version/18.1 Safari/604") == "Safari 18"
    )
    assert browser_name("curl") == "curl"
