"""A board over ssh as a ``Target``: the steps of a call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import RELAY, WORDS, EdgeRanError, EnvironmentMissing, GateError, InputError
from edge_ran.targets.sanitize import parse
from edge_ran.targets.ssh.output import Errors, Lines
from edge_ran.targets.ssh.packages import own_code
from edge_ran.targets.ssh.payload import Payload
from edge_ran.targets.ssh.session import Session
from edge_ran.targets.target import Order, Page, Probe, Result, Unfetched

LONGEST_ANSWER = 1 << 28
FINISH_S = 60.0  # for a run that was stopped to finish its recordings on a slow disk


class SshTarget:
    """A device behind ``ssh://``. ``say`` is told lines of progress, and what the device says on stderr."""

    def __init__(self, spec: DeviceSpec, say: Callable[[str], None], install: bool) -> None:
        self.spec, self._say, self._install = spec, say, install
        self._session = Session(spec, say)

    def __enter__(self) -> SshTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it what it started there."""
        self._session.close()

    def probe(self, timeout_s: float) -> Probe:
        """Look what is there and what it lacks."""
        found = self._session.look(timeout_s)
        return Probe(
            answers=True,
            reason=f"lacks {', '.join(found.lacks)}" if found.lacks else "",
            remedy="--install lets pip put that into a folder of its own there" if found.lacks else "",
            system=found.system,
            architecture=found.architecture,
            python=f"Python {found.python}",
            runtime=found.runtime_name,
        )

    def answer(self, order: Order) -> dict[str, Any]:
        """Carry out a verb that prints one record; return the record, with paths of this machine."""
        said = bytearray()

        def keep(data: bytes) -> None:
            said.extend(data)
            if len(said) > LONGEST_ANSWER:
                raise self._session.failed("said more than any report holds")

        error, local = self._carry_out(order, {"json": True}, keep)
        if error is not None and not (isinstance(error, GateError) and said):
            raise error
        try:
            record = parse(bytes(said))
        except InputError as reason:
            raise self._session.failed(f"gave an answer that is {reason}") from reason
        several = record.get("models")
        for one in several if isinstance(several, list) else [record]:
            if isinstance(one, dict) and isinstance(one.get("model"), dict):
                one["model"]["path"] = local(str(one["model"].get("path")))
        if isinstance(record.get("model"), str):
            record["model"] = local(record["model"])
        return record

    def follow(self, order: Order, on_line: Callable[[str], None]) -> None:
        """Carry out ``run``; hand on each line."""
        as_json = bool(order.options.get("json"))

        def hand_on(line: str) -> None:
            if not as_json:
                on_line(line)
                return
            try:
                on_line(json.dumps(parse(line)))
            except InputError as reason:
                raise self._session.failed(f"gave a line that is {reason}") from reason

        lines = Lines(hand_on)
        error, _ = self._carry_out(order, {}, lines.put)
        lines.end()
        if error is not None:
            raise error

    def clean(self) -> int:
        """Remove what was pushed and installed there; return how many bytes that were."""
        return self._session.clean().freed_bytes

    def _carry_out(
        self, order: Order, extra: Mapping[str, Any], out: Callable[[bytes], None]
    ) -> tuple[EdgeRanError | None, Callable[[str], str]]:
        """Do everything; return the error that the verb ended with, and what makes paths there paths here again."""
        session = self._session
        found = session.look(pages=[value for value in order.options.values() if isinstance(value, Page)])
        folders = session.open()
        session.install(found, self._install)
        with Payload(PurePosixPath(folders.work), PurePosixPath(folders.pushed)) as payload:
            code = payload.folder(own_code())
            for place, model in enumerate(order.models):
                payload.file(model, f"{place}")
            for path in order.beside:
                payload.file(path, "0")
            words = [str(payload.file(model, str(i))) for i, model in enumerate(order.models)]
            words += payload.words({**order.options, **extra})
            session.push(payload)
        environment = {"PYTHONPATH": str(code), "PYTHONUTF8": "1", "NO_COLOR": "1", RELAY: "1"}
        environment[WORDS] = json.dumps(words)
        errors = Errors(self.spec.name, payload.local, self._say)
        lines = Lines(errors.put)
        values = {"words": [order.verb], "links": payload.links, "environment": environment}
        ended = self._run(values, {b"O": out, b"E": lines.put}, lines, dict(payload.results))
        return errors.error(ended.get("code")), payload.local

    def _run(
        self,
        values: Mapping[str, Any],
        on: Mapping[bytes, Callable[[bytes], Any]],
        said: Lines,
        results: dict[PurePosixPath, Result],
    ) -> dict[str, Any]:
        """Have the verb run to its end and bring its results here; return the answer. Raises Unfetched."""

        def missing() -> str:
            return ", ".join(str(result.path) for result in results.values())

        def late() -> float:
            what = f"{self.spec.name} has not ended yet; waiting up to {FINISH_S:g} s more for {missing()}"
            self._say(f"edge-ran: {what}; Ctrl-C gives up")
            return FINISH_S

        try:
            ended = self._session.request("run", values, on, late=late if results else None)
            said.end()
            for written, result in list(results.items()):
                self._session.fetch(written, result.path, pictures=written.parent.name == "record")
                del results[written]
        except KeyboardInterrupt as interrupt:
            if not results:
                raise
            what = f"{self.spec.name} was left before it ended: {missing()} did not come here, and is removed there"
            remedy = "add --duration 5m, or --max-frames 1000: then it ends there by itself, and everything comes here"
            raise Unfetched(EnvironmentMissing(what, remedy)) from interrupt
        return ended
