"""A benchmark as one self-contained HTML page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edge_ran import __version__, plots, records, report
from edge_ran.bench.operators import Profile
from edge_ran.bench.report import Bench, BenchReport
from edge_ran.bench.sustained import Sustained, draw_sustained
from edge_ran.bench.sweep import Recommendation, Sweep, SweepRow
from edge_ran.report import Report, Section, Table, Tile

FOOTER = f"Made by edge-ran {__version__}. This page links to nothing; keep it or send it."


def sweep_page(sweep: Sweep) -> Report:
    """Return the page of a sweep."""
    return bench_page(sweep.bench, sweep)


def advice_line(found: Recommendation) -> str:
    """Return what a sweep recommends as one line for people."""
    proof = "accuracy not measured (--accuracy-on DATA)"
    if found.top1 is not None and found.top1_interval is not None:
        low, high = found.top1_interval
        proof = f"top-1 {found.top1:.1%} (95 %: {low:.1%} to {high:.1%})"
    fastest = f"{found.name} on {found.accelerator}, {found.median_ms:.3g} ms, {proof}"
    same = f"; no difference in time shown from {', '.join(found.as_fast)}" if found.as_fast else ""
    doubts = f"; not reliable: {'; '.join(found.doubts)}" if found.doubts else ""
    return f"recommended for this device: {fastest}{same}{doubts}"


def bench_page(bench: Bench, sweep: Sweep | None = None) -> Report:
    """Return the page of a measurement, with the settings' table where it was a sweep."""
    first = bench.reports[0]
    several = len({one.device for one in bench.reports}) > 1
    read = ", every output read inside the timer" if all(r.timing.includes_output_read for r in bench.reports) else ""
    named = first.model.name or Path(first.model.path).name
    if sweep:
        title = f"{named}, {len(sweep.rows)} settings"
    elif several:
        title = Path(first.model.path).name
    else:
        title = " against ".join(one.name for one in reversed(bench.reports))
    machines = ", ".join(dict.fromkeys(one.environment.board or one.environment.cpu for one in bench.reports))
    return Report(
        title=f"{title} on {machines}",
        lead=f"{_kinds(bench)} measured by edge-ran {__version__}{read}.",
        tiles=_tiles(first, f"{first.name}: " if len(bench.reports) > 1 else ""),
        sections=(
            _times(bench),
            *([_settings(sweep)] if sweep else []),
            *([_frames(first)] if first.stages_ms else []),
            _validity(bench),
            *(_machine(one) for one in (bench.reports if several else [first])),
        ),
        footer=FOOTER,
    )


def profile_page(name: str, profile: Profile) -> Report:
    """Return the page of where the time goes."""
    whole = sum(o.ms for o in profile.operators)
    columns = ("", "operator", "place", "output", "ms", "share", "GMAC/s")
    rows = tuple(
        (
            o.index,
            o.name,
            o.place,
            " x ".join(map(str, o.shape)),
            o.ms,
            o.ms / whole,
            o.gmacs_per_s,
        )
        for o in sorted(profile.operators, key=lambda o: -o.ms)
    )
    return Report(
        title=f"{name}: where the time goes",
        lead=f"Every operator alone, threads: {profile.runtime.threads}, caches warm.",
        tiles=(
            Tile(f"{profile.whole_ms:.3g} ms", "an inference of the whole network"),
            Tile(f"{profile.accounted:.0%}", "of it is the sum of the operators alone"),
        ),
        sections=(
            Section(
                "By place in the paper",
                parts=(report.drawing(partial(plots.shares, profile.by_place, title="ms by place")),),
            ),
            Section(
                "By kind of operator",
                parts=(report.drawing(partial(plots.shares, profile.by_operator, title="ms by operator")),),
            ),
            Section(
                "Operator by operator", parts=(Table(columns, rows, ("", "", "", "", ".4f", ".1%", ".0f"), ("ms",)),)
            ),
        ),
        footer=FOOTER,
    )


def sustained_page(name: str, course: Sustained) -> Report:
    """Return the page of minutes of work."""
    busy = [w.conditions.others_busy for w in course.windows if w.conditions.others_busy is not None]
    text = f"Other processes kept up to {max(busy):.1f} cores busy meanwhile." if busy else ""
    return Report(
        title=f"{name}: {course.seconds / 60:.3g} minutes without a pause",
        lead=f"{course.summary}.",
        tiles=(
            Tile(f"{course.median_ms:.3g} ms", f"median of all inferences on {course.accelerator}"),
            Tile(f"{course.p90_ms:.3g} ms", "p90 of all inferences"),
            Tile(f"{course.slowdown:+.1%}", "time in the last quarter against the first"),
        ),
        sections=(Section("Time of an inference", text, (report.drawing(partial(draw_sustained, course)),)),),
        footer=FOOTER,
    )


def _kinds(bench: Bench) -> str:
    if len(bench.reports) == 1:
        return f"One model, loaded {bench.reports[0].timing.sessions} times,"
    devices = len({one.device for one in bench.reports})
    if devices > 1:
        return f"{devices} devices, one after another,"
    return f"{len(bench.reports)} models or settings, in turns, loaded {bench.reports[0].timing.sessions} times each,"


def _tiles(one: BenchReport, whose: str) -> tuple[Tile, ...]:
    stats = one.latency
    tiles = [Tile(f"{stats.p50_ms:.3g} ms", f"{whose}median of {stats.runs:,} inferences on {one.accelerator}")]
    if one.stages_ms:
        tiles.append(Tile(f"{1e3 / one.stages_ms.end_to_end_ms:.0f} /s", "whole frames, from the picture file on"))
    if one.memory.peak_mb is not None and one.memory.before_mb is not None:
        tiles.append(Tile(f"{one.memory.peak_mb - one.memory.before_mb:.0f} MB", "of memory for the model"))
    if (joules := one.energy.joules_per_run) is not None:
        tiles.append(Tile(f"{1e3 * joules:.3g} mJ", f"per run, everything that {one.energy.sensor} measures"))
    if (share := one.throughput.percent_of_limit) is not None:
        kernel = one.throughput.limit_kernel or "the fastest kernel measured"
        tiles.append(Tile(f"{share:.0f} %", f"of the multiply-adds a second that {kernel} does on this machine"))
    return tuple(tiles)


def _times(bench: Bench) -> Section:
    columns = (
        "",
        "precision",
        "on",
        "threads",
        "median, ms",
        "from",
        "to",
        "p90, ms",
        "p99, ms",
        "first run, ms",
        "load, ms",
    )
    rows = tuple(
        (
            r.name,
            r.model.precision,
            str(r.accelerator),
            r.runtime.threads,
            r.latency.p50_ms,
            *(r.latency.p50_interval_ms or (None, None)),
            r.latency.p90_ms,
            r.latency.p99_ms,
            r.latency.cold_ms,
            r.cold_start.load_ms,
        )
        for r in bench.reports
    )
    formats = ("", "", "", "", *[".4g"] * 7)
    samples = {r.name: r.samples_ms for r in bench.reports if r.samples_ms}
    return Section(
        "Times",
        "The median lies between from and to with 95 % confidence. " + " ".join(f"{ratio}." for ratio in bench.ratios),
        (
            Table(columns, rows, formats, ("median, ms",)),
            *(
                [report.drawing(partial(plots.latency_histogram, samples), "Every inference, outliers included.")]
                if samples
                else []
            ),
        ),
    )


def _settings(sweep: Sweep) -> Section:
    columns = ("setting", "on", "median, ms", "time against the first", "size, MB", "top-1", "at least", "at most")

    def cells(row: SweepRow) -> tuple[str | float | None, ...]:
        times = row.name, row.accelerator, row.median_ms, row.ratio, row.size_mb
        return *times, row.top1, *(row.top1_interval or (None, None))

    table = Table(
        columns,
        tuple(map(cells, sweep.rows)),
        ("", "", ".4g", ".2f", ".2f", ".2%", ".2%", ".2%"),
        ("median, ms",),
    )
    line = advice_line(sweep.recommendation) if sweep.recommendation else ""
    advice = f"{line[:1].upper()}{line[1:]}." if line else ""
    known = [
        (r.name, r.median_ms, r.top1, r.top1_interval)
        for r in sweep.rows
        if r.top1 is not None and r.top1_interval is not None
    ]
    if not known:
        return Section("Settings", advice, (table,))
    drawing = report.drawing(
        partial(plots.accuracy_against_latency, known),
        "The line joins the settings that no other beats in both; vertical lines are the accuracy's 95 % interval.",
    )
    return Section("Settings", advice, (table, drawing))


def _frames(one: BenchReport) -> Section:
    stages = {
        name: ms for name, ms in records.to_dict(one.stages_ms).items() if ms is not None and name != "end_to_end"
    }
    return Section(
        "A whole frame",
        f"Median of each stage, fed with {one.input}.",
        (report.drawing(partial(plots.shares, stages, title=f"{one.name}: stages of a frame")),),
    )


def _validity(bench: Bench) -> Section:
    rows = tuple(
        (one.name, "yes" if one.validity.reliable else "no", "; ".join((*one.validity.reasons, *one.validity.notes)))
        for one in bench.reports
    )
    return Section("Are the figures reliable?", parts=(Table(("", "reliable", "why"), rows),))


def _machine(one: BenchReport) -> Section:
    facts = {k.replace("_", " "): v for k, v in records.to_dict(one.environment).items() if v is not None}
    facts["runtime"] = f"{one.runtime.name} {one.runtime.version}"
    facts["model"] = f"SHA-256 {one.model.sha256}, {one.model.size_bytes:,} bytes"
    name = "This machine" if one.device == "local" else f"The device, {one.device}"
    return Section(name, parts=(Table(("", ""), tuple((key, str(value)) for key, value in facts.items())),))
