"""Manifests as Excel, pandas, Windows and people write them."""

from __future__ import annotations

import csv
import gzip
import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edge_ran import dataset
from edge_ran.errors import InputError

NAMES = [(label, f"{label}/{number:03d}.png") for label in ("red", "green") for number in range(4)]


def table(header: str = "image,label", line: str = "{image},{label}", end: str = "\n", **words: str) -> str:
    lines = [line.format(image=image, label=label, **words) for label, image in NAMES]
    return end.join([header, *lines] if header else lines) + end


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (table(), "utf-8"),
        (table(end="\r\n"), "utf-8-sig"),
        (table(end="\r"), "utf-8"),
        (table("image;label", "{image};{label}"), "utf-8-sig"),
        ("sep=;\r\n" + table("image;label", "{image};{label}", "\r\n"), "utf-8"),
        (table("image\tlabel", "{image}\t{label}", "\r\n"), "utf-16"),
        (table("Image,Label"), "utf-8"),
        (table("filename,class"), "utf-8"),
        (table("file_path,category"), "utf-8"),
        (table("image, label", "{image}, {label}"), "utf-8"),
        (table("label,image", "{label},{image}"), "utf-8"),
        (table("id,image,label,x", "7,{image},{label},"), "utf-8"),
        (table(header=""), "utf-8"),
        (table(end="\n\n"), "utf-8"),
        (table(line='"{image}","{label}"'), "utf-8"),
        (table("image,label,note", '{image},{label},"two\nlines, and a comma"'), "utf-8"),
        (table().replace("/", "\\"), "utf-8"),
        (table(header="").replace("/", "\\"), "utf-8"),
    ],
)
def test_every_form_of_a_manifest_lists_the_same_pictures(pictures, text, encoding):
    path = pictures / "list.csv"
    path.write_bytes(text.encode(encoding))
    data = dataset.load(path)
    assert data.labels == ("green", "red")
    assert [s.path.relative_to(pictures).as_posix() for s in data.samples] == [image for _, image in NAMES]


def test_a_column_of_splits_by_another_name_counts_where_it_holds_splits(pictures):
    path = pictures / "list.csv"
    path.write_text(table("image,label,set", "{image},{label},Validation"))
    assert {s.split for s in dataset.load(path).samples} == {"val"}
    path.write_text(table("image,label,set", "{image},{label},42"))
    assert {s.split for s in dataset.load(path).samples} == {""}


def test_columns_by_name(pictures):
    path = pictures / "list.csv"
    path.write_text(table("photo,colour,walk,part", "{image},{label},w{label},test"))
    columns = {"image_column": "photo", "label_column": "colour", "group_column": "walk", "split_column": "part"}
    for kind, name in columns.items():
        wrong = {**columns, kind: "nothing"}
        with pytest.raises(InputError, match="no column 'nothing'") as caught:
            dataset.load(path, **wrong)
        assert f"--{kind.replace('_', '-')} NAME" in caught.value.remedy
        assert "photo, colour" in caught.value.remedy
        assert name in columns.values()
    data = dataset.load(path, **columns)
    assert Counter((s.label, s.group, s.split) for s in data.samples) == {
        ("red", "wred", "test"): 4,
        ("green", "wgreen", "test"): 4,
    }


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("photo,label\nsomething,red\n", "--image-column NAME"),
        (table("image,colour,shade", "{image},{label},dark {label}"), "--label-column NAME"),
        (table("image,score", "{image},0.{image}"), "--label-column NAME"),
        (table("image,number", "{image},x{image}"), "--label-column NAME"),
        (table("image,same", "{image},x"), "--label-column NAME"),
    ],
)
def test_a_column_that_is_not_found_names_the_option(pictures, text, option):
    (pictures / "list.csv").write_text(text)
    with pytest.raises(InputError, match="has no column") as caught:
        dataset.load(pictures / "list.csv")
    assert option in caught.value.remedy


def test_a_list_of_pictures_without_classes_says_who_takes_it(pictures):
    (pictures / "test.csv").write_text(table("image", "{image}"))
    with pytest.raises(InputError, match="no column 'label'") as caught:
        dataset.load(pictures / "test.csv")
    assert "run MODEL --camera" in caught.value.remedy


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xef\xbb\xbf", "is empty"),
        (b"\n\n", "is empty"),
        ("image,label\nred/000.png,grün\n".encode("latin-1"), "not UTF-8"),
        (b"image,label\n" + b"x" * 140_000 + b",red\n", "line 2: field larger than field limit|names 1 missing"),
        (b'image,label\n"red/000.png,red\n', "line 2: image or label is empty|missing"),
    ],
)
def test_what_cannot_be_a_manifest_is_one_line(pictures, data, words):
    (pictures / "list.csv").write_bytes(data)
    with pytest.raises(InputError, match=words) as caught:
        dataset.load(pictures / "list.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".png", ".JPG"])
def test_names_without_an_ending_as_kaggle_and_isic_write_them(pictures, ending):
    for _, image in NAMES:
        (pictures / image).rename((pictures / image).with_suffix(ending))
    path = pictures / "list.csv"
    path.write_text(table("image_id,dx").replace(".png", ""))
    data = dataset.load(path, label_column="dx")
    assert [s.path for s in data.samples] == [(pictures / image).with_suffix(ending) for _, image in NAMES]


@pytest.mark.parametrize("flags", ["01", ("0.0", "1.0")])
def test_a_column_for_each_class_as_roboflow_and_isic_write_it(pictures, flags):
    lines = [f"{image}, {flags[label == 'green']}, {flags[label == 'red']}, 7" for label, image in NAMES]
    path = pictures / "list.csv"
    path.write_text("\n".join(["filename, green, red, age", *lines]))
    data = dataset.load(path)
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES
    for flag, count in (("0", 0), ("1", 2)):
        both = f"{NAMES[0][1]},{flag},{flag},7"
        path.write_text("\n".join(["filename,green,red,age", *lines[1:], both]))
        with pytest.raises(InputError, match=f"line 9: of the classes green, red, {count} are 1"):
            dataset.load(path)
    rows = [f"{image},{int(label == 'red')},{number // 2}" for number, (label, image) in enumerate(NAMES)]
    path.write_text("\n".join(["filename,is_red,age", *rows]))
    with pytest.raises(InputError, match="no column 'label'"):
        dataset.load(path)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("Image Name,Label", "{image},{label}"),  # names with blanks, capitals and marks
        ("id,breed", "{image},{label}"),  # Kaggle's dogs
        (",photo,has_cactus,note", "{image} 7,{image},{label},"),  # pandas's index, and a column without cells
        ("", "TRAIN,{image},{label}"),  # AutoML
        ("", "UNASSIGNED,gs://bucket/data/{image},{label},"),
        ("", r"C:\Users\me\data\{image};{label};;"),
        ("ImageId,PredictionString", "{image},{label} 1 2 3 4 {label} 10 20 30 40"),  # Kaggle's ImageNet
        ("filename,label", "/kaggle/input/x/{image},{label}"),
        ("filename,label", "data/{image},{label}"),  # from the folder above
    ],
)
def test_columns_are_found_by_what_is_in_them(pictures, header, line):
    path = pictures / "list.csv"
    path.write_text(table(header, line).replace(".png", ".PNG"))
    data = dataset.load(path)
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES
    assert {s.split for s in data.samples} == ({"train"} if line.startswith("TRAIN") else {""})
    guessed = header.split(",")[-1] if "PredictionString" in header or "breed" in header else "has_cactus"
    notes = [f"the column {guessed!r} was taken for the labels; --label-column names another"]
    assert list(data.notes) == (notes if guessed in header else [])
    assert dataset.ignored_notes(data) == list(data.notes)


def test_names_as_addresses_are_written(pictures):
    (pictures / "red" / "000.png").rename(pictures / "red" / "my dog (1).png")
    path = pictures / "list.csv"
    for name in ("red/my%20dog%20(1).png", "file:///data/red/my%20dog%20(1).png"):
        path.write_text(f"image,label\n{name},red\n")
        assert [s.path.name for s in dataset.load(path).samples] == ["my dog (1).png"]


def test_names_of_another_machine_are_looked_for_in_one_folder_only(pictures):
    path = pictures / "list.csv"
    path.write_text(table(line="gs://bucket/red/{image},{label}").replace("red/green", "red/elsewhere"))
    with pytest.raises(InputError, match=r"names 4 missing files; the first: .*elsewhere/000\.png"):
        dataset.load(path)
    path.write_text(f"image,label\n{'x' * 5000}.png,red\n\0.png,red\n")
    with pytest.raises(InputError, match="names 2 missing files"):
        dataset.load(path)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"image": image, "label": label} for label, image in NAMES]),
        json.dumps({image: label for label, image in NAMES}),
    ],
)
def test_json(pictures, text):
    (pictures / "labels.json").write_text(text)
    data = dataset.load(pictures / "labels.json")
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES


def test_what_vott_exports(pictures):
    assets = {
        str(number): {
            "asset": {"name": image, "path": f"file:C:/x/{image}"},
            "regions": [{"tags": [label]}, {"tags": []}],
        }
        for number, (label, image) in enumerate(NAMES)
    }
    path = pictures / "vott-json-export.json"
    path.write_text(json.dumps({"name": "x", "tags": [{"name": "red"}], "assets": assets}))
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in dataset.load(path).samples] == NAMES
    assets["0"]["regions"].append({"tags": ["green"]})
    path.write_text(json.dumps({"assets": assets}))
    with pytest.raises(InputError, match=r"red/000\.png has the labels green, red"):
        dataset.load(path)
    assets["0"]["regions"] = [{"tags": 3}]  # no list: as if it had none
    path.write_text(json.dumps({"assets": assets}))
    with pytest.raises(InputError):
        dataset.load(path)


def test_what_label_studio_exports(pictures):
    tasks = [
        {
            "id": number,
            "annotations": [{"result": [{"type": "choices", "value": {"choices": [label]}}]}],
            "data": {"note": "x", "image": f"/data/upload/3/{image}"},
        }
        for number, (label, image) in enumerate(NAMES)
    ]
    path = pictures / "project.json"
    path.write_text(json.dumps(tasks))
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in dataset.load(path).samples] == NAMES
    tasks[0]["annotations"].append({"result": [{"value": {"choices": ["green"]}}]})
    path.write_text(json.dumps(tasks))
    with pytest.raises(InputError, match="has the labels green, red"):
        dataset.load(path)
    tasks[0]["annotations"] = [{"result": 3}, 4]
    path.write_text(json.dumps(tasks))
    with pytest.raises(InputError, match="is empty"):
        dataset.load(path)


def test_what_sagemaker_ground_truth_exports(pictures):
    def line(label: str, image: str, **more: object) -> str:
        about = {"class-name": label, "confidence": 0.9, "type": "groundtruth/image-classification"}
        return json.dumps({"source-ref": f"s3://bucket/x/{image}", "kind": 0, "kind-metadata": about, **more})

    path = pictures / "output.manifest"
    path.write_text("\n".join(line(label, image) for label, image in NAMES))
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in dataset.load(path).samples] == NAMES
    path.write_text(line(*NAMES[0]) + "\n" + line(*NAMES[1], **{"size-metadata": {"class-name": "big"}}))
    with pytest.raises(InputError, match=r"line 2: .*has the labels big, red"):
        dataset.load(path)


def via_of(label: str, image: str) -> dict[str, object]:
    return {"filename": image, "size": 9, "regions": [], "file_attributes": {"kind": label, "note": ""}}


@pytest.mark.parametrize("form", ["json", "project", "csv", "ticked"])
def test_what_the_vgg_image_annotator_exports(pictures, form):
    pictured = {f"{image}9": via_of(label, image) for label, image in NAMES}
    if form == "ticked":
        for one in pictured.values():
            one["file_attributes"] = {"kind": {one["file_attributes"]["kind"]: True, "other": False}}
    path = pictures / ("via.csv" if form == "csv" else "via.json")
    path.write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": pictured} if form == "project" else pictured))
    if form == "csv":
        with path.open("w", newline="") as file:
            names = (
                "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
            )
            table = csv.writer(file)
            table.writerow([*names.split(","), "region_attributes"])
            for one in pictured.values():
                for region in range(2):
                    said = json.dumps(one["file_attributes"])
                    table.writerow([one["filename"], 9, said, 2, region, "{}", "{}"])
    data = dataset.load(path)
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES
    assert "the column 'kind' was taken" in data.notes[0]
    if form != "csv":
        (pictures / "config.json").write_text('{"red/000.png": 3.5}')
        for _, image in NAMES:
            (pictures / image).rename(pictures / image.replace("/", "_"))
        for label in ("red", "green", "blue"):
            shutil.rmtree(pictures / label)
        path.write_text(path.read_text().replace("red/", "red_").replace("green/", "green_"))
        assert dataset.load(pictures).labels == ("green", "red")


def test_via_s_regions_are_no_classes(pictures):
    one = {**via_of("red", "red/000.png"), "file_attributes": {}, "regions": [{"region_attributes": {"a": "b"}}]}
    (pictures / "via.json").write_text(json.dumps({"x": one}))
    with pytest.raises(InputError, match="lists what is in pictures, not their classes") as caught:
        dataset.load(pictures / "via.json")
    assert "File Attributes" in caught.value.remedy
    one["file_attributes"] = {"kind": [{}], "other": 3}  # of another form: no label in it
    (pictures / "via.json").write_text(json.dumps({"x": one}))
    with pytest.raises(InputError):
        dataset.load(pictures / "via.json")
    one["file_attributes"] = {"kind": {"a": True, "b": True}}
    (pictures / "via.json").write_text(json.dumps({"x": one}))
    with pytest.raises(InputError, match="has the labels a, b"):
        dataset.load(pictures / "via.json")


@pytest.mark.parametrize(
    ("file", "text", "first"),
    [
        ("label_num_to_disease_map.json", '{"0": "blight", "1": "healthy"}', 0),
        ("classes.txt", "blight\nhealthy\n", 0),
        ("classes.txt", "1 blight\n2 healthy\n", 0),
        ("classes.txt", "1 blight\n2 healthy\n", 1),
        ("cat_to_name.json", '{"2": "healthy", "1": "blight"}', 1),
        ("labels.csv", "id,name\n0,blight\n1,healthy\n", 0),
        ("class_names.txt", "blight\nhealthy\n", 1),
        ("category.json", '[{"id": 1, "name": "healthy"}, {"id": 0, "name": "blight"}]', 0),
    ],
)
def test_numbers_get_their_names_from_a_file_beside(pictures, file, text, first):
    place = {"red": first, "green": first + 1}
    (pictures / "train.csv").write_text(
        "image_id,label\n" + "".join(f"{image},{place[label]}\n" for label, image in NAMES)
    )
    (pictures / file).write_text(text)
    data = dataset.load(pictures / "train.csv")
    assert {(s.label, s.path.parent.name) for s in data.samples} == {("blight", "red"), ("healthy", "green")}
    assert data.notes == (f"the names of the classes are from {file} beside train.csv: {first} is 'blight'",)
    (pictures / "label_map.txt").write_text("one\ntwo\n")  # which of them it is, nobody knows
    if file != "label_map.txt":
        assert dataset.load(pictures / "train.csv").labels == (str(first), str(first + 1))


@pytest.mark.parametrize("text", ["1 2\n2 1\n", "a\n", "a\nb\nc\nd\ne\n", "0.1\n0.2\n", "a\na\n", ""])
def test_numbers_stay_where_a_file_beside_names_other_things(pictures, text):
    (pictures / "train.csv").write_text("".join(f"{image},{int(label == 'red')}\n" for label, image in NAMES))
    (pictures / "image_class_labels.txt").write_text(text)
    data = dataset.load(pictures / "train.csv")
    assert data.labels == ("0", "1")
    assert data.notes == ()


def numbered(pictures, file: str, colours: str, first: int) -> Path:
    """A list of two pictures of each colour, with the number of the colour."""
    places = {"red": first, "green": first + 1, "blue": first + 2}
    rows = [f"{colour}/{place:03d}.png {places[colour]}\n" for colour in colours.split() for place in range(2)]
    (pictures / file).write_text("".join(rows))
    return pictures / file


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("rest", ["red green", "green blue", "green"])
def test_numbers_in_the_lists_of_all_splits_mean_the_same(pictures, rest, first):
    root = pictures.parent / "data"
    root.mkdir()
    pictures.rename(root / "images")
    numbered(root, "train.txt", "red green blue", first)
    numbered(root, "val.txt", rest, first)
    (root / "classes.txt").write_text("warm\nfresh\ncold\n")
    names = {"red": "warm", "green": "fresh", "blue": "cold"}
    data = dataset.load(root)
    assert {s.split for s in data.samples} == {"train", "val"}
    assert {(s.label, s.path.parent.name) for s in data.samples} == {(names[colour], colour) for colour in names}
    assert data.codes == {name: str(place) for place, name in enumerate(names.values(), first)}
    assert data.notes == (f"the names of the classes are from classes.txt beside train.txt: {first} is 'warm'",)


LABEL_MAP = ((1, "warm"), (2, "fresh"), (3, "cold"))


@pytest.mark.parametrize(
    ("file", "text", "label"),
    [
        ("classes.txt", "warm\nfresh\ncold\n", ""),  # 1 and 2 of three names: nobody knows
        ("classes.json", '["warm", "fresh", "cold"]', ""),
        ("classes.txt", "0 warm\n1 fresh\n2 cold\n", "fresh"),
        ("classes.txt", "1 warm\n2 fresh\n3 cold\n", "warm"),
        ("class_map.json", '{"0": "warm", "1": "fresh", "2": "cold"}', "fresh"),
        ("classes.yaml", "names: [warm, fresh, cold]\n", "fresh"),
        ("classes.yaml", "names:\n  1: warm\n  2: fresh\n  3: cold\n", "warm"),
        ("label_map.pbtxt", "".join(f"item {{ id: {i} name: '{n}' }}" for i, n in LABEL_MAP), "warm"),
    ],
)
def test_a_list_of_names_that_may_count_from_0_or_1_names_nothing(pictures, file, text, label):
    source = numbered(pictures, "val.txt", "red green", 1)
    (pictures / file).write_text(text)
    data = dataset.load(source)
    assert {s.label for s in data.samples if s.path.parent.name == "red"} == {label or "1"}
    if label:
        assert f"are from {file} beside val.txt: 1 is {label!r}" in data.notes[0]
    else:
        doubt = f"as {file} beside val.txt may count from 0 or from 1; begin its lines with the numbers"
        assert data.notes == (f"the classes keep their numbers, {doubt}",)
        (pictures / "names.txt").write_text("0 warm\n1 fresh\n2 cold\n")  # another list tells it
        assert dataset.load(source).labels == ("cold", "fresh")


def test_a_list_of_pictures_names_no_classes(pictures):
    source = numbered(pictures, "train_labels.txt", "red green", 0)
    (pictures / "val_labels.txt").write_text("red/003.png 0\ngreen/003.png 1\n")
    assert dataset.load(source).labels == ("0", "1")
    (pictures / "red").rename(pictures / "c0")
    (pictures / "green").rename(pictures / "c1")
    shutil.rmtree(pictures / "blue")
    (pictures / "train_labels.txt").unlink()
    (pictures / "val_labels.txt").rename(pictures / "labels.csv")
    (pictures / "labels.csv").write_text("classname,img\nc0,000.png\nc1,001.png\n")
    assert dataset.load(pictures).labels == ("c0", "c1")


def test_categories_in_coco_s_form_without_boxes_are_classes(pictures):
    """As iNaturalist and iWildCam have it."""
    names = {"red": 7, "green": 9}
    told = {
        "images": [{"id": number, "file_name": image} for number, (_, image) in enumerate(NAMES)],
        "annotations": [{"image_id": number, "category_id": names[label]} for number, (label, _) in enumerate(NAMES)],
        "categories": [{"id": number, "name": name} for name, number in names.items()],
    }
    path = pictures / "train.json"
    path.write_text(json.dumps(told))
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in dataset.load(path).samples] == NAMES
    herbarium = {
        "images": [{"image_id": one["id"], "file_name": one["file_name"]} for one in told["images"]],
        "annotations": told["annotations"],
        "categories": [{"category_id": number, "scientificName": name} for name, number in names.items()],
    }
    path.write_text(json.dumps(herbarium))
    assert [s.label for s in dataset.load(path).samples] == [label for label, _ in NAMES]
    del told["categories"]
    path.write_text(json.dumps(told))
    assert dataset.load(path).labels == ("7", "9")
    told["annotations"].append({"image_id": 0, "category_id": 9})
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"red/000\.png has the labels 7, 9"):
        dataset.load(path)
    told["annotations"] = [{"image_id": 0, "category_id": 9, "bbox": [1, 2, 3, 4]}]
    path.write_text(json.dumps(told))
    with pytest.raises(InputError, match="lists what is in pictures"):
        dataset.load(path)


def test_choices_in_a_cell(pictures):
    """As Label Studio's CSV has them where several may be ticked."""
    path = pictures / "list.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["image", "choice"], *([image, json.dumps({"choices": [label]})] for label, image in NAMES)]
        )
    assert dataset.load(path).labels == ("green", "red")
    path.write_text(path.read_text().replace('[""red""]', '[""red"", ""blue""]'))
    with pytest.raises(InputError, match="has the labels blue, red"):
        dataset.load(path)


def test_what_labelbox_exports(pictures):
    def line(label: str, image: str) -> str:
        answer = {"feature_id": f"id of {label}", "name": label, "value": label}
        classified = {"objects": [], "classifications": [{"name": "kind", "radio_answer": answer}]}
        labels = [{"label_kind": "Default", "annotations": classified}]
        row = {"id": image[:5], "external_id": image, "row_data": f"https://x/{image}"}
        return json.dumps({"data_row": row, "projects": {"p": {"labels": labels}}})

    path = pictures / "export.ndjson"
    path.write_text("\n".join(line(label, image) for label, image in NAMES))
    data = dataset.load(path)
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES
    assert "radio_answer.name' was taken for the labels" in data.notes[0]


def test_columns_that_may_all_be_the_labels_are_named(pictures):
    shades = ("a", "a", "b", "b") * 2
    rows = [
        f"{image},{place},x,{label},{shade}\n"
        for place, ((label, image), shade) in enumerate(zip(NAMES, shades, strict=True))
    ]
    (pictures / "list.csv").write_text("image,number,same,kind,shade\n" + "".join(rows))
    with pytest.raises(InputError, match="no column 'label'") as caught:
        dataset.load(pictures / "list.csv")
    assert caught.value.remedy.startswith("its columns are kind, shade; name that of the labels: --label-column")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_a_table_of_empty_cells_is_one_line(tmp_path, name):
    """Objects that have keys of their own, or rows below many names: 80 GB for 2 MB."""
    if name == "a.csv":
        (tmp_path / name).write_text(",".join(["image", *map(str, range(8000))]) + "\n" + "a.jpg,1,0\n" * 8000)
    else:
        lines = [json.dumps({"image": f"{n}.jpg", str(n): 1}) for n in range(8000)]
        (tmp_path / name).write_text("\n".join(lines) if name == "a.jsonl" else f"[{','.join(lines)}]")
    with pytest.raises(InputError, match=r"table of 8,00. rows and 8,001 columns, most of it empty"):
        dataset.load(tmp_path / name)


@pytest.mark.parametrize("words", [("False", "True"), ("0", "1"), ("false", "true")])
def test_fastai_s_column_of_validation_divides(pictures, words):
    rows = [f"{image},{label},{words[place % 2]}\n" for place, (label, image) in enumerate(NAMES)]
    (pictures / "labels.csv").write_text("fname,labels,is_valid\n" + "".join(rows))
    data = dataset.load(pictures / "labels.csv")
    assert [s.split for s in data.samples] == ["train", "val"] * 4
    assert data.labels == ("green", "red")
    (pictures / "labels.csv").write_text("fname,labels,is_valid,note\n" + "".join(rows))  # rows may lack the last cells
    assert [s.split for s in dataset.load(pictures / "labels.csv").samples] == ["train", "val"] * 4


@pytest.mark.parametrize(
    ("header", "splits"),
    [
        ("is_train,is_test", ("train", "test")),
        ("train,test", ("train", "test")),
        ("is_valid,is_test", ("val", "test")),
        ("is_valid,is_other", ("val", "train")),
        ("is_train,is_other", ("", "")),
    ],
)
def test_columns_that_say_whether_a_picture_is_in_a_split_are_no_classes(pictures, header, splits):
    rows = [f"{image},{label},{1 - place % 2},{place % 2}\n" for place, (label, image) in enumerate(NAMES)]
    path = pictures / "list.csv"
    path.write_text(f"image,label,{header}\n" + "".join(rows))
    assert [s.split for s in dataset.load(path).samples] == list(splits) * 4
    path.write_text(f"image,breed,{header}\n" + "".join(rows))
    with pytest.raises(InputError, match="has no column 'label'"):
        dataset.load(path)
    assert [s.split for s in dataset.load(path, label_column="breed").samples] == list(splits) * 4


@pytest.mark.parametrize(
    ("header", "flags", "why"),
    [
        ("is_train", ["1", "0"], "column 'is_train': it does not say whether the others are val or test"),
        ("is_valid,is_test", ["1,0", "1,1"], "columns is_valid, is_test: line 3 is in 2 of them"),
        ("train,test", ["1,0", "0,0"], "columns train, test: line 3 is in none of them"),
        ("is_valid", ["1", "no"], "column 'is_valid': line 3 has 'no' there, neither 0 nor 1"),
        ("is_valid", ["1", ""], "column 'is_valid': line 3 has '' there, neither 0 nor 1"),
    ],
)
def test_flags_that_tell_no_split_are_said(pictures, header, flags, why):
    rows = [f"{image},{label},{flags[place % 2]}\n" for place, (label, image) in enumerate(NAMES)]
    (pictures / "list.csv").write_text(f"image,label,{header}\n" + "".join(rows))
    data = dataset.load(pictures / "list.csv")
    assert {s.split for s in data.samples} == {""}
    assert data.notes == (f"no splits were taken from the {why}; --split-column names one of train, val and test",)


def test_a_flag_that_all_pictures_have_needs_no_word(pictures):
    rows = [f"{image},{label},1\n" for label, image in NAMES]
    (pictures / "list.csv").write_text("image,label,is_train\n" + "".join(rows))
    assert dataset.load(pictures / "list.csv").notes == ()


def test_columns_that_were_taken_for_classes_are_said(pictures):
    rows = [f"{image},{label},{label == 'red':d},{label != 'red':d}\n" for label, image in NAMES]
    (pictures / "list.csv").write_text("image,breed,male,train\n" + "".join(rows))
    data = dataset.load(pictures / "list.csv")
    assert data.labels == ("male", "train")
    what = "the columns male, train were taken for the classes"
    assert data.notes == (f"{what}; --label-column names that of the labels",)


@pytest.mark.parametrize("line", ['{image},"red,g', '{image},red,"g'])
def test_a_quotation_mark_that_is_not_closed_swallows_no_rows(pictures, line):
    lines = [f"{image},{label},g" for label, image in NAMES]
    lines[2] = line.format(image=NAMES[2][1])
    (pictures / "list.csv").write_text("\n".join(["image,label,group", *lines]))
    with pytest.raises(InputError, match=r"a cell goes on from the lines before: '(red,)?g") as caught:
        dataset.load(pictures / "list.csv")
    assert "quotation mark" in caught.value.remedy


def test_a_quotation_mark_in_any_column_swallows_no_rows(pictures):
    lines = [f"{image},{label},fine" for label, image in NAMES]
    lines[1] = f'{NAMES[1][1]},{NAMES[1][0]},"fine'
    (pictures / "list.csv").write_text("\n".join(["image,label,note", *lines]))
    with pytest.raises(InputError, match="a cell goes on from the lines before: 'fine'"):
        dataset.load(pictures / "list.csv")
    lines[1] = f'{NAMES[1][1]},{NAMES[1][0]},"fine\nand bright"'
    (pictures / "list.csv").write_text("\n".join(["image,label,note", *lines]))
    assert len(dataset.load(pictures / "list.csv").samples) == len(NAMES)


def test_a_group_in_json_may_have_lines_and_a_label_has_one(pictures):
    rows = [{"image": image, "label": label, "group": "ward 3\nbed 2"} for label, image in NAMES]
    (pictures / "list.json").write_text(json.dumps(rows))
    assert len(dataset.load(pictures / "list.json").samples) == len(NAMES)
    rows[1]["label"] = "red\nwine"
    (pictures / "list.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match="a label has several lines: 'red'"):
        dataset.load(pictures / "list.json")


def test_whole_numbers_are_classes_however_they_are_written(pictures):
    written = (1, "1", 1.0, "1.0")
    rows = [
        json.dumps({"image": image, "label": written[place % 4] if label == "red" else 2})
        for place, (label, image) in enumerate(NAMES)
    ]
    (pictures / "list.jsonl").write_text("\n".join(rows))
    assert dataset.load(pictures / "list.jsonl").labels == ("1", "2")


@pytest.mark.parametrize("ending", [".png", ""])
def test_pictures_that_are_listed_with_their_folders_alone(pictures, ending):
    """As MIT's indoor scenes (TrainImages.txt) and Food-101 (meta/train.txt) have it."""
    images = [image.removesuffix("" if ending else ".png") for _, image in NAMES]
    (pictures / "TrainImages.txt").write_text("\n".join(images))
    data = dataset.load(pictures / "TrainImages.txt")
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES
    assert data.notes == (f"classes were taken from the folders in the names: {images[0]} is 'red'",)


def test_pictures_anywhere_below_are_found_by_their_names(pictures):
    """As Kaggle's State Farm lists them: pictures in a folder for each class, the name alone in the list."""
    root = pictures.parent / "farm"
    for label, image in NAMES:
        (root / "imgs" / "train" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / image, root / "imgs" / "train" / label / f"{label}{image[-5:]}")
    shutil.copy(pictures / NAMES[0][1], root / "imgs" / "train" / "green" / f"red{NAMES[0][1][-5:]}")
    rows = [f"p{place},{label},{label}{image[-5:]}\n" for place, (label, image) in enumerate(NAMES)]
    (root / "list.csv").write_text("subject,classname,img\n" + "".join(rows))
    found = dataset.load(root / "list.csv").samples
    assert [s.path.relative_to(root).as_posix() for s in found] == [
        f"imgs/train/{label}/{label}{image[-5:]}" for label, image in NAMES
    ]
    (root / "list.csv").write_text("subject,classname,img\np,other,red0.png\n")  # in two folders: which is it?
    with pytest.raises(InputError, match="names 1 missing file;"):
        dataset.load(root / "list.csv")


def test_lines_of_what_a_picture_does_not_show_are_left_out(pictures):
    """As Open Images has it."""
    other = {"red": "green", "green": "red"}
    rows = [f"{image},machine,{label},1\n{image},machine,{other[label]},0\n" for label, image in NAMES]
    path = pictures / "labels.csv"
    path.write_text("ImageID,Source,LabelName,Confidence\n" + "".join(rows))
    data = dataset.load(path)
    assert [s.label for s in data.samples] == [label for label, _ in NAMES]
    assert data.notes == (f"lines whose confidence is 0 say what a picture does not show; left out: {len(NAMES)}",)
    path.write_text(
        "image,label,confidence\n" + "".join(f"{image},{label},0.{label == 'red':d}\n" for label, image in NAMES)
    )
    assert dataset.load(path).notes == ()


def test_lists_with_their_length_and_the_names_of_their_columns(pictures):
    rows = "".join(f"{image}   {label}\n" for label, image in NAMES)
    (pictures / "list_category_img.txt").write_text(f"{len(NAMES)}\nimage_name  category_label\n{rows}")  # DeepFashion
    data = dataset.load(pictures / "list_category_img.txt")
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES
    rows = "".join(
        f"{image} -1  {(-1, 1)[label == 'red']:2d} {(-1, 1)[place % 2]:2d}\n"
        for place, (label, image) in enumerate(NAMES)
    )
    path = pictures / "list_attr.txt"
    path.write_text(f"{len(NAMES)}\nShadow Red Odd \n{rows}")  # CelebA
    with pytest.raises(InputError, match="no column 'label'") as caught:
        dataset.load(path)
    assert caught.value.remedy.startswith("its columns are Red, Odd;")
    assert [s.label for s in dataset.load(path, label_column="Red").samples] == ["1"] * 4 + ["-1"] * 4
    path.write_text(rows)
    with pytest.raises(InputError, match="has the labels -1   1 -1"):
        dataset.load(path)


def test_labels_with_blanks_behind_names_without_an_ending(pictures):
    """As FGVC-Aircraft has them: 1514522 Boeing 707."""
    for _, image in NAMES:
        (pictures / image).rename(pictures / image.replace("/", ""))
    named = {"red": "Boeing 707", "green": "DC 10"}
    (pictures / "train.txt").write_text(
        "".join(f"{image.replace('/', '')[:-4]} {named[label]}\n" for label, image in NAMES)
    )
    assert dataset.load(pictures / "train.txt").labels == ("Boeing 707", "DC 10")


def test_lists_in_json_below_splits_and_classes(pictures):
    """As CoOp's split_zhou files have it, and people write it."""
    path = pictures / "a.json"
    pairs = [[image, int(label == "red"), label] for label, image in NAMES]
    path.write_text(json.dumps({"train": pairs[:-1], "val": pairs[-1:]}))
    data = dataset.load(path)
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES
    assert [s.split for s in data.samples] == ["train"] * 7 + ["val"]
    path.write_text(json.dumps([[image, label] for label, image in NAMES]))
    assert [s.label for s in dataset.load(path).samples] == [label for label, _ in NAMES]
    path.write_text(json.dumps({name: [image for label, image in NAMES if label == name] for name in ("red", "green")}))
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in dataset.load(path).samples] == NAMES
    for other in ({"red": ["x", "y"]}, {"train": ["a.jpg"]}, [["a.jpg"], ["b.jpg", 1, 2, 3]]):
        path.write_text(json.dumps(other))
        with pytest.raises(InputError):
            dataset.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "# made by x\n# 2024, y\n" + table(),
        table().replace("image,label", "#image,label"),
        "# made by x\n" + table().replace("image,label", "# image,label"),
        "# a comment\n" + table(header=""),
        table(line="'{image}','{label}'"),
        table(line="'{image}',{label}"),
    ],
)
def test_comments_and_single_quotation_marks(pictures, text):
    (pictures / "list.csv").write_text(text)
    data = dataset.load(pictures / "list.csv")
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES


def test_pictures_of_one_patient_stay_together(pictures):
    """As ISIC lists them."""
    rows = [f"{image},P{place // 2},{label}\n" for place, (label, image) in enumerate(NAMES)]
    path = pictures / "train.csv"
    path.write_text("image_name,patient_id,target\n" + "".join(rows))
    data = dataset.load(path)
    assert [s.group for s in data.samples] == ["P0", "P0", "P1", "P1", "P2", "P2", "P3", "P3"]
    assert data.notes == ("pictures of one 'patient_id' stay together in a split; --group-column names another",)
    path.write_text("image_name,patient_id,target\n" + "".join(row.replace("P1", "P0") for row in rows))
    data = dataset.load(path)
    assert {s.group for s in data.samples} == {""}
    assert "may be in two splits" in data.notes[0]
    assert dataset.load(path, group_column="patient_id").samples[0].group == "P0"
    path.write_text("image,subject,label\n" + "".join(f"{image},{image},{label}\n" for label, image in NAMES))
    assert dataset.load(path).notes == ()


def test_pictures_that_lead_to_objects_in_json(pictures):
    told = {image: {"label": label, "split": "val" if label == "red" else "train"} for label, image in NAMES}
    (pictures / "a.json").write_text(json.dumps(told))
    data = dataset.load(pictures / "a.json")
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES
    assert {(s.label, s.split) for s in data.samples} == {("red", "val"), ("green", "train")}


def test_a_column_called_data_set_divides(pictures):
    """As Kaggle's sports and cards have it."""
    words = ("train", "valid", "test", "train")
    rows = [f"{place // 4},{image},{label},{words[place % 4]}\n" for place, (label, image) in enumerate(NAMES)]
    (pictures / "sports.csv").write_text("class id,filepaths,labels,data set\n" + "".join(rows))
    data = dataset.load(pictures / "sports.csv")
    assert [s.split for s in data.samples] == ["train", "val", "test", "train"] * 2
    assert [s.label for s in data.samples] == [label for label, _ in NAMES]
    assert len(data.part("VALID")) == 2


def test_lines_with_a_cell_too_many_are_said(pictures):
    (pictures / "list.csv").write_text(table("image,label,note", "{image},{label},") + "blue/000.png,big, cat,x\n")
    notes = dataset.load(pictures / "list.csv").notes
    assert notes == ("lines with more cells than the first, as a comma in a name makes them: 10",)


def test_an_object_a_line_is_read_under_the_name_of_json(pictures):
    lines = [json.dumps({"image": image, "label": label}) for label, image in NAMES]
    (pictures / "list.json").write_text("\n".join(lines))
    assert dataset.load(pictures / "list.json").labels == ("green", "red")


def test_the_names_of_the_columns_again_are_no_picture(pictures):
    """As two tables that were put together have them."""
    (pictures / "list.csv").write_text(table() + table())
    assert len(dataset.load(pictures / "list.csv").samples) == len(NAMES)


@pytest.mark.parametrize("none", ["NaN", "nan", "N/A", "<NA>", "null"])
def test_what_programs_write_where_there_is_none_is_no_class(pictures, none):
    (pictures / "list.csv").write_text(table() + f"blue/000.png,{none}\n")
    with pytest.raises(InputError, match="line 10: image or label is empty"):
        dataset.load(pictures / "list.csv")


def test_lists_of_folders_of_frames_are_said(pictures):
    """As TSN and mmaction2 have them."""
    (pictures / "frames" / "jump" / "v 1").mkdir(parents=True)
    (pictures / "list.txt").write_text("jump/v 1 5 0\n".replace("v 1", "v1"))
    (pictures / "frames" / "jump" / "v 1").rename(pictures / "frames" / "jump" / "v1")
    with pytest.raises(InputError, match="names folders of frames, not pictures") as caught:
        dataset.load(pictures / "list.txt")
    assert caught.value.remedy.endswith(f"edge-ran dataset {pictures}/frames")


def test_numbers_whose_zeros_excel_took_away(pictures):
    shutil.rmtree(pictures / "blue")
    (pictures / "scans").mkdir()
    for place, (_, image) in enumerate(NAMES):
        (pictures / image).rename(pictures / "scans" / f"{place + 70:04d}.jpg")
    rows = [f"{place + 70},{label}\n" for place, (label, _) in enumerate(NAMES)]
    (pictures / "list.csv").write_text("id,label\n" + "".join(rows))
    found = dataset.load(pictures / "list.csv").samples
    named = [(label, f"{place + 70:04d}.jpg") for place, (label, _) in enumerate(NAMES)]
    assert [(s.label, s.path.name) for s in found] == named


def test_masks_beside_a_list_are_not_its_pictures(pictures):
    """As Oxford's pets are laid out: annotations/trainval.txt, annotations/trimaps/a.png, images/a.jpg."""
    root = pictures.parent / "pets"
    for folder, ending in (("annotations/trimaps", ".png"), ("images", ".jpg")):
        (root / folder).mkdir(parents=True)
        for label, image in NAMES:
            shutil.copy(pictures / image, root / folder / f"{label}_{image[-5]}{ending}")
    rows = [f"{label}_{image[-5]} {1 + (label == 'red')} 1 1\n" for label, image in NAMES]
    (root / "annotations" / "trainval.txt").write_text("".join(rows))
    found = dataset.load(root / "annotations" / "trainval.txt").samples
    assert {s.path.parent.name for s in found} == {"images"}


def test_labels_are_no_pictures_of_a_folder_beside(pictures):
    """A folder beside the manifest has a 0.png and a 1.png; the pictures lie deeper than that."""
    for name in ("0.png", "1.png"):
        shutil.copy(pictures / NAMES[0][1], pictures / "blue" / name)
    (pictures / "train").mkdir()
    for label, image in NAMES:
        (pictures / "train" / label).mkdir(exist_ok=True)
        shutil.move(pictures / image, pictures / "train" / label / image.replace("/", "_"))
    rows = [f"{int(label == 'red')},{image.replace('/', '_')}\n" for label, image in NAMES]
    (pictures / "train.csv").write_text("has_red,id\n" + "".join(rows))
    data = dataset.load(pictures / "train.csv")
    assert [(s.label, s.path.name) for s in data.samples] == [
        (str(int(label == "red")), image.replace("/", "_")) for label, image in NAMES
    ]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><id>7</id></task></meta>{}</annotations>"""
TAGGED = """<image id="{number}" name="{image}" subset="{subset}" width="64" height="48">
<tag label="{label}" source="manual"><attribute name="shade">dark &amp; {label}</attribute></tag></image>"""


def test_what_cvat_exports(pictures):
    (pictures.parent / "export" / "images").mkdir(parents=True)
    for name in ("red", "green"):
        shutil.copytree(pictures / name, pictures.parent / "export" / "images" / name)
    path = pictures.parent / "export" / "annotations.xml"
    images = [
        TAGGED.format(number=number, image=image, label=label, subset=("default", "Validation")[number % 2])
        for number, (label, image) in enumerate(NAMES)
    ]
    path.write_text(CVAT.format("".join(images)))
    for source in (path, path.parent):
        found = dataset.load(source).samples
        assert [(s.label, s.path.relative_to(path.parent / "images").as_posix()) for s in found] == NAMES
        assert {s.split for s in found} == {"", "val"}
    assert dataset.load(path, label_column="shade").labels == ("dark & green", "dark & red")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CVAT.format('<image name="a.jpg"><tag label="a"/><tag label="b"/></image>'), r"a\.jpg has the labels a, b"),
        (CVAT.format('<image name="a.jpg"><box label="a" xtl="1"/></image>'), "no picture has a tag"),
        ("<annotation><object><name>a</name></object></annotation>", "not of CVAT's pictures"),
        ("<annotations", "is no XML"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><annotations>&b;</annotations>', "document type"),
    ],
)
def test_xml_of_another_form_is_one_line(tmp_path, text, says):
    (tmp_path / "annotations.xml").write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        dataset.load(tmp_path / "annotations.xml")
    assert caught.value.remedy


def test_what_vertex_ai_imports(pictures):
    marks = {"aiplatform.googleapis.com/ml_use": "validation"}
    lines = [
        {
            "imageGcsUri": f"gs://bucket/{image}",
            "classificationAnnotation": {"displayName": label},
            **({"dataItemResourceLabels": marks} if label == "red" else {}),
        }
        for label, image in NAMES
    ]
    (pictures / "import.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = dataset.load(pictures / "import.jsonl")
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES
    assert [s.split for s in data.samples] == ["val"] * 4 + [""] * 4


def test_values_in_values_of_json_are_columns(pictures):
    rows = [{"file": {"name": image}, "told": {"by": "me", "species": [label]}} for label, image in NAMES]
    (pictures / "list.json").write_text(json.dumps(rows))
    options = {"image_column": "file.name", "label_column": "told.species"}
    data = dataset.load(pictures / "list.json", **options)
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES


@pytest.mark.parametrize("write", [lambda names: json.dumps(names), str])
def test_labels_in_lists_of_one(pictures, write):
    rows = [(image, write([label])) for label, image in NAMES]

    def written(path):
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([("Image Name", "Classes"), *rows])
        return path

    assert dataset.load(written(pictures / "list.csv")).labels == ("green", "red")
    for names, what in ((["a", "b"], "has the labels a, b"), ([], "has no label")):
        rows[0] = (NAMES[0][1], write(names))
        with pytest.raises(InputError, match=what):
            dataset.load(written(pictures / "list.csv"))
    rows[0] = (NAMES[0][1], "[red")
    assert dataset.load(written(pictures / "list.csv")).labels == ("[red", "green", "red")


@pytest.mark.parametrize("form", ["cells", "cells behind", "one cell"])
def test_tables_of_pixels_are_told(pictures, form):
    """As Kaggle's MNIST, HAM10000 and FER2013; the pictures beside must not be taken for them."""
    pixels = [list(map(str, range(number, number + 64))) for number in (0, 100)]
    rows = {
        "cells": [["1", *row] for row in pixels],
        "cells behind": [[f"pixel{n}" for n in range(64)] + ["label"], *([*row, "1"] for row in pixels)],
        "one cell": [["emotion", "pixels", "Usage"], *(["1", " ".join(row), "Training"] for row in pixels)],
    }[form]
    for path in sorted((pictures / "red").iterdir()):
        path.rename(pictures / f"{int(path.stem)}.png")
    (pictures / "list.csv").write_text("\n".join(map(",".join, rows)))
    with pytest.raises(InputError, match="holds pixels, not names of pictures") as caught:
        dataset.load(pictures / "list.csv")
    assert ".savez(" in caught.value.remedy


def test_a_column_for_each_of_many_classes_is_no_picture(pictures):
    names = [f"class {n}" for n in range(70)]
    lines = [
        ",".join([image, *("1" if n == number // 4 else "0" for n in range(70))])
        for number, (_, image) in enumerate(NAMES)
    ]
    (pictures / "list.csv").write_text("\n".join([",".join(["image", *names]), *lines]))
    assert dataset.load(pictures / "list.csv").labels == ("class 0", "class 1")


@pytest.mark.parametrize(
    ("names", "head", "between"),
    [
        (("train.txt", "val.txt"), "", " "),
        (("train_list.txt", "val_list.txt"), "", " "),
        (("train.csv", "valid.csv"), "path,label\n", ","),
        (("Train-Set.tsv", "VAL.tsv"), "path\tlabel\n", "\t"),
    ],
)
def test_lists_that_are_called_as_splits_are(pictures, names, head, between):
    rows = flat(pictures, pictures / "images")
    for name, chosen in zip(names, (rows[:6], rows[6:]), strict=True):
        lines = "".join(f"images/{image}{between}{label}\n" for label, image in chosen)
        (pictures / name).write_text(head + lines)
    (pictures / "test.csv").write_text("path\nimages/x.png\n")  # a competition's: no labels
    (pictures / "classes.txt").write_text("red\ngreen\n")
    assert sorted(listed(dataset.load(pictures))) == sorted(
        (label, image, "train" if number < 6 else "val") for number, (label, image) in enumerate(rows)
    )
    (pictures / names[0]).unlink()
    with pytest.raises(InputError):  # nothing to train on: a question, which list is meant
        dataset.load(pictures)


def test_boxes_without_names_of_columns_have_their_class_last(pictures):
    """As keras-retinanet reads them: the numbers are no classes."""
    lines = [f"{image},10,20,30,4{number},{label}" for number, (label, image) in enumerate(NAMES)]
    (pictures / "boxes.csv").write_text("\n".join([*lines, lines[0]]))
    data = dataset.load(pictures / "boxes.csv")
    assert [(s.label, s.path.relative_to(pictures).as_posix()) for s in data.samples] == NAMES
    assert data.notes == ("lines of boxes.csv that name a picture again, with the same class, count once: 1",)
    numbers = [f"{image},10,20,30,40,{number // 4}" for number, (_, image) in enumerate(NAMES)]
    (pictures / "boxes.csv").write_text("\n".join(numbers) + "\n")
    with pytest.raises(InputError, match="5 columns of numbers") as caught:
        dataset.load(pictures / "boxes.csv")
    subprocess.run(["sh", "-c", caught.value.remedy.partition(": ")[2]], check=True)
    assert dataset.load(pictures / "boxes.csv").labels == ("0", "1")


@pytest.mark.parametrize("between", [",", ", ", "|", ";"])
def test_a_label_of_several_others_is_one_line(pictures, between):
    lines = [(image, label) for label, image in NAMES]
    lines[0] = (NAMES[0][1], f"red{between}green")
    with open(pictures / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *lines])
    with pytest.raises(InputError, match=r"000\.png has the labels green, red; a picture has one class here"):
        dataset.load(pictures / "list.csv")
    lines[0] = (NAMES[0][1], f"red{between}dark")
    with open(pictures / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *lines])
    assert f"red{between}dark" in dataset.load(pictures / "list.csv").labels


def test_a_class_of_two_words_that_are_classes_is_noted(pictures):
    """Plant diseases are written so where a leaf has two, and a cherry tomato is no cherry."""
    lines = [(image, label) for label, image in NAMES]
    lines[0] = (NAMES[0][1], "red green")
    with open(pictures / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *lines])
    data = dataset.load(pictures / "list.csv")
    assert "red green" in data.labels
    assert "classes of their own, though their words are classes, too: red green" in data.notes


def test_folders_beside_a_manifest_are_listed_once_each(tmp_path, make_pictures, monkeypatch):
    """A download folder has hundreds: each cell was looked for in each of them, under each ending."""
    for number in range(40):
        (tmp_path / f"other {number}").mkdir()
    make_pictures(tmp_path / "data" / "Pictures", ("red", "green"), 3)
    cells = [
        ",".join([f"pictures/{label}/{n:03d}", label, *map(str, range(20))])
        for label in ("red", "green")
        for n in range(3)
    ]
    (tmp_path / "data" / "Pictures").rename(tmp_path / "data" / "pictures")
    (tmp_path / "data" / "list.csv").write_text("\n".join([",".join(["a", "label", *map(str, range(20))]), *cells]))
    listed, listdir = Counter[str](), os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: (listed.update([str(path)]), listdir(path))[1])
    assert dataset.load(tmp_path / "data" / "list.csv").labels == ("green", "red")
    assert max(listed.values()) <= 2  # once to find the folders in it
    (tmp_path / "data" / "list.csv").write_text("image,label\n.\\,x\n\\,y\n\0,z\n" + "x" * 400 + ",x\n")
    with pytest.raises(InputError):
        dataset.load(tmp_path / "data" / "list.csv")


def test_a_picture_with_two_classes_is_one_line(pictures):
    lines = [f"{image},{label}" for label, image in NAMES]
    (pictures / "list.csv").write_text("\n".join(["path,label", *lines, f"{NAMES[0][1]},green"]))
    with pytest.raises(InputError, match=r"000\.png has the labels green, red; a picture has one class here"):
        dataset.load(pictures / "list.csv")


def test_half_a_character_in_json_is_one_line(pictures):
    path = pictures / "list.json"
    path.write_text(json.dumps([{"image": "red/\ud800.png", "label": "red"}, {"image": "x.png", "label": "\ud800"}]))
    with pytest.raises(InputError):
        dataset.load(path)


def test_what_fiftyone_exports(pictures):
    names = flat(pictures, pictures / "data")
    labels = {image[:-4]: int(label == "green") for label, image in names}
    (pictures / "labels.json").write_text(json.dumps({"classes": ["red", "green"], "labels": labels}))
    assert listed(dataset.load(pictures)) == [(label, image, "") for label, image in names]
    named = {name: {"label": "red" if number == 0 else "green", "confidence": 0.5} for name, number in labels.items()}
    (pictures / "labels.json").write_text(json.dumps({"classes": None, "labels": named}))
    assert listed(dataset.load(pictures)) == [(label, image, "") for label, image in names]
    several = {"red_000": [{"label": 0}, {"label": 1}]}
    (pictures / "labels.json").write_text(json.dumps({"classes": ["red", "green"], "labels": several}))
    with pytest.raises(InputError, match="red_000 has the labels green, red"):
        dataset.load(pictures)
    (pictures / "labels.json").write_text(json.dumps({"classes": ["red"], "labels": {}}))
    with pytest.raises(InputError, match="is empty") as caught:
        dataset.load(pictures)
    assert caught.value.remedy.startswith('{"image"')
    (pictures / "labels.json").write_text(json.dumps({"classes": ["red"], "labels": {"a": [{"box": 1}]}}))
    with pytest.raises(InputError, match="is empty"):
        dataset.load(pictures)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1, 2]", "no list of pictures with labels"),
        ("[]", "is empty"),
        ('{"a": [1]}', "no list of pictures with labels"),
        ('{"images": [], "annotations": [], "categories": []}', "COCO"),
    ],
)
def test_json_of_another_form_is_one_line(pictures, text, what):
    (pictures / "a.json").write_text(text)
    with pytest.raises(InputError, match=what):
        dataset.load(pictures / "a.json")


def test_what_edge_impulse_exports(pictures):
    names = flat(pictures, pictures / "training")
    shutil.copytree(pictures / "training", pictures / "testing")
    for part in ("training", "testing"):
        kinds = [{"type": "label", "label": label} for label, _ in names[:-1]] + [names[-1][0]]
        files = [
            {"path": image, "name": image[:-4], "category": part, "label": kind}
            for (_, image), kind in zip(names, kinds, strict=True)
        ]
        (pictures / part / "info.labels").write_text(json.dumps({"version": 1, "files": files}))
    found = [(label, image, split) for split in ("test", "train") for label, image in names]
    assert listed(dataset.load(pictures)) == found


def listed(data: dataset.Dataset) -> list[tuple[str, str, str]]:
    return [(s.label, s.path.name, s.split) for s in data.samples]


def flat(pictures, folder):
    """Move the pictures of the classes into one folder, and return (label, new name) of each."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for label, image in NAMES:
        (pictures / image).rename(folder / image.replace("/", "_"))
        names.append((label, image.replace("/", "_")))
    for label in {*{label for label, _ in NAMES}, "blue"}:
        shutil.rmtree(pictures / label)
    return names


JSON_LINE = '{{"file_name": "{image}", "label": "{label}", "boxes": [[1, 2]]}}'


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "_classes.csv"])
def test_a_folder_with_a_manifest_beside_its_pictures(pictures, name):
    names = flat(pictures, pictures)
    line = JSON_LINE if name.endswith("l") else "{image},{label}"
    lines = [line.format(image=image, label=label) for label, image in names]
    (pictures / name).write_text("\n".join(lines if name.endswith("l") else ["file_name,label", *lines]))
    assert listed(dataset.load(pictures)) == [(label, image, "") for label, image in names]


def test_a_manifest_in_each_split(pictures):
    names = flat(pictures, pictures / "train")
    shutil.copytree(pictures / "train", pictures / "valid")
    for split in ("train", "valid"):
        rows = [f"{image},{label == 'red':d},{label == 'green':d}" for label, image in names]
        (pictures / split / "_classes.csv").write_text("\n".join(["filename, red, green", *rows]))
    found = [(label, image, split) for split in ("train", "val") for label, image in names]
    assert listed(dataset.load(pictures)) == found


def test_class_folders_go_before_a_manifest_beside_them(pictures):
    (pictures / "list.csv").write_text("image,label\nred/000.png,something\n")
    assert dataset.load(pictures).labels == ("blue", "green", "red")


def test_without_class_folders_a_manifest_is_named(pictures):
    flat(pictures, pictures)
    for name in ("sample_submission.csv", "train labels.csv"):
        (pictures / name).write_text("image,label\n")
    with pytest.raises(InputError, match="no class folder") as caught:
        dataset.load(pictures)
    assert caught.value.remedy.endswith(f"edge-ran dataset '{pictures}/train labels.csv'")


def test_pictures_may_lie_in_a_folder_beside_the_manifest(pictures):
    names = flat(pictures, pictures / "train_images")
    path = pictures / "train.csv"
    path.write_text("\n".join(["image_id,label", *(f"{image[:-4]},{label}" for label, image in names)]))
    assert listed(dataset.load(path)) == [(label, image, "") for label, image in names]
    shutil.copytree(pictures / "train_images", pictures / "test_images")
    assert {s.path.parent.name for s in dataset.load(path).samples} == {"train_images"}
    (pictures / "train_images").rename(pictures / "a")
    with pytest.raises(InputError, match="8 missing files"):
        dataset.load(path)


@pytest.mark.parametrize(("name", "gap"), [("train.txt", " "), ("val.lst", "\t"), ("x.TXT", "  "), ("y.txt", ",")])
def test_a_list_of_names_and_labels(pictures, name, gap):
    (pictures / name).write_text("".join(f"{pictures / image}{gap}{label == 'red':d}\n" for label, image in NAMES))
    assert listed(dataset.load(pictures / name)) == [(f"{label == 'red':d}", image[-7:], "") for label, image in NAMES]


def test_a_list_with_several_labels_for_a_picture(pictures):
    path = pictures / "train_list.txt"
    path.write_text("red\\000.png 0\nred\\001.png 0 2\n")
    with pytest.raises(InputError, match=r"line 2: red\\001.png has the labels 0 2; a picture has one class here"):
        dataset.load(path)
    path.write_text("red/000.png golden retriever\nred/001.png cat\n")
    assert [s.label for s in dataset.load(path).samples] == ["golden retriever", "cat"]


def test_names_with_blanks_in_a_list(pictures):
    (pictures / "red" / "000.png").rename(pictures / "red" / "Class4 (7) R0.png")
    path = pictures / "list.txt"
    path.write_text("red/Class4 (7) R0.png 4\ngreen/000.png 5\n")
    assert [s.label for s in dataset.load(path).samples] == ["4", "5"]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("notes.txt", "bring the camera\nand the dog\n", "2 missing files"),
        ("a.txt", "word\n", "no column 'image'"),
        ("a.jsonl", '{"image": "red/000.png"\n', "line 1: no JSON object"),
        ("a.jsonl", "[" * 100_000, "line 1: no JSON object"),
        ("a.jsonl", "\n", "is empty"),
        ("a.jsonl", '{"image": "red/000.png"}', "no column 'label'"),
    ],
)
def test_what_is_no_such_list_is_one_line(pictures, name, text, what):
    (pictures / name).write_text(text)
    with pytest.raises(InputError, match=what):
        dataset.load(pictures / name)


def test_the_list_of_im2rec(pictures):
    path = pictures / "train.lst"
    path.write_text("".join(f"{n}\t{label == 'red':.6f}\t{image}\n" for n, (label, image) in enumerate(NAMES)))
    assert listed(dataset.load(path)) == [(str(int(label == "red")), image[-7:], "") for label, image in NAMES]


def test_pictures_whose_names_say_more_than_the_list(pictures):
    """RAF-DB's ``list_partition_label.txt``, and its two parts in the names."""
    lines = []
    for number, (label, image) in enumerate(NAMES):
        part = f"{'test' if number % 3 == 0 else 'train'}_{number:04}"
        (pictures / image).rename(pictures / image.partition("/")[0] / f"{part}_aligned.jpg")
        lines.append(f"{part}.jpg {int(label == 'red')}\n")
    (pictures / "list_partition_label.txt").write_text("".join(lines))
    data = dataset.load(pictures / "list_partition_label.txt")
    assert {(s.label, s.path.parent.name) for s in data.samples} == {("1", "red"), ("0", "green")}
    assert {s.split for s in data.samples} == {"train", "test"}
    assert data.notes[0] == "the pictures' names end in '_aligned', which the list leaves out"
    assert data.notes[1].startswith("splits were taken from the names: ")


@pytest.mark.parametrize(
    ("parts", "splits"),
    [
        (("dev/data/train/{}", "dev/data/test/{}"), ("train", "test")),  # in a folder of developers
        (("train/train/{}", "test/test/{}"), ("train", "test")),  # as archives unpack
        (("dev/data/train/{}", "dev/data/test/{}", "dev/data/val/{}", "extra"), ()),
        (("train/{}", "val/{}", "extra/test/{}"), ("train", "val", "test")),
        (("train/train/{}", "val/train/{}", "train/cat/{}", "val/cat/{}"), ("train", "val", "train", "val")),  # a class
        (("train/val/{}", "train/{}"), ()),
        (("dev/data/{}",), ()),
    ],
)
def test_splits_in_names_are_those_of_the_folders_that_divide(pictures, parts, splits):
    folders = [part.format(f"pictures of {n}") for n, part in enumerate(parts)]
    rows = []
    for place, folder in enumerate(folders):
        (pictures / folder).mkdir(parents=True)
        for n, label in enumerate(("red", "green")):
            shutil.copy(pictures / label / "000.png", pictures / folder / f"{place}{n}.png")
            rows.append(f"{pictures}/{folder}/{place}{n}.png,{n + 3}\n")
    (pictures / "list.csv").write_text("image,label\n" + "".join(rows))
    data = dataset.load(pictures / "list.csv")
    assert [s.split for s in data.samples[::2]] == list(splits or [""] * len(parts))
    about = [note for note in data.notes if "from the names" in note]
    if splits:
        assert about == [f"splits were taken from the names: {pictures}/{folders[0]}/00.png is for train"]
    elif "extra" in parts:
        told = f"{pictures}/{folders[0]}/00.png is for train, but {pictures}/extra/30.png tells none"
        assert about == [f"no splits were taken from the names: {told}"]
    else:
        assert about == []


WORDNET = {"red": "n01440764", "green": "n02012849"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("words.txt", "n01440764\ttench, Tinca tinca\nn02012849\tcrane\nn00000001\tother\n"),
        ("LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca\nn02012849 crane\n"),
        ("map_clsloc.txt", "n01440764 449 tench\nn02012849 2 crane\n"),
        ("imagenet_class_index.json", '{"0": ["n01440764", "tench"], "1": ["n02012849", "crane"]}'),
        ("Labels.json", '{"n01440764": "tench, Tinca tinca", "n02012849": "crane"}'),
        ("classes.csv", 'code,name\nn01440764,"tench, Tinca tinca"\nn02012849,crane\n'),
    ],
)
def test_codes_of_folders_get_their_names_from_a_file_beside(pictures, file, text):
    shutil.rmtree(pictures / "blue")
    for colour, code in WORDNET.items():
        (pictures / colour).rename(pictures / code)
    (pictures / file).write_text(text)
    data = dataset.load(pictures)
    assert {(s.label, s.path.parent.name) for s in data.samples} == {("tench", "n01440764"), ("crane", "n02012849")}
    assert f"the names of the classes are from {file}" in data.notes[-1]
    assert "n01440764 is 'tench'" in data.notes[-1]
    assert dataset.load(pictures, labels=["n01440764"]).labels == dataset.load(pictures, labels=["tench"]).labels
    # A network that was trained on the codes still knows them.
    assert data.in_words_of(("n01440764", "n02012849", "n7")).labels == ("n01440764", "n02012849")
    assert data.in_words_of(("crane", "tench")).labels == ("crane", "tench")


def test_codes_stay_where_no_file_names_them_all(pictures):
    shutil.rmtree(pictures / "blue")
    for colour, code in WORDNET.items():
        (pictures / colour).rename(pictures / code)
    (pictures / "words.txt").write_text("n01440764\ttench\n")
    (pictures / "labels.txt").write_text("n01440764\nn02012849\n")
    assert dataset.load(pictures).labels == ("n01440764", "n02012849")


def as_npz(error: InputError):
    """Run the command of a remedy, which makes an ``.npz``, and load that."""
    command, _, new = error.remedy.rpartition(", then give ")
    words = shlex.split(command[command.index(sys.executable if sys.executable in command else "python3 ") :])
    exec(words[words.index("-c") + 1], {})
    return dataset.load(Path(shlex.split(new)[0]))


def test_the_command_for_a_table_of_pixels_works(tmp_path):
    x = np.random.default_rng(0).integers(2, 256, (4, 28, 28), np.uint8)
    path = tmp_path / "fashion mnist.csv"  # as Kaggle has it
    lines = [",".join(["label", *(f"pixel{place}" for place in range(784))])]
    lines += [",".join(map(str, [row % 2, *picture.ravel()])) for row, picture in enumerate(x)]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="holds pixels") as caught:
        dataset.load(path)
    data = as_npz(caught.value)
    assert [s.label for s in data.samples] == list("0101")
    np.testing.assert_array_equal(np.stack(list(dataset.frames(data.samples)))[..., 0], x)
    usage = ["Training", "PublicTest", "PrivateTest", "Training"]
    rows = [f"{row % 2},{' '.join(map(str, one.ravel()))},{usage[row]}" for row, one in enumerate(x)]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]))
    with pytest.raises(InputError, match="holds pixels") as caught:
        dataset.load(tmp_path / "fer2013.csv")
    data = as_npz(caught.value)
    assert [s.split for s in data.samples] == ["train", "val", "test", "train"]
    np.testing.assert_array_equal(np.stack(list(dataset.frames(data.samples)))[..., 0], x)


@pytest.mark.parametrize("opened", [open, gzip.open])
def test_the_commands_for_cifar_and_mnist_work(tmp_path, opened):
    x = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    for name in ("data_batch_1", "test_batch"):
        batch = {"data": x.transpose(0, 3, 1, 2).reshape(4, -1), "labels": [3, 1, 3, 1]}
        (tmp_path / name).write_bytes(pickle.dumps(batch))
    with pytest.raises(InputError, match="no class folder") as caught:
        dataset.load(tmp_path)
    data = as_npz(caught.value)
    assert [(s.label, s.split) for s in data.samples] == [(y, s) for s in ("train", "test") for y in "3131"]
    np.testing.assert_array_equal(np.stack(list(dataset.frames(data.samples)))[4:, ..., ::-1], x)
    suffix = ".gz" if opened is gzip.open else ""
    for kind, head, values in (
        ("images-idx3", [2051, 4, 32, 32], x[..., 0]),
        ("labels-idx1", [2049, 4], x[:, 0, 0, 0]),
    ):
        with opened(tmp_path / f"t10k-{kind}-ubyte{suffix}", "wb") as file:
            file.write(np.array(head, ">i4").tobytes() + values.tobytes())
    with pytest.raises(InputError, match="is not a data set") as caught:
        dataset.load(tmp_path / f"t10k-labels-idx1-ubyte{suffix}")
    data = as_npz(caught.value)
    assert [s.label for s in data.samples] == list(map(str, x[:, 0, 0, 0]))
    np.testing.assert_array_equal(np.stack(list(dataset.frames(data.samples)))[..., 0], x[..., 0])


@pytest.mark.parametrize("form", ["records", "columns", "index", "split"])
def test_tables_as_pandas_writes_them_in_json(pictures, form):
    rows = [{"image": image, "label": label} for label, image in NAMES]
    numbers = list(map(str, range(len(rows))))
    tables = {
        "records": rows,
        "columns": {key: dict(zip(numbers, (row[key] for row in rows), strict=True)) for key in ("image", "label")},
        "index": dict(zip(numbers, rows, strict=True)),
        "split": {"columns": ["image", "label"], "index": numbers, "data": [list(row.values()) for row in rows]},
    }
    (pictures / "table.json").write_text(json.dumps(tables[form]))
    data = dataset.load(pictures / "table.json")
    assert [(s.label, s.path.parent.name) for s in data.samples] == [(label, label) for label, _ in NAMES]
