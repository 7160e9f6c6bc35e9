"""Make ``calibration_data/``: crops at several scales of freely licensed photographs that PyPI packages carry.

    pip install scikit-image==0.26.0 scikit-learn==1.9.1
    python scripts/make_calibration_data.py calibration_data

The same versions give the same pictures. Origins and licences: ``calibration_data/README.md``.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

SIDE = 128  # pixels
LEAST_CONTRAST = 12  # standard deviation of the grey levels; an empty sky shows nothing
QUALITY = 88  # of the JPEG
SHARES = (1.0, 0.8, 0.6, 0.45, 0.35)  # of the photograph's shorter side that a crop takes

# Package, file, number of crops.
PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png", 14),
    ("skimage", "data/camera.png", 8),
    ("skimage", "data/chelsea.png", 18),
    ("skimage", "data/coffee.png", 16),
    ("skimage", "data/coins.png", 4),
    ("skimage", "data/rocket.jpg", 14),
    ("skimage", "data/brick.png", 3),
    ("skimage", "data/grass.png", 3),
    ("skimage", "data/gravel.png", 3),
    ("sklearn", "datasets/images/china.jpg", 20),
    ("sklearn", "datasets/images/flower.jpg", 17),
)


def crops(photograph: np.ndarray, count: int, random: np.random.Generator) -> list[np.ndarray]:
    """Return ``count`` square crops of (SIDE, SIDE, 3), the whole width first, half of them mirrored."""
    height, width = photograph.shape[:2]
    chosen: list[np.ndarray] = []
    while len(chosen) < count:
        side = max(SIDE, int(min(height, width) * SHARES[len(chosen) % len(SHARES)]))
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        crop = photograph[top : top + side, left : left + side]
        crop = cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        if cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).std() < LEAST_CONTRAST:
            continue
        chosen.append(crop[:, ::-1] if len(chosen) % 2 else crop)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(2017)
    for package, file, count in PHOTOGRAPHS:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package} is not installed: see the first lines of this script")
        path = Path(spec.origin).parent / file
        photograph = cv2.imread(str(path))
        if photograph is None:
            raise SystemExit(f"{path} is missing")
        for i, crop in enumerate(crops(photograph, count, random)):
            name = f"{path.stem}-{i:02d}.jpg"
            cv2.imwrite(str(output / name), crop, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main()
