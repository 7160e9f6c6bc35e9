"""The steps of a deployment on one board, over one connection."""

from __future__ import annotations

import inspect
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_ran import records
from edge_ran.catalogue import DeviceSpec
from edge_ran.deploy import board, layout
from edge_ran.deploy.acceptance import Acceptance
from edge_ran.deploy.release import Plan, Release, new_payload, pack
from edge_ran.errors import EdgeRanError, EnvironmentMissing, GateError, InputError, UsageError
from edge_ran.targets.address import ssh_address
from edge_ran.targets.sanitize import parse
from edge_ran.targets.ssh.output import Errors, Lines
from edge_ran.targets.ssh.packages import requirements
from edge_ran.targets.ssh.session import Folders, Session

POLL_S = 0.5
SILENT_S = 30.0  # the service reports every second
MOST_OUTPUT = 1 << 20
LATEST_TIME = 253_402_300_799.0  # the end of the year 9999

Say = Callable[[str], None]


@dataclass(frozen=True)
class Facts:
    """A board before a deployment.

    ``python`` is its own, by its path. ``manager`` says why it cannot keep a service running; empty where it can.
    """

    user: str
    home: str
    python: str
    manager: str
    lingers: bool
    free_bytes: int
    current: str


@dataclass(frozen=True)
class Equipped:
    """Packages for a release: the folder's name and its Python; empty = the board's own Python.

    ``lacks`` is what a dry run leaves to be installed.
    """

    code: int
    environment: str
    python: str
    lacks: tuple[str, ...] = field(default=(), metadata=records.internal())


@dataclass(frozen=True)
class Percentiles:
    """Of the last 1,000 frames, in milliseconds."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class Live:
    """What the service says of itself; times are Unix times of the board's clock.

    ``state``: ``running``, ``starting``, ``camera`` (lost), ``waiting`` (for the next try), ``failed``, ``ended`` (and
    starts again) or ``stopped``. ``warning`` is what it goes on without. ``restarts``: since the board's start.
    """

    release: str
    state: str
    reason: str
    at: float
    began_at: float
    frames: int
    dropped: int
    frames_per_s: float
    answer: str
    score: float
    answer_at: float
    restarts: int
    accelerator: str
    warning: str = ""
    inference_ms: Percentiles | None = None
    end_to_end_ms: Percentiles | None = None


@dataclass(frozen=True)
class Running:
    """What a board says of its deployment; times are Unix times of the board's clock, ``time`` its present one.

    ``silent_s``: since the service reported last, whatever happened to the clock meanwhile.
    """

    release: str
    confirmed: str
    since: float
    model: str
    model_sha256: str
    unit: str
    failures: int
    reason: str
    page: str
    recorded_files: int
    recorded_bytes: int
    free_bytes: int
    time: float
    temperature_c: float | None = None
    silent_s: float | None = None
    live: Live | None = None

    def __post_init__(self) -> None:
        check_time("since", self.since)
        check_time("time", self.time)

    @property
    def trouble(self) -> str:
        """Why it does not classify frames at the moment; empty where it does."""
        if not self.release:
            return "nothing is deployed"
        if self.live is None:
            return f"it does not run (systemd says {self.unit or 'nothing'})" + (
                f": {self.reason}" if self.reason else ""
            )
        if self.unit not in ("active", "activating", "reloading"):
            return f"systemd says {self.unit}: {self.reason or self.live.reason}"
        if (abs(self.time - self.live.at) if self.silent_s is None else self.silent_s) > SILENT_S:
            return "the service does not report"
        if self.live.state != "running":
            return f"{self.live.state}: {self.live.reason}" if self.live.reason else self.live.state
        return ""


@dataclass(frozen=True)
class Switched:
    """The release that ran before."""

    before: str


class Remote:
    """A board that is asked about its deployment. Use it as a context manager.

    Raises, in all of its methods:
        EnvironmentMissing: it cannot be reached, was lost, or gave no sensible answer.
    """

    def __init__(self, spec: DeviceSpec, say: Say, timeout_s: float = 30.0, word: str = "") -> None:
        """``word`` is how the user calls it, for commands in remedies."""
        self.spec, self._say, self._timeout_s = spec, say, timeout_s
        self.word = shlex.quote(word or spec.name)
        self.session = Session(spec, say)

    def __enter__(self) -> Remote:
        try:
            self.session.connect(self._timeout_s)
            modules = {module.__name__: inspect.getsource(module) for module in (layout, board)}
            self.session.request("extend", {"modules": modules}, {}, self._timeout_s)
        except BaseException:
            self.session.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.session.close()

    def facts(self) -> Facts:
        """What it is like before a deployment."""
        return self.session.ask("board", Facts)

    def status(self) -> Running:
        """What runs there."""
        return self.session.ask("status", Running, timeout_s=self._timeout_s)

    def look_over(self, plan: Plan) -> Facts:
        """Raise EnvironmentMissing unless services run there; nothing is changed."""
        found = self.facts()
        if found.manager:
            raise EnvironmentMissing(
                f"{self.spec.name} cannot keep a service running: {found.manager}",
                f"edge-ran run {shlex.quote(str(plan.model))} --device {self.word}  (ends with the connection)",
            )
        return found

    def check(self, plan: Plan) -> Facts:
        """Raise EnvironmentMissing unless a service of this user's can run there for ever."""
        found, name = self.look_over(plan), self.spec.name
        if not found.lingers:
            reason = str(self.session.request("linger", {}, {}).get("reason", ""))
            if reason:
                raise EnvironmentMissing(
                    f"{name}: services of {found.user} do not start at boot, and loginctl says: {reason[:100]}",
                    f"once: ssh -t {ssh_address(self.spec.target)} sudo loginctl enable-linger {found.user}",
                )
        return found

    def stage(self, plan: Plan, answers: Path, python: str) -> Release:
        """Put a release beside the others; ``python`` is the board's own, which runs it if it has all packages."""
        session = self.session
        session.ask("deployment", Folders)
        equipped = self.equip(plan.install)
        with new_payload() as payload:
            release = pack(plan, self.spec, answers, payload, equipped.python or python, equipped.environment)
            session.push(payload)
            links = {name: target.rpartition("/")[2] for name, target in payload.links.items()}
        values = {"release": records.to_dict(release), "links": links}
        session.request("stage", {"identity": release.identity, **values}, {}, 120)
        return release

    def accept(self, plan: Plan, release: Release, before: str) -> Acceptance:
        """Run the release there against the recorded answers, beside the release ``before``, if one runs.

        Raises:
            GateError: it fails, answers otherwise than here, or takes too long.
        """
        name, said = self.spec.name, bytearray()

        def keep(data: bytes) -> None:
            if len(said) < MOST_OUTPUT:
                said.extend(data)

        errors = Errors(name, lambda text: text, self._say)
        lines = Lines(errors.put)
        values = {"identity": release.identity, "code": release.code.rpartition("/")[2], "python": release.python}
        ended = self.session.request("accept", values, {b"O": keep, b"E": lines.put}, 600)
        lines.end()
        code = ended.get("code")
        if error := errors.error(code):
            crashed = f" (signal {-code})" if isinstance(code, int) and code < 0 else ""
            raise GateError(f"{error}{crashed}", error.remedy)
        try:
            found = records.read_document(Acceptance, parse(bytes(said)), "it")
        except InputError as error:
            raise self.session.failed(f"sent an invalid answer: {error}") from error
        gate(plan, self.spec, found, self.word, before)
        return found

    def switch(self, identity: str, leave: str = "") -> str:
        """Make a release the one that runs; return the one before. ``leave`` is one that is not to be returned to."""
        return self.session.ask("switch", Switched, {"identity": identity, "leave": leave}).before

    def back(self, identity: str) -> None:
        """Go back to a release; without one, stop what runs."""
        self.session.ask("back", Switched, {"identity": identity})

    def finish(self) -> None:
        """Remove releases that nobody needs any more."""
        self.session.request("finish", {}, {}, 60)

    def wait(self, identity: str, seconds: float) -> Running:
        """Wait until a release classifies frames.

        Raises:
            GateError: it does not, in that time, or fails before.
        """
        end = time.monotonic() + seconds
        while True:
            found = self.status()
            if found.release != identity:
                why = f"it went back to {found.release} by itself"
                raise GateError(f"{self.spec.name}: {why}: {found.reason}", f"edge-ran logs --device {self.word}")
            if found.confirmed == identity and not found.trouble:
                return found
            why = found.trouble or "too few frames were classified"
            if found.failures >= 2 or time.monotonic() > end:
                remedy = f"edge-ran logs --device {self.word}"
                raise GateError(f"{self.spec.name}: the release does not classify frames: {why}", remedy)
            time.sleep(POLL_S)

    def equip(self, install: bool, dry_run: bool = False) -> Equipped:
        """Find packages for a release: the board's own, those of an earlier release, or newly installed ones."""
        session, name = self.session, self.spec.name
        found = session.look()
        if not found.lacks:
            return Equipped(0, "", "")
        lines = Lines(self._say)
        if install and not dry_run:
            self._say(f"edge-ran: {name} lacks {', '.join(found.lacks)}: pip installs them, unless it did before")
        values = {"requirements": requirements(self.spec.runtime), "install": install and not dry_run}
        answer = session.request("equip", values, {b"O": lines.put, b"E": lines.put})
        lines.end()
        equipped = session.read(Equipped, answer)
        if equipped.code:
            raise EnvironmentMissing(
                f"{name}: pip could not install what is needed; nothing of it was kept",
                "pip's own lines are above; it needs a network and the packages python3-venv and python3-pip there",
            )
        if not equipped.environment and install and dry_run:
            return replace(equipped, lacks=tuple(found.lacks))
        if not equipped.environment:
            raise EnvironmentMissing(
                f"{name} lacks {', '.join(found.lacks)}",
                "add --install: pip puts it into a folder of its own there, and touches nothing else",
            )
        return equipped


def check_time(name: str, at: float) -> None:
    """Raise UsageError where a board's Unix time is none: it would overflow where it is used."""
    if abs(at) > LATEST_TIME:
        raise UsageError(f"{name} is {at:g}")


def gate(plan: Plan, spec: DeviceSpec, found: Acceptance, word: str, before: str = "") -> None:
    """Raise GateError where a release answers otherwise than here, or takes longer than the budget.

    ``word`` is the board's, for a command; ``before`` the release that ran meanwhile, on the same cores.
    """
    budget = plan.budget_ms(spec)
    if not found.agreement.is_right or found.agreement.top1 < plan.min_agreement:
        raise GateError(
            f"{spec.name}: the release answers otherwise than on this machine: {found.agreement}",
            f"edge-ran verify {shlex.quote(str(plan.model))} --device {word}",
        )
    if budget and found.latency.p50_ms > budget:
        what = f"{spec.name}: an inference takes {found.latency.p50_ms:.3g} ms, more than {budget:g} ms"
        remedy = "choose a smaller or quantised network, or raise --max-latency"
        if before:
            what += f", beside release {before}, which went on meanwhile"
            remedy += f"; to measure it alone, first: edge-ran undeploy --device {word}"
        raise GateError(what, remedy)


def error_text(error: EdgeRanError, name: str) -> str:
    """The error's line without the board's name, which stands beside it."""
    return str(error).removeprefix(f"{name}: ")
