"""A run folder's network and card, checked against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tf_keras

from edge_ran import architecture, runs
from edge_ran.card import ModelCard
from edge_ran.errors import InputError
from edge_ran.host import networks
from edge_ran.printable import many


def read_run(run: Path) -> tuple[tf_keras.Model, ModelCard]:
    """Return a run folder's network and card.

    Raises:
        InputError: it is no run folder, its files are damaged, or they do not belong together.
    """
    run = runs.named(Path(run))
    if run.suffix == ".tflite":
        raise InputError(f"{run} is converted already", "give the run folder that it was made from")
    if not run.exists() and str(run).replace("-", "_") in architecture.NETWORKS:
        raise InputError(f"{run} is a network, not a run", f"train it first: edge-ran train DATA --network {run}")
    folder = runs.open_run(run)
    card, model = folder.card(), networks.load(folder.model_path)
    spec, classes = card.input, model.output_shape[-1]
    if model.input_shape[1:] != (spec.height, spec.width, 3):
        raise InputError(f"{run}: the card says {spec.height}x{spec.width}, the network takes {model.input_shape[1:]}")
    if classes != len(card.labels):
        raise InputError(
            f"{run}: {many(len(card.labels), 'label')} for a network of {many(classes, 'output')}", "train it again"
        )
    for layer in model.layers:
        if not all(np.isfinite(w).all() for w in layer.get_weights()):
            what = f"{run}: layer {layer.name} has weights that are NaN or infinite"
            raise InputError(what, "its training diverged: train again with a lower learning rate")
    return model, card
