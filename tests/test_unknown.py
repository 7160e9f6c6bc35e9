from __future__ import annotations

import numpy as np
import pytest

from edge_ran.unknown import auroc, false_alarms, threshold_keeping


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    known, unknown = [0.9, 0.5, 0.5], [0.1, 0.5]
    pairs = [1.0 if k > u else 0.5 if k == u else 0.0 for k in known for u in unknown]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))
    assert auroc([0.8, 0.9], [0.1]) == 1
    assert auroc([0.1], [0.8, 0.9]) == 0


def test_the_threshold_is_the_highest_that_keeps_enough():
    scores = np.linspace(0.01, 1, 100)
    least = threshold_keeping(scores, 0.95)
    assert (scores >= least).sum() == 95
    assert threshold_keeping([0.3], 0.95) == 0.3
    assert threshold_keeping([0.2, 0.9], 1.0) == 0.2
    sure = [0.99882, 0.99996, 0.99997]  # with three digits, rounded, none or not all would reach it
    assert f"{threshold_keeping(sure, 1.0):.6f}" == "0.998800"
    assert f"{threshold_keeping(sure[1:], 1.0):.6f}" == "0.999900"


def test_false_alarms_reach_the_threshold():
    assert false_alarms([0.2, 0.5, 0.7], 0.5).tolist() == [False, True, True]
