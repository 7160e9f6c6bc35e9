"""docs/schema: current, complete, and true of what the verbs print."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import jsonschema
import pytest
from loopback import write_clip
from schemas import FOLDER, ROOT, every_document_valid, script, valid
from test_cli_help import VERBS

from edge_ran import records
from edge_ran.targets.devices import Cleaned


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
    assert {verb for verb in printing if not any(f"{name}-".startswith(f"{verb}-") for name in described)} == set()


def test_each_schema_is_checked_against_a_real_output():
    """One call of ``valid`` for each; besides, every output made in a test's process is checked (conftest)."""
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    checked = {name for text in texts for name in re.findall(r"\bvalid(?:_record)?\(\s*\"([\w-]+)\"", text)}
    assert checked == set(script.OUTPUTS)


def test_an_output_that_is_not_as_its_schema_says_is_found():
    found = Cleaned("board", 5)
    assert records.document(found)["device"] == "board"
    with every_document_valid(), pytest.raises(jsonschema.ValidationError):
        records.document(dataclasses.replace(found, freed_bytes="many"))


QUICK = ("--cpu", "--num-runs", 10, "--min-secs", 0, "--warmup-runs", 1, "--json", "-q")


def test_what_is_said_of_files(printed, labelled_model, pictures, tmp_path: Path):
    model = labelled_model("int8")
    valid("inspect-model", printed("inspect", model, "--json"))
    valid("inspect-model", printed("inspect", model, "--json", "-v"))
    valid("inspect-run", printed("inspect", ROOT / "edge_ran" / "shipped" / "edge50", "--json"))
    valid("dataset-check", printed("dataset", pictures, "--json", "-q"))
    valid("evaluate", printed("evaluate", model, pictures, "--json", "-q"))
    pytest.importorskip("imagehash", reason="needs edge-ran[clips]")
    valid("dataset-build", printed("dataset", "build", pictures, "-o", tmp_path / "set", "--json", "-q"))
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
