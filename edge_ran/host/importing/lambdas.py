"""What a Lambda layer computes, without running it: its Python bytecode is decoded, never unmarshalled or executed.

A file holds a Lambda as the marshalled bytecode of the Python that wrote it. ``decode`` reads the marshal format and
follows the few instructions that an affine function ``a x + b`` is made of, in the encoding of every Python from 3.4 to
3.13, or the one call of ``K.mean(x, axis=3, keepdims=True)`` or ``K.mean(x, axis=[1, 2])``, since 3.6. Anything else is
a question to the user, who answers in a tiny language: ``parse``.
"""

from __future__ import annotations

import ast
import base64
import binascii
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_ran.errors import UsageError

_MOST_BYTES = 1 << 16
_MOST_DEPTH = 20
_MOST_INSTRUCTIONS = 200


@dataclass(frozen=True)
class Affine:
    """``scale * x + offset``, element by element."""

    scale: float
    offset: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.offset)):
            raise ValueError("not finite")

    def __str__(self) -> str:
        return f"{self.scale:g} * x + {self.offset:g}"


@dataclass(frozen=True)
class OverChannels:
    """The ``mean`` or the ``max`` of the channels of each position, (H, W, C) -> (H, W, 1)."""

    function: str

    def __str__(self) -> str:
        return f"{self.function}(x) over the channels"


@dataclass(frozen=True)
class OverPicture:
    """The ``mean`` or the ``max`` of each channel, (H, W, C) -> (C,), or (1, 1, C) with ``keepdims``."""

    function: str
    keepdims: bool = False

    def __str__(self) -> str:
        return f"global_{self.function}(x), over height and width"


Function = Affine | OverChannels | OverPicture


def parse(expression: str) -> Function:
    """Read an expression of ``x``, numbers, ``+ - * /`` and brackets that is affine in ``x``, such as ``1 + x``; or
    ``mean(x)`` or ``max(x)``, over the channels; or ``global_mean(x)`` or ``global_max(x)``, over height and width.

    Raises:
        UsageError: it is something else.
    """
    if (words := "".join(expression.split())) in ("mean(x)", "max(x)"):
        return OverChannels(words.partition("(")[0])
    if words in ("global_mean(x)", "global_max(x)"):
        return OverPicture(words.partition("(")[0].removeprefix("global_"))
    try:
        tree = ast.parse(expression.strip(), mode="eval") if len(expression) < 200 else None
        if tree is not None and isinstance(found := _evaluate(tree.body), Affine):
            return found
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError, OverflowError):
        pass
    what = f"--lambda: {expression[:60]!r} is neither a * x + b nor mean(x), max(x), global_mean(x) or global_max(x)"
    raise UsageError(what, "numbers, x, + - * / and brackets, for instance --lambda 'lambda_1=1 + x'")


def of_configuration(config: Mapping[str, Any]) -> Function | None:
    """What a Lambda layer of that configuration computes; None where its code is not so simple.

    Keras 2 and 3 write the code, its defaults and what it closes over; with any of these it is more than its code.
    """
    function = config.get("function")
    if isinstance(function, dict):  # Keras 3
        inner = function.get("config")
        function = [inner.get(key) for key in ("code", "defaults", "closure")] if isinstance(inner, dict) else None
    if not isinstance(function, (list, tuple)) or not function or not isinstance(function[0], str):
        return None
    plain = list(function[1:]) in ([None, None], [[], None], []) and not config.get("arguments")
    return decode(function[0]) if plain else None


def decode(text: str) -> Function | None:
    """Return the function that a Lambda's code, base64 of a marshalled code object, computes; None if unsure."""
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(data) > _MOST_BYTES:
        return None
    found = {one for layout in _LAYOUTS for one in _decoded(data, layout)}
    return found.pop() if len(found) == 1 else None  # Pythons that read it differently: unsure


# ---------------------------------------------------------------------------------------------- arithmetic on a x + b

Value = float | Affine


def _combine(operator: str, left: Value, right: Value) -> Value:
    """Return ``left operator right``. Raises ValueError where that is not affine."""
    if isinstance(left, float) and isinstance(right, float):
        return {"+": left + right, "-": left - right, "*": left * right}[operator] if operator != "/" else left / right
    a, b = (one if isinstance(one, Affine) else Affine(0.0, one) for one in (left, right))
    if operator in "+-":
        sign = 1 if operator == "+" else -1
        return Affine(a.scale + sign * b.scale, a.offset + sign * b.offset)
    if operator == "*" and isinstance(left, float):
        return Affine(left * b.scale, left * b.offset)
    if operator == "*" and isinstance(right, float):
        return Affine(a.scale * right, a.offset * right)
    if operator == "/" and isinstance(right, float):
        return Affine(a.scale / right, a.offset / right)
    raise ValueError("not affine")


_SIGNS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def _evaluate(node: ast.expr) -> Value:
    if isinstance(node, ast.Name) and node.id == "x":
        return Affine(1.0, 0.0)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _combine("*", -1.0, _evaluate(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _SIGNS:
        return _combine(_SIGNS[type(node.op)], _evaluate(node.left), _evaluate(node.right))
    raise ValueError("not affine")


# ------------------------------------------------------------------------------------------------------- bytecode


@dataclass(frozen=True)
class _Layout:
    """How some Pythons lay out code: the numbers before the bytecode, and the numbers of the instructions."""

    integers: int  # 4-byte fields before the bytecode
    is_wordcode: bool  # two bytes an instruction, since 3.6
    load_fast: int
    load_const: int
    return_value: int
    negative: int
    operators: dict[int, str]
    binary_op: int = -1  # since 3.11 one instruction whose argument is the operator
    ignored: tuple[int, ...] = ()
    load_global: int = -1
    attributes: tuple[int, ...] = ()  # LOAD_ATTR, LOAD_METHOD
    calls: tuple[tuple[int, ...], ...] = ()  # the instructions of a call
    build_list: tuple[int, ...] = ()  # BUILD_LIST, BUILD_TUPLE
    names_keywords: tuple[int, ...] = ()  # of them, those whose call takes the last constant as names of arguments


_OLD = {23: "+", 24: "-", 20: "*", 27: "/"}
_ARGUMENTS = {0: "+", 5: "*", 10: "-", 11: "/"}  # of BINARY_OP
_CALLS = ((141,), (131,), (161,))  # CALL_FUNCTION_KW, CALL_FUNCTION, CALL_METHOD
_NEW_CALLS = ((172, 166, 171), (172, 171), (166, 171), (171,))  # KW_NAMES, PRECALL, CALL
_LAYOUTS = (
    _Layout(5, False, 124, 100, 83, 11, _OLD),  # 3.4, 3.5
    _Layout(5, True, 124, 100, 83, 11, _OLD, -1, (), 116, (106, 160), _CALLS, (103, 102), (141,)),  # 3.6, 3.7
    _Layout(6, True, 124, 100, 83, 11, _OLD, -1, (), 116, (106, 160), _CALLS, (103, 102), (141,)),  # 3.8 to 3.10
    # 3.11, 3.12; ignored: CACHE, NOP, RESUME
    _Layout(5, True, 124, 100, 83, 11, {}, 122, (0, 9, 151), 116, (106, 160), _NEW_CALLS, (103, 102), (172,)),
    _Layout(5, True, 85, 83, 36, 42, {}, 45, (0, 30, 149), 91, (82,), ((57,), (53,)), (47, 51), (57,)),  # 3.13
)
_MODULES = (b"K", b"k", b"backend", b"tf", b"tensorflow", b"keras", b"ops", b"math")
_REDUCTIONS = {b"mean": "mean", b"reduce_mean": "mean", b"max": "max", b"reduce_max": "max", b"amax": "max"}


def _decoded(data: bytes, layout: _Layout) -> Iterator[Function]:
    try:
        code = _Marshal(data, layout.integers).code()
        yield _reduction(code, layout) if code.names else _follow(code.instructions, code.constants, layout)
    except (ValueError, IndexError, KeyError, struct.error, ZeroDivisionError, OverflowError):
        return


@dataclass(frozen=True)
class _Code:
    arguments: int
    instructions: bytes
    constants: tuple[Any, ...]
    names: tuple[Any, ...]


class _Marshal:
    """Reads the start of a marshalled code object, up to its constants and names."""

    def __init__(self, data: bytes, integers: int) -> None:
        self.data, self.place, self.integers = data, 0, integers
        self.seen: list[Any] = []

    def code(self) -> _Code:
        """Raises ValueError unless it is a function of one argument."""
        kind = self._byte()
        if kind & 0x7F != ord("c"):
            raise ValueError("no code")
        if kind & 0x80:
            self.seen.append(None)
        arguments = [self._integer() for _ in range(self.integers)]
        instructions, constants, names = self._object(), self._object(), self._object()
        one = arguments[0] == 1 and not any(arguments[1 : self.integers - 3])
        if not (one and isinstance(instructions, bytes) and isinstance(constants, tuple) and isinstance(names, tuple)):
            raise ValueError("not a plain function of one argument")
        return _Code(arguments[0], instructions, constants, names)

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _bytes(self, count: int) -> bytes:
        if count < 0 or self.place + count > len(self.data):
            raise ValueError("cut short")
        self.place += count
        return self.data[self.place - count : self.place]

    def _integer(self) -> int:
        return int(struct.unpack("<i", self._bytes(4))[0])

    def _object(self, depth: int = 0) -> Any:
        if depth > _MOST_DEPTH:
            raise ValueError("too deep")
        head = self._byte()
        kind, kept = chr(head & 0x7F), bool(head & 0x80)
        place = len(self.seen)
        if kept:
            self.seen.append(None)
        value = self._value(kind, depth)
        if kept:
            self.seen[place] = value
        return value

    def _value(self, kind: str, depth: int) -> Any:
        plain: dict[str, Callable[[], Any]] = {
            "N": lambda: None,
            "T": lambda: True,
            "F": lambda: False,
            "i": self._integer,
            "g": lambda: struct.unpack("<d", self._bytes(8))[0],
            "r": lambda: self.seen[self._integer()],
        }
        if kind in plain:
            return plain[kind]()
        if kind in "sutaA":
            return self._bytes(self._integer())
        if kind in "zZ":
            return self._bytes(self._byte())
        if kind in "()":
            count = self._integer() if kind == "(" else self._byte()
            if not 0 <= count <= 1000:
                raise ValueError("too many")
            return tuple(self._object(depth + 1) for _ in range(count))
        raise ValueError(f"an object of kind {kind!r}")


def _instructions(code: bytes, is_wordcode: bool) -> Iterator[tuple[int, int]]:
    place = 0
    while place < len(code):
        operation = code[place]
        if is_wordcode:
            yield operation, code[place + 1]
            place += 2
        elif operation >= 90:
            yield operation, code[place + 1] | code[place + 2] << 8
            place += 3
        else:
            yield operation, 0
            place += 1


def _follow(code: bytes, constants: tuple[Any, ...], layout: _Layout) -> Affine:
    """Return what the instructions leave for the caller. Raises ValueError where that is not affine."""
    stack: list[Value] = []
    for count, (operation, argument) in enumerate(_instructions(code, layout.is_wordcode)):
        if count > _MOST_INSTRUCTIONS:
            raise ValueError("too long")
        if operation == layout.load_fast and argument == 0:
            stack.append(Affine(1.0, 0.0))
        elif operation == layout.load_const:
            value = constants[argument]
            if type(value) not in (int, float):
                raise ValueError("a constant that is no number")
            stack.append(float(value))
        elif operation == layout.negative:
            stack.append(_combine("*", -1.0, stack.pop()))
        elif operation in layout.operators or operation == layout.binary_op:
            sign = layout.operators[operation] if operation in layout.operators else _ARGUMENTS[argument]
            right, left = stack.pop(), stack.pop()
            stack.append(_combine(sign, left, right))
        elif operation == layout.return_value:
            (result,) = stack
            if isinstance(result, Affine) and result.scale:
                return result
            raise ValueError("a constant")
        elif operation not in layout.ignored:
            raise ValueError("another instruction")
    raise ValueError("it returns nothing")


def _constants(
    steps: Sequence[tuple[int, int]], place: int, constants: tuple[Any, ...], layout: _Layout
) -> tuple[list[Any], int]:
    """The constants that are loaded from a place on, also in lists; and the place of the step after them."""
    values: list[Any] = []
    while steps[place][0] == layout.load_const or steps[place][0] in layout.build_list:
        operation, argument = steps[place]
        if operation == layout.load_const:
            values.append(constants[argument])
        else:
            if not 0 < argument <= len(values):
                raise ValueError("a list of what is no constant")
            values[-argument:] = [tuple(values[-argument:])]
        place += 1
    return values, place


def _reduction(code: _Code, layout: _Layout) -> OverChannels | OverPicture:
    """Read ``K.mean(x, axis=3, keepdims=True)`` and its like, one call and nothing else. Raises ValueError."""
    steps = [one for one in _instructions(code.instructions, layout.is_wordcode) if one[0] not in layout.ignored]
    operations = [operation for operation, _ in steps]
    *modules, function = code.names
    if operations[:1] != [layout.load_global] or not modules or not {*modules} <= {*_MODULES}:
        raise ValueError("another function")
    start = len(code.names)  # a name is loaded once, in the order of names
    values, end = _constants(steps, start + 1, code.constants, layout)
    call = tuple(operations[end:-1])
    drawn = (
        all(operation in layout.attributes for operation in operations[1:start])
        and steps[start] == (layout.load_fast, 0)
        and call in layout.calls
        and operations[-1] == layout.return_value
    )
    if not drawn:
        raise ValueError("more than a call")
    words: tuple[Any, ...] = ()
    if call[0] in layout.names_keywords:
        words = values.pop() if len(call) == 1 else code.constants[steps[end][1]]
    given = dict(zip((b"axis", b"keepdims"), values[: len(values) - len(words)], strict=False))
    given |= dict(zip(words, values[len(values) - len(words) :], strict=True))
    given = {b"keepdims" if key == b"keep_dims" else key: value for key, value in given.items()}
    axis = given.pop(b"axis", None)
    if axis in ((1, 2), (2, 1)) and given in ({}, {b"keepdims": True}, {b"keepdims": False}):
        return OverPicture(_REDUCTIONS[function], given.get(b"keepdims", False))
    if type(axis) is not int or axis not in (3, -1) or given != {b"keepdims": True} or len(values) != 2:
        raise ValueError("not over the channels")
    return OverChannels(_REDUCTIONS[function])
