"""The ABI of a program or library, from its ELF header."""

from __future__ import annotations

import struct
from pathlib import Path

from edge.errors import ConfigError

_MACHINES = {3: "x86", 40: "armeabi-v7a", 62: "x86_64", 183: "arm64-v8a", 243: "riscv64"}
_HEADER_BYTES = 20


def elf_abi(path: Path) -> str:
    """Return Android's name of a file's ABI; raises ConfigError for a file that is not ELF."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(b"\x7fELF"):
        raise ConfigError(f"{path} is no program of Android or Linux: build it for the device")
    order = ">" if header[5] == 2 else "<"
    (machine,) = struct.unpack_from(f"{order}H", header, 18)
    return _MACHINES.get(machine, f"machine {machine}")
