"""Make a run folder of what train_twin.py wrote: python scripts/cifar/as_run.py WEIGHTS.npz CIFAR10 RUN

The Keras network gets the weights, and must answer to the 64 pictures in WEIGHTS.npz what PyTorch answered: the
largest difference of a probability is printed, and more than 1e-4 is refused. RUN receives `model.keras`, `card.json`
and some of the training pictures, CIFAR10, to calibrate int8 on: `edge-ran convert RUN --int8` and all other verbs
work with it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran.architecture import named
from edge_ran.card import InputSpec, ModelCard, Training
from edge_ran.dataset.sketch import sketch
from edge_ran.files import write_text
from edge_ran.host import calibration, model_cards, networks
from edge_ran.host.scoring import Examples
from edge_ran.picture import read_picture

MOST = 1e-4


def as_keras(name: str, value: NDArray[np.float32]) -> NDArray[np.float32]:
    if not name.endswith("/kernel"):
        return value
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def network(arrays: Any) -> tuple[Any, dict[str, Any], float]:
    """Return the Keras network with the weights, the record of the training, and the largest difference of answers."""
    record = json.loads(str(arrays["record"]))
    model = networks.build(named(record["network"]))
    for layer in model.layers:
        for variable in layer.weights:
            name = f"{layer.name}/{variable.name.split(':')[0].rpartition('/')[2]}"
            variable.assign(as_keras(name, arrays[name]))
    said = model((arrays["pixels"].astype(np.float32) - 128) / 128, training=False).numpy()
    logits = arrays["answers"].astype(np.float64)
    softmax = np.exp(logits - logits.max(1, keepdims=True))
    return model, record, float(np.abs(said - softmax / softmax.sum(1, keepdims=True)).max())


def read_rgb(path: Path) -> NDArray[np.uint8]:
    return np.ascontiguousarray(read_picture(path)[..., ::-1])


def card(record: dict[str, Any], files: Sequence[Path]) -> ModelCard:
    a, smaller = named(record["network"]), record.get("grown_from")
    grown = f" after {smaller['epochs']} as {smaller['network']}" if smaller else ""
    return ModelCard(
        name=f"{a.name}-cifar10",
        labels=tuple(record["labels"]),
        input=InputSpec(a.input_size, a.input_size),
        network=a.name,
        options=a,
        training=Training(
            dataset="cifar10",
            split_by="picture",
            train_images=record["images"],
            # So that no verb judges the network on what it has learnt; with --hold-out nobody knows what that is.
            pictures=sketch(map(read_rgb, files)) if record["images"] == len(files) else "",
            seed=record["seed"],
            best_epoch=record["epochs"],
            precision="bfloat16",
            description=f"scripts/cifar trained it with PyTorch {record['torch']} ({record['device']}) on "
            f"{record['images']:,} pictures, {record['epochs']} epochs{grown}; the averaged "
            "weights after the last one.",
        ),
        versions=model_cards.versions(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("weights", "cifar10", "run"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    with np.load(given.weights) as arrays:
        model, record, difference = network(arrays)
    print(f"{record['network']}: Keras and PyTorch differ by {difference:.1e} at most")
    if difference > MOST:
        raise SystemExit("these are not the same network")
    given.run.mkdir(parents=True, exist_ok=True)
    networks.save(model, given.run / "model.keras")
    files = sorted(given.cifar10.glob("*/*"))
    write_text(given.run / "card.json", card(record, files).to_json())
    chosen = np.sort(np.random.default_rng(0).permutation(len(files))[: calibration.KEPT])
    pixels = np.stack([read_rgb(files[i]) for i in chosen])
    labels = np.array([record["labels"].index(files[i].parent.name) for i in chosen], np.int32)
    calibration.keep(given.run, Examples(pixels, labels))


if __name__ == "__main__":
    main()
