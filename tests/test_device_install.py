"""The device install: the wheel in fresh environments that hold no TensorFlow, one for each runtime.

Goldens are Keras's own answers. LiteRT and tflite-runtime round int8 differently, so each has its own tolerance.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
GOLDEN = json.loads((TESTS / "models" / "golden.json").read_text())
CLASSIFY = """
import importlib.util, json, sys
sys.path.insert(0, sys.argv[1])
import colours
assert not [m for m in ("tensorflow", "tf_keras") if importlib.util.find_spec(m)]
import cv2, numpy
from edge_ran.card import Overrides
from edge_ran.classifier import Classifier
found = {"numpy": numpy.__version__}
for model in ("float32", "int8", "uint8"):
    with Classifier(f"{sys.argv[1]}/{model}.tflite", overrides=Overrides(labels=colours.LABELS)) as classifier:
        found["runtime"], found["version"] = classifier.runtime.name, classifier.runtime.version
        found[model] = {label: classifier.scores(colours.frame(label)).tolist() for label in colours.LABELS}
print(json.dumps(found))
"""


def device_environment(folder: Path, wheel: Path, runtime: str, pip_install, base: str = sys.executable) -> Path:
    """Make an environment with the wheel and what it requires there; return its Python."""
    _run(base, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    wanted: list[str] = [f"{wheel}"]
    if runtime == "tflite-runtime":
        # As on a 32-bit board: there LiteRT's requirement does not apply, and the extra brings the runtime.
        with zipfile.ZipFile(wheel) as packed:
            name = next(name for name in packed.namelist() if name.endswith(".dist-info/METADATA"))
            lines = re.findall(r"^Requires-Dist: (.*)$", packed.read(name).decode(), re.MULTILINE)
        plain = [line for line in lines if "extra ==" not in line and not line.startswith("ai-edge-litert")]
        extra = [line.partition(";")[0] for line in lines if re.search("extra == .tflite-runtime.", line)]
        assert extra
        pip_install(pip, *plain, *extra)
        wanted = ["--no-deps", f"{wheel}"]
    pip_install(pip, *wanted)
    return python


@pytest.mark.parametrize(("runtime", "float_tolerance", "int8_tolerance"), [
    ("litert", 1e-5, 0.03),
    ("tflite-runtime", 1e-5, 0.06),
])  # fmt: skip
def test_classifies_without_tensorflow(runtime, float_tolerance, int8_tolerance, device_wheel, pip_install, tmp_path):
    if runtime == "tflite-runtime" and sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime 2.14 has wheels for Python 3.8 to 3.11")
    python = device_environment(tmp_path / "venv", device_wheel, runtime, pip_install)
    found = json.loads(_run(python, "-I", "-c", CLASSIFY, TESTS / "models", cwd=tmp_path))
    assert found["runtime"] == runtime
    assert (int(found["numpy"].partition(".")[0]) < 2) == (runtime == "tflite-runtime")
    for label, golden in GOLDEN.items():
        assert found["float32"][label] == pytest.approx(golden, abs=float_tolerance)
        assert found["int8"][label] == pytest.approx(golden, abs=int8_tolerance)
        assert found["uint8"][label] == pytest.approx(golden, abs=int8_tolerance)
    assert "edge-ran" in _run(python.with_name("edge-ran"), "--version", cwd=tmp_path)


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_classifies_on_every_python_here(version, device_wheel, pip_install, tmp_path):
    base = f"python{version}"
    asked = [base, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
    if version == ".".join(map(str, sys.version_info[:2])):
        pytest.skip("the tests above run on it")
    if not shutil.which(base) or subprocess.run(asked, capture_output=True, text=True).stdout.strip() != version:
        pytest.skip(f"no {base} here, or none that starts")
    python = device_environment(tmp_path / "venv", device_wheel, "litert", pip_install, base)
    found = json.loads(_run(python, "-I", "-c", CLASSIFY, TESTS / "models", cwd=tmp_path))
    for label, golden in GOLDEN.items():
        assert found["int8"][label] == pytest.approx(golden, abs=0.03)
    doctor = json.loads(_run(python.with_name("edge-ran"), "doctor", "--json", cwd=tmp_path))
    assert doctor["healthy"]
    assert doctor["findings"][0]["what"].startswith(f"{version}.")


def _run(*command: object, cwd: Path | None = None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout
