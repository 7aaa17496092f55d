"""A data file that is damaged in one place is refused, or means what it meant."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

STORM = Path(__file__).parents[2] / "scripts" / "storm" / "data.py"


def storm() -> ModuleType:
    spec = importlib.util.spec_from_file_location("storm_of_data", STORM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_no_text_silently_gets_another_target(tmp_path: Path) -> None:
    tried, faults = storm().storm(tmp_path, 40, seed=1)
    assert faults == []
    assert tried > 1500
