"""The 95 % intervals: those of the literature, and with a width where few pictures or groups say little."""

from __future__ import annotations

import numpy as np
import pytest

from edge_ran.intervals import of_accuracy, of_drop, wilson


def test_wilson_equals_the_literature() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(10, 10)[1] == pytest.approx(1)
    assert of_accuracy(np.arange(263) < 81, [""] * 263) == (wilson(81, 263), "Wilson")


def test_groups_widen_the_interval() -> None:
    right = np.repeat(np.arange(20) % 4 > 0, 50)  # whole clips are right or wrong
    (low, high), how = of_accuracy(right, np.repeat([f"clip{i:02d}" for i in range(20)], 50).tolist())
    assert how == "groups resampled"
    assert low < 0.6
    assert high > 0.88
    independent = wilson(int(right.sum()), len(right))
    assert high - low > 4 * (independent[1] - independent[0])


@pytest.mark.parametrize("groups", [1, 2, 5, 30])
def test_groups_that_are_all_right_are_not_certain(groups: int) -> None:
    named = np.repeat([f"clip{i:02d}" for i in range(groups)], 50).tolist()
    (low, high), _ = of_accuracy(np.ones(len(named), bool), named)
    assert (low, high) == pytest.approx(wilson(groups, groups))


def test_a_large_clip_among_small_ones_counts_for_little_more_than_one() -> None:
    (low, _), _ = of_accuracy(np.ones(1020, bool), ["large"] * 1000 + ["a"] * 10 + ["b"] * 10)
    assert wilson(1, 1)[0] < low < wilson(1.1, 1.1)[0]


def test_intervals_of_few_groups_hold_the_true_accuracy() -> None:
    random, held, sets = np.random.default_rng(0), 0, 100
    for _ in range(sets):
        each = random.beta(1.8, 0.2, 5)
        right = random.random((5, 20)) < each[:, None]
        (low, high), _ = of_accuracy(right.ravel(), np.repeat(list("abcde"), 20).tolist())
        held += low <= 0.9 <= high
    assert held >= 0.95 * sets


def test_the_interval_of_a_drop() -> None:
    before = np.array([1] * 80 + [0] * 20, bool)
    after = before.copy()
    after[:4], after[-1] = False, True  # four lost, one won
    drop, (low, high) = of_drop(before, after, [""] * 100)
    assert drop == pytest.approx(3)
    half = 100 * 1.96 * np.sqrt(5 - 9 / 100) / 100
    assert (low, high) == pytest.approx((3 - half, 3 + half), abs=0.01)


def test_the_interval_of_a_drop_is_wider_where_whole_clips_are_lost() -> None:
    before, clips = np.ones(1000, bool), np.repeat([f"clip{i:02d}" for i in range(40)], 25).tolist()
    after = np.repeat(np.arange(40) % 10 > 0, 25)  # four clips of forty
    drop, (low, high) = of_drop(before, after, clips)
    alone, (low_alone, high_alone) = of_drop(before, after, [""] * 1000)
    assert drop == alone == pytest.approx(10)
    assert high - low > 4 * (high_alone - low_alone)


def test_the_same_answers_are_no_proof_of_no_drop() -> None:
    same = np.ones(100, bool)
    drop, (low, high) = of_drop(same, same, [""] * 100)
    assert drop == 0
    assert (low, high) == pytest.approx((-1.92, 1.92), abs=0.01)
    drop, (low, high) = of_drop(same, same, np.repeat(list("ab"), 50).tolist())
    assert drop == 0
    assert (low, high) == pytest.approx((-49, 49), abs=0.1)
