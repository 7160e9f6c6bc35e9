"""A phone over adb. Nothing of Python runs there: the official ``benchmark_model`` does, which the user provides.

It is started several times, each with a load of its own, because two loads of one file differ; what it tells of each
session makes one record, with the keys of a local one and None for what it does not tell.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import random
import re
import shlex
import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edge_ran import verify, vulkan
from edge_ran.bench import Bench, BenchReport, Plan
from edge_ran.bench.compare import ratio_of_sessions
from edge_ran.bench.report import throughput
from edge_ran.catalogue import DeviceSpec
from edge_ran.classifier import check_image_classifier, input_spec, real_inputs
from edge_ran.errors import (
    AcceleratorError,
    EdgeRanError,
    EnvironmentMissing,
    GateError,
    InputError,
    UsageError,
)
from edge_ran.files import sha256
from edge_ran.graph import Graph, TensorSpec, read_card, read_graph
from edge_ran.latency import LatencyStats, percentile_interval
from edge_ran.machine import Conditions
from edge_ran.preprocess import Preprocessor
from edge_ran.runtime import Accelerator, Delegation, Runtime, RuntimeOptions, interpreter
from edge_ran.runtime.agreement import Agreement, compare
from edge_ran.runtime.types import GPU_PRECISIONS
from edge_ran.targets import benchmark_model
from edge_ran.targets.adb import Done, Facts, Phone
from edge_ran.targets.address import adb_serial
from edge_ran.targets.benchmark_model import Output, Request, Times
from edge_ran.targets.target import Order, Probe

BINARY_VARIABLE = "EDGE_RAN_BENCHMARK_MODEL"
SESSIONS = 6  # the extremes of six hold the median with 97 % confidence
LOADING_S = 180.0  # a GPU may compile its kernels for a minute and more
PROOF_PICTURES = 3  # that `auto` compares GPU and CPU on
ANSWER_RUNS = 3  # of one picture, for verify
MACHINES = {40: "armeabi-v7a", 183: "arm64-v8a", 62: "x86_64", 3: "x86", 243: "riscv64"}  # of ELF, as Android says it
SIGNALS = {4: "needs instructions that this processor lacks", 6: "aborted", 9: "was killed", 11: "crashed"}
INPUT_FLAGS = ("--input_layer_value_files", "--output_filepath")
SOURCE = "https://ai.google.dev/edge/litert/models/measurement"

Note = Callable[[str], None]


class _CannotSee(EnvironmentMissing):
    """This benchmark_model neither takes inputs from files nor writes what it answers."""


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
            facts = Phone(self._serial).facts(timeout_s)
        except EdgeRanError as error:
            return Probe(False, str(error), error.remedy)
        told = dict(
            system=f"{facts.model or 'a phone'}, {_android(facts)}", architecture=facts.abis[0] if facts.abis else ""
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
        _refuse(order, ("sustained", "profile", "sweep", "images"))
        if order.options.get("mlperf"):
            raise UsageError(
                "--mlperf is for the p90, which benchmark_model does not tell", "leave it out; look at the p95"
            )
        plan = order.plan or Plan()
        subjects = [_Subject(path, read_graph(path)) for path in order.models]
        program = self._program()
        for one in subjects:
            one.prepare(program, order.runtime)
        request = Request(
            num_runs=math.ceil(plan.num_runs / SESSIONS),
            warmup_runs=max(1, plan.warmup_runs),
            min_secs=plan.min_secs / SESSIONS,
            max_secs=plan.max_secs / SESSIONS,
        )
        watch = _Watch(program.phone)
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
        reports = tuple(one.report(program, conditions) for one in subjects)
        return Bench(reports, ratios).to_dict()

    def _verify(self, order: Order) -> dict[str, Any]:
        _refuse(order, ("network", "plot"))
        path = order.models[0]
        graph = read_graph(path)
        check_image_classifier(graph)
        pictures, count = order.options.get("images"), order.options.get("count", 32)
        folder = getattr(pictures, "root", pictures)
        inputs = real_inputs(Preprocessor(input_spec(graph, read_card(path)), graph.inputs[0]), folder, count)
        program = self._program()
        here = _here(graph, inputs)
        checks: list[verify.Check] = []
        options = dataclasses.replace(order.runtime, accelerator="cpu")
        with PhoneRuntime(program, graph, options) as cpu:
            self._say(f"{len(inputs)} pictures on its CPU")
            answers, cpu_ms = cpu.answers(inputs)
        checks.append(
            verify.Check(
                "cpu", "", program.facts.soc, "", False, compare(here, answers, graph.outputs[0]), cpu_ms, cpu_ms
            )
        )
        for precision in GPU_PRECISIONS:
            options = dataclasses.replace(order.runtime, accelerator="gpu", gpu_precision=precision)
            self._say(f"{len(inputs)} pictures on its GPU, {precision}")
            suspects = {one.index for check in checks for one in check.guilty}
            checks.append(self._check_gpu(program, graph, options, inputs, here, cpu_ms, suspects))
            if checks[-1].agreement is None:
                break
        name = program.name or "benchmark_model"
        return verify.Verification(str(path), name, sha256(program.binary)[:12], tuple(checks)).to_dict()

    def _check_gpu(
        self,
        program: Program,
        graph: Graph,
        options: RuntimeOptions,
        inputs: Sequence[NDArray[Any]],
        here: Sequence[NDArray[Any]],
        cpu_ms: float,
        suspects: Collection[int],
    ) -> verify.Check:
        try:
            with PhoneRuntime(program, graph, options) as gpu:
                answers, ms = gpu.answers(inputs)
                accelerator = gpu.accelerator
        except AcceleratorError as error:
            return verify.Check("gpu", "", program.facts.gpu, "", False, None, None, None, str(error))
        agreement = compare(here, answers, graph.outputs[0])
        guilty: tuple[verify.Guilty, ...] = ()
        if not agreement.is_right:
            self._say("searching the operators that it gets wrong")

            def load(part: Graph) -> Runtime:
                return cast(Runtime, PhoneRuntime(program, part, options, is_slice=True))

            guilty = verify.search(graph, load, inputs[: verify.SEARCH_PICTURES], suspects=suspects)
        return verify.Check(
            "gpu", options.gpu_precision, accelerator.adapter, accelerator.driver, accelerator.is_software, agreement,
            ms, cpu_ms, guilty=guilty,
        )  # fmt: skip


def find_binary(spec: DeviceSpec) -> Path:
    """Return the ``benchmark_model`` that the user provides: of the device's TOML, else of the environment.

    Raises:
        EnvironmentMissing: none is named, or there is no such file.
    """
    named = spec.benchmark_binary or os.environ.get(BINARY_VARIABLE, "")
    if not named:
        raise EnvironmentMissing(
            "a phone needs the official benchmark_model, and none is named",
            f"get it from {SOURCE}; benchmark_binary in a device's TOML or {BINARY_VARIABLE} names its file",
        )
    path = Path(named).expanduser()
    if not path.is_file():
        raise EnvironmentMissing(f"there is no benchmark_model at {path}", f"get it from {SOURCE}, or correct the path")
    return path


def check_binary(path: Path, facts: Facts) -> None:
    """Raise EnvironmentMissing for a program of another processor, or of a Linux that is not Android."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    if head[:4] != b"\x7fELF" or len(head) < 20:
        return  # a script may wrap it; what cannot be started says so there
    made_for = MACHINES.get(struct.unpack_from("<H", head, 18)[0], "another processor")
    remedy = f"get the one for {facts.abis[0] if facts.abis else 'this phone'} from {SOURCE}"
    if facts.abis and made_for not in facts.abis:
        raise EnvironmentMissing(f"{path.name} is for {made_for}, this phone runs {', '.join(facts.abis)}", remedy)
    if b"/lib/ld-" in head or b"/lib64/ld-" in head:
        raise EnvironmentMissing(f"{path.name} is for Linux, not for Android", remedy)


class Program:
    """The user's ``benchmark_model`` on a phone."""

    def __init__(self, phone: Phone, facts: Facts, binary: Path, say: Note) -> None:
        self.phone, self.facts, self.binary = phone, facts, binary
        self.name = ""  # which of the two it is; known after its first run
        self.say = say
        self._there = phone.put(binary, executable=True, note=say)
        run = phone.run_folder()
        # LiteRT's loads its GPU from a library that comes beside it.
        for library in sorted(binary.resolve().parent.glob("libLiteRt*.so")):
            if re.fullmatch(r"[\w.+-]+", library.name):
                phone.must(f"ln -sf {phone.put(library, note=say)} {run}/{library.name}", f"keep {library.name}")

    def send(self, model: Path) -> str:
        """Bring a model there, unless it is there; return its path there."""
        return self.phone.put(model, note=self.say)

    def run(self, request: Request, model: str, extra: Sequence[str] = ()) -> tuple[Done, Output]:
        """Run it once.

        Raises:
            EnvironmentMissing: the phone went away, or it took too long; it was ended.
        """
        run = self.phone.run_folder()
        command = shlex.join([self._there, *request.flags(model), *extra])
        # Where the connection breaks, the phone's adb hangs up on this shell, which then leaves nothing behind.
        script = (
            f"cd {run} && trap 'kill -9 $p 2>/dev/null; rm -rf {run}' HUP TERM\n"
            f"LD_LIBRARY_PATH={run} {command} 2>&1 &\np=$!\nwait $p"
        )
        done = self.phone.shell(script, LOADING_S + 2 * request.max_secs)
        output = benchmark_model.read(done.lines)
        self.name = output.program if output.times else self.name
        return done, output

    def failure(self, done: Done, output: Output) -> EnvironmentMissing:
        """Say in one line why it came to no end."""
        status, name = done.status, self.binary.name
        if status > 128:
            signal = status - 128
            why = SIGNALS.get(signal, f"was ended by signal {signal}")
            remedy = "try --cpu, or another version of it" if signal != 9 else "is the phone out of memory?"
            return EnvironmentMissing(f"{name} {why} on the phone (status {status})", remedy)
        if not any("STARTING!" in line for line in done.lines):  # with that both begin
            return EnvironmentMissing(
                f"{name} cannot be started on the phone: {output.reason or _last(done.lines)}",
                f"get the one for Android, {self.facts.abis[0] if self.facts.abis else 'its processor'}, from {SOURCE}",
            )
        if output.is_too_old:
            return EnvironmentMissing(f"{name} is too old: it tells no median", f"get a newer one from {SOURCE}")
        return EnvironmentMissing(
            f"{name} failed on the phone: {output.reason or _last(done.lines)}", "try --cpu, or another version of it"
        )


class PhoneRuntime:
    """A ``Runtime`` that feeds TensorFlow Lite's ``benchmark_model`` from files and reads what it writes."""

    def __init__(self, program: Program, graph: Graph, options: RuntimeOptions, is_slice: bool = False) -> None:
        self._program, self._options = program, options
        self._request = Request(
            num_runs=ANSWER_RUNS,
            warmup_runs=1,
            min_secs=0,
            warmup_secs=0,
            max_secs=60,
            threads=_threads(options, program.facts),
            gpu=options.accelerator == "gpu",
            gpu_precision=options.gpu_precision,
        )
        self._folder = tempfile.TemporaryDirectory(prefix="edge-ran-")
        folder = Path(self._folder.name)
        if is_slice:  # nobody will ask for it again
            self._model = program.phone.put_temporary(graph.path.read_bytes(), "slice.tflite", folder)
        else:
            self._model = program.send(graph.path)
        self.name, self.version = "benchmark_model", ""
        self.input: TensorSpec = graph.inputs[0]
        self.outputs: tuple[TensorSpec, ...] = graph.outputs
        self.accelerator = Accelerator(options.accelerator, "cpu")
        self.delegation = Delegation("", len(graph.operators), 0, 0)
        self.threads, self.chatter = self._request.threads, ""
        self.times_ms: list[float] = []

    def __enter__(self) -> PhoneRuntime:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary folder here."""
        self._folder.cleanup()

    def run(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Run once and read every output.

        Raises:
            AcceleratorError: the GPU was asked for and not got.
            EnvironmentMissing: the program cannot read inputs from files, or failed.
        """
        phone, folder = self._program.phone, Path(self._folder.name)
        names, shapes, files = [], [], []
        for place, x in enumerate(inputs):
            names.append(f"input{place}")
            shapes.append(",".join(map(str, x.shape)))
            files.append(f"input{place}:{phone.put_temporary(np.ascontiguousarray(x).tobytes(), f'in{place}', folder)}")
        answer = f"{phone.run_folder()}/out"
        extra = [
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={':'.join(shapes)}",
            f"--input_layer_value_files={','.join(files)}",
            f"--output_filepath={answer}",
        ]
        done, output = self._program.run(self._request, self._model, extra)
        if lacking := [flag for flag in INPUT_FLAGS if any(said.startswith(flag) for said in output.unknown_flags)]:
            raise _CannotSee(
                f"{self._program.binary.name} does not know {' and '.join(lacking)}: what it answers cannot be seen",
                f"use TensorFlow Lite's own, of 2.14 or later: {SOURCE}",
            )
        if self._request.gpu and (done.status or output.times is None or output.gpu is None):
            raise AcceleratorError(_why_no_gpu(self._program, done, output), "--cpu")
        if done.status or output.times is None:
            raise self._program.failure(done, output)
        self.times_ms.append(output.times.median_ms)
        self.accelerator = _accelerator(self._options, output, self._program.facts)
        sizes = [int(np.prod(t.shape)) * np.dtype(t.dtype).itemsize for t in self.outputs]
        data = phone.get(answer, sum(sizes), folder)
        if len(data) != sum(sizes):
            raise EnvironmentMissing(
                f"{self._program.binary.name} wrote {len(data)} bytes of answers, {sum(sizes)} are due",
                "is the phone's storage full? else use another version of it",
            )
        answers, start = [], 0
        for tensor, size in zip(self.outputs, sizes, strict=True):
            answers.append(np.frombuffer(data[start : start + size], tensor.dtype).reshape(tensor.shape).copy())
            start += size
        return answers

    def answers(self, inputs: Sequence[NDArray[Any]]) -> tuple[list[NDArray[Any]], float]:
        """Return the first output for each input, and the median milliseconds of a run."""
        found = []
        for number, x in enumerate(inputs, start=1):
            if len(inputs) > PROOF_PICTURES:
                self._program.say(f"picture {number} of {len(inputs)}")
            found.append(self.run(x)[0])
        return found, statistics.median(self.times_ms)


class _Subject:
    """A model that is measured, and what was measured of it."""

    def __init__(self, path: Path, graph: Graph) -> None:
        self.path, self.graph = path, graph
        self.options = RuntimeOptions()
        self.outputs: list[Output] = []
        self.reason = self.auto_reason = ""

    def prepare(self, program: Program, options: RuntimeOptions) -> None:
        """Bring it there and settle on the accelerator. Raises GateError for one that cannot be had and must be."""
        self.requested = options.accelerator
        self.there = program.send(self.path)
        if options.accelerator == "auto":
            chosen, self.auto_reason = _choose(program, self.graph, options)
            options = dataclasses.replace(options, accelerator=chosen)
        self.options = options

    def measure(self, program: Program, request: Request) -> None:
        """One session."""
        request = dataclasses.replace(
            request,
            threads=_threads(self.options, program.facts),
            gpu=self.options.accelerator == "gpu",
            gpu_precision=self.options.gpu_precision,
        )
        done, output = program.run(request, self.there)
        if request.gpu and (done.status or output.times is None or output.gpu is None):
            reason = _why_no_gpu(program, done, output)
            if not self.options.fallback:
                raise GateError(f"the GPU was asked for, but {reason}", "leave --no-fallback out, or choose --cpu")
            self.reason = reason
            self.options = dataclasses.replace(self.options, accelerator="cpu")
            self.outputs.clear()
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
        low, high = percentile_interval(medians, 50)
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
            p50_low_ms=low,
            p50_high_ms=high,
            outliers=None,
        )

    def report(self, program: Program, conditions: Conditions) -> BenchReport:
        """What was measured, with None for what benchmark_model does not tell."""
        facts, graph, first = program.facts, self.graph, self.outputs[0]
        card, latency = read_card(self.path), self.latency()
        return BenchReport(
            name=self.path.name,
            model={
                "path": str(self.path),
                "name": card.name if card else None,
                "network": card.network if card else None,
                "sha256": sha256(self.path),
                "size_bytes": graph.size_bytes,
                "precision": graph.precision,
                "multiply_adds": graph.multiply_adds,
                "operators": len(graph.operators),
                "input": {"shape": list(graph.inputs[0].shape), "dtype": graph.inputs[0].dtype},
            },
            accelerator=dataclasses.replace(
                _accelerator(self.options, first, facts),
                requested=self.requested,
                fallback_reason=self.reason,
                auto_reason=self.auto_reason,
            ),
            delegation=_delegation(first, len(graph.operators)),
            runtime={
                "name": first.program,
                "version": sha256(program.binary)[:12],
                "threads": _threads(self.options, facts),
            },
            latency=latency,
            cold_start={
                "import_ms": None,
                "load_ms": statistics.median(o.init_ms for o in self.outputs if o.init_ms is not None),
                "first_run_ms": latency.cold_ms,
            },
            warmup={"runs": sum(o.warmup.runs for o in self.outputs if o.warmup), "secs": None, "steady": None},
            stages_ms=None,
            timing={
                "includes_output_read": first.includes_output_read,
                "batch": 1,
                "clock": first.program,
                "wall_ms": None,
                "wall_per_run_ms": None,
                "sessions": len(self.outputs),
                "turns": len(self.outputs),
                "session_medians_ms": [one[0] for one in self.sessions],
            },
            energy={"sensor": None, "joules_per_run": None},
            memory={
                "before_mb": None,
                "loaded_mb": None,
                "peak_mb": first.peak_mb,
                "loading_took_mb": first.init_mb,
                "running_took_mb": first.overall_mb,
            },
            throughput=throughput(graph.multiply_adds, latency.p50_ms, graph.precision, 1, on_cpu=False),
            environment=_environment(facts),
            conditions=conditions,
            input="random numbers",
            samples_ms=(),
        )


class _Watch:
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
        check_image_classifier(graph)
        spec = input_spec(graph, read_card(graph.path))
        inputs = real_inputs(Preprocessor(spec, graph.inputs[0]), None, PROOF_PICTURES)
    except InputError as error:
        return "cpu", f"the GPU's answers cannot be judged: {error}"
    program.say("comparing its GPU with its CPU")
    with (
        PhoneRuntime(program, graph, dataclasses.replace(options, accelerator="cpu")) as cpu,
        PhoneRuntime(program, graph, dataclasses.replace(options, accelerator="gpu")) as gpu,
    ):
        try:
            right, cpu_ms = cpu.answers(inputs)
        except _CannotSee as error:
            return "cpu", f"{error}; --gpu measures it unproved"
        try:
            other, gpu_ms = gpu.answers(inputs)
        except AcceleratorError as error:
            return "cpu", f"no GPU: {error}"
    agreement: Agreement = compare(right, other, graph.outputs[0])
    if not agreement.is_right:
        return "cpu", f"the GPU is wrong: {agreement}"
    times = f"GPU {gpu_ms:.3g} ms, CPU {cpu_ms:.3g} ms"
    return ("gpu", f"faster and right: {times}") if gpu_ms < cpu_ms else ("cpu", f"the faster one: {times}")


def _here(graph: Graph, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """What this machine's CPU answers."""
    with interpreter.InterpreterRuntime(graph, interpreter.package(""), 0, Accelerator("cpu", "cpu")) as runtime:
        return [runtime.run(x)[0] for x in inputs]


def _why_no_gpu(program: Program, done: Done, output: Output) -> str:
    if done.status > 128:
        return str(program.failure(done, output))
    return output.reason or output.left_reason or f"{program.binary.name} names no GPU among what ran"


def _accelerator(options: RuntimeOptions, output: Output, facts: Facts) -> Accelerator:
    if output.gpu is None:
        return Accelerator(options.accelerator, "cpu")
    adapter = facts.gpu or output.backend
    return Accelerator(
        options.accelerator,
        "gpu",
        adapter=adapter,
        is_software=bool(vulkan.SOFTWARE_NAMES.search(adapter)),
        driver=output.backend,
        precision=options.gpu_precision,
    )


def _delegation(output: Output, operators: int) -> dict[str, Any]:
    engine = output.engine
    if engine is None:
        return {
            "engine": "what is not told",
            "operators": operators,
            "delegated": None,
            "partitions": None,
            "left_reason": "",
        }
    whole = engine.kernels == 1 and engine.taken in (None, engine.of)
    return {
        "engine": engine.name,
        "operators": engine.of or operators,
        "delegated": engine.taken if engine.taken is not None else operators if whole else None,
        "partitions": engine.kernels,
        "left_reason": output.left_reason,
    }


def _environment(facts: Facts) -> dict[str, Any]:
    return {
        "board": facts.model or None,
        "cpu": facts.soc or "unknown",
        "architecture": facts.abis[0] if facts.abis else None,
        "emulated_on": None,
        "cores": facts.cores,
        "memory_mb": facts.memory_mb,
        "governor": facts.governor,
        "virtual": facts.is_virtual,
        "os": _android(facts),
        "python": None,
        "load_average": facts.load_average,
    }


def _android(facts: Facts) -> str:
    return f"Android {facts.android or '?'}" + (f", Linux {facts.kernel}" if facts.kernel else "")


def _threads(options: RuntimeOptions, facts: Facts) -> int:
    return options.threads or facts.cores


def _refuse(order: Order, names: Sequence[str]) -> None:
    for name in names:
        if order.options.get(name):
            raise UsageError(
                f"--{name.replace('_', '-')} cannot be had of a phone: benchmark_model is all that runs there",
                "leave it out, or use a board over ssh",
            )


def _nothing_to_run(verb: str) -> tuple[str, str]:
    return f"a phone over adb cannot {verb}: there is no Python there", "benchmark and verify work with it"


def _last(lines: Sequence[str]) -> str:
    return next((line for line in reversed(lines) if line.strip()), "it says nothing")
