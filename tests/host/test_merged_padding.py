"""LiteRT's GPU merges zero padding into max-pooling: seen in the graph, found on the GPU, and rewritten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

import tf_keras
from tf_keras import layers

from edge_ran import catalogue, graph
from edge_ran.card import InputSpec
from edge_ran.host import rewrites
from edge_ran.host.convert import flatbuffer
from edge_ran.runtime import RuntimeOptions
from edge_ran.verify import verify

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")


def network() -> tf_keras.Model:
    """Max-pooling of padded numbers that are mostly below 0, so that the zeros around them are the largest."""
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", bias_initializer=tf_keras.initializers.Constant(-1.0))(image)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    x = layers.Dense(4)(layers.Flatten()(layers.Conv2D(4, 3)(x)))
    return tf_keras.Model(image, layers.Activation("softmax")(x))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, model, found = tmp_path_factory.mktemp("files"), network(), {}
    for name, one in (("as drawn", model), ("rewritten", rewrites.rewrite(model).model)):
        found[name] = folder / f"{name}.tflite"
        found[name].write_bytes(flatbuffer(one, catalogue.converter("fp32"), InputSpec(16, 16)))
    return found


def test_the_graph_tells_it(files: dict[str, Path]) -> None:
    (found,) = graph.gpu_warnings(graph.read_graph(files["as drawn"]))
    assert found.wrong
    assert found.operator is not None
    assert found.operator.name == "MAX_POOL_2D"
    assert graph.gpu_warnings(graph.read_graph(files["rewritten"])) == []
    image = layers.Input((8, 8, 3))
    rectified = tf_keras.Model(image, layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(layers.ReLU()(image))))
    data = flatbuffer(rectified, catalogue.converter("fp32"), InputSpec(8, 8))
    assert graph.gpu_warnings(graph.parse_graph(data)) == []


@pytest.mark.parametrize("is_known", [True, False])
def test_a_gpu_that_merges_them_is_found_wrong(
    files: dict[str, Path], is_known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SWIFTSHADER.exists():
        pytest.skip("no software GPU: apt install chromium")
    monkeypatch.setenv("VK_DRIVER_FILES", str(SWIFTSHADER))
    if not is_known:
        monkeypatch.setattr("edge_ran.verify.gpu_warnings", lambda graph: [])
    wrong, right = (verify(path, RuntimeOptions()).checks[0] for path in files.values())
    if wrong.agreement is None:
        pytest.skip(wrong.reason)
    assert right.is_right
    assert not wrong.is_right
    (operator,) = wrong.wrong_operators
    assert operator.name == "MAX_POOL_2D"
    assert "together with 1 PAD" in operator.what
    assert bool(operator.remedy) == is_known


def test_float_files_are_held_to_less_than_integer_ones() -> None:
    from edge_ran.runtime import agreement

    right = [[np.linspace(0, 1, 10, dtype=np.float32)] for _ in range(4)]
    other = [[outputs[0] + np.float32(0.02) * np.sin(np.arange(10, dtype=np.float32))] for outputs in right]
    tensor = graph.TensorSpec("scores", (1, 10), "float32")
    for model, arithmetic, is_right in (("fp32", "fp32", False), ("int8", "fp32", True), ("dynamic", "fp16", True)):
        found = agreement.compare_all(right, other, [tensor], agreement.allowed(model, arithmetic))
        assert found.is_right is is_right, (model, found)
