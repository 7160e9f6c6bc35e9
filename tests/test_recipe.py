"""What a training is told is checked before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_ran import collect
from edge_ran.cli import main
from edge_ran.errors import UsageError
from edge_ran.recipe import LARGEST_SEED, TrainOptions


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed must be between"):
        TrainOptions(seed=seed).check()
    with pytest.raises(UsageError, match="seed must be between"):
        collect.build([tmp_path], tmp_path / "out", seed=seed)


@pytest.mark.parametrize(
    ("option", "remedy"),
    [("fit_to", "choose one of: stretch, crop"), ("precision", "choose one of: auto, float32, bfloat16")],
)
def test_a_word_that_is_none_of_an_options_is_refused(option: str, remedy: str) -> None:
    with pytest.raises(UsageError, match="'x' is unknown") as caught:
        TrainOptions(**{option: "x"}).check()
    assert caught.value.remedy == remedy


@pytest.mark.parametrize("verb", ["train data", "quantize", "dataset build data -o out"])
@pytest.mark.parametrize("seed", ["-1", "2147483648"])
def test_a_verb_refuses_a_seed_out_of_range(
    verb: str, seed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["edge-ran", *verb.split(), "--seed", seed])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--seed" in capsys.readouterr().err.splitlines()[0]
