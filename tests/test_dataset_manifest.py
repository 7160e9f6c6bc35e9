"""Manifests as Excel, pandas, Windows and people write them."""

from __future__ import annotations

from collections import Counter

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
    ("text", "option"), [(table("photo,label"), "--image-column NAME"), (table("image,colour"), "--label-column NAME")]
)
def test_a_column_that_is_not_found_names_the_option(pictures, text, option):
    (pictures / "list.csv").write_text(text)
    with pytest.raises(InputError, match="has no column") as caught:
        dataset.load(pictures / "list.csv")
    assert option in caught.value.remedy


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
    path.write_text("\n".join(["filename,is_red,age", *(f"{image},{int(label == 'red')},7" for label, image in NAMES)]))
    with pytest.raises(InputError, match="no column 'label'"):
        dataset.load(path)
