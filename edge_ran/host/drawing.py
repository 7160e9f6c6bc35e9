"""Draws functional networks of layers that are known to fit, in half the time.

Keras learns the shape of a layer's output by tracing the layer in a graph of its own, which is thrown away. Each layer
of Keras also has a rule for it, which costs nothing, but checks less: for networks of ours and what they are rewritten
to, not for files of others.
"""

from __future__ import annotations

from typing import Any

from tf_keras import layers


def connect(layer: layers.Layer, inputs: Any) -> Any:
    """Return ``layer(inputs)``: Keras tensors of the shapes that the layer's ``compute_output_shape`` tells."""
    layer._maybe_build(inputs)
    layer._dynamic = True  # as of one that nothing can trace, for which Keras asks that rule
    try:
        return layer(inputs)
    except NotImplementedError:  # RandomBrightness alone has no such rule
        pass
    finally:
        layer._dynamic = False
    return layer(inputs)
