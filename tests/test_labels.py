import pytest

from edge_ran.errors import InputError
from edge_ran.labels import decode_labels

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


@pytest.mark.parametrize("separator", [" ", ":", ": ", "\t", ", ", "; "])
def test_numbers_before_every_label_are_left_out(separator):
    text = "\n".join(f"{place}{separator}{name}" for place, name in enumerate(NAMES))
    assert decode_labels(text.encode(), "it") == NAMES


@pytest.mark.parametrize("text", ["1 euro\n2 euro", "0 red\n2 green", "0\n1\n2", "0 only"])
def test_numbers_that_belong_to_the_labels_stay(text):
    assert decode_labels(text.encode(), "it") == tuple(text.split("\n"))


@pytest.mark.parametrize("data", ["grün".encode("latin-1"), b"\xff\xfe\xff", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_such_text_is_one_line(data):
    with pytest.raises(InputError, match="label file x is not UTF-8 text"):
        decode_labels(data, "label file x")
