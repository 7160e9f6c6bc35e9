"""The application, the options that several verbs share, and how results and errors are printed."""

from __future__ import annotations

import contextlib
import json as jsonlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from edge_ran import host_packages as missing
from edge_ran.cli.render import discard_stdout
from edge_ran.errors import RELAY, EdgeRanError, UsageError
from edge_ran.printable import one_line

if TYPE_CHECKING:
    from edge_ran.catalogue import DeviceSpec
    from edge_ran.targets.defaults import DeviceDefaults


class _Application(TyperGroup):
    """A reader of stdout that has read enough (`--help | head -1`) is no failure; typer would exit with 1."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _reader_may_leave():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _reader_may_leave():
            return super().invoke(ctx)


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        discard_stdout()
        raise typer.Exit from None


app = typer.Typer(
    name="edge-ran",
    cls=_Application,
    help="Train, quantise, convert, run and benchmark residual attention networks on small devices.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: `command.VerbCommand` has a line for each option
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def complain(what: str, remedy: str) -> None:
    if os.environ.get(RELAY):
        print(f"{RELAY}:{jsonlib.dumps({'what': what, 'remedy': remedy})}", file=sys.stderr)
        return
    print(f"edge-ran: {one_line(what)}", file=sys.stderr)
    if remedy:
        print(f"  {one_line(remedy)}", file=sys.stderr)


def suited(spec: DeviceSpec, options: Mapping[str, Any]) -> DeviceDefaults:
    """Return what the device's description says of accelerator and threads, where the options leave it open."""
    from edge_ran.targets import defaults

    return defaults.suited(spec, options)


def believing(spec: DeviceSpec) -> contextlib.AbstractContextManager[None]:
    """While a device's answer is read: what cannot be one is the device's fault, not the user's."""
    from edge_ran.targets import measurements

    return measurements.believing(spec)


@contextlib.contextmanager
def host_packages(verb: str, quiet: bool = True) -> Iterator[None]:
    """Turn a missing TensorFlow into one line, for the verbs that need it.

    Args:
        verb: what needs it.
        quiet: do not tell that TensorFlow, which takes seconds, is being loaded.
    """
    if not quiet:
        say("loading TensorFlow")
    with missing.host_packages(verb):
        yield


def parse_seconds(text: str) -> float:
    """Read ``30``, ``30s``, ``500ms``, ``5m``, ``2h`` or ``forever``, in seconds."""
    if text == "forever":
        return float("inf")
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|)", text.strip())
    if not match:
        raise UsageError(f"{text!r} is not a time", "write 30s, 500ms, 5m, 2h or forever")
    return float(match[1]) * {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}[match[2]]


def write_each(jobs: Iterable[Callable[[], None]]) -> None:
    """Write the files of a result. Where one fails, the others are written before its error is raised."""
    failed: EdgeRanError | None = None
    for job in jobs:
        try:
            job()
        except EdgeRanError as error:
            failed = failed or error
    if failed is not None:
        raise failed


# Options of `run` whose value may be left out: what it then is, and what a value looks like.
_BARE = {
    "--web": ("127.0.0.1:8080", r"\d+|localhost|\[[0-9a-fA-F:.]+\](:\d+)?|[\w.-]*:\d+|\d+(\.\d+){3}"),
    "--attention": ("mean", r"mean|\d+"),
}


def at_home(words: list[str]) -> list[str]:
    """Return words with ``~/`` made the home folder where the shell left it: in quotation marks, and after ``=``."""
    home, own = re.compile(r"((?:--[\w-]+=)?)~(?=/)"), os.path.expanduser("~")
    return [home.sub(lambda found: found[1] + own, word, 1) if home.match(word) else word for word in words]


def spell_out(words: list[str]) -> list[str]:
    """Give a bare ``--web`` or ``--attention`` of `run` its default: typer knows no values that may be left out."""
    if words[:1] not in (["run"], ["deploy"]):
        return words
    spelt = []
    for word, following in zip(words, [*words[1:], ""], strict=False):
        default, value = _BARE.get(word, ("", ""))
        if not default or re.fullmatch(value, following):
            spelt.append(word)
        elif word == "--web" and _is_no_model(following):
            spelt.append(word)  # an address with a fault in it, which is said when it is read
        else:
            spelt.append(f"{word}={default}")
    return spelt


def _is_no_model(word: str) -> bool:
    from edge_ran.runs import shipped

    is_path = word.startswith("-") or word.endswith(".tflite") or os.path.exists(word)
    return bool(word) and not is_path and shipped(word) is None


def announce(accelerator: Any, quiet: bool) -> None:
    """Tell on stderr what serves, where it is not plainly what was asked for; bad news even when quiet."""
    if accelerator.fallback_reason:
        say(f"running on {accelerator}")
    elif reason := accelerator.warning or ("" if quiet else accelerator.auto_reason):
        say(f"running on {accelerator}: {reason}")


def say(text: str) -> None:
    print(f"edge-ran: {one_line(text)}", file=sys.stderr, flush=True)


def talk(quiet: bool) -> Callable[[str], None]:
    """Return what prints a device's own words on stderr, as they come."""
    return lambda text: None if quiet else print(one_line(text), file=sys.stderr, flush=True)


def progress_note(quiet: bool) -> Callable[[str], None]:
    """Return what tells people on a terminal what takes so long; a moving bar would disturb the measurement."""
    watched = sys.stderr.isatty() or os.environ.get(RELAY)
    return say if watched and not quiet else (lambda text: None)


def human_size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:8.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:8.1f} kB"
