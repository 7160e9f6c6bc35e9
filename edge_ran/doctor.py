"""What this machine has and lacks for edge-ran, and what to type where something is missing or broken.

Nothing here may need what it looks for: every check imports its own packages, and a check that fails is a finding.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_ran import __version__, machine, records, vulkan
from edge_ran.errors import EdgeRanError, unimportable
from edge_ran.python_command import BEFORE_NUMPY_2, pip

State = Literal["good", "hint", "fault"]
GOOD: State = "good"
HINT: State = "hint"
FAULT: State = "fault"
OLDEST_PYTHON = (3, 10)
_HOST = "install 'edge-ran[host]'"
LEAST_FREE_BYTES = 1_000_000_000
HOTTEST_C = 80.0
# Delegates as vendors name them: TFLite's GPU, Coral, VeriSilicon, Arm NN, Qualcomm, MediaTek.
DELEGATES = (
    "libtensorflowlite_gpu_delegate.so",
    "libedgetpu.so.1",
    "libvx_delegate.so",
    "libarmnnDelegate.so",
    "libQnnTFLiteDelegate.so",
    "libneuron_stable_delegate.so",
)
LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt", "/vendor/lib64")


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``state``: ``good``, ``hint`` (not needed by everybody) or ``fault`` (must be repaired)."""

    name: str
    state: State
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """Everything found."""

    findings: tuple[Finding, ...]

    @records.derived
    def is_healthy(self) -> bool:
        """Whether there is no fault."""
        return all(finding.state != FAULT for finding in self.findings)


def examine() -> Diagnosis:
    """Check everything. Takes a second or two; raises nothing."""
    findings: list[Finding] = []
    for check in (
        _python, _numpy, _opencv, _runtimes, _host, _gpus, _delegates, _trials, _cameras, _disk, _temperature,
        _governor, _huge_pages,
    ):  # fmt: skip
        findings += _guarded(check)
    return Diagnosis(tuple(findings))


def _guarded(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    name = check.__name__.strip("_")
    try:
        return list(check())
    except ModuleNotFoundError as error:
        return [Finding(name, FAULT, f"cannot be checked: {error}", pip("install --force-reinstall edge-ran"))]
    except Exception as error:  # whatever a half-installed package raises is what we are here to tell
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return [Finding(name, FAULT, f"cannot be checked: {reason}")]


def _python() -> Iterator[Finding]:
    emulated = f" (emulated on {real})" if (real := machine.emulated_on()) else ""
    text = f"{platform.python_version()} on {platform.machine()}{emulated}, edge-ran {__version__}"
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("python", FAULT, text, "edge-ran needs Python 3.10 or newer")
    else:
        yield Finding("python", GOOD, text)


def _numpy() -> Iterator[Finding]:
    try:
        import numpy as np
    except ImportError as error:
        yield Finding("numpy", FAULT, *unimportable(error, pip("install --force-reinstall numpy")))
        return
    old = int(np.__version__.partition(".")[0]) < 2
    installed = importlib.util.find_spec("tflite_runtime") is not None
    if installed and not old and importlib.util.find_spec("ai_edge_litert") is None:
        remedy = pip(BEFORE_NUMPY_2)
        yield Finding("numpy", FAULT, f"{np.__version__}: tflite-runtime was built against NumPy 1", remedy)
    else:
        yield Finding("numpy", GOOD, np.__version__)


def _opencv() -> Iterator[Finding]:
    names = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
    wheels = [f"{name} {version}" for name in names if (version := _version(name))]
    try:
        import cv2
    except ImportError as error:
        remedy = f"{pip('uninstall -y opencv-python')}; {pip('install --force-reinstall opencv-python-headless')}"
        yield Finding("opencv", FAULT, *unimportable(error, remedy))
        return
    lines = (line.split(":", 1) for line in cv2.getBuildInformation().splitlines() if ":" in line)
    built = {key.strip(): value.strip() for key, value in lines}
    gui = built.get("GUI", "NONE") or "NONE"
    window = "no window (--show needs opencv-python)" if gui == "NONE" else f"windows through {gui}"
    video = "FFmpeg" if built.get("FFMPEG", "NO").startswith("YES") else "no FFmpeg: no streams or clips"
    yield Finding("opencv", GOOD, f"{cv2.__version__}, {window}, {video}")
    if len(wheels) > 1:
        removed = " ".join(wheel.split()[0] for wheel in wheels)
        remedy = f"{pip(f'uninstall -y {removed}')}; {pip('install --upgrade edge-ran')}"
        yield Finding("opencv", FAULT, f"{' and '.join(wheels)} overwrite each other's cv2", remedy)


def _runtimes() -> Iterator[Finding]:
    from edge_ran.runtime import child_process, interpreter

    found = interpreter.installed()
    if not found:
        try:
            interpreter.package()
        except EdgeRanError as error:
            yield Finding("runtime", FAULT, str(error), error.remedy)
    for place, package in enumerate(found):
        name = f"{package.name} {package.version}"
        try:
            answer = child_process.ask(f"{__name__}:load_runtime", {"name": package.name}, 60)
        except child_process.ChildFailed as failure:
            answer = {
                "error": f"{name} {failure}",
                "remedy": pip(f"install --force-reinstall {interpreter.WHEELS[package.name]}"),
            }
        if "error" in answer:
            # Only the runtime that would serve must work.
            yield Finding("runtime", HINT if place else FAULT, answer["error"], answer["remedy"])
        else:
            yield Finding("runtime", GOOD, f"{name}{' (serves)' if place == 0 and len(found) > 1 else ''}")


def load_runtime(name: str) -> dict[str, str]:
    """Import a runtime, in the child."""
    from edge_ran.runtime import interpreter

    try:
        interpreter.load(interpreter.package(name))
    except EdgeRanError as error:
        return {"error": str(error), "remedy": error.remedy}
    return {}


def _host() -> Iterator[Finding]:
    missing = [name for name in ("tensorflow", "tf_keras", "tensorflow_model_optimization") if not _has(name)]
    if missing:
        what = f"no training and conversion here: {', '.join(missing)} not installed"
        yield Finding("host", HINT, what, f"{pip(_HOST)}, on a machine that trains")
    else:
        yield Finding("host", GOOD, f"trains and converts: TensorFlow {_version('tensorflow')}")


def _gpus() -> Iterator[Finding]:
    from edge_ran.runtime import gpu

    if sys.platform != "linux":
        yield Finding("gpu", HINT, f"not checked on {sys.platform}", "try it: edge-ran verify")
        return
    adapters, missing = vulkan.adapters()
    if missing:
        yield Finding("gpu", HINT, missing, _gpu_remedy())
    for adapter in adapters:
        precision = "fp16 and fp32" if adapter.has_fp16 else "fp32 only"
        text = f"{adapter.name}, {adapter.kind}, {adapter.driver}, Vulkan {adapter.api}, {precision}"
        if adapter.is_software:
            yield Finding("gpu", HINT, text, "computed by the CPU: good for tests, never faster than the CPU itself")
        else:
            yield Finding("gpu", GOOD, text)
    if adapters and not _has("ai_edge_litert"):
        yield Finding("gpu", HINT, "LiteRT, which drives the GPU, is not installed", pip("install ai-edge-litert"))
    elif adapters and not gpu.libraries():
        what = "this LiteRT lacks its GPU accelerator's library"
        yield Finding("gpu", HINT, what, pip("install --force-reinstall ai-edge-litert"))


def _gpu_remedy() -> str:
    """What to type where Vulkan shows no adapter."""
    for variable in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        if chosen := os.environ.get(variable):
            return f"unset {variable}, which allows only {chosen}"
    nodes = sorted(Path("/dev/dri").glob("renderD*"))
    if nodes and not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
        return "sudo usermod -aG render,video $USER, log in again"
    return "sudo apt install libvulkan1 mesa-vulkan-drivers, or your vendor's driver"


def _delegates() -> Iterator[Finding]:
    folders = [Path(name) for name in (*LIBRARY_FOLDERS, *os.environ.get("LD_LIBRARY_PATH", "").split(":")) if name]
    found = []
    for folder in folders:
        for pattern in ("", "*/", "*/*/"):
            found += [str(path) for name in DELEGATES for path in folder.glob(pattern + name)]
    if found:
        yield Finding("delegates", GOOD, ", ".join(sorted(set(found))), "use one with --delegate PATH")
    else:
        yield Finding("delegates", HINT, "no vendor's TFLite delegate in the usual folders")


def _trials() -> Iterator[Finding]:
    from edge_ran.runtime import trial_cache

    folder = trial_cache.folder()
    records = (trial_cache.load(file) for file in folder.glob("*.json"))
    count = sum("failure" in record for record in records if record)  # the others are of files that load
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        what = f"{folder} cannot be written to: GPUs and delegates are tried again at every start"
        yield Finding("trials", HINT, what, "set XDG_CACHE_HOME to a folder that can")
    elif count:
        remedy = f"rm -r {shlex.quote(str(folder))} tries them again"
        yield Finding("trials", GOOD, f"{count} of GPUs and delegates remembered", remedy)
    else:
        yield Finding("trials", GOOD, "none of GPUs and delegates remembered yet")


def _cameras() -> Iterator[Finding]:
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        yield Finding("cameras", HINT, "no /dev/video*", "plug one in; --camera also takes files, folders and streams")
    for device in devices:
        label = Path("/sys/class/video4linux") / device.name / "name"
        name = label.read_text().strip() if label.is_file() else "unnamed"
        if os.access(device, os.R_OK | os.W_OK):
            yield Finding("cameras", GOOD, f"{device}: {name}")
        else:
            yield Finding(
                "cameras", FAULT, f"{device}: {name}: no permission", "sudo usermod -aG video $USER, log in again"
            )


def _disk() -> Iterator[Finding]:
    places = [Path.cwd()]
    try:
        places.append(Path(tempfile.gettempdir()))
    except OSError:
        remedy = "set TMPDIR to a folder that can"
        yield Finding("disk", HINT, "no folder for temporary files can be written to", remedy)
    for folder in dict.fromkeys(places):
        free = shutil.disk_usage(folder).free
        state = GOOD if free >= LEAST_FREE_BYTES else FAULT
        remedy = "" if state == GOOD else "free some space, or set TMPDIR"
        yield Finding("disk", state, f"{free / 1e9:.1f} GB free in {folder}", remedy)


def _temperature() -> Iterator[Finding]:
    celsius = machine.temperature_c()
    if machine.is_throttled():
        yield Finding("heat", FAULT, "the processor is being throttled", "cool it, or use a stronger power supply")
    elif celsius is None:
        yield Finding("heat", HINT, "no temperature sensor is visible: benchmarks cannot tell throttling")
    elif celsius >= HOTTEST_C:
        yield Finding("heat", HINT, f"{celsius:.0f} °C", "let it cool before a benchmark")
    else:
        yield Finding("heat", GOOD, f"{celsius:.0f} °C")


def _governor() -> Iterator[Finding]:
    governor = machine.governor()
    if governor is None:
        yield Finding("clock", HINT, "the clock policy is not visible")
    elif governor == "performance":
        yield Finding("clock", GOOD, governor)
    else:
        remedy = (
            "for steady benchmarks: echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        )
        yield Finding("clock", HINT, governor, remedy)


def _huge_pages() -> Iterator[Finding]:
    from edge_ran.runtime import huge_pages

    slower = "large networks run up to a tenth slower"
    if size := huge_pages.page_size():
        yield Finding("memory", GOOD, f"huge pages of {size >> 20} MB for large networks")
    elif sys.platform != "linux":
        yield Finding("memory", HINT, f"no huge pages on {sys.platform}: {slower}")
    else:
        remedy = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled, if there is that file"
        yield Finding("memory", HINT, f"the kernel gives no huge pages: {slower}", remedy)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
