"""Baselines of a benchmark, such as BERT-base: built once, cached, and timed with every model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from edge import __version__
from edge.bundle import Bundle, is_bundle
from edge.checkpoint import open_checkpoint
from edge.console import hush, step
from edge.errors import unknown_name
from edge.formats import FORMATS
from edge.precision import Precision
from edge.provenance import Counts, content, describe, plain, versions
from edge.sources import checkpoint_content
from edge.storage import cache_folder, made_once, sha256, staged_folder, write_text

if TYPE_CHECKING:
    from benchmark import Baseline, BaselineMaker

BERT_BASE = "bert-base"
# Baseline name -> Transformers' name of its architecture, which gets random weights.
KNOWN = {BERT_BASE: "bert", "distilbert-base": "distilbert"}
NO_BASELINE = "none"
_ROWS = "rows.jsonl"
_GOLDEN_TEXTS = 6
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_VOCABULARY_SIZE = 30522


def baseline_maker(name: str, *, allow_pickle: bool = False) -> BaselineMaker:
    """Return the function that builds the baseline `name` for given formats and lengths.

    name: "bert-base", a checkpoint folder, a bundle, a report folder or its rows, or "none".
    """

    def make(formats: Sequence[str], lengths: Sequence[int]) -> Baseline | None:
        if name == NO_BASELINE:
            return None
        return prepare_baseline(
            name, formats=formats, seq_length=lengths, allow_pickle=allow_pickle
        )

    return make


def prepare_baseline(
    name: str, *, formats: Sequence[str], seq_length: Sequence[int], allow_pickle: bool = False
) -> Baseline:
    """Return the baseline `name`: "bert-base", "distilbert-base", or a folder of the user.

    The named ones have the real architecture with random weights: valid for latency and size,
    meaningless for accuracy. Their files are built on first use in the cache folder (EDGE_CACHE, by
    default ~/.cache/edge-encoders). formats: of the required artifacts.
    seq_length: in tokens. Raises ConfigError for an unknown name.
    """
    from benchmark import Baseline

    path, kind = Path(name), _kind(name)
    if kind == "bundle":
        return Baseline(name=path.resolve().name, bundle=path)
    if kind == "rows":
        return Baseline(name=path.resolve().name, rows=path)
    random_weights = kind == "known"
    checkpoint = known_checkpoint(name) if random_weights else path
    needed = tuple(name for name in FORMATS if name in formats)
    bundle = _bundle(checkpoint, needed, seq_length, allow_pickle) if needed else None
    return Baseline(
        name=name if random_weights else checkpoint.name,
        checkpoint=checkpoint,
        bundle=bundle,
        random_weights=random_weights,
    )


def _kind(name: str) -> Literal["none", "known", "bundle", "rows", "checkpoint"]:
    """Return the kind of a baseline name; raises ConfigError for an unknown one."""
    path = Path(name)
    if name == NO_BASELINE:
        return "none"
    if is_bundle(path):
        return "bundle"
    if path.suffix == ".jsonl" or (path / _ROWS).is_file():
        return "rows"
    if name in KNOWN:
        return "known"
    if path.is_dir():
        return "checkpoint"
    raise unknown_name("baseline", name, [*KNOWN, NO_BASELINE])


def check_baseline(name: str, *, allow_pickle: bool = False) -> None:
    """Raise the UserErrors of `prepare_baseline` that need no building of files."""
    from benchmark import read_rows

    path, kind = Path(name), _kind(name)
    if kind == "bundle":
        Bundle.open(path)
    elif kind == "rows":
        read_rows(path)
    elif kind == "checkpoint":
        open_checkpoint(path, allow_pickle=allow_pickle)


def baseline_content(name: str) -> Any:
    """Return the content hash of a baseline; raises ConfigError as `prepare_baseline` does."""
    path, kind = Path(name), _kind(name)
    if kind in {"none", "known"}:
        return name
    file = path / _ROWS if kind == "rows" and path.is_dir() else path
    digest = checkpoint_content(path) if kind == "checkpoint" else content(file)
    return {"name": path.resolve().name, "sha256": digest}


# bert-base, distilbert-base, none, or a path.
BaselineName = Annotated[str, Counts(baseline_content)]


def known_checkpoint(name: str) -> Path:
    """Return the cached checkpoint of a name in KNOWN."""
    return random_checkpoint(cache_folder() / __version__ / name, KNOWN[name])


def random_checkpoint(target: Path, architecture: str = "bert") -> Path:
    """Return `target`, a text classifier of base size with random weights, written on first use.

    architecture: one with BERT's vocabulary, such as "distilbert".
    """

    def make() -> None:
        with step(f"{architecture} of base size with random weights"), hush():
            write()

    def write() -> None:
        import torch
        import transformers

        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(architecture)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        with staged_folder(target, replaces=lambda folder: True) as stage:
            model.save_pretrained(stage)
            write_text(stage / "vocab.txt", "\n".join(_vocabulary()) + "\n")
            transformers.BertTokenizerFast(str(stage / "vocab.txt")).save_pretrained(stage)

    made_from = {"architecture": architecture, "versions": versions("distill")}
    return _cached(target, made_from, make)


def _cached(target: Path, made_from: Mapping[str, Any], make: Callable[[], object]) -> Path:
    """Return `target` in the cache, written by `make` unless its inputs were the same."""

    def make_and_record() -> None:
        make()
        _record(target, made_from)

    return made_once(
        target, make_and_record, is_whole=lambda folder: _is_current(folder, made_from)
    )


def _is_current(target: Path, made_from: Mapping[str, Any]) -> bool:
    """Return True if a folder is unchanged and was built from the same inputs."""
    if not target.is_dir():
        return False
    try:
        values = json.loads(_record_file(target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(values == plain({"made_from": made_from, "sha256": sha256(target)}))


def _record(target: Path, made_from: Mapping[str, Any]) -> None:
    """Record the inputs of a folder; without a record the folder is built again."""
    values = {"made_from": made_from, "sha256": sha256(target)}
    write_text(_record_file(target), json.dumps(values, indent=1) + "\n")


def _record_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.made.json")


def _vocabulary() -> list[str]:
    """Return a vocabulary of BERT-base's size: printable characters, then unused entries."""
    characters = [chr(code) for code in range(33, 127)]
    entries = [*BERT_TOKENS, *characters, *(f"##{character}" for character in characters)]
    return entries + [f"[unused{i}]" for i in range(_VOCABULARY_SIZE - len(entries))]


def _bundle(
    checkpoint: Path, formats: tuple[str, ...], seq_length: Sequence[int], allow_pickle: bool
) -> Path:
    """Return a cached bundle of fp32 artifacts with these sequence lengths."""
    from converters import ConvertConfig, convert

    opened = open_checkpoint(checkpoint, allow_pickle=allow_pickle)
    name = "-".join((checkpoint.name, opened.weights_sha256[:12], *formats, *map(str, seq_length)))
    target = cache_folder() / name
    config = ConvertConfig(
        source=str(checkpoint),
        output=target,
        format=formats,
        precision=(Precision.FP32,),
        seq_length=tuple(seq_length),
        # A few texts suffice for verification; the predictions are not used.
        golden_texts=_GOLDEN_TEXTS,
        allow_pickle=allow_pickle,
    )

    def make() -> None:
        if not is_bundle(target):
            shutil.rmtree(target, ignore_errors=True)  # a damaged folder of the cache
        convert(config)

    return _cached(target, {**describe(config), "versions": versions("converters")}, make)
