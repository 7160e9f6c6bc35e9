import contextlib
import json
import subprocess

import pytest

from edge_ran.errors import InputError
from edge_ran.labels import count_remedy, decode_labels, fitted_labels, numbered_labels

NAMES = ("Käse", "Кофе", "水")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("after", ["", "end", "blank lines"])
def test_whatever_an_editor_writes_gives_the_same_labels(encoding, ending, after):
    text = ending.join(NAMES) + {"": "", "end": ending, "blank lines": 3 * ending + "  " + ending}[after]
    assert decode_labels(text.encode(encoding), "it") == NAMES


def test_blanks_around_labels_go_and_empty_lines_between_them_stay():
    assert decode_labels(b" red \ngreen\t\n\nblue", "it") == ("red", "green", "", "blue")


def test_one_form_of_unicode():
    assert decode_labels("Ka\u0308se\n".encode(), "it") == ("Käse",)


SEPARATORS = [" ", "  ", "\t", ":", ": ", " : ", ",", ", ", "; ", "=", ". ", ") ", " - "]


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("head", ["", "id,name\n"])
def test_numbers_before_every_label_are_left_out(separator, head):
    text = head + "\n".join(f"{place}{separator}{name}" for place, name in enumerate(NAMES))
    assert decode_labels(text.encode(), "it") == NAMES


@pytest.mark.parametrize("text", ["{1}{0}{2}", "{2}{0}{1}"])
@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("head", ["", "id,name\n"])
def test_numbers_from_1_are_left_out_where_the_network_has_as_many_classes(separator, text, head):
    lines = head + "".join(f"{place + 1}{separator}{NAMES[place]}\n" for place in map(int, text[1::3]))
    kept = decode_labels(lines.encode(), "it")
    assert fitted_labels(kept, [3]) == fitted_labels(kept, [7, 3]) == NAMES
    assert fitted_labels(kept, [4]) == ("0", *NAMES)  # 0 is the background
    assert fitted_labels(kept, [2]) == fitted_labels(kept, [4, 9]) == kept


def test_the_remedy_of_a_background_works(tmp_path):
    (tmp_path / "l.txt").write_text("red\ngreen\n")
    for classes, found in ((3, ("background", "red", "green")), (1, ("green",))):
        command = count_remedy(2, classes, "l.txt").partition(": ")[2].partition(", then --labels ")
        subprocess.run(["sh", "-c", command[0]], cwd=tmp_path, check=True)
        assert decode_labels((tmp_path / command[2]).read_bytes(), "it") == found
    assert count_remedy(2, 7, "l.txt") == "--labels FILE, one per line"


def test_numbers_from_1_behind_the_labels():
    for separator in (" ", ",", "\t", "  "):
        assert numbered_labels([f"{name}{separator}{place}" for place, name in enumerate(NAMES, 1)], 3) == NAMES
    assert fitted_labels(("1 no", "2 yes"), [1]) == ("no", "yes")  # the probability of the second


@pytest.mark.parametrize(
    "text",
    [
        "1 euro\n2 euro",
        "0 red\n2 green",
        "0\n1\n2",
        "0 only",
        "0 fingers\n1 finger\n2 fingers",
        "0 hours\n1 hour",
        "floor 0\nfloor 1",
    ],
)
def test_numbers_that_belong_to_the_labels_stay(text):
    assert decode_labels(text.encode(), "it") == tuple(text.split("\n"))


@pytest.mark.parametrize(
    "text",
    [
        "1 euro\n2 euro",
        "1 hour\n2 hours",
        "1 Woche\n2 Wochen",
        "1 heure\n2 heures",
        "1.5 mm\n2.5 mm",
        "1-door\n2-door",
        "floor 1\nfloor 2",
        "1\n2",
        "1st\n2nd",
        "1 a\n1 b",
        "a\n2 b",
    ],
)
def test_numbers_from_1_that_belong_to_the_labels_stay(text):
    assert fitted_labels(text.split("\n"), [2]) == tuple(text.split("\n"))


def test_a_few_equal_names_among_many_are_numbered_all_the_same():
    """ImageNet's classes have two cranes and two maillots."""
    names = [*map(str, range(18)), "crane", "crane"]
    assert decode_labels("".join(f"{place} {name}\n" for place, name in enumerate(names)).encode(), "it") == tuple(
        names
    )


@pytest.mark.parametrize("data", ["grün".encode("latin-1"), b"\xff\xfe\xff"])
def test_what_is_no_such_text_is_one_line(data):
    with pytest.raises(InputError, match="label file x is not UTF-8 text"):
        decode_labels(data, "label file x")


def test_numbers_in_another_order_are_the_places():
    assert decode_labels("2 水\n00 Käse\n1 Кофе".encode(), "it") == NAMES
    assert decode_labels(b"1 Mask\n0 NoMask", "it") == ("NoMask", "Mask")
    assert decode_labels(b"0 a\n0 b", "it") == ("0 a", "0 b")


@pytest.mark.parametrize(
    "value",
    [
        list(NAMES),
        {"2": NAMES[2], "0": NAMES[0], "1": NAMES[1]},
        {name: place for place, name in reversed(list(enumerate(NAMES)))},
        {str(place): [f"n0{place}", name] for place, name in enumerate(NAMES)},
        {"id2label": dict(enumerate(NAMES)), "num_labels": 3},
        {"label2id": {name: place for place, name in enumerate(NAMES)}},
        {"labels": list(NAMES), "tfjsVersion": "1.3.1"},
        {"doc_name": "x", "classes": {"Label": list(NAMES)}, "inputs": {}},
    ],
)
def test_json_as_programs_write_it(value):
    assert decode_labels(json.dumps(value, indent=1).encode("utf-8-sig"), "it") == NAMES


@pytest.mark.parametrize(
    "text", ['{"0": "a", "2": "b"}', "{}", "[]", "[1, 2]", '{"a": [0], "b": [1]}', '{"id2label": 3}']
)
def test_json_of_another_form_is_one_line(text):
    with pytest.raises(InputError, match="it is no list of names"):
        decode_labels(text.encode(), "it")


@pytest.mark.parametrize("text", ["{red}\n{green}", "[0] red\n[1] green", "[" * 100_000])
def test_what_only_begins_like_json_are_lines(text):
    assert decode_labels(text.encode(), "it") == tuple(text.split("\n"))


@pytest.mark.parametrize(
    "text",
    [
        str(dict(enumerate(NAMES))),  # as Python prints it
        str(dict(enumerate(NAMES))).replace(", ", ",\n ").replace("}", ",\n}\n"),
        str(list(NAMES)),
        "index,name\n" + "".join(f"{place},{name}\n" for place, name in enumerate(NAMES)),
        "".join(f"{name},{place}\n" for place, name in enumerate(NAMES)),
        "class;number\n" + "".join(f"{name};{place}\n" for place, name in reversed(list(enumerate(NAMES)))),
        "".join(f"item {{\n  id: {place + 1}\n  name: '{name}'\n}}\n" for place, name in enumerate(NAMES)),
        "".join(
            f'item {{ name: "/m/{place}" id: {place} display_name: "{name}" }}' for place, name in enumerate(NAMES)
        ),
        "# mine\ntrain: ../train\nnc: 3\nnames: ['" + "', '".join(NAMES) + "']\n",
        "names:\n" + "".join(f"  {place}: {name}\n" for place, name in enumerate(NAMES)) + "nc: 3\n",
        "path: x\nnames:  # of classes\n" + "\n".join(f'- "{name}" # {name}' for name in NAMES),
        "names: {" + ", ".join(f"{place}: {name}" for place, name in enumerate(NAMES)) + "}",
    ],
)
def test_labels_as_other_tools_write_them(text):
    assert decode_labels(text.encode(), "it") == NAMES


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("item { id: 1 name: 'a' } item { id: 3 name: 'b' }", "numbers are not 1, 2, 3"),
        ("item { }", "numbers are not 1, 2, 3"),
        ("names:\n  0: a\n  2: b\n", "no names with the numbers"),
        ("names: []", "no list of names"),
    ],
)
def test_label_maps_of_another_form_are_one_line(text, what):
    with pytest.raises(InputError, match=what):
        decode_labels(text.encode(), "it")


@pytest.mark.parametrize("text", ["red, dark\n0, light\n5, light", "names: red\ngreen", "item\nitem {"])
def test_what_only_looks_like_another_form_are_lines(text):
    assert decode_labels(text.encode(), "it") == tuple(text.split("\n"))


def test_names_with_marks_as_python_prints_them():
    names = ("it's, here", 'a "b"', "back\\slash")
    assert decode_labels(str(dict(enumerate(names))).encode(), "it") == names


def test_a_line_of_tabs_ends():
    """A model from anywhere may carry such labels; a pattern took a minute for 3,000 tabs."""
    line = "a" + "\t" * 3000 + "x"
    assert decode_labels(f"{line}\nb\n".encode(), "labels.txt") == (line, "b")
    assert decode_labels(b"red\t\t1\ngreen ; 0\n", "labels.txt") == ("green", "red")


@pytest.mark.parametrize(
    "data", ["{'a', " + "\t" * 4000 + "b}", "names: [\n" * 30_000, "names:\n- a\n1:x" + "\t" * 20_000 + "y"]
)
def test_labels_that_are_made_to_be_slow_end(data):
    """What looked for such names took seconds to minutes: its time grew with the square or the cube of the length."""
    with contextlib.suppress(InputError):
        decode_labels(data.encode(), "it")


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ('[{"id": 1, "name": "b"}, {"id": 0, "name": "a"}]', 2, ("a", "b")),
        ('{"categories": [{"id": 2, "name": "b"}, {"id": 1, "name": "a"}]}', 2, ("a", "b")),
        ('{"21": "c", "1": "a"}', 22, None),
        ('{"2": "b", "1": "a", "3": "c"}', 3, ("a", "b", "c")),
    ],
)
def test_numbers_in_json_count_as_those_of_lines(text, width, expected):
    labels = fitted_labels(decode_labels(text.encode(), "it"), [width])
    assert labels == expected if expected else (labels[1], labels[21], labels[0]) == ("a", "c", "0")


def test_blank_lines_between_labels_count_only_where_the_network_has_them():
    lines = decode_labels("\ufeffa\n\nb\n\nc\n".encode(), "it")
    assert fitted_labels(lines, [3]) == ("a", "b", "c")
    assert fitted_labels(lines, [5]) == ("a", "", "b", "", "c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('id,name\n2,"blue, dark"\n0,red\n1,"a ""b"""\n', ("red", 'a "b"', "blue, dark")),
        ('index,mid,display_name\n0,/m/1,red\n1,/m/2,"green, light"\n', ("red", "green, light")),
        ("class_id\tname\tcolour\n1\tb\tx\n0\ta\ty\n", ("a", "b")),
        ('"red"\n"blue, dark"\n', ("red", "blue, dark")),
        ("a,b,c\nd,e,f\n", ("a,b,c", "d,e,f")),
        ("id,name,note\n1,a\n", ("id,name,note", "1,a")),
    ],
)
def test_tables_of_labels(text, expected):
    assert decode_labels(text.encode(), "it") == expected


@pytest.mark.parametrize("text", ['[{"id": 1}]', '[{"name": "a"}, {"name": "b"}]', '{"a": "b"}', '{"1": 2, "3": "c"}'])
def test_json_without_numbers_and_names_is_one_line(text):
    with pytest.raises(InputError, match="is no list of names"):
        decode_labels(text.encode(), "it")


def test_a_text_of_windows_is_converted_as_advised(tmp_path):
    path = tmp_path / "my labels.txt"
    path.write_bytes("rosé\nvert\n".encode("cp1252"))
    with pytest.raises(InputError, match="is not UTF-8") as caught:
        decode_labels(path.read_bytes(), f"label file {path}", str(path))
    command = caught.value.remedy.removeprefix("if Windows wrote it: ").partition(";")[0]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert decode_labels((tmp_path / "utf8.txt").read_bytes(), "it") == ("rosé", "vert")


@pytest.mark.parametrize("text", ["a,\nb c,\nd,\n", "a;\nb c;\nd", '"a",\n"b c",\n"d"\n', "0 a,\n1 b c,\n2 d,\n"])
def test_a_comma_that_ends_each_line_is_no_part_of_it(text):
    assert decode_labels(text.encode(), "it") == ("a", "b c", "d")
