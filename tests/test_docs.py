"""The documents are true: every command runs, every link leads somewhere, every table is the catalogue's."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

from edge_ran import __version__, card, catalogue, cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / folder / "README.md" for folder in ("converters", "devices", "calibration_data")),
]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


readme = _script("readme")
COMMANDS = readme.commands(README)


def _words(text: str) -> set[str]:
    """The words of three letters and more, without those of a measurement's caution or of this machine."""
    kept = [line for line in text.splitlines() if not line.startswith(("reliable", "note", "machine"))]
    return set(re.findall(r"[a-z_]{3,}", "\n".join(kept)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with what the README speaks of, shared by its commands as by a reader's."""
    pytest.importorskip("tf_keras", reason="needs edge-ran[host]")
    folder = tmp_path_factory.mktemp("reader")
    readme.prepare(folder)
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.words.split("#")[0].strip())
def test_every_command_of_the_readme_runs_and_says_what_is_written(
    command, folder: Path, printed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    if command.words.startswith("edge-ran convert --int8 "):  # in this process: the other one has one of its own
        monkeypatch.chdir(folder)
        out = printed(*command.to_run[3:])
    else:
        done = subprocess.run(command.to_run, cwd=folder, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        out = done.stdout
    if command.words.startswith("edge-ran run"):  # what the network says of a picture is not the README's matter
        assert len(out.splitlines()) == 3
    else:
        assert _words(command.output) <= _words(out)


DEMO = """
from edge_ran.cli import main
from edge_ran.host import demo
usual = demo.benchmark
def benchmark(models, plan):
    assert plan == demo.Plan(num_runs=200, min_secs=2, max_secs=20)
    return usual(models, demo.Plan(num_runs=20, min_secs=0, max_secs=5))
demo.benchmark = benchmark
main()
"""


def test_the_demo_of_the_readme(tmp_path: Path):
    """`make demo`'s command, in an empty folder, with the network that ships; it measures for less long."""
    pytest.importorskip("tf_keras", reason="needs edge-ran[host]")
    words = [sys.executable, "-c", DEMO, "demo", "--force"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["edge-ran-demo"]
    page = (tmp_path / "edge-ran-demo" / "report.html").read_text(encoding="utf-8")
    assert "Not measured here" in page
    assert "edge-ran-demo/report.html" in done.stdout


def test_the_make_targets_of_the_documents_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {name for d in DOCUMENTS for name in re.findall(r"^\s*make (\w+)", d.read_text(encoding="utf-8"), re.M)}
    assert {"demo", "test", "lint", "wheel"} <= named
    assert named <= set(re.findall(r"^(\w+):", makefile, re.M))


def test_the_extras_and_the_version_of_the_readme_exist():
    project = catalogue.tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installs = re.findall(r"^\| `'?(edge_ran-([\d.]+)-py3-none-any\.whl)(?:\[([\w-]+)\])?'?` \|", README, re.M)
    assert {extra for _, _, extra in installs} == {"", *project["optional-dependencies"]} - {"dev"}
    assert {version for _, version, _ in installs} == {__version__}
    assert {extra for _, _, extra in installs if extra} <= set(project["optional-dependencies"])


def test_the_tables_are_those_of_the_catalogue_and_the_help():
    assert readme.with_tables(README) == README


def test_every_verb_is_in_the_documents():
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    for verb in typer.main.get_command(cli.app).commands:
        assert re.search(rf"(edge-ran |`){verb}\b", text), f"no document speaks of {verb}"


def test_every_option_that_the_documents_name_exists():
    """Commands in running text, which take too long to run here (a training of an hour), have real options at least."""
    verbs = typer.main.get_command(cli.app).commands
    seen = 0
    for document in DOCUMENTS:
        text = re.sub(r"^```console.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for verb, words in re.findall(r"edge-ran (\w+)([^`\n]*)", text):
            if verb in verbs:
                leaves = getattr(verbs[verb], "commands", {"": verbs[verb]}).values()  # `dataset` is a group
                known = {name for leaf in leaves for p in leaf.params for name in (*p.opts, *p.secondary_opts)}
                known.add("--help")
                assert set(re.findall(r"(?<=\s)--[a-z0-9-]+", words)) <= known, f"{document}: edge-ran {verb}{words}"
                seen += 1
    assert seen > 5


def test_the_page_of_commands_has_every_option_and_no_other():
    sections = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", readme.COMMANDS.read_text("utf-8"), re.M | re.DOTALL))
    verbs = dict(readme.leaves(typer.main.get_command(cli.app)))
    assert sections.keys() == verbs.keys(), "run scripts/readme.py"
    for verb, command in verbs.items():
        known = {name for one in command.params if not one.hidden for name in (*one.opts, *one.secondary_opts)}
        known = {name for name in known if name.startswith("--")} | {"--help"}
        told = set(re.findall(r"^  (?:-\w, )?(--[a-z0-9-]+)(?: / (--[a-z0-9-]+))?", sections[verb], re.M))
        assert {name for pair in told for name in pair if name} == known, f"{verb}: run scripts/readme.py"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("https://", "http://")):
            assert (document.parent / target).exists(), target


def _key_table(text: str) -> str:
    return text[text.index("| key |") :].split("\n\n")[0]


@pytest.mark.parametrize("kind", ["devices", "converters"])
def test_the_tables_of_keys_are_the_catalogues(kind: str):
    cls = {"devices": catalogue.DeviceSpec, "converters": catalogue.Converter}[kind]
    text = (catalogue.folder(kind) / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)` \|", _key_table(text), re.M)
    assert told == [f.name for f in dataclasses.fields(cls) if f.name != "name"]


@functools.cache
def _attributes() -> list[tuple[str, set[str]]]:
    """The names of the files of edge-ran, each with all attributes that it speaks of."""
    found = [(path.name, ast.walk(ast.parse(path.read_text("utf-8")))) for path in (ROOT / "edge_ran").rglob("*.py")]
    return [(name, {node.attr for node in nodes if isinstance(node, ast.Attribute)}) for name, nodes in found]


@pytest.mark.parametrize("kind", ["devices", "converters"])
def test_every_documented_key_is_read_by_whom_the_table_names(kind: str):
    """A key for people only is shown; any other is read outside the catalogue, and by verbs that exist."""
    text = (catalogue.folder(kind) / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", _key_table(text), re.M)
    verbs = set(typer.main.get_command(cli.app).commands)
    shown = {"devices.py", "catalogue.py"}  # lists of devices show all keys
    read = {attribute for name, found in _attributes() if name not in shown for attribute in found}
    for key, reader in rows:
        named = {word for word in re.findall(r"`(\w+)", reader)}
        assert named <= verbs, f"{key}: {named - verbs} is no verb"
        assert named or "people" in reader or "install" in reader or "ssh" in reader, key
        assert key in read or "people" in reader, f"nothing reads {key}"


def test_every_default_of_a_device_is_of_verbs_that_take_a_device():
    """ "--threads of run": that verb has the option, and takes a device whose description may give the value."""
    text = (catalogue.folder("devices") / "README.md").read_text(encoding="utf-8")
    verbs = typer.main.get_command(cli.app).commands
    seen = 0
    for options, names in re.findall(r"`(--[\w-]+)` of ((?:`\w+`(?:, | and )?)+)", _key_table(text)):
        for name in re.findall(r"\w+", names.replace(" and ", " ")):
            known = {opt for p in verbs[name].params for opt in p.opts}
            assert {options, "--device"} <= known, f"{name} has no {options} or no --device"
            seen += 1
    assert seen > 10


def test_every_key_of_a_card_is_read():
    """By more than the module that writes it; what is for people only, `inspect` shows."""
    read = {attribute for name, found in _attributes() if name != "card.py" for attribute in found}
    records = [one for one in vars(card).values() if dataclasses.is_dataclass(one) and one.__module__ == card.__name__]
    assert card.ModelCard in records
    unread = [f"{one.__name__}.{f.name}" for one in records for f in dataclasses.fields(one) if f.name not in read]
    assert not unread


@pytest.mark.parametrize("kind", ["devices", "converters"])
def test_the_example_of_a_catalogue_is_accepted(kind: str, tmp_path: Path):
    text = (catalogue.folder(kind) / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mine.toml").write_text(example)
    read = {"devices": catalogue.device, "converters": catalogue.converter}[kind]
    assert read(str(tmp_path / "mine.toml")).name == "mine"


def test_the_diagrams_are_what_their_script_draws(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    pictures.HERE = tmp_path
    pictures.main(["flow", "module"])
    for drawn in tmp_path.iterdir():
        assert drawn.read_bytes() == (ROOT / "docs" / drawn.name).read_bytes()
    assert len(list(tmp_path.iterdir())) == 2
