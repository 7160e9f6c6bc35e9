"""Devices other than this machine: the same verbs there, by ``--device``.

``target`` says what a device is asked and must answer; ``address`` reads the words of ``--device``, ``devices`` opens
what they mean; ``ssh`` is a board that runs this very code, ``agent`` what it is asked by; ``android`` is a phone over
``adb`` that runs the official ``benchmark_model``: ``program`` is that program on a phone, ``remote_runs`` are measured
with it.
"""

from edge_ran.targets.address import check
from edge_ran.targets.devices import (
    Cleaned,
    DeviceList,
    DeviceReport,
    clean,
    list_devices,
    open_target,
    probe_all,
    resolve,
)
from edge_ran.targets.target import Order, Page, Parcel, Probe, Result, Target, Unfetched

__all__ = [
    "Cleaned",
    "DeviceList",
    "DeviceReport",
    "Order",
    "Page",
    "Parcel",
    "Probe",
    "Result",
    "Target",
    "Unfetched",
    "check",
    "clean",
    "list_devices",
    "open_target",
    "probe_all",
    "resolve",
]
