import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_ran import doctor, machine, vulkan
from edge_ran.cli.render import doctor as render
from edge_ran.doctor import FAULT, GOOD, HINT, examine
from edge_ran.runtime import child_process, huge_pages, interpreter, trial_cache
from edge_ran.runtime.trial import Trial


def only(examination) -> tuple[str, str, str]:
    (finding,) = doctor._guarded(examination)
    return finding.state, finding.what, finding.remedy


def test_this_machine_is_told_in_full():
    found = examine()
    names = {finding.name for finding in found.findings}
    assert names == {
        "python", "numpy", "opencv", "runtime", "host", "gpu", "delegates", "trials", "cameras", "disk", "heat",
        "clock", "memory",
    }  # fmt: skip
    runtime = next(finding for finding in found.findings if finding.name == "runtime")
    assert runtime.state == GOOD
    assert interpreter.package().version in runtime.what
    assert all(len(line) < 200 for line in render.diagnosis(found).splitlines())


def test_command(tmp_path):
    # A cache of its own: other tests try accelerators meanwhile, which doctor counts.
    own = {"VK_DRIVER_FILES": str(tmp_path / "none.json"), "XDG_CACHE_HOME": str(tmp_path)}
    environment = {**os.environ, **own}
    command = [sys.executable, "-m", "edge_ran", "doctor"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment, check=False)
    record = json.loads(done.stdout)
    assert done.returncode == (0 if record["is_healthy"] else 3)
    assert done.stderr == ""
    text = subprocess.run(command, capture_output=True, text=True, env=environment, check=False).stdout
    assert all(finding["what"] in text for finding in record["findings"] if finding["name"] != "disk")


def test_a_fault_makes_it_unhealthy_and_is_marked():
    diagnosis = doctor.Diagnosis((doctor.Finding("a", GOOD, "x"), doctor.Finding("b", FAULT, "y", "mend it")))
    assert not diagnosis.is_healthy
    assert render.diagnosis(diagnosis).splitlines() == ["ok a  x", "!! b  y", "      -> mend it"]
    assert doctor.Diagnosis((doctor.Finding("a", HINT, "x"),)).is_healthy


def test_an_examination_that_breaks_is_a_finding():
    def _broken():
        raise OSError("libGL.so.1: cannot open shared object file")
        yield

    assert only(_broken) == (FAULT, "cannot be checked: libGL.so.1: cannot open shared object file", "")


def test_opencv_without_libgl(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # import cv2 raises ImportError
    state, what, remedy = only(doctor._opencv)
    assert state == FAULT
    assert "cv2" in what
    assert "opencv-python-headless" in remedy


def test_numpy_without_a_library_of_the_system(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "numpy":
                below = ImportError("libstdc++.so.6: cannot open shared object file: No such file or directory")
                raise ImportError("\n\nIMPORTANT: PLEASE READ THIS FOR ADVICE", name="numpy") from below

    monkeypatch.delitem(sys.modules, "numpy")
    monkeypatch.setattr(sys, "meta_path", [Broken()])
    state, what, remedy = only(doctor._numpy)
    assert (state, what.partition(":")[0]) == (FAULT, "libstdc++.so.6")
    assert remedy == "sudo apt install libstdc++6"


def test_two_opencv_wheels_overwrite_each_other(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "4.11" if "contrib" not in name else "")
    found = doctor._guarded(doctor._opencv)
    assert [finding.state for finding in found] == [GOOD, FAULT]
    assert "overwrite each other" in found[1].what


def test_no_runtime(monkeypatch):
    monkeypatch.setattr(interpreter, "installed", list)
    state, what, remedy = only(doctor._runtimes)
    assert state == FAULT
    assert "no TFLite runtime" in what
    assert "pip install" in remedy


def test_a_runtime_that_crashes_on_import(monkeypatch):
    def crash(*words):
        raise child_process.ChildFailed("crashed (SIGILL)")

    monkeypatch.setattr(child_process, "ask", crash)
    state, what, _ = only(doctor._runtimes)
    assert state == FAULT
    assert "crashed (SIGILL)" in what


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (((), "there is no Vulkan loader (libvulkan.so.1)"), HINT, "no Vulkan loader"),
        (((vulkan.Adapter("llvmpipe", "software", "llvmpipe 1", "1.3.0"),), ""), HINT, "llvmpipe, software"),
        (
            ((vulkan.Adapter("V3D 7.1", "integrated", "v3dv 23.2", "1.2.0"),), ""),
            GOOD,
            "V3D 7.1, integrated, v3dv 23.2",
        ),
    ],
)
def test_gpus(answer, state, words, monkeypatch):
    monkeypatch.setattr(vulkan, "adapters", lambda: answer)
    found = doctor._guarded(doctor._gpus)
    assert found[0].state == state
    assert words in found[0].what


def test_delegates_in_the_library_path(monkeypatch, tmp_path):
    (tmp_path / "libvx_delegate.so").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    state, what, remedy = only(doctor._delegates)
    assert state == GOOD
    assert str(tmp_path / "libvx_delegate.so") in what
    assert "--delegate" in remedy


def test_trials_are_counted_without_the_files_that_load(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "my cache"))
    for name in ("one", "two"):
        trial_cache.store(trial_cache.cache_file(model=name), {"loads": True})
    assert only(doctor._trials) == (GOOD, "none of GPUs and delegates remembered yet", "")
    trial_cache.store(trial_cache.cache_file(model="three"), Trial("the GPU crashed").record())
    assert only(doctor._trials)[1:] == (
        "1 of GPUs and delegates remembered",
        f"rm -r '{trial_cache.folder()}' tries them again",
    )


def test_a_full_disk(monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 5, 5)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert {finding.state for finding in doctor._guarded(doctor._disk)} == {FAULT}


@pytest.mark.parametrize(
    ("celsius", "throttled", "state"),
    [(45.0, False, GOOD), (85.0, False, HINT), (None, None, HINT), (70.0, True, FAULT)],
)
def test_heat(celsius, throttled, state, monkeypatch):
    monkeypatch.setattr(machine, "temperature_c", lambda: celsius)
    monkeypatch.setattr(machine, "is_throttled", lambda: throttled)
    assert only(doctor._temperature)[0] == state


def test_a_camera_without_permission(monkeypatch, tmp_path):
    (tmp_path / "video0").touch()
    real = doctor.Path
    monkeypatch.setattr(doctor, "Path", lambda name, *more: real(tmp_path if str(name) == "/dev" else name, *more))
    assert only(doctor._cameras)[0] == GOOD
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    state, what, remedy = only(doctor._cameras)
    assert state == FAULT
    assert "video0" in what
    assert "usermod" in remedy
    assert Path is real


def test_huge_pages(monkeypatch):
    monkeypatch.setattr(huge_pages, "page_size", lambda: 2 << 20)
    assert only(doctor._huge_pages) == (GOOD, "huge pages of 2 MB for large networks", "")
    monkeypatch.setattr(huge_pages, "page_size", lambda: 0)
    state, what, _ = only(doctor._huge_pages)
    assert (state, "huge pages" in what) == (HINT, True)
