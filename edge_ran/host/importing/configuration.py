"""A configuration as Keras 2 or 3 writes it -> a flat graph of layers with their weights, built here of known classes.

Models inside models are flattened, a layer that is called twice becomes two with the same weights, operator layers
(``x * 2 + 1`` on Keras tensors) become the layers that compute the same. Shapes and weights are checked against the
configuration before anything is built, so that a file cannot ask for more than it stores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tf_keras import layers as keras_layers

from edge_ran.errors import InputError
from edge_ran.host.importing import kinds
from edge_ran.host.importing.calls import (
    Layer,
    Ref,
    call_of,
    calls_in_order,
    ends_of,
    field_of,
    layer_of,
    number_calls,
    resolver,
    tensors_of,
)
from edge_ran.host.importing.lambdas import Affine, Function, OverChannels, OverPicture, of_configuration
from edge_ran.host.importing.limits import Limits
from edge_ran.host.importing.operators import Tensor, operator_layers, over_channels, over_picture
from edge_ran.host.importing.source import GRAPHS, Source, Weights, shown
from edge_ran.host.rewrites import LayerGraph, Node

Array = NDArray[Any]
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
_MOST_DEPTH = 8  # of models inside models
_MOST_INPUT_SIDE = 4096


@dataclass(frozen=True)
class ReadGraph:
    """A file's network. ``notes`` are what was decided on the way, to be told; ``operators`` counts operator layers."""

    graph: LayerGraph
    notes: tuple[str, ...]
    operators: int
    nested: int


def read_graph(
    source: Source, lambdas: Mapping[str, Function], input_size: tuple[int, int] | None = None, head: str | None = None
) -> ReadGraph:
    """Read a file's configuration and weights as a graph, layer by layer as it was written.

    Args:
        lambdas: what Lambda layers compute, by name, for those whose code cannot be decoded.
        input_size: (height, width) of a network whose own are open.
        head: the layer of the output to take, of a network with several.

    Raises:
        InputError: it is not a network of one picture, holds a layer that is not known here, or its weights do not
            fit; says which layer, why, and what to change.
    """
    if source.config is None:
        remedy = "--architecture model.json (of model.to_json()), or --network NAME where it is one of edge-ran's"
        raise InputError(f"{source.path} holds weights alone, and no architecture", remedy)
    reader = _Reader(source, lambdas, input_size, head)
    outputs = reader.model(source.config, source.weights, None, 0)
    if head is not None and not reader.is_head_found:
        raise InputError(f"{source.path} has one output", "leave --head away")
    if len(outputs) != 1:  # of a Sequential that ends in a model of several
        raise InputError(f"{source.path} ends in a model of {len(outputs)} outputs", "keras.Model(x, outputs[0])")
    if unused := sorted(set(lambdas) - reader.used_lambdas):
        raise InputError(f"no Lambda layer of {source.path} is called {unused[0]!r}", "leave --lambda away")
    reader.graph.output = outputs[0]
    return ReadGraph(reader.graph, tuple(reader.notes), reader.operators, reader.nested)


class _Reader:
    def __init__(
        self, source: Source, lambdas: Mapping[str, Function], input_size: tuple[int, int] | None, head: str | None
    ) -> None:
        self.source, self.lambdas, self.input_size, self.head = source, lambdas, input_size, head
        self.limits = Limits(source.path)
        self.is_head_found = False
        self.graph = LayerGraph({}, "")
        self.notes: list[str] = []
        self.used_lambdas: set[str] = set()
        self.operators = self.nested = 0

    # ------------------------------------------------------------------------------------------------- models

    def model(self, record: Any, weights: Weights, inputs: list[str] | None, depth: int) -> list[str]:
        """Add a model's layers; return the names of its outputs. ``inputs`` are None for the outermost."""
        kind, config = field_of(record, "class_name", str), record.get("config")
        if kind == "Sequential" and isinstance(config, list):  # before Keras 2.3
            config = {"layers": config}
        if kind not in GRAPHS or not isinstance(config, dict) or not isinstance(config.get("layers"), list):
            what = (
                f"{self.source.path} is a subclassed model ({shown(kind)}): its graph is Python code, which is not run"
            )
            remedy = (
                "where it was trained: x = keras.Input((H, W, 3)); keras.Model(x, model.call(x)).save('model.keras')"
            )
            raise InputError(what, remedy)
        if depth > _MOST_DEPTH:
            raise InputError(f"{self.source.path} has models inside models too deep", "flatten it")
        layers = [self.layer_record(one) for one in config["layers"]]
        self.limits.read_model(layers)
        if len({layer.name for layer in layers}) < len(layers):
            raise InputError(f"{self.source.path} has two layers of one name", "save the network again")
        stored = weights.open([(layer.name, layer.record["class_name"]) for layer in layers])
        for layer in layers:
            layer.weights = stored[layer.name]
        if kind == "Sequential":
            return self.sequential(config, layers, inputs, depth)
        return self.functional(config, layers, inputs, depth)

    def layer_record(self, record: Any) -> Layer:
        kind = field_of(record, "class_name", str)
        config = record.get("config")
        inner = config if isinstance(config, dict) else {}
        name = record.get("name") or inner.get("name") or kind.lower()
        if not isinstance(name, str):
            raise ValueError("a layer's name is no text")
        nodes = record.get("inbound_nodes", [])
        if not isinstance(nodes, list):
            raise ValueError(f"the calls of layer {shown(name)} are no list")
        return Layer(name, kinds.ALIASES.get(kind, kind), record, [call_of(node) for node in nodes])

    def sequential(
        self, config: dict[str, Any], layers: list[Layer], inputs: list[str] | None, depth: int
    ) -> list[str]:
        current = inputs
        for place, layer in enumerate(layers):
            if layer.kind == "InputLayer":
                current = current or [self.image(layer.record)]
                continue
            if current is None:
                own = layer.record.get("config")
                first = own if isinstance(own, dict) else {}
                shape = first.get("batch_input_shape") or first.get("batch_shape") or config.get("build_input_shape")
                if shape is None and layer.kind in GRAPHS and place == 0:
                    current = self.model(layer.record, _inside(layer), None, depth + 1)
                    continue
                current = [self.image({"config": {"batch_input_shape": shape, "name": "image"}})]
            (source,) = current
            current = self.call(layer, [Tensor(source)], {}, depth)
        if current is None:
            raise InputError(f"{self.source.path} has no layers", "save the network again")
        return current

    def functional(
        self, config: dict[str, Any], layers: list[Layer], inputs: list[str] | None, depth: int
    ) -> list[str]:
        by_name = {layer.name: layer for layer in layers}
        heads = list(ends_of(config.get("input_layers")))
        if inputs is not None and len(inputs) != len(heads):
            raise ValueError("a model is called with another number of inputs than it has")
        if inputs is None and len(heads) != 1:
            what = f"{self.source.path} takes {len(heads)} inputs; a camera gives one picture"
            raise InputError(what, "rebuild it with one Input")
        for place, head in enumerate(heads):
            layer = layer_of(by_name, head)
            layer.made[0] = [inputs[place] if inputs is not None else self.image(layer.record)]
        ends = list(ends_of(config.get("output_layers")))
        if inputs is None and len(ends) > 1:
            ends = [self.chosen(ends)]
        number_calls(by_name, ends)
        for layer, call in calls_in_order(by_name, ends, self.source.path):
            if call in layer.made:
                continue
            args, kwargs = layer.calls[call]
            resolve = resolver(by_name)
            layer.made[call] = self.call(layer, resolve(args), resolve(kwargs), depth)
        return [layer_of(by_name, end).made[end.call - layer_of(by_name, end).first_call][end.output] for end in ends]

    def chosen(self, ends: list[Ref]) -> Ref:
        """The output that was asked for, of several. The layers that it does not need are not built."""
        named = [end for end in ends if end.layer == self.head]
        if len(named) == 1:
            self.is_head_found = True
            return named[0]
        names = ", ".join(shown(end.layer, 40) for end in ends[:6]) + (", …" if len(ends) > 6 else "")
        if named:
            what = f"{self.source.path}: its layer {shown(self.head)} gives {len(named)} of its outputs"
            raise InputError(what, "keras.Model(model.input, model.outputs[0]) keeps the first")
        what = f"{self.source.path} has {len(ends)} outputs: {names}; a classifier has one"
        raise InputError(what, f"take one: --head {shown(ends[0].layer, 40)}")

    def image(self, record: dict[str, Any]) -> str:
        config = record.get("config")
        inner = config if isinstance(config, dict) else {}
        batched = inner.get("batch_input_shape") or inner.get("batch_shape")
        shape = batched[1:] if isinstance(batched, (list, tuple)) else inner.get("shape")
        if not isinstance(shape, (list, tuple)) or len(shape) not in (2, 3):
            what = f"{self.source.path} takes an input of shape {shown(shape)}, not a picture (height, width, 3)"
            raise InputError(what, "give a network of pictures")
        *sides, depth = shape if len(shape) == 3 else [*shape, 1]  # (28, 28) is grey
        if depth not in (1, 3):
            first = sides[0] in (1, 3)
            why = "channels first" if first else f"{shown(depth)} channels"
            raise InputError(
                f"{self.source.path} takes pictures of {why}; a camera's have three colours, channels last",
                "build it with data_format='channels_last' and an Input of (height, width, 3)",
            )
        if self.input_size is not None and None in sides:
            sides = list(self.input_size)
        if None in sides:
            raise InputError(f"{self.source.path} takes pictures of any size", "choose one: --input-size 224")
        if not all(type(side) is int and 0 < side <= _MOST_INPUT_SIDE for side in sides):
            raise InputError(f"{self.source.path} takes pictures of {shown(sides)} pixels", "give another network")
        if self.input_size is not None and tuple(sides) != self.input_size:
            raise InputError(
                f"{self.source.path} takes pictures of {sides[0]}x{sides[1]} and no others", "leave --input-size away"
            )
        if self.graph.nodes:
            raise InputError(f"{self.source.path} takes more than one input", "rebuild it with one Input")
        layer = keras_layers.InputLayer((*sides, 3), name=self.unique(str(inner.get("name") or "image")))
        self.graph.put(Node(keras_layers.InputLayer, layer.get_config(), (), (), (*sides, 3)))
        if depth == 3:
            return str(layer.name)
        grey = self.grey(str(layer.name))
        return grey if len(shape) == 3 else self.add("Reshape", {"target_shape": sides}, [grey], "without_channels")

    def grey(self, image: str) -> str:
        """Mix the colours of a picture for a network of grey ones, as OpenCV and Pillow do: a 1x1 convolution."""
        self.notes.append("it takes grey pictures: a 1x1 convolution mixes 0.299 R + 0.587 G + 0.114 B first")
        weights = np.array(_GREY, np.float32).reshape(1, 1, 3, 1)
        settings = {"filters": 1, "kernel_size": [1, 1], "use_bias": False}
        return self.add("Conv2D", settings, [image], "grey", [weights])

    # ------------------------------------------------------------------------------------------------- layers

    def call(self, layer: Layer, args: list[Any], kwargs: dict[str, Any], depth: int) -> list[str]:
        """Add one call of a layer; return the names of its outputs."""
        kind, record = layer.kind, layer.record
        try:
            if kind in GRAPHS:
                self.refuse_training(layer, kwargs)
                self.nested += 1
                return self.model(record, _inside(layer), tensors_of(args), depth + 1)
            if kind in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer") or self.is_operation(record):
                self.operators += 1
                return [operator_layers(self, layer.name, record, args, kwargs)]
            return [self.plain(layer, tensors_of(args), kwargs)]
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, ZeroDivisionError) as error:
            reason = shown(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, 120)
            what = f"{self.source.path}: layer {shown(layer.name)}, {shown(kind)}: {reason}"
            raise InputError(what, "replace it in the script, and save the network again") from error

    def is_operation(self, record: dict[str, Any]) -> bool:
        """True for an operation of Keras 3, which HDF5 files tell from the layer of the same name by what it lacks."""
        module, config = record.get("module"), record.get("config")
        if isinstance(module, str):
            return bool(re.match(r"keras(\.src)?\.ops\b", module))
        return self.source.keras == 3 and isinstance(config, dict) and "trainable" not in config

    def plain(self, layer: Layer, inputs: list[str], kwargs: dict[str, Any]) -> str:
        kind, config = layer.kind, layer.record.get("config")
        if not isinstance(config, dict):
            raise ValueError("it has no settings")
        if kind not in kinds.CALLED_AS_IN_TRAINING:
            self.refuse_training(layer, kwargs)
        if extra := sorted(k for k, v in kwargs.items() if k not in ("training", "mask") and v is not None):
            raise ValueError(f"it is called with {shown(extra[0])}, whose effect is not known here")
        if config.get("data_format") not in (None, "channels_last"):
            raise InputError(
                f"{self.source.path}: layer {shown(layer.name)} has its channels first",
                "keras.backend.set_image_data_format('channels_last') before the network is built",
            )
        if kind in kinds.TRAINING_ONLY:
            return self.add("Activation", {"activation": "linear"}, inputs, layer.name, training_only=kind)
        if kind == "Lambda":
            found = self.lambda_of(layer)
            if isinstance(found, OverChannels):
                return over_channels(self, found, inputs[0], layer.name)
            if isinstance(found, OverPicture):
                return over_picture(self, found, inputs[0], layer.name)
            return self.affine(found, inputs[0], layer.name)
        if kind not in kinds.SETTINGS:
            raise self.unknown_layer(layer)
        if setting := kinds.unknown_setting(kind, config):
            raise ValueError(f"its setting {shown(setting)} is not known here")
        settings = {key: config[key] for key in kinds.SETTINGS[kind] if config.get(key) is not None}
        if kind == "LeakyReLU" and "negative_slope" in config:
            settings["alpha"] = settings.pop("negative_slope", 0.0)
        _check_axis(kind, settings, len(self.graph.nodes[inputs[0]].shape))
        kinds.check_numbers([v for v in settings.values() if not isinstance(v, str)])
        assert layer.weights is not None
        activation = config.get("activation")
        if kind == "Activation" or activation not in (None, "linear"):
            return self.activated(layer, kind, settings, activation, inputs)
        arrays = layer.weights.arrays()
        if kind == "BatchNormalization" and config.get("renorm"):  # its last three count in training alone
            arrays = arrays[:-3]
        return self.add(kind, settings, inputs, layer.name, arrays)

    def activated(self, layer: Layer, kind: str, settings: dict[str, Any], activation: Any, inputs: list[str]) -> str:
        """Add a layer with an activation of its own: inside it where Keras 2 has the same, else behind it."""
        assert layer.weights is not None
        name = kinds.activation_name(activation)
        native = name in kinds.ACTIVATIONS or (name == "hard_sigmoid" and self.source.keras == 2)
        if native or name == "silu":
            settings = {**settings, "activation": "swish" if name == "silu" else name}
            return self.add(kind, settings, inputs, layer.name, layer.weights.arrays())
        last = (
            inputs[0] if kind == "Activation" else self.add(kind, settings, inputs, layer.name, layer.weights.arrays())
        )
        return self.activation(activation, last, layer.name)

    def activation(self, activation: Any, source: str, name: str) -> str:
        """Add an activation, a name or the record of a layer, behind ``source``."""
        if isinstance(activation, dict) and isinstance(activation.get("config"), dict):
            record = {"class_name": activation.get("class_name"), "config": activation["config"]}
            inner = Layer(f"{name}_activation", str(record["class_name"]), record, [])
            inner.weights = _NoWeights()
            if inner.kind not in ("ReLU", "LeakyReLU", "ELU", "Softmax"):
                raise ValueError(f"its activation {shown(inner.kind)} is not known here")
            return self.plain(inner, [source], {})
        known = kinds.activation_name(activation)
        parts = kinds.activation_parts(known, self.source.keras)
        if parts is None:
            raise InputError(
                f"{self.source.path}: layer {shown(name)} has the activation {shown(known)}, which is not known here",
                "use one of relu, relu6, leaky_relu, swish, hard_swish, sigmoid, hard_sigmoid, tanh, gelu, elu",
            )
        last = source
        for number, (kind, settings) in enumerate(parts, 1):
            readers = [source, last] if kind == "Multiply" else [last]
            last = self.add(kind, settings, readers, name if number == len(parts) else f"{name}_{known}{number}")
        return last

    def affine(self, found: Affine, source: str, name: str) -> str:
        """Add ``scale * x + offset``."""
        return self.add("Rescaling", {"scale": found.scale, "offset": found.offset}, [source], name)

    def add(
        self, kind: str, settings: dict[str, Any], inputs: list[str], name: str, weights: list[Array] | None = None,
        training_only: str = "",
    ) -> str:  # fmt: skip
        """Build a layer from its settings, check its weights and its output's size, and add it; return its name."""
        shapes = [self.graph.nodes[one].shape for one in inputs]
        if (kind in kinds.MERGING) != (len(inputs) > 1) and kind != "Concatenate":
            raise ValueError(f"it reads {len(inputs)} inputs")
        kinds.check_numbers([v for v in settings.values() if not isinstance(v, (str, dict))])
        made = kinds.layer_class(kind).from_config({**settings, "name": self.unique(name), "dtype": "float32"})
        config = made.get_config()
        config |= {key: "zeros" for key in config if key in ("kernel_initializer", "depthwise_initializer")}
        if training_only:
            config["name"] = made.name
        batched = [(1, *shape) for shape in shapes]
        output = made.compute_output_shape(batched if len(batched) > 1 else batched[0])
        shape = tuple(int(side) for side in tuple(output)[1:])
        wanted = kinds.weight_shapes(kind, config, shapes[0])
        own = self.weights(name, wanted, weights or [])
        self.limits.add_layer(shape, wanted)
        self.graph.put(Node(type(made), config, own, tuple(inputs), shape))
        return str(made.name)

    def weights(self, name: str, wanted: list[tuple[int, ...]], stored: list[Array]) -> tuple[Array, ...]:
        found = [one.shape for one in stored]
        if found != wanted:
            if wanted and not found:
                what = f"{self.source.path} has no weights of layer {shown(name)}, which needs {_listed(wanted)}"
            else:
                what = f"{self.source.path}: layer {shown(name)} needs weights {_listed(wanted)}, "
                what += f"the file has {_listed(found)}"
            raise InputError(what, "the weights are of another architecture; this is the first layer that differs")
        arrays = tuple(np.asarray(one, np.float32) for one in stored)
        if not all(np.isfinite(one).all() for one in arrays):
            raise InputError(
                f"{self.source.path}: layer {shown(name)} has weights that are NaN or infinite", "its training diverged"
            )
        return arrays

    def refuse_training(self, layer: Layer, kwargs: dict[str, Any]) -> None:
        if kwargs.get("training") not in (None, False, 0):
            what = f"{self.source.path}: layer {shown(layer.name)} is called with training=True, also when it predicts"
            raise InputError(what, f"build the network again with {shown(layer.name)}(x), without training=True")

    def lambda_of(self, layer: Layer) -> Function:
        if layer.name in self.lambdas:
            self.used_lambdas.add(layer.name)
            return self.lambdas[layer.name]
        affine = of_configuration(layer.record["config"])
        if affine is None:
            raise InputError(
                f"{self.source.path}: layer {shown(layer.name)} is a Lambda, Python code that is not run here",
                f"say what it computes, such as --lambda '{shown(layer.name)}=1 + x'; =mean(x) is over the channels, "
                "=global_mean(x) over height and width",
            )
        note = f"Lambda {shown(layer.name)} computes {affine}, read from its bytecode, which was not run"
        self.notes.append(note)
        return affine

    def unknown_layer(self, layer: Layer) -> InputError:
        registered = layer.record.get("registered_name")
        own = isinstance(registered, str) and ">" in registered
        what = f"{self.source.path}: layer {shown(layer.name)} is a {shown(layer.kind)}, "
        what += "a class of its author" if own else "which is not known here"
        return InputError(what, kinds.instead_of(shown(layer.kind)))

    def unique(self, name: str) -> str:
        """A name that Keras takes and that no other layer has."""
        clean = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[:80].strip("._-") or "layer"
        return self.graph.fresh(clean)


class _NoWeights:
    def arrays(self) -> list[Array]:
        return []

    def inside(self) -> Weights:
        raise ValueError("a layer without weights")


# ------------------------------------------------------------------------------------------- the parts of a record


def _inside(layer: Layer) -> Weights:
    assert layer.weights is not None
    return layer.weights.inside()


def _check_axis(kind: str, settings: dict[str, Any], rank: int) -> None:
    """Normalise an axis to the last one. Raises ValueError where it is another."""
    if "axis" not in settings or kind == "Concatenate":
        return
    axes = settings["axis"] if isinstance(settings["axis"], list) else [settings["axis"]]
    if [axis % (rank + 1) if type(axis) is int else axis for axis in axes] != [rank]:
        raise ValueError(
            f"it works along axis {shown(settings['axis'])}; only the last one, the channels, is known here"
        )
    settings["axis"] = -1


def _listed(shapes: list[tuple[int, ...]]) -> str:
    return shown(", ".join("x".join(map(str, shape)) or "1" for shape in shapes) or "none", 100)
