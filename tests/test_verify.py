import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
from models import colours, handmade

from edge_ran import records
from edge_ran.cli.render import verify as render
from edge_ran.errors import AcceleratorError, EnvironmentMissing, GateError, InputError
from edge_ran.graph import read_graph
from edge_ran.graph.subgraph import borders, computing, cut
from edge_ran.runtime import Accelerator, RuntimeOptions, interpreter, open_runtime
from edge_ran.verify import Check, Verification, find_wrong_operators, gate, verify

TESTS = Path(__file__).parent
MODELS = TESTS / "models"
SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures with another colour in each quarter: a kernel that looks at the wrong place gives itself away."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for turn in range(6):
        quarters = [colours.frame(colours.LABELS[(turn * k + k * k) % 3], 8, 8) for k in range(4)]
        rows = [np.concatenate(quarters[:2], 1), np.concatenate(quarters[2:], 1)]
        cv2.imwrite(str(folder / f"{turn}.png"), np.concatenate(rows))
    return folder


@pytest.fixture
def wrong_delegate(tmp_path: Path) -> Path:
    """Takes a softmax at the end, and always answers the same."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path / "libwrong.so"
    source = TESTS / "delegates" / "delegate.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-DKIND=0", "-o", library, source, "-lm"], check=True)
    return library


@pytest.mark.parametrize("model", ["float32", "int8", "int8_float_io", "uint8"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_two_slices_in_a_row_are_the_whole(model, share, tmp_path):
    path = MODELS / f"{model}.tflite"
    graph, data = read_graph(path), path.read_bytes()
    operators = computing(graph)
    place = int(len(operators) * share)
    files = []
    for name, part in (("head", operators[:place]), ("tail", operators[place:])):
        file = tmp_path / f"{name}.tflite"
        file.write_bytes(cut(data, graph, part))
        sliced = read_graph(file)
        reads, gives = borders(graph, part)
        assert [t.name for t in sliced.inputs] == [t.name for t in reads]
        assert [t.name for t in sliced.outputs] == [t.name for t in gives]
        assert [op.name for op in sliced.operators] == [op.name for op in part]
        assert [op.options for op in sliced.operators] == [op.options for op in part]
        files.append(file)
    x = np.random.default_rng(0).integers(0, 100, graph.inputs[0].shape).astype(graph.inputs[0].dtype)
    with open_runtime(path) as whole, open_runtime(files[0]) as head, open_runtime(files[1]) as tail:
        between = dict(zip([t.name for t in borders(graph, operators[:place])[1]], head.run(x), strict=True))
        between[graph.inputs[0].name] = x
        out = tail.run(*(between[t.name] for t in borders(graph, operators[place:])[0]))
        assert np.allclose(out[0], whole.run(x)[0], atol=1e-6)


def test_an_operator_alone_runs(tmp_path):
    path = MODELS / "int8_strided.tflite"
    graph = read_graph(path)
    for operator in computing(graph):
        file = tmp_path / "one.tflite"
        file.write_bytes(cut(path.read_bytes(), graph, [operator]))
        with open_runtime(file) as runtime:
            zeros = [np.zeros(t.shape, t.dtype) for t in read_graph(file).inputs]
            assert runtime.run(*zeros)[0].shape == operator.outputs[0].shape


def answers(part, package, fed):
    with interpreter.InterpreterRuntime(part, package, 1, Accelerator("cpu", "cpu")) as runtime:
        return [runtime.run(*x) for x in fed]


def test_an_accelerator_that_is_the_cpu_has_no_wrong_operator():
    graph = read_graph(MODELS / "int8.tflite")
    package = interpreter.package()
    x = [np.full(graph.inputs[0].shape, value, np.int8) for value in (-50, 50)]
    judged = []
    found = find_wrong_operators(
        graph,
        lambda part, fed: answers(part, package, fed),
        x,
        progress=lambda done, total: judged.append((done, total)),
    )
    assert found == ()
    assert judged[-1] == (len(graph.operators),) * 2


def test_rounding_that_adds_up_is_no_wrong_operator(monkeypatch):
    """The whole is off, and every part of at most half of it is right."""
    monkeypatch.setattr(sys.modules["edge_ran.verify"], "MOST_TOGETHER", 3)
    graph = read_graph(MODELS / "int8.tflite")
    package, whole = interpreter.package(), len(graph.operators)

    def rounded(part, fed):
        off = np.int8(50 if len(part.operators) > whole // 2 + 1 else 0)
        return [[output ^ off for output in outputs] for outputs in answers(part, package, fed)]

    x = [np.full(graph.inputs[0].shape, value, np.int8) for value in (-50, 50)]
    (found,) = find_wrong_operators(graph, rounded, x)
    assert "adds up" in found.what
    assert "--fp16" in found.remedy
    check = Check("gpu", "fp32", "", "", True, None, None, None, wrong_operators=(found,), is_broken=True)
    with pytest.raises(GateError) as caught:
        gate(Verification("m.tflite", "litert", "", (check,)))
    assert "--fp16" in caught.value.remedy
    assert "report" not in caught.value.remedy


def test_operators_that_share_a_variable_are_judged_together(tmp_path):
    path = tmp_path / "stateful.tflite"
    path.write_bytes(handmade.stateful())

    def refuses(part, fed):
        raise AcceleratorError("no variables")

    (found,) = find_wrong_operators(read_graph(path), refuses, [np.ones((1, 4), np.float32)])
    assert found.name == "READ_VARIABLE"
    assert found.what == "refused: no variables, together with 0 VAR_HANDLE, 1 ASSIGN_VARIABLE before it"


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_an_operator_that_answers_no_number_is_found_and_can_be_recorded(number):
    graph, package = read_graph(MODELS / "float32.tflite"), interpreter.package()
    last = computing(graph)[-1]

    def broken(part, fed):
        factor = np.float32(number if last.name in part.operator_counts else 1)
        return [[output * factor for output in outputs] for outputs in answers(part, package, fed)]

    x = [np.full(graph.inputs[0].shape, value, np.float32) for value in (-0.5, 0.5)]
    (found,) = find_wrong_operators(graph, broken, x)
    assert found.index == last.index
    records.to_dict(found)


def test_no_space_for_a_part_of_the_graph_is_one_line(monkeypatch):
    def full(*words):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvironmentMissing, match="no space left"):
        find_wrong_operators(read_graph(MODELS / "float32.tflite"), answers, [np.zeros((1, 16, 16, 3), np.float32)])


def test_a_wrong_delegate_is_found_out_and_its_operator_named(wrong_delegate, pictures):
    found = verify(MODELS / "float32.tflite", RuntimeOptions(delegate=wrong_delegate), pictures)
    (check,) = found.checks
    assert not check.is_right
    assert check.adapter == "libwrong.so"
    assert [one.name for one in check.wrong_operators] == ["SOFTMAX"]
    assert "libwrong.so" in render.verification(found)
    with pytest.raises(GateError, match="wrong on delegate") as caught:
        gate(found)
    assert "the delegate's vendor" in caught.value.remedy
    record = json.loads(json.dumps(records.document(found), allow_nan=False))
    assert record["checks"][0]["is_right"] is False
    assert record["checks"][0]["wrong_operators"]
    assert records.read_document(Verification, record, "it") == found
    jsonschema.validate(record, records.schema(Verification))


def test_what_cannot_be_verified(tmp_path):
    with pytest.raises(InputError, match="not an image classifier"):
        verify(MODELS / "two_inputs.tflite", RuntimeOptions(), tmp_path)
    with pytest.raises(InputError, match="no pictures"):
        verify(MODELS / "float32.tflite", RuntimeOptions(), tmp_path)


def edge_ran(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_ran", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_without_a_gpu_there_is_nothing_wrong(pictures, tmp_path):
    nowhere = str(tmp_path / "none.json")
    done = edge_ran("verify", MODELS / "float32.tflite", "--images", pictures, "--json", VK_DRIVER_FILES=nowhere)
    assert done.returncode == 0
    (check,) = json.loads(done.stdout)["checks"]
    assert check["agreement"] is None
    assert check["reason"] == "there is no Vulkan driver (vkCreateInstance returned -9)"


def test_a_software_gpu_wrong_on_a_strided_int8_shortcut(pictures):
    if not SWIFTSHADER.is_file():
        pytest.skip(f"no software GPU: {SWIFTSHADER} is absent (apt install chromium chromium-common libvulkan1)")
    driver = {"VK_DRIVER_FILES": str(SWIFTSHADER)}
    done = edge_ran("verify", MODELS / "int8_strided.tflite", "--images", pictures, "--json", **driver)
    assert done.returncode == 1
    assert "is wrong on gpu fp32" in done.stderr  # SwiftShader has no half precision
    for check in json.loads(done.stdout)["checks"]:
        assert check["is_software"]
        assert not check["is_right"]
        (wrong,) = check["wrong_operators"]
        assert wrong["name"] == "CONV_2D"
        assert "stride 2x2" in wrong["shapes"]
        assert "shortcut" in wrong["output"]
        assert wrong["remedy"]
    done = edge_ran("verify", MODELS / "int8.tflite", "--images", pictures, **driver)
    assert done.returncode == 0
    assert done.stdout.count(": right: ") == 1
    done = edge_ran("verify", MODELS / "self_product.tflite", "--images", pictures, "--json", **driver)
    assert done.returncode == 1
    assert "breaks gpu" in done.stderr
    (check,) = json.loads(done.stdout)["checks"]
    assert check["is_broken"]
    (wrong,) = check["wrong_operators"]
    assert wrong["name"] == "BATCH_MATMUL"
    assert "Check failed" in wrong["what"]
    assert wrong["remedy"]
