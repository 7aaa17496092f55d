"""Two encoders whose answers are added, as residual distillation makes them.

Source: Gao, Wang and Wan 2020, "Residual Error Based Knowledge Distillation": a second model learns
what the first one lacks, and both are deployed together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import (
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from edge.models import MODELS
from edge.models import register as register_own
from edge.models.base import register_classes
from edge.models.inputs import accepted
from edge.models.positions import longest_text


@strict
class SumConfig(PreTrainedConfig):
    """Two configurations, as dictionaries; sizes at the top are those of the first.

    max_position_embeddings: the longest input in tokens that both can read.
    """

    model_type = "sum"

    parts: list[dict[str, Any]] | None = None
    vocab_size: int = 30522
    hidden_size: int = 768
    embedding_size: int = 768
    num_hidden_layers: int = 12
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    @classmethod
    def of(cls, first: Any, second: Any) -> SumConfig:
        """The configuration of the sum of two models with the same labels and vocabulary."""
        parts = [first.to_dict(), second.to_dict()]
        return cls(
            parts=parts,
            vocab_size=first.vocab_size,
            hidden_size=first.hidden_size,
            # What the first layer reads: Transformers' own architectures have widened it by then.
            embedding_size=first.embedding_size
            if first.model_type in MODELS
            else first.hidden_size,
            num_hidden_layers=first.num_hidden_layers,
            max_position_embeddings=min(longest_text(one) or 512 for one in (first, second)),
            type_vocab_size=getattr(first, "type_vocab_size", 0),
            pad_token_id=first.pad_token_id,
            id2label=first.id2label,
            label2id=first.label2id,
            problem_type=first.problem_type,
        )


class SumPreTrainedModel(PreTrainedModel):
    """Runs both parts and adds what they answer; hidden states are those of the first."""

    config_class = SumConfig
    base_model_prefix = "first"
    auto_class: Any = None
    answers: tuple[str, ...] = ("logits",)
    output_class: Any = None
    _supports_sdpa = True

    def __init__(self, config: SumConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.first, self.second = (self._part(values) for values in config.parts or ())
        self.post_init()

    def _part(self, values: Mapping[str, Any]) -> Any:
        values = dict(values)
        kind = values.pop("model_type")
        register_own(kind)
        config = AutoConfig.for_model(kind, **values)
        names = ("id2label", "label2id", "problem_type")
        for name in names:
            setattr(config, name, getattr(self.config, name))
        chosen = self.config._attn_implementation
        return type(self).auto_class.from_config(config, attn_implementation=chosen)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> Any:
        """input_ids, attention_mask, token_type_ids: (batch, sequence)."""
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        read = accepted(self.first, inputs)
        first = self.first(**read, output_hidden_states=output_hidden_states)
        second = self.second(**accepted(self.second, inputs))
        added = {name: first[name] + second[name] for name in type(self).answers}
        return type(self).output_class(**added, hidden_states=first.hidden_states)


class SumForSequenceClassification(SumPreTrainedModel):
    """Logits of the text, (batch, labels)."""

    auto_class = AutoModelForSequenceClassification
    output_class = SequenceClassifierOutput


class SumForTokenClassification(SumPreTrainedModel):
    """Logits of each token, (batch, sequence, labels)."""

    auto_class = AutoModelForTokenClassification
    output_class = TokenClassifierOutput


class SumForQuestionAnswering(SumPreTrainedModel):
    """A start and an end logit for each token, (batch, sequence) each."""

    auto_class = AutoModelForQuestionAnswering
    answers = ("start_logits", "end_logits")
    output_class = QuestionAnsweringModelOutput


_CLASSES: Sequence[type[SumPreTrainedModel]] = (
    SumForSequenceClassification,
    SumForTokenClassification,
    SumForQuestionAnswering,
)


def add(first: Any, second: Any) -> Any:
    """The sum of two models of one task, that starts by answering what the first one answers.

    The second one's last layer is set to 0. Raises ValueError for a task that has no sum.
    """
    own = {kind.auto_class: kind for kind in _CLASSES}
    kinds = [kind for auto, kind in own.items() if type(first) in auto._model_mapping.values()]
    if not kinds:
        raise ValueError(f"{type(first).__name__} gives no answers that can be added")
    model = kinds[0](SumConfig.of(first.config, second.config))
    model.first, model.second = first, second
    outputs = model.num_labels if kinds[0] is not SumForQuestionAnswering else 2
    last = [m for m in second.modules() if isinstance(m, nn.Linear) and m.out_features == outputs]
    with torch.no_grad():
        for parameter in last[-1].parameters():
            parameter.zero_()
    return model


def register() -> None:
    """Make Transformers' Auto classes know `model_type` sum; again is harmless."""
    register_classes(SumConfig, {kind.auto_class: kind for kind in _CLASSES})
