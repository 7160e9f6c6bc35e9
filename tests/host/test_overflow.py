"""Networks whose numbers outgrow float32 are refused before the converter ends the process."""

import numpy as np
import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

from edge_ran.card import InputSpec
from edge_ran.errors import InputError
from edge_ran.host import networks
from edge_ran.host.overflow import check_activations


def test_a_layer_that_outgrows_float32_is_named() -> None:
    layers = networks.tf_keras.layers
    image = layers.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="large", kernel_initializer="ones")(image)
    x = layers.Activation("sigmoid")(layers.Conv2D(2, 3, name="larger", kernel_initializer="ones")(x))
    model = networks.tf_keras.Model(image, layers.GlobalAveragePooling2D()(x))
    pixels = np.full((3, 8, 8, 3), 255, np.uint8)
    check_activations(model, pixels, InputSpec(8, 8))
    model.get_layer("larger").set_weights([w * 1e32 for w in model.get_layer("larger").get_weights()])
    with pytest.raises(InputError, match="layer larger computes"):
        check_activations(model, pixels, InputSpec(8, 8))
