"""A browser as a device: a phone that scanned the code, or this machine's own. The page works, the host computes.

The page sends raw samples and answers; they become the records that every device gives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import records, verify
from edge_ran.bench import Bench, BenchReport, Plan
from edge_ran.bench.figures import (
    BenchLatency,
    ColdStart,
    EnergyUse,
    MemoryUse,
    RuntimeFacts,
    Throughput,
    Timing,
    Warmup,
)
from edge_ran.bench.measure import model_facts
from edge_ran.catalogue import DeviceSpec
from edge_ran.errors import EnvironmentMissing, GateError, UsageError
from edge_ran.graph import read_graph
from edge_ran.latency import LatencyStats
from edge_ran.machine import Conditions, Machine
from edge_ran.phone import assets
from edge_ran.phone.serve import Serving, qr_code, serving
from edge_ran.phone.sessions import Hello, PageAccelerator, PageAnswers, Session, TimedRuns
from edge_ran.runtime import Accelerator, Delegation
from edge_ran.runtime.agreement import compare_all
from edge_ran.targets.address import browser_place
from edge_ran.targets.sanitize import clean
from edge_ran.targets.target import Order, Probe

SESSIONS = 6  # the extremes of six hold the median with 97 % confidence
WAIT_S = 600.0  # for somebody to scan the code
ANSWER_S = 300.0

Note = Callable[[str], None]


class BrowserTarget:
    """A ``Target`` whose page is opened by hand: ``phone``, ``phone:PORT`` or ``browser``."""

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
        """Benchmark or verify there, once somebody has opened the page."""
        if order.runtime.delegate is not None or order.runtime.threads:
            raise UsageError("--delegate and --threads cannot be had of a browser", "leave them out")
        if len(order.models) > 1:
            raise UsageError("a browser measures one model at a time", "name one")
        if order.verb == "benchmark":
            return self._benchmark(order)
        if order.verb == "verify":
            return self._verify(order)
        raise UsageError(f"a browser cannot {order.verb}", "benchmark and verify work with it")

    def follow(self, order: Order, on_line: Note) -> None:
        """Refuses: the page shows its camera's answers itself."""
        raise UsageError("a phone shows what its camera sees on its own screen", "edge-ran serve MODEL")

    def clean(self) -> int:
        """A browser keeps the page as it keeps any; there is nothing to remove from here."""
        return 0

    def _open(self, order: Order, accelerator: str) -> tuple[Serving, Session, Hello]:
        served = self._stack.enter_context(serving(order.models, self._place))
        name, session = served.server.sessions.open()
        self._stack.callback(session.end)
        url = f"{served.session_url(name)}&accelerator={accelerator}"
        if not self.spec.target.startswith("browser"):
            for line in qr_code(url).splitlines():
                self._say(line)
        self._say(f"open {url}")
        if not session.came.wait(WAIT_S) or session.hello is None:
            raise EnvironmentMissing(f"nobody opened the page within {WAIT_S / 60:.0f} minutes", "scan the code")
        hello = session.hello
        self._say(f"{_name(hello)}: {clean(hello.accelerator.adapter)}")
        _check_accelerator(order, hello.accelerator)
        return served, session, hello

    def _benchmark(self, order: Order) -> dict[str, Any]:
        if order.options.get("images"):
            raise UsageError("--images cannot be had of a browser: its page brings pictures", "leave it out")
        plan = order.plan or Plan()
        _, session, hello = self._open(order, order.runtime.accelerator)
        found = session.ask(
            TimedRuns,
            "benchmark",
            plan.max_secs + ANSWER_S,
            sessions=SESSIONS,
            runs=math.ceil(plan.num_runs / SESSIONS),
            warmup_runs=max(1, plan.warmup_runs),
            least_ms=1000 * plan.min_secs / SESSIONS,
            most_ms=1000 * plan.max_secs / SESSIONS,
        )
        return Bench((report(order, plan, hello, found),)).document()

    def _verify(self, order: Order) -> dict[str, Any]:
        path = order.models[0]
        graph = read_graph(path)
        served, session, hello = self._open(order, "gpu")
        found = session.ask(PageAnswers, "verify", ANSWER_S)
        site = served.server.site
        file = json.loads((site / "config.json").read_text("utf-8"))["files"][0]
        sizes = [one["size"] for one in file["outputs"]]
        right = _split(np.fromfile(site / file["answers"], "<f4"), sizes)
        checks = []
        for device, told, ms in (("cpu", found.cpu, found.cpu_ms), ("gpu", found.gpu, found.gpu_ms)):
            if told is None:
                if device == "gpu":
                    reason = clean(found.accelerator.reason) or "no GPU"
                    checks.append(verify.Check("gpu", "", "WebGPU", "", False, None, None, None, reason))
                continue
            answers = [[np.asarray(values, np.float32) for values in outputs] for outputs in told]
            if [[len(v) for v in one] for one in answers] != [sizes] * len(right):
                raise EnvironmentMissing(f"{self.spec.name} sent answers of another size", "open the page again")
            tensors = [dataclasses.replace(tensor, scale=0.0) for tensor in graph.outputs]
            agreement = compare_all(right, answers, tensors)
            adapter = clean(hello.accelerator.adapter) if hello.accelerator.actual == device else ""
            checks.append(
                verify.Check(device, "", adapter, "", hello.accelerator.is_software, agreement, ms, found.cpu_ms)
            )
        return records.document(verify.Verification(str(path), "LiteRT.js", assets.VERSION, tuple(checks)))


def report(order: Order, plan: Plan, hello: Hello, found: TimedRuns) -> BenchReport:
    """Make the report of what a page measured.

    Raises:
        EnvironmentMissing: it measured nothing.
    """
    graph = read_graph(order.models[0])
    sessions = [list(one) for one in found.sessions_ms if one]
    samples = [ms for one in sessions for ms in one]
    if not samples or not found.load_ms or not found.first_ms or min(samples) < 0:
        raise EnvironmentMissing("the page measured nothing", "keep it in front, and try again")
    stats = LatencyStats.from_ms([max(ms, 1e-6) for ms in samples], found.first_ms[0], sessions)
    gmacs = graph.multiply_adds / stats.p50_ms / 1e6 if graph.multiply_adds else None
    on_gpu = found.accelerator.actual == "gpu"
    return BenchReport(
        name=order.models[0].name,
        model=model_facts(graph),
        accelerator=_accelerator(order, found),
        delegation=Delegation("WebGPU" if on_gpu else "XNNPACK", len(graph.operators), None, None),
        runtime=RuntimeFacts("LiteRT.js", assets.VERSION, 1),
        latency=BenchLatency(**vars(stats), init_ms=found.load_ms[0], warmup_runs=plan.warmup_runs * len(sessions)),
        cold_start=ColdStart(None, None, found.load_ms[0], found.first_ms[0]),
        warmup=Warmup(plan.warmup_runs * len(sessions), None, None),
        stages_ms=None,
        timing=Timing(
            includes_output_read=True,
            clock=f"performance.now, in steps of {found.clock_step_ms:.3g} ms",
            sessions=len(sessions),
            turns=len(sessions),
            session_medians_ms=tuple(float(np.median(one)) for one in sessions),
            wall_ms=1e3 * found.seconds,
            wall_per_run_ms=1e3 * found.seconds / len(samples),
        ),
        energy=EnergyUse(),
        memory=MemoryUse(),
        throughput=Throughput(1e3 / stats.p50_ms, gmacs),
        environment=_machine(hello),
        conditions=Conditions(found.seconds, None, None, None, None, None, None, None, None, None),
        plan=plan,
        input="pictures of the page",
        samples_ms=tuple(round(ms, 5) for ms in samples),
    )


def _accelerator(order: Order, found: TimedRuns) -> Accelerator:
    told, wanted = found.accelerator, order.runtime.accelerator
    reason = clean(told.reason)
    warnings = ["the page was in the background for a time"] if found.hidden else []
    if told.false_pixels:
        warnings.append("the browser changes the pixels of pictures")
    return Accelerator(
        requested=wanted,
        actual=told.actual,
        adapter=clean(told.adapter),
        is_software=told.is_software,
        fallback_reason=reason if wanted == "gpu" and told.actual == "cpu" else "",
        auto_reason=reason if wanted == "auto" else "",
        warning="; ".join(warnings),
    )


def _check_accelerator(order: Order, told: PageAccelerator) -> None:
    if order.runtime.accelerator == "gpu" and told.actual == "cpu" and not order.runtime.fallback:
        raise GateError(f"the GPU was asked for, but {clean(told.reason)}", "leave --no-fallback out, or choose --cpu")


def _machine(hello: Hello) -> Machine:
    return Machine(
        board=_name(hello),
        cpu=clean(hello.platform) or "unknown",
        architecture=None,
        cores=max(1, hello.cores),
        memory_mb=int(1000 * hello.memory_gb) if hello.memory_gb else None,
        governor=None,
        virtual=None,
        emulated_on=None,
        os=browser_name(hello.user_agent),
        python=None,
        load_average=None,
    )


def _name(hello: Hello) -> str:
    return clean(hello.model)[:80] or browser_name(hello.user_agent)


def browser_name(user_agent: str) -> str:
    """Return the browser and its version out of what it calls itself; the whole, shortened, where that says neither."""
    for name in ("Edg", "OPR", "SamsungBrowser", "Firefox", "Chrome", "HeadlessChrome", "Version"):
        if found := re.search(rf"\b{name}/(\d+)", user_agent):
            return f"{'Safari' if name == 'Version' else name} {found[1]}"
    return clean(user_agent)[:60] or "a browser"


def _split(values: NDArray[np.float32], sizes: Sequence[int]) -> list[list[NDArray[np.float32]]]:
    """The answers that a site carries: [picture][output] of one file of floats."""
    pictures = np.split(values, len(values) // sum(sizes))
    return [np.split(one, np.cumsum(sizes)[:-1]) for one in pictures]
