"""Fetches LiteRT.js, on which pages in a browser run: its pinned packages, with npm; checks their hashes; keeps them.

    python scripts/web_runtime.py                 # into the user's cache, where `edge-ran export --web` looks
    python scripts/web_runtime.py --wheel dist    # and as the data package edge_ran_web, for machines without npm

To renew the pin: set VERSION in edge_ran/phone/assets.py, run `npm pack @litertjs/core@VERSION` and the same for
`@litertjs/wasm-utils`, put the files' SHA-256 into TARBALLS, and run the tests of the phone in a browser.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from edge_ran.errors import EdgeRanError
from edge_ran.phone import assets

METADATA = f"""Metadata-Version: 2.1
Name: edge-ran-web
Version: {assets.VERSION}
Summary: LiteRT.js for the pages that edge-ran exports
License: Apache-2.0
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: edge-ran\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def fetch() -> Path:
    """Put the runtime into the user's cache, and return the folder."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm is missing: apt install npm, or brew install node")
    with tempfile.TemporaryDirectory(prefix="edge-ran-") as folder:
        names = [f"@litertjs/{name}@{assets.VERSION}" for name in ("core", "wasm-utils")]
        subprocess.run([npm, "pack", "--silent", *names], cwd=folder, stdout=subprocess.DEVNULL, check=True)
        return assets.find(Path(folder))


def build_wheel(runtime: Path, target: Path) -> Path:
    """Write the data package as a wheel into ``target``, and return its path."""
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"edge_ran_web-{assets.VERSION}-py3-none-any.whl"
    info = f"edge_ran_web-{assets.VERSION}.dist-info"
    license_text = (Path(__file__).resolve().parents[1] / "LICENSE").read_bytes()  # Apache-2.0, LiteRT.js's as well
    members = {f"edge_ran_web/{name}": (runtime / name).read_bytes() for name in assets.FILES}
    members |= {
        "edge_ran_web/__init__.py": b'"""LiteRT.js, for `edge-ran export --web`."""\n',
        f"{info}/licenses/LICENSE": license_text,
        f"{info}/METADATA": METADATA.encode(),
        f"{info}/WHEEL": WHEEL.encode(),
    }
    lines = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in members.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(data)}\n")
            wheel.writestr(name, data)
        wheel.writestr(f"{info}/RECORD", "".join([*lines, f"{info}/RECORD,,\n"]))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, metavar="FOLDER", help="also build the data package there")
    wheel = parser.parse_args().wheel
    try:
        try:
            runtime = assets.find()
        except EdgeRanError:
            runtime = fetch()
    except EdgeRanError as error:
        sys.exit(f"{error}\n  {error.remedy}")
    print(runtime)
    if wheel:
        print(build_wheel(runtime, wheel))


if __name__ == "__main__":
    main()
