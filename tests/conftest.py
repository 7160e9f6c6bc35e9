from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from adb_device import adb_server, phone, phones  # noqa: F401 (fixtures)
from schemas import every_document_valid

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # as edge_ran.host does, for tests that import TensorFlow first

if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # programs that tests start inherit it; nohup ignores it

COLOURS = {"blue": (200, 40, 30), "green": (30, 190, 50), "red": (40, 30, 200)}  # BGR


# The files that take longest, in this order: what begins last should be short, for the other processes wait for it.
LONGEST = (
    "test_train", "test_transfer", "test_quantize", "test_convert", "test_deploy", "test_arm64", "test_docs",
    "test_importing_reference", "test_networks", "test_fake_quant", "test_targets_ssh", "test_phone_browser",
    "test_targets_browser", "test_importing", "test_parity", "test_demo", "test_latency_budget",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session", autouse=True)
def _one_tree_of_commands() -> Iterator[None]:
    """typer makes the commands of all verbs anew for each command line, which takes longer than many a verb."""
    import typer.main
    import typer.testing

    once = functools.cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", once)
        patch.setattr(typer.testing, "_get_command", once)
        yield


@pytest.fixture(autouse=True)
def advice_can_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's command advises on stderr is a command line of ours, and options that its verb has."""
    from remedies import faults, verb_of

    from edge_ran import cli

    complain = cli.complain

    def watched(what: str, remedy: str) -> None:
        assert not (wrong := faults(remedy, verb_of(sys.argv[1:]))), wrong
        complain(what, remedy)

    monkeypatch.setattr(cli, "complain", watched)


@pytest.fixture(scope="session", autouse=True)
def _every_json_is_as_its_schema_says() -> Iterator[None]:
    """A verb's JSON that is not as docs/schema says fails whatever test it was made in."""
    with every_document_valid():
        yield


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs the command line in this process and returns its stdout."""
    from edge_ran import cli

    def run(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["edge-ran", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert (end.value.code or 0) == code, err
        return out

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout: ``cifar10.zip``, ``ie_tower.zip``, ``clips/``. Optional."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent")
    return folder


@pytest.fixture(scope="session")
def cifar_pictures(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real photos: ten class folders with 20 CIFAR-10 test pictures each."""
    folder = tmp_path_factory.mktemp("cifar")
    with zipfile.ZipFile(shared_data / "cifar10.zip") as archive:
        taken: dict[str, int] = {}
        for name in sorted(archive.namelist()):
            parts = Path(name).parts
            if "test" not in parts or not name.endswith(".webp") or taken.get(parts[-2], 0) == 20:
                continue
            taken[parts[-2]] = taken.get(parts[-2], 0) + 1
            target = folder / parts[-2] / parts[-1]
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(archive.read(name))
    return folder


@pytest.fixture(scope="session")
def test_models() -> Path:
    """Small ``.tflite`` files that ``tests/models/make.py`` made."""
    return Path(__file__).parent / "models"


@pytest.fixture(scope="session")
def labelled_model(test_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function: name of a test model -> the same with a card (red, green, blue; 16x16; ``accuracy`` as given)."""
    from edge_ran.card import Accuracy, InputSpec, ModelCard
    from edge_ran.graph import attach_card

    def make(name: str = "int8", **accuracy: Any) -> Path:
        card = ModelCard("colours", ("red", "green", "blue"), InputSpec(16, 16), accuracy=Accuracy(**accuracy))
        path = tmp_path_factory.mktemp("model") / f"{name}.tflite"
        path.write_bytes(attach_card((test_models / path.name).read_bytes(), card))
        return path

    return make


@pytest.fixture(scope="session")
def mediapipe_python() -> str:
    """A Python of its own that has MediaPipe, which wants other versions of much that we use."""
    given = os.environ.get("EDGE_RAN_MEDIAPIPE_PYTHON", "")
    if not given:
        pytest.skip("python -m venv V && V/bin/pip install mediapipe; then set EDGE_RAN_MEDIAPIPE_PYTHON=V/bin/python")
    return given


@pytest.fixture(scope="session")
def make_pictures() -> Callable[..., Path]:
    """A function that fills a folder with class folders of noisy one-colour PNGs, (height, width) in pixels."""

    def make(
        folder: Path, classes: tuple[str, ...] = ("blue", "green", "red"), count: int = 8, size=(24, 32), suffix=".png"
    ) -> Path:
        random = np.random.default_rng(zlib.crc32(folder.name.encode()))
        for index, name in enumerate(classes):
            colour = COLOURS.get(name, (37 * index % 255, 91 * index % 255, 150))
            (folder / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                noise = random.integers(-25, 26, (*size, 3))
                picture = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / name / f"{number:03d}{suffix}"), picture)
        return folder

    return make


@pytest.fixture
def pictures(tmp_path: Path, make_pictures: Callable[..., Path]) -> Path:
    """A folder of three class folders, blue, green and red, with eight 24x32 PNGs each."""
    return make_pictures(tmp_path / "pictures")


@pytest.fixture(scope="session")
def device_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def pip_install() -> Callable[..., None]:
    """A function: words that run a pip, what to install, from wheels only. Skips where no package index answers."""

    def install(pip: list[object], *words: object) -> None:
        options = ("--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--no-compile")
        command = [*pip, "install", *options, *words]  # what a test imports is compiled then, a part of all
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
        if re.search(r"NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError", done.stderr):
            pytest.skip("no package index can be reached from here")
        assert done.returncode == 0, done.stderr[-3000:]

    return install
