"""How an encoder's states become one vector a text, as sentence-transformers' folders say it.

Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084, section 3: pooling, then any number
of dense layers, then normalisation. All of it becomes part of the model, so part of every artifact.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from edge.errors import CheckpointError

if TYPE_CHECKING:
    from torch import nn

Pooling = Literal["mean", "cls"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MODULES_FILE = "modules.json"
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
WEIGHTS, _PICKLE = "model.safetensors", "pytorch_model.bin"


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
    lowercase: texts are lower-cased before they are tokenised.
    """

    pooling: Pooling = "mean"
    projections: tuple[Projection, ...] = ()
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False

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
            normalize = True
        else:
            after = " after Normalize" if kind == "Dense" else ""
            raise CheckpointError(
                f"{path}/{MODULES_FILE}: module '{kind}'{after} is not supported: "
                f"only {', '.join(_KINDS)}, in this order"
            )
    limits = sorted((path / encoder).glob(_LENGTH_FILES))
    values = _object(limits[0]) if limits else {}
    longest = values.get("max_seq_length")
    return SentenceHead(
        pooling=_pooling(path / rest[0][1]),
        projections=tuple(projections),
        normalize=normalize,
        max_length=longest if isinstance(longest, int) and longest > 0 else None,
        lowercase=bool(values.get("do_lower_case")),
    )


def sentence_encoder(encoder: Any, head: SentenceHead, *, allow_pickle: bool) -> nn.Module:
    """The encoder with what follows it, answering {"sentence_embedding": (batch, size)}.

    Raises CheckpointError for projections without weights, or with weights that do not fit.
    """
    from edge.sentences import SentenceEncoder

    return SentenceEncoder(encoder, head, dense_layers(head, allow_pickle=allow_pickle))


def dense_layers(head: SentenceHead, *, allow_pickle: bool) -> list[tuple[nn.Linear, str]]:
    """The layers after pooling, and the activation of each by its name in `torch.nn`.

    Raises CheckpointError as `sentence_encoder` does.
    """
    return [(_filled(p, allow_pickle), p.activation) for p in head.projections]


def _modules(path: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module in order."""
    file = path / MODULES_FILE
    try:
        entries = sorted(_json(file), key=lambda entry: int(entry["idx"]))
        found = [(str(e["type"]).rpartition(".")[2], str(e["path"])) for e in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} is not a list of modules ({error!r})") from None
    for _, folder in found:
        if Path(folder).is_absolute() or ".." in Path(folder).parts:
            raise CheckpointError(f"{file} points outside its folder: '{folder}'")
    if not found:
        raise CheckpointError(f"{file} names no modules")
    return found


def _pooling(folder: Path) -> Pooling:
    values = _object(folder / "config.json")
    prefix = "pooling_mode_"
    modes = [
        key.removeprefix(prefix) for key, on in values.items() if key.startswith(prefix) and on
    ]
    named = values.get("pooling_mode") or modes
    modes = [named] if isinstance(named, str) else list(named)
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise CheckpointError(
            f"{folder}: pooling '{' and '.join(map(str, modes)) or 'none'}' is not supported: only "
            f"{' or '.join(POOLINGS)}"
        )
    return _POOLINGS[modes[0]]


def _projection(folder: Path) -> Projection:
    values = _object(folder / "config.json")
    activation = str(values.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in LAYERS_OF:
        raise CheckpointError(
            f"{folder}: activation '{activation}' is not supported: only {', '.join(LAYERS_OF)}"
        )
    read = values.get("module_input_name") or "sentence_embedding"
    if read != "sentence_embedding":
        raise CheckpointError(f"{folder}: a dense layer on '{read}' is not supported")
    try:
        sizes = int(values["in_features"]), int(values["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json has no sizes ({error!r})") from None
    return Projection(folder, sizes, bool(values.get("bias", True)), activation)


def _filled(projection: Projection, allow_pickle: bool) -> nn.Linear:
    import torch

    from edge.sentences import filled

    weights = _weights(projection.folder, allow_pickle)
    try:
        layer = filled(projection, weights)
    except (RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{projection.folder}: weights do not fit: {reason}") from None
    if not all(bool(torch.isfinite(value).all()) for value in layer.parameters()):
        raise CheckpointError(f"{projection.folder}: weights hold values that are not finite")
    return layer


def _weights(folder: Path, allow_pickle: bool) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if (folder / WEIGHTS).is_file():
        try:
            return load_file(folder / WEIGHTS)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{folder / WEIGHTS} is corrupted ({error})") from None
    if not (folder / _PICKLE).is_file():
        raise CheckpointError(f"{folder} has no weights ({WEIGHTS})")
    if not allow_pickle:
        raise CheckpointError(
            f"{folder} has pickled weights only, which can run code when loaded: convert them to "
            "safetensors, or pass --allow-pickle if you trust their source"
        )
    try:
        found: dict[str, Any] = torch.load(folder / _PICKLE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many classes here, all about this file
        raise CheckpointError(f"{folder / _PICKLE} is corrupted ({type(error).__name__})") from None
    return found


def _object(file: Path) -> dict[str, Any]:
    values = _json(file)
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} must hold an object")
    return values


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read as JSON ({error})") from None
