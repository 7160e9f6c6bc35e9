"""The grammar of layer names: places, gates and masks, as networks, files and profiles use it."""

from __future__ import annotations

import pytest

from edge_ran import layer_names
from edge_ran.layer_names import place_of_tensor


@pytest.mark.parametrize(
    ("tensor", "where"),
    [
        ("net/stage1_module2_mask_down1_unit1_conv1_relu/Relu;net/x", "stage1 module2 mask"),
        ("net/stage1_module2_residual/add", "stage1 module2 gate"),
        ("net/stage3_unit_add/add", "stage3 unit"),
        ("net/stem_conv/Conv2D1", "stem"),
        ("tfl.quantize", "stem"),
        ("image_pixels", "stem"),
        ("net/tail_unit1_conv1/Conv2D", "tail"),
        ("net/logits/MatMul", "classifier"),
        ("Identity", "classifier"),
        ("model/conv2d_17/BiasAdd", "conv2d"),
    ],
)
def test_places(tensor, where):
    assert place_of_tensor(tensor) == where


def test_a_gate_is_known_by_its_name_alone_and_in_a_tensors_name() -> None:
    name = layer_names.gate("stage2_module1")
    assert layer_names.module_of_gate(name) == "stage2_module1"
    assert layer_names.module_of_gate(f"model/{name}/mul;model/other") == "stage2_module1"
    assert layer_names.module_of_gate("model/stage2_module1_gateway/mul") == ""
    assert layer_names.module_of_gate("stage2_module1_residual") == ""
    assert layer_names.is_of_mask("model/stage2_module1_mask_sigmoid", "stage2_module1")
    assert not layer_names.is_of_mask("model/stage2_module1_trunk_unit1", "stage2_module1")


def test_the_layers_of_a_fused_tensor() -> None:
    assert {"a_conv", "a_bn"} <= layer_names.layers_of_tensor("net/a_conv/Conv2D;net/a_bn/FusedBatchNorm")
