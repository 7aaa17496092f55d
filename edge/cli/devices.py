"""`edge devices`: where artifacts can be timed now, and what keeps them from it elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.cli.options import AsJson, given, print_json, print_table

if TYPE_CHECKING:
    from benchmark.devices import DiscoveredDevice


def devices(
    tools: Annotated[
        Path | None, typer.Option(help="Folder of programs to run on Android devices.")
    ] = None,
    sysroot: Annotated[
        Path | None, typer.Option(help="Folder of an Arm system for emulated devices.")
    ] = None,
    json: AsJson = False,
) -> None:
    """List every device that can be seen, what it can time now, or why not."""
    from benchmark.config import DeviceOptions
    from benchmark.devices import find_devices

    options = DeviceOptions.build(given({"tools": tools, "sysroot": sysroot}), where="edge devices")
    found = find_devices(options)
    if json:
        print_json([asdict(one) for one in found])
        return
    header = ("--device", "what it is", "times", "why not")
    print_table("", header, [_line(one) for one in found])


def _line(found: DiscoveredDevice) -> tuple[str, ...]:
    return (found.spec, found.title, ", ".join(found.formats) or "-", found.reason or "")
