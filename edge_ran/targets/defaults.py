"""What a device's description says of accelerator and threads, where the user says nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_ran.catalogue import DeviceSpec
from edge_ran.runtime import RuntimeOptions


@dataclass(frozen=True)
class DeviceDefaults:
    """What a device's description says where the user said nothing; None: it says nothing either."""

    accelerator: str | None = None
    threads: int | None = None

    def options(self) -> dict[str, str | int]:
        """Return it as options of a verb, by the names of their parameters."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    def runtime(self, options: RuntimeOptions) -> RuntimeOptions:
        """Return the runtime's options with it."""
        accelerator, threads = self.accelerator or options.accelerator, self.threads or options.threads
        return dataclasses.replace(options, accelerator=accelerator, threads=threads)


def suited(spec: DeviceSpec, typed: Mapping[str, Any]) -> DeviceDefaults:
    """Return what the device's description says of accelerator and threads, where the options typed leave it open."""
    names_one = {"accelerator", "cpu", "gpu", "delegate"} & typed.keys()
    return DeviceDefaults(
        accelerator=None if spec.accelerator == "auto" or names_one else spec.accelerator,
        threads=None if not spec.threads or "threads" in typed else spec.threads,
    )
