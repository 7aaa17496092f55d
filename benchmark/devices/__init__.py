"""Where artifacts are timed."""

from __future__ import annotations

import importlib

from benchmark.devices.base import Device, Job, Loaded, Timer, Turn, Warmed
from edge.errors import unknown_name

# name -> module and class, imported on use.
DEVICES = {"local": "benchmark.devices.local:LocalDevice"}


def get_device(name: str) -> Device:
    """The device called `name`; raises ConfigError with the nearest name otherwise."""
    if name not in DEVICES:
        raise unknown_name("device", name, DEVICES)
    module, _, attribute = DEVICES[name].partition(":")
    device: Device = getattr(importlib.import_module(module), attribute)()
    return device


__all__ = ["DEVICES", "Device", "Job", "Loaded", "Timer", "Turn", "Warmed", "get_device"]
