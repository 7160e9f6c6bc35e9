from __future__ import annotations

import csv
import errno
import io
import os
import re
import shutil
import struct
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ran import collect, dataset
from edge_ran.collect import candidates, spool
from edge_ran.errors import EnvironmentMissing, InputError, OutputExists, UsageError

pytest.importorskip("imagehash", reason="needs edge-ran[clips]")


def scene(seed: int, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """A picture of large random rectangles: sharp, and unlike that of another seed."""
    random = np.random.default_rng(seed)
    frame = np.full((*size, 3), 127, np.uint8)
    for _ in range(25):
        y, x = random.integers(0, size[0] - 30), random.integers(0, size[1] - 30)
        h, w = random.integers(15, 60, 2)
        frame[y : y + h, x : x + w] = random.integers(0, 255, 3)
    return frame


def blurred(frame: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(frame, (0, 0), 9)


def clip(path: Path, frames: list[np.ndarray], fps: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, frames[0].shape[1::-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def photo(path: Path, frame: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), frame)
    return path


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two classes, each with two clips of four different seconds."""
    for c, label in enumerate(("hall", "stairs")):
        for k in range(2):
            seconds = [scene(100 * c + 10 * k + s) for s in range(4)]
            clip(tmp_path / "walk" / label / f"clip{k}.mp4", [s for s in seconds for _ in range(8)])
    return tmp_path / "walk"


def test_a_sharp_frame_of_every_second_and_whole_clips_held_out(source: Path, tmp_path: Path):
    made = collect.build([source], tmp_path / "set", page=False)
    rows = manifest(tmp_path / "set")
    assert made.images == len(rows) == 16
    assert {(r["label"], r["group"]) for r in rows} == {
        (a, f"{a}/clip{k}.mp4") for a in ("hall", "stairs") for k in (0, 1)
    }
    assert {r["split"] for r in rows} == {"train", "test"}
    by_group = {}
    for row in rows:
        by_group.setdefault((row["label"], row["group"]), set()).add(row["split"])
    assert all(len(splits) == 1 for splits in by_group.values())
    assert len(dataset.load(tmp_path / "set" / "manifest.csv").samples) == 16  # what train reads


def test_the_sharpest_frame_of_a_second_is_taken(tmp_path: Path):
    sharp = [scene(0), scene(1)]
    frames = [f for s in sharp for f in [blurred(s)] * 3 + [s] * 3 + [blurred(s)] * 2]
    clip(tmp_path / "in" / "hall" / "a.mp4", frames)
    collect.build([tmp_path / "in"], tmp_path / "set", page=False)
    rows = manifest(tmp_path / "set")
    assert len(rows) == 2
    for row, original in zip(rows, sharp, strict=True):
        picture = cv2.imread(str(tmp_path / "set" / row["image"]))
        assert (
            np.abs(picture.astype(int) - original).mean() < 12 < np.abs(picture - blurred(original).astype(int)).mean()
        )


def test_blurred_and_alike_are_left_out_and_counted(tmp_path: Path):
    for name, frame in (("1", scene(0)), ("2", scene(0)), ("3", blurred(scene(1))), ("4", scene(2))):
        photo(tmp_path / "in" / "hall" / f"{name}.png", frame)
    made = collect.build([tmp_path / "in"], tmp_path / "set", page=False)
    assert made.classes == (collect.ClassCount("hall", 2, 1, 2, {"alike": 1, "blurred": 1}),)
    assert [Path(r["source"]).name for r in manifest(tmp_path / "set")] == ["1.png", "4.png"]
    assert any("'hall' is thin: 2 pictures" in problem for problem in made.problems)


def test_folders_that_are_no_classes_are_said(tmp_path: Path):
    for n, label in enumerate(("hall", "stairs")):
        photo(tmp_path / "in" / label / "1.png", scene(n))
    photo(tmp_path / "in" / "loose.png", scene(2))
    one = collect.build([photo(tmp_path / "one" / "hall" / "1.png", scene(0)).parents[1]], tmp_path / "s", page=False)
    assert one.problems[0] == "one class only, 'hall': train needs two; add a folder for each other class"
    with pytest.raises(InputError, match="one class only: hall") as caught:
        dataset.split(dataset.load(tmp_path / "s" / "manifest.csv"))
    assert caught.value.remedy == "add pictures of another class"
    made = collect.build([tmp_path / "in"], tmp_path / "set", page=False)
    assert f"pictures in {tmp_path / 'in'} that are in no class folder were ignored: 1" in made.problems
    (tmp_path / "in" / "attic").mkdir()
    with pytest.raises(InputError, match=r"attic holds no clip and no photo$"):
        collect.build([tmp_path / "in"], tmp_path / "none", page=False)
    (tmp_path / "in" / "attic" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"no photo, only files ending in \.txt$"):
        collect.build([tmp_path / "in"], tmp_path / "none", page=False)
    shutil.rmtree(tmp_path / "in" / "attic")
    for split in ("train", "val"):
        shutil.copytree(tmp_path / "in", tmp_path / "whole" / split)
    with pytest.raises(InputError, match="train and val are no classes") as caught:
        collect.build([tmp_path / "whole"], tmp_path / "none", page=False)
    assert f"edge-ran dataset build {tmp_path}/whole/train {tmp_path}/whole/val --output" in caught.value.remedy
    both = collect.build([tmp_path / "whole" / "train", tmp_path / "whole" / "val"], tmp_path / "both", page=False)
    assert [one.label for one in both.classes] == ["hall", "stairs"]


def test_a_live_photo_is_of_its_clips_group(tmp_path: Path):
    for name in ("IMG_1.jpg", "IMG_2.jpg"):
        photo(tmp_path / "hall" / name, scene(1))
    (tmp_path / "hall" / "IMG_1_HEVC.MOV").write_bytes(b"x")
    found, _ = candidates.files_in([tmp_path])
    none = spool.Spool(io.BytesIO()).keep(b"")
    groups = {path.name: candidates.Candidate(*one, path, 0.0, 1.0, 0, none).group for *one, path in found}
    assert groups == {"IMG_1.jpg": "hall/IMG_1_HEVC.MOV", "IMG_1_HEVC.MOV": "hall/IMG_1_HEVC.MOV", "IMG_2.jpg": ""}


def test_the_pictures_of_long_clips_do_not_fill_the_memory(tmp_path: Path):
    """Each JPEG of noise takes 400 kB here."""
    for n in range(12):
        photo(tmp_path / "in" / "hall" / f"{n}.png", np.random.default_rng(n).integers(0, 255, (640, 640, 3), np.uint8))
    collect.build([tmp_path / "in"], tmp_path / "set", page=False)  # what is imported stays
    held = []
    tracemalloc.start()
    try:
        look = lambda done, of: held.append(tracemalloc.get_traced_memory()[0])  # noqa: E731
        made = collect.build([tmp_path / "in"], tmp_path / "set", page=False, force=True, progress=look)
    finally:
        tracemalloc.stop()
    written = sum(path.stat().st_size for path in (tmp_path / "set" / "hall").iterdir())
    assert (made.images, sorted(path.name for path in (tmp_path / "set").iterdir())) == (12, ["hall", "manifest.csv"])
    assert held[-1] < written / 2


def test_visits_are_groups(tmp_path: Path):
    for v, visit in enumerate(("monday", "friday")):
        for c, label in enumerate(("hall", "stairs")):
            for k in range(3):
                photo(tmp_path / visit / label / f"{k}.jpg", scene(1 + v * 100 + c * 10 + k))
    made = collect.build([tmp_path / "monday", tmp_path / "friday"], tmp_path / "set", page=False)
    rows = manifest(tmp_path / "set")
    assert {r["visit"] for r in rows} == {r["group"] for r in rows} == {"monday", "friday"}
    assert {r["split"] for r in rows if r["visit"] == "monday"} != {r["split"] for r in rows if r["visit"] == "friday"}
    assert [c.groups for c in made.classes] == [2, 2]


def test_photos_that_stand_alone_are_groups_of_one(tmp_path: Path):
    pytest.importorskip("jinja2", reason="needs edge-ran[report]")
    clip(tmp_path / "in" / "hall" / "a.mp4", [scene(seed) for seed in (1, 2) for _ in range(8)])
    for k in range(7):
        photo(tmp_path / "in" / "hall" / f"{k}.png", scene(10 + k))
    made = collect.build([tmp_path / "in"], tmp_path / "set", choice=candidates.Choice(test_fraction=0.5))
    assert [(c.taken, c.groups) for c in made.classes] == [(9, 8)]
    page = (tmp_path / "set" / "contact-sheet.html").read_text()
    row = page[page.index("clips or visits") :].split("</tr>")[1]
    assert re.findall(r">\s*(\d+)\s*<", row)[::2] == ["9", "1", "0"]


def test_near_duplicates_under_two_labels_are_told(tmp_path: Path):
    photo(tmp_path / "in" / "hall" / "1.png", scene(0))
    photo(tmp_path / "in" / "stairs" / "1.png", scene(0))
    made = collect.build([tmp_path / "in"], tmp_path / "set", page=False)
    assert any(p.startswith("1 pair of near-duplicates under two labels") for p in made.problems)


def test_the_contact_sheet_shows_what_was_left_out_and_why(tmp_path: Path):
    pytest.importorskip("jinja2", reason="needs edge-ran[report]")
    photo(tmp_path / "in" / "hall" / "good.png", scene(0))
    photo(tmp_path / "in" / "hall" / "shaken.png", blurred(scene(1)))
    made = collect.build([tmp_path / "in"], tmp_path / "set")
    assert made.page is not None
    page = Path(made.page).read_text()
    assert "good.png" in page
    assert "shaken.png" in page
    assert page.count("data:image/webp") == 2


def test_heic_photos_are_read_upright(tmp_path: Path):
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    from PIL import Image

    heif.register_heif_opener()
    (tmp_path / "in" / "hall").mkdir(parents=True)
    image = Image.fromarray(scene(0)[..., ::-1])
    image.save(tmp_path / "in" / "hall" / "phone.heic", quality=95)
    collect.build([tmp_path / "in"], tmp_path / "set", page=False)
    (row,) = manifest(tmp_path / "set")
    picture = cv2.imread(str(tmp_path / "set" / row["image"]))
    assert np.abs(picture.astype(int) - scene(0)).mean() < 12


def four_scenes(path: Path, code: str) -> Path:
    """Four scenes of a second each, 8 frames a second."""
    path.parent.mkdir(parents=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 8, (160, 120))
    for number in range(32):
        writer.write(scene(number // 8))
    writer.release()
    return path


def times_taken(folder: Path) -> list[float]:
    collect.build([folder / "in"], folder / "set", collect.Choice(step_s=1.0), page=False)
    return [float(row["time_s"]) for row in manifest(folder / "set")]


def test_torn_frames_do_not_end_a_clip(tmp_path: Path) -> None:
    path = four_scenes(tmp_path / "in" / "hall" / "cam.avi", "MJPG")
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data[at : at + 3] == b"\xff\xd8\xff"]
    for number in (9, 10, 11):
        begin, end = starts[number] + 2, starts[number + 1] - 20
        data[begin:end] = bytes(end - begin)
    path.write_bytes(data)
    assert [int(time_s) for time_s in times_taken(tmp_path)] == [0, 1, 2, 3]


def test_a_rate_that_no_camera_has_does_not_count(tmp_path: Path) -> None:
    path = four_scenes(tmp_path / "in" / "hall" / "cam.avi", "MJPG")
    data = bytearray(path.read_bytes())
    rate = data.find(b"strh") + 8 + 20
    data[rate : rate + 8] = struct.pack("<II", 1, 600)
    path.write_bytes(data)
    assert [int(time_s) for time_s in times_taken(tmp_path)] == [0, 1]  # 32 frames at 25 a second


def test_a_clip_whose_pixels_are_not_square_is_stretched(tmp_path: Path) -> None:
    path = four_scenes(tmp_path / "in" / "hall" / "tv.mp4", "mp4v")
    data = bytearray(path.read_bytes())
    box = data.index(b"tkhd") - 4
    end = box + int.from_bytes(data[box : box + 4], "big")
    data[end - 8 : end - 4] = struct.pack(">I", 240 << 16)  # shown 240 wide, of 160 pixels
    path.write_bytes(data)
    assert len(times_taken(tmp_path)) == 4
    assert {cv2.imread(str(p)).shape for p in (tmp_path / "set").rglob("*.jpg")} == {(120, 240, 3)}


class TestBadInput:
    def test_a_class_without_a_sharp_frame(self, tmp_path: Path):
        clip(tmp_path / "in" / "hall" / "dark.mp4", [np.full((48, 64, 3), 3, np.uint8)] * 16)
        with pytest.raises(InputError, match=r"'hall' has no sharp frame: .*dark.mp4"):
            collect.build([tmp_path / "in"], tmp_path / "set", page=False)
        assert [p.name for p in tmp_path.iterdir()] == ["in"]

    def test_not_a_clip(self, tmp_path: Path):
        (tmp_path / "in" / "hall").mkdir(parents=True)
        (tmp_path / "in" / "hall" / "a.mp4").write_bytes(b"no video" * 99)
        with pytest.raises(InputError, match=r"a.mp4 is text, not a video"):
            collect.build([tmp_path / "in"], tmp_path / "set", page=False)

    def test_nothing_there(self, tmp_path: Path):
        with pytest.raises(InputError, match="no such folder"):
            collect.build([tmp_path / "absent"], tmp_path / "set")
        with pytest.raises(InputError, match="no class folder"):
            collect.build([tmp_path], tmp_path / "set", page=False)

    def test_an_existing_folder_is_replaced_only_if_this_command_made_it(self, source: Path, tmp_path: Path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work")
        for force in (False, True):
            with pytest.raises(OutputExists):
                collect.build([source], tmp_path / "mine", page=False, force=force)
        assert (tmp_path / "mine" / "thesis.txt").exists()
        collect.build([source], tmp_path / "set", page=False)
        before = (tmp_path / "set" / "manifest.csv").read_bytes()
        collect.build([source], tmp_path / "set", page=False, force=True)
        assert (tmp_path / "set" / "manifest.csv").read_bytes() == before

    @pytest.mark.parametrize(
        ("sources", "output"), [(["."], "."), (["in"], "in"), (["in"], "in/hall"), (["link"], "in"), (["in/."], "in/.")]
    )
    def test_what_is_read_is_not_replaced(
        self, sources: list[str], output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = photo(tmp_path / "in" / "hall" / "1.png", scene(0))
        for folder in (tmp_path, tmp_path / "in", tmp_path / "in" / "hall"):
            (folder / "manifest.csv").touch()  # as if this command had made it
        (tmp_path / "link").symlink_to("in")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UsageError, match="is what is read, and would be removed with"):
            collect.build([Path(one) for one in sources], Path(output), page=False, force=True)
        assert original.is_file()

    def test_the_folder_that_the_command_runs_in_is_not_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        photo(tmp_path / "in" / "hall" / "1.png", scene(0))
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "manifest.csv").touch()
        monkeypatch.chdir(tmp_path / "set")
        with pytest.raises(UsageError, match="the folder that this command runs in"):
            collect.build([Path("../in")], Path("."), page=False, force=True)
        assert os.listdir(tmp_path / "set") == ["manifest.csv"]

    @pytest.mark.parametrize("force", [False, True])
    def test_a_file_of_that_name(self, force: bool, tmp_path: Path) -> None:
        photo(tmp_path / "in" / "hall" / "1.png", scene(0))
        (tmp_path / "notes.csv").write_text("mine")
        with pytest.raises(OutputExists, match=r"notes.csv is a file"):
            collect.build([tmp_path / "in"], tmp_path / "notes.csv", page=False, force=force)
        assert (tmp_path / "notes.csv").read_text() == "mine"

    def test_a_full_disk_leaves_nothing(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(EnvironmentMissing, match="no space left"):
            collect.build([source], tmp_path / "set", page=False)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["walk"]

    def test_a_setting_out_of_range(self):
        with pytest.raises(UsageError, match="--step 0 is outside"):
            collect.Choice(step_s=0)
