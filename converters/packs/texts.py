"""The texts a pack is tried with, and the comparison of its tokenizer with the bundle's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from converters.packs.report import TextDifference
from edge.bundle import Bundle, GoldenCase
from edge.console import counted
from edge.engines.runner import Runner
from edge.errors import BundleError, EngineError, VerificationError
from edge.tasks import Outputs
from edge.tokenization import Encoding, Tokenizer

Tokenise = Callable[[str, str | None], list[int]]

# Share of the user's own samples that a pack may tokenise in another way.
_MOST_DIFFERENT = 0.1
# What the golden texts lack and tokenizers disagree on: control characters, capitals outside of
# ASCII, full-width forms, special tokens typed by a user, words around the longest that is split.
PROBES = (
    "delete\x7fbell\x07nothing",
    "ŁÓDŹ Čeština ĐẶNG ΣΊΣΥΦΟΣ ЙОГУРТ ёлка ǅ ﬁn",
    "ＦＵＬＬ　ｗｉｄｔｈ ½ ² №",
    "soft\u00adhyphen word\u2060joiner \ufeffmark line\u2028separator next\u0085line",
    "a [SEP] in [MASK] the [UNK] text [CLS]",
    "a" * 100 + " " + "a" * 101 + " " + "a" * 150,
    "हिन्दी ไทย עִבְרִית Việt Nam ½ «quoted» … – ‘x’ “y”",
    "  leading and trailing \r\n ",
)


@dataclass(frozen=True)
class Sample:
    """One input, its tokens at the pack's length, and the outputs that a pack must give."""

    text: str
    pair: str | None
    encoding: Encoding
    outputs: Outputs


def encode(
    bundle_tokenizer: Tokenizer, text: str, pair: str | None, *, max_length: int
) -> Encoding:
    """What the bundle's own tokenizer makes of one input."""
    pairs = None if pair is None else [pair]
    return bundle_tokenizer.encode([text], pairs, max_length=max_length)[0]


@contextlib.contextmanager
def tokenizer_errors(bundle: Bundle) -> Iterator[None]:
    """Turn what a tokenizer file of another shape raises into a BundleError that names it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        file = bundle.path / bundle.manifest.tokenizer.file
        raise BundleError(
            f"{file} is not a usable tokenizer ({error!r}): run edge convert again"
        ) from None


def samples_at(
    runner: Runner, cases: Sequence[GoldenCase], length: int, *, padded: bool = False
) -> list[Sample]:
    """Golden texts with the outputs that are due from a pack that cuts at `length` tokens.

    These are the checkpoint's own, or the artifact's where the text is longer than the pack.
    padded: the artifact runs at that length, whatever the text's.
    """
    tokenizer = runner.tokenizer
    encodings = [encode(tokenizer, case.text, case.text_pair, max_length=length) for case in cases]
    with runner:
        cut = list(runner.infer(encodings, length=length if padded else None))
    return [
        Sample(
            case.text,
            case.text_pair,
            encoding,
            case.outputs if len(case.input_ids) <= length else own,
        )
        for case, encoding, own in zip(cases, encodings, cut, strict=True)
    ]


def own_texts(bundle: Bundle) -> list[tuple[str, str | None]]:
    """The user's own texts among the golden vectors."""
    cases = bundle.golden_cases()[: bundle.manifest.golden.from_data]
    return [(case.text, case.text_pair) for case in cases]


def golden_cases(bundle: Bundle, *, pair: bool) -> list[GoldenCase]:
    """The golden vectors that a pack of one text, or of two, takes."""
    return [case for case in bundle.golden_cases() if (case.text_pair is not None) == pair]


def inputs_to_try(cases: Iterable[GoldenCase], *, pair: bool) -> list[tuple[str, str | None]]:
    """Golden inputs and probes, each once."""
    golden = [(case.text, case.text_pair) for case in cases]
    probes: list[tuple[str, str | None]] = [(text, None) for text in PROBES]
    if pair:
        texts = [text for text, _ in golden] + list(PROBES)
        probes = [*zip(texts, reversed(texts), strict=True), (texts[0], ""), ("", "")]
    return list(dict.fromkeys([*golden, *probes]))


def differences(
    tokenizer: Tokenizer,
    tokenise: Tokenise,
    inputs: Iterable[tuple[str, str | None]],
    *,
    max_length: int,
) -> tuple[TextDifference, ...]:
    """The inputs that `tokenise` gives other ids for than the bundle's tokenizer."""
    found = []
    for text, pair in inputs:
        expected = encode(tokenizer, text, pair, max_length=max_length).input_ids
        reason, ids = None, []
        try:
            ids = tokenise(text, pair)
        except EngineError as error:
            reason = str(error)
        if ids != expected:
            found.append(
                TextDifference(
                    text=text,
                    text_pair=pair,
                    expected=tuple(tokenizer.token(index) for index in expected),
                    found=tuple(tokenizer.token(index) for index in ids),
                    reason=reason,
                )
            )
    return tuple(found)


def require_same(kind: str, found: Sequence[TextDifference]) -> None:
    """Raise VerificationError when any text is split in another way than by the bundle."""
    if found:
        reason = f": {found[0].reason}" if found[0].reason else ""
        raise VerificationError(
            f"the {kind} pack's tokenizer differs from the bundle's on "
            f"{counted(len(found), 'text')}, such as {found[0].text[:60]!r}{reason}"
        )


def require_tokenizer(kind: str, bundle: Bundle, found: Sequence[TextDifference]) -> None:
    """Raise VerificationError when it is not only exotic texts that differ.

    None may be ordinary: printable ASCII without the names of special tokens, which only a user who
    means to would type. Of the user's own samples among the golden vectors, few may differ.
    """
    for difference in found:
        whole = difference.text + (difference.text_pair or "")
        if whole.isascii() and whole.isprintable() and "[" not in whole:
            reason = f": {difference.reason}" if difference.reason else ""
            raise VerificationError(
                f"the {kind} pack's tokenizer differs from the bundle's on plain text, "
                f"{difference.text[:60]!r}{reason}"
            )
    own = set(own_texts(bundle))
    wrong = own & {(difference.text, difference.text_pair) for difference in found}
    if len(wrong) > _MOST_DIFFERENT * len(own):
        raise VerificationError(
            f"the {kind} pack's tokenizer differs from the bundle's on {len(wrong)} of the "
            f"{len(own)} samples that the bundle was made with: such texts need the bundle's own"
        )


def agreeing(samples: Iterable[Sample], found: Iterable[TextDifference]) -> list[Sample]:
    """The samples whose ids are the same in the pack and in the bundle."""
    wrong = {(difference.text, difference.text_pair) for difference in found}
    return [sample for sample in samples if (sample.text, sample.pair) not in wrong]
