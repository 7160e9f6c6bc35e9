"""The public Python API: its names, its documented examples, and that importing it is light."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import write_clip

import edge_ran
from edge_ran import catalogue

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
NAMES = {
    "__version__", "Classifier", "Prediction", "Overrides", "RuntimeOptions", "read_picture", "classify_folder",
    "Stream", "Result", "Summary", "measure_accuracy", "EvalReport", "convert", "benchmark", "Bench", "Plan",
    "write_record", "read_record", "EdgeRanError", "GateError", "UsageError", "InputError", "OutputExists",
    "EnvironmentMissing", "CameraError", "AcceleratorError",
}  # fmt: skip


def test_the_public_names():
    """A name that is added or taken away is a decision: it belongs on the page and in the changelog."""
    assert set(edge_ran.__all__) == NAMES
    for name in NAMES:
        assert getattr(edge_ran, name) is not None
        assert name in dir(edge_ran)
    with pytest.raises(AttributeError, match="no_such_name"):
        edge_ran.no_such_name  # noqa: B018


def test_type_checkers_see_the_same_names():
    found = {"__version__"}
    for node in ast.parse((ROOT / "edge_ran" / "__init__.pyi").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            assert [alias.asname for alias in node.names] == [alias.name for alias in node.names]
            found |= {alias.name for alias in node.names}
            assert all(edge_ran._PUBLIC[alias.name] == node.module for alias in node.names)
    assert found == NAMES
    assert (ROOT / "edge_ran" / "py.typed").exists()


def test_every_name_is_on_the_page_and_every_name_on_the_page_is_public():
    assert set(re.findall(r"edge_ran\.([A-Za-z]\w+)", PAGE)) <= NAMES
    assert {name for name in NAMES if not re.search(rf"\b{name}\b", PAGE)} <= {"__version__"}


def test_importing_it_loads_nothing_heavy():
    code = (
        "import sys, edge_ran; print(*(sys.modules.keys() & {'numpy', 'cv2', 'ai_edge_litert', 'tensorflow', 'rich'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_submodules_do_not_hide_public_names():
    """``import edge_ran.x`` sets the attribute ``x`` of the package."""
    modules = {path.stem for path in (ROOT / "edge_ran").iterdir()}
    assert not NAMES & modules


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    pictures = sorted(catalogue.folder("calibration_data").glob("*.jpg"))
    shutil.copy(ROOT / "edge_ran" / "shipped" / "edge50" / "int8.tflite", folder)
    shutil.copy(pictures[0], folder / "photo.jpg")
    for label, name in (("cat", "chelsea"), ("airplane", "rocket")):
        (folder / "photos" / label).mkdir(parents=True)
        for path in [path for path in pictures if path.stem.startswith(name)][:2]:
            shutil.copy(path, folder / "photos" / label)
    write_clip(folder / "clip.avi", 6)
    return folder


def test_the_examples_of_the_page_run(folder: Path, monkeypatch, capsys):
    pytest.importorskip("tf_keras", reason="needs edge-ran[host]")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), names)  # the examples share their names, as on the page
    assert len(blocks) >= 6
    assert names["best"].label in names["report"].labels
    assert names["summary"].classified == 5
    assert names["report"].images == 4
    assert names["path"] == Path("fp16.tflite")
    assert "photo.jpg" in capsys.readouterr().out.splitlines()[-1]


def test_records_that_are_none_are_refused(tmp_path: Path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("{}")
    for name in ("a.json", "b.json", "none.json"):
        with pytest.raises(edge_ran.InputError, match=name):
            edge_ran.read_record(edge_ran.EvalReport, tmp_path / name)


def test_the_record_of_a_benchmark_has_the_form_that_json_prints_and_is_read_back(test_models: Path, tmp_path: Path):
    plan = edge_ran.Plan(num_runs=2, warmup_runs=1, min_secs=0)
    for count in (1, 2):
        bench = edge_ran.benchmark(*[test_models / "int8.tflite", test_models / "float32.tflite"][:count], plan=plan)
        edge_ran.write_record(bench, tmp_path / "b.json")
        assert json.loads((tmp_path / "b.json").read_text("utf-8")) == json.loads(json.dumps(bench.document()))
        assert edge_ran.read_record(edge_ran.Bench, tmp_path / "b.json").document() == bench.document()


def test_a_result_says_how_it_becomes_a_record(folder: Path, tmp_path: Path):
    with (
        edge_ran.Classifier(folder / "int8.tflite") as classifier,
        edge_ran.Stream(classifier, str(folder / "clip.avi"), realtime=False, max_frames=1) as stream,
    ):
        (result,) = stream
        with pytest.raises(edge_ran.InputError) as caught:
            edge_ran.write_record(result, tmp_path / "r.json")
        edge_ran.write_record(result.record(stream.accelerator), tmp_path / "r.json")  # as the remedy says
    assert "write_record(result.record(stream.accelerator), " in caught.value.remedy
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["label"] == result.label


def test_without_tensorflow_convert_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("edge_ran.host.") or name == "edge_ran.host"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(edge_ran.EnvironmentMissing, match="convert needs tensorflow") as caught:
        edge_ran.convert(output="x.tflite")
    assert "edge-ran[host]" in caught.value.remedy


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4)])
def test_a_frame_that_is_grey_or_has_transparency_is_refused_with_a_remedy(folder: Path, shape: tuple[int, ...]):
    with (
        edge_ran.Classifier(folder / "int8.tflite") as classifier,
        pytest.raises(edge_ran.InputError, match="a frame is") as caught,
    ):
        classifier.classify(np.zeros(shape, np.uint8))
    assert "read_picture" in caught.value.remedy
