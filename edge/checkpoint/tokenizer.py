"""The tokenizer of a checkpoint folder: its files, and whether it fits the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge.console import say
from edge.errors import CheckpointError
from edge.models.support import unread_inputs
from edge.settings import TOKENIZER, check_settings, read_object
from edge.tasks import Task
from edge.tokenization import rust_errors, with_prompt

_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Parts of tokenizer.json that decide a text's tokens.
_STEPS = ("normalizer", "pre_tokenizer", "post_processor")


def check_tokenizer_files(folder: Path) -> None:
    """Raise CheckpointError for files that are damaged, or say what no bundle can carry."""
    values = {name: read_object(folder / name) for name in _FILES if (folder / name).is_file()}
    check_settings(
        values.get("tokenizer_config.json", {}), TOKENIZER, file=folder / "tokenizer_config.json"
    )
    length = values.get("tokenizer_config.json", {}).get("model_max_length")
    if length is not None and (isinstance(length, bool | str | list | dict) or length < 1):
        raise CheckpointError(
            f"{folder}/tokenizer_config.json: model_max_length = {length!r} is not a number of "
            "tokens"
        )
    written = values.get("tokenizer.json")
    if written is None:
        return
    model = written.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise CheckpointError(f"{folder}/tokenizer.json has no model with a vocabulary")
    if model.get("dropout"):
        raise CheckpointError(
            f"{folder}/tokenizer.json: dropout = {model['dropout']} makes other tokens of a text "
            "each time: set it to null"
        )


def open_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer as Transformers' AutoTokenizer reads the folder.

    Raises CheckpointError when it cannot be loaded, or has no form of `tokenizer.json`.
    """
    import transformers

    refused = f"{folder} has a tokenizer that cannot be loaded"
    with rust_errors(lambda reason: CheckpointError(f"{refused}: {reason}")):
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=trust_remote_code, local_files_only=True
        )
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise CheckpointError(
            f"{folder}: {type(tokenizer).__name__} has no tokenizer.json form: "
            "save the checkpoint with a fast tokenizer"
        )
    return tokenizer


def check_tokenizer(tokenizer: Any, config: Any, task: Task, *, folder: Path) -> None:
    """Raise CheckpointError for a tokenizer whose ids or inputs the model cannot read."""
    rows = getattr(config, "vocab_size", None)
    name, largest = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", -1))
    if isinstance(rows, int) and largest >= rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has ids up to {largest} ('{name}') and the model {rows} "
            "embeddings (vocab_size): resize the embeddings with "
            f"model.resize_token_embeddings({largest + 1}), or save the model's own tokenizer"
        )
    if largest < 0:
        raise CheckpointError(f"{folder}: the tokenizer has no tokens")
    if task.name == "fill-mask" and tokenizer.mask_token_id is None:
        raise CheckpointError(
            f"{folder}: the tokenizer has no mask token, so there is nothing to fill: name it in "
            "tokenizer_config.json (mask_token)"
        )
    if not _first_tokens(tokenizer, folder):
        raise CheckpointError(
            f"{folder}: the tokenizer adds no special tokens, so an empty text has no token at "
            "all: save it with a post_processor that adds those the model was trained with"
        )
    others = unread_inputs(tokenizer.model_input_names, config, task.auto_class)
    if others:
        raise CheckpointError(
            f"{folder}: the tokenizer gives '{others[0]}', which no artifact takes: only plain "
            "texts are supported"
        )
    types = getattr(config, "type_vocab_size", None)
    if "token_type_ids" in tokenizer.model_input_names and isinstance(types, int) and types > 1:
        highest = max(tokenizer("a", "a").get("token_type_ids") or [0])
        if highest >= types:
            raise CheckpointError(
                f"{folder}: the tokenizer gives token type {highest} and the model knows {types} "
                "(type_vocab_size): save the model's own tokenizer"
            )
    _mention_differences(tokenizer, folder)


def _first_tokens(tokenizer: Any, folder: Path) -> list[int]:
    """The tokens of an empty text, the first that is read with a tokenizer."""
    refused = f"{folder} has a tokenizer that reads no text"
    with rust_errors(lambda reason: CheckpointError(f"{refused}: {reason[:160]}")):
        tokens: list[int] = tokenizer("")["input_ids"]
        tokenizer(["a"], ["a"])
    return tokens


def lower(tokenizer: Any) -> None:
    """Let a fast tokenizer lower-case its texts first, as sentence-transformers would do."""
    from tokenizers import normalizers

    inner = tokenizer.backend_tokenizer
    steps = [normalizers.Lowercase(), *([inner.normalizer] if inner.normalizer else [])]
    inner.normalizer = normalizers.Sequence(steps)


def put_prompt(tokenizer: Any, prompt: str, *, folder: Path) -> None:
    """Let a fast tokenizer put a prompt before every text; raises CheckpointError if it cannot."""
    import tokenizers

    inner = tokenizer.backend_tokenizer
    try:
        text = with_prompt(_plain(inner), prompt)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from None
    inner.post_processor = tokenizers.Tokenizer.from_str(text).post_processor
    tokenizer.prompt = prompt


def prompt_tokens(tokenizer: Any, prompt: str) -> int:
    """How many tokens sentence-transformers takes for a prompt's: all but a special one at its end.

    Source: SentenceTransformer.encode, `prompt_length`.
    """
    ids = tokenizer(prompt.strip())["input_ids"]
    return len(ids) - int(bool(ids) and ids[-1] in tokenizer.all_special_ids)


def _plain(inner: Any) -> str:
    """A tokenizer's file, without lengths of its own."""
    values = json.loads(inner.to_str())
    values["truncation"] = values["padding"] = None
    return json.dumps(values, ensure_ascii=False)


def _mention_differences(tokenizer: Any, folder: Path) -> None:
    """Say where AutoTokenizer goes by tokenizer_config.json and tokenizer.json says otherwise."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        normalizer = json.loads(tokenizer.backend_tokenizer.to_str()).get("normalizer") or {}
        if normalizer.get("type") == "BertNormalizer":
            config = folder / "tokenizer_config.json"
            told = config.is_file() and "do_lower_case" in read_object(config)
            cased = "lower-cased" if normalizer.get("lowercase") else "kept in their case"
            source = "as tokenizer_config.json says" if told else "as Transformers does by default"
            say(f"{folder} has a vocab.txt and no tokenizer.json: texts are {cased}, {source}")
        return
    written = read_object(file)
    used = json.loads(tokenizer.backend_tokenizer.to_str())
    differing = [step for step in _STEPS if _differs(step, written.get(step), used.get(step))]
    if differing:
        say(
            f"{folder}: tokenizer.json and Transformers' {type(tokenizer).__name__} differ in "
            f"{' and '.join(differing)}; as AutoTokenizer does, the class and "
            "tokenizer_config.json are followed"
        )


def _differs(step: str, written: Any, used: Any) -> bool:
    if step == "normalizer" and isinstance(written, dict) and isinstance(used, dict):
        return {k: v for k, v in written.items() if v is not None} != {
            k: v for k, v in used.items() if v is not None
        }
    kinds = [value.get("type") if isinstance(value, dict) else value for value in (written, used)]
    same_template = {"BertProcessing", "TemplateProcessing", "RobertaProcessing"}
    return kinds[0] != kinds[1] and not set(kinds) <= same_template
