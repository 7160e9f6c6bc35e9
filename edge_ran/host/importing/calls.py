"""The calls of a model's layers, as Keras 2 and 3 write them: which tensors each reads, and in which order they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_ran.errors import InputError
from edge_ran.host.importing.operators import Tensor
from edge_ran.host.importing.source import GRAPHS, LayerWeights, shown


@dataclass(frozen=True)
class Ref:
    """Reads an output of a call of a layer."""

    layer: str
    call: int
    output: int


@dataclass
class Layer:
    """A layer's record in a model's configuration, with its calls."""

    name: str
    kind: str
    record: dict[str, Any]
    calls: list[tuple[list[Any], dict[str, Any]]]
    weights: LayerWeights | None = None
    first_call: int = 0
    made: dict[int, list[str]] = field(default_factory=dict)  # outputs of each call


def field_of(record: Any, key: str, kind: type) -> Any:
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"its configuration lacks {key}")
    return value


def call_of(node: Any) -> tuple[list[Any], dict[str, Any]]:
    """One call of a layer, of either major version, as arguments with ``Ref`` in the place of tensors."""
    if isinstance(node, dict):  # Keras 3
        return new_value(node.get("args", [])), new_value(node.get("kwargs", {}))
    if not isinstance(node, list):
        raise ValueError("a call is no list")
    entries = [node] if node and isinstance(node[0], str) else node
    args, kwargs = [], {}
    for entry in entries:
        if not isinstance(entry, list) or len(entry) < 3:
            raise ValueError("a layer reads something that is no tensor")
        args.append(old_value(entry))
        for key, value in (entry[3] if len(entry) > 3 and isinstance(entry[3], dict) else {}).items():
            kwargs[key] = old_value(value)
    return [args[0] if len(args) == 1 else args], kwargs


def old_value(value: Any) -> Any:
    """An argument as Keras 2 writes it: ``[layer, call, output, …]`` is a tensor."""
    if isinstance(value, list) and len(value) in (3, 4) and isinstance(value[0], str):
        if value[0] == "_CONSTANT_VALUE":
            return value[2]
        if type(value[1]) is int and type(value[2]) is int:
            return Ref(value[0], value[1], value[2])
    return [old_value(one) for one in value] if isinstance(value, list) else value


def new_value(value: Any) -> Any:
    """An argument as Keras 3 writes it: a record of class ``__keras_tensor__`` is a tensor."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            history = field_of(field_of(value, "config", dict), "keras_history", list)
            name, call, output = history
            if not isinstance(name, str) or type(call) is not int or type(output) is not int:
                raise ValueError("a layer reads something that is no tensor")
            return Ref(name, call, output)
        return {key: new_value(one) for key, one in value.items()}
    return [new_value(one) for one in value] if isinstance(value, list) else value


def references(value: Any) -> Iterator[Ref]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Ref):
            yield one
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, (list, tuple)):
            waiting += one


def tensors_of(args: Any) -> list[str]:
    """The tensors of a call, by name, in order. Raises ValueError where there is something else."""
    found: list[str] = []
    waiting = [args]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (list, tuple)):
            waiting += list(one)[::-1]
        elif isinstance(one, Tensor):
            found.append(one)
        elif one is not None:
            raise ValueError("it is called with something that is no tensor")
    if not found:
        raise ValueError("it reads nothing")
    return found


def ends_of(value: Any) -> Iterator[Ref]:
    """Inputs or outputs of a functional model: one ``[layer, call, output]``, or a list or record of such."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError("a model has no inputs or outputs")
    for one in value:
        found = old_value(one)
        if not isinstance(found, Ref):
            raise ValueError("a model's input or output is no tensor")
        yield found


def layer_of(by_name: Mapping[str, Layer], ref: Ref) -> Layer:
    if ref.layer not in by_name:
        raise ValueError(f"layer {shown(ref.layer)} is read, but is not there")
    return by_name[ref.layer]


def number_calls(by_name: Mapping[str, Layer], ends: list[Ref]) -> None:
    """Find out from which number on a layer's calls are counted: for models inside, Keras 2 counts from 1, mostly."""
    lowest: dict[str, int] = {}
    for ref in [*ends, *(ref for layer in by_name.values() for ref in references(layer.calls))]:
        lowest[ref.layer] = min(lowest.get(ref.layer, ref.call), ref.call)
    for name, number in lowest.items():
        if name in by_name and by_name[name].kind in GRAPHS:
            by_name[name].first_call = number if number <= 1 else 0


def calls_in_order(by_name: Mapping[str, Layer], ends: list[Ref], path: object) -> Iterator[tuple[Layer, int]]:
    """Yield the calls that the outputs need, each after those that it reads. Raises InputError for a circle."""
    done: set[tuple[str, int]] = set()
    open_calls: set[tuple[str, int]] = set()
    for end in ends:
        stack = [(end, False)]
        while stack:
            ref, is_ready = stack.pop()
            layer = layer_of(by_name, ref)
            call = ref.call - layer.first_call
            key = (layer.name, call)
            if is_ready:
                open_calls.discard(key)
                if key not in done:
                    done.add(key)
                    yield layer, call
                continue
            if key in done or call in layer.made:
                continue
            if key in open_calls:
                raise InputError(f"{path}: layer {shown(layer.name)} waits for itself", "get the file again")
            if not 0 <= call < len(layer.calls):
                raise ValueError(f"call {ref.call} of layer {shown(layer.name)} is read, but is not there")
            open_calls.add(key)
            stack.append((ref, True))
            stack += [(one, False) for one in references(layer.calls[call])]


def resolver(by_name: Mapping[str, Layer]) -> Any:
    """Return a function that puts node names in the place of every ``Ref`` of a value."""

    def resolve(value: Any) -> Any:
        if isinstance(value, Ref):
            layer = layer_of(by_name, value)
            outputs = layer.made[value.call - layer.first_call]
            return Tensor(outputs[value.output])
        if isinstance(value, dict):
            return {key: resolve(one) for key, one in value.items()}
        return [resolve(one) for one in value] if isinstance(value, list) else value

    return resolve
