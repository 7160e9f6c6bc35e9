"""`edge-ran benchmark`."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_ran.cli.app import (
    AcceleratorName,
    Cpu,
    Delegate,
    DelegateOption,
    Force,
    Gpu,
    GpuPrecision,
    Install,
    Json,
    NoFallback,
    Quiet,
    Threads,
    Verbose,
    announce,
    app,
    believing,
    complain,
    emit,
    human_size,
    parse_seconds,
    progress_bar,
    progress_note,
    runtime_options,
    suited,
    talk,
    tflite_or_default,
)
from edge_ran.cli.command import given
from edge_ran.errors import EdgeRanError, EnvironmentMissing, InputError, UsageError

if TYPE_CHECKING:
    from edge_ran.bench import Accuracy, Bench, Plan, Profile, Setting, Sustained
    from edge_ran.catalogue import DeviceSpec
    from edge_ran.report import Report
    from edge_ran.runtime import RuntimeOptions


def _percent(option: str, text: str) -> float:
    """Read ``5%`` or ``5`` as 0.05."""
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 <= percent < math.inf:  # nothing is slower than "nan": the gate would let all through
        raise UsageError(f"{option} {text!r} is not a percentage", f"for instance {option} 5%")
    return percent / 100


@app.command()
def benchmark(
    context: typer.Context,
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="A .tflite or a run folder; several are measured in turns, against the first.",
            show_default="newest run, else the shipped one",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            "-d",
            metavar="DEVICE",
            help="Where to measure: ssh://user@host[:port], adb:SERIAL, a name, a .toml; several give one table.",
            show_default="local",
        ),
    ] = None,
    install: Install = False,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures to feed.", show_default="those that came with edge-ran"),
    ] = None,
    num_runs: Annotated[int, typer.Option(help="Runs, at least.")] = 50,
    warmup_runs: Annotated[int, typer.Option(help="Runs before, at least; goes on until steady.")] = 5,
    min_secs: Annotated[float, typer.Option(help="Seconds of runs, at least.")] = 1.0,
    max_secs: Annotated[float, typer.Option(help="Seconds of runs, at most.")] = 150.0,
    until: Annotated[str, typer.Option(metavar="PERCENT", help="Go on until the median is known to ± so much.")] = "0%",
    mlperf: Annotated[
        bool, typer.Option("--mlperf", help="MLPerf single stream: at least 1,024 runs and 60 s; look at the p90.")
    ] = False,
    accelerator: AcceleratorName = "auto",
    cpu: Cpu = False,
    gpu: Gpu = False,
    no_fallback: NoFallback = False,
    threads: Threads = 0,
    delegate: Delegate = None,
    delegate_option: DelegateOption = None,
    gpu_precision: GpuPrecision = "fp16",
    result_json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV line for each model.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the distribution of run times (.png, .svg, .pdf).")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one self-contained page with plots.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An earlier --result-json to hold it to.")
    ] = None,
    max_regression: Annotated[
        str | None, typer.Option(metavar="PERCENT", help="Exit 1 when more than that slower than --baseline.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Measure nothing; compare two --result-json, B to A."),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=A,B…", help="Every combination of threads=, precision=, accelerator=."),
    ] = None,
    accuracy_on: Annotated[
        Path | None, typer.Option(metavar="DATA", help="With --sweep: labelled images, for accuracy against latency.")
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Where the time goes: each operator alone, on one thread unless --threads."),
    ] = False,
    sustained: Annotated[
        str | None, typer.Option(metavar="TIME", help="Run for so long (10m) and tell what becomes of the speed.")
    ] = None,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure how fast a .tflite is, here or on a device, and whether the number may be quoted."""
    chosen = given(context, "models", "device", "install", "json", "force", "quiet", *REPORTS)
    allowed = _percent("--max-regression", max_regression) if max_regression is not None else None
    if allowed is not None and baseline is None and compare is None:
        raise UsageError("--max-regression needs something to hold it to", "add --baseline FILE")
    from edge_ran import bench, plots, report, targets
    from edge_ran.files import refuse_existing, write_text

    if compare is not None:
        found = bench.compare_files(*compare)
        emit(json, dataclasses.asdict(found), lambda: "\n".join([str(found), *(f"! {c}" for c in found.cautions)]))
        if allowed is not None:
            bench.check_regression(found, allowed)
        return
    for target in filter(None, (result_json, csv, plot, html)):
        refuse_existing(target, force)
    specs = [targets.resolve(text) for text in device or ["local"]]
    if plot and any(spec.target.startswith("adb:") for spec in specs):
        raise UsageError("--plot draws the time of each run, which phones do not tell", "use --html or --csv")
    if plot:
        plots.check_target(plot)
    if html:
        report.check()
    before = bench.read_report(baseline) if baseline else None
    terms = [*(sweep or []), *(str(m) for m in models or [] if bench.is_term(str(m)))]
    models = [m for m in models or [] if not bench.is_term(str(m))]
    paths = [tflite_or_default(model) for model in models] or [tflite_or_default(None)]
    if len(paths) > 1 and (before or profile or sustained or terms):
        raise UsageError("--baseline, --profile, --sustained and --sweep are for one model", "name one")
    if len(specs) > 1 and (before or profile or sustained or terms):
        raise UsageError("--baseline, --profile, --sustained and --sweep are for one device", "name one")
    if len({spec.name for spec in specs}) < len(specs):
        raise UsageError("the same --device was given twice", "name each once")
    if csv and (profile or sustained):
        raise UsageError("--csv has no line for --profile or --sustained", "use --result-json")
    task = _Task(
        paths=tuple(paths),
        terms=tuple(terms),
        plan=bench.Plan.mlperf()
        if mlperf
        else bench.Plan(num_runs, warmup_runs, min_secs, max_secs, _percent("--until", until)),
        pictures=bench.pictures_in(images) if images else None,
        images=images,
        profile=profile,
        sustained_s=parse_seconds(sustained) if sustained else None,
        accuracy_on=accuracy_on,
        quiet=quiet,
    )

    def measure(spec: DeviceSpec) -> _Measured:
        own = suited(spec, chosen)
        options = runtime_options(
            own.get("accelerator", accelerator), cpu, gpu, no_fallback, own.get("threads", threads), delegate,
            delegate_option, gpu_precision, verbose,
        )  # fmt: skip
        if spec.target == "local":
            return task.here(spec, options)
        return task.there(spec, {**chosen, **own}, options, install)

    failed: dict[str, EdgeRanError] = {}
    if len(specs) == 1:
        done = measure(specs[0])
    else:
        benches = {}
        for spec in specs:
            progress_note(quiet)(f"measuring on {spec.name}")
            try:
                benches[spec.name] = measure(spec).bench
            except EnvironmentMissing as error:  # one board that is off must not cost the others' figures
                complain(str(error), error.remedy)
                failed[spec.name] = error
        if not benches:
            raise EnvironmentMissing("no device could be measured", "edge-ran devices")
        done = _of_devices(bench.across(benches))
        done.record["failed"] = [{"device": name, "what": str(error)} for name, error in failed.items()]
    record, text = done.record, done.text
    if before:
        ratio = bench.regression(record, before, record["name"], str(baseline))
        record["regression"] = dataclasses.asdict(ratio)
        text = "\n".join([text, str(ratio), *(f"! {caution}" for caution in ratio.cautions)])
    if html:
        report.write(done.page(), html)
    if plot:
        done.draw(plot)
    if csv:
        write_text(csv, bench.csv_lines(done.bench.reports))
    if result_json:
        write_text(result_json, jsonlib.dumps(record, indent=1, allow_nan=False))
    emit(json, record, lambda: text)
    if before and allowed is not None:
        bench.check_regression(ratio, allowed)
    if failed:
        raise typer.Exit(EnvironmentMissing.exit_code)


# What a report may become; made here wherever it was measured.
REPORTS = ("result_json", "csv", "plot", "html", "baseline", "max_regression", "compare")


@dataclass(frozen=True)
class _Measured:
    """What was found, in each form that may be asked for; ``bench`` where models were measured whole."""

    record: dict[str, Any]
    text: str
    page: Callable[[], Report]
    draw: Callable[[Path], None]
    found: Bench | None = None

    @property
    def bench(self) -> Bench:
        assert self.found is not None
        return self.found


@dataclass(frozen=True)
class _Task:
    """What to measure, here or there."""

    paths: tuple[Path, ...]
    terms: tuple[str, ...]
    plan: Plan
    pictures: list[Path] | None
    images: Path | None
    profile: bool
    sustained_s: float | None
    accuracy_on: Path | None
    quiet: bool

    def here(self, spec: DeviceSpec, options: RuntimeOptions) -> _Measured:
        """Measure on this machine."""
        from edge_ran import bench
        from edge_ran.dataset import load
        from edge_ran.evaluate import evaluate as evaluate_on

        note, name = progress_note(self.quiet), self.paths[0].name
        if self.profile:
            with progress_bar("timing operators", self.quiet) as progress:
                return _of_profile(name, bench.profile(self.paths[0], options.threads or 1, progress=progress))
        if self.sustained_s is not None:
            subject = bench.BenchModel(self.paths[0], options)
            with progress_bar("running", self.quiet) as progress:
                return _of_sustained(name, bench.sustain(subject, self.sustained_s, self.pictures, progress))
        if self.terms:
            grid = bench.combinations(self.paths[0], self.terms, options)
            measured = bench.benchmark([s.subject for s in grid], self.plan, pictures=self.pictures, note=note)
            accuracy = {}
            if self.accuracy_on:
                labelled = load(self.accuracy_on)
                note(f"classifying {len(labelled.samples)} images with each file")

                def judge(setting: Setting) -> Accuracy:
                    found = evaluate_on(setting.path, labelled, options=setting.options)
                    return bench.Accuracy(found.top1, found.top1_interval)

                accuracy = bench.accuracies(grid, judge)
            return _of_sweep(measured.on(spec.name), bench.overview(grid, measured, accuracy))
        subjects = [bench.BenchModel(path, options) for path in self.paths]
        measured = bench.benchmark(subjects, self.plan, pictures=self.pictures, note=note)
        return _of_models(measured.called(bench.distinct_names(self.paths)).on(spec.name), self.quiet)

    def there(self, spec: DeviceSpec, chosen: Mapping[str, Any], options: RuntimeOptions, install: bool) -> _Measured:
        """Measure on another device, by the same command there; the record is the same."""
        from edge_ran import bench, records, targets

        wanted = {**chosen, **({"sweep": list(self.terms)} if self.terms else {})}
        if self.images:
            fed = (self.pictures or [])[: bench.MOST_PICTURES]
            wanted["images"] = targets.Parcel(self.images, tuple(fed))
        if self.accuracy_on:
            if self.accuracy_on.suffix.lower() == ".csv":
                raise UsageError("--accuracy-on cannot take a manifest to a device", "give a folder or a .npz")
            wanted["accuracy_on"] = self.accuracy_on
        terms, beside = self.terms, list[Path]()
        if terms:
            beside = [setting.path for setting in bench.combinations(self.paths[0], terms, options)]
        order = targets.Order("benchmark", self.paths, wanted, options, self.plan, tuple(beside))
        with targets.open_target(spec, talk(self.quiet), install) as target:
            record = target.answer(order)
        name = self.paths[0].name
        with believing(spec):
            if self.profile:
                return _of_profile(name, bench.Profile.from_dict(record))
            if self.sustained_s is not None:
                return _of_sustained(name, bench.Sustained.from_dict(record))
            found = bench.Bench.from_dict(record).on(spec.name)
            if terms:
                rows = records.read(tuple[Any, ...], record.get("table"), "table")
                return _of_sweep(found, [_row(row) for row in rows])
            return _of_models(found.called(bench.distinct_names(self.paths)), self.quiet)


# A line of a sweep's table.
ROW = {
    "name": str, "converter": str, "accelerator": str, "actual": str, "doubt": str, "threads": int, "median_ms": float,
    "p90_ms": float, "ratio": float, "size_mb": float, "top1": float | None,
    "top1_interval": tuple[float, ...] | None,
}  # fmt: skip


def _row(told: Any) -> dict[str, Any]:
    """Return a line that another machine wrote. Raises InputError where it is none."""
    from edge_ran import records

    row: dict[str, Any] = records.read(ROW, told, "table")
    if len(row["top1_interval"] or ()) != (0 if row["top1"] is None else 2):
        raise InputError(f"table holds an accuracy between {row['top1_interval']}")
    return row


def _of_profile(name: str, parts: Profile) -> _Measured:
    from edge_ran import bench, plots

    def draw(target: Path) -> None:
        plots.shares(parts.by(lambda o: o.place), target, f"{name}: where {parts.whole_ms:.3g} ms go")

    return _Measured(parts.to_dict(), _profile_text(parts), lambda: bench.profile_page(name, parts), draw)


def _of_sustained(name: str, course: Sustained) -> _Measured:
    from edge_ran import bench

    def draw(target: Path) -> None:
        bench.draw_sustained(course, target, f"{name}: {course}")

    return _Measured(course.to_dict(), str(course), lambda: bench.sustained_page(name, course), draw)


def _of_sweep(measured: Bench, rows: list[dict[str, Any]]) -> _Measured:
    from edge_ran import bench, plots

    def draw(target: Path) -> None:
        if all(row["top1"] is not None for row in rows):
            points = [(r["name"], r["median_ms"], r["top1"], r["top1_interval"]) for r in rows]
            plots.accuracy_against_latency(points, target)
        else:
            plots.latency_histogram({r.name: r.samples_ms for r in measured.reports}, target)

    advice = bench.recommend(rows)
    record = {**measured.to_dict(), "table": rows, "recommendation": dataclasses.asdict(advice) if advice else None}
    doubts = dict.fromkeys(f"! {row['doubt']}" for row in rows if row["doubt"])
    text = "\n".join([_sweep_text(rows), *([advice.text] if advice else []), *doubts])
    return _Measured(record, text, lambda: bench.bench_page(measured, rows), draw, measured)


def _of_models(measured: Bench, quiet: bool) -> _Measured:
    for one in measured.reports:
        announce(one.accelerator, quiet)
    return dataclasses.replace(_of_devices(measured), text=_bench_text(measured))


def _of_devices(measured: Bench) -> _Measured:
    from edge_ran import bench, plots

    def draw(target: Path) -> None:
        plots.latency_histogram({r.name: r.samples_ms for r in measured.reports}, target)

    return _Measured(measured.to_dict(), _devices_text(measured), lambda: bench.bench_page(measured), draw, measured)


def _profile_text(parts: Any) -> str:
    def table(title: str, sums: dict[str, float]) -> Iterator[str]:
        width = max(len(name) for name in (*sums, title))
        whole = sum(sums.values())
        yield f"{title:<{width}}        ms   share"
        for name, ms in sorted(sums.items(), key=lambda item: -item[1]):
            yield f"{name:<{width}}  {ms:8.4f}  {ms / whole:6.1%}"

    costly = sorted(parts.operators, key=lambda o: -o.ms)[:10]
    return "\n".join(
        [
            f"{parts.whole_ms:.4g} ms on {_many(parts.threads, 'thread')}; the operators, each alone, add up to "
            f"{parts.accounted:.0%} of it, less {1e3 * parts.call_ms:.2g} µs each for its call",
            "",
            *table("operator", parts.by(lambda o: o.name)),
            "",
            *table("place", parts.by(lambda o: o.place)),
            "",
            "the ten slowest",
            *(
                f"{o.ms:8.4f} ms  {o.multiply_adds / o.ms / 1e6:7.1f} GMAC/s  {o.name} {o.place} {o.shape}"
                for o in costly
            ),
            *(f"! does not run alone: {line}" for line in parts.failed),
        ]
    )


def _sweep_text(rows: list[dict[str, Any]]) -> str:
    width = max(len(row["name"]) for row in rows)
    lines = [f"{'':<{width}}  median ms    p90 ms  ratio       MB  top-1 (95 %)          on"]
    for row in rows:
        top1 = "-"
        if row["top1"] is not None:
            low, high = row["top1_interval"]
            top1 = f"{row['top1']:.1%} ({low:.1%}-{high:.1%})"
        lines.append(
            f"{row['name']:<{width}}  {row['median_ms']:9.4g} {row['p90_ms']:9.4g} {row['ratio']:6.2f} "
            f"{row['size_mb']:8.2f}  {top1:<20}  {row['accelerator']}"
        )
    return "\n".join(lines)


def _many(count: int | None, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{_count(count)} {word}s"


def _count(count: int | None) -> str:
    return "an unknown number" if count is None else str(count)


def _devices_text(measured: Bench) -> str:
    """A line for each device, or each model on each device."""
    ratios = {ratio.name: f"{ratio.ratio:.2f}" for ratio in measured.ratios}
    rows = [("", "median ms", "95 %", "p90 ms", "ratio", "on", "threads", "to quote")]
    for one in measured.reports:
        stats = one.latency
        interval = "" if stats.p50_low_ms is None else f"{stats.p50_low_ms:.3g} - {stats.p50_high_ms:.3g}"
        rows.append(
            (
                one.name,
                f"{stats.p50_ms:.3g}",
                interval,
                "-" if stats.p90_ms is None else f"{stats.p90_ms:.3g}",
                ratios.get(one.name, "1"),
                str(one.accelerator),
                str(one.runtime["threads"]),
                "yes" if one.validity()["quotable"] else "no",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    for one in measured.reports:
        lines += [f"! {one.name}: {reason}" for reason in one.validity()["reasons"]]
    return "\n".join(lines)


def _bench_text(measured: Any) -> str:
    blocks = ["\n".join(_bench_lines(report)) for report in measured.reports]
    if measured.ratios:
        blocks.append("\n".join(map(str, measured.ratios)))
    return "\n\n".join(blocks)


def _bench_lines(report: Any) -> Iterator[str]:
    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"

    stats, model, memory, speed = report.latency, report.model, report.memory, report.throughput
    yield (
        f"{report.name}: {model['precision']}, {human_size(model['size_bytes']).strip()}, "
        f"{model['multiply_adds'] / 1e6:.4g} M multiply-adds"
    )
    pieces = report.delegation
    yield (
        f"on        {report.accelerator}, {report.runtime['name']} {report.runtime['version']}, "
        f"{_many(report.runtime['threads'], 'thread')}; {pieces['engine']} runs {_count(pieces['delegated'])} of "
        f"{pieces['operators']} operators in {_many(pieces['partitions'], 'piece')}"
    )
    interval = f"  (95 %: {ms(stats.p50_low_ms)} to {ms(stats.p50_high_ms)})" if stats.p50_low_ms is not None else ""
    yield f"median    {ms(stats.p50_ms)}{interval}"
    yield (
        f"spread    p5 {ms(stats.p5_ms)}, p90 {ms(stats.p90_ms)}, p95 {ms(stats.p95_ms)}, p99 {ms(stats.p99_ms)}, "
        f"mean {ms(stats.mean_ms)} ± {ms(stats.std_ms)}"
    )
    outliers = "" if stats.outliers is None else f"; {stats.outliers:,} outliers, all kept"
    loads = report.timing["sessions"]
    loaded = f", loaded {loads} times" if loads > 1 else ""
    yield f"runs      {stats.runs:,} after {report.warmup['runs']} to warm up{loaded}{outliers}"
    cold = report.cold_start
    tried = f"; before that, once, {ms(cold['trial_ms'])} to try the accelerator" if cold.get("trial_ms") else ""
    yield f"cold      load {ms(cold['load_ms'])}, first run {ms(cold['first_run_ms'])}{tried}"
    if report.stages_ms:
        whole = report.stages_ms["end_to_end"]
        parts = ", ".join(f"{name} {ms(value)}" for name, value in report.stages_ms.items() if name != "end_to_end")
        yield f"frame     {ms(whole)} ({parts}), {report.input}"
    if memory["peak_mb"] is not None and memory["before_mb"] is not None:
        own = memory["peak_mb"] - memory["before_mb"]
        yield f"memory    {own:.1f} MB for the model, {memory['peak_mb']:.0f} MB in all"
    if memory.get("running_took_mb") is not None:
        yield f"memory    {memory['running_took_mb']:.1f} MB for the model, as {report.runtime['name']} reckons"
    if report.energy["joules_per_run"] is not None:
        joules, sensor = report.energy["joules_per_run"], report.energy["sensor"]
        yield f"energy    {1e3 * joules:.3g} mJ a run, all that {sensor} feeds"
    if speed["percent_of_limit"] is not None:
        yield f"speed     {speed['gmacs_per_s']:.3g} GMAC/s, {speed['percent_of_limit']:.0f} % of this machine's limit"
    machine = report.environment
    yield f"machine   {machine['board'] or machine['cpu']}, {machine['cores']} cores, {machine['os']}"
    validity = report.validity()
    yield "to quote  " + ("yes" if validity["quotable"] else f"no: {'; '.join(validity['reasons'])}")
    for note in validity["notes"]:
        yield f"note      {note}"
