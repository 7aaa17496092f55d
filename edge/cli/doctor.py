"""`edge doctor`: what works here, and the command that adds what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edge.cli.options import AsJson, print_json, print_table
from edge.console import show

if TYPE_CHECKING:
    from edge.doctor import Diagnosis, ToolCheck

_HEALTHY = "Everything needed to distill, convert and verify all three formats works."
_AILING = "Something is missing that distilling, converting or verifying needs: see 'to fix it'."


def doctor(json: AsJson = False) -> None:
    """Say which formats, engines and devices work here, and how to add what is missing."""
    from edge.doctor import diagnose

    found = diagnose(devices)
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found)
    if not found.ok:
        raise typer.Exit(1)


def devices() -> list[ToolCheck]:
    """Every device that `edge devices` lists: an error says what is wrong, then what to do."""
    from benchmark.devices import find_devices
    from edge.doctor import ToolCheck

    checks = []
    for found in find_devices():
        reason, _, remedy = (found.reason or "").partition(": ")
        checks.append(
            ToolCheck(
                kind="device",
                name=found.spec,
                format=", ".join(found.formats) or None,
                works=not reason,
                reason=reason or None,
                remedy=(remedy or "see docs/devices.md") if reason else None,
            )
        )
    return checks


def _print(found: Diagnosis) -> None:
    machine = found.machine
    int8 = ", ".join(machine.int8_features) or "none"
    show(f"Python {machine.python}, {machine.system}, {machine.architecture}")
    show(f"{machine.processor}, {machine.cores} cores, int8 instructions: {int8}")
    show(f"torch {machine.torch_build or 'is not installed'}")
    show("")
    print_table(
        "",
        ("", "name", "format", "works", "version", "reason", "to fix it"),
        (
            (
                tool.kind,
                tool.name,
                tool.format or "-",
                "yes" if tool.works else "no",
                tool.version or "-",
                tool.reason or "",
                tool.remedy or "",
            )
            for tool in found.tools
        ),
    )
    faulty = [check for check in found.packages if not check.usable]
    if faulty:
        show("")
        print_table(
            "",
            ("package", "status", "reason", "to fix it"),
            ((c.package, c.status, c.reason or "", c.remedy or "") for c in faulty),
        )
    show("")
    for warning in found.warnings:
        show(f"warning: {warning}")
    show(_HEALTHY if found.ok else _AILING)
