"""Work that pages on phones do for this machine: they fetch tasks, and send raw samples and answers back.

All statistics are computed here. An invitation is an address that is shown to people; each page that opens it gets a
session of its own, and keeps it when it is loaded again.
"""

from __future__ import annotations

import json
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from edge_ran import records
from edge_ran.errors import EnvironmentMissing, InputError
from edge_ran.phone.messages import Hello
from edge_ran.printable import clean

POLL_S = 10.0  # how long a page's question for work waits for an answer
GONE_S = 45.0  # without a question or an answer for so long, a page is taken to be closed
_TICK_S = 0.2

OnPart = Callable[[Any], bool]


class Session:
    """One page at work. ``ask`` gives it a task; ``end`` tells it that all is done.

    A page asks for work only when it does none. So a task that has no answer is given to whoever asks: to the page
    that was loaded again in the middle, too.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.hello: Hello | None = None
        self.seen_at = time.monotonic()
        self._changed = threading.Condition()
        self._task: dict[str, Any] | None = None
        self._number = 0
        self._part: tuple[type[Any], OnPart] | None = None
        self._taken = ""
        self._results: queue.Queue[dict[str, Any]] = queue.Queue()
        self.has_ended = False

    def ask(
        self,
        kind: type[Any],
        task: str,
        timeout_s: float,
        *,
        silence_s: float = GONE_S,
        part: tuple[type[Any], OnPart] | None = None,
        **words: Any,
    ) -> Any:
        """Have the page do a task, and return what it found as a ``kind``.

        Args:
            kind: the record of the answer.
            task: what to do; ``words`` tell how.
            timeout_s: how long it may take.
            silence_s: a page that says nothing for so long is taken to be closed.
            part: what the page sends while it works, and what is called with it, in a thread of the server; False ends
                the task.

        Raises:
            EnvironmentMissing: the page was closed, did not answer in time, or failed.
            InputError: its answer is not one.
        """
        with self._changed:
            self._number += 1
            self._part, self.seen_at = part, time.monotonic()
            self._task = {"kind": task, "id": self._number, **words}
            self._changed.notify_all()
        try:
            told = self._answer(timeout_s, silence_s)
        finally:
            with self._changed:
                self._task = self._part = None
        if isinstance(told.get("error"), str):
            what = f"the phone could not do it: {clean(told['error'])[:200]}"
            raise EnvironmentMissing(what, "edge-ran serve MODEL shows more on the phone")
        return records.read(kind, told, "phone")

    def _answer(self, timeout_s: float, silence_s: float) -> dict[str, Any]:
        until = time.monotonic() + timeout_s
        while True:
            try:
                told = self._results.get(timeout=_TICK_S)
            except queue.Empty:
                now = time.monotonic()
                if now > until:
                    raise EnvironmentMissing("the phone did not answer in time", "keep the page in front") from None
                if now - self.seen_at > silence_s:
                    remedy = "open it again, and keep it in front"
                    raise EnvironmentMissing("the phone's page was closed", remedy) from None
                continue
            if told.get("task") == self._number:
                return told

    def end(self) -> None:
        """Tell the page that there is no more work."""
        with self._changed:
            self.has_ended = True
            self._changed.notify_all()

    def next_task(self) -> dict[str, Any]:
        """Return the page's task; ``wait`` when there was none for a while."""
        self.seen_at = time.monotonic()
        with self._changed:
            mine = self.name
            self._changed.wait_for(lambda: self._task or self.has_ended or self.name != mine, POLL_S)
            if self._task:
                return self._task
            return {"kind": "end" if self.has_ended else "wait", "id": 0}

    def hand_on(self, hello: Hello) -> None:
        """Give the session to another page, by a new name: what the page before sends comes from another phone."""
        with self._changed:
            self.name, self.hello, self.seen_at = secrets.token_urlsafe(9), hello, time.monotonic()
            self._changed.notify_all()

    def take(self, what: str, told: dict[str, Any]) -> dict[str, Any] | None:
        """Take in what the page sent, and return what it is answered; None where ``what`` is nothing that pages send.

        Raises:
            InputError: it is not what it should be.
        """
        self.seen_at = time.monotonic()
        with self._changed:
            is_now = self._task is not None and told.get("task") == self._number
            part = self._part
        if what == "part":
            # Not of this task: of a page that was loaded before, or of a task that has ended.
            return {"go_on": is_now and part is not None and self._take_part(part, told)}
        if what != "result":
            return None
        if is_now:
            with self._changed:
                self._task = None
            self._results.put(told)
        return {}

    def _take_part(self, part: tuple[type[Any], OnPart], told: dict[str, Any]) -> bool:
        name = str(told.get("name", ""))
        with self._changed:
            if name and name == self._taken:  # the page sends it again, for it had no answer
                return True
            record = records.read(part[0], told.get("part"), "phone")
            self._taken = name
        return part[1](record)


class Invitation:
    """Pages that are asked to come: the first ``places`` get a session each."""

    def __init__(self, name: str, places: int) -> None:
        self.name, self.places = name, places
        self.sessions: list[Session] = []
        self._failures = 0
        self._came: queue.Queue[Session | EnvironmentMissing] = queue.Queue()
        self._lock = threading.Lock()

    def next(self, timeout_s: float, stop: threading.Event | None = None) -> Session | None:
        """Return the next session that a page has opened; None where none came, or ``stop`` was set.

        Raises:
            EnvironmentMissing: the next page could not start.
        """
        until = time.monotonic() + timeout_s
        while not (stop and stop.is_set()) and (left := until - time.monotonic()) > 0:
            try:
                came = self._came.get(timeout=min(_TICK_S, left))
            except queue.Empty:
                continue
            if isinstance(came, EnvironmentMissing):
                raise came
            return came
        return None

    def welcome(self, hello: Hello) -> Session | None:
        """Return the session of a page that comes for the first time; None where every place is taken.

        A single place goes to the newest page, one of several to a newcomer when its page is gone. The session then
        has a new name. One that has ended is given to no other page: what was found is of the phone that had it.
        """
        with self._lock:
            if self._has_place():
                session = Session(secrets.token_urlsafe(9))
                session.hello = hello
                self.sessions.append(session)
                self._came.put(session)
                return session
            oldest = min((one for one in self.sessions if not one.has_ended), key=lambda one: one.seen_at, default=None)
            if oldest is None:  # every page has failed, or is done
                return None
            patience_s = GONE_S if self.places > 1 else -math.inf
            if time.monotonic() - oldest.seen_at < patience_s:
                return None
            oldest.hand_on(hello)
            return oldest

    def fail(self, reason: str) -> None:
        """Take in that a page could not start. It uses a place: nobody need wait for another phone in its stead."""
        with self._lock:
            if self._has_place():
                self._failures += 1
                what = f"the phone's page could not start: {clean(reason)[:200]}"
                self._came.put(EnvironmentMissing(what, "try another browser on the phone"))

    def _has_place(self) -> bool:
        return len(self.sessions) + self._failures < self.places

    def end(self) -> None:
        """Tell every page that there is no more work."""
        for session in self.sessions:
            session.end()


class Sessions:
    """The sessions and invitations of a server, by their names, which are as hard to guess as a token."""

    def __init__(self) -> None:
        self._invitations: dict[str, Invitation] = {}
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def invite(self, places: int = 1) -> Invitation:
        """Make an invitation; its name is for the address."""
        made = Invitation(secrets.token_urlsafe(9), places)
        with self._lock:
            self._invitations[made.name] = made
        return made

    def knows(self, name: str) -> bool:
        """Whether there is such a session or invitation; nothing that others send is read."""
        with self._lock:
            return name in self._sessions or name in self._invitations

    def next_task(self, name: str) -> dict[str, Any] | None:
        """Return the next task of the session called ``name``; None where there is none, or none any more."""
        session = self._find(name)
        task = session.next_task() if session else None
        return task if self._find(name) else None

    def take(self, name: str, what: str, body: bytes) -> dict[str, Any] | None:
        """Take in what a page sent to a session, or its ``hello`` or ``failed`` to an invitation.

        Returns:
            What the page is answered; None where there is no such session or invitation, or no place.

        Raises:
            InputError: it is not what it should be.
        """
        session = self._find(name)
        invitation = self._invitations.get(name)
        if session is None and invitation is None:
            return None
        try:
            told = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InputError("a page sent what is no JSON") from error
        if not isinstance(told, dict):
            raise InputError("a page sent what is no record")
        if what == "failed" and invitation:
            invitation.fail(str(told.get("error", "")))
            return {}
        if what != "hello":
            return session.take(what, told) if session else None
        hello = records.read(Hello, told, "phone")
        if session:  # loaded again
            session.hello, session.seen_at = hello, time.monotonic()
            return {"session": name}
        given = self._welcome(invitation, hello) if invitation else ""
        return {"session": given} if given else None

    def _welcome(self, invitation: Invitation, hello: Hello) -> str:
        """Return the name of the session that a page gets, and forget the name that it had; empty: no place."""
        with self._lock:
            session = invitation.welcome(hello)
            if session is None:
                return ""
            self._sessions = {name: one for name, one in self._sessions.items() if one is not session}
            self._sessions[session.name] = session
            return session.name

    def _find(self, name: str) -> Session | None:
        with self._lock:
            return self._sessions.get(name)
