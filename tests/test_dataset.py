from __future__ import annotations

import errno
import math
import os
import shlex
import struct
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_ran import dataset
from edge_ran.card import InputSpec
from edge_ran.dataset import Sample, checks, load, summarise
from edge_ran.errors import EnvironmentMissing, InputError


def smooth(height: int = 40, width: int = 64) -> np.ndarray:
    """A picture without symmetry: (height, width, 3) uint8 BGR."""
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x % 256, 6 * y, (x + y) * 2], -1).astype(np.uint8)


def encoded(picture: np.ndarray, suffix: str, *options: int) -> bytes:
    return cv2.imencode(suffix, picture, options)[1].tobytes()


class TestLoad:
    def test_class_folders(self, pictures):
        data = dataset.load(pictures)
        assert data.labels == ("blue", "green", "red")
        assert Counter(s.label for s in data.samples) == {"blue": 8, "green": 8, "red": 8}
        assert {(s.group, s.split, s.row) for s in data.samples} == {("", "", -1)}

    def test_split_folders_and_their_names(self, tmp_path, make_pictures):
        for name, count in (("train", 4), ("valid", 2), ("test", 3)):
            make_pictures(tmp_path / name, count=count)
        data = dataset.load(tmp_path)
        assert Counter(s.split for s in data.samples) == {"train": 12, "val": 6, "test": 9}
        assert len(data.part("validation")) == 6
        assert len(data.part("all")) == 27
        train, validation = dataset.split(data)
        assert (len(train), len(validation)) == (12, 6)

    def test_sub_folders_of_a_class_are_groups(self, tmp_path, make_pictures):
        for clip in "abc":
            make_pictures(tmp_path / clip, count=2)
        for label in ("blue", "green", "red"):
            for clip in "abc":
                (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
                (tmp_path / clip / label).rename(tmp_path / "data" / label / clip)
        assert {s.group for s in dataset.load(tmp_path / "data").samples} == {
            f"{label}/{clip}" for label in ("blue", "green", "red") for clip in "abc"
        }

    def test_one_sub_folder_name_everywhere_is_no_group(self, tmp_path, make_pictures):
        made = make_pictures(tmp_path / "made", count=2)
        for label in ("blue", "green", "red"):
            (tmp_path / "data" / label).mkdir(parents=True)
            (made / label).rename(tmp_path / "data" / label / "images")
        assert {s.group for s in dataset.load(tmp_path / "data").samples} == {""}

    def test_other_files_are_counted_not_read(self, pictures, monkeypatch):
        monkeypatch.setattr("edge_ran.picture.reads_heif", lambda: False)
        (pictures / "red" / "notes.txt").write_text("x")
        (pictures / "red" / "IMG.HEIC").write_text("x")
        (pictures / "red" / ".DS_Store").write_text("x")
        data = dataset.load(pictures)
        assert data.ignored == ((".heic", 1), (".txt", 1))
        assert len(data.samples) == 24

    def test_folders_without_pictures(self, tmp_path, pictures, monkeypatch):
        monkeypatch.setattr("edge_ran.picture.reads_heif", lambda: False)
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="no class folder with pictures"):
            dataset.load(tmp_path / "empty")
        (pictures / "violet").mkdir()
        (pictures / "violet" / "IMG.HEIC").write_text("x")
        with pytest.raises(InputError, match=r"violet holds no picture, only files ending in \.heic"):
            dataset.load(pictures)
        with pytest.raises(InputError, match="no such folder"):
            dataset.load(tmp_path / "nowhere")

    def test_pictures_without_class_folders(self, tmp_path):
        (tmp_path / "p.png").write_bytes(encoded(smooth(), ".png"))
        with pytest.raises(InputError, match="no class folder") as caught:
            dataset.load(tmp_path)
        assert "CLASS/PICTURE" in caught.value.remedy

    def test_manifest(self, pictures):
        lines = [
            f"{p.relative_to(pictures)};{p.parent.name};clip{int(p.stem) % 4};test" for p in pictures.rglob("*.png")
        ]
        path = pictures / "list.csv"
        path.write_text("image;colour;clip;split\n" + "\n".join(lines) + "\n", encoding="utf-8-sig")
        data = dataset.load(path, label_column="colour", group_column="clip", labels=("red", "blue"))
        assert data.labels == ("blue", "red")
        assert Counter(s.group for s in data.samples) == {f"clip{i}": 4 for i in range(4)}
        assert {s.split for s in data.samples} == {"test"}
        with pytest.raises(InputError, match="no column 'label'"):
            dataset.load(path)
        with pytest.raises(InputError, match="no column 'floor'"):
            dataset.load(path, label_column="colour", group_column="floor")
        with pytest.raises(InputError, match="no class 'pink'"):
            dataset.load(path, label_column="colour", labels=("pink",))

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("image,label\nred/000.png,\n", "line 2: image or label is empty"),
            ("image,label\nred/nine.png,red\nred/ten.png,red\n", "names 2 missing files; the first: .*nine.png"),
            ("image,label\n", "lists no picture"),
            ("image,label,split\nred/000.png,red,exam\n", "line 2: split 'exam' is unknown"),
        ],
    )
    def test_faults_of_a_manifest(self, pictures, text, words):
        (pictures / "list.csv").write_text(text)
        with pytest.raises(InputError, match=words):
            dataset.load(pictures / "list.csv")

    def test_arrays(self, tmp_path):
        x = np.stack([smooth(8, 8) + i for i in range(6)])
        path = tmp_path / "data.npz"
        np.savez(path, x=x, y=np.arange(6) % 2, labels=np.array(["cat", "dog"]), group=np.array(list("aabbcc")))
        data = dataset.load(path)
        assert data.labels == ("cat", "dog")
        assert [s.group for s in data.samples] == list("aabbcc")
        np.testing.assert_array_equal(dataset.pixels(data.samples, InputSpec(8, 8)), x)
        np.testing.assert_array_equal(dataset.pixels(data.samples, InputSpec(8, 8, color="bgr")), x[..., ::-1])
        np.savez(path, x=x[..., 0], y=np.array(list("uvwxyz")))
        grey = dataset.load(path)
        assert grey.labels == tuple("uvwxyz")
        np.testing.assert_array_equal(dataset.pixels(grey.samples, InputSpec(8, 8))[..., 1], x[..., 0])

    @pytest.mark.parametrize(
        ("arrays", "words"),
        [
            ({"x": np.zeros((2, 8, 8, 3), np.float32), "y": np.zeros(2)}, "uint8"),
            ({"x": np.zeros((2, 8, 8, 3), np.uint8), "y": np.zeros((2, 5))}, "one value for each"),
            ({"x": np.zeros((2, 8, 8, 3), np.uint8), "y": np.array([0, 7]), "labels": np.array(["a"])}, "0 to 0"),
            ({"images": np.zeros(3)}, "no array 'x'"),
            ({"x": np.zeros((2, 8, 8, 3), np.uint8), "y": np.array([None, {}])}, "Python objects"),
            ({"x": np.zeros((2, 8, 8, 3), np.uint8), "y": np.arange(2), "labels": np.array("ab")}, "labels must be"),
            ({"x": np.zeros((2, 8, 8, 3), np.uint8), "y": np.array([1, np.nan])}, "row 1: the image has no label"),
            ({"x": np.zeros((2, 8, 8, 3), np.uint8), "y": np.array(["", "a"])}, "row 0: the image has no label"),
            ({"x": np.zeros((2, 8, 8, 3), np.uint8), "y": np.array([b"\xff", b"a"])}, "y holds bytes"),
        ],
    )
    def test_faults_of_arrays(self, tmp_path, arrays, words):
        np.savez(tmp_path / "data.npz", **arrays)
        with pytest.raises(InputError, match=words):
            dataset.load(tmp_path / "data.npz")

    @pytest.mark.parametrize(
        ("first", "others"),
        [
            (("x_train", "y_train"), {"test": ("x_test", "y_test")}),  # Keras's mnist.npz
            (
                ("train_images", "train_labels"),
                {"val": ("val_images", "val_labels"), "test": ("test_images", "test_labels")},
            ),
            (("images", "labels"), {}),
        ],
    )
    @pytest.mark.parametrize("form", ["plain", "column", "one-hot"])
    def test_arrays_of_other_names_and_in_parts(self, tmp_path, first, others, form):
        x, y = np.stack([smooth(8, 8) + i for i in range(6)]), np.arange(6) % 2
        y = {"plain": y, "column": y[:, None], "one-hot": np.eye(2)[y]}[form]
        parts = {"train" if others else "": first, **others}
        pairs = [{names[0]: x + place, names[1]: y} for place, names in enumerate(parts.values())]
        np.savez(tmp_path / "data.npz", **{name: array for pair in pairs for name, array in pair.items()})
        data = dataset.load(tmp_path / "data.npz")
        assert [s.label for s in data.samples] == list("010101") * len(parts)
        assert [s.split for s in data.samples] == [split for split in parts for _ in range(6)]
        wanted = np.concatenate([x + place for place in range(len(parts))])
        np.testing.assert_array_equal(dataset.pixels(data.samples, InputSpec(8, 8)), wanted)

    @pytest.mark.parametrize("form", ["0..1", "-1..1", "0..255", "channels first"])
    def test_the_command_that_mends_pixels_works(self, tmp_path, form):
        x = np.stack([smooth(8, 8) + i for i in range(2)])
        forms = {"0..1": x / 255, "-1..1": x / 127.5 - 1, "0..255": x.astype(np.int64)}
        np.savez(tmp_path / "a b.npz", x=forms.get(form, x.transpose(0, 3, 1, 2)), y=np.arange(2))
        with pytest.raises(InputError, match="uint8") as caught:
            dataset.load(tmp_path / "a b.npz")
        command, _, new = caught.value.remedy.partition(", then give ")
        words = shlex.split(command)
        exec(words[2], {})
        data = dataset.load(Path(shlex.split(new)[0]))
        np.testing.assert_array_equal(dataset.pixels(data.samples, InputSpec(8, 8)), x)

    def test_texts_as_bytes_and_whole_numbers_as_fractions(self, tmp_path):
        """As h5py and pandas have them."""
        x = np.zeros((2, 8, 8, 3), np.uint8)
        path = tmp_path / "data.npz"
        np.savez(path, x=x, y=np.array(["Käse".encode(), b"cat"]), split=np.array([b"train", b"val"]))
        assert [(s.label, s.split) for s in dataset.load(path).samples] == [("Käse", "train"), ("cat", "val")]
        np.savez(path, x=x, y=np.array([0.0, 10.0]), group=np.array([b"a", b"b"]))
        assert [(s.label, s.group) for s in dataset.load(path).samples] == [("0", "a"), ("10", "b")]
        np.savez(path, x=x, y=np.array([1.0, 0.0]), labels=np.array([b"cat", b"dog"]))
        assert [s.label for s in dataset.load(path).samples] == ["dog", "cat"]

    def test_random_bytes_as_arrays(self, tmp_path):
        (tmp_path / "data.npz").write_bytes(os.urandom(500))
        with pytest.raises(InputError, match=r"not an \.npz file"):
            dataset.load(tmp_path / "data.npz")


def write_clip(path: Path, seconds: int, fps: int = 10, size: tuple[int, int] = (48, 64)) -> None:
    """A clip that brightens by 20 a second, its left half a quarter as bright."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size[::-1])
    assert writer.isOpened()
    for number in range(seconds * fps):
        frame = np.full((*size, 3), 60 + 20 * (number // fps), np.uint8)
        frame[:, : size[1] // 2] //= 4
        writer.write(frame)
    writer.release()


class TestClips:
    def test_a_frame_each_second_and_the_clip_as_group(self, tmp_path):
        for label, seconds in (("hall", 5), ("stairs", 2)):
            (tmp_path / label).mkdir()
            write_clip(tmp_path / label / "walk.mp4", seconds)
        data = dataset.load(tmp_path)
        assert [(s.label, s.row) for s in data.samples] == [("hall", 10 * i + 5) for i in range(5)] + [
            ("stairs", 5),
            ("stairs", 15),
        ]
        assert {s.group for s in data.samples} == {"hall/walk.mp4", "stairs/walk.mp4"}, "two clips of one name"
        x = dataset.pixels(data.samples, InputSpec(48, 64))
        assert np.abs(x[:5, :, 40:].mean((1, 2, 3)) - [60, 80, 100, 120, 140]).max() < 4
        frames = list(dataset.frames(data.samples))
        assert np.abs(np.stack(frames)[..., ::-1].astype(int) - x).max() == 0
        assert len(dataset.load(tmp_path, clip_step_s=0.5).samples) == 14
        for step_s in (0, -1, math.nan):
            with pytest.raises(InputError, match="the step between frames must be above 0 s"):
                dataset.load(tmp_path, clip_step_s=step_s)

    def test_rotation_tag(self, tmp_path):
        """Phones film sideways: a display matrix in the track header says how to hold it."""
        (tmp_path / "hall").mkdir()
        path = tmp_path / "hall" / "phone.mp4"
        write_clip(path, 1)
        data = bytearray(path.read_bytes())
        matrix = data.index(b"tkhd") + 4 + 40
        quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
        assert struct.unpack(">9i", data[matrix : matrix + 36])[0] == 1 << 16
        data[matrix : matrix + 36] = quarter
        path.write_bytes(data)
        (frame,) = dataset.frames(dataset.load(tmp_path).samples)
        assert frame.shape == (64, 48, 3)
        assert frame[:28].mean() < 25 < 50 < frame[36:].mean()  # the dark half has turned from the left to the top

    def test_not_a_clip(self, tmp_path):
        (tmp_path / "hall").mkdir()
        (tmp_path / "hall" / "walk.mp4").write_bytes(b"no video" * 100)
        (tmp_path / "hall" / "empty.avi").touch()
        data = dataset.load(tmp_path)
        assert [s.row for s in data.samples] == [0, 0]
        with pytest.raises(InputError, match=r"2 files cannot be read; the first: clip .*empty.avi is empty"):
            dataset.pixels(data.samples, InputSpec(8, 8))
        good, problems = dataset.readable(data.samples)
        assert (good, len(problems)) == ((), 2)


def made_up(groups: dict[str, dict[str, int]]) -> dataset.Dataset:
    samples = tuple(
        Sample(Path(f"{group}-{label}-{i}.png"), label, group)
        for group, labels in groups.items()
        for label, count in labels.items()
        for i in range(count)
    )
    return dataset.Dataset(samples, tuple(sorted({s.label for s in samples})), Path("made-up"))


class TestSplit:
    def test_stratified_reproducible_and_complete(self):
        data = made_up({"": {"a": 100, "b": 50, "c": 5}})
        train, validation = dataset.split(data, 0.2, seed=3)
        assert Counter(s.label for s in validation) == {"a": 20, "b": 10, "c": 1}
        assert set(train) | set(validation) == set(data.samples)
        assert not set(train) & set(validation)
        assert dataset.split(data, 0.2, seed=3) == (train, validation)
        assert dataset.split(data, 0.2, seed=4) != (train, validation)

    @pytest.mark.parametrize("seed", range(5))
    def test_groups_stay_whole(self, seed):
        random = np.random.default_rng(seed)
        data = made_up(
            {f"clip{i}": {"a": int(random.integers(1, 30)), "b": int(random.integers(0, 9))} for i in range(40)}
        )
        train, validation = dataset.split(data, 0.25, seed)
        assert not {s.group for s in train} & {s.group for s in validation}
        for label in "ab":
            held, kept = (sum(s.label == label for s in part) for part in (validation, train))
            assert 0.2 < held / (held + kept) < 0.3

    def test_every_class_keeps_something_to_train_on(self):
        data = made_up({"one": {"a": 5}, "two": {"a": 5, "b": 9}, "three": {"b": 1}})
        train, validation = dataset.split(data, 0.5)
        assert {s.label for s in train} == {"a", "b"}
        assert validation

    def test_a_large_share_leaves_a_picture_of_each_class_to_train_on(self):
        data = made_up({"": {"a": 2, "b": 40}})
        train, validation = dataset.split(data, 0.75)
        assert Counter(s.label for s in train) == {"a": 1, "b": 10}
        assert Counter(s.label for s in validation) == {"a": 1, "b": 30}

    @pytest.mark.parametrize("clips", [2, 3, 4, 5])
    @pytest.mark.parametrize("classes", [2, 3, 8])
    def test_two_groups_a_class_are_enough(self, clips, classes):
        data = made_up({f"{label}{clip}": {label: 20} for label in "abcdefgh"[:classes] for clip in range(clips)})
        train, validation = dataset.split(data)
        assert {s.label for s in train} == {s.label for s in validation} == set(data.labels)
        assert len({s.group for s in validation}) == classes
        assert not {s.group for s in train} & {s.group for s in validation}
        assert dataset.not_covered(data.labels, validation) == ""

    def test_groups_shared_by_all_classes_are_enough(self):
        data = made_up({f"place{i}": {"a": 50, "b": 40, "c": 30} for i in range(2)})
        train, validation = dataset.split(data)
        assert len({s.group for s in train}) == len({s.group for s in validation}) == 1

    def test_pictures_beside_the_only_clip_of_a_class_are_not_held_out(self):
        """They show the same place; what is not covered is said."""
        groups = {"clip a1": {"a": 20}, "clip a2": {"a": 20}, "clip b": {"b": 20}, "": {"a": 9, "b": 9, "stills": 20}}
        data = made_up(groups)
        train, validation = dataset.split(data)
        assert Counter(s.label for s in validation) == {"a": 20, "stills": 2}
        assert len(train) + len(validation) == len(data.samples)
        assert "validation covers 2 of 3 classes" in dataset.not_covered(data.labels, validation)
        assert dataset.not_covered(data.labels, validation).endswith(": b")
        told = "no test picture shows b: the test accuracy says nothing of them"
        assert dataset.not_covered(data.labels, validation, "test") == told

    def test_many_groups_take_no_time(self):
        data = made_up({f"{label}-{clip}": {f"class {label}": 2} for label in range(100) for clip in range(30)})
        _, validation = dataset.split(data)
        assert len(validation) == 2 * 100 * 3

    def test_refusals(self):
        with pytest.raises(InputError, match="one class only: a"):
            dataset.split(made_up({"": {"a": 9}}))
        with pytest.raises(InputError, match=r"class 'b' .* has one picture only"):
            dataset.split(made_up({"": {"a": 9, "b": 1}}))
        with pytest.raises(InputError, match="cannot be divided") as caught:
            dataset.split(made_up({"x": {"a": 9}, "y": {"b": 9}}))
        assert "two clips or more" in caught.value.remedy
        assert "--group-column" in caught.value.remedy
        with pytest.raises(InputError, match="between 0 and 1"):
            dataset.split(made_up({"": {"a": 9, "b": 9}}), 1.0)

    def test_targets(self):
        samples = made_up({"": {"b": 2, "a": 1}}).samples
        np.testing.assert_array_equal(dataset.targets(samples, ("a", "b", "c")), [1, 1, 0])
        with pytest.raises(InputError, match="1 of the data's classes is unknown to the model: b"):
            dataset.targets(samples, ("a", "c"))


class TestPixels:
    def test_fitted_and_in_order(self, pictures):
        data = dataset.load(pictures)
        seen = []
        x = dataset.pixels(data.samples, InputSpec(16, 12), progress=lambda *pair: seen.append(pair))
        assert x.shape == (24, 16, 12, 3)
        assert x.dtype == np.uint8
        strongest = x.mean((1, 2)).argmax(1)  # RGB
        np.testing.assert_array_equal(strongest, [{"red": 0, "green": 1, "blue": 2}[s.label] for s in data.samples])
        assert seen[-1] == (24, 24)

    def test_unreadable_files_are_named_and_counted_or_skipped_aloud(self, pictures):
        (pictures / "red" / "003.png").write_bytes(b"")
        (pictures / "red" / "005.png").write_bytes(b"nonsense")
        data = dataset.load(pictures)
        with pytest.raises(InputError, match=r"2 files cannot be read; the first: picture .*003\.png is empty"):
            dataset.pixels(data.samples, InputSpec(8, 8))
        good, problems = dataset.readable(data.samples)
        assert len(good) == 22
        assert [p.split("/")[-1] for p in problems] == ["003.png is empty", "005.png cannot be decoded"]
        assert dataset.pixels(good, InputSpec(8, 8)).shape[0] == 22
        with pytest.raises(InputError, match="is empty"):
            list(dataset.frames(data.samples))

    def test_large_arrays_live_in_a_file(self, pictures, tmp_path, monkeypatch):
        samples = dataset.load(pictures).samples
        plain = dataset.pixels(samples, InputSpec(8, 8), cache=tmp_path / "cache")
        assert not (tmp_path / "cache").exists()
        monkeypatch.setattr("edge_ran.dataset.decoding.CACHE_ABOVE_BYTES", 1000)
        mapped = dataset.pixels(samples, InputSpec(8, 8), cache=tmp_path / "cache")
        assert isinstance(mapped, np.memmap)
        np.testing.assert_array_equal(mapped, plain)
        (file,) = (tmp_path / "cache").iterdir()
        before = file.stat().st_mtime_ns
        dataset.pixels(samples, InputSpec(8, 8), cache=tmp_path / "cache")
        assert file.stat().st_mtime_ns == before
        os.utime(samples[0].path, ns=(1, 1))
        dataset.pixels(samples, InputSpec(8, 8), cache=tmp_path / "cache")
        assert len(list((tmp_path / "cache").iterdir())) == 2

    def test_a_full_disk_leaves_nothing(self, pictures, tmp_path, monkeypatch):
        def full(*_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("edge_ran.dataset.decoding.CACHE_ABOVE_BYTES", 1000)
        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(EnvironmentMissing, match="no space left"):
            dataset.pixels(dataset.load(pictures).samples, InputSpec(8, 8), cache=tmp_path / "cache")
        assert list((tmp_path / "cache").iterdir()) == []


class TestSummarise:
    def test_of_sound_data(self, pictures):
        record = dataset.summarise(dataset.load(pictures))
        assert record.images == 24
        assert record.classes == {"blue": 8, "green": 8, "red": 8}
        assert record.splits == {"all": record.classes}
        assert record.sizes["median"] == (24, 32)
        assert record.problems == ()

    def test_troubles(self, tmp_path, make_pictures, monkeypatch):
        monkeypatch.setattr("edge_ran.picture.reads_heif", lambda: False)
        make_pictures(tmp_path / "train", count=12)
        make_pictures(tmp_path / "test", count=1)
        twin = encoded(smooth(), ".png")
        for place in ("train/red/twin.png", "test/red/twin.png", "train/green/twin.png"):
            (tmp_path / place).write_bytes(twin)
        (tmp_path / "train/blue/bad.jpg").write_bytes(twin[:50])
        (tmp_path / "train/blue/note.heic").touch()
        problems = "\n".join(dataset.summarise(dataset.load(tmp_path)).problems)
        assert "1 unreadable file, the first: picture" in problems
        assert "1 file ending in .heic was ignored: pillow-heif reads them" in problems
        assert "2 pairs of almost equal pictures in two splits" in problems
        assert "2 pairs of almost equal pictures under two labels" in problems

    def test_frames_of_clips_without_groups(self, shared_data, tmp_path, cifar_pictures):
        """Real frames at one a second are recognised as such; CIFAR's numbered files are not."""
        with zipfile.ZipFile(shared_data / "ie_tower.zip") as archive:
            archive.extractall(tmp_path)
        (manifest,) = tmp_path.rglob("frames.csv")
        areas = ("hallway", "stairs", "elevator", "central")
        loose = dataset.load(manifest, label_column="area", labels=areas)
        x = dataset.pixels(loose.samples, InputSpec(32, 32))
        assert "frames of one clip" in dataset.frame_leak(loose.samples, x)
        grouped = dataset.load(manifest, label_column="area", group_column="clip", labels=areas)
        assert dataset.frame_leak(grouped.samples, x) == ""
        photos = dataset.load(cifar_pictures)
        assert dataset.frame_leak(photos.samples, dataset.pixels(photos.samples, InputSpec(32, 32))) == ""


def test_a_set_of_unreadable_pictures_only_is_described(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").write_bytes(b"no picture at all")
    found = summarise(load(tmp_path))
    assert (found.images, found.sizes, len(found.unreadable)) == (0, {}, 2)
    assert "class 'a' has no readable picture" in found.problems


def test_many_links_to_one_picture_are_one_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8))
    for index in range(3000):
        (tmp_path / f"{index}.png").symlink_to("x.png")
    rows = "".join(f"{index}.png,{'ab'[index % 2]}\n" for index in range(3000))
    (tmp_path / "rows.csv").write_text("image,label\n" + rows)
    compared = []
    distance = checks._distance
    monkeypatch.setattr(checks, "_distance", lambda *pair: compared.append(0) or distance(*pair))
    found = summarise(load(tmp_path / "rows.csv"))
    assert found.images == 3000
    assert [problem for problem in found.problems if "almost equal" in problem] == [
        f"1 pair of almost equal pictures under two labels, the first: {tmp_path / '0.png'} and {tmp_path / '1.png'}"
    ]
    assert len(compared) == 1


def test_an_address_must_be_downloaded_first():
    for address in ("https://example.org/a%20b.zip", Path("https://example.org/a%20b.zip")):
        with pytest.raises(InputError, match="no such folder or file") as caught:
            dataset.load(address)
        assert caught.value.remedy == "download it first: curl -LO https://example.org/a%20b.zip"
