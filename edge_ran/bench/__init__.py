"""How fast a ``.tflite`` is on this device, measured so that the number may be quoted, or told why not.

``measure`` runs models, one or several in turns; ``report`` is what is said of it; ``compare`` holds reports against
each other.
"""

from edge_ran.bench.compare import Ratio, check_regression, compare_files, read_report, regression
from edge_ran.bench.measure import Plan, Subject, benchmark, default_pictures, pictures_in
from edge_ran.bench.report import Bench, BenchReport, csv_lines

__all__ = [
    "Bench",
    "BenchReport",
    "Plan",
    "Ratio",
    "Subject",
    "benchmark",
    "check_regression",
    "compare_files",
    "csv_lines",
    "default_pictures",
    "pictures_in",
    "read_report",
    "regression",
]
