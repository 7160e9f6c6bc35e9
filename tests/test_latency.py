import math
import statistics
import time

import numpy as np
import pytest

from edge_ran.latency import LatencyStats, Stopwatch, drift, percentile_interval, steady


def test_percentiles_of_known_numbers():
    stats = LatencyStats.from_ms(list(range(1, 101)), cold_ms=500)
    assert stats.runs == 100
    assert stats.cold_ms == 500
    assert stats.mean_ms == 50.5
    assert stats.p50_ms == 50.5
    assert stats.min_ms == 1
    assert stats.max_ms == 100
    assert stats.p90_ms == pytest.approx(90.1)
    assert stats.std_ms == pytest.approx(statistics.stdev(range(1, 101)))
    assert stats.outliers == 0


def test_one_run_is_enough_for_figures_but_not_for_an_interval():
    stats = LatencyStats.from_ms([3.0])
    assert (stats.p50_ms, stats.std_ms, stats.p50_interval_ms, stats.relative_interval) == (3.0, 0.0, None, None)
    with pytest.raises(ValueError, match="N > 0"):
        LatencyStats.from_ms([])


def test_interval_equals_the_tables():
    # Order statistics 40 and 61 of 100 (from 1) hold the median with 95 %: Hahn and Meeker, table A.15a.
    assert percentile_interval(list(range(1, 101)), 50) == (40, 61)
    assert percentile_interval(list(range(1, 7)), 50) == (1, 6)
    assert percentile_interval(list(range(1, 6)), 50) is None
    assert percentile_interval(list(range(1, 21)), 90) is None  # not even the maximum is surely above


@pytest.mark.parametrize("percent", [50, 90])
def test_interval_holds_the_truth_as_often_as_it_says(percent):
    random = np.random.default_rng(1)
    truth = -math.log(1 - percent / 100)  # of the exponential distribution
    hits = 0
    for _ in range(1000):
        low, high = percentile_interval(random.exponential(size=61), percent)
        hits += low <= truth <= high
    assert hits >= 935  # 95 % less three standard deviations; order statistics are conservative


def test_interval_holds_the_truth_where_loads_differ():
    """Runs of one load are alike: thousands of them tell its median exactly, and nothing of the next load's."""
    random = np.random.default_rng(2)
    of_runs = of_loads = 0
    for _ in range(400):
        sessions = [(random.uniform(0.97, 1.03) * random.gamma(400, 1 / 400, 200)).tolist() for _ in range(6)]
        samples = [ms for times in sessions for ms in times]
        for_runs, stats = percentile_interval(samples, 50), LatencyStats.from_ms(samples, sessions=sessions)
        of_runs += for_runs[0] <= 1 <= for_runs[1]
        (low, high), (p90_low, p90_high) = stats.p50_interval_ms, stats.p90_interval_ms
        of_loads += low <= 1 <= high
        assert low <= stats.p50_ms <= high
        assert p90_low <= stats.p90_ms <= p90_high
    assert of_loads >= 400 * 0.93
    assert of_runs < 400 * 0.6


def test_interval_of_many_samples_stays_finite():
    low, high = percentile_interval(np.arange(200_000, dtype=float), 50)
    assert 99_000 < low < 100_000 < high < 101_000


def test_outliers_are_counted_and_kept():
    stats = LatencyStats.from_ms([10.0] * 10 + [10.5] * 10 + [400.0])
    assert stats.outliers == 1
    assert stats.max_ms == 400


def test_steady_and_drift():
    assert not steady([1.0] * 9)
    assert steady([50, 20, 10, 9, 9, 9, 9, 9, 9, 9, 9, 9])
    assert not steady([50, 45, 40, 36, 33, 30, 28, 26, 24, 22])
    assert drift([10.0] * 10 + [11] * 10 + [12] * 10) == pytest.approx(0.2)
    assert drift([1.0, 2.0]) == 0


def test_stopwatch_stages_add_up():
    watch = Stopwatch()
    time.sleep(0.002)
    watch.lap("preprocess")
    watch.lap("inference")
    watch.lap("inference")
    assert list(watch.stages_ms) == ["preprocess", "inference"]
    assert watch.stages_ms["preprocess"] >= 2
    assert sum(watch.stages_ms.values()) == pytest.approx(watch.total_ms)
