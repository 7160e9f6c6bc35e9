"""`edge-ran benchmark`."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from collections.abc import Iterator
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
    Json,
    NoFallback,
    Quiet,
    Threads,
    Verbose,
    announce,
    app,
    emit,
    human_size,
    parse_seconds,
    progress_bar,
    progress_note,
    runtime_options,
    tflite_or_default,
)
from edge_ran.errors import UsageError

if TYPE_CHECKING:
    pass


def _percent(option: str, text: str) -> float:
    """Read ``5%`` or ``5`` as 0.05."""
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a percentage", f"for instance {option} 5%") from None


@app.command()
def benchmark(
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="A .tflite or a run folder; several are measured in turns, against the first.",
            show_default="newest run, else the shipped one",
        ),
    ] = None,
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
    """Measure how fast a .tflite is on this device, and whether the number may be quoted."""
    options = runtime_options(
        accelerator, cpu, gpu, no_fallback, threads, delegate, delegate_option, gpu_precision, verbose
    )
    allowed = _percent("--max-regression", max_regression) if max_regression is not None else None
    if allowed is not None and baseline is None and compare is None:
        raise UsageError("--max-regression needs something to hold it to", "add --baseline FILE")
    from edge_ran import bench, plots, report
    from edge_ran.dataset import load
    from edge_ran.evaluate import evaluate as evaluate_on
    from edge_ran.files import refuse_existing, write_text

    if compare is not None:
        found = bench.compare_files(*compare)
        emit(json, dataclasses.asdict(found), lambda: "\n".join([str(found), *(f"! {c}" for c in found.cautions)]))
        if allowed is not None:
            bench.check_regression(found, allowed)
        return
    for target in filter(None, (result_json, csv, plot, html)):
        refuse_existing(target, force)
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
    plan = (
        bench.Plan.mlperf()
        if mlperf
        else bench.Plan(num_runs, warmup_runs, min_secs, max_secs, _percent("--until", until))
    )
    pictures = bench.pictures_in(images) if images else None
    if profile:
        with progress_bar("timing operators", quiet) as progress:
            parts = bench.profile(paths[0], threads or 1, progress=progress)
        record, text = parts.to_dict(), _profile_text(parts)
        if html:
            report.write(bench.profile_page(paths[0].name, parts), html)
        if plot:
            plots.shares(parts.by(lambda o: o.place), plot, f"{paths[0].name}: where {parts.whole_ms:.3g} ms go")
    elif sustained:
        with progress_bar("running", quiet) as progress:
            course = bench.sustain(bench.Subject(paths[0], options), parse_seconds(sustained), pictures, progress)
        record, text = course.to_dict(), str(course)
        if html:
            report.write(bench.sustained_page(paths[0].name, course), html)
        if plot:
            bench.draw_sustained(course, plot, f"{paths[0].name}: {course}")
    elif terms:
        if options.accelerator == "auto":  # a sweep names its accelerators: accelerator=cpu,gpu
            options = dataclasses.replace(options, accelerator="cpu")
        grid = bench.combinations(paths[0], terms, options)
        measured = bench.benchmark([s.subject for s in grid], plan, pictures=pictures, note=progress_note(quiet))
        accuracy = {}
        if accuracy_on:
            labelled = load(accuracy_on)
            progress_note(quiet)(f"classifying {len(labelled.samples)} images with each file")
            accuracy = bench.accuracies(grid, lambda s: evaluate_on(s.path, labelled, options=s.options).top1)
        rows = bench.overview(grid, measured, accuracy)
        record, text = {**measured.to_dict(), "table": rows}, _sweep_text(rows)
        if html:
            report.write(bench.bench_page(measured, rows), html)
        if plot and accuracy:
            plots.accuracy_against_latency([(r["name"], r["median_ms"], r["top1"]) for r in rows], plot)
        elif plot:
            plots.latency_histogram({r.name: r.samples_ms for r in measured.reports}, plot)
        if csv:
            write_text(csv, bench.csv_lines(measured.reports))
    else:
        measured = bench.benchmark(
            [bench.Subject(p, options) for p in paths], plan, pictures=pictures, note=progress_note(quiet)
        )
        for one in measured.reports:
            announce(one.accelerator, quiet)
        record, text = measured.to_dict(), _bench_text(measured)
        if before:
            ratio = bench.regression(record, before, measured.reports[0].name, str(baseline))
            record["regression"] = dataclasses.asdict(ratio)
            text = "\n".join([text, str(ratio), *(f"! {caution}" for caution in ratio.cautions)])
        if html:
            report.write(bench.bench_page(measured), html)
        if plot:
            plots.latency_histogram({r.name: r.samples_ms for r in measured.reports}, plot)
        if csv:
            write_text(csv, bench.csv_lines(measured.reports))
    if result_json:
        write_text(result_json, jsonlib.dumps(record, indent=1, allow_nan=False))
    emit(json, record, lambda: text)
    if before and allowed is not None:
        bench.check_regression(ratio, allowed)


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
            f"{parts.accounted:.0%} of it",
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
    lines = [f"{'':<{width}}  median ms    p90 ms  ratio       MB   top-1"]
    for row in rows:
        top1 = "-" if row["top1"] is None else f"{row['top1']:.1%}"
        lines.append(
            f"{row['name']:<{width}}  {row['median_ms']:9.4g} {row['p90_ms']:9.4g} {row['ratio']:6.2f} "
            f"{row['size_mb']:8.2f} {top1:>7}"
        )
    return "\n".join(lines)


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


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
        f"{_many(report.runtime['threads'], 'thread')}; {pieces['engine']} runs {pieces['delegated']} of "
        f"{pieces['operators']} operators in {_many(pieces['partitions'], 'piece')}"
    )
    interval = f"  (95 %: {ms(stats.p50_low_ms)} to {ms(stats.p50_high_ms)})" if stats.p50_low_ms is not None else ""
    yield f"median    {ms(stats.p50_ms)}{interval}"
    yield (
        f"spread    p5 {ms(stats.p5_ms)}, p90 {ms(stats.p90_ms)}, p95 {ms(stats.p95_ms)}, p99 {ms(stats.p99_ms)}, "
        f"mean {ms(stats.mean_ms)} ± {ms(stats.std_ms)}"
    )
    yield f"runs      {stats.runs:,} after {report.warmup['runs']} to warm up; {stats.outliers:,} outliers, all kept"
    cold = report.cold_start
    yield f"cold      load {ms(cold['load_ms'])}, first run {ms(cold['first_run_ms'])}"
    if report.stages_ms:
        whole = report.stages_ms["end_to_end"]
        parts = ", ".join(f"{name} {ms(value)}" for name, value in report.stages_ms.items() if name != "end_to_end")
        yield f"frame     {ms(whole)} ({parts}), {report.input}"
    if memory["peak_mb"] is not None:
        own = memory["peak_mb"] - memory["before_mb"]
        yield f"memory    {own:.1f} MB for the model, {memory['peak_mb']:.0f} MB in all"
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
