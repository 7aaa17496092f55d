"""`edge doctor`: what works here, and the command that adds what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from edge.cli.options import AsJson, print_json, print_table
from edge.console import show

if TYPE_CHECKING:
    from edge.doctor import Diagnosis

_HEALTHY = "Everything needed to distil, convert and verify all three formats works."
_AILING = "Something is missing that distilling, converting or verifying needs: see 'to fix it'."


def doctor(json: AsJson = False) -> None:
    """Say which formats, engines and devices work here, and how to add what is missing."""
    from edge.doctor import diagnose

    found = diagnose()
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found)
    if not found.ok:
        raise typer.Exit(1)


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
