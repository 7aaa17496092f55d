"""What every test shares: no network, few threads, and the folder of real data if there is one."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Set before any library reads them; a test that needs the network is a mistake.
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
)
os.environ.setdefault("OMP_NUM_THREADS", "2")

# Reasons for leaving a test out that no tool which CI installs can remove: a Mac, data that is in
# no clone, reference libraries that are only compared with, what a container or a processor
# forbids, and a QEMU that takes 15 minutes to build. Every other skip is a failure where
# EDGE_REQUIRE_TOOLS is set.
_MAY_SKIP = (
    "no real data here",
    "reference repositor",
    " Mac",
    "Core ML runs here",
    "has no wheel",
    "TextBrewer is not installed",
    "sentence-transformers is not installed",
    "DeepSpeed is not installed",
    "no namespaces here",
    "has no WebGPU here",
    "needs a QEMU that counts",
)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Turn the skip of a test whose tool should be here into a failure."""
    report = yield
    if (
        not report.skipped
        or hasattr(report, "wasxfail")
        or not os.environ.get("EDGE_REQUIRE_TOOLS")
    ):
        return report
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if not any(words in reason for words in _MAY_SKIP):
        report.outcome = "failed"
        report.longrepr = f"left out, though EDGE_REQUIRE_TOOLS is set: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _caches_stay_out_of_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Libraries read HF_HOME at import: tests import them inside functions, after this."""
    os.environ["HF_HOME"] = str(tmp_path_factory.mktemp("hf-home"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and models: EDGE_SHARED, else ../shared beside the checkout."""
    folder = Path(os.environ.get("EDGE_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real data here: {folder} does not exist (EDGE_SHARED names the folder)")
    return folder


@pytest.fixture(scope="session")
def sst2(shared: Path) -> Path:
    """The folder with SST-2's train.tsv, dev.tsv and test.tsv: columns text and label."""
    return _existing(shared / "data" / "sst2")


@pytest.fixture(scope="session")
def sst2_teacher(shared: Path) -> Path:
    """A real 6-layer text classifier of two labels, fine-tuned on SST-2."""
    return _existing(shared / "models" / "minilm-sst2")


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"no real data here: {folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Callable[..., Path]:
    """`tiny_checkpoint(folder, architecture, task=..., labels=...)` of tests/models.py."""
    return _models().tiny_checkpoint


@pytest.fixture(scope="session")
def bert_checkpoint(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A random BERT of 2 layers and width 32 for three labels; read only."""
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "bert", "bert")


@pytest.fixture(scope="session")
def distilbert_checkpoint(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A random DistilBERT of 2 layers and width 32 for two labels; read only."""
    folder = tmp_path_factory.mktemp("checkpoint") / "distilbert"
    return tiny_checkpoint(folder, "distilbert", labels=("negative", "positive"))


@pytest.fixture(scope="session")
def bert_bundle(bert_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verified bundle of `bert_checkpoint`: every format and precision, lengths 16 and 32.

    Read only: a test that alters it works on a copy.
    """
    from converters import ConvertConfig, convert

    folder = tmp_path_factory.mktemp("bundle") / "bert"
    convert(ConvertConfig(source=str(bert_checkpoint), output=folder, seq_length=(16, 32)))
    return folder


def _models() -> ModuleType:
    """tests/models.py, by its path: some libraries install a package called `tests`."""
    name = "tiny_models"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "models.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]
