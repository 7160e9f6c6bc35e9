"""`train --budget`: real measurements of two small candidates; no time is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tf_keras", reason="needs edge-ran[host]")

from edge_ran.architecture import Architecture
from edge_ran.catalogue import Converter
from edge_ran.errors import EnvironmentMissing, GateError
from edge_ran.host import latency_budget

SMALL = (("places38", 32, 0.25), ("places38", 32, 0.5))  # of the named networks, the one with fewest layers


def test_the_largest_that_fits_is_chosen_and_what_fits_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    build, built = latency_budget._build, dict[str, tuple[int, bytes]]()

    def build_once(chosen: Architecture, how: Converter, target: Path) -> int:
        if target.name not in built:
            built[target.name] = (build(chosen, how, target), target.read_bytes())
        work, content = built[target.name]
        target.write_bytes(content)
        return work

    monkeypatch.setattr(latency_budget, "_build", build_once)
    found = latency_budget.choose(1e6, "local", 3, candidates=SMALL)
    assert found.chosen.width == 0.5
    assert all(c.fits and c.median_ms > 0 for c in found.candidates)
    assert [c.median_ms for c in found.candidates] == sorted(c.median_ms for c in found.candidates)
    with pytest.raises(GateError, match=r"no network fits 1e-06 ms on local: the fastest, places38 at 32 px"):
        latency_budget.choose(1e-6, "local", 3, candidates=SMALL[:1])


def test_a_device_that_is_not_there(tmp_path) -> None:
    with pytest.raises(EnvironmentMissing, match="cannot be measured on nowhere"):
        latency_budget._measure([tmp_path / "a.tflite"], "nowhere")
