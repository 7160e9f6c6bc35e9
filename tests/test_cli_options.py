"""Groups of options: expanded for Typer, put together again for the verb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pytest
import typer
from typer.testing import CliRunner

from edge_ran.card import Overrides
from edge_ran.cli.command import given
from edge_ran.cli.data_options import ManifestOptions
from edge_ran.cli.model_options import MetadataOptions, parse_size, parse_triple
from edge_ran.cli.option_groups import Only, expanded
from edge_ran.cli.options import AcceleratorOptions
from edge_ran.cli.run_options import CameraOptions
from edge_ran.dataset import Reading
from edge_ran.errors import InputError, UsageError
from edge_ran.runtime import RuntimeOptions


@dataclass(frozen=True)
class Paint:
    PANEL: ClassVar[str] = "Paint"

    colour: Annotated[str, typer.Option(help="Which.")] = "red"
    coats: Annotated[int, typer.Option("--coats", min=1, help="How many.")] = 1


BLUE = Paint(colour="blue")
seen: dict[str, Any] = {}


def paint(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="A thing.")],
    *,
    fast: Annotated[bool, typer.Option("--fast", help="Soon.")] = False,
    paint: Paint,
) -> None:
    """Paint it."""
    seen.update(what=what, fast=fast, paint=paint, given=given(context))


def paint_blue(*, first: Paint = BLUE) -> None:
    """Paint it blue."""
    seen.update(paint=first)


def coats_only(*, paint: Annotated[Paint, Only("coats")]) -> None:
    """Paint it red."""
    seen.update(paint=paint)


def invoke(function: Any, *words: str) -> Any:
    seen.clear()
    app = typer.Typer()
    app.command()(expanded(function))
    return CliRunner().invoke(app, list(words))


def test_a_verb_gets_its_options_as_one_object():
    assert invoke(paint, "door", "--coats", "2", "--fast").exit_code == 0
    assert (seen["what"], seen["fast"], seen["paint"]) == ("door", True, Paint("red", 2))
    assert seen["given"] == {"what": "door", "fast": True, "coats": 2}  # what was typed, by the name of the field


def test_the_default_of_a_parameter_replaces_the_defaults_of_its_options():
    assert invoke(paint_blue, "--coats", "2").exit_code == 0
    assert seen["paint"] == Paint("blue", 2)
    assert "[default: blue]" in invoke(paint_blue, "--help").output


def test_a_verb_may_have_some_options_of_a_group_only():
    assert invoke(coats_only, "--coats", "3").exit_code == 0
    assert seen["paint"] == Paint("red", 3)
    assert invoke(coats_only, "--colour", "blue").exit_code == 2


def test_the_options_of_a_group_stand_under_its_heading():
    help_text = invoke(paint, "--help").output
    assert "─ Paint ─" in help_text
    assert help_text.index("─ Paint ─") < help_text.index("--coats")
    assert help_text.index("--fast") < help_text.index("─ Paint ─")


def test_an_option_keeps_the_limits_of_its_values():
    assert invoke(paint, "door", "--coats", "0").exit_code == 2


def test_accelerator_options_become_runtime_options():
    options = AcceleratorOptions(gpu=True, no_fallback=True, threads=2, gpu_precision="fp32").runtime(verbose=True)
    assert options == RuntimeOptions("gpu", 2, gpu_precision="fp32", fallback=False, verbose=True)
    with pytest.raises(UsageError, match="KEY=VALUE"):
        AcceleratorOptions(delegate_option=["x"]).runtime()


def test_no_time_without_frames_is_no_stall():
    assert CameraOptions(stall="forever").limits().stall_s == float("inf")
    with pytest.raises(UsageError, match="--stall must be above 0"):
        CameraOptions(stall="0").limits()


def test_metadata_options_become_overrides(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")
    given = MetadataOptions(tmp_path / "labels.txt", "1,2,3", "4", "8x6", "bgr")
    assert given.overrides() == Overrides(("a", "b"), (1, 2, 3), (4, 4, 4), (8, 6), "bgr")
    assert MetadataOptions().overrides() == Overrides()
    for wrong in ({"std": "0,0,0"}, {"mean": "a"}, {"input_size": "0"}, {"color": "grey"}):
        with pytest.raises(UsageError) as caught:
            MetadataOptions(**wrong).overrides()
        assert caught.value.remedy
    with pytest.raises(UsageError, match="for pixels from 0 to 1") as caught:  # as PyTorch writes them
        MetadataOptions(mean="0.485,0.456,0.406", std="0.229,0.224,0.225").overrides()
    assert caught.value.remedy == "--mean 123.675,116.28,103.53 --std 58.395,57.12,57.375"
    with pytest.raises(UsageError, match=r"^--mean 0[.]5,0[.]5,0[.]5 is for pixels") as caught:
        MetadataOptions(mean="0.5").overrides()
    assert caught.value.remedy == "--mean 127.5,127.5,127.5 --std 255"
    assert MetadataOptions(mean="0", std="1").overrides().std == (1, 1, 1)
    with pytest.raises(InputError):
        MetadataOptions(tmp_path / "none.txt").overrides()


def test_columns_are_for_manifests(tmp_path):
    options = ManifestOptions(label_column="area", classes="a, b", clip_step=2.0)
    assert options.reading() == Reading(label_column="area", labels=("a", "b"), clip_step_s=2.0)
    with pytest.raises(UsageError, match="--label-column has no effect"):
        options.load(tmp_path)
    ManifestOptions(classes="a").check(tmp_path)
    assert ManifestOptions(classes='"tench, Tinca tinca", shark,').reading().labels == ("tench, Tinca tinca", "shark")
    assert ManifestOptions().reading().labels == ()


def test_triples_and_sizes():
    assert parse_triple("--mean", "") is None
    assert parse_triple("--mean", "2.5") == (2.5, 2.5, 2.5)
    assert parse_triple("--mean", "[1.5, 2.5, 3]") == parse_triple("--mean", "1.5 2.5 3") == (1.5, 2.5, 3)
    assert parse_size("--input-size", "224") == (224, 224)
    for wrong in ("1,2", "inf", "nan", ","):
        with pytest.raises(UsageError):
            parse_triple("--mean", wrong)
    for wrong in ("1x2x3", "-1", "9000", "²", "x"):
        with pytest.raises(UsageError):
            parse_size("--input-size", wrong)
