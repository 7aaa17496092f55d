"""A tiny world: a vocabulary, files whose labels can be learned, and random models over it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from distill import DistillResult
    from distill.students import Teacher

T = TypeVar("T")
GOOD = ["fine", "great", "lovely"]
BAD = ["awful", "poor", "sad"]
NEUTRAL = ["film", "plot", "actor", "scene", "music", "long"]
WORDS = [*GOOD, *BAD, *NEUTRAL]
LABELS = ("negative", "positive")
# Constructor settings of each architecture at the same tiny size.
SIZES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2},
    "electra": {
        "hidden_size": 16,
        "embedding_size": 8,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    },
    "distilbert": {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 32},
}


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of a tiny model spend their time waiting for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_tokenizer() -> Any:
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    inner = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=32,
    )


def make_config(model_type: str, labels: tuple[str, ...] = LABELS, **changes: Any) -> Any:
    from transformers import AutoConfig

    # A range larger than usual, so that the outputs of a random model differ from text to text.
    settings = {"initializer_range": 0.5, **SIZES[model_type], **changes}
    if model_type != "distilbert":
        settings.setdefault("intermediate_size", 32)
    return AutoConfig.for_model(
        model_type,
        vocab_size=5 + len(WORDS),
        max_position_embeddings=32 + (model_type == "roberta"),
        pad_token_id=0,
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
        **settings,
    )


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Save a random model of an architecture and give its folder; a text classifier by default."""

    def make(
        model_type: str = "bert",
        *,
        auto: str = "AutoModelForSequenceClassification",
        seed: int = 1,
        **changes: Any,
    ) -> Path:
        import torch
        import transformers

        folder = tmp_path_factory.mktemp(f"{model_type}-checkpoint")
        torch.manual_seed(seed)
        config = make_config(model_type, **changes)
        getattr(transformers, auto).from_config(config).save_pretrained(folder)
        make_tokenizer().save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """A BERT of 4 layers; read only."""
    return make_checkpoint()


def add_words(source: Path, folder: Path, auto: str = "AutoModelForSequenceClassification") -> Path:
    """A copy of a BERT of 17 tokens that has 60 more, which no text has."""
    import torch
    import transformers

    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for index in range(60):
        vocabulary[f"zzz{index}"] = len(vocabulary)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = getattr(transformers, auto).from_pretrained(source)
    torch.manual_seed(0)
    model.resize_token_embeddings(len(vocabulary))
    model.save_pretrained(folder)
    return folder


def open_teacher(folder: Path) -> Teacher:
    from distill.students import Teacher
    from edge.checkpoint import load_model, load_tokenizer, open_checkpoint

    checkpoint = open_checkpoint(folder)
    return Teacher(checkpoint, load_model(checkpoint), load_tokenizer(checkpoint))


def distil_tiny(
    teacher: Path | None, data: Mapping[str, Path], output: Path, /, **changes: Any
) -> DistillResult:
    """Distill `data`'s train, measured on its eval if there is one; keywords replace settings."""
    from distill import DistillConfig, distill

    values = {
        "teacher": str(teacher) if teacher else None,
        "train": str(data["train"]),
        "eval": str(data["eval"]) if "eval" in data else None,
        "output": output,
        "batch_size": 8,
        "learning_rate": 1e-3,
        **changes,
    }
    return distill(DistillConfig.build(values))


def write_tsv(path: Path, columns: str, rows: Iterable[Iterable[object]]) -> Path:
    """columns: their names with spaces between them."""
    lines = ["\t".join(map(str, row)) for row in (columns.split(), *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_rows(path: Path, count: int, *, seed: int) -> Path:
    """Sentences of 3 to 9 words, labelled by the one word in each that has an opinion."""
    choose, rows = random.Random(seed), []
    for _ in range(count):
        label = choose.randrange(2)
        words = choose.choices(NEUTRAL, k=choose.randrange(2, 9))
        words.insert(choose.randrange(len(words) + 1), choose.choice((BAD, GOOD)[label]))
        rows.append((" ".join(words), label))
    return write_tsv(path, "text label", rows)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of 48 and 24 rows."""
    folder = tmp_path_factory.mktemp("data")
    return {
        "train": write_rows(folder / "train.tsv", 48, seed=1),
        "eval": write_rows(folder / "eval.tsv", 24, seed=2),
    }


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that knows the answers, made from a configuration by the recipe `finetune`."""
    folder = tmp_path_factory.mktemp("taught")
    make_config("bert", initializer_range=0.1, hidden_dropout_prob=0.0).save_pretrained(
        folder / "shape"
    )
    make_tokenizer().save_pretrained(folder / "shape")
    files = {
        "train": write_rows(folder / "train.tsv", 96, seed=3),
        "eval": write_rows(folder / "eval.tsv", 48, seed=4),
    }
    result = distil_tiny(
        None,
        files,
        folder / "teacher",
        student=str(folder / "shape"),
        recipe="finetune",
        epochs=8,
        learning_rate=5e-3,
    )
    assert result.value is not None and result.value > 0.9
    return folder / "teacher"


def watch_links(monkeypatch: pytest.MonkeyPatch, note: Callable[[Any, str], T]) -> list[T]:
    """What `note` says of the run of every link of a chain and its SPEC, as the runs are made."""
    from distill.assistants import Chain

    seen: list[T] = []
    original = Chain._link

    def remember(self: Chain, made: int, spec: str, output: Path) -> Any:
        link = original(self, made, spec, output)
        seen.append(note(link, spec))
        return link

    monkeypatch.setattr(Chain, "_link", remember)
    return seen
