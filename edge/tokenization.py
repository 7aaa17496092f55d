"""Text to input ids, from a bundle alone: no Transformers, no checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.bundle import TokenizerInfo
from edge.errors import BundleError, CheckpointError
from edge.signature import INPUT_NAMES

if TYPE_CHECKING:
    import tokenizers

Array = npt.NDArray[Any]
_PADDING = {"attention_mask": 0, "token_type_ids": 0}


@dataclass(frozen=True)
class Encoding:
    """One text's tokens, unpadded.

    input_ids, token_type_ids: n ids. offsets: n (start, end) positions in the characters of the
    text each token comes from. special: n flags, true for [CLS], [SEP] and the like. parts: n
    times 0 for a text, 1 for its pair, None for a special token. words: n indices of the words
    that tokens come from, in their part, None likewise. cut: whether the text went on.
    """

    input_ids: list[int]
    token_type_ids: list[int] | None = None
    offsets: list[tuple[int, int]] | None = None
    special: list[bool] | None = None
    parts: list[int | None] | None = None
    words: list[int | None] | None = None
    cut: bool = False

    def __len__(self) -> int:
        return len(self.input_ids)

    def runs(self) -> Iterator[tuple[int | None, int | None, list[int]]]:
        """Each run of tokens of one word, in order: its part, the word's number, their positions.

        Special tokens that stand together are one run, without part and number.
        """
        parts, words = self.parts or [], self.words or []
        for (part, word), run in groupby(range(len(parts)), lambda i: (parts[i], words[i])):
            yield part, word, list(run)

    def windows(self, max_length: int, overlap: int) -> list[Encoding]:
        """The encoding in pieces of at most `max_length` tokens, one of them if it fits.

        Each holds all special tokens and the whole first part, cut to half of the room where it
        is longer; the last part slides. overlap: how many of its tokens the next piece repeats,
        at most half of a piece's.
        """
        if len(self) <= max_length or self.parts is None:
            return [self]
        last = max((part for part in self.parts if part is not None), default=0)
        sliding = [i for i, part in enumerate(self.parts) if part == last]
        special = self.parts.count(None)
        kept = [i for i, part in enumerate(self.parts) if part is not None and part != last]
        kept = kept[: max(0, max_length - special) // 2]
        room = max(1, max_length - special - len(kept))
        step = max(1, room - min(overlap, room // 2))
        starts = range(0, max(1, len(sliding) - room + step), step)
        fixed = {*kept, *(i for i, part in enumerate(self.parts) if part is None)}
        return [self._take(sorted({*fixed, *sliding[i : i + room]})) for i in starts]

    def _take(self, tokens: Sequence[int]) -> Encoding:
        columns = (self.token_type_ids, self.offsets, self.special, self.parts, self.words)
        taken: list[Any] = [c if c is None else [c[i] for i in tokens] for c in columns]
        return Encoding([self.input_ids[i] for i in tokens], *taken)


class Tokenizer:
    """A Hugging Face `tokenizer.json` with lengths made explicit."""

    def __init__(self, inner: tokenizers.Tokenizer, info: TokenizerInfo) -> None:
        self.info = info
        self._inner = inner
        # Files carry truncation and padding of their own; only the caller's lengths count.
        inner.no_truncation()
        inner.no_padding()

    @classmethod
    def from_text(cls, text: str, info: TokenizerInfo) -> Tokenizer:
        """A tokenizer from the text of its `tokenizer.json`, as `describe` gives it."""
        import tokenizers

        return cls(tokenizers.Tokenizer.from_str(text), info)

    @classmethod
    def of(cls, tokenizer: Any, *, folder: Path) -> Tokenizer:
        """The same as a Transformers tokenizer; raises CheckpointError as `describe` does."""
        return cls.from_text(*describe(tokenizer, folder=folder))

    @classmethod
    def from_file(cls, path: Path, info: TokenizerInfo) -> Tokenizer:
        """Read `tokenizer.json`; raises BundleError when it cannot be parsed."""
        import tokenizers

        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)), info)
        except Exception as error:  # the Rust side raises a bare Exception
            raise BundleError(f"{path} is not a tokenizer file ({error})") from None

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int
    ) -> list[Encoding]:
        """Encode texts or pairs, truncated to `max_length` tokens, the longer part first."""
        self._inner.enable_truncation(max_length, strategy="longest_first")
        inputs: list[Any] = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        return [self._encoding(found) for found in self._inner.encode_batch(inputs)]

    def encode_whole(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[Encoding]:
        """Encode texts or pairs without a limit, for `Encoding.windows`."""
        self._inner.no_truncation()
        inputs: list[Any] = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        return [self._encoding(found) for found in self._inner.encode_batch(inputs)]

    def encode_words(self, texts: Sequence[Sequence[str]]) -> list[Encoding]:
        """Encode texts that come in words, without a limit, telling each token's word."""
        self._inner.no_truncation()
        # Byte-level vocabularies tell a word after a space from one at the start of a text.
        before = json.loads(self._inner.to_str()).get("pre_tokenizer") or {}
        steps = (before, *before.get("pretokenizers", ()))
        bare = (s for s in steps if s["type"] == "ByteLevel" and not s.get("add_prefix_space"))
        space = " " if any(bare) else ""
        inputs = [[space * bool(i) + word for i, word in enumerate(words)] for words in texts]
        found = self._inner.encode_batch(inputs, is_pretokenized=True)
        return [self._encoding(one) for one in found]

    def _encoding(self, found: tokenizers.Encoding) -> Encoding:
        typed = "token_type_ids" in self.info.inputs
        return Encoding(
            input_ids=found.ids,
            token_type_ids=found.type_ids if typed else None,
            offsets=found.offsets,
            special=[bool(flag) for flag in found.special_tokens_mask],
            parts=found.sequence_ids,
            words=found.word_ids,
            cut=bool(found.overflowing),
        )

    def pad(self, encodings: Sequence[Encoding], length: int) -> dict[str, Array]:
        """Model inputs, int32 of shape (batch, length), padded on the right.

        Encodings longer than `length` are cut; their last token stays, as truncation would.
        """
        return pad(encodings, length, inputs=self.info.inputs, pad_id=self.info.pad_token_id)

    def token(self, index: int) -> str:
        """The token with an id."""
        return self._inner.id_to_token(index) or ""


def pad(
    encodings: Sequence[Encoding], length: int, *, inputs: Sequence[str], pad_id: int
) -> dict[str, Array]:
    """Model inputs by name, int32 of shape (batch, length), padded on the right with `pad_id`."""
    columns: dict[str, Array] = {
        name: np.full((len(encodings), length), _PADDING.get(name, pad_id), np.int32)
        for name in inputs
    }
    for row, encoding in enumerate(encodings):
        count = min(len(encoding), length)
        values = {"input_ids": encoding.input_ids, "attention_mask": [1] * len(encoding)}
        values["token_type_ids"] = encoding.token_type_ids or [0] * len(encoding)
        for name, column in columns.items():
            column[row, :count] = _cut(values[name], count)
    return columns


def describe(tokenizer: Any, *, folder: Path) -> tuple[str, TokenizerInfo]:
    """The `tokenizer.json` text and description of a Transformers tokenizer.

    Raises CheckpointError for a tokenizer that exists in Python only (no fast version).
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise CheckpointError(
            f"{folder}: {type(tokenizer).__name__} has no tokenizer.json form: "
            "save the checkpoint with a fast tokenizer"
        )
    values = json.loads(inner.to_str())
    values["truncation"] = values["padding"] = None
    normalizer = _bert_normalizer(values.get("normalizer"))
    accents = normalizer.get("strip_accents")
    lowercase = bool(normalizer.get("lowercase", False))
    names = set(tokenizer.model_input_names) | {"input_ids", "attention_mask"}
    info = TokenizerInfo(
        file="tokenizer.json",
        sha256="",
        vocabulary="vocab.txt" if values["model"].get("type") == "WordPiece" else None,
        vocabulary_size=inner.get_vocab_size(),
        pad_token_id=tokenizer.pad_token_id or 0,
        mask_token_id=tokenizer.mask_token_id,
        lowercase=lowercase,
        strip_accents=lowercase if accents is None else bool(accents),
        inputs=tuple(name for name in INPUT_NAMES if name in names),
    )
    return json.dumps(values, ensure_ascii=False), info


def word_pieces(tokenizer_json: str) -> str:
    """The vocabulary of a WordPiece tokenizer, one token a line in the order of ids."""
    vocabulary: dict[str, int] = json.loads(tokenizer_json)["model"]["vocab"]
    return "\n".join(sorted(vocabulary, key=lambda token: vocabulary[token])) + "\n"


def _bert_normalizer(normalizer: dict[str, Any] | None) -> dict[str, Any]:
    """The part of a normalizer that lower-cases and strips accents, where there is one."""
    if not normalizer:
        return {}
    if normalizer.get("type") == "Sequence":
        parts = [_bert_normalizer(part) for part in normalizer["normalizers"]]
        return {key: value for part in parts for key, value in part.items()}
    if normalizer.get("type") == "Lowercase":
        return {"lowercase": True, "strip_accents": False}
    if normalizer.get("type") == "StripAccents":
        return {"strip_accents": True}
    return normalizer if normalizer.get("type") == "BertNormalizer" else {}


def _cut(values: Sequence[int], count: int) -> Sequence[int]:
    return values if len(values) <= count else [*values[: count - 1], values[-1]]
