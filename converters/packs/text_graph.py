"""The part of an ONNX graph that turns a text into input ids exactly as the bundle's tokenizer.

Of the extensions, RobertaTokenizer gives RoBERTa's ids. BertTokenizer is used for word pieces only:
left to itself it lower-cases and strips accents for some scripts and not for others, depending on
the machine's locale. So the text reaches it with all of that done, by tables taken from the
bundle's own tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from converters.packs.added_tokens import mark, read_added, reserved, spell
from converters.packs.characters import (
    Characters,
    WordPieces,
    character_class,
    long_runs,
    read_characters,
    read_word_pieces,
)
from converters.packs.onnx_nodes import EXTENSIONS, Nodes
from edge.bundle import Bundle
from edge.engines.runner import bundle_tokenizer
from edge.errors import ConfigError
from edge.signature import SHORTEST_LENGTH

# Adds nodes from a text to ids without special tokens, vectors; returns the tensor's name.
IdsOf = Callable[[Nodes, str], str]

# In the place of a typed character that means something here.
_REPLACEMENT = "\ufffd"
# A character that is in no vocabulary, and in no text where it is used.
_UNKNOWN = "\uf8ff"
# What BertTokenizer splits at most; it has no attribute for it.
_LONGEST_WORD = 200


@dataclass(frozen=True)
class Template:
    """The special tokens around one text, or around and between two.

    segments: of the first text and what precedes the second, and of the rest.
    """

    before: int
    between: tuple[int, ...]
    after: int
    segments: tuple[int, int]


def read_template(bundle: Bundle) -> Template:
    """The template, read off what the bundle's tokenizer makes of empty texts."""
    tokenizer = bundle_tokenizer(bundle)
    (single,) = tokenizer.encode([""], max_length=16)
    (pair,) = tokenizer.encode([""], [""], max_length=16)
    ids, types = pair.input_ids, pair.token_type_ids or [0] * len(pair)
    if len(single) != 2 or len(pair) < 3 or [ids[0], ids[-1]] != single.input_ids:
        raise ConfigError("its operators put one token before and one after a text, not this")
    return Template(ids[0], tuple(ids[1:-1]), ids[-1], (types[0], types[-1]))


def text_nodes(bundle: Bundle, *, pair: bool, max_length: int) -> Nodes:
    """Nodes from "text" (and "text_pair"), strings of shape (1,), to the model's inputs.

    These are int32 of shape (1, length), named as the bundle names them. Raises ConfigError for a
    tokenizer that cannot be expressed exactly.
    """
    info = bundle.manifest.tokenizer
    tokenizer_json = bundle.file(info.file).read_text(encoding="utf-8")
    template = read_template(bundle)
    kind = json.loads(tokenizer_json)["model"]["type"]
    ids_of = _IDS_OF[kind](tokenizer_json, template)
    nodes = Nodes()
    bodies = [ids_of(nodes, text) for text in (("text", "text_pair") if pair else ("text",))]
    bodies = _truncated(nodes, bodies, max_length - 2 - (len(template.between) if pair else 0))
    ids, types = _with_specials(nodes, bodies, template)
    _write_inputs(nodes, ids, types, info.inputs, info.pad_token_id)
    return nodes


def _by_word_pieces(tokenizer_json: str, template: Template) -> IdsOf:
    """BERT's tokenizer."""
    pieces = read_word_pieces(tokenizer_json)
    if pieces.longest_word > _LONGEST_WORD:
        raise ConfigError(f"its operators split words of up to {_LONGEST_WORD} characters only")
    characters = read_characters(tokenizer_json)

    def ids_of(nodes: Nodes, text: str) -> str:
        return _word_piece_ids(
            nodes, _normalised(nodes, text, characters, pieces), pieces, template
        )

    return ids_of


def _by_byte_pairs(tokenizer_json: str, template: Template) -> IdsOf:
    """RoBERTa's tokenizer, which needs no preparation but for special tokens that are typed."""
    values = json.loads(tokenizer_json)
    model = values["model"]
    merges = (m if isinstance(m, str) else " ".join(m) for m in model["merges"])
    added = read_added(tokenizer_json)
    attributes = {
        "vocab": json.dumps(model["vocab"], separators=(",", ":")),
        "merges": "\n".join(merges),
        # Of longer ones the operator loses the text behind what only begins like them.
        "added_token": "\n".join(f"{token.stand_in}={token.index}" for token in added),
        "padding_length": -1,
    }

    def ids_of(nodes: Nodes, text: str) -> str:
        text = nodes.replace(text, character_class(reserved(added)), _REPLACEMENT)
        text = mark(nodes, text, added, normalized=False)
        text = mark(nodes, text, added, normalized=True)
        rows, _, _ = nodes.add("RobertaTokenizer", text, outputs=3, domain=EXTENSIONS, **attributes)
        ids = nodes.one("Reshape", rows, nodes.numbers(-1))
        return nodes.slice(ids, nodes.numbers(1), nodes.numbers(-1))

    return ids_of


def _normalised(nodes: Nodes, text: str, characters: Characters, pieces: WordPieces) -> str:
    """Words apart by single spaces, normalised, with unknown words replaced by one character."""
    stand_ins = set(reserved(pieces.added))
    # Typed ones are what they are to the bundle's tokenizer: dropped, or unknown.
    typed = {*stand_ins, _UNKNOWN}
    for group, instead in ((typed & characters.dropped(), ""), (typed, _UNKNOWN)):
        if group:
            text = nodes.replace(text, character_class(group), instead)
    text = mark(nodes, text, pieces.added, normalized=False, around=" ")
    dropped = long_runs(characters.dropped()) - stand_ins
    if dropped:
        text = nodes.replace(text, character_class(dropped), "")
    apart = long_runs(characters.isolated())
    if apart:
        text = nodes.replace(text, f"({character_class(apart)})", r" \1 ")
    # Neither a key of the table may be a line's end, nor the text it is used on empty.
    text = nodes.replace(text, r"[\t\n\r]", " ")
    # Not in one with the above: after an empty match the next character is passed over.
    text = nodes.replace(text, r"\A", " ")
    table = _table(characters, pieces, dropped | apart) | {char: char for char in stand_ins}
    text = nodes.map_characters(text, table, _UNKNOWN, separator=_separator(characters))
    text = mark(nodes, text, pieces.added, normalized=True, around=" ")
    text = nodes.replace(text, " +", " ")
    for pattern in _unknown_words(pieces):
        text = nodes.replace(text, pattern, rf"\1{_UNKNOWN}")
    text = spell(nodes, text, pieces.added)
    return nodes.replace(text, r"\A | \z", "")


def _table(characters: Characters, pieces: WordPieces, done: set[str]) -> dict[str, str]:
    """What becomes of each character, of those that do not simply become unknown.

    done: those dropped or isolated by now, of which the isolated stay as they are.
    """
    known = pieces.alphabet | {" "}
    table = {char: char for char in known if char not in characters.changed or char in done}
    for char, value in characters.changed.items():
        if char not in done and char not in "\t\n\r":
            shown = "".join(c if c in known else _UNKNOWN for c in value)
            if shown != _UNKNOWN:
                table[char] = shown
    return table


def _separator(characters: Characters) -> str:
    """A character that no text holds: it is dropped before."""
    for char in "\x01\x02\x03":
        if characters.changed.get(char) == "":
            return char
    raise ConfigError("its operators need a tokenizer that drops control characters")


def _unknown_words(pieces: WordPieces) -> list[str]:
    """RE2 patterns of words that have no pieces, what is before such a word as group 1."""
    patterns = [f"(\\A| )[^ ]*{_UNKNOWN}[^ ]*"]
    if pieces.never_first:
        patterns.append(f"(\\A| ){character_class(pieces.never_first)}[^ ]*")
    if pieces.never_later:
        patterns.append(f"(\\A| )[^ ]+{character_class(pieces.never_later)}[^ ]*")
    return [*patterns, f"(\\A| )[^ ]{{{pieces.longest_word + 1},}}"]


def _word_piece_ids(nodes: Nodes, text: str, pieces: WordPieces, template: Template) -> str:
    """The ids of a normalised text's words, without special tokens."""
    before, after = pieces.tokens[template.before], pieces.tokens[template.after]
    ids, _, _ = nodes.add(
        "BertTokenizer",
        text,
        outputs=3,
        domain=EXTENSIONS,
        vocab_file="\n".join(pieces.tokens),
        do_lower_case=0,
        do_basic_tokenize=0,
        strip_accents=0,
        tokenize_chinese_chars=0,
        unk_token=pieces.unknown,
        cls_token=before,
        sep_token=after,
        # Not used, but looked up.
        pad_token=pieces.unknown,
        mask_token=pieces.unknown,
        suffix_indicator=pieces.prefix,
    )
    return nodes.slice(ids, nodes.numbers(1), nodes.numbers(-1))


def _truncated(nodes: Nodes, bodies: list[str], room: int) -> list[str]:
    """Cut to `room` tokens in all: of two texts the longer first, as `tokenizers` does.

    With n tokens in the shorter and m in the longer one: the shorter keeps n, the longer what is
    left; where that would be less than n, both keep half, the longer the odd one.
    """
    zero = nodes.numbers(0)
    if len(bodies) == 1:
        return [nodes.slice(bodies[0], zero, nodes.numbers(room))]
    first, second = (nodes.one("Shape", body) for body in bodies)
    shorter = nodes.one("Min", first, second)
    longer = nodes.one("Max", shorter, nodes.one("Sub", nodes.numbers(room), shorter))
    over = nodes.one("Greater", nodes.one("Add", shorter, longer), nodes.numbers(room))
    shorter = nodes.one("Where", over, nodes.numbers(room // 2), shorter)
    longer = nodes.one("Where", over, nodes.numbers(room - room // 2), longer)
    swapped = nodes.one("Greater", first, second)
    counts = (
        nodes.one("Where", swapped, longer, shorter),
        nodes.one("Where", swapped, shorter, longer),
    )
    return [nodes.slice(body, zero, count) for body, count in zip(bodies, counts, strict=True)]


def _with_specials(nodes: Nodes, bodies: list[str], template: Template) -> tuple[str, str]:
    """Ids and segments of the whole input, vectors."""
    head = nodes.join(nodes.numbers(template.before), bodies[0])
    tail = nodes.numbers(template.after)
    if len(bodies) == 1:
        ids = nodes.join(head, tail)
        return ids, nodes.repeat(template.segments[0], nodes.one("Shape", ids))
    head = nodes.join(head, nodes.numbers(*template.between))
    tail = nodes.join(bodies[1], tail)
    segments = (
        nodes.repeat(segment, nodes.one("Shape", part))
        for segment, part in zip(template.segments, (head, tail), strict=True)
    )
    return nodes.join(head, tail), nodes.join(*segments)


def _write_inputs(
    nodes: Nodes, ids: str, types: str, names: tuple[str, ...], pad_token_id: int
) -> None:
    """Pad to the shortest length a model takes, and name the tensors as the model's inputs."""
    count = nodes.one("Shape", ids)
    missing = nodes.one("Sub", nodes.numbers(SHORTEST_LENGTH), count)
    missing = nodes.one("Max", missing, nodes.numbers(0))
    mask = nodes.repeat(1, count)
    vectors = {
        "input_ids": nodes.join(ids, nodes.repeat(pad_token_id, missing)),
        "attention_mask": nodes.join(mask, nodes.repeat(0, missing)),
        "token_type_ids": nodes.join(types, nodes.repeat(0, missing)),
    }
    for name in names:
        row = nodes.one("Unsqueeze", vectors[name], nodes.numbers(0))
        nodes.named(name, nodes.one("Cast", row, to=6))


# The model of a tokenizer.json -> nodes from a text to the ids of its words.
_IDS_OF = {"WordPiece": _by_word_pieces, "BPE": _by_byte_pairs}
