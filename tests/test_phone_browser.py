"""The phone's page in a real browser: the same pixels, checked answers, faults said, and no network needed."""

from __future__ import annotations

import base64
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import change, chromium, static_server, wait_for, wait_until, write_y4m

from edge_ran import catalogue
from edge_ran.attention import Look
from edge_ran.card import InputSpec, Overrides
from edge_ran.classifier import Classifier, with_masks
from edge_ran.errors import EnvironmentMissing
from edge_ran.phone import assets
from edge_ran.phone.site import PAGES, SiteOptions, export_site, write_service_worker
from edge_ran.picture import read_picture
from edge_ran.preprocess import fit_pixels
from edge_ran.runs import SHIPPED, SHIPPED_TFLITE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def web_runtime() -> Path:
    try:
        return assets.find()
    except EnvironmentMissing as error:
        pytest.skip(f"{error}: python scripts/web_runtime.py")


@pytest.fixture(scope="module")
def site(web_runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "site"
    return export_site([Path(str(SHIPPED / "edge50" / SHIPPED_TFLITE))], folder, SiteOptions(smoothing=0.0)).folder


@pytest.fixture(scope="module")
def small_site(web_runtime: Path, labelled_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network whose GPU programs are quickly compiled."""
    folder = tmp_path_factory.mktemp("site") / "site"
    return export_site([labelled_model("float32")], folder, SiteOptions(smoothing=0.0)).folder


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that sees a cat, 320x240."""
    folder = catalogue.folder("calibration_data")
    picture = cv2.resize(read_picture(Path(str(folder / "chelsea-00.jpg"))), (320, 240), interpolation=cv2.INTER_AREA)
    path = tmp_path_factory.mktemp("camera") / "cat.y4m"
    write_y4m(path, np.asarray(picture, np.uint8))
    return path


@pytest.fixture(scope="module")
def browser(camera: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile"), camera) as driver:
        yield driver


def test_pixels_are_those_of_the_preprocessor_byte_for_byte(browser: Any, site: Path) -> None:
    random = np.random.default_rng(0)
    picture = read_picture(Path(str(catalogue.folder("calibration_data") / "coffee-00.jpg")))
    sizes = ((640, 480), (333, 251), (97, 64), (32, 32), (20, 31), (192, 192), (288, 96), (50, 200), (100, 40))
    specs = (
        InputSpec(32, 32),
        InputSpec(96, 96),
        InputSpec(64, 96, color="bgr", fit="crop"),
        InputSpec(56, 56, fit="crop"),
    )
    asked, wanted = [], []
    for number, size in enumerate(sizes):
        frame = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC).astype(int)
        frame = np.clip(frame + random.integers(-20, 21, frame.shape), 0, 255).astype(np.uint8)
        spec = specs[number % len(specs)]
        rgba = base64.b64encode(cv2.cvtColor(frame, cv2.COLOR_BGR2RGBA).tobytes()).decode()
        shape = {"height": spec.height, "width": spec.width, "color": spec.color, "fit": spec.fit}
        asked.append({"rgba": rgba, "width": size[0], "height": size[1], "spec": shape})
        wanted.append(fit_pixels(frame, spec).tobytes())
    with static_server(site) as url:
        browser.get(f"{url}manifest.webmanifest")
        found = browser.execute_async_script(
            """
            const [asked, url, done] = arguments;
            import(url).then(({ fitPixels }) => done(asked.map(({ rgba, width, height, spec }) => {
              const bytes = Uint8Array.from(atob(rgba), (c) => c.charCodeAt(0));
              return btoa(String.fromCharCode(...fitPixels(bytes, width, height, spec)));
            })));
            """,
            asked,
            f"{url}pixels.js",
        )
    for words, right, text in zip(asked, wanted, found, strict=True):
        assert base64.b64decode(text) == right, (words["width"], words["height"], words["spec"])


def test_the_camera_is_classified_as_in_python_and_offline_too(browser: Any, site: Path, camera: Path) -> None:
    capture = cv2.VideoCapture(str(camera))
    _, frame = capture.read()
    with Classifier(Path(str(SHIPPED / "edge50" / SHIPPED_TFLITE))) as classifier:
        right = classifier.classify(np.asarray(frame, np.uint8))[0]
    with static_server(site) as url:
        browser.get(f"{url}?accelerator=cpu")
        wait_for(browser, "frames")
        assert wait_for(browser, "label")["label"] == right.label
        # Found and read in one step, for every frame draws the list anew.
        first = "return document.querySelector('#scores li:first-child b').textContent"
        shown = browser.execute_script(first).strip()
        assert abs(float(shown.removesuffix(" %")) - 100 * right.score) < 8  # its decoder's colours differ by 3 of 255
        assert browser.find_element("id", "accelerator").text.startswith("CPU, WebAssembly")
        ready = "navigator.serviceWorker.ready.then(() => arguments[0](true))"
        assert browser.execute_async_script(ready)
        browser.get(f"{url}?accelerator=cpu&session=none")  # which must not run what was kept of another site
        wait_until(browser, 'document.getElementById("message").textContent.includes("the session has ended")')
        assert browser.execute_script("return navigator.serviceWorker.controller") is None
        browser.get(f"{url}?accelerator=cpu")
        assert browser.execute_async_script(ready)
    browser.get(f"{url}?accelerator=cpu")  # the server is gone
    assert wait_for(browser, "label")["label"] == right.label


def write_small_site(folder: Path, words: str) -> None:
    """What the service worker needs of a site."""
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(f"<!doctype html><title>{words}</title>", "utf-8")
    shutil.copyfile(PAGES / "sw.js", folder / "sw.js")
    write_service_worker(folder)


# Visit a site until its newest service worker controls the page.
VISIT = """
const [done] = arguments;
(async () => {
  const one = await navigator.serviceWorker.register("sw.js", { scope: "./" });
  await one.update();
  const fresh = one.installing ?? one.waiting;
  while (fresh ? fresh.state !== "activated" : !one.active) await new Promise((resolve) => setTimeout(resolve, 20));
  while (!navigator.serviceWorker.controller) await new Promise((resolve) => setTimeout(resolve, 20));
  done(await caches.keys());
})().catch((error) => done(error.message));
"""


def test_what_is_kept_is_the_newest_version_and_of_this_site_alone(browser: Any, tmp_path: Path) -> None:
    write_small_site(tmp_path / "one", "old")
    write_small_site(tmp_path / "two", "another")
    with static_server(tmp_path) as url:
        browser.get(f"{url}one/")
        assert len(browser.execute_async_script(VISIT)) == 1
        browser.get(f"{url}two/")
        assert len(browser.execute_async_script(VISIT)) == 2
        write_small_site(tmp_path / "one", "new")
        browser.get(f"{url}one/")
        assert browser.title == "old"
        assert len(browser.execute_async_script(VISIT)) == 2
        browser.get(f"{url}one/")
        assert browser.title == "new"
    browser.get(f"{url}two/")  # the server is gone
    assert browser.title == "another"


def test_an_address_with_a_token_reaches_the_server_and_without_a_network_what_was_kept(
    browser: Any, tmp_path: Path
) -> None:
    write_small_site(tmp_path / "site", "old")
    with static_server(tmp_path / "site") as url:
        browser.get(url)
        browser.execute_async_script(VISIT)
        (tmp_path / "site" / "index.html").write_text("<!doctype html><title>of another model</title>", "utf-8")
        browser.get(f"{url}?token=fresh")
        assert browser.title == "of another model"
    browser.get(f"{url}?token=later")  # the server is gone
    assert browser.title == "old"


def test_a_gpu_serves_when_it_is_asked_for_and_right(browser: Any, site: Path) -> None:
    with static_server(site) as url:
        browser.get(f"{url}?accelerator=gpu")
        assert wait_for(browser, "frames")["ready"] == "gpu"
        assert browser.find_element("id", "accelerator").text.endswith("(software)")


# A worker whose GPU does as HOW says.
BROKEN = """
let gpu = false, runs = 0;
const load = verbs.load, right = infer;
verbs.load = (asked) => { gpu = asked.accelerator === "webgpu"; return load(asked); };
infer = async (fitted) => { runs++; if (gpu) { HOW } return right(fitted); };
async function noise(fitted) {
  const found = await right(fitted);
  return { ...found, outputs: found.outputs.map((values) => values.map(() => Math.random())) };
}
"""


def with_broken_gpu(site: Path, folder: Path, how: str) -> Path:
    shutil.copytree(site, folder)
    with open(folder / "worker.js", "a", encoding="utf-8") as file:
        file.write(BROKEN.replace("HOW", how))
    return folder


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("return noise(fitted);", "its answers are wrong"),
        ("if (runs > 1) return noise(fitted);", "its answers are wrong"),
        ("if (runs > 8) return noise(fitted);", "its first answer is right, a later one wrong"),
        ("await new Promise(() => {});", "no answer within 9 s"),
    ],
    ids=["wrong", "right once", "wrong at the end", "hangs"],
)
def test_a_gpu_that_is_wrong_or_stuck_is_not_used_and_the_reason_is_shown(
    browser: Any, small_site: Path, tmp_path: Path, how: str, reason: str
) -> None:
    folder = with_broken_gpu(small_site, tmp_path / "site", how)
    if "no answer" in reason:
        change(folder / "engine.js", "LOAD_MS = 60_000", "LOAD_MS = 9_000")
    with static_server(folder) as url:
        browser.get(f"{url}?accelerator=gpu")
        assert wait_for(browser, "frames")["ready"] == "cpu"
        assert reason in browser.find_element("id", "reason").text


@pytest.mark.parametrize(
    ("how", "reason"),
    [("return noise(fitted);", "became wrong"), ("await new Promise(() => {});", "no answer within 1 s")],
    ids=["wrong", "hangs"],
)
def test_a_gpu_that_becomes_wrong_or_stuck_while_it_runs_is_left(
    browser: Any, small_site: Path, tmp_path: Path, how: str, reason: str
) -> None:
    folder = with_broken_gpu(small_site, tmp_path / "site", f"if (runs > 30) {how}")
    change(folder / "engine.js", "CHECK_EVERY_MS = 20_000", "CHECK_EVERY_MS = 300")
    change(folder / "engine.js", "RUN_MS = 8_000", "RUN_MS = 1_000")
    with static_server(folder) as url:
        browser.get(f"{url}?accelerator=gpu")
        assert wait_for(browser, "frames")["ready"] == "gpu"
        wait_until(browser, 'document.getElementById("accelerator").textContent.startsWith("CPU")')
        assert reason in browser.find_element("id", "reason").text
        before = int(wait_for(browser, "frames")["frames"])
        wait_until(browser, f"Number(document.body.dataset.frames) > {before}")  # the CPU goes on


def test_a_cpu_that_hangs_is_said_and_opened_again(browser: Any, small_site: Path, tmp_path: Path) -> None:
    shutil.copytree(small_site, tmp_path / "site")
    with open(tmp_path / "site" / "worker.js", "a", encoding="utf-8") as file:
        file.write(
            "const right = infer; let runs = 0;\n"
            "infer = (fitted) => (++runs > 40 ? new Promise(() => {}) : right(fitted));\n"
        )
    change(tmp_path / "site" / "engine.js", "RUN_MS = 8_000", "RUN_MS = 1_000")
    message = 'document.getElementById("message").textContent'
    with static_server(tmp_path / "site") as url:
        browser.get(f"{url}?accelerator=cpu")
        wait_until(browser, f"{message} === 'no answer within 1 s'")
        before = int(wait_for(browser, "frames")["frames"])
        wait_until(browser, f"Number(document.body.dataset.frames) > {before} && {message} === ''")


SLOW = """
const [base, done] = arguments;
(async () => {
  const { Engine } = await import(`${base}engine.js`);
  const config = await (await fetch(`${base}config.json`)).json();
  const engine = new Engine(base, config, { accelerator: "cpu" });
  await engine.start();
  engine.cpu.median_ms = 1000;
  const { outputs } = await engine.frame(await createImageBitmap(new ImageData(4, 4)));
  done(outputs.length);
})().catch((error) => done(error.message));
"""


def test_a_cpu_that_is_slow_with_every_picture_is_not_taken_for_stuck(
    browser: Any, small_site: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_site, tmp_path / "site")
    with open(tmp_path / "site" / "worker.js", "a", encoding="utf-8") as file:
        file.write(
            "const { frame } = verbs;\n"
            "verbs.frame = (asked) => new Promise((resolve) => setTimeout(resolve, 300)).then(() => frame(asked));\n"
        )
    change(tmp_path / "site" / "engine.js", "RUN_MS = 8_000", "RUN_MS = 100")
    with static_server(tmp_path / "site") as url:
        browser.get(f"{url}manifest.webmanifest")
        assert browser.execute_async_script(SLOW, url) == 1


def test_another_camera_clears_the_old_message_and_tells_of_its_torch(browser: Any, small_site: Path) -> None:
    with static_server(small_site) as url:
        browser.get(f"{url}?accelerator=cpu")
        wait_for(browser, "frames")
        browser.execute_script(
            """
            document.getElementById("message").textContent = "The camera is in use";
            MediaStreamTrack.prototype.getCapabilities = () => ({ torch: true });
            """
        )
        browser.find_element("id", "turn").click()
        wait_until(browser, 'document.getElementById("message").textContent === ""')
        assert browser.find_element("id", "torch").is_displayed()


def test_the_same_picture_can_be_chosen_again(browser: Any, small_site: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((40, 40, 3), np.uint8))
    with static_server(small_site) as url:
        browser.get(f"{url}?accelerator=cpu")
        wait_for(browser, "frames")
        for _ in range(2):
            browser.find_element("id", "file").send_keys(str(tmp_path / "black.png"))
            wait_until(browser, '!document.getElementById("still").hidden')
            browser.find_element("id", "pause").click()
            wait_until(browser, 'document.getElementById("still").hidden')


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_the_answer_beside_a_picture_is_of_the_picture(
    browser: Any, small_site: Path, labelled_model: Any, tmp_path: Path, accelerator: str
) -> None:
    """A frame of the camera may still be on its way, and a GPU may be lost by the picture."""
    folder = with_broken_gpu(small_site, tmp_path / "site", "if (fitted.every((v) => !v)) await new Promise(() => {});")
    change(folder / "engine.js", "RUN_MS = 8_000", "RUN_MS = 1_000")
    slow = "await new Promise((resolve) => setTimeout(resolve, 700)); return createImageBitmap(video"
    change(folder / "camera.js", "return createImageBitmap(video", slow)
    black = np.zeros((40, 40, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "black.png"), black)
    with Classifier(labelled_model("float32")) as classifier:
        right = [f"{one.label}{100 * one.score:.0f} %" for one in classifier.classify(black)]
    shown = "[...document.querySelectorAll('#scores li')].map((one) => one.textContent)"
    with static_server(folder) as url:
        browser.get(f"{url}?accelerator={accelerator}")
        assert wait_for(browser, "frames")["ready"] == accelerator
        assert browser.execute_script(f"return {shown}") != right
        browser.find_element("id", "file").send_keys(str(tmp_path / "black.png"))
        wait_until(browser, f"String({shown}) === {','.join(right)!r}")
        assert browser.find_element("id", "accelerator").text.startswith("CPU")
        time.sleep(1)  # nothing comes later
        assert browser.execute_script(f"return {shown}") == right


FIT = """
const [base, pictures, done] = arguments;
(async () => {
  const { Engine } = await import(`${base}engine.js`);
  const config = await (await fetch(`${base}config.json`)).json();
  const engine = new Engine(base, config, { accelerator: "cpu" });
  await engine.start();
  const found = [];
  for (const data of pictures) {
    const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${data}`)).blob());
    found.push(Array.from((await engine.cpu.worker.ask("fit", { bitmap }, 8000, [bitmap])).fitted));
  }
  done(found);
})().catch((error) => done(error.message));
"""


def test_what_is_transparent_is_white_as_in_python(browser: Any, small_site: Path, tmp_path: Path) -> None:
    pictures, wanted = [], []
    for alpha in (255, 0):
        picture = np.random.default_rng(alpha).integers(0, 256, (20, 30, 4)).astype(np.uint8)
        picture[..., 3] = 255
        picture[5:, 5:, 3] = alpha
        cv2.imwrite(str(tmp_path / "picture.png"), picture)
        pictures.append(base64.b64encode((tmp_path / "picture.png").read_bytes()).decode())
        wanted.append(fit_pixels(read_picture(tmp_path / "picture.png"), InputSpec(16, 16)).ravel().tolist())
    with static_server(small_site) as url:
        browser.get(f"{url}manifest.webmanifest")
        assert browser.execute_async_script(FIT, url, pictures) == wanted


def test_a_file_that_gpus_get_wrong_is_served_by_the_cpu(
    browser: Any, web_runtime: Path, test_models: Path, tmp_path: Path
) -> None:
    options = SiteOptions(overrides=Overrides(labels=("one", "two", "three")))
    model = test_models / "int8_strided_float_io.tflite"
    folder = export_site([model], tmp_path / "site", options).folder
    with static_server(folder) as url:
        browser.get(f"{url}?accelerator=gpu")
        assert wait_for(browser, "frames")["ready"] == "cpu"
        assert "GPU not used: " in browser.find_element("id", "reason").text


def test_without_permission_for_the_camera_the_page_says_what_to_do(site: Path, tmp_path: Path) -> None:
    with static_server(site) as url, chromium(tmp_path / "profile", None, False) as other:
        other.get(f"{url}?accelerator=cpu")
        wait_for(other, "camera")
        assert "allow it in the browser's settings" in other.find_element("id", "message").text


def test_a_browser_that_changes_pixels_is_noticed(browser: Any, site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    change(
        folder / "worker.js",
        "return pixels.fitPixels(data,",
        "data.forEach((v, i) => { data[i] = v ^ 8; }); return pixels.fitPixels(data,",
    )
    with static_server(folder) as url:
        browser.get(f"{url}?accelerator=cpu")
        wait_for(browser, "frames")
        assert "changes the pixels" in browser.find_element("id", "reason").text


ENGINE = """
const [base, done] = arguments;
(async () => {
  const { Engine } = await import(`${base}engine.js`);
  const config = await (await fetch(`${base}config.json`)).json();
  const engine = new Engine(base, config, { accelerator: "gpu" });
  await engine.start();
  const outputs = await engine.answers(engine.cpu, engine.check.pixels);
  done({ ...engine.accelerator, outputs: outputs.map((one) => one.map((values) => Array.from(values))) });
})().catch((error) => done({ error: error.message }));
"""


@pytest.mark.parametrize(
    ("name", "largest"),
    [("float32", 2e-6), ("float16", 2e-6), ("int8_float_io", 0.0), ("uint8", 0.0), ("logits", 2e-5)],
)
def test_each_kind_of_file_answers_as_in_python_on_cpu_and_gpu(
    browser: Any, web_runtime: Path, labelled_model: Any, camera: Path, tmp_path: Path, name: str, largest: float
) -> None:
    model = labelled_model(name)
    folder = export_site([model], tmp_path / "site", SiteOptions(smoothing=0.0)).folder
    with static_server(folder) as url:
        browser.get(f"{url}manifest.webmanifest")
        found = browser.execute_async_script(ENGINE, url)
        assert found.get("error") is None
        config = json.loads((folder / "config.json").read_text("utf-8"))
        right = np.fromfile(folder / config["files"][0]["answers"], "<f4").reshape(config["check"]["pictures"], -1)
        off = np.abs(np.concatenate([np.concatenate(one) for one in found["outputs"]]) - right.reshape(-1)).max()
        assert off <= largest, name
        assert found["actual"] == "gpu", found["reason"]
        assert found["checks"]["gpu"]["is_right"]
        browser.get(f"{url}?accelerator=cpu")
        assert wait_for(browser, "label")["label"] == seen_in_python(model, camera)[0]


def seen_in_python(model: Path, camera: Path, attention: bool = False) -> tuple[str, tuple[Look, ...]]:
    """The label of the camera's first frame, and the masks."""
    whole, frame = cv2.VideoCapture(str(camera)).read()
    assert whole
    with Classifier(model, attention=attention) as classifier:
        found = classifier.classify(np.asarray(frame, np.uint8))[0]
        looks = classifier.looks(np.asarray(frame, np.uint8))
    return found.label, looks


def test_soft_attention_is_drawn_where_python_sees_it(
    browser: Any, web_runtime: Path, labelled_model: Any, camera: Path, tmp_path: Path
) -> None:
    model = with_masks(labelled_model("attention"), tmp_path / "masks.tflite")
    folder = export_site([model], tmp_path / "site", SiteOptions(smoothing=0.0)).folder
    label, (fine, coarse) = seen_in_python(model, camera, attention=True)
    mean = fine.values + np.kron(coarse.values, np.ones((2, 2), np.float32))  # (16, 16) cells
    with static_server(folder) as url:
        browser.get(f"{url}?accelerator=cpu")
        assert wait_for(browser, "frames")["label"] == label
        assert browser.find_element("id", "masks").is_displayed()
        cells = browser.execute_script(
            """
            const canvas = document.getElementById("mask");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return { width: canvas.width, height: canvas.height, data: Array.from(data) };
            """
        )
        assert (cells["width"], cells["height"]) == (320, 240)
        drawn = np.array(cells["data"], np.uint8).reshape(240, 320, 4)
        middles = drawn[7::15, 10::20].astype(float)  # of the 16x16 cells
        yellow = middles[..., 0] + middles[..., 1]  # grows from violet to yellow
        ranks = [np.argsort(np.argsort(values.ravel())) for values in (yellow, mean)]
        assert np.corrcoef(ranks[0], ranks[1])[0, 1] > 0.95
        browser.find_element("id", "masks").click()
        wait_until(
            browser,
            'document.getElementById("mask").getContext("2d").getImageData(0, 0, 320, 240).data.every((v) => v === 0)',
        )


# A page that runs its camera for a computer which gives the parts these ANSWERS; null = the network is gone.
SESSION = """
const [url, answers, isBroken, done] = arguments;
(async () => {
  const tasks = [{ kind: "run", id: 7, pictures: false }, { kind: "end", id: 0 }];
  const told = { parts: [], said: [], result: null, is_open: false };
  window.fetch = async (address, { body } = {}) => {
    const what = address.split("/").pop();
    if (what === "hello") return Response.json({ session: "s" });
    if (what === "task") return Response.json(tasks.shift());
    const record = JSON.parse(body);
    if (what === "result") told.result = record;
    if (what === "part") told.parts.push(record.name);
    const answer = what === "part" ? answers.shift() : {};
    if (!answer) throw new TypeError("Failed to fetch");
    return Response.json(answer);
  };
  const engine = { accelerator: { checks: {} }, serving: { load_ms: 1 }, frame: async (bitmap) => {
    if (isBroken) throw new Error("the worker stopped");
    return { outputs: [[1]], stages_ms: {} };
  } };
  const camera = { track: { readyState: "live" }, picture: async () => ({ width: 2, height: 2 }) };
  Object.assign(camera, { open: async () => { told.is_open = true; }, close: () => { told.is_open = false; } });
  const { serveSession } = await import(`${url}session.js`);
  await serveSession({ engine, camera }, "an invitation", (text) => told.said.push(text), () => {});
  done(told);
})().catch((error) => done(error.message));
"""


def test_a_network_that_is_gone_for_a_moment_ends_no_task(browser: Any, site: Path) -> None:
    with static_server(site) as url:
        browser.get(f"{url}manifest.webmanifest")
        answers = [None, {"go_on": True}, {"go_on": False}]
        told = browser.execute_async_script(SESSION, url, answers, False)
        assert told["result"] == {"task": 7, "frames": 2}
        first, again, second = told["parts"]
        assert first == again != second
        assert "The computer cannot be reached (Failed to fetch). Trying again." in told["said"]
        broken = browser.execute_async_script(SESSION, url, [], True)
        assert broken["result"] == {"task": 7, "error": "the worker stopped"}
        assert (told["is_open"], broken["is_open"]) == (False, False)


# A page that measures for a computer; every batch takes as long as a sign of life may wait.
BENCHMARK = """
const [url, done] = arguments;
(async () => {
  const tasks = [
    { kind: "benchmark", id: 7, sessions: 3, runs: 20, least_ms: 0, most_ms: 60000, warmup_runs: 1 },
    { kind: "end", id: 0 },
  ];
  const told = { loads: 0, parts: 0, result: null };
  let now = 0;
  performance.now = () => (now += 6000);
  window.fetch = async (address, { body } = {}) => {
    const what = address.split("/").pop();
    if (what === "hello") return Response.json({ session: "s" });
    if (what === "task") return Response.json(tasks.shift());
    if (what === "part") told.parts++;
    else told.result = JSON.parse(body);
    return Response.json({ go_on: false });
  };
  const worker = { ask: async (verb, { runs }) => ({ samples_ms: Array(Math.min(runs, 10)).fill(told.loads) }) };
  const engine = { accelerator: { checks: {} }, check: { pixels: [] }, serving: { worker, load_ms: 0 } };
  engine.loadAgain = async () => { engine.serving = { worker, load_ms: ++told.loads }; };
  const { serveSession } = await import(`${url}session.js`);
  await serveSession({ engine }, "an invitation", () => {}, () => {});
  done(told);
})().catch((error) => done(error.message));
"""


def test_each_session_of_a_measurement_begins_cold_and_the_page_gives_signs_of_life(browser: Any, site: Path) -> None:
    with static_server(site) as url:
        browser.get(f"{url}manifest.webmanifest")
        told = browser.execute_async_script(BENCHMARK, url)
    assert told["result"]["load_ms"] == told["result"]["first_ms"] == [1, 2, 3]
    assert told["parts"] >= 3


def test_in_a_session_nothing_on_the_page_disturbs_the_computers_work(browser: Any, site: Path) -> None:
    with static_server(site) as url:
        browser.get(f"{url}?accelerator=cpu&session=none")
        wait_until(browser, 'document.getElementById("message").textContent.includes("the session has ended")')
        shown = [one for one in ("pause", "turn", "torch", "gallery") if browser.find_element("id", one).is_displayed()]
        assert shown == []


def test_a_browser_without_relaxed_simd_gets_the_other_build(browser: Any, site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    change(folder / "engine.js", "WebAssembly.validate(RELAXED_SIMD)", "false")
    (folder / "litert" / "litert_wasm_internal.wasm").unlink()  # such a browser could not compile it
    with static_server(folder) as url:
        browser.get(f"{url}?accelerator=cpu")
        assert wait_for(browser, "frames")["ready"] == "cpu"
        assert browser.find_element("id", "accelerator").text == "CPU, WebAssembly (compat)"


def test_a_lost_camera_is_said_and_opened_again(browser: Any, site: Path) -> None:
    with static_server(site) as url:
        browser.get(f"{url}?accelerator=cpu")
        wait_for(browser, "frames")
        browser.execute_script(
            """
            const [track] = document.getElementById("video").srcObject.getVideoTracks();
            track.stop();
            track.dispatchEvent(new Event("ended"));  // as the browser does for a camera that is unplugged
            """
        )
        assert "The camera was lost" in browser.find_element("id", "message").text
        before = int(wait_for(browser, "frames")["frames"])
        for _ in range(2):
            browser.find_element("id", "pause").click()
        wait_until(browser, f"Number(document.body.dataset.frames) > {before + 2}")
        assert browser.find_element("id", "message").text == ""


def test_the_config_is_what_the_page_reads(site: Path) -> None:
    config = json.loads((site / "config.json").read_text("utf-8"))
    assert config["schema_version"] == 1
    assert all(
        (site / name).is_file()
        for name in (config["check"]["pixels"], config["files"][0]["path"], config["files"][0]["answers"])
    )
