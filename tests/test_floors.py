"""Imports point down, every module is on one floor, and the contract that says so can fail."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
from importlinter.api import read_configuration

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
PACKAGES = ("edge", "distill", "converters", "benchmark")


def _floors() -> list[list[str]]:
    """The contract's layers, top first; each is the list of its modules, optional or not."""
    contracts = read_configuration(str(PYPROJECT))["contracts_options"]
    (floors,) = [contract for contract in contracts if contract["id"] == "floors"]
    return [[name.strip(" ()") for name in re.split("[|:]", layer)] for layer in floors["layers"]]


def _modules(package: str) -> list[str]:
    files = sorted((ROOT / package).rglob("*.py"))
    dotted = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    return [name.removesuffix(".__init__") for name in dotted]


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the packages in `folder` against the contract in its pyproject.toml."""
    script = "import sys; from importlinter.cli import lint_imports; "
    script += "sys.path.insert(0, '.'); sys.exit(lint_imports(no_cache=True, no_logo=True))"
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": "", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_imports_point_down() -> None:
    done = _lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_on_one_floor(package: str) -> None:
    placed = [name for floor in _floors() for name in floor]
    modules = [name for name in _modules(package) if name != "edge"]
    assert modules
    for module in modules:
        on = [name for name in placed if f"{module}.".startswith(f"{name}.")]
        assert len(on) == 1, f"{module} is on {on or 'no floor'}: place it in pyproject.toml"


def test_no_two_modules_import_each_other() -> None:
    """Inside a package too, by whatever detour, and for types alone."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    # What imports nothing that is left is in no circle.
    while done := [module for module, below in imports.items() if not below & imports.keys()]:
        for module in done:
            del imports[module]
    assert imports == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_of_modules_is_a_package(package: str) -> None:
    folders = {file.parent for file in (ROOT / package).rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_edge_itself_is_on_no_floor_because_it_imports_nothing() -> None:
    tree = ast.parse((ROOT / "edge" / "__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [node for node in imports if getattr(node, "module", None) != "__future__"] == []


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Our contract over empty modules, one for each name in it."""
    shutil.copy(PYPROJECT, tmp_path)
    for name in [*PACKAGES, *(name for floor in _floors() for name in floor)]:
        folder = tmp_path.joinpath(*name.split("."))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()
    return tmp_path


def test_the_contract_allows_what_points_down(house: Path) -> None:
    (house / "edge/cli/convert.py").write_text("def run():\n    import converters\n")
    (house / "converters/onnx.py").write_text("import edge.engines\nfrom edge import errors\n")
    (house / "edge/checkpoint/read.py").write_text("import edge.tasks\n")
    done = _lint_imports(house)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "imports"),
    [
        ("edge.errors", "edge.config"),
        ("edge.bundle", "edge.tokenization"),
        ("edge.engines", "converters"),
        ("edge.verify", "edge.pipeline"),
        ("edge.pipeline", "edge.cli"),
        ("benchmark", "edge.pipeline"),
        ("distill", "converters"),
        ("converters", "benchmark"),
        ("benchmark", "distill"),
    ],
)
def test_the_contract_refuses_what_points_up_or_across(
    house: Path, module: str, imports: str
) -> None:
    """An import inside a function counts like any other."""
    code = f"def use():\n    import {imports}\n"
    house.joinpath(*module.split("."), "__init__.py").write_text(code)
    done = _lint_imports(house)
    assert done.returncode == 1
    assert "0 kept, 1 broken" in done.stdout
    assert re.search(rf"{re.escape(module)} -> {re.escape(imports)} \(l\.2\)", done.stdout)
