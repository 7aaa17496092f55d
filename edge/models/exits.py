"""Exits: heads that answer after a layer before the last, and a model that stops at one of them.

They lie beside the checkpoint they belong to, which stays as it is: `exits/config.json` says after
which layers, `exits/model.safetensors` holds the heads. Sources: Zhang et al. 2019, "Be Your Own
Teacher" (several exits, one training); Xin et al. 2020, "DeeBERT" (stopping where one is certain).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from edge.checkpoint import Checkpoint, load_model, load_tokenizer, share_weights
from edge.config import Config
from edge.errors import CheckpointError, ConfigError, UserError
from edge.models.layers import layer_prefix, states_of, with_layers
from edge.tasks import Task
from edge.tasks.text_classification import MULTI_LABEL, REGRESSION

EXITS_FOLDER = "exits"
# Tasks whose heads are small beside a layer and read nothing but its states.
TASKS = ("text-classification", "token-classification", "question-answering")
# What lies between the last layer and the head of a task, by Transformers' names.
_AFTER_LAYERS = ("final_norm", "pooler")
_TOLERANCE = 1e-4


class ExitsConfig(Config):
    """exit_layers: after which layers, counted from 1 and rising, an answer can be given.

    threshold: an answer is taken when its uncertainty, 0 to 1, is below it; see `uncertainty`.
    """

    exit_layers: tuple[PositiveInt, ...] = Field(min_length=1)
    threshold: NonNegativeFloat


class _Trunk(nn.Module):
    """Stands for the encoder of a head: gives back the states it is called with."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        for name, module in encoder.named_children():
            if name in _AFTER_LAYERS:
                self.add_module(name, copy.deepcopy(module))

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        after = dict(self.named_children())
        states = after["final_norm"](inputs_embeds) if "final_norm" in after else inputs_embeds
        pooled = after["pooler"](states) if "pooler" in after else None
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=pooled)


def new_head(model: Any) -> Any:
    """A head of the model's own kind that starts with its weights, named as they are.

    It is called with `inputs_embeds`, the states (B, L, H) that a layer gives.
    """
    encoder = model.base_model
    head = copy.deepcopy(model, {id(encoder): _Trunk(encoder)})
    return head.requires_grad_(True)


def cut(model: Any, head: Any, layer: int) -> Any:
    """A plain model that ends after `layer`, counted from 1, with the head of that exit."""
    small = type(model)(with_layers(model.config, range(layer)))
    ours, theirs = head.state_dict(), model.state_dict()
    small.load_state_dict({name: ours.get(name, theirs.get(name)) for name in small.state_dict()})
    return small.to(model.device).train(model.training)


def check_exits(model: Any, task: str) -> None:
    """Raise ConfigError where an exit would not answer as the model that is cut there."""
    name = model.config.model_type
    if task not in TASKS:
        raise ConfigError(f"exits are for {', '.join(TASKS)}: {task} has no small head to repeat")
    if layer_prefix(model) is None:
        raise ConfigError(f"{name} keeps no list of its layers, so it cannot have exits")
    ids = torch.arange(2, 8, device=model.device)[None] % model.config.vocab_size
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    training = model.training
    model.eval()
    try:
        head = new_head(model).eval()
        with torch.no_grad():
            states = model(**inputs, output_hidden_states=True).hidden_states[1]
            try:
                found = head(inputs_embeds=states, attention_mask=inputs["attention_mask"])
            except (AttributeError, IndexError, TypeError):
                raise _unfit(name) from None
            expected = cut(model, head, 1)(**inputs)
            with _watching(model, {1: lambda seen: _check_close(seen, states, name)}):
                model(**inputs)
        for key in ("logits", "start_logits", "end_logits"):
            if key in expected:
                _check_close(found[key], expected[key], name)
    finally:
        model.train(training)


def _check_close(found: Tensor, expected: Tensor, architecture: str) -> None:
    if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise _unfit(architecture)


def _unfit(architecture: str) -> ConfigError:
    return ConfigError(
        f"{architecture} does more between its layers and its head than an exit repeats: "
        "use another architecture, or a shallower student"
    )


def uncertainty(
    task: Task, outputs: Mapping[str, Tensor], mask: Tensor, special: Tensor | None = None
) -> Tensor:
    """How far from certain each text's answer is, 0 to 1, (B,).

    Of a class, the entropy of its probabilities over the largest it can be; of several labels,
    of tags and of an answer's two ends, that of the least certain one. mask: (B, L). special:
    (B, L), true on tokens whose tag nobody asks for.
    Sources: Xin et al. 2020, "DeeBERT", 3.2, there not divided by its largest value; Li et al.
    2021, "Accelerating BERT Inference for Sequence Labeling via Early-Exit", 3.2 (the largest).
    """
    real = mask.bool()
    if task.name == "question-answering":
        ends = [outputs[name].float() for name in ("start_logits", "end_logits")]
        room = real.sum(-1).clamp(min=2).log()
        found = [_entropy(end.masked_fill(~real, -torch.inf)) / room for end in ends]
        return torch.stack(found).amax(0)
    logits = outputs["logits"].float()
    if task.problem_type == MULTI_LABEL:
        pairs = torch.stack([logits, torch.zeros_like(logits)], -1)
        return _entropy(pairs).amax(-1) / math.log(2)
    values = _entropy(logits) / math.log(logits.shape[-1])
    if task.name == "token-classification":
        asked = real if special is None else real & ~special
        return values.masked_fill(~asked, 0.0).amax(-1)
    return values


def _entropy(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(-1)
    return -torch.where(log_p > -torch.inf, log_p.exp() * log_p, 0.0).sum(-1)


class EarlyExit(nn.Module):
    """A model that answers each text at the first exit that is certain enough.

    It is called as the model is and gives the answers by name, and `layers`, how many each text
    took, (B,). Texts of a batch go on together until all are answered, so that only a batch of
    one text is never computed further than it needs.
    """

    def __init__(
        self,
        model: Any,
        heads: Mapping[int, Any],
        task: Task,
        threshold: float,
        special_ids: Collection[int] = (),
    ) -> None:
        super().__init__()
        if task.problem_type == REGRESSION:
            raise ConfigError("a score has no certainty to stop by: cut the model at an exit")
        self.model = model
        self.exit_layers = tuple(sorted(heads))
        self.heads = nn.ModuleList(heads[layer] for layer in self.exit_layers)
        self.threshold = threshold
        self.task = task
        self._special = torch.tensor(sorted(special_ids), dtype=torch.long)

    @property
    def config(self) -> Any:
        """The configuration of the whole model."""
        return self.model.config

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        mask = inputs["attention_mask"]
        special = torch.isin(inputs["input_ids"], self._special.to(mask.device))
        answers: dict[str, Tensor] = {}
        layers = mask.new_zeros(len(mask), dtype=torch.long)

        def take(layer: int, found: Mapping[str, Tensor], rows: Tensor) -> None:
            for name, value in found.items():
                kept = answers.get(name, torch.zeros_like(value))
                answers[name] = torch.where(_beside(rows, value), value, kept)
            layers.masked_fill_(rows, layer)

        def visit(layer: int, head: Any, states: Tensor) -> None:
            found = self._answers(head(inputs_embeds=states, attention_mask=mask))
            doubt = uncertainty(self.task, found, mask, special)
            take(layer, found, (doubt < self.threshold) & (layers == 0))
            if bool((layers > 0).all()):
                raise _Answered

        visits = zip(self.exit_layers, self.heads, strict=True)
        try:
            with _watching(self.model, {n: partial(visit, n, head) for n, head in visits}):
                found = self._answers(self.model(**inputs))
            take(self.config.num_hidden_layers, found, layers == 0)
        except _Answered:
            pass
        return {**answers, "layers": layers}

    def depths(self, **inputs: Tensor) -> list[tuple[dict[str, Tensor], Tensor]]:
        """The answers and their uncertainty at every exit, and of the whole model at last."""
        mask = inputs["attention_mask"]
        special = torch.isin(inputs["input_ids"], self._special.to(mask.device))
        output = self.model(**inputs, output_hidden_states=True)
        states = (output["hidden_states"][layer] for layer in self.exit_layers)
        pairs = zip(self.heads, states, strict=True)
        early = [head(inputs_embeds=state, attention_mask=mask) for head, state in pairs]
        answers = [self._answers(one) for one in (*early, output)]
        return [(found, uncertainty(self.task, found, mask, special)) for found in answers]

    def _answers(self, output: Any) -> dict[str, Tensor]:
        return {name: output[name] for name in self.task.outputs}


def _beside(rows: Tensor, value: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (value.ndim - 1))


class _Answered(Exception):
    """Every text of the batch has its answer: the layers that are left need not run."""


@contextmanager
def _watching(model: Any, visits: Mapping[int, Any]) -> Iterator[None]:
    """Call `visits[layer]` with the states of that layer, counted from 1, when it has run."""
    prefix = layer_prefix(model)
    assert prefix is not None
    layers = model.get_submodule(prefix)

    def see(visit: Any, _: Any, __: Any, output: Any) -> None:
        visit(states_of(output))

    hooks = [
        layers[layer - 1].register_forward_hook(partial(see, visit))
        for layer, visit in visits.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def write_exits(folder: Path, heads: Sequence[Any], config: ExitsConfig) -> None:
    """Add exits to the checkpoint in `folder`; heads in the order of `config.exit_layers`."""
    import safetensors.torch

    target = folder / EXITS_FOLDER
    target.mkdir()
    weights = {
        f"{layer}.{name}": value.detach().cpu().contiguous()
        for layer, head in zip(config.exit_layers, heads, strict=True)
        for name, value in head.state_dict().items()
    }
    safetensors.torch.save_file(weights, target / "model.safetensors", {"format": "pt"})
    text = json.dumps(config.model_dump(mode="json"), indent=1)
    (target / "config.json").write_text(text + "\n", encoding="utf-8")
    share_weights(target)


def read_exits(checkpoint: Checkpoint) -> ExitsConfig:
    """What the exits of a checkpoint are; raises CheckpointError where it has none."""
    file = checkpoint.path / EXITS_FOLDER / "config.json"
    if not file.is_file():
        raise CheckpointError(
            f"{checkpoint.source} has no exits: train some with edge distill --recipe byot"
        )
    try:
        config = ExitsConfig.build(json.loads(file.read_text(encoding="utf-8")), where=str(file))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({error})") from None
    depth = checkpoint.config.num_hidden_layers
    if not all(layer < depth for layer in config.exit_layers):
        raise CheckpointError(
            f"{file} has exits after layers {', '.join(map(str, config.exit_layers))}, and the "
            f"model's last of {depth} layers is none: take the exits of this very model"
        )
    return config


def load_early_exit(checkpoint: Checkpoint, threshold: float | None = None) -> EarlyExit:
    """A checkpoint with its exits, in eval mode; threshold: by default the one it was given.

    Raises CheckpointError where exits are missing or damaged, ConfigError for a score.
    """
    config = read_exits(checkpoint)
    model = load_model(checkpoint)
    special = load_tokenizer(checkpoint)
    ids = set(special.all_special_ids) - {special.unk_token_id}
    heads = _load_heads(checkpoint, model, config)
    chosen = config.threshold if threshold is None else threshold
    return EarlyExit(model, heads, checkpoint.task, chosen, ids).eval()


def load_cut(checkpoint: Checkpoint, layer: int) -> Any:
    """The plain model that ends at the exit after `layer`, in eval mode.

    Raises CheckpointError where exits are missing or damaged, UserError for a layer without one.
    """
    config = read_exits(checkpoint)
    if layer not in config.exit_layers:
        raise UserError(
            f"{checkpoint.source} has exits after layers "
            f"{', '.join(map(str, config.exit_layers))}: layer {layer} is none of them"
        )
    model = load_model(checkpoint)
    return cut(model, _load_heads(checkpoint, model, config)[layer], layer).eval()


def _load_heads(checkpoint: Checkpoint, model: Any, config: ExitsConfig) -> dict[int, Any]:
    import safetensors.torch
    from safetensors import SafetensorError

    file = checkpoint.path / EXITS_FOLDER / "model.safetensors"
    heads = {layer: new_head(model).eval() for layer in config.exit_layers}
    try:
        weights = safetensors.torch.load_file(file)
        for layer, head in heads.items():
            prefix = f"{layer}."
            own = {n.removeprefix(prefix): v for n, v in weights.items() if n.startswith(prefix)}
            head.load_state_dict(own)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file} does not hold these exits: {reason}") from None
    return heads
