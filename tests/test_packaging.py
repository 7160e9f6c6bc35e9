"""What is in the wheel and in the source archive, to the file."""

from __future__ import annotations

import email.parser
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from edge_ran import __version__

ROOT = Path(__file__).resolve().parents[1]
DATA_FOLDERS = ("converters", "devices", "calibration_data")
DIST_INFO = f"edge_ran-{__version__}.dist-info"


@pytest.fixture(scope="module")
def committed() -> set[str]:
    """Every file that git knows, as paths from the root."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout, so nothing says which files belong")
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).exists()}


def _build(source: Path, kind: str, target: Path) -> Path:
    words = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as a packager does it: from the unpacked source archive."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, **({"filter": "data"} if sys.version_info >= (3, 12) else {}))
    (source,) = folder.iterdir()
    return _build(source, "wheel", tmp_path_factory.mktemp("wheel"))


def test_the_source_archive_is_the_repository(sdist: Path, committed: set[str]):
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile()}
    assert names == committed | {"PKG-INFO"}


def test_the_wheel_holds_the_package_and_its_data(wheel: Path, committed: set[str]):
    package = {name for name in committed if name.startswith("edge_ran/")}
    data = {f"edge_ran/{name}" for name in committed if name.split("/")[0] in DATA_FOLDERS}
    records = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) == package | data | {f"{DIST_INFO}/{name}" for name in records}


def test_the_data_folders_hold_what_they_should(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {n for n in names if n.startswith("edge_ran/converters/")} == {
        f"edge_ran/converters/{name}"
        for name in ("README.md", "dynamic.toml", "fp16.toml", "fp32.toml", "int16x8.toml", "int8.toml")
    }
    devices = [n for n in names if n.startswith("edge_ran/devices/")]
    assert "edge_ran/devices/README.md" in devices
    assert "edge_ran/devices/local.toml" in devices
    calibration = [n for n in names if n.startswith("edge_ran/calibration_data/")]
    assert "edge_ran/calibration_data/README.md" in calibration
    assert sum(n.endswith((".png", ".jpg", ".webp")) for n in calibration) >= 100


def test_a_network_ships(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {
        "edge_ran/shipped/edge50/card.json",
        "edge_ran/shipped/edge50/model.keras",
        "edge_ran/shipped/edge50/int8.tflite",
    } <= names


def test_the_wheel_is_for_any_python_and_light_to_install(wheel: Path):
    assert wheel.name == f"edge_ran-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.parser.Parser().parsestr(archive.read(f"{DIST_INFO}/METADATA").decode())
        scripts = archive.read(f"{DIST_INFO}/entry_points.txt").decode()
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "edge-ran = edge_ran.__main__:main" in scripts
    requirements = metadata.get_all("Requires-Dist", [])
    always = {re.split(r"[^\w.-]", r)[0] for r in requirements if "extra ==" not in r}
    assert not always & {"tensorflow", "tf-keras", "tensorflow-model-optimization", "matplotlib", "jinja2"}
    assert {"numpy", "opencv-python-headless", "pillow", "ai-edge-litert", "typer", "rich", "flatbuffers"} <= always


def test_every_constraint_is_a_name_and_a_version():
    """No address and no range: what is installed is decided by this file alone."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 50
    wrong = [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.]+( ; [\w. '<>=!*()-]+)?", line)]
    assert wrong == []


def test_the_environment_of_the_tests_is_the_pinned_one():
    """What ``make test`` runs in has no package that constraints.txt does not pin."""
    from importlib.metadata import distributions

    text = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    pinned = {re.split("==", line)[0].replace("_", "-") for line in text.splitlines()} | {"pip", "edge-ran"}
    # By folder: setuptools, once imported, puts packages that it carries inside itself on sys.path.
    installed = distributions(path=[sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    found = {re.sub(r"[-_.]+", "-", d.metadata["Name"].lower()) for d in installed if d.metadata["Name"]}
    if not (Path(sys.prefix) / ".ready").exists():
        pytest.skip(f"{sys.prefix} was not made by make")
    assert found <= pinned
