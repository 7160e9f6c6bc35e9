from __future__ import annotations

import base64

import numpy as np
import pytest

from edge_ran.dataset.sketch import MOST_HASHES, Overlap, overlap, picture_hash, sketch, union
from edge_ran.errors import InputError


def pictures(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), np.uint8)


def test_of_a_small_set_every_picture_is_known():
    mine, others = pictures(0, 50), pictures(1, 70)
    found = overlap(sketch(mine), [picture_hash(one) for one in (*mine[10:30], *others)])
    assert found == Overlap(90, 90, 20)
    assert str(found) == "20 of the 90 images"
    changed = mine[0].copy()
    changed[0, 0, 0] ^= 1
    assert overlap(sketch(mine), [picture_hash(changed)]).known == 0


def test_of_a_large_set_the_share_is_estimated():
    mine, others = pictures(0, 40_000), pictures(1, 10_000)
    text = sketch(mine)
    assert len(text) < 22_000
    found = overlap(text, [picture_hash(one) for one in (*mine[:10_000], *others)])
    assert found.pictures == 20_000
    assert 20_000 * MOST_HASHES / 40_000 * 0.8 < found.tested < 20_000 * MOST_HASHES / 40_000 * 1.2
    assert 0.4 < found.known / found.tested < 0.6
    assert "about" in str(found)


def test_the_order_and_what_is_twice_do_not_count():
    mine = pictures(0, 20)
    assert sketch(mine) == sketch(np.concatenate([mine[::-1], mine]))


def test_two_sketches_make_that_of_all_pictures():
    mine, others = pictures(0, 1500), pictures(1, 1500)
    assert union(sketch(mine), sketch(others)) == sketch(np.concatenate([mine, others]))
    assert union("", sketch(mine)) == sketch(mine)


@pytest.mark.parametrize("text", ["nonsense!", "AAAA", base64.b64encode(bytes(8 * MOST_HASHES + 8)).decode(), "\ud800"])
def test_what_is_no_sketch_is_one_line(text):
    with pytest.raises(InputError, match="sketch of the training pictures"):
        overlap(text, [1])
