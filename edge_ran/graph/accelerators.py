"""Which operators an accelerator leaves out or computes wrongly, told from the graph alone, before anything runs.

The tables are measurements: files of one operator each, in float32, int8, int8 weights and int16 activations, run on
LiteRT 2.3 (x86-64; GPU: WebGPU on SwiftShader) and compared with the plain CPU kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from edge_ran.graph.structure import Graph, Operator


@dataclass(frozen=True)
class Finding:
    """Something about an operator (None: the whole graph) that an accelerator will not take or gets wrong.

    ``wrong`` tells the bad case, numbers that are not right, from the slow one, work that stays on the CPU.
    """

    operator: Operator | None
    what: str
    remedy: str
    wrong: bool = False


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Names that no file could be made for come from the GPU delegate's own compatibility check.
_GPU_OPERATORS = _names(
    """
    ABS ADD ADD_N ATAN2 AVERAGE_POOL_2D BATCH_MATMUL CAST CEIL CONCATENATION CONV_2D COS CUMSUM DENSIFY
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP FLOOR FLOOR_DIV
    FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER GREATER_EQUAL HARD_SWISH LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND
    LOGISTIC LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW PRELU
    QUANTIZE REDUCE_MAX REDUCE_MIN REDUCE_PROD RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
    RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE
    STABLEHLO_CLAMP STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV
    """
)
_XNNPACK_INT8 = _names(
    """
    ADD BATCH_MATMUL CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EXPAND_DIMS FULLY_CONNECTED
    LEAKY_RELU LOGISTIC MAX_POOL_2D MEAN MUL PAD QUANTIZE REDUCE_MAX REDUCE_MIN RESHAPE RESIZE_BILINEAR SLICE
    SPACE_TO_DEPTH SPLIT STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV
    """
)
_XNNPACK_FLOAT = _XNNPACK_INT8 | _names(
    """
    ABS AVERAGE_POOL_2D CEIL COS DIV ELU EXP FLOOR GELU HARD_SWISH LOG MAXIMUM MINIMUM NEG PRELU RELU RELU6 RELU_N1_TO_1
    ROUND RSQRT SIGN SIN SOFTMAX SQRT SQUARE SQUARED_DIFFERENCE
    """
)

# For what our own networks are made of.
_NOT_NEGATIVE = ("RELU", "RELU6", "LOGISTIC", "SOFTMAX")
_KEEP_THE_SIGN = ("PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "QUANTIZE")  # of their first input
_KEEP_ALL_SIGNS = ("CONCATENATION", "ADD")  # not negative where no input is
_REMEDIES = {
    "L2_NORMALIZATION": "train with --attention mixed",
    "RESIZE_NEAREST_NEIGHBOR": "convert without --no-rewrite",
    "RSQRT": "train with --attention mixed",
    "SOFTMAX": "nothing: it runs once, on one number for each class",
}


def gpu_warnings(graph: Graph) -> list[Finding]:
    """Return what a GPU delegate will not take or computes wrongly, operator by operator, in graph order.

    Being empty is no proof that the GPU is right: compare its outputs with the CPU's (``edge-ran verify``).
    """
    findings = []
    if not all(t.fixed for t in (*graph.inputs, *graph.outputs)):
        what = "an input or output has no fixed size, which GPUs and browsers refuse"
        findings.append(Finding(None, what, "convert it again: edge-ran fixes the batch to 1"))
    makers = {tensor.index: op for op in graph.operators for tensor in op.outputs}
    rectified: set[int] = set()  # tensors that surely hold no negative number
    for op in graph.operators:
        if _is_rectified(op, rectified):
            rectified |= {tensor.index for tensor in op.outputs}
        if found := _gpu_finding(op) or _merged_padding(op, makers, rectified):
            findings.append(found)
    return findings


def _is_rectified(op: Operator, rectified: Set[int]) -> bool:
    """Whether what an operator writes is surely not negative, as ``host.rewrites.resizing`` tells it of layers."""
    if op.name in _NOT_NEGATIVE or op.rectifies or op.options.get("fused_activation_function") in ("RELU", "RELU6"):
        return True
    read = op.inputs if op.name in _KEEP_ALL_SIGNS else op.inputs[:1] if op.name in _KEEP_THE_SIGN else ()
    return bool(read) and all(tensor.index in rectified for tensor in read)


def _merged_padding(op: Operator, makers: Mapping[int, Operator], rectified: Set[int]) -> Finding | None:
    """A max-pooling of explicit zeros around numbers that may be negative: LiteRT merges both and loses the zeros."""
    pad = makers.get(op.inputs[0].index) if op.name == "MAX_POOL_2D" and op.inputs else None
    if pad is None or pad.name not in ("PAD", "PADV2") or not pad.inputs or pad.inputs[0].index in rectified:
        return None
    what = "a max-pooling right after zero padding of negative numbers gives wrong numbers at the border"
    return Finding(op, what, "convert without --no-rewrite", wrong=True)


def _gpu_finding(op: Operator) -> Finding | None:
    if any(t.dtype == "int16" for t in op.activations):
        return Finding(op, "int16 activations are refused", "convert with --fp16 or --int8")
    if op.name not in _GPU_OPERATORS:
        return Finding(op, f"{op.name} is refused", "use another layer, or the CPU")
    if any(len(t.shape) > 4 for t in op.activations):
        return Finding(op, "tensors of more than 4 dimensions are refused", "use a layer that needs 4, or the CPU")
    if op.name == "BATCH_MATMUL" and len({t.index for t in op.inputs[:2]}) == 1:
        what = "the product of a tensor and itself ends the process"
        return Finding(op, what, "multiply with a copy that another layer made, or use the CPU")
    kernel = op.weights
    if op.name != "CONV_2D" or kernel is None or len(kernel.shape) != 4 or len(op.inputs[0].shape) != 4:
        return None
    outputs, height, width, inputs = kernel.shape
    if (height, width) == (1, 1) and op.strided and kernel.dtype in ("int8", "uint8", "int4"):
        what = "a 1x1 convolution with a stride and int8 weights gives wrong numbers"
        return Finding(op, what, "convert without --no-rewrite, or with --fp16", wrong=True)
    groups = op.inputs[0].shape[3] // inputs if inputs > 0 else 1
    if groups > 1 and (inputs % 4 or outputs // groups % 4):
        what = f"a grouped convolution of {inputs} to {outputs // groups} channels a group gives wrong numbers"
        return Finding(op, what, "use a width that makes both multiples of 4, or the CPU", wrong=True)
    return None


def xnnpack_unsupported(graph: Graph) -> list[Finding]:
    """Return the operators that XNNPACK leaves to LiteRT's plain CPU kernels, each with the reason, in graph order.

    They are right but slower, and each one between two others splits the graph. True of LiteRT 2.3; tflite-runtime
    2.14 takes no int8 operator at all into XNNPACK.
    """
    return [Finding(op, *reason) for op in graph.operators if (reason := _xnnpack_reason(op))]


def _xnnpack_reason(op: Operator) -> tuple[str, str] | None:
    dtypes = {t.dtype for t in op.activations}
    if "int16" in dtypes:
        return "int16 activations", "convert with --int8"
    if op.name == "QUANTIZE" and "uint8" in dtypes:
        return "uint8 input or output", "convert with --io int8 or --io float32"
    quantised = not op.is_float and bool(dtypes & {"int8", "uint8"})
    if op.name not in (_XNNPACK_INT8 if quantised else _XNNPACK_FLOAT):
        remedy = _REMEDIES.get(op.name, "use another layer")
        return f"no kernel for {op.name}{' in int8' if op.name in _XNNPACK_FLOAT else ''}", remedy
    if op.options.get("fused_activation_function") in ("TANH", "SIGN_BIT"):
        return "no kernel with this activation", "use ReLU"
    window = op.options.get("filter_height"), op.options.get("filter_width")
    if op.name.endswith("_POOL_2D") and window == (1, 1) and op.strided:
        return "no kernel for a 1x1 pooling with a stride", "use a strided convolution"
    if op.name == "STRIDED_SLICE" and any(step != 1 for tensor in op.inputs[-1:] for step in tensor.values):
        return "no kernel for a slice with a stride", "use a strided convolution"
    if quantised and op.name == "BATCH_MATMUL" and len(op.inputs) > 1 and op.inputs[1].zero_point:
        return "no kernel for a second factor whose zero point is not 0", "use another layer"
    return _scale_reason(op) if quantised and op.name in ("ADD", "SUB", "MUL") else None


def _scale_reason(op: Operator) -> tuple[str, str] | None:
    """XNNPACK's limits: for sums each input's scale over the output's, for products the product of both over it."""
    if len(op.inputs) != 2 or not op.outputs or not op.outputs[0].scale:
        return None
    first, second, out = op.inputs[0].scale, op.inputs[1].scale, op.outputs[0].scale
    ratios, lowest = ([first * second / out], 2**-16) if op.name == "MUL" else ([first / out, second / out], 2**-10)
    if all(lowest <= ratio < 2**8 for ratio in ratios):
        return None
    return "the scales of its inputs and output are too far apart", "fold the constant into a convolution"
