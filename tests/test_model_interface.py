"""Files that other tools wrote, with metadata as people write them, answer as in their official readers."""

from __future__ import annotations

import dataclasses
import io
import json
import shlex
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from models import colours

from edge_ran.card import InputSpec, ModelCard, Overrides
from edge_ran.classifier import Classifier
from edge_ran.errors import InputError
from edge_ran.graph import attach_card, metadata, read_graph
from edge_ran.graph.metadata import CARD_FILE, LABELS_FILE
from edge_ran.graph.patch import table, vector
from edge_ran.graph.picture_shape import picture_shape
from edge_ran.model_interface import (
    check_image_classifier,
    gives_probabilities,
    input_spec,
    of_one_size,
    read_interface,
)
from edge_ran.verify import verify

MODELS = Path(__file__).parent / "models"
NAMED = Overrides(labels=colours.LABELS)


def foreign(tmp_path: Path, model: str, spec: InputSpec, labels: bytes = b"red\ngreen\nblue\n") -> Path:
    """The model with standard metadata alone, as Task Library's writer makes them."""
    card = ModelCard("colours", colours.LABELS, spec)
    data = attach_card((MODELS / f"{model}.tflite").read_bytes(), card)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        assert packed.namelist() == [LABELS_FILE, CARD_FILE]
        start = packed.infolist()[0].header_offset
    packed_again = io.BytesIO(data[:start])
    with zipfile.ZipFile(packed_again, "a") as packed:
        packed.writestr(LABELS_FILE, labels)
    path = tmp_path / f"{model}.tflite"
    path.write_bytes(packed_again.getvalue())
    return path


def right(path: Path, overrides: Overrides | None = None) -> int:
    """How many of three pictures the file tells apart."""
    with Classifier(path, overrides=overrides) as classifier:
        return sum(classifier.classify(colours.frame(label))[0].label == label for label in colours.LABELS)


def spec(mean: float, std: float, size: int = 16) -> InputSpec:
    return InputSpec(size, size, (mean,) * 3, (std,) * 3)


@pytest.mark.parametrize("mean_std", [(0, 1), (127.5, 127.5), (0, 255)])
@pytest.mark.parametrize("model", ["uint8_0_to_1", "uint8_-1_to_1", "raw_uint8", "raw_int32"])
def test_bytes_go_into_an_integer_input_as_they_are(model, mean_std, tmp_path):
    path = foreign(tmp_path, model, spec(*mean_std))
    assert right(path) == 3
    interface = read_interface(path)
    with Classifier(path) as classifier:
        x = classifier.prepare(colours.frame("red"))
    assert np.array_equal(x[0], colours.frame("red")[:, :, ::-1])
    assert x.dtype == interface.tensor.dtype


def test_a_float_input_is_normalised_as_the_metadata_say(tmp_path):
    assert right(foreign(tmp_path, "ensemble", spec(127.5, 127.5))) == 3
    assert read_interface(foreign(tmp_path, "ensemble", spec(1, 2))).spec == spec(1, 2)


def bare(tmp_path: Path, given: dict[int, object]) -> Path:
    """A float file whose metadata describe an input with these fields alone: 4 processing units, 5 statistics."""
    b = flatbuffers.Builder(64)
    fields = {0: b.CreateString("image"), **{slot: make(b) for slot, make in given.items()}}
    subgraph = table(b, {2: vector(b, [table(b, fields)]), 3: vector(b, [table(b, {})])})
    b.Finish(table(b, {0: b.CreateString("colours"), 3: vector(b, [subgraph])}), b"M001")
    path = tmp_path / "bare.tflite"
    path.write_bytes(metadata._prepend_metadata((MODELS / "float32.tflite").read_bytes(), bytes(b.Output())))
    return path


def test_a_scaling_that_the_metadata_do_not_tell_is_said(tmp_path):
    interface = read_interface(bare(tmp_path, {}), NAMED)
    assert interface.spec == spec(0, 1)
    assert interface.notes == (
        "bare.tflite does not say how pixels are scaled: 0 to 255 as they are, or --mean and --std",
    )
    given = dataclasses.replace(NAMED, mean=(128.0,) * 3, std=(128.0,) * 3)
    assert read_interface(bare(tmp_path, {}), given).notes == ()
    assert not read_interface(foreign(tmp_path, "float32", spec(127.5, 127.5))).notes


def test_a_text_that_many_tables_of_the_metadata_name_takes_no_memory(tmp_path):
    b = flatbuffers.Builder(64)
    inputs = vector(b, [table(b, {})])
    outputs = vector(b, [table(b, {0: b.CreateString("n" * 10_000)})] * 100)
    b.Finish(table(b, {3: vector(b, [table(b, {2: inputs, 3: outputs})])}), b"M001")
    path = tmp_path / "m.tflite"
    path.write_bytes(metadata._prepend_metadata((MODELS / "float32.tflite").read_bytes(), bytes(b.Output())))
    with pytest.raises(InputError, match="texts are larger than the file"):
        read_interface(path)


@pytest.mark.parametrize(("least", "most", "expected"), [(-1, 1, (127.5, 127.5)), (0, 1, (0, 255)), (0, 255, (0, 1))])
def test_the_range_that_the_metadata_tell_gives_the_scaling(least, most, expected, tmp_path):
    def stats(b):
        return table(b, {0: metadata._floats(b, [most] * 3), 1: metadata._floats(b, [least] * 3)})

    interface = read_interface(bare(tmp_path, {5: stats}), NAMED)
    assert (interface.spec.mean[0], interface.spec.std[0]) == pytest.approx(expected)
    assert interface.notes == ()


def test_the_metadata_count_for_an_int8_input_where_they_fit_its_range(tmp_path):
    fitting = InputSpec(16, 16, (120.0, 125.0, 130.0), (127.0, 128.0, 129.0))
    assert read_interface(foreign(tmp_path, "int8", fitting)).spec == fitting
    for mean_std in ((0, 1), (0, 255)):  # of the network before it was quantised
        path = foreign(tmp_path, "int8", spec(*mean_std))
        assert right(path) == 3
        with Classifier(path) as classifier:
            x = classifier.prepare(colours.frame("red"))
        assert np.array_equal(x[0].astype(np.int16) + 128, colours.frame("red")[:, :, ::-1])


@pytest.mark.parametrize("model", ["raw_uint8", "raw_int32", "float16_io", "uint8_0_to_1", "uint8_-1_to_1", "ensemble"])
def test_a_file_without_metadata_runs_with_labels_alone(model):
    assert right(MODELS / f"{model}.tflite", NAMED) == 3


@pytest.mark.parametrize(("model", "mean", "std"), [("uint8_0_to_1", 127.5, 1.0), ("raw_uint8", 127.5, 127.5)])
def test_a_normalisation_that_an_integer_input_cannot_hold_is_refused(model, mean, std):
    with pytest.raises(InputError, match="out of what its uint8 input holds") as caught:
        read_interface(MODELS / f"{model}.tflite", Overrides(mean=(mean,) * 3, std=(std,) * 3))
    assert "leave --mean and --std out" in caught.value.remedy


# ------------------------------------------------------------------------------------------------------------ size


def test_an_open_size_is_the_pictures_own_and_the_user_is_told():
    with Classifier(MODELS / "any_size.tflite", overrides=NAMED) as classifier:
        for side in (8, 16, 40):
            for label in colours.LABELS:
                frame = colours.frame(label, side, side + 3)
                assert classifier.prepare(frame).shape == (1, side, side + 3, 3)
                assert classifier.classify(frame)[0].label == label
        assert "leaves the size of its input open" in classifier.notes[0]
        huge = classifier.prepare(np.zeros((4096, 2048, 3), np.uint8))
    assert huge.shape == (1, 1024, 512, 3)


def test_an_open_size_is_chosen_by_the_option_before_the_metadata(tmp_path):
    path = foreign(tmp_path, "any_size", spec(128, 128, 24))
    for overrides, shape in ((None, (1, 24, 24, 3)), (Overrides(input_size=(12, 20)), (1, 12, 20, 3))):
        with Classifier(path, overrides=overrides) as classifier:
            assert classifier.runtime.input.shape == classifier.prepare(colours.frame("red", 50, 60)).shape == shape
            assert classifier.classify(colours.frame("blue", 50, 60))[0].label == "blue"
            assert classifier.notes == ()


def test_a_fixed_size_cannot_be_chosen():
    with pytest.raises(InputError, match="takes 16x16 pixels and no other size"):
        read_interface(MODELS / "float32.tflite", Overrides(input_size=(32, 32)))
    assert read_interface(MODELS / "float32.tflite", Overrides(input_size=(16, 16))).spec.height == 16


def test_what_compares_accelerators_wants_one_size():
    from edge_ran.runtime import RuntimeOptions

    with pytest.raises(InputError, match="any size") as caught:
        verify(MODELS / "any_size.tflite", RuntimeOptions())
    assert "--input-size" in caught.value.remedy
    graph = dataclasses.replace(read_graph(MODELS / "any_size.tflite"))
    half_open = dataclasses.replace(graph.inputs[0], shape=(1, 16, 1, 3), open_axes=(2,))
    with pytest.raises(InputError, match="one side"):
        input_spec(dataclasses.replace(graph, inputs=(half_open,)))


def test_a_map_of_scores_that_grows_with_the_picture_is_no_row_of_them():
    """The file's placeholder for it, (1, 1, 1, 3), looks like one."""
    with pytest.raises(InputError, match="not an image classifier: its output grows with the picture"):
        read_interface(MODELS / "any_size_map.tflite", NAMED)


def test_an_input_of_any_size_that_is_no_picture_gets_none():
    graph = read_graph(MODELS / "any_size.tflite")
    sound = dataclasses.replace(graph.inputs[0], shape=(1, 1), open_axes=(1,))
    with pytest.raises(InputError, match="takes no picture, and leaves the size of its input open"):
        of_one_size(dataclasses.replace(graph, inputs=(sound,)))


# --------------------------------------------------------------------------------------------------- probabilities


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("float32", True),
        ("int8", True),
        ("logits", False),
        ("without_background", True),
        ("float16_io", True),
        ("ensemble", None),
    ],
)
def test_the_graph_tells_probabilities_from_logits_where_it_can(model, known):
    assert gives_probabilities(read_graph(MODELS / f"{model}.tflite")) is known


@pytest.mark.parametrize("model", ["ensemble", "without_background", "float16_io", "raw_uint8", "uint8_-1_to_1"])
def test_no_second_softmax(model):
    with Classifier(MODELS / f"{model}.tflite", overrides=NAMED) as classifier:
        scores = classifier.scores(colours.frame("green"))
        raw = classifier.runtime.run(classifier.prepare(colours.frame("green")))[0]
        tensor = classifier.runtime.outputs[0]
    values = (raw.reshape(-1).astype(float) - tensor.zero_point) * (tensor.scale or 1)
    assert scores == pytest.approx(values, abs=1e-6)


def test_values_that_do_not_sum_to_one_are_logits(monkeypatch):
    import edge_ran.model_interface as module

    monkeypatch.setattr(module, "gives_probabilities", lambda *_: None)
    with Classifier(MODELS / "logits.tflite", overrides=NAMED) as classifier:
        unknown = classifier.scores(colours.frame("red"))
    monkeypatch.undo()
    with Classifier(MODELS / "logits.tflite", overrides=NAMED) as classifier:
        assert unknown == pytest.approx(classifier.scores(colours.frame("red")))


def test_answers_that_are_not_finite_numbers_are_refused():
    from edge_ran.runtime import RuntimeOptions

    path = MODELS / "overflowing.tflite"
    with Classifier(path, overrides=NAMED) as classifier, pytest.raises(InputError, match="not finite numbers"):
        classifier.scores(colours.frame("red"))
    with pytest.raises(InputError, match="not finite numbers"):
        verify(path, RuntimeOptions())


# ---------------------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfred\ngreen\nblue",
        b"red\r\ngreen\r\nblue\r\n\r\n",
        b"0 red\n1 green\n2 blue\n",
        "red\ngreen\nblue".encode("utf-16"),
        b"red \ngreen\t\n blue",
    ],
)
def test_labels_inside_a_file_are_read_as_those_outside(text, tmp_path):
    path = foreign(tmp_path, "ensemble", spec(128, 128), text)
    assert read_interface(path).labels == colours.LABELS
    assert right(path) == 3


@pytest.mark.parametrize("text", [b"red\ngr\xfcn\nblue", b"red\ngreen\n", b"a\x1b[2J\nb\nc\n"])
def test_given_labels_mend_those_inside(text, tmp_path):
    path = foreign(tmp_path, "ensemble", spec(128, 128), text)
    with pytest.raises(InputError):
        _ = read_interface(path).labels
    assert read_interface(path, NAMED).labels == colours.LABELS
    assert right(path, NAMED) == 3


# ------------------------------------------------------------------------------------------------------------ task


@pytest.mark.parametrize(
    ("said", "task"),
    [(b"Image embeddings", "embedder"), (b"A feature vector", "embedder"), (b"Detects persons.", "detector")],
)
def test_a_file_that_says_it_is_something_else_is_refused(said, task, tmp_path):
    path = foreign(tmp_path, "ensemble", spec(128, 128), b"")
    path.write_bytes(path.read_bytes().replace(b"Image classifier", said))
    with pytest.raises(InputError, match=f"its metadata say that it is an? {task}") as caught:
        read_interface(path)
    assert "--labels" in caught.value.remedy
    assert right(path, NAMED) == 3


def test_labels_make_it_a_classifier(tmp_path):
    path = foreign(tmp_path, "ensemble", spec(128, 128))
    path.write_bytes(path.read_bytes().replace(b"Image classifier", b"Defect detector."))
    assert read_interface(path).labels == colours.LABELS


def test_classes_without_end_are_refused(test_models: Path) -> None:
    """Each would get a name; a file of 300 bytes may claim a billion."""
    graph = read_graph(test_models / "float32.tflite")
    many = dataclasses.replace(graph.outputs[0], shape=(1, 20_000_000))
    with pytest.raises(InputError, match="20,000,000 classes"):
        check_image_classifier(dataclasses.replace(graph, outputs=(many,)))
    beside = dataclasses.replace(graph.inputs[0], shape=(1, 5))
    with pytest.raises(InputError, match="output 0 has 20,000,000 classes"):
        check_image_classifier(dataclasses.replace(graph, outputs=(many, beside)))


def test_boxes_are_no_classes_whatever_their_scores(test_models):
    graph = read_graph(test_models / "float32.tflite")
    one = graph.outputs[0]
    shapes = (1, 10, 4), (1, 10), (1, 10), (1,)
    outputs = tuple(dataclasses.replace(one, shape=shape) for shape in shapes)
    for labels in (None, tuple(map(str, range(10)))):
        with pytest.raises(InputError, match="4 outputs") as caught:
            check_image_classifier(dataclasses.replace(graph, outputs=outputs), labels=labels)
        assert "it is a detector" in caught.value.remedy


def of_ultralytics(tmp_path: Path, model: str, name: str, text: str, standard: bool = False) -> Path:
    """The model with what Ultralytics' exporter packs; older versions name that file in standard metadata as well."""
    data = (MODELS / f"{model}.tflite").read_bytes()
    if standard:
        data = foreign(tmp_path, model, spec(0, 1)).read_bytes()
        data = data.replace(LABELS_FILE.encode(), name.encode()[: len(LABELS_FILE)].ljust(len(LABELS_FILE), b"t"))
    packed = io.BytesIO(data)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(name, text)
    path = tmp_path / f"{model}_yolo.tflite"
    path.write_bytes(packed.getvalue())
    return path


@pytest.mark.parametrize("name", ["labels.txt", "model_labels.txt", "labelmap.txt", "Classes.txt", "label_map.pbtxt"])
def test_labels_beside_a_model_that_names_none_are_told(name, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes((MODELS / "uint8.tflite").read_bytes())
    assert read_interface(path).notes == ()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / name).write_text("a\nb\nc\n")
    note = f"m.tflite names no classes; {name} lies beside it: --labels {tmp_path / name}"
    assert read_interface(path).notes == (note,)
    assert read_interface(path, NAMED).notes == ()
    (tmp_path / "labels_2.txt").write_text("a\nb\nc\n")  # which one?
    assert read_interface(path).notes == ()


SAID = {"description": "Ultralytics YOLO11n-cls", "author": "Ultralytics", "task": "classify", "imgsz": [16, 16]}


@pytest.mark.parametrize("standard", [False, True])
@pytest.mark.parametrize("write", [json.dumps, str])
def test_a_classifier_of_ultralytics_knows_its_classes_and_takes_0_to_1(write, standard, tmp_path):
    said = {**SAID, "names": dict(enumerate(colours.LABELS))}
    name = "metadata.json" if write is json.dumps else "temp_meta.txt"
    path = of_ultralytics(tmp_path, "float32", name, write(said), standard)
    with Classifier(path) as classifier:
        assert classifier.labels == colours.LABELS
        assert classifier.card.name == "Ultralytics YOLO11n-cls"
        x = classifier.prepare(colours.frame("red"))
    np.testing.assert_allclose(x[0], colours.frame("red")[:, :, ::-1] / 255, atol=1e-6)
    assert read_interface(path, NAMED).labels == colours.LABELS
    detector = of_ultralytics(tmp_path, "float32", name, write({**said, "task": "detect"}), standard)
    with pytest.raises(InputError, match="that it is a detector"):
        read_interface(detector)


@pytest.mark.parametrize("file", ["meta.txt", "temp_meta.txt", "metadata.json"])
@pytest.mark.parametrize("names", [dict(enumerate(colours.LABELS)), list(colours.LABELS)])
def test_names_without_a_task_are_the_classes_and_nothing_else(file, names, tmp_path):
    path = of_ultralytics(tmp_path, "float32", file, str({"stride": 32, "names": names}))
    found, without = read_interface(path), read_interface(MODELS / "float32.tflite")
    assert (found.labels, found.spec, found.assumes_scaling) == (colours.LABELS, without.spec, True)
    beside = foreign(tmp_path, "float32", spec(0, 1)).read_bytes()
    with zipfile.ZipFile(packed := io.BytesIO(beside), "a") as archive:
        archive.writestr(file, str({"names": ["a", "b", "c"]}))
    path.write_bytes(packed.getvalue())
    assert read_interface(path).labels == colours.LABELS  # those of the standard metadata


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{", "(" * 100_000, "-" * 100_000 + "1", "1" + "+1" * 400_000),
        *('{"names": 7, "task": []}', "{{}: 1}", "{1: print()}"),
    ],
)
def test_what_is_not_of_ultralytics_is_left_alone(text, tmp_path):
    assert read_interface(of_ultralytics(tmp_path, "float32", "metadata.json", text)).card is None


def test_python_of_ultralytics_is_read_up_to_64_kb(tmp_path):
    """Python 3.10 crashes on longer texts."""
    for write, known in ((json.dumps, True), (str, False)):
        said = write({**SAID, "names": dict(enumerate(colours.LABELS)), "comment": "c" * (1 << 16)})
        card = read_interface(of_ultralytics(tmp_path, "float32", "metadata.json", said)).card
        assert (card is not None) == known


def test_classes_of_ultralytics_with_gaps_in_their_numbers_are_none(tmp_path):
    said = {**SAID, "names": {"0": "red", "2": "blue", "3": "green"}}
    assert read_interface(of_ultralytics(tmp_path, "float32", "metadata.json", json.dumps(said))).names is None


@pytest.mark.parametrize(
    ("data", "what", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "pointer of Git LFS", "git lfs pull"),
        (b"\n<!DOCTYPE html><html></html>", "web page", "not the page"),
        (b"<HTML>404</HTML>", "web page", "not the page"),
        (b"PK\x03\x04" + bytes(40), "packed archive", "unpack it"),
        (b"\x1f\x8b" + bytes(40), "packed archive", "unpack it"),
        (b"something else", "is not a .tflite model", "edge-ran convert"),
    ],
)
def test_what_came_in_the_place_of_a_model_is_named(data, what, remedy, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    with pytest.raises(InputError, match=what) as caught:
        read_interface(path)
    assert remedy in caught.value.remedy


def test_an_archive_with_a_model_in_it_is_unpacked_as_advised(tmp_path):
    path = tmp_path / "converted tflite.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(MODELS / "float32.tflite", "inner/model unquant.tflite")
    with pytest.raises(InputError, match="packed archive") as caught:
        read_interface(path)
    command, _, then = caught.value.remedy.partition("; then give ")
    assert shlex.split(command) == ["unzip", str(path), "-d", str(tmp_path / "converted tflite-unpacked")]
    assert shlex.split(then) == [str(tmp_path / "converted tflite-unpacked" / "inner" / "model unquant.tflite")]


# -------------------------------------------------------------------------------------------- other inputs and outputs


def test_the_channels_may_come_first():
    path = MODELS / "channels_first.tflite"
    assert right(path, NAMED) == 3
    with Classifier(path, overrides=NAMED) as classifier:
        x = classifier.prepare(colours.frame("green", 30, 40))
        out = np.empty_like(x)
        assert classifier.prepare(colours.frame("green", 30, 40), out) is out
    with Classifier(MODELS / "ensemble.tflite", overrides=NAMED) as classifier:
        usual = classifier.prepare(colours.frame("green", 30, 40))
    assert x.shape == (1, 3, 16, 16)
    assert np.array_equal(x.transpose(0, 2, 3, 1), usual)
    assert np.array_equal(out, x)


def test_a_grey_picture_may_lack_the_channel():
    two = Overrides(labels=("dark", "bright"))
    with Classifier(MODELS / "grey_of_two.tflite", overrides=two) as classifier:
        assert "takes grey pictures" in classifier.notes[0]
        for value, label in ((20, "dark"), (230, "bright")):
            scores = classifier.scores(np.full((40, 30, 3), value, np.uint8))
            assert scores.sum() == pytest.approx(1)
            assert classifier.rank(scores)[0].label == label
        coloured = classifier.prepare(np.full((16, 16, 3), (255, 0, 0), np.uint8))
    assert np.allclose(coloured * 128 + 128, round(0.114 * 255))
    with pytest.raises(InputError, match="grey, and the mean or std differs"):
        Classifier(MODELS / "grey_of_two.tflite", overrides=dataclasses.replace(two, mean=(1.0, 2.0, 3.0)))


def test_one_number_is_the_probability_of_the_second_of_two_classes():
    path = MODELS / "grey_of_two.tflite"
    for given, labels in ((None, ("0", "1")), (("day",), ("not day", "day")), (("a", "b"), ("a", "b"))):
        assert read_interface(path, Overrides(labels=given)).labels == labels
    with pytest.raises(InputError, match="its output is"):
        read_interface(path, NAMED)
    graph = read_graph(path)
    counted = dataclasses.replace(graph.outputs[0], dtype="int64")
    with pytest.raises(InputError, match="its output is"):
        check_image_classifier(dataclasses.replace(graph, outputs=(counted,)))


def test_of_several_outputs_the_labels_choose_one():
    path, frame = MODELS / "two_heads.tflite", np.full((16, 16, 3), (40, 30, 200), np.uint8)
    for labels, found in ((colours.LABELS, "red"), (("dark", "bright"), "dark")):
        with Classifier(path, overrides=Overrides(labels=labels)) as classifier:
            assert classifier.classify(frame)[0].label == found
            assert "of the 2 outputs" in classifier.notes[0]
    with pytest.raises(InputError, match=r"2 outputs: .*\(1, \d\), .*\(1, \d\)$") as caught:
        Classifier(path)
    assert "--labels" in caught.value.remedy
    with pytest.raises(InputError, match="2 outputs"):
        Classifier(path, overrides=Overrides(labels=("a", "b", "c", "d")))
    graph = read_graph(path)
    twice = dataclasses.replace(graph, outputs=(graph.outputs[0],) * 2)
    with pytest.raises(InputError, match="2 outputs") as caught:
        check_image_classifier(twice, labels=colours.LABELS[: graph.outputs[0].shape[-1]])
    assert "model.outputs[0]" in caught.value.remedy


@pytest.mark.parametrize(
    ("shape", "open_axes", "axes"),
    [
        ((1, 8, 9, 3), (), (1, 2, 3)),
        ((1, 3, 8, 3), (), (1, 2, 3)),
        ((1, 3, 8, 9), (), (2, 3, 1)),
        ((1, 3, 1, 1), (2, 3), (2, 3, 1)),
        ((1, 1, 1, 3), (1, 2), (1, 2, 3)),
        ((1, 8, 9, 1), (), (1, 2, 3)),
        ((1, 1, 8, 9), (), (2, 3, 1)),
        ((1, 8, 9), (), (1, 2, None)),
    ],
)
def test_where_height_width_and_channels_lie(shape, open_axes, axes):
    found = picture_shape(shape, open_axes)
    assert found is not None
    assert found.axes == axes
    assert found.sized(found.height, found.width) == shape


@pytest.mark.parametrize("shape", [(8, 9, 3), (1, 9), (1, 8, 9, 4), (2, 8, 9, 3), (1, 0, 9, 3), (1, 5, 8, 9, 3)])
def test_what_is_no_picture(shape):
    assert picture_shape(shape) is None


def test_labels_by_number_may_leave_classes_out():
    path = MODELS / "float32.tflite"
    for labels, found in ((("0 a", "2 c"), ("a", "1", "c")), (("1 b",), ("0", "b", "2"))):
        assert read_interface(path, Overrides(labels=labels)).labels == found
    for labels in (("0 a", "3 d"), ("0 a", "0 b"), ("0 a", "b"), ("9" * 5000 + " a",)):
        with pytest.raises(InputError, match="3 outputs, but"):
            _ = read_interface(path, Overrides(labels=labels)).labels


def test_a_scaling_that_nobody_tells_is_told(tmp_path):
    path = MODELS / "ensemble.tflite"
    with Classifier(path, overrides=NAMED) as classifier:
        assert "(pixel - 128) / 128, or --mean and --std" in classifier.notes[0]
    silent = (path, dataclasses.replace(NAMED, mean=(0.0,) * 3)), (MODELS / "raw_uint8.tflite", NAMED)
    for file, overrides in (*silent, (foreign(tmp_path, "ensemble", spec(128, 128)), None)):
        with Classifier(file, overrides=overrides) as classifier:
            assert classifier.notes == ()
