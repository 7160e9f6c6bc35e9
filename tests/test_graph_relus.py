"""A ReLU of its own in int8 as the QUANTIZE that XNNPACK runs: the same numbers, and nothing else changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_ran import graph
from edge_ran.graph import relus
from edge_ran.runtime import open_runtime

OPERATORS = Path(__file__).parent / "models" / "operators"


def test_a_quantize_gives_what_the_relu_gives(tmp_path: Path) -> None:
    before = (OPERATORS / "relu.int8.tflite").read_bytes()
    path = tmp_path / "m.tflite"
    path.write_bytes(graph.relus_as_quantize(before))
    old, new = graph.read_graph(OPERATORS / "relu.int8.tflite"), graph.read_graph(path)
    assert [op.name for op in old.operators] == ["QUANTIZE", "RELU", "DEQUANTIZE"]
    assert [op.name for op in new.operators] == ["QUANTIZE", "QUANTIZE", "DEQUANTIZE"]
    relu = new.operators[1]
    assert (relu.inputs, relu.outputs) == (old.operators[1].inputs, old.operators[1].outputs)
    assert [op.rectifies for op in new.operators] == [False, True, False]
    assert (new.inner_quantize, new.precision) == ([], "int8")
    assert [found.operator for found in graph.xnnpack_unsupported(old)] == [old.operators[1]]
    assert graph.xnnpack_unsupported(new) == graph.gpu_warnings(new) == []

    step = relu.inputs[0].scale
    numbers = (np.arange(np.prod(new.inputs[0].shape)) % 256 - 128 - relu.inputs[0].zero_point) * step
    x = numbers.astype(np.float32).reshape(new.inputs[0].shape)
    answers = []
    for one in (OPERATORS / "relu.int8.tflite", path):
        with open_runtime(one, accelerator="cpu", threads=1) as runtime:
            answers.append(np.array(runtime.run(x)[0]))
            delegated = runtime.delegation.delegated
    assert delegated == len(new.operators)  # of the second
    assert (answers[1] >= 0).all()
    assert (answers[1][x <= 0] == 0).all()
    # XNNPACK multiplies with 256ths of the ratio of scales, and may round half a step the other way.
    assert np.abs(answers[1] - answers[0]).max() <= relu.outputs[0].scale * 1.01
    assert np.abs(answers[1] - np.maximum(x, 0)).max() <= relu.outputs[0].scale


@pytest.mark.parametrize("name", ["add.int8", "relu.fp32", "conv.int16x8"])
def test_other_files_stay_as_they_are(name: str) -> None:
    data = (OPERATORS / f"{name}.tflite").read_bytes()
    assert graph.relus_as_quantize(data) is data


@pytest.mark.parametrize(("scale", "zero_point"), [(1e-6, -128), (100.0, -128), (0.01, 0)])
def test_a_relu_of_other_scales_stays(scale: float, zero_point: int) -> None:
    made = graph.read_graph(OPERATORS / "relu.int8.tflite")
    relu = made.operators[1]
    after = graph.TensorSpec("after", (1,), "int8", scale, zero_point)
    other = graph.Operator(1, "RELU", relu.inputs, (after,))
    assert not relus.is_quantize(other)
    assert relus.is_quantize(relu)
