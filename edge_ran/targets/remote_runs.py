"""A model in sessions on a phone: ``benchmark_model`` is started several times, because two loads of one file differ.

What the sessions tell makes one report, like that of a local benchmark, with None for what they do not tell.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from pathlib import Path

from edge_ran.bench import BenchReport, Plan
from edge_ran.bench.figures import BenchLatency, ColdStart, EnergyUse, MemoryUse, RuntimeFacts, Timing, Warmup
from edge_ran.bench.limit import throughput
from edge_ran.bench.measure import model_facts
from edge_ran.classifier import real_inputs
from edge_ran.errors import AcceleratorError, EnvironmentMissing, GateError, InputError
from edge_ran.files import sha256
from edge_ran.graph import Graph
from edge_ran.latency import LatencyStats, percentile_interval
from edge_ran.machine import Conditions, Machine
from edge_ran.model_interface import read_interface
from edge_ran.preprocess import Preprocessor
from edge_ran.runtime import Delegation, RuntimeOptions
from edge_ran.runtime.agreement import allowed, check_finite, compare_all
from edge_ran.targets.adb_phone import Facts, Phone
from edge_ran.targets.benchmark_model import Output, Request, Times
from edge_ran.targets.program import CannotSee, PhoneRuntime, Program, accelerator, threads

PROOF_PICTURES, PROOF_S = 3, 0.3  # that `auto` compares GPU and CPU on, and how long it runs each


class PhoneModel:
    """A model that is measured, and what was measured of it."""

    def __init__(self, path: Path, graph: Graph) -> None:
        if graph.has_open_size:
            raise InputError(
                f"{path} leaves the size of its input open: benchmark_model times a picture of one pixel",
                "use a board over ssh, with --input-size 224x224",
            )
        self.path, self.graph = path, graph
        self.options = RuntimeOptions()  # what it is run with; ``requested`` is what was asked for
        self.requested = self.there = ""
        self.outputs: list[Output] = []
        self.fallback_reason = self.auto_reason = ""

    def prepare(self, program: Program, options: RuntimeOptions) -> None:
        """Bring it there and choose the accelerator. Raises GateError where one that must be used is not available."""
        self.requested = options.accelerator
        self.there = program.send(self.path)
        if options.accelerator == "auto":
            chosen, self.auto_reason = _choose(program, self.graph, options)
            options = dataclasses.replace(options, accelerator=chosen)
        self.options = options

    def measure(self, program: Program, request: Request) -> None:
        """Run one session.

        Raises:
            GateError: the GPU is not available, and the options forbid to fall back.
            EnvironmentMissing: the program failed, or the phone went away.
        """
        request = dataclasses.replace(
            request,
            threads=threads(self.options, program.facts),
            gpu=self.options.accelerator == "gpu",
            gpu_precision=self.options.gpu_precision,
        )
        try:
            done, output = program.run(request, self.there)
        except AcceleratorError as error:
            if self.outputs:
                raise EnvironmentMissing(
                    f"the GPU served {len(self.outputs)} sessions, then {error}", "try again"
                ) from error
            if not self.options.fallback:
                raise GateError(
                    f"the GPU was asked for, but {error}", "leave --no-fallback out, or choose --cpu"
                ) from error
            self.fallback_reason = str(error)
            self.options = dataclasses.replace(self.options, accelerator="cpu")
            self.measure(program, request)
            return
        if done.status or output.times is None:
            raise program.failure(done, output)
        self.outputs.append(output)

    @property
    def sessions(self) -> list[list[float]]:
        """The median of each session, in a list of its own."""
        return [[times.median_ms] for times in self._times()]

    def _times(self) -> list[Times]:
        return [output.times for output in self.outputs if output.times is not None]

    def latency(self) -> LatencyStats:
        """What the sessions tell together: median and percentiles are the middle ones of them."""
        times = self._times()
        medians = [t.median_ms for t in times]
        runs = sum(t.runs for t in times)
        mean = sum(t.runs * t.mean_ms for t in times) / runs
        square = sum(t.runs * (t.std_ms**2 + (t.mean_ms - mean) ** 2) for t in times) / runs
        return LatencyStats(
            runs=runs,
            cold_ms=statistics.median(o.warmup.first_ms for o in self.outputs if o.warmup),
            mean_ms=mean,
            std_ms=math.sqrt(square),
            min_ms=min(t.min_ms for t in times),
            max_ms=max(t.max_ms for t in times),
            p5_ms=statistics.median(t.p5_ms for t in times),
            p50_ms=statistics.median(medians),
            p90_ms=None,
            p95_ms=statistics.median(t.p95_ms for t in times),
            p99_ms=None,
            p50_interval_ms=percentile_interval(medians, 50),
            outliers=None,
        )

    def report(self, program: Program, conditions: Conditions, plan: Plan) -> BenchReport:
        """What was measured, with None for what benchmark_model does not tell."""
        facts, graph, first, latency = program.facts, self.graph, self.outputs[0], self.latency()
        warmups = sum(o.warmup.runs for o in self.outputs if o.warmup)
        init_ms = statistics.median(o.init_ms for o in self.outputs if o.init_ms is not None)
        return BenchReport(
            name=self.path.name,
            model=model_facts(graph),
            accelerator=dataclasses.replace(
                accelerator(self.options, first, facts),
                requested=self.requested,
                fallback_reason=self.fallback_reason,
                auto_reason=self.auto_reason,
            ),
            delegation=_delegation(first, len(graph.operators)),
            runtime=RuntimeFacts(first.program, sha256(program.binary)[:12], threads(self.options, facts)),
            latency=BenchLatency(**vars(latency), init_ms=init_ms, warmup_runs=warmups),
            cold_start=ColdStart(None, None, init_ms, latency.cold_ms),
            warmup=Warmup(warmups, None, None),
            stages_ms=None,
            timing=Timing(
                includes_output_read=first.includes_output_read,
                clock=first.program,
                sessions=len(self.outputs),
                turns=len(self.outputs),
                session_medians_ms=tuple(one[0] for one in self.sessions),
            ),
            energy=EnergyUse(),
            memory=MemoryUse(peak_mb=first.peak_mb, loading_took_mb=first.init_mb, running_took_mb=first.overall_mb),
            throughput=throughput(graph.multiply_adds, latency.p50_ms, graph.precision, 1, on_cpu=False),
            environment=_environment(facts),
            conditions=conditions,
            plan=plan,
            input="random numbers",
            samples_ms=(),
        )


class PhoneMonitor:
    """Notes what the phone says of its warmth, from its making until ``stop``."""

    def __init__(self, phone: Phone) -> None:
        self._phone, self._before = phone, phone.warmth()
        self._begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begun

    def stop(self) -> Conditions:
        seconds, after = self.seconds, self._phone.warmth()
        signs = [status for status, _ in (self._before, after) if status is not None]
        return Conditions(
            seconds=round(seconds, 3),
            own_busy=None,
            others_busy=None,
            steal=None,
            preempted=None,
            clock_mhz_before=None,
            clock_mhz_after=None,
            temperature_c_before=self._before[1],
            temperature_c_after=after[1],
            throttled=any(signs) if signs else None,
        )


def _choose(program: Program, graph: Graph, options: RuntimeOptions) -> tuple[str, str]:
    """The faster of GPU and CPU if both answer alike, and why; the CPU where that cannot be shown."""
    try:
        interface = read_interface(graph.path)
        graph = interface.graph
        inputs = real_inputs(Preprocessor(interface.spec, interface.tensor), None, PROOF_PICTURES)
    except InputError as error:
        return "cpu", f"the GPU's answers cannot be judged: {error}"
    program.say("comparing its GPU with its CPU")
    with (
        PhoneRuntime(program, graph, dataclasses.replace(options, accelerator="cpu"), PROOF_S) as cpu,
        PhoneRuntime(program, graph, dataclasses.replace(options, accelerator="gpu"), PROOF_S) as gpu,
    ):
        try:
            right, cpu_ms = cpu.answers(inputs)
            check_finite(right, graph.path)
        except CannotSee as error:
            return "cpu", f"{error}; --gpu measures it unproved"
        except InputError as error:
            return "cpu", f"the GPU's answers cannot be judged: {error}"
        try:
            other, gpu_ms = gpu.answers(inputs)
        except AcceleratorError as error:
            return "cpu", f"no GPU: {error}"
    most = allowed(graph.precision, options.gpu_precision)
    agreement = compare_all(right, other, graph.outputs, most, graph.scores)
    if not agreement.is_right:
        return "cpu", f"the GPU is wrong: {agreement}"
    times = f"GPU {gpu_ms:.3g} ms, CPU {cpu_ms:.3g} ms"
    return ("gpu", f"faster and right: {times}") if gpu_ms < cpu_ms else ("cpu", f"the faster one: {times}")


def _delegation(output: Output, operators: int) -> Delegation:
    engine = output.engine
    if engine is None:
        return Delegation("an engine that it does not name", operators, None, None)
    whole = engine.kernels == 1 and engine.taken in (None, engine.of)
    return Delegation(
        engine=engine.name,
        operators=engine.of or operators,
        delegated=engine.taken if engine.taken is not None else operators if whole else None,
        partitions=engine.kernels,
        left_reason=output.left_reason,
    )


def _environment(facts: Facts) -> Machine:
    return Machine(
        board=facts.model or None,
        cpu=facts.soc or "unknown",
        architecture=facts.abis[0] if facts.abis else None,
        emulated_on=None,
        cores=facts.cores,
        memory_mb=facts.memory_mb,
        governor=facts.governor,
        virtual=facts.is_virtual,
        os=android(facts),
        python=None,
        load_average=facts.load_average,
    )


def android(facts: Facts) -> str:
    return f"Android {facts.android or '?'}" + (f", Linux {facts.kernel}" if facts.kernel else "")
