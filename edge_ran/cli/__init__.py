"""The command line: a module for each verb, which parses, calls one function, prints. Heavy imports stay inside."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
import traceback
from typing import Annotated

import typer

from edge_ran import __version__, printable
from edge_ran.cli.advice import advice
from edge_ran.cli.app import app, at_home, complain, spell_out
from edge_ran.cli.render import discard_stdout
from edge_ran.errors import RELAY, WORDS, EdgeRanError, EnvironmentMissing, UsageError, unimportable

# isort: off
# Importing a verb adds it to the application; this order, a network's way to the device, is the one --help shows.
from edge_ran.cli import dataset, train, import_, quantize, convert, inspect, evaluate, precisions, verify  # noqa: F401
from edge_ran.cli import run, serve, export, benchmark, profile, sweep, sustain, compare  # noqa: F401
from edge_ran.cli import deploy, status, logs, rollback, undeploy, fetch, devices, doctor, demo  # noqa: F401
# isort: on

__all__ = ["app", "main"]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edge-ran {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _keep_results_apart(verbose: bool) -> None:
    """Keep what native libraries print, a vendor's delegate in every run and at the end of the process, off stdout.

    Python's stdout gets a file descriptor of its own. What else is written to 1 is silent, or on stderr with ``-v``.
    """
    ours = sys.stdout
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed stdout, or one that is no file
        if ours.fileno() != 1:
            return
        ours.flush()
        sys.stdout = io.TextIOWrapper(
            open(os.dup(1), "wb"),  # noqa: SIM115
            encoding=ours.encoding,
            errors=ours.errors,
            line_buffering=bool(ours.line_buffering),
        )
        sys.__stdout__ = sys.stdout  # type: ignore[misc]  # whose width shutil asks for
        os.dup2(2 if verbose else os.open(os.devnull, os.O_WRONLY), 1)


# What a file system may answer to any question about a file: rights, and shares that have gone.
_OF_THE_SYSTEM = {errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT}


def _told(error: OSError) -> bool:
    """Say what is wrong where any verb may meet it: a full disk behind stdout, a deleted folder, a closed one."""
    if error.errno == errno.ENOSPC:
        discard_stdout()
        complain("stdout cannot be written: its disk is full", "edge-ran doctor")
        return True
    try:
        os.getcwd()
    except FileNotFoundError:
        complain("the folder that this shell is in was deleted", "cd to one that exists")
        return True
    if error.errno in _OF_THE_SYSTEM and error.filename:
        what = f"cannot get at {os.fsdecode(error.filename)}: {error.strerror}"
        complain(what, "check who may read it, and whether its disk or share is there")
        return True
    return False


def main() -> None:
    """Run the command line. The only place where an EdgeRanError becomes lines on stderr and an exit code."""
    if RELAY in os.environ:
        sys.argv += json.loads(os.environ.pop(WORDS, "[]"))
    verbose = "-v" in sys.argv or "--verbose" in sys.argv
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    _keep_results_apart(verbose)
    if len(sys.argv) > 1 and not {"-h", "--help"} & set(sys.argv):  # a help page has colours, and nobody else's text
        printable.guard()
    try:
        code = app(
            args=spell_out(at_home(sys.argv[1:])), prog_name="edge-ran", standalone_mode=False
        )  # Ctrl-C is typer's, and gives 130
    except EdgeRanError as error:
        if verbose:
            traceback.print_exc()
        complain(str(error), error.remedy)
        code = error.exit_code
    except typer.Abort:
        code = 130
    except ImportError as error:
        if verbose or (error.name or "").startswith("edge_ran"):
            raise
        complain(
            f"{error.name or _importing(error)} cannot be imported: {unimportable(error, '')[0]}", "edge-ran doctor"
        )
        code = EnvironmentMissing.exit_code
    except OSError as error:
        if verbose or not _told(error):
            raise
        code = EnvironmentMissing.exit_code
    except Exception as error:
        # Usage errors have no public name in typer, and live in click or inside typer, by its version.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        if message := error.format_message():  # none after the help of a bare `edge-ran`
            helped = f"{context.command_path if context else 'edge-ran'} --help"
            complain(message, advice(context, sys.argv, message) or helped)
        code = UsageError.exit_code
    sys.exit(code if isinstance(code, int) else 0)


def _importing(error: BaseException) -> str:
    """The package in which an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "a package")).partition(".")[0] if trace else "a package"
