"""Draws the README's pictures: ``python docs/pictures.py [flow] [module] [attention] [live] [phone] [report PAGE]``.

``flow.svg`` and ``attention-module.svg`` need nothing; ``attention.webp`` and ``live.webp`` show the shipped network;
``phone.webp`` is the page of ``edge-ran export --web`` in Chromium, in a phone's size; ``report.webp`` needs Chromium
and a page that ``edge-ran demo`` made.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
STYLE = """
svg { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
text { fill: #1d2530; text-anchor: middle; dominant-baseline: central; }
.small { font-size: 12px; fill: #5b6675; }
.left { text-anchor: start; }
.big { font-size: 17px; font-weight: 600; }
.mono { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 13px; }
.box { fill: #ffffff; stroke: #8a96a5; }
.trunk { fill: #d6eaf8; stroke: #0072b2; }
.mask { fill: #fdebd0; stroke: #b9770e; }
.file { fill: #f2f4f7; stroke: #8a96a5; }
.line { fill: none; stroke: #5b6675; stroke-width: 1.5; marker-end: url(#head); }
.skip { stroke-dasharray: 4 3; }
.head { fill: #5b6675; }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e9ef; } .small { fill: #9aa6b4; } .box { fill: #1a2029; stroke: #6b7888; }
  .trunk { fill: #16374f; stroke: #56b4e9; } .mask { fill: #43310f; stroke: #e0a030; }
  .file { fill: #232b36; stroke: #6b7888; } .line { stroke: #9aa6b4; } .head { fill: #9aa6b4; }
}
"""
DEFS = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>'
)


class Drawing:
    """An SVG in the making; coordinates in pixels, (x, y) the centre of what is placed."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">',
            f"<title>{title}</title><style>{STYLE}</style>{DEFS}",
        ]

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        self.lines.append(f'<text x="{x}" y="{y}" class="{kind}">{text}</text>')

    def box(self, x: float, y: float, width: float, height: float, *texts: str, kind: str = "box") -> None:
        self.lines.append(
            f'<rect class="{kind}" x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" rx="7"/>'
        )
        for i, text in enumerate(texts):
            place = y + 18 * (i - (len(texts) - 1) / 2)
            self.text(x, place, text, "" if i == 0 else "small")

    def circle(self, x: float, y: float, text: str) -> None:
        self.lines.append(f'<circle class="box" cx="{x}" cy="{y}" r="15"/>')
        self.text(x, y, text, "big")

    def line(self, *points: tuple[float, float], kind: str = "") -> None:
        path = " ".join(f"{x} {y}" for x, y in points)
        self.lines.append(f'<path class="line {kind}" d="M{path}"/>')

    def write(self, path: Path) -> None:
        path.write_text("\n".join([*self.lines, "</svg>"]) + "\n", encoding="utf-8")


def module() -> None:
    """The attention module of section 3 with two poolings in its mask, as in the first stage of ``edge50``."""
    d = Drawing(1060, 325, "Attention module: trunk branch, soft mask branch, and their product")
    top, low, skip = 85, 205, 265
    d.text(18, top, "x")
    d.line((30, top), (50, top))
    d.box(92, top, 84, 50, "unit", "p times")
    d.line((134, top), (428, top))
    d.box(512, top, 168, 50, "trunk branch T", "t units", kind="trunk")
    d.line((596, top), (849, top))
    d.line((160, top), (160, low), (188, low))
    # The mask's stations: centre, texts. Its last circle adds the skip connection.
    stations = {220: ("pool", "÷ 2"), 306: ("unit", "r times"), 392: ("pool", "÷ 2"), 478: ("unit", "2r times"),
                564: ("resize", "× 2"), 700: ("unit", "r times"), 786: ("resize", "× 2")}  # fmt: skip
    for x, texts in stations.items():
        d.box(x, low, 64, 50, *texts, kind="mask")
    for x in (220, 306, 392, 478, 700):
        d.line((x + 32, low), (x + 54, low))
    d.line((596, low), (617, low))
    d.circle(632, low, "+")
    d.line((647, low), (668, low))
    d.line((818, low), (838, low))
    d.box(890, low, 104, 50, "1×1, 1×1", "sigmoid: M", kind="mask")
    d.line((349, low), (349, skip), (440, skip), kind="skip")
    d.box(478, skip, 76, 30, "unit", kind="mask")
    d.line((516, skip), (632, skip), (632, low + 16), kind="skip")
    d.text(574, skip + 14, "skip connection", "small")
    d.line((864, low - 25), (864, top + 16))
    d.circle(864, top, "×")
    d.line((800, top), (800, 38), (912, 38), (912, top - 16))
    d.line((879, top), (896, top))
    d.circle(912, top, "+")
    d.line((927, top), (948, top))
    d.box(990, top, 84, 50, "unit", "p times")
    d.line((1032, top), (1054, top))
    d.text(512, 30, "H(x) = (1 + M(x)) · T(x)", "big")
    d.text(
        530,
        308,
        "M is between 0 and 1, a value for each position and channel; units are pre-activation bottlenecks",
        "small",
    )
    d.write(HERE / "attention-module.svg")


def flow() -> None:
    """Files are the interface: what each verb takes and leaves."""
    d = Drawing(1000, 170, "From photos to answers: train, convert, then run, evaluate and benchmark on the device")
    y = 62
    d.box(78, y, 124, 56, "photos", "a folder a class", kind="file")
    d.line((140, y), (258, y))
    d.text(198, y - 14, "train", "mono")
    d.box(330, y, 144, 56, "run folder", "network, card, curves", kind="file")
    d.line((402, y), (520, y))
    d.text(460, y - 14, "convert", "mono")
    d.box(600, y, 160, 56, "int8.tflite", "says what it needs", kind="file")
    for place, verb, note in (
        (24, "run", "answers of a camera"),
        (62, "evaluate", "how right"),
        (100, "benchmark", "how fast"),
    ):
        d.line((680, y), (700, y), (716, place), (738, place))
        d.text(786, place, verb, "mono")
        d.text(836, place, note, "small left")
    d.line((330, 90), (330, 128), (290, 128), (290, 92), kind="skip")
    d.text(380, 118, "quantize", "mono")
    d.text(198, 150, "on a PC: edge-ran[host], TensorFlow", "small")
    d.text(800, 150, "on the device: edge-ran, no TensorFlow", "small")
    d.lines.append('<path class="line skip" style="marker-end: none" d="M560 106 560 165"/>')
    d.write(HERE / "flow.svg")


def attention() -> None:
    """What the shipped network's masks look at, on pictures of ``calibration_data/``."""
    import cv2
    import numpy as np

    from edge_ran import catalogue
    from edge_ran.attention import tint
    from edge_ran.classifier import Classifier
    from edge_ran.picture import read_picture
    from edge_ran.runs import SHIPPED, SHIPPED_TFLITE

    names = ("chelsea-00", "rocket-03", "astronaut-00", "coffee-00", "china-03", "flower-02", "camera-00")
    frames = [read_picture(catalogue.folder("calibration_data") / f"{name}.jpg") for name in names]
    side, gap = 132, 6
    columns = []
    with Classifier(SHIPPED / "edge50" / SHIPPED_TFLITE, attention=True) as classifier:
        for frame in frames:
            square = np.asarray(cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
            classifier.scores(square)
            columns.append([square])
            for look in classifier.looks(square):
                tint(tinted := square.copy(), look)
                columns[-1].append(tinted)
    rows = list(zip(*columns, strict=True))
    sheet = np.full((len(rows) * (side + gap) - gap, len(names) * (side + gap) - gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, square in enumerate(row):
            sheet[i * (side + gap) :, j * (side + gap) :][:side, :side] = square
    cv2.imwrite(str(HERE / "attention.webp"), sheet, [cv2.IMWRITE_WEBP_QUALITY, 82])


def live() -> None:
    """Frames of ``edge-ran run --attention`` on a clip of pictures of ``calibration_data/``, as it saves them.

    The clip goes through the command, and a frame of each picture goes from the recording to the sheet.
    """
    import cv2
    import numpy as np

    from edge_ran import catalogue
    from edge_ran.host.demo import make_clip
    from edge_ran.picture import read_picture

    names = ("chelsea-00", "chelsea-10", "camera-00", "coffee-00", "china-00", "flower-02")
    frames = [read_picture(catalogue.folder("calibration_data") / f"{name}.jpg") for name in names]
    with tempfile.TemporaryDirectory() as folder:
        clip, saved = Path(folder) / "clip.avi", Path(folder) / "saved.avi"
        make_clip(frames, clip)
        words = ["run", "--camera", clip, "--no-realtime", "--attention", "--save", saved, "--cpu", "-q"]
        words += ["--top-k", 1, "--threshold", 0.9]
        command = [sys.executable, "-m", "edge_ran", *map(str, words)]
        subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL, cwd=folder)
        reader, shown = cv2.VideoCapture(str(saved)), []
        while (picture := reader.read()[1]) is not None:
            shown.append(picture)
    each = len(shown) // len(names)
    chosen = shown[each // 2 :: each]
    gap, (height, width) = 6, chosen[0].shape[:2]
    sheet = np.full((2 * height + gap, 3 * width + 2 * gap, 3), 255, np.uint8)
    for i, picture in enumerate(chosen):
        sheet[i // 3 * (height + gap) :, i % 3 * (width + gap) :][:height, :width] = picture
    cv2.imwrite(str(HERE / "live.webp"), sheet, [cv2.IMWRITE_WEBP_QUALITY, 80])


def phone() -> None:
    """The page on a phone: Chromium in a phone's size, whose camera plays a picture of ``calibration_data/``."""
    import cv2
    import numpy as np

    sys.path.insert(0, str(HERE.parent / "tests"))
    from browser import chromium, static_server, wait_for, write_y4m

    from edge_ran import catalogue
    from edge_ran.classifier import with_masks
    from edge_ran.phone.site import SiteOptions, export_site
    from edge_ran.picture import read_picture
    from edge_ran.runs import SHIPPED, SHIPPED_TFLITE

    width, height = 360, 680
    screen = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": True}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = read_picture(catalogue.folder("calibration_data") / "chelsea-00.jpg")
        write_y4m(
            folder / "cat.y4m", np.asarray(cv2.resize(picture, (480, 480), interpolation=cv2.INTER_AREA), np.uint8)
        )
        model = with_masks(SHIPPED / "edge50" / SHIPPED_TFLITE, folder / "edge50.tflite")
        site = export_site([model], folder / "site", SiteOptions(threshold=0.5))
        with static_server(site.folder) as url, chromium(folder / "profile", folder / "cat.y4m") as browser:
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
            browser.get(url)
            while int(wait_for(browser, "frames")["frames"]) < 20:
                pass
            data = np.frombuffer(browser.get_screenshot_as_png(), np.uint8)
    cv2.imwrite(str(HERE / "phone.webp"), cv2.imdecode(data, cv2.IMREAD_COLOR), [cv2.IMWRITE_WEBP_QUALITY, 80])


def report(page: Path) -> None:
    """The top of a demo page as Chromium shows it."""
    import cv2

    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1330"]
        subprocess.run(["chromium", *words, f"--screenshot={shot}", page.resolve().as_uri()], check=True, timeout=120)
        cv2.imwrite(str(HERE / "report.webp"), cv2.imread(str(shot)), [cv2.IMWRITE_WEBP_QUALITY, 80])


def main(words: list[str]) -> None:
    if "report" in words:
        report(Path(words[words.index("report") + 1]))
    for name, draw in (("flow", flow), ("module", module), ("attention", attention), ("live", live), ("phone", phone)):
        if name in words:
            draw()


if __name__ == "__main__":
    main(sys.argv[1:] or ["flow", "module"])
