"""A release on several boards: one first, then the rest in groups, and no further when too many fail."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_ran.deploy import boards
from edge_ran.deploy.acceptance import Acceptance
from edge_ran.deploy.boards import Board, described
from edge_ran.deploy.connections import Connections, on_each
from edge_ran.deploy.release import Plan, new_payload, pack, record_answers
from edge_ran.deploy.remote import Remote, error_text
from edge_ran.errors import EdgeRanError, GateError
from edge_ran.files import TemporaryFolder

BACK_S = 60.0  # until the release before classifies again

Say = Callable[[str], None]
End = Literal["deployed", "unchanged", "refused", "rolled back", "failed", "lost", "skipped", "planned"]


@dataclass(frozen=True)
class Outcome:
    """What became of a deployment on one board.

    ``refused``: it did not pass its test, and what ran before goes on. ``rolled back``: it did not classify frames, and
    what ran before runs again. ``failed``: it was not reached, is full or lacks something, or the
    release that runs there already has no camera; nothing was changed.
    ``lost``: the connection was lost while the release started; the board keeps it if it works, else it goes back.
    ``skipped``: too many boards before it failed. ``planned``: a dry run, after which ``deploy`` would do it.
    """

    device: str
    end: End
    release: str = ""
    before: str = ""
    reason: str = ""
    remedy: str = ""
    words: tuple[str, ...] = ()
    acceptance: Acceptance | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Rollout:
    """What became of it on all boards."""

    model: str
    boards: tuple[Outcome, ...]

    @property
    def exit_code(self) -> int:
        """1 where a board refused it or went back, else 3 where one could not be reached, else 0."""
        ends = {one.end for one in self.boards}
        return 1 if ends & {"refused", "rolled back"} else 3 if ends & {"failed", "lost", "skipped"} else 0


def deploy(
    chosen: Sequence[tuple[str, Board]],
    plan: Plan,
    say: Say,
    *,
    group: int = 4,
    max_failures: int = 0,
    dry_run: bool = False,
) -> Rollout:
    """Deploy to the first board, then to the others in groups of ``group``.

    Args:
        chosen: as ``boards.chosen`` gives them.
        plan: what is to run.
        say: told what happens.
        group: how many boards at the same time, after the first.
        max_failures: go on with the next group while no more boards than that have refused it or gone back.
        dry_run: say what would be done, and change nothing.

    Raises:
        InputError, UsageError: the model or an option is wrong.
    """
    outcomes: list[Outcome] = []
    work = plan_one if dry_run else deploy_one
    with TemporaryFolder() as folder:
        answers = Path(folder) / "answers.npz"
        record_answers(plan, answers)
        groups = [chosen[:1], *(chosen[i : i + group] for i in range(1, len(chosen), max(1, group)))]
        for together in groups:
            failed = sum(one.end in ("refused", "rolled back") for one in outcomes)
            if failed > max_failures:
                outcomes += [
                    Outcome(board.name, "skipped", reason=f"{failed} failed before it") for _, board in together
                ]
                continue
            outcomes += on_each(together, lambda device, board, open_: work(device, board, plan, answers, say, open_))
    return Rollout(str(plan.model), tuple(outcomes))


def deploy_one(device: str, board: Board, plan: Plan, answers: Path, say: Say, connections: Connections) -> Outcome:
    """Deploy to one board. Raises nothing: what went wrong is in the outcome."""
    work = _Deployment(device, board, plan, say)
    began = time.monotonic()
    end: End = "failed"
    reason = remedy = ""
    try:
        with connections.add(Remote(described(board), say, word=device)) as remote:
            try:
                end, reason = work.carry_out(remote, answers)
            finally:
                with contextlib.suppress(EdgeRanError):
                    remote.finish()
    except EdgeRanError as error:
        reason, remedy = error_text(error, board.name), error.remedy
        if isinstance(error, GateError):
            end = "refused"
        elif work.is_switched:
            end, remedy = "lost", f"edge-ran status --device {shlex.quote(device)}"
    if end == "rolled back":
        remedy = f"edge-ran logs --device {shlex.quote(device)}"
    return Outcome(
        board.name, end, work.release, work.before, reason, remedy, (), work.acceptance, time.monotonic() - began
    )


class _Deployment:
    """The steps on one board, and how far they came."""

    def __init__(self, device: str, board: Board, plan: Plan, say: Say) -> None:
        self._device, self._plan = device, plan
        self._name, self._say = board.name, say
        self.release = self.before = ""
        self.acceptance: Acceptance | None = None
        self.is_switched = False

    def carry_out(self, remote: Remote, answers: Path) -> tuple[End, str]:
        """Do everything; return how it ended, and why not well.

        Raises:
            GateError: the release did not pass its test; nothing was changed.
            EnvironmentMissing: the board was lost, is full or lacks something.
        """
        found = remote.check(self._plan)
        self.before = found.current
        packed = remote.stage(self._plan, answers, found.python)
        self.release = packed.identity
        if self.release == self.before and not remote.status().trouble:
            boards.remember(self._device)  # it may have been deployed from another machine
            return "unchanged", ""
        self._say(f"edge-ran: {self._name}: testing release {self.release} there")
        self.acceptance = remote.accept(self._plan, packed, self.before)
        boards.remember(self._device)
        self.is_switched = True
        remote.switch(self.release)
        self._say(f"edge-ran: {self._name}: release {self.release} starts")
        try:
            remote.wait(self.release, self._plan.wait_s)
        except GateError as error:
            reason = error_text(error, self._name)
            if self.before == self.release:
                return "failed", f"{reason}; this release ran before, and goes on trying"
            return "rolled back", self._go_back(remote, reason)
        return "deployed", ""

    def _go_back(self, remote: Remote, reason: str) -> str:
        """Run what ran before again; return the reason with what came of it."""
        remote.back(self.before)
        if not self.before:
            return f"{reason}; nothing ran before, so nothing runs now"
        try:
            remote.wait(self.before, BACK_S)
        except GateError as error:
            return f"{reason}; and now: {error_text(error, self._name)}"
        return reason


def plan_one(device: str, board: Board, plan: Plan, answers: Path, say: Say, connections: Connections) -> Outcome:
    """Say what ``deploy_one`` would do; the board is asked, and nothing is changed there."""
    try:
        with connections.add(Remote(described(board), say, word=device)) as remote:
            found = remote.look_over(plan)
            equipped = remote.equip(plan.install, dry_run=True)
            with new_payload() as payload:
                python = equipped.python or found.python
                release = pack(plan, described(board), answers, payload, python, equipped.environment)
            is_there = not equipped.lacks and release.identity == found.current
            trouble = remote.status().trouble if is_there else ""
    except EdgeRanError as error:
        return Outcome(board.name, "failed", reason=error_text(error, board.name), remedy=error.remedy)
    if equipped.lacks:
        reason = f"pip would install {', '.join(equipped.lacks)} there; the release has no name before that"
        return Outcome(board.name, "planned", "", found.current, reason, words=release.shown_words)
    end: End = "unchanged" if is_there and not trouble else "planned"
    reason = f"this release is there, and would start again: {trouble}" if trouble else ""
    return Outcome(board.name, end, release.identity, found.current, reason, words=release.shown_words)
