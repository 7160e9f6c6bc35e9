"""A phone over adb. Nothing of Python runs there: the official ``benchmark_model`` does, which the user provides."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

from numpy.typing import NDArray

from edge_ran import records, verify
from edge_ran.bench import Bench, Plan
from edge_ran.bench.compare import ratio_of_sessions
from edge_ran.catalogue import DeviceSpec
from edge_ran.classifier import real_inputs
from edge_ran.errors import AcceleratorError, EdgeRanError, UsageError
from edge_ran.files import sha256
from edge_ran.graph import Graph, read_graph
from edge_ran.model_interface import read_interface
from edge_ran.preprocess import Preprocessor
from edge_ran.runtime import RuntimeOptions
from edge_ran.runtime.agreement import Outputs, allowed, compare_all
from edge_ran.targets.adb import Adb
from edge_ran.targets.adb_phone import Phone
from edge_ran.targets.address import adb_serial
from edge_ran.targets.benchmark_model import Request
from edge_ran.targets.program import BrokenGpu, PhoneRuntime, Program, check_binary, find_binary
from edge_ran.targets.remote_runs import PhoneModel, PhoneMonitor, android
from edge_ran.targets.target import Order, Probe

SESSIONS = 6  # the extremes of six hold the median with 97 % confidence

Note = Callable[[str], None]


class AndroidTarget:
    """A ``Target`` over adb."""

    def __init__(self, spec: DeviceSpec, say: Note = lambda line: None) -> None:
        self.spec = spec
        self._say = say
        self._serial = adb_serial(spec.target)
        self._opened: Phone | None = None

    def __enter__(self) -> AndroidTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove temporary files there; the files that are kept by their hash stay."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def probe(self, timeout_s: float) -> Probe:
        """Look whether the phone answers."""
        try:
            facts = Phone(self._serial, Adb(starts_server=False)).facts(timeout_s)
        except EdgeRanError as error:
            return Probe(False, str(error), error.remedy)
        told = dict(
            system=f"{facts.model or 'a phone'}, {android(facts)}", architecture=facts.abis[0] if facts.abis else ""
        )
        try:
            binary = find_binary(self.spec)
            check_binary(binary, facts)
        except EdgeRanError as error:
            return Probe(True, str(error), error.remedy, **told)
        return Probe(True, runtime=f"{binary.name} {sha256(binary)[:12]}", **told)

    def answer(self, order: Order) -> dict[str, Any]:
        """Benchmark or verify there."""
        if order.runtime.delegate is not None:
            raise UsageError("--delegate is for this machine and boards over ssh", "a phone has --gpu or --cpu")
        if order.verb == "benchmark":
            return self._benchmark(order)
        if order.verb == "verify":
            return self._verify(order)
        raise UsageError(*_nothing_to_run(order.verb))

    def follow(self, order: Order, on_line: Note) -> None:
        """Refuses: there is no Python there."""
        raise UsageError(*_nothing_to_run(order.verb))

    def clean(self) -> int:
        """Remove everything of edge-ran's there; return its bytes."""
        return self._phone().empty()

    def _phone(self) -> Phone:
        if self._opened is None:
            self._opened = Phone(self._serial)
        return self._opened

    def _program(self) -> Program:
        binary = find_binary(self.spec)  # before anything is asked of the phone
        phone = self._phone()
        facts = phone.facts()
        check_binary(binary, facts)
        return Program(phone, facts, binary, self._say)

    def _benchmark(self, order: Order) -> dict[str, Any]:
        _refuse(order, ("images", "labels", "mean", "std", "input_size", "color"))
        if order.options.get("mlperf"):
            raise UsageError(
                "--mlperf is for the p90, which benchmark_model does not tell", "leave it out; look at the p95"
            )
        plan = order.plan or Plan()
        subjects = [PhoneModel(path, read_graph(path)) for path in order.models]
        program = self._program()
        for one in subjects:
            one.prepare(program, order.runtime)
        request = Request(
            num_runs=math.ceil(plan.num_runs / SESSIONS),
            warmup_runs=max(1, plan.warmup_runs),
            min_secs=plan.min_secs / SESSIONS,
            max_secs=plan.max_secs / SESSIONS,
        )
        watch = PhoneMonitor(program.phone)
        for session in itertools.count(1):
            for one in random.sample(subjects, len(subjects)):
                self._say(f"session {session}, of {SESSIONS} at least: {one.path.name}")
                one.measure(program, request)
            intervals = [one.latency().relative_interval for one in subjects]
            known = not plan.until or all(part is not None and part <= plan.until for part in intervals)
            if session >= SESSIONS and (known or watch.seconds >= plan.max_secs):
                break
        conditions = watch.stop()
        ratios = tuple(
            ratio_of_sessions(one.path.name, subjects[0].path.name, one.sessions, subjects[0].sessions)
            for one in subjects[1:]
        )
        reports = tuple(one.report(program, conditions, plan) for one in subjects)
        return Bench(reports, ratios).document()

    def _verify(self, order: Order) -> dict[str, Any]:
        _refuse(order, ("network", "plot"))
        path = order.models[0]
        interface = read_interface(path, order.overrides)
        graph = interface.graph
        pictures, count = order.options.get("images"), order.options.get("count", 32)
        folder = getattr(pictures, "root", pictures)
        inputs = real_inputs(Preprocessor(interface.spec, interface.tensor), folder, count)
        here = verify.cpu_answers(graph, RuntimeOptions(), inputs)
        program = self._program()
        options = dataclasses.replace(order.runtime, accelerator="cpu")
        with PhoneRuntime(program, graph, options) as runtime:
            answers, cpu_ms = runtime.answers(inputs, "CPU")
        agreement = compare_all(here, answers, graph.outputs, allowed(graph.precision, "fp32"), graph.scores)
        cpu = verify.Check("cpu", "", program.facts.soc, "", False, agreement, cpu_ms, cpu_ms)
        gpus = verify.check_precisions(
            order.runtime,
            lambda wanted, suspects: self._check_gpu(program, graph, wanted, inputs, here, cpu_ms, suspects),
        )
        name = program.name or "benchmark_model"
        return records.document(verify.Verification(str(path), name, sha256(program.binary)[:12], (cpu, *gpus)))

    def _check_gpu(
        self,
        program: Program,
        graph: Graph,
        options: RuntimeOptions,
        inputs: Sequence[NDArray[Any]],
        here: Sequence[Outputs],
        cpu_ms: float,
        suspects: Collection[int],
    ) -> verify.Check:
        try:
            with PhoneRuntime(program, graph, options) as gpu:
                answers, ms = gpu.answers(inputs, f"GPU {options.gpu_precision}")
                accelerator = gpu.accelerator
        except AcceleratorError as error:
            broken = isinstance(error, BrokenGpu)
            return verify.Check(
                "gpu", "", program.facts.gpu, "", False, None, None, None, str(error), is_broken=broken
            )  # fmt: skip
        most = allowed(graph.precision, options.gpu_precision)
        agreement = compare_all(here, answers, graph.outputs, most, graph.scores)
        wrong: tuple[verify.WrongOperator, ...] = ()
        if not agreement.is_right:
            self._say("searching the operators that the GPU computes wrongly")

            def answer(part: Graph, fed: list[list[NDArray[Any]]]) -> list[list[NDArray[Any]]]:
                with PhoneRuntime(program, part, options, is_slice=True) as one:
                    return [one.run(*x) for x in fed]

            few = inputs[: verify.SEARCH_PICTURES]
            wrong = verify.find_wrong_operators(graph, answer, few, suspects=suspects, allowed_error=most)
        return verify.Check(
            "gpu", options.gpu_precision, accelerator.adapter, accelerator.driver, accelerator.is_software, agreement,
            ms, cpu_ms, wrong_operators=wrong,
        )  # fmt: skip


def connected() -> list[DeviceSpec]:
    """Return the phones that are connected, where they are several; a bare ``adb:`` means the only one."""
    try:
        there = Adb(starts_server=False).listed()
    except EdgeRanError:
        return []
    specs = [(f"adb:{phone.serial}", phone) for phone in there]
    return [DeviceSpec(name, str(phone), "auto", "fp16", target=name) for name, phone in specs] if there[1:] else []


def _refuse(order: Order, names: Sequence[str]) -> None:
    for name in names:
        if order.options.get(name):
            raise UsageError(
                f"--{name.replace('_', '-')} is not possible on a phone: only benchmark_model runs there",
                "leave it out, or use a board over ssh",
            )


def _nothing_to_run(verb: str) -> tuple[str, str]:
    return f"a phone over adb cannot {verb}: there is no Python there", "benchmark and verify work with it"
