"""Text of a benchmark: a block for each model, or a table of devices."""

from __future__ import annotations

from collections.abc import Iterator

from edge_ran.bench import Bench, BenchReport, Ratio
from edge_ran.cli.app import human_size
from edge_ran.printable import many


def benchmark(measured: Bench) -> str:
    """A table for several devices, else a block of lines for each model."""
    if measured.failed or len({one.device for one in measured.reports}) > 1:
        return devices(measured)
    blocks = ["\n".join(_lines(report)) for report in measured.reports]
    if measured.ratios:
        blocks.append("\n".join(map(str, measured.ratios)))
    return "\n\n".join(blocks)


def comparison(ratio: Ratio) -> str:
    """Two records compared, and what is to be known about it."""
    reliable = "yes" if ratio.reliable else f"no: {'; '.join(ratio.doubts)}"
    return "\n".join([str(ratio), f"reliable: {reliable}", *(f"! {caution}" for caution in ratio.cautions)])


def devices(measured: Bench) -> str:
    """A line for each device, or each model on each device."""
    ratios = {ratio.name: f"{ratio.ratio:.2f}" for ratio in measured.ratios}
    rows = [("", "median ms", "95 %", "p90 ms", "ratio", "on", "threads", "reliable")]
    for one in measured.reports:
        stats = one.latency
        interval = "" if stats.p50_interval_ms is None else "{:.3g} - {:.3g}".format(*stats.p50_interval_ms)
        rows.append(
            (
                one.name,
                f"{stats.p50_ms:.3g}",
                interval,
                "-" if stats.p90_ms is None else f"{stats.p90_ms:.3g}",
                ratios.get(one.name, "1"),
                str(one.accelerator),
                str(one.runtime.threads),
                "yes" if one.validity.reliable else "no",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    for one in measured.reports:
        lines += [f"! {one.name}: {reason}" for reason in one.validity.reasons]
    return "\n".join(lines)


def _count(count: int | None) -> str:
    return "an unknown number" if count is None else str(count)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _lines(report: BenchReport) -> Iterator[str]:
    stats, model, pieces, machine = report.latency, report.model, report.delegation, report.environment
    work = f", {model.multiply_adds / 1e6:.4g} M multiply-adds" if model.multiply_adds else ""
    yield f"{report.name}: {model.precision}, {human_size(model.size_bytes).strip()}{work}"
    yield (
        f"on        {report.accelerator}, {report.runtime.name} {report.runtime.version}, "
        f"{many(report.runtime.threads, 'thread')}; {pieces.engine} runs {_count(pieces.delegated)} of "
        f"{many(pieces.operators, 'operator')} in {many(pieces.partitions, 'partition')}"
    )
    interval = "  (95 %: {} to {})".format(*map(_ms, stats.p50_interval_ms)) if stats.p50_interval_ms else ""
    yield f"median    {_ms(stats.p50_ms)}{interval}"
    yield (
        f"spread    p5 {_ms(stats.p5_ms)}, p90 {_ms(stats.p90_ms)}, p95 {_ms(stats.p95_ms)}, p99 {_ms(stats.p99_ms)}, "
        f"mean {_ms(stats.mean_ms)} ± {_ms(stats.std_ms)}"
    )
    outliers = "" if stats.outliers is None else f"; {many(stats.outliers, 'outlier')}, all kept"
    loads = report.timing.sessions
    loaded = f", loaded {loads} times" if loads > 1 else ""
    yield f"runs      {stats.runs:,} after {many(report.warmup.runs, 'warm-up run')}{loaded}{outliers}"
    cold = report.cold_start
    tried = f"; before that, once, {_ms(cold.trial_ms)} to try the accelerator" if (cold.trial_ms or 0) >= 1 else ""
    yield f"cold      load {_ms(cold.load_ms)}, first run {_ms(cold.first_run_ms)}{tried}"
    yield from _resource_lines(report)
    yield f"machine   {machine.board or machine.cpu}, {many(machine.cores, 'core')}, {machine.os}"
    if report.regression:
        yield f"compared  {report.regression}"
        yield from (f"caution   {line}" for line in (*report.regression.doubts, *report.regression.cautions))
    validity = report.validity
    yield "reliable  " + ("yes" if validity.reliable else f"no: {'; '.join(validity.reasons)}")
    for note in validity.notes:
        yield f"note      {note}"


def _resource_lines(report: BenchReport) -> Iterator[str]:
    stages, memory, speed = report.stages_ms, report.memory, report.throughput
    if stages:
        yield (
            f"frame     {_ms(stages.end_to_end_ms)} (capture {_ms(stages.capture_ms)}, preprocess "
            f"{_ms(stages.preprocess_ms)}, inference {_ms(stages.inference_ms)}, postprocess "
            f"{_ms(stages.postprocess_ms)}), {report.input}"
        )
    if memory.peak_mb is not None and memory.before_mb is not None:
        yield f"memory    {memory.peak_mb - memory.before_mb:.1f} MB for the model, {memory.peak_mb:.0f} MB in all"
    if memory.running_took_mb is not None:
        yield f"memory    {memory.running_took_mb:.1f} MB for the model, as {report.runtime.name} reports"
    if report.energy.joules_per_run is not None:
        yield (
            f"energy    {1e3 * report.energy.joules_per_run:.3g} mJ per run, everything that {report.energy.sensor} "
            "measures"
        )
    if speed.percent_of_limit is not None:
        yield (
            f"speed     {speed.gmacs_per_s:.3g} GMAC/s, {speed.percent_of_limit:.0f} % of the limit: "
            f"{speed.limit_gmacs_per_s:.3g} GMAC/s, {speed.limit_kernel} on the same cores"
        )
