"""``scripts/setup`` on machines that lack something, acted by small stand-ins for their Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def machine(tmp_path: Path):
    """A function that runs setup where only the given commands are Pythons: name -> (version, has venv, pip works)."""
    if not shutil.which("sh"):
        pytest.skip("no POSIX shell")
    checkout = tmp_path / "checkout"
    (checkout / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup", checkout / "scripts" / "setup")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "dirname", "rm", "tail", "mkdir", "cp", "cat"):
        (tools / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    (tools / "sleep").write_text("#!/bin/sh\n")
    (tools / "sleep").chmod(0o755)

    def run(
        pythons: dict[str, tuple[str, bool, bool]], *words: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        for name, (version, venv, pip) in pythons.items():
            (tools / name).write_text(
                "#!/bin/sh\n"
                'case "$*" in\n'
                f"  *version_info*) echo {version} ;;\n"
                f"  *ensurepip*) exit {0 if venv else 1} ;;\n"
                '  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;\n'
                '  *"pip --version"*) exit 0 ;;\n'
                f'  *install*) echo the last words of pip; echo "$*" >> calls; exit {0 if pip else 1} ;;\n'
                "  *) exit 9 ;;\n"
                "esac\n"
            )
            (tools / name).chmod(0o755)
        command = [str(checkout / "scripts" / "setup"), *words]
        return subprocess.run(
            command, env={"PATH": str(tools), **variables}, capture_output=True, text=True, cwd=tmp_path, timeout=30
        )

    run.checkout = checkout  # type: ignore[attr-defined]
    return run


def test_no_python_at_all(machine):
    done = machine({})
    assert done.returncode == 3
    assert "needs Python 3.10 to 3.13, and python3 is missing" in done.stderr
    assert "sudo apt install python3 python3-venv" in done.stderr
    assert "dnf install" in done.stderr
    assert "brew install" in done.stderr


@pytest.mark.parametrize("version", ["3.9", "3.14", "2.7"])
def test_only_a_python_that_tensorflow_has_no_wheels_for(machine, version: str):
    done = machine({"python3": (version, True, True)})
    assert done.returncode == 3
    assert f"python3 is {version}" in done.stderr


def test_python_without_venv_names_the_package(machine):
    done = machine({"python3": ("3.11", False, True)})
    assert done.returncode == 3
    assert "sudo apt install python3.11-venv" in done.stderr


def test_another_python_is_taken_when_the_first_is_too_new_or_lacks_venv(machine):
    pythons = {"python3": ("3.14", True, True), "python3.12": ("3.12", False, True), "python3.10": ("3.10", True, True)}
    done = machine(pythons)
    assert done.returncode == 0, done.stderr
    assert "setup: Python 3.10" in done.stderr


def test_a_chosen_python_is_the_only_one_asked(machine):
    done = machine({"python3": ("3.11", True, True), "mine": ("3.8", True, True)}, PYTHON="mine")
    assert done.returncode == 3
    assert "mine is 3.8" in done.stderr


def test_every_install_is_held_to_the_constraints_and_to_wheels(machine):
    assert machine({"python3": ("3.11", True, True)}).returncode == 0
    calls = (machine.checkout / "calls").read_text().splitlines()
    assert len(calls) == 2
    assert all("--constraint constraints.txt" in call and "--only-binary :all:" in call for call in calls)


def test_pip_is_tried_three_times_and_its_last_words_are_shown(machine):
    done = machine({"python3": ("3.11", True, False)})
    assert done.returncode == 3
    assert len((machine.checkout / "calls").read_text().splitlines()) == 3
    assert "the last words of pip" in done.stderr
    assert "check the network" in done.stderr


def test_a_virtual_environment_whose_python_is_gone_is_made_again(machine):
    gone = machine.checkout / ".venv" / "bin" / "python"
    gone.parent.mkdir(parents=True)
    gone.symlink_to("/nowhere/python3")
    (machine.checkout / ".venv" / "old").touch()
    assert machine({"python3": ("3.11", True, True)}).returncode == 0
    assert not (machine.checkout / ".venv" / "old").exists()


def test_the_wheel_needs_its_builder_only(machine):
    done = machine({"python3": ("3.11", True, True)}, "wheel")
    assert done.returncode == 0, done.stderr
    (call,) = (machine.checkout / "calls").read_text().splitlines()
    assert call.endswith("--constraint constraints.txt hatchling")
    assert (machine.checkout / ".venv-wheel" / "bin" / "python").is_file()
    assert not (machine.checkout / ".venv").exists()
