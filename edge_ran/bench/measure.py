"""Runs models and times them: cold start, warm-up until steady, many runs, whole frames."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_ran import energy, machine
from edge_ran.bench.compare import ratio_of_sessions
from edge_ran.bench.figures import (
    BenchLatency,
    ColdStart,
    EnergyUse,
    InputTensor,
    MemoryUse,
    ModelFacts,
    RuntimeFacts,
    StageTimes,
    Timing,
    Warmup,
)
from edge_ran.bench.limit import throughput
from edge_ran.bench.plan import Plan
from edge_ran.bench.report import Bench, BenchReport
from edge_ran.card import Overrides
from edge_ran.classifier import Classifier
from edge_ran.errors import AcceleratorError, InputError, UsageError
from edge_ran.files import sha256
from edge_ran.graph import Graph, forget_graphs, read_card, read_graph
from edge_ran.latency import LatencyStats, Stopwatch, interval, steady
from edge_ran.model_interface import check_image_classifier, of_one_size
from edge_ran.picture import read_picture
from edge_ran.pictures import shipped_pictures, spread
from edge_ran.printable import many
from edge_ran.runtime import Runtime, RuntimeOptions, interpreter, open_runtime
from edge_ran.runtime.agreement import check_finite

MOST_PICTURES = 16
LONGEST_WARMUP_S = 10.0
MOST_FRAMES = 50  # whole frames, for the times of the stages
NOISE = (480, 640, 3)
ROUND_S = 0.02  # of one model's turn
FEWEST_ROUNDS = 6  # in each session
# Two loads of one file differ by up to 5 % until they are loaded again, because their memory lies at different places.
# So each model is loaded so many times; with six, their extremes hold the median with 97 % confidence.
SESSIONS = 6

Note = Callable[[str], None]


@dataclass(frozen=True)
class BenchModel:
    """What is measured: a ``.tflite``, what is asked of the runtime, what to call it, and what its metadata lacks."""

    path: Path
    options: RuntimeOptions = field(default_factory=RuntimeOptions)
    name: str = ""
    overrides: Overrides = field(default_factory=Overrides)


def benchmark(
    subjects: Sequence[BenchModel],
    plan: Plan | None = None,
    *,
    pictures: Sequence[Path] | None = None,
    note: Note = lambda text: None,
) -> Bench:
    """Measure models one after another in short turns, so that what disturbs one disturbs all.

    Args:
        subjects: one or more models; the first is what the others are held against.
        plan: how long.
        pictures: what they are fed; up to sixteen, evenly spread over them, are used in turn. None: those of
            ``shipped_pictures``, else noise of 640x480.
        note: called with a word on what begins now.

    Raises:
        InputError: a model or picture cannot be used.
        EnvironmentMissing: no runtime, no accelerator.
    """
    plan = plan or Plan()
    if not subjects:
        raise UsageError("no model to measure")
    random = np.random.default_rng()
    with loaded(subjects, pictures, note) as models:
        sessions = min(SESSIONS, plan.num_runs) if len(models) == 1 else SESSIONS
        with _no_collector():
            watch, begun = machine.ConditionsMonitor(), time.perf_counter()
            for session in itertools.count(1):
                if session > 1:
                    _reload(models, random)
                note(f"warming up and measuring, session {session} of {max(session, sessions)}")
                for one in models:
                    one.warm_up(plan)
                _take_turns(models, plan, session / sessions, random)
                known = not plan.until or all(one.is_known_to(plan.until) for one in models)
                late = time.perf_counter() - begun >= plan.max_secs
                # A comparison wants all its sessions, however long they take: with fewer, it could say nothing.
                if (session >= sessions and known) or (late and (session >= sessions or len(models) == 1)):
                    break
            conditions = watch.stop()
        note("measuring whole frames")
        for one in models:
            one.run_frames(min(plan.num_runs, MOST_FRAMES))
        note("measuring what this machine can do")
        environment = machine.identity()
        reports = tuple(one.report(environment, conditions, plan) for one in models)
    ratios = tuple(ratio_of_sessions(one.name, models[0].name, one.sessions, models[0].sessions) for one in models[1:])
    return Bench(reports, ratios)


@contextmanager
def loaded(
    subjects: Sequence[BenchModel], pictures: Sequence[Path] | None = None, note: Note = lambda text: None
) -> Iterator[list[Loaded]]:
    """Load models and run each once; close them when the block ends. ``pictures`` as for ``benchmark``."""
    paths = spread(list(pictures if pictures is not None else shipped_pictures()), MOST_PICTURES)
    frames = [read_picture(p) for p in paths] or [np.random.default_rng(0).integers(0, 256, NOISE, np.uint8)]
    with ExitStack() as stack:
        models = []
        for subject in subjects:
            note(f"loading {subject.path.name}")
            models.append(stack.enter_context(Loaded(subject, frames, paths)))
        yield models


class Loaded:
    """A subject in memory, and everything measured on it so far."""

    def __init__(self, subject: BenchModel, frames: Sequence[NDArray[np.uint8]], paths: Sequence[Path]) -> None:
        self.subject, self.frames, self.paths = subject, frames, paths
        self.graph: Graph = read_graph(subject.path)
        if len(self.graph.inputs) != 1:
            raise InputError(
                f"{subject.path} has {len(self.graph.inputs)} inputs, only models with one can be measured",
                f"edge-ran inspect {shlex.quote(str(subject.path))}",
            )
        watch = Stopwatch()
        interpreter.load(interpreter.package(subject.options.runtime))
        self.import_ms = watch.lap("import")
        machine.reset_peak_memory()
        self.before_mb, _ = machine.memory_mb()
        self.classifier: Classifier | None = None
        card = read_card(subject.path)
        forget_graphs()
        watch = Stopwatch()
        try:
            check_image_classifier(self.graph, card, subject.overrides.labels)
        except InputError:
            shape = of_one_size(self.graph, card, subject.overrides).inputs[0].shape
            self.shape = shape if self.graph.has_open_size else ()
            self.runtime: Runtime = open_runtime(subject.path, subject.options, input_shape=self.shape)
        else:
            self.classifier = Classifier(subject.path, subject.options, subject.overrides)
            self.classifier.check_size()
            self.runtime = self.classifier.runtime
        self.trial_ms = self.runtime.trial_ms
        self.load_ms = watch.lap("load") - self.trial_ms
        self.accelerator = self.runtime.accelerator
        self.loaded_mb, _ = machine.memory_mb()
        self.huge_pages_mb = machine.huge_pages_mb()
        self.inputs = self._inputs()
        watch = Stopwatch()
        self.runtime.run(self.inputs[0])
        self.first_ms = watch.lap("first")
        _, self.peak_mb = machine.memory_mb()
        self.name = subject.name or subject.path.name
        self.typical_ms = self.first_ms
        self.warmup = Warmup(0, None, None)
        self.samples_ms: list[float] = []
        self.sessions: list[list[float]] = []  # times of each load
        self.turns = 0
        self.wall_ms = 0.0
        self.energy = energy.find()
        self.meter = energy.Meter(self.energy)
        self.stages_ms: StageTimes | None = None

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *exc: object) -> None:
        self.runtime.close()

    def _inputs(self) -> list[NDArray[Any]]:
        if self.classifier is not None:
            return [self.classifier.prepare(frame).copy() for frame in self.frames]
        tensor, random = self.runtime.input, np.random.default_rng(0)
        shape = [max(1, n) for n in tensor.shape]
        if np.issubdtype(np.dtype(tensor.dtype), np.floating):
            return [random.standard_normal(shape).astype(tensor.dtype)]
        info = np.iinfo(tensor.dtype)
        return [random.integers(info.min, min(info.max, 1 << 30), shape).astype(tensor.dtype)]

    def load_again(self) -> None:
        """Load the model anew; what was measured stays.

        Raises:
            AcceleratorError: it now runs on another accelerator, or in another precision.
        """
        options = self.subject.options.settled(self.accelerator)
        if self.classifier is not None:
            self.classifier = Classifier(self.subject.path, options, self.subject.overrides)
            self.runtime = self.classifier.runtime
        else:
            self.runtime = open_runtime(self.subject.path, options, input_shape=self.shape)
        again = self.runtime.accelerator
        if not again.is_that_of(self.accelerator):
            first, later = (f"{one.actual} {one.precision}".rstrip() for one in (self.accelerator, again))
            reason = f": {again.fallback_reason}" if again.fallback_reason else ""
            raise AcceleratorError(
                f"{self.name} ran on {first} in its first load and on {later} in a later one{reason}",
                "measure again; see what is missing: edge-ran doctor",
            )
        self.inputs = [x.copy() for x in self.inputs]

    def warm_up(self, plan: Plan) -> None:
        """Run until steady; turns then belong to this load."""
        times: list[float] = []
        start = time.perf_counter()
        feed = itertools.cycle(self.inputs)
        while len(times) < plan.warmup_runs or not steady(times):
            watch = Stopwatch()
            answers = self.runtime.run(next(feed))
            times.append(watch.lap("run"))
            if self.classifier is not None:  # what is fed with noise may answer anything
                check_finite([answers], self.subject.path)
            if time.perf_counter() - start > LONGEST_WARMUP_S and len(times) >= plan.warmup_runs:
                break
        if not self.sessions:
            self.warmup = Warmup(len(times), round(time.perf_counter() - start, 3), steady(times))
        self.sessions.append([])
        self.typical_ms = min(times[-5:])  # the others may have waited for other processes

    def turn(self, runs: int, alone: bool) -> None:
        """Run and time ``runs`` inferences back to back."""
        run, inputs, clock = self.runtime.run, self.inputs, time.perf_counter_ns
        count, offset = len(inputs), len(self.samples_ms)
        if not alone:
            run(inputs[offset % count])  # the other model has taken the caches: this run is not this model's fault
        times = [0] * runs
        self.meter.start()
        begun = clock()
        for i in range(runs):
            x = inputs[(offset + i) % count]
            start = clock()
            run(x)
            times[i] = clock() - start
        self.wall_ms += (clock() - begun) / 1e6
        self.meter.stop()
        turn_ms = [t / 1e6 for t in times]
        self.samples_ms += turn_ms
        self.sessions[-1] += turn_ms
        self.turns += 1

    def is_known_to(self, part: float) -> bool:
        """Whether the median is known to ``part`` of itself, over all loads."""
        found = interval(self.samples_ms, self.sessions, 50)
        return found is not None and (found[1] - found[0]) / 2 <= part * float(np.median(self.samples_ms))

    def run_frames(self, count: int) -> None:
        """Time whole frames, from the picture file to the ranked labels."""
        if self.classifier is None:
            return
        stages: dict[str, list[float]] = {}
        for i in range(count):
            watch = Stopwatch()
            frame = read_picture(self.paths[i % len(self.paths)]) if self.paths else self.frames[0]
            capture_ms = watch.lap("capture")
            self.classifier.classify(frame)
            end_ms = watch.lap("classify") + capture_ms
            parts = {"capture": capture_ms, **self.classifier.stages_ms, "end_to_end": end_ms}
            for stage, ms in parts.items():
                stages.setdefault(stage, []).append(ms)
        medians = {f"{stage}_ms": float(np.median(ms)) for stage, ms in stages.items()}
        capture_ms = medians.pop("capture_ms")
        self.stages_ms = StageTimes(capture_ms=capture_ms if self.paths else None, **medians)

    def report(self, environment: machine.Machine, conditions: machine.Conditions, plan: Plan) -> BenchReport:
        """Return what was measured so far."""
        stats = LatencyStats.from_ms(self.samples_ms, self.first_ms, self.sessions)
        graph, joules = self.graph, self.meter.joules
        fed = f"{many(len(self.paths), 'picture')}" if self.paths else "noise of 640x480"
        return BenchReport(
            name=self.name,
            model=model_facts(graph, InputTensor(tuple(self.runtime.input.shape), self.runtime.input.dtype)),
            accelerator=self.accelerator,
            delegation=self.runtime.delegation,
            runtime=RuntimeFacts(self.runtime.name, self.runtime.version, self.runtime.threads),
            latency=BenchLatency(**vars(stats), init_ms=self.load_ms, warmup_runs=self.warmup.runs),
            cold_start=ColdStart(self.import_ms, self.trial_ms, self.load_ms, self.first_ms),
            warmup=self.warmup,
            stages_ms=self.stages_ms,
            timing=Timing(
                includes_output_read=True,
                clock="perf_counter_ns",
                sessions=len(self.sessions),
                turns=self.turns,
                session_medians_ms=tuple(float(np.median(times)) for times in self.sessions),
                wall_ms=self.wall_ms,
                wall_per_run_ms=self.wall_ms / stats.runs,
            ),
            energy=EnergyUse(self.energy.name if self.energy else None, joules and joules / stats.runs),
            memory=MemoryUse(self.before_mb, self.loaded_mb, self.peak_mb, self.huge_pages_mb),
            throughput=throughput(
                graph.multiply_adds,
                stats.p50_ms,
                graph.precision,
                self.runtime.threads,
                self.accelerator.actual == "cpu",
            ),
            environment=environment,
            conditions=conditions,
            plan=plan,
            input=fed if self.classifier is not None else "noise",
            samples_ms=tuple(round(ms, 5) for ms in self.samples_ms),
        )


def model_facts(graph: Graph, tensor: InputTensor | None = None) -> ModelFacts:
    """Return the facts of a file; ``tensor`` is its input as the runtime sees it, None = as the file says."""
    card = read_card(graph.path)
    return ModelFacts(
        path=str(graph.path),
        name=card.name if card else None,
        network=card.network if card else None,
        sha256=sha256(graph.path),
        size_bytes=graph.size_bytes,
        precision=graph.precision,
        multiply_adds=graph.multiply_adds,
        operators=len(graph.operators),
        input=tensor or InputTensor(tuple(graph.inputs[0].shape), graph.inputs[0].dtype),
    )


def _take_turns(models: Sequence[Loaded], plan: Plan, share: float, random: np.random.Generator) -> None:
    """Let all run in turns, in random order, until ``share`` of the plan is done; above 1 goes on with it."""
    alone = len(models) == 1
    runs = {id(one): max(1, min(50, round(1e3 * ROUND_S / one.typical_ms))) for one in models}
    part = dataclasses.replace(
        plan,
        num_runs=max(1, round(share * plan.num_runs)),
        min_secs=share * plan.min_secs,
        until=min(0.99, plan.until / min(1.0, share) ** 0.5),
    )
    most_secs = min(1.0, share) * plan.max_secs
    check_at = rounds = 0
    while True:
        for place in random.permutation(len(models)):
            one = models[place]
            left = part.num_runs - len(one.samples_ms)
            one.turn(min(runs[id(one)], left) if alone and left > 0 else runs[id(one)], alone)
        seconds = sum(one.wall_ms for one in models) / len(models) / 1e3
        fewest = min(len(one.samples_ms) for one in models)
        rounds += 1
        too_few = fewest < check_at or not (alone or rounds >= FEWEST_ROUNDS)
        if too_few and seconds < most_secs:
            continue
        check_at = int(1.2 * fewest) if plan.until else 0  # an interval costs a sort
        if seconds >= most_secs or all(part.done(one.samples_ms, seconds) for one in models):
            return


def _reload(models: Sequence[Loaded], random: np.random.Generator) -> None:
    """Load all anew, elsewhere in memory: the allocator hands out what was freed in the same order again."""
    for one in models:
        one.runtime.close()
    padding = [np.ones(int(random.integers(1, 1 << 20)), np.uint8) for _ in range(8)]
    for place in random.permutation(len(models)):
        models[place].load_again()
        padding[place % 8] = np.ones(int(random.integers(1, 1 << 20)), np.uint8)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Python's garbage collector would stop some runs and not others."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
