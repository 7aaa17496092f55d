"""Opening a Transformers checkpoint: a local folder or a hub id, refused early when unusable."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge.bundle import Embedding
from edge.bundle.manifest import Similarity
from edge.checkpoint.tokenizer import (
    check_tokenizer,
    check_tokenizer_files,
    lower,
    open_tokenizer,
    prompt_tokens,
    put_prompt,
)
from edge.checkpoint.weights import check_weights
from edge.embeddings.head import (
    MODULES_FILE,
    Pooling,
    SentenceHead,
    encoder_folder,
    read_head,
)
from edge.errors import CheckpointError, ConfigError, nearest, unknown_name
from edge.models import MODELS, register
from edge.models.activation import read_activation
from edge.models.labels import check_objects, check_outputs, read_labels
from edge.models.positions import longest_text
from edge.models.support import check_architecture, read_settings, reads_token_types
from edge.settings import CONFIG, check_settings, read_json
from edge.storage import sha256
from edge.tasks import TASKS, Task, get_task
from edge.tokenization import without_prompt

_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "vocab.json",
)
# The key of a config.json that says whether a text classifier was trained on pairs of texts.
PAIRS_KEY = "reads_pairs"
# Tables that Transformers used to save with the weights, and computes now.
_BUFFERS = {"position_ids", "token_type_ids", "inv_freq", "embed_positions"}
# The ending of an architecture's class name tells what the checkpoint was trained for.
_TASK_BY_ENDING = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
    "ForMaskedLM": "fill-mask",
    "ForPreTraining": "fill-mask",
    "Model": "feature-extraction",
}


@dataclass(frozen=True)
class Checkpoint:
    """A checked checkpoint folder.

    source: what the user called it. config: the Transformers configuration. head: what makes the
    encoder's states one vector, for feature-extraction.
    """

    source: str
    path: Path
    config: Any
    task: Task
    allow_pickle: bool = False
    trust_remote_code: bool = False
    head: SentenceHead | None = None

    @property
    def embedding(self) -> Embedding | None:
        """What a bundle says about how a text's vector is made."""
        if self.head is None:
            return None
        return Embedding(pooling=self.head.pooling, normalized=self.head.normalize)

    @property
    def similarity(self) -> Similarity | None:
        """How two of its vectors are compared."""
        return None if self.head is None else self.head.similarity

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self.task.labels

    @property
    def weights_sha256(self) -> str:
        """Hash of the weight files."""
        found = sorted(self.path.glob("*.safetensors")) or sorted(
            self.path.glob("pytorch_model*.bin")
        )
        own = sha256(found[0]) if len(found) == 1 else sha256(self.path)
        projections = self.head.projections if self.head else ()
        if not projections:
            return own
        digests = [own, *(sha256(projection.folder) for projection in projections)]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def answers_sha256(self) -> str:
        """Hash of what decides the answers to given tokens: weights, shape, code, pooling."""
        head = None if self.head is None else asdict(self.head)
        for projection in head["projections"] if head else ():
            del projection["folder"]  # its weights count above
        code = [sha256(file) for file in sorted(self.path.glob("*.py"))]
        parts = [self.weights_sha256, sha256(self.path / "config.json"), code, head]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def open_checkpoint(
    source: str | Path,
    *,
    task: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
) -> Checkpoint:
    """Find a checkpoint and check everything that can be checked without loading its weights.

    task: Transformers' name; by default what the architecture says it was trained for. pooling,
    normalize: how feature-extraction makes one vector of a text; by default what the folder's
    sentence-transformers files say, or else the plain mean.
    Raises CheckpointError when it is missing, has no tokenizer, an unknown architecture, damaged
    weights, or pickled weights only without `allow_pickle`; ConfigError for an unknown task, or
    one that has no vectors to pool.
    """
    if task is not None and task not in TASKS:
        raise unknown_name("task", task, TASKS)
    root = locate(str(source), allow_pickle=allow_pickle)
    path = encoder_folder(root)
    if task is None and (root / MODULES_FILE).is_file():
        task = "feature-extraction"
    values = _read_config(path)
    register(str(values["model_type"]))
    if not trust_remote_code:
        _check_known(path, values)
    check_weights(path, allow_pickle=allow_pickle)
    if not any((path / name).is_file() for name in _TOKENIZERS):
        raise CheckpointError(
            f"{source} has no tokenizer: save one beside the weights with "
            "tokenizer.save_pretrained()"
        )
    check_tokenizer_files(path)
    check_objects(values, where=f"{path}/config.json")
    config = _load_config(path, trust_remote_code=trust_remote_code)
    found = _task_of(source, config, values, task)
    if not (trust_remote_code and values.get("auto_map")):
        check_architecture(config, found.auto_class, where=str(path))
        reads = read_settings(config, found.auto_class)
        check_settings(values, CONFIG, file=path / "config.json", reads=reads)
    embeds = found.name == "feature-extraction"
    if not embeds and (pooling, normalize) != (None, None):
        raise ConfigError(
            f"{source} does {found.name}: pooling and normalisation are for --task "
            "feature-extraction"
        )
    head = read_head(root).changed(pooling, normalize) if embeds else None
    if head is not None:
        found.similarity = head.similarity
    return Checkpoint(
        source=str(source),
        path=path,
        config=config,
        task=found,
        allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
        head=head,
    )


def glance(source: str | Path, task: str | None = None) -> Task | None:
    """The task of a checkpoint folder by its config.json alone, without its labels.

    For what can be refused before Transformers is loaded. task: what it is to do, if asked for.
    None where the folder does not tell; `open_checkpoint` says why.
    """
    root = Path(source)
    try:
        values = _read_config(encoder_folder(root) if root.is_dir() else root)
    except CheckpointError:
        return None
    if task is None and (root / MODULES_FILE).is_file():
        task = "feature-extraction"
    name = task or _task_name(values.get("architectures"))
    pairs = values.get(PAIRS_KEY)
    return get_task(name, pairs=pairs) if name in TASKS else None


def load_model(checkpoint: Checkpoint, *, attention: str = "sdpa") -> Any:
    """The checkpoint's model with its task's head, float32, in eval mode.

    For feature-extraction, the head is what makes the states one vector: the model answers
    {"sentence_embedding": (batch, size)}.
    attention: Transformers' `attn_implementation`; models without SDPA fall back to eager.
    Raises CheckpointError when weights are missing for the task, damaged, or not finite.
    """
    import torch
    import transformers

    auto = getattr(transformers, checkpoint.task.auto_class)
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "output_loading_info": True,
        # Reported in the loading info instead of refused without their names.
        "ignore_mismatched_sizes": True,
        "trust_remote_code": checkpoint.trust_remote_code,
        "use_safetensors": not checkpoint.allow_pickle or None,
        "config": checkpoint.config,
        "local_files_only": True,
    }
    try:
        try:
            model, info = auto.from_pretrained(
                checkpoint.path, attn_implementation=attention, **options
            )
        except (ValueError, ImportError) as error:
            if attention != "sdpa" or "scaled_dot_product" not in str(error):
                raise
            model, info = auto.from_pretrained(
                checkpoint.path, attn_implementation="eager", **options
            )
    except Exception as error:  # Transformers raises many classes here, all about this folder
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{checkpoint.source} cannot be loaded: {reason}") from error
    _check_loaded(checkpoint, model, info)
    if checkpoint.head is not None:
        head = counted_head(checkpoint) or checkpoint.head
        from edge.embeddings.encoder import sentence_encoder

        model = sentence_encoder(model, head, allow_pickle=checkpoint.allow_pickle)
    return model.eval()


def counted_head(checkpoint: Checkpoint) -> SentenceHead | None:
    """The checkpoint's head, with its prompt's tokens counted where the mean leaves them out."""
    head = checkpoint.head
    if head is None or head.include_prompt:
        return head
    tokenizer = open_tokenizer(checkpoint.path, trust_remote_code=checkpoint.trust_remote_code)
    if head.lowercase:
        lower(tokenizer)
    return replace(head, skipped=prompt_tokens(tokenizer, head.prompt))


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's own Transformers tokenizer, with what its head says of texts.

    Raises CheckpointError when it is damaged, or does not fit the model or its task.
    """
    tokenizer = open_tokenizer(checkpoint.path, trust_remote_code=checkpoint.trust_remote_code)
    check_tokenizer(tokenizer, checkpoint.config, checkpoint.task, folder=checkpoint.path)
    if getattr(checkpoint.config, "type_vocab_size", None) == 1:
        # RoBERTa's body knows one type, and would have no row for a pair's second text.
        names = tokenizer.model_input_names
        tokenizer.model_input_names = [name for name in names if name != "token_type_ids"]
    if checkpoint.head is not None and checkpoint.head.lowercase:
        lower(tokenizer)
    if checkpoint.head is not None and checkpoint.head.prompt:
        put_prompt(tokenizer, checkpoint.head.prompt, folder=checkpoint.path)
    return tokenizer


def save_checkpoint(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write what Transformers loads into a folder that is there."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    prompt = getattr(getattr(model, "description", None), "prompt", "")
    if prompt:
        # The folder says so in its own way, and would put it before texts twice.
        file = folder / "tokenizer.json"
        file.write_text(without_prompt(file.read_text(encoding="utf-8"), prompt), encoding="utf-8")
    share_weights(folder)


def share_weights(folder: Path) -> None:
    """Let all who may read a folder's `config.json` read the weights in it and in its folders.

    The library that writes these makes them private to their owner.
    """
    for weights in folder.rglob("*.safetensors"):
        shutil.copymode(folder / "config.json", weights)


def max_length(checkpoint: Checkpoint, tokenizer: Any) -> int:
    """The longest input in tokens: what positions and tokenizer both allow."""
    own = int(tokenizer.model_max_length)
    limit = checkpoint.head.max_length if checkpoint.head else None
    return int(min(longest_text(checkpoint.config) or own, own, limit or own))


def has_token_types(checkpoint: Checkpoint) -> bool:
    """Whether the model tells a text from its pair; some tokenizers offer it without need."""
    return reads_token_types(checkpoint.config, checkpoint.task.auto_class)


def reads_pairs(config: Any) -> bool | None:
    """Whether a model was trained on pairs of texts, or on single ones; None where nothing tells.

    config: Transformers' own, in which `edge distill` writes it down.
    """
    value = getattr(config, PAIRS_KEY, None)
    return value if isinstance(value, bool) else None


def count_parameters(model: Any) -> int:
    """Parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def locate(source: str, *, allow_pickle: bool = False) -> Path:
    """The folder of a checkpoint: itself, or where a hub id is kept; raises CheckpointError."""
    path = Path(source)
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{source} is a file: a checkpoint is a folder or a hub id")
    if source.count("/") > 1 or source.startswith((".", "/", "~")):
        raise CheckpointError(f"checkpoint {source} does not exist: check the path")
    import huggingface_hub

    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        return Path(
            huggingface_hub.snapshot_download(
                source, allow_patterns=patterns + (["*.bin"] if allow_pickle else [])
            )
        )
    except Exception as error:  # no network, no such id, no permission: one meaning for the user
        reason = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"no folder and no reachable hub checkpoint '{source}' ({reason})"
        ) from None


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{path} has no config.json: it is not a Transformers checkpoint")
    values = read_json(file)
    if not isinstance(values, dict) or "model_type" not in values:
        raise CheckpointError(f"{file} names no model_type: it is not a Transformers checkpoint")
    return values


def _check_known(path: Path, values: dict[str, Any]) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    name = str(values["model_type"])
    if name not in CONFIG_MAPPING_NAMES and name not in MODELS:
        guess = nearest(name, [*CONFIG_MAPPING_NAMES, *MODELS])
        hint = f", did you mean '{guess}'?" if guess else ""
        raise CheckpointError(f"{path}/config.json: unknown architecture '{name}'{hint}")


def _load_config(path: Path, *, trust_remote_code: bool) -> Any:
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(
            path, trust_remote_code=trust_remote_code, local_files_only=True
        )
        # Answers are read by name, and chunks would fit some lengths only; no number changes.
        config.return_dict, config.chunk_size_feed_forward = True, 0
        config.output_hidden_states = config.output_attentions = False
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}/config.json cannot be used: {reason}") from error
    return config


def _endings(config: Any) -> list[str]:
    """What the name of the first architecture ends with, the longest ending first."""
    return _endings_of(config.architectures)


def _endings_of(architectures: Any) -> list[str]:
    architecture = str(next(iter(architectures or []), ""))
    return [end for end in _TASK_BY_ENDING if architecture.endswith(end)]


def _task_name(architectures: Any) -> str | None:
    """What the first architecture says a checkpoint was trained for."""
    return next((_TASK_BY_ENDING[end] for end in _endings_of(architectures)), None)


def _task_of(source: str | Path, config: Any, values: dict[str, Any], name: str | None) -> Task:
    name = name or _task_name(config.architectures)
    if name is None:
        raise CheckpointError(
            f"{source} does not say what it was trained for: name it with --task "
            f"({', '.join(TASKS)})"
        )
    where, labels, activation = f"{source}/config.json", None, None
    if name in {"text-classification", "token-classification"}:
        config.id2label = read_labels(values, where=where) or config.id2label
        labels = tuple(str(config.id2label[i]) for i in range(config.num_labels))
        activation = read_activation(values, where=where)
    problem_type = getattr(config, "problem_type", None)
    # Another task's head is missed when the weights are loaded.
    if any(_TASK_BY_ENDING[end] == name for end in _endings(config)):
        check_outputs(name, problem_type, config.num_labels, where=where)
    return get_task(
        name,
        labels=labels,
        problem_type=problem_type,
        pairs=reads_pairs(config),
        activation=activation,
    )


def _unread_weights(model: Any, unexpected: Iterable[str]) -> list[str]:
    """Weights of the encoder itself that the model has no place for; a head may be any task's."""
    prefix = model.base_model_prefix
    base = {name.split(".")[0] for name, _ in model.base_model.named_children()} - {"pooler"}
    found = []
    for key in sorted(unexpected):
        parts = key.removeprefix(f"{prefix}.").split(".")
        inside_encoder = key.startswith(f"{prefix}.") or parts[0] in base
        if inside_encoder and parts[0] != "pooler" and not _BUFFERS & {*parts}:
            found.append(key)
    return found


def _check_loaded(checkpoint: Checkpoint, model: Any, info: dict[str, Any]) -> None:
    import torch

    dropped = _unread_weights(model, info["unexpected_keys"])
    if dropped:
        raise CheckpointError(
            f"{checkpoint.source} has weights that Transformers' {type(model).__name__} does not "
            f"read ('{dropped[0]}'), so its answers would not be the checkpoint's: save it with "
            "the class and config.json that it was trained with, adapters merged"
        )
    # A pooler is not part of an embedding; every other missing weight would be random.
    missing = [key for key in sorted(info["missing_keys"]) if "pooler." not in key]
    if missing:
        raise CheckpointError(
            f"{checkpoint.source} has no weights for '{missing[0]}' and so cannot do "
            f"{checkpoint.task.name}: fine-tune it first (edge distill --recipe finetune --student "
            f"{checkpoint.source} ...), or choose another --task"
        )
    if info["mismatched_keys"]:
        name, stored, expected = next(iter(sorted(info["mismatched_keys"])))
        raise CheckpointError(
            f"{checkpoint.source}: weights and config.json disagree on the shape of '{name}': "
            f"{tuple(stored)} is stored, {tuple(expected)} follows from config.json: correct it, "
            "id2label included"
        )
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise CheckpointError(
                f"{checkpoint.source}: weight '{name}' holds values that are not finite"
            )
