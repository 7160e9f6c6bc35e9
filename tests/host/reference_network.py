"""The indoor reference's network as its script draws it (``networks.NETWORKS["indoor56"]`` tells the sizes).

Each unit projects its shortcut with a 1x1 convolution on the raw input; masks upsample by nearest neighbour and end in
two 1x1 convolutions; the attention is ``Multiply([Lambda(x + 1)(M), T])``.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def reference(keras: Any, width: float = 0.25, classes: int = 6, form: str = "lambda", seed: int = 0) -> Any:
    """Draw it, with random weights and statistics that keep numbers of the size of one.

    Args:
        keras: ``tf_keras``, or ``keras`` of version 3.
        width: factor on all channels.
        form: of ``1 + M``: ``lambda``, or ``operator``.
    """
    kl = keras.layers
    keras.backend.clear_session()  # layers are numbered from the start, as in a script

    def unit(x: Any, inner: int, outer: int, stride: int = 1) -> Any:
        y = x
        for channels, kernel, strides in ((inner, 1, 1), (inner, 3, stride), (outer, 1, 1)):
            y = kl.Activation("relu")(kl.BatchNormalization()(y))
            y = kl.Conv2D(channels, kernel, strides=strides, padding="same")(y)
        return kl.Add()([y, kl.Conv2D(outer, 1, strides=stride, padding="same")(x)])

    def module(x: Any, channels: int, poolings: int) -> Any:
        def same(y: Any) -> Any:
            return unit(y, channels // 4, channels)

        x = same(x)
        trunk = same(same(x))
        mask = same(kl.MaxPooling2D(padding="same")(x))
        skips = []
        for _ in range(poolings - 1):
            skips.append(same(mask))
            mask = same(kl.MaxPooling2D(padding="same")(mask))
        for _ in range(poolings - 1):
            mask = kl.Add()([kl.UpSampling2D()(same(mask)), skips.pop()])
        mask = kl.UpSampling2D()(same(mask))
        mask = kl.Conv2D(channels, 1)(mask)  # one after the other: layers are numbered as they are created
        mask = kl.Activation("sigmoid")(kl.Conv2D(channels, 1)(mask))
        one = kl.Lambda(lambda x: x + 1)(mask) if form == "lambda" else mask + 1
        return same(kl.Multiply()([one, trunk]))

    def w(channels: int) -> int:
        return max(8, round(channels * width / 8) * 8)

    image = kl.Input((32, 32, 3))
    x = kl.Activation("relu")(kl.BatchNormalization()(kl.Conv2D(w(32), 5, padding="same")(image)))
    x = kl.MaxPooling2D()(x)
    for inner, outer, stride, poolings in ((32, 128, 1, 2), (128, 256, 2, 1), (256, 512, 2, 1)):
        x = module(unit(x, w(inner), w(outer), stride), w(outer), poolings)
    for inner in (512, 1024, 1024):
        x = unit(x, w(inner), w(1024))
    x = kl.Flatten()(kl.AveragePooling2D(4, strides=1)(x))
    model = keras.Model(image, kl.Dense(classes, activation="softmax")(x))
    random = np.random.default_rng(seed)
    for layer in model.layers:
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if len(shapes) == 4:
            layer.set_weights(
                [
                    random.uniform(0.5, 1.5, shapes[0]),
                    *random.normal(0, 0.3, (2, *shapes[0])),
                    random.uniform(0.5, 2, shapes[0]),
                ]
            )
        elif shapes:
            spread = np.sqrt(1 / np.prod(shapes[0][:-1]))
            layer.set_weights([random.normal(0, spread, shapes[0]), random.normal(0, 0.1, shapes[1])])
    return model
