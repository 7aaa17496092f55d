"""Devices that time artifacts, and their registry."""

from __future__ import annotations

from typing import Any

from benchmark.config import DeviceOptions
from benchmark.devices.base import (
    Device,
    DiscoveredDevice,
    Job,
    Loaded,
    ModelRefused,
    StageTimes,
    TextInputs,
    Timer,
    Turn,
    Warmed,
)
from edge.registry import look_up

# kind -> module and class, imported on use.
DEVICES = {
    "local": "benchmark.devices.local:LocalDevice",
    "browser": "benchmark.devices.browser.device:BrowserDevice",
    "ssh": "benchmark.devices.remote.ssh:SshDevice",
    "qemu": "benchmark.devices.remote.qemu:QemuDevice",
    "adb": "benchmark.devices.adb.device:AdbDevice",
    "coreml": "benchmark.devices.coreml:CoreMLDevice",
}


def get_device(spec: str, options: DeviceOptions | None = None) -> Device:
    """Open the device of `KIND` or `KIND:ADDRESS`.

    Raises ConfigError for an unknown kind, or the device's error if it cannot be used.
    """
    kind, _, address = spec.partition(":")
    device: Device = _device_class(kind)(address or None, options or DeviceOptions())
    return device


def check_device(spec: str) -> None:
    """Raise ConfigError for an unknown kind of device."""
    _device_class(spec.partition(":")[0])


def find_devices(options: DeviceOptions | None = None) -> list[DiscoveredDevice]:
    """List the devices of every kind that are visible from here; nothing runs on them."""
    chosen = options or DeviceOptions()
    return [device for kind in DEVICES for device in _discover(kind, chosen)]


def _discover(kind: str, options: DeviceOptions) -> list[DiscoveredDevice]:
    try:
        devices: list[DiscoveredDevice] = _device_class(kind).discover(options)
    except Exception as error:  # a broken library of one kind must not hide the others
        reason = " ".join(str(error).split())
        return [
            DiscoveredDevice(
                kind, kind, reason=f"{type(error).__name__} while looking for it: {reason}"
            )
        ]
    return devices


def _device_class(kind: str) -> Any:
    return look_up("device", kind, DEVICES)


__all__ = [
    "DEVICES",
    "Device",
    "DiscoveredDevice",
    "Job",
    "Loaded",
    "ModelRefused",
    "StageTimes",
    "TextInputs",
    "Timer",
    "Turn",
    "Warmed",
    "check_device",
    "find_devices",
    "get_device",
]
