"""A ReLU of its own in int8 becomes a QUANTIZE, which XNNPACK runs; RELU it leaves to a plain kernel, 100 times slower.

A QUANTIZE from int8 to int8 maps numbers to another scale and ends them at -128 and 127. Where -128 stands for 0, as in
what a ReLU gives, that is ``max(x, 0)``.
"""

from __future__ import annotations

import tflite

from edge_ran.graph import patch
from edge_ran.graph.patch import Patch, table, vector
from edge_ran.graph.structure import Operator, parse_graph

_LEAST_RATIO, _MOST_RATIO = 2.0**-8, 2.0**7  # of the scales, input to output, that XNNPACK takes


def relus_as_quantize(model: bytes) -> bytes:
    """Return an int8 ``.tflite`` without RELU operators, as far as a QUANTIZE gives the same; itself if it has none.

    Raises:
        InputError: the file is damaged, or its weights lie outside the FlatBuffer.
    """
    graph = parse_graph(model)
    places = {op.index for op in graph.operators if is_quantize(op)}
    if not places:
        return model
    changed = Patch(model)
    b, old, main = changed.builder, changed.old, changed.old.Subgraphs(0)
    codes = [changed.kept(old.OperatorCodes(i)) for i in range(old.OperatorCodesLength())]
    number = tflite.BuiltinOperator.QUANTIZE
    codes.append(table(b, {}, bytes_={0: number}, uint32s={2: 1, 3: number}))
    operators = []
    for i in range(main.OperatorsLength()):
        operator = main.Operators(i)
        ends = {slot: changed.field(operator, slot) for slot in (1, 2)}  # what it reads and writes
        relu = i in places
        operators.append(table(b, ends, uint32s={0: len(codes) - 1}) if relu else changed.kept(operator))
    kept = {slot: changed.field(main, slot) for slot in (0, 1, 2, 4)}
    subgraph = table(b, {**kept, 3: vector(b, operators)})
    others = [changed.kept(old.Subgraphs(i)) for i in range(1, old.SubgraphsLength())]
    subgraphs = vector(b, [subgraph, *others])
    return changed.finish({patch.CODES: vector(b, codes), patch.SUBGRAPHS: subgraphs})


def is_quantize(op: Operator) -> bool:
    if op.name != "RELU" or not op.inputs or not op.outputs:
        return False
    before, after = op.inputs[0], op.outputs[0]
    if (before.dtype, after.dtype) != ("int8", "int8") or not (before.scale > 0 and after.scale > 0):
        return False
    return after.zero_point == -128 and _LEAST_RATIO <= before.scale / after.scale <= _MOST_RATIO
