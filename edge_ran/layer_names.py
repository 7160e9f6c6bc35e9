"""The grammar of layer names: each says where in the paper a layer stands, and the whole package asks here.

``stem_conv``, ``stage1_unit_conv1``, ``stage1_module2_trunk_unit1_conv2``, ``stage1_module2_mask_…`` (the soft mask's
branch), ``stage1_module2_gate`` (the product M * T), ``stage1_module2_residual`` ((1 + M) * T), ``tail_unit1_…``,
``pool``, ``logits``, ``probabilities``. A converter names a tensor after the layers that it fused, as paths divided by
``;``: ``model/stage1_module1_gate/mul;…``.
"""

from __future__ import annotations

import re

_STEM, _CLASSIFIER = ("stem", "image"), ("pool", "logits", "probabilities")
_STAGE = re.compile(r"stage\d+")
_GATE = re.compile(r"(?:^|/)(stage\d+_module\d+)_gate(?:/|;|$)")


def gate(module: str) -> str:
    """Return the name of the layer that multiplies a module's soft mask with its trunk."""
    return f"{module}_gate"


def is_gate(layer: str) -> bool:
    """Whether a layer multiplies a soft mask with a trunk; in networks of other scripts it may be in no module."""
    return layer.endswith("_gate")


def is_mask_sigmoid(layer: str) -> bool:
    """Whether a layer is the sigmoid that ends a soft mask."""
    return layer.endswith("_mask_sigmoid")


def module_of_gate(name: str) -> str:
    """Return the module whose gate a layer or tensor is, ``stage1_module1``; empty where it is none."""
    found = _GATE.search(name)
    return found[1] if found else ""


def is_of_mask(name: str, module: str) -> bool:
    """Whether a layer or tensor is in the soft mask branch of the module."""
    return f"{module}_mask_" in name


def layers_of_tensor(tensor: str) -> set[str]:
    """Return every word of a tensor's name that may be a layer's name."""
    return {part for path in tensor.split(";") for part in path.split("/")}


def place(layer: str) -> str:
    """Return where in the paper a layer stands: ``stem``, ``stage1 module2 trunk``, ``tail``, ``classifier``.

    Layers of other networks are put together by their names less the number.
    """
    words = layer.split("_")
    if words[0] in _STEM:
        return "stem"
    if words[0] in _CLASSIFIER:
        return "classifier"
    if words[0] == "tail":
        return "tail"
    if _STAGE.fullmatch(words[0]) and len(words) > 2 and words[1].startswith("module"):
        return f"{words[0]} {words[1]} {'gate' if words[2] == 'residual' else words[2]}"
    if _STAGE.fullmatch(words[0]) and len(words) > 1:
        return f"{words[0]} {words[1]}"
    return re.sub(r"_?\d+$", "", layer)


def place_of_tensor(tensor: str) -> str:
    """Return where in the paper a ``.tflite``'s tensor is made, as ``place`` does; its first layer decides."""
    layer = tensor.partition(";")[0].partition("/")[2].partition("/")[0] or tensor
    if layer.startswith(("tfl.", "serving_default")):
        return "stem"
    if layer.startswith(("Identity", "StatefulPartitionedCall")):
        return "classifier"
    return place(layer)
