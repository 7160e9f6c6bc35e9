"""How fast a ``.tflite`` is on this device, and whether the figures are reliable.

``measure`` runs models, one or several in turns; ``sweep`` one network with several settings; ``sustained`` for
minutes; ``operators`` one operator at a time. ``report`` is the record of it (its parts are in ``figures``), ``page``
the same in HTML; ``compare`` and ``regression`` compare times and reports.
"""

from edge_ran.bench.compare import Ratio
from edge_ran.bench.measure import MOST_PICTURES, BenchModel, benchmark
from edge_ran.bench.operators import Profile, profile, read_profile
from edge_ran.bench.page import advice_line, bench_page, profile_page, sustained_page, sweep_page
from edge_ran.bench.plan import Plan
from edge_ran.bench.regression import check_regression, read_report, regression
from edge_ran.bench.report import Bench, BenchReport, FailedDevice, across, csv_lines, distinct_names, read_bench
from edge_ran.bench.sustained import Sustained, draw_sustained, read_sustained, sustain
from edge_ran.bench.sweep import Accuracy, Axes, Setting, Sweep, accuracies, combinations, read_sweep, sweep_of

__all__ = [
    "MOST_PICTURES",
    "Accuracy",
    "Axes",
    "Bench",
    "BenchModel",
    "BenchReport",
    "FailedDevice",
    "Plan",
    "Profile",
    "Ratio",
    "Setting",
    "Sustained",
    "Sweep",
    "accuracies",
    "across",
    "advice_line",
    "bench_page",
    "benchmark",
    "check_regression",
    "combinations",
    "csv_lines",
    "distinct_names",
    "draw_sustained",
    "profile",
    "profile_page",
    "read_bench",
    "read_profile",
    "read_report",
    "read_sustained",
    "read_sweep",
    "regression",
    "sustain",
    "sustained_page",
    "sweep_of",
    "sweep_page",
]
