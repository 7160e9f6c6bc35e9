"""docs/schema: current, complete, and true of what the verbs print."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from loopback import write_clip
from test_cli_help import VERBS

from edge_ran import cli

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "schema"
_SPEC = importlib.util.spec_from_file_location("schema", ROOT / "scripts" / "schema.py")
assert _SPEC is not None
assert _SPEC.loader is not None
script = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(script)


# Verbs whose output is still a dict without a type.
UNTYPED: set[str] = set()


@pytest.mark.parametrize("name", script.OUTPUTS)
def test_the_schema_is_current(name: str):
    if ".host." in script.OUTPUTS[name]:
        pytest.importorskip("tf_keras", reason="needs edge-ran[host]")
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == script.text_of(name), "run scripts/schema.py"
    jsonschema.Draft202012Validator.check_schema(script.schema_of(name))


def test_there_is_a_schema_for_each_verb_and_no_other_file():
    assert {path.stem for path in FOLDER.iterdir()} == set(script.OUTPUTS)
    printing = {verb.replace(" ", "-") for verb, one in VERBS.items() if "json" in {p.name for p in one.params}}
    described = set(script.OUTPUTS)
    missing = {verb for verb in printing if not any(f"{name}-".startswith(f"{verb}-") for name in described)}
    assert missing == UNTYPED


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs the command line in this process and returns its stdout."""

    def run(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["edge-ran", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert (end.value.code or 0) == code, err
        return out

    return run


def valid(name: str, text: str) -> dict[str, Any]:
    """Check a verb's output against its file; return it."""
    record: dict[str, Any] = json.loads(text)
    jsonschema.validate(record, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
    assert record["tool"].startswith("edge-ran ")
    return record


QUICK = ("--cpu", "--num-runs", 10, "--min-secs", 0, "--warmup-runs", 1, "--json", "-q")


def test_what_is_said_of_files(printed, labelled_model, pictures, tmp_path: Path):
    model = labelled_model("int8")
    valid("inspect-model", printed("inspect", model, "--json"))
    valid("inspect-model", printed("inspect", model, "--json", "-v"))
    valid("inspect-run", printed("inspect", ROOT / "edge_ran" / "shipped" / "edge50", "--json"))
    valid("dataset-check", printed("dataset", pictures, "--json", "-q"))
    valid("evaluate", printed("evaluate", model, pictures, "--json", "-q"))
    valid("evaluate", printed("evaluate", model, pictures, "--reference", model, "--json", "-q"))


def test_what_is_said_of_a_network(printed):
    pytest.importorskip("tf_keras", reason="needs edge-ran[host]")
    valid("inspect-network", printed("inspect", "edge50", "--input-size", 32, "--json"))


def test_lines_and_summary_of_a_run(printed, labelled_model, tmp_path: Path):
    clip = write_clip(tmp_path / "clip.avi", 3)
    for name, more in (("int8", []), ("attention", ["--attention"])):
        summary = tmp_path / f"{name}.json"
        words = ["--camera", clip, "--no-realtime", "--json", "--cpu", "--summary", summary, *more]
        lines = printed("run", labelled_model(name), *words).splitlines()
        assert len(lines) == 3
        for line in lines:
            valid("run", line)
        valid("run-summary", summary.read_text())


def test_measurements(printed, labelled_model, pictures, tmp_path: Path):
    model, other = labelled_model("int8"), labelled_model("float32")
    for name in ("a", "b"):
        text = printed("benchmark", model, *QUICK, "--result-json", tmp_path / f"{name}.json")
        valid("benchmark", text)
        valid("benchmark", (tmp_path / f"{name}.json").read_text())
    valid("benchmark-several", printed("benchmark", model, other, *QUICK))
    valid("compare", printed("compare", tmp_path / "a.json", tmp_path / "b.json", "--json"))
    valid("profile", printed("profile", model, "--json", "-q"))
    valid("sustain", printed("sustain", model, "--duration", "2s", "--cpu", "--json", "-q"))
    valid("sweep", printed("sweep", model, "--threads", "1,2", "--accelerator", "cpu", *QUICK[1:]))
    verified = printed("verify", model, "--images", pictures, "--json", "-q")
    assert valid("verify", verified)["checks"]


def test_devices_and_this_machine(printed):
    valid("devices", printed("devices", "--no-probe", "--json"))
    valid("devices", printed("devices", "local", "--json"))
    from edge_ran.doctor import examine

    valid("doctor", printed("doctor", "--json", code=0 if examine().is_healthy else 3))
