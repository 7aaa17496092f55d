"""BERT-base as the common yardstick: made once, kept in a cache, timed beside every model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge import __version__
from edge.bundle import Bundle, is_bundle
from edge.checkpoint import open_checkpoint
from edge.console import hush, step
from edge.errors import BundleError, unknown_name
from edge.formats import FORMATS
from edge.precision import Precision
from edge.storage import cache_folder, staged_folder, write_text

if TYPE_CHECKING:
    from benchmark import Baseline, BaselineMaker

BERT_BASE = "bert-base"
# Names that stand for a true architecture with random weights -> Transformers' name of it.
KNOWN = {BERT_BASE: "bert", "distilbert-base": "distilbert"}
NO_BASELINE = "none"
_GOLDEN_TEXTS = 6
BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_VOCABULARY_SIZE = 30522


def baseline_maker(name: str, *, allow_pickle: bool = False) -> BaselineMaker:
    """What makes the baseline called `name` when its formats and lengths are known.

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
    """The baseline called `name`: "bert-base", "distilbert-base", or a folder of the user's own.

    The known ones have their true architecture and random weights: right for latency and size,
    meaningless for accuracy. Its files are made on first use and kept in the cache
    folder (EDGE_CACHE, by default ~/.cache/edge-encoders). formats: which artifacts are needed.
    seq_length: in tokens. Raises ConfigError for an unknown name.
    """
    from benchmark import Baseline

    path = Path(name)
    if is_bundle(path):
        return Baseline(name=path.resolve().name, bundle=path)
    if path.suffix == ".jsonl" or (path / "rows.jsonl").is_file():
        return Baseline(name=path.resolve().name, rows=path)
    random_weights = name in KNOWN
    if random_weights:
        checkpoint = known_checkpoint(name)
    elif path.is_dir():
        checkpoint = path
    else:
        raise unknown_name("baseline", name, [*KNOWN, NO_BASELINE])
    wanted = tuple(name for name in FORMATS if name in formats)
    bundle = _bundle(checkpoint, wanted, seq_length, allow_pickle) if wanted else None
    return Baseline(
        name=name if random_weights else checkpoint.name,
        checkpoint=checkpoint,
        bundle=bundle,
        random_weights=random_weights,
    )


def known_checkpoint(name: str) -> Path:
    """The checkpoint of a name in KNOWN, in the cache folder."""
    return random_checkpoint(cache_folder() / __version__ / name, KNOWN[name])


def random_checkpoint(target: Path, architecture: str = "bert") -> Path:
    """A text classifier of an architecture's base size in folder `target`, written on first use.

    architecture: one that reads BERT's words, such as "distilbert".
    """
    if (target / "config.json").is_file():
        return target
    with step(f"{architecture} of base size with random weights"), hush():
        import torch
        import transformers

        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(architecture)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        with staged_folder(target, replaces=lambda folder: True) as stage:
            model.save_pretrained(stage)
            write_text(stage / "vocab.txt", "\n".join(_vocabulary()) + "\n")
            transformers.BertTokenizerFast(str(stage / "vocab.txt")).save_pretrained(stage)
    return target


def _vocabulary() -> list[str]:
    """As many entries as BERT-base has: the printable characters, then unused ones."""
    characters = [chr(code) for code in range(33, 127)]
    known = [*BERT_TOKENS, *characters, *(f"##{character}" for character in characters)]
    return known + [f"[unused{i}]" for i in range(_VOCABULARY_SIZE - len(known))]


def _bundle(
    checkpoint: Path, formats: tuple[str, ...], seq_length: Sequence[int], allow_pickle: bool
) -> Path:
    """A bundle of fp32 artifacts at one length, in the cache folder."""
    from converters import ConvertConfig, convert

    opened = open_checkpoint(checkpoint, allow_pickle=allow_pickle)
    name = "-".join((checkpoint.name, opened.weights_sha256[:12], *formats, *map(str, seq_length)))
    target = cache_folder() / name
    if is_bundle(target):
        try:
            Bundle.open(target)
            return target
        except BundleError:
            pass  # an altered cache entry is made again
    convert(
        ConvertConfig(
            source=str(checkpoint),
            output=target,
            format=formats,
            precision=(Precision.FP32,),
            seq_length=tuple(seq_length),
            # A few texts tell whether the files compute the same; nobody asks for their answers.
            golden_texts=_GOLDEN_TEXTS,
            allow_pickle=allow_pickle,
        )
    )
    return target
