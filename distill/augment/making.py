"""From a method to a table of new texts, made once and kept in a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill.augment.words import key, sentences, spans
from distill.recipe.augmentations import Augmentation, MaskedLM, NearestEmbedding, Rules, Unlabelled
from distill.students import Teacher
from distill.tasks import tasks_where
from edge.console import hush, say
from edge.data import Table, read_table
from edge.errors import CheckpointError, ConfigError, DataError
from edge.provenance import describe, versions
from edge.storage import sha256, write_text
from edge.tasks import Task
from edge.tokenization import describe as describe_tokenizer

Row = tuple[str, str | None]


def augment(
    table: Table,
    method: Augmentation,
    *,
    task: Task,
    teacher: Teacher,
    folder: Path,
    exclude: Sequence[Table] = (),
) -> Table:
    """New texts without labels, from a file in `folder` that is written if it is not there.

    The file's name holds a fingerprint of everything that decides what is in it, and its own hash:
    a damaged one is made again. No text occurs
    twice or in `table`; none is a text of `exclude`, the rows a model is evaluated on, in other
    case, spaces or punctuation. Of pairs, rewriting changes the first, the second, both in turn.
    Raises ConfigError for a task whose labels are tied to words, DataError when nothing is left.
    """
    check_task(task, method)
    checkpoint, seen = _checkpoint(method, teacher), _Seen(table, exclude)
    name = _fingerprint(table, method, checkpoint, exclude)[:16]
    file = _kept(folder, f"{method.method}-{name}")
    if file is None:
        if isinstance(method, Unlabelled):
            made = _gather(table, method)
        else:
            made = _rewrite(table, method, checkpoint)
        rows = [row for row in made if seen.is_new(row)]
        if isinstance(method, Unlabelled) and method.limit is not None:
            rows = _drawn(rows, method.limit, method.seed)
        if not rows:
            raise DataError(
                f"augmentation {method.method} gives no text that {table.source} lacks: "
                "change its settings or take it out of the recipe"
            )
        file = _write(folder, f"{method.method}-{name}", rows, paired=table.pairs is not None)
        say(f"{method.method}: {len(rows):,} new texts in {file}")
    return read_table(file, targets=False)


def check_task(task: Task, method: Augmentation) -> None:
    """Raise ConfigError for a task whose labels belong to the words of a text."""
    allowed = tasks_where(lambda training: training.reading.whole)
    if task.name not in allowed:
        raise ConfigError(
            f"augmentation {method.method} gives texts without labels, and {task.name} learns "
            f"from labelled words: take it out of the recipe; it is for {' and '.join(allowed)}"
        )


class _Seen:
    """Tells which rows are new, remembering those it was asked about."""

    def __init__(self, table: Table, exclude: Sequence[Table]) -> None:
        self._rows = set(_rows(table))
        self._guarded = {_key(row) for other in exclude for row in _rows(other)}

    def is_new(self, row: Row) -> bool:
        if not row[0].strip() or row in self._rows or _key(row) in self._guarded:
            return False
        self._rows.add(row)
        return True


def _rows(table: Table) -> Iterator[Row]:
    if table.pairs is None:
        yield from ((text, None) for text in table.texts)
    else:
        yield from zip(table.texts, table.pairs, strict=True)


def _key(row: Row) -> Row:
    return key(row[0]), None if row[1] is None else key(row[1])


def _checkpoint(method: Augmentation, teacher: Teacher) -> Any:
    """The model a method reads words with, checked and not loaded."""
    from edge.checkpoint import open_checkpoint

    if isinstance(method, MaskedLM):
        try:
            return open_checkpoint(method.model, task="fill-mask")
        except CheckpointError as error:
            raise CheckpointError(f"augmentation masked-lm: {error}") from None
    if isinstance(method, NearestEmbedding) and method.model is not None:
        return open_checkpoint(method.model)
    return teacher.checkpoint


def _fingerprint(
    table: Table, method: Augmentation, checkpoint: Any, exclude: Sequence[Table]
) -> str:
    from edge.checkpoint import load_tokenizer

    parts: dict[str, Any] = {
        "versions": versions("distill"),
        "settings": describe(method),
        "texts": list(_rows(table)),
        "exclude": [list(_rows(other)) for other in exclude],
    }
    if not isinstance(method, Unlabelled):
        text, info = describe_tokenizer(load_tokenizer(checkpoint), folder=checkpoint.path)
        parts["model"] = [checkpoint.answers_sha256, json.loads(text), info.model_dump()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _rewrite(
    table: Table, method: MaskedLM | NearestEmbedding | Rules, checkpoint: Any
) -> Iterator[Row]:
    """Copy after copy of each row, each with chances of its own: no order of work matters."""
    texts = [*table.texts, *(table.pairs or [])]
    rewrite = _rewriter(method, texts, checkpoint)
    for index, (text, pair) in enumerate(_rows(table)):
        for copy in range(method.copies):
            random = np.random.default_rng((method.seed, index, copy))
            if pair is None:
                yield rewrite(text, random), None
            else:
                # First, second, both, as Tang et al. 2019 go through pairs.
                first = rewrite(text, random) if copy % 3 != 1 else text
                yield first, rewrite(pair, random) if copy % 3 != 0 else pair


def _rewriter(
    method: MaskedLM | NearestEmbedding | Rules, texts: list[str], checkpoint: Any
) -> Any:
    from distill.augment.classes import learn_classes, read_classes
    from distill.augment.proposals import by_neighbours
    from distill.augment.rewriting import ApplyRules, Replace
    from edge.checkpoint import load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    if isinstance(method, Rules):
        if method.lexicon is None:
            classes = learn_classes(texts, seed=method.seed)
        else:
            classes = read_classes(method.lexicon, texts)
        mask = tokenizer.mask_token or tokenizer.unk_token
        if mask is None and method.mask:
            raise ConfigError(
                f"augmentation rules masks words, and {checkpoint.source} has neither a mask nor "
                "an unknown token: set mask: 0"
            )
        return ApplyRules(method, classes, mask or "")
    if isinstance(method, MaskedLM):
        candidates = _masked_lm(method, texts, checkpoint, tokenizer)
    else:
        model = _load(checkpoint) if method.vectors is None else None
        space = _space(method, checkpoint, tokenizer, model)
        candidates = by_neighbours(texts, space, method.candidates)
    return Replace(candidates, method.probability)


def _masked_lm(method: MaskedLM, texts: list[str], checkpoint: Any, tokenizer: Any) -> Any:
    from distill.augment.proposals import Reader, by_masked_lm
    from distill.augment.vocabulary import Vocabulary
    from edge.checkpoint import max_length
    from edge.tokenization import Tokenizer

    if tokenizer.mask_token_id is None:
        raise ConfigError(f"augmentation masked-lm: {method.model} has no mask token")
    words = Tokenizer.of(tokenizer, folder=checkpoint.path)
    model = _load(checkpoint)
    reader = Reader(
        model,
        words,
        Vocabulary(tokenizer, checkpoint.path),
        max_length(checkpoint, tokenizer),
        method.together,
    )
    space = _space(method, checkpoint, tokenizer, model)
    return by_masked_lm(texts, reader, space, method.candidates)


def _space(method: MaskedLM | NearestEmbedding, checkpoint: Any, tokenizer: Any, model: Any) -> Any:
    from distill.augment.vocabulary import EmbeddingSpace, FileSpace, Vocabulary

    if method.vectors is not None:
        return FileSpace(method.vectors)
    vectors = model.get_input_embeddings().weight.detach().cpu().float().numpy()
    return EmbeddingSpace(Vocabulary(tokenizer, checkpoint.path), vectors)


def _load(checkpoint: Any) -> Any:
    import torch

    from edge.checkpoint import load_model

    with hush():
        model = load_model(checkpoint)
    return model.to("cuda") if torch.cuda.is_available() else model


def _gather(table: Table, method: Unlabelled) -> Iterator[Row]:
    assert method.source is not None  # filled in before anything is read
    pairs = False if table.pairs is None else None
    found = read_table(method.source, columns=method.columns, targets=False, pairs=pairs)
    if table.pairs is not None and found.pairs is None:
        raise DataError(
            f"{method.source} has single texts where {table.source} has pairs: name its second "
            "column with columns.text_pair"
        )
    labelled = {_key(row) for row in _rows(table)}
    seen: set[Row] = set()
    rows: Iterable[Row] = _rows(found)
    if table.pairs is None:
        rows = ((part, None) for text in found.texts for part in _parts(text, method))
    for row in rows:
        near = _key(row)
        counts = [len(spans(text)) for text in row if text is not None]
        fits = all(method.min_words <= count <= method.max_words for count in counts)
        if fits and near not in labelled and near not in seen:
            seen.add(near)
            yield row


def _parts(text: str, method: Unlabelled) -> list[str]:
    return sentences(text) if method.split_sentences else [text.strip()]


def _drawn(rows: list[Row], limit: int, seed: int) -> list[Row]:
    if len(rows) <= limit:
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), limit, replace=False)
    return [rows[i] for i in np.sort(chosen)]


def _kept(folder: Path, name: str) -> Path | None:
    """The file of that name that is what was written; damaged ones are removed."""
    for file in sorted(folder.glob(f"{name}-*.jsonl")):
        if file.stem == f"{name}-{sha256(file)[:16]}":
            return file
        file.unlink()
    return None


def _write(folder: Path, name: str, rows: list[Row], *, paired: bool) -> Path:
    names = ("text", "text_pair") if paired else ("text",)
    lines = (
        json.dumps(dict(zip(names, row, strict=False)), ensure_ascii=False) + "\n" for row in rows
    )
    text = "".join(lines)
    file = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    write_text(file, text)
    return file
