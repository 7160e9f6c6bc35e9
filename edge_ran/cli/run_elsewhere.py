"""What `edge-ran run --device` asks of another device, and what cannot be asked of a phone's page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edge_ran.cli.app import complain
from edge_ran.cli.models import tflite_or_default
from edge_ran.cli.render import discard_stdout
from edge_ran.cli.signals import exit_code, interrupt_on_signals
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    from edge_ran.runtime import RuntimeOptions
    from edge_ran.targets import Order, Target

NOT_OF_PHONES = (
    "width",
    "height",
    "fps",
    "realtime",
    "parallel",
    "frozen",
    "threads",
    "delegate",
    "delegate_option",
)


def refuse_for_phones(typed: dict[str, Any], install: bool) -> None:
    """Raise UsageError where an option was typed that a phone's page cannot have."""
    from edge_ran.camera.address import OF_PHONES, without_password

    camera = typed.get("camera", OF_PHONES[0])
    if camera not in OF_PHONES:
        what = f"--camera {without_password(camera)} is no camera of a phone"
        raise UsageError(what, "--camera back or --camera front")
    for name in NOT_OF_PHONES:
        if name in typed:
            option = "--no-realtime" if name == "realtime" else f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} is not possible on a phone: its page uses the phone's own camera", "leave it out"
            )
    if install:
        raise UsageError("--install is for boards over ssh: a browser needs no Python", "leave it out")


def order_of(
    typed: dict[str, Any], own: dict[str, Any], model: Path | None, options: RuntimeOptions, force: bool
) -> Order:
    """What another device is asked to do: files of this machine go along, and what it writes comes back at the end.

    Only what was typed names files of this machine. What the device's description says, ``own``, is of the device: a
    description is a file that others write, and must not be able to fetch anything from here.
    """
    from edge_ran.files import check_output, check_output_folder
    from edge_ran.stream.web import is_loopback, parse_address
    from edge_ran.targets import Order, Page
    from edge_ran.targets import Result as Returned

    if typed.get("show"):
        raise UsageError("--show opens its window on this machine only", "use --web, or --save FILE")
    typed.pop("show", None)
    for name in ("save", "record", "summary"):
        if name in typed:
            if name == "record":
                check_output_folder(Path(typed[name]))
            else:
                check_output(Path(typed[name]), force)
            typed[name] = Returned(Path(typed[name]))
    if "web" in typed:
        page = Page(*parse_address(typed["web"]))
        if not is_loopback(page.host) or not page.port:
            raise UsageError(f"--web {typed['web']}: with --device the page is for this machine only", "--web 8080")
        typed["web"] = page
    if "labels" in typed:
        typed["labels"] = Path(typed["labels"])
    if "camera" in typed and (Path(typed["camera"]).is_file() or Path(typed["camera"]).is_dir()):
        typed["camera"] = Path(typed["camera"])  # of this machine; any other is the device's
    return Order("run", (tflite_or_default(model),), {**typed, **own}, options)


def follow(target: Target, order: Order) -> None:
    """Print what a run elsewhere says; SIGTERM, SIGHUP and a reader that has enough end it in good order.

    It ends as by Ctrl-C, which what runs there is told of: what it has written comes here. Where it does not, that is
    said, and an error unless the user pressed Ctrl-C.
    """
    from edge_ran.targets import Unfetched

    had_enough, came = False, list[int]()

    def print_or_end(line: str) -> None:
        nonlocal had_enough
        if not had_enough and not print_line(line):
            had_enough = True
            raise KeyboardInterrupt

    try:
        with interrupt_on_signals() as came:
            target.follow(order, print_or_end)
    except Unfetched as stopped:
        if had_enough or came:
            raise stopped.error from None
        complain(str(stopped.error), stopped.error.remedy)
        raise
    except KeyboardInterrupt:
        if had_enough or came:
            raise typer.Exit(exit_code(came)) from None
        raise


def print_line(line: str) -> bool:
    """Print a line; return False when the reader has closed the pipe."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        discard_stdout()
        return False
    return True
