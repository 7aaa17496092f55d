"""Settings for `accelerate launch`, by name: several processes, and teachers too large for one."""

from __future__ import annotations

from pathlib import Path

from edge.errors import unknown_name

_FOLDER = Path(__file__).parent


def launch_names() -> list[str]:
    """The settings that ship with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def launch_file(name: str) -> Path:
    """A file for `accelerate launch --config_file`; raises ConfigError for an unknown name."""
    if name not in launch_names():
        raise unknown_name("launch setting", name, launch_names())
    return _FOLDER / f"{name}.yaml"
