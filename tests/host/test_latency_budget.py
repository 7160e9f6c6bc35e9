"""`train --budget`: real measurements of two small candidates; no time is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

from edge_ran.architecture import Architecture, configure
from edge_ran.catalogue import Converter
from edge_ran.errors import EnvironmentMissing, GateError, InputError
from edge_ran.host import latency_budget

SMALL = (("places38", 32, 0.25), ("places38", 32, 0.5))  # of the named networks, the one with fewest layers


def shape(network: str, size: int, width: float) -> Architecture:
    return configure(network, input_size=size, width=width, classes=3)


def test_the_largest_that_fits_is_chosen_and_what_fits_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    build, built = latency_budget._build, dict[str, tuple[int, bytes]]()

    def build_once(chosen: Architecture, how: Converter, target: Path) -> int:
        if target.name not in built:
            built[target.name] = (build(chosen, how, target), target.read_bytes())
        work, content = built[target.name]
        target.write_bytes(content)
        return work

    monkeypatch.setattr(latency_budget, "_build", build_once)
    found = latency_budget.choose(1e6, "local", shape, candidates=SMALL)
    assert found.chosen.width == 0.5
    assert all(c.fits and c.median_ms > 0 for c in found.candidates)
    assert [c.median_ms for c in found.candidates] == sorted(c.median_ms for c in found.candidates)
    with pytest.raises(GateError, match=r"no network fits 1e-06 ms on local: the fastest, places38 at 32 px"):
        latency_budget.choose(1e-6, "local", shape, candidates=SMALL[:1])


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Architecture]:
    """What was built, with nothing measured: every candidate takes 1 ms, and the later has more multiply-adds."""
    seen: list[Architecture] = []
    monkeypatch.setattr(latency_budget, "_build", lambda chosen, how, target: seen.append(chosen) or len(seen))
    monkeypatch.setattr(latency_budget, "_measure", lambda files, device: [1.0] * len(files))
    return seen


def test_the_network_that_will_be_trained_is_timed_with_its_options(built: list[Architecture]) -> None:
    def plain(network: str, size: int, width: float) -> Architecture:
        return configure(network, input_size=size, width=width, classes=3, mask=False, shortcut="projection")

    latency_budget.choose(9, "local", plain)
    assert built
    assert all((one.mask, one.shortcut, one.classes) == (False, "projection", 3) for one in built)


def test_shipped_weights_count_only_where_they_will_be_taken(built: list[Architecture]) -> None:
    both = (("places38", 64, 1.0), ("places38", 64, 2.0))  # the second is larger, and has no shipped weights
    assert latency_budget.choose(9, "local", shape, candidates=both).chosen.width == 1
    assert latency_budget.choose(9, "local", shape, candidates=both, start_from="none").chosen.width == 2


def test_a_start_leaves_the_candidates_of_its_architecture(built: list[Architecture], tmp_path: Path) -> None:
    found = latency_budget.choose(9, "local", shape, start_from="places38")
    assert {(one.network, one.width) for one in found.candidates} == {("places38", 1.0)}
    built.clear()
    with pytest.raises(InputError, match="fits none of the networks that --budget measures"):
        latency_budget.choose(9, "local", shape, start_from="places38", candidates=(("edge50", 32, 1.0),))
    with pytest.raises(InputError, match="nowhere"):
        latency_budget.choose(9, "local", shape, start_from=str(tmp_path / "nowhere"))
    assert not built


def test_a_device_that_is_not_there(tmp_path) -> None:
    with pytest.raises(EnvironmentMissing, match="cannot be measured on nowhere"):
        latency_budget._measure([tmp_path / "a.tflite"], "nowhere")
