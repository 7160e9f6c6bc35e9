"""What docs/apps.md says of other programs that read our files, checked with MediaPipe Tasks itself."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_ran import catalogue
from edge_ran.card import InputSpec, ModelCard
from edge_ran.classifier import Classifier
from edge_ran.graph import attach_card, read_card
from edge_ran.picture import read_picture
from edge_ran.pictures import some_pictures
from edge_ran.preprocess import fit_pixels
from edge_ran.runs import SHIPPED, SHIPPED_TFLITE

SHIPPED_FILE = Path(str(SHIPPED / "edge50" / SHIPPED_TFLITE))
PICTURES = 20
CARD = ModelCard("colours", ("red", "green", "blue"), InputSpec(16, 16))

MEDIAPIPE = """
import json, sys
import numpy as np
import mediapipe
from mediapipe.tasks.python import BaseOptions, vision

for path, pictures in json.load(open(sys.argv[1])):
    options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=path), max_results=-1)
    try:
        with vision.ImageClassifier.create_from_options(options) as classifier:
            found = []
            for picture in np.load(pictures, allow_pickle=True):
                image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
                categories = classifier.classify(image).classifications[0].categories
                found.append({category.category_name: category.score for category in categories})
            print(json.dumps(found))
    except Exception as error:
        print(json.dumps(str(error)))
"""

Frames = list[NDArray[np.uint8]]


def mediapipe(python: str, folder: Path, jobs: list[tuple[Path, Frames]]) -> list[Any]:
    """MediaPipe's scores by label for BGR frames, a list for each file; or the text of its error."""
    asked = []
    for number, (model, frames) in enumerate(jobs):
        kept = np.empty(len(frames), object)
        kept[:] = [frame[:, :, ::-1] for frame in frames]
        np.save(folder / f"{number}.npy", kept, allow_pickle=True)
        asked.append((str(model), str(folder / f"{number}.npy")))
    (folder / "jobs.json").write_text(json.dumps(asked), encoding="utf-8")
    child = subprocess.run([python, "-c", MEDIAPIPE, folder / "jobs.json"], capture_output=True, text=True, timeout=120)
    assert child.returncode == 0, child.stderr[-1000:]
    return [json.loads(line) for line in child.stdout.splitlines() if line[:1] in '["']


def ours(model: Path, frames: Frames) -> list[dict[str, float]]:
    with Classifier(model) as classifier:
        return [{one.label: one.score for one in classifier.classify(frame)} for frame in frames]


def best(scores: dict[str, float]) -> str:
    return max(scores, key=lambda label: scores[label])


def largest_difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    return max(abs(a[label] - b[label]) for a, b in zip(one, other, strict=True) for label in a)


def with_card(folder: Path, name: str, test_models: Path, **words: Any) -> Path:
    card = dataclasses.replace(CARD, **words)
    path = folder / f"{len(list(folder.glob('*.tflite')))}-{name}.tflite"
    path.write_bytes(attach_card((test_models / f"{name}.tflite").read_bytes(), card))
    return path


def test_what_mediapipe_tasks_does_with_our_files(mediapipe_python: str, test_models: Path, tmp_path: Path) -> None:
    folder = catalogue.folder("calibration_data")
    frames = [read_picture(path) for path in some_pictures(folder, PICTURES)]
    with Classifier(SHIPPED_FILE) as classifier:
        spec = classifier.spec
    shrunk = [fit_pixels(frame, spec) for frame in frames]
    shrunk = [pixels if spec.color == "bgr" else np.ascontiguousarray(pixels[:, :, ::-1]) for pixels in shrunk]
    size = (spec.width, spec.height)
    nearest = [np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST), np.uint8) for frame in frames]
    wide: Frames = [np.zeros((16, 48, 3), np.uint8)]
    wide[0][:, :16, 2], wide[0][:, 16:32, 1], wide[0][:, 32:, 0] = 200, 150, 90  # red, green, blue from left to right
    plain, cropped = (
        with_card(tmp_path, "float32", test_models, input=InputSpec(16, 16, fit=fit)) for fit in ("stretch", "crop")
    )
    warm = with_card(tmp_path, "uint8", test_models, temperature=4.0)
    cool = with_card(tmp_path, "uint8", test_models)
    int8 = with_card(tmp_path, "int8", test_models)
    square: Frames = [np.asarray(wide[0][:, 8:24])]
    raw, prepared, of_crop, of_warm, refused = mediapipe(
        mediapipe_python,
        tmp_path,
        [(SHIPPED_FILE, frames), (SHIPPED_FILE, shrunk), (cropped, wide), (warm, square), (int8, square)],
    )
    # Pictures of the network's own size are answered as we answer them.
    card = read_card(SHIPPED_FILE)
    assert card is not None
    assert card.temperature != 1
    uncalibrated = tmp_path / "uncalibrated.tflite"
    uncalibrated.write_bytes(attach_card(SHIPPED_FILE.read_bytes(), dataclasses.replace(card, temperature=1.0)))
    right = ours(uncalibrated, frames)
    assert [best(one) for one in prepared] == [best(one) for one in right]
    assert largest_difference(prepared, right) < 0.01
    # Larger ones are shrunk by nearest neighbour, and many get another answer: 9 of 20 when this was written.
    assert largest_difference(raw, ours(uncalibrated, nearest)) < 0.01
    assert sum(best(one) == best(other) for one, other in zip(raw, right, strict=True)) <= 0.8 * PICTURES
    # It does not know "crop", nor the temperature of our scores.
    assert largest_difference(of_crop, ours(plain, wide)) < largest_difference(of_crop, ours(cropped, wide))
    assert largest_difference(of_warm, ours(cool, square)) < 0.02 < largest_difference(of_warm, ours(warm, square))
    assert "INT8" in refused
