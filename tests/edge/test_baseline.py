from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.errors import BundleError, ConfigError, DataError
from edge.pipeline import baseline
from edge.pipeline.baseline import baseline_content, check_baseline, random_checkpoint

Change = Callable[[pytest.MonkeyPatch, Path], None]


def _flip(_: pytest.MonkeyPatch, folder: Path) -> None:
    file = next(folder.rglob("*.onnx"), folder / "model.safetensors")
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _lose_tokenizer(_: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _lose_manifest(_: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "edge.json").unlink(missing_ok=True)
    (folder / "config.json").unlink(missing_ok=True)


def _lose_record(_: pytest.MonkeyPatch, folder: Path) -> None:
    folder.with_name(f"{folder.name}.made.json").unlink()


def _new_version(monkeypatch: pytest.MonkeyPatch, _: Path) -> None:
    monkeypatch.setattr("edge.provenance.__version__", "99")


CHANGES = [_flip, _lose_tokenizer, _lose_manifest, _lose_record, _new_version]


def _when(folder: Path) -> int:
    return folder.stat().st_ctime_ns


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ELECTRA of base size is the smallest of those that read BERT's words."""
    folder = tmp_path_factory.mktemp("random") / "electra"
    folder.mkdir()
    # Such a folder used to pass for the whole checkpoint.
    (folder / "config.json").write_text("{}")
    return random_checkpoint(folder, "electra")


@pytest.mark.parametrize("change", [None, *CHANGES])
def test_only_a_whole_random_checkpoint_is_kept(
    random_folder: Path, monkeypatch: pytest.MonkeyPatch, change: Change | None
) -> None:
    from edge.storage import sha256

    assert (random_folder / "model.safetensors").stat().st_size > 10_000_000
    before, whole = _when(random_folder), sha256(random_folder)
    if change is not None:
        change(monkeypatch, random_folder)
    random_checkpoint(random_folder, "electra")
    # A folder that is made again is another one.
    assert (_when(random_folder) == before) == (change is None)
    assert sha256(random_folder) == whole


@pytest.mark.parametrize("change", [None, *CHANGES])
def test_only_a_whole_bundle_of_the_same_versions_is_kept(
    bert_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    change: Change | None,
) -> None:
    cache = tmp_path_factory.getbasetemp() / "baseline-cache"
    monkeypatch.setenv("EDGE_CACHE", str(cache))

    def made() -> Path:
        found = baseline.prepare_baseline(
            str(bert_checkpoint), formats=("onnx",), seq_length=(16,)
        ).bundle
        assert found is not None
        return found

    folder = made()
    before = _when(folder)
    if change is not None:
        change(monkeypatch, folder)
    assert made() == folder
    assert (_when(folder) == before) == (change is None)
    check_baseline(str(folder))


def test_a_baseline_is_checked_before_anything_is_made(tmp_path: Path, bert_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'bert-base'"):
        check_baseline("bert-bse")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="schema unknown"):
        check_baseline(str(tmp_path))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "edge.json").write_text("{}")
    with pytest.raises(BundleError):
        check_baseline(str(tmp_path / "bundle"))
    for name in ("none", "bert-base", str(bert_bundle)):
        check_baseline(name)
    assert baseline_content("bert-base") == "bert-base"
