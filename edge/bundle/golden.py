"""`golden.json`: texts with the input ids and outputs of the unpatched checkpoint.

Every engine and every app is verified with these vectors, so they must cover real user input.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edge.errors import BundleError
from edge.signature import TASK_OUTPUTS

if TYPE_CHECKING:
    from edge.bundle.manifest import Manifest

Array = npt.NDArray[Any]
_ENCODING_KEYS = ("text", "text_pair", "input_ids", "token_type_ids")
_VERSION = "1"

# Accents, CJK, emoji, Turkish dotted I, zero-width space, decomposed accents, an over-long word,
# right-to-left text, markup, numbers, the empty string; lengths from 0 to beyond any limit.
TEXTS = (
    "",
    "ok",
    "A charming, thoughtful film that stays with you.",
    "It was dull from the first minute to the last, and I wanted my money back.",
    "The staff were friendly but the room was cold, the lift was broken and nobody answered.",
    "Crème brûlée à la façon d'Émilie coûte 12 € — déjà vu, n'est-ce pas ?",
    "Ünïcödé Straße Ærøskøbing İstanbul ıŞĞ",
    "cafe\u0301 re\u0301sume\u0301 nai\u0308ve (decomposed accents)",
    "今天天气很好，我们去公园散步吧。",
    "東京タワーは高い。안녕하세요 세계",
    "مرحبا بالعالم، كيف حالك اليوم؟",
    "I ❤️ this 😀👍🏽 so much!!! 🎉🎉",
    "zero\u200bwidth\u200bspace and\ttabs\nnew lines",
    "word" * 60,
    "<p class='x'>Markup &amp; entities</p> https://example.org/a?b=c#d user@example.org",
    "3.14159 1,000,000 -40°C 50% 12:30 2024-02-29 v1.2.3-rc4",
    "No, I did not think it was not good; I thought it was not great.",
    "ALL CAPITALS SHOULD BE HANDLED THE SAME WAY EVERY TIME",
    "The quick brown fox jumps over the lazy dog while the slow green turtle watches them both "
    "from the other side of the river and wonders what all the hurry is about.",
    "please tell me how I can change the address of an order that I placed two days ago, since "
    "I have moved and the parcel would otherwise go to a flat where nobody knows my name",
)
PAIRS = (
    ("A man is playing a guitar.", "Someone makes music."),
    ("The cat sat on the mat.", "Die Katze saß auf der Matte. 猫"),
    ("", "only the second part has words"),
)
LONG_TEXT = "every sentence that never seems to end goes on, and on, and then once more;"


@dataclass(frozen=True)
class GoldenCase:
    """One input and the checkpoint's outputs for it.

    input_ids, token_type_ids: (n,) without padding. outputs: name -> array without batch dimension.
    """

    text: str
    text_pair: str | None
    input_ids: list[int]
    token_type_ids: list[int] | None
    outputs: dict[str, Array] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {"text": self.text, "text_pair": self.text_pair}
        record["input_ids"] = self.input_ids
        record["token_type_ids"] = self.token_type_ids
        return record | {name: _rounded(value) for name, value in self.outputs.items()}


def texts_for(max_length: int, *, pairs: bool) -> list[tuple[str, str | None]]:
    """Return the built-in texts, one of them above `max_length` tokens, and pairs if `pairs`."""
    # One copy of LONG_TEXT has more than ten tokens in any vocabulary.
    too_long = " ".join([LONG_TEXT] * (max_length // 10 + 1))
    singles: list[tuple[str, str | None]] = [(text, None) for text in (*TEXTS, too_long)]
    return singles + [(a, b) for a, b in PAIRS] if pairs else singles


def dump(cases: list[GoldenCase], *, max_length: int) -> str:
    """Return the text of `golden.json`."""
    rows = ",\n".join(json.dumps(case.to_json(), ensure_ascii=False) for case in cases)
    head = f'"schema_version": "{_VERSION}", "max_length": {max_length}'
    return f'{{{head}, "cases": [\n{rows}\n]}}\n'


def load(path: Path, manifest: Manifest) -> list[GoldenCase]:
    """Read the `golden.json` of a bundle; raises BundleError when it does not fit its manifest."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        _require(isinstance(values, dict), "it holds no object")
        _require(set(values) == {"schema_version", "max_length", "cases"}, "its keys are others")
        _require(values["schema_version"] == _VERSION, "its schema_version is another")
        _require(values["max_length"] == manifest.max_length, "its max_length is not edge.json's")
        records = values["cases"]
        _require(isinstance(records, list), "its cases are no list")
        _require(len(records) == manifest.golden.samples, "edge.json counts other samples")
        return [_case(record, number, manifest) for number, record in enumerate(records, start=1)]
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(
            f"{path} is not a file of golden vectors ({error}): run edge convert again"
        ) from None


def _case(record: Any, number: int, manifest: Manifest) -> GoldenCase:
    expected = TASK_OUTPUTS[manifest.task]
    where = f"case {number}"
    _require(isinstance(record, dict), f"{where} is no object")
    keys = {*_ENCODING_KEYS, *expected}
    _require(set(record) == keys, f"{where} has other keys than {', '.join(sorted(keys))}")
    text, pair = record["text"], record["text_pair"]
    _require(isinstance(text, str), f"{where}: text is no string")
    _require(pair is None or isinstance(pair, str), f"{where}: text_pair is no string")
    ids, types = record["input_ids"], record["token_type_ids"]
    _require(_are_ids(ids), f"{where}: input_ids is no list of ids")
    _require(0 < len(ids) <= manifest.max_length, f"{where} has {len(ids)} tokens")
    typed = "token_type_ids" in manifest.tokenizer.inputs
    valid = _are_ids(types) and len(types) == len(ids) if typed else types is None
    _require(valid, f"{where}: token_type_ids do not fit the tokenizer's inputs")
    sizes = {"sequence": len(ids)}
    if manifest.labels:
        sizes["labels"] = len(manifest.labels)
    outputs = {}
    for name, shape in expected.items():
        outputs[name] = _output(record[name], f"{where}: {name}")
        dimensions = [sizes.get(str(symbol)) for symbol in shape[1:]]
        valid = len(dimensions) == outputs[name].ndim and all(
            expected_size in (None, size)
            for expected_size, size in zip(dimensions, outputs[name].shape, strict=True)
        )
        _require(valid, f"{where}: {name} has shape {outputs[name].shape}")
    return GoldenCase(text, pair, ids, types, outputs)


def _output(value: Any, where: str) -> Array:
    # Without a dtype, because numpy would parse strings as numbers.
    array = np.asarray(value)
    _require(array.dtype.kind in "if" and array.size > 0, f"{where} are no numbers")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    _require(bool(np.isfinite(array).all()), f"{where} are not finite")
    return array


def _are_ids(values: Any) -> bool:
    """Return True for a list of integers from 0 to 2^31 - 1."""
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 31 for value in values
    )


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _rounded(value: Array) -> Any:
    """Convert to nested lists of floats with seven digits, the precision of a 32-bit float."""
    if value.ndim == 0:
        return float(f"{float(value):.7g}")
    return [_rounded(part) for part in value]
