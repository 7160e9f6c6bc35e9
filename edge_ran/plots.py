"""Pictures of numbers: training curves, confusion, latency, accuracy against latency, where the time goes.

Every function writes one file, atomically; the suffix chooses the format (``.svg``, ``.png`` or ``.pdf``). matplotlib
is loaded when the first picture is drawn; without it they raise EnvironmentMissing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from edge_ran.errors import EnvironmentMissing, UsageError
from edge_ran.files import atomic_path
from edge_ran.python_command import pip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".svg", ".png", ".pdf")
# Okabe and Ito's colours, told apart with any colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F")
INK, FAINT = "#333333", "#DDDDDD"
WIDE = 20  # times the smallest: what lies further apart is told apart on a logarithmic axis
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called $\\frac$
    "svg.hashsalt": "edge-ran",  # the same numbers give the same file
    "savefig.dpi": 150,
}
_LONGEST = 40  # letters of a name in a drawing
MOST_CELLS_WITH_NUMBERS = 20


def training_curves(history: Sequence[Mapping[str, float]], target: Path) -> None:
    """Draw loss and accuracy by epoch.

    Args:
        history: one record an epoch with ``epoch``, ``loss``, ``top1`` (0..1) and perhaps ``validation_loss`` and
            ``validation_top1``.
        target: the file to write.
    """
    epochs = [record["epoch"] for record in history]
    with _figure(target, 9, 3.6) as figure:
        for place, (key, title, factor) in enumerate((("loss", "loss", 1), ("top1", "top-1 accuracy in %", 100))):
            axes = figure.add_subplot(1, 2, place + 1)
            for colour, (prefix, name) in zip(COLOURS, (("", "training"), ("validation_", "validation")), strict=False):
                if any(prefix + key in record for record in history):
                    values = [factor * record.get(prefix + key, np.nan) for record in history]
                    axes.plot(epochs, values, color=colour, label=name, marker="." if len(epochs) < 40 else "")
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.locator_params(axis="x", integer=True)
            axes.legend()


def confusion(matrix: ArrayLike, labels: Sequence[str], target: Path, title: str = "") -> None:
    """Draw a confusion matrix, each row in per cent of its true class.

    Args:
        matrix: (classes, classes) counts, true classes in rows.
        labels: the classes' names.
        target: the file to write.
        title: what is shown.
    """
    counts = np.asarray(matrix)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    classes = len(labels)
    step = max(1, classes // 60)  # beyond, names would lie on each other
    names = [label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…" for label in labels[::step]]
    longest = max(map(len, names), default=0)
    side = min(16.0, 3.0 + 0.42 * classes + 0.08 * max(0, longest - 12))
    with _figure(target, side + 1, side) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        axes.grid(False)
        axes.set_xticks(range(0, classes, step), names, rotation=90 if classes > 4 or longest > 12 else 0)
        axes.set_yticks(range(0, classes, step), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(title or "confusion, % of each true class")
        if classes <= MOST_CELLS_WITH_NUMBERS:
            for row, column in zip(*np.nonzero(counts), strict=True):
                axes.text(
                    column,
                    row,
                    f"{share[row, column]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if share[row, column] > 55 else INK,
                )
        figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)


def reliability(confidence: ArrayLike, right: ArrayLike, target: Path, bins: int = 10) -> None:
    """Draw accuracy against confidence (Guo et al. 2017), and how many answers have it.

    Args:
        confidence: (N,) highest scores, 0..1.
        right: (N,) whether each answer is right.
        target: the file to write.
        bins: of equal width.
    """
    sure, hits = np.asarray(confidence, float), np.asarray(right, bool)
    place = np.minimum((sure * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    there = np.flatnonzero(counts)
    mean = np.bincount(place, sure, bins)[there] / counts[there]
    accuracy = np.bincount(place, hits, bins)[there] / counts[there]
    with _figure(target, 9, 3.6) as figure:
        left, share = figure.subplots(1, 2)
        left.plot([0, 100], [0, 100], color=FAINT, linewidth=2)
        left.plot(100 * mean, 100 * accuracy, "o-", color=COLOURS[0])
        left.set_title("accuracy by confidence")
        left.set_xlabel("confidence in %")
        left.set_ylabel("right in %")
        middles = 100 * (np.arange(bins) + 0.5) / bins
        share.bar(middles, 100 * counts / max(1, counts.sum()), width=90 / bins, color=COLOURS[0])
        share.set_title("answers by confidence")
        share.set_xlabel("confidence in %")
        share.set_ylabel("% of the answers")


def latency_histogram(samples_ms: Mapping[str, ArrayLike], target: Path, title: str = "") -> None:
    """Draw the distribution of run times, and every run in its order.

    Args:
        samples_ms: (N,) milliseconds of every run, by name.
        target: the file to write.
        title: what is shown.
    """
    series = {name: np.asarray(values, float) for name, values in samples_ms.items()}
    everything = np.concatenate(list(series.values()))
    right = float(np.percentile(everything, 99)) * 1.05  # far outliers are for the picture of every run
    bins = np.linspace(float(everything.min()) * 0.98, max(right, float(everything.min()) * 1.02), 60)
    with _figure(target, 9, 3.6) as figure:
        left, runs = figure.subplots(1, 2)
        for colour, (name, values) in zip(COLOURS * len(series), series.items(), strict=False):
            median = float(np.median(values))
            left.hist(np.minimum(values, bins[-1]), bins, color=colour, alpha=0.6, label=f"{name}: {median:.3g} ms")
            left.axvline(median, color=colour, linewidth=1.2)
            runs.plot(values, ".", color=colour, markersize=3, label=name)
        left.set_title(title or "run time")
        left.set_xlabel("ms (the last bar holds all above)")
        left.set_ylabel("runs")
        left.legend(title="median")
        runs.set_title("every run in order")
        runs.set_xlabel("run")
        runs.set_ylabel("ms")
        runs.set_ylim(bottom=0)


def shares(values_ms: Mapping[str, float], target: Path, title: str = "") -> None:
    """Draw where the time goes as bars, the order kept.

    Args:
        values_ms: milliseconds by name.
        target: the file to write.
        title: what is shown.
    """
    names, values = list(values_ms), list(values_ms.values())
    whole = sum(values) or 1.0
    with _figure(target, 8, 1.2 + 0.3 * len(names)) as figure:
        axes = figure.add_subplot()
        bars = axes.barh(range(len(names)), values, color=COLOURS[0])
        axes.bar_label(bars, [f" {value:.3g} ms, {100 * value / whole:.0f} %" for value in values], fontsize=8)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.2)
        axes.grid(False, axis="y")
        axes.set_xlabel("ms")
        axes.set_title(title)


def layer_differences(layers: Sequence[tuple[str, float]], target: Path, title: str = "", first: str = "") -> None:
    """Draw how many steps of its scale each layer of a file is off, as bars on a logarithmic scale.

    Args:
        layers: (name, mean steps), the farthest off first.
        target: the file to write.
        title: what is shown.
        first: the layer where the file parts from its network, drawn in another colour.
    """
    least = 1e-5  # one value in 100,000 off by one step; nothing at all cannot be drawn on a logarithmic scale
    with _figure(target, 8, 1 + 0.16 * len(layers)) as figure:
        axes = figure.add_subplot()
        colours = [COLOURS[1 if name == first else 0] for name, _ in layers]
        axes.barh(range(len(layers)), [max(steps, least) for _, steps in layers], color=colours)
        names = [f"first to part: {name}" if name == first else name for name, _ in layers]
        axes.set_yticks(range(len(layers)), names, fontsize=7)
        axes.set_ylim(len(layers) - 0.4, -0.6)
        axes.grid(False, axis="y")
        axes.set_xscale("log")
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_xlabel("mean difference in steps; rounding stays left of the line")
        axes.set_title(title or "layers against the network")


def sustained(
    at_minutes: ArrayLike,
    median_ms: ArrayLike,
    p90_ms: ArrayLike,
    target: Path,
    clock_mhz: Sequence[float | None] = (),
    temperature_c: Sequence[float | None] = (),
    title: str = "",
) -> None:
    """Draw run times over minutes, with clock and temperature below where they are known.

    Args:
        at_minutes, median_ms, p90_ms, clock_mhz, temperature_c: one value for each window of time; the last two may
            hold None.
        target: the file to write.
        title: what is shown.
    """
    below = [
        (name, colour, [np.nan if v is None else v for v in values])
        for name, colour, values in (
            ("clock in MHz", COLOURS[2], clock_mhz),
            ("temperature in °C", COLOURS[4], temperature_c),
        )
        if any(v is not None for v in values)
    ]
    with _figure(target, 8, 3 + 1.6 * len(below)) as figure:
        rows = figure.subplots(1 + len(below), 1, sharex=True, squeeze=False)[:, 0]
        rows[0].plot(at_minutes, median_ms, color=COLOURS[0], label="median")
        rows[0].plot(at_minutes, p90_ms, color=COLOURS[0], alpha=0.4, label="p90")
        rows[0].set_ylim(bottom=0)
        rows[0].set_ylabel("ms")
        rows[0].legend()
        rows[0].set_title(title or "run time")
        for axes, (name, colour, values) in zip(rows[1:], below, strict=True):
            axes.plot(at_minutes, values, color=colour)
            axes.set_title(name)
        rows[-1].set_xlabel("minutes")


def accuracy_against_latency(
    points: Sequence[tuple[str, float, float, tuple[float, float]]], target: Path, title: str = ""
) -> None:
    """Draw models or settings as points, and the line of those that none other beats in both (Pareto front).

    Args:
        points: (name, median milliseconds, accuracy, its lowest and highest likely value) of each; accuracies 0..1.
        target: the file to write.
        title: what is shown.
    """
    best = front([(ms, accuracy) for _, ms, accuracy, _ in points])
    rank = {index: place for place, index in enumerate(sorted(range(len(points)), key=lambda i: points[i][1]))}
    with _figure(target, 7, 4.5) as figure:
        axes = figure.add_subplot()
        line = sorted(best, key=lambda i: points[i][1])
        axes.plot([points[i][1] for i in line], [100 * points[i][2] for i in line], color=FAINT, linewidth=2, zorder=1)
        for index, (name, ms, accuracy, (low, high)) in enumerate(points):
            colour = COLOURS[0] if index in best else COLOURS[-1]
            axes.plot([ms, ms], [100 * low, 100 * high], color=colour, linewidth=1, alpha=0.5, zorder=1)
            axes.plot(ms, 100 * accuracy, "o", color=colour, zorder=2)
            above = 5 if rank[index] % 2 == 0 else -11  # neighbours would write over each other
            axes.annotate(name, (ms, 100 * accuracy), (5, above), textcoords="offset points", fontsize=8)
        axes.margins(0.15)
        times = [ms for _, ms, _, _ in points]
        if max(times) > WIDE * min(times):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
        else:
            axes.set_xlim(left=0)
        axes.set_xlabel("median ms a picture")
        axes.set_ylabel("top-1 accuracy in %")
        axes.set_title(title or "accuracy against latency")


def accuracy_by_pictures(
    curves: Mapping[str, Sequence[tuple[int, float, float, float]]], target: Path, title: str, what: str
) -> None:
    """Draw accuracy against the number of training pictures, a line for each start.

    Args:
        curves: name -> (pictures, accuracy, the lowest and the highest of its parts) of each point; accuracies 0..1.
        target: the file to write.
        title: what is shown.
        what: what the accuracy is, for the axis.
    """
    with _figure(target, 6, 3.6) as figure:
        axes = figure.add_subplot()
        for colour, (name, points) in zip(COLOURS, curves.items(), strict=False):
            counts = [count for count, *_ in points]
            axes.fill_between(
                counts, [100 * low for *_, low, _ in points], [100 * high for *_, high in points],
                color=colour, alpha=0.15, linewidth=0,
            )  # fmt: skip
            axes.plot(counts, [100 * mean for _, mean, *_ in points], "o-", color=colour, label=name)
        axes.set_xticks(sorted({count for points in curves.values() for count, *_ in points}))
        axes.set_xlabel("training pictures of each class")
        axes.set_ylabel(what)
        axes.set_title(title)
        axes.legend()


def front(points: Sequence[tuple[float, float]]) -> set[int]:
    """Return the places of the (cost, worth) pairs that no other equals or beats in both."""
    return {
        i
        for i, (cost, worth) in enumerate(points)
        if not any(c <= cost and w >= worth and (c, w) != (cost, worth) for c, w in points)
    }


@contextlib.contextmanager
def _figure(target: Path, width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of that many inches; write it when the block ends well."""
    check_target(target)
    import matplotlib
    from matplotlib.figure import Figure

    # No pyplot: it keeps figures alive and wants a display.
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        with atomic_path(Path(target)) as temporary:
            figure.savefig(temporary, metadata={"Date": None} if Path(target).suffix.lower() == ".svg" else None)


def check_target(target: Path) -> None:
    """Raise before the long work when the picture could not be drawn after it.

    Raises:
        UsageError: the suffix is not a picture's.
        EnvironmentMissing: matplotlib is not installed.
    """
    if Path(target).suffix.lower() not in FORMATS:
        raise UsageError(f"cannot draw a picture into {target}", f"let its name end in {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise EnvironmentMissing("pictures need matplotlib", pip("install 'edge-ran[report]'")) from error
