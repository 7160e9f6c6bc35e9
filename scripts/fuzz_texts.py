"""Seeds, mutations and readers of `scripts/fuzz.py` for texts: manifests, labels, records, and names of pictures."""

from __future__ import annotations

import copy
import json
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("manifests", "labels", "records", "names")
PICTURES = ("a.jpg", "b.jpg", "c d.jpg", "e.PNG")  # of the manifests
_PAIRS = [{"image": name, "label": label} for name, label in zip(PICTURES, "xyxy", strict=True)]
_JSON: dict[str, list[Any]] = {
    "list.json": [
        _PAIRS,
        {one["image"]: one["label"] for one in _PAIRS},
        {
            "assets": {
                name: {"asset": {"name": name}, "regions": [{"tags": [label]}]}
                for name, label in zip(PICTURES, "xyxy", strict=True)
            }
        },
        [
            {
                "id": number,
                "annotations": [{"result": [{"type": "choices", "value": {"choices": [one["label"]]}}]}],
                "data": {"image": f"/data/upload/1/{one['image']}"},
            }
            for number, one in enumerate(_PAIRS)
        ],
        [{"file": {"name": one["image"]}, "label": [one["label"]]} for one in _PAIRS],
        {
            "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
            "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}],
            "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}],
        },
        {one["image"]: {"filename": one["image"], "file_attributes": {"k": one["label"]}} for one in _PAIRS},
        {"train": [["a.jpg", 0, "x"], ["b.jpg", 1, "y"]], "val": [["c d.jpg", 0, "x"]]},
        {"x": ["a.jpg", "c d.jpg"], "y": ["b.jpg"]},
        {one["image"]: {"label": one["label"], "split": "train"} for one in _PAIRS},
    ],
    "info.labels": [
        {
            "version": 1,
            "files": [
                {"path": "a.jpg", "category": "training", "label": {"type": "label", "label": "x"}},
                {"path": "b.jpg", "category": "testing", "label": {"label": "y"}},
            ],
        }
    ],
    "labels.json": [{"classes": ["x", "y"], "labels": {"a.jpg": 0, "b.jpg": 1}}],
}
_TABLES = {
    "list.csv": [
        "TRAIN,gs://bucket/a.jpg,x\nTEST,gs://bucket/b.jpg,y\n",
        'sep=;\nimage;label;split\na.jpg;x;train\n"b.jpg";y;val\n',
        "filename,x,y\na.jpg,1,0\nb.jpg,0,1\n",
        "id,species,day\na,x,1\nb,y,2\nc d,x,3\ne,y,1\n",
        'Image Name,Classes\na.jpg,"[""x""]"\nb.jpg,[\'y\']\n',
        "label," + ",".join(f"p{n}" for n in range(64)) + "\n1," + ",".join(map(str, range(64))) + "\n",
        "ImageId,PredictionString\na,n01 1 2 3 4\nb,n02 1 2 3 4 n02 5 6 7 8\n",
    ],
    "via.csv": [
        "filename,file_size,file_attributes,region_count,region_id\n"
        + "".join(f'{name},1,"{{""k"": ""{label}""}}",0,0\n' for name, label in zip(PICTURES, "xyxy", strict=True))
    ],
    "shared.csv": [
        "# made by\nimage,patient_id,label\na.jpg,p,x\nb.jpg,q,y\nc d.jpg,r,x\ne.PNG,s,y\n",
        "ImageID,LabelName,Confidence\na,x,1\na,y,0\nb,y,1\n",
        "fname,labels,is_valid\n'a.jpg',x,True\n'b.jpg',y,False\n",
        "id,label\n1,0\n2,1\n",
    ],
    "tags.xml": [
        '<annotations><image name="a.jpg" subset="train"><tag label="x"><attribute name="k">v</attribute></tag></image>'
        '<image name="b.jpg"><tag label="y"/></image></annotations>'
    ],
    "output.manifest": [
        "".join(json.dumps({"source-ref": n, "k": 0, "k-metadata": {"class-name": "x"}}) + "\n" for n in PICTURES)
    ],
    "list.tsv": ["image\tlabel\tgroup\na.jpg\tx\tg\nb.jpg\ty\th\n"],
    "classes.txt": [
        "2\nimage_name label\na.jpg x\nb.jpg y\n",
        "d/a.jpg\ne/b.jpg\n",
        "2\nBald Male\na.jpg -1  1\nb.jpg 1 -1\n",
    ],
    "list.txt": ["# made\na.jpg 0\nb.jpg 1\nc d.jpg 1\n", "a 1 1 1\nb 2 1 1\n", "images\\a.jpg\t0\nimages\\b.jpg\t1\n"],
    "list.lst": ["0\t1.000000\ta.jpg\n1\t0.000000\tb.jpg\n"],
    "vertex.jsonl": [
        "".join(
            json.dumps({"imageGcsUri": f"gs://b/{o['image']}", "classificationAnnotation": {"displayName": o["label"]}})
            + "\n"
            for o in _PAIRS
        )
    ],
    "metadata.jsonl": ["".join(json.dumps({"file_name": o["image"], "label": o["label"]}) + "\n" for o in _PAIRS)],
}
_LABELS = [
    "red\ngreen\nblue\n", "0 red\n1 green\n2 blue\n", "1: red\r\n2: green\r\n3: blue\r\n",
    "id,name\n0,red\n1,green\n2,blue", "red,0\ngreen,1\nblue,2\n", '["red", "green", "blue"]',
    '{"0": "red", "1": "green", "2": "blue"}',
    '{"id2label": {"0": "red", "1": "green"}, "n": 1.5}', "{0: 'red', 1: \"it's\", 2: 'blue'}",
    "item {\n id: 1\n name: 'red'\n}\nitem {\n id: 2\n display_name: \"green\"\n}\n",
    'index,mid,display_name\n0,/m/1,red\n1,/m/2,"green, x"\n', '[{"id": 1, "name": "b"}, {"id": 0, "name": "a"}]',
    '{"2": "b", "1": "a"}', "1 hour\n2 hours\n",
    "path: x\nnc: 3\nnames:\n  0: red\n  1: green\n  2: blue\n", "names: [red, 'green', \"blue\"]\n",
]  # fmt: skip
_NAMES = [
    "cat.0.jpg\ncat.1.jpg\ndog.0.jpg\ndog.1.jpg", "train/cat_1.png\ntrain/cat_2.png\ntest/dog_1.png\ntest/dog_2.png",
    "cat/1.jpg\ncat/2.jpg\ndog/1.jpg\ndog/visit 1/2.jpg",
    "train/cat/1.jpg\nval/cat/2.jpg\ntrain/dog/1.jpg\nval/dog/2.jpg",
    "seg_train/a/1.jpg\nseg_train/b/1.jpg\nseg_test/a/1.jpg\nseg_test/b/1.jpg",
    "color/a/1.jpg\ngray/a/1.jpg\ncolor/a/1_mask.jpg",
    "train/cat.1.jpg\ntest1/2.jpg", "IMG_1.jpg\nIMG_2.heic\nlist.csv", "images/1.jpg\nlabels/1.txt\ndata.yaml",
    "._cat.1.jpg\n@eaDir/x.jpg\ncat/1.ppm\ndog/1.tga",
]  # fmt: skip
_PIECES = [
    "", ",", ";", "\t", "\n", "\r", "\0", "'", '"', "\\", "{", "}", "[", "]", ":", "#", "-", "/", "../", "names:",
    "item {", "sep=", "0", "1", "-1", "999999999999", "1e400", "NaN", "image", "label", "split", "train", "a.jpg",
    "\ud7ff", "\u202e", "\x1b[31m", "é", "e\u0301", "%20", "%", "gs://b/", "C:\\", " ",
    "x" * 300, "\t" * 3000, "[" * 2000,
]  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, 0, 3, -1, 10**30, 1e308, -1e-300, True, "", "\x00", "\ud800", "../../etc/passwd", "x" * 300, "\x1b[31m",
    "a.jpg", [], {}, [[]], [None], {"a": 1}, [1, 2, 3],
)  # fmt: skip


def seeds(kind: str) -> list[tuple[str, bytes]]:
    """Return the names and bytes of what is mutated."""
    if kind == "manifests":
        found = [(name, json.dumps(value)) for name, values in _JSON.items() for value in values]
        found += [(name, text) for name, texts in _TABLES.items() for text in texts]
    elif kind == "labels":
        found = [("labels.txt", text) for text in _LABELS]
    elif kind == "names":
        found = [("names", text) for text in _NAMES]
    else:
        found = list(_records())
    return [(name, text.encode()) for name, text in found]


def _records() -> Iterator[tuple[str, str]]:
    """A card, a board's release, settings of a run, a record of `benchmark`, and files of the catalogue."""
    from edge_ran import api, records
    from edge_ran.bench import Plan
    from edge_ran.deploy.release import Release
    from edge_ran.runs import SHIPPED
    from edge_ran.runtime import RuntimeOptions

    yield "card.json", (SHIPPED / "places38" / "card.json").read_text()
    words = ("--camera", "0")
    release = Release(
        "m", "0" * 64, "R/m", "R/a", "S/c", words, ("S/c",), RuntimeOptions(), "", 0, "python3", "e", "0.1.0"
    )
    yield "release.json", json.dumps(records.to_dict(release))
    found = api.benchmark(ROOT / "tests" / "models" / "int8.tflite", plan=Plan(num_runs=20, warmup_runs=2))
    yield "report.json", json.dumps(found.document())
    for folder in ("devices", "converters"):
        for path in sorted((ROOT / folder).glob("*.toml")):
            yield f"{folder[:-1]}.toml", path.read_text()


def user(kind: str) -> Callable[[Path], object]:
    """Return what reads a file of this kind as the product does."""
    from edge_ran import dataset, labels

    if kind == "manifests":
        return _with_pictures
    if kind == "labels":

        def read(path: Path) -> object:
            lines = labels.decode_labels(path.read_bytes(), "label file")
            return [labels.fitted_labels(lines, widths) for widths in ([3], [4], [1], [1000, 3], [])]

        return read
    if kind == "names":

        def list_folder(path: Path) -> object:
            with tempfile.TemporaryDirectory() as folder:
                for name in path.read_bytes().split(b"\n"):
                    _touch(Path(folder), name)
                return dataset.load(Path(folder))

        return list_folder
    return _read_record


def _with_pictures(path: Path) -> object:
    from edge_ran import dataset

    for name in PICTURES:
        path.with_name(name).touch()
    return dataset.load(path)


def _touch(folder: Path, name: bytes) -> None:
    """Make an empty file of that name below a folder, where the file system takes it and it stays inside."""
    import os

    parts = [part for part in name.split(b"/") if part not in (b"", b".", b"..")]
    path = os.path.join(os.fsencode(folder), *parts) if parts else b""
    try:
        if path:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            open(path, "wb").close()
    except (OSError, ValueError):
        pass


def _read_record(path: Path) -> object:
    from edge_ran import catalogue, records
    from edge_ran.bench import read_report, regression
    from edge_ran.card import ModelCard
    from edge_ran.deploy.layout import read_json
    from edge_ran.deploy.release import Release

    if path.name == "card.json":
        return ModelCard.from_json(path.read_bytes()).to_json()
    if path.name == "release.json":
        return records.read(Release, read_json(path), "release").identity
    if path.name == "report.json":
        return regression(read_report(path), read_report(path), "now", "before")
    return catalogue.device(str(path)) if path.name == "device.toml" else catalogue.converter(str(path))


def mutated_text(name: str, data: bytes, chance: random.Random) -> bytes:
    """Change values of JSON, or put pieces into a text, in one to four places."""
    if name.endswith((".json", ".labels")) and chance.random() < 0.7:
        value = [json.loads(data)]  # in a list, so that all of it can be replaced, too
        for _ in range(chance.choice((1, 1, 2, 4))):
            holder, key = chance.choice(list(places(value)))
            if isinstance(holder, dict) and chance.random() < 0.2:
                holder[chance.choice(("", "image", "label", "\ud800", "files", "assets"))] = holder.pop(key)
            else:
                holder[key] = copy.deepcopy(chance.choice((*_VALUES, holder[key])))
        return json.dumps(value[0]).encode()
    text = data.decode()
    for _ in range(chance.choice((1, 1, 2, 4))):
        at, piece = chance.randrange(len(text) + 1), chance.choice(_PIECES)
        text = text[:at] + piece + text[at + chance.choice((0, 0, 1, len(piece), 10)) :]
    if chance.random() < 0.1:
        return text.encode("utf-16")
    return text.encode()


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """Every holder and key of a value made of dictionaries and lists."""
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, one in pairs:
        yield value, key
        yield from places(one)
