"""What runs on boards, how it fares, its log; going back, and removing it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_ran.camera.address import without_password
from edge_ran.catalogue import DeviceSpec
from edge_ran.deploy import boards
from edge_ran.deploy.boards import Board, Undescribed, described
from edge_ran.deploy.connections import Connections, on_each
from edge_ran.deploy.remote import Live, Remote, Running, check_time, error_text
from edge_ran.errors import EdgeRanError, GateError

Say = Callable[[str], None]
Chosen = Sequence[tuple[str, Board]]


@dataclass(frozen=True)
class BoardStatus:
    """One board. ``trouble`` is why it does not classify frames, empty where it does; ``answers``: it was reached.

    ``since``: when the release was switched to, by this machine's clock as Unix time; None: nobody knows. Times in
    ``live`` are of the board's clock, which is ``clock_drift_s`` ahead of this machine's. ``page`` is the address of
    its live page, without the token.
    """

    device: str
    answers: bool
    trouble: str
    remedy: str = ""
    release: str = ""
    confirmed: bool = False
    since: float | None = None
    model: str = ""
    model_sha256: str = ""
    live: Live | None = None
    recorded_files: int = 0
    recorded_bytes: int = 0
    free_bytes: int | None = None
    temperature_c: float | None = None
    clock_drift_s: float | None = None
    page: str = ""


@dataclass(frozen=True)
class Fleet:
    """Every board that was asked."""

    boards: tuple[BoardStatus, ...]

    @property
    def exit_code(self) -> int:
        """1 where a board does not classify, else 3 where one could not be reached, else 0."""
        if any(one.answers and one.trouble for one in self.boards):
            return 1
        return 0 if all(one.answers for one in self.boards) else 3


@dataclass(frozen=True)
class Event:
    """Something that happened on a board; ``at`` is Unix time of its clock."""

    at: float
    kind: str
    text: str

    def __post_init__(self) -> None:
        check_time("at", self.at)


@dataclass(frozen=True)
class Log:
    """What happened on a board, and what the program said there, newest last."""

    events: tuple[Event, ...]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class BoardChange:
    """What was done on a board; ``failure`` says why it was not."""

    device: str
    release: str = ""
    before: str = ""
    freed_bytes: int = 0
    failure: str = ""
    remedy: str = ""
    exit_code: int = 0


@dataclass(frozen=True)
class Changes:
    """What was done on boards."""

    boards: tuple[BoardChange, ...]

    @property
    def exit_code(self) -> int:
        """1 where a gate was not met, else 3 where a board was not reached, else 0."""
        codes = {one.exit_code for one in self.boards}
        return 1 if 1 in codes else max(codes, default=0)


def status(chosen: Chosen, timeout_s: float, with_token: bool = False) -> Fleet:
    """Ask every board at the same time. Raises nothing for one that does not answer."""
    return Fleet(on_each(chosen, lambda device, board, open_: _status(device, board, open_, timeout_s, with_token)))


def log(spec: DeviceSpec, lines: int) -> Log:
    """Return the newest ``lines`` events and lines of a board. Raises EnvironmentMissing."""
    with Remote(spec, lambda line: None) as remote:
        return remote.session.ask_for_data("logs", Log, {"lines": lines})


def roll_back(chosen: Chosen, say: Say, wait_s: float, begun: set[str]) -> Changes:
    """Run the latest earlier release that worked again, on every board; those that are told to go to ``begun``."""
    return Changes(on_each(chosen, lambda device, board, open_: _roll_back(device, board, open_, say, wait_s, begun)))


def undeploy(chosen: Chosen, say: Say) -> Changes:
    """End what runs on every board and remove it."""
    return Changes(on_each(chosen, lambda device, board, open_: _undeploy(device, board, open_, say)))


@dataclass(frozen=True)
class _Previous:
    current: str
    previous: str


@dataclass(frozen=True)
class _Removed:
    freed_bytes: int
    removed: bool


def _status(device: str, board: Board, connections: Connections, timeout_s: float, with_token: bool) -> BoardStatus:
    try:
        with connections.add(Remote(described(board), lambda line: None, timeout_s)) as remote:
            asked = time.time()
            found: Running = remote.status()
            drift = found.time - (asked + time.time()) / 2
    except EdgeRanError as error:
        return BoardStatus(board.name, False, error_text(error, board.name), error.remedy)
    return BoardStatus(
        device=board.name,
        answers=True,
        trouble=found.trouble,
        remedy=f"edge-ran logs --device {shlex.quote(device)}" if found.trouble and found.release else "",
        release=found.release,
        confirmed=bool(found.release) and found.confirmed == found.release,
        since=found.since - drift if found.since else None,
        model=found.model,
        model_sha256=found.model_sha256,
        live=found.live,
        recorded_files=found.recorded_files,
        recorded_bytes=found.recorded_bytes,
        free_bytes=found.free_bytes,
        temperature_c=found.temperature_c,
        clock_drift_s=round(drift, 1),
        page=found.page if with_token else without_password(found.page).partition("?")[0],
    )


def _roll_back(
    device: str, board: Board, connections: Connections, say: Say, wait_s: float, begun: set[str]
) -> BoardChange:
    found = _Previous("", "")
    try:
        with connections.add(Remote(described(board), say, word=device)) as remote:
            found = remote.session.ask("previous", _Previous)
            if not found.previous:
                raise GateError(
                    f"{board.name} has no earlier release that worked", f"edge-ran status --device {remote.word}"
                )
            begun.add(device)
            remote.switch(found.previous, leave=found.current)
            try:
                remote.wait(found.previous, wait_s)
            except GateError:
                remote.switch(found.current)
                raise
    except EdgeRanError as error:
        return _failed(board, error, found.previous, found.current)
    return BoardChange(board.name, found.previous, found.current)


def _undeploy(device: str, board: Board, connections: Connections, say: Say) -> BoardChange:
    try:
        if isinstance(board, Undescribed) and board.is_gone and board.is_named:
            return _forgotten(device, board)
        with connections.add(Remote(described(board), say)) as remote:
            removed = remote.session.ask("undeploy", _Removed)
        boards.forget(device)
    except EdgeRanError as error:
        return _failed(board, error)
    return BoardChange(board.name, freed_bytes=removed.freed_bytes)


def _forgotten(device: str, board: Undescribed) -> BoardChange:
    """Forget a board that cannot be reached without its description: this is the only way to get rid of it."""
    boards.forget(device)
    what = f"{board.error}; it is forgotten here, and nothing was removed there"
    remedy = "to remove what runs there: edge-ran undeploy --device ssh://USER@HOST"
    return BoardChange(board.name, exit_code=board.error.exit_code, failure=what, remedy=remedy)


def _failed(board: Board, error: EdgeRanError, release: str = "", before: str = "") -> BoardChange:
    failure = error_text(error, board.name)
    return BoardChange(board.name, release, before, exit_code=error.exit_code, failure=failure, remedy=error.remedy)
