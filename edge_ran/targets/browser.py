"""A browser as a device: a phone that scanned the code, or this machine's own. The page works, the host computes.

The page sends raw samples and answers; they become the records that every device gives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from edge_ran import bench, records, verify
from edge_ran.bench import Bench, FailedDevice, Plan
from edge_ran.bench.sustained import WINDOWS
from edge_ran.catalogue import DeviceSpec
from edge_ran.classifier import Classifier
from edge_ran.errors import CameraError, EdgeRanError, EnvironmentMissing, GateError, UsageError
from edge_ran.graph import read_graph
from edge_ran.phone import assets
from edge_ran.phone.camera_stream import PhoneStream
from edge_ran.phone.messages import PageAccelerator, PageAnswers, PageWindow, SustainDone, TimedRuns
from edge_ran.phone.serve import Serving, qr_code, serving
from edge_ran.phone.sessions import Invitation, Session
from edge_ran.phone.site import SiteOptions
from edge_ran.runtime import RuntimeOptions
from edge_ran.runtime.agreement import allowed, compare_all
from edge_ran.stream.decide import Decider
from edge_ran.targets import browser_records, phone
from edge_ran.targets.address import browser_adb, browser_place
from edge_ran.targets.sanitize import clean
from edge_ran.targets.target import Order, Probe

SESSIONS = 6  # the extremes of six hold the median with 97 % confidence
WAIT_S = 600.0  # for somebody to scan the code
ANSWER_S = 300.0
MOST_PHONES = 16

Note = Callable[[str], None]
_Job = tuple[Session, "Future[Bench]"]  # a phone at work


class BrowserTarget:
    """A ``Target`` whose page somebody opens: ``phone``, ``phone:PORT``, ``browser``; ``phone:adb`` opens it itself."""

    def __init__(self, spec: DeviceSpec, say: Note = lambda line: None) -> None:
        self.spec, self._say = spec, say
        self._place = browser_place(spec.target)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> BrowserTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving."""
        self._stack.close()

    def probe(self, timeout_s: float) -> Probe:
        """Nothing is known of it before somebody opens the page."""
        return Probe(False, "it answers when its page is opened", f"edge-ran benchmark --device {self.spec.name}")

    def answer(self, order: Order) -> dict[str, Any]:
        """Benchmark, run for minutes or verify there, once somebody has opened the page."""
        verbs = {"benchmark": self._benchmark, "sustain": self._sustain, "verify": self._verify}
        if order.verb not in verbs:
            what = f"{order.verb} is not possible in a browser"
            raise UsageError(what, "benchmark, sustain, verify and run are; or use another --device")
        check_runtime(order.runtime)
        if len(order.models) > 1:
            raise UsageError("a browser measures one model at a time", "name one")
        if order.options.get("images"):
            raise UsageError("--images is not possible in a browser: its page has its own pictures", "leave it out")
        if order.plan and order.plan.until:
            what = "--until is not possible in a browser: its page measures for a time that is set before"
            raise UsageError(what, "--num-runs and --min-secs set it, for instance --min-secs 60")
        return verbs[order.verb](order)

    def follow(self, order: Order, on_line: Note) -> None:
        """Refuses: what its camera sees becomes results here, see ``stream``."""
        raise UsageError(f"a browser cannot {order.verb} by itself", f"edge-ran run --device {self.spec.name}")

    def clean(self) -> int:
        """A browser keeps the page as it keeps any; there is nothing to remove from here."""
        return 0

    def stream(
        self,
        classifier: Classifier,
        runtime: RuntimeOptions,
        stop: threading.Event,
        *,
        pictures: bool,
        decide: Decider,
        **words: Any,
    ) -> PhoneStream:
        """Return what its camera sees, once somebody has opened the page; it ends with this target.

        Args:
            classifier: of the file that the page is to run.
            runtime: what was asked of the runtime.
            stop: ends the waiting, and the stream.
            pictures: whether the frames are to be sent as well.
            decide: makes answers of scores; the phone shows its answers by the same rules.
            words: for ``PhoneStream``.

        Raises:
            UsageError: a browser cannot do that.
            CameraError: nobody opened the page, or ``stop`` was set.
        """
        check_runtime(runtime)
        answers = SiteOptions(decide.smoothing, decide.threshold, classifier.overrides)
        _, invitation = self._invite((classifier.path,), runtime, answers)
        session = invitation.next(WAIT_S, stop)
        if session is None:
            raise CameraError("stopped before a phone came" if stop.is_set() else _nobody(), "scan the code")
        self._greet(session, runtime)
        return PhoneStream(
            classifier,
            session,
            lambda told: browser_records.accelerator(runtime, told),
            pictures=pictures,
            decide=decide,
            stop=stop,
            **words,
        )

    def _invite(
        self, models: Sequence[Path], runtime: RuntimeOptions, options: SiteOptions | None = None, phones: int = 1
    ) -> tuple[Serving, Invitation]:
        served = self._stack.enter_context(serving(models, self._place, options))
        invitation = served.server.sessions.invite(phones)
        self._stack.callback(invitation.end)
        url = f"{served.session_url(invitation.name)}&accelerator={runtime.accelerator}"
        if usb := browser_adb(self.spec.target):
            url = self._stack.enter_context(phone.reached(served, usb, f"/?{urlsplit(url).query}")).url
            self._say("the phone's screen must be on and unlocked: its browser opens the page")
        elif not self.spec.target.startswith("browser"):
            for line in qr_code(url).splitlines():
                self._say(line)
        self._say(f"open {url}")
        return served, invitation

    def _greet(self, session: Session, runtime: RuntimeOptions) -> None:
        """Tell who has come. Raises GateError where it has not the accelerator that it must have."""
        assert session.hello is not None
        name = browser_records.name(session.hello)
        self._say(f"{name}: {clean(session.hello.accelerator.adapter)}")
        if session.hello.accelerator.false_pixels:
            self._say(f"{name} changes the pixels of pictures, as a protection against tracking: answers may differ")
        _check_accelerator(runtime, session.hello.accelerator)

    def _only(self, order: Order, accelerator: str) -> tuple[Serving, Session]:
        """Invite one phone, and wait for it."""
        served, invitation = self._invite(
            order.models, dataclasses.replace(order.runtime, accelerator=accelerator), _options(order)
        )
        session = invitation.next(WAIT_S)
        if session is None:
            raise EnvironmentMissing(_nobody(), "scan the code")
        self._greet(session, order.runtime)
        return served, session

    def _benchmark(self, order: Order) -> dict[str, Any]:
        phones = int(order.options.get("phones", 1))
        if not 1 <= phones <= MOST_PHONES:
            raise UsageError(f"--phones {phones} is not 1 to {MOST_PHONES}", "for instance --phones 2")
        if phones > 1 and browser_adb(self.spec.target):
            raise UsageError(f"{self.spec.target} is one phone", "for several in one network: --device phone")
        _, invitation = self._invite(order.models, order.runtime, _options(order), phones)
        jobs: list[_Job] = []
        failed: list[FailedDevice] = []
        for number in range(1, phones + 1):  # each phone begins when it comes
            try:
                session = invitation.next(WAIT_S)
            except EnvironmentMissing as error:
                if phones == 1:
                    raise
                failed.append(FailedDevice(f"phone {number}", str(error), error.remedy))
                continue
            if session is None:
                if not jobs and not failed:
                    raise EnvironmentMissing(_nobody(), "scan the code")
                failed += [FailedDevice(f"phone {missing}", _nobody()) for missing in range(number, phones + 1)]
                break
            jobs.append((session, _started(functools.partial(self._measure, order, session))))
        if phones == 1:
            return jobs[0][1].result().document()
        return _table(jobs, failed).document()

    def _measure(self, order: Order, session: Session) -> Bench:
        plan = order.plan or Plan()
        try:
            self._greet(session, order.runtime)
            found = session.ask(
                TimedRuns,
                "benchmark",
                plan.max_secs + ANSWER_S,
                silence_s=math.inf,  # what talks while it measures measures itself
                sessions=SESSIONS,
                runs=math.ceil(plan.num_runs / SESSIONS),
                warmup_runs=max(1, plan.warmup_runs),
                least_ms=1000 * plan.min_secs / SESSIONS,
                most_ms=1000 * plan.max_secs / SESSIONS,
            )
        finally:
            session.end()
        assert session.hello is not None
        return Bench((browser_records.report(order.models[0], order.runtime, plan, session.hello, found),))

    def _sustain(self, order: Order) -> dict[str, Any]:
        seconds = order.seconds
        if not 0 < seconds < math.inf:
            raise UsageError("a sustained run needs a time above 0", "for instance --duration 10m")
        _, session = self._only(order, order.runtime.accelerator)
        windows: list[PageWindow] = []

        def take(window: PageWindow) -> bool:
            if window.index == 0:
                windows.clear()  # the page was loaded again, and begins anew
            windows.append(window)
            return True

        count = max(4, min(WINDOWS, int(seconds)))
        words = {"seconds": seconds, "windows": count, "warmup_runs": Plan().warmup_runs}
        done = session.ask(
            SustainDone,
            "sustain",
            2 * seconds + ANSWER_S,
            silence_s=seconds / count + ANSWER_S,
            part=(PageWindow, take),
            **words,
        )
        assert session.hello is not None
        return records.document(
            browser_records.sustained(order.models[0], order.runtime, session.hello, done.accelerator, windows)
        )

    def _verify(self, order: Order) -> dict[str, Any]:
        path = order.models[0]
        graph = read_graph(path)
        served, session = self._only(order, "gpu")
        found = session.ask(PageAnswers, "verify", ANSWER_S)
        site = served.server.site
        file = json.loads((site / "config.json").read_text("utf-8"))["files"][0]
        sizes = [one["size"] for one in file["outputs"]]
        right = _split(np.fromfile(site / file["answers"], "<f4"), sizes)
        checks = []
        for device, told, ms in (("cpu", found.cpu, found.cpu_ms), ("gpu", found.gpu, found.gpu_ms)):
            if told is None:
                if device == "gpu":
                    told_of = found.accelerator
                    reason = clean(told_of.reason) or "no GPU"
                    checks.append(
                        verify.Check(
                            "gpu", "", "WebGPU", "", False, None, None, None, reason, is_broken=told_of.is_broken
                        )
                    )
                continue
            answers = [[np.asarray(values, np.float32) for values in outputs] for outputs in told]
            if [[len(v) for v in one] for one in answers] != [sizes] * len(right):
                raise EnvironmentMissing(f"{self.spec.name} sent answers of another size", "open the page again")
            tensors = [dataclasses.replace(tensor, scale=0.0) for tensor in graph.outputs]
            agreement = compare_all(right, answers, tensors, allowed(graph.precision, "fp16"))
            hello = session.hello
            assert hello is not None
            adapter = clean(hello.accelerator.adapter) if hello.accelerator.actual == device else ""
            checks.append(
                verify.Check(device, "", adapter, "", hello.accelerator.is_software, agreement, ms, found.cpu_ms)
            )
        return records.document(verify.Verification(str(path), "LiteRT.js", assets.VERSION, tuple(checks)))


def check_runtime(runtime: RuntimeOptions) -> None:
    """Raise UsageError where the runtime is asked for what a browser has not."""
    if runtime.delegate is not None or runtime.threads:
        raise UsageError("--delegate and --threads are not possible in a browser", "leave them out")


def _started(work: Callable[[], Bench]) -> Future[Bench]:
    """Do it in a thread of its own, which does not keep the program from ending."""
    future: Future[Bench] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="edge-ran phone", daemon=True).start()
    return future


def _options(order: Order) -> SiteOptions:
    return SiteOptions(overrides=order.overrides)


def _nobody() -> str:
    return f"nobody opened the page within {WAIT_S / 60:.0f} minutes"


def _table(jobs: Sequence[_Job], failed: list[FailedDevice]) -> Bench:
    """Put the phones side by side; those that failed, or did not come, are named with the reason."""
    benches: dict[str, Bench] = {}
    names: list[str] = []
    gate: GateError | None = None
    for number, (session, job) in enumerate(jobs, 1):
        error = job.exception()  # waits: only then is it known which phone had the session last
        assert session.hello is not None
        name = browser_records.name(session.hello)
        names.append(f"{name} ({number})" if name in names else name)
        if error is None:
            benches[names[-1]] = job.result()
            continue
        if not isinstance(error, EdgeRanError):
            raise error
        gate = gate or (error if isinstance(error, GateError) else None)
        failed = [*failed, FailedDevice(names[-1], str(error), error.remedy, isinstance(error, GateError))]
    if benches:
        return dataclasses.replace(bench.across(benches), failed=tuple(failed))
    if gate:
        raise gate
    remedy = failed[0].remedy or "scan the code, and keep the page in front"
    raise EnvironmentMissing(f"no phone could be measured: {failed[0].reason}", remedy)


def _check_accelerator(runtime: RuntimeOptions, told: PageAccelerator) -> None:
    if runtime.accelerator == "gpu" and told.actual == "cpu" and not runtime.fallback:
        raise GateError(f"the GPU was asked for, but {clean(told.reason)}", "leave --no-fallback out, or choose --cpu")


def _split(values: NDArray[np.float32], sizes: Sequence[int]) -> list[list[NDArray[np.float32]]]:
    """The answers that a site carries: [picture][output] of one file of floats."""
    pictures = np.split(values, len(values) // sum(sizes))
    return [np.split(one, np.cumsum(sizes)[:-1]) for one in pictures]
