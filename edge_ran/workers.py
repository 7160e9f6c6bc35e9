"""The machines of one training: who they are, and how they meet before TensorFlow connects them.

Every worker runs the same command; worker 0 writes the run. They meet at worker 0's address: each of the others tells
what it is about to train, and worker 0 lets all go on when all are there and tell the same. Before that it calls them
once more: a machine that has lost its power leaves its connection open, and TensorFlow would wait for it for an hour.
What comes from the network is untrusted here; TensorFlow's own connections, which follow, are neither encrypted nor
authenticated.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_ran.errors import EnvironmentMissing, UsageError

TF_CONFIG = "TF_CONFIG"
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})")
_EXAMPLE = "--workers 192.168.1.10:7070,192.168.1.11:7070 --worker 0"
_LONGEST_LINE = 4096
_PAUSE_S = 0.2
_READ_S = 5.0  # for what a worker tells right after it has connected, or was called


@dataclass(frozen=True)
class Workers:
    """All workers' addresses, ``host:port``, and which of them this one is, counted from 0."""

    addresses: tuple[str, ...]
    index: int

    @property
    def is_first(self) -> bool:
        """Whether this is worker 0, which writes the run."""
        return self.index == 0

    def share(self, count: int) -> tuple[int, int]:
        """Return the first and the last + 1 of ``count`` pictures that are this worker's; shares differ by one."""
        of = len(self.addresses)
        return count * self.index // of, count * (self.index + 1) // of


def from_words(addresses: str, index: int | None, environment: Mapping[str, str] = os.environ) -> Workers | None:
    """Return the workers that ``--workers`` and ``--worker`` or TF_CONFIG name; None for a training by one process.

    Raises:
        UsageError: an address or the number is none, or TF_CONFIG cannot be understood.
    """
    if not addresses and index is not None:
        raise UsageError("--worker without --workers", f"name all: {_EXAMPLE}")
    if not addresses:
        return _from_environment(environment.get(TF_CONFIG, ""))
    if index is None:
        raise UsageError("--workers without --worker: which of them is this one?", f"say so: {_EXAMPLE}")
    return _checked(tuple(one.strip() for one in addresses.split(",")), index)


def _from_environment(text: str) -> Workers | None:
    if not text:
        return None
    try:
        said = json.loads(text)
        cluster, task = said.get("cluster", {}), said.get("task", {})
        jobs = {job: tuple(map(str, hosts)) for job, hosts in cluster.items()}
        kind, index = str(task.get("type", "worker")), int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{TF_CONFIG} cannot be understood: {error}", f"unset it, or give {_EXAMPLE}") from error
    first, others = jobs.get("chief", ()), jobs.get("worker", ())
    if not jobs:
        return None
    if kind not in ("chief", "worker") or set(jobs) - {"chief", "worker"}:
        raise UsageError(f"{TF_CONFIG} is of a {kind} among {', '.join(jobs)}", "train knows chief and workers only")
    if len(first + others) == 1:
        return None
    return _checked(first + others, index + (len(first) if kind == "worker" else 0))


def _checked(addresses: tuple[str, ...], index: int) -> Workers:
    for address in addresses:
        match = _ADDRESS.fullmatch(address)
        if not match or not 0 < int(match[1]) < 65536:
            raise UsageError(f"{address!r} is no address of a worker", f"host:port each: {_EXAMPLE}")
    if len(set(addresses)) < len(addresses):
        raise UsageError("two workers have the same address", f"give each its own: {_EXAMPLE}")
    if len(addresses) < 2:
        raise UsageError("--workers names only one machine", "name the others, too, or leave --workers away")
    if not 0 <= index < len(addresses):
        raise UsageError(f"--worker {index}: there are workers 0 to {len(addresses) - 1}", _EXAMPLE)
    return Workers(addresses, index)


def meet(workers: Workers, identity: str, patience_s: float, word: str = "") -> str:
    """Wait until all workers are there and are about to train the same; return worker 0's ``word``.

    Args:
        identity: equal for equal data, settings and network.
        patience_s: how long to wait.
        word: what worker 0 alone knows, and tells the others.

    Raises:
        EnvironmentMissing: a worker did not answer in that time, or the address cannot be listened on.
        UsageError: a worker trains something else.
    """
    if workers.is_first:
        _wait_for_others(workers, identity, time.monotonic() + patience_s, word)
        return word
    return _report(workers, identity, time.monotonic() + patience_s)


def _wait_for_others(workers: Workers, identity: str, until: float, word: str) -> None:
    present: dict[int, socket.socket] = {}
    met: set[int] = set()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_listener(workers.addresses[0]))
        while not (_are_all_there(workers, present) and _answer_the_call(present, until)):
            ready = _ready([listener, *present.values()], until - time.monotonic())
            if not ready:
                _send_all(present, {"refused": "a worker did not come"})
                raise _absent(workers, present, met)
            if listener not in ready:
                continue
            connection, _ = listener.accept()
            stack.enter_context(connection)
            said = _read(connection, min(until, time.monotonic() + _READ_S))
            number = said.get("worker")
            if not isinstance(number, int) or not 0 < number < len(workers.addresses):
                connection.close()  # whoever that is, it is none of the workers
                continue
            if said.get("identity") != identity or said.get("of") != len(workers.addresses):
                what = f"worker {number} has other pictures, settings or workers than worker 0"
                _send_all({**present, number: connection}, {"refused": what})
                raise UsageError(what, "give all workers the same command; only --worker differs")
            present[number] = connection
            met.add(number)
        _send_all(present, {"go": True, "word": word})


def _are_all_there(workers: Workers, present: dict[int, socket.socket]) -> bool:
    """Whether all workers wait for the word to go; those that waited and are gone are taken out of ``present``.

    A worker says nothing while it waits: what can be read is the end of its connection.
    """
    gone = _ready(present.values(), 0)
    for number in [number for number, connection in present.items() if connection in gone]:
        present.pop(number).close()
    return len(present) == len(workers.addresses) - 1


def _answer_the_call(present: dict[int, socket.socket], until: float) -> bool:
    """Whether all workers answer when they are called; those that do not are taken out of ``present``."""
    _send_all(present, {"call": True})
    until = min(until, time.monotonic() + _READ_S)
    silent = [number for number, connection in present.items() if _read(connection, until).get("here") is not True]
    for number in silent:
        present.pop(number).close()
    return not silent


def _absent(workers: Workers, present: Mapping[int, socket.socket], met: set[int]) -> EnvironmentMissing:
    """An error that names those that never came; where all did, those that came and gave up."""
    others = range(1, len(workers.addresses))
    never = [number for number in others if number not in met]
    absent = never or [number for number in others if number not in present]
    how = "did not answer" if never else "gave up waiting, was ended, or lost its power or network"
    what = "; ".join(f"worker {number} ({workers.addresses[number]}) {how}" for number in absent[:3])
    return EnvironmentMissing(what, _absent_remedy(workers, absent[0]))


def _ready(sockets: Iterable[socket.socket], timeout_s: float) -> list[object]:
    """Return those that can be read or accepted from, after ``timeout_s`` at most."""
    with selectors.DefaultSelector() as selector:
        for one in sockets:
            selector.register(one, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(max(0.0, timeout_s))]


def _report(workers: Workers, identity: str, until: float) -> str:
    address = workers.addresses[0]
    said = json.dumps({"worker": workers.index, "of": len(workers.addresses), "identity": identity})
    is_reached = False
    while True:
        left = until - time.monotonic()
        if left <= 0 and is_reached:
            what = f"another worker is missing: worker 0 ({address}) still waits for it"
            raise EnvironmentMissing(
                what, "start it, too, with the same command and its own --worker; worker 0 names it"
            )
        if left <= 0:
            raise EnvironmentMissing(f"worker 0 ({address}) did not answer", _absent_remedy(workers, 0))
        try:
            with socket.create_connection(_host_port(address), timeout=left) as connection:
                connection.sendall(said.encode() + b"\n")
                is_reached = True
                while (answer := _read(connection, until)).get("call") is True:
                    connection.sendall(b'{"here": true}\n')
        except OSError:  # it is not there yet
            is_reached = False
            time.sleep(_PAUSE_S)
            continue
        if answer.get("go") is True:
            return str(answer.get("word", ""))
        if isinstance(reason := answer.get("refused"), str):
            raise UsageError(f"worker 0 ends the training: {reason}", "give all workers the same command")
        time.sleep(_PAUSE_S)


def _absent_remedy(workers: Workers, index: int) -> str:
    return f"start it, too, with --worker {index}, and see that its address can be reached"


def _send_all(present: Mapping[int, socket.socket], answer: Mapping[str, object]) -> None:
    for connection in present.values():
        with contextlib.suppress(OSError):
            connection.sendall(json.dumps(answer).encode() + b"\n")


def _listener(address: str) -> socket.socket:
    host, port = _host_port(address)
    try:
        # TensorFlow listens on the same port a moment later.
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise EnvironmentMissing(
            f"worker 0 cannot listen on {address}: {error.strerror or error}",
            "give an address of this machine and a free port first in --workers",
        ) from error


def _host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _read(connection: socket.socket, until: float) -> dict[str, object]:
    """Read one line of JSON; an empty record where none comes."""
    data = b""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        while not data.endswith(b"\n") and len(data) < _LONGEST_LINE:
            connection.settimeout(max(0.01, until - time.monotonic()))
            part = connection.recv(_LONGEST_LINE)
            if not part:
                return {}
            data += part
        said = json.loads(data)
        return said if isinstance(said, dict) else {}
    return {}
