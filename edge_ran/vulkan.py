"""The Vulkan adapters of this machine: what GPU runtimes can choose from, before any of them is loaded.

``adapters`` asks in a child process, for a driver may crash. Run as a module, it asks here and prints JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

KINDS = ("other", "integrated", "discrete", "virtual", "software")  # VkPhysicalDeviceType; 4 is a CPU
SOFTWARE_NAMES = re.compile(r"swiftshader|llvmpipe|lavapipe|softpipe", re.IGNORECASE)
TIMEOUT_S = 30
_LAST_WAIT_S = 5.0

_API_1_1 = 1 << 22 | 1 << 12
_INSTANCE_CREATE_INFO, _APPLICATION_INFO = 1, 0
_PROPERTIES_2, _DRIVER_PROPERTIES = 1000059001, 1000196000
_FEATURES_2, _STORAGE_16_BIT, _FLOAT_16 = 1000059000, 1000083000, 1000082000


@dataclass(frozen=True)
class Adapter:
    """One Vulkan adapter. ``kind`` is one of ``KINDS``; ``driver`` its driver's name and version; ``api`` Vulkan's.

    ``has_fp16``: shaders may store and compute in half precision.
    """

    name: str
    kind: str
    driver: str
    api: str
    has_fp16: bool = False

    @property
    def is_software(self) -> bool:
        """Whether it is made of CPU threads."""
        return self.kind == "software" or bool(SOFTWARE_NAMES.search(self.name))


def adapters() -> tuple[tuple[Adapter, ...], str]:
    """Return this machine's adapters, and why there are none (empty where there are some). Asked once a process."""
    return listed(tuple(sorted((key, value) for key, value in os.environ.items() if key.startswith("VK_"))))


@functools.cache
def listed(environment: tuple[tuple[str, str], ...]) -> tuple[tuple[Adapter, ...], str]:
    """Ask, in the environment that there is now."""
    try:
        done = _run([sys.executable, "-m", "edge_ran.vulkan"])
    except subprocess.TimeoutExpired:
        return (), f"the Vulkan driver did not answer within {TIMEOUT_S} s"
    if done.returncode < 0:
        return (), f"the Vulkan driver crashed (signal {-done.returncode})"
    try:
        answer = json.loads(done.stdout.decode().strip().rpartition("\n")[2])
        return tuple(Adapter(**adapter) for adapter in answer["adapters"]), answer["reason"]
    except (ValueError, KeyError, TypeError):
        return (), "the Vulkan adapters cannot be listed"


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    """Run it as ``subprocess.run`` does, which would wait for ever for a child that a driver holds in the kernel."""
    place = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        said, _ = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LAST_WAIT_S)
        if process.stdout:
            process.stdout.close()
    return subprocess.CompletedProcess(command, process.returncode, said)


class _ApplicationInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("application", ctypes.c_char_p),
        ("application_version", ctypes.c_uint32),
        ("engine", ctypes.c_char_p),
        ("engine_version", ctypes.c_uint32),
        ("api_version", ctypes.c_uint32),
    )


class _InstanceCreateInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.POINTER(_ApplicationInfo)),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    )


class _DriverProperties(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("id", ctypes.c_uint32),
        ("name", ctypes.c_char * 256),
        ("info", ctypes.c_char * 256),
        ("conformance", ctypes.c_uint8 * 4),
    )


class _Properties2(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("api_version", ctypes.c_uint32),
        ("driver_version", ctypes.c_uint32),
        ("vendor", ctypes.c_uint32),
        ("device", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("name", ctypes.c_char * 256),
        ("rest", ctypes.c_uint64 * 256),  # cache identity, limits and sparse properties: more than enough room
    )


class _Storage16Bit(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("storage", ctypes.c_uint32),
        ("uniform_and_storage", ctypes.c_uint32),
        ("push_constant", ctypes.c_uint32),
        ("input_output", ctypes.c_uint32),
    )


class _Float16(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("float16", ctypes.c_uint32),
        ("int8", ctypes.c_uint32),
    )


class _Features2(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint32), ("next", ctypes.c_void_p), ("features", ctypes.c_uint32 * 64))


def _has_fp16(vulkan: ctypes.CDLL, device: int | None) -> bool:
    """Whether it has what WebGPU's ``shader-f16`` asks of Vulkan."""
    arithmetic = _Float16(type=_FLOAT_16)
    storage = _Storage16Bit(type=_STORAGE_16_BIT, next=ctypes.addressof(arithmetic))
    features = _Features2(type=_FEATURES_2, next=ctypes.addressof(storage))
    vulkan.vkGetPhysicalDeviceFeatures2(ctypes.c_void_p(device), ctypes.byref(features))
    return bool(arithmetic.float16 and storage.storage and storage.uniform_and_storage)


def _ask() -> tuple[list[Adapter], str]:
    try:
        vulkan = ctypes.CDLL("libvulkan.so.1")
    except OSError:
        return [], "there is no Vulkan loader (libvulkan.so.1)"
    application = _ApplicationInfo(type=_APPLICATION_INFO, application=b"edge-ran", api_version=_API_1_1)
    info = _InstanceCreateInfo(type=_INSTANCE_CREATE_INFO, application=ctypes.pointer(application))
    instance = ctypes.c_void_p()
    status = vulkan.vkCreateInstance(ctypes.byref(info), None, ctypes.byref(instance))
    if status:
        return [], f"there is no Vulkan driver (vkCreateInstance returned {status})"
    count = ctypes.c_uint32()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
    devices = (ctypes.c_void_p * count.value)()
    vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices)
    found = []
    for device in devices:
        driver = _DriverProperties(type=_DRIVER_PROPERTIES)
        properties = _Properties2(type=_PROPERTIES_2, next=ctypes.addressof(driver))
        vulkan.vkGetPhysicalDeviceProperties2(ctypes.c_void_p(device), ctypes.byref(properties))
        version, api = properties.driver_version, properties.api_version
        words = (driver.name.decode(errors="replace"), driver.info.decode(errors="replace"), f"({version:#x})")
        found.append(
            Adapter(
                properties.name.decode(errors="replace"),
                KINDS[properties.kind] if properties.kind < len(KINDS) else "other",
                " ".join(word for word in words if word),
                f"{api >> 22}.{api >> 12 & 0x3FF}.{api & 0xFFF}",
                _has_fp16(vulkan, device),
            )
        )
    vulkan.vkDestroyInstance(instance, None)
    return found, "" if found else "Vulkan has no adapter"


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        answered, reason = _ask()
    print(json.dumps({"adapters": [asdict(adapter) for adapter in answered], "reason": reason}))
