"""A release on several boards: one first, then the rest in groups, and no further when too many fail."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_ran.catalogue import DeviceSpec
from edge_ran.deploy import boards
from edge_ran.deploy.acceptance import Acceptance
from edge_ran.deploy.release import Plan, new_payload, pack, record_answers
from edge_ran.deploy.remote import Remote, error_text
from edge_ran.errors import EdgeRanError, GateError

Say = Callable[[str], None]
End = Literal["deployed", "unchanged", "refused", "rolled back", "unreachable", "lost", "skipped", "planned"]


@dataclass(frozen=True)
class Outcome:
    """What became of a deployment on one board.

    ``refused``: it did not pass its test, and what ran before goes on. ``rolled back``: it did not classify frames, and
    what ran before runs again. ``unreachable``: nothing was changed. ``lost``: the connection was lost while the
    release started; the board keeps it if it works, else it goes back. ``skipped``: too many boards before it failed.
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
        return 1 if ends & {"refused", "rolled back"} else 3 if ends & {"unreachable", "lost", "skipped"} else 0


def deploy(
    chosen: Sequence[tuple[str, DeviceSpec]],
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
    with tempfile.TemporaryDirectory(prefix="edge-ran-") as folder:
        answers = Path(folder) / "answers.npz"
        record_answers(plan, answers)
        groups = [chosen[:1], *(chosen[i : i + group] for i in range(1, len(chosen), max(1, group)))]
        for together in groups:
            failed = sum(one.end in ("refused", "rolled back") for one in outcomes)
            if failed > max_failures:
                outcomes += [Outcome(spec.name, "skipped", reason=f"{failed} failed before it") for _, spec in together]
                continue
            with ThreadPoolExecutor(max(1, len(together))) as pool:
                outcomes += pool.map(lambda item: work(item[0], item[1], plan, answers, say), together)
    return Rollout(str(plan.model), tuple(outcomes))


def deploy_one(device: str, spec: DeviceSpec, plan: Plan, answers: Path, say: Say) -> Outcome:
    """Deploy to one board. Raises nothing: what went wrong is in the outcome."""
    began = time.monotonic()
    release, before, acceptance, switched = "", "", None, False
    try:
        with Remote(spec, say) as remote:
            before = remote.check().current
            packed, python = remote.stage(plan, answers)
            release = packed.identity
            if release == before and not remote.status().trouble:
                return Outcome(spec.name, "unchanged", release, before, seconds=time.monotonic() - began)
            say(f"edge-ran: {spec.name}: testing release {release} there")
            try:
                acceptance = remote.accept(plan, packed, python)
            except GateError:
                remote.finish()  # it is of no use there
                raise
            boards.remember(device)
            switched = True
            remote.switch(release)
            say(f"edge-ran: {spec.name}: release {release} starts")
            try:
                remote.wait(release, plan.wait_s)
            except GateError as error:
                return _rolled_back(remote, error, release, before, acceptance, began)
            remote.finish()
        return Outcome(spec.name, "deployed", release, before, acceptance=acceptance, seconds=time.monotonic() - began)
    except GateError as error:
        return Outcome(
            spec.name, "refused", release, before, error_text(error, spec.name), error.remedy, (), acceptance,
            time.monotonic() - began,
        )  # fmt: skip
    except EdgeRanError as error:
        end: End = "lost" if switched else "unreachable"
        remedy = f"edge-ran status --device {device}" if switched else error.remedy
        reason = error_text(error, spec.name)
        return Outcome(spec.name, end, release, before, reason, remedy, (), acceptance, time.monotonic() - began)


def plan_one(device: str, spec: DeviceSpec, plan: Plan, answers: Path, say: Say) -> Outcome:
    """Say what ``deploy_one`` would do; the board is asked, and nothing is changed there."""
    try:
        with Remote(spec, say) as remote:
            before = remote.facts().current
        with new_payload() as payload:
            release = pack(plan, spec, answers, "", payload)
    except EdgeRanError as error:
        return Outcome(spec.name, "unreachable", reason=error_text(error, spec.name), remedy=error.remedy)
    return Outcome(spec.name, "planned", release.identity, before, words=release.shown_words)


def _rolled_back(
    remote: Remote, error: GateError, release: str, before: str, acceptance: Acceptance, began: float
) -> Outcome:
    """Go back to what ran before."""
    name = remote.spec.name
    target = "" if before == release else before
    remote.back(target)
    reason = error_text(error, name)
    if not target:
        reason += "; nothing ran before, so nothing runs now"
    else:
        try:
            remote.wait(target, 60)
        except GateError as again:
            reason += f"; and now {target}: {error_text(again, name)}"
    remote.finish()
    return Outcome(name, "rolled back", release, before, reason, error.remedy, (), acceptance, time.monotonic() - began)
