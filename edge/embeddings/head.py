"""The modules after the encoder, from a sentence-transformers folder.

Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, section 3: pooling, then any number
of dense layers, then normalization. All modules become part of the model and of every artifact.
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
# Older folders name the file after the architecture.
_LENGTH_FILES = "sentence_*_config.json"
# Pooling names of older and newer sentence-transformers files.
_POOLINGS: dict[str, Pooling] = {
    "mean_tokens": "mean",
    "mean": "mean",
    "cls_token": "cls",
    "cls": "cls",
}
# Activation -> its submodule of torch.nn.modules.
LAYERS_OF = {
    "Identity": "linear",
    **dict.fromkeys(("Tanh", "ReLU", "GELU", "Sigmoid", "SiLU"), "activation"),
}
_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Projection:
    """A dense layer after pooling. folder: of its weights. sizes: input and output."""

    folder: Path
    sizes: tuple[int, int]
    bias: bool
    activation: str


@dataclass(frozen=True)
class SentenceHead:
    """The modules after the encoder. normalize: scale embeddings to length 1.

    max_length: maximum text length in tokens, None if only the encoder limits it. lowercase: texts
    are lower-cased before tokenization. prompt: text inserted before every text. include_prompt:
    pooling includes the tokens of the prompt; otherwise skipped is the number of first tokens to
    exclude, known from the tokenizer. similarity: similarity function of two embeddings.
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
        """Return a copy with the user's values; None keeps a value."""
        return replace(
            self,
            pooling=pooling or self.pooling,
            normalize=self.normalize if normalize is None else normalize,
        )


def encoder_folder(path: Path) -> Path:
    """Return the folder of the Transformers checkpoint: `path` itself, or its first module."""
    if not (path / MODULES_FILE).is_file() or (path / "config.json").is_file():
        return path
    return path / _modules(path)[0][1]


def read_head(path: Path) -> SentenceHead:
    """Read the head from `modules.json`; without it, mean pooling of the last hidden states.

    Raises CheckpointError for unsupported modules or modes, naming the supported ones.
    """
    if not (path / MODULES_FILE).is_file():
        return SentenceHead()
    modules = _modules(path)
    (first, encoder), *others = modules
    if first != "Transformer" or not others or others[0][0] != "Pooling":
        raise CheckpointError(
            f"{path}/{MODULES_FILE} starts with {' and '.join(k for k, _ in modules[:2])}: only a "
            "Transformer followed by Pooling is supported"
        )
    projections = []
    normalize = False
    for kind, folder in others[1:]:
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
    mode, includes = _pooling(path / others[0][1])
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
    """Return kind and folder of each module in order."""
    file = path / MODULES_FILE
    try:
        entries = sorted(read_json(file), key=lambda entry: int(entry["idx"]))
        modules = [(str(e["type"]).rpartition(".")[2], str(e["path"])) for e in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} is not a list of modules ({error!r})") from None
    for _, folder in modules:
        inside(file, path, folder)
    if not modules:
        raise CheckpointError(f"{file} names no modules")
    return modules


def _limits(encoder: Path) -> tuple[int | None, bool]:
    """Return the maximum text length in tokens, and whether texts are lower-cased."""
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
    """Return the default prompt and the similarity function."""
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
    """Return the pooling mode, and whether it includes the tokens of a prompt."""
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
