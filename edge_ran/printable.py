"""What may reach a terminal, a page or a log: text of unknown origin without anything that steers them.

Names in model files, labels, cells of manifests, what a camera or a device answers and the errors of libraries about
them are other people's text. ``guard`` puts ``clean`` into the two streams that everything is printed to, so that no
verb can forget it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any, TextIO

# Escape sequences as a whole: those with parameters, those that carry text (window titles), and the short ones.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*.", re.DOTALL)
# Control characters but tabs and the ends of lines, half characters, other ends of lines, and marks that turn the
# direction of what follows, so that a name is read as another one.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
FEW = 5  # names in a message


def clean(text: str, lines: bool = False) -> str:
    """Return the text without escape sequences, control characters (tabs stay) and marks that turn its direction.

    ``lines`` keeps the ends of lines as well.
    """
    if text.isascii() and text.isprintable():
        return text
    text = _STEERING.sub("", _ESCAPES.sub("", text))
    return text if lines else text.replace("\n", "")


def one_line(text: str) -> str:
    """Return the text as one clean line."""
    return clean(re.sub(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*", " ", text))


def many(count: int | None, word: str) -> str:
    """Return a number with its word, in the plural unless it is one: "1 step", "1,200 classes"; None is not known."""
    if count == 1:
        return f"1 {word}"
    words = f"{word}{'es' if re.search('(s|x|sh|[^o]ch)$', word) else 's'}"  # boxes, classes, but epochs
    return f"an unknown number of {words}" if count is None else f"{count:,} {words}"


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are: "a, b, c, d, e and 7 more"."""
    return ", ".join(names[:FEW]) + (f" and {len(names) - FEW} more" if len(names) > FEW else "")


class Guarded:
    """A text stream whose writes are ``clean``. What its encoding lacks is written as an escape, not refused."""

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream

    def write(self, text: str) -> int:
        kept = clean(text, lines=True)
        try:
            self.unguarded.write(kept)
        except UnicodeEncodeError:
            encoding = self.unguarded.encoding
            self.unguarded.write(kept.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def guard() -> None:
    """Make this process's stdout and stderr ``Guarded``."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, Guarded):
            setattr(sys, name, Guarded(stream))


def unguarded(stream: Any) -> Any:
    """Return the stream that a guarded one writes to, for who draws with escape sequences and cleans what it draws."""
    return stream.unguarded if isinstance(stream, Guarded) else stream
