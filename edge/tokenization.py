"""Text to input ids, from a bundle alone: no Transformers, no checkpoint."""

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


# How texts begin: a prompt has to be the same tokens before every one of them.
_PROBES = (
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
# Texts that a WordPiece tokenizer reads in another way where it has other rules than BERT.
_RULES = (
    *("it's 1,2.", "A B a b", "\u00e9 \u00c9 e\u0301", "a\u7535b", "a\x00b \ufffd a\u200bb"),
    *("a\tb\u00a0a\n", "ab bab", "a" * 101, "[a]b#", "\uff21 \ufb01 \u00df"),
)


@contextlib.contextmanager
def rust_errors(explain: Callable[[str], EdgeError]) -> Iterator[None]:
    """Raise what `explain` makes of the reason when `tokenizers` fails, or panics.

    A panic of its Rust code is a BaseException and no Exception.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise explain(" ".join(str(error).split())[:300]) from error


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
        """Encode texts or pairs without a limit, for `Encoding.windows`."""
        self._inner.no_truncation()
        inputs: list[Any] = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        return self._encoded(inputs)

    def encode_words(self, texts: Sequence[Sequence[str]]) -> list[Encoding]:
        """Encode texts that come in words, without a limit, telling each token's word."""
        self._inner.no_truncation()
        # Byte-level vocabularies tell a word after a space from one at the start of a text.
        before = json.loads(self._inner.to_str()).get("pre_tokenizer") or {}
        steps = (before, *before.get("pretokenizers", ()))
        bare = (s for s in steps if s["type"] == "ByteLevel" and not s.get("add_prefix_space"))
        space = " " if any(bare) else ""
        inputs = [[space * bool(i) + word for i, word in enumerate(words)] for words in texts]
        return self._encoded(inputs, words=True)

    def _encoded(self, inputs: list[Any], *, words: bool = False) -> list[Encoding]:
        damaged = f"{self.info.file} is damaged, no text can be read"
        with rust_errors(lambda reason: BundleError(f"{damaged}: {reason[:160]}")):
            found = self._inner.encode_batch(inputs, is_pretokenized=words)
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

    def vocabulary(self) -> dict[str, int]:
        """Every token with its id, added ones too."""
        found: dict[str, int] = self._inner.get_vocab(with_added_tokens=True)
        return found

    def added_tokens(self) -> list[str]:
        """The tokens that are looked for in a text before it is split, in the order of ids."""
        found = self._inner.get_added_tokens_decoder()
        return [found[index].content for index in sorted(found)]


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
    lowercase, strip_accents = _changes(values.get("normalizer"))
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
    """The vocabulary of a WordPiece tokenizer: on each line the token with the line's number as id.

    Added tokens are on their lines too, and an id without a token has one that no text contains.
    None where lines cannot say it: two tokens share an id, or one holds a line break.
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
    """A text whose tokens are others by BERT's own rules, which apps follow with a vocab.txt.

    None where there is none: `lowercase` and `strip_accents` say all that they have to know.
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
    plain = tokenizers.Tokenizer.from_str(json.dumps(values))
    return next((text for text in _RULES if inner.encode(text).ids != plain.encode(text).ids), None)


def _by_line(text: str) -> dict[str, int]:
    """A vocabulary as apps read it: a token and the number of its line."""
    return {token: index for index, token in enumerate(re.split("\r\n|\r|\n", text)[:-1])}


def _unused(lines: Sequence[str], vocabulary: dict[str, int]) -> dict[str, int]:
    return {line: index for index, line in enumerate(lines) if line not in vocabulary}


def with_prompt(tokenizer_json: str, prompt: str) -> str:
    """A `tokenizer.json` that puts the tokens of `prompt` before every single text.

    They are part of its template, as [CLS] is, so that whoever reads the file reads texts alike.
    Raises CheckpointError where the first word of a text depends on what is before it.
    """
    import tokenizers

    plain = without_prompt(tokenizer_json, prompt)
    inner = tokenizers.Tokenizer.from_str(plain)
    alone, given = inner.encode("a"), inner.encode(f"{prompt}a".strip())
    before, _ = _around(alone)
    count = len(given) - len(alone)
    values = json.loads(plain)
    template = _template(inner)
    pieces = [
        ("SpecialToken", given.tokens[i], given.ids[i], given.type_ids[i])
        for i in range(before, before + count)
    ]
    template["single"][before:before] = [_piece(*piece) for piece in pieces]
    template["special_tokens"] |= {token: _named(token, index) for _, token, index, _ in pieces}
    values["post_processor"] = template
    text = json.dumps(values, ensure_ascii=False)
    prompted = tokenizers.Tokenizer.from_str(text)
    for probe in _PROBES:
        joined = inner.encode(f"{prompt}{probe}".strip()).ids
        # A last letter and a first one may be a token together, if not in these texts.
        if prompt[-1].isalnum() or prompted.encode(probe).ids != joined:
            raise CheckpointError(
                f"the prompt {prompt!r} cannot be carried: with this tokenizer the tokens of "
                f"{probe!r} are others after it. Set default_prompt_name to null and put the "
                "prompt before the texts"
            )
    return text


def without_prompt(tokenizer_json: str, prompt: str) -> str:
    """The same file as it was before `with_prompt`; one without the prompt stays as it is."""
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
    """What a tokenizer puts around one text and around two, as a template says it."""
    single, pair = inner.encode("a"), inner.encode("a", "a")
    rows = {
        name: list(zip(found.tokens, found.ids, found.type_ids, found.sequence_ids, strict=True))
        for name, found in (("single", single), ("pair", pair))
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
                template["special_tokens"][token] = _named(token, index)
    return template


def _around(encoding: tokenizers.Encoding) -> tuple[int, int]:
    """How many special tokens are before a text and after it."""
    text = [i for i, part in enumerate(encoding.sequence_ids) if part is not None]
    return text[0], len(encoding) - 1 - text[-1]


def _piece(kind: str, name: str, index: int, type_id: int) -> dict[str, Any]:
    return {kind: {"id": name, "type_id": type_id}}


def _named(token: str, index: int) -> dict[str, Any]:
    return {"id": token, "ids": [index], "tokens": [token]}


def _changes(normalizer: dict[str, Any] | None) -> tuple[bool, bool]:
    """Whether a normalizer lower-cases, and whether it strips accents, in any of its steps."""
    kind = (normalizer or {}).get("type")
    if normalizer is None or kind == "Lowercase":
        return normalizer is not None, False
    if kind == "Sequence":
        steps = [_changes(step) for step in normalizer["normalizers"]]
        return any(lower for lower, _ in steps), any(strip for _, strip in steps)
    if kind != "BertNormalizer":
        return False, kind == "StripAccents"
    lowercase, accents = bool(normalizer.get("lowercase")), normalizer.get("strip_accents")
    return lowercase, lowercase if accents is None else bool(accents)


def _cut(values: Sequence[int], count: int) -> Sequence[int]:
    return values if len(values) <= count else [*values[: count - 1], values[-1]]
