"""What a browser measured, as the records that every device gives. All statistics are computed here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_ran.bench import BenchReport, Plan, Sustained
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
from edge_ran.bench.sustained import Window
from edge_ran.errors import EnvironmentMissing
from edge_ran.graph import read_graph
from edge_ran.latency import LatencyStats
from edge_ran.machine import Conditions, Machine
from edge_ran.phone import assets
from edge_ran.phone.messages import Battery, Hello, PageAccelerator, PageWindow, TimedRuns
from edge_ran.runtime import Accelerator, Delegation, RuntimeOptions
from edge_ran.targets.sanitize import clean


def report(model: Path, runtime: RuntimeOptions, plan: Plan, hello: Hello, found: TimedRuns) -> BenchReport:
    """Make the report of what a page measured.

    Raises:
        EnvironmentMissing: it measured nothing.
    """
    graph = read_graph(model)
    sessions = [list(one) for one in found.sessions_ms if one]
    samples = [ms for one in sessions for ms in one]
    if not samples or not found.load_ms or not found.first_ms or min(samples) < 0:
        raise EnvironmentMissing("the page measured nothing", "keep it in front, and try again")
    stats = LatencyStats.from_ms([max(ms, 1e-6) for ms in samples], found.first_ms[0], sessions)
    gmacs = graph.multiply_adds / stats.p50_ms / 1e6 if graph.multiply_adds else None
    on_gpu = found.accelerator.actual == "gpu"
    return BenchReport(
        name=model.name,
        model=model_facts(graph),
        accelerator=accelerator(runtime, found.accelerator, found.hidden),
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
        environment=machine(hello),
        conditions=conditions(found.seconds, *found.battery),
        plan=plan,
        input="pictures of the page",
        samples_ms=tuple(round(ms, 5) for ms in samples),
    )


def sustained(
    model: Path, runtime: RuntimeOptions, hello: Hello, told: PageAccelerator, windows: Sequence[PageWindow]
) -> Sustained:
    """Make the record of a sustained run out of the windows that a page told.

    Raises:
        EnvironmentMissing: it measured nothing.
    """
    used = [one for one in windows if one.samples_ms and min(one.samples_ms) >= 0]
    if not used:
        raise EnvironmentMissing("the page measured nothing", "keep it in front, and try again")
    every = [ms for one in used for ms in one.samples_ms]
    made, before = [], (0.0, used[0].battery)
    for one in used:
        median, p90 = np.percentile(one.samples_ms, [50, 90])
        around = conditions(max(0.0, one.at_s - before[0]), before[1], one.battery)
        made.append(Window(round(one.at_s, 3), len(one.samples_ms), max(float(median), 1e-6), float(p90), around))
        before = (one.at_s, one.battery)
    median, p90 = np.percentile(every, [50, 90])
    return Sustained(
        model=model_facts(read_graph(model)),
        accelerator=accelerator(runtime, told, any(one.hidden for one in used)),
        runtime=RuntimeFacts("LiteRT.js", assets.VERSION, 1),
        environment=machine(hello),
        median_ms=float(median),
        p90_ms=float(p90),
        windows=tuple(made),
    )


def conditions(seconds: float, before: Battery | None, after: Battery | None) -> Conditions:
    """What a browser tells of what happened around a measurement: the battery, where it tells that."""
    known = [one for one in (before, after) if one is not None]
    return Conditions(
        seconds, None, None, None, None, None, None, None, None, None,
        battery_before=before.level if before else None,
        battery_after=after.level if after else None,
        charging=any(one.charging for one in known) if known else None,
    )  # fmt: skip


def accelerator(runtime: RuntimeOptions, told: PageAccelerator, hidden: bool = False) -> Accelerator:
    """What was asked for and what a page says that it got; ``hidden``: it was in the background meanwhile."""
    wanted, reason = runtime.accelerator, clean(told.reason)
    warnings = ["the page was in the background for a time"] if hidden else []
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


def machine(hello: Hello) -> Machine:
    """What a phone and its browser tell of themselves."""
    return Machine(
        board=name(hello),
        cpu="unknown",  # browsers do not tell it
        architecture=None,
        cores=max(1, hello.cores),
        memory_mb=int(1000 * hello.memory_gb) if hello.memory_gb else None,
        governor=None,
        virtual=None,
        emulated_on=None,
        os=" on ".join(filter(None, (browser_name(hello.user_agent), clean(hello.platform)[:40]))),
        python=None,
        load_average=None,
    )


def name(hello: Hello) -> str:
    """Return what to call a phone: its model, or its browser where that tells no model."""
    return clean(hello.model)[:80] or browser_name(hello.user_agent)


def browser_name(user_agent: str) -> str:
    """Return the browser and its version out of what it calls itself; the whole, shortened, where that says neither."""
    for name in ("Edg", "OPR", "SamsungBrowser", "Firefox", "Chrome", "HeadlessChrome", "Version"):
        if found := re.search(rf"\b{name}/(\d+)", user_agent):
            return f"{'Safari' if name == 'Version' else name} {found[1]}"
    return clean(user_agent)[:60] or "a browser"
