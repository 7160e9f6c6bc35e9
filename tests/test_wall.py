"""The structure of the package: imports go down the floors, TensorFlow stays behind its wall, help needs no heavy
package, and functions and modules are short."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edge_ran"

# From the ground up; a module imports only from floors below its own. CONTRIBUTING.md draws the same table.
FLOORS = (
    (
        "energy",
        "errors",
        "intervals",
        "layer_names",
        "machine",
        "other_models",
        "python_command",
        "printable",
        "vulkan",
    ),
    (
        *("architecture", "catalogue", "folder_walk", "files", "labels", "recipe", "records", "web_server", "workers"),
        *("host_packages", "zip_archive"),
    ),
    ("card",),
    ("dynamic_range", "graph", "latency", "npz", "picture", "plots", "runs", "video_file"),
    ("camera", "pictures", "preprocess", "run_output", "runtime"),
    ("attention", "dataset", "hdf5", "model_interface", "report", "start", "unknown"),
    ("classifier", "collect"),
    ("evaluate", "verify", "bench", "stream", "doctor"),
    ("evaluation_page", "phone"),
    ("host", "targets"),
    ("deploy",),
    ("api", "cli"),
)
TENSORFLOW = {"tensorflow", "tf_keras", "tensorflow_model_optimization"}
# What `pip install edge-ran` brings, besides the runtimes; matplotlib and jinja2 come with the extra "report".
DEVICE = {"numpy", "cv2", "PIL", "flatbuffers", "ai_edge_litert", "tflite_runtime", "typer", "rich", "tomli", "tflite"}
REPORT = {"matplotlib", "jinja2"}
CLIPS = {"imagehash", "pillow_heif"}  # with the extra "clips"
PHONE = {"segno", "cryptography"}
HEAVY = sorted(TENSORFLOW | REPORT | {"numpy", "cv2", "PIL", "ai_edge_litert", "tflite_runtime", "flatbuffers"})


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()
# Lines: of code in a function, without its docstring, comments and blank lines; of a whole file.
MOST_IN_A_FUNCTION, MOST_IN_A_MODULE, MOST_IN_A_COMMAND = 60, 450, 200


def _imports(path: Path) -> set[str]:
    """Full names of what a module imports anywhere in it; ``from package import submodule`` is the submodule."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path}: write relative imports in full"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(full if full in MODULES else node.module)
    return names


def _family(module: str) -> str:
    """The room: the first name below the package; ``__main__`` only opens the cli's door."""
    return module.split(".")[1].replace("__main__", "cli") if "." in module else ""


def test_every_module_has_a_floor_and_every_floor_its_modules():
    families = {_family(module) for module in MODULES} - {""}
    assert families == {name for floor in FLOORS for name in floor}


@pytest.mark.parametrize("module", [m for m in MODULES if _family(m)])
def test_imports_go_down_the_floors(module: str):
    floor = {name: number for number, names in enumerate(FLOORS, start=1) for name in names}
    own = _family(module)
    wrong = [
        f"{imported} (floor {floor[_family(imported)]})"
        for imported in sorted(_imports(MODULES[module]))
        if imported in MODULES and _family(imported) not in ("", own) and floor[_family(imported)] >= floor[own]
    ]
    assert not wrong, f"{module} on floor {floor[own]} imports {', '.join(wrong)}"


def test_no_module_imports_itself_by_a_detour():
    order = graphlib.TopologicalSorter({m: _imports(p) & MODULES.keys() for m, p in MODULES.items()})
    order.prepare()  # raises CycleError, which names the circle


def test_the_device_side_needs_only_its_own_packages():
    standard = set(sys.stdlib_module_names) | {"tomllib"}  # which Python 3.10 has not
    for module, path in MODULES.items():
        if _family(module) != "host":
            foreign = {name.split(".")[0] for name in _imports(path)} - standard - {"edge_ran"}
            # Of the host alone, but read in a process that does not wait for TensorFlow.
            allowed = DEVICE | REPORT | CLIPS | PHONE | ({"h5py"} if module == "edge_ran.hdf5" else set())
            assert foreign <= allowed, f"{module} imports {sorted(foreign - allowed)}"


def test_contributing_draws_the_same_floors():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^(\d{1,2}) +([a-z].*?)(?:  .*)?$", text, re.M)
    drawn = {int(n): set(re.findall(r"\w+", names)) for n, names in rows}
    assert drawn == {n: set(names) for n, names in enumerate(FLOORS, start=1)}


def _gives_a_reason(node: ast.AST) -> bool:
    """A docstring with a line such as ``Long: one table that reads best in one place.`` lifts the limit."""
    text = ast.get_docstring(node) if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef)) else None
    return re.search(r"^Long: \w.{15,}", text or "", re.M) is not None


def _lines_of_code(lines: list[str], function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    numbers = set(range(function.lineno, function.end_lineno + 1))
    if ast.get_docstring(function) is not None:
        text = function.body[0]
        assert text.end_lineno is not None
        numbers -= set(range(text.lineno, text.end_lineno + 1))
    return sum(lines[number - 1].strip()[:1] not in ("", "#") for number in numbers)


def test_functions_and_modules_are_short():
    found = []
    for path in [*MODULES.values(), *sorted((ROOT / "scripts").rglob("*.py"))]:
        text = path.read_text(encoding="utf-8")
        tree, lines, name = ast.parse(text), text.splitlines(), path.relative_to(ROOT)
        most = MOST_IN_A_COMMAND if path.parent == PACKAGE / "cli" else MOST_IN_A_MODULE
        if len(lines) > most and not _gives_a_reason(tree):
            found.append(f"{name}: {len(lines)} lines, at most {most}")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not _gives_a_reason(node):
                count = _lines_of_code(lines, node)
                if count > MOST_IN_A_FUNCTION:
                    found.append(f"{name}:{node.lineno} {node.name}: {count} lines, at most {MOST_IN_A_FUNCTION}")
    assert not found, "split by responsibility:\n" + "\n".join(found)


def test_a_long_function_is_found_unless_it_gives_a_reason():
    body = "".join(f"    x{n} = {n}\n" for n in range(60))
    long = f'def f():\n    """What.\n\n    Why.\n    """\n{body}'
    excused = long.replace("Why.", "Long: one table that reads best in one place.")
    for text, reason in ((long, False), (excused, True)):
        (function,) = ast.parse(text).body
        assert isinstance(function, ast.FunctionDef)
        assert _lines_of_code(text.splitlines(), function) == 61
        assert _gives_a_reason(function) is reason


def _python(code: str, *absent: str) -> subprocess.CompletedProcess[str]:
    hide = f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, timeout=120)


def test_the_device_side_imports_without_tensorflow_and_pictures():
    names = [m for m in MODULES if _family(m) != "host"]
    done = _python(
        f"import importlib\nfor name in {names!r}: importlib.import_module(name)", *TENSORFLOW, *REPORT, *CLIPS
    )
    assert done.returncode == 0, done.stderr


def test_a_hidden_package_is_really_hidden():
    assert "ModuleNotFoundError" in _python("import numpy", "numpy").stderr


def test_help_of_every_verb_needs_no_heavy_package():
    code = """
from edge_ran import cli

def verbs(app, above):
    for command in app.registered_commands:
        yield [*above, command.name or command.callback.__name__.replace("_", "-")]
    for group in app.registered_groups:
        yield [*above, group.name or group.typer_instance.info.name]
        yield from verbs(group.typer_instance, [*above, group.name or group.typer_instance.info.name])

for words in [[], *verbs(cli.app, [])]:
    sys.argv = ["edge-ran", *words, "--help"]
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    print("VERB", *words, "ENDED", code)
"""
    done = _python(code, *HEAVY)
    assert done.returncode == 0, done.stderr
    ended = re.findall(r"^VERB (.*)ENDED (\S+)$", done.stdout, re.M)
    assert len(ended) > 5
    assert [words for words, exit_code in ended if exit_code != "0"] == [], done.stdout + done.stderr


def test_no_test_with_tensorflow_runs_in_the_parts_that_leave_them_out():
    """``scripts/test`` looks for tests marked prompt and alone outside ``tests/host`` only."""
    for path in (ROOT / "tests" / "host").glob("*.py"):
        assert not re.search(r"mark\.(prompt|alone)\b", path.read_text(encoding="utf-8")), path
