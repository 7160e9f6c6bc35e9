"""Tensors and operators of a ``.tflite``, as plain records."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tflite

from edge_ran.files import read_bytes
from edge_ran.folder_walk import check_name
from edge_ran.graph.flatbuffer import enumeration, open_model, untrusted
from edge_ran.graph.picture_shape import PictureShape, picture_shape

FLOATS = ("float32", "float16", "bfloat16", "float64")
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
_MOST_DIMENSIONS = 8
_MOST_OPERATORS = 20_000  # five times the layers of the deepest network here
_SMALL_CONSTANT = 8  # numbers; axes, paddings, strides and sizes are no more


@dataclass(frozen=True)
class TensorSpec:
    """One tensor; real value = ``scale`` * (number - ``zero_point``).

    ``shape`` is the one that runtimes start with; without ``fixed`` the caller may resize it (a batch of -1), along the
    dimensions ``open_axes``, for which ``shape`` holds a placeholder.
    ``scale`` 0 means that the tensor is not quantised as a whole; ``per_channel`` that each channel is by itself, and
    ``largest_scale`` is then that of the channel of the largest one.
    ``constant`` tensors are weights or settings; ``values`` holds the numbers of a small int32 constant, such as axes
    or strides. ``index`` is the tensor's place in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0
    per_channel: bool = False
    constant: bool = False
    values: tuple[int, ...] = ()
    fixed: bool = True
    index: int = -1
    open_axes: tuple[int, ...] = ()
    largest_scale: float = 0.0

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def picture(self) -> PictureShape | None:
        """How a picture lies in it; None where it can be no picture."""
        return picture_shape(self.shape, self.open_axes)


def plain_pixels(tensor: TensorSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation with which an input takes pixels as they are.

    A uint8 input gets 0..255, an int8 input -128..127, whatever its scale; integers without a scale get 0..255 as far
    as they reach. A float or int16 input gets (pixel - 128) / 128.
    """
    if tensor.dtype in ("uint8", "int8"):
        lift, scale = (128 if tensor.dtype == "int8" else 0), tensor.scale or 1.0
        return (float(tensor.zero_point + lift),) * 3, (1 / scale,) * 3
    if tensor.dtype not in FLOATS and not tensor.scale:
        return (0.0,) * 3, (1.0,) * 3
    return (128.0,) * 3, (128.0,) * 3


@dataclass(frozen=True)
class Operator:
    """One operator. ``index`` is its place in the order of execution, ``name`` the schema's (``CONV_2D``), or the
    custom operator's own; optional inputs that are absent are left out. ``options`` are the schema's in snake case
    (``stride_h``, ``padding`` "SAME", ``fused_activation_function`` "RELU", …).
    """

    index: int
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def activations(self) -> tuple[TensorSpec, ...]:
        """The tensors that are computed, not stored: inputs that are not constant, and outputs."""
        return tuple(t for t in self.inputs if not t.constant) + self.outputs

    @property
    def is_float(self) -> bool:
        """Whether it reads or writes a floating-point tensor that is not a constant."""
        return any(t.dtype in FLOATS for t in self.activations)

    @property
    def rectifies(self) -> bool:
        """Whether it is a ReLU in the form of a QUANTIZE: from int8 to an int8 whose lowest number stands for 0."""
        if self.name != "QUANTIZE" or not self.inputs or not self.outputs:
            return False
        before, after = self.inputs[0], self.outputs[0]
        return (before.dtype, after.dtype) == ("int8", "int8") and before.zero_point > -128 == after.zero_point

    @property
    def strided(self) -> bool:
        """Whether a convolution or pooling leaves out positions."""
        return bool(max(self.options.get("stride_h", 1), self.options.get("stride_w", 1)) > 1)

    @property
    def weights(self) -> TensorSpec | None:
        """The constant kernel of a convolution or dense layer."""
        if self.name in ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED") and len(self.inputs) > 1:
            return self.inputs[1]
        return None

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds at batch 1 of a convolution, dense layer or matrix product; 0 for any other operator."""
        if not self.outputs:
            return 0
        kernel, out = self.weights, self.outputs[0]
        if kernel is not None and self.name == "FULLY_CONNECTED" and kernel.shape:
            return out.elements * kernel.shape[-1]
        if kernel is not None and len(kernel.shape) == 4 and len(out.shape) == 4:
            # A transposed convolution spends its kernel on each position of its input, any other of its output.
            place = self.inputs[2] if self.name == "TRANSPOSE_CONV" and len(self.inputs) > 2 else out
            return math.prod(place.shape[1:3]) * kernel.elements
        if self.name == "BATCH_MATMUL" and self.inputs and len(self.inputs[0].shape) > 1:
            return out.elements * self.inputs[0].shape[-2 if self.options.get("adj_x") else -1]
        return 0


@dataclass(frozen=True)
class Graph:
    """The main subgraph of a ``.tflite`` (bodies of loops and branches are not looked into).

    ``scores`` is the place of the class scores among the outputs, where somebody has found out, else 0.
    """

    path: Path
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: tuple[Operator, ...]
    parameters_bytes: int = 0
    scores: int = 0

    def with_input_shape(self, shape: tuple[int, ...]) -> Graph:
        """Return the graph with another shape of its first input, along the axes that the file leaves open."""
        return dataclasses.replace(self, inputs=(dataclasses.replace(self.inputs[0], shape=shape), *self.inputs[1:]))

    @property
    def has_open_size(self) -> bool:
        """Whether the file leaves an input's size open; the shapes of all tensors are then those of a placeholder."""
        return any(axis > 0 for tensor in self.inputs for axis in tensor.open_axes)  # 0 is the batch

    @property
    def widths(self) -> list[int]:
        """How many numbers lie along the last axis of each output that has axes."""
        return [output.shape[-1] for output in self.outputs if output.shape]

    @property
    def operator_counts(self) -> dict[str, int]:
        """How many operators of each name, the most frequent first."""
        return dict(Counter(op.name for op in self.operators).most_common())

    @property
    def float_operators(self) -> list[Operator]:
        """Operators that compute on float tensors; QUANTIZE and DEQUANTIZE are counted apart."""
        return [op for op in self.operators if op.is_float and op.name not in CONVERSIONS]

    @property
    def border_quantize(self) -> list[Operator]:
        """QUANTIZE and DEQUANTIZE at the graph's own inputs and outputs."""
        border = {t.index for t in (*self.inputs, *self.outputs)}
        return [
            op
            for op in self.operators
            if op.name in CONVERSIONS and any(t.index in border for t in op.activations)
        ]  # fmt: skip

    @property
    def inner_quantize(self) -> list[Operator]:
        """QUANTIZE and DEQUANTIZE between operators, less what unpacks float16 or int8 weights or is a ReLU."""
        border = {op.index for op in self.border_quantize}
        return [
            op
            for op in self.operators
            if op.name in CONVERSIONS
            and op.index not in border
            and not (op.rectifies or all(t.constant for t in op.inputs))
        ]

    @property
    def precision(self) -> str:
        """The name of the converter that makes such files (fp32, fp16, dynamic, int8, int16x8), or ``mixed``."""
        computing = [op for op in self.operators if op.name not in CONVERSIONS or op.rectifies]
        floats = [op for op in computing if op.is_float]
        stored = {t.dtype for op in self.operators for t in op.inputs if t.constant}
        if floats and len(floats) < len(computing):
            # Operators on shapes and indices belong to a float graph, too.
            if any(t.dtype in ("int8", "uint8", "int16") for op in computing for t in op.activations):
                return "mixed"
            floats = computing
        if floats or not computing:
            if stored & {"int8", "uint8", "int4"}:
                return "dynamic"
            return "fp16" if "float16" in stored else "fp32"
        return "int16x8" if any(t.dtype == "int16" for op in computing for t in op.activations) else "int8"

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one run at batch 1; 0 where they depend on the size of what it is given."""
        return 0 if self.has_open_size else sum(op.multiply_adds for op in self.operators)


def read_graph(path: Path | str) -> Graph:
    """Read the graph of a ``.tflite``. A file that passes is sound enough for the runtimes' unchecked loaders.

    Raises:
        InputError: the file is missing, cut short, damaged or something else, or the runtimes cannot read its name.
    """
    check_name(Path(path))
    return parse_graph(read_bytes(Path(path), "model"), path)


# One command reads the same file up to a dozen times. A file whose graph is small for its size is not worth a hash.
_MOST_HASHED_BYTES, _MOST_KNOWN = 1 << 26, 8
_known: dict[tuple[bytes, Path], Graph] = {}  # without a lock: each step is one of the interpreter's


def parse_graph(data: bytes, path: Path | str = "model") -> Graph:
    """Read the graph from the bytes of a ``.tflite``; ``path`` names it. Raises InputError as ``read_graph`` does.

    The last few graphs are kept, by all of their files' bytes: these are checked and read once.
    """
    key = (hashlib.blake2b(data).digest(), Path(path)) if len(data) <= _MOST_HASHED_BYTES else None
    if key is not None and (known := _known.get(key)) is not None:
        return known
    model = open_model(data, path)
    with untrusted(path):
        graph = _graph(model, Path(path), len(data))
    if key is not None:
        _known[key] = graph
        for old in list(_known)[:-_MOST_KNOWN]:
            _known.pop(old, None)
    return graph


def forget_graphs() -> None:
    """Have every file read anew, as a fresh process does."""
    _known.clear()


def _graph(model: tflite.Model, path: Path, size_bytes: int) -> Graph:
    if not model.SubgraphsLength():
        raise ValueError("it has no subgraph")
    subgraph = model.Subgraphs(0)
    if max(subgraph.OperatorsLength(), subgraph.TensorsLength() // 4, model.OperatorCodesLength()) > _MOST_OPERATORS:
        raise ValueError(f"it has more than {_MOST_OPERATORS:,} operators")
    names = [_operator_name(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())]
    tensors = [_tensor(model, subgraph.Tensors(i), i) for i in range(subgraph.TensorsLength())]

    def pick(indices: Any) -> tuple[TensorSpec, ...]:
        wanted = _integers(indices)
        if any(not -1 <= i < len(tensors) for i in wanted):
            raise ValueError("an operator uses a tensor that does not exist")
        return tuple(tensors[i] for i in wanted if i != -1)

    operators = []
    for index in range(subgraph.OperatorsLength()):
        op = subgraph.Operators(index)
        name, options = names[op.OpcodeIndex()], _options(op)
        operators.append(Operator(index, name, pick(op.InputsAsNumpy()), pick(op.OutputsAsNumpy()), options))
    _check_order(operators)
    used = {subgraph.Tensors(i).Buffer() for i in range(subgraph.TensorsLength())}
    parameters_bytes = sum(_buffer_size(model.Buffers(i), size_bytes) for i in used)
    inputs, outputs = pick(subgraph.InputsAsNumpy()), pick(subgraph.OutputsAsNumpy())
    return Graph(path, size_bytes, inputs, outputs, tuple(operators), parameters_bytes)


def _check_order(operators: list[Operator]) -> None:
    """Refuse operators that lead in a circle. What a variable holds from run to run is no operator's output."""
    written = {tensor.index: op.index for op in operators for tensor in op.outputs}
    for op in operators:
        if any(written.get(tensor.index, -1) >= op.index for tensor in op.inputs):
            raise ValueError(f"operator {op.index} {op.name} reads what it or a later operator writes")


def _integers(vector: Any) -> tuple[int, ...]:
    return () if isinstance(vector, int) else tuple(vector.tolist())  # the generated classes give 0 for an absent one


def _buffer_size(buffer: Any, file_bytes: int) -> int:
    """Bytes of a constant."""
    if buffer.Offset() > 1:  # files above 2 GB keep their weights behind the FlatBuffer
        if buffer.Offset() + buffer.Size() > file_bytes:
            raise ValueError("its weights are missing")
        return int(buffer.Size())
    return int(buffer.DataLength())


def _operator_name(code: Any) -> str:
    number = code.BuiltinCode()
    if number == tflite.BuiltinOperator.CUSTOM:
        return text(code.CustomCode()) or "CUSTOM"
    return str(tflite.BUILTIN_OPCODE2NAME.get(number, f"OPERATOR_{number}"))


def _tensor(model: tflite.Model, raw: Any, index: int) -> TensorSpec:
    shape, signature = _integers(raw.ShapeAsNumpy()), _integers(raw.ShapeSignatureAsNumpy())
    if len(shape) > _MOST_DIMENSIONS or any(n < 0 for n in shape):
        raise ValueError(f"tensor {index} has a shape that no tensor has")
    if raw.Buffer() >= model.BuffersLength():
        raise ValueError(f"the numbers of tensor {index} are missing")
    buffer, dtype = model.Buffers(raw.Buffer()), _DTYPES[raw.Type()]
    size = buffer.DataLength()
    values: tuple[int, ...] = ()
    if dtype == "int32" and size and size <= 4 * _SMALL_CONSTANT and size % 4 == 0:
        values = tuple(buffer.DataAsNumpy().view("<i4").tolist())
    scale, zero_point, per_channel, largest = _quantisation(raw.Quantization())
    constant = size > 0 or buffer.Offset() > 1
    return TensorSpec(
        text(raw.Name()), shape, dtype, scale, zero_point, per_channel, constant, values, -1 not in signature, index,
        tuple(axis for axis, size in enumerate(signature[: len(shape)]) if size == -1), largest,
    )  # fmt: skip


def _quantisation(raw: Any) -> tuple[float, int, bool, float]:
    """Scale, zero point, whether each channel has its own, and the largest scale."""
    if raw is None or not raw.ScaleLength():
        return 0.0, 0, False, 0.0
    scales = raw.ScaleAsNumpy()
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise ValueError("a quantisation scale is not a number above 0")
    if len(scales) > 1:
        return 0.0, 0, True, float(scales.max())
    scale = float(scales[0])
    return scale, int(raw.ZeroPoint(0)) if raw.ZeroPointLength() else 0, False, scale


def _options(op: Any) -> dict[str, Any]:
    cls = getattr(tflite, _OPTIONS.get(op.BuiltinOptionsType(), ""), None)
    table = op.BuiltinOptions()
    if cls is None or table is None:
        return {}
    options = cls()
    options.Init(table.Bytes, table.Pos)
    found: dict[str, Any] = {}
    for key, method in _accessors(cls).items():
        value = getattr(options, method)()
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{key} is not a number")
        if key in _WORDS:
            found[key] = _WORDS[key].get(value, str(value))
        elif isinstance(value, (bool, int, float)):
            found[key] = value
    return found


@functools.cache
def _accessors(options: type) -> dict[str, str]:
    """The plain fields of a generated options class: snake-case key -> method."""
    return {
        re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower(): name
        for name, method in vars(options).items()
        if getattr(getattr(method, "__code__", None), "co_argcount", 0) == 1
        and not name.endswith(("AsNumpy", "Length", "IsNone"))
    }


def text(raw: bytes | None) -> str:
    """Decode a name for people: nothing in it may steer a terminal."""
    found = (raw or b"").decode(errors="replace")
    return found if found.isprintable() else "".join(c if c.isprintable() else "?" for c in found)


_DTYPES = {number: name.lower() for number, name in enumeration(tflite.TensorType).items()}
_OPTIONS = enumeration(tflite.BuiltinOptions)
_WORDS = {
    "padding": enumeration(tflite.Padding),
    "fused_activation_function": enumeration(tflite.ActivationFunctionType),
}
