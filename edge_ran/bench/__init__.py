"""How fast a ``.tflite`` is on this device, measured so that the number may be quoted, or told why not.

``measure`` runs models, one or several in turns; ``sweep`` one network with several settings; ``sustained`` for
minutes; ``operators`` takes it apart; ``report`` is what is said of it, ``page`` in HTML; ``compare`` holds reports
against each other.
"""

from edge_ran.bench.compare import Ratio, check_regression, compare_files, read_report, regression
from edge_ran.bench.measure import MOST_PICTURES, BenchModel, Plan, benchmark, default_pictures, pictures_in
from edge_ran.bench.operators import Profile, profile
from edge_ran.bench.page import bench_page, profile_page, sustained_page
from edge_ran.bench.report import Bench, BenchReport, across, csv_lines, distinct_names
from edge_ran.bench.sustained import Sustained, draw_sustained, sustain
from edge_ran.bench.sweep import Accuracy, Setting, accuracies, combinations, is_term, overview, recommend

__all__ = [
    "MOST_PICTURES",
    "Accuracy",
    "Bench",
    "BenchModel",
    "BenchReport",
    "Plan",
    "Profile",
    "Ratio",
    "Setting",
    "Sustained",
    "accuracies",
    "across",
    "bench_page",
    "benchmark",
    "check_regression",
    "combinations",
    "compare_files",
    "csv_lines",
    "default_pictures",
    "distinct_names",
    "draw_sustained",
    "is_term",
    "overview",
    "pictures_in",
    "profile",
    "profile_page",
    "read_report",
    "recommend",
    "regression",
    "sustain",
    "sustained_page",
]
