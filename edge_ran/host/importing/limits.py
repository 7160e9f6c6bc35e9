"""How much a file of somebody else may ask for: a few kilobytes can call layers and models any number of times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from edge_ran.errors import InputError
from edge_ran.host.importing.calls import Layer
from edge_ran.host.importing.source import shown

_MOST_LAYERS = 10_000
_MOST_CALLS = 2 * _MOST_LAYERS  # some add no layer, such as those of models inside
_MOST_ELEMENTS = 1 << 26  # of one layer's output
_MOST_OUTPUT_ELEMENTS = 1 << 34  # of the outputs of all layers, for one picture
_LEAST_WEIGHTS = 1 << 26  # that a small file may ask for, by layers that are called several times
_REMEDY = "give another network"


class Limits:
    """Counts what a file asks for while its graph is read, and refuses what no network needs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # As many as the file has bytes: four times what it stores in float32, twice in float16.
        self.most_weights = max(_LEAST_WEIGHTS, path.stat().st_size)
        self.calls = self.layers = self.weights = self.output_elements = 0

    def read_model(self, layers: Sequence[Layer]) -> None:
        """Count the calls of a model's layers, each time that the model is called. Raises InputError for too many."""
        self.calls += 1 + sum(max(1, len(layer.calls)) for layer in layers)
        if self.calls > _MOST_CALLS:
            what = f"{self.path} calls its layers more than {_MOST_CALLS:,} times, with those of models inside it"
            raise InputError(what, _REMEDY)

    def add_layer(self, shape: tuple[int, ...], weights: Sequence[tuple[int, ...]]) -> None:
        """Count a layer by the shapes of its output and of its weights.

        Raises:
            InputError: the network is too large.
            ValueError: the layer's output is.
        """
        self.layers += 1
        if self.layers > _MOST_LAYERS:
            raise InputError(f"{self.path} has more than {_MOST_LAYERS:,} layers", _REMEDY)
        if math.prod(shape) > _MOST_ELEMENTS or any(side <= 0 for side in shape):
            raise ValueError(f"its output would be {shown(shape)}")
        self.output_elements += math.prod(shape)
        if self.output_elements > _MOST_OUTPUT_ELEMENTS:
            what = f"the outputs of {self.path}'s layers have more than {_MOST_OUTPUT_ELEMENTS:,} numbers together"
            raise InputError(what, _REMEDY)
        self.weights += sum(map(math.prod, weights))
        if self.weights > self.most_weights:
            what = f"{self.path} would need more than {self.most_weights:,} weights: it uses those it has many times"
            raise InputError(what, _REMEDY)
