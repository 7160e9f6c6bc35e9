"""A browser as a device: what a real Chromium measures and answers becomes the record that every device gives."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium

from edge_ran.bench import Plan, read_bench
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import EnvironmentMissing, GateError, UsageError
from edge_ran.phone import assets
from edge_ran.runs import SHIPPED, SHIPPED_TFLITE
from edge_ran.runtime import RuntimeOptions
from edge_ran.targets import Order
from edge_ran.targets.address import browser_place as place
from edge_ran.targets.browser import BrowserTarget, browser_name

MODEL = Path(str(SHIPPED / "edge50" / SHIPPED_TFLITE))
SPEC = DeviceSpec("browser", "a browser", "auto", "int8", target="browser")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    try:
        assets.find()
    except EnvironmentMissing as error:
        pytest.skip(f"{error}: python scripts/web_runtime.py")
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def asked(visit: Callable[[str], None], order: Order) -> dict[str, Any]:
    """Ask the target, and open the address that it says as a person would."""
    addresses: list[str] = []
    found: list[Any] = []
    told = threading.Event()

    def say(line: str) -> None:
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

    try:
        record = asked(visit, Order("verify", (MODEL,), {}, RuntimeOptions()))
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


@pytest.mark.browser
def test_a_strict_gpu_that_the_page_refuses_is_a_gate(browser: Any, test_models: Path, tmp_path: Path) -> None:
    from edge_ran.card import InputSpec, ModelCard
    from edge_ran.graph import attach_card

    card = ModelCard("strided", ("one", "two", "three"), InputSpec(16, 16))
    model = tmp_path / "strided.tflite"
    model.write_bytes(attach_card((test_models / "int8_strided_float_io.tflite").read_bytes(), card))
    options = RuntimeOptions(accelerator="gpu", fallback=False)
    with pytest.raises(GateError, match="the GPU was asked for, but"):
        asked(browser.get, Order("benchmark", (model,), {}, options, Plan(num_runs=6, max_secs=5.0)))


@pytest.mark.parametrize(
    ("order", "what"),
    [
        (Order("benchmark", (MODEL, MODEL)), "one model at a time"),
        (Order("benchmark", (MODEL,), {}, RuntimeOptions(threads=2)), "--threads"),
        (Order("benchmark", (MODEL,), {"images": "folder"}), "--images"),
        (Order("profile", (MODEL,)), "cannot profile"),
    ],
)
def test_what_a_browser_cannot_do_is_one_line(order: Order, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        BrowserTarget(SPEC).answer(order)


def test_places_and_names() -> None:
    assert place("phone") == ("0.0.0.0", 8443)
    assert place("phone:9000") == ("0.0.0.0", 9000)
    assert place("browser") == ("127.0.0.1", 0)
    with pytest.raises(UsageError):
        place("phone:99999")
    agent = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/130.0.0.0 Mobile Safari/537.36"
    assert browser_name(agent) == "Chrome 130"
    assert (
        browser_name("Mozilla/5.0 (iPhone) AppleWebKit/605 (KHTML, like Gecko) Version/18.1 Safari/604") == "Safari 18"
    )
    assert browser_name("curl") == "curl"
