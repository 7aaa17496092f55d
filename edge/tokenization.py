"""Tokenization from a bundle's files alone: no Transformers, no checkpoint."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.bundle import TokenizerInfo
from edge.errors import BundleError, CheckpointError, EdgeError
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
    times 0 for a text, 1 for its pair, None for a special token. words: n indices of the word
    of each token within its part, None likewise. cut: whether the text was truncated.
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
        """Yield part, word index and token positions of each word, in order.

        Adjacent special tokens form one run, with part and index None.
        """
        parts, words = self.parts or [], self.words or []
        for (part, word), run in groupby(range(len(parts)), lambda i: (parts[i], words[i])):
            yield part, word, list(run)

    def windows(self, max_length: int, overlap: int) -> list[Encoding]:
        """Split the encoding into overlapping windows of at most `max_length` tokens.

        Each window has all special tokens and the whole first part, truncated to half of the space
        if longer; the window slides over the last part. overlap: number of tokens that the next
        window repeats, at most half of a window.
        """
        if len(self) <= max_length or self.parts is None:
            return [self]
        last = max((part for part in self.parts if part is not None), default=0)
        sliding = [i for i, part in enumerate(self.parts) if part == last]
        special = self.parts.count(None)
        first_part = [i for i, part in enumerate(self.parts) if part is not None and part != last]
        first_part = first_part[: max(0, max_length - special) // 2]
        space = max(1, max_length - special - len(first_part))
        step = max(1, space - min(overlap, space // 2))
        starts = range(0, max(1, len(sliding) - space + step), step)
        fixed = {*first_part, *(i for i, part in enumerate(self.parts) if part is None)}
        return [self._select(sorted({*fixed, *sliding[i : i + space]})) for i in starts]

    def _select(self, tokens: Sequence[int]) -> Encoding:
        columns = (self.token_type_ids, self.offsets, self.special, self.parts, self.words)
        selected: list[Any] = [c if c is None else [c[i] for i in tokens] for c in columns]
        return Encoding([self.input_ids[i] for i in tokens], *selected)


# Text beginnings: a prompt must encode to the same tokens before each of them.
_PROMPT_PROBES = (
    *(
        "a",
        "The film",
        "12 of 3",
        "(so)",
        "-",
        "\u7535\u5f71",
        "\u00c9t\u00e9",
        "\u0421\u043b\u043e\u0432\u043e",
    ),
    *(".5", "'s", "\U0001f600 yes", "[SEP] a", "x" * 40, "Queries: one, two"),
)
# Texts whose tokens differ if a WordPiece tokenizer has other rules than BERT.
_BERT_RULE_PROBES = (
    *("it's 1,2.", "A B a b", "\u00e9 \u00c9 e\u0301", "a\u7535b", "a\x00b \ufffd a\u200bb"),
    *("a\tb\u00a0a\n", "ab bab", "a" * 101, "[a]b#", "\uff21 \ufb01 \u00df"),
)


@contextlib.contextmanager
def rust_errors(explain: Callable[[str], EdgeError]) -> Iterator[None]:
    """Raise `explain(reason)` when the `tokenizers` library fails or panics.

    A panic of its Rust code is a BaseException but not an Exception.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise explain(" ".join(str(error).split())[:300]) from error


class Tokenizer:
    """A Hugging Face `tokenizer.json` whose lengths are set by the caller."""

    def __init__(self, inner: tokenizers.Tokenizer, info: TokenizerInfo) -> None:
        self.info = info
        self._inner = inner
        # The file's own truncation and padding are disabled.
        inner.no_truncation()
        inner.no_padding()

    @classmethod
    def from_text(cls, text: str, info: TokenizerInfo) -> Tokenizer:
        """Return a tokenizer from the text of its `tokenizer.json`, as `describe` returns it."""
        import tokenizers

        return cls(tokenizers.Tokenizer.from_str(text), info)

    @classmethod
    def of(cls, tokenizer: Any, *, folder: Path) -> Tokenizer:
        """Convert a Transformers tokenizer; raises CheckpointError as `describe` does."""
        return cls.from_text(*describe(tokenizer, folder=folder))

    @classmethod
    def from_file(cls, path: Path, info: TokenizerInfo) -> Tokenizer:
        """Read `tokenizer.json`; raises BundleError when it cannot be parsed."""
        import tokenizers

        with rust_errors(lambda reason: BundleError(f"{path} is not a tokenizer file ({reason})")):
            return cls(tokenizers.Tokenizer.from_file(str(path)), info)

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, max_length: int
    ) -> list[Encoding]:
        """Encode texts or pairs, truncated to `max_length` tokens, the longer part first."""
        self._inner.enable_truncation(max_length, strategy="longest_first")
        inputs: list[Any] = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        return self._encoded(inputs)

    def encode_whole(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None
    ) -> list[Encoding]:
        """Encode texts or pairs without truncation, for `Encoding.windows`."""
        self._inner.no_truncation()
        inputs: list[Any] = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        return self._encoded(inputs)

    def encode_words(self, texts: Sequence[Sequence[str]]) -> list[Encoding]:
        """Encode texts given as words, without truncation, with the word index of each token."""
        self._inner.no_truncation()
        # Byte-level vocabularies distinguish a word after a space from one at the start of a text.
        before = json.loads(self._inner.to_str()).get("pre_tokenizer") or {}
        steps = (before, *before.get("pretokenizers", ()))
        bare = (s for s in steps if s["type"] == "ByteLevel" and not s.get("add_prefix_space"))
        space = " " if any(bare) else ""
        inputs = [[space * bool(i) + word for i, word in enumerate(words)] for words in texts]
        return self._encoded(inputs, words=True)

    def _encoded(self, inputs: list[Any], *, words: bool = False) -> list[Encoding]:
        damaged = f"{self.info.file} is damaged, no text can be read"
        with rust_errors(lambda reason: BundleError(f"{damaged}: {reason[:160]}")):
            encodings = self._inner.encode_batch(inputs, is_pretokenized=words)
        return [self._encoding(encoding) for encoding in encodings]

    def _encoding(self, encoding: tokenizers.Encoding) -> Encoding:
        typed = "token_type_ids" in self.info.inputs
        return Encoding(
            input_ids=encoding.ids,
            token_type_ids=encoding.type_ids if typed else None,
            offsets=encoding.offsets,
            special=[bool(flag) for flag in encoding.special_tokens_mask],
            parts=encoding.sequence_ids,
            words=encoding.word_ids,
            cut=bool(encoding.overflowing),
        )

    def pad(self, encodings: Sequence[Encoding], length: int) -> dict[str, Array]:
        """Return model inputs by name, int32 of shape (batch, length), padded on the right.

        Encodings longer than `length` are truncated, keeping their last token.
        """
        return pad(encodings, length, inputs=self.info.inputs, pad_id=self.info.pad_token_id)

    def token(self, index: int) -> str:
        """Return the token with an id, "" for an unknown id."""
        return self._inner.id_to_token(index) or ""

    def vocabulary(self) -> dict[str, int]:
        """Return every token with its id, added tokens included."""
        token_ids: dict[str, int] = self._inner.get_vocab(with_added_tokens=True)
        return token_ids

    def added_tokens(self) -> list[str]:
        """Return the added tokens, matched before a text is split, in the order of ids."""
        decoder = self._inner.get_added_tokens_decoder()
        return [decoder[index].content for index in sorted(decoder)]


def pad(
    encodings: Sequence[Encoding], length: int, *, inputs: Sequence[str], pad_id: int
) -> dict[str, Array]:
    """Return model inputs, int32 of shape (batch, length), padded on the right with `pad_id`."""
    columns: dict[str, Array] = {
        name: np.full((len(encodings), length), _PADDING.get(name, pad_id), np.int32)
        for name in inputs
    }
    for row, encoding in enumerate(encodings):
        count = min(len(encoding), length)
        values = {"input_ids": encoding.input_ids, "attention_mask": [1] * len(encoding)}
        values["token_type_ids"] = encoding.token_type_ids or [0] * len(encoding)
        for name, column in columns.items():
            column[row, :count] = _truncated(values[name], count)
    return columns


def describe(tokenizer: Any, *, folder: Path) -> tuple[str, TokenizerInfo]:
    """Return the `tokenizer.json` text and the description of a Transformers tokenizer.

    Raises CheckpointError for a slow tokenizer, which exists in Python only.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise CheckpointError(
            f"{folder}: {type(tokenizer).__name__} has no tokenizer.json form: "
            "save the checkpoint with a fast tokenizer"
        )
    values = json.loads(inner.to_str())
    values["truncation"] = values["padding"] = None
    lowercase, strip_accents = _case_and_accents(values.get("normalizer"))
    names = set(tokenizer.model_input_names) | {"input_ids", "attention_mask"}
    info = TokenizerInfo(
        file="tokenizer.json",
        sha256="",
        vocabulary="vocab.txt" if values["model"].get("type") == "WordPiece" else None,
        vocabulary_size=1 + max(inner.get_vocab().values(), default=-1),
        pad_token_id=tokenizer.pad_token_id or 0,
        mask_token_id=tokenizer.mask_token_id,
        lowercase=lowercase,
        strip_accents=strip_accents,
        inputs=tuple(name for name in INPUT_NAMES if name in names),
        prompt=getattr(tokenizer, "prompt", ""),
    )
    return json.dumps(values, ensure_ascii=False), info


def word_pieces(tokenizer_json: str) -> str | None:
    """Return the vocab.txt of a WordPiece tokenizer: the token of each line has its number as id.

    Added tokens are included; an id without a token gets a placeholder that no text contains.
    None if a vocab.txt cannot express it: two tokens share an id, or one contains a line break.
    """
    values = json.loads(tokenizer_json)
    vocabulary: dict[str, int] = dict(values["model"]["vocab"])
    vocabulary |= {added["content"]: added["id"] for added in values.get("added_tokens") or ()}
    names = {index: token for token, index in vocabulary.items()}
    # White space separates words before they are looked up, so such a line is never matched.
    lines = [names.get(index, f"[unused {index}]") for index in range(max(names, default=-1) + 1)]
    text = "".join(f"{line}\n" for line in lines)
    distinct = len(set(lines)) == len(lines)
    return text if distinct and _by_line(text) == vocabulary | _unused(lines, vocabulary) else None


def read_otherwise(tokenizer_json: str, info: TokenizerInfo) -> str | None:
    """Return a text that BERT's own rules, which apps use with a vocab.txt, encode differently.

    None if there is none: then `lowercase` and `strip_accents` describe the tokenizer fully.
    """
    import tokenizers

    values = json.loads(tokenizer_json)
    values["normalizer"] = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": info.strip_accents,
        "lowercase": info.lowercase,
    }
    values["pre_tokenizer"] = {"type": "BertPreTokenizer"}
    rules = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    values["model"] = values["model"] | rules
    inner = tokenizers.Tokenizer.from_str(tokenizer_json)
    bert = tokenizers.Tokenizer.from_str(json.dumps(values))
    return next(
        (text for text in _BERT_RULE_PROBES if inner.encode(text).ids != bert.encode(text).ids),
        None,
    )


def _by_line(text: str) -> dict[str, int]:
    """Return a vocab.txt as apps read it: token -> line number."""
    return {token: index for index, token in enumerate(re.split("\r\n|\r|\n", text)[:-1])}


def _unused(lines: Sequence[str], vocabulary: dict[str, int]) -> dict[str, int]:
    return {line: index for index, line in enumerate(lines) if line not in vocabulary}


def with_prompt(tokenizer_json: str, prompt: str) -> str:
    """Return a `tokenizer.json` that inserts the tokens of `prompt` before every single text.

    They become part of its template, like [CLS], so that every reader of the file inserts them.
    Raises CheckpointError if the first token of a text depends on the text before it.
    """
    import tokenizers

    plain = without_prompt(tokenizer_json, prompt)
    inner = tokenizers.Tokenizer.from_str(plain)
    alone, given = inner.encode("a"), inner.encode(f"{prompt}a".strip())
    before, _ = _special_token_counts(alone)
    count = len(given) - len(alone)
    values = json.loads(plain)
    template = _template(inner)
    pieces = [
        ("SpecialToken", given.tokens[i], given.ids[i], given.type_ids[i])
        for i in range(before, before + count)
    ]
    template["single"][before:before] = [_piece(*piece) for piece in pieces]
    template["special_tokens"] |= {
        token: _special_token(token, index) for _, token, index, _ in pieces
    }
    values["post_processor"] = template
    text = json.dumps(values, ensure_ascii=False)
    prompted = tokenizers.Tokenizer.from_str(text)
    for probe in _PROMPT_PROBES:
        joined = inner.encode(f"{prompt}{probe}".strip()).ids
        # The last letter of the prompt may form a token with the first of another text.
        if prompt[-1].isalnum() or prompted.encode(probe).ids != joined:
            raise CheckpointError(
                f"the prompt {prompt!r} cannot be carried: with this tokenizer the tokens of "
                f"{probe!r} are others after it. Set default_prompt_name to null and put the "
                "prompt before the texts"
            )
    return text


def without_prompt(tokenizer_json: str, prompt: str) -> str:
    """Undo `with_prompt`; a `tokenizer.json` without the prompt is returned unchanged."""
    import tokenizers

    values = json.loads(tokenizer_json)
    template = values.get("post_processor") or {}
    single = template.get("single", []) if template.get("type") == "TemplateProcessing" else []
    text = next((i for i, piece in enumerate(single) if "Sequence" in piece), 0)
    inner = tokenizers.Tokenizer.from_str(tokenizer_json)
    tokens = inner.encode(prompt.strip(), add_special_tokens=False).tokens
    before = [piece["SpecialToken"]["id"] for piece in single[:text]]
    if not tokens or before[-len(tokens) :] != tokens:
        return tokenizer_json
    del single[text - len(tokens) : text]
    return json.dumps(values, ensure_ascii=False)


def _template(inner: tokenizers.Tokenizer) -> dict[str, Any]:
    """Return the template of a tokenizer: the special tokens around one text and around a pair."""
    single, pair = inner.encode("a"), inner.encode("a", "a")
    rows = {
        name: list(zip(e.tokens, e.ids, e.type_ids, e.sequence_ids, strict=True))
        for name, e in (("single", single), ("pair", pair))
    }
    template: dict[str, Any] = {"type": "TemplateProcessing", "special_tokens": {}}
    for name, tokens in rows.items():
        template[name] = []
        for part, run in groupby(tokens, lambda row: row[3]):
            if part is not None:
                template[name].append(_piece("Sequence", "AB"[part], 0, next(run)[2]))
                continue
            for token, index, kind, _ in run:
                template[name].append(_piece("SpecialToken", token, index, kind))
                template["special_tokens"][token] = _special_token(token, index)
    return template


def _special_token_counts(encoding: tokenizers.Encoding) -> tuple[int, int]:
    """Return the number of special tokens before a text and after it."""
    text = [i for i, part in enumerate(encoding.sequence_ids) if part is not None]
    return text[0], len(encoding) - 1 - text[-1]


def _piece(kind: str, name: str, index: int, type_id: int) -> dict[str, Any]:
    return {kind: {"id": name, "type_id": type_id}}


def _special_token(token: str, index: int) -> dict[str, Any]:
    return {"id": token, "ids": [index], "tokens": [token]}


def _case_and_accents(normalizer: dict[str, Any] | None) -> tuple[bool, bool]:
    """Return whether any step of a normalizer lower-cases, and whether any strips accents."""
    kind = (normalizer or {}).get("type")
    if normalizer is None or kind == "Lowercase":
        return normalizer is not None, False
    if kind == "Sequence":
        steps = [_case_and_accents(step) for step in normalizer["normalizers"]]
        return any(lower for lower, _ in steps), any(strip for _, strip in steps)
    if kind != "BertNormalizer":
        return False, kind == "StripAccents"
    lowercase, accents = bool(normalizer.get("lowercase")), normalizer.get("strip_accents")
    return lowercase, lowercase if accents is None else bool(accents)


def _truncated(values: Sequence[int], count: int) -> Sequence[int]:
    return values if len(values) <= count else [*values[: count - 1], values[-1]]
