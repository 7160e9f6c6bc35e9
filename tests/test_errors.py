from __future__ import annotations

import re

from edge_ran import errors


def tree(cls: type = errors.EdgeRanError) -> dict[str, int]:
    found = {cls.__name__: cls.exit_code}
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            found |= tree(child)
    return found


def test_the_drawn_tree_is_the_tree():
    drawn = dict(re.findall(r"── (\w+) +(\d)", errors.__doc__ or ""))
    real = tree()
    real.pop("EdgeRanError")
    assert {name: int(code) for name, code in drawn.items()} == real


def test_every_error_carries_what_and_what_to_type():
    for name in tree():
        error = getattr(errors, name)("it broke", "mend it")
        assert str(error) == "it broke"
        assert error.remedy == "mend it"
        assert getattr(errors, name)("it broke").remedy == ""
