"""What the soft masks look at: each attention module's mask laid over the picture."""

from __future__ import annotations

import cv2
import numpy as np
import tf_keras
from numpy.typing import NDArray

GATE = "_gate"  # the product mask * trunk, as networks.py names it
STRENGTH = 0.55  # of the colours over the picture


def masks(model: tf_keras.Model, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return every attention module's soft mask M (section 3.1), its mean over the channels.

    Args:
        model: a network of ``networks``, with its masks.
        images: (N, H, W, 3) float32, normalised.

    Returns:
        By module (``stage1_module1``), in the order of the network: (N, h, w) float32. A network without masks gives
        an empty dict.
    """
    gates = [layer for layer in model.layers if layer.name.endswith(GATE)]
    if not gates:
        return {}
    probe = tf_keras.Model(model.input, [gate.input[0] for gate in gates])
    outputs = probe.predict_on_batch(images)
    outputs = [outputs] if len(gates) == 1 else outputs
    return {gate.name.removesuffix(GATE): out.mean(-1) for gate, out in zip(gates, outputs, strict=True)}


def overlay(frame: NDArray[np.uint8], mask: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay a mask over a picture: dark violet where the mask is lowest in it, yellow where it is highest.

    Args:
        frame: (H, W, 3) uint8 BGR.
        mask: (h, w) of any range.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    low, high = float(mask.min()), float(mask.max())
    level = ((mask - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
    large = cv2.resize(level, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_CUBIC)
    colours = cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS)
    return np.asarray(cv2.addWeighted(colours, STRENGTH, frame, 1 - STRENGTH, 0), np.uint8)
