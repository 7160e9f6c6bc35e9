"""Folders as cameras, systems, zips and download pages leave them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from edge_ran import dataset
from edge_ran.cli.data_options import ManifestOptions
from edge_ran.dataset.samples import Dataset
from edge_ran.dataset.splitting import one_class_remedy
from edge_ran.errors import InputError
from edge_ran.folder_walk import walk
from edge_ran.picture import read_picture


def counts(data: Dataset) -> dict[str, int]:
    return dict(Counter(s.label for s in data.samples))


@pytest.mark.parametrize(
    "left_there",
    [
        "__MACOSX/red/._000.png",
        "red/__MACOSX/._000.png",
        "red/._000.png",
        "red/@eaDir/000.png/SYNOPHOTO_THUMB_M.png",
        "red/.AppleDouble/000.png",
        "red/.thumbnails/000.png",
        "#recycle/red/000.png",
        "$RECYCLE.BIN/000.png",
        "red/Thumbs.db",
        "red/desktop.ini",
        ".git/000.png",
    ],
)
def test_what_systems_leave_is_not_seen(pictures, left_there):
    path = pictures / left_there
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((pictures / "red" / "001.png").read_bytes())
    data = dataset.load(pictures)
    assert counts(data) == {"blue": 8, "green": 8, "red": 8}
    assert data.ignored == ()


def test_links_are_followed_but_not_in_circles(tmp_path, make_pictures):
    data, disk = (
        make_pictures(tmp_path / "data", ("red", "green"), 4),
        make_pictures(tmp_path / "disk", ("more", "blue"), 5),
    )
    (data / "blue").symlink_to(disk / "blue")
    (data / "red" / "external").symlink_to("../../disk/more")
    (data / "red" / "one.png").symlink_to(disk / "more" / "000.png")
    (data / "red" / "again").symlink_to("..")
    (data / "green" / "gone.png").symlink_to("nowhere")
    found = dataset.load(data)
    assert counts(found)["blue"] == 5
    assert counts(found)["green"] == 4
    assert dict(found.ignored) == {"links that lead nowhere, pipes or devices": 1}
    assert counts(found)["red"] == 4 + 5 + 1


def test_what_is_no_regular_file_is_not_opened(pictures):
    os.mkfifo(pictures / "red" / "pipe.png")
    found = dataset.load(pictures)
    assert len(found.samples) == 24
    assert dataset.ignored_notes(found) == ["1 links that lead nowhere, pipes or devices were ignored"]


def test_pictures_by_every_name_that_windows_scanners_and_browsers_give_them(pictures):
    for number, name in enumerate(("one.jfif", "two.tif", "three.TIFF", "four.JPG")):
        (pictures / "red" / f"00{number}.png").rename(pictures / "red" / name)
    found = dataset.load(pictures)
    assert counts(found) == dict.fromkeys(found.labels, len(found.samples) // len(found.labels))
    assert not dataset.summarise(found).unreadable


def test_an_animation_is_a_clip(pictures):
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 80, 160, 240)]
    frames[0].save(pictures / "red" / "a.gif", save_all=True, append_images=frames[1:], duration=500)
    found = [s for s in dataset.load(pictures).samples if s.path.suffix == ".gif"]
    assert len(found) == 2  # of two seconds
    assert {s.group for s in found} == {"red/a.gif"}


def test_of_several_frames_or_pages_the_first_is_used_aloud(pictures):
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 80, 160, 240)]
    several, one = {"save_all": True, "append_images": frames[1:]}, {}
    for name, words in (("a.webp", several), ("b.tif", several), ("c.png", several), ("d.webp", one), ("e.tiff", one)):
        frames[0].save(pictures / "red" / name, **words)
    frames[0].convert("RGBA").save(pictures / "red" / "still_alpha.webp", exif=b"Exif\0\0")
    for name in ("cut.tif", "cut.png", "cut.webp"):
        (pictures / "blue" / name).write_bytes(b"II*\0\xff\xff\xff")
    found = dataset.load(pictures)
    assert {"b.tif", "c.png", "e.tiff"} <= {s.path.name for s in found.samples}
    assert dataset.ignored_notes(found) == ["3 pictures have several frames or pages: the first alone is used"]


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read(pictures):
    Image.new("RGB", (64, 48), (200, 30, 30)).save(pictures / "red" / "a.avif")
    found = dataset.load(pictures)
    assert "a.avif" in {s.path.name for s in found.samples}
    assert not dataset.summarise(found).unreadable
    (pictures / "red" / "b.jxl").write_bytes(b"x")
    assert "if they are pictures, convert them to JPEG" in dataset.ignored_notes(dataset.load(pictures))[0]


def test_classes_that_differ_in_capital_letters_only_are_said(pictures):
    (pictures / "Red").mkdir()
    for name in ("000.png", "001.png"):
        (pictures / "red" / name).rename(pictures / "Red" / name)
    found = dataset.load(pictures)
    assert "classes 'Red' and 'red' differ in capital letters only" in dataset.summarise(found).problems
    assert dataset.alike_notes(found)


def layout(root: Path, source: Path, *places: str) -> Path:
    """Copy the class folders of ``source`` to each of the places."""
    for place in places:
        for label in ("red", "green"):
            target = root / place.format(label)
            target.mkdir(parents=True)
            for path in sorted((source / label).iterdir())[:3]:
                (target / path.name).write_bytes(path.read_bytes())
    return root


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "Test"), ("train", "valid"), ("TRAIN", "VAL")])
def test_splits_above_and_below_the_classes(tmp_path, pictures, names):
    for where in ("{split}/{{}}", "{{}}/{split}"):
        root = tmp_path / str(len(where)) / where.partition("/")[0]
        layout(root, pictures, *(where.format(split=name) for name in names))
        data = dataset.load(root)
        assert data.labels == ("green", "red")
        assert Counter(s.split for s in data.samples) == {dataset.SPLIT_NAMES[name.lower()]: 6 for name in names}
        assert {s.group for s in data.samples} == {""}


def test_a_third_folder_beside_the_splits_is_left_out_aloud(tmp_path, pictures):
    root = layout(tmp_path / "fruits", pictures, "Training/{}", "Test/{}")
    (root / "test-multiple_fruits").mkdir()
    (root / "test-multiple_fruits" / "p.png").write_bytes((pictures / "red" / "001.png").read_bytes())
    data = dataset.load(root)
    assert data.labels == ("green", "red")
    assert {s.split for s in data.samples} == {"train", "test"}
    assert any("folder test-multiple_fruits, which is neither" in note for note in dataset.ignored_notes(data))


def test_a_class_may_be_called_train(tmp_path, make_pictures):
    root = make_pictures(tmp_path / "vehicles", ("train", "bus", "car"), 3)
    assert dataset.load(root).labels == ("bus", "car", "train")


@pytest.mark.parametrize(
    "names", [("seg_train", "seg_test"), ("train_images", "test_images"), ("training_set", "test_set")]
)
def test_folders_whose_names_hold_those_of_splits_are_splits(tmp_path, pictures, names):
    """As Kaggle's scenes of Intel, and its cats and dogs, are laid out."""
    root = layout(tmp_path / "data", pictures, *(f"{name}/{{}}" for name in names))
    data = dataset.load(root)
    assert Counter((s.label, s.split) for s in data.samples).keys() == {
        (label, split) for label in ("red", "green") for split in ("train", "test")
    }
    assert dataset.load(root, labels=["red"]).part("train")
    assert dataset.load(root, labels=names).labels == tuple(sorted(names))
    (root / "seg_pred" / "seg_pred").mkdir(parents=True)
    shutil.copy(pictures / "red" / "000.png", root / "seg_pred" / "seg_pred")
    again = dataset.load(root)
    assert len(again.samples) == len(data.samples)
    assert "folder seg_pred, which is neither training" in dataset.ignored_notes(again)[0]


@pytest.mark.parametrize("names", [("seg_train", "x_train"), ("train_test", "test_a"), ("my train", "other")])
def test_folders_that_look_like_splits_are_asked_about(tmp_path, pictures, names):
    root = layout(tmp_path / "data", pictures, *(f"{name}/{{}}" for name in names))
    with pytest.raises(InputError, match="looks like a part of the data, not like a class") as caught:
        dataset.load(root)
    assert "rename it to" in caught.value.remedy
    assert dataset.load(root, labels=names).labels == tuple(sorted(names))


@pytest.mark.parametrize("name", ["train", "Training", "images", "seg_train"])
def test_a_folder_too_many_in_a_split_is_what_archives_leave(tmp_path, pictures, name):
    root = layout(tmp_path / "data", pictures, f"train/{name}/{{}}", "test/{}")
    data = dataset.load(root)
    assert data.labels == ("green", "red")
    assert Counter(s.split for s in data.samples) == {"train": 6, "test": 6}


@pytest.mark.parametrize(
    "names", [("fold_0", "fold_1"), ("Fold1", "Fold2"), ("part-1", "part-2"), ("batch 1", "batch 2")]
)
def test_parts_that_hold_the_same_classes_are_asked_about(tmp_path, pictures, names):
    root = layout(tmp_path / "data", pictures, *(f"{name}/{{}}" for name in names))
    with pytest.raises(InputError, match="look like parts of the data, not like classes") as caught:
        dataset.load(root)
    assert caught.value.remedy.startswith(f"move {root / names[0]}/green to {root}/green/{names[0]}")
    assert dataset.load(root, labels=names).labels == tuple(sorted(names))
    for name in names:  # as the remedy says
        for label in ("green", "red"):
            (root / label).mkdir(exist_ok=True)
            (root / name / label).rename(root / label / name)
        (root / name).rmdir()
    data = dataset.load(root)
    assert data.labels == ("green", "red")
    assert len({s.group for s in data.samples}) == 4


def test_flat_pictures_in_a_folder_of_a_split_are_no_class(tmp_path, pictures):
    """As tiny-imagenet's val/images, and test/test of Kaggle's archives."""
    root = layout(tmp_path / "data", pictures, "train/{}/images")
    for folder in (root / "val" / "images", root / "test" / "test"):
        folder.mkdir(parents=True)
        shutil.copy(pictures / "red" / "000.png", folder)
    data = dataset.load(root)
    assert {(s.label, s.split) for s in data.samples} == {("red", "train"), ("green", "train")}
    notes = dataset.ignored_notes(data)
    assert [f"{folder} that are in no class folder were ignored: 1" in note for folder, note in zip(
        (f"{root}/test/test", f"{root}/val/images"), notes, strict=True)] == [True, True]  # fmt: skip


def test_a_class_without_pictures_in_one_split_is_told(tmp_path, pictures):
    root = layout(tmp_path / "data", pictures, "train/{}", "val/{}")
    shutil.rmtree(root / "val" / "red")
    (root / "val" / "red").mkdir()
    data = dataset.load(root)
    assert {(s.label, s.split) for s in data.samples} == {("red", "train"), ("green", "train"), ("green", "val")}
    assert dataset.ignored_notes(data) == ["folder val/red, which holds no picture, was ignored"]
    (root / "val" / "blue").mkdir()
    with pytest.raises(InputError, match=r"class folder .*val/blue holds no picture"):
        dataset.load(root)


def test_versions_of_the_same_classes_are_said(tmp_path, pictures):
    """As PlantVillage is laid out: color/apple, grayscale/apple."""
    data = dataset.load(layout(tmp_path / "data", pictures, "color/{}", "gray/{}"))
    give = f"edge-ran dataset {tmp_path}/data/color"
    what = "color and gray hold the same folders; if these are the classes, give one"
    assert data.notes == (f"{what}: {give}",)
    assert dataset.load(tmp_path / "data", labels=["color", "gray"]).notes == ()


def test_a_class_that_is_a_link_to_nowhere_is_said(pictures):
    (pictures / "gone").symlink_to("/nowhere/at/all")
    data = dataset.load(pictures)
    assert data.labels == ("blue", "green", "red")
    assert "1 links that lead nowhere, pipes or devices were ignored" in dataset.ignored_notes(data)


def test_many_classes_of_one_picture_are_one_line(make_pictures, tmp_path):
    data = dataset.load(make_pictures(tmp_path / "faces", [f"name {n}" for n in range(7)], 1))
    told = [line for line in dataset.summarise(data).problems if "one picture only" in line]
    named = ", ".join(f"'name {n}'" for n in range(5))
    assert told == [f"7 classes have one picture only: {named} and 2 more"]


def test_masks_among_the_pictures_are_said(pictures):
    """As BUSI, ultrasound of breasts, is laid out."""
    shutil.copy(pictures / "red" / "000.png", pictures / "red" / "000_mask.png")
    shutil.copy(pictures / "red" / "000.png", pictures / "red" / "face_mask.png")
    notes = dataset.load(pictures).notes
    assert notes == ("1 picture looks like a mask of another, and counts as a picture: red/000_mask",)


def test_pictures_without_an_ending_are_renamed_as_advised(pictures):
    for path in (pictures / "red").iterdir():
        path.rename(path.with_suffix(""))
    with pytest.raises(InputError, match="holds no picture") as caught:
        dataset.load(pictures)
    subprocess.run(["sh", "-c", caught.value.remedy.partition(": ")[2]], check=True)
    assert dataset.load(pictures).labels == ("blue", "green", "red")


def test_pictures_without_an_ending_among_others_are_one_line(pictures):
    for path in sorted((pictures / "red").iterdir())[1:]:
        path.rename(path.with_suffix(""))
    (pictures / "red" / "README").write_text("mine")
    lacking = len(list((pictures / "red").iterdir())) - 2
    note, *others = dataset.ignored_notes(dataset.load(pictures))[::-1]
    assert note.startswith(f"{lacking} pictures whose names have no ending were ignored; to name such: ")
    assert others == ["README was ignored"]
    subprocess.run(["sh", "-c", note.partition(": ")[2]], check=True)
    assert dataset.ignored_notes(dataset.load(pictures)) == ["README was ignored"]


@pytest.mark.parametrize("folder", ["photos", "photos/images", ".photos"])
def test_the_command_for_pictures_without_an_ending_renames_them_alone(tmp_path, pictures, folder):
    """In a home folder, beside keys, a README and what Git keeps."""
    source = tmp_path / folder.split("/")[0]
    kept = [tmp_path / "id_rsa", source / ".git" / "HEAD", source / "b.jpg", source / "README", source / "it's read me"]
    for path in (tmp_path / folder / "IMG0001", source / "a", source / "b"):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / "red" / "000.png", path)
    shutil.copy(pictures / "red" / "000.png", tmp_path / folder / "x.png")
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("kept")
    with pytest.raises(InputError) as caught:
        dataset.load(source)
    subprocess.run(["sh", "-c", caught.value.remedy.partition(": ")[2]], check=True)
    assert [path.read_text() for path in kept] == ["kept"] * 5
    assert (tmp_path / folder / "IMG0001.jpg").exists()
    assert (source / "a.jpg").exists()
    with pytest.raises(InputError) as caught:
        dataset.load(source / "b")
    assert "mv" not in caught.value.remedy


def test_a_class_in_other_capitals_is_named(pictures):
    with pytest.raises(InputError, match="has no class 'Red'") as caught:
        dataset.load(pictures, labels=["Red"])
    assert caught.value.remedy == "did you mean 'red'?"
    with pytest.raises(InputError, match="has no class 'x'") as caught:
        dataset.load(pictures, labels=["x"])
    assert caught.value.remedy == "its classes are blue, green, red"


def test_class_folders_beside_folders_of_lists_are_named(tmp_path, pictures):
    """As DTD, the describable textures, is laid out."""
    root = layout(tmp_path / "data", pictures, "images/{}")
    (root / "labels").mkdir()
    (root / "labels" / "train1.txt").write_text("red/000.png\n")
    with pytest.raises(InputError, match=r"labels in .* is no class") as caught:
        dataset.load(root)
    assert caught.value.remedy.endswith(f"give it: edge-ran dataset {root}/images")


def test_flat_parts_of_the_data_are_no_classes(tmp_path, pictures):
    """As Kaggle's dogs and cats are laid out: train/cat.0.jpg, test1/1.jpg."""
    for folder, names in (("train", ("cat.0", "cat.1", "dog.0", "dog.1")), ("test1", ("1", "2"))):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(pictures / "red" / "000.png", tmp_path / "data" / folder / f"{name}.png")
    with pytest.raises(InputError, match="test1 and train look like parts of the data, not like classes") as caught:
        dataset.load(tmp_path / "data")
    assert caught.value.remedy.startswith(f"edge-ran dataset {tmp_path}/data/train; or --classes test1,train")
    assert dataset.load(tmp_path / "data" / "train").labels == ("cat", "dog")
    assert dataset.load(tmp_path / "data", labels=["train", "test1"]).labels == ("test1", "train")
    shutil.rmtree(tmp_path / "data" / "train")
    (tmp_path / "data" / "test_b").mkdir()
    shutil.copy(pictures / "red" / "000.png", tmp_path / "data" / "test_b" / "x.png")
    with pytest.raises(InputError, match="look like parts") as caught:
        dataset.load(tmp_path / "data")
    assert "make a folder for each class" in caught.value.remedy


def test_labels_in_matlab_s_files_are_told(tmp_path, pictures):
    (tmp_path / "flowers").mkdir()
    (pictures / "red").rename(tmp_path / "flowers" / "jpg")
    (tmp_path / "flowers" / "imagelabels.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(InputError, match="one folder, jpg, which does not look like a class") as caught:
        dataset.load(tmp_path / "flowers")
    assert f"list the pictures with their classes in {tmp_path}/flowers/list.csv" in caught.value.remedy


def test_rooms_with_visits_of_the_same_names_are_classes(tmp_path, pictures):
    root = layout(tmp_path / "data", pictures, "kitchen/{}", "hall/{}")
    assert dataset.load(root).labels == ("hall", "kitchen")


@pytest.mark.parametrize("name", ["images", "JPEGImages", "data"])
def test_one_folder_of_pictures_is_no_class(tmp_path, pictures, name):
    (tmp_path / "data").mkdir()
    (pictures / "red").rename(tmp_path / "data" / name)
    with pytest.raises(InputError, match=f"one folder, {name}, which does not look like a class") as caught:
        dataset.load(tmp_path / "data")
    assert caught.value.remedy.startswith(f"lay it out as {tmp_path}/data/CLASS/PICTURE")
    (tmp_path / "data" / "task 1.xml").write_text("<annotations/>")
    with pytest.raises(InputError) as caught:
        dataset.load(tmp_path / "data")
    assert caught.value.remedy.endswith(f"give it: edge-ran dataset '{tmp_path}/data/task 1.xml'")
    assert dataset.load(tmp_path / "data", labels=[name]).labels == (name,)
    for table in ("a.csv", "b.csv"):
        (tmp_path / "data" / table).write_text("id,kind,other\n")
    with pytest.raises(InputError) as caught:
        dataset.load(tmp_path / "data")
    assert caught.value.remedy.endswith(f"edge-ran dataset {tmp_path}/data/a.csv or {tmp_path}/data/b.csv")


def test_the_folder_of_the_classes_among_others_is_named(tmp_path, pictures):
    """As CUB-200-2011 is laid out."""
    root = layout(tmp_path / "data", pictures, "images/{}")
    for other in ("attributes", "parts"):
        (root / other).mkdir()
        (root / other / "parts.txt").write_text("1 back")
    with pytest.raises(InputError, match=r"class folder .*attributes holds no picture") as caught:
        dataset.load(root)
    assert caught.value.remedy.endswith(f"edge-ran dataset {root}/images")
    shutil.rmtree(root / "attributes")
    shutil.rmtree(root / "parts")
    with pytest.raises(InputError, match="images, which does not look like a class") as caught:
        dataset.load(root)
    assert caught.value.remedy.endswith(f"edge-ran dataset {root}/images")


def test_a_table_that_divides_the_pictures_otherwise_is_asked_about(tmp_path, pictures):
    """As HAM10000 is laid out: two folders of pictures, and a table of their classes."""
    root = tmp_path / "data"
    root.mkdir()
    for number, label in enumerate(("red", "green"), 1):
        (pictures / label).rename(root / f"images_part_{number}")
        for path in sorted((root / f"images_part_{number}").iterdir()):
            path.rename(path.with_name(f"{number}_{path.name}"))
    rows = [f"{folder[-1]}_{n:03d},{'a' if n % 2 else 'b'},{n}" for folder in ("part_1", "part_2") for n in range(8)]
    for head, options in (("image_id,label,age", {}), ("image_id,dx,kind", {"label_column": "dx"})):
        (root / "list.csv").write_text(
            "\n".join([head, *(row if not options else f"{row[:-1]}x{row[-1]}" for row in rows)])
        )
        with pytest.raises(InputError, match="gives them other classes") as caught:
            dataset.load(root)
        assert caught.value.remedy.startswith(f"edge-ran dataset {root}/list.csv")
        assert dict(Counter(s.label for s in dataset.load(root / "list.csv", **options).samples)) == {"a": 8, "b": 8}
    assert dataset.load(root, labels=("images_part_1", "images_part_2")).labels


def test_a_table_with_the_same_classes_as_the_folders_changes_nothing(pictures):
    lines = [f"{label}/{n:03d}.png,{number}" for number, label in enumerate(("red", "green", "blue")) for n in range(8)]
    (pictures / "list.csv").write_text("\n".join(["image,label", *lines]))
    assert dataset.load(pictures).labels == ("blue", "green", "red")


def test_the_remedy_for_archives_in_class_folders_works(tmp_path, pictures):
    folder = tmp_path / "data" / "my red"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "NAME of FOLDER.zip", "w") as archive:
        archive.write(pictures / "red" / "000.png", "000.png")
    with pytest.raises(InputError, match=r"holds no picture, only files ending in \.zip") as caught:
        dataset.load(tmp_path / "data")
    words = shlex.split(caught.value.remedy.partition("unpack it first: ")[2])
    assert words == ["unzip", str(folder / "NAME of FOLDER.zip"), "-d", str(folder)]


def test_a_folder_with_all_classes_again_is_asked_about(tmp_path, pictures):
    """As Kaggle's rock-paper-scissors is laid out."""
    root = layout(tmp_path / "data", pictures, "{}", "all again/{}")
    with pytest.raises(InputError, match="called as the classes beside it: green, red") as caught:
        dataset.load(root)
    assert caught.value.remedy == "leave it out: --classes green,red"
    (root / "red").rename(root / "red, dark")
    (root / "all again" / "red").rename(root / "all again" / "red, dark")
    with pytest.raises(InputError) as caught:
        dataset.load(root)
    given = shlex.split(caught.value.remedy.partition(": ")[2])[1]
    assert ManifestOptions(classes=given).reading().labels == ("green", "red, dark")
    (root / "red, dark").rename(root / "red")
    assert counts(dataset.load(root, labels=["green", "red"])) == {"green": 3, "red": 3}


@pytest.mark.parametrize("name", ["IMG_1.MOV", "IMG_1_HEVC.MOV", "IMG_1.mp4"])
def test_a_live_photos_picture_and_clip_are_one_group(tmp_path, pictures, name):
    """The clip of 3 s shows what the picture shows: held out alone, the picture would be recognised."""
    for folder in (pictures / "red", pictures / "green" / "a visit"):
        folder.mkdir(exist_ok=True)
        (folder / "IMG_1.PNG").write_bytes((pictures / "blue" / "000.png").read_bytes())
        (folder / name).write_bytes(b"x")
    groups = {s.path.relative_to(pictures).as_posix(): s.group for s in dataset.load(pictures).samples}
    assert groups["red/IMG_1.PNG"] == groups[f"red/{name}"] == f"red/{name}"
    assert groups["green/a visit/IMG_1.PNG"] == groups[f"green/a visit/{name}"] == "green/a visit"
    assert groups["red/000.png"] == ""


def test_pictures_in_no_class_folder_are_counted(tmp_path, pictures):
    """As a competition's test pictures lie beside the classes of the training pictures."""
    root = layout(tmp_path / "data", pictures, "train/{}")
    (root / "test").mkdir()
    for name in ("1.png", "2.png"):
        (root / "test" / name).write_bytes((pictures / "red" / "000.png").read_bytes())
    data = dataset.load(root)
    assert counts(data) == {"green": 3, "red": 3}
    assert f"pictures in {root / 'test'} that are in no class folder were ignored: 2" in dataset.ignored_notes(data)
    (pictures / "stray.png").write_bytes((pictures / "red" / "000.png").read_bytes())
    (pictures / "._stray.png").write_bytes(b"x")
    assert dataset.ignored_notes(dataset.load(pictures))[0].endswith("that are in no class folder were ignored: 1")


def test_a_folder_too_many_above_the_classes(tmp_path, pictures):
    root = layout(tmp_path / "data", pictures, "fruits/{}")
    with pytest.raises(InputError, match="one class only") as caught:
        dataset.split(dataset.load(root))
    assert caught.value.remedy.endswith(f"give {root / 'fruits'}")
    assert dataset.summarise(dataset.load(root)).problems[0].endswith(f"give {root / 'fruits'}")


def test_clips_without_class_folders_are_told_where_to_go(tmp_path):
    for name in ("Kitchen.MOV", "hall.mp4"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match="holds no class folder") as caught:
        dataset.load(tmp_path)
    where = "move each clip to a folder of its class, two clips or more a class"
    assert caught.value.remedy == f"{where}: {tmp_path}/CLASS/Kitchen.MOV"


def test_a_class_is_one_class_in_every_form_of_unicode(tmp_path, make_pictures):
    names = [unicodedata.normalize(form, "Käse") for form in ("NFD", "NFC")]
    assert names[0] != names[1]
    for split, name in zip(("train", "test"), names, strict=True):
        make_pictures(tmp_path / split, (name, "pear"), 2)
    data = dataset.load(tmp_path)
    assert data.labels == ("Käse", "pear")
    assert dataset.load(tmp_path, labels=(names[0],)).labels == ("Käse",)
    assert list(dataset.targets(data.samples[:2], (names[0], "pear"))) == [0, 0]


@pytest.mark.parametrize("place", ["red/caf\udce9.png", "caf\udce9/000.png", "red/caf\udce9.avi"])
def test_a_name_that_is_not_utf8_is_one_line(pictures, place):
    path = pictures / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((pictures / "red" / "001.png").read_bytes())
    with pytest.raises(InputError, match=r"caf\\xe9.* is not UTF-8") as caught:
        dataset.load(pictures)
    str(caught.value).encode()  # can be printed
    with pytest.raises(InputError, match="is not UTF-8"):
        dataset.load(Path("caf\udce9"))


def test_a_walk_is_sorted_and_names_what_it_cannot_read(tmp_path):
    for name in ("b/2.png", "b/1.png", "a/3.png", "0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [(place.folder.name, place.files) for place in walk(tmp_path)][1:] == [
        ("a", ("3.png",)),
        ("b", ("1.png", "2.png")),
    ]
    with pytest.raises(InputError, match="cannot read folder"):
        list(walk(tmp_path / "nowhere"))


def test_pictures_and_boxes_are_no_classes(pictures):
    (pictures / "red").rename(pictures / "JPEGImages")
    (pictures / "green").rename(pictures / "Annotations")
    with pytest.raises(InputError, match="laid out for detection: JPEGImages and Annotations") as caught:
        dataset.load(pictures)
    assert "image,label" in caught.value.remedy
    assert dataset.load(pictures, labels=["JPEGImages"]).samples


@pytest.mark.parametrize("suffix", [".ppm", ".PGM", ".pbm", ".jpe", ".apng"])
def test_pictures_of_research_and_of_old_programs(pictures, suffix):
    image = Image.new("L" if suffix in (".PGM", ".pbm") else "RGB", (16, 16), "white")
    image = image.convert("1") if suffix == ".pbm" else image
    image.save(pictures / "red" / f"a{suffix}", format="PNG" if suffix == ".apng" else None)
    found = dataset.load(pictures)
    assert f"a{suffix}" in {s.path.name for s in found.samples}
    assert not dataset.summarise(found).unreadable
    assert read_picture(pictures / "red" / f"a{suffix}").min() >= 254


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train-00000-of-00001.parquet", "datasets.load_dataset"),
        ("data.tfrecord", "save each picture as CLASS/NUMBER.jpg"),
        ("train-images-idx3-ubyte", "-c"),
        ("flower_photos.tgz", "tar xf {}/data/flower_photos.tgz -C {}/data"),
        ("a.zip", "unzip {}/data/a.zip -d {}/data"),
        ("labels.xlsx", "save it as CSV"),
        ("data.yaml", "give the folder"),
        ("data_batch_1", "-c"),
    ],
)
def test_what_is_in_the_container_of_another_program_is_told(tmp_path, name, words):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(b"x")
    for source in (tmp_path / "data" / name, tmp_path / "data", tmp_path):
        with pytest.raises(InputError) as caught:
            dataset.load(source)
        assert words.split(" ")[0] in caught.value.remedy
    with pytest.raises(InputError) as caught:
        dataset.load(tmp_path / "data" / name)
    assert words.format(tmp_path, tmp_path) in caught.value.remedy


@pytest.mark.parametrize("suffix", [".wmv", ".MPG", ".3gp", ".ts", ".mjpeg", ".dav"])
def test_clips_of_camcorders_and_old_phones(pictures, suffix):
    frame = np.zeros((16, 16, 3), np.uint8)
    writer = cv2.VideoWriter(str(pictures / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (16, 16))
    for _ in range(20):
        writer.write(frame)
    writer.release()
    (pictures / "a.avi").rename(pictures / "red" / f"a{suffix}")  # FFmpeg looks at the bytes
    assert sum(s.path.suffix == suffix for s in dataset.load(pictures).samples) == 2


def named(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (16, 16)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ("cat.0.png", "cat.1.png", "dog.0.png", "dog.1.png"),  # Kaggle's
        ("american_cat_001.png", "american_cat_2.png", "Dog (1).png", "Dog-(2) b.png"),
    ],
)
def test_classes_in_the_names_of_pictures_are_taken_aloud(tmp_path, names):
    flat = named(tmp_path / "flat", *names)
    data = dataset.load(flat)
    classes = [name.split("0")[0].split("1")[0].split("2")[0].rstrip(" ._-(") for name in names]
    assert sorted(s.label for s in data.samples) == sorted(classes)
    assert "classes were taken from the pictures' names" in dataset.ignored_notes(data)[0]
    for split in ("train", "test"):
        named(tmp_path / "split" / split, *names)
    assert {s.split for s in dataset.load(tmp_path / "split").samples} == {"train", "test"}


@pytest.mark.parametrize(
    "names",
    [
        ("IMG_1.png", "IMG_2.png", "DSC_1.png", "DSC_2.png"),  # two cameras
        ("frame1.png", "frame2.png", "cat1.png", "cat2.png"),
        ("cat1.png", "cat2.png"),
        ("cat1.png", "cat2.png", "dog1.png"),
        ("cat1.png", "cat2.png", "dog1.png", "dog.png"),
        ("1.png", "2.png", "3.png", "4.png"),
    ],
)
def test_names_without_classes_are_no_classes(tmp_path, names):
    with pytest.raises(InputError, match="no class folder with pictures") as caught:
        dataset.load(named(tmp_path / "flat", *names))
    assert "CLASS/PICTURE" in caught.value.remedy
    assert caught.value.remedy.endswith(f"if this is one class, give the folder above: {tmp_path}")


def test_a_table_beside_what_looks_like_boxes_is_named(tmp_path):
    named(tmp_path / "images", "Abyssinian_1.png", "Abyssinian_2.png", "beagle_1.png", "beagle_2.png")
    table = tmp_path / "annotations" / "trainval.txt"
    table.parent.mkdir()
    table.write_text("#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\nbeagle_2 5 2 4\n")
    with pytest.raises(InputError, match="laid out for detection") as caught:
        dataset.load(tmp_path)
    assert caught.value.remedy.endswith(f"edge-ran dataset {table}")
    data = dataset.load(table)
    assert [(s.label, s.path.name, s.group) for s in data.samples] == [
        ("1", "Abyssinian_1.png", ""),
        ("5", "beagle_2.png", ""),
    ]


def test_a_set_some_levels_below_is_named(make_pictures, tmp_path):
    """Kaggle's ImageNet: ILSVRC/Data/CLS-LOC/train/CLASS, with Annotations of the same names beside."""
    inner = tmp_path / "download" / "ILSVRC" / "Data" / "CLS LOC"
    make_pictures(inner / "train")
    for part in ("Annotations/CLS LOC/train/red/a.xml", "ImageSets/CLS LOC/train.txt"):
        path = tmp_path / "download" / "ILSVRC" / part
        path.parent.mkdir(parents=True)
        path.write_text("x 1\n")
    command = f"edge-ran dataset '{inner}'"
    with pytest.raises(InputError, match="laid out for detection") as caught:
        dataset.load(tmp_path / "download" / "ILSVRC")
    assert caught.value.remedy.endswith(command)
    assert one_class_remedy(dataset.load(tmp_path / "download")).endswith(f"give '{inner}'")
    assert one_class_remedy(dataset.load(tmp_path)).endswith(f"give '{inner}'")
    assert dataset.load(inner).labels == ("blue", "green", "red")
