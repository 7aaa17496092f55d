"""How an encoder's states become one vector a text, as sentence-transformers' folders say it.

Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, section 3: pooling, then any number
of dense layers, then normalisation. All of it becomes part of the model, so part of every artifact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from edge.bundle.manifest import Similarity
from edge.console import say
from edge.errors import CheckpointError
from edge.settings import (
    DENSE,
    NORMALIZE,
    POOLING,
    SENTENCE_TRANSFORMERS,
    TRANSFORMER,
    check_settings,
    inside,
    read_json,
    read_object,
)

Pooling = Literal["mean", "cls"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MODULES_FILE = "modules.json"
PROMPTS_FILE = "config_sentence_transformers.json"
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)
# Older folders name it after the architecture.
_LENGTH_FILES = "sentence_*_config.json"
# sentence-transformers' names, in its older and its newer files.
_POOLINGS: dict[str, Pooling] = {
    "mean_tokens": "mean",
    "mean": "mean",
    "cls_token": "cls",
    "cls": "cls",
}
# Where torch.nn.modules has each.
LAYERS_OF = {
    "Identity": "linear",
    **dict.fromkeys(("Tanh", "ReLU", "GELU", "Sigmoid", "SiLU"), "activation"),
}
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Projection:
    """A dense layer after pooling. folder: where its weights are. sizes: in and out."""

    folder: Path
    sizes: tuple[int, int]
    bias: bool
    activation: str


@dataclass(frozen=True)
class SentenceHead:
    """What follows the encoder. normalize: vectors of length 1.

    max_length: the longest text in tokens it was made for; None where only the encoder limits it.
    lowercase: texts are lower-cased before they are tokenised. prompt: stands before every text.
    include_prompt: whether the mean is over the prompt's tokens too. skipped: how many tokens at
    the start it leaves out, which the tokenizer tells. similarity: how two vectors are compared.
    """

    pooling: Pooling = "mean"
    projections: tuple[Projection, ...] = ()
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False
    prompt: str = ""
    include_prompt: bool = True
    skipped: int = 0
    similarity: Similarity = "cosine"

    def changed(self, pooling: Pooling | None, normalize: bool | None) -> SentenceHead:
        """The same with what the user asked for instead; None keeps it."""
        return replace(
            self,
            pooling=pooling or self.pooling,
            normalize=self.normalize if normalize is None else normalize,
        )


def encoder_folder(path: Path) -> Path:
    """Where the Transformers checkpoint is: the folder itself, or the first of its modules."""
    if not (path / MODULES_FILE).is_file() or (path / "config.json").is_file():
        return path
    return path / _modules(path)[0][1]


def read_head(path: Path) -> SentenceHead:
    """What `modules.json` says; without one, the mean of the last hidden states.

    Raises CheckpointError for modules or modes that are not supported, naming what is.
    """
    if not (path / MODULES_FILE).is_file():
        return SentenceHead()
    modules = _modules(path)
    (first, encoder), *rest = modules
    if first != "Transformer" or not rest or rest[0][0] != "Pooling":
        raise CheckpointError(
            f"{path}/{MODULES_FILE} starts with {' and '.join(k for k, _ in modules[:2])}: only a "
            "Transformer followed by Pooling is supported"
        )
    projections = []
    normalize = False
    for kind, folder in rest[1:]:
        if kind == "Dense" and not normalize:
            projections.append(_projection(path / folder))
        elif kind == "Normalize":
            _check_normalize(path / folder)
            normalize = True
        else:
            after = " after Normalize" if kind == "Dense" else ""
            raise CheckpointError(
                f"{path}/{MODULES_FILE}: module '{kind}'{after} is not supported: "
                f"only {', '.join(_KINDS)}, in this order"
            )
    mode, includes = _pooling(path / rest[0][1])
    longest, lowercase = _limits(path / encoder)
    prompt, similarity = _prompt(path)
    return SentenceHead(
        pooling=mode,
        projections=tuple(projections),
        normalize=normalize,
        max_length=longest,
        lowercase=lowercase,
        prompt=prompt,
        include_prompt=includes or not prompt,
        similarity=similarity,
    )


def _modules(path: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module in order."""
    file = path / MODULES_FILE
    try:
        entries = sorted(read_json(file), key=lambda entry: int(entry["idx"]))
        found = [(str(e["type"]).rpartition(".")[2], str(e["path"])) for e in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} is not a list of modules ({error!r})") from None
    for _, folder in found:
        inside(file, path, folder)
    if not found:
        raise CheckpointError(f"{file} names no modules")
    return found


def _limits(encoder: Path) -> tuple[int | None, bool]:
    """The longest text in tokens, and whether texts are lower-cased."""
    files = sorted(encoder.glob(_LENGTH_FILES))
    if not files:
        return None, False
    values = read_object(files[0])
    check_settings(values, TRANSFORMER, file=files[0])
    longest = values.get("max_seq_length")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise CheckpointError(f"{files[0]}: max_seq_length = {longest!r} is not a number of tokens")
    return longest, bool(values.get("do_lower_case"))


def _prompt(path: Path) -> tuple[str, Similarity]:
    """What stands before a text that is given without the name of a prompt; how vectors compare."""
    file = path / PROMPTS_FILE
    if not file.is_file():
        return "", "cosine"
    values = read_object(file)
    check_settings(values, SENTENCE_TRANSFORMERS, file=file)
    prompts, name = values.get("prompts") or {}, values.get("default_prompt_name")
    if not isinstance(prompts, dict):
        raise CheckpointError(f"{file}: prompts must be an object of names and texts")
    prompt = "" if name is None else prompts.get(name)
    if not isinstance(prompt, str):
        raise CheckpointError(
            f"{file}: default_prompt_name = {name!r} names no text of prompts "
            f"({', '.join(map(str, prompts)) or 'none'})"
        )
    others = [str(key) for key, text in prompts.items() if text and key != name]
    if others and not prompt:
        say(f"{file}: no prompt is the default, so texts go without: {', '.join(others)}")
    similarity = values.get("similarity_fn_name") or "cosine"
    similarity = "dot" if similarity == "dot_score" else similarity
    if similarity not in SIMILARITIES:
        raise CheckpointError(
            f"{file}: similarity_fn_name = {similarity!r} is not one of {', '.join(SIMILARITIES)}"
        )
    return prompt, similarity


def _check_normalize(folder: Path) -> None:
    file = folder / "config.json"
    if file.is_file():
        check_settings(read_object(file), NORMALIZE, file=file)


def _pooling(folder: Path) -> tuple[Pooling, bool]:
    """How states become one vector, and whether a prompt's count."""
    values = read_object(folder / "config.json")
    prefix = "pooling_mode_"
    modes = [
        key.removeprefix(prefix) for key, on in values.items() if key.startswith(prefix) and on
    ]
    named = values.get("pooling_mode") or modes
    modes = list(named) if isinstance(named, list) else [named]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise CheckpointError(
            f"{folder}: pooling '{' and '.join(map(str, modes)) or 'none'}' is not supported: only "
            f"{' or '.join(POOLINGS)}"
        )
    check_settings(values, POOLING, file=folder / "config.json")
    return _POOLINGS[modes[0]], bool(values.get("include_prompt", True))


def _projection(folder: Path) -> Projection:
    values = read_object(folder / "config.json")
    activation = str(values.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in LAYERS_OF:
        raise CheckpointError(
            f"{folder}: activation '{activation}' is not supported: only {', '.join(LAYERS_OF)}"
        )
    read = values.get("module_input_name") or "sentence_embedding"
    if read != "sentence_embedding":
        raise CheckpointError(f"{folder}: a dense layer on '{read}' is not supported")
    check_settings(values, DENSE, file=folder / "config.json")
    try:
        sizes = int(values["in_features"]), int(values["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json has no sizes ({error!r})") from None
    return Projection(folder, sizes, bool(values.get("bias", True)), activation)
