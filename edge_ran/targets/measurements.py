"""Benchmark, profile, sweep and sustained run, here or on another device: the same request, the same record."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_ran import bench
from edge_ran.bench import Axes, Bench, BenchModel, Plan, Profile, Setting, Sustained, Sweep
from edge_ran.card import Overrides
from edge_ran.catalogue import DeviceSpec
from edge_ran.dataset import load
from edge_ran.errors import EnvironmentMissing, InputError, UsageError
from edge_ran.evaluate import evaluate
from edge_ran.pictures import pictures_in, spread
from edge_ran.printable import many
from edge_ran.runtime import RuntimeOptions
from edge_ran.targets.defaults import DeviceDefaults, suited
from edge_ran.targets.devices import open_target
from edge_ran.targets.target import Order, Parcel

Note = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Request:
    """What is to be measured, on whichever device.

    Attributes:
        models: the ``.tflite`` files, of this machine.
        runtime: what is asked of the runtime.
        overrides: what the models' metadata lacks.
        images: a folder of pictures to feed; None: those that came with edge-ran.
        typed: the options that the user gave, by the name of their parameter, for a device to which they are sent.
        install: whether pip may install there what a device lacks.
        note: told what begins now.
        progress: called with (parts done, parts); None: nobody looks.
        talk: told each line that another device says.
    """

    models: tuple[Path, ...]
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    overrides: Overrides = field(default_factory=Overrides)
    images: Path | None = None
    typed: Mapping[str, Any] = field(default_factory=dict)
    install: bool = False
    note: Note = lambda text: None
    progress: Progress | None = None
    talk: Note = lambda text: None

    @property
    def pictures(self) -> list[Path] | None:
        """The pictures that are fed. Raises InputError where the folder has none."""
        return pictures_in(self.images) if self.images else None

    def suited(self, spec: DeviceSpec, only_threads: bool = False) -> Request:
        """Return it with what the device's description says of accelerator and threads, where the user said nothing."""
        own = suited(spec, self.typed)
        own = DeviceDefaults(threads=own.threads) if only_threads else own
        return dataclasses.replace(self, runtime=own.runtime(self.runtime), typed={**self.typed, **own.options()})


def benchmark(
    specs: Sequence[DeviceSpec],
    request: Request,
    plan: Plan,
    on_failure: Callable[[EnvironmentMissing], None] = lambda error: None,
) -> Bench:
    """Measure models on one device or several, one device after the other.

    Args:
        specs: the devices; the first is what the others are compared with.
        request: what.
        plan: how long.
        on_failure: told of each device of several that could not be measured, at once; the others are measured.

    Raises:
        UsageError: a device is given twice, or cannot do what is asked.
        EnvironmentMissing: the only device, or every device, could not be measured.
    """
    if len({spec.name for spec in specs}) < len(specs):
        raise UsageError("the same --device was given twice", "name each once")
    if len(specs) == 1:
        found = _benchmark(specs[0], request, plan)
        for one in found.failed:  # of several phones
            remedy = one.remedy or "keep its page in front, the screen on"
            on_failure(EnvironmentMissing(f"{one.device}: {one.reason}", remedy))
        return found
    benches: dict[str, Bench] = {}
    failed = []
    for spec in specs:
        request.note(f"measuring on {spec.name}")
        try:
            benches[spec.name] = _benchmark(spec, request, plan)
        except EnvironmentMissing as error:  # one board that is off must not cost the others' figures
            on_failure(error)
            failed.append(bench.FailedDevice(spec.name, str(error)))
    if not benches:
        raise EnvironmentMissing("no device could be measured", "edge-ran devices")
    return dataclasses.replace(bench.across(benches), failed=tuple(failed))


def _benchmark(spec: DeviceSpec, request: Request, plan: Plan) -> Bench:
    request, names = request.suited(spec), bench.distinct_names(request.models)
    if spec.target != "local":
        record = _ask(spec, request, "benchmark", plan)
        with believing(spec):
            found = bench.read_bench(record)
            if len(found.reports) > len(names) or found.failed:  # several phones, by their own names
                return found
            return found.on(spec.name).called(names)
    _check_local(request)
    models = [
        BenchModel(path, request.runtime, name, request.overrides)
        for path, name in zip(request.models, names, strict=True)
    ]
    return bench.benchmark(models, plan, pictures=request.pictures, note=request.note).on(spec.name)


def profile(spec: DeviceSpec, request: Request) -> Profile:
    """Time each operator of a model alone, on the CPU. Raises as ``benchmark``."""
    request = request.suited(spec, only_threads=True)
    if spec.target == "local":
        _check_local(request)
        return bench.profile(request.models[0], request.runtime.threads, progress=request.progress)
    record = _ask(spec, request, "profile")
    with believing(spec):
        return bench.read_profile(record)


def sustain(spec: DeviceSpec, request: Request, seconds: float) -> Sustained:
    """Run a model without a pause for ``seconds``. Raises as ``benchmark``."""
    request = request.suited(spec)
    if spec.target == "local":
        _check_local(request)
        model = BenchModel(request.models[0], request.runtime, overrides=request.overrides)
        return bench.sustain(model, seconds, request.pictures, request.progress)
    record = _ask(spec, request, "sustain", seconds=seconds)
    with believing(spec):
        return bench.read_sustained(record)


def sweep(spec: DeviceSpec, request: Request, plan: Plan, axes: Axes, labelled: Path | None = None) -> Sweep:
    """Measure a network with every combination of settings.

    Args:
        spec: the device.
        request: what; its accelerator and threads hold where ``axes`` do not vary them.
        plan: how long.
        axes: what is varied.
        labelled: class folders or an ``.npz`` to measure each file's accuracy on; None: it is not measured.

    Raises:
        UsageError, InputError, EnvironmentMissing: as ``benchmark``.
    """
    request = request.suited(spec)
    settings = bench.combinations(request.models[0], axes, request.runtime)
    if spec.target != "local":
        if labelled is not None and labelled.suffix.lower() == ".csv":
            raise UsageError("--accuracy-on cannot send a manifest to a device", "give a folder or a .npz")
        record = _ask(spec, request, "sweep", plan, tuple(setting.path for setting in settings))
        with believing(spec):
            found = bench.read_sweep(record)
        return dataclasses.replace(found, reports=found.bench.on(spec.name).reports)
    _check_local(request)
    data = load(labelled) if labelled else None  # before minutes of measuring
    models = [dataclasses.replace(setting.subject, overrides=request.overrides) for setting in settings]
    measured = bench.benchmark(models, plan, pictures=request.pictures, note=request.note).on(spec.name)
    accuracy: dict[str, bench.Accuracy] = {}
    if data is not None:
        request.note(f"classifying {many(len(data.samples), 'image')} with each file")

        def judge(setting: Setting) -> bench.Accuracy:
            found = evaluate(setting.path, data, options=setting.options, overrides=request.overrides)
            return bench.Accuracy(found.top1, found.top1_interval)

        accuracy = bench.accuracies(settings, judge)
    return bench.sweep_of(settings, measured, accuracy)


@contextlib.contextmanager
def believing(spec: DeviceSpec) -> Iterator[None]:
    """While a device's answer is read: what cannot be one is the device's fault, not the user's."""
    try:
        yield
    except InputError as error:
        remedy = "see what runs there: edge-ran devices DEVICE"
        raise EnvironmentMissing(f"{spec.name} sent an answer that cannot be used: {error}", remedy) from error


def _check_local(request: Request) -> None:
    if request.install:
        raise UsageError("--install is for another device", "add --device ssh://user@host, or leave it out")


def _ask(
    spec: DeviceSpec,
    request: Request,
    verb: str,
    plan: Plan | None = None,
    beside: tuple[Path, ...] = (),
    seconds: float = 0.0,
) -> dict[str, Any]:
    """Let the device carry the verb out; return its record, which is untrusted."""
    typed = dict(request.typed)
    if request.images:
        fed = spread(request.pictures or [], bench.MOST_PICTURES)  # as they are taken here
        typed["images"] = Parcel(request.images, tuple(fed))
    order = Order(verb, request.models, typed, request.runtime, plan, beside, seconds, request.overrides)
    with open_target(spec, request.talk, request.install) as target:
        return target.answer(order)
